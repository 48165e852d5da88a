// Package mmap maps whole files for reading, and turns what happens to them meanwhile into errors.
//
// A mapped file costs nothing until it is touched, but it stays the file: another process may cut it short, or write
// into it. What is touched under Guard and no longer there is then an error that names the file; Unchanged tells of
// any other change. A file that is replaced by renaming another over it is not changed: the map keeps the old one.
// Where files cannot be mapped they are read as a whole, and none of this can happen.
package mmap

import (
	"errors"
	"fmt"
	"math"
	"os"
)

// File is the bytes of a file. They are its pages: nothing is read before it is touched, and nothing is a copy.
type File struct {
	Data []byte // nil for an empty file
	path string
	mapping
}

// Open maps the file at path, which must be a regular one. The error does not name path.
func Open(path string) (*File, error) {
	info, err := os.Stat(path) // before opening: that of a pipe would wait for a writer
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	m, err := open(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// Parse maps the file at path and has parse read it, under Guard. What parse returns uses the file's bytes until the File
// is closed. The error names path.
func Parse[T any](path string, parse func(data []byte, path string) (T, error)) (parsed T, m *File, err error) {
	if m, err = Open(path); err != nil {
		return parsed, nil, fmt.Errorf("%s: %w", path, err)
	}
	err = Guard(func() (err error) {
		parsed, err = parse(m.Data, path)
		return err
	})
	if err != nil {
		return parsed, nil, errors.Join(err, m.Close())
	}
	return parsed, m, nil
}

func open(f *os.File, path string) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() { // it was when Open looked
		return nil, errors.New("not a regular file")
	}
	if info.Size() > math.MaxInt {
		return nil, fmt.Errorf("%d bytes are more than this machine can address", info.Size())
	}
	m := &File{path: path}
	if info.Size() == 0 {
		return m, f.Close() // nothing cannot be mapped
	}
	return m, m.mapFile(f, int(info.Size()))
}

// cause drops the path that package os puts before an error.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
