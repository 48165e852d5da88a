package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// RMSNorm is y = g * x / sqrt(mean(x²) + eps) (Zhang and Sennrich 2019), from the residual stream to an activation.
type RMSNorm struct {
	exec.Base
	env  *Env
	cols int
	eps  float32
	gain func() backend.Vector
}

// NewRMSNorm makes a norm over cols columns; gain is asked for at each run.
func NewRMSNorm(env *Env, cols int, eps float32, gain func() backend.Vector) *RMSNorm {
	return &RMSNorm{exec.NewBase(env.Backend, "rmsnorm", 1, act(cols), stat(1)), env, cols, eps, gain}
}

func (o *RMSNorm) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }

func (o *RMSNorm) Run(out *exec.Value, in []*exec.Value) error {
	o.env.Backend.RMSNorm(out.Bufs[0], out.Bufs[1], in[0].Main(), o.gain(), o.eps)
	return nil
}

// Again makes the norm a Cheap operation: its backward pass reads x anyway.
func (o *RMSNorm) Again(out *exec.Value, in []*exec.Value) error { return o.Run(out, in) }
func (o *RMSNorm) AgainReads(in, buf int) bool                   { return in == 0 && buf == 0 }

func (o *RMSNorm) DiffWRT(n int) []bool { return firstOnly(n) }

func (o *RMSNorm) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	b := &rmsNormBackward{exec.NewBase(o.env.Backend, "rmsnorm backward", 3, residual(o.cols)), o}
	dx, err := apply(b, grad, in[0], out)
	return gorgonia.Nodes{dx}, err
}

// SymDiffAdd adds the gradient that x has from the residual branch in the same pass.
func (o *RMSNorm) SymDiffAdd(in gorgonia.Nodes, out, grad, add *gorgonia.Node) (*gorgonia.Node, error) {
	b := &rmsNormBackward{exec.NewBase(o.env.Backend, "rmsnorm backward", 4, residual(o.cols)), o}
	return apply(b, grad, in[0], out, add)
}

// rmsNormBackward takes dy, x, the norm's output (for its factors) and perhaps another gradient of x.
type rmsNormBackward struct {
	exec.Base
	norm *RMSNorm
}

func (o *rmsNormBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }

func (o *rmsNormBackward) Reads(in, buf int) bool { return in != 2 || buf == 1 }

func (o *rmsNormBackward) Run(out *exec.Value, in []*exec.Value) error {
	var add backend.Buffer
	if len(in) == 4 {
		add = in[3].Main()
	}
	o.norm.env.Backend.RMSNormBackward(out.Main(), in[1].Main(), in[2].Bufs[1], in[0].Main(), add, o.norm.gain())
	return nil
}
