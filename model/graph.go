package model

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
	"github.com/biolora/biolora/model/op"
)

// graph is the outer graph: embed, the blocks, the last norm, and the loss or the logits.
type graph struct {
	root   *gorgonia.Node // what embed hangs on
	logits *gorgonia.Node
	vm     *exec.VM
	frames []*exec.Frame // as many as micro-batches can pass through together
	shared []*op.BlockGraph
	blocks []*op.Block
	order  []int // in which a pass uses the weights' parts
	apart  bool  // the frames have registers of their own
}

// bytes is what a frame's own memory takes for a micro-batch of so many rows.
func (g *graph) bytes(rows exec.Counts) int64 {
	if g.apart {
		return g.vm.ApartBytes(rows)
	}
	return g.vm.FrameBytes(rows)
}

type graphKind uint8

const (
	trainGraph graphKind = iota
	evalGraph
	logitsGraph
)

// newGraph builds and compiles an outer graph. The last kept layers keep what their backward pass reads. So many
// micro-batches can pass through the layers together; 0: one, whose memory the graphs share.
func (m *Model) newGraph(kind graphKind, kept, together int) (*graph, error) {
	g := gorgonia.NewGraph()
	o := &graph{root: exec.Input(g, "batch", 1), order: m.order(kind == trainGraph), apart: together > 0}
	x, err := gorgonia.ApplyOp(op.NewEmbed(m.env, m.embed), o.root)
	if err != nil {
		return nil, err
	}
	shared := map[op.Class]*op.BlockGraph{}
	for i, l := range m.layers {
		class := op.ClassOf(l)
		if shared[class] == nil {
			if shared[class], err = op.NewBlockGraph(m.env, m.dims, m.layersOf(class), kind == trainGraph); err != nil {
				return nil, err
			}
			o.shared = append(o.shared, shared[class])
		}
		keep := 0
		if kind == trainGraph && i >= max(m.lowest(), len(m.layers)-kept) {
			keep = max(1, together)
		}
		b := op.NewBlock(shared[class], l, keep)
		o.blocks = append(o.blocks, b)
		if x, err = gorgonia.ApplyOp(b, x); err != nil {
			return nil, err
		}
	}
	if x, err = gorgonia.ApplyOp(op.NewGather(m.env, m.dims.Hidden), x); err != nil {
		return nil, err
	}
	norm := op.NewRMSNorm(m.env, m.dims.Hidden, m.dims.Eps, func() backend.Vector { return m.norm })
	if x, err = gorgonia.ApplyOp(norm, x); err != nil {
		return nil, err
	}
	plan, err := m.finish(o, x, kind)
	if err != nil {
		return nil, err
	}
	if !o.apart {
		plan.Arena = m.outer
	}
	if o.vm, err = exec.Compile(m.be, g, plan); err != nil {
		return nil, err
	}
	if !o.apart {
		o.frames = append(o.frames, o.vm.NewFrame())
	}
	for range together {
		o.frames = append(o.frames, o.vm.ApartFrame())
	}
	for _, f := range o.frames {
		f.Bind(o.root, &exec.Value{})
	}
	if o.logits != nil {
		o.frames[0].Bind(o.logits, exec.NewValue(m.be, o.logits.Op().(exec.Op).Outputs()))
	}
	return o, nil
}

// finish ends the graph in the logits, the loss, or the loss and its derivative.
func (m *Model) finish(o *graph, x *gorgonia.Node, kind graphKind) (p exec.Plan, err error) {
	if kind == logitsGraph {
		head := []*backend.Linear{m.head}
		o.logits, err = gorgonia.ApplyOp(op.NewLinear(m.env, op.LinearConfig{Name: "lm_head", In: m.head.In, Out: m.head.Out,
			Rank: m.head.R(), Logits: true, Linears: func() []*backend.Linear { return head }}), x)
		p.Outputs = gorgonia.Nodes{o.logits}
		return p, err
	}
	loss, err := gorgonia.ApplyOp(op.NewCrossEntropy(m.env, m.dims.Hidden, kind == trainGraph, m.head), x)
	if err != nil || kind == evalGraph {
		return p, err
	}
	p.Split = loss
	_, err = exec.Backprop(loss, nil)
	return p, err
}

func (m *Model) layersOf(c op.Class) (ls []*op.Layer) {
	for _, l := range m.layers {
		if op.ClassOf(l) == c {
			ls = append(ls, l)
		}
	}
	return ls
}

// dropGraphs forgets the compiled graphs and the memory that they share: what is trained, or kept, has changed.
func (m *Model) dropGraphs() {
	m.training, m.eval, m.generating = nil, nil, nil
	m.outer, m.env.Blocks = exec.NewArena(m.be), exec.NewArena(m.be)
}

// Backward runs b forward and backward. How much its layers keep is what Reserve has decided or, without it, what b and
// the memory allow. The sum of its token losses is added to the running sum that TakeLoss
// returns, gradients of that sum to those of Params. When ctx ends, so does the work, before the next layer at the
// latest; the sums are then of no use.
func (m *Model) Backward(ctx context.Context, b *Batch) error {
	m.one[0] = b
	return m.BackwardAll(ctx, m.one[:])
}

// BackwardAll is Backward for several micro-batches; its sums are, to the bit, those of one Backward after another. Where
// weights are streamed as many of them as Reserve has planned for pass through each layer together.
func (m *Model) BackwardAll(ctx context.Context, bs []*Batch) (err error) {
	defer m.noted(&err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(m.params.list) == 0 {
		return errors.New("nothing in the model is trained")
	}
	if m.training == nil {
		l, err := m.loadOf(bs)
		if err != nil || l.Rows == 0 {
			return err
		}
		if _, err := m.Reserve(l); err != nil {
			return err
		}
	}
	for {
		n, rest, err := m.take(bs, len(m.training.frames))
		if n == 0 || err != nil {
			return err
		}
		bs = rest
		if err := m.backward(ctx, n); err != nil {
			return err
		}
	}
}

// backward runs the first n micro-batches that are prepared.
func (m *Model) backward(ctx context.Context, n int) error {
	for i := range n {
		m.preps[i].sum = m.trainSum
	}
	g := m.training
	if err := m.pass(ctx, g.order); err != nil {
		return err
	}
	if err := g.vm.ForwardAll(g.frames[:n], m.turn); err != nil {
		return err
	}
	if err := g.vm.BackwardAll(g.frames[:n], true, m.turn); err != nil {
		return err
	}
	if m.card != nil {
		m.card.Harvest()
	}
	return m.intact(nil)
}

// take prepares the next micro-batches of bs that have targets, at most so many, and returns how many, and the rest of bs.
func (m *Model) take(bs []*Batch, most int) (n int, rest []*Batch, err error) {
	for len(bs) > 0 && n < most {
		b := bs[0]
		bs = bs[1:]
		if len(b.Targets) == 0 {
			continue
		}
		if err := m.prepare(m.prepared(n), b); err != nil {
			return 0, nil, err
		}
		n++
	}
	return n, bs, nil
}

// prepared is the i-th of the micro-batches that pass through the layers together.
func (m *Model) prepared(i int) *prepared {
	for len(m.preps) <= i {
		m.preps = append(m.preps, &prepared{})
	}
	return m.preps[i]
}

// turnTo makes a micro-batch that is prepared the one that operations work on.
func (m *Model) turnTo(i int) error {
	p := m.preps[i]
	m.env.Batch, m.env.Sum, m.env.Turn = &p.batch, p.sum, i
	return m.ctx.Err()
}

// loadOf is what micro-batches ask for.
func (m *Model) loadOf(bs []*Batch) (l Load, err error) {
	for _, b := range bs {
		n, _, err := m.take([]*Batch{b}, 1)
		if err != nil {
			return l, err
		}
		if n == 0 {
			continue
		}
		d := &m.preps[0].batch
		l.Batches++
		l.Rows, l.Selected = max(l.Rows, len(d.Tokens)), max(l.Selected, len(d.Rows))
		for _, p := range d.Positions {
			l.Keys = max(l.Keys, int(p)+1)
		}
	}
	return l, nil
}

// intact returns err, or says that the checkpoint changed on the disk while err's work was done with it. It is asked
// after the work, so that nothing that came of changed weights is used.
func (m *Model) intact(err error) error {
	if err != nil {
		return err
	}
	return m.ckpt.Unchanged()
}

// TakeLoss returns the sum of the token losses of all Backward calls since the last TakeLoss.
func (m *Model) TakeLoss() float64 {
	s := math.NaN()
	m.params.try(func() {
		s = m.trainSum.Read()
		m.trainSum.Zero()
	})
	return s
}

// Loss is the sum of b's token losses, without dropout unless b has it.
func (m *Model) Loss(ctx context.Context, b *Batch) (float64, error) {
	m.one[0] = b
	var loss [1]float64
	err := m.losses(ctx, m.one[:], loss[:])
	return loss[0], err
}

// LossAll is Loss for several micro-batches. Where weights are streamed as many of them as Reserve has planned for pass
// through each layer together.
func (m *Model) LossAll(ctx context.Context, bs []*Batch) ([]float64, error) {
	out := make([]float64, len(bs))
	return out, m.losses(ctx, bs, out)
}

// losses writes the loss of each of bs to out.
func (m *Model) losses(ctx context.Context, bs []*Batch, out []float64) (err error) {
	defer m.noted(&err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.eval == nil {
		if m.eval, err = m.newGraph(evalGraph, 0, 0); err != nil {
			return err
		}
	}
	for len(bs) > 0 {
		n, rest, err := m.take(bs, len(m.eval.frames))
		if err != nil {
			return err
		}
		if err := m.forward(ctx, n); err != nil {
			return err
		}
		at := 0
		for i, b := range bs[:len(bs)-len(rest)] {
			if len(b.Targets) > 0 {
				out[i] = m.preps[at].sum.Read()
				at++
			}
		}
		bs, out = rest, out[len(bs)-len(rest):]
	}
	return nil
}

// forward computes the losses of the first n micro-batches that are prepared, each into a sum of its own.
func (m *Model) forward(ctx context.Context, n int) error {
	for i := range n {
		if len(m.evalSums) <= i {
			m.evalSums = append(m.evalSums, m.be.NewSum())
		}
		m.preps[i].sum = m.evalSums[i]
		m.evalSums[i].Zero()
	}
	if n == 0 {
		return nil
	}
	if err := m.pass(ctx, m.eval.order); err != nil {
		return err
	}
	return m.intact(m.eval.vm.ForwardAll(m.eval.frames[:n], m.turn))
}

// Logits returns the logits [len(rows), vocabulary] at the given rows of b, ascending.
func (m *Model) Logits(ctx context.Context, b *Batch, rows []int32) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := m.prepared(0)
	if err := m.prepare(p, b); err != nil {
		return nil, err
	}
	for i, r := range rows {
		if r < 0 || int(r) >= len(b.Tokens) || i > 0 && r <= rows[i-1] {
			return nil, fmt.Errorf("logits: row %d of %d, after row %d: rows must be ascending and inside the batch", r, len(b.Tokens), rows[max(0, i-1)])
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	p.batch.Rows = append(p.batch.Rows[:0], rows...)
	p.batch.Targets = p.batch.Targets[:0]
	p.batch.Changed()
	out := make([]float32, len(rows)*m.cfg.VocabSize)
	return out, m.runLogits(&p.batch, out)
}

// runLogits computes the logits of b.Rows into out.
func (m *Model) runLogits(b *backend.Batch, out []float32) (err error) {
	defer m.noted(&err)
	if m.generating == nil {
		if m.generating, err = m.newGraph(logitsGraph, 0, 0); err != nil {
			return err
		}
	}
	g := m.generating
	if err := m.pass(context.Background(), g.order); err != nil {
		return err
	}
	m.env.Batch, m.env.Turn = b, 0
	if err := g.vm.Forward(g.frames[0]); err != nil {
		return err
	}
	g.frames[0].Value(g.logits).Main().Read(out)
	return m.intact(nil)
}
