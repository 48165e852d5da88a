package quant

import "math"

// Values are what the codes of nf4 stand for: quantiles of the normal distribution, scaled to [-1, 1], with an exact zero
// (QLoRA, appendix E).
var Values = [16]float32{
	-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}

const zeroCode = 7

// ScaleValues are what the codes of nf4's scales stand for: the signed dynamic code of 8 bits. Of each power of ten from
// 10^-6 to 1 there are the middles of 1, 2, 4 ... 64 equal parts of [0.1, 1], in both signs; then 0 and 1.
var ScaleValues = dynamicCode()

func dynamicCode() (values [256]float32) {
	const zero = 127
	at := 0
	for decade := range 7 {
		parts := 1 << decade
		power := float32(math.Pow10(decade - 6))
		for i := range parts {
			v := power * float32((partEdge(i, parts)+partEdge(i+1, parts))/2)
			at++
			values[zero+at], values[zero-at] = v, -v
		}
	}
	values[255] = 1
	return values
}

// partEdge is edge i of parts equal parts of [0.1, 1], computed from the nearer end and rounded once, as torch.linspace
// does it with fused multiply-adds.
func partEdge(i, parts int) float32 {
	from, to := float32(0.1), float32(1)
	step := (to - from) / float32(parts)
	if i < (parts+1)/2 {
		return float32(float64(from) + float64(step)*float64(i))
	}
	return float32(float64(to) - float64(step)*float64(parts-i))
}

// bounds are the middles between neighbours of Values: an element has the code of the number of bounds below it. The
// last one is never reached.
var bounds = func() (b [16]float32) {
	for i := range 15 {
		b[i] = (Values[i] + Values[i+1]) / 2
	}
	b[15] = float32(math.Inf(1))
	return b
}()

// bins has, for x in [-1, 1] and bin int(128 x + 128), how many bounds are below all of the bin; at most one bound lies
// in it. What rounding makes of the edges is provided for.
const binsPerUnit = 128

var bins = func() (first [2*binsPerUnit + 1]uint8) {
	for i := range first {
		low := float32(i-binsPerUnit)/binsPerUnit - 1e-4
		for bounds[first[i]] < low {
			first[i]++
		}
	}
	return first
}()

// code returns nf4's code for x, which is at most a rounding error outside of [-1, 1].
func code(x float32) byte {
	first := bins[int32(x*binsPerUnit+binsPerUnit)]
	if x > bounds[first&15] {
		first++
	}
	return first
}

// scaleGrid has the codes of the points of a grid over [-1, 1], each the nearest.
var scaleGrid = func() *[1 << 16]byte {
	var grid [1 << 16]byte
	c := 0
	for i := range grid {
		x := float32(-1) + float32(2*i)/(1<<16-1)
		for c < 255 && (ScaleValues[c]+ScaleValues[c+1])/2 < x {
			c++
		}
		grid[i] = byte(c)
	}
	return &grid
}()

// scaleCode returns the code of a scale, divided by its factor: that of the nearest point of the grid.
func scaleCode(x float32) byte {
	if x != x { // zero divided by a factor that has no reciprocal
		x = 0
	}
	x = min(max(x, -1), 1)
	half := float64((x + 1) / 2)
	return scaleGrid[uint16(float32(half*(1<<16-1)+0.5))] // exact in float64, so rounded once
}
