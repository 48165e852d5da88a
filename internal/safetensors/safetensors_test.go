package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/numeric"
)

// file puts a length before a header and data behind it.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func TestBadFiles(t *testing.T) {
	const a = `"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}`
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "not a safetensors file: 0 bytes, want at least 8"},
		{"seven bytes", make([]byte, 7), "not a safetensors file: 7 bytes, want at least 8"},
		{"header too long", []byte("<\x00\x00\x00\x00\xff\xff\xff"), "not a safetensors file: header of 18446742974197923900 bytes, at most 100000000 are allowed"},
		{"just above the limit", binary.LittleEndian.AppendUint64(nil, MaxHeader+1), "not a safetensors file: header of 100000001 bytes, at most 100000000 are allowed"},
		{"header behind the end", []byte("<\x00\x00\x00\x00\x00\x00\x00"), "file is cut off: header of 60 bytes, but only 0 follow its length"},
		{"Git LFS", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"), "this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"},
		{"no header", file(""), "header: line 1, byte 0: want '{', but the text ends"},
		{"not UTF-8", file("\xff"), "header: line 1, byte 0: not valid UTF-8"},
		{"not UTF-8 in a name", file("{\"\xff\":1}"), "header: line 1, byte 2: not valid UTF-8"},
		{"not JSON", file("{"), "header: line 1, byte 1: want a string, but the text ends"},
		{"an array", file("[]"), "header: line 1, byte 0: want '{', got '['"},
		{"trailing text", file("{}{}"), "header: line 1, byte 2: there is more after the end of the value"},
		{"zero bytes as padding", file("{}\x00"), "header: line 1, byte 2: there is more after the end of the value"},
		{"name twice", file(`{` + a + `,"a":{}}`), `header: line 1, byte 53: key "a" is there twice`},
		{"field twice", file(`{"a":{"dtype":"U8","dtype":"U8"}}`), `header: tensor "a": line 1, byte 19: key "dtype" is there twice`},
		{"entry is a number", file(`{"a":1}`), `header: tensor "a": line 1, byte 5: want '{', got '1'`},
		{"dtype missing", file(`{"a":{"shape":[],"data_offsets":[0,0]}}`), `header: tensor "a": line 1, byte 38: dtype is missing`},
		{"case of a field", file(`{"a":{"Dtype":"U8","shape":[],"data_offsets":[0,1]}}`, 1), `header: tensor "a": line 1, byte 51: dtype is missing`},
		{"shape missing", file(`{"a":{"dtype":"U8","data_offsets":[0,0]}}`), `header: tensor "a": line 1, byte 40: shape is missing`},
		{"offsets missing", file(`{"a":{"dtype":"U8","shape":[0]}}`), `header: tensor "a": line 1, byte 31: data_offsets is missing`},
		{"dtype is a number", file(`{"a":{"dtype":8}}`), `header: tensor "a": dtype: line 1, byte 14: want a string, got '8'`},
		{"negative dimension", file(`{"a":{"shape":[-1]}}`), `header: tensor "a": shape: line 1, byte 15: want a whole number from 0, got -1`},
		{"broken dimension", file(`{"a":{"shape":[1.5]}}`), `header: tensor "a": shape: line 1, byte 15: want a whole number from 0, got 1.5`},
		{"dimension of 65 bits", file(`{"a":{"shape":[18446744073709551616]}}`), `header: tensor "a": shape: line 1, byte 15: 18446744073709551616 does not fit 64 bits`},
		{"dimension above the signed ones", file(`{"a":{"shape":[9223372036854775808]}}`), `header: tensor "a": shape: line 1, byte 34: dimension 9223372036854775808 is too large`},
		{"one offset", file(`{"a":{"data_offsets":[0]}}`), `header: tensor "a": data_offsets: line 1, byte 24: want two offsets, got 1`},
		{"three offsets", file(`{"a":{"data_offsets":[0,1,2]}}`), `header: tensor "a": data_offsets: line 1, byte 26: want two offsets, got more`},
		{"metadata is a list", file(`{"__metadata__":[]}`), `header: line 1, byte 16: want '{', got '['`},
		{"metadata of numbers", file(`{"__metadata__":{"a":1}}`), `header: __metadata__ "a": line 1, byte 21: want a string, got '1'`},
		{"wrong size", file(`{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,4]}}`, 1, 2, 3, 4), `tensor "a": F32 [2 2] takes 16 bytes, the offsets give 4`},
		{"product overflows", file(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`), `tensor "a": shape [4294967296 4294967296] is too large`},
		{"bytes overflow", file(`{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}`), `tensor "a": shape [2305843009213693952] is too large`},
		{"half a byte", file(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, 1, 2), `tensor "a": shape [3] of 4-bit elements ends inside a byte`},
		{"ends before it begins", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,1]}}`, 1, 2), `tensor "b": data begins at byte 2 and ends at 1`},
		{"first byte unused", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2), `tensor "a": data begins at byte 1, the tensor before ends at 0: a hole`},
		{"hole", file(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]},`+a+`}`, 1, 2, 3, 4), `tensor "b": data begins at byte 3, the tensor before ends at 2: a hole`},
		{"overlap", file(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},`+a+`}`, 1, 2, 3), `tensor "b": data begins at byte 1, the tensor before ends at 2: they overlap`},
		{"the same bytes twice", file(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+a+`}`, 1, 2), `tensor "a": data begins at byte 0, the tensor before ends at 2: they overlap`},
		{"the same bytes ten times", file(`{"w0":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"w1":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`, make([]byte, 16)...), `tensor "w1": data begins at byte 0, the tensor before ends at 16: they overlap`},
		{"two times 2^64-2", file(`{"a":{"dtype":"I32","shape":[2,18446744073709551614],"data_offsets":[0,16]}}`, make([]byte, 16)...), `header: tensor "a": shape: line 1, byte 51: dimension 18446744073709551614 is too large`},
		{"two times 2^63-1", file(`{"a":{"dtype":"I32","shape":[2,9223372036854775807],"data_offsets":[0,16]}}`, make([]byte, 16)...), `tensor "a": shape [2 9223372036854775807] is too large`},
		{"another file behind it", file(`{`+a+`}`, append([]byte{1, 2}, "PK\x03\x04 a second file"...)...), "20 bytes of data, but the tensors take 2"},
		{"data cut off", file(`{`+a+`}`, 1), `tensor "a": data ends at byte 2, but the file holds 1: it is cut off`},
		{"more data", file(`{`+a+`}`, 1, 2, 3), "3 bytes of data, but the tensors take 2"},
		{"data of nobody", file(`{}`, 1), "1 bytes of data, but the tensors take 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse(c.data, "x"); err == nil || err.Error() != "x: "+c.want {
				t.Errorf("got  %v\nwant x: %s", err, c.want)
			}
			path := filepath.Join(t.TempDir(), "x.safetensors")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); err == nil || err.Error() != path+": "+c.want {
				t.Errorf("opened: got %v", err)
			}
		})
	}
}

func TestGoodFiles(t *testing.T) {
	for name, c := range map[string]struct {
		data   []byte
		shapes map[string][]int
	}{
		"nothing":            {file(`{}`), nil},
		"white space":        {file(" \n{ } \t"), nil},
		"null metadata":      {file(`{"__metadata__":null}`), nil},
		"empty metadata":     {file(`{"__metadata__":{}}`), nil},
		"scalar":             {file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 0, 0, 128, 63), map[string][]int{"a": {}}},
		"nothing in a shape": {file(`{"a":{"dtype":"F32","shape":[2,0],"data_offsets":[0,0]}}`), map[string][]int{"a": {2, 0}}},
		"zero before huge":   {file(`{"a":{"dtype":"U8","shape":[0,9223372036854775807],"data_offsets":[0,0]}}`), map[string][]int{"a": {0, 9223372036854775807}}},
		"empty name":         {file(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), map[string][]int{"": {1}}},
		"unknown field":      {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":[{}]}}`, 1), map[string][]int{"a": {1}}},
		"unknown format":     {file(`{"a":{"dtype":"Q9","shape":[7],"data_offsets":[0,1]}}`, 1), map[string][]int{"a": {7}}},
	} {
		f, err := Parse(c.data, name)
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Len() != len(c.shapes) {
			t.Errorf("%s: %d tensors, want %d", name, f.Len(), len(c.shapes))
		}
		for n, shape := range c.shapes {
			if got, ok := f.Tensor(n); !ok || !reflect.DeepEqual(got.Shape, shape) {
				t.Errorf("%s: %q has shape %v, want %v", name, n, got.Shape, shape)
			}
		}
	}
}

func TestOrderAndFormats(t *testing.T) {
	f, err := Parse(file(`{"z":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[6,7]},
		"b":{"dtype":"BF16","shape":[2],"data_offsets":[2,6]},
		"e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},
		"__metadata__":{"format":"pt"},
		"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1, 2, 3, 4, 5, 6, 7), "x")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Names(), []string{"a", "e", "b", "z"}; !reflect.DeepEqual(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := f.Metadata(); !reflect.DeepEqual(got, map[string]string{"format": "pt"}) {
		t.Errorf("metadata %v", got)
	}
	b, _ := f.Tensor("b")
	if b.DType != numeric.BF16 || b.Type != "BF16" || !bytes.Equal(b.Data, []byte{3, 4, 5, 6}) || cap(b.Data) != 4 {
		t.Errorf("b is %+v", b)
	}
	z, _ := f.Tensor("z")
	if z.DType != numeric.Invalid || z.Type != "F8_E4M3" || !bytes.Equal(z.Data, []byte{7}) {
		t.Errorf("z is %+v", z)
	}
	if _, ok := f.Tensor("B"); ok {
		t.Error("names differ by case")
	}
	if f.Path() != "x" {
		t.Errorf("path %q", f.Path())
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	if err := os.WriteFile(path, file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 7, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for a := range f.All() {
		n++
		if a.Name != "a" || !bytes.Equal(a.Data, []byte{7, 8}) {
			t.Errorf("a is %+v", a)
		}
	}
	if n != 1 {
		t.Errorf("%d tensors", n)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if _, err := Open(dir); err == nil || err.Error() != dir+": not a regular file" {
		t.Errorf("a directory: %v", err)
	}
	missing := filepath.Join(dir, "y")
	if _, err := Open(missing); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), missing) != 1 {
		t.Errorf("a missing file: %v", err)
	}
}

// A file with a long header must not cost more than a small multiple of its length.
func TestAllocation(t *testing.T) {
	many := func(n int, item string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, item, i)
		}
		return b.String()
	}
	for _, c := range []struct{ header, want string }{
		{`{` + many(100_000, `"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`) + `}`, ""},
		{`{` + many(1<<18+1, `"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`) + `}`, "x: header: line 1, byte 14610169: more than 262144 tensors"},
		{`{"__metadata__":{` + many(60_000, `"%x":""`) + `}}`, ""},
		{`{"__metadata__":{` + many(70_000, `"%x":""`) + `}}`, "x: header: line 1, byte 651017: more than 65536 keys in __metadata__"},
		{`{"a":{"dtype":"U8","shape":[` + strings.Repeat("1,", 63) + `0],"data_offsets":[0,0]}}`, ""},
		{`{"a":{"dtype":"U8","shape":[` + strings.Repeat("1,", 1<<20) + `0],"data_offsets":[0,0]}}`, `x: header: tensor "a": shape: line 1, byte 157: more than 64 dimensions`},
		{`{"a":{"x":[` + strings.Repeat(`{"a":[]},`, 1<<18) + `0],"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, ""},
		{`{"` + strings.Repeat("n", 1<<20) + `":1}`, `x: header: tensor "` + strings.Repeat("n", 120) + `": line 1, byte 1048580: want '{', got '1'`},
		{`{"a":{"shape":[` + strings.Repeat("9", 1<<20) + `]}}`, `x: header: tensor "a": shape: line 1, byte 15: ` + strings.Repeat("9", 80) + `... does not fit 64 bits`},
	} {
		data := file(c.header)
		hostile.Bounded(t, len(data), perByte, func() {
			_, err := Parse(data, "x")
			if got := fmt.Sprint(err); got != c.want && (err != nil || c.want != "") {
				t.Errorf("%.60s...: got %.300v\nwant %s", c.header, err, c.want)
			}
		})
	}
}

// perByte is how much memory a byte of a header can take, as the package promises.
const perByte = 32

// Whatever opens must be consistent, and written again and read again be the same.
func FuzzParse(f *testing.F) {
	f.Add(file(`{}`))
	f.Add(file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F8_E4M3","shape":[],"data_offsets":[8,9]}}   `, 1, 2, 3, 4, 5, 6, 7, 8, 9))
	f.Add(file(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`))
	f.Add(file(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1, 2, 3))
	f.Add([]byte("<\x00\x00\x00\x00\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var x *File
		var err error
		hostile.Bounded(t, len(data), perByte, func() { x, err = Parse(data, "x") })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x: ") {
				t.Fatalf("error without the file: %v", err)
			}
			return
		}
		n := 0
		var sources []Source
		for a := range x.All() {
			n += len(a.Data)
			if _, known := typeBits[a.Type]; !known {
				return
			}
			sources = append(sources, Source{Name: a.Name, Type: a.Type, Shape: a.Shape, Data: a.Data})
		}
		if n > len(data) {
			t.Fatalf("%d bytes of tensors in a file of %d", n, len(data))
		}
		var buf bytes.Buffer
		if err := Write(&buf, sources, x.Metadata()); err != nil {
			t.Fatal(err)
		}
		y, err := Parse(buf.Bytes(), "y")
		if err != nil {
			t.Fatal(err)
		}
		if x.path = "y"; !reflect.DeepEqual(x.tensors, y.tensors) || !reflect.DeepEqual(x.metadata, y.metadata) {
			t.Fatalf("%+v became %+v", x.tensors, y.tensors)
		}
	})
}
