package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// kernels are what a product needs of one set of instructions.
type kernels struct {
	name       string
	rows, cols int  // the largest tile, and the width of a panel
	pairs      bool // multiplies pairs of bfloat16

	// pack writes lanes x k of src to steps of width lanes, like packGo. Up to the next multiple of stepAlign steps,
	// and slack behind them, dst may be overwritten.
	pack func(dst unsafe.Pointer, width int, src operand, lanes, k int, f format)
	// unpack packs k places of lanes lanes of a panel of codes; forward: their rows are the lanes. scales decodes the
	// scales of n blocks of each of rows rows of nf4: row r's begin with block first+r*perRow. Both are nil where there is
	// no assembly: what is quantised is then decoded ahead.
	unpack func(dst unsafe.Pointer, c codes, forward bool, lanes, k int, f format)
	scales func(dst unsafe.Pointer, n, rows int, m *quant.Matrix, first, perRow int)
	// dot returns the kernel that multiplies few rows by cols rows of a right operand of type d, or of format q, without
	// packing them; nil where there is none.
	dot func(d numeric.DType, q quant.Format, f format) dotKernel
	// multiply computes a tile.
	multiply func(t *tileProduct, f format)
	// tiles are for bf16, where the CPU multiplies tiles of it; nil where not.
	tiles *tileKernels
}

// format returns how operands are packed for c.
func (ker *kernels) format(c Compute) format {
	switch {
	case c == F32:
		return plainF32
	case ker.tiles != nil:
		return tilesBF16
	case ker.pairs:
		return pairsBF16
	default:
		return roundedF32
	}
}

// rowsOf is the number of rows in which the left operand is packed together, for format f.
func (ker *kernels) rowsOf(f format) int {
	if f == tilesBF16 {
		return blockRows
	}
	return ker.rows
}

// tileProduct is one call of a kernel: c[rows, cols] = alpha * a b (+ add). Assembly reads it by its offsets.
type tileProduct struct {
	a          unsafe.Pointer // tile: steps x rows dwords
	b          unsafe.Pointer // panel: steps x kernels.cols dwords
	c, add     unsafe.Pointer // float32; add may be nil or c
	ldc, ldadd int            // floats
	rows, cols int
	steps      int
	alpha      float32
	// Where kernels for amd64 fetch what is needed next, a cache line of each for every 4 steps: lines one behind the
	// other, and lines rowBytes apart.
	nextTile, nextRows uintptr
	rowBytes           int
}

// goKernels are plain Go, for any CPU.
var goKernels = kernels{name: "go", rows: 4, cols: 4, pack: packGo, multiply: multiplyGo}

// multiplyGo multiplies 4 rows by 4 columns. A tile of fewer rows reads its last row again, so that every element
// comes from the same instructions.
func multiplyGo(t *tileProduct, _ format) {
	a := unsafe.Slice((*float32)(t.a), t.steps*t.rows)
	b := unsafe.Slice((*float32)(t.b), t.steps*4)
	r1, r2, r3 := min(1, t.rows-1), min(2, t.rows-1), min(3, t.rows-1)
	var c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33 float32
	for len(b) >= 4 && len(a) >= t.rows {
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		x := a[0]
		c00 += x * b0
		c01 += x * b1
		c02 += x * b2
		c03 += x * b3
		x = a[r1]
		c10 += x * b0
		c11 += x * b1
		c12 += x * b2
		c13 += x * b3
		x = a[r2]
		c20 += x * b0
		c21 += x * b1
		c22 += x * b2
		c23 += x * b3
		x = a[r3]
		c30 += x * b0
		c31 += x * b1
		c32 += x * b2
		c33 += x * b3
		b, a = b[4:], a[t.rows:]
	}
	acc := [4][4]float32{{c00, c01, c02, c03}, {c10, c11, c12, c13}, {c20, c21, c22, c23}, {c30, c31, c32, c33}}
	for r := range t.rows {
		t.finish(r, acc[r][:t.cols])
	}
}

// finish writes row r of the tile.
func (t *tileProduct) finish(r int, acc []float32) {
	c := unsafe.Slice((*float32)(unsafe.Add(t.c, r*t.ldc*4)), len(acc))
	if t.add == nil {
		for i, v := range acc {
			c[i] = t.alpha * v
		}
		return
	}
	add := unsafe.Slice((*float32)(unsafe.Add(t.add, r*t.ldadd*4)), len(acc))
	for i, v := range acc {
		c[i] = float32(t.alpha*v) + add[i] // two roundings on every CPU
	}
}
