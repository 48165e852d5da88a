package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/backend/cpu"
)

// params makes parameters of several pieces and of less than one, some of whose rows are no whole runs, with gradients.
func params(be backend.Backend, r *rand.Rand) (ps []backend.Param) {
	for _, shape := range [][2]int{{3, 5}, {8, 4096}, {1, 1}, {2, 0}, {300, 124}, {1, 2*optimPiece + 8}} {
		p := be.NewParam(shape[0], shape[1])
		for _, write := range []func([]float32){p.Write, p.WriteGrad} {
			v := make([]float32, shape[0]*shape[1])
			for i := range v {
				v[i] = float32(r.NormFloat64())
			}
			write(v)
		}
		ps = append(ps, p)
	}
	return ps
}

func valueOf(p backend.Param) []float32 {
	rows, cols := p.Shape()
	v := make([]float32, rows*cols)
	p.Read(v)
	return v
}

func gradOf(p backend.Param) []float32 {
	rows, cols := p.Shape()
	v := make([]float32, rows*cols)
	p.ReadGrad(v)
	return v
}

// TestOptimiser wants the bits of the CPU backend, from gradients that change between the steps.
func TestOptimiser(t *testing.T) {
	host, err := cpu.New(cpu.Options{Compute: "f32", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for _, o := range []backend.AdamW{
		{LR: 0.0003, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		{LR: 0.01, Beta1: 0.9, Beta2: 0.95, Eps: 1e-6, WeightDecay: 0.1},
		{LR: 0.01, Beta1: 0.3, Beta2: 0.95, Eps: 1e-6, WeightDecay: 0.1},
	} {
		be := emulated(t, "bf16")
		be.poison = true
		got, want := params(be, rand.New(rand.NewPCG(1, 2))), params(host, rand.New(rand.NewPCG(1, 2)))
		leave := be.enter()
		got[1].(*param).half()
		leave()
		for o.Step = 1; o.Step <= 3; o.Step++ {
			be.ScaleGrad(got, -0.7)
			host.ScaleGrad(want, -0.7)
			be.AdamW(got, o)
			host.AdamW(want, o)
			for i := range got {
				what := fmt.Sprintf("%+v: parameter %d", o, i)
				wantBits(t, what+": gradient", gradOf(got[i]), gradOf(want[i]))
				wantBits(t, what, valueOf(got[i]), valueOf(want[i]))
				n := len(valueOf(got[i]))
				m, v, wantM, wantV := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
				got[i].ReadMoments(m, v)
				want[i].ReadMoments(wantM, wantV)
				wantBits(t, what+": m", m, wantM)
				wantBits(t, what+": v", v, wantV)
			}
			p := got[1].(*param)
			if p.stale {
				t.Error("the shadow is to be made again after a step")
			}
			checkShadow(t, p, valueOf(p))
		}
		if a, b := be.SumSquares(got), host.SumSquares(want); math.Abs(a-b) > 1e-12*b {
			t.Errorf("the sum of squares is %v, the CPU has %v", a, b)
		}
		if a, b := be.SumSquares(got[2:3]), float64(gradOf(got[2])[0]); a != b*b {
			t.Errorf("of one number %v: %v", b, a)
		}
		if s := be.SumSquares(nil); s != 0 {
			t.Errorf("of nothing: %v", s)
		}
		be.ZeroGrad(got[1:])
		if s := be.SumSquares(got[1:]); s != 0 {
			t.Errorf("of zeros: %v", s)
		}
		if wantBits(t, "a gradient beside the zeros", gradOf(got[0]), gradOf(want[0])); t.Failed() {
			return
		}
	}
}

func wantBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if !backendtest.SameBits(got, want) {
		t.Errorf("%s: not the same bits, the distance is %.2g", what, backendtest.Distance(got, want))
	}
}

// TestSumSquaresOrder wants the same bits in each order of the threads, and whatever is beside.
func TestSumSquaresOrder(t *testing.T) {
	be := emulated(t, "f32")
	ps := params(be, rand.New(rand.NewPCG(3, 4)))
	want := be.SumSquares(ps)
	for _, order := range orders {
		setOrder(t, order)
		if got := be.SumSquares(ps); got != want {
			t.Errorf("order %d: %v, want %v", order, got, want)
		}
	}
	setOrder(t, 0)
}

// TestNotFinite: a NaN or an infinity among the gradients is seen in the norm.
func TestNotFinite(t *testing.T) {
	be := emulated(t, "f32")
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
		ps := params(be, rand.New(rand.NewPCG(3, 4)))
		g := gradOf(ps[4])
		g[len(g)-1] = bad
		ps[4].WriteGrad(g)
		if s := be.SumSquares(ps); s-s == 0 {
			t.Errorf("the sum of squares is %v where a gradient is %v", s, bad)
		}
	}
}

func TestSum(t *testing.T) {
	be := emulated(t, "f32")
	p := be.NewParam(1, 3)
	p.WriteGrad([]float32{1, 2, 3})
	var all []*sum
	for range 3 * fewSlots {
		all = append(all, be.NewSum().(*sum))
	}
	add := func(s *sum, v ...float64) {
		defer be.enter()()
		var m memory
		be.grow(&m, 8*int64(len(v)))
		be.upload(m.at, bytesOf(v))
		be.addDoubles(s.slot, m.at, len(v), true)
	}
	for i, s := range all {
		add(s, float64(i), 0.25)
		add(s, 0.25)
	}
	if got := be.SumSquares([]backend.Param{p}); got != 14 {
		t.Errorf("sum of squares %v, want 14", got)
	}
	all[5].Zero()
	for i, s := range all {
		want := float64(i) + 0.5
		if i == 5 {
			want = 0
		}
		if got := s.Read(); got != want {
			t.Errorf("sum %d is %v, want %v", i, got, want)
		}
	}
	add(all[5], 7)
	if got := all[5].Read(); got != 7 {
		t.Errorf("a sum that was cleared and added to is %v, want 7", got)
	}
	held := len(be.sums.host)
	used := be.sums.next
	all = nil
	for range 100 { // slots come back when the collector finds that nobody holds them
		runtime.GC()
		be.sums.Lock()
		n := len(be.sums.free)
		be.sums.Unlock()
		if n > 2*fewSlots {
			break
		}
	}
	for range 2 * fewSlots {
		if s := be.NewSum(); s.Read() != 0 {
			t.Fatal("a new sum is not 0")
		}
	}
	if len(be.sums.host) != held || be.sums.next != used {
		t.Errorf("room for %d bytes and %d slots used, before %d and %d", len(be.sums.host), be.sums.next, held, used)
	}
}

func init() {
	faults = append(faults,
		fault{"optim.cu", "zero_gradients", "zeros[8] = {0, 0, 0, 0, 0, 0, 0, 0}", "zeros[8] = {0, 0, 0, 0, 0, 1, 0, 0}", "TestOptimiser"},
		fault{"optim.cu", "scale_gradients", "g[e] *= a.factor", "g[e] *= e ? a.factor : 1.0f", "TestOptimiser"},
		fault{"optim.cu", "square_pieces", "a.sums[BLOCK_X] = sum", "a.sums[BLOCK_X / 2] = sum", "TestOptimiser"},
		fault{"optim.cu", "square_pieces", "return end < t.n ? end : t.n", "return end", "TestOptimiser"},
		fault{"optim.cu", "square_pieces", "half /= 2) {\n\t\tSYNC();", "half /= 2) {", "TestSumSquaresOrder"},
		fault{"optim.cu", "sum_doubles", "*a.to = a.add ? *a.to + sum : sum", "*a.to += sum", "TestOptimiser"},
		fault{"optim.cu", "sum_doubles", "i < a.n; i += THREADS", "i < a.n && i < THREADS; i += THREADS", "TestSumSquaresWide"},
		fault{"optim.cu", "adamw", "a.take1 < 0.5f", "true", "TestOptimiser"},
		fault{"optim.cu", "adamw", "- div_rn(a.rate * m[e], root)", "- a.rate * div_rn(m[e], root)", "TestOptimiser"},
		fault{"optim.cu", "adamw", "if (t.shadow) store8(t.shadow + i, w, true, 8)", "if (t.shadow) store8(t.shadow + i, v, true, 8)", "TestOptimiser"},
	)
}

// TestSumSquaresWide has more pieces than a block has threads.
func TestSumSquaresWide(t *testing.T) {
	be := emulated(t, "f32")
	const n = 300 * optimPiece
	p := be.NewParam(1, n)
	g := make([]float32, n)
	for i := range g {
		g[i] = float32(i % 3)
	}
	p.WriteGrad(g)
	if got, want := be.SumSquares([]backend.Param{p}), float64(n/3*5); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
