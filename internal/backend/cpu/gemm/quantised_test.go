package gemm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

var formats = []quant.Format{quant.NF4, quant.Int8}

// quantise encodes v; the bytes begin at an odd address.
func quantise(t testing.TB, f quant.Format, v []float32, rows, cols int) *quant.Matrix {
	t.Helper()
	var b bytes.Buffer
	b.WriteByte(0)
	err := quant.Encode(context.Background(), &b, f, rows, cols, 1, func(dst []float32, from, to int) error {
		copy(dst, v[from*cols:to*cols])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return openQuantised(t, f, b.Bytes()[1:], rows, cols)
}

func openQuantised(t testing.TB, f quant.Format, data []byte, rows, cols int) *quant.Matrix {
	t.Helper()
	m, err := quant.Open(f, rows, cols, data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func elementsOf(t testing.TB, m *quant.Matrix) []float32 {
	t.Helper()
	v := make([]float32, m.Rows*m.Cols)
	if err := m.Elements(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

func quantised(m *quant.Matrix) Weight { return Weight{Rows: m.Rows, Cols: m.Cols, Quant: m} }

// dense returns the values of m as a float32 weight.
func dense(t testing.TB, m *quant.Matrix) Weight {
	return Weight{DType: numeric.F32, Rows: m.Rows, Cols: m.Cols, Data: encode(elementsOf(t, m), numeric.F32)}
}

// shapes of quantised weights: rows and columns.
var quantisedShapes = [][2]int{
	{1, 1}, {5, 1}, {1, 5}, {3, 43}, {48, 48}, {17, 64}, {64, 64}, {33, 128}, {32, 192}, {100, 320}, {45, 1088}, {700, 64}, {33, 100},
}

// A product with a quantised weight must be, to the bit, that with its values in float32; and near float64's.
func TestQuantisedProducts(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		e := engine(t, ker, 2)
		rng := rand.New(rand.NewPCG(21, 22))
		for i, s := range quantisedShapes {
			if testing.Short() && s[0]*s[1] > 10_000 {
				continue
			}
			for _, f := range formats {
				m := quantise(t, f, random(rng, s[0]*s[1]), s[0], s[1])
				for _, c := range []Compute{F32, BF16} {
					testQuantised(t, e, rng, m, []int{1, 5, 15, 31}[i%4], c)
				}
			}
		}
	})
}

func testQuantised(t *testing.T, e *Engine, rng *rand.Rand, m *quant.Matrix, rows int, c Compute) {
	t.Helper()
	var packed Packed
	values := matrix{rounded(elementsOf(t, m), c), 1, m.Cols}
	for _, forward := range []bool{true, false} {
		n, k, product := m.Rows, m.Cols, e.Forward
		if !forward {
			n, k, product = k, n, e.Backward
			values.row, values.col = m.Cols, 1
		}
		x, add := random(rng, rows*k), random(rng, rows*n)
		e.Pack(&packed, c, x, rows, k, k)
		got, want := make([]float32, rows*n), make([]float32, rows*n)
		product(got, n, &packed, quantised(m), add, n)
		product(want, n, &packed, dense(t, m), add, n)
		same(t, fmt.Sprintf("%v [%d, %d], %d rows, %v, forward %v", m.Format, m.Rows, m.Cols, rows, c, forward), got, want)
		compare(t, got, n, rows, n, k, 1, matrix{rounded(x, c), k, 1}, values, add, n)
	}
}

// anyMatrix returns a matrix of any codes; scales are finite, and some are special.
func anyMatrix(t testing.TB, rng *rand.Rand, f quant.Format, rows, cols int) *quant.Matrix {
	size, err := f.Size(rows, cols)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	m := openQuantised(t, f, data, rows, cols)
	floats := m.Factors
	if f == quant.Int8 {
		floats = m.Scales
	}
	for i := range len(floats) / 4 {
		u := math.Float32bits(float32(math.Ldexp(rng.Float64()+1, rng.IntN(200)-100)))
		if rng.IntN(4) == 0 {
			u = special[rng.IntN(6)]
		}
		binary.LittleEndian.PutUint32(floats[4*i:], u)
	}
	m.Offset = rng.Float32()
	return m
}

// The panels that the assembly packs must be those of packGo on the values.
func TestUnpackTwins(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	for _, ker := range testPaths() {
		if ker.unpack == nil {
			continue
		}
		t.Run(ker.name, func(t *testing.T) {
			for range 150 {
				for _, f := range formats {
					m := anyMatrix(t, rng, f, 1+rng.IntN(120), 64*(1+rng.IntN(5)))
					for _, c := range []Compute{F32, BF16} {
						compareUnpack(t, rng, ker, m, ker.panels(c), rng.IntN(2) == 0)
					}
				}
			}
		})
	}
}

// compareUnpack packs one panel of m from anywhere.
func compareUnpack(t *testing.T, rng *rand.Rand, ker *kernels, m *quant.Matrix, f format, forward bool) {
	t.Helper()
	align := stepAlign * f.places()
	var row, rows, col, cols int
	if forward {
		row, col = rng.IntN(m.Rows), rng.IntN(m.Cols/align)*align
		rows, cols = 1+rng.IntN(min(ker.cols, m.Rows-row)), align*(1+rng.IntN((m.Cols-col)/align))
	} else {
		row, col = rng.IntN(m.Rows), rng.IntN(m.Cols/ker.cols)*ker.cols
		rows, cols = 1+rng.IntN(m.Rows-row), ker.cols
	}
	lanes, k := rows, cols
	src := operand{dtype: numeric.F32, lane: m.Cols, place: 1}
	if !forward {
		lanes, k, src.lane, src.place = cols, rows, 1, m.Cols
	}
	var work worker
	values := elementsOf(t, m)
	src.p = unsafe.Pointer(&values[row*m.Cols+col])
	size := roundUp(k, stepAlign)*ker.cols + slack
	got, want := grow(nil, size+16), grow(nil, size)
	const guard = 0xdeadbeef
	for i := range got[size:] {
		got[size+i] = guard
	}
	ker.unpack(unsafe.Pointer(&got[0]), work.codes(ker, m, row, rows, col, cols), forward, lanes, k, f)
	packGo(unsafe.Pointer(&want[0]), ker.cols, src, lanes, k, f)
	for s := range (k + f.places() - 1) / f.places() {
		for l := range lanes {
			g, w := canonical(got[s*ker.cols+l], src.dtype, f), canonical(want[s*ker.cols+l], src.dtype, f)
			if g != w {
				t.Fatalf("%v [%d, %d], rows %d+%d, columns %d+%d, forward %v, format %d: step %d of lane %d is %#08x, want %#08x",
					m.Format, m.Rows, m.Cols, row, rows, col, cols, forward, f, s, l, g, w)
			}
		}
	}
	for _, v := range got[size:] {
		if v != guard {
			t.Fatalf("%v: %d lanes, %d places: wrote beyond the end", m.Format, lanes, k)
		}
	}
}

// FuzzUnpack packs any codes and scales: the path that Detect chooses against packGo.
func FuzzUnpack(f *testing.F) {
	for i := range uint64(8) {
		f.Add(i, uint8(1+20*i), uint8(i), i%2 == 0, i%4 < 2, i < 4)
	}
	f.Fuzz(func(t *testing.T, seed uint64, rows, blocks uint8, nf4, forward, bf16 bool) {
		ker := kernelsOf(Detect().set)
		if ker.unpack == nil {
			return
		}
		format, c := quant.Int8, F32
		if nf4 {
			format = quant.NF4
		}
		if bf16 {
			c = BF16
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		m := anyMatrix(t, rng, format, 1+int(rows), 64*(1+int(blocks)%16))
		compareUnpack(t, rng, ker, m, ker.panels(c), forward)
	})
}

func TestQuantisedSameBits(t *testing.T) {
	const rows, cols = 70, 1088
	rng := rand.New(rand.NewPCG(25, 26))
	for _, ker := range testPaths() {
		if testing.Short() && ker == &goKernels {
			continue
		}
		for _, f := range formats {
			m := quantise(t, f, random(rng, rows*cols), rows, cols)
			x := random(rng, 40*cols)
			var many, few []float32
			for workers := 1; workers <= 3; workers++ {
				e := engine(t, ker, workers)
				for _, n := range []int{40, 1, 9, 4} {
					var p Packed
					e.Pack(&p, BF16, x, n, cols, cols)
					got := make([]float32, n*rows)
					e.Forward(got, rows, &p, quantised(m), nil, 0)
					want := &many
					if n <= maxFewRows {
						want = &few
					}
					if len(*want) < len(got) {
						same(t, fmt.Sprintf("%s %v, %d rows, %d workers", ker.name, f, n, workers), got[:len(*want)], *want)
						*want = got
					}
					same(t, fmt.Sprintf("%s %v, %d rows, %d workers", ker.name, f, n, workers), got, (*want)[:len(got)])
				}
			}
		}
	}
}

func TestQuantisedAllocatesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	const m, n = 20, 128
	for _, ker := range testPaths() {
		e := engine(t, ker, 1)
		rng := rand.New(rand.NewPCG(27, 28))
		x, y := random(rng, m*n), make([]float32, m*n)
		for _, f := range formats {
			w := quantised(quantise(t, f, random(rng, n*n), n, n))
			var packed Packed
			for _, c := range []Compute{F32, BF16} {
				call := func() {
					e.Pack(&packed, c, x, m, n, n)
					e.Forward(y, n, &packed, w, nil, 0)
					e.Backward(y, n, &packed, w, nil, 0)
				}
				if allocs := testing.AllocsPerRun(5, call); allocs != 0 {
					t.Errorf("%s: %v in %v: %v allocations", ker.name, f, c, allocs)
				}
			}
		}
	}
}

func TestQuantisedMisuse(t *testing.T) {
	e := engine(t, &goKernels, 1)
	m := quantise(t, quant.NF4, make([]float32, 12), 3, 4)
	var packed Packed
	e.Pack(&packed, F32, make([]float32, 4), 1, 4, 4)
	defer func() {
		want := "gemm: a weight [4, 4] of a quantised matrix [3, 4]"
		if got := recover(); got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}()
	e.Forward(make([]float32, 4), 4, &packed, Weight{Rows: 4, Cols: 4, Quant: m}, nil, 0)
}
