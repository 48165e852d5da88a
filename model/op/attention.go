package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// Attention is causal softmax attention with grouped heads and rotary positions (Su et al. 2021) over the segments
// of the batch. Rotation belongs to it because every backend rotates while it loads, for nothing.
type Attention struct {
	exec.Base
	env   *Env
	dims  *backend.Attention
	cache func() backend.Cache
}

// NewAttention makes the operation from [query | key | value] to [T, Heads*HeadDim]. cache may return nil.
func NewAttention(env *Env, dims *backend.Attention, cache func() backend.Cache) *Attention {
	return &Attention{exec.NewBase(env.Backend, "attention", 1, act(dims.OutCols()), stat(dims.Heads)), env, dims, cache}
}

func (o *Attention) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }

func (o *Attention) Run(out *exec.Value, in []*exec.Value) error {
	o.env.Backend.Attention(out.Bufs[0], out.Bufs[1], in[0].Main(), o.dims, o.env.Batch, o.cache())
	return nil
}

func (o *Attention) DiffWRT(n int) []bool { return firstOnly(n) }

func (o *Attention) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	b := &attentionBackward{exec.NewBase(o.env.Backend, "attention backward", 3, act(o.dims.QKVCols())), o}
	d, err := apply(b, grad, in[0], out)
	return gorgonia.Nodes{d}, err
}

// attentionBackward takes dy, the input and the forward output (for its log-sums).
type attentionBackward struct {
	exec.Base
	forward *Attention
}

func (o *attentionBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }

func (o *attentionBackward) Reads(in, buf int) bool { return in != 2 || buf == 1 }

func (o *attentionBackward) Run(out *exec.Value, in []*exec.Value) error {
	f := o.forward
	f.env.Backend.AttentionBackward(out.Main(), in[1].Main(), in[2].Bufs[1], in[0].Main(), f.dims, f.env.Batch)
	return nil
}
