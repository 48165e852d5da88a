package gguf

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
)

// numbers is what the reference writes: little-endian float32, every NaN the same.
func numbers(y []float32) []byte {
	var b []byte
	for _, v := range y {
		bits := math.Float32bits(v)
		if v != v {
			bits = 0x7fc00000
		}
		b = binary.LittleEndian.AppendUint32(b, bits)
	}
	return b
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// splitMix64 fills n bytes as the reference does.
func splitMix64(seed uint64, n int) []byte {
	var b []byte
	for len(b) < n {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b = binary.LittleEndian.AppendUint64(b, z^z>>31)
	}
	return b[:n]
}

func parseType(t *testing.T, name string) Type {
	for i := range types {
		if types[i].name == name {
			return Type(i)
		}
	}
	t.Fatalf("no type is called %q", name)
	return 0
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The golden files hold what dequantize of the Python package gguf makes of random blocks, of blocks with odd scales
// (zeros of both signs, subnormal, largest, infinite, NaN), of blocks that gguf itself packed and of blocks that
// llama.cpp's own code packed. See testdata/reference/make_gguf_cases.py.
func TestDequantize(t *testing.T) {
	var golden struct {
		Random [][3]any
		Packed []struct {
			Type, From, Blocks, First string
			Hashes                    []string
		}
	}
	readJSON(t, "testdata/blocks.json", &golden)
	covered := map[string]int{}
	for _, c := range golden.Random {
		name, blocks, want := c[0].(string), int(c[1].(float64)), c[2].(string)
		typ := parseType(t, name)
		elements, bytes := typ.Block()
		y := make([]float32, blocks*elements)
		if err := Dequantize(y, typ, splitMix64(uint64(typ), blocks*bytes)); err != nil {
			t.Error(err)
		}
		if got := hash(numbers(y)); got != want {
			t.Errorf("%s: random blocks: hash %s, want %s", name, got, want)
		}
		covered[name]++
	}
	for _, c := range golden.Packed {
		typ := parseType(t, c.Type)
		elements, bytes := typ.Block()
		src, err := base64.StdEncoding.DecodeString(c.Blocks)
		if err != nil || len(src) != len(c.Hashes)*bytes {
			t.Fatalf("%s: %d bytes, %v", c.Type, len(src), err)
		}
		y := make([]float32, len(c.Hashes)*elements)
		if err := Dequantize(y, typ, src); err != nil {
			t.Error(err)
		}
		first, err := base64.StdEncoding.DecodeString(c.First)
		if err != nil {
			t.Fatal(err)
		}
		got := numbers(y)
		for i := range elements {
			if g, w := binary.LittleEndian.Uint32(got[4*i:]), binary.LittleEndian.Uint32(first[4*i:]); g != w {
				t.Errorf("%s of %s: element %d is %g, want %g", c.Type, c.From, i, math.Float32frombits(g), math.Float32frombits(w))
			}
		}
		for i, want := range c.Hashes {
			if got := hash(got[4*i*elements : 4*(i+1)*elements])[:16]; got != want {
				t.Errorf("%s of %s: block %d has hash %s, want %s", c.Type, c.From, i, got, want)
			}
		}
		covered[c.Type]++
	}
	for typ := range decoders {
		elements, _ := typ.Block()
		if want := map[bool]int{true: 3, false: 1}[elements > 1]; covered[typ.String()] < want {
			t.Errorf("%v: %d kinds of blocks are compared, want at least %d", typ, covered[typ.String()], want)
		}
	}
}

func TestDequantizeErrors(t *testing.T) {
	const can = "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, F64, BF16"
	for _, c := range []struct {
		dst, src int
		t        Type
		want     string
	}{
		{256, 66, IQ2XXS, "IQ2_XXS tensors are not read, only " + can},
		{32, 17, MXFP4, "MXFP4 tensors are not read, only " + can},
		{4, 4, I8, "I8 tensors are not read, only " + can},
		{32, 18, 4, "Q4_2 tensors are not read, only " + can},
		{32, 18, math.MaxUint32, "type 4294967295 tensors are not read, only " + can},
		{32, 17, Q4_0, "17 bytes are not the blocks of 32 elements of type Q4_0: one has 32 elements in 18 bytes"},
		{33, 18, Q4_0, "18 bytes are not the blocks of 33 elements of type Q4_0: one has 32 elements in 18 bytes"},
		{0, 1, F32, "1 bytes are not the blocks of 0 elements of type F32: one has 1 elements in 4 bytes"},
		{255, 144, Q4_K, "144 bytes are not the blocks of 255 elements of type Q4_K: one has 256 elements in 144 bytes"},
	} {
		if err := Dequantize(make([]float32, c.dst), c.t, make([]byte, c.src)); err == nil || err.Error() != c.want {
			t.Errorf("%v: got %v\nwant %s", c.t, err, c.want)
		}
	}
	if err := Dequantize(nil, Q6_K, nil); err != nil {
		t.Error(err)
	}
}

func TestDequantizeAllocatesNothing(t *testing.T) {
	y, b := make([]float32, 1024), make([]byte, 8192)
	for typ := range decoders {
		elements, bytes := typ.Block()
		if n := testing.AllocsPerRun(10, func() { _ = Dequantize(y, typ, b[:len(y)/elements*bytes]) }); n != 0 {
			t.Errorf("%v: %v allocations", typ, n)
		}
	}
}

// Blocks do not depend on each other: many at once are the same as one by one, and nothing is written beyond dst.
func FuzzDequantize(f *testing.F) {
	for t := range decoders {
		elements, bytes := t.Block()
		f.Add(uint32(t), splitMix64(1, 3*bytes*max(1, 32/elements)))
	}
	f.Add(uint32(99), []byte("xx"))
	f.Fuzz(func(t *testing.T, number uint32, src []byte) {
		typ := Type(number)
		elements, bytes := typ.Block()
		if elements == 0 || !typ.Readable() {
			if err := Dequantize(nil, typ, nil); err == nil || !strings.Contains(err.Error(), typ.String()) {
				t.Fatalf("%v: %v", typ, err)
			}
			return
		}
		blocks := min(len(src)/bytes, 1024)
		src = src[:blocks*bytes]
		y := make([]float32, blocks*elements+1)
		y[len(y)-1] = 42
		if err := Dequantize(y[:len(y)-1], typ, src); err != nil {
			t.Fatal(err)
		}
		if y[len(y)-1] != 42 {
			t.Fatal("written beyond the end")
		}
		one := make([]float32, elements)
		for i := range blocks {
			if err := Dequantize(one, typ, src[i*bytes:(i+1)*bytes]); err != nil {
				t.Fatal(err)
			}
			if string(numbers(one)) != string(numbers(y[i*elements:(i+1)*elements])) {
				t.Fatalf("%v: block %d is another one alone", typ, i)
			}
		}
	})
}

// A minimum that is not a number comes out as it is, sign and all, in the two formats that add it.
func TestMinimumNaN(t *testing.T) {
	for _, m := range []byte{0x7e, 0xfe} {
		four, five := make([]byte, 20), make([]byte, 24)
		copy(four, []byte{0, 0x3c, 0x12, m})
		copy(five, four[:4])
		a, b := make([]float32, 32), make([]float32, 32)
		if err := errors.Join(Dequantize(a, Q4_1, four), Dequantize(b, Q5_1, five)); err != nil {
			t.Fatal(err)
		}
		for i := range a {
			if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
				t.Fatalf("element %d is %#x in Q4_1, %#x in Q5_1", i, math.Float32bits(a[i]), math.Float32bits(b[i]))
			}
		}
	}
}
