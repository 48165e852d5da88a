package model

import (
	"context"
	"time"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
	"github.com/biolora/biolora/model/op"
)

// Speed is how long the parts of a step take on this machine, in seconds.
type Speed struct {
	Forward  float64 // of a layer, for each row
	Again    float64 // of a layer that computes again what it did not keep, for each row
	Backward float64 // of a layer, for each row
	Head     float64 // of the head and the loss, for each row with a target
	Step     float64 // of the optimiser
}

// Sizes of a calibration.
const (
	leastRows      = 256      // enough for products at their full speed
	measuredWork   = 52 << 30 // multiplications of a layer's products: those of 256 rows at the width of 7B
	measuredHead   = 64
	measuredParams = 1 << 20
)

// Calibrate measures the last layer that is trained, the head and the optimiser on a batch of that many rows, in
// sequences of that length, with the model's own weights: fewer rows where that took more than about a second. Nothing that is learnt changes but the
// sums of gradients, which are zero afterwards.
func (m *Model) Calibrate(ctx context.Context, rows, length int) (s Speed, err error) {
	defer m.noted(&err)
	var b Batch
	layer := m.measuredLayer()
	var work int64
	for _, l := range layer.Linears() {
		work += int64(l.In) * int64(l.Out)
	}
	rows = max(1, min(rows, max(leastRows, int(min(measuredWork/work, 1<<20)))))
	for len(b.Tokens) < rows {
		b.Append(make([]int32, min(max(1, length), rows-len(b.Tokens))))
	}
	for i := range min(rows, measuredHead) {
		b.Targets = append(b.Targets, Target{Row: int32(i), Count: 1})
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	var p prepared
	if err := m.prepare(&p, &b); err != nil {
		return s, err
	}
	env := &op.Env{Backend: m.be, Batch: &p.batch, Sum: m.be.NewSum(), Blocks: exec.NewArena(m.be)}
	defer m.params.Zero()
	t, err := op.Measure(env, m.dims, layer)
	if err != nil {
		return s, err
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	head, err := op.MeasureLoss(env, m.head)
	if err != nil {
		return s, err
	}
	each := func(d time.Duration, n int) float64 { return d.Seconds() / float64(n) }
	return Speed{Forward: each(t.Forward, rows), Again: each(t.Again, rows), Backward: each(t.Backward, rows),
		Head: each(head, len(b.Targets)), Step: m.measureStep()}, m.intact(nil)
}

// measuredLayer is the last one that has something trained; the last where none has.
func (m *Model) measuredLayer() *op.Layer {
	last := m.layers[len(m.layers)-1]
	for _, l := range m.layers {
		if op.ClassOf(l).Trains() {
			last = l
		}
	}
	return last
}

// measureStep is the time that a step of the optimiser takes, by that of a matrix of its own.
func (m *Model) measureStep() float64 {
	ps := []backend.Param{m.be.NewParam(1, measuredParams)}
	var began time.Time
	for range 2 { // the first time makes the moments
		began = time.Now()
		m.be.ZeroGrad(ps)
		m.be.SumSquares(ps)
		m.be.ScaleGrad(ps, 1)
		m.be.AdamW(ps, backend.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1})
	}
	return time.Since(began).Seconds() / measuredParams * float64(m.params.Count())
}

// Seconds is how long a micro-batch of so many rows takes, so many of them with a target, on a decoder of as many
// layers as the plan is of: the steps of the optimiser apart.
func (s Speed) Seconds(p Memory, layers int, rows, selected float64) float64 {
	again := max(0, p.Layers-p.Kept-1) // the last of them is still there
	return rows*(float64(layers)*s.Forward+float64(p.Layers)*s.Backward+float64(again)*s.Again) + selected*s.Head
}
