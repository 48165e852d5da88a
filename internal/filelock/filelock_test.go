//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package filelock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDir(t *testing.T) {
	dir := t.TempDir()
	release, err := Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	_, err = Dir(dir)
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("process %d on %s, since 2", os.Getpid(), host)) {
		t.Errorf("held: %v", err)
	}
	release()
	if release, err = Dir(dir); err != nil {
		t.Fatalf("after its end: %v", err)
	}
	release()
	if _, err := Dir(filepath.Join(dir, "not")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestHolder reads lock files that say something else.
func TestHolder(t *testing.T) {
	for text, want := range map[string]string{
		"": "it has not said which", "\n\n": "it has not said which",
		"a\x1b[31m\nb\xff": "a [31m b?", strings.Repeat("x", 1000): strings.Repeat("x", 300),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := File(f); err != nil {
			t.Fatal(err)
		}
		if _, err := Dir(dir); err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink("elsewhere", filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}
