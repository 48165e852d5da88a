// Command lora-export turns adapters into what other programs load. "lora-export merge" adds an adapter to the weights
// of its base model and writes a Hugging Face checkpoint.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 3
)

// commandLine is what the flags are parsed into.
type commandLine struct {
	Merge merge `cmd:"" help:"Add an adapter to its base model and write the result as a Hugging Face checkpoint."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command carries out a command line and returns its exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var line commandLine
	helped := false
	k, err := kong.New(&line,
		kong.Name("lora-export"),
		kong.Description("Turns LoRA adapters into what other programs load.\n\nExit status: 0 done, 1 failed, 2 wrong usage, 3 interrupted."),
		kong.Writers(stdout, io.Discard),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "lora-export:", err)
		return exitFailed
	}
	_, err = k.Parse(args)
	switch {
	case helped:
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "lora-export: %v\nlora-export --help and lora-export merge --help list all flags.\n", err)
		return exitUsage
	}
	switch err := line.Merge.run(ctx, stdout, stderr); {
	case err == nil:
		return exitDone
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "lora-export: interrupted, nothing was written")
		return exitInterrupted
	default:
		fmt.Fprintln(stderr, "lora-export:", strings.ReplaceAll(err.Error(), "\n", "\n             "))
		return exitFailed
	}
}
