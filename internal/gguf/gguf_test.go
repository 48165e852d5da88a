package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/mmap"
)

// A vocabulary of llama.cpp: metadata only. What is expected was read with the Python package gguf.
func TestVocabularyFile(t *testing.T) {
	f, err := Open(golden.Shared(t, "tokenizers", "llama.cpp", "ggml-vocab-llama-spm.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Version() != 3 || len(f.Keys()) != 22 || len(f.Names()) != 0 {
		t.Errorf("version %d, %d keys, %d tensors", f.Version(), len(f.Keys()), len(f.Names()))
	}
	if name, err := f.String("tokenizer.ggml.model"); err != nil || name != "llama" {
		t.Errorf("tokenizer.ggml.model is %q, %v", name, err)
	}
	if n, err := f.Uint("llama.rope.dimension_count"); err != nil || n != 128 {
		t.Errorf("llama.rope.dimension_count is %d, %v", n, err)
	}
	if eps, err := f.Float("llama.attention.layer_norm_rms_epsilon"); err != nil || float32(eps) != 1e-5 {
		t.Errorf("the epsilon is %g, %v", eps, err)
	}
	if bos, err := f.Bool("tokenizer.ggml.add_bos_token"); err != nil || !bos {
		t.Errorf("add_bos_token is %v, %v", bos, err)
	}
	tokens, err := f.Strings("tokenizer.ggml.tokens")
	if err != nil || len(tokens) != 32000 || !slices.Equal(tokens[:4], []string{"<unk>", "<s>", "</s>", "<0x00>"}) || tokens[31999] != "给" {
		t.Errorf("%d tokens, %v", len(tokens), err)
	}
	scores, err := f.Floats("tokenizer.ggml.scores")
	if err != nil || len(scores) != 32000 || scores[31999] != -31740 {
		t.Errorf("%d scores, %v", len(scores), err)
	}
	kinds, err := f.Ints("tokenizer.ggml.token_type")
	if err != nil || len(kinds) != 32000 || !slices.Equal(kinds[:4], []int64{2, 3, 3, 6}) {
		t.Errorf("%d types, %v", len(kinds), err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if len(tokens[31999]) != 3 {
		t.Error("the tokens do not outlive the file")
	}
}

// raw puts parts together: strings with their length before them, []byte as they are, numbers little-endian.
func raw(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = appendString(b, p)
		case []byte:
			b = append(b, p...)
		default:
			b, _ = binary.Append(b, binary.LittleEndian, p)
		}
	}
	return b
}

// file is a header of version 3 with what follows it.
func file(tensors, keys uint64, parts ...any) []byte {
	return raw([]byte(magic), uint32(3), tensors, keys, raw(parts...))
}

// nested is arrays of one element in each other, behind the kind of the outermost.
func nested(depth int) []byte {
	var b []byte
	for range depth - 1 {
		b = append(b, raw(kindArray, uint64(1))...)
	}
	return append(b, raw(kindUint8, uint64(1), uint8(7))...)
}

// tensor is an entry in the table, ne in the order of the file.
func tensor(name string, t Type, offset uint64, ne ...uint64) []byte {
	return raw(name, uint32(len(ne)), ne, t, offset)
}

// aligned adds zeros up to 32 bytes, and n more.
func aligned(b []byte, n int) []byte {
	return append(b, make([]byte, -len(b)&31+n)...)
}

func TestBadFiles(t *testing.T) {
	const cut = ": the file is cut off"
	key := func(parts ...any) []byte { return file(0, 1, "k", raw(parts...)) }
	one := func(t []byte, data int) []byte { return aligned(file(1, 0, t), data) }
	two := func(a, b []byte, data int) []byte { return aligned(file(2, 0, a, b), data) }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "not a GGUF file: 0 bytes, want at least 24"},
		{"three bytes", []byte("GGU"), "not a GGUF file: 3 bytes, want at least 24"},
		{"something else", []byte("PK\x03\x04...."), `not a GGUF file: byte 0: it begins with "PK\x03\x04", want "GGUF"`},
		{"Git LFS", []byte("version https://git-lfs.github.com/spec/v1\n"), "this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"},
		{"GGML", []byte("lmgg\x01\x00\x00\x00"), "a GGML file, the format before GGUF, is not read: convert its source to GGUF"},
		{"GGJT", []byte("tjgg\x03\x00\x00\x00"), "a GGJT file, the format before GGUF, is not read: convert its source to GGUF"},
		{"magic alone", []byte("GGUF"), "byte 4: the version takes 4 bytes, but 0 are left" + cut},
		{"version 0", raw([]byte("GGUF"), uint32(0)), "byte 4: GGUF version 0 is not read, only 2 and 3"},
		{"version 1", raw([]byte("GGUF"), uint32(1)), "byte 4: GGUF version 1 is not read, only 2 and 3"},
		{"version 4", raw([]byte("GGUF"), uint32(4)), "byte 4: GGUF version 4 is not read, only 2 and 3"},
		{"big-endian", []byte("GGUF\x00\x00\x00\x03"), "byte 4: a big-endian GGUF file is not read: make a little-endian one with gguf-convert-endian of the Python package gguf"},
		{"magic reversed", []byte("FUGG\x00\x00\x00\x03"), "byte 4: a big-endian GGUF file is not read: make a little-endian one with gguf-convert-endian of the Python package gguf"},

		{"2^63 tensors", file(1<<63, 0), "byte 8: 9223372036854775808 tensors, at most 65536 are allowed"},
		{"2^64-1 keys", file(0, math.MaxUint64), "byte 16: 18446744073709551615 keys, at most 65536 are allowed"},
		{"a million keys", file(0, 1e6, make([]byte, 13e6)), "byte 16: 1000000 keys, at most 65536 are allowed"},
		{"more keys than bytes", file(0, 3, make([]byte, 38)), "byte 16: 3 keys take at least 39 bytes, but 38 are left" + cut},
		{"more tensors than bytes", file(65536, 0), "byte 8: 65536 tensors take at least 1572864 bytes, but 8 are left" + cut},

		{"key of 2^62 bytes", file(0, 1, uint64(1)<<62, make([]byte, 5)), "key 1 of 1: byte 32: a name takes 4611686018427387904 bytes, but 5 are left" + cut},
		{"key of 2^64-1 bytes", file(0, 1, uint64(math.MaxUint64), make([]byte, 5)), "key 1 of 1: byte 32: a name takes 18446744073709551615 bytes, but 5 are left" + cut},
		{"long key", file(0, 1, strings.Repeat("k", 65536)), "key 1 of 1: byte 24: a name of 65536 bytes, at most 65535 are allowed"},
		{"key is not UTF-8", file(0, 1, "k\xff", kindUint8, uint8(1)), `key 1 of 1: byte 24: the name "k\xff" is not valid UTF-8`},
		{"duplicate key", file(0, 2, "k", kindUint8, uint8(1), "k", kindUint8, uint8(2)), `byte 38: key "k" is there twice`},
		{"no value", file(0, 1, "kk", uint16(0), uint8(0)), `key "kk": byte 34: the type of the value takes 4 bytes, but 3 are left` + cut},
		{"unknown kind", key(uint32(13), uint64(0)), `key "k": byte 33: the type of the value is 13, want 0 to 12`},
		{"huge kind", key(uint32(math.MaxUint32), uint64(0)), `key "k": byte 33: the type of the value is 4294967295, want 0 to 12`},
		{"number cut off", key(kindFloat64, uint32(0)), `key "k": byte 37: float64 takes 8 bytes, but 4 are left` + cut},
		{"bool of 2", key(kindBool, uint8(2)), `key "k": byte 37: a bool is 2, want 0 or 1`},
		{"bools of 255", key(kindArray, kindBool, uint64(3), []byte{0, 1, 255}), `key "k": byte 51: a bool is 255, want 0 or 1`},
		{"string beyond the end", key(kindString, uint64(9), []byte("12345678")), `key "k": byte 45: a string takes 9 bytes, but 8 are left` + cut},
		{"string of 2^63 bytes", key(kindString, uint64(1)<<63), `key "k": byte 45: a string takes 9223372036854775808 bytes, but 0 are left` + cut},
		{"unknown kind of elements", key(kindArray, uint32(99), uint64(0)), `key "k": byte 37: the type of the elements is 99, want 0 to 12`},
		{"array cut off", key(kindArray, kindUint32, uint64(2), uint32(1)), `key "k": byte 41: 2 elements of type uint32 take at least 4 bytes each, but 4 are left` + cut},
		{"2^62 numbers", key(kindArray, kindFloat32, uint64(1)<<62, uint32(1)), `key "k": byte 41: 4611686018427387904 elements of type float32 take at least 4 bytes each, but 4 are left` + cut},
		{"2^64-1 bytes", key(kindArray, kindUint8, uint64(math.MaxUint64)), `key "k": byte 41: 18446744073709551615 elements of type uint8 take at least 1 bytes each, but 0 are left` + cut},
		{"2^61 strings", key(kindArray, kindString, uint64(1)<<61, uint64(0)), `key "k": byte 41: 2305843009213693952 elements of type string take at least 8 bytes each, but 8 are left` + cut},
		{"2^61 arrays", key(kindArray, kindArray, uint64(1)<<61, make([]byte, 12)), `key "k": byte 41: 2305843009213693952 elements of type array take at least 12 bytes each, but 12 are left` + cut},
		{"string in an array", key(kindArray, kindString, uint64(2), "ab", uint64(7)), `key "k": byte 67: a string takes 7 bytes, but 0 are left` + cut},
		{"1000 nested arrays", key(kindArray, nested(1000)), `key "k": byte 133: arrays are nested more than 8 deep`},
		{"9 nested arrays", key(kindArray, nested(9)), `key "k": byte 133: arrays are nested more than 8 deep`},

		{"tensor's name beyond the end", file(1, 0, uint64(100), make([]byte, 16)), "tensor 1 of 1: byte 32: a name takes 100 bytes, but 16 are left" + cut},
		{"tensor's name is not UTF-8", one(tensor("\xc3(", F32, 0, 8), 32), `tensor 1 of 1: byte 24: the name "\xc3(" is not valid UTF-8`},
		{"duplicate tensor", two(tensor("a", F32, 0, 8), tensor("a", F32, 32, 8), 64), `byte 57: tensor "a" is there twice`},
		{"5 dimensions", one(tensor("a", F32, 0, 1, 1, 1, 1, 1), 32), `tensor "a": byte 33: 5 dimensions, at most 4 are allowed`},
		{"2^32-1 dimensions", one(raw("a", uint32(math.MaxUint32), make([]byte, 16)), 32), `tensor "a": byte 33: 4294967295 dimensions, at most 4 are allowed`},
		{"a dimension of 0", one(tensor("a", F32, 0, 8, 0), 32), `tensor "a": byte 45: dimension 1 is 0, want 1 to 9223372036854775807`},
		{"a dimension of 2^63", one(tensor("a", F32, 0, 1<<63), 32), `tensor "a": byte 37: dimension 0 is 9223372036854775808, want 1 to 9223372036854775807`},
		{"2^62 x 4", one(tensor("a", I8, 0, 1<<62, 4), 32), `tensor "a": byte 53: shape [4 4611686018427387904] is too large`},
		{"2^62 x 1", one(tensor("a", F32, 0, 1<<62, 1), 32), `tensor "a": byte 53: shape [1 4611686018427387904] is too large`},
		{"2^62 x 2^62 x 2^62 x 2^62", one(tensor("a", Q4_0, 0, 1<<62, 1<<62, 1<<62, 1<<62), 32), `tensor "a": byte 69: shape [4611686018427387904 4611686018427387904 4611686018427387904 4611686018427387904] is too large`},
		{"2^62 bytes", one(tensor("a", I8, 0, 1<<62), 32), `tensor "a": byte 24: I8 [4611686018427387904] takes 4611686018427387904 bytes from offset 0, but there are 32 bytes of data (from byte 64 to 96)` + cut},
		{"a broken block", one(tensor("a", Q4_0, 0, 33), 64), `tensor "a": byte 45: rows of 33 elements are not whole blocks: Q4_0 has 32 in each`},
		{"blocks across rows", one(tensor("a", Q4_K, 0, 128, 2), 160), `tensor "a": byte 53: rows of 128 elements are not whole blocks: Q4_K has 256 in each`},
		{"a scalar of blocks", one(tensor("a", Q8_0, 0), 64), `tensor "a": byte 37: rows of 1 elements are not whole blocks: Q8_0 has 32 in each`},
		{"unknown type", one(tensor("a", 42, 0, 32), 64), `tensor "a": byte 45: type 42 is not a known format`},
		{"huge type", one(tensor("a", math.MaxUint32, 0, 32), 64), `tensor "a": byte 45: type 4294967295 is not a known format`},
		{"removed type", one(tensor("a", 31, 0, 32), 64), `tensor "a": byte 45: Q4_0_4_4 was taken out of the format; make the file again from its source`},
		{"misaligned offset", one(tensor("a", F32, 4, 8), 64), `tensor "a": byte 24: offset 4 is not a multiple of the alignment 32`},
		{"offset beyond the end", one(tensor("a", F32, 64, 8), 32), `tensor "a": byte 24: F32 [8] takes 32 bytes from offset 64, but there are 32 bytes of data (from byte 64 to 96)` + cut},
		{"offset of 2^64-32", one(tensor("a", F32, 1<<64-32, 8), 32), `tensor "a": byte 24: F32 [8] takes 32 bytes from offset 18446744073709551584, but there are 32 bytes of data (from byte 64 to 96)` + cut},
		{"offset that overflows with the size", one(tensor("a", F32, 1<<64-32, 16), 32), `tensor "a": byte 24: F32 [16] takes 64 bytes from offset 18446744073709551584, but there are 32 bytes of data (from byte 64 to 96)` + cut},
		{"overlap", two(tensor("a", F32, 0, 16), tensor("b", F32, 32, 8), 64), `tensor "b": byte 57: data begins at byte 128, but that of "a" ends at 160: they overlap`},
		{"the same bytes twice", two(tensor("a", F32, 0, 8), tensor("b", F32, 0, 8), 32), `tensor "b": byte 57: data begins at byte 96, but that of "a" ends at 128: they overlap`},
		{"no padding before the data", file(1, 0, tensor("a", F32, 0, 1)), `byte 57: the file is cut off: the data begins at byte 64`},

		{"alignment of 0", aligned(file(1, 1, alignmentKey, kindUint32, uint32(0), tensor("a", F32, 0, 8)), 32), `key "general.alignment": byte 53: an alignment of 0, want a power of two up to 1048576`},
		{"alignment of 48", file(0, 1, alignmentKey, kindUint32, uint32(48)), `key "general.alignment": byte 53: an alignment of 48, want a power of two up to 1048576`},
		{"alignment of 2^31", file(0, 1, alignmentKey, kindUint32, uint32(1)<<31), `key "general.alignment": byte 53: an alignment of 2147483648, want a power of two up to 1048576`},
		{"alignment is a string", file(0, 1, alignmentKey, kindString, "32"), `key "general.alignment": byte 53: want a uint32, got string`},
		{"alignment is an array", file(0, 1, alignmentKey, kindArray, kindUint32, uint64(1), uint32(32)), `key "general.alignment": byte 65: want a uint32, got []uint32`},
	} {
		_, err := Parse(c.data, "x")
		if err == nil || err.Error() != "x: "+c.want {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
	}
}

func TestGoodFiles(t *testing.T) {
	for name, c := range map[string]struct {
		data   []byte
		shapes map[string][]int
	}{
		"nothing":             {file(0, 0), nil},
		"version 2":           {aligned(raw([]byte(magic), uint32(2), uint64(1), uint64(0), tensor("a", F32, 0, 3)), 12), map[string][]int{"a": {3}}},
		"scalar":              {aligned(file(1, 0, tensor("a", F32, 0)), 4), map[string][]int{"a": {}}},
		"order of dimensions": {aligned(file(1, 0, tensor("a", I8, 0, 4, 3, 2, 1)), 24), map[string][]int{"a": {1, 2, 3, 4}}},
		"a hole and other order": {aligned(file(2, 0, tensor("b", I8, 96, 1), tensor("a", I8, 0, 1)), 97),
			map[string][]int{"a": {1}, "b": {1}}},
		"a format that is not read": {aligned(file(1, 0, tensor("a", IQ2XXS, 0, 256, 2)), 132), map[string][]int{"a": {2, 256}}},
		"alignment of 1":            {file(1, 1, alignmentKey, kindUint32, uint32(1), tensor("a", I8, 0, 2), []byte{1, 2}), map[string][]int{"a": {2}}},
		"more behind the data":      {aligned(file(1, 0, tensor("a", I8, 0, 2)), 99), map[string][]int{"a": {2}}},
		"eight nested arrays":       {file(0, 1, "k", kindArray, nested(8)), nil},
		"empty key":                 {file(0, 1, "", kindBool, uint8(1)), nil},
	} {
		f, err := Parse(c.data, name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := len(f.Names()); got != len(c.shapes) {
			t.Errorf("%s: %d tensors, want %d", name, got, len(c.shapes))
		}
		for n, shape := range c.shapes {
			got, ok := f.Tensor(n)
			if !ok || !slices.Equal(got.Shape, shape) {
				t.Errorf("%s: %q has shape %v, want %v", name, n, got.Shape, shape)
			}
			if elements, bytes := got.Type.Block(); got.Elements()/elements*bytes != len(got.Data) || cap(got.Data) != len(got.Data) {
				t.Errorf("%s: %q has %d bytes, capacity %d", name, n, len(got.Data), cap(got.Data))
			}
		}
	}
}

// A file that ends before its last tensor does is refused, wherever it ends, and the error says at which byte.
func TestCutAnywhere(t *testing.T) {
	data, err := os.ReadFile("testdata/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse(data, "x")
	if err != nil {
		t.Fatal(err)
	}
	last := f.tensors[len(f.tensors)-1]
	end := bytes.LastIndex(data, last.Data) + len(last.Data)
	offset := regexp.MustCompile(`byte \d+: |^x: not a GGUF file: \d bytes`)
	for n := range end {
		if _, err := Parse(data[:n:n], "x"); err == nil || !offset.MatchString(err.Error()) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := Parse(data[:end], "x"); err != nil {
		t.Errorf("without the last padding: %v", err)
	}
}

// Every kind of value and several types of tensors, as the Python package gguf writes them. The values are those of
// testdata/reference/make_gguf_cases.py.
func TestTiny(t *testing.T) {
	f, err := Open("testdata/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []KeyValue{
		{"general.architecture", "llama"},
		{"a.uint8", uint8(200)}, {"a.int8", int8(-100)}, {"a.uint16", uint16(60000)}, {"a.int16", int16(-30000)},
		{"a.uint32", uint32(4_000_000_000)}, {"a.int32", int32(-2_000_000_000)},
		{"a.uint64", uint64(1 << 63)}, {"a.int64", int64(-1 << 62)}, {"a.float32", float32(1e-5)}, {"a.float64", 0.1},
		{"a.true", true}, {"a.false", false}, {"a.string", "Ā <|x|>\n"},
		{"b.strings", []string{"<s>", "\u2581the", "给", "\n"}}, {"b.floats", []float32{0, -1.5, 3.25}},
		{"b.ints", []int32{1, 6, -3}}, {"b.bools", []bool{true, false, true}}, {"b.bytes", []uint8{0, 127, 255}},
		{"c.uint8", []uint8{1, 2, 3}}, {"c.int8", []int8{1, 2, 3}}, {"c.uint16", []uint16{1, 2, 3}},
		{"c.int16", []int16{1, 2, 3}}, {"c.uint32", []uint32{1, 2, 3}}, {"c.int64", []int64{1, 2, 3}},
		{"c.uint64", []uint64{1, 2, 3}}, {"c.float64", []float64{1, 2, 3}},
	}
	keys := f.Keys()
	if len(keys) != len(want) {
		t.Fatalf("keys %q", keys)
	}
	for i, w := range want {
		got, ok := f.Value(w.Key)
		if !ok || keys[i] != w.Key || !f.Has(w.Key) || !reflect.DeepEqual(got, w.Value) {
			t.Errorf("key %d, %q, is %T(%v), want %q: %T(%v)", i, keys[i], got, got, w.Key, w.Value, w.Value)
		}
		n := 0
		if v := reflect.ValueOf(w.Value); v.Kind() == reflect.Slice {
			n = v.Len()
		}
		if name, length := f.ValueType(w.Key); name != fmt.Sprintf("%T", w.Value) || length != n {
			t.Errorf("%q has type %s, length %d", w.Key, name, length)
		}
	}
	var tensors map[string][3]any
	readJSON(t, "testdata/tiny.json", &tensors)
	if len(f.Names()) != len(tensors) {
		t.Errorf("tensors %q", f.Names())
	}
	for x := range f.All() {
		w := tensors[x.Name]
		y := make([]float32, x.Elements())
		if err := Dequantize(y, x.Type, x.Data); err != nil {
			t.Error(err)
		}
		if x.Type.String() != w[0] || fmt.Sprint(x.Shape) != fmt.Sprint(w[1]) || hash(numbers(y)) != w[2] {
			t.Errorf("%q is %v %v, want %v", x.Name, x.Type, x.Shape, w)
		}
	}
}

func TestGetters(t *testing.T) {
	f, err := Parse(file(0, 12,
		"u8", kindUint8, uint8(255), "i32", kindInt32, int32(-7), "u64", kindUint64, uint64(math.MaxUint64),
		"f32", kindFloat32, float32(0.5), "f64", kindFloat64, 1e300, "bool", kindBool, uint8(1),
		"bad", kindString, "a\xff", "bads", kindArray, kindString, uint64(2), "a", "\xff",
		"u16s", kindArray, kindUint16, uint64(2), []uint16{1, 65535}, "u64s", kindArray, kindUint64, uint64(1), uint64(1)<<63,
		"none", kindArray, kindString, uint64(0), "deep", kindArray, nested(3)), "x")
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		v   any
		err error
	}
	of := func(v any, err error) result { return result{v, err} }
	for i, c := range []struct {
		got  result
		want any
	}{
		{of(f.Uint("u8")), uint64(255)},
		{of(f.Uint("u64")), uint64(math.MaxUint64)},
		{of(f.Uint("i32")), `x: key "i32": byte 54: want an integer from 0, got -7`},
		{of(f.Uint("f32")), `x: key "f32": byte 96: want an integer, got float32`},
		{of(f.Uint("gone")), `x: key "gone": the file has no such key`},
		{of(f.Float("i32")), -7.0},
		{of(f.Float("u8")), 255.0},
		{of(f.Float("u64")), 18446744073709551616.0},
		{of(f.Float("f32")), 0.5},
		{of(f.Float("f64")), 1e300},
		{of(f.Float("bool")), `x: key "bool": byte 139: want a number, got bool`},
		{of(f.Float("gone")), `x: key "gone": the file has no such key`},
		{of(f.Bool("bool")), true},
		{of(f.Bool("u8")), `x: key "u8": byte 38: want bool, got uint8`},
		{of(f.String("bool")), `x: key "bool": byte 139: want string, got bool`},
		{of(f.String("bad")), `x: key "bad": byte 155: "a\xff" is not valid UTF-8`},
		{of(f.String("gone")), `x: key "gone": the file has no such key`},
		{of(f.Strings("none")), []string{}},
		{of(f.Strings("bads")), `x: key "bads": byte 193: string 1, "\xff", is not valid UTF-8`},
		{of(f.Strings("bad")), `x: key "bad": byte 155: want []string, got string`},
		{of(f.Floats("none")), `x: key "none": byte 307: want []float32, got []string`},
		{of(f.Ints("u16s")), []int64{1, 65535}},
		{of(f.Ints("u64s")), `x: key "u64s": byte 271: element 0 is 9223372036854775808, want at most 9223372036854775807`},
		{of(f.Ints("none")), `x: key "none": byte 307: want an array of integers, got []string`},
		{of(f.Ints("deep")), `x: key "deep": byte 335: want an array of integers, got []any`},
		{of(f.Ints("gone")), `x: key "gone": the file has no such key`},
	} {
		if message, isError := c.want.(string); isError {
			if c.got.err == nil || c.got.err.Error() != message {
				t.Errorf("%d: got %v\nwant %s", i, c.got.err, message)
			}
			continue
		}
		if c.got.err != nil || !reflect.DeepEqual(c.got.v, c.want) {
			t.Errorf("%d: got %v, %v; want %v", i, c.got.v, c.got.err, c.want)
		}
	}
	if _, err := f.Bool("gone"); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	if v, _ := f.Value("deep"); !reflect.DeepEqual(v, []any{[]any{[]uint8{7}}}) {
		t.Errorf("deep is %v", v)
	}
	if v, ok := f.Value("gone"); ok || v != nil || f.Has("gone") {
		t.Errorf("gone is %v", v)
	}
	if v, _ := f.Value("bad"); v != "a\xff" {
		t.Errorf("bad is %q", v)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || err.Error() != dir+": not a regular file" {
		t.Errorf("a directory: %v", err)
	}
	missing := filepath.Join(dir, "y")
	if _, err := Open(missing); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), missing) != 1 {
		t.Errorf("a missing file: %v", err)
	}
	path := filepath.Join(dir, "x.gguf")
	if err := WriteFile(path, nil, []Source{{Name: "a", Type: I8, Shape: []int{2}, Data: []byte{1, 2}}}); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := f.Tensor("a"); !ok || !bytes.Equal(a.Data, []byte{1, 2}) || f.Path() != path {
		t.Errorf("a is %v", a)
	}
	if _, ok := f.Tensor("b"); ok {
		t.Error("there is a b")
	}
	if err := f.Unchanged(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if _, ok := f.Value("a"); ok || f.Names() == nil || len(f.Names()) != 0 {
		t.Error("the file outlives Close")
	}
}

// A file that is cut short while it is open: its metadata stays, and touching a tensor is an error that names it.
func TestCutWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	metadata := []KeyValue{{"k", []string{"a", "b"}}}
	err := WriteFile(path, metadata, []Source{{Name: "a", Type: F32, Shape: []int{1 << 16}, Data: make([]byte, 4<<16)}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 0); err != nil {
		t.Skip("an open file cannot be cut short here:", err)
	}
	if v, err := f.Strings("k"); err != nil || !slices.Equal(v, []string{"a", "b"}) {
		t.Errorf("k is %q, %v", v, err)
	}
	a, _ := f.Tensor("a")
	err = mmap.Guard(func() error { return Dequantize(make([]float32, a.Elements()), a.Type, a.Data) })
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("reading what is gone: %v", err)
	}
	if err := f.Unchanged(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Unchanged: %v", err)
	}
}

// A file whose metadata has no end in sight is refused before it is copied.
func TestHugeMetadata(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := os.WriteFile(path, file(0, 1, "k", kindString, uint64(MaxMetadata)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, MaxMetadata+100); err != nil { // takes no place on the disk
		t.Fatal(err)
	}
	want := path + `: key "k": byte 24: the metadata takes more than 268435456 bytes`
	if _, err := Open(path); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// What opening and decoding allocate is bounded by what the file holds, whatever it is filled with.
func TestAllocation(t *testing.T) {
	const n = 50000
	var keys, tensors []byte
	for i := range n {
		name := fmt.Sprintf("%05d", i)
		keys = append(keys, raw(name, kindUint8, uint8(1))...)
		tensors = append(tensors, tensor(name, I8, uint64(32*i))...)
	}
	for name, c := range map[string]struct {
		data  []byte
		limit int // times the bytes
	}{
		"keys":    {file(0, n, keys), 16},
		"tensors": {aligned(file(n, 0, tensors), 32*n), 16},
		"strings": {file(0, 1, "k", kindArray, kindString, uint64(n), make([]byte, 8*n)), 4},
		"arrays":  {file(0, 1, "k", kindArray, kindArray, uint64(n), make([]byte, 12*n)), 8},
		"bytes":   {file(0, 1, "k", kindArray, kindUint8, uint64(n), make([]byte, n)), 4},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f, err := Parse(c.data, "x")
		if err != nil {
			t.Error(err)
			continue
		}
		v, _ := f.Value("k")
		runtime.ReadMemStats(&after)
		size := len(c.data)
		if name == "tensors" {
			size = len(tensors)
		}
		if got := int(after.TotalAlloc - before.TotalAlloc); got > c.limit*size {
			t.Errorf("%s: %d bytes allocated for %d", name, got, size)
		} else {
			t.Logf("%s: %.1f times the bytes", name, float64(got)/float64(size))
		}
		runtime.KeepAlive(v)
	}
}

// Whatever opens must be consistent, decode, and written again and read again be the same.
func FuzzParse(f *testing.F) {
	tiny, err := os.ReadFile("testdata/tiny.gguf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tiny)
	f.Add(file(0, 0))
	f.Add(file(0, 1, "k", kindArray, nested(8)))
	f.Add(file(0, 1, "k", kindArray, kindString, uint64(2), "ab", "\xff"))
	f.Add(aligned(file(2, 1, alignmentKey, kindUint32, uint32(32), tensor("b", Q4_0, 96, 32, 1), tensor("a", F32, 0)), 128))
	f.Add(aligned(file(1, 0, tensor("a", I8, 0, 1<<62, 4)), 32))
	f.Add([]byte("GGUF\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Parse(data, "x")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x: ") {
				t.Fatalf("error without the file: %v", err)
			}
			return
		}
		var metadata []KeyValue
		for _, k := range x.Keys() {
			v, ok := x.Value(k)
			name, _ := x.ValueType(k)
			if got := strings.ReplaceAll(fmt.Sprintf("%T", v), "interface {}", "any"); !ok || name != got {
				t.Fatalf("%q is a %s, said to be a %s", k, got, name)
			}
			metadata = append(metadata, KeyValue{k, v})
		}
		n := 0
		var sources []Source
		for a := range x.All() {
			n += len(a.Data)
			if len(a.Name) > maxTensorName {
				return // is not written
			}
			sources = append(sources, Source{Name: a.Name, Type: a.Type, Shape: a.Shape, Data: a.Data})
		}
		if n > len(data) {
			t.Fatalf("%d bytes of tensors in a file of %d", n, len(data))
		}
		var buf bytes.Buffer
		if err := Write(&buf, metadata, sources); err != nil {
			t.Fatal(err)
		}
		y, err := Parse(buf.Bytes(), "y")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(x.tensors, y.tensors) || !reflect.DeepEqual(x.Keys(), y.Keys()) {
			t.Fatalf("%+v became %+v", x.tensors, y.tensors)
		}
		for i := range x.keys { // not the values: a NaN is not itself
			a, b := x.keys[i], y.keys[i]
			if a.typeName() != b.typeName() || !bytes.Equal(x.head[a.at:a.end], y.head[b.at:b.end]) {
				t.Fatalf("%q became another", a.key)
			}
		}
	})
}
