package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// CrossEntropy is the head and the loss in one: logits are made chunk by chunk, never all at once, and where a
// gradient is wanted it is computed from a chunk while it is there (as in Hsu et al. 2024, "Liger Kernel"). So the
// forward operation already knows the gradient of its input, and has added those of the head, if it trains. The
// loss goes to the environment's Sum.
type CrossEntropy struct {
	exec.Base
	env    *Env
	hidden int
	grad   bool
	head   *backend.Linear
}

// NewCrossEntropy makes the operation; its input is the normalised rows [len(Rows), hidden]. Without grad only the
// loss is computed.
func NewCrossEntropy(env *Env, hidden int, grad bool, head *backend.Linear) *CrossEntropy {
	specs := []exec.Spec{}
	if grad {
		specs = append(specs, act(hidden))
	}
	return &CrossEntropy{exec.NewBase(env.Backend, "lm_head cross-entropy", 1, specs...), env, hidden, grad, head}
}

func (o *CrossEntropy) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *CrossEntropy) Trains() bool                                    { return o.grad && o.head.Trains() }
func (o *CrossEntropy) Effects() bool                                   { return true }
func (o *CrossEntropy) DiffWRT(n int) []bool                            { return firstOnly(n) }

func (o *CrossEntropy) Run(out *exec.Value, in []*exec.Value) error {
	o.env.Backend.CrossEntropy(o.env.Sum, out.Main(), in[0].Main(), o.head, o.env.Batch)
	return nil
}

// SymDiff picks the gradient that the forward operation left. It is that of the sum of losses: a loss's own
// gradient is 1, grad is not looked at.
func (o *CrossEntropy) SymDiff(_ gorgonia.Nodes, out, _ *gorgonia.Node) (gorgonia.Nodes, error) {
	dx, err := apply(exec.NewPick(o.env.Backend, 0, act(o.hidden)), out)
	return gorgonia.Nodes{dx}, err
}
