package weights

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// A cache is a safetensors file of tensors that were made of a checkpoint at some cost. Its name says what it was made
// of and for; its metadata holds the whole key, and its last tensor checksums of pages of the others. A matrix that was
// quantised is a vector of bytes.
const (
	cacheVersion   = "2" // of what a key stands for: another one makes all caches anew
	cacheFolder    = ".biolora"
	cacheKeyName   = "biolora_cache"
	cacheHoldsName = "biolora_holds"
	checksumsName  = "crc32c"
	nameDigits     = 16 // of the key, in a file's name
)

// DescribeCache says what a safetensors file with this metadata holds if Prepare made it.
func DescribeCache(metadata map[string]string) (holds string, ok bool) {
	_, ok = metadata[cacheKeyName]
	return metadata[cacheHoldsName], ok
}

// cacheKey identifies what is made: of which files, and what of them. The files' contents are told by their size, the
// time of their last change, and a sample of their pages.
func (c *Checkpoint) cacheKey(jobs []job) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, cacheVersion, c.format)
	for _, path := range c.files {
		if err := addFile(h, path); err != nil {
			return "", err
		}
	}
	for i := range jobs {
		j := &jobs[i]
		fmt.Fprintln(h, j.Name, j.Type, j.kind(), j.Shape, layoutOf(j.Tensor))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func addFile(h hash.Hash, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	fmt.Fprintln(h, filepath.Base(path), size, info.ModTime().UnixNano())
	if err := fingerprint.Sample(h, f, size); err != nil {
		return err
	}
	const tail = 1 << 20 // of a zip file, what is in it
	_, err = io.Copy(h, io.NewSectionReader(f, max(0, size-tail), tail))
	return err
}

// store is where a cache may lie.
type store struct{ places []place }

// place is a directory, and how the names of this checkpoint's caches begin there, whatever state of it they are of.
type place struct{ dir, prefix string }

func (p place) path(name string) string {
	return filepath.Join(p.dir, p.prefix+name+".safetensors")
}

// places lists where the cache is looked for, and where it is made if it can be, the best first. Beside the checkpoint
// the names of its files tell it from others, so that all of it can be moved; elsewhere the path does.
func (c *Checkpoint) places(dir string, jobs []job) store {
	var names []string
	for _, f := range c.files {
		names = append(names, filepath.Base(f))
	}
	root := c.dir
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	prefix := func(of ...string) string {
		sum := sha256.Sum256([]byte(strings.Join(append(of, names...), "\x00")))
		return "weights-" + hex.EncodeToString(sum[:4]) + "-" + purpose(jobs) + "-"
	}
	s := store{}
	if dir != "" {
		s.places = []place{{dir, prefix(root)}}
		return s
	}
	s.places = []place{{filepath.Join(c.dir, cacheFolder), prefix()}}
	if user, err := os.UserCacheDir(); err == nil {
		s.places = append(s.places, place{filepath.Join(user, "biolora"), prefix(root)})
	}
	return s
}

// find returns the cache with the given key, which holds what sources write; nil if there is none that is whole.
func (s store) find(key string, sources []safetensors.Source) *safetensors.File {
	for _, p := range s.places {
		if f, err := readCache(p.path(key[:nameDigits]), key, sources); err == nil {
			return f
		}
	}
	return nil
}

// make makes it in the first place that takes it. unchanged is asked when all is read, just before the new file counts.
func (s store) make(ctx context.Context, key, holds string, sources []safetensors.Source, unchanged func() error) (*safetensors.File, error) {
	p, err := s.writable(sources)
	if err != nil {
		return nil, err
	}
	path := p.path(key[:nameDigits])
	if err := writeCache(ctx, path, map[string]string{cacheKeyName: key, cacheHoldsName: holds}, sources, unchanged); err != nil {
		return nil, err
	}
	f, err := openCache(path, key, sources)
	if err != nil {
		return nil, err
	}
	p.sweep(filepath.Base(path))
	return f, nil
}

// writable returns the first place where files can be made that has room for this one.
func (s store) writable(sources []safetensors.Source) (place, error) {
	var errs []error
	for _, p := range s.places {
		err := os.MkdirAll(p.dir, 0o777)
		if err == nil {
			var f *os.File
			if f, err = os.CreateTemp(p.dir, ".probe"); err == nil {
				err = errors.Join(f.Close(), os.Remove(f.Name()))
			}
		}
		if err == nil {
			err = p.checkSpace(sources)
		}
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return place{}, fmt.Errorf("there is no place for the converted tensors: %w", errors.Join(errs...))
}

// checkSpace compares what is free with what is needed.
func (p place) checkSpace(sources []safetensors.Source) error {
	var need int64
	for i := range sources {
		need += sourceBytes(&sources[i]) + 4096
	}
	free, ok := freeBytes(p.dir)
	if ok && free < need {
		return fmt.Errorf("%s: the converted tensors take %d bytes, %d are free: make room, or name another directory for the cache",
			p.dir, need, free)
	}
	return nil
}

// sumPage is how many bytes of a tensor a checksum is of, but for the last of a tensor.
const sumPage = 1 << 14

// pages is how many checksums a tensor of so many bytes has.
func pages(size int64) int64 { return (size + sumPage - 1) / sumPage }

func sourceBytes(s *safetensors.Source) int64 {
	n := int64(s.DType.Size())
	for _, d := range s.Shape {
		n *= int64(d)
	}
	return n
}

// sums are the checksums of a tensor that is written to it.
type sums struct {
	list []byte
	crc  uint32
	n    int // bytes in crc
}

func (s *sums) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), sumPage-s.n)
		s.crc = crc32.Update(s.crc, castagnoli, rest[:n])
		if s.n += n; s.n == sumPage {
			s.end()
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// end ends a page.
func (s *sums) end() {
	if s.n > 0 {
		s.list = binary.LittleEndian.AppendUint32(s.list, s.crc)
	}
	s.crc, s.n = 0, 0
}

// writeCache makes the file of sources and their checksums.
func writeCache(ctx context.Context, path string, metadata map[string]string, sources []safetensors.Source, unchanged func() error) error {
	all := &sums{}
	list := make([]safetensors.Source, 0, len(sources)+1)
	for _, s := range sources {
		write := s.Write
		s.Write = func(w io.Writer) error {
			if err := write(io.MultiWriter(w, all)); err != nil {
				return err
			}
			all.end()
			return ctx.Err()
		}
		list = append(list, s)
	}
	list = append(list, safetensors.Source{Name: checksumsName, DType: numeric.U8, Shape: []int{sumBytes(sources)},
		Write: func(w io.Writer) error {
			if err := unchanged(); err != nil {
				return err
			}
			_, err := w.Write(all.list)
			return err
		}})
	return safetensors.WriteFile(path, list, metadata)
}

// sumBytes is what the checksums take.
func sumBytes(sources []safetensors.Source) int {
	var n int64
	for i := range sources {
		n += 4 * pages(sourceBytes(&sources[i]))
	}
	return int(n)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openCache opens a file that must have the key and the tensors of sources.
func openCache(path, key string, sources []safetensors.Source) (*safetensors.File, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*safetensors.File, error) {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...)), f.Close())
	}
	if f.Metadata()[cacheKeyName] != key {
		return fail("the key is not %s", key)
	}
	for _, s := range sources {
		if t, ok := f.Tensor(s.Name); !ok || t.DType != s.DType || !slices.Equal(t.Shape, s.Shape) {
			return fail("tensor %s is not there or not %v %v", s.Name, s.DType, s.Shape)
		}
	}
	if t, ok := f.Tensor(checksumsName); !ok || len(t.Data) != sumBytes(sources) {
		return fail("the checksums are not there")
	}
	return f, nil
}

// readCache is openCache for a file that has lain on the disk: it compares samples of it with the checksums. To read all
// of it would take as long as the disk needs for it, each time.
func readCache(path, key string, sources []safetensors.Source) (*safetensors.File, error) {
	f, err := openCache(path, key, sources)
	if err != nil {
		return nil, err
	}
	if err := mmap.Guard(func() error { return sample(f, sources) }); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// sample compares the first page of each tensor, one in the middle and the last one with their checksums.
func sample(f *safetensors.File, sources []safetensors.Source) error {
	all, _ := f.Tensor(checksumsName)
	list := all.Data
	for i := range sources {
		t, _ := f.Tensor(sources[i].Name)
		n := pages(int64(len(t.Data)))
		for _, page := range []int64{0, n / 2, n - 1} {
			if n == 0 {
				break
			}
			data := t.Data[page*sumPage : min((page+1)*sumPage, int64(len(t.Data)))]
			if got, want := crc32.Checksum(data, castagnoli), binary.LittleEndian.Uint32(list[4*page:]); got != want {
				return fmt.Errorf("tensor %s is damaged: checksum %08x of bytes from %d on, want %08x", t.Name, got, page*sumPage, want)
			}
		}
		list = list[4*n:]
	}
	return nil
}

// errDiffers says that a cache is not what would be made now.
var errDiffers = errors.New("it differs")

// verify makes all of it once more and compares.
func verify(f *safetensors.File, sources []safetensors.Source) error {
	for i := range sources {
		t, _ := f.Tensor(sources[i].Name)
		c := &comparer{want: t.Data}
		if err := sources[i].Write(c); errors.Is(err, errDiffers) {
			return fmt.Errorf("tensor %s: byte %d of %d: %w", t.Name, c.at, len(c.want), errDiffers)
		} else if err != nil {
			return err
		}
		mmap.Release(t.Data)
	}
	return nil
}

// comparer takes the bytes that it wants and no others.
type comparer struct {
	want []byte
	at   int // how many it took
}

func (c *comparer) Write(b []byte) (n int, err error) {
	err = mmap.Guard(func() error {
		want := c.want[c.at:]
		if len(b) <= len(want) && bytes.Equal(b, want[:len(b)]) {
			n = len(b)
			return nil
		}
		for n < min(len(b), len(want)) && b[n] == want[n] {
			n++
		}
		return errDiffers
	})
	c.at += n
	return n, err
}

// sweep removes older caches of the same checkpoint for the same purpose, and what a killed process left of making
// one. Who has one of them mapped keeps it.
func (p place) sweep(keep string) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		old := strings.HasPrefix(name, p.prefix) && strings.HasSuffix(name, ".safetensors") && name != keep
		if strings.HasPrefix(name, "."+p.prefix) && strings.HasSuffix(name, ".tmp") {
			info, err := e.Info()
			old = err == nil && time.Since(info.ModTime()) > 24*time.Hour // one that is being written is younger
		}
		if old {
			if err := os.Remove(filepath.Join(p.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return // it costs space and nothing else
			}
		}
	}
}
