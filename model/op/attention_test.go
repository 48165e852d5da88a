package op

import (
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/exec"
)

func TestAttention(t *testing.T) {
	for name, c := range map[string]struct {
		heads, kv, window int
		lens              []int
	}{
		"one head":     {1, 1, 0, []int{5}},
		"grouped":      {4, 2, 0, []int{3, 4}},
		"multi-query":  {3, 1, 0, []int{1, 4}},
		"window":       {2, 2, 2, []int{6}},
		"prefix":       {2, 1, 0, []int{3, -2}},
		"prefix chain": {2, 1, 3, []int{3, -2, -2, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(4)
			a := &backend.Attention{Heads: c.heads, KVHeads: c.kv, HeadDim: 4, Scale: 0.5, Window: c.window}
			w.env.Batch = w.batch(4, c.lens...)
			T := len(w.env.Batch.Tokens)
			newRig(t, w, []*exec.Value{w.value(backend.Activation, T, a.QKVCols())}, T, a.OutCols(), nil, func(xs gorgonia.Nodes) (*gorgonia.Node, error) {
				return apply(NewAttention(w.env, a, func() backend.Cache { return nil }), xs[0])
			}).check()
		})
	}
}

// A sequence gives the same whether it is one segment, a segment and its prefix, or read from the cache.
func TestAttentionForms(t *testing.T) {
	w := newWorld(5)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.5, Window: 4}
	whole := w.batch(4, 7)
	x := w.value(backend.Activation, 7, a.QKVCols()).Main()
	run := func(b *backend.Batch, x backend.Buffer, c backend.Cache) []float64 {
		y, lse := w.be.NewBuffer(backend.Activation, a.OutCols()), w.be.NewBuffer(backend.Stat, a.Heads)
		w.be.Attention(y, lse, x, a, b, c)
		return y.(*ref.Matrix).V
	}
	want := append([]float64(nil), run(whole, x, nil)...)
	near := func(name string, got, want []float64) {
		for i := range want {
			if math.Abs(got[i]-want[i]) > 1e-12 {
				t.Fatalf("%s: %v at %d, want %v", name, got[i], i, want[i])
			}
		}
	}
	near("prefix", run(w.batch(4, 3, -2, -2), x, nil), want)

	cache := w.be.NewCache(a)
	cols := a.QKVCols()
	for from, n := range map[int]int{0: 3} { // the first three rows fill the slot
		near("first rows", run(part(w, whole, x, from, n, 0), rows(w, x, cols, from, n), cache), want[:n*a.OutCols()])
	}
	for p := 3; p < 7; p++ {
		got := run(part(w, whole, x, p, 1, int32(p)), rows(w, x, cols, p, 1), cache)
		near("cached", got, want[p*a.OutCols():(p+1)*a.OutCols()])
	}
}

// part is rows from..from+n of a one-segment batch, continuing slot 0 after past positions.
func part(_ *world, b *backend.Batch, _ backend.Buffer, from, n int, past int32) *backend.Batch {
	half := len(b.Cos) / len(b.Tokens)
	return &backend.Batch{
		Tokens: b.Tokens[from : from+n], Positions: b.Positions[from : from+n],
		Cos: b.Cos[from*half : (from+n)*half], Sin: b.Sin[from*half : (from+n)*half],
		Segments: []backend.Segment{{Start: 0, Len: int32(n), Prefix: -1, Slot: 0, Past: past}},
	}
}

func rows(w *world, x backend.Buffer, cols, from, n int) backend.Buffer {
	r := w.be.NewBuffer(x.Kind(), cols)
	r.Resize(n)
	copy(r.(*ref.Matrix).V, x.(*ref.Matrix).V[from*cols:])
	return r
}
