// Package cli is what the commands have in common: how a command line is parsed and carried out, what its exit status
// says, how signals end it, and what is printed where.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/biolora/biolora/internal/visible"
)

// Exit statuses.
const (
	Done        = 0
	Failed      = 1
	Usage       = 2
	Interrupted = 3
)

// Program is a program of several commands.
type Program struct {
	Name  string
	About string // a few sentences; the help adds the exit statuses to them
	// Stopped is what is said when a signal has ended a command: "nothing was written".
	Stopped string
	// Defaults are flags' values where they are not given, by their names; they are added to the help. A value that is
	// zero says nothing.
	Defaults map[string]any
}

// Streams are where a command reads and writes.
type Streams struct {
	In  io.Reader
	Out *bufio.Writer // flushed at the end; what cannot be written makes the command fail
	Err io.Writer
	// Stdout is what Out writes to, to find out whether it is a terminal.
	Stdout io.Writer
}

// UsageError is a command line that makes no sense, as opposed to a file that does not.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// StoppedError is the end of a command by a signal. Note is said then instead of what Program.Stopped says: what was kept,
// and how to go on.
type StoppedError struct {
	Note string
	Err  error // the context's
}

func (e StoppedError) Error() string { return e.Err.Error() + e.Note }
func (e StoppedError) Unwrap() error { return e.Err }

// Usagef describes a UsageError.
func Usagef(format string, a ...any) error { return UsageError{fmt.Errorf(format, a...)} }

// Main carries out the process's command line and exits. Line is a pointer to a struct that kong parses into; its
// commands have a method Run(context.Context, *Streams) error. SIGINT and SIGTERM end the context.
func (p Program) Main(line any) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	// A pipe that nobody reads any more is an error of the next write then, not the process's death.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(p.Run(ctx, line, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Run carries out a command line and returns its exit status.
func (p Program) Run(ctx context.Context, line any, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &Streams{In: stdin, Out: bufio.NewWriterSize(stdout, 1<<16), Err: stderr, Stdout: stdout}
	err := p.carryOut(ctx, line, args, s)
	if flushed := s.Out.Flush(); flushed != nil && err == nil {
		err = fmt.Errorf("standard output: %w", flushed)
	}
	say := func(format string, a ...any) {
		text := strings.ReplaceAll(fmt.Sprintf(format, a...), "\n", "\n"+strings.Repeat(" ", len(p.Name)+2))
		fmt.Fprintf(stderr, "%s: %s\n", p.Name, visible.Text(text))
	}
	switch {
	case err == nil:
		return Done
	case errors.Is(err, syscall.EPIPE): // whoever read the output has enough of it
		return Done
	case errors.Is(err, context.Canceled):
		note := p.Stopped
		if stopped := new(StoppedError); errors.As(err, stopped) {
			note = stopped.Note
		}
		say("interrupted%s", note)
		return Interrupted
	case errors.As(err, new(UsageError)):
		say("%v", err)
		fmt.Fprintf(stderr, "%s --help lists the commands, and %s COMMAND --help their flags.\n", p.Name, p.Name)
		return Usage
	}
	say("%v", err)
	return Failed
}

// carryOut parses a command line and runs its command, or prints help.
func (p Program) carryOut(ctx context.Context, line any, args []string, s *Streams) error {
	helped := false
	k, err := kong.New(line,
		kong.Name(p.Name),
		kong.Description(p.About+"\n\nExit status: 0 done, 1 failed, 2 wrong usage, 3 interrupted."),
		kong.Writers(s.Out, io.Discard),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
	)
	if err != nil {
		return err
	}
	for _, f := range slices.Concat(k.Model.Flags, nodeFlags(k.Model.Children)) {
		if v, ok := p.Defaults[f.Name]; ok {
			f.HasDefault, f.Default = true, fmt.Sprint(v)
			f.Help += fmt.Sprintf(" Default: %v.", v)
		}
	}
	parsed, err := k.Parse(JoinNegative(args))
	if helped {
		return nil
	}
	if err != nil {
		return UsageError{err}
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(s)
}

// JoinNegative makes "--max-steps=-1" of "--max-steps -1": a number after a flag is its value.
func JoinNegative(args []string) []string {
	var out []string
	for _, a := range args {
		last := len(out) - 1
		if _, err := strconv.ParseFloat(a, 64); err == nil && strings.HasPrefix(a, "-") && last >= 0 &&
			strings.HasPrefix(out[last], "--") && !strings.Contains(out[last], "=") {
			out[last] += "=" + a
			continue
		}
		out = append(out, a)
	}
	return out
}

// nodeFlags are the flags of commands.
func nodeFlags(commands []*kong.Node) (flags []*kong.Flag) {
	for _, c := range commands {
		flags = append(flags, c.Flags...)
		flags = append(flags, nodeFlags(c.Children)...)
	}
	return flags
}
