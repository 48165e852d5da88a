package cuda

import (
	"math"
	"slices"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// optimiser is what the operations on lists of parameters keep: a table of the parameters on the card, and their
// elements cut into pieces, so that each operation is one launch, however many parameters there are.
type optimiser struct {
	list   []backend.Param // what the table is of
	moved  bool            // a parameter has got memory since
	pieces int

	tensors, index, sums memory // [len(list)] tensor, [pieces] piece, [pieces] float64
}

// optimPiece is the number of elements that a block takes (piece in optim.cu).
const optimPiece = 8192

type tensor struct {
	value, grad, m, v, shadow driver.Ptr
	n                         int64
}

type piece struct{ tensor, index int32 }

func init() {
	scratches = append(scratches,
		scratch{func(be *Backend) *memory { return &be.optimiser.tensors },
			func(_ *Backend, n backend.Need) int64 { t, _ := trained(n); return t * int64(unsafe.Sizeof(tensor{})) }},
		scratch{func(be *Backend) *memory { return &be.optimiser.index },
			func(_ *Backend, n backend.Need) int64 { _, p := trained(n); return p * int64(unsafe.Sizeof(piece{})) }},
		scratch{func(be *Backend) *memory { return &be.optimiser.sums },
			func(_ *Backend, n backend.Need) int64 { _, p := trained(n); return 8 * p }})
}

// trained is how many parameters n has, and pieces of them; one more is as large as any, for an embedding.
func trained(n backend.Need) (tensors, pieces int64) {
	add := func(p backend.Param) {
		if p != nil {
			tensors++
			pieces += int64(blocks(p.(*param).elements(), optimPiece))
		}
	}
	ls := n.Linears
	if n.Head != nil {
		ls = append(slices.Clip(ls), n.Head)
	}
	for _, l := range ls {
		add(l.A)
		add(l.B)
		add(l.Train)
	}
	return tensors + 1, pieces + int64(blocks(2*n.Param, optimPiece))
}

var (
	zeroGradientsKernel  = declare("zero_gradients")
	scaleGradientsKernel = declare("scale_gradients")
	squarePiecesKernel   = declare("square_pieces")
	sumDoublesKernel     = declare("sum_doubles")
	adamwKernel          = declare("adamw")
)

type gradientArgs struct {
	tensors, pieces, sums driver.Ptr
	factor                float32
}

type sumDoublesArgs struct {
	to, from driver.Ptr
	n, add   int32
}

type adamwArgs struct {
	tensors, pieces                                       driver.Ptr
	decay, beta1, take1, beta2, take2, rate, correct, eps float32
}

// table makes the table be of ps, and reports whether they have any element.
func (be *Backend) table(ps []backend.Param) bool {
	o := &be.optimiser
	if o.moved || !slices.Equal(o.list, ps) {
		be.makeTable(ps)
	}
	return o.pieces > 0
}

func (be *Backend) makeTable(ps []backend.Param) {
	o := &be.optimiser
	o.list = o.list[:0] // until the table is there
	tensors, pieces := make([]tensor, len(ps)), []piece(nil)
	for i, q := range ps {
		p := q.(*param)
		tensors[i] = tensor{p.value.at, p.grad.at, p.m.at, p.v.at, p.shadow.at, p.elements()}
		for j := range blocks(p.elements(), optimPiece) {
			pieces = append(pieces, piece{int32(i), int32(j)})
		}
	}
	o.pieces = len(pieces)
	be.grow(&o.tensors, int64(len(tensors))*int64(unsafe.Sizeof(tensor{})))
	be.grow(&o.index, int64(len(pieces))*int64(unsafe.Sizeof(piece{})))
	be.grow(&o.sums, 8*int64(len(pieces)))
	be.upload(o.tensors.at, bytesOf(tensors))
	be.upload(o.index.at, bytesOf(pieces))
	o.list, o.moved = append(o.list, ps...), false
}

// onGradients runs a kernel on all pieces of ps.
func (be *Backend) onGradients(k kernel, ps []backend.Param, factor float32) {
	if o := &be.optimiser; be.table(ps) {
		launch(be, k, grid(o.pieces, 256, 0), gradientArgs{o.tensors.at, o.index.at, o.sums.at, factor})
	}
}

// ZeroGrad clears gradient sums.
func (be *Backend) ZeroGrad(ps []backend.Param) {
	defer be.enter()()
	be.onGradients(zeroGradientsKernel, ps, 0)
}

// ScaleGrad multiplies gradient sums by f, rounded to f32.
func (be *Backend) ScaleGrad(ps []backend.Param, f float64) {
	defer be.enter()()
	be.onGradients(scaleGradientsKernel, ps, float32(f))
}

// SumSquares adds up pieces in float64, and then the pieces. It waits for the card, and what it fetches has all sums of
// losses with it: the next Sum.Read does not wait again.
func (be *Backend) SumSquares(ps []backend.Param) float64 {
	defer be.enter()()
	if !be.table(ps) {
		return 0
	}
	o := &be.optimiser
	be.onGradients(squarePiecesKernel, ps, 0)
	be.addDoubles(normSlot, o.sums.at, o.pieces, false)
	return be.readSlot(normSlot)
}

// addDoubles sets a slot to the sum of n doubles, or adds it to what is there.
func (be *Backend) addDoubles(slot int, from driver.Ptr, n int, add bool) {
	launch(be, sumDoublesKernel, grid(1, 256, 0), sumDoublesArgs{be.slot(slot), from, int32(n), flag(add)})
	be.sums.known = false
}

// AdamW takes one step (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) in the order and the
// f32 arithmetic of torch.optim.AdamW: the factors are float64 rounded once.
func (be *Backend) AdamW(ps []backend.Param, s backend.AdamW) {
	defer be.enter()()
	for _, p := range ps {
		p.(*param).needMoments()
	}
	if !be.table(ps) {
		return
	}
	o := &be.optimiser
	launch(be, adamwKernel, grid(o.pieces, 256, 0), adamwArgs{o.tensors.at, o.index.at,
		float32(1 - s.LR*s.WeightDecay),
		float32(s.Beta1), float32(1 - s.Beta1),
		float32(s.Beta2), float32(1 - s.Beta2),
		float32(s.LR / (1 - math.Pow(s.Beta1, float64(s.Step)))),
		float32(math.Sqrt(1 - math.Pow(s.Beta2, float64(s.Step)))),
		float32(s.Eps)})
	for _, q := range ps {
		if p := q.(*param); p.shadow.bytes > 0 {
			p.stale = false // the kernel has written it
		}
	}
}
