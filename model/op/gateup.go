package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// GateUp is the first half of a SwiGLU feed-forward (Shazeer 2020): y = silu(gate(x)) * up(x). It is one operation
// so that a backend may do it in one pass.
type GateUp struct {
	exec.Base
	env    *Env
	hidden int
	rank   int
	trains bool
	pair   func() (gate, up *backend.Linear)
}

// NewGateUp makes the operation from x [T, hidden] to [T, intermediate]. rank is the largest sum of both ranks of
// the layers that share the graph.
func NewGateUp(env *Env, hidden, intermediate, rank int, trains bool, pair func() (gate, up *backend.Linear)) *GateUp {
	specs := withRank(rank, act(intermediate), act(2*intermediate))
	return &GateUp{exec.NewBase(env.Backend, "gate_proj up_proj swiglu", 1, specs...), env, hidden, rank, trains, pair}
}

func (o *GateUp) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *GateUp) Trains() bool                                    { return o.trains }
func (o *GateUp) OutputOptional() bool                            { return true }

func (o *GateUp) Run(out *exec.Value, in []*exec.Value) error {
	gate, up := o.pair()
	o.env.Backend.GateUp(out.Main(), out.Bufs[1], buf(out, 2), in[0].Main(), gate, up, o.env.Batch)
	return nil
}

// Again makes the operation a Cheap one: its backward pass reads [gate | up] anyway.
func (o *GateUp) Again(out *exec.Value, _ []*exec.Value) error {
	o.env.Backend.SwiGLU(out.Main(), out.Bufs[1])
	return nil
}
func (o *GateUp) AgainReads(in, buf int) bool { return in == -1 && buf == 1 }

func (o *GateUp) DiffWRT(n int) []bool { return firstOnly(n) }

func (o *GateUp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	inputs := gorgonia.Nodes{grad, out}
	if o.trains {
		inputs = append(inputs, in[0])
	}
	b := &gateUpBackward{exec.NewBase(o.env.Backend, o.String()+" backward", len(inputs), act(o.hidden)), o}
	dx, err := apply(b, inputs...)
	return gorgonia.Nodes{dx}, err
}

// gateUpBackward takes dy, the forward output (for [gate | up] and the low-rank products) and, where something
// trains, x.
type gateUpBackward struct {
	exec.Base
	forward *GateUp
}

func (o *gateUpBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *gateUpBackward) Effects() bool                                   { return o.forward.trains }
func (o *gateUpBackward) OutputOptional() bool                            { return true }

func (o *gateUpBackward) Reads(in, buf int) bool {
	return in != 1 || buf == 1 || buf == 2 && o.forward.trains
}

func (o *gateUpBackward) Run(out *exec.Value, in []*exec.Value) error {
	var x backend.Buffer
	if len(in) == 3 {
		x = in[2].Main()
	}
	gate, up := o.forward.pair()
	o.forward.env.Backend.GateUpBackward(out.Main(), x, in[1].Bufs[1], buf(in[1], 2), in[0].Main(), gate, up, o.forward.env.Batch)
	return nil
}
