package mmap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"", "some bytes"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(f.Data) != content {
			t.Errorf("mapped %q, want %q", f.Data, content)
		}
		if err := errors.Join(f.Close(), f.Close()); err != nil {
			t.Error(err)
		}
		if f.Data != nil {
			t.Error("the data outlives Close")
		}
	}
	if _, err := Open(dir); err == nil || err.Error() != "not a regular file" {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
}

func TestParse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("some bytes"), 0o644); err != nil {
		t.Fatal(err)
	}
	first := func(data []byte, name string) (byte, error) {
		if name != path {
			t.Errorf("parse is told %s", name)
		}
		return data[0], nil
	}
	got, f, err := Parse(path, first)
	if err != nil || got != 's' {
		t.Fatalf("%c, %v", got, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	bad := errors.New("no such format")
	if _, f, err := Parse(path, func([]byte, string) (int, error) { return 0, bad }); !errors.Is(err, bad) || f != nil {
		t.Errorf("%v, %v", f, err)
	}
	if _, _, err := Parse(path+".not", first); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), path+".not: ") {
		t.Error(err)
	}
}
