package cuda

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/quant"
)

// linears is what operations on linears work in.
type linears struct {
	h, dh   memory // h and its gradient as products multiply them, [T, ranks]
	dy      memory // a gradient of the residual stream in bf16, [T, Out]
	dropped memory // drop(x), [T, In]
	dgu     memory // the gradient of gate and up, [T, 2 Out]
	d       Buffer // it as a matrix

	group []*weight
	pair  [2]*backend.Linear
}

func init() {
	add := func(m func(*linears) *memory, bytes func(*Backend, backend.Need) int64) {
		scratches = append(scratches, scratch{func(be *Backend) *memory { return m(&be.linears) }, bytes})
	}
	matrix := func(half bool, rows, cols int) int64 { return int64(rows) * int64(leading(cols)) * elementBytes(half) }
	add(func(l *linears) *memory { return &l.h }, func(be *Backend, n backend.Need) int64 {
		if !be.half {
			return 0
		}
		return matrix(true, max(n.Rows, n.Forward), rankNeed(n))
	})
	add(func(l *linears) *memory { return &l.dh }, func(be *Backend, n backend.Need) int64 {
		return matrix(be.half, n.Rows, rankNeed(n))
	})
	add(func(l *linears) *memory { return &l.dy }, func(be *Backend, n backend.Need) int64 {
		if !be.half {
			return 0
		}
		return matrix(true, n.Rows, n.Head.In) // the residual stream is as wide as the head's input
	})
	add(func(l *linears) *memory { return &l.dropped }, func(be *Backend, n backend.Need) (most int64) {
		for _, l := range n.Linears {
			if l.A != nil && l.Dropout > 0 {
				most = max(most, matrix(be.half, n.Rows, l.In))
			}
		}
		if n.Head.A != nil && n.Head.Dropout > 0 {
			most = max(most, matrix(be.half, n.Selected, n.Head.In))
		}
		return most
	})
	add(func(l *linears) *memory { return &l.dgu }, func(be *Backend, n backend.Need) int64 {
		return matrix(be.half, n.Rows, 2*n.Intermediate)
	})
}

// rankNeed is the most columns of h: of three linears that share an input.
func rankNeed(n backend.Need) int {
	most := n.Head.R()
	for i := range n.Linears {
		sum := 0
		for _, l := range n.Linears[i:min(i+3, len(n.Linears))] {
			sum += l.R()
		}
		most = max(most, sum)
	}
	return most
}

// dropoutArgs are what masks are made of, as kernels take it (philox.h).
type dropoutArgs struct {
	positions, samples, selected driver.Ptr
	key0, key1, epoch            uint32
}

// dropping says what drops inputs of linears: nothing, or b's dropout. Row i of the input is row selected[i] of the
// batch, or row i where selected is 0.
type dropping struct {
	on   bool
	args dropoutArgs
}

// dropping is b's, for ls.
func (be *Backend) dropping(ls []*backend.Linear, b *backend.Batch) (d dropping) {
	for _, l := range ls {
		d.on = d.on || l.A != nil && l.Dropout > 0 && b.Dropout != nil
	}
	if !d.on {
		return d
	}
	at := be.batch(b)
	d.args = dropoutArgs{positions: at.positions, samples: at.samples, key0: uint32(b.Dropout.Seed), key1: uint32(b.Dropout.Seed >> 32), epoch: b.Dropout.Epoch}
	return d
}

// of is the factor of what l keeps, and the words below which it drops; 0 where it drops nothing.
func (d *dropping) of(l *backend.Linear) (keep float32, limit uint32) {
	if !d.on || l.Dropout == 0 {
		return 1, 0
	}
	if !(l.Dropout > 0 && l.Dropout < 1) {
		panic(fmt.Sprintf("cuda: %s: a dropout of %g, want at least 0 and less than 1", l.Name, l.Dropout))
	}
	return 1 / (1 - l.Dropout), uint32(float64(l.Dropout) * (1 << 32))
}

var (
	startKernel    = declare("linear_start")
	dropKernel     = declare("drop")
	branchesKernel = declareTyped("linear_branches")
)

// Linear writes y = [ls[0](x) | ls[1](x) | ...] (+ add); without y only h.
func (be *Backend) Linear(y, h, x, add backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	defer be.enter()()
	be.linear(mat(y), mat(h), mat(x), mat(add), ls, be.dropping(ls, b))
}

// linear is Linear with what drops.
//
// y is bf16 or f32. Where it is bf16 each of its elements is rounded last when the largest part comes to it: first the
// bias and the branches, then the product with the weights, which adds to them.
func (be *Backend) linear(y, h, x, add *Buffer, ls []*backend.Linear, drop dropping) {
	n, cols := x.rows, outputs(ls)
	if y != nil {
		cols = y.cols
		y.Resize(n)
	}
	backend.CheckLinears("cuda", ls, x.cols, cols, colsOf(h))
	if add != nil {
		backend.CheckAdd("cuda", add, ls, n, cols)
	}
	if h != nil {
		h.Resize(n)
	}
	if n == 0 {
		return
	}
	rank := 0
	for _, l := range ls {
		if r := l.R(); r > 0 {
			keep, limit := drop.of(l)
			in := be.drop(x, l, drop, limit)
			// [T, In] x [In, R] -> [T, R]
			be.product(n, r, l.In, keep, in, be.factor(l.A, true), 0, result{}, result{h.at(rank), h.ld, false})
			rank += r
		}
	}
	if y == nil {
		return
	}
	low := be.rounded(&be.linears.h, h, rank)
	for col, rank := 0, 0; len(ls) > 0; {
		k := be.joined(ls)
		be.forward(y, add, x, ls[:k], col, low, rank)
		for _, l := range ls[:k] {
			col += l.Out
			rank += l.R()
		}
		ls = ls[k:]
	}
}

// forward writes columns col... of y: what ls, whose weights are one matrix, make of x, and add. low is all linears' h,
// and ls' part of it begins at column rank.
func (be *Backend) forward(y, add, x *Buffer, ls []*backend.Linear, col int, low operand, rank int) {
	before := part(add, col) // what the product is added to
	for _, l := range ls {
		if l.A != nil || l.Bias != nil {
			before = part(y, col)
		}
	}
	outs := 0
	for _, l := range ls {
		if before.at == y.at(col) {
			be.begin(y, add, l, col+outs, low.column(rank))
		}
		rank += l.R()
		outs += l.Out
	}
	if be.byCodes(x, ls) {
		be.codes(y, x, ls, col, before)
		return
	}
	// [T, In] x [In, Outs] -> [T, Outs]
	be.product(x.rows, outs, x.cols, 1, x.operand(), be.matrix(ls).transposed(), beta(before), before, part(y, col))
}

// codesRows is how many rows a product reads codes for; with more it pays to widen the weights.
const codesRows = 8

// byCodes reports whether x is so few rows, of whole blocks, that the weights of ls are multiplied as codes.
func (be *Backend) byCodes(x *Buffer, ls []*backend.Linear) bool {
	for _, l := range ls {
		if l.Train != nil || l.Weight.(*weight).kind < weightNF4 {
			return false
		}
	}
	return x.rows <= codesRows && x.cols%quant.Block == 0 && x.half == be.half
}

var (
	productNF4Kernel  = declareTyped("product_nf4")
	productInt8Kernel = declareTyped("product_int8")
)

type codesArgs struct {
	w                         weightArgs
	x, c, y                   driver.Ptr
	rows, ldX, ldC, ldY, half int32
	beta                      float32
}

// codes writes columns col... of y: before, and x times the weights of ls, which are codes.
func (be *Backend) codes(y, x *Buffer, ls []*backend.Linear, col int, before result) {
	for _, l := range ls {
		w := l.Weight.(*weight)
		k := productNF4Kernel
		if w.kind == weightInt8 {
			k = productInt8Kernel
		}
		// [T, In] x [In, Out] -> [T, Out]; 8 warps with 2 columns each
		launch(be, k.of(x.half), grid(blocks(w.rows, 16), 256, 0), codesArgs{be.weightArgs(w), x.at(0), before.at, y.at(col),
			int32(x.rows), int32(x.ld), int32(before.ld), int32(y.ld), flag(y.half), beta(before)})
		if before.at != 0 {
			before.at += driver.Ptr(int64(l.Out) * elementBytes(before.half))
		}
		col += l.Out
	}
}

// beta is 1 where there is something to add to.
func beta(c result) float32 {
	if c.at == 0 {
		return 0
	}
	return 1
}

// begin writes columns col... of y: l's bias, add and l's branch, of what there is of them; zeros if there is nothing.
func (be *Backend) begin(y, add *Buffer, l *backend.Linear, col int, low operand) {
	before := part(add, col)
	if l.Bias != nil || l.A == nil {
		be.start(y, add, l, col)
		before = part(y, col)
	}
	if r := l.R(); r > 0 {
		// [T, R] x [R, Out] -> [T, Out]
		be.product(y.rows, l.Out, r, l.Scale, low, be.factor(l.B, true), beta(before), before, part(y, col))
	}
}

type startArgs struct {
	y, add, bias           driver.Ptr
	rows, cols, ldY, ldAdd int32
	half                   int32
}

// start writes bias + add to columns col... of y.
func (be *Backend) start(y, add *Buffer, l *backend.Linear, col int) {
	args := startArgs{y: y.at(col), rows: int32(y.rows), cols: int32(l.Out), ldY: int32(y.ld), half: flag(y.half)}
	if add != nil {
		args.add, args.ldAdd = add.at(col), int32(add.ld)
	}
	if l.Bias != nil {
		args.bias = l.Bias.(*vector).mem.at
	}
	launch(be, startKernel, grid(blocks(y.rows*blocks(l.Out, 8), 256), 256, 0), args)
}

// joined is how many of ls, from the first, one product computes: those whose weights are one matrix.
func (be *Backend) joined(ls []*backend.Linear) int {
	g := be.linears.group[:0]
	for _, l := range ls {
		if l.Train != nil {
			break
		}
		g = append(g, l.Weight.(*weight))
	}
	be.linears.group = g
	if len(g) < 2 {
		return 1
	}
	return be.together(g)
}

// matrix is the weights of ls, which are joined: [Outs, In].
func (be *Backend) matrix(ls []*backend.Linear) operand {
	if ls[0].Train != nil {
		return be.factor(ls[0].Train, false)
	}
	g := be.linears.group[:0]
	for _, l := range ls {
		g = append(g, l.Weight.(*weight))
	}
	be.linears.group = g
	return be.values(g)
}

// factor is a parameter's value as products multiply it.
func (be *Backend) factor(p backend.Param, trans bool) operand {
	q := p.(*param)
	if be.half {
		return operand{q.half(), q.ld, true, trans}
	}
	return operand{q.value.at, q.ld, false, trans}
}

func (b *Buffer) operand() operand { return operand{at: b.at(0), ld: b.ld, half: b.half} }

// transposed is o's transpose.
func (o operand) transposed() operand {
	o.trans = !o.trans
	return o
}

// column is o from a column on, as it lies in memory.
func (o operand) column(i int) operand {
	if o.at != 0 {
		o.at += driver.Ptr(int64(i) * elementBytes(o.half))
	}
	return o
}

// part is b from column col on; nothing where b is nil.
func part(b *Buffer, col int) result {
	if b == nil {
		return result{}
	}
	return result{b.at(col), b.ld, b.half}
}

// rounded is the first columns of b as products multiply them: b itself, or its bf16 in m.
func (be *Backend) rounded(m *memory, b *Buffer, cols int) operand {
	if b == nil || cols == 0 {
		return operand{half: be.half}
	}
	if b.half == be.half {
		return b.operand()
	}
	ld := leading(cols)
	be.grow(m, 2*int64(b.rows)*int64(ld))
	be.convert(result{m.at, ld, true}, b.at(0), weightF32, b.ld, b.rows, cols)
	return operand{at: m.at, ld: ld, half: true}
}

type dropArgs struct {
	drop                 dropoutArgs
	y, x                 driver.Ptr
	site, limit          uint32
	rows, cols, ld, half int32
}

// drop is x with zeros where l drops it; x itself where limit is 0.
func (be *Backend) drop(x *Buffer, l *backend.Linear, drop dropping, limit uint32) operand {
	if limit == 0 {
		return x.operand()
	}
	m := &be.linears.dropped
	be.grow(m, int64(x.rows)*int64(x.ld)*elementBytes(x.half))
	launch(be, dropKernel, grid(blocks(x.rows*blocks(x.cols, 8), 256), 256, 0),
		dropArgs{drop.args, m.at, x.at(0), l.Site, limit, int32(x.rows), int32(x.cols), int32(x.ld), flag(x.half)})
	return operand{at: m.at, ld: x.ld, half: x.half}
}

// LinearBackward writes dx = sum of dy_i W_i + s mask∘(dy_i B A), and adds to the gradients of W, A and B.
func (be *Backend) LinearBackward(dx, x, h, dy backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	defer be.enter()()
	be.linearBackward(mat(dx), mat(x), mat(h), mat(dy), ls, be.dropping(ls, b))
}

// linearBackward is LinearBackward with what drops. In dx the branches come first, as in linear.
func (be *Backend) linearBackward(dx, x, h, dy *Buffer, ls []*backend.Linear, drop dropping) {
	backend.CheckLinearBackward("cuda", orNil(dx), orNil(x), orNil(h), dy, ls)
	n := dy.rows
	if dx != nil {
		dx.Resize(n)
	}
	if n == 0 {
		return
	}
	g := be.rounded(&be.linears.dy, dy, dy.cols)
	added := be.branchesBackward(dx, x, h, g, n, ls, drop)
	col := 0
	for _, l := range ls {
		if l.Train != nil {
			p := l.Train.(*param)
			to := result{at: p.grad.at, ld: p.ld}
			// [Out, T] x [T, In] -> [Out, In]
			be.product(l.Out, l.In, n, 1, g.column(col).transposed(), x.operand(), 1, to, to)
		}
		col += l.Out
	}
	if dx == nil {
		return
	}
	to := part(dx, 0)
	for col := 0; len(ls) > 0; {
		k := be.joined(ls)
		outs := outputs(ls[:k])
		// [T, Outs] x [Outs, In] -> [T, In]
		be.product(n, dx.cols, outs, 1, g.column(col), be.matrix(ls[:k]), added, to, to)
		added = 1
		col += outs
		ls = ls[k:]
	}
}

// branchCount is how many branches a launch of linear_branches takes (linear.cu).
const branchCount = 4

type branchArgs struct {
	drop                    dropoutArgs
	dh, a                   [branchCount]driver.Ptr
	dx                      driver.Ptr
	site, limit             [branchCount]uint32
	keep                    [branchCount]float32
	rank, ldA               [branchCount]int32
	count, rows, cols, ldDh int32
	ldDx, half              int32
	beta                    float32
}

// branchesBackward adds to the gradients of A and B, and writes to dx what comes through the branches, unless it is nil.
// It returns what dx has to be multiplied with before more is added: 0 where nothing was written.
func (be *Backend) branchesBackward(dx, x, h *Buffer, g operand, n int, ls []*backend.Linear, drop dropping) (written float32) {
	ranks := 0
	for _, l := range ls {
		ranks += l.R()
	}
	if ranks == 0 {
		return 0
	}
	low := be.rounded(&be.linears.h, h, ranks)
	dh := operand{ld: leading(ranks), half: be.half}
	be.grow(&be.linears.dh, int64(n)*int64(dh.ld)*elementBytes(be.half))
	dh.at = be.linears.dh.at

	var args branchArgs
	col, rank := 0, 0
	for _, l := range ls {
		if r := l.R(); r > 0 {
			be.branchBackward(x, l, g.column(col), low.column(rank), dh.column(rank), n, drop)
			if dx != nil {
				if args.count == branchCount {
					written = be.throughBranches(dx, &args, dh.ld, drop, written)
				}
				args.add(l, dh.column(rank), be.factor(l.A, false), drop)
			}
			rank += r
		}
		col += l.Out
	}
	if dx != nil {
		written = be.throughBranches(dx, &args, dh.ld, drop, written)
	}
	return written
}

// branchBackward computes dh [T, R] of l and adds to the gradients of A and B. g is [T, Out], low is h in [T, R].
func (be *Backend) branchBackward(x *Buffer, l *backend.Linear, g, low, dh operand, n int, drop dropping) {
	a, b, r := l.A.(*param), l.B.(*param), l.R()
	gradB := result{at: b.grad.at, ld: b.ld}
	// [Out, T] x [T, R] -> [Out, R]
	be.product(l.Out, r, n, l.Scale, g.transposed(), low, 1, gradB, gradB)
	// [T, Out] x [Out, R] -> [T, R]
	be.product(n, r, l.Out, l.Scale, g, be.factor(l.B, false), 0, result{}, result{dh.at, dh.ld, dh.half})
	keep, limit := drop.of(l)
	gradA := result{at: a.grad.at, ld: a.ld}
	// [R, T] x [T, In] -> [R, In]
	be.product(r, l.In, n, keep, dh.transposed(), be.drop(x, l, drop, limit), 1, gradA, gradA)
}

// add makes a branch one of those that the launch takes.
func (args *branchArgs) add(l *backend.Linear, dh, a operand, drop dropping) {
	i := args.count
	args.dh[i], args.a[i], args.ldA[i] = dh.at, a.at, int32(a.ld)
	args.keep[i], args.limit[i] = drop.of(l)
	args.site[i], args.rank[i] = l.Site, int32(l.R())
	args.count++
}

// throughBranches writes, or adds, mask∘(dh A) of the branches in args to dx, and empties args.
func (be *Backend) throughBranches(dx *Buffer, args *branchArgs, ldDh int, drop dropping, written float32) float32 {
	args.drop, args.dx, args.ldDx, args.ldDh = drop.args, dx.at(0), int32(dx.ld), int32(ldDh)
	args.rows, args.cols, args.half, args.beta = int32(dx.rows), int32(dx.cols), flag(dx.half), written
	shared := uint32(3 * (64 + 64) * 64) // panels of tiles of 64 x 64 (tile.h)
	if !be.half {
		shared = f32Tiling.shared
	}
	launch(be, branchesKernel.of(be.half), grid3(blocks(dx.cols, 64), blocks(dx.rows, 64), 1, 256, shared), *args)
	args.count = 0
	return 1
}

// outputs is the number of columns that ls write.
func outputs(ls []*backend.Linear) (n int) {
	for _, l := range ls {
		n += l.Out
	}
	return n
}

func colsOf(b *Buffer) int {
	if b == nil {
		return 0
	}
	return b.cols
}

// orNil is b as an interface, which is nil where b is.
func orNil(b *Buffer) backend.Buffer {
	if b == nil {
		return nil
	}
	return b
}
