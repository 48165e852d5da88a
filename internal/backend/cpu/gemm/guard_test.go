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
		for _, s := range [][3]int{{1, 1, 1}, {3, 5, 7}, {17, 33, 31}, {7, 16, 33}, {15, 100, 15}, {29, 31, 100}} {
			m, n, k := s[0], s[1], s[2]
			x, y := floatsAtPageEnd(t, random(rng, m*k)), floatsAtPageEnd(t, random(rng, m*n))
			b := floatsAtPageEnd(t, random(rng, n*k))
			for _, c := range []Compute{F32, BF16} {
				e.Pack(&p, c, x, m, k, k)
				for _, d := range dtypes {
					data := atPageEnd(t, encode(random(rng, n*k), d))
					w := matrix{rounded(decode(data, n*k, d), c), 1, k}
					e.Forward(y, n, &p, Weight{d, n, k, data}, nil, 0)
					compare(t, y, n, m, n, k, 1, matrix{rounded(x, c), k, 1}, w, nil, 0)
					before := append([]float32(nil), y...)
					e.Backward(y, n, &p, Weight{d, k, n, data}, y, n)
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
