package cpu

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
)

const (
	logitBytes   = 32 << 20 // of a chunk's logits
	minChunkRows = 64       // below that, reading the head's weight costs more than its products
)

// chunkRows returns how many rows of logits with leading dimension ld are kept at a time.
func chunkRows(ld int) int { return max(minChunkRows, logitBytes/4/ld/rowBlock*rowBlock) }

// sum is a float64.
type sum float64

// NewSum makes an accumulator, 0.
func (be *Backend) NewSum() backend.Sum { return new(sum) }

// Read returns the sum.
func (s *sum) Read() float64 { return float64(*s) }

// Zero clears it.
func (s *sum) Zero() { *s = 0 }

// CrossEntropy computes the logits of x chunk by chunk, adds the targets' losses to s and, where dx is given,
// passes the losses' gradient back through the head.
func (be *Backend) CrossEntropy(s backend.Sum, dx, x backend.Buffer, head *backend.Linear, b *backend.Batch) {
	be.crossEntropy(s.(*sum), mat(dx), mat(x), head, b, chunkRows(leading(backend.Activation, head.Out)))
}

func (be *Backend) crossEntropy(s *sum, dx, x *Buffer, head *backend.Linear, b *backend.Batch, chunk int) {
	mustEqual("rows of the head's input", x.rows, len(b.Rows))
	t := &be.loss
	t.unit, t.backward = be.unit, dx != nil
	t.logits = be.logits
	t.group(b.Targets, len(b.Rows), head.Out)
	if dx != nil {
		mustEqual("columns of the head's dx", dx.cols, x.cols)
		dx.Resize(x.rows)
	}
	var h *Buffer
	if head.A != nil {
		h = be.headH
	}
	be.one = [1]*backend.Linear{head}
	for from := 0; from < x.rows; from += chunk {
		to := min(from+chunk, x.rows)
		rows := b.Rows[from:to]
		be.xRows.view(x, from, to)
		be.logits.shape(0, head.Out)
		if h != nil {
			h.shape(0, head.R())
		}
		be.linear(be.logits, h, &be.xRows, nil, be.one[:], b, rows) // [rows, d] x [d, V] -> [rows, V]
		t.first = from
		be.rows(to-from, t)
		if dx == nil {
			continue
		}
		be.dxRows.view(dx, from, to)
		be.linearBackward(&be.dxRows, &be.xRows, h, be.logits, be.one[:], b, rows)
	}
	for _, l := range t.losses {
		*s += sum(l)
	}
}

// lossTask turns rows of logits into losses and, if backward, into the gradient of their sum.
type lossTask struct {
	unit     *vec.Unit
	backward bool
	targets  []backend.Target
	losses   []float64 // of each target
	start    []int32   // of each row's targets in order
	order    []int32   // targets, row by row
	logits   *Buffer
	first    int // the row of the first logits
}

// group lists the targets of each row.
func (t *lossTask) group(targets []backend.Target, rows, vocab int) {
	t.targets = targets
	t.losses = grown(t.losses, len(targets))
	t.order = grown(t.order, len(targets))
	t.start = grown(t.start, rows+2)
	clear(t.start)
	for i, g := range targets {
		if g.Row < 0 || int(g.Row) >= rows {
			panic(fmt.Sprintf("cpu: target %d at row %d of %d", i, g.Row, rows))
		}
		if g.Label < 0 || int(g.Label) >= vocab {
			panic(fmt.Sprintf("cpu: target %d has label %d, the vocabulary has %d", i, g.Label, vocab))
		}
		t.start[g.Row+2]++
	}
	for i := 2; i < len(t.start); i++ {
		t.start[i] += t.start[i-1]
	}
	for i, g := range targets { // start[row+1] moves from the row's first target to past its last
		t.order[t.start[g.Row+1]] = int32(i)
		t.start[g.Row+1]++
	}
}

// grown returns a slice of n elements of any value, s's memory where it suffices.
func grown[E any](s []E, n int) []E {
	if cap(s) < n {
		return make([]E, n, n+n/4)
	}
	return s[:n]
}

func (t *lossTask) Piece(_, i int) {
	from, to := blockOf(i, t.logits.rows)
	for r := from; r < to; r++ {
		t.row(t.logits.row(r), t.order[t.start[t.first+r]:t.start[t.first+r+1]])
	}
}

// row does one row of logits with the targets it has: loss = count * (log(sum(e^z)) - z[label]) and its gradient
// (sum of counts) * softmax(z) - count at the label.
func (t *lossTask) row(z []float32, targets []int32) {
	top := t.unit.Max(z)
	var count float64
	for _, i := range targets { // before the logits are overwritten
		g := t.targets[i]
		t.losses[i] = float64(z[g.Label]) - float64(top)
		count += float64(g.Count)
	}
	total := t.unit.ExpSum(z, top)
	lse := math.Log(total) // of z - top
	for _, i := range targets {
		t.losses[i] = float64(t.targets[i].Count) * (lse - t.losses[i])
	}
	if !t.backward {
		return
	}
	t.unit.Scale(z, z, float32(count/total))
	for _, i := range targets {
		z[t.targets[i].Label] -= float32(t.targets[i].Count)
	}
}
