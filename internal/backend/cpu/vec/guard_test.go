//go:build unix

package vec

import (
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// atPageEnd returns a copy of v that ends where memory ends: what reads or writes beyond it faults.
func atPageEnd(t *testing.T, v []float32) []float32 {
	t.Helper()
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	end := unsafe.Slice((*float32)(unsafe.Pointer(&mem[page-4*len(v)])), len(v))
	copy(end, v)
	return end
}

func TestNothingBeyondTheEnd(t *testing.T) {
	eachUnit(t, func(t *testing.T, u *Unit) {
		rng := rand.New(rand.NewPCG(13, 14))
		for _, n := range []int{1, 3, 7, 8, 9, 15, 16, 17, 31, 33} {
			for _, o := range ops {
				in, out := o.inputs(rng, n), o.do(u, o.inputs(rng, n))
				for k := range in {
					in[k] = atPageEnd(t, in[k])
				}
				for k := range out {
					out[k] = atPageEnd(t, out[k])
				}
				o.run(u, out, in)
			}
			x, y := atPageEnd(t, random(rng, n)), atPageEnd(t, random(rng, n))
			u.Max(x)
			u.Dot(x, y)
			u.Dot3(x, y, x)
			heads := atPageEnd(t, random(rng, 4*n))
			u.Rotate(heads, 2*n, heads, 2*n, 2, x, y)
		}
	})
}
