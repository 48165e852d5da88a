package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

const (
	pieceRows   = 512 // rows whose tiles of a block fit half of a second-level cache of 1 MiB
	piecePanels = 8
	smallWork   = 1 << 16 // multiplications that are not worth waking workers
	groupPanels = 4       // panels that are packed together where lanes are neighbours: they share cache lines and pages
	slicePlaces = 32
)

// product is one matrix product as a task: a piece is a range of tiles times a range of panels.
type product struct {
	e      *Engine
	format format
	tiling tiling
	red    reduction
	n      int
	packed *Packed // the left operand, packed ahead; nil: pack a
	a, b   operand
	quant  *quant.Matrix // the right operand, where it is quantised; b then has its strides alone
	c, add []float32
	ldc    int
	ldadd  int
	alpha  float32

	tilesPer, panels, panelsPer int
	span                        int // on tiles: blocks of the reduction whose panels are packed together

	dot  dotKernel // for few rows; nil: pack
	rows []uint32  // for dot: the left operand, row by row
}

func (p *product) general(e *Engine, c []float32, ldc, m, n, k int, alpha float32, a, b *View, accumulate bool) {
	checkMatrix("the result", c, m, n, ldc)
	a.check("a", m, k)
	b.check("b", k, n)
	f := e.ker.format(F32)
	if e.gemm == BF16 && e.ker.tiles != nil {
		f = tilesBF16
	}
	*p = product{e: e, format: f, tiling: tile(m, e.ker.rowsOf(f)), red: cut(k, f), n: n,
		a: operand{p: unsafe.Pointer(&a.Data[0]), dtype: numeric.F32, lane: a.RowStride, place: a.ColStride},
		b: operand{p: unsafe.Pointer(&b.Data[0]), dtype: numeric.F32, lane: b.ColStride, place: b.RowStride},
		c: c, ldc: ldc, alpha: alpha}
	if accumulate {
		p.add, p.ldadd = c, ldc
	}
}

// plan chooses the size of the pieces. It does not change a bit of the result.
func (p *product) plan(workers int) {
	if p.format == tilesBF16 {
		p.planTiles(workers)
		return
	}
	p.panels = (p.n + p.e.ker.cols - 1) / p.e.ker.cols
	p.tilesPer, p.panelsPer = p.tiling.tiles, min(p.panels, piecePanels)
	if ranges := (p.tiling.m + pieceRows - 1) / pieceRows; ranges > 1 {
		p.tilesPer = (p.tiling.tiles + ranges - 1) / ranges
	}
	if workers == 1 {
		return
	}
	if p.tiling.m*p.n*p.red.k < smallWork {
		p.tilesPer, p.panelsPer = p.tiling.tiles, p.panels
		return
	}
	for p.pieces() < 4*workers && p.panelsPer > groupPanels {
		p.panelsPer = (p.panelsPer + 1) / 2
	}
	for p.pieces() < 4*workers && p.tilesPer > 4 {
		p.tilesPer = (p.tilesPer + 1) / 2
	}
	for p.pieces() < 2*workers && p.panelsPer > 1 {
		p.panelsPer = (p.panelsPer + 1) / 2
	}
}

func (p *product) pieces() int {
	return ((p.tiling.tiles + p.tilesPer - 1) / p.tilesPer) * p.columns()
}

func (p *product) columns() int { return (p.panels + p.panelsPer - 1) / p.panelsPer }

// Piece computes piece i on worker w.
func (p *product) Piece(w, i int) {
	t0 := i / p.columns() * p.tilesPer
	t1 := min(p.tiling.tiles, t0+p.tilesPer)
	j0 := i % p.columns() * p.panelsPer
	j1 := min(p.panels, j0+p.panelsPer)
	if p.dot != nil {
		p.dotPanels(&p.e.workers[w], j0, j1)
		return
	}
	p.packPiece(&p.e.workers[w], t0, t1, j0, j1)
}

// packPiece multiplies tiles t0...t1 by panels j0...j1, which it packs.
func (p *product) packPiece(work *worker, t0, t1, j0, j1 int) {
	if p.format == tilesBF16 {
		p.tilePiece(work, t0, t1, j0, j1)
		return
	}
	call := &work.call
	call.alpha, call.ldc = p.alpha, p.ldc
	for b := range p.red.blocks {
		k0, k, steps := p.red.span(b)
		call.steps = steps
		tiles := p.tiles(work, b, t0, t1)
		add, ldadd := p.add, p.ldadd
		if b > 0 {
			add, ldadd = p.c, p.ldc
		}
		call.ldadd = ldadd
		group := p.group()
		for j := j0; j < j1; j += group {
			g := min(group, j1-j)
			p.packPanels(work, j, g, k0, k, steps)
			for q := range g {
				call.b = unsafe.Pointer(&work.panels[q*p.panelSize(steps)])
				p.panel(call, tiles, add, t0, t1, (j+q)*p.e.ker.cols)
			}
		}
	}
	*call = tileProduct{} // keeps no memory alive
}

// panel multiplies tiles t0...t1 by one panel, whose first column is col.
func (p *product) panel(call *tileProduct, tiles []uint32, add []float32, t0, t1, col int) {
	call.cols = min(p.e.ker.cols, p.n-col)
	for t := t0; t < t1; t++ {
		row := p.tiling.row(t)
		call.rows = p.tiling.row(t+1) - row
		call.a = unsafe.Pointer(&tiles[p.tiling.tileAt(t, t0, call.steps)])
		call.c = unsafe.Pointer(&p.c[row*p.ldc+col])
		call.add = nil
		if add != nil {
			call.add = unsafe.Pointer(&add[row*call.ldadd+col])
		}
		p.e.ker.multiply(call, p.format)
	}
}

// tiles returns block b of tiles t0...t1.
func (p *product) tiles(work *worker, b, t0, t1 int) []uint32 {
	k0, k, steps := p.red.span(b)
	if p.packed != nil {
		return p.packed.buf[p.packed.block(b)+p.tiling.tileAt(t0, 0, steps):]
	}
	work.tiles = grow(work.tiles, p.tiling.tileAt(t1, t0, steps))
	each := p.slice(k, p.a)
	for s := 0; s < k; s += each {
		for t := t0; t < t1; t++ {
			rows := p.tiling.row(t+1) - p.tiling.row(t)
			dst := unsafe.Pointer(&work.tiles[p.tiling.tileAt(t, t0, steps)+s*rows])
			p.e.ker.pack(dst, rows, p.a.at(p.tiling.row(t), k0+s), rows, min(each, k-s), p.format)
		}
	}
	return work.tiles
}

// slice returns how many of k places to pack at a time: few where lanes are neighbours, so that the cache lines which
// adjacent tiles or panels share are read together.
func (p *product) slice(k int, o operand) int {
	if o.lane == 1 {
		return min(k, slicePlaces)
	}
	return k
}

func (p *product) group() int {
	if p.b.lane == 1 {
		return groupPanels
	}
	return 1
}

func (p *product) panelSize(steps int) int { return roundUp(steps, stepAlign) * p.e.ker.cols }

// packPanels packs g panels from panel j on.
func (p *product) packPanels(work *worker, j, g, k0, k, steps int) {
	cols := p.e.ker.cols
	work.panels = grow(work.panels, g*p.panelSize(steps))
	if p.quant != nil {
		p.packQuantised(work, j, g, k0, k, steps)
		return
	}
	p.packLanes(work, p.b.at(j*cols, k0), p.n-j*cols, g, k, steps)
}

// packLanes packs lanes x k of src to g panels.
func (p *product) packLanes(work *worker, src operand, lanes, g, k, steps int) {
	size, cols := p.panelSize(steps), p.e.ker.cols
	each := p.slice(k, src)
	for s := 0; s < k; s += each {
		for q := range g {
			dst := unsafe.Pointer(&work.panels[q*size+s/p.red.places*cols])
			p.e.ker.pack(dst, cols, src.at(q*cols, s), min(cols, lanes-q*cols), min(each, k-s), p.format)
		}
	}
}
