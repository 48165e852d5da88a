package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/backend/ref"
)

// Frames in step compute what each does alone, each operation for all of them in their order before the next one, and
// hold the memory that is told.
func TestFramesTogether(t *testing.T) {
	c := newChain(t)
	be := ref.New()
	var fs []*Frame
	var outs []*Value
	for i := range 3 {
		f, in, out := c.vm.ApartFrame(), NewValue(be, []Spec{residual2}), NewValue(be, []Spec{residual2})
		in.Main().Resize(1 + i)
		for k := range values(in) {
			values(in)[k] = float64(10 * (1 + i))
		}
		f.Bind(c.x, in)
		f.Bind(c.y, out)
		f.Bind(c.dy, in)
		f.Bind(c.dx, out)
		fs, outs = append(fs, f), append(outs, out)
	}
	var turns []int
	turn := func(i int) error { turns = append(turns, i); return nil }
	check := func(pass string, err error) {
		t.Helper()
		for i, out := range outs {
			if got := values(out); err != nil || len(got) != 2*(1+i) || got[0] != float64(300*(1+i)) {
				t.Errorf("%s, frame %d: %v, %v", pass, i, got, err)
			}
		}
	}
	check("forward", c.vm.ForwardAll(fs, turn))
	if want := []int{0, 1, 2, 0, 1, 2, 0, 1, 2}; !slices.Equal(turns, want) {
		t.Errorf("turns %v, want %v", turns, want)
	}
	check("backward", c.vm.BackwardAll(fs, true, turn))
	effect := 0.0
	for i := 1.0; i <= 3; i++ {
		effect += 2 * i * (10 * i * 5) * (10 * i * 2)
	}
	if c.ops[1].effect != effect {
		t.Errorf("effect %v, want %v", c.ops[1].effect, effect)
	}
	for i, f := range fs {
		rows := Counts{1 + i, 1 + i}
		f.Reserve(rows)
		if got, want := f.Bytes(), c.vm.ApartBytes(rows); got != want || want <= c.vm.FrameBytes(rows) {
			t.Errorf("frame %d holds %d bytes, told are %d; without registers it would be %d", i, got, want, c.vm.FrameBytes(rows))
		}
	}
}

// The error of a turn ends the run as it is, before the operation.
func TestTurnEnds(t *testing.T) {
	c := newChain(t)
	f := c.frame()
	left := 2
	err := c.vm.ForwardAll([]*Frame{f}, func(int) error {
		if left--; left < 0 {
			return context.Canceled
		}
		return nil
	})
	if runs := fmt.Sprint(c.ops[0].runs, c.ops[1].runs, c.ops[2].runs); !errors.Is(err, context.Canceled) || runs != "1 1 0" {
		t.Errorf("%v after %s runs", err, runs)
	}
}
