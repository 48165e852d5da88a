//go:build unix && !linux

package mmap

import (
	"errors"

	"golang.org/x/sys/unix"
)

// populate asks the system to read pages, and leaves waiting for them to the caller.
func populate(pages []byte) error {
	_ = unix.Madvise(pages, unix.MADV_WILLNEED) // advice
	return errors.ErrUnsupported
}

// Drop does nothing here.
func Drop([]byte) {}
