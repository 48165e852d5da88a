//go:build unix

package mmap

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is what is kept beside the bytes to tell of changes. The open file is the one that is mapped whatever becomes
// of its name, so a stat of it sees a write in place and not another file of that name.
type mapping struct {
	file *os.File // nil for an empty file
	then version
}

// version is what tells one content of a file from another. The system's clock for files may tick only every few
// milliseconds; a change within one tick that leaves the size is not seen.
type version struct {
	size     int64
	modified unix.Timespec
}

func (v version) String() string {
	return fmt.Sprintf("%d bytes of %s", v.size, time.Unix(v.modified.Unix()).UTC().Format("2006-01-02 15:04:05.000000 UTC"))
}

// live is the maps that are open, for finding the file that an address belongs to.
var live struct {
	sync.Mutex
	files map[*File]struct{}
}

// mapFile maps privately: that works on more network file systems than a shared mapping and costs the same. It keeps f.
func (m *File) mapFile(f *os.File, size int) error {
	m.file = f
	var err error
	if m.then, err = m.version(); err != nil { // before mapping: what is written from now on counts as a change
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("mapping %d bytes: %w", size, err)
	}
	m.Data = data
	live.Lock()
	defer live.Unlock()
	if live.files == nil {
		live.files = map[*File]struct{}{}
	}
	live.files[m] = struct{}{}
	return nil
}

// Close unmaps the file. Data must not be touched afterwards.
func (m *File) Close() error {
	if m.file == nil {
		return nil
	}
	live.Lock()
	delete(live.files, m)
	live.Unlock()
	data, file := m.Data, m.file
	m.Data, m.file = nil, nil
	return errors.Join(unix.Munmap(data), file.Close())
}

func (m *File) version() (version, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(m.file.Fd()), &st); err != nil {
		return version{}, fmt.Errorf("%s: %w", m.path, err)
	}
	return version{st.Size, st.Mtim}, nil
}

// Unchanged returns an error that names the file if it was written to or cut short since it was mapped: by its size and
// the time of its last change, then and now. It costs one system call.
func (m *File) Unchanged() error {
	if m.file == nil {
		return nil
	}
	now, err := m.version()
	if err != nil || now == m.then {
		return err
	}
	return fmt.Errorf("%s changed while it was in use: %v then, %v now", m.path, m.then, now)
}

// find returns the mapped file that data is part of, and where in it data begins; nil if there is none.
func find(data []byte) (m *File, offset int) {
	live.Lock()
	defer live.Unlock()
	start := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	for m := range live.files {
		file := uintptr(unsafe.Pointer(unsafe.SliceData(m.Data)))
		if start >= file && start-file < uintptr(len(m.Data)) && len(data) <= len(m.Data)-int(start-file) {
			return m, int(start - file)
		}
	}
	return nil, 0
}

// Mapped reports whether data is part of a mapped file.
func Mapped(data []byte) bool {
	m, _ := find(data)
	return m != nil
}

// Merge returns ranges of mapped files in the order of their addresses, those that lie within a few pages of each other as
// one. What is no part of a mapped file is left out.
func Merge(ranges [][]byte) (merged [][]byte) {
	const near = 64 << 10
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b []byte) int {
		return cmp.Compare(uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	})
	var file *File
	from, to := 0, 0
	for _, r := range ranges {
		m, at := find(r)
		switch {
		case m == nil || len(r) == 0:
			continue
		case m == file && at <= to+near:
			to = max(to, at+len(r))
			merged[len(merged)-1] = m.Data[from:to]
		default:
			file, from, to = m, at, at+len(r)
			merged = append(merged, r)
		}
	}
	return merged
}

// Release gives back the memory of data's pages, where data is part of a mapped file: they are read again when they are
// touched again. Of any other memory it leaves everything as it is.
func Release(data []byte) {
	if m, at := find(data); m != nil {
		from := pageBefore(at)
		_ = unix.Madvise(m.Data[from:at+len(data)], unix.MADV_DONTNEED) // it saves memory and does nothing else
	}
}

// Populate reads all of data, which is part of a mapped file, into memory, so that touching it waits for nothing. The
// error of what cannot be read names the file and the byte.
func Populate(data []byte) error {
	m, at := find(data)
	if m == nil {
		return nil
	}
	from := pageBefore(at)
	pages := m.Data[from : at+len(data)]
	if populate(pages) == nil {
		return nil
	}
	return Guard(func() error { touch(pages); return nil }) // the kernel cannot, or the bytes are gone: this says where
}

// pageBefore is the beginning of the page that offset lies in.
func pageBefore(offset int) int { return offset &^ (os.Getpagesize() - 1) }

// touch reads a byte of every page.
//
//go:noinline
func touch(pages []byte) (sum byte) {
	for i := 0; i < len(pages); i += os.Getpagesize() {
		sum += pages[i]
	}
	return sum
}

// Guard runs f. If f, on this goroutine, touches bytes of a mapped file that cannot be read, because the file was cut
// short or the device fails, f ends there and the error names the file and the byte. Other goroutines need guards of
// their own. A panic that has another reason goes on.
func Guard(f func() error) (err error) {
	old := PanicOnFault()
	defer func() {
		Restore(old)
		r := recover()
		if r == nil {
			return
		}
		if err = Fault(r); err == nil {
			panic(r)
		}
	}()
	return explain(f())
}

// PanicOnFault makes faults in mapped bytes panics of the calling goroutine, which Fault explains, until Restore is
// given what it returns. It is for goroutines that turn panics into errors themselves; others use Guard.
func PanicOnFault() (old bool) { return debug.SetPanicOnFault(true) }

// Restore undoes PanicOnFault.
func Restore(old bool) { debug.SetPanicOnFault(old) }

// Fault returns the error that a recovered panic stands for if it is a fault in a mapped file, nil if it is not.
func Fault(recovered any) error {
	r, ok := recovered.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		return nil
	}
	live.Lock()
	defer live.Unlock()
	for m := range live.files {
		if start := uintptr(unsafe.Pointer(unsafe.SliceData(m.Data))); r.Addr() >= start && r.Addr()-start < uintptr(len(m.Data)) {
			return m.fault(int64(r.Addr() - start))
		}
	}
	return nil
}

// fault explains why the byte at offset cannot be read.
func (m *File) fault(offset int64) error {
	now, err := m.version()
	switch {
	case err != nil:
		return fmt.Errorf("byte %d cannot be read: %w", offset, err)
	case now.size <= offset:
		return fmt.Errorf("%s: byte %d is gone: the file was cut short while it was in use, from %d bytes to %d", m.path, offset, m.then.size, now.size)
	case now != m.then:
		return fmt.Errorf("%s: byte %d could not be read: the file changed while it was in use: %v then, %v now", m.path, offset, m.then, now)
	}
	return fmt.Errorf("%s: byte %d cannot be read: input/output error", m.path, offset)
}

// explain finds the file behind an error of a system call that was given mapped bytes that are gone: a write of them
// does not fault.
func explain(err error) error {
	if !errors.Is(err, unix.EFAULT) {
		return err
	}
	live.Lock()
	defer live.Unlock()
	for m := range live.files {
		if now, bad := m.version(); bad == nil && now.size < m.then.size {
			return fmt.Errorf("%w: %w", m.fault(now.size), err)
		}
	}
	return err
}
