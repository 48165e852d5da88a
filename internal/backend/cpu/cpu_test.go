package cpu

import (
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/numeric"
)

// TestOracle runs every operation on every path of this machine against float64.
func TestOracle(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 2)
			for _, e := range backendtest.Entries() {
				t.Run(e.Name, func(t *testing.T) {
					bf16 := p.compute == "bf16"
					tolerance := 1e-6
					switch {
					case bf16 && p.tiles():
						tolerance = 2e-2 // roundings of a product's operands, which are products of such themselves
					case bf16 && e.Rounds:
						tolerance = 8e-3 // two bf16 roundings
					}
					backendtest.Compare(t, backendtest.Execute(be, bf16, e.Program), backendtest.Execute(backendtest.Oracle, bf16, e.Program), tolerance)
				})
			}
		})
	}
}

// TestThreads wants the same bits from any number of threads.
func TestThreads(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			one, two, three := p.open(t, 1), p.open(t, 2), p.open(t, 3)
			for _, e := range backendtest.Entries() {
				want := backendtest.Execute(one, false, e.Program)
				for _, be := range []*Backend{two, three} {
					for i, got := range backendtest.Execute(be, false, e.Program) {
						if !backendtest.SameBits(got.V, want[i].V) {
							t.Errorf("%s: %s: %s differs from one thread", e.Name, be.Name(), got.Name)
						}
					}
				}
			}
		})
	}
}

// TestAllocations wants none once the buffers have grown.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 2)
			for _, e := range backendtest.Entries() {
				run, _ := e.Program(newWorld(be, false))
				run()
				n := testing.AllocsPerRun(3, run)
				for range 5 { // a worker that had no piece yet has no scratch
					if n != 0 {
						n = testing.AllocsPerRun(3, run)
					}
				}
				if n != 0 {
					t.Errorf("%s: %v allocations a run", e.Name, n)
				}
			}
		})
	}
}

func TestNew(t *testing.T) {
	be, err := New(Options{Threads: 1, Compute: "bf16", Features: "go"})
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	if be.Name() != "cpu go, bf16, 1 thread" || be.Compute() != "bf16" || be.Note() == "" {
		t.Errorf("%q, %q, %q", be.Name(), be.Compute(), be.Note())
	}
	for _, c := range []struct {
		compute gemm.Compute
		fast    bool
		kernels string
		want    string
	}{
		{gemm.F32, true, "avx2", ""},
		{gemm.BF16, true, "avx512_bf16", ""},
		{gemm.BF16, true, "amx", ""},
		{gemm.BF16, false, "avx2", "compute bf16 is slower than f32 on this CPU (avx2 has no fast bf16 products)"},
	} {
		if got := note(c.compute, c.fast, c.kernels); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	_, err = New(Options{Compute: "f16", Threads: -1, Features: "sse9"})
	for _, want := range []string{"f16", "-1", "sse9"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// TestRounding: compute bf16 rounds what meets a weight, in both directions, and nothing of the branch but on
// tiles.
func TestRounding(t *testing.T) {
	for _, p := range paths() {
		if p.compute != "bf16" {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 1)
			w := newWorld(be, false)
			const n, in, out = 5, 40, 24
			b := w.Rows(n)
			b.Dropout = nil
			ls := []*backend.Linear{w.Linear(backendtest.Spec{In: in, Out: out, DType: numeric.F32}, 1)}
			product := func(x, dy []float32) (y, dx []float32) {
				by, bdx := be.NewBuffer(activation, out), be.NewBuffer(activation, in)
				bx := filledWith(be, activation, in, x)
				be.Linear(by, nil, bx, nil, ls, b)
				be.LinearBackward(bdx, nil, nil, filledWith(be, activation, out, dy), ls, b)
				return read(by), read(bdx)
			}
			x, dy := w.Values(n*in, 1), w.Values(n*out, 1)
			y, dx := product(x, dy)
			round := func(v []float32) {
				for i := range v {
					v[i] = numeric.BF16ToF32(numeric.F32ToBF16(v[i]))
				}
			}
			exact := slices.Clone(x)
			round(x)
			round(dy)
			roundedY, roundedX := product(x, dy)
			wantSame(t, "y", roundedY, y)
			wantSame(t, "dx", roundedX, dx)

			branch := w.Linear(backendtest.Spec{In: in, Out: out, R: 4}, 2)
			h, hr := be.NewBuffer(stat, 4), be.NewBuffer(stat, 4)
			by := be.NewBuffer(activation, out)
			be.Linear(by, h, filledWith(be, activation, in, exact), nil, []*backend.Linear{branch}, b)
			be.Linear(by, hr, filledWith(be, activation, in, x), nil, []*backend.Linear{branch}, b)
			if d := backendtest.Distance(read(hr), read(h)); d > 1e-2 || (d < 1e-5) != p.tiles() {
				t.Errorf("x A^T of x and of x in bf16 differ by %.2g", d)
			}
		})
	}
}
