package cpu

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/numeric"
)

// One layer's operations at the widths of a 1.1B LLaMA (TinyLlama), on two rows of 128 tokens.
const (
	benchHidden = 2048
	benchFF     = 5632
	benchRow    = 128
	benchTokens = 2 * benchRow
)

func bench(b *testing.B, f func(w *world) (run func())) {
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

func (w *world) benchBatch(headDim int) *backend.Batch {
	b := w.batch(32000, headDim,
		backend.Segment{Len: benchRow, Prefix: -1, Slot: -1},
		backend.Segment{Start: benchRow, Len: benchRow, Prefix: -1, Slot: -1})
	b.Dropout = &backend.Dropout{Samples: make([]uint32, benchTokens)}
	return b
}

func benchLinear(b *testing.B, r int, dropout float32, backward bool) {
	bench(b, func(w *world) func() {
		ls := []*backend.Linear{w.linear(spec{in: benchHidden, out: benchHidden, r: r, dropout: dropout}, 1)}
		batch := w.benchBatch(64)
		x, dy := w.filled(activation, benchTokens, benchHidden, 1), w.filled(activation, benchTokens, benchHidden, 1)
		y, dx := w.be.NewBuffer(activation, benchHidden), w.be.NewBuffer(activation, benchHidden)
		var h backend.Buffer
		if r > 0 {
			h = w.be.NewBuffer(stat, r)
		}
		w.be.Linear(y, h, x, nil, ls, batch)
		return func() {
			if backward {
				w.be.LinearBackward(dx, x, h, dy, ls, batch)
			} else {
				w.be.Linear(y, h, x, nil, ls, batch)
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
	bench(b, func(w *world) func() {
		run, _ := gateUpBench(w)
		return run
	})
}

func BenchmarkGateUpBackward(b *testing.B) {
	bench(b, func(w *world) func() {
		run, back := gateUpBench(w)
		run()
		return back
	})
}

func gateUpBench(w *world) (forward, backward func()) {
	gate, up := w.linear(spec{in: benchHidden, out: benchFF}, 1), w.linear(spec{in: benchHidden, out: benchFF}, 2)
	batch := w.benchBatch(64)
	x, dy := w.filled(activation, benchTokens, benchHidden, 1), w.filled(activation, benchTokens, benchFF, 1)
	y, gu, dx := w.be.NewBuffer(activation, benchFF), w.be.NewBuffer(activation, 2*benchFF), w.be.NewBuffer(activation, benchHidden)
	return func() { w.be.GateUp(y, gu, nil, x, gate, up, batch) },
		func() { w.be.GateUpBackward(dx, x, gu, nil, dy, gate, up, batch) }
}

// BenchmarkSwiGLU is GateUp without its products.
func BenchmarkSwiGLU(b *testing.B) {
	bench(b, func(w *world) func() {
		be := w.be.(*Backend)
		gu := mat(w.filled(activation, benchTokens, 2*benchFF, 1))
		y := mat(w.be.NewBuffer(activation, benchFF))
		y.Resize(benchTokens)
		be.swiglu = swigluTask{unit: be.unit, y: y, gu: gu}
		return func() { be.rows(benchTokens, &be.swiglu) }
	})
}

// BenchmarkSwiGLUBackward is GateUpBackward without its products.
func BenchmarkSwiGLUBackward(b *testing.B) {
	bench(b, func(w *world) func() {
		be := w.be.(*Backend)
		gu, dy := mat(w.filled(activation, benchTokens, 2*benchFF, 1)), mat(w.filled(activation, benchTokens, benchFF, 1))
		d := mat(w.be.NewBuffer(activation, 2*benchFF))
		d.Resize(benchTokens)
		be.swigluBack = swigluBackTask{unit: be.unit, d: d, gu: gu, dy: dy}
		return func() { be.rows(benchTokens, &be.swigluBack) }
	})
}

func benchAttention(b *testing.B, backward bool) {
	bench(b, func(w *world) func() {
		a := &backend.Attention{Heads: 32, KVHeads: 4, HeadDim: 64, Scale: 0.125}
		batch := w.benchBatch(a.HeadDim)
		qkv, dy := w.filled(activation, benchTokens, a.QKVCols(), 1), w.filled(activation, benchTokens, a.OutCols(), 1)
		y, lse, d := w.be.NewBuffer(activation, a.OutCols()), w.be.NewBuffer(stat, a.Heads), w.be.NewBuffer(activation, a.QKVCols())
		w.be.Attention(y, lse, qkv, a, batch, nil)
		return func() {
			if backward {
				w.be.AttentionBackward(d, qkv, lse, dy, a, batch)
			} else {
				w.be.Attention(y, lse, qkv, a, batch, nil)
			}
		}
	})
}

func BenchmarkAttention(b *testing.B)         { benchAttention(b, false) }
func BenchmarkAttentionBackward(b *testing.B) { benchAttention(b, true) }

func BenchmarkRMSNorm(b *testing.B) {
	bench(b, func(w *world) func() {
		x, g := w.filled(residual, benchTokens, benchHidden, 1), w.be.NewVector(w.values(benchHidden, 1))
		y, rstd := w.be.NewBuffer(activation, benchHidden), w.be.NewBuffer(stat, 1)
		return func() { w.be.RMSNorm(y, rstd, x, g, 1e-5) }
	})
}

func BenchmarkRMSNormBackward(b *testing.B) {
	bench(b, func(w *world) func() {
		x, g := w.filled(residual, benchTokens, benchHidden, 1), w.be.NewVector(w.values(benchHidden, 1))
		y, rstd, dx := w.be.NewBuffer(activation, benchHidden), w.be.NewBuffer(stat, 1), w.be.NewBuffer(residual, benchHidden)
		w.be.RMSNorm(y, rstd, x, g, 1e-5)
		return func() { w.be.RMSNormBackward(dx, x, rstd, y, x, g) }
	})
}

func BenchmarkEmbed(b *testing.B) {
	bench(b, func(w *world) func() {
		e := &backend.Embedding{Vocab: 2000, Dim: benchHidden, Weight: w.weight(numeric.BF16, 2000, benchHidden)}
		batch := w.benchBatch(64)
		for i := range batch.Tokens {
			batch.Tokens[i] %= 2000
		}
		x := w.be.NewBuffer(residual, benchHidden)
		return func() { w.be.Embed(x, e, batch) }
	})
}

func BenchmarkCrossEntropy(b *testing.B) {
	bench(b, func(w *world) func() {
		const vocab = 8000
		head := w.linear(spec{in: benchHidden, out: vocab}, 1)
		batch := w.benchBatch(64)
		w.labelled(batch, vocab)
		x, dx := w.filled(activation, len(batch.Rows), benchHidden, 1), w.be.NewBuffer(activation, benchHidden)
		sum := w.be.NewSum()
		return func() { w.be.CrossEntropy(sum, dx, x, head, batch) }
	})
}

func BenchmarkAdamW(b *testing.B) {
	bench(b, func(w *world) func() {
		ps := []backend.Param{w.param(16, 1<<16, 1)}
		o := backend.AdamW{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}
		return func() { w.be.AdamW(ps, o) }
	})
}

func BenchmarkSumSquares(b *testing.B) {
	bench(b, func(w *world) func() {
		ps := []backend.Param{w.param(16, 1<<16, 1)}
		return func() { w.be.SumSquares(ps) }
	})
}
