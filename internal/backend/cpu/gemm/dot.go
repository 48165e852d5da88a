package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/quant"
)

// maxFewRows is the number of rows up to which weights are multiplied as they are read, without storing panels: one
// alone, or this many, those that lack being zeros.
const maxFewRows = 4

// dotPlaces is what the length of a reduction must be a multiple of: the kernels know no rest.
const dotPlaces = quant.Block

// dotKernel multiplies n rows of a weight, of k places each: src, their bytes ld apart, and of a quantised one their
// scales, lds bytes apart. x has rows rows, 1 or maxFewRows, ldx bytes apart, of float32 or bfloat16. A sum has 16 lanes:
// places l, 16+l, 32+l... in lane l, or pairs of places; at the end 8 lanes are added to 8, 4 to 4, and neighbours twice.
// sums has kernels.cols float32 for each row of x.
type dotKernel func(src unsafe.Pointer, ld int, scales unsafe.Pointer, lds int, x unsafe.Pointer, ldx, rows, n, k int, sums unsafe.Pointer)

// few is the left operand of a product of few rows: rows of float32 or bfloat16, ld bytes apart, as many together.
type few struct {
	x        unsafe.Pointer
	ld       int
	together int // 1 or maxFewRows
}

// chooseDot sets p.dot where there is a kernel for few rows and the shape suits it.
func (p *product) chooseDot() {
	if p.tiling.m > maxFewRows || p.b.place != 1 || p.red.k%dotPlaces != 0 || p.e.ker.dot == nil {
		return
	}
	q := quant.None
	if p.quant != nil {
		q = p.quant.Format
	}
	p.dot = p.e.ker.dot(p.b.dtype, q, p.format)
}

// chooseDotViews is chooseDot for a product of views: the rows of the left one are read where they are.
func (p *product) chooseDotViews() {
	if p.format != plainF32 || p.a.place != 1 {
		return
	}
	if p.chooseDot(); p.dot == nil {
		return
	}
	p.few = few{x: p.a.p, ld: 4 * p.a.lane, together: 1}
	if p.tiling.m == maxFewRows {
		p.few.together = maxFewRows
	}
}

// unpackRows sets p.few to the packed rows, one after another, which it returns.
func (p *product) unpackRows(scratch []uint32) []uint32 {
	m, length := p.tiling.m, p.red.k/p.red.places
	p.few = few{ld: 4 * length, together: 1}
	if m > 1 {
		p.few.together = maxFewRows
	}
	rows := grow(scratch, p.few.together*length)
	p.few.x = unsafe.Pointer(&rows[0])
	clear(rows[m*length:])
	if p.format == tilesBF16 {
		p.unpackTiles(rows, length)
		return rows
	}
	for t := range p.tiling.tiles {
		first, height := p.tiling.row(t), p.tiling.row(t+1)-p.tiling.row(t)
		for b := range p.red.blocks {
			k0, _, steps := p.red.span(b)
			tile := p.packed.buf[p.packed.block(b)+p.tiling.tileAt(t, 0, steps):][:steps*height]
			for r := range height {
				row := rows[(first+r)*length+k0/p.red.places:][:steps]
				for s := range row {
					row[s] = tile[s*height+r]
				}
			}
		}
	}
	return rows
}

// dotPanels multiplies by the panels [j0, j1). The rows of the weight are taken four at a time; the last ones, where they
// are fewer, one by one: the kernels then read that row four times, and the first sum is kept.
func (p *product) dotPanels(work *worker, j0, j1 int) {
	const together = 4
	for j := j0; j < j1; j++ {
		col := j * p.e.ker.cols
		n := min(p.e.ker.cols, p.n-col)
		whole := n / together * together
		if whole > 0 {
			p.dotPanel(work, col, whole, 1)
		}
		for i := whole; i < n; i++ {
			p.dotPanel(work, col+i, 1, 0)
		}
	}
}

// dotPanel multiplies by the n rows of the weight from row col on. apart is 0 for a single one.
func (p *product) dotPanel(work *worker, col, n, apart int) {
	var src, scales unsafe.Pointer
	var ld, perRow int
	if p.quant == nil {
		src, ld = p.b.at(col, 0).p, p.b.lane*p.b.dtype.Size()
	} else {
		c := work.codes(p.e.ker, p.quant, col, n, 0, p.red.k)
		src, ld = c.first()
		scales, perRow = c.scales, c.perRow
	}
	t := tileProduct{c: unsafe.Pointer(&p.c[col]), ldc: p.ldc, alpha: p.alpha}
	if p.add != nil {
		t.add, t.ldadd = unsafe.Pointer(&p.add[col]), p.ldadd
	}
	sums := unsafe.Pointer(&work.sums[0])
	for r := 0; r < p.tiling.m; r += p.few.together {
		p.dot(src, apart*ld, scales, 4*apart*perRow, unsafe.Add(p.few.x, r*p.few.ld), p.few.ld, p.few.together, roundUp(n, 4), p.red.k, sums)
		for i := range min(p.few.together, p.tiling.m-r) {
			t.finish(r+i, work.sums[i*p.e.ker.cols:][:n])
		}
	}
}
