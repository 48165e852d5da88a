package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/numeric"
)

// device is a matrix on the card for a test of a product: rows of ld elements, the first at offset.
type device struct {
	operand
	offset, rows, cols int
	mem                memory
	v                  []float32 // [rows, cols]
}

// place puts v [rows, cols] on the card; NaN lies around it.
func place(be *Backend, half bool, offset, rows, cols, ld int, v []float32) *device {
	d := &device{operand: operand{ld: ld, half: half}, offset: offset, rows: rows, cols: cols, v: v}
	raw := make([]float32, offset+rows*ld)
	for i := range raw {
		raw[i] = float32(math.NaN())
	}
	for i := range rows {
		copy(raw[offset+i*ld:], v[i*cols:(i+1)*cols])
	}
	defer be.enter()()
	be.grow(&d.mem, int64(len(raw))*elementBytes(half))
	d.at = d.mem.at + driver.Ptr(int64(offset)*elementBytes(half))
	if !half {
		be.upload(d.mem.at, bytesOf(raw))
		return d
	}
	bits := make([]byte, 0, 2*len(raw))
	for _, x := range raw {
		b := numeric.F32ToBF16(x)
		bits = append(bits, byte(b), byte(b>>8))
	}
	be.upload(d.mem.at, bits)
	return d
}

// read fetches the matrix and wants what lies around it to be as it was.
func (d *device) read(t *testing.T, be *Backend) []float32 {
	t.Helper()
	defer be.enter()()
	raw := make([]byte, int64(d.offset+d.rows*d.ld)*elementBytes(d.half))
	be.fetch(raw, d.mem.at)
	at := func(i int) float32 {
		if d.half {
			return numeric.BF16ToF32(uint16(raw[2*i]) | uint16(raw[2*i+1])<<8)
		}
		return math.Float32frombits(uint32(raw[4*i]) | uint32(raw[4*i+1])<<8 | uint32(raw[4*i+2])<<16 | uint32(raw[4*i+3])<<24)
	}
	var v []float32
	for i := range d.offset + d.rows*d.ld {
		inside := i >= d.offset && (i-d.offset)%d.ld < d.cols
		if inside {
			v = append(v, at(i))
		} else if !math.IsNaN(float64(at(i))) {
			t.Fatalf("element %d, outside of [%d, %d], was written", i-d.offset, d.rows, d.cols)
		}
	}
	return v
}

func (d *device) free(be *Backend) {
	defer be.enter()()
	be.release(&d.mem)
}

// testProduct computes a product whose operands begin at offset and compares it with float64.
func testProduct(t *testing.T, be *Backend, m, n, k int, ta, tb, half, halfOut bool, beta float32, offset int) {
	t.Helper()
	const alpha = 0.75
	rng := rand.New(rand.NewPCG(uint64(m), uint64(n*k)))
	values := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = numeric.BF16ToF32(numeric.F32ToBF16(float32(rng.NormFloat64())))
		}
		return v
	}
	lay := func(half bool, rows, cols int) *device {
		return place(be, half, offset, rows, cols, leading(cols+offset), values(rows*cols))
	}
	shape := func(rows, cols int, trans bool) *device {
		if trans {
			rows, cols = cols, rows
		}
		d := lay(half, rows, cols)
		d.trans = trans
		return d
	}
	a, b := shape(m, k, ta), shape(k, n, tb)
	c, d := lay(halfOut, m, n), lay(halfOut, m, n)
	for _, x := range []*device{a, b, c, d} {
		defer x.free(be)
	}
	element := func(x *device, i, j int) float64 {
		if x.trans {
			i, j = j, i
		}
		return float64(x.v[i*x.cols+j])
	}
	want := make([]float32, m*n)
	for i := range m {
		for j := range n {
			var sum float64
			for l := range k {
				sum += element(a, i, l) * element(b, l, j)
			}
			sum *= alpha
			if beta != 0 {
				sum += float64(beta) * float64(c.v[i*n+j])
			}
			want[i*n+j] = float32(sum)
		}
	}
	run := func(c *device) {
		defer be.enter()()
		be.product(m, n, k, alpha, a.operand, b.operand, beta, result{c.at, c.ld, halfOut}, result{d.at, d.ld, halfOut})
	}
	tolerance := 1e-6
	if halfOut {
		tolerance = 0x1p-8
	}
	see := func(what string) {
		t.Helper()
		if diff := backendtest.Distance(d.read(t, be), want); diff > tolerance {
			t.Errorf("[%d, %d] x [%d, %d], transposed %t %t, bf16 %t to %t, beta %g, offset %d, %s: off by %.2g", m, k, k, n, ta, tb, half, halfOut, beta, offset, what, diff)
		}
	}
	run(c)
	see("c beside d")
	if beta == 0 {
		return
	}
	d.free(be)
	copied := place(be, halfOut, offset, m, n, d.ld, c.v)
	*d = *copied
	run(d)
	see("c is d")
}

// TestProduct takes every kernel over edges: of tiles, of steps of k, of 16 bytes.
func TestProduct(t *testing.T) {
	shapes := [][3]int{{1, 40, 64}, {5, 35, 88}, {8, 7, 24}, {3, 9, 31}, {130, 20, 100}, {20, 150, 70}, {129, 137, 65}, {150, 72, 32}, {70, 100, 33}, {9, 12, 0}}
	for _, half := range []bool{false, true} {
		be := emulated(t, map[bool]string{false: "f32", true: "bf16"}[half])
		for i, s := range shapes {
			for trans := range 4 {
				for _, offset := range []int{0, 3} {
					beta := []float32{0, 1, -0.5}[(i+trans)%3]
					testProduct(t, be, s[0], s[1], s[2], trans&2 > 0, trans&1 > 0, half, half && (i+trans)%2 > 0, beta, offset)
				}
			}
		}
	}
}

// TestProductSlices cuts k into parts.
func TestProductSlices(t *testing.T) {
	for _, half := range []bool{false, true} {
		be := emulated(t, map[bool]string{false: "f32", true: "bf16"}[half])
		for _, s := range [][4]int{{16, 70, 1100, 4}, {70, 16, 770, 3}, {130, 65, 513, 2}, {1, 20, 1000, 3}} {
			if got := slicesOf(s[0], s[1], s[2], tilingOf(s[0], s[1], half)); got != s[3] {
				t.Errorf("%v: %d slices, want %d", s[:3], got, s[3])
			}
			testProduct(t, be, s[0], s[1], s[2], true, false, half, false, 1, 0)
			testProduct(t, be, s[0], s[1], s[2], true, false, half, half, 0.25, 5)
		}
	}
}

// TestProductOrders wants the same bits whatever the order in which threads run between barriers.
func TestProductOrders(t *testing.T) {
	defer setOrder(t, 0)
	for _, half := range []bool{false, true} {
		be := emulated(t, map[bool]string{false: "f32", true: "bf16"}[half])
		for _, order := range orders {
			setOrder(t, order)
			for _, s := range [][3]int{{130, 140, 100}, {70, 20, 300}, {40, 130, 130}, {2, 17, 264}} {
				testProduct(t, be, s[0], s[1], s[2], false, true, half, half, 1, 0)
				testProduct(t, be, s[0], s[1], s[2], true, false, half, false, 1, 1)
			}
		}
	}
}

// TestProductRefusals: what no product can be is told by name.
func TestProductRefusals(t *testing.T) {
	be := emulated(t, "bf16")
	half, full := operand{half: true}, operand{}
	for _, c := range []struct {
		a, b operand
		d    result
	}{{half, full, result{}}, {full, full, result{half: true}}} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); got == "<nil>" {
					t.Errorf("%+v: no panic", c)
				}
			}()
			be.product(1, 2, 3, 1, c.a, c.b, 0, result{}, c.d)
		}()
	}
}
