package cpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/numeric"
)

// These tests look at one sequence in different batches.

func read(b backend.Buffer) []float32 {
	v := make([]float32, b.Rows()*b.Cols())
	b.Read(v)
	return v
}

func filledWith(be *Backend, k backend.Kind, cols int, v []float32) backend.Buffer {
	b := be.NewBuffer(k, cols)
	b.Resize(len(v) / cols)
	b.Write(v)
	return b
}

func wantSame(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if !backendtest.SameBits(got, want) {
		t.Errorf("%s: not the same bits, the distance is %.2g", what, backendtest.Distance(got, want))
	}
}

func wantClose(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if d := backendtest.Distance(got, want); d > 2e-6 {
		t.Errorf("%s: distance %.2g", what, d)
	}
}

// TestRowsAlone: a row's results do not depend on the other rows.
func TestRowsAlone(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 2)
			w := newWorld(be, false)
			const n, in, out = 131, 75, 90
			ls := []*backend.Linear{w.Linear(backendtest.Spec{In: in, Out: out, R: 4, Bias: true}, 1)}
			all := w.Rows(n)
			all.Dropout = nil
			x, dy := w.Values(n*in, 1), w.Values(n*out, 1)
			forward := func(from, to int) (y, dx []float32) {
				bx, bdy := filledWith(be, activation, in, x[from*in:to*in]), filledWith(be, activation, out, dy[from*out:to*out])
				by, bdx, h := be.NewBuffer(activation, out), be.NewBuffer(activation, in), be.NewBuffer(stat, 4)
				be.Linear(by, h, bx, nil, ls, all)
				be.LinearBackward(bdx, bx, h, bdy, ls, all)
				return read(by), read(bdx)
			}
			y, dx := forward(0, n)
			for _, r := range [][2]int{{0, 1}, {5, 12}, {100, 131}, {1, 65}} {
				gotY, gotX := forward(r[0], r[1])
				wantSame(t, fmt.Sprint("y of rows ", r), gotY, y[r[0]*out:r[1]*out])
				wantSame(t, fmt.Sprint("dx of rows ", r), gotX, dx[r[0]*in:r[1]*in])
			}
		})
	}
}

// TestSegmentsAlone: attention over a sequence does not depend on the other sequences of the batch.
func TestSegmentsAlone(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 2)
			w := newWorld(be, false)
			a := &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 16, Scale: 0.25}
			lengths := []int{3, 90, 1, 40}
			var together []backend.Segment
			n := 0
			for _, l := range lengths {
				together = append(together, backend.Segment{Start: int32(n), Len: int32(l), Prefix: -1, Slot: -1})
				n += l
			}
			qkv, dy := w.Values(n*a.QKVCols(), 1), w.Values(n*a.OutCols(), 1)
			y, d := attend(be, a, w.Batch(0, a.HeadDim, together...), qkv, dy)
			at := 0
			for i, l := range lengths {
				alone := w.Batch(0, a.HeadDim, backend.Segment{Len: int32(l), Prefix: -1, Slot: -1})
				gotY, gotD := attend(be, a, alone, qkv[at*a.QKVCols():(at+l)*a.QKVCols()], dy[at*a.OutCols():(at+l)*a.OutCols()])
				wantSame(t, fmt.Sprint("y of segment ", i), gotY, y[at*a.OutCols():(at+l)*a.OutCols()])
				wantSame(t, fmt.Sprint("dqkv of segment ", i), gotD, d[at*a.QKVCols():(at+l)*a.QKVCols()])
				at += l
			}
		})
	}
}

func attend(be *Backend, a *backend.Attention, b *backend.Batch, qkv, dy []float32) (y, d []float32) {
	in, grad := filledWith(be, activation, a.QKVCols(), qkv), filledWith(be, activation, a.OutCols(), dy)
	out, lse, dqkv := be.NewBuffer(activation, a.OutCols()), be.NewBuffer(stat, a.Heads), be.NewBuffer(activation, a.QKVCols())
	be.Attention(out, lse, in, a, b, nil)
	be.AttentionBackward(dqkv, in, lse, grad, a, b)
	return read(out), read(dqkv)
}

// TestPrefix: a sequence cut into a chain of segments is the same sequence.
func TestPrefix(t *testing.T) {
	for _, window := range []int{0, 20} {
		be := paths()[len(paths())-1].open(t, 2)
		w := newWorld(be, false)
		a := &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 16, Scale: 0.25, Window: window}
		const n = 150
		qkv, dy := w.Values(n*a.QKVCols(), 1), w.Values(n*a.OutCols(), 1)
		y, d := attend(be, a, w.Batch(0, a.HeadDim, backend.Segment{Len: n, Prefix: -1, Slot: -1}), qkv, dy)
		chain := w.Batch(0, a.HeadDim,
			backend.Segment{Len: 70, Prefix: -1, Slot: -1},
			backend.Segment{Start: 70, Len: 1, Prefix: 0, Slot: -1},
			backend.Segment{Start: 71, Len: 79, Prefix: 1, Slot: -1})
		gotY, gotD := attend(be, a, chain, qkv, dy)
		wantClose(t, "y", gotY, y)
		wantClose(t, "dqkv", gotD, d)
	}
}

// TestOneKey: the softmax of a query that sees one key is a constant, and the gradients of q and k are exactly 0:
// Adam would make a step of full size of any rounding left over.
func TestOneKey(t *testing.T) {
	a := &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 24, Scale: 0.3, Window: 1}
	const n = 70
	backends := map[string]backend.Backend{"oracle": backendtest.Oracle}
	for _, p := range paths() {
		backends[p.String()] = p.open(t, 2)
	}
	for name, be := range backends {
		w := newWorld(be, false)
		b := w.Batch(0, a.HeadDim, backend.Segment{Len: n, Prefix: -1, Slot: -1})
		qkv, dy := w.Filled(activation, n, a.QKVCols(), 3), w.Filled(activation, n, a.OutCols(), 1)
		y, lse, d := w.Buffer(activation, a.OutCols()), w.Buffer(stat, a.Heads), w.Buffer(activation, a.QKVCols())
		w.Backend.Attention(y, lse, qkv, a, b, nil)
		w.Backend.AttentionBackward(d, qkv, lse, dy, a, b)
		values := a.QKVCols() - a.KVHeads*a.HeadDim
		zeros := 0 // of values: where everything is rounded, a few sums are 0
		for i, v := range read(d) {
			switch ofValue := i%a.QKVCols() >= values; {
			case ofValue && v == 0:
				zeros++
			case !ofValue && v != 0:
				t.Fatalf("%s: the gradient of row %d, column %d is %v", name, i/a.QKVCols(), i%a.QKVCols(), v)
			}
		}
		if all := n * a.KVHeads * a.HeadDim; zeros > all/20 {
			t.Fatalf("%s: %d of %d gradients of values are 0", name, zeros, all)
		}
	}
}

// TestDecode: positions one by one, or several at a time, are the whole sequence at once.
func TestDecode(t *testing.T) {
	for _, window := range []int{0, 20} {
		be := paths()[len(paths())-1].open(t, 2)
		w := newWorld(be, false)
		a := &backend.Attention{Heads: 6, KVHeads: 2, HeadDim: 16, Scale: 0.25, Window: window}
		const n = 140
		cols := a.QKVCols()
		qkv := w.Values(n*cols, 1)
		whole, lse := be.NewBuffer(activation, a.OutCols()), be.NewBuffer(stat, a.Heads)
		be.Attention(whole, lse, filledWith(be, activation, cols, qkv), a, w.Batch(0, a.HeadDim, backend.Segment{Len: n, Prefix: -1, Slot: -1}), nil)
		c := be.NewCache(a)
		var got []float32
		step := be.NewBuffer(activation, a.OutCols())
		for at := 0; at < n; {
			l := min(1+at%5, n-at)
			b := w.Batch(0, a.HeadDim, backend.Segment{Len: int32(l), Prefix: -1, Slot: 0, Past: int32(at)})
			be.Attention(step, lse, filledWith(be, activation, cols, qkv[at*cols:(at+l)*cols]), a, b, c)
			got = append(got, read(step)...)
			at += l
		}
		wantClose(t, "y", got, read(whole))
	}
}

// TestLossChunks: the logits' chunks, and rows without a target beside, change nothing.
func TestLossChunks(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 2)
			w := newWorld(be, false)
			const n, d, vocab = 45, 20, 70
			head := w.Linear(backendtest.Spec{In: d, Out: vocab, R: 4, Dropout: 0.4, Bias: true}, 5)
			all := w.Rows(n)
			w.Labelled(all, vocab)
			x := w.Values(n*d, 1)
			some, sx := backendtest.EveryThird(all, x, d)
			loss := func(b *backend.Batch, x []float32, chunk int) (float64, []float32) {
				s, dx := be.NewSum().(*sum), be.NewBuffer(activation, d).(*Buffer)
				be.crossEntropy(s, dx, mat(filledWith(be, activation, d, x)), head, b, chunk)
				return s.Read(), read(dx)
			}
			wantSum, wantX := loss(all, x, 1000)
			for _, chunk := range []int{1, 7, 44} {
				s, dx := loss(all, x, chunk)
				wantSame(t, fmt.Sprint("dx in chunks of ", chunk), dx, wantX)
				if s != wantSum {
					t.Errorf("chunks of %d: loss %v, want %v", chunk, s, wantSum)
				}
			}
			_, dx := loss(&some, sx, 4)
			for i, r := range some.Rows {
				wantSame(t, fmt.Sprint("dx of row ", r), dx[i*d:(i+1)*d], wantX[int(r)*d:int(r+1)*d])
			}
		})
	}
	if got := chunkRows(32000); got != 256 {
		t.Errorf("%d rows of 32000 logits in a chunk, want 256", got)
	}
	if got := chunkRows(1 << 20); got != minChunkRows {
		t.Errorf("%d rows of 1M logits in a chunk", got)
	}
}

// TestLossRange: logits far apart give finite losses and gradients, and a NaN is not lost.
func TestLossRange(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			task := &lossTask{unit: p.open(t, 1).unit, backward: true,
				targets: []backend.Target{{Label: 1, Count: 2}, {Label: 0, Count: 1}}, losses: make([]float64, 2)}
			z := []float32{3e38, -3e38, 0, -1e30}
			task.row(z, []int32{0, 1})
			if want := 2 * (float64(float32(3e38)) * 2); task.losses[0] != want || task.losses[1] != 0 {
				t.Errorf("losses %v", task.losses)
			}
			if !backendtest.SameBits(z, []float32{2, -2, 0, 0}) {
				t.Errorf("gradient %v", z)
			}
			z = []float32{0, nan, 1, 2}
			task.row(z, []int32{0, 1})
			if !math.IsNaN(task.losses[0]) || !math.IsNaN(task.losses[1]) || z[3] == z[3] {
				t.Errorf("losses %v, gradient %v of a NaN", task.losses, z)
			}
			z = []float32{1, 2, 3, 4}
			if task.row(z, nil); !backendtest.SameBits(z, make([]float32, 4)) {
				t.Errorf("gradient %v of a row without targets", z)
			}
		})
	}
}

// TestAttentionNaN: a NaN in a row reaches its own results and those of later rows of its segment.
func TestAttentionNaN(t *testing.T) {
	for _, p := range paths() {
		be := p.open(t, 2)
		w := newWorld(be, false)
		a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.5}
		b := w.Batch(0, a.HeadDim, backend.Segment{Len: 70, Prefix: -1, Slot: -1}, backend.Segment{Start: 70, Len: 5, Prefix: -1, Slot: -1})
		for _, column := range []int{0, 9, 13} { // of a query, a key, a value
			qkv, dy := w.Values(75*a.QKVCols(), 1), w.Values(75*a.OutCols(), 1)
			qkv[66*a.QKVCols()+column] = nan
			y, d := attend(be, a, b, qkv, dy)
			for name, v := range map[string][]float32{"y": y, "dqkv": d} {
				cols := len(v) / 75
				if isFinite(v[66*cols : 67*cols]) {
					t.Errorf("%s: column %d: %s loses a NaN", p, column, name)
				}
				if !isFinite(v[70*cols:]) {
					t.Errorf("%s: column %d: a NaN of %s reaches another sequence", p, column, name)
				}
			}
		}
	}
}

func isFinite(v []float32) bool {
	for _, f := range v {
		if f-f != 0 {
			return false
		}
	}
	return true
}

// TestEmpty: a batch without rows does nothing and fails nowhere.
func TestEmpty(t *testing.T) {
	be := small(t)
	w := newWorld(be, false)
	b := w.Rows(0)
	l := w.Linear(backendtest.Spec{In: 8, Out: 8, R: 2}, 1)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 2, Scale: 1}
	x, y, h, rstd := be.NewBuffer(activation, 8), be.NewBuffer(activation, 8), be.NewBuffer(stat, 2), be.NewBuffer(stat, 1)
	be.RMSNorm(y, rstd, x, be.NewVector(make([]float32, 8)), 1e-5)
	be.Linear(y, h, x, nil, []*backend.Linear{l}, b)
	be.LinearBackward(x, y, h, y, []*backend.Linear{l}, b)
	be.Attention(be.NewBuffer(activation, 4), be.NewBuffer(stat, 2), x, a, b, nil)
	s := be.NewSum()
	be.CrossEntropy(s, y, x, l, b)
	if s.Read() != 0 || y.Rows() != 0 {
		t.Errorf("loss %v, %d rows", s.Read(), y.Rows())
	}
}

// TestMistakes: what does not fit is named.
func TestMistakes(t *testing.T) {
	be := small(t)
	w := newWorld(be, false)
	b := w.Rows(4)
	x, y := w.Filled(activation, 4, 6, 1), be.NewBuffer(activation, 5)
	l := w.Linear(backendtest.Spec{In: 6, Out: 5, R: 2}, 1)
	h := be.NewBuffer(stat, 2)
	plain := w.Linear(backendtest.Spec{In: 6, Out: 5}, 2)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 2, Scale: 1}
	qkv, att, lse := w.Filled(activation, 4, 8, 1), be.NewBuffer(activation, 4), be.NewBuffer(stat, 2)
	with := func(f func(*backend.Batch)) *backend.Batch {
		c := *b
		c.Tokens, c.Positions = append([]int32(nil), b.Tokens...), append([]int32(nil), b.Positions...)
		c.Segments = append([]backend.Segment(nil), b.Segments...)
		f(&c)
		return &c
	}
	e := &backend.Embedding{Vocab: 4, Dim: 6, Weight: w.Weight(numeric.BF16, 4, 6)}
	head := w.Linear(backendtest.Spec{In: 6, Out: 5}, 3)
	labelled := with(func(b *backend.Batch) { b.Rows = []int32{0, 1, 2, 3} })
	for want, f := range map[string]func(){
		"linear1: the linears have 5 outputs, the matrix 6": func() { be.Linear(be.NewBuffer(activation, 6), h, x, nil, []*backend.Linear{l}, b) },
		"h has 0 columns for ranks of 2":                    func() { be.Linear(y, nil, x, nil, []*backend.Linear{l}, b) },
		"linear2: weight [5, 6] of a linear [5, 6] for an input of 5": func() {
			be.Linear(y, nil, w.Filled(activation, 4, 5, 1), nil, []*backend.Linear{plain}, b)
		},
		"linear2: rows added to the output: 3, want 4": func() {
			be.Linear(y, nil, x, w.Filled(residual, 3, 5, 1), []*backend.Linear{plain}, b)
		},
		"its input is needed": func() { be.LinearBackward(x, nil, nil, y, []*backend.Linear{l}, b) },
		"segment 0: position 7 at its row 2, want 2": func() {
			be.Attention(att, lse, qkv, a, with(func(b *backend.Batch) { b.Positions[2] = 7 }), nil)
		},
		"segment 1: begins at position 1, after a prefix up to 2 and 0 cached": func() {
			be.Attention(att, lse, qkv, a, with(func(b *backend.Batch) {
				b.Segments = []backend.Segment{{Len: 2, Prefix: -1, Slot: -1}, {Start: 2, Len: 2, Slot: -1}}
				b.Positions[2], b.Positions[3] = 1, 2
			}), nil)
		},
		"rows of attention's segments: 3, want 4": func() {
			be.Attention(att, lse, qkv, a, with(func(b *backend.Batch) { b.Segments[0].Len = 3 }), nil)
		},
		"prefix 0, want -1 or an earlier segment": func() {
			be.Attention(att, lse, qkv, a, with(func(b *backend.Batch) { b.Segments[0].Prefix = 0 }), nil)
		},
		"2 cached positions, but no cache": func() {
			be.Attention(att, lse, qkv, a, with(func(b *backend.Batch) { b.Segments[0].Past = 2 }), nil)
		},
		"2 positions of cache slot 1 wanted, it holds 0": func() {
			be.Attention(att, lse, qkv, a, with(func(b *backend.Batch) { b.Segments[0].Past, b.Segments[0].Slot = 2, 1 }), be.NewCache(a))
		},
		"token 4 at row 1, the embedding has 4": func() {
			be.Embed(be.NewBuffer(residual, 6), e, with(func(b *backend.Batch) { b.Tokens = []int32{0, 4, 1, 2} }))
		},
		"Rows[1] is 0 after 0": func() {
			be.Gather(be.NewBuffer(residual, 6), x, with(func(b *backend.Batch) { b.Rows = []int32{0, 0} }))
		},
		"target 0 has label 5, the vocabulary has 5": func() {
			labelled.Targets = []backend.Target{{Label: 5}}
			be.CrossEntropy(be.NewSum(), nil, x, head, labelled)
		},
		"target 0 at row 4 of 4": func() {
			labelled.Targets = []backend.Target{{Row: 4}}
			be.CrossEntropy(be.NewSum(), nil, x, head, labelled)
		},
		"values written to a buffer: 3, want 24": func() { x.Write(make([]float32, 3)) },
	} {
		mustPanic(t, want, f)
	}
}
