package cpu

import (
	"math"

	"github.com/biolora/biolora/internal/backend"
)

// optimBlock is the number of elements in a piece of the optimiser's work, and in a partial sum of squares.
const optimBlock = 1 << 14

func optimBlocks(n int) int { return (n + optimBlock - 1) / optimBlock }

func optimRange(i, n int) (from, to int) { return i * optimBlock, min((i+1)*optimBlock, n) }

// ZeroGrad clears gradient sums.
func (be *Backend) ZeroGrad(ps []backend.Param) {
	t := &be.zero
	for _, p := range ps {
		t.v = param(p).grad
		be.pool.Run(optimBlocks(len(t.v)), t)
	}
}

type zeroTask struct{ v []float32 }

func (t *zeroTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.v))
	clear(t.v[from:to])
}

// ScaleGrad multiplies gradient sums by f, rounded to f32.
func (be *Backend) ScaleGrad(ps []backend.Param, f float64) {
	t := &be.scale
	for _, p := range ps {
		*t = scaleTask{param(p).grad, float32(f)}
		be.pool.Run(optimBlocks(len(t.v)), t)
	}
}

type scaleTask struct {
	v []float32
	f float32
}

func (t *scaleTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.v))
	for j, v := range t.v[from:to] {
		t.v[from+j] = v * t.f
	}
}

// SumSquares adds up blocks in float64, and then the blocks, in the order of ps.
func (be *Backend) SumSquares(ps []backend.Param) float64 {
	t := &be.squares
	var sum float64
	for _, p := range ps {
		t.v = param(p).grad
		n := optimBlocks(len(t.v))
		if cap(be.blocks) < n {
			be.blocks = make([]float64, n)
		}
		t.sums = be.blocks[:n]
		be.pool.Run(n, t)
		for _, s := range t.sums {
			sum += s
		}
	}
	return sum
}

type squaresTask struct {
	v    []float32
	sums []float64
}

func (t *squaresTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.v))
	t.sums[i] = dot(t.v[from:to], t.v[from:to])
}

// AdamW takes one step (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) in the order and the
// f32 arithmetic of torch.optim.AdamW: the factors are float64 rounded once.
func (be *Backend) AdamW(ps []backend.Param, o backend.AdamW) {
	t := &be.adamw
	t.decay = float32(1 - o.LR*o.WeightDecay)
	t.beta1, t.beta2 = float32(o.Beta1), float32(o.Beta2)
	t.take1, t.take2 = float32(1-o.Beta1), float32(1-o.Beta2)
	t.rate = float32(o.LR / (1 - math.Pow(o.Beta1, float64(o.Step))))
	t.correct = float32(math.Sqrt(1 - math.Pow(o.Beta2, float64(o.Step))))
	t.eps = float32(o.Eps)
	for _, p := range ps {
		t.p = param(p)
		t.p.needMoments()
		be.pool.Run(optimBlocks(len(t.p.value)), t)
	}
}

type adamwTask struct {
	p                                                     *Param
	decay, beta1, take1, beta2, take2, rate, correct, eps float32
}

func (t *adamwTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.p.value))
	value, grad, m, v := t.p.value[from:to], t.p.grad[from:to], t.p.m[from:to], t.p.v[from:to]
	for j, g := range grad {
		if t.take1 < 0.5 { // as torch.lerp: exact at either end
			m[j] += t.take1 * (g - m[j])
		} else {
			m[j] = g - (g-m[j])*t.beta1
		}
		v[j] = v[j]*t.beta2 + t.take2*g*g
		root := float32(math.Sqrt(float64(v[j])))
		value[j] = value[j]*t.decay - t.rate*m[j]/(root/t.correct+t.eps)
	}
}
