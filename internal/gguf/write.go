package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/atomicfile"
)

// version is what Write writes.
const version = 3

// maxTensorName is the longest name of a tensor that llama.cpp opens, in bytes. Reading, MaxName is the limit.
const maxTensorName = 63

// KeyValue is a key of the metadata and its value: of a type that File.Value returns.
type KeyValue struct {
	Key   string
	Value any
}

// Source is a tensor to be written: its data is in memory, or comes from a function when its turn has come.
type Source struct {
	Name  string
	Type  Type
	Shape []int                   // row-major, the outermost dimension first
	Data  []byte                  // rows of blocks, little-endian
	Write func(w io.Writer) error // writes the data; used where it is not nil
}

// WriteFile writes a file at path as Write does: whole, or path stays as it was. Errors name path.
func WriteFile(path string, metadata []KeyValue, tensors []Source) error {
	return atomicfile.Write(path, func(w io.Writer) error { return Write(w, metadata, tensors) })
}

// Write writes GGUF version 3: metadata and tensors in the given order, each tensor's data aligned to 32 bytes, or to
// what the key general.alignment says, and filled up with zeros. Never more than what a Source itself holds is in
// memory. The bytes are those of GGUFWriter of the Python package gguf.
func Write(w io.Writer, metadata []KeyValue, tensors []Source) error {
	head, errs := encodeMetadata(metadata, len(tensors))
	alignment, err := alignmentOf(metadata)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	head, sizes, more := encodeInfos(head, tensors, alignment)
	if errs = append(errs, more...); len(errs) > 0 {
		return errors.Join(errs...)
	}
	if _, err := w.Write(append(head, make([]byte, pad(uint64(len(head)), alignment)-uint64(len(head)))...)); err != nil {
		return err
	}
	zeros := make([]byte, alignment)
	for i := range tensors {
		err := tensors[i].write(w, sizes[i])
		if err == nil {
			_, err = w.Write(zeros[:pad(sizes[i], alignment)-sizes[i]])
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", tensors[i].Name, err)
		}
	}
	return nil
}

// alignmentOf is what the data of every tensor is aligned to.
func alignmentOf(metadata []KeyValue) (uint64, error) {
	for _, kv := range metadata {
		if kv.Key != alignmentKey {
			continue
		}
		n, ok := kv.Value.(uint32)
		if !ok {
			return 0, fmt.Errorf("key %q: want a uint32, got %T", kv.Key, kv.Value)
		}
		if err := checkAlignment(n); err != nil {
			return 0, fmt.Errorf("key %q: %w", kv.Key, err)
		}
		return uint64(n), nil
	}
	return defaultAlignment, nil
}

// encodeMetadata returns everything before the table of tensors. It names every problem.
func encodeMetadata(metadata []KeyValue, tensors int) ([]byte, []error) {
	var errs []error
	if len(metadata) > MaxKeys {
		errs = append(errs, fmt.Errorf("%d keys, at most %d are allowed", len(metadata), MaxKeys))
	}
	if tensors > MaxTensors {
		errs = append(errs, fmt.Errorf("%d tensors, at most %d are allowed", tensors, MaxTensors))
	}
	le := binary.LittleEndian
	b := append([]byte(magic), version, 0, 0, 0)
	b = le.AppendUint64(b, uint64(tensors))
	b = le.AppendUint64(b, uint64(len(metadata)))
	seen := make(map[string]bool, len(metadata))
	for _, kv := range metadata {
		b = appendString(b, kv.Key)
		err := checkName(kv.Key, MaxName)
		if err == nil && seen[kv.Key] {
			err = errors.New("the key is there twice")
		}
		if seen[kv.Key] = true; err == nil {
			b, err = appendValue(b, kv.Value, 0)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("key %q: %w", kv.Key, err))
		}
	}
	return b, errs
}

// encodeInfos appends the table of tensors to b. It returns the bytes of each tensor, and every problem.
func encodeInfos(b []byte, tensors []Source, alignment uint64) ([]byte, []uint64, []error) {
	var (
		le     = binary.LittleEndian
		errs   []error
		offset uint64
		sizes  = make([]uint64, len(tensors))
		seen   = make(map[string]bool, len(tensors))
	)
	for i := range tensors {
		s := &tensors[i]
		size, err := s.size()
		if err == nil {
			err = checkName(s.Name, maxTensorName)
		}
		switch {
		case err != nil:
		case seen[s.Name]:
			err = errors.New("the name is there twice")
		case size > math.MaxInt64-offset-alignment:
			err = errors.New("the file would be too large")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tensor %q: %w", s.Name, err))
			continue
		}
		seen[s.Name] = true
		sizes[i] = size
		b = appendString(b, s.Name)
		b = le.AppendUint32(b, uint32(len(s.Shape)))
		for j := range s.Shape {
			b = le.AppendUint64(b, uint64(s.Shape[len(s.Shape)-1-j]))
		}
		b = le.AppendUint32(b, uint32(s.Type))
		b = le.AppendUint64(b, offset)
		offset += pad(size, alignment)
	}
	return b, sizes, errs
}

func (s *Source) size() (uint64, error) {
	size, err := s.Type.size(s.Shape)
	if err != nil {
		return 0, err
	}
	if s.Write == nil && uint64(len(s.Data)) != size {
		return 0, fmt.Errorf("%v %v takes %d bytes, got %d", s.Type, s.Shape, size, len(s.Data))
	}
	return size, nil
}

func (s *Source) write(w io.Writer, size uint64) error {
	write := s.Write
	if write == nil {
		write = func(w io.Writer) error { _, err := w.Write(s.Data); return err }
	}
	return atomicfile.Exactly(w, size, write)
}

func checkName(name string, limit int) error {
	if len(name) > limit {
		return fmt.Errorf("the name has %d bytes, at most %d are allowed", len(name), limit)
	}
	if !utf8.ValidString(name) {
		return errors.New("the name is not valid UTF-8")
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// kindOf returns how a value is numbered in the file, and of an array its elements.
func kindOf(v any) (k, element kind, err error) {
	t := reflect.TypeOf(v)
	if t == nil {
		return 0, 0, errors.New("a nil cannot be written")
	}
	for k := range kind(len(kinds)) {
		switch {
		case t == kinds[k].goType:
			return k, 0, nil
		case t.Kind() == reflect.Slice && t.Elem() == kinds[k].goType:
			return kindArray, k, nil
		}
	}
	return 0, 0, fmt.Errorf("a %T cannot be written", v)
}

// appendValue appends a value; depth is the number of arrays around it.
func appendValue(b []byte, v any, depth int) ([]byte, error) {
	k, element, err := kindOf(v)
	if err != nil {
		return b, err
	}
	if k == kindArray && depth >= MaxDepth {
		return b, fmt.Errorf("arrays are nested more than %d deep", MaxDepth)
	}
	le := binary.LittleEndian
	if depth == 0 {
		b = le.AppendUint32(b, uint32(k))
	}
	if k == kindArray {
		b = le.AppendUint32(b, uint32(element))
		b = le.AppendUint64(b, uint64(reflect.ValueOf(v).Len()))
	}
	switch v := v.(type) {
	case string:
		return appendString(b, v), nil
	case []string:
		for _, s := range v {
			b = appendString(b, s)
		}
		return b, nil
	case []any:
		for i, a := range v {
			if k, _, err := kindOf(a); err == nil && k != kindArray {
				return b, fmt.Errorf("element %d: a %T in an array of arrays", i, a)
			}
			if b, err = appendValue(b, a, depth+1); err != nil {
				return b, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return b, nil
	}
	return binary.Append(b, le, v)
}
