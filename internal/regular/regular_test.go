//go:build unix

package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("12345"), 0o600), unix.Mkfifo(at("pipe"), 0o600), os.Symlink(at("file"), at("link")),
		os.Symlink(at("pipe"), at("link to the pipe")), os.Symlink(at("loop"), at("loop"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		at("file"): "", at("link"): "",
		at("pipe"):             at("pipe") + " is not a regular file",
		at("link to the pipe"): at("link to the pipe") + " is not a regular file",
		"/dev/zero":            "/dev/zero is not a regular file",
		dir:                    dir + " is a directory: name the file in it",
		at("loop"):             "stat " + at("loop") + ": too many levels of symbolic links",
	} {
		data, err := ReadFile(name, 5)
		switch {
		case want == "" && (err != nil || string(data) != "12345"):
			t.Errorf("%s: %q, %v", name, data, err)
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("%s: %v\nwant %s", name, err, want)
		}
	}
	if _, err := ReadFile(at("file"), 4); err == nil || err.Error() != at("file")+" has more than 4 bytes" {
		t.Error(err)
	}
	if _, err := ReadFile(at("absent"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
