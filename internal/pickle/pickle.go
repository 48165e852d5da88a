// Package pickle reads the tensors of PyTorch's files, *.bin and *.pth: a dictionary of tensors written by torch.save,
// in the zip format or the one before it. The file is mapped; a contiguous tensor's data is a part of it.
//
// A pickle is a program. It is run by gopickle's Unpickler, which may build containers and the classes that tensors
// need, and nothing else: anything more is refused by name. Everything that sizes memory is checked before it runs:
// it takes at most 400 bytes for each byte of the pickle, which has at most 16 MiB and 4 Mi instructions: never more than
// half a GiB, and little for a checkpoint. The storages take nothing.
package pickle

import (
	"archive/zip"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
)

// Tensor is one tensor of a file.
type Tensor struct {
	Name  string
	DType numeric.DType
	Shape []int  // empty for a scalar
	Data  []byte // row-major, little-endian; a part of the file, possibly unaligned, or a copy; not to be written to
}

// File is an open file.
type File struct {
	path   string
	data   []byte
	names  []string
	views  map[string]*view
	mapped *mmap.File // nil where the bytes are the caller's
}

// Open maps the file at path and reads what its tensors are called and where they lie. The tensors' Data is valid
// until Close.
func Open(path string) (*File, error) {
	f, m, err := mmap.Parse(path, Parse)
	if err != nil {
		return nil, err
	}
	f.mapped = m
	return f, nil
}

// Parse reads a file that is in memory. The tensors' Data may be parts of data; path is for messages.
func Parse(data []byte, path string) (*File, error) {
	f := &File{path: path, data: data, views: map[string]*view{}}
	if err := f.parse(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Path returns what the file was opened as.
func (f *File) Path() string { return f.path }

// Names returns the tensors' names in the order of the dictionary.
func (f *File) Names() []string { return f.names }

// Tensor returns the tensor called name. Data is copied where the tensor is not contiguous, such as a transposed one.
func (f *File) Tensor(name string) (Tensor, bool) {
	v, ok := f.views[name]
	if !ok {
		return Tensor{}, false
	}
	return Tensor{Name: name, DType: v.storage.dtype, Shape: v.shape, Data: v.bytes()}, true
}

// Unchanged returns an error if the file was changed since Open; see mmap.File.Unchanged.
func (f *File) Unchanged() error {
	if f.mapped == nil {
		return nil
	}
	return f.mapped.Unchanged()
}

// Close unmaps the file.
func (f *File) Close() error {
	f.data, f.views = nil, nil
	if f.mapped == nil {
		return nil
	}
	return f.mapped.Close()
}

// lfsPointer is how the small text begins that Git leaves in place of a large file that was not fetched.
const lfsPointer = "version https://git-lfs"

func (f *File) parse() error {
	var root any
	var err error
	switch {
	case len(f.data) == 0:
		return errors.New("the file is empty")
	case strings.HasPrefix(string(f.data[:min(len(f.data), len(lfsPointer))]), lfsPointer):
		return errors.New("a Git LFS pointer stands in place of the file, which was not fetched")
	case bytes.HasPrefix(f.data, []byte("PK")):
		root, err = readZip(f.data)
	default:
		root, err = readLegacy(f.data)
	}
	if err != nil {
		return err
	}
	return f.collect(root)
}

// collect takes the tensors out of the dictionary that was saved.
func (f *File) collect(root any) error {
	items, err := entries(root)
	if err != nil {
		return err
	}
	for _, e := range items {
		name, ok := e.key.(string)
		if !ok {
			return fmt.Errorf("the dictionary has a %s among its names", kind(e.key))
		}
		v, ok := e.value.(*view)
		if !ok {
			return fmt.Errorf("%.80q is a %s, not a tensor", name, kind(e.value))
		}
		if _, ok := f.views[name]; ok {
			return fmt.Errorf("tensor %.80q is there twice", name)
		}
		f.names = append(f.names, name)
		f.views[name] = v
	}
	return nil
}

// maxDirectory is more bytes than the list of records of a file of this kind has.
const maxDirectory = 32 << 20

// directoryReader lets package zip read as much of the file as a list of records can have.
type directoryReader struct {
	*bytes.Reader
	left int
}

func (r *directoryReader) ReadAt(p []byte, off int64) (int, error) {
	if r.left -= len(p); r.left < 0 {
		return 0, fmt.Errorf("a list of records of more than %d bytes", maxDirectory)
	}
	return r.Reader.ReadAt(p, off)
}

// readZip reads the format of PyTorch 1.6 and later: NAME/data.pkl, and a stored record NAME/data/KEY for each
// storage.
func readZip(data []byte) (any, error) {
	r, err := zip.NewReader(&directoryReader{bytes.NewReader(data), maxDirectory}, int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("the file is cut off or not a PyTorch file: %w", err)
	}
	a := &archive{data: data, records: map[string]*zip.File{}}
	for _, e := range r.File {
		if !filepath.IsLocal(e.Name) || strings.ContainsRune(e.Name, '\\') {
			return nil, fmt.Errorf("refused: record %.80q is not a name inside the file", e.Name)
		}
		if _, ok := a.records[e.Name]; ok {
			return nil, fmt.Errorf("record %.80q is there twice", e.Name)
		}
		a.records[e.Name] = e
		dir, base, _ := strings.Cut(e.Name, "/")
		if base != "data.pkl" {
			continue
		}
		if a.prefix != "" {
			return nil, fmt.Errorf("records %.80q and %.80q: one of them is too many", a.prefix+base, e.Name)
		}
		a.prefix = dir + "/"
	}
	if a.prefix == "" {
		return nil, errors.New("a zip file without data.pkl: not a PyTorch file")
	}
	if err := a.checkByteOrder(); err != nil {
		return nil, err
	}
	program, err := a.record("data.pkl")
	if err != nil {
		return nil, err
	}
	l := &loader{find: a.storage}
	root, _, err := l.load(program)
	if err != nil {
		return nil, fmt.Errorf("%sdata.pkl: %w", printable(a.prefix), err)
	}
	return root, a.checkOverlap()
}

// archive is the records of a zip file.
type archive struct {
	data    []byte
	prefix  string
	records map[string]*zip.File
	used    []span
}

// span is the place of a record in the file.
type span struct {
	name     string
	from, to int64
}

// record returns the bytes of a stored record.
func (a *archive) record(name string) ([]byte, error) {
	e, ok := a.records[a.prefix+name]
	if !ok {
		return nil, fmt.Errorf("record %.80q is missing", name)
	}
	if e.Method != zip.Store {
		return nil, fmt.Errorf("record %.80q is compressed, which PyTorch's files never are", name)
	}
	if e.CompressedSize64 != e.UncompressedSize64 {
		return nil, fmt.Errorf("record %.80q has %d bytes and is to have %d", name, e.CompressedSize64, e.UncompressedSize64)
	}
	off, err := e.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("record %.80q: nothing is in its place in the file: %w", name, err)
	}
	size := e.UncompressedSize64
	if off < 0 || off > int64(len(a.data)) || size > uint64(int64(len(a.data))-off) {
		return nil, fmt.Errorf("record %.80q has %d bytes at %d, the file %d in all", name, size, off, len(a.data))
	}
	end := off + int64(size)
	a.used = append(a.used, span{name, off, end})
	return a.data[off:end:end], nil
}

// checkOverlap requires that the records that were read lie one behind another, so that they are no more than the file.
func (a *archive) checkOverlap() error {
	slices.SortFunc(a.used, func(x, y span) int { return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to)) })
	for i := 1; i < len(a.used); i++ {
		if x, y := a.used[i-1], a.used[i]; y.from < x.to {
			return fmt.Errorf("records %.80q and %.80q overlap: bytes [%d, %d) and [%d, %d)", x.name, y.name, x.from, x.to, y.from, y.to)
		}
	}
	return nil
}

// checkByteOrder reads a record that older files lack.
func (a *archive) checkByteOrder() error {
	const name = "byteorder"
	if _, ok := a.records[a.prefix+name]; !ok {
		return nil
	}
	order, err := a.record(name)
	if err == nil && string(order) != "little" {
		err = fmt.Errorf("byte order %.20q, only little is supported", order)
	}
	return err
}

// storage finds the bytes of a storage.
func (a *archive) storage(s *storage) error {
	data, err := a.record("data/" + s.key)
	if err != nil {
		return err
	}
	size := s.n * s.dtype.Size()
	if len(data) < size {
		return fmt.Errorf("record %.80q has %d bytes, want %d for %d elements of %v", "data/"+s.key, len(data), size, s.n, s.dtype)
	}
	s.data = data[:size:size]
	return nil
}
