package cpu

import (
	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
	"github.com/biolora/biolora/internal/backend/profile"
)

// FewRows is the number of rows up to which an operation's results may have other last bits than among more rows: above
// it a row's results do not depend on the rows beside it.
const FewRows = gemm.FewRows

// Linear writes y = [ls[0](x) | ls[1](x) | ...] (+ add); without y only h.
func (be *Backend) Linear(y, h, x, add backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	be.linear(mat(y), mat(h), mat(x), mat(add), ls, b, nil)
}

// linear is Linear for an x whose row i is the batch's row rows[i]; nil: row i.
func (be *Backend) linear(y, h, x, add *Buffer, ls []*backend.Linear, b *backend.Batch, rows []int32) {
	n := x.rows
	cols := outputs(ls)
	if y != nil {
		cols = y.cols
		y.Resize(n)
	}
	backend.CheckLinears("cpu", ls, x.cols, cols, colsOf(h))
	if add != nil {
		backend.CheckAdd("cpu", add, ls, n, cols)
	}
	if h != nil {
		h.Resize(n)
	}
	if n == 0 {
		return
	}
	if y != nil {
		be.pack(x.v, n, x.cols, x.ld)
	}
	col, rank := 0, 0
	for _, l := range ls {
		if y != nil {
			be.frozen(y, add, l, col)
		}
		if r := l.R(); r > 0 {
			be.branch(y, h, x, l, col, rank, b, rows)
			rank += r
		}
		col += l.Out
	}
}

// pack packs x [n, cols] with leading dimension ld for the products that follow.
func (be *Backend) pack(x []float32, n, cols, ld int) {
	defer be.watch.Leave(be.watch.Enter(profile.Packing))
	be.engine.Pack(&be.packed, be.compute, x, n, cols, ld)
}

// outputs is the number of columns that ls write.
func outputs(ls []*backend.Linear) (n int) {
	for _, l := range ls {
		n += l.Out
	}
	return n
}

// frozen writes columns col... of y: the packed input times the weight of l, with bias and add.
func (be *Backend) frozen(y, add *Buffer, l *backend.Linear, col int) {
	var plus []float32
	ldplus := 0
	if from := be.start(y, add, l, col); from != nil {
		plus, ldplus = from.v[col:], from.ld
	}
	// [T, In] x [In, Out] -> [T, Out]
	be.engine.Forward(y.v[col:], y.ld, &be.packed, *matrixOf(l.Train, l.Weight), plus, ldplus)
}

// branch writes columns rank... of h and, unless y is nil, adds the low-rank branch of l to columns col... of y.
func (be *Backend) branch(y, h, x *Buffer, l *backend.Linear, col, rank int, b *backend.Batch, rows []int32) {
	defer be.watch.Leave(be.watch.Enter(profile.Branch))
	r, low := l.R(), h.v[rank:]
	in := be.dropped(l, x, b, rows)
	// [T, In] x [In, R] -> [T, R]
	if be.rounded && in == x && y != nil && x.rows > FewRows { // x is packed, and the bits are those of Gemm
		be.engine.Forward(low, h.ld, &be.packed, param(l.A).matrix, nil, 0)
	} else {
		be.engine.Gemm(low, h.ld, x.rows, r, l.In, 1, rowMajor(in.v, in.ld), columnMajor(param(l.A).value, l.In), false)
	}
	if y == nil {
		return
	}
	// [T, R] x [R, Out] -> [T, Out]
	be.engine.Gemm(y.v[col:], y.ld, x.rows, l.Out, r, l.Scale, rowMajor(low, h.ld), columnMajor(param(l.B).value, r), true)
}

// start prepares what is added to the product of l: bias and add are written to y first, add alone is added as it
// is. nil: nothing.
func (be *Backend) start(y, add *Buffer, l *backend.Linear, col int) *Buffer {
	if l.Bias == nil {
		return add
	}
	defer be.watch.Leave(be.watch.Enter(profile.Elementwise))
	be.fill = fillTask{unit: be.unit, y: y, add: add, bias: l.Bias.(vector), col: col}
	be.rows(y.rows, &be.fill)
	return y
}

// fillTask writes bias (+ add) to columns col... of y.
type fillTask struct {
	unit   *vec.Unit
	y, add *Buffer
	bias   vector
	col    int
}

func (t *fillTask) Piece(_, i int) {
	from, to := blockOf(i, t.y.rows)
	for r := from; r < to; r++ {
		y := t.y.row(r)[t.col : t.col+len(t.bias)]
		copy(y, t.bias)
		if t.add != nil {
			t.unit.Add(y, t.add.row(r)[t.col:])
		}
	}
}

func rowMajor(v []float32, ld int) gemm.View { return gemm.View{Data: v, RowStride: ld, ColStride: 1} }
func columnMajor(v []float32, ld int) gemm.View {
	return gemm.View{Data: v, RowStride: 1, ColStride: ld}
}

func colsOf(b *Buffer) int {
	if b == nil {
		return 0
	}
	return b.cols
}

// dropped returns drop(x) for the branch of l: x itself, or a scratch matrix, with the factors in be.mask.
func (be *Backend) dropped(l *backend.Linear, x *Buffer, b *backend.Batch, rows []int32) *Buffer {
	if !drops(l, b) {
		return x
	}
	be.mask.shape(x.rows, x.cols)
	be.drop.shape(x.rows, x.cols)
	be.dropTask = dropTask{unit: be.unit, y: be.drop, mask: be.mask, x: x, l: l, b: b, rows: rows}
	be.rows(x.rows, &be.dropTask)
	return be.drop
}

func drops(l *backend.Linear, b *backend.Batch) bool { return b.Dropout != nil && l.Dropout > 0 }

type dropTask struct {
	unit       *vec.Unit
	y, mask, x *Buffer
	l          *backend.Linear
	b          *backend.Batch
	rows       []int32
}

func (t *dropTask) Piece(_, i int) {
	from, to := blockOf(i, t.x.rows)
	for r := from; r < to; r++ {
		at := r
		if t.rows != nil {
			at = int(t.rows[r])
		}
		mask := t.mask.row(r)
		t.b.Dropout.Mask(mask, t.l.Dropout, t.l.Site, at, t.b.Positions[at])
		t.unit.Mul(t.y.row(r), mask, t.x.row(r))
	}
}

// maskedAddTask adds mask∘x to y.
type maskedAddTask struct {
	unit       *vec.Unit
	y, mask, x *Buffer
}

func (t *maskedAddTask) Piece(_, i int) {
	from, to := blockOf(i, t.x.rows)
	for r := from; r < to; r++ {
		t.unit.MulAdd(t.y.row(r), t.mask.row(r), t.x.row(r))
	}
}

// LinearBackward writes dx = sum of dy_i W_i + s*mask∘(dy_i B A), and adds to the gradients of W, A and B.
func (be *Backend) LinearBackward(dx, x, h, dy backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	be.linearBackward(mat(dx), mat(x), mat(h), mat(dy), ls, b, nil)
}

func (be *Backend) linearBackward(dx, x, h, dy *Buffer, ls []*backend.Linear, b *backend.Batch, rows []int32) {
	backend.CheckLinearBackward("cpu", orNil(dx), orNil(x), orNil(h), dy, ls)
	n := dy.rows
	if dx != nil {
		dx.Resize(n)
	}
	if n == 0 {
		return
	}
	col, rank := 0, 0
	for i, l := range ls {
		grad := dy.v[col:]
		if dx != nil {
			be.pack(grad, n, l.Out, dy.ld)
			var add []float32
			if i > 0 {
				add = dx.v
			}
			// [T, Out] x [Out, In] -> [T, In]
			be.engine.Backward(dx.v, dx.ld, &be.packed, *matrixOf(l.Train, l.Weight), add, dx.ld)
		}
		if l.Train != nil {
			// [Out, T] x [T, In] -> [Out, In]
			before := be.watch.Enter(profile.Branch)
			be.engine.Gemm(param(l.Train).grad, l.In, l.Out, l.In, n, 1, columnMajor(grad, dy.ld), rowMajor(x.v, x.ld), true)
			be.watch.Leave(before)
		}
		if r := l.R(); r > 0 {
			be.branchBackward(dx, x, h.v[rank:], h.ld, grad, dy.ld, l, b, rows)
			rank += r
		}
		col += l.Out
	}
}

// branchBackward does the low-rank branch of l: h [T, R] and grad [T, Out] with their leading dimensions.
func (be *Backend) branchBackward(dx, x *Buffer, h []float32, ldh int, grad []float32, ldg int, l *backend.Linear, b *backend.Batch, rows []int32) {
	defer be.watch.Leave(be.watch.Enter(profile.Branch))
	n, r := x.rows, l.R()
	pa, pb := param(l.A), param(l.B)
	be.low.shape(n, r)
	low := be.low.v
	// [Out, T] x [T, R] -> [Out, R]
	be.engine.Gemm(pb.grad, r, l.Out, r, n, l.Scale, columnMajor(grad, ldg), rowMajor(h, ldh), true)
	// [T, Out] x [Out, R] -> [T, R]
	be.engine.Gemm(low, r, n, r, l.Out, l.Scale, rowMajor(grad, ldg), rowMajor(pb.value, r), false)
	in := be.dropped(l, x, b, rows)
	// [R, T] x [T, In] -> [R, In]
	be.engine.Gemm(pa.grad, l.In, r, l.In, n, 1, columnMajor(low, r), rowMajor(in.v, in.ld), true)
	if dx == nil {
		return
	}
	// [T, R] x [R, In] -> [T, In]
	if !drops(l, b) {
		be.engine.Gemm(dx.v, dx.ld, n, l.In, r, 1, rowMajor(low, r), rowMajor(pa.value, l.In), true)
		return
	}
	be.engine.Gemm(be.drop.v, be.drop.ld, n, l.In, r, 1, rowMajor(low, r), rowMajor(pa.value, l.In), false)
	be.maskedAdd = maskedAddTask{unit: be.unit, y: dx, mask: be.mask, x: be.drop}
	be.rows(n, &be.maskedAdd)
}

// orNil is b as an interface, which is nil where b is.
func orNil(b *Buffer) backend.Buffer {
	if b == nil {
		return nil
	}
	return b
}
