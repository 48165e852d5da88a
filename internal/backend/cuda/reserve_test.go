package cuda

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
)

// TestReserve: what operations keep on the card survives that their memory becomes larger between them.
func TestReserve(t *testing.T) {
	be := emulated(t, "f32")
	be.poison = true
	w := backendtest.NewWorld(be, false)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 6, Scale: 0.5}
	b := w.Batch(11, a.HeadDim, backend.Segment{Len: 9, Prefix: -1, Slot: -1})
	w.Labelled(b, 10)
	b.Changed()
	head := w.Linear(backendtest.Spec{In: 12, Out: 10, R: 2}, 1)
	e := &backend.Embedding{Vocab: 11, Dim: 12, Weight: w.Linear(backendtest.Spec{In: 12, Out: 11}, 2).Weight}
	qkv, x := w.Filled(backend.Activation, 9, a.QKVCols(), 1), w.Filled(backend.Activation, 9, 12, 1)
	ps := []backend.Param{head.A, head.B}
	look := func() (results []backendtest.Result) {
		y, lse := w.Buffer(backend.Activation, a.OutCols()), w.Buffer(backend.Stat, a.Heads)
		emb, dx, s := w.Buffer(backend.Residual, 12), w.Buffer(backend.Activation, 12), be.NewSum()
		be.ZeroGrad(ps)
		be.Attention(y, lse, qkv, a, b, nil)
		be.Embed(emb, e, b)
		be.CrossEntropy(s, dx, x, head, b)
		w.Results = []backendtest.Result{{Name: "sums", V: []float32{float32(s.Read()), float32(be.SumSquares(ps))}}}
		w.Look("attention", y)
		w.Look("embedding", emb)
		w.Look("dx", dx)
		return w.Results
	}
	want := look()
	be.Reserve(backend.Need{Rows: 500, Forward: 600, Selected: 400, Keys: 500, Head: head, Attention: a, Intermediate: 20, Param: 1 << 20,
		Linears: []*backend.Linear{head, head, head, head}})
	for i, got := range look() {
		wantBits(t, got.Name, got.V, want[i].V)
	}
}
