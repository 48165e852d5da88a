//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/biolora/biolora/internal/cli"
)

// A named pipe that nobody writes to does not keep the command from being interrupted.
func TestInterruptedBeforeTheFirstWriter(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, stdout, stderr := executeContext(ctx, nil, "tokenize", "--model", own(t, "tokenizer", "sp.json"), "--in", pipe)
	if code != cli.Interrupted || stdout != "" || stderr != "lora-data: interrupted\n" {
		t.Errorf("exit status %d, %q, %q", code, stdout, stderr)
	}
	w, err := os.OpenFile(pipe, os.O_RDWR, 0) // lets the waiting goroutine go on
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}
