package cuda

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
)

func init() {
	faults = append(faults,
		fault{"gather.cu", "gather", "a.rows[BLOCK_X]", "BLOCK_X", "TestOracle/.*/gather"},
		fault{"gather.cu", "scatter", "from = a.place ? a.place[BLOCK_X] : -1", "from = a.place ? a.place[BLOCK_X] : 0", "TestGatherNothing"},
		fault{"gather.cu", "scatter", "if (from >= 0) load8", "if (from > 0) load8", "TestOracle/.*/gather"},
	)
}

// TestGatherNothing: where no row has a target the gradient is 0 everywhere.
func TestGatherNothing(t *testing.T) {
	be := emulated(t, "f32")
	be.poison = true
	w := backendtest.NewWorld(be, false)
	b := w.Rows(5)
	y, dx := w.Buffer(backend.Residual, 300), w.Buffer(backend.Residual, 300)
	be.Gather(y, w.Filled(backend.Residual, 5, 300, 1), b)
	be.GatherBackward(dx, y, b)
	w.Look("dx", dx)
	wantBits(t, "dx", w.Results[0].V, make([]float32, 5*300))
}
