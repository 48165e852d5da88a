package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// Linear is y = [l0(x) | l1(x) | ...], each l(x) = x Wᵀ + bias + s drop(x) Aᵀ Bᵀ (Hu et al. 2021), optionally added
// to the residual stream. Gradients of A and B (or of a weight that is trained in full) are added to their sums by
// the backward operation; they are no nodes.
type Linear struct {
	exec.Base
	env      *Env
	in, outs int
	rank     int  // columns of h: the largest sum of ranks of the layers that share the graph
	trains   bool // so do all layers that share it
	residual bool
	linears  func() []*backend.Linear
}

// LinearConfig describes a Linear for the layers that share a graph.
type LinearConfig struct {
	Name    string
	In, Out int // Out is the sum over all linears
	Rank    int // the largest sum of ranks
	Trains  bool
	// Residual: a second input, of the residual stream, is added, and the output belongs to that stream.
	Residual bool
	// Logits: the output is f32 though nothing is added.
	Logits  bool
	Linears func() []*backend.Linear // of the layer the slot points to
}

// NewLinear makes the operation; its inputs are x [T, In] and, with Residual, x0 [T, Out].
func NewLinear(env *Env, c LinearConfig) *Linear {
	spec, arity := act(c.Out), 1
	if c.Residual || c.Logits {
		spec = residual(c.Out)
	}
	if c.Residual {
		arity = 2
	}
	return &Linear{exec.NewBase(env.Backend, c.Name, arity, withRank(c.Rank, spec)...), env, c.In, c.Out, c.Rank, c.Trains, c.Residual, c.Linears}
}

// withRank appends the buffer for drop(x) Aᵀ where there is a low-rank branch.
func withRank(rank int, specs ...exec.Spec) []exec.Spec {
	if rank > 0 {
		specs = append(specs, stat(rank))
	}
	return specs
}

func (o *Linear) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *Linear) Trains() bool                                    { return o.trains }
func (o *Linear) OutputOptional() bool                            { return o.rank > 0 }

func (o *Linear) Run(out *exec.Value, in []*exec.Value) error {
	var add backend.Buffer
	if o.residual {
		add = in[1].Main()
	}
	o.env.Backend.Linear(out.Main(), buf(out, 1), in[0].Main(), add, o.linears(), o.env.Batch)
	return nil
}

func (o *Linear) DiffWRT(n int) []bool {
	wrt := firstOnly(n)
	if o.residual {
		wrt[1] = true
	}
	return wrt
}

// SymDiff: the residual input's gradient is the output's.
func (o *Linear) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	arity := 1
	inputs := gorgonia.Nodes{grad}
	if o.trains { // only then x and h are needed
		arity, inputs = 3, gorgonia.Nodes{grad, in[0], out}
	}
	dx, err := apply(&linearBackward{exec.NewBase(o.env.Backend, o.String()+" backward", arity, act(o.in)), o}, inputs...)
	return gorgonia.Nodes{dx, grad}[:len(in)], err
}

// linearBackward takes dy and, where something trains, x and the forward output (for drop(x) Aᵀ).
type linearBackward struct {
	exec.Base
	linear *Linear
}

func (o *linearBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *linearBackward) Reads(in, buf int) bool                          { return in != 2 || buf == 1 }
func (o *linearBackward) Effects() bool                                   { return o.linear.trains }
func (o *linearBackward) OutputOptional() bool                            { return true }

func (o *linearBackward) Run(out *exec.Value, in []*exec.Value) error {
	var x, h backend.Buffer
	if len(in) == 3 {
		x, h = in[1].Main(), buf(in[2], 1)
	}
	o.linear.env.Backend.LinearBackward(out.Main(), x, h, in[0].Main(), o.linear.linears(), o.linear.env.Batch)
	return nil
}
