package exec

import "github.com/biolora/biolora/internal/backend"

// Rows says which rows of the batch a matrix has.
type Rows uint8

const (
	All      Rows = iota // a row for each of the batch
	Selected             // one for each that has a target
)

// Selector is an operation whose output has other rows than its first input.
type Selector interface {
	Selects() Rows
}

// rowsOf says which rows the output of op has.
func (vm *VM) rowsOf(op Op, src []int) Rows {
	if s, ok := op.(Selector); ok {
		return s.Selects()
	}
	if len(src) == 0 {
		return All
	}
	return vm.rows[src[0]]
}

// Counts are the rows of a batch: of all, and of those that have a target.
type Counts struct{ All, Selected int }

func (c Counts) of(r Rows) int {
	if r == Selected {
		return c.Selected
	}
	return c.All
}

// Arena is memory for registers that VMs share of which never two run at the same time, nor one inside another: the
// blocks of a decoder, whether they train or evaluate.
type Arena struct {
	be   backend.Backend
	bufs map[Spec][]backend.Buffer
	rows map[Spec][]Rows // of each of bufs
	last *VM             // that ran
}

// NewArena makes an empty arena.
func NewArena(be backend.Backend) *Arena {
	return &Arena{be: be, bufs: map[Spec][]backend.Buffer{}, rows: map[Spec][]Rows{}}
}

// place is a buffer of an arena: the index-th of its kind, and the most rows that it is used for.
type place struct {
	Spec
	index int
	rows  Rows
}

// countOf is how many of the places have the spec.
func countOf(ps []place, s Spec) (n int) {
	for _, p := range ps {
		if p.Spec == s {
			n++
		}
	}
	return n
}

// hold makes the buffers of places, without memory yet.
func (a *Arena) hold(ps []place) {
	for _, p := range ps {
		for len(a.bufs[p.Spec]) <= p.index {
			a.bufs[p.Spec] = append(a.bufs[p.Spec], a.be.NewBuffer(p.Kind, p.Cols))
			a.rows[p.Spec] = append(a.rows[p.Spec], Selected)
		}
		a.rows[p.Spec][p.index] = min(a.rows[p.Spec][p.index], p.rows)
	}
}

func (a *Arena) buffer(p place) backend.Buffer { return a.bufs[p.Spec][p.index] }

// Bytes is the memory that the arena has.
func (a *Arena) Bytes() (n int64) {
	for _, bs := range a.bufs {
		for _, b := range bs {
			n += b.Bytes()
		}
	}
	return n
}

// BytesFor is what Bytes will be after runs on so many rows.
func (a *Arena) BytesFor(rows Counts) (n int64) {
	for s, bs := range a.bufs {
		for i := range bs {
			n += a.be.BufferBytes(s.Kind, s.Cols, rows.of(a.rows[s][i]))
		}
	}
	return n
}

// Reserve makes the memory large enough for so many rows.
func (a *Arena) Reserve(rows Counts) {
	for s, bs := range a.bufs {
		for i, b := range bs {
			b.Resize(rows.of(a.rows[s][i]))
		}
	}
}
