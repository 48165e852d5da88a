package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/numeric"
)

// Source is a tensor to be written: its data is in memory, or comes from a function when its turn has come.
type Source struct {
	Name  string
	DType numeric.DType
	Type  string // the format's name where it is not DType's own
	Shape []int
	Data  []byte                  // row-major, little-endian
	Write func(w io.Writer) error // writes the data; used where it is not nil
}

func (s *Source) typeName() string {
	if s.Type != "" {
		return s.Type
	}
	return s.DType.String()
}

// WriteFile writes a file at path as Write does: whole, or path stays as it was. Errors name path.
func WriteFile(path string, tensors []Source, metadata map[string]string) error {
	return atomicfile.Write(path, func(w io.Writer) error { return Write(w, tensors, metadata) })
}

// Write writes tensors in the given order, their data one after another without gaps. Never more than what a Source
// itself holds is in memory. The header is padded with spaces to a multiple of 8 bytes.
func Write(w io.Writer, tensors []Source, metadata map[string]string) error {
	head, sizes, err := encodeHeader(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	for i := range tensors {
		if err := tensors[i].write(w, sizes[i]); err != nil {
			return fmt.Errorf("tensor %q: %w", tensors[i].Name, err)
		}
	}
	return nil
}

func (s *Source) write(w io.Writer, size uint64) error {
	write := s.Write
	if write == nil {
		write = func(w io.Writer) error { _, err := w.Write(s.Data); return err }
	}
	return atomicfile.Exactly(w, size, write)
}

// encodeHeader returns the header with its length before it, and the bytes of each tensor. It names every problem.
func encodeHeader(tensors []Source, metadata map[string]string) ([]byte, []uint64, error) {
	var (
		buf   bytes.Buffer
		errs  []error
		at    uint64
		sizes = make([]uint64, len(tensors))
		seen  = make(map[string]bool, len(tensors))
	)
	buf.Write(make([]byte, 8))
	buf.WriteByte('{')
	for k, v := range metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			errs = append(errs, fmt.Errorf("metadata %q: %q: not valid UTF-8", k, v))
		}
	}
	if metadata != nil {
		fmt.Fprintf(&buf, "%q:%s", metadataKey, encode(metadata))
	}
	for i := range tensors {
		s := &tensors[i]
		size, err := s.size()
		switch {
		case err != nil:
		case s.Name == metadataKey:
			err = errors.New("the name is reserved")
		case seen[s.Name]:
			err = errors.New("the name is there twice")
		case !utf8.ValidString(s.Name):
			err = errors.New("the name is not valid UTF-8")
		case at+size < at:
			err = errors.New("the file would be too large")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tensor %q: %w", s.Name, err))
			continue
		}
		seen[s.Name] = true
		sizes[i] = size
		if buf.Len() > 9 {
			buf.WriteByte(',')
		}
		shape := append([]int{}, s.Shape...) // nil would become null
		fmt.Fprintf(&buf, `%s:{"dtype":%s,"shape":%s,"data_offsets":[%d,%d]}`,
			encode(s.Name), encode(s.typeName()), encode(shape), at, at+size)
		at += size
	}
	buf.WriteByte('}')
	for buf.Len()%8 != 0 {
		buf.WriteByte(' ')
	}
	head := buf.Bytes()
	if len(head)-8 > MaxHeader {
		errs = append(errs, fmt.Errorf("header of %d bytes, at most %d are allowed", len(head)-8, MaxHeader))
	}
	binary.LittleEndian.PutUint64(head, uint64(len(head)-8))
	return head, sizes, errors.Join(errs...)
}

func (s *Source) size() (uint64, error) {
	elementBits, ok := typeBits[s.typeName()]
	if !ok {
		return 0, fmt.Errorf("cannot write the format %q", s.typeName())
	}
	size, err := byteSize(s.Shape, elementBits)
	if err != nil {
		return 0, err
	}
	if s.Write == nil && uint64(len(s.Data)) != size {
		return 0, fmt.Errorf("%s %v takes %d bytes, got %d", s.typeName(), s.Shape, size, len(s.Data))
	}
	return size, nil
}

// encode writes a string, a list of numbers or a map of strings as compact JSON, < and > unescaped.
func encode(v any) string {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // none of these can fail
	return string(bytes.TrimRight(buf.Bytes(), "\n"))
}
