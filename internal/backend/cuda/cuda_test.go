package cuda

import (
	"errors"
	"math"
	"os"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
	"github.com/biolora/biolora/internal/backend/ref"
)

func TestMain(m *testing.M) {
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

// emulatedDriver is the path of the emulated device's driver.
func emulatedDriver(t testing.TB) string {
	t.Helper()
	if !driver.Built {
		t.Skip("no CUDA in this build")
	}
	if path := os.Getenv(driverVariable); path != "" {
		return path
	}
	path, err := emu.Driver()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// emulated opens the emulated device.
func emulated(t testing.TB, compute string) *Backend {
	t.Helper()
	be, err := New(Options{Compute: compute, Driver: emulatedDriver(t), CublasLt: NoCublasLt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := be.Close(); err != nil {
			t.Error(err)
		}
	})
	return be
}

func TestRMSNorm(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		t.Log(be.Name())
		const n, d = 3, 50
		v := make([]float32, n*d)
		g := make([]float32, d)
		for i := range v {
			v[i] = float32(i%7) - 3
		}
		for i := range g {
			g[i] = 1 + float32(i)/8
		}
		run := func(be normer) []float32 {
			x, y, rstd := be.NewBuffer(backend.Residual, d), be.NewBuffer(backend.Activation, d), be.NewBuffer(backend.Stat, 1)
			x.Resize(n)
			x.Write(v)
			be.RMSNorm(y, rstd, x, be.NewVector(g), 1e-5)
			out := make([]float32, n*d)
			y.Read(out)
			return out
		}
		got, want := run(be), run(ref.New())
		for i := range got {
			if diff := math.Abs(float64(got[i] - want[i])); diff > 0.02 {
				t.Fatal(compute, i, got[i], want[i])
			}
		}
	}
}

type normer interface {
	NewBuffer(backend.Kind, int) backend.Buffer
	NewVector([]float32) backend.Vector
	RMSNorm(y, rstd, x backend.Buffer, g backend.Vector, eps float32)
}
