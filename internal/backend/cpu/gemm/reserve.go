package gemm

// PackedBytes is the memory that m rows of k columns take when they are packed for products in c.
func (e *Engine) PackedBytes(c Compute, m, k int) int64 {
	if m == 0 || k == 0 {
		return 0
	}
	f := e.ker.format(c)
	p := Packed{format: f, tiling: tile(m, e.ker.rows), red: cut(k, f)}
	return 4 * int64(p.block(p.red.blocks))
}

// Reserve makes p's memory at least bytes, so that packing does not grow it.
func (p *Packed) Reserve(bytes int64) { p.buf = grow(p.buf, int(bytes/4)) }

// Bytes is the memory that p has.
func (p *Packed) Bytes() int64 { return 4 * int64(cap(p.buf)) }

// WorkerBytes is about what each worker has for the panels and tiles that it packs.
const WorkerBytes = 1 << 20

// ScratchBytes is the memory that the workers have.
func (e *Engine) ScratchBytes() (n int64) {
	for i := range e.workers {
		w := &e.workers[i]
		n += 4 * int64(cap(w.panels)+cap(w.tiles)+cap(w.floats))
	}
	return n
}
