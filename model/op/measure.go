package op

import (
	"fmt"
	"time"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// Times is how long the passes of a block take.
type Times struct{ Forward, Again, Backward time.Duration }

// Measure runs a layer on the batch of env: forward, once more what its backward pass reads,
// and backward. Gradients are added to what trains in it. Its weights have been touched before the clock starts.
func Measure(env *Env, d Dims, l *Layer) (t Times, err error) {
	g, err := NewBlockGraph(env, d, []*Layer{l}, true)
	if err != nil {
		return t, err
	}
	o := NewBlock(g, l, 1)
	matrix := func(scale float32) *exec.Value {
		v := exec.NewValue(env.Backend, []exec.Spec{residual(d.Hidden)})
		rows := len(env.Batch.Tokens)
		v.Main().Resize(rows)
		v.Main().Write(noise(rows*d.Hidden, scale))
		return v
	}
	x, y, dy, dx := matrix(1), matrix(1), matrix(1e-3), matrix(1)
	f, err := o.frame(x)
	if err != nil {
		return t, err
	}
	f.Bind(g.y, y)
	f.Bind(g.dy, dy)
	f.Bind(g.dx, dx)
	for _, pass := range []struct {
		took *time.Duration
		run  func() error
	}{
		{&t.Forward, func() error { return g.vm.Forward(f) }}, // first for the pages of weights and buffers
		{&t.Backward, func() error { return g.vm.Backward(f, true) }},
		{&t.Forward, func() error { return g.vm.Forward(f) }},
		{&t.Again, func() error { return g.vm.Recompute(f) }},
		{&t.Backward, func() error { return g.vm.Backward(f, true) }},
	} {
		began := time.Now()
		if err := pass.run(); err != nil {
			return t, fmt.Errorf("measuring layer %d: %w", l.Index, err)
		}
		*pass.took = time.Since(began)
	}
	return t, nil
}

// noise is n numbers of no meaning between -scale and scale.
func noise(n int, scale float32) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = scale * (float32(uint32(i)*2654435761>>8)/(1<<23) - 1)
	}
	return v
}

// MeasureLoss runs the head and the loss on rows of env's batch, forward and backward, twice, and returns how long the
// second time took.
func MeasureLoss(env *Env, head *backend.Linear) (took time.Duration, err error) {
	x := exec.NewValue(env.Backend, []exec.Spec{act(head.In)})
	x.Main().Resize(len(env.Batch.Rows))
	x.Main().Write(noise(len(env.Batch.Rows)*head.In, 1))
	o := NewCrossEntropy(env, head.In, true, head)
	out := exec.NewValue(env.Backend, o.Outputs())
	for range 2 {
		began := time.Now()
		if err := exec.Guarded(o, out, []*exec.Value{x}); err != nil {
			return 0, fmt.Errorf("measuring the head: %w", err)
		}
		took = time.Since(began)
	}
	return took, nil
}
