// Package mmap maps whole files for reading.
package mmap

import (
	"errors"
	"fmt"
	"math"
	"os"
)

// File is the bytes of a file. They are its pages: nothing is read before it is touched, and nothing is a copy.
// Should another process make the file shorter meanwhile, touching what is gone crashes this one.
type File struct {
	Data  []byte // nil for an empty file
	unmap func() error
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
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, cause(err)
	}
	if info.Size() > math.MaxInt {
		return nil, fmt.Errorf("%d bytes are more than this machine can address", info.Size())
	}
	if info.Size() == 0 {
		return &File{}, nil // nothing cannot be mapped
	}
	return mapFile(f, int(info.Size()))
}

// cause drops the path that package os puts before an error.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Close unmaps the file. Data must not be touched afterwards.
func (f *File) Close() error {
	unmap := f.unmap
	f.Data, f.unmap = nil, nil
	if unmap == nil {
		return nil
	}
	return unmap()
}
