package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

const (
	pieceRows   = 512     // rows whose tiles of a block, if not packed ahead, fit half of a second-level cache of 1 MiB
	groupPanels = 8       // panels that are packed together fit a quarter of it
	leastPanels = 4       // of a piece, where rows can be cut instead
	smallWork   = 1 << 16 // multiplications that are not worth waking workers
	slicePlaces = 32      // generated packers fetch so many rows ahead
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

	tilesPer, panels, panelsPer int // of a piece at most; panels: of all
	share                       int // the columns of pieces are a multiple of it: as many for each worker
	span                        int // on tiles: blocks of the reduction whose panels are packed together

	dot dotKernel // for few rows; nil: pack
	few few       // the left operand for dot
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
	p.chooseDotViews()
}

// plan chooses the size of the pieces. It does not change a bit of the result.
func (p *product) plan(workers int) {
	p.share = 1
	if p.format == tilesBF16 {
		p.planTiles(workers)
		return
	}
	p.panels = (p.n + p.e.ker.cols - 1) / p.e.ker.cols
	p.tilesPer, p.panelsPer = p.tiling.tiles, min(p.panels, groupPanels)
	if ranges := (p.tiling.m + pieceRows - 1) / pieceRows; ranges > 1 && p.packed == nil {
		p.tilesPer = (p.tiling.tiles + ranges - 1) / ranges
	}
	if workers == 1 {
		return
	}
	if p.tiling.m*p.n*p.red.k < smallWork {
		p.tilesPer, p.panelsPer = p.tiling.tiles, p.panels
		return
	}
	for p.pieces() < 4*workers && p.panelsPer > leastPanels {
		p.panelsPer = (p.panelsPer + 1) / 2
	}
	for p.pieces() < 4*workers && p.tilesPer > 4 {
		p.tilesPer = (p.tilesPer + 1) / 2
	}
	for p.pieces() < 2*workers && p.panelsPer > 1 {
		p.panelsPer = (p.panelsPer + 1) / 2
	}
	p.share = workers
}

func (p *product) pieces() int {
	return ((p.tiling.tiles + p.tilesPer - 1) / p.tilesPer) * p.columns()
}

func (p *product) columns() int {
	return min(p.panels, roundUp((p.panels+p.panelsPer-1)/p.panelsPer, p.share))
}

// Piece computes piece i on worker w.
func (p *product) Piece(w, i int) {
	t0 := i / p.columns() * p.tilesPer
	t1 := min(p.tiling.tiles, t0+p.tilesPer)
	j := i % p.columns()
	j0, j1 := j*p.panels/p.columns(), (j+1)*p.panels/p.columns()
	if p.dot != nil {
		p.dotPanels(&p.e.workers[w], j0, j1)
		return
	}
	p.packPiece(&p.e.workers[w], t0, t1, j0, j1)
}

// packPiece multiplies tiles t0...t1 by panels j0...j1. A group of panels is packed once, for all the tiles, which stream
// past it from wherever they are: the kernels fetch the next tile, and what is packed next, while they multiply.
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
		for j := j0; j < j1; j += groupPanels {
			g := min(groupPanels, j1-j)
			p.packPanels(work, j, g, k0, k, steps)
			work.ahead = p.ahead(b, j, g, j0, j1)
			for t := t0; t < t1; t++ {
				call.a = unsafe.Pointer(&tiles[p.tiling.tileAt(t, t0, steps)])
				p.tile(work, add, t, j, g)
			}
		}
	}
	*call = tileProduct{} // keeps no memory alive
}

// tile multiplies tile t, from the first-level cache, by the g packed panels from panel j on, from the second-level one.
// Each of the g products fetches its part of the tile behind this one.
func (p *product) tile(work *worker, add []float32, t, j, g int) {
	call := &work.call
	row := p.tiling.row(t)
	call.rows = p.tiling.row(t+1) - row
	size := 4 * p.tiling.tileAt(t+1, t, call.steps)
	part := roundUp((size+g-1)/g, 64)
	for q := range g {
		col := (j + q) * p.e.ker.cols
		call.nextTile = uintptr(call.a) + uintptr(size+q*part)
		call.nextRows, call.rowBytes = work.ahead.next(call.nextTile, call.steps/4)
		call.cols = min(p.e.ker.cols, p.n-col)
		call.b = unsafe.Pointer(&work.panels[q*p.panelSize(call.steps)])
		call.c = unsafe.Pointer(&p.c[row*p.ldc+col])
		call.add = nil
		if add != nil {
			call.add = unsafe.Pointer(&add[row*call.ldadd+col])
		}
		p.e.ker.multiply(call, p.format)
	}
}

// ahead is a part of a right operand that is packed next: rows of it, with so many cache lines of each.
type ahead struct {
	p           uintptr
	ld          int // bytes
	rows, lines int
	row, line   int // what is to be fetched first
}

// ahead returns what is packed after panels j...j+g of block b, within j0...j1.
func (p *product) ahead(b, j, g, j0, j1 int) ahead {
	if j += g; j >= j1 {
		b, j = b+1, j0
	}
	if b == p.red.blocks || p.quant != nil && !p.unpacks() {
		return ahead{}
	}
	k0, k, _ := p.red.span(b)
	lane := j * p.e.ker.cols
	rows := min(g*p.e.ker.cols, p.n-lane)
	row, col, cols := lane, k0, k
	if p.b.lane == 1 {
		row, col, rows, cols = k0, lane, k, rows
	}
	if p.quant != nil {
		first, ld := codes{m: p.quant, row: row, col: col}.first()
		return ahead{p: uintptr(first), ld: ld, rows: rows, lines: (cols*ld/p.quant.Cols + 63) / 64}
	}
	ld := max(p.b.lane, p.b.place)
	size := p.b.dtype.Size()
	return ahead{p: uintptr(p.b.p) + uintptr((row*ld+col)*size), ld: ld * size, rows: rows, lines: (cols*size + 63) / 64}
}

// next returns where the cache lines are that are fetched next, n of them at most, and how far apart. It goes down the
// rows line by line, and then stays at mapped: other addresses would cost the CPU a walk through its page tables.
func (a *ahead) next(mapped uintptr, n int) (p uintptr, stride int) {
	if a.line == a.lines {
		return mapped, 0
	}
	p = a.p + uintptr(a.row*a.ld+a.line*64)
	if a.row += n; a.row >= a.rows {
		a.row, a.line = 0, a.line+1
	}
	return p, a.ld
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
