package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/quant"
)

// maxFewRows is the number of rows up to which weights are multiplied as they are read, without storing panels: one
// alone, or this many, those that lack being zeros.
const maxFewRows = 4

// dotKernel adds to sums, kernels.cols float32 for each row of x, the products of k places of kernels.cols rows of a
// weight: src, their bytes ld apart; of a quantised one also their scales, lds bytes apart, from place at of a block on.
// What lies fetch bytes further is fetched. rows is 1, or else x has maxFewRows rows, step by step. The order is that of
// multiply, and so are the bits.
type dotKernel func(src unsafe.Pointer, ld int, scales unsafe.Pointer, lds, at, fetch int, x unsafe.Pointer, rows, k int, sums unsafe.Pointer)

// chooseDot sets p.dot where there is a kernel for few rows and the shape suits it.
func (p *product) chooseDot() {
	if p.tiling.tiles != 1 || p.tiling.m > maxFewRows || p.b.place != 1 || p.n < p.e.ker.cols || p.e.ker.dot == nil {
		return
	}
	q := quant.None
	if p.quant != nil {
		if q = p.quant.Format; p.quant.Cols%quant.Block != 0 {
			return
		}
	}
	dot, places := p.e.ker.dot(p.b.dtype, q, p.format)
	if dot != nil && p.red.k%places == 0 && (p.red.blocks == 1 || p.red.block%places == 0) {
		p.dot = dot
	}
}

// interleave returns all steps of the packed rows as the dot kernels want them.
func (p *product) interleave(scratch []uint32) []uint32 {
	m, wide := p.tiling.m, p.dotRows()
	rows := grow(scratch, p.red.k/p.red.places*wide)
	if p.format == tilesBF16 {
		p.interleaveTiles(rows, wide)
		return rows
	}
	for b := range p.red.blocks {
		k0, _, steps := p.red.span(b)
		tile := p.packed.buf[p.packed.block(b):]
		for s := range steps {
			step := rows[(k0/p.red.places+s)*wide:][:wide]
			clear(step[copy(step, tile[s*m:][:m]):])
		}
	}
	return rows
}

// dotRows is the number of rows that the dot kernels multiply.
func (p *product) dotRows() int {
	if p.tiling.m == 1 {
		return 1
	}
	return maxFewRows
}

// dotPanels multiplies by the panels [j0, j1) without packing them, but for the last one where it is not full.
func (p *product) dotPanels(work *worker, j0, j1 int) {
	cols := p.e.ker.cols
	for j := j0; j < j1; j++ {
		if (j+1)*cols > p.n {
			p.packPiece(work, 0, 1, j, j+1)
			return
		}
		var src codes
		if p.quant != nil {
			src = work.codes(p.e.ker, p.quant, j*cols, cols, 0, p.red.k)
		}
		for b := range p.red.blocks {
			p.dotBlock(work, src, j*cols, b)
		}
	}
}

// dotBlock adds block b of the reduction to the panel that begins with column col of the result.
func (p *product) dotBlock(work *worker, src codes, col, b int) {
	m, cols, wide := p.tiling.m, p.e.ker.cols, p.dotRows()
	k0, k, _ := p.red.span(b)
	sums := work.sums[:wide*cols]
	clear(sums)
	out := unsafe.Pointer(&sums[0])
	x := unsafe.Pointer(&p.rows[k0/p.red.places*wide])
	if p.quant != nil {
		part := src.at(0, k0)
		first, ld := part.first()
		fetch := p.fetch(b, ld*k/p.red.k, ld)
		p.dot(first, ld, part.scales, 4*part.perRow, part.col%quant.Block, fetch, x, m, k, out)
	} else {
		ld := p.b.lane * p.b.dtype.Size()
		p.dot(p.b.at(col, k0).p, ld, nil, 0, 0, p.fetch(b, k*p.b.dtype.Size(), ld), x, m, k, out)
	}
	t := tileProduct{c: unsafe.Pointer(&p.c[col]), ldc: p.ldc, alpha: 1}
	if b > 0 {
		t.add, t.ldadd = t.c, p.ldc
	} else if p.add != nil {
		t.add, t.ldadd = unsafe.Pointer(&p.add[col]), p.ldadd
	}
	for r := range m {
		t.finish(r, sums[r*cols:][:cols])
	}
}

// fetch returns how far the codes are that are needed next, after those of block b, which are size bytes of each row: the
// next block's, or the first of the next panel's.
func (p *product) fetch(b, size, ld int) int {
	if b < p.red.blocks-1 {
		return size
	}
	return p.e.ker.cols*ld - (ld - size)
}
