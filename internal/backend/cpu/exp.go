package cpu

import "math"

var (
	nan         = float32(math.NaN())
	negInfinity = float32(math.Inf(-1))
)

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

// The sums below take two f32 products at a time in float64, which is exact but for the last rounding, in four
// chains that are added in a fixed order.

// dot returns the sum of a[i]*b[i].
func dot(a, b []float32) float64 {
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

// dot3 returns the sum of a[i]*b[i]*c[i].
func dot3(a, b, c []float32) float64 {
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
