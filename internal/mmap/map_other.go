//go:build !unix

package mmap

import (
	"io"
	"os"
)

// mapping has nothing to remember: the bytes are a copy.
type mapping struct{}

// mapFile reads the file, where there is nothing better, and closes it.
func (m *File) mapFile(f *os.File, size int) error {
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return err
	}
	m.Data = data
	return f.Close()
}

// Close lets go of the file. Data must not be touched afterwards.
func (m *File) Close() error {
	m.Data = nil
	return nil
}

// Unchanged returns nil: Data is a copy of the file as it was.
func (m *File) Unchanged() error { return nil }

// Release does nothing here.
func Release([]byte) {}

// Mapped returns false: Data is a copy.
func Mapped([]byte) bool { return false }

// Merge returns nil: nothing is mapped.
func Merge([][]byte) [][]byte { return nil }

// Populate does nothing here.
func Populate([]byte) error { return nil }

// Drop does nothing here.
func Drop([]byte) {}

// Guard returns what f returns: no byte of a copy can be gone.
func Guard(f func() error) error { return f() }

// PanicOnFault does nothing here.
func PanicOnFault() (old bool) { return false }

// Restore does nothing here.
func Restore(bool) {}

// Fault returns nil: there are no faults.
func Fault(recovered any) error { return nil }
