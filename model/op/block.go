package op

import (
	"errors"
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// Class is what decides the shape of a block's graph: which of its linears train. Layers of one class share a
// graph.
type Class struct{ QKV, O, GateUp, Down bool }

// ClassOf returns the class of a layer.
func ClassOf(l *Layer) Class {
	return Class{trains(l.QKV), trains(l.O), l.Gate.Trains() || l.Up.Trains(), trains(l.Down)}
}

// Trains reports whether anything in the block does.
func (c Class) Trains() bool { return c.QKV || c.O || c.GateUp || c.Down }

// BlockGraph is a decoder block (norm, attention, norm, feed-forward, two residuals), built and compiled once for
// all layers of a class.
type BlockGraph struct {
	env    *Env
	dims   Dims
	class  Class
	slot   Slot
	x, y   *gorgonia.Node
	dy, dx *gorgonia.Node
	vm     *exec.VM
	shared *exec.Frame // where layers do not keep what their backward pass reads
	last   *exec.Value // the layer's input for which shared holds values, if no other graph has run since
	graph  *gorgonia.ExprGraph
}

// NewBlockGraph builds the graph for layers of one class. Without grad it has no backward pass.
func NewBlockGraph(env *Env, d Dims, layers []*Layer, grad bool) (*BlockGraph, error) {
	b := &BlockGraph{env: env, dims: d, class: ClassOf(layers[0]), graph: gorgonia.NewGraph()}
	b.slot.Layer = layers[0]
	b.x = exec.Input(b.graph, "x", d.Hidden)
	if err := b.forward(layers); err != nil {
		return nil, err
	}
	plan := exec.Plan{Outputs: gorgonia.Nodes{b.y}, Arena: env.Blocks}
	if grad {
		b.dy = exec.Input(b.graph, "dy", d.Hidden)
		grads, err := exec.Backprop(b.y, b.dy, b.x)
		if err != nil {
			return nil, err
		}
		b.dx = grads[0]
		plan.Split, plan.Grads = b.dy, grads
	}
	var err error
	b.vm, err = exec.Compile(env.Backend, b.graph, plan)
	return b, err
}

// forward adds the block's operations. The residual stream is [T, d]:
//
//	x1 = x  + o(attention(qkv(norm(x))))
//	y  = x1 + down(silu(gate(norm(x1))) * up(norm(x1)))
func (b *BlockGraph) forward(layers []*Layer) (err error) {
	d, at := &b.dims, &b.dims.Attention
	rank := func(of func(*Layer) int) (most int) {
		for _, l := range layers {
			most = max(most, of(l))
		}
		return most
	}
	step := func(op gorgonia.Op, in ...*gorgonia.Node) *gorgonia.Node {
		if err != nil {
			return nil
		}
		var n *gorgonia.Node
		if n, err = apply(op, in...); err != nil {
			err = fmt.Errorf("block: %v: %w", op, err)
		}
		return n
	}
	n1 := step(NewRMSNorm(b.env, d.Hidden, d.Eps, func() backend.Vector { return b.slot.InputNorm }), b.x)
	qkv := step(NewLinear(b.env, LinearConfig{
		Name: "q_proj k_proj v_proj", In: d.Hidden, Out: at.QKVCols(), Trains: b.class.QKV,
		Rank:    rank(func(l *Layer) int { return ranks(l.QKV) }),
		Linears: func() []*backend.Linear { return b.slot.QKV },
	}), n1)
	a := step(NewAttention(b.env, at, func() backend.Cache { return b.slot.Cache }), qkv)
	x1 := step(NewLinear(b.env, LinearConfig{
		Name: "o_proj", In: at.OutCols(), Out: d.Hidden, Trains: b.class.O, Residual: true,
		Rank:    rank(func(l *Layer) int { return ranks(l.O) }),
		Linears: func() []*backend.Linear { return b.slot.O },
	}), a, b.x)
	n2 := step(NewRMSNorm(b.env, d.Hidden, d.Eps, func() backend.Vector { return b.slot.PostNorm }), x1)
	h := step(NewGateUp(b.env, d.Hidden, d.Intermediate,
		rank(func(l *Layer) int { return l.Gate.R() + l.Up.R() }), b.class.GateUp,
		func() (gate, up *backend.Linear) { return b.slot.Gate, b.slot.Up }), n2)
	b.y = step(NewLinear(b.env, LinearConfig{
		Name: "down_proj", In: d.Intermediate, Out: d.Hidden, Trains: b.class.Down, Residual: true,
		Rank:    rank(func(l *Layer) int { return ranks(l.Down) }),
		Linears: func() []*backend.Linear { return b.slot.Down },
	}), h, x1)
	return err
}

// Block is one layer in the outer graph.
type Block struct {
	exec.Base
	graph *BlockGraph
	layer *Layer
	kept  []*exec.Frame // the layer's own for each micro-batch, where it keeps what its backward pass reads; else none
}

// NewBlock makes the operation of one layer. With keep, the layer has memory of its own for what its backward pass
// reads, for so many micro-batches that pass through it together; with 0 the backward pass computes it again from the
// layer's input. The results are the same to the bit.
func NewBlock(g *BlockGraph, l *Layer, keep int) *Block {
	o := &Block{exec.NewBase(g.env.Backend, fmt.Sprintf("layer %d", l.Index), 1, residual(g.dims.Hidden)), g, l, nil}
	for range keep {
		o.kept = append(o.kept, g.vm.NewFrame())
	}
	if keep == 0 && g.shared == nil {
		g.shared = g.vm.SharedFrame()
	}
	return o
}

func (o *Block) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *Block) Trains() bool                                    { return o.graph.class.Trains() }
func (o *Block) DiffWRT(n int) []bool                            { return firstOnly(n) }

// Keeps reports whether the layer keeps what its backward pass reads.
func (o *Block) Keeps() bool { return len(o.kept) > 0 }

// KeptBytes is the memory that this takes for a micro-batch of so many rows, the layer's input apart.
func (o *Block) KeptBytes(rows exec.Counts) int64 { return o.graph.vm.FrameBytes(rows) }

// Bytes is what it takes now.
func (o *Block) Bytes() (n int64) {
	for _, f := range o.kept {
		n += f.Bytes()
	}
	return n
}

// Reserve makes that memory large enough for so many rows.
func (o *Block) Reserve(rows exec.Counts) {
	for _, f := range o.kept {
		f.Reserve(rows)
	}
}

// frame points the graph at this layer, whose weights are in memory then, and at the micro-batch's memory.
func (o *Block) frame(x *exec.Value) (*exec.Frame, error) {
	env := o.graph.env
	if env.Weights != nil {
		if err := env.Weights(o.layer.Index); err != nil {
			return nil, err
		}
	}
	f := o.graph.shared
	if o.Keeps() {
		f = o.kept[env.Turn]
	}
	if !o.graph.vm.Undisturbed() {
		o.graph.last = nil
	}
	o.graph.slot.Layer = o.layer
	f.Bind(o.graph.x, x)
	return f, nil
}

func (o *Block) Run(out *exec.Value, in []*exec.Value) error {
	f, err := o.frame(in[0])
	if err != nil {
		return err
	}
	f.Bind(o.graph.y, out)
	if !o.Keeps() {
		o.graph.last = in[0]
	}
	return o.graph.vm.Forward(f)
}

func (o *Block) SymDiff(in gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if o.graph.dy == nil {
		return nil, errors.New("the block was built without a backward pass")
	}
	b := &blockBackward{exec.NewBase(o.graph.env.Backend, o.String()+" backward", 2, residual(o.graph.dims.Hidden)), o}
	dx, err := apply(b, grad, in[0])
	return gorgonia.Nodes{dx}, err
}

// blockBackward takes dy and the layer's input.
type blockBackward struct {
	exec.Base
	block *Block
}

func (o *blockBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *blockBackward) Effects() bool                                   { return o.block.Trains() }
func (o *blockBackward) OutputOptional() bool                            { return true }

// Run goes without dx where nothing below trains: then only what leads to this layer's own gradients is computed. What
// the layer did not keep is computed again, unless the graph ran last for this input: then it is still there.
func (o *blockBackward) Run(out *exec.Value, in []*exec.Value) error {
	g := o.block.graph
	f, err := o.block.frame(in[1])
	if err != nil {
		return err
	}
	if !o.block.Keeps() && g.last != in[1] {
		g.last = in[1]
		if err := g.vm.Recompute(f); err != nil {
			return err
		}
	}
	f.Bind(g.dy, in[0])
	wanted := out.Main() != nil
	if wanted {
		f.Bind(g.dx, out)
	}
	return g.vm.Backward(f, wanted)
}
