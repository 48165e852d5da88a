package vec

import "fmt"

// Unit is a set of kernels. Slices that go together must be as long as the first (they may be longer); no slice may
// overlap another in part, but an output may be an input.
type Unit struct {
	name string

	max             func(x []float32) float32
	expSum          func(x []float32, sub float32) float64
	expDot          func(x, d []float32, sub float32) (sum, dot float64)
	softmaxBackward func(p, d []float32, f, delta, scale float32)
	swiglu          func(y, g, u []float32)
	swigluBackward  func(dg, du, dy, g, u []float32)
	dot             func(a, b []float32) float64
	dot3            func(a, b, c []float32) float64
	norm            func(y, x, gain []float32, f float32)
	normBackward    func(dx, dy, gain, x []float32, f, c float32)
	scale           func(y, x []float32, f float32)
	add             func(y, x []float32)
	mul             func(y, a, b []float32)
	mulAdd          func(y, a, b []float32)
	rotate          func(dst []float32, ldd int, x []float32, ldx int, cos, sin []float32, heads int, flip uint32)
	adamW           func(value, grad, m, v []float32, f *AdamW)
	adamWFar        func(value, grad, m, v []float32, f *AdamW)
}

// For returns the kernels that go with the instructions called features, a name that gemm.Parse knows. It fails for
// other names, and for instructions that this CPU lacks.
func For(features string) (*Unit, error) {
	u, ok := units[features]
	switch {
	case !ok:
		return nil, fmt.Errorf("vec: no kernels for %q", features)
	case u == nil:
		return nil, fmt.Errorf("vec: this CPU has no %s", features)
	}
	return u, nil
}

// Name is "go", "avx2", "avx512" or "neon".
func (u *Unit) Name() string { return u.name }

// Max returns the largest element, -Inf of none. It passes over NaNs.
func (u *Unit) Max(x []float32) float32 { return u.max(x) }

// ExpSum leaves e^(x-sub) in x, the difference rounded to float32, and returns the sum.
func (u *Unit) ExpSum(x []float32, sub float32) float64 { return u.expSum(x, sub) }

// ExpDot leaves e^(x-sub) in x as ExpSum does, and returns the sum of it and the sum of its products with d.
func (u *Unit) ExpDot(x, d []float32, sub float32) (sum, dot float64) {
	return u.expDot(x, d[:len(x)], sub)
}

// SoftmaxBackward does p = f*p, then d = scale * p * (d-delta).
func (u *Unit) SoftmaxBackward(p, d []float32, f, delta, scale float32) {
	u.softmaxBackward(p, d[:len(p)], f, delta, scale)
}

// SwiGLU does y = g * sigmoid(g) * u.
func (u *Unit) SwiGLU(y, gate, up []float32) {
	u.swiglu(y, gate[:len(y)], up[:len(y)])
}

// SwiGLUBackward writes the gradients of gate and up from that of SwiGLU's y. The silu in it has the bits that SwiGLU
// uses.
func (u *Unit) SwiGLUBackward(dgate, dup, dy, gate, up []float32) {
	n := len(dgate)
	u.swigluBackward(dgate, dup[:n], dy[:n], gate[:n], up[:n])
}

// Dot returns the sum of a*b. The products are exact.
func (u *Unit) Dot(a, b []float32) float64 { return u.dot(a, b[:len(a)]) }

// Dot3 returns the sum of a*b*c, all in float64.
func (u *Unit) Dot3(a, b, c []float32) float64 { return u.dot3(a, b[:len(a)], c[:len(a)]) }

// Norm does y = gain * (x*f).
func (u *Unit) Norm(y, x, gain []float32, f float32) { u.norm(y, x[:len(y)], gain[:len(y)], f) }

// NormBackward does dx = f * (gain*dy - x*c).
func (u *Unit) NormBackward(dx, dy, gain, x []float32, f, c float32) {
	n := len(dx)
	u.normBackward(dx, dy[:n], gain[:n], x[:n], f, c)
}

// Scale does y = f * x.
func (u *Unit) Scale(y, x []float32, f float32) { u.scale(y, x[:len(y)], f) }

// Add does y += x.
func (u *Unit) Add(y, x []float32) { u.add(y, x[:len(y)]) }

// Mul does y = a * b.
func (u *Unit) Mul(y, a, b []float32) { u.mul(y, a[:len(y)], b[:len(y)]) }

// MulAdd does y += a * b, with two roundings.
func (u *Unit) MulAdd(y, a, b []float32) { u.mulAdd(y, a[:len(y)], b[:len(y)]) }

// Rotate turns the pairs (i, i+len(cos)) of heads that lie ldx apart in x by one row's angles (Su et al., "RoFormer",
// 2021), to heads that lie ldd apart in dst.
func (u *Unit) Rotate(dst []float32, ldd int, x []float32, ldx, heads int, cos, sin []float32) {
	u.turn(dst, ldd, x, ldx, heads, cos, sin, 0)
}

// RotateBack turns the other way, which is what gradients take.
func (u *Unit) RotateBack(dst []float32, ldd int, x []float32, ldx, heads int, cos, sin []float32) {
	u.turn(dst, ldd, x, ldx, heads, cos, sin, 1<<31)
}

func (u *Unit) turn(dst []float32, ldd int, x []float32, ldx, heads int, cos, sin []float32, flip uint32) {
	if heads < 1 || len(cos) == 0 {
		return
	}
	if ldd < 0 || ldx < 0 {
		panic(fmt.Sprintf("vec: heads %d and %d apart", ldd, ldx))
	}
	d, s := dst[:(heads-1)*ldd+2*len(cos)], x[:(heads-1)*ldx+2*len(cos)]
	u.rotate(d, ldd, s, ldx, cos, sin[:len(cos)], heads, flip)
}

// AdamW holds the factors of a step, each rounded to float32 once.
type AdamW struct {
	Decay        float32 // 1 - lr * weight decay
	Beta1, Take1 float32 // Take1 = 1 - Beta1
	Beta2, Take2 float32 // Take2 = 1 - Beta2
	Rate         float32 // lr / (1 - Beta1^t)
	Correct      float32 // sqrt(1 - Beta2^t)
	Eps          float32
}

// AdamW takes a step in the order and the float32 arithmetic of torch.optim.AdamW: m moves to grad by Take1 as
// torch.lerp does it, v = v*Beta2 + Take2*grad², value = value*Decay - Rate*m / (sqrt(v)/Correct + Eps).
func (u *Unit) AdamW(value, grad, m, v []float32, f *AdamW) {
	n := len(value)
	step := u.adamW
	if f.Take1 >= 0.5 { // torch.lerp is exact at either end
		step = u.adamWFar
	}
	step(value, grad[:n], m[:n], v[:n], f)
}
