package cuda

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
)

// TestNormWidths: rows that threads keep, rows of which they read the rest again, and widths that are no whole runs.
func TestNormWidths(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		be.poison = true
		for _, cols := range []int{1, 7, 8, 256, 1000, 4096, 8192 + 40, 20001} {
			p := func(w *backendtest.World) (func(), func()) {
				x, dy, add := w.Filled(backend.Residual, 2, cols, 3), w.Filled(backend.Activation, 2, cols, 1), w.Filled(backend.Residual, 2, cols, 1)
				g := w.Backend.NewVector(w.Values(cols, 1))
				y, rstd, dx := w.Buffer(backend.Activation, cols), w.Buffer(backend.Stat, 1), w.Buffer(backend.Residual, cols)
				run := func() {
					w.Backend.RMSNorm(y, rstd, x, g, 0.5)
					w.Backend.RMSNormBackward(dx, x, rstd, dy, add, g)
				}
				return run, func() {
					w.Look("y", y)
					w.Look("rstd", rstd)
					w.Look("dx", dx)
				}
			}
			tolerance := 2e-6
			if be.half {
				tolerance = 4e-3 // y is bf16
			}
			backendtest.Compare(t, backendtest.Execute(be, be.half, p), backendtest.Execute(backendtest.Oracle, be.half, p), tolerance)
		}
	}
}

var normFaults = []fault{
	{"norm.cu", "rms_norm", "sum = fma(x[e], x[e], sum)", "sum = fma(x[e], x[e], x[e])", "TestNormWidths"},
	{"norm.cu", "rms_norm", "+ a.eps", "- a.eps", "TestNormWidths"},
	{"norm.cu", "rms_norm", "if (THREAD == 0) a.rstd", "if (THREAD == 1) a.rstd[0] = 0; else if (THREAD == 0 && BLOCK_X) a.rstd", "TestOracle/.*/rmsnorm"},
	{"norm.cu", "rms_norm", "norm_run(element(y, a.half, c), v,", "norm_run(element(y, a.half, c), mine[0],", "TestNormWidths"},
	{"norm.cu", "rms_norm_backward", "fma(-c, x[e], g[e])", "fma(c, x[e], g[e])", "TestNormWidths"},
	{"norm.cu", "rms_norm_backward", "a.add + (i64)BLOCK_X * a.ld_add", "a.add + (i64)BLOCK_X * a.ld_x + 8", "TestNormWidths"},
	{"norm.cu", "rms_norm_backward", "if (add) {", "if (!add) {", "TestOracle/.*/rmsnorm.*"},
	{"norm.cu", "rms_norm_backward", "dot = add_products(v, g, dot)", "dot = add_products(v, g, 0)", "TestNormWidths"},
}
