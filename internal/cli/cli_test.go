package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
)

// line is a program of one command for each end that a command can come to.
type line struct {
	Say  say  `cmd:"" help:"Says a word."`
	Fail fail `cmd:"" help:"Fails."`
}

type say struct {
	Word  string `required:"" help:"What to say."`
	Times int    `placeholder:"N" help:"How often."`
}

func (c *say) Run(_ context.Context, s *Streams) error {
	_, err := s.Out.WriteString(strings.Repeat(c.Word, c.Times))
	return err
}

type fail struct {
	How string `enum:"usage,plain,stopped,noted,odd,late" required:"" help:"How."`
}

func (c *fail) Run(ctx context.Context, s *Streams) error {
	switch c.How {
	case "usage":
		return Usagef("makes no sense")
	case "stopped":
		return fmt.Errorf("at work: %w", ctx.Err())
	case "noted":
		return fmt.Errorf("at work: %w", StoppedError{"; half is kept", ctx.Err()})
	case "late":
		s.Out.WriteString("half of the answer")
	case "odd":
		return errors.Join(errors.New("\x1b[2J one"), errors.New("two"))
	}
	return errors.New("it does not work")
}

var program = Program{Name: "prog", About: "Does things.", Stopped: ", nothing was said", Defaults: map[string]any{"times": 1}}

func run(ctx context.Context, stdout io.Writer, args ...string) (int, string) {
	var stderr bytes.Buffer
	return program.Run(ctx, &line{}, args, strings.NewReader(""), stdout, &stderr), stderr.String()
}

func TestRun(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	const hint = "prog --help lists the commands, and prog COMMAND --help their flags.\n"
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"say --word=hello", Done, "hello", ""},
		{"say --word=ha --times=2", Done, "haha", ""},
		{"fail --how=plain", Failed, "", "prog: it does not work\n"},
		{"fail --how=usage", Usage, "", "prog: makes no sense\n" + hint},
		{"fail --how=stopped", Interrupted, "", "prog: interrupted, nothing was said\n"},
		{"fail --how=noted", Interrupted, "", "prog: interrupted; half is kept\n"},
		{"fail --how=odd", Failed, "", "prog: \\x1b[2J one\n      two\n"},
		{"say --wird=hello", Usage, "", "prog: unknown flag --wird, did you mean \"--word\"?\n" + hint},
		{"sya --word=hello", Usage, "", "prog: unexpected argument sya, did you mean \"say\"?\n" + hint},
		{"say", Usage, "", "prog: missing flags: --word=STRING\n" + hint},
	} {
		var stdout bytes.Buffer
		code, stderr := run(stopped, &stdout, strings.Fields(c.args)...)
		if code != c.code || stdout.String() != c.stdout || stderr != c.stderr {
			t.Errorf("%s: %d, %q, %q", c.args, code, stdout.String(), stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	for args, want := range map[string]string{"--help": "Does things.", "say --help": "How often. Default: 1."} {
		var stdout bytes.Buffer
		code, stderr := run(t.Context(), &stdout, strings.Fields(args)...)
		if code != Done || !strings.Contains(stdout.String(), want) || stderr != "" {
			t.Errorf("%s: %d, %q, %q", args, code, stdout.String(), stderr)
		}
	}
}

// full is a writer that fails.
type full struct{ err error }

func (f full) Write([]byte) (int, error) { return 0, f.err }

func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range []string{"say --word=hello", "say --word=" + strings.Repeat("x", 1<<17), "--help"} {
		code, stderr := run(t.Context(), full{syscall.ENOSPC}, strings.Fields(args)...)
		if code != Failed || !strings.Contains(stderr, "no space left on device") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%.20s to a full disk: %d, %q", args, code, stderr)
		}
		code, stderr = run(t.Context(), full{syscall.EPIPE}, strings.Fields(args)...)
		if code != Done || stderr != "" {
			t.Errorf("%.20s to a closed pipe: %d, %q", args, code, stderr)
		}
	}
	for _, err := range []error{syscall.ENOSPC, syscall.EPIPE} { // does not hide what went wrong before
		if code, stderr := run(t.Context(), full{err}, "fail", "--how=late"); code != Failed || stderr != "prog: it does not work\n" {
			t.Errorf("%v: %d, %q", err, code, stderr)
		}
	}
}
