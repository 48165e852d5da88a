// Package gguf reads and writes GGUF files, llama.cpp's container of metadata and quantised tensors, versions 2 and 3.
// Reading maps the file: opening copies the metadata and walks over it and the table of tensors; values are decoded
// when they are asked for, and tensors when Dequantize is given their bytes. What a file may look like follows ggml's
// docs/gguf.md and gguf.cpp.
//
// Opening allocates at most 16 times the bytes of metadata and table that the file really holds, and decoding a value
// at most 8 times the bytes of the value.
package gguf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/mmap"
)

// What a file may have at most. Real ones have some dozens of keys, some thousands of tensors and no nested arrays.
const (
	MaxKeys      = 1 << 16
	MaxTensors   = 1 << 16
	MaxName      = 1<<16 - 1 // bytes of a key or of a tensor's name
	MaxDims      = 4
	MaxAlignment = 1 << 20
	MaxDepth     = 8       // of arrays within arrays
	MaxMetadata  = 1 << 28 // bytes of all keys and values
)

const (
	magic            = "GGUF"
	alignmentKey     = "general.alignment"
	defaultAlignment = 32
	minPair          = 8 + 4 + 1     // bytes of the shortest key with its value
	minInfo          = 8 + 4 + 4 + 8 // bytes of the shortest entry in the table of tensors
)

// Tensor is one tensor of a file.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int  // row-major, the outermost dimension first: the reverse of GGUF's ne; empty for a scalar
	Data  []byte // rows of blocks, little-endian; mapped; not to be written to
}

// Elements returns the number of elements.
func (t Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// File is an open file. It may be used by several goroutines at once, until Close.
type File struct {
	path    string
	version int
	head    []byte // a copy of the file up to the end of the metadata: never written to, strings are parts of it
	keys    []entry
	byKey   map[string]int
	tensors []Tensor
	byName  map[string]int
	mapped  *mmap.File // nil where the bytes are the caller's
}

// Open maps the file at path and checks its metadata, its table of tensors and its length. The tensors' Data is valid
// until Close; reading it must be under mmap.Guard: the file may be cut short meanwhile.
func Open(path string) (*File, error) {
	f, m, err := mmap.Parse(path, Parse)
	if err != nil {
		return nil, err
	}
	f.mapped = m
	return f, nil
}

// Parse reads a file that is in memory. The tensors' Data are parts of data; path is for messages.
func Parse(data []byte, path string) (*File, error) {
	f := &File{path: path, byKey: map[string]int{}, byName: map[string]int{}}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Path returns what the file was opened as.
func (f *File) Path() string { return f.path }

// Version returns the version of the format, 2 or 3.
func (f *File) Version() int { return f.version }

// Names returns the tensors' names in the order of their data.
func (f *File) Names() []string {
	names := make([]string, len(f.tensors))
	for i := range f.tensors {
		names[i] = f.tensors[i].Name
	}
	return names
}

// All yields the tensors in the order of their data.
func (f *File) All() iter.Seq[Tensor] { return slices.Values(f.tensors) }

// Tensor returns the tensor called name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// Unchanged returns an error if the file was changed since Open; see mmap.File.Unchanged.
func (f *File) Unchanged() error {
	if f.mapped == nil {
		return nil
	}
	return f.mapped.Unchanged()
}

// Close unmaps the file. The tensors' Data must not be touched afterwards; what Value returned stays.
func (f *File) Close() error {
	f.head, f.keys, f.byKey, f.tensors, f.byName = nil, nil, nil, nil, nil
	if f.mapped == nil {
		return nil
	}
	return f.mapped.Close()
}

func (f *File) parse(data []byte) error {
	if err := checkMagic(data); err != nil {
		return err
	}
	r := &reader{data: data, at: len(magic)}
	version, err := r.uint32("the version")
	if err != nil {
		return err
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	f.version = int(version)
	tensors, err := r.count("tensors", MaxTensors, minInfo)
	if err != nil {
		return err
	}
	keys, err := r.count("keys", MaxKeys, minPair)
	if err != nil {
		return err
	}
	if err := f.readKeys(r, keys); err != nil {
		return err
	}
	infos, err := f.readInfos(r, tensors)
	if err != nil {
		return err
	}
	return f.place(infos, data, r.at)
}

// lfsPointer is how the small text begins that Git leaves in place of a large file that was not fetched.
const lfsPointer = "version https://git-lfs"

// oldMagics are those of the formats before GGUF, in the byte order of the file.
var oldMagics = map[string]string{"lmgg": "GGML", "fmgg": "GGMF", "tjgg": "GGJT", "algg": "GGLA"}

func checkMagic(data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte(magic)):
		return nil
	case bytes.HasPrefix(data, []byte(lfsPointer)):
		return errors.New("this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
	case len(data) < len(magic):
		return fmt.Errorf("not a GGUF file: %d bytes, want at least 24", len(data))
	case string(data[:4]) == "FUGG":
		return errBigEndian
	case oldMagics[string(data[:4])] != "":
		return fmt.Errorf("a %s file, the format before GGUF, is not read: convert its source to GGUF", oldMagics[string(data[:4])])
	}
	return fmt.Errorf("not a GGUF file: byte 0: it begins with %q, want %q", data[:4], magic)
}

var errBigEndian = errors.New("byte 4: a big-endian GGUF file is not read: " +
	"make a little-endian one with gguf-convert-endian of the Python package gguf")

func checkVersion(v uint32) error {
	switch {
	case v == 2 || v == 3:
		return nil
	case v != 0 && v&0xffff == 0:
		return errBigEndian
	}
	return fmt.Errorf("byte 4: GGUF version %d is not read, only 2 and 3", v)
}

// readKeys walks over the metadata and copies it. What is in the copy was checked there once more: another process may
// have written to the file in between.
func (f *File) readKeys(r *reader, n int) error {
	f.keys = make([]entry, n)
	for i := range f.keys {
		e := &f.keys[i]
		at := r.at
		key, err := r.name()
		if err != nil {
			return fmt.Errorf("key %d of %d: %w", i+1, n, err)
		}
		if _, twice := f.byKey[key]; twice {
			return fmt.Errorf("byte %d: key %q is there twice", at, key)
		}
		e.key = key
		if err := e.read(r); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		if r.at > MaxMetadata {
			return fmt.Errorf("key %q: byte %d: the metadata takes more than %d bytes", key, at, MaxMetadata)
		}
		f.byKey[key] = i
	}
	f.head = bytes.Clone(r.data[:r.at])
	for i := range f.keys {
		e := &f.keys[i]
		copied := &reader{data: f.head, at: e.at}
		if err := e.skip(copied); err != nil || copied.at != e.end {
			return fmt.Errorf("key %q: byte %d: the file was written to while it was opened", e.key, e.at)
		}
	}
	return nil
}

// info is a tensor as the table describes it.
type info struct {
	Tensor
	at     int    // where the table's entry begins
	offset uint64 // of the data, from the start of all data
	size   uint64
}

func (f *File) readInfos(r *reader, n int) ([]info, error) {
	infos := make([]info, n)
	for i := range infos {
		t := &infos[i]
		t.at = r.at
		name, err := r.name()
		if err != nil {
			return nil, fmt.Errorf("tensor %d of %d: %w", i+1, n, err)
		}
		if _, twice := f.byName[name]; twice {
			return nil, fmt.Errorf("byte %d: tensor %q is there twice", t.at, name)
		}
		f.byName[name] = i // place knows the real one
		t.Name = name
		if err := t.read(r); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	return infos, nil
}

// read reads what follows the name.
func (t *info) read(r *reader) error {
	at := r.at
	dims, err := r.uint32("the number of dimensions")
	if err != nil {
		return err
	}
	if dims > MaxDims {
		return fmt.Errorf("byte %d: %d dimensions, at most %d are allowed", at, dims, MaxDims)
	}
	t.Shape = make([]int, dims)
	for i := range t.Shape {
		at := r.at
		d, err := r.uint64("a dimension")
		if err != nil {
			return err
		}
		if d < 1 || d > math.MaxInt {
			return fmt.Errorf("byte %d: dimension %d is %d, want 1 to %d", at, i, d, math.MaxInt)
		}
		t.Shape[len(t.Shape)-1-i] = int(d)
	}
	at = r.at
	typ, err := r.uint32("the type")
	if err != nil {
		return err
	}
	t.Type = Type(typ)
	if t.offset, err = r.uint64("the offset"); err != nil {
		return err
	}
	if t.size, err = t.Type.size(t.Shape); err != nil {
		return fmt.Errorf("byte %d: %w", at, err)
	}
	return nil
}

// alignment is what the data of every tensor is aligned to.
func (f *File) alignment() (uint64, error) {
	i, ok := f.byKey[alignmentKey]
	if !ok {
		return defaultAlignment, nil
	}
	e := &f.keys[i]
	n, ok := e.decode(f.head).(uint32)
	if !ok {
		return 0, fmt.Errorf("key %q: byte %d: want a uint32, got %s", e.key, e.at, e.typeName())
	}
	if err := checkAlignment(n); err != nil {
		return 0, fmt.Errorf("key %q: byte %d: %w", e.key, e.at, err)
	}
	return uint64(n), nil
}

func checkAlignment(n uint32) error {
	if n == 0 || n&(n-1) != 0 || n > MaxAlignment {
		return fmt.Errorf("an alignment of %d, want a power of two up to %d", n, MaxAlignment)
	}
	return nil
}

// place gives every tensor its part of the file. The table ends at byte end; the data begins at the next aligned one.
func (f *File) place(infos []info, data []byte, end int) error {
	alignment, err := f.alignment()
	if err != nil || len(infos) == 0 {
		return err // a file without tensors may end where its table ends
	}
	begin := pad(uint64(end), alignment)
	if begin > uint64(len(data)) {
		return fmt.Errorf("byte %d: the file is cut off: the data begins at byte %d", len(data), begin)
	}
	slices.SortStableFunc(infos, func(a, b info) int { return cmp.Compare(a.offset, b.offset) })
	f.tensors = make([]Tensor, len(infos))
	section := data[begin:]
	for i := range infos {
		t := &infos[i]
		if err := t.check(alignment, begin, uint64(len(section))); err != nil {
			return fmt.Errorf("tensor %q: byte %d: %w", t.Name, t.at, err)
		}
		if i > 0 {
			if last := &infos[i-1]; t.offset < last.offset+last.size {
				return fmt.Errorf("tensor %q: byte %d: data begins at byte %d, but that of %q ends at %d: they overlap",
					t.Name, t.at, begin+t.offset, last.Name, begin+last.offset+last.size)
			}
		}
		t.Data = section[t.offset : t.offset+t.size : t.offset+t.size]
		f.tensors[i] = t.Tensor
		f.byName[t.Name] = i
	}
	return nil
}

// check compares the tensor's place with the size of all data, which begins at byte begin of the file.
func (t *info) check(alignment, begin, size uint64) error {
	switch {
	case t.offset%alignment != 0:
		return fmt.Errorf("offset %d is not a multiple of the alignment %d", t.offset, alignment)
	case t.offset > size || t.size > size-t.offset:
		return fmt.Errorf("%v %v takes %d bytes from offset %d, but there are %d bytes of data (from byte %d to %d): the file is cut off",
			t.Type, t.Shape, t.size, t.offset, size, begin, begin+size)
	}
	return nil
}

// pad rounds n up to a multiple of alignment, a power of two.
func pad(n, alignment uint64) uint64 { return (n + alignment - 1) &^ (alignment - 1) }

// reader walks over the head of a file.
type reader struct {
	data []byte
	at   int
}

// take returns the next n bytes.
func (r *reader) take(n uint64, what string) ([]byte, error) {
	if left := uint64(len(r.data) - r.at); n > left {
		return nil, fmt.Errorf("byte %d: %s takes %d bytes, but %d are left: the file is cut off", r.at, what, n, left)
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b, nil
}

func (r *reader) uint32(what string) (uint32, error) {
	b, err := r.take(4, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *reader) uint64(what string) (uint64, error) {
	b, err := r.take(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// count reads how many things follow, each of at least size bytes.
func (r *reader) count(what string, limit, size uint64) (int, error) {
	at := r.at
	n, err := r.uint64("the number of " + what)
	if err != nil {
		return 0, err
	}
	if n > limit {
		return 0, fmt.Errorf("byte %d: %d %s, at most %d are allowed", at, n, what, limit)
	}
	if left := uint64(len(r.data) - r.at); n*size > left {
		return 0, fmt.Errorf("byte %d: %d %s take at least %d bytes, but %d are left: the file is cut off", at, n, what, n*size, left)
	}
	return int(n), nil
}

// bytes reads the length of a string and as many bytes.
func (r *reader) bytes(what string) ([]byte, error) {
	n, err := r.uint64("the length of a string")
	if err != nil {
		return nil, err
	}
	return r.take(n, what)
}

// name reads a key or the name of a tensor.
func (r *reader) name() (string, error) {
	at := r.at
	b, err := r.bytes("a name")
	switch {
	case err != nil:
		return "", err
	case len(b) > MaxName:
		return "", fmt.Errorf("byte %d: a name of %d bytes, at most %d are allowed", at, len(b), MaxName)
	case !utf8.Valid(b):
		return "", fmt.Errorf("byte %d: the name %.100q is not valid UTF-8", at, b)
	}
	return string(b), nil
}
