package op

import (
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

func TestGather(t *testing.T) {
	w := newWorld(6)
	w.env.Batch = w.batch(2, 5)
	w.env.Batch.Rows = []int32{1, 4}
	newRig(t, w, []*exec.Value{w.value(backend.Residual, 5, 3)}, 2, 3, nil, func(xs gorgonia.Nodes) (*gorgonia.Node, error) {
		return apply(NewGather(w.env, 3), xs[0])
	}).check()
}
