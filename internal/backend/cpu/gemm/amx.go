package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
)

// Products on tiles, as Intel AMX has them. A tile register holds 16 rows of 64 bytes; TDPBF16PS multiplies a tile of 16
// rows by 32 places of the left operand by one of 32 places by 16 columns of the right operand, a k step. A kernel
// multiplies blocks of 2x2 tiles: 32 rows by one panel of 32 columns. The panels are those of avx512_bf16. The left operand is
// stored in tiles: for each block of the reduction, for each 32 rows, for each k step, a tile of the upper 16 rows and one
// of the lower.
const (
	tileRows   = 16
	tileBytes  = 1024
	tilePlaces = 32 // of a k step
	tileSteps  = tilePlaces / 2
	blockRows  = 2 * tileRows // of a kernel's block, and the columns of a panel
	blockWords = blockRows * blockRows
	stepWords  = 2 * tileBytes / 4 // of the left operand, and of a panel: a k step of two tiles

	tileBlockSteps = 256 // steps of a block of the reduction: a panel fills 32 KiB, two thirds of the first-level cache
)

// Sizes that were measured on a Xeon with 2 MiB of second-level cache: package doc.
const (
	stripBlocks = 16 // blocks of rows whose sums and tiles stay in the second-level cache while the panels of a piece pass
	slabPanels  = 32 // panels that are packed together: long runs of the weight's rows
	slabBlocks  = 4  // blocks of the reduction that are packed together
	slabPad     = 34 * 16
	fewRows     = 128 // forward, up to so many rows: panels are used once, so few are packed at a time
	fewPanels   = 2
	backRows    = 512     // backward, up to so many rows: one block of the reduction is packed at a time
	aheadPanels = 12      // panels before the end of a strip at which the next strip's tiles begin to be fetched
	streamBytes = 2 << 20 // results larger than this go past the caches
)

// tileKernels are what products on tiles need beside the packers of panels of pairs.
type tileKernels struct {
	// pack writes up to 16 rows x k places of src to tiles that are two tiles apart. What src lacks of a k step's places
	// becomes zeros; rows that it lacks are never used.
	pack func(dst unsafe.Pointer, src operand, rows, k int)
	// multiply computes blocks of 32 rows.
	multiply func(t *tileCall, f tileFlags)
	// finish does out = alpha * sums (+ add), where add is not nil, for rows x cols of a block.
	finish func(t *tileCall)
	// fence orders what was written past the caches before what follows.
	fence func()
	// ceiling does n rounds of 32 products of tiles, on 32 KiB at p.
	ceiling func(p unsafe.Pointer, n int)
}

// tileFlags say what becomes of alpha times the product of a block.
type tileFlags uint8

const (
	addSums    tileFlags = 1 << iota // the sums of earlier blocks of the reduction are added
	addAdd                           // add is added
	toResult                         // it is stored to out, not to the sums
	pastCaches                       // ... past the caches: out lies at a cache line
	tileModes
)

// tileCall is one call of a kernel: the left operand's tiles times one panel. Assembly reads it by its offsets.
type tileCall struct {
	a            unsafe.Pointer // for each block, for each k step, two tiles
	b            unsafe.Pointer // panel: 16 steps of 32 pairs for each k step
	blocks       int            // of 32 rows
	ksteps       int
	sums         unsafe.Pointer // float32, 32 x 32 for each block: the sums so far
	out, add     unsafe.Pointer // float32
	ldout, ldadd int            // bytes
	addAhead     int            // bytes from add to what the next block adds
	scratch      unsafe.Pointer // 4 KiB at a cache line
	nextB, nextA uintptr        // two lines from here on are fetched to the second-level cache in each k step
	nextAStep    int            // bytes that nextA goes on by
	rows, cols   int            // finish: of the only block
	alpha        float32
}

// tileBlock returns where block b of the reduction begins in the packed rows, in dwords.
func (p *Packed) tileBlock(b int) int {
	return p.tiling.tiles * (b * p.red.block / tilePlaces) * stepWords
}

// ksteps is the number of k steps of k places.
func ksteps(k int) int { return (k + tilePlaces - 1) / tilePlaces }

// tilePackTask packs blocks of rows.
type tilePackTask struct {
	tiles *tileKernels
	dst   *Packed
	src   operand
}

// Piece packs 32 rows.
func (t *tilePackTask) Piece(_, i int) {
	p := t.dst
	for b := range p.red.blocks {
		k0, k, _ := p.red.span(b)
		dst := p.buf[p.tileBlock(b)+i*ksteps(k)*stepWords:][:ksteps(k)*stepWords]
		t.tiles.packBlock(dst, t.src.at(i*blockRows, k0), p.tiling.m-i*blockRows, k)
	}
}

// packBlock writes 32 rows x k places: tiles of the upper and the lower 16 rows in turn.
func (t *tileKernels) packBlock(dst []uint32, src operand, rows, k int) {
	t.pack(unsafe.Pointer(&dst[0]), src, min(rows, tileRows), k)
	if rows > tileRows {
		t.pack(unsafe.Pointer(&dst[tileBytes/4]), src.at(tileRows, 0), min(rows-tileRows, tileRows), k)
	}
}

// packTilesGo is tileKernels.pack in plain Go.
func packTilesGo(dst unsafe.Pointer, src operand, rows, k int) {
	var run [tilePlaces]float32
	for r := range rows {
		for k0 := 0; k0 < k; k0 += tilePlaces {
			clear(run[:])
			widen(run[:min(tilePlaces, k-k0)], src.at(r, k0), src.place)
			out := (*[tileSteps]uint32)(unsafe.Add(dst, k0/tilePlaces*2*tileBytes+r*64))
			for i := range out {
				out[i] = uint32(numeric.F32ToBF16(run[2*i])) | uint32(numeric.F32ToBF16(run[2*i+1]))<<16
			}
		}
	}
}

// unpackTiles is unpackRows for rows in tiles, of the first block of rows; they are length dwords long.
func (p *product) unpackTiles(rows []uint32, length int) {
	for b := range p.red.blocks {
		k0, k, _ := p.red.span(b)
		tiles := p.packed.buf[p.packed.tileBlock(b):]
		for r := range p.tiling.m {
			row := rows[r*length+k0/2:][:k/2]
			for i := 0; i < len(row); i += tileSteps {
				copy(row[i:], tiles[i/tileSteps*stepWords+r*tileSteps:][:tileSteps])
			}
		}
	}
}

// planTiles chooses the size of the pieces. It does not change a bit of the result.
func (p *product) planTiles(workers int) {
	p.panels = (p.n + blockRows - 1) / blockRows
	p.tilesPer, p.panelsPer = p.tiling.tiles, min(p.panels, slabPanels)
	if p.b.place == 1 && p.tiling.m <= fewRows && p.packed != nil { // else each piece would pack the rows
		p.panelsPer = min(p.panels, fewPanels)
	}
	if workers > 1 && p.tiling.m*p.n*p.red.k >= smallWork {
		for p.pieces() < 2*workers && p.panelsPer > leastPanels {
			p.panelsPer = (p.panelsPer + 1) / 2
		}
		for p.pieces() < 2*workers && p.tilesPer > leastPanels {
			p.tilesPer = (p.tilesPer + 1) / 2
		}
		for p.pieces() < 2*workers && p.panelsPer > 1 {
			p.panelsPer = (p.panelsPer + 1) / 2
		}
	}
	p.span = slabBlocks
	if p.b.place != 1 && p.tiling.m <= backRows {
		p.span = 1
	}
	p.span = min(p.span, p.red.blocks)
}

// slabStride is the distance of the panels that are packed together, in dwords: off the powers of two.
func (p *product) slabStride() int {
	_, k, _ := p.red.span(0)
	return p.span*ksteps(k)*stepWords + slabPad
}

// reserveTiles makes the scratch of a worker large enough for a piece.
func (p *product) reserveTiles(work *worker) {
	_, k, _ := p.red.span(0)
	rows := p.tilesPer
	if p.span == p.red.blocks { // the sums of a strip are done with before the next strip begins
		rows = min(rows, stripBlocks)
	}
	work.panels = growLarge(work.panels, p.panelsPer*p.slabStride())
	work.partial = growLarge(work.partial, rows*p.panelsPer*blockWords)
	work.block = grow(work.block, blockWords)
	if p.packed == nil {
		work.tiles = growLarge(work.tiles, min(p.tilesPer, stripBlocks)*ksteps(k)*stepWords)
	}
}

// tilePiece multiplies the blocks of rows t0...t1 by panels j0...j1.
func (p *product) tilePiece(work *worker, t0, t1, j0, j1 int) {
	p.reserveTiles(work)
	s := slab{product: p, work: work, t0: t0, j0: j0, j1: j1}
	for s.b0 = 0; s.b0 < p.red.blocks; s.b0 += p.span {
		s.b1 = min(p.red.blocks, s.b0+p.span)
		p.packSlab(work, j0, j1, s.b0, s.b1)
		for s.r0 = t0; s.r0 < t1; s.r0 += stripBlocks {
			s.r1 = min(t1, s.r0+stripBlocks)
			for b := s.b0; b < s.b1; b++ {
				s.strip(b, t1)
			}
		}
	}
	work.tile = tileCall{} // keeps no memory alive
	p.e.ker.tiles.fence()
}

// tilesOf returns the tiles of block b of the reduction from the block of rows r on, packed ahead.
func (p *product) tilesOf(r, b int) []uint32 {
	_, k, _ := p.red.span(b)
	return p.packed.buf[p.packed.tileBlock(b)+r*ksteps(k)*stepWords:]
}

// packSlab packs blocks b0...b1 of the reduction of panels j0...j1, each panel in one run.
func (p *product) packSlab(work *worker, j0, j1, b0, b1 int) {
	k0, _, _ := p.red.span(b0)
	end, k, _ := p.red.span(b1 - 1)
	k += end - k0
	if p.quant != nil {
		p.unpackSlab(work, j0, j1, k0, k)
	} else {
		p.packColumns(work, p.b.at(j0*blockRows, k0), p.n-j0*blockRows, j1-j0, k)
	}
	if k%tilePlaces == 0 {
		return
	}
	for j := range j1 - j0 { // what the tiles have beyond the last place must be zeros, or 0 * NaN would be added
		tail := work.panels[j*p.slabStride():][:ksteps(k)*stepWords]
		clear(tail[(k+1)/2*blockRows:])
	}
}

// packColumns packs g panels of lanes x k of src.
func (p *product) packColumns(work *worker, src operand, lanes, g, k int) {
	stride, each := p.slabStride(), p.slice(k, src)
	for s := 0; s < k; s += each {
		for q := range g {
			dst := unsafe.Pointer(&work.panels[q*stride+s/2*blockRows])
			p.e.ker.pack(dst, blockRows, src.at(q*blockRows, s), min(blockRows, lanes-q*blockRows), min(each, k-s), pairsBF16)
		}
	}
}

// unpackSlab packs panels j0...j1, places [k0, k0+k), of a quantised right operand.
func (p *product) unpackSlab(work *worker, j0, j1, k0, k int) {
	forward, stride := p.b.place == 1, p.slabStride()
	if !p.unpacks() {
		for j := j0; j < j1; j++ {
			lanes := min(blockRows, p.n-j*blockRows)
			src := p.decoded(work, j*blockRows, lanes, k0, k)
			p.e.ker.pack(unsafe.Pointer(&work.panels[(j-j0)*stride]), blockRows, src, lanes, k, pairsBF16)
		}
		return
	}
	lanes := min((j1-j0)*blockRows, p.n-j0*blockRows)
	row, rows, col, width := j0*blockRows, lanes, k0, k
	if !forward {
		row, rows, col, width = k0, k, j0*blockRows, lanes
	}
	src, each := work.codes(p.e.ker, p.quant, row, rows, col, width), p.slice(k, p.b)
	for s := 0; s < k; s += each {
		for q := range j1 - j0 {
			row, col := q*blockRows, s
			if !forward {
				row, col = col, row
			}
			dst := unsafe.Pointer(&work.panels[q*stride+s/2*blockRows])
			p.e.ker.unpack(dst, src.at(row, col), forward, min(blockRows, lanes-q*blockRows), min(each, k-s), pairsBF16)
		}
	}
}

// decoded returns lanes x k of a quantised right operand as float32.
func (p *product) decoded(work *worker, lane, lanes, k0, k int) operand {
	o := operand{dtype: numeric.F32}
	if p.b.place == 1 {
		o.p, o.lane, o.place = unsafe.Pointer(&work.decode(p.quant, lane, lanes, k0, k)[0]), k, 1
	} else {
		o.p, o.lane, o.place = unsafe.Pointer(&work.decode(p.quant, k0, k, lane, lanes)[0]), 1, lanes
	}
	return o
}

// slab is what is packed of the right operand at a time, and the strip of rows that it multiplies.
type slab struct {
	*product
	work           *worker
	t0, r0, r1     int // blocks of rows: the piece's first, and the strip
	j0, j1, b0, b1 int
}

// strip multiplies the blocks of rows r0...r1 by block b of the reduction of all panels. The rows of the piece end at t1.
func (s *slab) strip(b, t1 int) {
	p, call := s.product, &s.work.tile
	_, k, _ := p.red.span(b)
	call.ksteps, call.alpha = ksteps(k), p.alpha
	call.scratch = unsafe.Pointer(&s.work.block[0])
	tiles := s.tiles(b)
	stride, at := p.slabStride(), (b-s.b0)*p.red.block/2*blockRows
	call.nextA, call.nextAStep = uintptr(unsafe.Pointer(&tiles[0])), 0
	from := max(s.j0, s.j1-aheadPanels)
	for j := s.j0; j < s.j1; j++ {
		if j == from && p.packed != nil {
			s.fetchAhead(call, b, t1, s.j1-from)
		}
		panel := (j - s.j0) * stride
		call.a = unsafe.Pointer(&tiles[0])
		call.b = unsafe.Pointer(&s.work.panels[panel+at])
		call.nextB = uintptr(call.b) + uintptr(4*stride)
		if j == s.j1-1 { // the first panel of the next block of the reduction
			next := (b + 1 - s.b0) % (s.b1 - s.b0) * p.red.block / 2 * blockRows
			call.nextB = uintptr(unsafe.Pointer(&s.work.panels[next]))
		}
		s.panel(call, j, b)
	}
}

// tiles returns block b of the reduction of the strip's rows.
func (s *slab) tiles(b int) []uint32 {
	if s.packed != nil {
		return s.tilesOf(s.r0, b)
	}
	k0, k, _ := s.red.span(b)
	for r := s.r0; r < s.r1; r++ {
		dst := s.work.tiles[(r-s.r0)*ksteps(k)*stepWords:]
		s.e.ker.tiles.packBlock(dst, s.a.at(r*blockRows, k0), s.tiling.m-r*blockRows, k)
	}
	return s.work.tiles
}

// fetchAhead has the tiles of the next strip fetched in the calls for the last panels.
func (s *slab) fetchAhead(call *tileCall, b, t1, calls int) {
	r0, r1, next := s.r0, s.r1, b+1
	if next == s.b1 {
		r0, r1, next = s.r1, min(t1, s.r1+stripBlocks), s.b0
	}
	if r0 >= r1 {
		return
	}
	_, k, _ := s.red.span(next)
	call.nextA = uintptr(unsafe.Pointer(&s.tilesOf(r0, next)[0]))
	size := (r1 - r0) * ksteps(k) * 2 * tileBytes
	call.nextAStep = size / (calls * (s.r1 - s.r0) * call.ksteps) &^ 63
}

// panel multiplies the strip by panel j. What is to be added is added to the first block of the reduction, the last one
// gives results. Blocks of rows that the matrix ends in are seen to by edge.
func (s *slab) panel(call *tileCall, j, b int) {
	p, row, col := s.product, s.r0*blockRows, j*blockRows
	sums := s.work.partial[((s.r0-s.base())*(s.j1-s.j0)+(j-s.j0)*(s.r1-s.r0))*blockWords:]
	whole := 0
	if col+blockRows <= p.n {
		whole = min(s.r1, p.tiling.m/blockRows) - s.r0
	}
	if whole > 0 {
		flags := p.earlier(call, b, row, col) | p.result(call, b, row, col)
		call.blocks, call.sums = whole, unsafe.Pointer(&sums[0])
		p.e.ker.tiles.multiply(call, flags)
		call.a = unsafe.Add(call.a, whole*call.ksteps*2*tileBytes)
	}
	if rest := s.r1 - s.r0 - whole; rest > 0 {
		s.edge(call, b, rest, row+whole*blockRows, col, sums[whole*blockWords:])
	}
}

// earlier says what is added to the product of block b of the reduction, from row and col on.
func (p *product) earlier(call *tileCall, b, row, col int) tileFlags {
	switch {
	case b > 0:
		return addSums
	case p.add == nil:
		return 0
	}
	call.add, call.ldadd, call.addAhead = unsafe.Pointer(&p.add[row*p.ldadd+col]), 4*p.ldadd, 4*blockRows*p.ldadd
	return addAdd
}

// result says where the sums go after block b of the reduction, from row and col on. Large results that were not read just
// now go past the caches.
func (p *product) result(call *tileCall, b, row, col int) tileFlags {
	if b < p.red.blocks-1 {
		return 0
	}
	call.out, call.ldout = unsafe.Pointer(&p.c[row*p.ldc+col]), 4*p.ldc
	if p.ldc%16 == 0 && uintptr(call.out)%64 == 0 && 4*p.tiling.m*p.n > streamBytes && (b > 0 || p.add == nil) {
		return toResult | pastCaches
	}
	return toResult
}

// edge multiplies n blocks of rows from row on by the panel from col on, of which the matrix has a part. The kernel stores
// sums alone; what is added and the results are seen to after it, with the arithmetic of the kernel.
func (s *slab) edge(call *tileCall, b, n, row, col int, sums []uint32) {
	p := s.product
	call.blocks, call.sums = n, unsafe.Pointer(&sums[0])
	flags := p.earlier(call, b, row, col)
	if flags == addAdd {
		call.alpha = 1
	}
	p.e.ker.tiles.multiply(call, flags&^addAdd)
	last := b == p.red.blocks-1
	call.alpha, call.cols = 1, min(blockRows, p.n-col)
	if flags == addAdd {
		call.alpha = p.alpha
	}
	for ; n > 0 && (last || flags == addAdd); n-- {
		call.sums, call.rows = unsafe.Pointer(&sums[0]), min(blockRows, p.tiling.m-row)
		call.out, call.ldout = call.sums, 4*blockRows
		p.result(call, b, row, col)
		call.add = nil
		if flags == addAdd {
			p.earlier(call, b, row, col)
		}
		p.e.ker.tiles.finish(call)
		row, sums = row+blockRows, sums[blockWords:]
	}
	call.alpha = p.alpha
}

// base is the block of rows whose sums are kept first.
func (s *slab) base() int {
	if s.span == s.red.blocks {
		return s.r0
	}
	return s.t0
}
