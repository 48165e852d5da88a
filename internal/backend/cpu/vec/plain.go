package vec

import "math"

// plain is Go, for any CPU. Products and sums are converted one by one: without that, compilers may fuse them.
var plain = Unit{
	name: "go", max: maxGo, expSum: expSumGo, expDot: expDotGo, softmaxBackward: softmaxBackwardGo,
	swiglu: swigluGo, swigluBackward: swigluBackwardGo, dot: dotGo, dot3: dot3Go, norm: normGo,
	normBackward: normBackwardGo, scale: scaleGo, add: addGo, mul: mulGo, mulAdd: mulAddGo, rotate: rotateGo,
	adamW: adamWGo, adamWFar: adamWFarGo,
}

// expSteps is the number of table entries in each power of two.
const expSteps = 32

// expTable holds the bits of 2^(i/expSteps), less i in the place where exp adds the exponent.
var expTable = func() (t [expSteps]uint64) {
	for i := range t {
		t[i] = math.Float64bits(math.Exp2(float64(i)/expSteps)) - uint64(i)<<(52-5)
	}
	return t
}()

// exp returns e^x with a relative error below 1e-9: rounded to f32 it is within 0.51 ulp. Beyond +-700 it returns
// e^+-700, which f32 does not tell from infinity and 0. A NaN stays one. It is short enough to be inlined, which
// makes it three times as fast.
//
// e^x = 2^(n/32) * 2^(r/32), |r| <= 1/2: the first factor from a table, the second by its series.
func exp(x float64) float64 {
	z := min(max(x, -700), 700) * (expSteps / math.Ln2)
	k := z + roundShift
	n := math.Float64bits(k)
	r := z - (k - roundShift)
	scale := math.Float64frombits(expTable[n%expSteps] + n<<(52-5))
	return scale + scale*r*(exp1+r*(exp2+r*exp3))
}

const (
	roundShift = 3 << 51 // adding it rounds to an integer, which then lies in the low bits

	exp1 = math.Ln2 / expSteps
	exp2 = exp1 * exp1 / 2
	exp3 = exp1 * exp1 * exp1 / 6
)

// sigmoid returns 1 / (1 + e^-x).
func sigmoid(x float64) float64 { return 1 / (1 + exp(-x)) }

func maxGo(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		if v > top {
			top = v
		}
	}
	return top
}

func expSumGo(x []float32, sub float32) (sum float64) {
	for i, v := range x {
		e := exp(float64(v - sub))
		x[i] = float32(e)
		sum += e
	}
	return sum
}

func expDotGo(x, d []float32, sub float32) (sum, dot float64) {
	d = d[:len(x)]
	for i, v := range x {
		e := float32(exp(float64(v - sub)))
		x[i] = e
		sum += float64(e)
		dot += float64(e) * float64(d[i])
	}
	return sum, dot
}

func softmaxBackwardGo(p, d []float32, f, delta, scale float32) {
	d = d[:len(p)]
	for i, e := range p {
		p[i] = e * f
		d[i] = scale * p[i] * (d[i] - delta)
	}
}

func swigluGo(y, g, u []float32) {
	g, u = g[:len(y)], u[:len(y)]
	for i := range y {
		v := float64(g[i])
		y[i] = float32(v*sigmoid(v)) * u[i]
	}
}

func swigluBackwardGo(dg, du, dy, g, u []float32) {
	du, dy, g, u = du[:len(dg)], dy[:len(dg)], g[:len(dg)], u[:len(dg)]
	for i, v := range dy {
		x := float64(g[i])
		s := sigmoid(x)
		dg[i] = v * u[i] * float32(s*(1+x*(1-s)))
		du[i] = v * float32(x*s)
	}
}

// dotGo and dot3Go take two f32 products at a time in float64, which is exact but for the last rounding, in chains
// that are added in a fixed order.
func dotGo(a, b []float32) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

func dot3Go(a, b, c []float32) float64 {
	b, c = b[:len(a)], c[:len(a)]
	var s0, s1 float64
	i := 0
	for ; i+2 <= len(a); i += 2 {
		s0 += float64(a[i]) * float64(b[i]) * float64(c[i])
		s1 += float64(a[i+1]) * float64(b[i+1]) * float64(c[i+1])
	}
	for ; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i]) * float64(c[i])
	}
	return s0 + s1
}

func normGo(y, x, gain []float32, f float32) {
	x, gain = x[:len(y)], gain[:len(y)]
	for i, v := range x {
		y[i] = gain[i] * (v * f)
	}
}

func normBackwardGo(dx, dy, gain, x []float32, f, c float32) {
	dy, gain, x = dy[:len(dx)], gain[:len(dx)], x[:len(dx)]
	for i, v := range x {
		dx[i] = f * (gain[i]*dy[i] - v*c)
	}
}

func scaleGo(y, x []float32, f float32) {
	x = x[:len(y)]
	for i, v := range x {
		y[i] = f * v
	}
}

func addGo(y, x []float32) {
	x = x[:len(y)]
	for i, v := range x {
		y[i] += v
	}
}

func mulGo(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i, v := range a {
		y[i] = v * b[i]
	}
}

func mulAddGo(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i, v := range a {
		y[i] += float32(v * b[i])
	}
}

func rotateGo(dst []float32, ldd int, x []float32, ldx int, cos, sin []float32, heads int, flip uint32) {
	half := len(cos)
	sin = sin[:half]
	for h := range heads {
		lo, hi := x[h*ldx:][:half], x[h*ldx+half:][:half]
		a, b := dst[h*ldd:][:half], dst[h*ldd+half:][:half]
		for i, c := range cos {
			p, q, s := lo[i], hi[i], math.Float32frombits(math.Float32bits(sin[i])^flip)
			a[i], b[i] = float32(p*c)-float32(q*s), float32(q*c)+float32(p*s)
		}
	}
}

func adamWGo(value, grad, m, v []float32, f *AdamW) {
	m = m[:len(grad)]
	for i, g := range grad {
		m[i] += float32(f.Take1 * (g - m[i]))
	}
	adamWMove(value, grad, m, v, f)
}

func adamWFarGo(value, grad, m, v []float32, f *AdamW) {
	m = m[:len(grad)]
	for i, g := range grad {
		m[i] = g - float32((g-m[i])*f.Beta1)
	}
	adamWMove(value, grad, m, v, f)
}

func adamWMove(value, grad, m, v []float32, f *AdamW) {
	value, m, v = value[:len(grad)], m[:len(grad)], v[:len(grad)]
	for i, g := range grad {
		v[i] = float32(v[i]*f.Beta2) + float32(f.Take2*g*g)
		root := float32(math.Sqrt(float64(v[i])))
		value[i] = float32(value[i]*f.Decay) - f.Rate*m[i]/(root/f.Correct+f.Eps)
	}
}
