// Package atomicfile writes a file so that its name shows the whole new contents or what was there before, never a
// part.
package atomicfile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Write makes the file at path of what write writes: into a temporary file beside it, flushed to the disk, then
// renamed. If anything fails, the temporary file is removed and path is as it was. Errors name path. Where path is a
// symbolic link, the link is replaced.
func Write(path string, write func(w io.Writer) error) (err error) {
	f, err := create(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("writing %s: %w", path, err), ignoreClosed(f.Close()))
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<18)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// WriteJSON makes the file at path of v, as indented JSON. See Write.
func WriteJSON(path string, v any) error {
	return Write(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	})
}

// Exactly has write write size bytes to w: no more are let through, and fewer are an error.
func Exactly(w io.Writer, size uint64, write func(w io.Writer) error) error {
	c := &counter{w: w, size: size, left: size}
	if err := write(c); err != nil {
		return err
	}
	if c.left != 0 {
		return fmt.Errorf("%d bytes of data, want %d", size-c.left, size)
	}
	return nil
}

// counter refuses to write more than is left.
type counter struct {
	w          io.Writer
	size, left uint64
}

func (c *counter) Write(p []byte) (int, error) {
	if uint64(len(p)) > c.left {
		return 0, fmt.Errorf("at least %d bytes of data, want %d", c.size-c.left+uint64(len(p)), c.size)
	}
	n, err := c.w.Write(p)
	c.left -= uint64(n)
	return n, err
}

// create opens a new file beside path. The mode is that of any new file, which os.CreateTemp's is not.
func create(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	for {
		name := filepath.Join(dir, fmt.Sprintf(".%s.%08x.tmp", base, rand.Uint32()))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", path, err)
		}
		return f, nil
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// syncDir makes the rename last. Not every system can flush a directory; those that cannot refuse, and nothing is lost.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	_ = d.Sync()
	return d.Close()
}
