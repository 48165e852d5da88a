package cpu

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/numeric"
)

// One layer's operations at the widths of a 1.1B LLaMA (TinyLlama), on two rows of 128 tokens.
const (
	benchHidden = 2048
	benchFF     = 5632
	benchRow    = 128
	benchTokens = 2 * benchRow
)

func bench(b *testing.B, f func(w *backendtest.World) (run func())) {
	for _, compute := range []string{"f32", "bf16"} {
		b.Run(compute, func(b *testing.B) {
			be := path{"auto", compute}.open(b, 0)
			run := f(newWorld(be, false))
			run()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(b.N)*benchTokens/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

func benchBatch(w *backendtest.World, headDim int) *backend.Batch {
	b := w.Batch(32000, headDim,
		backend.Segment{Len: benchRow, Prefix: -1, Slot: -1},
		backend.Segment{Start: benchRow, Len: benchRow, Prefix: -1, Slot: -1})
	b.Dropout = &backend.Dropout{Samples: make([]uint32, benchTokens)}
	return b
}

func benchLinear(b *testing.B, r int, dropout float32, backward bool) {
	bench(b, func(w *backendtest.World) func() {
		ls := []*backend.Linear{w.Linear(backendtest.Spec{In: benchHidden, Out: benchHidden, R: r, Dropout: dropout}, 1)}
		batch := benchBatch(w, 64)
		x, dy := w.Filled(activation, benchTokens, benchHidden, 1), w.Filled(activation, benchTokens, benchHidden, 1)
		y, dx := w.Backend.NewBuffer(activation, benchHidden), w.Backend.NewBuffer(activation, benchHidden)
		var h backend.Buffer
		if r > 0 {
			h = w.Backend.NewBuffer(stat, r)
		}
		w.Backend.Linear(y, h, x, nil, ls, batch)
		return func() {
			if backward {
				w.Backend.LinearBackward(dx, x, h, dy, ls, batch)
			} else {
				w.Backend.Linear(y, h, x, nil, ls, batch)
			}
		}
	})
}

func BenchmarkLinear(b *testing.B)               { benchLinear(b, 0, 0, false) }
func BenchmarkLinearBranch(b *testing.B)         { benchLinear(b, 16, 0, false) }
func BenchmarkLinearDropout(b *testing.B)        { benchLinear(b, 16, 0.1, false) }
func BenchmarkLinearBackward(b *testing.B)       { benchLinear(b, 0, 0, true) }
func BenchmarkLinearBranchBackward(b *testing.B) { benchLinear(b, 16, 0, true) }

func BenchmarkGateUp(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		run, _ := gateUpBench(w)
		return run
	})
}

func BenchmarkGateUpBackward(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		run, back := gateUpBench(w)
		run()
		return back
	})
}

func gateUpBench(w *backendtest.World) (forward, backward func()) {
	gate, up := w.Linear(backendtest.Spec{In: benchHidden, Out: benchFF}, 1), w.Linear(backendtest.Spec{In: benchHidden, Out: benchFF}, 2)
	batch := benchBatch(w, 64)
	x, dy := w.Filled(activation, benchTokens, benchHidden, 1), w.Filled(activation, benchTokens, benchFF, 1)
	y, gu, dx := w.Backend.NewBuffer(activation, benchFF), w.Backend.NewBuffer(activation, 2*benchFF), w.Backend.NewBuffer(activation, benchHidden)
	return func() { w.Backend.GateUp(y, gu, nil, x, gate, up, batch) },
		func() { w.Backend.GateUpBackward(dx, x, gu, nil, dy, gate, up, batch) }
}

// BenchmarkSwiGLU is GateUp without its products.
func BenchmarkSwiGLU(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		be := w.Backend.(*Backend)
		gu := mat(w.Filled(activation, benchTokens, 2*benchFF, 1))
		y := mat(w.Backend.NewBuffer(activation, benchFF))
		y.Resize(benchTokens)
		be.swiglu = swigluTask{unit: be.unit, y: y, gu: gu}
		return func() { be.rows(benchTokens, &be.swiglu) }
	})
}

// BenchmarkSwiGLUBackward is GateUpBackward without its products.
func BenchmarkSwiGLUBackward(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		be := w.Backend.(*Backend)
		gu, dy := mat(w.Filled(activation, benchTokens, 2*benchFF, 1)), mat(w.Filled(activation, benchTokens, benchFF, 1))
		d := mat(w.Backend.NewBuffer(activation, 2*benchFF))
		d.Resize(benchTokens)
		be.swigluBack = swigluBackTask{unit: be.unit, d: d, gu: gu, dy: dy}
		return func() { be.rows(benchTokens, &be.swigluBack) }
	})
}

func benchAttention(b *testing.B, backward bool) {
	bench(b, func(w *backendtest.World) func() {
		a := &backend.Attention{Heads: 32, KVHeads: 4, HeadDim: 64, Scale: 0.125}
		batch := benchBatch(w, a.HeadDim)
		qkv, dy := w.Filled(activation, benchTokens, a.QKVCols(), 1), w.Filled(activation, benchTokens, a.OutCols(), 1)
		y, lse, d := w.Backend.NewBuffer(activation, a.OutCols()), w.Backend.NewBuffer(stat, a.Heads), w.Backend.NewBuffer(activation, a.QKVCols())
		w.Backend.Attention(y, lse, qkv, a, batch, nil)
		return func() {
			if backward {
				w.Backend.AttentionBackward(d, qkv, lse, dy, a, batch)
			} else {
				w.Backend.Attention(y, lse, qkv, a, batch, nil)
			}
		}
	})
}

func BenchmarkAttention(b *testing.B)         { benchAttention(b, false) }
func BenchmarkAttentionBackward(b *testing.B) { benchAttention(b, true) }

func BenchmarkRMSNorm(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		x, g := w.Filled(residual, benchTokens, benchHidden, 1), w.Backend.NewVector(w.Values(benchHidden, 1))
		y, rstd := w.Backend.NewBuffer(activation, benchHidden), w.Backend.NewBuffer(stat, 1)
		return func() { w.Backend.RMSNorm(y, rstd, x, g, 1e-5) }
	})
}

func BenchmarkRMSNormBackward(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		x, g := w.Filled(residual, benchTokens, benchHidden, 1), w.Backend.NewVector(w.Values(benchHidden, 1))
		y, rstd, dx := w.Backend.NewBuffer(activation, benchHidden), w.Backend.NewBuffer(stat, 1), w.Backend.NewBuffer(residual, benchHidden)
		w.Backend.RMSNorm(y, rstd, x, g, 1e-5)
		return func() { w.Backend.RMSNormBackward(dx, x, rstd, y, x, g) }
	})
}

func BenchmarkEmbed(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		e := &backend.Embedding{Vocab: 2000, Dim: benchHidden, Weight: w.Weight(numeric.BF16, 2000, benchHidden)}
		batch := benchBatch(w, 64)
		for i := range batch.Tokens {
			batch.Tokens[i] %= 2000
		}
		x := w.Backend.NewBuffer(residual, benchHidden)
		return func() { w.Backend.Embed(x, e, batch) }
	})
}

func BenchmarkCrossEntropy(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		const vocab = 8000
		head := w.Linear(backendtest.Spec{In: benchHidden, Out: vocab}, 1)
		batch := benchBatch(w, 64)
		w.Labelled(batch, vocab)
		x, dx := w.Filled(activation, len(batch.Rows), benchHidden, 1), w.Backend.NewBuffer(activation, benchHidden)
		sum := w.Backend.NewSum()
		return func() { w.Backend.CrossEntropy(sum, dx, x, head, batch) }
	})
}

func BenchmarkAdamW(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		ps := []backend.Param{w.Param(16, 1<<16, 1)}
		o := backend.AdamW{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}
		return func() { w.Backend.AdamW(ps, o) }
	})
}

func BenchmarkSumSquares(b *testing.B) {
	bench(b, func(w *backendtest.World) func() {
		ps := []backend.Param{w.Param(16, 1<<16, 1)}
		return func() { w.Backend.SumSquares(ps) }
	})
}
