package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"unicode/utf8"
	"unsafe"
)

// kind is the type of a value, numbered as in the file (ggml's enum gguf_type).
type kind uint32

const (
	kindUint8 kind = iota
	kindInt8
	kindUint16
	kindInt16
	kindUint32
	kindInt32
	kindFloat32
	kindBool
	kindString
	kindArray
	kindUint64
	kindInt64
	kindFloat64
)

// kinds holds the name of each kind, its Go type and its bytes: of strings and arrays the least that they take.
var kinds = [...]struct {
	name   string
	goType reflect.Type
	size   int
}{
	kindUint8: {"uint8", reflect.TypeFor[uint8](), 1}, kindInt8: {"int8", reflect.TypeFor[int8](), 1},
	kindUint16: {"uint16", reflect.TypeFor[uint16](), 2}, kindInt16: {"int16", reflect.TypeFor[int16](), 2},
	kindUint32: {"uint32", reflect.TypeFor[uint32](), 4}, kindInt32: {"int32", reflect.TypeFor[int32](), 4},
	kindUint64: {"uint64", reflect.TypeFor[uint64](), 8}, kindInt64: {"int64", reflect.TypeFor[int64](), 8},
	kindFloat32: {"float32", reflect.TypeFor[float32](), 4}, kindFloat64: {"float64", reflect.TypeFor[float64](), 8},
	kindBool: {"bool", reflect.TypeFor[bool](), 1}, kindString: {"string", reflect.TypeFor[string](), 8},
	kindArray: {"array", reflect.TypeFor[any](), 12},
}

// entry is a key and where its value lies.
type entry struct {
	key     string
	kind    kind
	element kind // of an array
	n       int  // elements of an array
	at, end int  // the value; of an array its elements, behind their type and number
}

// typeName is the Go type that the value has.
func (e *entry) typeName() string {
	switch {
	case e.kind != kindArray:
		return kinds[e.kind].name
	case e.element == kindArray:
		return "[]any"
	}
	return "[]" + kinds[e.element].name
}

// read walks over the value and checks it, so that decoding cannot fail.
func (e *entry) read(r *reader) (err error) {
	if e.kind, err = r.kind("the type of the value"); err != nil {
		return err
	}
	if e.kind == kindArray {
		if e.element, e.n, err = r.array(); err != nil {
			return err
		}
	}
	e.at = r.at
	err = e.skip(r)
	e.end = r.at
	return err
}

// skip walks over what is between at and end.
func (e *entry) skip(r *reader) error {
	if e.kind == kindArray {
		return r.skipElements(e.element, e.n, 1)
	}
	return r.skip(e.kind, 0)
}

func (r *reader) kind(what string) (kind, error) {
	at := r.at
	n, err := r.uint32(what)
	if err != nil {
		return 0, err
	}
	if uint64(n) >= uint64(len(kinds)) {
		return 0, fmt.Errorf("byte %d: %s is %d, want 0 to %d", at, what, n, len(kinds)-1)
	}
	return kind(n), nil
}

// array reads what comes before the elements of an array.
func (r *reader) array() (element kind, n int, err error) {
	if element, err = r.kind("the type of the elements"); err != nil {
		return 0, 0, err
	}
	at := r.at
	count, err := r.uint64("the number of elements")
	if err != nil {
		return 0, 0, err
	}
	if left := len(r.data) - r.at; count > uint64(left/kinds[element].size) {
		return 0, 0, fmt.Errorf("byte %d: %d elements of type %s take at least %d bytes each, but %d are left: the file is cut off",
			at, count, kinds[element].name, kinds[element].size, left)
	}
	return element, int(count), nil
}

// skip walks over a value. depth is the number of arrays around it.
func (r *reader) skip(k kind, depth int) error {
	switch k {
	case kindString:
		_, err := r.bytes("a string")
		return err
	case kindArray:
		if depth >= MaxDepth {
			return fmt.Errorf("byte %d: arrays are nested more than %d deep", r.at, MaxDepth)
		}
		element, n, err := r.array()
		if err != nil {
			return err
		}
		return r.skipElements(element, n, depth+1)
	case kindBool:
		return r.skipBools(1)
	}
	_, err := r.take(uint64(kinds[k].size), kinds[k].name)
	return err
}

// skipElements walks over n elements, whose least size array has compared with the file.
func (r *reader) skipElements(k kind, n, depth int) error {
	switch k {
	case kindString, kindArray:
		for range n {
			if err := r.skip(k, depth); err != nil {
				return err
			}
		}
		return nil
	case kindBool:
		return r.skipBools(n)
	}
	r.at += n * kinds[k].size
	return nil
}

func (r *reader) skipBools(n int) error {
	b, err := r.take(uint64(n), "bool")
	for i, v := range b {
		if v > 1 {
			return fmt.Errorf("byte %d: a bool is %d, want 0 or 1", r.at-n+i, v)
		}
	}
	return err
}

// decode makes the Go value.
func (e *entry) decode(head []byte) any {
	b := head[e.at:e.end]
	switch e.kind {
	case kindArray:
		return decodeArray(&b, e.element, e.n)
	case kindString:
		return text(b[8:]) // behind its length
	}
	v := reflect.New(kinds[e.kind].goType)
	_, _ = binary.Decode(b, binary.LittleEndian, v.Interface()) // read has checked the length
	return v.Elem().Interface()
}

// decodeArray takes n elements off b.
func decodeArray(b *[]byte, k kind, n int) any {
	switch k {
	case kindArray:
		return decodeArrays(b, n)
	case kindString:
		return decodeStrings(b, n)
	}
	v := reflect.MakeSlice(reflect.SliceOf(kinds[k].goType), n, n).Interface()
	_, _ = binary.Decode(*b, binary.LittleEndian, v) // read has checked the length
	*b = (*b)[n*kinds[k].size:]
	return v
}

func decodeArrays(b *[]byte, n int) []any {
	arrays := make([]any, n)
	for i := range arrays {
		element, n := kind(binary.LittleEndian.Uint32(*b)), int(binary.LittleEndian.Uint64((*b)[4:]))
		*b = (*b)[12:]
		arrays[i] = decodeArray(b, element, n)
	}
	return arrays
}

func decodeStrings(b *[]byte, n int) []string {
	values := make([]string, n)
	for i := range values {
		length := binary.LittleEndian.Uint64(*b)
		values[i] = text((*b)[8 : 8+length])
		*b = (*b)[8+length:]
	}
	return values
}

// text makes a string of bytes that nobody writes to, without a copy: a vocabulary has a hundred thousand of them.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Keys returns the keys of the metadata in the order of the file.
func (f *File) Keys() []string {
	keys := make([]string, len(f.keys))
	for i := range f.keys {
		keys[i] = f.keys[i].key
	}
	return keys
}

// Has reports whether the metadata has key.
func (f *File) Has(key string) bool {
	_, ok := f.byKey[key]
	return ok
}

// Value returns the value of key as a Go value: uint8, int8, uint16, int16, uint32, int32, uint64, int64, float32,
// float64, bool or string, a slice of these, or []any for an array of arrays. It is decoded at each call, but the text
// of strings is shared with the file's metadata. Strings are the bytes of the file, which may not be UTF-8.
func (f *File) Value(key string) (any, bool) {
	i, ok := f.byKey[key]
	if !ok {
		return nil, false
	}
	return f.keys[i].decode(f.head), true
}

// ValueType returns the Go type that Value returns for key, such as "uint32" or "[]string", and for a slice its
// length, without decoding it; "" if there is no such key.
func (f *File) ValueType(key string) (name string, length int) {
	i, ok := f.byKey[key]
	if !ok {
		return "", 0
	}
	return f.keys[i].typeName(), f.keys[i].n
}

// ErrNoKey is what the getters below return, wrapped, where the metadata lacks the key.
var ErrNoKey = errors.New("the file has no such key")

// lookup finds key for a getter.
func (f *File) lookup(key string) (*entry, error) {
	i, ok := f.byKey[key]
	if !ok {
		return nil, fmt.Errorf("%s: key %q: %w", f.path, key, ErrNoKey)
	}
	return &f.keys[i], nil
}

func (f *File) errorf(e *entry, format string, args ...any) error {
	return fmt.Errorf("%s: key %q: byte %d: %w", f.path, e.key, e.at, fmt.Errorf(format, args...))
}

// get returns the value of key if it is a T.
func get[T any](f *File, key, want string) (value T, e *entry, err error) {
	if e, err = f.lookup(key); err != nil {
		return value, nil, err
	}
	if e.typeName() != want {
		return value, nil, f.errorf(e, "want %s, got %s", want, e.typeName())
	}
	value, _ = e.decode(f.head).(T)
	return value, e, nil
}

// Bool returns a bool.
func (f *File) Bool(key string) (bool, error) {
	v, _, err := get[bool](f, key, "bool")
	return v, err
}

// String returns a string, which must be UTF-8.
func (f *File) String(key string) (string, error) {
	v, e, err := get[string](f, key, "string")
	if err == nil && !utf8.ValidString(v) {
		return "", f.errorf(e, "%.100q is not valid UTF-8", v)
	}
	return v, err
}

// Strings returns an array of strings, which must be UTF-8.
func (f *File) Strings(key string) ([]string, error) {
	v, e, err := get[[]string](f, key, "[]string")
	for i, s := range v {
		if !utf8.ValidString(s) {
			return nil, f.errorf(e, "string %d, %.100q, is not valid UTF-8", i, s)
		}
	}
	return v, err
}

// Floats returns an array of float32.
func (f *File) Floats(key string) ([]float32, error) {
	v, _, err := get[[]float32](f, key, "[]float32")
	return v, err
}

// Float returns a number of any type: writers differ in which they use.
func (f *File) Float(key string) (float64, error) {
	e, err := f.lookup(key)
	if err != nil {
		return 0, err
	}
	switch v := reflect.ValueOf(e.decode(f.head)); {
	case v.CanFloat():
		return v.Float(), nil
	case v.CanInt():
		return float64(v.Int()), nil
	case v.CanUint():
		return float64(v.Uint()), nil
	}
	return 0, f.errorf(e, "want a number, got %s", e.typeName())
}

// Uint returns an integer of any type that is not negative: writers differ in which they use.
func (f *File) Uint(key string) (uint64, error) {
	e, err := f.lookup(key)
	if err != nil {
		return 0, err
	}
	switch v := reflect.ValueOf(e.decode(f.head)); {
	case v.CanUint():
		return v.Uint(), nil
	case v.CanInt() && v.Int() >= 0:
		return uint64(v.Int()), nil
	case v.CanInt():
		return 0, f.errorf(e, "want an integer from 0, got %d", v.Int())
	}
	return 0, f.errorf(e, "want an integer, got %s", e.typeName())
}

// Ints returns an array of integers of any type.
func (f *File) Ints(key string) ([]int64, error) {
	e, err := f.lookup(key)
	if err != nil {
		return nil, err
	}
	switch v := e.decode(f.head).(type) {
	case []uint8:
		return widen(v), nil
	case []int8:
		return widen(v), nil
	case []uint16:
		return widen(v), nil
	case []int16:
		return widen(v), nil
	case []uint32:
		return widen(v), nil
	case []int32:
		return widen(v), nil
	case []int64:
		return v, nil
	case []uint64:
		for i, n := range v {
			if n > math.MaxInt64 {
				return nil, f.errorf(e, "element %d is %d, want at most %d", i, n, int64(math.MaxInt64))
			}
		}
		return widen(v), nil
	}
	return nil, f.errorf(e, "want an array of integers, got %s", e.typeName())
}

func widen[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64](v []T) []int64 {
	w := make([]int64, len(v))
	for i, n := range v {
		w[i] = int64(n)
	}
	return w
}
