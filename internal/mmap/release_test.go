//go:build linux

package mmap

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fileBytes is the memory of mapped files that the process has.
func fileBytes(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kB, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kB << 10
		}
	}
	t.Skip("this kernel does not say how much memory of files a process has")
	return 0
}

// Release gives the pages back and leaves what they hold; of memory that is no file it leaves everything.
func TestRelease(t *testing.T) {
	const size = 64 << 20
	path := filepath.Join(t.TempDir(), "x")
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	before := fileBytes(t)
	if !bytes.Equal(m.Data, content) {
		t.Fatal("other bytes")
	}
	touched := fileBytes(t)
	Release(m.Data[5 : size/2+5])
	half := fileBytes(t)
	Release(m.Data[size/2:])
	Release(m.Data[size:])
	Release(nil)
	none := fileBytes(t)
	const slack = 8 << 20
	if touched < before+size-slack || half > touched-size/2+slack || half < touched-size/2-slack || none > before+slack {
		t.Errorf("%d MiB of files before, %d touched, %d after half of it was given back, %d after all", before>>20, touched>>20, half>>20, none>>20)
	}
	Release(content)
	if !bytes.Equal(m.Data, content) || content[size-1] != 'f' {
		t.Error("the bytes are others now")
	}
	data := m.Data
	if err := errors.Join(m.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	Release(data) // no longer mapped: nothing happens
}
