package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/exec"
)

// Gather takes the rows of the batch whose logits are wanted, so that the last norm and the head see no others.
type Gather struct {
	exec.Base
	env  *Env
	cols int
}

// NewGather makes the operation from [T, cols] to [len(Rows), cols].
func NewGather(env *Env, cols int) *Gather {
	return &Gather{exec.NewBase(env.Backend, "gather", 1, residual(cols)), env, cols}
}

func (o *Gather) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *Gather) DiffWRT(n int) []bool                            { return firstOnly(n) }
func (o *Gather) Selects() exec.Rows                              { return exec.Selected }

func (o *Gather) Run(out *exec.Value, in []*exec.Value) error {
	o.env.Backend.Gather(out.Main(), in[0].Main(), o.env.Batch)
	return nil
}

func (o *Gather) SymDiff(_ gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	dx, err := apply(&gatherBackward{exec.NewBase(o.env.Backend, "gather backward", 1, residual(o.cols)), o.env}, grad)
	return gorgonia.Nodes{dx}, err
}

type gatherBackward struct {
	exec.Base
	env *Env
}

func (o *gatherBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *gatherBackward) Selects() exec.Rows                              { return exec.All }

func (o *gatherBackward) Run(out *exec.Value, in []*exec.Value) error {
	o.env.Backend.GatherBackward(out.Main(), in[0].Main(), o.env.Batch)
	return nil
}
