// Package safetensors reads and writes safetensors files. Reading maps the file: opening costs neither time nor memory
// for the data. What a file may look like follows the Rust crate (github.com/huggingface/safetensors); in addition no
// name may occur twice, and there are limits to the numbers of tensors, dimensions and metadata. Opening takes at most
// 32 bytes for each byte of the header, and never more than half a GiB.
package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
)

// MaxHeader is how long a header may be, in bytes.
const MaxHeader = 100_000_000

// What else a header may have, more than any real file.
const (
	maxTensors    = 1 << 18
	maxDimensions = 64 // PyTorch's limit
	maxMetadata   = 1 << 16
)

const metadataKey = "__metadata__"

// Tensor is one tensor of a file.
type Tensor struct {
	Name  string
	DType numeric.DType // numeric.Invalid where package numeric has no such format
	Type  string        // the format as the file names it: "BF16", "F8_E4M3"
	Shape []int         // empty for a scalar
	Data  []byte        // row-major, little-endian; mapped, possibly unaligned; not to be written to
}

// File is an open file.
type File struct {
	path     string
	tensors  []Tensor
	byName   map[string]int
	metadata map[string]string
	mapped   *mmap.File // nil where the bytes are the caller's
}

// Open maps the file at path and checks its header and its length. The tensors' Data is valid until Close. Who touches
// it must be under mmap.Guard: the file may be cut short meanwhile.
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
	f := &File{path: path, byName: map[string]int{}}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Path returns what the file was opened as.
func (f *File) Path() string { return f.path }

// Len returns the number of tensors.
func (f *File) Len() int { return len(f.tensors) }

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

// Metadata returns what the header says beside the tensors, such as "format": "pt"; nil if nothing.
func (f *File) Metadata() map[string]string { return f.metadata }

// Unchanged returns an error if the file was changed since Open; see mmap.File.Unchanged.
func (f *File) Unchanged() error {
	if f.mapped == nil {
		return nil
	}
	return f.mapped.Unchanged()
}

// Close unmaps the file. The tensors' Data must not be touched afterwards.
func (f *File) Close() error {
	f.tensors, f.byName = nil, nil
	if f.mapped == nil {
		return nil
	}
	return f.mapped.Close()
}

// lfsPointer is how the small text begins that Git leaves in place of a large file that was not fetched.
var lfsPointer = []byte("version https://git-lfs")

func (f *File) parse(data []byte) error {
	if bytes.HasPrefix(data, lfsPointer) {
		return errors.New("this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
	}
	if len(data) < 8 {
		return fmt.Errorf("not a safetensors file: %d bytes, want at least 8", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > MaxHeader {
		return fmt.Errorf("not a safetensors file: header of %d bytes, at most %d are allowed", n, MaxHeader)
	}
	if n > uint64(len(data)-8) {
		return fmt.Errorf("file is cut off: header of %d bytes, but only %d follow its length", n, len(data)-8)
	}
	entries, err := f.header(data[8 : 8+n])
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return f.place(entries, data[8+n:])
}

// entry is a tensor as the header describes it.
type entry struct {
	tensor     Tensor
	begin, end uint64
}

func (f *File) header(text []byte) ([]entry, error) {
	r, err := strictjson.NewReader(text)
	if err != nil {
		return nil, err
	}
	var entries []entry
	err = r.Object(func(key string) error {
		if key == metadataKey {
			return f.readMetadata(r)
		}
		if len(entries) == maxTensors {
			return r.Errorf("more than %d tensors", maxTensors)
		}
		e, err := readEntry(r, key)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return entries, r.End()
}

func (f *File) readMetadata(r *strictjson.Reader) error {
	if null, err := r.Null(); null || err != nil {
		return err
	}
	f.metadata = map[string]string{}
	return r.Object(func(key string) error {
		if len(f.metadata) == maxMetadata {
			return r.Errorf("more than %d keys in %s", maxMetadata, metadataKey)
		}
		v, err := r.String()
		f.metadata[key] = v
		if err != nil {
			return fmt.Errorf("%s %.120q: %w", metadataKey, key, err)
		}
		return nil
	})
}

func readEntry(r *strictjson.Reader, name string) (entry, error) {
	e := entry{tensor: Tensor{Name: name}}
	var offsets []uint64
	err := r.Object(func(key string) (err error) {
		switch key {
		case "dtype":
			e.tensor.Type, err = r.String()
		case "shape":
			e.tensor.Shape, err = readShape(r)
		case "data_offsets":
			offsets, err = readOffsets(r)
		default:
			return r.Skip()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	switch {
	case err != nil:
	case e.tensor.Type == "":
		err = r.Errorf("dtype is missing")
	case e.tensor.Shape == nil:
		err = r.Errorf("shape is missing")
	case offsets == nil:
		err = r.Errorf("data_offsets is missing")
	}
	if err != nil {
		return e, fmt.Errorf("tensor %.120q: %w", name, err)
	}
	e.tensor.DType, _ = numeric.Parse(e.tensor.Type)
	e.begin, e.end = offsets[0], offsets[1]
	return e, nil
}

func readShape(r *strictjson.Reader) ([]int, error) {
	shape := []int{}
	err := r.Array(func() error {
		n, err := r.Uint()
		if err != nil {
			return err
		}
		if len(shape) == maxDimensions {
			return r.Errorf("more than %d dimensions", maxDimensions)
		}
		if n > math.MaxInt {
			return r.Errorf("dimension %d is too large", n)
		}
		shape = append(shape, int(n))
		return nil
	})
	return shape, err
}

func readOffsets(r *strictjson.Reader) ([]uint64, error) {
	var offsets []uint64
	err := r.Array(func() error {
		if len(offsets) == 2 {
			return r.Errorf("want two offsets, got more")
		}
		n, err := r.Uint()
		offsets = append(offsets, n)
		return err
	})
	if err == nil && len(offsets) < 2 {
		err = r.Errorf("want two offsets, got %d", len(offsets))
	}
	return offsets, err
}

// place gives every tensor its part of the data: in the order of their offsets they must fill it from the first byte
// to the last.
func (f *File) place(entries []entry, data []byte) error {
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	f.tensors = make([]Tensor, len(entries))
	var at uint64
	for i, e := range entries {
		if err := e.check(at, uint64(len(data))); err != nil {
			return fmt.Errorf("tensor %.120q: %w", e.tensor.Name, err)
		}
		e.tensor.Data = data[e.begin:e.end:e.end]
		f.tensors[i] = e.tensor
		f.byName[e.tensor.Name] = i
		at = e.end
	}
	if at != uint64(len(data)) {
		return fmt.Errorf("%d bytes of data, but the tensors take %d", len(data), at)
	}
	return nil
}

// check compares the offsets with the end of the tensor before, the size of the tensor and the size of the data.
func (e *entry) check(at, size uint64) error {
	switch {
	case e.begin > at:
		return fmt.Errorf("data begins at byte %d, the tensor before ends at %d: a hole", e.begin, at)
	case e.begin < at:
		return fmt.Errorf("data begins at byte %d, the tensor before ends at %d: they overlap", e.begin, at)
	case e.end < e.begin:
		return fmt.Errorf("data begins at byte %d and ends at %d", e.begin, e.end)
	case e.end > size:
		return fmt.Errorf("data ends at byte %d, but the file holds %d: it is cut off", e.end, size)
	}
	elementBits, ok := typeBits[e.tensor.Type]
	if !ok {
		return nil // a format of the future: only its reader can say
	}
	want, err := byteSize(e.tensor.Shape, elementBits)
	if err != nil {
		return err
	}
	if got := e.end - e.begin; got != want {
		return fmt.Errorf("%s %v takes %d bytes, the offsets give %d", e.tensor.Type, e.tensor.Shape, want, got)
	}
	return nil
}

// typeBits are the bits of an element in each format that the crate knows.
var typeBits = map[string]uint64{
	"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
	"F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8,
	"F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}

// byteSize is the product of shape and the size of an element.
func byteSize(shape []int, elementBits uint64) (uint64, error) {
	n := elementBits
	for _, d := range shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 0 || hi != 0 {
			return 0, fmt.Errorf("shape %v is too large", shape)
		}
		n = lo
	}
	if n%8 != 0 {
		return 0, fmt.Errorf("shape %v of %d-bit elements ends inside a byte", shape, elementBits)
	}
	return n / 8, nil
}
