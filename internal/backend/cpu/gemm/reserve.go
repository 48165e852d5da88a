package gemm

// PackedBytes is the memory that m rows of k columns take when they are packed for products in c.
func (e *Engine) PackedBytes(c Compute, m, k int) int64 {
	if m == 0 || k == 0 {
		return 0
	}
	f := e.ker.format(c)
	p := Packed{format: f, tiling: tile(m, e.ker.rowsOf(f)), red: cut(k, f)}
	return 4 * int64(p.block(p.red.blocks))
}

// Reserve makes p's memory at least bytes, so that packing does not grow it.
func (p *Packed) Reserve(bytes int64) { p.buf = growLarge(p.buf, int(bytes/4)) }

// Bytes is the memory that p has.
func (p *Packed) Bytes() int64 { return 4 * int64(cap(p.buf)) }

// WorkerBytes is about what each worker has for the panels and tiles that it packs, in products of up to m rows in c.
func (e *Engine) WorkerBytes(c Compute, m int) int64 {
	const packing = 1 << 20
	if e.ker.format(c) != tilesBF16 {
		return packing
	}
	slab := slabPanels * (slabBlocks*tileBlockSteps*blockRows + slabPad)
	return packing + 4*int64(slab+slabPanels*tile(m, blockRows).tiles*blockWords)
}

// ScratchBytes is the memory that the workers have.
func (e *Engine) ScratchBytes() (n int64) {
	for i := range e.workers {
		w := &e.workers[i]
		n += 4 * int64(cap(w.panels)+cap(w.tiles)+cap(w.floats)+cap(w.partial)+cap(w.block))
	}
	return n
}
