//go:build unix

package safetensors

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapFile maps a whole file for reading. Should another process make the file shorter meanwhile, reading behind its
// end would crash this one. Private mappings work on more network file systems than shared ones and cost the same.
func mapFile(path string) ([]byte, func() error, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if size == 0 {
		return nil, func() error { return nil }, nil // nothing cannot be mapped
	}
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("mapping %d bytes: %w", size, err)
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
