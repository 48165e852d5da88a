//go:build unix

package gemm

import (
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/biolora/biolora/internal/numeric"
)

// atPageEnd returns a copy of b that ends where memory ends: what reads or writes beyond it faults.
func atPageEnd(t *testing.T, b []byte) []byte {
	t.Helper()
	page := os.Getpagesize()
	size := roundUp(len(b), page)
	mem, err := unix.Mmap(-1, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mprotect(mem[size:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	end := mem[size-len(b) : size : size]
	copy(end, b)
	return end
}

func floatsAtPageEnd(t *testing.T, v []float32) []float32 {
	b := atPageEnd(t, encode(v, numeric.F32))
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(v))
}

func TestNothingBeyondTheEnd(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		e := engine(t, ker, 1)
		rng := rand.New(rand.NewPCG(19, 20))
		var p Packed
		for _, s := range [][3]int{{1, 1, 1}, {3, 5, 7}, {17, 33, 31}, {7, 16, 33}, {15, 100, 15}, {29, 31, 100}, {1, 33, 64}, {4, 40, 576}} {
			m, n, k := s[0], s[1], s[2]
			x, y := floatsAtPageEnd(t, random(rng, m*k)), floatsAtPageEnd(t, random(rng, m*n))
			b := floatsAtPageEnd(t, random(rng, n*k))
			for _, c := range []Compute{F32, BF16} {
				e.Pack(&p, c, x, m, k, k)
				for _, d := range dtypes {
					data := atPageEnd(t, encode(random(rng, n*k), d))
					w := matrix{rounded(decode(data, n*k, d), c), 1, k}
					e.Forward(y, n, &p, Weight{DType: d, Rows: n, Cols: k, Data: data}, nil, 0)
					compare(t, y, n, m, n, k, 1, matrix{rounded(x, c), k, 1}, w, nil, 0)
					before := append([]float32(nil), y...)
					e.Backward(y, n, &p, Weight{DType: d, Rows: k, Cols: n, Data: data}, y, n)
					w.row, w.col = n, 1
					compare(t, y, n, m, n, k, 1, matrix{rounded(x, c), k, 1}, w, before, n)
				}
			}
			for _, v := range []View{{b, n, 1}, {b, 1, k}} {
				e.Gemm(y, n, m, n, k, 1, View{x, k, 1}, v, false)
				compare(t, y, n, m, n, k, 1, matrix{x, k, 1}, matrix{b, v.RowStride, v.ColStride}, nil, 0)
				e.Gemm(y, n, m, n, k, 1, View{x, 1, m}, v, false)
				compare(t, y, n, m, n, k, 1, matrix{x, 1, m}, matrix{b, v.RowStride, v.ColStride}, nil, 0)
			}
		}
	})
}

// The parts of a quantised matrix end where memory ends.
func TestNothingBeyondTheEndOfCodes(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		e := engine(t, ker, 1)
		rng := rand.New(rand.NewPCG(29, 30))
		var p Packed
		for _, s := range [][2]int{{1, 64}, {33, 128}, {40, 320}, {7, 43}} {
			for _, f := range formats {
				m := *quantise(t, f, random(rng, s[0]*s[1]), s[0], s[1])
				m.Codes, m.Scales = atPageEnd(t, m.Codes), atPageEnd(t, m.Scales)
				if len(m.Factors) > 0 {
					m.Factors = atPageEnd(t, m.Factors)
				}
				for _, c := range []Compute{F32, BF16} {
					for _, back := range []bool{false, true} {
						n, k, product := s[0], s[1], e.Forward
						if back {
							n, k, product = k, n, e.Backward
						}
						x, y, want := random(rng, 3*k), make([]float32, 3*n), make([]float32, 3*n)
						e.Pack(&p, c, x, 3, k, k)
						product(y, n, &p, quantised(&m), nil, 0)
						product(want, n, &p, dense(t, &m), nil, 0)
						same(t, f.String(), y, want)
					}
				}
			}
		}
	})
}
