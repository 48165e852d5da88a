package pickle

import (
	"errors"
	"fmt"
	"math"
	"os"
)

// fileSize returns the bytes of a regular file.
func fileSize(f *os.File) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("not a regular file")
	}
	if info.Size() > math.MaxInt {
		return 0, fmt.Errorf("%d bytes are more than this machine can address", info.Size())
	}
	return int(info.Size()), nil
}
