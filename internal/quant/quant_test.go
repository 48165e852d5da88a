package quant

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// golden is what bitsandbytes made (testdata/reference/make_quant_cases.py).
type golden struct {
	t    *testing.T
	file *safetensors.File
}

func openGolden(t *testing.T) golden {
	f, err := safetensors.Open(filepath.Join("testdata", "nf4.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return golden{t, f}
}

// floats returns a tensor as float32.
func (g golden) floats(name string) []float32 {
	x, ok := g.file.Tensor(name)
	if !ok {
		g.t.Fatalf("no tensor %s", name)
	}
	v := make([]float32, len(x.Data)/x.DType.Size())
	for i := range v {
		switch x.DType {
		case numeric.F32:
			v[i] = float(x.Data, i)
		case numeric.F16:
			v[i] = numeric.F16ToF32(binary.LittleEndian.Uint16(x.Data[2*i:]))
		case numeric.BF16:
			v[i] = numeric.BF16ToF32(binary.LittleEndian.Uint16(x.Data[2*i:]))
		default:
			g.t.Fatalf("%s is %v", name, x.DType)
		}
	}
	return v
}

func (g golden) bytes(name string) []byte {
	x, ok := g.file.Tensor(name)
	if !ok || x.DType != numeric.U8 {
		g.t.Fatalf("no bytes %s", name)
	}
	return x.Data
}

// encode encodes v.
func encode(t testing.TB, f Format, v []float32, rows, cols, workers int) *Matrix {
	t.Helper()
	var b bytes.Buffer
	err := Encode(context.Background(), &b, f, rows, cols, workers, from(v, cols))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(f, rows, cols, b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func from(v []float32, cols int) func(dst []float32, from, to int) error {
	return func(dst []float32, from, to int) error {
		if copy(dst, v[from*cols:to*cols]) != len(dst) {
			return errors.New("dst has not the length of the rows")
		}
		return nil
	}
}

func decode(t testing.TB, m *Matrix) []float32 {
	t.Helper()
	v := make([]float32, m.Rows*m.Cols)
	if err := m.Elements(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

func wantBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] != 0 || want[i] != 0) {
			t.Fatalf("%s: value %d is %g, want %g", what, i, got[i], want[i])
		}
	}
}

func TestCodeBooks(t *testing.T) {
	g := openGolden(t)
	wantBits(t, "nf4", Values[:], g.floats("code4"))
	wantBits(t, "scales", ScaleValues[:], g.floats("code8"))
}

// NF4 must be what bitsandbytes makes of the same tensor.
func TestNF4(t *testing.T) {
	g := openGolden(t)
	cases := 0
	for _, name := range g.file.Names() {
		name, ok := strings.CutSuffix(name, ".source")
		if !ok {
			continue
		}
		cases++
		t.Run(name, func(t *testing.T) { testNF4(golden{t, g.file}, name) })
	}
	if cases != 17 {
		t.Errorf("%d cases, want 17", cases)
	}
}

func testNF4(g golden, name string) {
	t := g.t
	source, _ := g.file.Tensor(name + ".source")
	rows, cols := source.Shape[0], source.Shape[1]
	v := g.floats(name + ".source")
	m := encode(t, NF4, v, rows, cols, 2)
	packed := g.bytes(name + ".packed")
	for i := range v {
		got := m.Codes[i/64*32+i%32] >> (i % 64 / 32 * 4) & 15
		if want := packed[i/2] >> ((i + 1) % 2 * 4) & 15; got != want {
			t.Fatalf("code %d of %g is %d, want %d", i, v[i], got, want)
		}
	}
	scales := g.floats(name + ".absmax")
	if _, ok := g.file.Tensor(name + ".values"); ok { // without double quantisation
		plain := make([]float32, len(v))
		for i := range v {
			plain[i] = Values[m.Codes[i/64*32+i%32]>>(i%64/32*4)&15] * scales[i/64]
		}
		wantBits(t, "with plain scales", plain, g.floats(name+".values"))
	}

	offset := g.floats(name + ".offset")[0]
	if d := math.Abs(float64(m.Offset - offset)); d > 3e-7*math.Abs(float64(offset)) {
		t.Errorf("the mean of the scales is %g, want %g", m.Offset, offset)
	}
	data := appendScales(bytes.Clone(m.Codes), scales, offset) // with torch's rounding of the mean
	m, err := Open(NF4, rows, cols, data)
	if err != nil {
		t.Fatal(err)
	}
	if want := g.bytes(name + ".nested"); !bytes.Equal(m.Scales, want) {
		t.Errorf("codes of scales %v, want %v", m.Scales, want)
	}
	factors := make([]float32, len(m.Factors)/4)
	for i := range factors {
		factors[i] = float(m.Factors, i)
	}
	wantBits(t, "factors", factors, g.floats(name+".factors"))
	wantBits(t, "values", decode(t, m), g.floats(name+".nestedvalues"))
}

var sizes = [][2]int{{1, 1}, {1, 63}, {1, 64}, {1, 65}, {3, 43}, {7, 64}, {5, 96}, {2, 128}, {130, 192}, {64, 260}, {1, 64*256*2 + 5}}

func random(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64()) * 0.02
	}
	return v
}

// An element is at most half a gap of its code book away, a scale at most half a gap of its own.
func TestError(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range sizes {
		v := random(rng, s[0]*s[1])
		for _, f := range []Format{NF4, Int8} {
			m := encode(t, f, v, s[0], s[1], 1)
			if err := m.CheckFinite(); err != nil {
				t.Error(err)
			}
			for i, got := range decode(t, m) {
				top := float64(largest(v[i/64*64 : min(len(v), i/64*64+64)]))
				scale := float64(m.Scale(i / 64))
				limit := scale / 2 * (1 + 1e-6)
				if f == NF4 { // the widest gap is 0.304; the scale's error weighs with the code's value
					limit = top*0.1521 + math.Abs(scale-top)
					if off := math.Abs(scale - top); off > 0.008*float64(largest32(m.Factors))+1e-9 {
						t.Fatalf("%v: scale %d is %g, want about %g", s, i/64, scale, top)
					}
				}
				if d := math.Abs(float64(got - v[i])); d > limit {
					t.Fatalf("%v %v: element %d is %g, want %g: off by %g, at most %g", f, s, i, got, v[i], d, limit)
				}
			}
		}
	}
}

func largest32(b []byte) float32 {
	var top float32
	for i := range len(b) / 4 {
		top = max(top, float(b, i))
	}
	return top
}

func TestInt8(t *testing.T) {
	v := make([]float32, 3*Block+2)
	for i := range 64 { // multiples and ties of a scale of 2
		v[i] = float32(2*i - 127)
	}
	v[0], v[1], v[2], v[3] = 254, -254, 3, 5
	v[64], v[65] = 0x1p-125, -0x1p-130 // 127 of this would be below the smallest normal number
	v[128], v[129] = math.MaxFloat32, math.MaxFloat32/127*0.49
	v[192], v[193] = -127, 1
	m := encode(t, Int8, v, 1, len(v), 1)
	got := decode(t, m)
	for i, want := range map[int]float32{0: 254, 1: -254, 2: 4, 3: 4, 4: -120, 5: -116, 64: 0, 65: 0, 129: 0, 192: -127, 193: 1} {
		if got[i] != want {
			t.Errorf("element %d of %g is %g, want %g", i, v[i], got[i], want)
		}
	}
	if d := math.Abs(float64(got[128])/math.MaxFloat32 - 1); d > 1e-6 {
		t.Errorf("the largest number is %g", got[128])
	}
	if m.Scale(0) != 2 || m.Scale(1) != 0 || m.Scale(3) != 1 {
		t.Errorf("scales %g %g and %g, want 2, 0 and 1", m.Scale(0), m.Scale(1), m.Scale(3))
	}
}

// The bytes must not depend on the number of workers, and parts of a matrix decode as the whole does.
func TestWorkersAndParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, s := range append(sizes, [2]int{300, 4099}) {
		v := random(rng, s[0]*s[1])
		for _, f := range []Format{NF4, Int8} {
			m := encode(t, f, v, s[0], s[1], 1)
			for workers := 2; workers <= 4; workers++ {
				other := encode(t, f, v, s[0], s[1], workers)
				if !bytes.Equal(m.Codes, other.Codes) || !bytes.Equal(m.Scales, other.Scales) {
					t.Fatalf("%v %v: %d workers write other bytes than one", f, s, workers)
				}
			}
			all := decode(t, m)
			for range 20 {
				at := rng.IntN(len(all))
				part := make([]float32, rng.IntN(min(200, len(all)-at)+1))
				if err := m.Elements(part, at); err != nil {
					t.Fatal(err)
				}
				wantBits(t, fmt.Sprintf("%v %v: elements from %d", f, s, at), part, all[at:at+len(part)])
			}
		}
	}
}

func TestChunks(t *testing.T) {
	for _, cols := range []int{1, 2, 3, 43, 48, 64, 100, 4096, 11008, 1 << 20} {
		n := chunkRows(cols)
		if n < 1 || n*cols%Block != 0 || n > Block && n*cols > chunkElements {
			t.Errorf("%d columns: chunks of %d rows", cols, n)
		}
	}
}

func TestEncodeErrors(t *testing.T) {
	broken := errors.New("broken")
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		f          Format
		rows, cols int
		read       func(dst []float32, from, to int) error
		w          bytesLimit
		ctx        context.Context
		want       string
	}{
		{f: None, rows: 1, cols: 1, want: "none is no quantised format"},
		{f: 9, rows: 1, cols: 1, want: "Format(9) is no quantised format"},
		{f: NF4, rows: 0, cols: 3, want: "a matrix [0, 3], want at least one row and column"},
		{f: Int8, rows: 2, cols: -3, want: "a matrix [2, -3], want at least one row and column"},
		{f: NF4, rows: math.MaxInt / 2, cols: 3, want: "has too many elements"},
		{f: NF4, rows: 9, cols: 31, read: from(with(280, 100, nan), 31), want: "element 100 ([3 7] of [9 31]) is NaN"},
		{f: Int8, rows: 9, cols: 31, read: from(with(280, 278, inf), 31), want: "element 278 ([8 30] of [9 31]) is -Inf"},
		{f: NF4, rows: 2, cols: 8, read: func([]float32, int, int) error { return broken }, want: "broken"},
		{f: NF4, rows: 9, cols: 31, w: 10, want: "writing codes: full"},
		{f: NF4, rows: 9, cols: 31, w: 165, want: "writing the scales: full"},
		{f: NF4, rows: 9, cols: 31, ctx: ctx, want: "context canceled"},
	} {
		if c.read == nil {
			c.read = from(make([]float32, 280), 31)
		}
		if c.ctx == nil {
			c.ctx = context.Background()
		}
		err := Encode(c.ctx, &c.w, c.f, c.rows, c.cols, 2, c.read)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v [%d, %d]: error %v, want it to say %q", c.f, c.rows, c.cols, err, c.want)
		}
	}
}

func with(n, at int, v float32) []float32 {
	x := make([]float32, n)
	x[at] = v
	return x
}

// bytesLimit is a writer that takes so many bytes.
type bytesLimit int

func (l *bytesLimit) Write(b []byte) (int, error) {
	if int(*l) < len(b) {
		return 0, errors.New("full")
	}
	*l -= bytesLimit(len(b))
	return len(b), nil
}

func TestFormats(t *testing.T) {
	for _, f := range []Format{NF4, Int8} {
		if got, err := Parse(f.String()); err != nil || got != f {
			t.Errorf("%v parses as %v, %v", f, got, err)
		}
	}
	if NF4.ID() != "nf4-1" || Int8.ID() != "int8-1" || None.ID() != "none" {
		t.Errorf("IDs %s, %s, %s", NF4.ID(), Int8.ID(), None.ID())
	}
	for _, name := range []string{"", "none", "NF4", "fp4"} {
		if _, err := Parse(name); err == nil || err.Error() != fmt.Sprintf("format %q is unknown, want nf4 or int8", name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		f          Format
		rows, cols int
		want       int
	}{
		{NF4, 1, 1, 32 + 4 + 4 + 4}, {NF4, 1, 64, 44}, {NF4, 5, 64, 160 + 8 + 4 + 4}, {NF4, 257, 64, 257*32 + 260 + 8 + 4},
		{Int8, 1, 1, 68}, {Int8, 3, 43, 3 * 68}, {NF4, 4096, 4096, 4096*4096/2 + 1<<18 + 4<<10 + 4},
	} {
		if got, err := c.f.Size(c.rows, c.cols); err != nil || got != c.want {
			t.Errorf("%v [%d, %d] takes %d bytes (%v), want %d", c.f, c.rows, c.cols, got, err, c.want)
		}
	}
	for _, n := range []int{math.MaxInt / 4, math.MaxInt/4 - 1000, 1 << 40} { // no sum may overflow just below the limit
		for _, f := range []Format{NF4, Int8} {
			if size, err := f.Size(1, n); err != nil || size < n/2 {
				t.Errorf("%v [1, %d]: %d, %v", f, n, size, err)
			}
		}
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		f          Format
		rows, cols int
		size       int
		want       string
	}{
		{NF4, 2, 64, 75, "75 bytes for a matrix [2, 64] in nf4, which takes 76"},
		{NF4, 2, 64, 77, "77 bytes for a matrix [2, 64] in nf4, which takes 76"},
		{Int8, 2, 64, 0, "0 bytes for a matrix [2, 64] in int8, which takes 136"},
		{Int8, 1 << 40, 1 << 40, 0, "a matrix [1099511627776, 1099511627776] has too many elements"},
		{Int8, math.MinInt, math.MinInt, 0, "want at least one row and column"},
		{None, 1, 1, 4, "none is no quantised format"},
	} {
		if _, err := Open(c.f, c.rows, c.cols, make([]byte, c.size)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want it to say %q", err, c.want)
		}
	}
}

func TestElementsErrors(t *testing.T) {
	m := encode(t, NF4, make([]float32, 12), 3, 4, 1)
	for _, c := range []struct{ n, from int }{{13, 0}, {1, 12}, {0, 13}, {1, -1}, {5, math.MaxInt - 2}} {
		if err := m.Elements(make([]float32, c.n), c.from); err == nil || !strings.HasSuffix(err.Error(), "are asked for, there are 12") {
			t.Errorf("%d from %d: %v", c.n, c.from, err)
		}
	}
	if err := m.Elements(nil, 12); err != nil {
		t.Error(err)
	}
}

func TestCheckFinite(t *testing.T) {
	data := make([]byte, 2*64+8)
	binary.LittleEndian.PutUint32(data[132:], math.Float32bits(float32(math.Inf(1))))
	m, err := Open(Int8, 2, 64, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckFinite(); err == nil || err.Error() != "the scale of block 1, elements from 64 on, is +Inf" {
		t.Error(err)
	}
	data = make([]byte, 44)
	binary.LittleEndian.PutUint32(data[40:], 0x7fc00000)
	if m, err = Open(NF4, 1, 1, data); err != nil {
		t.Fatal(err)
	}
	if err := m.CheckFinite(); err == nil || err.Error() != "the scale of block 0, elements from 0 on, is NaN" {
		t.Error(err)
	}
}

// FuzzEncode encodes any finite numbers and wants them back within the format's error.
func FuzzEncode(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i, s := range sizes {
		var b []byte
		for _, v := range random(rng, min(400, s[0]*s[1])) {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		f.Add(b, uint8(s[1]), i%2 == 0)
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0x7f, 0x7f, 0, 0, 0x80, 0x7f}, uint8(1), true)
	f.Fuzz(func(t *testing.T, data []byte, width uint8, nf4 bool) {
		cols := 1 + int(width)
		rows := len(data) / 4 / cols
		if rows == 0 {
			return
		}
		v := make([]float32, rows*cols)
		bad, huge := false, false
		for i := range v {
			v[i] = float(data, i)
			bad = bad || !finite(v[i])
			huge = huge || math.Abs(float64(v[i])) > math.MaxFloat32/4
		}
		format := Int8
		if nf4 {
			format = NF4
		}
		var b bytes.Buffer
		err := Encode(context.Background(), &b, format, rows, cols, 2, from(v, cols))
		if err != nil && huge {
			return // a scale that is rounded up to infinity is refused too
		}
		if (err != nil) != bad {
			t.Fatalf("error %v, while something is not finite: %v", err, bad)
		}
		if err != nil {
			return
		}
		m, err := Open(format, rows, cols, b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range decode(t, m) {
			// Near a tie the rounding of v/scale, up to 127 of them, decides: 127 * 2^-23 is 1.5e-5 of a step.
			scale := math.Abs(float64(m.Scale(i / 64)))
			if d := math.Abs(float64(got) - float64(v[i])); format == Int8 && d > scale/2*(1+1e-4)+127*0x1p-126 {
				t.Fatalf("element %d of %g is %g", i, v[i], got)
			}
		}
	})
}

// FuzzOpen: what is accepted can be read to its end.
func FuzzOpen(f *testing.F) {
	f.Add(uint8(NF4), 1, 1, make([]byte, 44))
	f.Add(uint8(Int8), 3, 43, make([]byte, 3*68))
	f.Add(uint8(NF4), 1<<40, 1<<40, []byte{})
	f.Add(uint8(7), 0, -1, []byte{1})
	f.Fuzz(func(t *testing.T, format uint8, rows, cols int, data []byte) {
		m, err := Open(Format(format), rows, cols, data)
		if err != nil {
			return
		}
		v := make([]float32, rows*cols)
		if err := m.Elements(v, 0); err != nil {
			t.Fatal(err)
		}
		if m.CheckFinite() != nil {
			return
		}
		for i, x := range v {
			if x != x {
				t.Fatalf("element %d is NaN, while all scales are finite", i)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	const rows, cols = 512, 4096
	v := random(rand.New(rand.NewPCG(1, 1)), rows*cols)
	for _, f := range []Format{NF4, Int8} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%v/threads=%d", f, workers), func(b *testing.B) {
				b.SetBytes(rows * cols)
				for b.Loop() {
					var l bytesLimit = 1 << 30
					if err := Encode(context.Background(), &l, f, rows, cols, workers, from(v, cols)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkElements(b *testing.B) {
	const cols = 4096
	v := random(rand.New(rand.NewPCG(1, 1)), cols)
	for _, f := range []Format{NF4, Int8} {
		b.Run(f.String(), func(b *testing.B) {
			m := encode(b, f, v, 1, cols, 1)
			b.SetBytes(cols)
			for b.Loop() {
				m.decode(v, 0)
			}
		})
	}
}
