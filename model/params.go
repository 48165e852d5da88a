package model

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/device"
)

// Param is a matrix that is trained: a value and a sum of gradients, float32, wherever the device keeps them.
type Param struct {
	name string
	p    backend.Param
	ps   *Params
}

// Name says which matrix it is, as PEFT's adapter files do without their prefix.
func (p *Param) Name() string { return p.name }

// Shape returns rows and columns.
func (p *Param) Shape() (rows, cols int) { return p.p.Shape() }

// Len is the number of elements.
func (p *Param) Len() int { r, c := p.p.Shape(); return r * c }

// Read copies the value, row-major, into dst of Len elements. Where a card is lost it is that of Params.KeptStep.
func (p *Param) Read(dst []float32) {
	if n := p.Len(); len(dst) != n {
		panic(fmt.Sprintf("%s: %d elements to read, want %d", p.name, len(dst), n))
	}
	p.read(dst, 0)
}

// ReadFrom copies the len(dst) values from element from on.
func (p *Param) ReadFrom(dst []float32, from int) { p.read(dst, from) }

// Write sets the value from src of Len elements.
func (p *Param) Write(src []float32) { p.write(func() { p.p.Write(src) }) }

// ReadGrad copies the sum of gradients into dst of Len elements.
func (p *Param) ReadGrad(dst []float32) { p.ps.try(func() { p.p.ReadGrad(dst) }) }

// WriteGrad sets the sum of gradients from src of Len elements, for what adds up several processes' sums.
func (p *Param) WriteGrad(src []float32) { p.ps.try(func() { p.p.WriteGrad(src) }) }

// Values returns a copy of the value.
func (p *Param) Values() []float32 {
	v := make([]float32, p.Len())
	p.Read(v)
	return v
}

// Params is everything that is trained in a model, in a fixed order.
type Params struct {
	be   backend.Backend
	list []*Param
	raw  []backend.Param

	card   device.Card // nil on the CPU
	err    error       // see Err
	copies int         // of the values that were begun on a card
	steps  [2]int      // of AdamW, after which the last two of them were; 0: of something else
}

// All returns the parameters in order. The slice is not to be changed.
func (ps *Params) All() []*Param { return ps.list }

// Count is the number of trained elements.
func (ps *Params) Count() (n int64) {
	for _, p := range ps.list {
		n += int64(p.Len())
	}
	return n
}

// Bytes is the memory of values, gradients and optimiser state.
func (ps *Params) Bytes() (n int64) {
	for _, p := range ps.raw {
		n += p.Bytes()
	}
	return n
}

// Zero clears the sums of gradients.
func (ps *Params) Zero() { ps.try(func() { ps.be.ZeroGrad(ps.raw) }) }

// Reset clears the sums of gradients and the optimiser's state: the next step is a first one.
func (ps *Params) Reset() {
	if !ps.lost() {
		ps.err = nil
	}
	ps.forgetCopies()
	ps.Zero()
	ps.try(func() {
		for _, p := range ps.raw {
			p.ClearMoments()
		}
	})
}

// Scale multiplies the sums of gradients by f.
func (ps *Params) Scale(f float64) { ps.try(func() { ps.be.ScaleGrad(ps.raw, f) }) }

// Norm is the global 2-norm of the gradients.
func (ps *Params) Norm() float64 {
	squares := math.NaN()
	ps.try(func() { squares = ps.be.SumSquares(ps.raw) })
	return math.Sqrt(squares)
}

// AdamW is one step of AdamW with decoupled weight decay (Loshchilov and Hutter 2019), as PyTorch computes it.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	Step                               int // from 1
}

// AdamW steps every parameter along its sum of gradients.
func (ps *Params) AdamW(o AdamW) {
	if ps.card == nil {
		ps.be.AdamW(ps.raw, backend.AdamW(o))
		return
	}
	ps.try(func() {
		ps.card.Overwrite()
		ps.be.AdamW(ps.raw, backend.AdamW(o))
		ps.keep(o.Step)
	})
}

// Snapshot is the values of all parameters at one moment.
type Snapshot struct{ values [][]float32 }

// Snapshot copies all values, into the memory of an earlier snapshot of the same parameters where that is given.
func (ps *Params) Snapshot(into *Snapshot) *Snapshot {
	if into == nil {
		into = &Snapshot{values: make([][]float32, len(ps.list))}
	}
	for i, p := range ps.list {
		into.values[i] = grow(into.values[i], p.Len())
		p.Read(into.values[i])
	}
	return into
}

// Restore sets all values to those of a snapshot of the same parameters.
func (ps *Params) Restore(s *Snapshot) {
	for i, p := range ps.list {
		p.Write(s.values[i])
	}
}

func (ps *Params) add(name string, p backend.Param) *Param {
	for _, q := range ps.list {
		if q.p == p {
			return q
		}
	}
	q := &Param{name, p, ps}
	ps.forgetCopies()
	ps.list = append(ps.list, q)
	ps.raw = append(ps.raw, p)
	return q
}
