package exec

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
)

// scale is y = f*x with a count of its runs; its derivative leaves an effect where trains is set.
type scale struct {
	Base
	f      float64
	trains bool
	runs   int
	effect float64
	fail   error
	panics bool
}

var residual2 = Spec{backend.Residual, 2}

func newScale(be backend.Backend, name string, f float64) *scale {
	return &scale{Base: NewBase(be, name, 1, residual2, Spec{backend.Stat, 1}), f: f}
}

func values(v *Value) []float64 { return v.Main().(*ref.Matrix).V }

func (o *scale) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return Do(o, in) }
func (o *scale) Trains() bool                                    { return o.trains }
func (o *scale) DiffWRT(n int) []bool                            { return []bool{true} }

func (o *scale) Run(out *Value, in []*Value) error {
	if o.panics {
		panic("boom")
	}
	o.runs++
	out.Main().Resize(in[0].Main().Rows())
	for i, x := range values(in[0]) {
		values(out)[i] = o.f * x
	}
	return o.fail
}

func (o *scale) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	n, err := gorgonia.ApplyOp(&scaleBack{Base: NewBase(o.be, o.name+" backward", 2, residual2), o: o}, grad, in[0])
	return gorgonia.Nodes{n}, err
}

// SymDiffAdd makes scale an Adder.
func (o *scale) SymDiffAdd(in gorgonia.Nodes, out, grad, add *gorgonia.Node) (*gorgonia.Node, error) {
	return gorgonia.ApplyOp(&scaleBack{Base: NewBase(o.be, o.name+" backward", 3, residual2), o: o}, grad, in[0], add)
}

type scaleBack struct {
	Base
	o    *scale
	runs int
}

func (b *scaleBack) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return Do(b, in) }
func (b *scaleBack) Effects() bool                                   { return b.o.trains }
func (b *scaleBack) OutputOptional() bool                            { return true }
func (b *scaleBack) Reads(_, buf int) bool                           { return buf == 0 }

func (b *scaleBack) Run(out *Value, in []*Value) error {
	b.runs++
	for i, g := range values(in[0]) {
		b.o.effect += g * values(in[1])[i]
	}
	if out.Main() == nil {
		return nil
	}
	out.Main().Resize(in[0].Main().Rows())
	for i, g := range values(in[0]) {
		values(out)[i] = b.o.f * g
		if len(in) == 3 {
			values(out)[i] += values(in[2])[i]
		}
	}
	return nil
}

// chain is x -> 2x -> 6x -> 30x, the middle one training.
type chain struct {
	ops     [3]*scale
	x, y    *gorgonia.Node
	dy, dx  *gorgonia.Node
	vm      *VM
	in, out *Value
}

func newChain(t *testing.T) *chain {
	t.Helper()
	be := ref.New()
	g := gorgonia.NewGraph()
	c := &chain{x: Input(g, "x", 2), dy: Input(g, "dy", 2)}
	n := c.x
	for i, f := range []float64{2, 3, 5} {
		c.ops[i] = newScale(be, []string{"a", "b", "c"}[i], f)
		n = gorgonia.Must(gorgonia.ApplyOp(c.ops[i], n))
	}
	c.ops[1].trains = true
	c.y = n
	grads, err := Backprop(c.y, c.dy, c.x)
	if err != nil {
		t.Fatal(err)
	}
	c.dx = grads[0]
	if c.vm, err = Compile(be, g, Plan{Outputs: gorgonia.Nodes{c.y}, Grads: grads, Split: c.dy}); err != nil {
		t.Fatal(err)
	}
	c.in, c.out = NewValue(be, []Spec{residual2}), NewValue(be, []Spec{residual2})
	c.set(1, 10)
	return c
}

func (c *chain) set(rows int, v float64) {
	c.in.Main().Resize(rows)
	for i := range values(c.in) {
		values(c.in)[i] = v
	}
}

func (c *chain) frame() *Frame {
	f := c.vm.NewFrame()
	f.Bind(c.x, c.in)
	f.Bind(c.y, c.out)
	f.Bind(c.dy, c.in)
	f.Bind(c.dx, c.out)
	return f
}

func TestForwardBackward(t *testing.T) {
	c := newChain(t)
	f := c.frame()
	for _, rows := range []int{1, 3, 2} {
		c.set(rows, 10)
		if err := c.vm.Forward(f); err != nil {
			t.Fatal(err)
		}
		if got := values(c.out); len(got) != 2*rows || got[0] != 300 {
			t.Fatalf("%d rows: y = %v", rows, got)
		}
		c.ops[1].effect = 0
		if err := c.vm.Backward(f, true); err != nil {
			t.Fatal(err)
		}
		if got := values(c.out)[0]; got != 300 {
			t.Errorf("dx = %v", got)
		}
		if want := float64(2*rows) * 50 * 20; c.ops[1].effect != want { // dy*5 times the input 2*10
			t.Errorf("effect %v, want %v", c.ops[1].effect, want)
		}
	}
}

// Without Grads only what leads to the training operation runs, and recomputing does not run what nobody reads.
func TestPruning(t *testing.T) {
	c := newChain(t)
	f := c.frame()
	if err := c.vm.Recompute(f); err != nil {
		t.Fatal(err)
	}
	if err := c.vm.Backward(f, false); err != nil {
		t.Fatal(err)
	}
	// The backward pass reads x (of a's and of b's input) and 6x (c's input); c itself need not run again.
	if c.ops[0].runs != 1 || c.ops[1].runs != 1 || c.ops[2].runs != 0 {
		t.Errorf("recomputed a %d, b %d, c %d times", c.ops[0].runs, c.ops[1].runs, c.ops[2].runs)
	}
	if c.ops[0].effect != 0 {
		t.Error("the operation below the lowest that trains was differentiated")
	}
	if c.ops[1].effect == 0 {
		t.Error("the training operation was not reached")
	}
}

func TestFaultsNameTheOperation(t *testing.T) {
	c := newChain(t)
	f := c.frame()
	cause := errors.New("cause")
	c.ops[1].fail = cause
	if err := c.vm.Forward(f); !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "b: ") {
		t.Errorf("error %v", err)
	}
	c.ops[1].fail, c.ops[2].panics = nil, true
	if err := c.vm.Forward(f); err == nil || err.Error() != "c: boom" {
		t.Errorf("error %v", err)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	c := newChain(t)
	f := c.frame()
	if n := testing.AllocsPerRun(20, func() {
		if c.vm.Forward(f) != nil || c.vm.Backward(f, true) != nil {
			t.Fatal("it fails")
		}
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

// Buffers that die within a pass share registers; those that the backward pass reads do not.
func TestRegisters(t *testing.T) {
	c := newChain(t)
	if n := len(c.vm.kept); n != 2 { // 2x and 6x; 30x is bound
		t.Errorf("%d buffers are kept", n)
	}
	f, g := c.vm.NewFrame(), c.vm.NewFrame()
	if f.kept[0] == g.kept[0] {
		t.Error("frames share what they keep")
	}
}

// x has two consumers: gradients meet, and the second one adds.
func TestGradientsMeet(t *testing.T) {
	be := ref.New()
	g := gorgonia.NewGraph()
	x, dy := Input(g, "x", 2), Input(g, "dy", 2)
	a := gorgonia.Must(gorgonia.ApplyOp(newScale(be, "a", 2), x))
	y := gorgonia.Must(gorgonia.ApplyOp(&sum2{NewBase(be, "sum", 2, residual2)}, a, x))
	grads, err := Backprop(y, dy, x)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := Compile(be, g, Plan{Outputs: gorgonia.Nodes{y}, Grads: grads, Split: dy})
	if err != nil {
		t.Fatal(err)
	}
	v := NewValue(be, []Spec{residual2})
	v.Main().Resize(1)
	copy(values(v), []float64{1, 1})
	if err := errors.Join(gorgonia.Let(x, v), gorgonia.Let(dy, v), vm.RunAll()); err != nil {
		t.Fatal(err)
	}
	if got := values(vm.Value(grads[0]))[0]; got != 3 {
		t.Errorf("dx = %v, want 2 + 1", got)
	}
}

type sum2 struct{ Base }

func (o *sum2) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return Do(o, in) }
func (o *sum2) DiffWRT(int) []bool                              { return []bool{true, true} }
func (o *sum2) Run(out *Value, in []*Value) error {
	out.Main().Resize(in[0].Main().Rows())
	for i := range values(out) {
		values(out)[i] = values(in[0])[i] + values(in[1])[i]
	}
	return nil
}

func (o *sum2) SymDiff(_ gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	return gorgonia.Nodes{grad, grad}, nil
}

func TestHashesAreUnique(t *testing.T) {
	be := ref.New()
	g := gorgonia.NewGraph()
	x := Input(g, "x", 2)
	a := gorgonia.Must(gorgonia.ApplyOp(newScale(be, "same", 2), x))
	b := gorgonia.Must(gorgonia.ApplyOp(newScale(be, "same", 2), x))
	if a == b {
		t.Error("two operations of one name and input were merged")
	}
}

func TestValueIsSafeToPrint(t *testing.T) {
	v := NewValue(ref.New(), []Spec{residual2})
	v.Main().Resize(3)
	if s := fmt.Sprintf("%v", v); s != "matrix [3, 2]" {
		t.Errorf("printed %q", s)
	}
}
