package cpu

import (
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
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
		*t = scaleTask{be.unit, param(p).grad, float32(f)}
		be.pool.Run(optimBlocks(len(t.v)), t)
	}
}

type scaleTask struct {
	unit *vec.Unit
	v    []float32
	f    float32
}

func (t *scaleTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.v))
	t.unit.Scale(t.v[from:to], t.v[from:to], t.f)
}

// SumSquares adds up blocks in float64, and then the blocks, in the order of ps.
func (be *Backend) SumSquares(ps []backend.Param) float64 {
	t := &be.squares
	t.unit = be.unit
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
	unit *vec.Unit
	v    []float32
	sums []float64
}

func (t *squaresTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.v))
	t.sums[i] = t.unit.Dot(t.v[from:to], t.v[from:to])
}

// AdamW takes one step (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) in the order and the
// f32 arithmetic of torch.optim.AdamW: the factors are float64 rounded once.
func (be *Backend) AdamW(ps []backend.Param, o backend.AdamW) {
	t := &be.adamw
	t.unit = be.unit
	t.factors = vec.AdamW{
		Decay: float32(1 - o.LR*o.WeightDecay),
		Beta1: float32(o.Beta1), Take1: float32(1 - o.Beta1),
		Beta2: float32(o.Beta2), Take2: float32(1 - o.Beta2),
		Rate:    float32(o.LR / (1 - math.Pow(o.Beta1, float64(o.Step)))),
		Correct: float32(math.Sqrt(1 - math.Pow(o.Beta2, float64(o.Step)))),
		Eps:     float32(o.Eps),
	}
	for _, p := range ps {
		t.p = param(p)
		t.p.needMoments()
		be.pool.Run(optimBlocks(len(t.p.value)), t)
	}
}

type adamwTask struct {
	unit    *vec.Unit
	p       *Param
	factors vec.AdamW
}

func (t *adamwTask) Piece(_, i int) {
	from, to := optimRange(i, len(t.p.value))
	t.unit.AdamW(t.p.value[from:to], t.p.grad[from:to], t.p.m[from:to], t.p.v[from:to], &t.factors)
}
