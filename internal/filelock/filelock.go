// Package filelock keeps two processes from writing to the same file or directory. The system takes a lock off when the
// process that holds it ends, however it ends. Where a system or a file system has no locks, every lock is granted.
package filelock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// ErrHeld says that another process, or another file of this one, holds a lock.
var ErrHeld = errors.New("another process is at work there")

// name is the file in a directory that is locked. It stays when the lock is taken off: to remove it could remove that of
// the next process.
const name = ".lock"

// Dir locks a directory. Where another process holds it, the error is an ErrHeld that says which, on what host, and since
// when. release takes the lock off.
func Dir(dir string) (release func(), err error) {
	path := filepath.Join(dir, name)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err = File(f); errors.Is(err, ErrHeld) {
		err = fmt.Errorf("%s: %w: %s", dir, ErrHeld, holder(f))
	}
	if err == nil {
		err = sign(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// sign writes who holds the lock.
func sign(f *os.File) error {
	host, err := os.Hostname()
	if err != nil {
		host = "a host without a name"
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "process %d on %s, since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.DateTime+" MST"))
	return err
}

// holder reads who holds the lock.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 300))
	clean := strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text), "?")))
	if err != nil || clean == "" {
		return "it has not said which"
	}
	return clean
}
