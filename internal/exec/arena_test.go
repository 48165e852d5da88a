package exec

import (
	"errors"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
)

// cheap is scale whose matrix is computed again rather than kept.
type cheap struct {
	*scale
	agains int
}

func (o *cheap) Again(out *Value, in []*Value) error {
	o.agains++
	return o.scale.Run(out, in)
}
func (o *cheap) AgainReads(in, buf int) bool                     { return in == 0 && buf == 0 }
func (o *cheap) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return Do(o, in) }

// cheapChain is x -> a: 2x -> b: 6x (cheap) -> c: 30x, where c trains and so reads 6x.
func cheapChain(t *testing.T, arena *Arena) (c *chain, b *cheap) {
	t.Helper()
	be := ref.New()
	g := gorgonia.NewGraph()
	c = &chain{x: Input(g, "x", 2), dy: Input(g, "dy", 2)}
	c.ops = [3]*scale{newScale(be, "a", 2), newScale(be, "b", 3), newScale(be, "c", 5)}
	c.ops[2].trains = true
	b = &cheap{scale: c.ops[1]}
	n := gorgonia.Must(gorgonia.ApplyOp(c.ops[0], c.x))
	n = gorgonia.Must(gorgonia.ApplyOp(b, n))
	c.y = gorgonia.Must(gorgonia.ApplyOp(c.ops[2], n))
	grads, err := Backprop(c.y, c.dy, c.x)
	if err != nil {
		t.Fatal(err)
	}
	c.dx = grads[0]
	if c.vm, err = Compile(be, g, Plan{Outputs: gorgonia.Nodes{c.y}, Grads: grads, Split: c.dy, Arena: arena}); err != nil {
		t.Fatal(err)
	}
	c.in, c.out = NewValue(be, []Spec{residual2}), NewValue(be, []Spec{residual2})
	c.set(3, 10)
	return c, b
}

// What a cheap operation gave is not kept but computed again, once in each backward pass, and only where it is read.
func TestCheap(t *testing.T) {
	c, b := cheapChain(t, nil)
	if n := len(c.vm.kept); n != 1 { // 2x; neither 6x nor what scale leaves beside it
		t.Errorf("%d buffers are kept", n)
	}
	f := c.frame()
	for range 2 {
		b.agains, c.ops[2].effect = 0, 0
		if err := errors.Join(c.vm.Forward(f), c.vm.Backward(f, true)); err != nil {
			t.Fatal(err)
		}
		if want := 6.0 * 10 * 60; c.ops[2].effect != want || values(c.out)[0] != 300 {
			t.Errorf("effect %v, want %v; dx %v", c.ops[2].effect, want, values(c.out)[0])
		}
		if b.agains != 1 {
			t.Errorf("computed again %d times", b.agains)
		}
	}
	b.agains, b.runs, c.ops[2].effect = 0, 0, 0
	if err := errors.Join(c.vm.Recompute(f), c.vm.Backward(f, false)); err != nil {
		t.Fatal(err)
	}
	if c.ops[2].effect != 6.0*10*60 || b.agains != 1 || b.runs != 1 {
		t.Errorf("after recomputing: effect %v, %d runs, %d of them again", c.ops[2].effect, b.runs, b.agains)
	}
}

// VMs of one arena have the same memory; a shared frame knows when another VM has run.
func TestArena(t *testing.T) {
	arena := NewArena(ref.New())
	c, _ := cheapChain(t, arena)
	d, _ := cheapChain(t, arena)
	alone, _ := cheapChain(t, NewArena(ref.New()))
	rows := Counts{All: 3, Selected: 1}
	if got, want := arena.BytesFor(rows), alone.vm.arena.BytesFor(rows); got != want || got == 0 {
		t.Errorf("two VMs take %d bytes, one %d", got, want)
	}
	bind := func(c *chain, f *Frame) *Frame {
		f.Bind(c.x, c.in)
		f.Bind(c.y, c.out)
		f.Bind(c.dy, c.in)
		f.Bind(c.dx, c.out)
		return f
	}
	f, g := bind(c, c.vm.SharedFrame()), bind(d, d.vm.SharedFrame())
	kept := c.vm.kept[0].slot
	if f.Bytes() != 0 || c.vm.SharedFrame().vals[kept].Bufs[0] != f.vals[kept].Bufs[0] {
		t.Error("a shared frame has memory of its own")
	}
	want := arena.BytesFor(rows)
	if want <= alone.vm.arena.BytesFor(rows) {
		t.Error("a shared frame takes no memory")
	}
	arena.Reserve(rows)
	if arena.Bytes() != want {
		t.Errorf("%d bytes are reserved, want %d", arena.Bytes(), want)
	}
	if err := c.vm.Forward(f); err != nil || !c.vm.Undisturbed() {
		t.Errorf("%v, or disturbed by itself", err)
	}
	if err := errors.Join(d.vm.Forward(g), d.vm.Backward(g, true)); err != nil || c.vm.Undisturbed() || !d.vm.Undisturbed() {
		t.Errorf("%v, or not disturbed by another VM", err)
	}
	if err := errors.Join(c.vm.Recompute(f), c.vm.Backward(f, true)); err != nil {
		t.Fatal(err)
	}
	if got := values(c.out)[0]; got != 300 || c.ops[2].effect != 6*10*60 {
		t.Errorf("dx %v, effect %v in shared memory", got, c.ops[2].effect)
	}
	if arena.Bytes() != want {
		t.Errorf("%d bytes after the runs, want %d", arena.Bytes(), want)
	}
}

// choose is an operation whose output has the selected rows.
type choose struct{ Base }

func (o *choose) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return Do(o, in) }
func (o *choose) Selects() Rows                                   { return Selected }
func (o *choose) Run(out *Value, _ []*Value) error                { out.Main().Resize(1); return nil }

// A register is as large as the most rows that it is used for.
func TestSelectedRows(t *testing.T) {
	be := ref.New()
	g := gorgonia.NewGraph()
	wide := Spec{backend.Residual, 4}
	n := Input(g, "x", 2)
	n = gorgonia.Must(gorgonia.ApplyOp(newScale(be, "a", 2), n))                                // all rows of 2 columns, and a Stat
	n = gorgonia.Must(gorgonia.ApplyOp(&choose{NewBase(be, "choose", 1, wide)}, n))             // selected rows of 4
	n = gorgonia.Must(gorgonia.ApplyOp(newScale(be, "b", 2), n))                                // selected rows of 2: a's register
	n = gorgonia.Must(gorgonia.ApplyOp(&choose{NewBase(be, "last", 1, Spec{wide.Kind, 5})}, n)) // selected rows of 5
	vm, err := Compile(be, g, Plan{Outputs: gorgonia.Nodes{n}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := vm.arena.BytesFor(Counts{All: 100, Selected: 10}), int64(8*(100*2+100*1+10*4)); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}

func TestGuarded(t *testing.T) {
	o := newScale(ref.New(), "a", 2)
	v := NewValue(ref.New(), []Spec{residual2})
	if err := Guarded(o, v, []*Value{v}); err != nil {
		t.Error(err)
	}
	o.panics = true
	if err := Guarded(o, v, []*Value{v}); err == nil || err.Error() != "a: boom" {
		t.Errorf("error %v", err)
	}
}
