package op

import (
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

func TestRMSNorm(t *testing.T) {
	w := newWorld(1)
	gain := w.vector(6)
	w.env.Batch = w.batch(2, 4)
	newRig(t, w, []*exec.Value{w.value(backend.Residual, 4, 6)}, 4, 6, nil, func(xs gorgonia.Nodes) (*gorgonia.Node, error) {
		return apply(NewRMSNorm(w.env, 6, 1e-3, func() backend.Vector { return gain }), xs[0])
	}).check()
}
