package cuda

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

const (
	logitBytes   = 64 << 20 // of a chunk's logits, in f32
	minChunkRows = 256      // below that, reading the head's weight costs more than its products
)

// chunkRows returns how many rows of vocab logits are kept at a time.
func chunkRows(vocab int) int { return max(minChunkRows, logitBytes/4/leading(vocab)/128*128) }

// losses is what CrossEntropy works in.
type losses struct {
	logits, h     Buffer // of a chunk; the logits become their gradient
	gradient      Buffer // the logits' memory as that
	x, dx         Buffer // a chunk's rows
	shown, values memory // of each target: its logit, f32, and its loss, float64
	one           [1]*backend.Linear
}

func init() {
	add := func(m func(*losses) *memory, bytes func(n backend.Need) int64) {
		scratches = append(scratches, scratch{func(be *Backend) *memory { return m(&be.losses) },
			func(_ *Backend, n backend.Need) int64 { return bytes(n) }})
	}
	rows := func(n backend.Need) int64 { return int64(min(n.Selected, chunkRows(n.Head.Out))) }
	add(func(l *losses) *memory { return &l.logits.mem }, func(n backend.Need) int64 { return 4 * rows(n) * int64(leading(n.Head.Out)) })
	add(func(l *losses) *memory { return &l.h.mem }, func(n backend.Need) int64 { return 4 * rows(n) * int64(leading(n.Head.R())) })
	// As many targets as rows that have one: more come where samples share heads.
	add(func(l *losses) *memory { return &l.shown }, func(n backend.Need) int64 { return 4 * int64(n.Selected) })
	add(func(l *losses) *memory { return &l.values }, func(n backend.Need) int64 { return 8 * int64(n.Selected) })
}

var crossEntropyKernel = declare("cross_entropy")

type crossEntropyArgs struct {
	logits, starts, labels, counts, order, shown, losses driver.Ptr
	cols, ld, backward, half                             int32
}

// CrossEntropy computes the logits of x chunk by chunk, adds the targets' losses to s and, where dx is given, passes the
// losses' gradient back through the head. The losses are added in float64, in an order that only their number decides.
func (be *Backend) CrossEntropy(s backend.Sum, dx, x backend.Buffer, head *backend.Linear, b *backend.Batch) {
	defer be.enter()()
	be.crossEntropy(s.(*sum), mat(dx), mat(x), head, b, chunkRows(head.Out))
}

func (be *Backend) crossEntropy(s *sum, dx, x *Buffer, head *backend.Linear, b *backend.Batch, chunk int) {
	mustEqual("rows of the head's input", x.rows, len(b.Rows))
	checkTargets(b.Targets, len(b.Rows), head.Out)
	if dx != nil {
		mustEqual("columns of the head's dx", dx.cols, x.cols)
		dx.Resize(x.rows)
	}
	if x.rows == 0 || len(b.Targets) == 0 && dx == nil {
		return
	}
	l := &be.losses
	l.one[0] = head
	l.logits.shape(be, false, head.Out)
	var h *Buffer
	if head.A != nil {
		l.h.shape(be, false, head.R())
		h = &l.h
	}
	be.grow(&l.shown, 4*int64(len(b.Targets)))
	be.grow(&l.values, 8*int64(len(b.Targets)))
	drop := be.dropping(l.one[:], b)
	for from := 0; from < x.rows; from += chunk {
		to := min(from+chunk, x.rows)
		drop.args.selected = be.batch(b).selected + driver.Ptr(4*from)
		l.x.view(x, from, to)
		be.linear(&l.logits, h, &l.x, nil, l.one[:], drop) // [rows, d] x [d, V] -> [rows, V]
		be.lossRows(from, b, dx != nil)
		if dx == nil {
			continue
		}
		l.dx.view(dx, from, to)
		be.linearBackward(&l.dx, &l.x, h, l.gradientOf(be), l.one[:], drop)
	}
	l.x, l.dx, l.gradient, l.one[0] = Buffer{}, Buffer{}, Buffer{}, nil
	if n := len(b.Targets); n > 0 {
		be.addDoubles(s.slot, l.values.at, n, true)
	}
}

// lossRows makes of the logits of rows from... the losses of their targets, and the gradient.
func (be *Backend) lossRows(from int, b *backend.Batch, backward bool) {
	l, d := &be.losses, be.batch(b)
	starts := d.starts
	if starts == 0 { // no row has a target: all gradients are 0
		be.zero(l.logits.mem.at, 4*int64(l.logits.rows)*int64(l.logits.ld))
		return
	}
	launch(be, crossEntropyKernel, grid(l.logits.rows, min(512, copyThreads(l.logits.cols)*2), 0), crossEntropyArgs{l.logits.mem.at,
		starts + driver.Ptr(4*from), d.labels, d.counts, d.losses, l.shown.at, l.values.at,
		int32(l.logits.cols), int32(l.logits.ld), flag(backward), flag(be.half)})
}

// gradientOf is the gradient that has taken the logits' place.
func (l *losses) gradientOf(be *Backend) *Buffer {
	l.gradient = l.logits
	if be.half {
		l.gradient.half, l.gradient.ld = true, 2*l.logits.ld
	}
	return &l.gradient
}

func checkTargets(targets []backend.Target, rows, vocab int) {
	for i, g := range targets {
		if g.Row < 0 || int(g.Row) >= rows {
			panic(fmt.Sprintf("cuda: target %d at row %d of %d", i, g.Row, rows))
		}
		if g.Label < 0 || int(g.Label) >= vocab {
			panic(fmt.Sprintf("cuda: target %d has label %d, the vocabulary has %d", i, g.Label, vocab))
		}
	}
}

// shape makes scratch a matrix without rows, of so many columns.
func (b *Buffer) shape(be *Backend, half bool, cols int) {
	*b = Buffer{be: be, half: half, cols: cols, ld: leading(cols), mem: b.mem}
}

// view makes b rows from..to-1 of x.
func (b *Buffer) view(x *Buffer, from, to int) {
	at := int64(from) * int64(x.ld) * elementBytes(x.half)
	*b = *x
	b.rows = to - from
	b.mem.at += driver.Ptr(at)
	b.mem.bytes -= at
}
