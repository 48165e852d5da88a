package model

import (
	"context"
	"errors"
	"fmt"

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
	frame  *exec.Frame
	shared []*op.BlockGraph
	blocks []*op.Block
}

type graphKind uint8

const (
	trainGraph graphKind = iota
	evalGraph
	logitsGraph
)

// newGraph builds and compiles an outer graph. The last kept layers keep what their backward pass reads.
func (m *Model) newGraph(kind graphKind, kept int) (*graph, error) {
	g := gorgonia.NewGraph()
	o := &graph{root: exec.Input(g, "batch", 1)}
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
		b := op.NewBlock(shared[class], l, kind == trainGraph && i >= max(m.lowest(), len(m.layers)-kept))
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
	plan.Arena = m.outer
	if o.vm, err = exec.Compile(m.be, g, plan); err != nil {
		return nil, err
	}
	o.frame = o.vm.NewFrame()
	o.frame.Bind(o.root, &exec.Value{})
	if o.logits != nil {
		o.frame.Bind(o.logits, exec.NewValue(m.be, o.logits.Op().(exec.Op).Outputs()))
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
// returns, gradients of that sum to those of Params. ctx is looked at before the work starts.
func (m *Model) Backward(ctx context.Context, b *Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(m.params.list) == 0 {
		return errors.New("nothing in the model is trained")
	}
	if len(b.Targets) == 0 {
		return nil
	}
	if err := m.prepare(&m.prep, b); err != nil {
		return err
	}
	if m.training == nil {
		if _, err := m.Reserve(loadOf(&m.prep.batch)); err != nil {
			return err
		}
	}
	m.env.Batch, m.env.Sum = &m.prep.batch, m.trainSum
	if err := m.training.vm.Forward(m.training.frame); err != nil {
		return err
	}
	return m.intact(m.training.vm.Backward(m.training.frame, true))
}

// loadOf is what one batch asks for.
func loadOf(b *backend.Batch) Load {
	l := Load{Rows: len(b.Tokens), Selected: len(b.Rows)}
	for _, p := range b.Positions {
		l.Keys = max(l.Keys, int(p)+1)
	}
	return l
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
	s := m.trainSum.Read()
	m.trainSum.Zero()
	return s
}

// Loss is the sum of b's token losses, without dropout unless b has it.
func (m *Model) Loss(ctx context.Context, b *Batch) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(b.Targets) == 0 {
		return 0, nil
	}
	if err := m.prepare(&m.prep, b); err != nil {
		return 0, err
	}
	if m.eval == nil {
		var err error
		if m.eval, err = m.newGraph(evalGraph, 0); err != nil {
			return 0, err
		}
	}
	m.env.Batch, m.env.Sum = &m.prep.batch, m.evalSum
	m.evalSum.Zero()
	if err := m.eval.vm.Forward(m.eval.frame); err != nil {
		return 0, err
	}
	return m.evalSum.Read(), m.intact(nil)
}

// Logits returns the logits [len(rows), vocabulary] at the given rows of b, ascending.
func (m *Model) Logits(ctx context.Context, b *Batch, rows []int32) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.prepare(&m.prep, b); err != nil {
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
	m.prep.batch.Rows = append(m.prep.batch.Rows[:0], rows...)
	m.prep.batch.Targets = m.prep.batch.Targets[:0]
	out := make([]float32, len(rows)*m.cfg.VocabSize)
	return out, m.runLogits(&m.prep.batch, out)
}

// runLogits computes the logits of b.Rows into out.
func (m *Model) runLogits(b *backend.Batch, out []float32) error {
	if m.generating == nil {
		var err error
		if m.generating, err = m.newGraph(logitsGraph, 0); err != nil {
			return err
		}
	}
	g := m.generating
	m.env.Batch = b
	if err := g.vm.Forward(g.frame); err != nil {
		return err
	}
	g.frame.Value(g.logits).Main().Read(out)
	return m.intact(nil)
}
