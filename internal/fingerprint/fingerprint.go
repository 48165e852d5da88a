// Package fingerprint tells files and texts apart by SHA-256, written in hexadecimal digits.
package fingerprint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/biolora/biolora/internal/regular"
)

// File is the SHA-256 of a regular file, as sha256sum prints it. The error names path.
func File(path string) (string, error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Texts is the SHA-256 of texts in their order. Where one ends and the next begins counts.
func Texts(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d %s\n", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Sample writes parts of a file that is too large to be read whole to h: the first MiB, which has the heads of files of
// weights, and 4 KiB at each of 64 places. size is the file's, in bytes.
func Sample(h io.Writer, f io.ReaderAt, size int64) error {
	const head, page, samples = 1 << 20, 1 << 12, 64
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, head)); err != nil {
		return err
	}
	for i := range int64(samples) {
		if _, err := io.Copy(h, io.NewSectionReader(f, size/samples*i, page)); err != nil {
			return err
		}
	}
	return nil
}
