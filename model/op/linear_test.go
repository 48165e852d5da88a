package op

import (
	"fmt"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

func TestLinear(t *testing.T) {
	for _, c := range []struct {
		ranks   [3]int
		dropout float32
		add     bool
		full    bool
		spare   int // columns of h that another layer needs
	}{
		{},
		{ranks: [3]int{2, 0, 3}},
		{ranks: [3]int{2, 0, 3}, spare: 4},
		{ranks: [3]int{0, 1, 0}, dropout: 0.4, add: true},
		{add: true},
		{full: true, ranks: [3]int{1, 0, 0}},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			w := newWorld(2)
			w.env.Batch = w.batch(2, 3, 2)
			w.dropout(w.env.Batch)
			var ls []*backend.Linear
			for i, r := range c.ranks {
				ls = append(ls, w.linear(5, 2+i, r, c.dropout))
			}
			if c.full {
				ls[1].Train = w.param(3, 5)
			}
			ins := []*exec.Value{w.value(backend.Activation, 5, 5)}
			if c.add {
				ins = append(ins, w.value(backend.Residual, 5, 9))
			}
			rank := ranks(ls)
			if rank > 0 {
				rank += c.spare
			}
			newRig(t, w, ins, 5, 9, params(ls...), func(xs gorgonia.Nodes) (*gorgonia.Node, error) {
				return apply(NewLinear(w.env, LinearConfig{Name: "linear", In: 5, Out: 9, Rank: rank,
					Trains: trains(ls), Residual: c.add, Linears: func() []*backend.Linear { return ls }}), xs...)
			}).check()
		})
	}
}
