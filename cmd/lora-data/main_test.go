package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/golden"
)

// asCommand makes the test's binary the command itself, for tests of signals, pipes and exit statuses.
const asCommand = "LORA_DATA_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// child is the command as a process of its own.
func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe, args...)
	c.Env = append(os.Environ(), asCommand+"=1")
	return c
}

// execute carries out a command line with what it reads from standard input.
func execute(stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	return executeContext(context.Background(), stdin, args...)
}

func executeContext(ctx context.Context, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = program.Run(ctx, &commandLine{}, args, stdin, &out, &errs)
	return code, out.String(), errs.String()
}

// must carries out a command line that does its work and says nothing else.
func must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	code, stdout, stderr := execute(strings.NewReader(stdin), args...)
	if code != cli.Done || stderr != "" {
		t.Fatalf("%s: exit status %d, %q", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// own is a path in testdata.
func own(t *testing.T, elem ...string) string {
	return filepath.Join(append([]string{golden.Root(t), "testdata"}, elem...)...)
}

// write makes a directory with files and returns its path.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHelp(t *testing.T) {
	for _, command := range []string{"", "generate", "classify", "stats", "convert", "mix", "preview", "tokenize"} {
		code, stdout, stderr := execute(strings.NewReader(""), append(strings.Fields(command), "--help")...)
		if code != cli.Done || !strings.Contains(stdout, "lora-data") || stderr != "" {
			t.Errorf("%s: %d, %q, %q", command, code, stdout, stderr)
		}
		if command != "" && (!strings.Contains(stdout, "\nExamples:\n") || !strings.Contains(stdout, "\n    lora-data "+command+" ") && command != "tokenize") {
			t.Errorf("%s: the help has no examples:\n%s", command, stdout)
		}
	}
}
