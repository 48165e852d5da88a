// Command lora-train fine-tunes a LLaMA checkpoint with LoRA on instruction data and saves a PEFT adapter.
//
// A command line is resolved to a Run (parse.go, from flags, a YAML file, a preset and the defaults), and the Run is
// carried out (run.go). Without arguments it is the demo (demo.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/biolora/biolora/internal/visible"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 3
)

func main() {
	ctx := interruptible(os.Stderr, notice(os.Args[1:]))
	// Whoever reads the output may leave before the run ends. What was learnt is not lost by that: log.txt has the rest.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// notice is what an interrupt is answered with. A benchmark ends at once.
func notice(args []string) string {
	if slices.Contains(args, "--benchmark") {
		return "stopping"
	}
	return "stopping after this micro-batch and saving; once more to exit at once"
}

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP ends, which is answered with notice; the
// second one ends the process. A hang-up that is ignored (nohup) stays ignored.
func interruptible(stderr io.Writer, notice string) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		<-signals
		fmt.Fprintln(stderr, "\n"+notice)
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()
	return ctx
}

// command carries out a command line and returns its exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	r, err := parse(args, stdout)
	if err == nil {
		err = r.run(ctx, stdout, stderr)
	}
	switch {
	case err == nil, errors.Is(err, errHelp), errors.Is(err, syscall.EPIPE):
		return exitDone
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "lora-train:", indent(visible.Text(err.Error())))
	if errors.As(err, new(usageError)) {
		fmt.Fprintln(stderr, "lora-train --help lists all flags.")
		return exitUsage
	}
	return exitFailed
}

// indent sets the lines of a message with several problems below one another.
func indent(message string) string {
	return strings.ReplaceAll(message, "\n", "\n            ")
}
