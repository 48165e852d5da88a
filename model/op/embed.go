package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// Embed gathers the vectors of the batch's tokens. Its input is only the graph's root: the tokens are in the
// environment.
type Embed struct {
	exec.Base
	env   *Env
	table *backend.Embedding
}

// NewEmbed makes the operation; its output is the residual stream [T, Dim].
func NewEmbed(env *Env, table *backend.Embedding) *Embed {
	return &Embed{exec.NewBase(env.Backend, "embed_tokens", 1, residual(table.Dim)), env, table}
}

func (o *Embed) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *Embed) Trains() bool                                    { return o.table.Train != nil }
func (o *Embed) DiffWRT(n int) []bool                            { return make([]bool, n) }

func (o *Embed) Run(out *exec.Value, _ []*exec.Value) error {
	o.env.Backend.Embed(out.Main(), o.table, o.env.Batch)
	return nil
}

// SymDiff scatters the gradient into the table's; the graph's root gets none.
func (o *Embed) SymDiff(in gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	_, err := apply(&embedBackward{exec.NewBase(o.env.Backend, "embed_tokens backward", 1), o}, grad)
	return make(gorgonia.Nodes, len(in)), err
}

type embedBackward struct {
	exec.Base
	forward *Embed
}

func (o *embedBackward) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return exec.Do(o, in) }
func (o *embedBackward) Effects() bool                                   { return true }

func (o *embedBackward) Run(_ *exec.Value, in []*exec.Value) error {
	o.forward.env.Backend.EmbedBackward(o.forward.table, in[0].Main(), o.forward.env.Batch)
	return nil
}
