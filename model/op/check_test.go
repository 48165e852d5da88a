package op

import (
	"math"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/exec"
)

// world makes random things on the float64 backend.
type world struct {
	*rand.Rand
	be  *ref.Backend
	env *Env
}

func newWorld(seed uint64) *world {
	be := ref.New()
	return &world{rand.New(rand.NewPCG(seed, 1)), be, &Env{Backend: be, Sum: be.NewSum()}}
}

func (w *world) fill(v []float64, scale float64) {
	for i := range v {
		v[i] = scale * w.NormFloat64()
	}
}

func (w *world) value(kind backend.Kind, rows, cols int) *exec.Value {
	b := w.be.NewBuffer(kind, cols)
	b.Resize(rows)
	w.fill(b.(*ref.Matrix).V, 1)
	return &exec.Value{Bufs: []backend.Buffer{b}}
}

func (w *world) param(rows, cols int) backend.Param {
	p := w.be.NewParam(rows, cols)
	w.fill(p.(*ref.Param).V, 0.5)
	return p
}

func (w *world) vector(n int) backend.Vector {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1 + 0.3*float32(w.NormFloat64())
	}
	return w.be.NewVector(v)
}

// linear makes a frozen linear, with a branch of rank r if r > 0.
func (w *world) linear(in, out, r int, dropout float32) *backend.Linear {
	l := &backend.Linear{Name: "l", In: in, Out: out, Site: uint32(w.IntN(100)), Bias: w.vector(out), Dropout: dropout}
	l.Weight = &w.param(out, in).(*ref.Param).Matrix
	if r > 0 {
		l.A, l.B, l.Scale = w.param(r, in), w.param(out, r), 1.7
	}
	return l
}

// batch makes sequences of the given lengths; a negative one continues the segment before it.
func (w *world) batch(headDim int, lens ...int) *backend.Batch {
	b := &backend.Batch{}
	for i, n := range lens {
		prefix, first := int32(-1), int32(0)
		if n < 0 {
			n, prefix = -n, int32(i-1)
			s := b.Segments[i-1]
			first = b.Positions[s.Start+s.Len-1] + 1
		}
		b.Segments = append(b.Segments, backend.Segment{Start: int32(len(b.Tokens)), Len: int32(n), Prefix: prefix, Slot: -1})
		for j := range n {
			b.Tokens = append(b.Tokens, int32(w.IntN(7)))
			b.Positions = append(b.Positions, first+int32(j))
		}
	}
	for _, p := range b.Positions {
		for i := range headDim / 2 {
			s, c := math.Sincos(float64(p) * math.Pow(100, -2*float64(i)/float64(headDim)))
			b.Cos, b.Sin = append(b.Cos, float32(c)), append(b.Sin, float32(s))
		}
	}
	return b
}

// dropout switches dropout on for b.
func (w *world) dropout(b *backend.Batch) {
	b.Dropout = &backend.Dropout{Seed: 5, Samples: make([]uint32, len(b.Tokens))}
}

// rig is an operation between an input and the loss sum(c * y).
type rig struct {
	t      *testing.T
	vm     *exec.VM
	g      *gorgonia.ExprGraph
	y, dx  *gorgonia.Node
	ins    []*exec.Value
	dy     *exec.Value
	xs     gorgonia.Nodes
	dys    *gorgonia.Node
	params []backend.Param
}

// newRig differentiates build's operation with respect to its inputs, which it is given as nodes.
func newRig(t *testing.T, w *world, ins []*exec.Value, outRows, outCols int, params []backend.Param, build func(xs gorgonia.Nodes) (*gorgonia.Node, error)) *rig {
	t.Helper()
	r := &rig{t: t, g: gorgonia.NewGraph(), ins: ins, params: params}
	for _, v := range ins {
		r.xs = append(r.xs, exec.Input(r.g, "x", v.Main().Cols()))
	}
	var err error
	if r.y, err = build(r.xs); err != nil {
		t.Fatal(err)
	}
	r.dys = exec.Input(r.g, "dy", outCols)
	r.dy = w.value(backend.Residual, outRows, outCols)
	grads, err := exec.Backprop(r.y, r.dys, r.xs...)
	if err != nil {
		t.Fatal(err)
	}
	r.dx = grads[0]
	if r.vm, err = exec.Compile(w.be, r.g, exec.Plan{Outputs: gorgonia.Nodes{r.y}, Grads: grads, Split: r.dys}); err != nil {
		t.Fatal(err)
	}
	for i, x := range r.xs {
		if err := gorgonia.Let(x, ins[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := gorgonia.Let(r.dys, r.dy); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) zero() {
	for _, p := range r.params {
		clear(p.(*ref.Param).Grad)
	}
}

func (r *rig) run() {
	r.t.Helper()
	r.zero()
	if err := r.vm.RunAll(); err != nil {
		r.t.Fatal(err)
	}
}

func v(x *exec.Value) []float64 { return x.Main().(*ref.Matrix).V }

func (r *rig) loss() float64 {
	r.run()
	var s float64
	for i, y := range v(r.vm.Value(r.y)) {
		s += y * v(r.dy)[i]
	}
	return s
}

// check compares the gradients of all inputs (the first one's through dx) and parameters with central differences,
// and the executor with gorgonia's own tape machine.
func (r *rig) check() {
	r.t.Helper()
	r.run()
	dx := append([]float64(nil), v(r.vm.Value(r.dx))...)
	var grads [][]float64
	for _, p := range r.params {
		grads = append(grads, append([]float64(nil), p.(*ref.Param).Grad...))
	}
	r.tape(dx, grads)
	r.differences("dx", v(r.ins[0]), dx)
	for i, p := range r.params {
		r.differences("parameter", p.(*ref.Param).V, grads[i])
	}
}

func (r *rig) differences(name string, x, grad []float64) {
	r.t.Helper()
	const h = 1e-5
	var diff, norm float64
	for i := range x {
		old := x[i]
		x[i] = old + h
		up := r.loss()
		x[i] = old - h
		down := r.loss()
		x[i] = old
		want := (up - down) / (2 * h)
		diff += (grad[i] - want) * (grad[i] - want)
		norm += want * want
	}
	if norm == 0 || !(math.Sqrt(diff/norm) < 1e-7) {
		r.t.Errorf("%s: the gradient is off by %.2e of %.2e", name, math.Sqrt(diff), math.Sqrt(norm))
	}
}

// tape runs the same graph on gorgonia's machine.
func (r *rig) tape(dx []float64, grads [][]float64) {
	r.t.Helper()
	r.zero()
	m := gorgonia.NewTapeMachine(r.g)
	defer m.Close()
	if err := m.RunAll(); err != nil {
		r.t.Fatalf("tape machine: %v", err)
	}
	same := func(name string, a, b []float64) {
		for i := range a {
			if a[i] != b[i] {
				r.t.Errorf("%s: the tape machine has %v at %d, the executor %v", name, a[i], i, b[i])
				return
			}
		}
	}
	same("dx", v(r.dx.Value().(*exec.Value)), dx)
	for i, p := range r.params {
		same("parameter", p.(*ref.Param).Grad, grads[i])
	}
}

func params(ls ...*backend.Linear) (ps []backend.Param) {
	for _, l := range ls {
		if l.A != nil {
			ps = append(ps, l.A, l.B)
		}
		if l.Train != nil {
			ps = append(ps, l.Train)
		}
	}
	return ps
}
