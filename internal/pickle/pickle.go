// Package pickle reads the tensors of PyTorch's files, *.bin and *.pth: a dictionary of tensors written by torch.save,
// in the zip format or the one before it. The file is mapped; a contiguous tensor's data is a part of it.
//
// A pickle is a program. It is run by gopickle's Unpickler, which may build containers and the classes that tensors
// need, and nothing else: anything more is refused by name. Everything that sizes memory is checked before it runs.
package pickle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
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
	m, err := mmap.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var f *File
	err = mmap.Guard(func() (err error) {
		f, err = Parse(m.Data, path)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, m.Close())
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
			return fmt.Errorf("the dictionary has a %T among its names", e.key)
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

// maxEntries is more records than a file of this kind has.
const maxEntries = 1 << 20

// readZip reads the format of PyTorch 1.6 and later: NAME/data.pkl, and a stored record NAME/data/KEY for each
// storage.
func readZip(data []byte) (any, error) {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("the file is cut off or not a PyTorch file: %w", err)
	}
	if len(r.File) > maxEntries {
		return nil, fmt.Errorf("%d records, at most %d are plausible", len(r.File), maxEntries)
	}
	a := &archive{data: data, records: map[string]*zip.File{}}
	prefix := ""
	for _, e := range r.File {
		dir, base, ok := strings.Cut(e.Name, "/")
		if ok && base == "data.pkl" {
			prefix = dir + "/"
		}
		if _, ok := a.records[e.Name]; ok {
			return nil, fmt.Errorf("record %.80q is there twice", e.Name)
		}
		a.records[e.Name] = e
	}
	if prefix == "" {
		return nil, errors.New("a zip file without data.pkl: not a PyTorch file")
	}
	a.prefix = prefix
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
		return nil, fmt.Errorf("%sdata.pkl: %w", prefix, err)
	}
	return root, nil
}

// archive is the records of a zip file.
type archive struct {
	data    []byte
	prefix  string
	records map[string]*zip.File
}

// record returns the bytes of a stored record.
func (a *archive) record(name string) ([]byte, error) {
	e, ok := a.records[a.prefix+name]
	if !ok {
		return nil, fmt.Errorf("record %.80q is missing", name)
	}
	if e.Method != zip.Store || e.CompressedSize64 != e.UncompressedSize64 {
		return nil, fmt.Errorf("record %.80q is compressed, which PyTorch's files never are", name)
	}
	off, err := e.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("record %.80q: %w", name, err)
	}
	size := e.UncompressedSize64
	if off < 0 || off > int64(len(a.data)) || size > uint64(int64(len(a.data))-off) {
		return nil, fmt.Errorf("record %.80q has %d bytes at %d, the file %d in all", name, size, off, len(a.data))
	}
	end := off + int64(size)
	return a.data[off:end:end], nil
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
