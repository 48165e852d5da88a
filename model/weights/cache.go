package weights

import (
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
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// A cache is a safetensors file of tensors that were made of a checkpoint at some cost. Its name says what it was made
// of and for; its metadata holds the whole key, and its last tensor the checksums of the others.
const (
	cacheVersion  = "1" // of what a key stands for: another one makes all caches anew
	cacheFolder   = ".biolora"
	cacheKeyName  = "biolora_cache"
	checksumsName = "crc32c"
)

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
		fmt.Fprintln(h, j.Name, j.Type, j.to, j.Shape, layoutOf(j.Tensor))
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
	const head, page, pages = 1 << 20, 1 << 12, 64
	sample := func(from, n int64) {
		_, err2 := io.Copy(h, io.NewSectionReader(f, from, n))
		err = errors.Join(err, err2)
	}
	sample(0, head) // of a GGUF file, what is in it
	for i := range int64(pages) {
		sample(size/pages*i, page)
	}
	sample(max(0, size-head), head) // of a zip file, what is in it
	return err
}

// store is where a cache may lie.
type store struct {
	places []place
	name   string // what follows a place's prefix, without the ending
}

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

// open returns the cache with the given key, which holds what sources write. If there is none that is whole, it makes
// it; unchanged is asked when all is read, just before the new file counts.
func (s store) open(ctx context.Context, key string, sources []safetensors.Source, unchanged func() error) (*safetensors.File, error) {
	s.name = key[:16]
	for _, p := range s.places {
		if f, err := readCache(p.path(s.name), key, sources); err == nil {
			return f, nil
		}
	}
	p, err := s.writable()
	if err != nil {
		return nil, err
	}
	if err := p.checkSpace(sources); err != nil {
		return nil, err
	}
	path := p.path(s.name)
	if err := writeCache(ctx, path, key, sources, unchanged); err != nil {
		return nil, err
	}
	f, err := openCache(path, key, sources)
	if err != nil {
		return nil, err
	}
	p.sweep(filepath.Base(path))
	return f, nil
}

// writable returns the first place where files can be made.
func (s store) writable() (place, error) {
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
		n := int64(sources[i].DType.Size())
		for _, d := range sources[i].Shape {
			n *= int64(d)
		}
		need += n + 4096
	}
	free, ok := freeBytes(p.dir)
	if ok && free < need {
		return fmt.Errorf("%s: the converted tensors take %d bytes, %d are free: make room, or name another directory for the cache",
			p.dir, need, free)
	}
	return nil
}

// writeCache makes the file of sources and their checksums.
func writeCache(ctx context.Context, path, key string, sources []safetensors.Source, unchanged func() error) error {
	var sums []byte
	list := make([]safetensors.Source, 0, len(sources)+1)
	for _, s := range sources {
		write := s.Write
		s.Write = func(w io.Writer) error {
			sum := crc32.New(castagnoli)
			if err := write(io.MultiWriter(w, sum)); err != nil {
				return err
			}
			sums = binary.LittleEndian.AppendUint32(sums, sum.Sum32())
			return ctx.Err()
		}
		list = append(list, s)
	}
	list = append(list, safetensors.Source{Name: checksumsName, DType: numeric.U8, Shape: []int{4 * len(sources)},
		Write: func(w io.Writer) error {
			if err := unchanged(); err != nil {
				return err
			}
			_, err := w.Write(sums)
			return err
		}})
	return safetensors.WriteFile(path, list, map[string]string{cacheKeyName: key})
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
	if t, ok := f.Tensor(checksumsName); !ok || len(t.Data) != 4*len(sources) {
		return fail("the checksums are not there")
	}
	return f, nil
}

// readCache is openCache for a file that has lain on the disk: it compares all of it with the checksums. That is as
// good as reading it ahead, and wrong weights would go unnoticed.
func readCache(path, key string, sources []safetensors.Source) (*safetensors.File, error) {
	f, err := openCache(path, key, sources)
	if err != nil {
		return nil, err
	}
	if err := checkSums(f, sources); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

func checkSums(f *safetensors.File, sources []safetensors.Source) error {
	sums, _ := f.Tensor(checksumsName)
	errs := make([]error, len(sources))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(sources)); i = next.Add(1) - 1 {
				errs[i] = mmap.Guard(func() error {
					t, _ := f.Tensor(sources[i].Name)
					if got, want := crc32.Checksum(t.Data, castagnoli), binary.LittleEndian.Uint32(sums.Data[4*i:]); got != want {
						return fmt.Errorf("tensor %s is damaged: checksum %08x, want %08x", t.Name, got, want)
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
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
