package gemm

import (
	"fmt"
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

// Few rows must have the bits that they have among many.
func TestFewRows(t *testing.T) {
	const many = 20
	for _, ker := range testPaths() {
		t.Run(ker.name, func(t *testing.T) {
			e := engine(t, ker, 2)
			rng := rand.New(rand.NewPCG(31, 32))
			for _, s := range [][2]int{{32, 64}, {33, 32}, {50, 320}, {17, 1088}, {70, 2112}, {31, 48}, {40, 1100}} {
				n, k := s[0], s[1]
				if testing.Short() && n*k > 10_000 {
					continue
				}
				names, ws := basesOf(t, random(rng, n*k), n, k)
				x, add := random(rng, many*k), random(rng, many*n)
				for i, w := range ws {
					for _, c := range []Compute{F32, BF16} {
						var p Packed
						want := make([]float32, many*n)
						e.Pack(&p, c, x, many, k, k)
						e.Forward(want, n, &p, w, add, n)
						for m := 1; m <= maxFewRows+1; m++ {
							got := random(rng, m*(n+3))
							before := append([]float32(nil), got...)
							e.Pack(&p, c, x, m, k, k)
							e.Forward(got, n+3, &p, w, add, n)
							for r := range m {
								same(t, fmt.Sprintf("%s [%d, %d] in %v, row %d of %d", names[i], n, k, c, r, m), got[r*(n+3):][:n], want[r*n:][:n])
							}
							checkGaps(t, got, before, m, n, n+3)
						}
					}
				}
			}
		})
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
