package mmap

import (
	"os"

	"golang.org/x/sys/unix"
)

// populate reads pages and maps them (Linux 5.14 and later).
func populate(pages []byte) error { return unix.Madvise(pages, unix.MADV_POPULATE_READ) }

// Drop takes the pages that lie wholly in data, which is part of a mapped file, out of memory, the system's cache of the
// file included, unless another process has them mapped or they have not been written to the disk yet. They are read
// again when they are touched again.
func Drop(data []byte) {
	m, at := find(data)
	if m == nil {
		return
	}
	from, to := pageBefore(at+os.Getpagesize()-1), pageBefore(at+len(data))
	if at+len(data) == len(m.Data) {
		to = len(m.Data) // nobody else has the last page's rest
	}
	if from >= to {
		return
	}
	// Both save memory and do nothing else.
	_ = unix.Madvise(m.Data[from:to], unix.MADV_DONTNEED)
	_ = unix.Fadvise(int(m.file.Fd()), int64(from), int64(to-from), unix.FADV_DONTNEED)
}
