package op

import (
	"fmt"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

func TestGateUp(t *testing.T) {
	for _, r := range [][2]int{{0, 0}, {2, 0}, {1, 3}} {
		t.Run(fmt.Sprint(r), func(t *testing.T) {
			w := newWorld(3)
			w.env.Batch = w.batch(2, 4)
			w.dropout(w.env.Batch)
			gate, up := w.linear(5, 6, r[0], 0.25), w.linear(5, 6, r[1], 0.25)
			newRig(t, w, []*exec.Value{w.value(backend.Activation, 4, 5)}, 4, 6, params(gate, up), func(xs gorgonia.Nodes) (*gorgonia.Node, error) {
				return apply(NewGateUp(w.env, 5, 6, r[0]+r[1], r[0]+r[1] > 0, func() (*backend.Linear, *backend.Linear) { return gate, up }), xs[0])
			}).check()
		})
	}
}
