package stream

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident is how many bytes of the pages of data are in memory, whether mapped or in the system's cache of files.
func resident(t *testing.T, data []byte) int {
	t.Helper()
	page := unix.Getpagesize()
	start := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	from := start &^ uintptr(page-1)
	length := start + uintptr(len(data)) - from
	vec := make([]byte, (int(length)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, from, length, uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, v := range vec {
		n += int(v&1) * page
	}
	return n
}

// What is used is in memory, and no more than the budget is, but for pages at the ends of ranges.
func TestResidency(t *testing.T) {
	const n, size = 5, 32 << 20
	parts, path := layered(t, n, size)
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		t.Skip("the temporary directory is in memory, from which nothing is dropped")
	}
	const layers = 2
	s := New(parts, (layers+1)*size)
	defer s.Close()
	order := sweep(n, 0)
	for pass := range 3 {
		s.Begin(order)
		for _, i := range order {
			if err := s.Use(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			total, whole := 0, 0
			for j := range parts {
				there := 0
				for _, r := range parts[j].Ranges {
					there += resident(t, r)
				}
				if j == i {
					whole = there
				}
				total += there
			}
			if whole < size {
				t.Errorf("pass %d: %d of part %d's %d bytes are in memory while it is used", pass, whole, i, size)
			}
			const slack = 24 << 20 // what the kernel reads ahead of its own accord, and its units that it drops only as a whole
			if pass > 0 && total > (layers+1)*size+slack {
				t.Errorf("pass %d, part %d: %d bytes are in memory, of a budget of %d", pass, i, total, (layers+1)*size)
			}
		}
	}
}
