package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var inf, nan = float32(math.Inf(1)), float32(math.NaN())

// available are the kernels this machine can run.
func available() (us []*Unit) {
	for _, name := range []string{"go", "avx2", "avx512f", "neon"} {
		if u, err := For(name); err == nil {
			us = append(us, u)
		}
	}
	return us
}

func eachUnit(t *testing.T, test func(t *testing.T, u *Unit)) {
	for _, u := range available() {
		t.Run(u.Name(), func(t *testing.T) { test(t, u) })
	}
}

func random(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// lengths reach past four registers of either width.
var lengths = func() (ns []int) {
	for n := range 70 {
		ns = append(ns, n)
	}
	return append(ns, 1000, 1023)
}()

func sameBits(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) && (a[i] == a[i] || b[i] == b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// ulps is the distance of f from the exact value in units of f32's last place there.
func ulps(f float32, exact float64) float64 {
	_, e := math.Frexp(exact)
	return math.Abs(float64(f)-exact) / math.Ldexp(1, max(e-24, -149))
}

// An op is a kernel that writes slices, as a function of a row: outputs first, then inputs, which are overwritten
// where an output is an input too. exact says what the outputs are.
type op struct {
	name     string
	outs     int // slices that are written
	ins      int // slices that are read; an op that reads its outputs has them among these, first
	inPlace  bool
	sameBits bool // with all instructions
	ulps     float64
	run      func(u *Unit, out, in [][]float32)
	exact    func(in []float64) []float64
}

var step = AdamW{Decay: 0.99, Beta1: 0.9, Take1: 0.1, Beta2: 0.999, Take2: 0.001, Rate: 0.01, Correct: 0.03, Eps: 1e-8}

func exactAdamW(in []float64, beta1 float64) []float64 {
	value, g, m, v := in[0], in[1], in[2], math.Abs(in[3])
	m = m*beta1 + g*(1-beta1)
	v = v*0.999 + g*g*0.001
	return []float64{value*0.99 - 0.01*m/(math.Sqrt(v)/0.03+1e-8), m, v}
}

func runAdamW(f *AdamW) func(u *Unit, out, in [][]float32) {
	return func(u *Unit, out, in [][]float32) {
		copy(out[0], in[0])
		copy(out[1], in[2])
		for i, v := range in[3] {
			out[2][i] = max(v, -v)
		}
		u.AdamW(out[0], in[1], out[1], out[2], f)
	}
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// ulps of ops that subtract are of the largest term, which is at most 8 here.
var ops = []op{
	{name: "ExpSum", outs: 1, ins: 1, ulps: 0.88,
		run:   func(u *Unit, out, in [][]float32) { copy(out[0], in[0]); u.ExpSum(out[0], 0.75) },
		exact: func(in []float64) []float64 { return []float64{math.Exp(float64(float32(in[0] - 0.75)))} }},
	{name: "ExpDot", outs: 1, ins: 2, ulps: 0.88,
		run:   func(u *Unit, out, in [][]float32) { copy(out[0], in[0]); u.ExpDot(out[0], in[1], 0.75) },
		exact: func(in []float64) []float64 { return []float64{math.Exp(float64(float32(in[0] - 0.75)))} }},
	{name: "SoftmaxBackward", outs: 2, ins: 2, sameBits: true, ulps: 3,
		run: func(u *Unit, out, in [][]float32) {
			copy(out[0], in[0])
			copy(out[1], in[1])
			u.SoftmaxBackward(out[0], out[1], 0.7, 0.25, 0.125)
		},
		exact: func(in []float64) []float64 {
			return []float64{float64(float32(0.7)) * in[0], 0.125 * float64(float32(0.7)) * in[0] * (in[1] - 0.25)}
		}},
	{name: "SwiGLU", outs: 1, ins: 2, inPlace: true, ulps: 4,
		run:   func(u *Unit, out, in [][]float32) { u.SwiGLU(out[0], in[0], in[1]) },
		exact: func(in []float64) []float64 { return []float64{in[0] * logistic(in[0]) * in[1]} }},
	{name: "SwiGLUBackward", outs: 2, ins: 3, inPlace: true, ulps: 8,
		run: func(u *Unit, out, in [][]float32) { u.SwiGLUBackward(out[0], out[1], in[0], in[1], in[2]) },
		exact: func(in []float64) []float64 {
			s := logistic(in[1])
			return []float64{in[0] * in[2] * s * (1 + in[1]*logistic(-in[1])), in[0] * in[1] * s}
		}},
	{name: "Norm", outs: 1, ins: 2, inPlace: true, sameBits: true, ulps: 2,
		run:   func(u *Unit, out, in [][]float32) { u.Norm(out[0], in[0], in[1], 0.5) },
		exact: func(in []float64) []float64 { return []float64{in[0] * in[1] * 0.5} }},
	{name: "NormBackward", outs: 1, ins: 3, inPlace: true, ulps: 4,
		run:   func(u *Unit, out, in [][]float32) { u.NormBackward(out[0], in[0], in[1], in[2], 0.5, 0.375) },
		exact: func(in []float64) []float64 { return []float64{0.5 * (in[0]*in[1] - in[2]*0.375)} }},
	{name: "Scale", outs: 1, ins: 1, inPlace: true, sameBits: true, ulps: 0.5,
		run:   func(u *Unit, out, in [][]float32) { u.Scale(out[0], in[0], -1.75) },
		exact: func(in []float64) []float64 { return []float64{-1.75 * in[0]} }},
	{name: "Add", outs: 1, ins: 2, sameBits: true, ulps: 0.5,
		run:   func(u *Unit, out, in [][]float32) { copy(out[0], in[0]); u.Add(out[0], in[1]) },
		exact: func(in []float64) []float64 { return []float64{in[0] + in[1]} }},
	{name: "Mul", outs: 1, ins: 2, inPlace: true, sameBits: true, ulps: 0.5,
		run:   func(u *Unit, out, in [][]float32) { u.Mul(out[0], in[0], in[1]) },
		exact: func(in []float64) []float64 { return []float64{in[0] * in[1]} }},
	{name: "MulAdd", outs: 1, ins: 3, sameBits: true, ulps: 2,
		run:   func(u *Unit, out, in [][]float32) { copy(out[0], in[0]); u.MulAdd(out[0], in[1], in[2]) },
		exact: func(in []float64) []float64 { return []float64{in[0] + in[1]*in[2]} }},
	{name: "AdamW", outs: 3, ins: 4, sameBits: true, ulps: 8,
		run:   runAdamW(&step),
		exact: func(in []float64) []float64 { return exactAdamW(in, 0.9) }},
	{name: "AdamWFar", outs: 3, ins: 4, sameBits: true, ulps: 8,
		run:   runAdamW(&AdamW{Decay: 0.99, Beta1: 0.3, Take1: 0.7, Beta2: 0.999, Take2: 0.001, Rate: 0.01, Correct: 0.03, Eps: 1e-8}),
		exact: func(in []float64) []float64 { return exactAdamW(in, 0.3) }},
}

// inputs of n elements, at an odd place in memory.
func (o *op) inputs(rng *rand.Rand, n int) (in [][]float32) {
	for range o.ins {
		in = append(in, random(rng, n+1)[1:])
	}
	return in
}

// outputs are n elements of NaN between walls.
func (o *op) outputs(n int) (whole, out [][]float32) {
	for range o.outs {
		w := make([]float32, n+40)
		for i := range w {
			w[i] = 12345
		}
		whole, out = append(whole, w), append(out, w[17:17+n])
	}
	return whole, out
}

func (o *op) do(u *Unit, in [][]float32) (out [][]float32) {
	_, out = o.outputs(len(in[0]))
	o.run(u, out, in)
	return out
}

func TestOps(t *testing.T) {
	for _, o := range ops {
		t.Run(o.name, func(t *testing.T) {
			eachUnit(t, func(t *testing.T, u *Unit) {
				rng := rand.New(rand.NewPCG(1, 2))
				for _, n := range lengths {
					o.check(t, u, o.inputs(rng, n), n)
				}
			})
		})
	}
}

// check wants the exact values from u, the same bits as plain Go's where that is promised, nothing written beyond the
// outputs, and each element as it is alone.
func (o *op) check(t *testing.T, u *Unit, in [][]float32, n int) {
	t.Helper()
	whole, out := o.outputs(n)
	o.run(u, out, in)
	for k, w := range whole {
		for i, v := range w {
			if (i < 17 || i >= 17+n) && v != 12345 {
				t.Fatalf("%d elements: output %d was written at %d", n, k, i-17)
			}
		}
	}
	if o.sameBits {
		for k, w := range o.do(&plain, in) {
			if !sameBits(out[k], w) {
				t.Fatalf("%d elements: output %d differs from plain Go", n, k)
			}
		}
	}
	for i := range n {
		wide, alone := make([]float64, o.ins), make([][]float32, o.ins)
		size := 0.0
		for k := range in {
			alone[k] = in[k][i : i+1]
			wide[k] = float64(in[k][i])
			size = max(size, math.Abs(wide[k]))
		}
		single := o.do(u, alone)
		for k, want := range o.exact(wide) {
			got := out[k][i]
			allowed := o.ulps * math.Ldexp(max(math.Abs(want), math.Ldexp(1, -126)), -23)
			if o.ulps > 0.5 && !strings.HasPrefix(o.name, "Exp") { // terms may cancel
				allowed = max(allowed, o.ulps*math.Ldexp(max(size, size*size), -24))
			}
			if d := math.Abs(float64(got) - want); !(d <= allowed) {
				t.Fatalf("%d elements: output %d of %v is %v, want %v: off by %.2g, allowed %.2g", n, k, wide, got, want, d, allowed)
			}
			if math.Float32bits(got) != math.Float32bits(single[k][0]) {
				t.Fatalf("%d elements: output %d at %d is %v, alone it is %v", n, k, i, got, single[k][0])
			}
		}
	}
}

func TestInPlace(t *testing.T) {
	for _, o := range ops {
		if !o.inPlace {
			continue
		}
		eachUnit(t, func(t *testing.T, u *Unit) {
			rng := rand.New(rand.NewPCG(3, 4))
			in := o.inputs(rng, 37)
			want := o.do(u, in)
			o.run(u, in[:o.outs], in)
			for k := range want {
				if !sameBits(in[k], want[k]) {
					t.Errorf("%s: output %d differs where it is an input", o.name, k)
				}
			}
		})
	}
}

// TestExp goes through all exponents.
func TestExp(t *testing.T) {
	allowed := map[string]float64{"go": 0.52, "avx2": 0.88, "avx512": 0.88, "neon": 0.88}
	eachUnit(t, func(t *testing.T, u *Unit) {
		var x, e []float32
		flush := func() (worst float64) {
			e = append(e[:0], x...)
			u.ExpSum(e, 0)
			for i, got := range e {
				want := math.Exp(float64(x[i]))
				switch {
				case x[i] != x[i]:
					if got == got {
						t.Fatalf("exp(NaN) = %v", got)
					}
				case want >= 0x1.ffffffp127: // rounds to infinity
					if got != inf {
						t.Fatalf("exp(%v) = %v", x[i], got)
					}
				default:
					worst = max(worst, ulps(got, want))
				}
			}
			x = x[:0]
			return worst
		}
		var worst float64
		for bits := uint64(0); bits < 1<<32; bits += 4099 {
			if x = append(x, math.Float32frombits(uint32(bits))); len(x) == 1023 {
				worst = max(worst, flush())
			}
		}
		for v := float32(-104.5); v < 89; v += 0.00123 { // where it matters
			if x = append(x, v); len(x) == 1023 {
				worst = max(worst, flush())
			}
		}
		worst = max(worst, flush())
		t.Logf("%.3f ulp", worst)
		if worst > allowed[u.Name()] {
			t.Errorf("exp is off by %.3f ulp, allowed %v", worst, allowed[u.Name()])
		}
		x = []float32{0, float32(math.Copysign(0, -1)), -inf, inf, -3e38, 3e38, 1e-45, -1e-45, nan}
		want := []float32{1, 1, 0, inf, 0, inf, 1, 1, nan}
		if u.ExpSum(x, 0); !sameBits(x, want) {
			t.Errorf("%v, want %v", x, want)
		}
	})
}

func TestSums(t *testing.T) {
	eachUnit(t, func(t *testing.T, u *Unit) {
		rng := rand.New(rand.NewPCG(5, 6))
		for _, n := range append(lengths, 100_000) {
			a, b, c := random(rng, n+1)[1:], random(rng, n), random(rng, n)
			var want2, want3, size2, size3 float64
			for i := range a {
				p := float64(a[i]) * float64(b[i])
				want2 += p
				want3 += p * float64(c[i])
				size2 += math.Abs(p)
				size3 += math.Abs(p * float64(c[i]))
			}
			if got := u.Dot(a, b); !(math.Abs(got-want2) <= 1e-14*size2) {
				t.Fatalf("dot of %d: %v, want %v", n, got, want2)
			}
			if got := u.Dot3(a, b, c); !(math.Abs(got-want3) <= 1e-14*size3) {
				t.Fatalf("dot3 of %d: %v, want %v", n, got, want3)
			}
			e, d := slices.Clone(a), slices.Clone(a)
			sum := u.ExpSum(e, 1)
			var wantSum, wantDot, size float64
			for i, v := range e {
				wantSum += float64(v)
				wantDot += float64(v) * float64(b[i])
				size += float64(v) * math.Abs(float64(b[i]))
			}
			if !(math.Abs(sum-wantSum) <= 1e-7*wantSum) {
				t.Fatalf("sum of %d exponentials: %v, want %v", n, sum, wantSum)
			}
			sum, dot := u.ExpDot(d, b, 1)
			if !sameBits(d, e) || !(math.Abs(sum-wantSum) <= 1e-13*wantSum) || !(math.Abs(dot-wantDot) <= 1e-13*size) {
				t.Fatalf("%d exponentials: %v and %v, want %v and %v", n, sum, dot, wantSum, wantDot)
			}
		}
	})
}

func TestMax(t *testing.T) {
	eachUnit(t, func(t *testing.T, u *Unit) {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, n := range lengths {
			x := random(rng, n)
			for at := range min(n, 70) {
				x[at] -= 100 // all below 0, what lies beyond the tail is not
			}
			if got, want := u.Max(x), slices.Max(append([]float32{-inf}, x...)); got != want {
				t.Fatalf("of %d: %v, want %v", n, got, want)
			}
			for at := range min(n, 40) {
				y := slices.Clone(x)
				y[at] = 7
				if n > 1 {
					y[(at+1)%n] = nan
				}
				if got := u.Max(y); got != 7 {
					t.Fatalf("of %d, 7 at %d and a NaN after it: %v", n, at, got)
				}
			}
		}
		if got := u.Max([]float32{-inf, nan, -inf}); got != -inf {
			t.Errorf("of -Inf and a NaN: %v", got)
		}
	})
}

func TestRotate(t *testing.T) {
	eachUnit(t, func(t *testing.T, u *Unit) {
		rng := rand.New(rand.NewPCG(9, 10))
		for _, half := range []int{1, 2, 4, 5, 7, 8, 9, 16, 17, 32, 48, 64} {
			for _, heads := range []int{1, 3} {
				ldx, ldd := 2*half+3, 2*half+5
				x, cos, sin := random(rng, heads*ldx-3), random(rng, half), random(rng, half)
				got := random(rng, heads*ldd)
				want, before := slices.Clone(got), slices.Clone(got)
				plain.Rotate(want, ldd, x, ldx, heads, cos, sin)
				u.Rotate(got, ldd, x, ldx, heads, cos, sin)
				if !sameBits(got, want) {
					t.Fatalf("%d heads of %d differ from plain Go", heads, 2*half)
				}
				for h := range heads {
					for i := range half {
						p, q, c, s := float64(x[h*ldx+i]), float64(x[h*ldx+half+i]), float64(cos[i]), float64(sin[i])
						if d := math.Abs(p*c-q*s-float64(got[h*ldd+i])) + math.Abs(q*c+p*s-float64(got[h*ldd+half+i])); !(d < 2e-6) {
							t.Fatalf("head %d of %d, pair %d is off by %v", h, 2*half, i, d)
						}
						got[h*ldd+i], got[h*ldd+half+i] = before[h*ldd+i], before[h*ldd+half+i]
					}
				}
				if !sameBits(got, before) {
					t.Fatalf("%d heads of %d: something between them was written", heads, 2*half)
				}
				u.Rotate(got, ldd, x, ldx, heads, cos, sin)
				for i := range sin { // back is by the negative angle, here in place
					sin[i] = -sin[i]
				}
				want = slices.Clone(got)
				plain.Rotate(want, ldd, want, ldd, heads, cos, sin)
				for i := range sin {
					sin[i] = -sin[i]
				}
				if u.RotateBack(got, ldd, got, ldd, heads, cos, sin); !sameBits(got, want) {
					t.Fatalf("%d heads of %d, turned back", heads, 2*half)
				}
			}
		}
		u.Rotate(nil, 0, nil, 0, 0, nil, nil)
	})
}

// TestSwiGLURange looks at values far out: silu lies between x and 0, its derivative near 0 and 1, and the two
// directions agree on silu.
func TestSwiGLURange(t *testing.T) {
	xs := []float32{-3e38, -1e4, -800, -104, -20, -1e-30, float32(math.Copysign(0, -1)), 0, 1e-30, 20, 104, 800, 1e4, 3e38, 1e-3, -1e-3, 2}
	ones := make([]float32, len(xs))
	for i := range ones {
		ones[i] = 1
	}
	eachUnit(t, func(t *testing.T, u *Unit) {
		n := len(xs)
		y, dg, du := make([]float32, n), make([]float32, n), make([]float32, n)
		u.SwiGLU(y, xs, ones)
		u.SwiGLUBackward(dg, du, ones, xs, ones)
		allowed := 2.5
		if u == &plain {
			allowed = 0.52
		}
		for i, x := range xs {
			want := float64(x) / (1 + math.Exp(-float64(x)))
			if d := ulps(y[i], want); !(d <= allowed) && math.Abs(float64(y[i])-want) > math.Abs(float64(x))*math.Ldexp(1, -149) {
				t.Errorf("silu(%v) = %v, %.2f ulp from %v", x, y[i], d, want)
			}
			if s := dg[i]; !(s >= -0.1 && s <= 1.1) {
				t.Errorf("the derivative of silu at %v is %v", x, s)
			}
			if du[i] != y[i] {
				t.Errorf("the gradient of up at %v is %v, want %v", x, du[i], y[i])
			}
		}
		var worst float64
		g, y1 := make([]float32, 1000), make([]float32, 1000)
		one := make([]float32, 1000)
		for i := range g {
			g[i], one[i] = float32(i-500)*0.0371, 1
		}
		u.SwiGLU(y1, g, one)
		for i, x := range g {
			worst = max(worst, ulps(y1[i], float64(x)*logistic(float64(x))))
		}
		t.Logf("silu: %.2f ulp", worst)
		if worst > allowed {
			t.Errorf("silu is off by %.2f ulp, allowed %v", worst, allowed)
		}
	})
}

// TestNaN: a NaN comes out where it went in, and nowhere else.
func TestNaN(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, o := range ops {
		eachUnit(t, func(t *testing.T, u *Unit) {
			for k := range o.ins {
				if o.name == "ExpDot" && k == 1 {
					continue // d reaches the sum alone
				}
				in := o.inputs(rng, 41)
				in[k][38] = nan
				var seen bool
				for _, out := range o.do(u, in) {
					for i, v := range out {
						seen = seen || v != v
						if v != v && i != 38 {
							t.Errorf("%s: a NaN at %d", o.name, i)
						}
					}
				}
				if !seen {
					t.Errorf("%s: input %d's NaN is lost", o.name, k)
				}
			}
		})
	}
	eachUnit(t, func(t *testing.T, u *Unit) {
		x := random(rng, 21)
		x[20] = nan
		one := random(rng, 21)
		sum, dot := u.ExpDot(slices.Clone(x), one, 0)
		_, dot2 := u.ExpDot(slices.Clone(one), x, 0)
		for i, s := range []float64{u.Dot(x, one), u.Dot3(one, one, x), u.ExpSum(slices.Clone(x), 0), sum, dot, dot2} {
			if s == s {
				t.Errorf("sum %d lost a NaN", i)
			}
		}
	})
}

func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	eachUnit(t, func(t *testing.T, u *Unit) {
		x, y := make([]float32, 33), make([]float32, 33)
		f := &AdamW{Take1: 0.1}
		if n := testing.AllocsPerRun(3, func() {
			u.Max(x)
			u.ExpSum(x, 0)
			u.ExpDot(x, y, 1)
			u.SoftmaxBackward(x, y, 1, 0, 1)
			u.SwiGLUBackward(x, y, x, y, x)
			u.Rotate(x, 0, y, 0, 1, x[:16], y[:16])
			u.AdamW(x, y, x, y, f)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestMisuse(t *testing.T) {
	long, short := make([]float32, 20), make([]float32, 19)
	short = short[:19:19]
	eachUnit(t, func(t *testing.T, u *Unit) {
		for name, f := range map[string]func(){
			"ExpDot":         func() { u.ExpDot(long, short, 0) },
			"SwiGLU":         func() { u.SwiGLU(long, long, short) },
			"SwiGLUBackward": func() { u.SwiGLUBackward(long, short, long, long, long) },
			"Dot":            func() { u.Dot(long, short) },
			"Scale":          func() { u.Scale(long, short, 1) },
			"Rotate":         func() { u.Rotate(short, 4, long, 4, 5, long[:2], long[:2]) },
			"stride":         func() { u.Rotate(long, -1, long, 4, 2, long[:2], long[:2]) },
			"AdamW":          func() { u.AdamW(long, long, long, short, &AdamW{}) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: no panic", name)
					}
				}()
				f()
			}()
		}
	})
}

func TestFor(t *testing.T) {
	if u, err := For("go"); err != nil || u.Name() != "go" {
		t.Errorf("%v, %v", u, err)
	}
	if _, err := For("sse9"); err == nil || !strings.Contains(err.Error(), "sse9") {
		t.Errorf("sse9: %v", err)
	}
	for name, u := range units {
		if _, err := For(name); (err == nil) != (u != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func benchmark(b *testing.B, n, bytes int, f func(u *Unit)) {
	for _, u := range available() {
		b.Run(u.Name(), func(b *testing.B) {
			b.SetBytes(int64(n * bytes))
			for b.Loop() {
				f(u)
			}
		})
	}
}

// The benchmarks take rows of a layer, which lie in the cache; MB/s count what is read and written once.
func BenchmarkKernels(b *testing.B) {
	const n = 2048
	rng := rand.New(rand.NewPCG(1, 1))
	x, y, z, w, v := random(rng, n), random(rng, n), random(rng, n), random(rng, n), random(rng, n)
	for _, k := range []struct {
		name  string
		bytes int
		f     func(u *Unit)
	}{
		{"Max", 4, func(u *Unit) { u.Max(x) }},
		{"ExpSum", 8, func(u *Unit) { copy(w, x); u.ExpSum(w, 3) }},
		{"ExpDot", 12, func(u *Unit) { copy(w, x); u.ExpDot(w, y, 3) }},
		{"SwiGLU", 12, func(u *Unit) { u.SwiGLU(w, x, y) }},
		{"SwiGLUBackward", 20, func(u *Unit) { u.SwiGLUBackward(w, v, x, y, z) }},
		{"Dot", 8, func(u *Unit) { u.Dot(x, y) }},
		{"Dot3", 12, func(u *Unit) { u.Dot3(x, y, z) }},
		{"Norm", 12, func(u *Unit) { u.Norm(w, x, y, 1) }},
		{"AdamW", 28, func(u *Unit) { u.AdamW(w, x, v, z, &AdamW{Decay: 1, Correct: 1, Eps: 1}) }},
		{"Rotate", 8, func(u *Unit) { u.Rotate(w, 64, x, 64, n/64, y[:32], z[:32]) }},
	} {
		b.Run(k.name, func(b *testing.B) { benchmark(b, n, k.bytes, k.f) })
	}
}
