package cpu

import (
	"math"
	"testing"
)

// ulps is the distance of f from the exact value in units of f32's last place there.
func ulps(f float32, exact float64) float64 {
	_, e := math.Frexp(exact)
	return math.Abs(float64(f)-exact) / math.Ldexp(1, max(e-24, -149))
}

func TestExp(t *testing.T) {
	worst := 0.0
	for bits := uint64(0); bits < 1<<32; bits += 4099 {
		x := math.Float32frombits(uint32(bits))
		got, want := float32(exp(float64(x))), math.Exp(float64(x))
		switch {
		case x != x:
			if got == got {
				t.Fatalf("exp(NaN) = %v", got)
			}
		case want > math.MaxFloat32:
			if !math.IsInf(float64(got), 1) {
				t.Fatalf("exp(%v) = %v", x, got)
			}
		default:
			worst = max(worst, ulps(got, want))
		}
	}
	if worst > 0.52 {
		t.Errorf("exp is off by %.3f ulp", worst)
	}
	for _, c := range [][2]float64{{0, 1}, {math.Inf(-1), 0}, {math.Inf(1), math.Inf(1)}, {-1e9, 0}} {
		if got := float64(float32(exp(c[0]))); got != c[1] {
			t.Errorf("exp(%v) = %v, want %v", c[0], got, c[1])
		}
	}
}

// TestSwiGLURange looks at values far out: no NaN, and silu(x) between x and 0.
func TestSwiGLURange(t *testing.T) {
	xs := []float32{-3e38, -1e4, -800, -104, -20, -1e-30, 0, 1e-30, 20, 104, 800, 1e4, 3e38}
	n := len(xs)
	gu := &Buffer{}
	gu.shape(1, 2*n)
	copy(gu.v, xs)
	for i := range n {
		gu.v[n+i] = 1
	}
	y, dy, d := &Buffer{}, &Buffer{}, &Buffer{}
	y.shape(1, n)
	dy.shape(1, n)
	d.shape(1, 2*n)
	for i := range n {
		dy.v[i] = 1
	}
	(&swigluTask{y: y, gu: gu}).Piece(0, 0)
	(&swigluBackTask{d: d, gu: gu, dy: dy}).Piece(0, 0)
	for i, x := range xs {
		want := float64(x) / (1 + math.Exp(-float64(x)))
		if u := ulps(y.v[i], want); !(u <= 0.52) {
			t.Errorf("silu(%v) = %v, %.2f ulp from %v", x, y.v[i], u, want)
		}
		if s := d.v[i]; !(s >= -0.1 && s <= 1.1) {
			t.Errorf("the derivative of silu at %v is %v", x, s)
		}
		if d.v[n+i] != y.v[i] {
			t.Errorf("the gradient of up at %v is %v, want %v", x, d.v[n+i], y.v[i])
		}
	}
}

func TestDot(t *testing.T) {
	for n := range 12 {
		a, b, c := make([]float32, n), make([]float32, n), make([]float32, n)
		var want2, want3 float64
		for i := range n {
			a[i], b[i], c[i] = float32(i+1), float32(2*i-3), float32(i*i)
			want2 += float64(a[i] * b[i])
			want3 += float64(a[i] * b[i] * c[i])
		}
		if got := dot(a, b); got != want2 {
			t.Errorf("dot of %d: %v, want %v", n, got, want2)
		}
		if got := dot3(a, b, c); got != want3 {
			t.Errorf("dot3 of %d: %v, want %v", n, got, want3)
		}
	}
}
