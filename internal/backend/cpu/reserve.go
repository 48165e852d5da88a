package cpu

import "github.com/biolora/biolora/internal/backend"

// extent is the largest shape that a scratch buffer takes.
type extent struct {
	b          *Buffer
	rows, cols int
}

func (x extent) floats() int { return wholeSteps(x.rows) * leading(x.b.kind, x.cols) }

// Reserve makes the scratch of the operations as large as they need it.
func (be *Backend) Reserve(n backend.Need) {
	for _, x := range be.extents(n) {
		if x.floats() > cap(x.b.v) {
			x.b.v = floats(x.floats())[:0]
			x.b.rows = 0
		}
	}
	if packed := be.packedBytes(n); packed > be.packed.Bytes() {
		be.packed.Reserve(packed)
	}
}

// ScratchBytes is the memory of the scratch after Reserve and runs on what it was told.
func (be *Backend) ScratchBytes(n backend.Need) int64 {
	most := map[*Buffer]int{}
	for _, x := range be.extents(n) {
		most[x.b] = max(most[x.b], x.floats())
	}
	bytes := be.packedBytes(n) + 8*int64(optimBlocks(n.Param)) + int64(be.pool.Workers())*be.engine.WorkerBytes(be.compute, max(n.Rows, n.Forward))
	for _, floats := range most {
		bytes += 4 * int64(floats)
	}
	return bytes
}

// ScratchHeld is the memory that the scratch has.
func (be *Backend) ScratchHeld() int64 {
	bytes := be.packed.Bytes() + 8*int64(cap(be.blocks)) + be.engine.ScratchBytes()
	for _, b := range []*Buffer{be.low, be.drop, be.mask, be.dgu, be.logits, be.headH, be.attention.keys} {
		bytes += b.Bytes()
	}
	for i := range be.attention.scratch {
		for _, b := range be.attention.scratch[i].buffers() {
			bytes += b.Bytes()
		}
	}
	return bytes
}

func (s *attentionScratch) buffers() []*Buffer { return []*Buffer{&s.q, &s.o, &s.s, &s.do, &s.ds} }

// extents lists the shapes of the scratch buffers.
func (be *Backend) extents(n backend.Need) (xs []extent) {
	add := func(b *Buffer, rows, cols int) { xs = append(xs, extent{b, rows, cols}) }
	chunk := min(n.Selected, chunkRows(leading(backend.Activation, n.Head.Out)))
	branch := func(l *backend.Linear, rows int) {
		if l.A == nil {
			return
		}
		add(be.low, rows, l.R())
		if l.Dropout > 0 {
			add(be.drop, rows, l.In)
			add(be.mask, rows, l.In)
		}
	}
	for _, l := range n.Linears {
		branch(l, n.Rows)
	}
	branch(n.Head, chunk)
	add(be.logits, chunk, n.Head.Out)
	if n.Head.A != nil {
		add(be.headH, chunk, n.Head.R())
	}
	add(be.dgu, n.Rows, 2*n.Intermediate)
	a := n.Attention
	add(be.attention.keys, n.Forward, a.KVHeads*a.HeadDim)
	group := a.Heads / a.KVHeads
	rows := min(n.Forward, max(1, scoreRows/group)) * group
	for i := range be.attention.scratch {
		s := &be.attention.scratch[i]
		add(&s.q, rows, a.HeadDim)
		add(&s.o, rows, a.HeadDim)
		add(&s.s, rows, n.Keys)
		add(&s.do, rows, a.HeadDim)
		add(&s.ds, rows, n.Keys)
	}
	return xs
}

// packedBytes is the memory of the largest packed activations.
func (be *Backend) packedBytes(n backend.Need) (most int64) {
	chunk := min(n.Selected, chunkRows(leading(backend.Activation, n.Head.Out)))
	consider := func(l *backend.Linear, rows, forward int) {
		most = max(most, be.engine.PackedBytes(be.compute, forward, l.In), be.engine.PackedBytes(be.compute, rows, l.Out))
	}
	for _, l := range n.Linears {
		consider(l, n.Rows, n.Forward)
	}
	consider(n.Head, chunk, chunk)
	return most
}
