//go:build unix

package mmap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// mapped returns a map of a new file of n pages.
func mapped(t *testing.T, pages int) (m *File, path string, page int) {
	t.Helper()
	path, page = filepath.Join(t.TempDir(), "model.safetensors"), os.Getpagesize()
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, pages*page), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, path, page
}

// sum reads all of b.
//
//go:noinline
func sum(b []byte) (n int) {
	for _, c := range b {
		n += int(c)
	}
	return n
}

func TestGuardFileCutShort(t *testing.T) {
	m, path, page := mapped(t, 4)
	other, _, _ := mapped(t, 4)
	if err := os.Truncate(path, int64(page)); err != nil {
		t.Fatal(err)
	}
	err := Guard(func() error { sum(m.Data); return nil })
	want := fmt.Sprintf("%s: byte %d is gone: the file was cut short while it was in use, from %d bytes to %d", path, page, 4*page, page)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	// In the runtime's assembly.
	buf := make([]byte, page)
	if err := Guard(func() error { copy(buf, m.Data[2*page:]); return nil }); err == nil || !strings.Contains(err.Error(), " is gone") {
		t.Errorf("copy: %v", err)
	}
	if err := Guard(func() error { bytes.IndexByte(m.Data[3*page:], 1); return nil }); err == nil || !strings.Contains(err.Error(), " is gone") {
		t.Errorf("IndexByte: %v", err)
	}
	if err := Guard(func() error { sum(m.Data[:page]); sum(other.Data); return nil }); err != nil {
		t.Errorf("what is still there: %v", err)
	}
}

// A write of bytes that are gone is the kernel's to refuse.
func TestGuardSystemCall(t *testing.T) {
	m, path, page := mapped(t, 3)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	err := Guard(func() error { return os.WriteFile(out, m.Data, 0o600) })
	want := fmt.Sprintf("%s: byte 0 is gone: the file was cut short while it was in use, from %d bytes to 0: write %s: bad address", path, 3*page, out)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestGuardPassesOnTheRest(t *testing.T) {
	boom := errors.New("boom")
	if err := Guard(func() error { return boom }); err != boom {
		t.Errorf("an error: %v", err)
	}
	for name, f := range map[string]func() error{
		"panic":       func() error { panic("boom") },
		"nil pointer": func() error { return (*File)(nil).Unchanged() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			Guard(f)
		}()
	}
	if debug.SetPanicOnFault(false) {
		t.Error("Guard left PanicOnFault on")
	}
	Guard(func() error {
		Guard(func() error { return nil })
		if !debug.SetPanicOnFault(true) {
			t.Error("an inner Guard turned the outer one off")
		}
		return nil
	})
}

func TestUnchanged(t *testing.T) {
	m, path, page := mapped(t, 2)
	for _, change := range []struct {
		name string
		do   func() error
		ok   bool
	}{
		{"nothing", func() error { return nil }, true},
		{"read", func() error { _, err := os.ReadFile(path); return err }, true},
		{"permissions", func() error { return os.Chmod(path, 0o644) }, true},
		{"renamed over", func() error {
			next := path + ".new"
			return errors.Join(os.WriteFile(next, []byte("another file"), 0o600), os.Rename(next, path))
		}, true},
		{"removed", func() error { return os.Remove(path) }, true},
	} {
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		if err := m.Unchanged(); err != nil {
			t.Errorf("%s: %v", change.name, err)
		}
		if got := sum(m.Data); got != 14*page {
			t.Errorf("%s: the bytes are others", change.name)
		}
	}
	m, path, _ = mapped(t, 2)
	now := time.Date(2031, 2, 3, 4, 5, 6, 7000, time.UTC)
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	then := fmt.Sprintf("%s changed while it was in use: %d bytes of ", path, 2*page)
	if err := m.Unchanged(); err == nil || !strings.HasPrefix(err.Error(), then) || !strings.HasSuffix(err.Error(), fmt.Sprintf(" UTC then, %d bytes of 2031-02-03 04:05:06.000007 UTC now", 2*page)) {
		t.Errorf("written: %v", err)
	}
	m, path, _ = mapped(t, 2)
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if err := m.Unchanged(); err == nil || !strings.Contains(err.Error(), " UTC then, 5 bytes of ") {
		t.Errorf("cut short: %v", err)
	}
}

// A file that is gone and comes back before anyone looks is still told from a bad disk.
func TestGuardFileRewritten(t *testing.T) {
	m, path, page := mapped(t, 2)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	var err error
	func() {
		defer Restore(PanicOnFault())
		defer func() {
			r := recover()
			if bad := os.Truncate(path, int64(2*page)); bad != nil {
				t.Fatal(bad)
			}
			err = Fault(r)
		}()
		sum(m.Data)
	}()
	if err == nil || !strings.Contains(err.Error(), ": byte 0 could not be read: the file changed while it was in use: ") {
		t.Error(err)
	}
	if Fault("boom") != nil || Fault(nil) != nil {
		t.Error("any panic is a fault")
	}
}

func TestNoAllocation(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	m, _, _ := mapped(t, 1)
	total := 0
	if n := testing.AllocsPerRun(100, func() {
		if err := Guard(func() error { total += sum(m.Data); return m.Unchanged() }); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGuard(b *testing.B) {
	n := 0
	for b.Loop() {
		Guard(func() error { n++; return nil })
	}
}

func BenchmarkUnchanged(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		b.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for b.Loop() {
		if err := m.Unchanged(); err != nil {
			b.Fatal(err)
		}
	}
}
