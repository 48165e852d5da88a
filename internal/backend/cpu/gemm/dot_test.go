package gemm

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// basesOf returns v as a weight in every type and format.
func basesOf(t testing.TB, v []float32, rows, cols int) (names []string, ws []Weight) {
	for _, d := range dtypes {
		names = append(names, d.String())
		ws = append(ws, Weight{DType: d, Rows: rows, Cols: cols, Data: append(make([]byte, 1), encode(v, d)...)[1:]})
	}
	for _, f := range formats {
		names = append(names, f.String())
		ws = append(ws, quantised(quantise(t, f, v, rows, cols)))
	}
	return names, ws
}

// Few rows are near float64's; a row has the same bits whatever the others are, up to maxFewRows; and a quantised weight
// gives the bits of its values in float32.
func TestFewRows(t *testing.T) {
	for _, ker := range testPaths() {
		t.Run(ker.name, func(t *testing.T) {
			e := engine(t, ker, 2)
			rng := rand.New(rand.NewPCG(31, 32))
			for _, s := range [][2]int{{1, 64}, {3, 64}, {32, 64}, {33, 32}, {50, 320}, {17, 1088}, {70, 2112}, {31, 48}, {40, 1100}} {
				n, k := s[0], s[1]
				if testing.Short() && n*k > 10_000 {
					continue
				}
				names, ws := basesOf(t, random(rng, n*k), n, k)
				for i, w := range ws {
					for _, c := range []Compute{F32, BF16} {
						testFewRows(t, e, rng, fmt.Sprintf("%s [%d, %d] in %v", names[i], n, k, c), w, c)
					}
				}
			}
		})
	}
}

func testFewRows(t *testing.T, e *Engine, rng *rand.Rand, name string, w Weight, c Compute) {
	t.Helper()
	n, k := w.Rows, w.Cols
	values := w
	if w.Quant != nil {
		values = dense(t, w.Quant)
	}
	x, add := random(rng, maxFewRows*k), random(rng, maxFewRows*n)
	var p Packed
	all := make([]float32, maxFewRows*n)
	e.Pack(&p, c, x, maxFewRows, k, k)
	e.Forward(all, n, &p, values, add, n)
	compare(t, all, n, maxFewRows, n, k, 1, matrix{rounded(x, c), k, 1}, matrix{rounded(decode(values.Data, n*k, values.DType), c), 1, k}, add, n)
	for m := 1; m <= maxFewRows; m++ {
		got := random(rng, m*(n+3))
		before := append([]float32(nil), got...)
		e.Pack(&p, c, x, m, k, k)
		e.Forward(got, n+3, &p, w, add, n)
		for r := range m {
			same(t, fmt.Sprintf("%s, row %d of %d", name, r, m), got[r*(n+3):][:n], all[r*n:][:n])
		}
		checkGaps(t, got, before, m, n, n+3)
	}
}

// Few rows of views of any strides, scaled and added to what is there; a row has the same bits whatever the others are.
func TestFewRowsOfViews(t *testing.T) {
	for _, ker := range testPaths() {
		t.Run(ker.name, func(t *testing.T) {
			e := engine(t, ker, 2)
			rng := rand.New(rand.NewPCG(43, 44))
			for _, s := range [][2]int{{1, 64}, {7, 128}, {64, 64}, {40, 192}, {33, 100}} {
				n, k := s[0], s[1]
				a := View{random(rng, maxFewRows*(k+5)), k + 5, 1}
				b := View{random(rng, n*(k+3)), 1, k + 3}
				before := random(rng, maxFewRows*(n+2))
				for _, accumulate := range []bool{false, true} {
					var add, all []float32
					if accumulate {
						add = before
					}
					for m := maxFewRows; m >= 1; m-- {
						got := append([]float32(nil), before[:m*(n+2)]...)
						e.Gemm(got, n+2, m, n, k, -0.3, a, b, accumulate)
						compare(t, got, n+2, m, n, k, -0.3, matrix{a.Data, k + 5, 1}, matrix{b.Data, 1, k + 3}, add, n+2)
						checkGaps(t, got, before[:m*(n+2)], m, n, n+2)
						if m == maxFewRows {
							all = got
						}
						same(t, fmt.Sprintf("[%d, %d], %d rows, accumulate %v", n, k, m, accumulate), got, all[:len(got)])
					}
				}
			}
		})
	}
}

// The paths of one compute agree to the bit also on few rows, but for pairs of bfloat16.
func TestFewRowsWidthDoesNotMatter(t *testing.T) {
	const n, k, m = 39, 704, 3
	rng := rand.New(rand.NewPCG(41, 42))
	names, ws := basesOf(t, random(rng, n*k), n, k)
	x := random(rng, m*k)
	want := []uint64{0xaa975f1d4fa64f4b, 0xb211732c8d78c3c9, 0xb9d3969b826c1180, 0x337fa31a263014d3, 0x8215dba8b84fa218}
	for i, w := range ws {
		for _, s := range []set{avx2, avx512f, avx512BF16, neon} {
			if !has(s) {
				continue
			}
			y := make([]float32, m*n)
			e := engine(t, kernelsOf(s), 2)
			var p Packed
			e.Pack(&p, F32, x, m, k, k)
			e.Forward(y, n, &p, w, nil, 0)
			sum := fnv.New64a()
			sum.Write(encode(y, numeric.F32))
			if got := sum.Sum64(); got != want[i] {
				t.Errorf("%v, %s: the checksum is %#x, want %#x", setNames[s], names[i], got, want[i])
			}
		}
	}
}

// TestFewRowsAreDots: the shapes of the models of the field use the kernels for few rows, in all types and formats but
// where elements would have to be rounded on the way.
func TestFewRowsAreDots(t *testing.T) {
	for _, ker := range testPaths() {
		if ker.dot == nil {
			continue
		}
		for _, s := range [][2]int{{2048, 2048}, {4096, 11008}, {14336, 4096}, {128, 576}} {
			_, ws := basesOf(t, make([]float32, 64), 1, 64)
			for _, w := range ws {
				for _, c := range []Compute{F32, BF16} {
					f := ker.format(c)
					p := product{e: &Engine{ker: ker}, format: f, tiling: tile(3, ker.rowsOf(f)), red: cut(s[1], f), n: s[0], b: strided(operand{dtype: w.DType}, s[1], true)}
					if w.Quant != nil {
						p.quant = &quant.Matrix{Format: w.Quant.Format, Rows: s[0], Cols: s[1]}
					}
					p.chooseDot()
					if rounds := f == roundedF32 && w.DType != numeric.BF16; (p.dot == nil) != rounds {
						t.Errorf("%s, %v, [%d, %d] of %v: has a kernel for few rows: %v", ker.name, c, s[0], s[1], w.DType, p.dot != nil)
					}
				}
			}
		}
	}
}
