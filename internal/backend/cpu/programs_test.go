package cpu

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

const (
	residual   = backend.Residual
	activation = backend.Activation
	stat       = backend.Stat
)

// entry is a program with what its results may differ from the oracle's. rounds: with bf16 something is rounded
// that the oracle does not round.
type entry struct {
	name   string
	p      program
	rounds bool
}

func entries() (es []entry) {
	add := func(name string, p program) { es = append(es, entry{name: name, p: p}) }
	addRounds := func(name string, p program) { es = append(es, entry{name, p, true}) }

	for _, n := range []int{1, 5, 33} {
		add(fmt.Sprintf("linear/plain/%d", n), linearProgram(n, true, spec{in: 48, out: 40}))
		add(fmt.Sprintf("linear/branches/%d", n), linearProgram(n, false,
			spec{in: 33, out: 17, r: 3, dropout: 0.25}, spec{in: 33, out: 7, dtype: numeric.F32}, spec{in: 33, out: 20, r: 8, bias: true}))
		add(fmt.Sprintf("linear/train/%d", n), linearProgram(n, false,
			spec{in: 20, out: 31, train: true, bias: true}, spec{in: 20, out: 5, train: true, r: 2, dropout: 0.1}))
	}
	add("linear/add", linearProgram(9, true, spec{in: 64, out: 64, r: 4, bias: true, dtype: numeric.F16}))
	for _, q := range []quant.Format{quant.NF4, quant.Int8} {
		addRounds(fmt.Sprintf("linear/%v", q), linearProgram(21, true,
			spec{in: 192, out: 130, r: 4, dropout: 0.2, quant: q}, spec{in: 192, out: 33, quant: q, bias: true}))
		addRounds(fmt.Sprintf("linear/%v/straddle", q), linearProgram(5, false, spec{in: 40, out: 25, r: 2, quant: q}))
		addRounds(fmt.Sprintf("gateup/%v", q), gateUpProgram(9, spec{in: 64, out: 128, r: 3, quant: q}, spec{in: 64, out: 128, quant: q}))
	}
	add("linear/page/in", linearProgram(3, true, spec{in: 1024, out: 24, r: 4}))
	add("linear/page/out", linearProgram(3, true, spec{in: 24, out: 1024, r: 4}))
	add("linear/frozen", linearBackwardFrozen)
	addRounds("gateup", gateUpProgram(21, spec{in: 24, out: 40, r: 4, dropout: 0.2}, spec{in: 24, out: 40}))
	addRounds("gateup/bias", gateUpProgram(3, spec{in: 17, out: 11, bias: true}, spec{in: 17, out: 11, bias: true, r: 2}))
	addRounds("recompute", recomputeProgram)
	add("rmsnorm", normProgram(19, 50, true))
	add("rmsnorm/noadd", normProgram(1, 33, false))

	plain := backend.Segment{Prefix: -1, Slot: -1}
	seg := func(start, n, prefix int32) backend.Segment {
		s := plain
		s.Start, s.Len, s.Prefix = start, n, prefix
		return s
	}
	several := []backend.Segment{seg(0, 1, -1), seg(1, 70, -1), seg(71, 7, -1)}
	tree := []backend.Segment{seg(0, 5, -1), seg(5, 66, 0), seg(71, 3, 1), seg(74, 0, 1), seg(74, 9, 3), seg(83, 4, 0), seg(87, 6, -1)}
	for name, a := range map[string]backend.Attention{
		"mha":    {Heads: 3, KVHeads: 3, HeadDim: 8},
		"gqa":    {Heads: 6, KVHeads: 2, HeadDim: 10},
		"mqa":    {Heads: 5, KVHeads: 1, HeadDim: 16},
		"wide":   {Heads: 70, KVHeads: 1, HeadDim: 2},
		"window": {Heads: 4, KVHeads: 2, HeadDim: 6, Window: 9},
		"narrow": {Heads: 2, KVHeads: 2, HeadDim: 4, Window: 1},
	} {
		a.Scale = 0.4
		add("attention/several/"+name, attentionProgram(a, several))
		add("attention/tree/"+name, attentionProgram(a, tree))
	}
	for _, window := range []int{0, 6} {
		add(fmt.Sprintf("attention/cache/%d", window), cacheProgram(backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 6, Scale: 0.5, Window: window}))
	}

	for _, d := range []numeric.DType{numeric.F32, numeric.F16, numeric.BF16} {
		add("embed/"+d.String(), embedProgram(d, false))
	}
	add("embed/train", embedProgram(numeric.F32, true))
	add("gather", gatherProgram)
	addRounds("loss", lossProgram(spec{in: 16, out: 60}, true))
	addRounds("loss/branch", lossProgram(spec{in: 16, out: 35, r: 4, dropout: 0.3, bias: true}, true))
	addRounds("loss/train", lossProgram(spec{in: 16, out: 35, train: true}, true))
	add("loss/evaluation", lossProgram(spec{in: 16, out: 35, r: 4}, false))
	addRounds("tied", tiedProgram)
	add("optimiser", optimiserProgram)
	return es
}

func linearProgram(n int, withAdd bool, specs ...spec) program {
	return func(w *world) (func(), func()) {
		var ls []*backend.Linear
		out, ranks := 0, 0
		for i, s := range specs {
			ls = append(ls, w.linear(s, uint32(i+1)))
			out += s.out
			ranks += s.r
		}
		b := w.rows(n)
		x := w.filled(activation, n, specs[0].in, 1)
		dy := w.filled(activation, n, out, 1)
		y, dx := w.buffer(activation, out), w.buffer(activation, specs[0].in)
		var add, h backend.Buffer
		if withAdd {
			add, y = w.filled(residual, n, out, 1), w.buffer(residual, out)
		}
		if ranks > 0 {
			h = w.buffer(stat, ranks)
		}
		run := func() {
			w.be.Linear(y, h, x, add, ls, b)
			w.be.LinearBackward(dx, x, h, dy, ls, b)
		}
		return run, func() {
			w.look("y", y)
			w.look("dx", dx)
			if h != nil {
				w.look("h", h)
			}
			for _, l := range ls {
				w.lookLinear(l)
			}
		}
	}
}

// recomputeProgram does what a backward pass does that kept nothing: h and gu without outputs, in an h that other
// layers of larger ranks share.
func recomputeProgram(w *world) (func(), func()) {
	const n, in, out = 11, 26, 14
	ls := []*backend.Linear{w.linear(spec{in: in, out: out, r: 3, dropout: 0.2, bias: true}, 1), w.linear(spec{in: in, out: out, r: 5}, 2)}
	b := w.rows(n)
	x, dy, dgu := w.filled(activation, n, in, 1), w.filled(activation, n, out, 1), w.filled(activation, n, 2*out, 1)
	h, gu, y := w.buffer(stat, 12), w.buffer(activation, 2*out), w.buffer(activation, out)
	dx, dx2 := w.buffer(activation, in), w.buffer(activation, in)
	run := func() {
		w.be.Linear(nil, h, x, nil, ls, b)
		w.be.LinearBackward(dx, x, h, dgu, ls, b)
		w.be.GateUp(nil, gu, h, x, ls[0], ls[1], b)
		w.be.SwiGLU(y, gu)
		w.be.GateUpBackward(dx2, x, gu, h, dy, ls[0], ls[1], b)
	}
	return run, func() {
		w.look("dx", dx)
		w.look("gu", gu)
		w.look("swiglu", y)
		w.look("gateup dx", dx2)
		w.lookLinear(ls[0])
		w.lookLinear(ls[1])
	}
}

// linearBackwardFrozen has neither x nor h, then gradients of a branch without dx.
func linearBackwardFrozen(w *world) (func(), func()) {
	const n = 6
	frozen := []*backend.Linear{w.linear(spec{in: 18, out: 9, bias: true}, 1), w.linear(spec{in: 18, out: 4}, 2)}
	branch := []*backend.Linear{w.linear(spec{in: 18, out: 13, r: 2, dropout: 0.5}, 3)}
	b := w.rows(n)
	x, dy := w.filled(activation, n, 18, 1), w.filled(residual, n, 13, 1)
	dx, y, h := w.buffer(activation, 18), w.buffer(activation, 13), w.buffer(stat, 2)
	run := func() {
		w.be.LinearBackward(dx, nil, nil, dy, frozen, b)
		w.be.Linear(y, h, x, nil, branch, b)
		w.be.LinearBackward(nil, x, h, dy, branch, b)
	}
	return run, func() {
		w.look("dx", dx)
		w.lookLinear(branch[0])
	}
}

func gateUpProgram(n int, gate, up spec) program {
	return func(w *world) (func(), func()) {
		g, u := w.linear(gate, 1), w.linear(up, 2)
		b := w.rows(n)
		x, dy := w.filled(activation, n, gate.in, 2), w.filled(activation, n, gate.out, 1)
		y, gu, dx := w.buffer(activation, gate.out), w.buffer(activation, 2*gate.out), w.buffer(activation, gate.in)
		h := w.buffer(stat, gate.r+up.r)
		run := func() {
			w.be.GateUp(y, gu, h, x, g, u, b)
			w.be.GateUpBackward(dx, x, gu, h, dy, g, u, b)
		}
		return run, func() {
			w.look("y", y)
			w.look("gu", gu)
			w.look("dx", dx)
			w.lookLinear(g)
			w.lookLinear(u)
		}
	}
}

func normProgram(n, cols int, withAdd bool) program {
	return func(w *world) (func(), func()) {
		x, dy := w.filled(residual, n, cols, 3), w.filled(activation, n, cols, 1)
		g := w.be.NewVector(w.values(cols, 1))
		y, rstd, dx := w.buffer(activation, cols), w.buffer(stat, 1), w.buffer(residual, cols)
		var add backend.Buffer
		if withAdd {
			add = w.filled(residual, n, cols, 1)
		}
		run := func() {
			w.be.RMSNorm(y, rstd, x, g, 1e-5)
			w.be.RMSNormBackward(dx, x, rstd, dy, add, g)
		}
		return run, func() {
			w.look("y", y)
			w.look("rstd", rstd)
			w.look("dx", dx)
		}
	}
}

func attentionProgram(a backend.Attention, segments []backend.Segment) program {
	return func(w *world) (func(), func()) {
		b := w.batch(0, a.HeadDim, segments...)
		n := len(b.Positions)
		qkv, dy := w.filled(activation, n, a.QKVCols(), 1), w.filled(activation, n, a.OutCols(), 1)
		y, lse, d := w.buffer(activation, a.OutCols()), w.buffer(stat, a.Heads), w.buffer(activation, a.QKVCols())
		run := func() {
			w.be.Attention(y, lse, qkv, &a, b, nil)
			w.be.AttentionBackward(d, qkv, lse, dy, &a, b)
		}
		return run, func() {
			w.look("y", y)
			w.look("lse", lse)
			w.look("dqkv", d)
		}
	}
}

// cacheProgram fills slots, truncates and copies them, and continues from them, a cached prefix among them.
func cacheProgram(a backend.Attention) program {
	return func(w *world) (func(), func()) {
		first := w.batch(0, a.HeadDim,
			backend.Segment{Start: 0, Len: 9, Prefix: -1, Slot: 0},
			backend.Segment{Start: 9, Len: 5, Prefix: -1, Slot: 2})
		second := w.batch(0, a.HeadDim,
			backend.Segment{Start: 0, Len: 0, Prefix: -1, Slot: 0, Past: 7},
			backend.Segment{Start: 0, Len: 3, Prefix: 0, Slot: 3},
			backend.Segment{Start: 3, Len: 1, Prefix: -1, Slot: 1, Past: 4},
			backend.Segment{Start: 4, Len: 2, Prefix: -1, Slot: 2, Past: 5})
		third := w.batch(0, a.HeadDim,
			backend.Segment{Start: 0, Len: 0, Prefix: -1, Slot: 0, Past: 7},
			backend.Segment{Start: 0, Len: 1, Prefix: 0, Slot: 3, Past: 3},
			backend.Segment{Start: 1, Len: 70, Prefix: -1, Slot: 1, Past: 5})
		c := w.be.NewCache(&a)
		var ys []backend.Buffer
		var in []backend.Buffer
		for _, b := range []*backend.Batch{first, second, third} {
			in = append(in, w.filled(activation, len(b.Positions), a.QKVCols(), 1))
			ys = append(ys, w.buffer(activation, a.OutCols()))
		}
		lse := w.buffer(stat, a.Heads)
		run := func() {
			w.be.Attention(ys[0], lse, in[0], &a, first, c)
			c.Copy(1, 0, 4)
			c.Truncate(0, 7)
			w.be.Attention(ys[1], lse, in[1], &a, second, c)
			w.be.Attention(ys[2], lse, in[2], &a, third, c)
		}
		return run, func() {
			for i, y := range ys {
				w.look(fmt.Sprint("y", i), y)
			}
		}
	}
}

func embedProgram(d numeric.DType, train bool) program {
	return func(w *world) (func(), func()) {
		const vocab, dim, n = 11, 300, 40
		e := &backend.Embedding{Vocab: vocab, Dim: dim, Padding: 3}
		if train {
			e.Train = w.param(vocab, dim, 1)
		} else {
			e.Weight = w.weight(d, vocab, dim)
		}
		b := w.rows(n)
		for i := range b.Tokens {
			b.Tokens[i] %= vocab
		}
		x, dx := w.buffer(residual, dim), w.filled(residual, n, dim, 1)
		run := func() {
			w.be.Embed(x, e, b)
			if train {
				w.be.EmbedBackward(e, dx, b)
			}
		}
		return run, func() {
			w.look("x", x)
			if train {
				w.lookGrad("dE", e.Train)
			}
		}
	}
}

func gatherProgram(w *world) (func(), func()) {
	b := w.rows(30)
	b.Rows = []int32{0, 1, 7, 8, 15, 16, 29}
	x, dy := w.filled(residual, 30, 21, 1), w.filled(residual, len(b.Rows), 21, 1)
	y, dx := w.buffer(residual, 21), w.buffer(residual, 21)
	run := func() {
		w.be.Gather(y, x, b)
		w.be.GatherBackward(dx, dy, b)
	}
	return run, func() {
		w.look("y", y)
		w.look("dx", dx)
	}
}

// labelled gives rows of the batch targets: none, one or several, in an order of their own.
func (w *world) labelled(b *backend.Batch, vocab int) {
	for i := range b.Positions {
		b.Rows = append(b.Rows, int32(i))
		for range i % 3 {
			b.Targets = append(b.Targets, backend.Target{Row: int32(i), Label: int32(w.rng.IntN(vocab)), Count: int32(1 + w.rng.IntN(3))})
		}
	}
	w.rng.Shuffle(len(b.Targets), func(i, j int) { b.Targets[i], b.Targets[j] = b.Targets[j], b.Targets[i] })
}

func lossProgram(s spec, backward bool) program {
	return func(w *world) (func(), func()) {
		head := w.linear(s, 9)
		b := w.rows(26)
		w.labelled(b, s.out)
		x := w.filled(activation, len(b.Rows), s.in, 2)
		sum := w.be.NewSum()
		var dx backend.Buffer
		if backward {
			dx = w.buffer(activation, s.in)
		}
		run := func() { w.be.CrossEntropy(sum, dx, x, head, b) }
		return run, func() {
			w.results = append(w.results, result{"loss", []float32{float32(sum.Read())}})
			if backward {
				w.look("dx", dx)
				w.lookLinear(head)
			}
		}
	}
}

// tiedProgram trains one matrix as embedding and as head.
func tiedProgram(w *world) (func(), func()) {
	const vocab, dim = 37, 24
	p := w.param(vocab, dim, 0.3)
	e := &backend.Embedding{Vocab: vocab, Dim: dim, Train: p, Padding: -1}
	head := &backend.Linear{Name: "lm_head", In: dim, Out: vocab, Train: p}
	b := w.rows(12)
	for i := range b.Tokens {
		b.Tokens[i] %= vocab
	}
	w.labelled(b, vocab)
	x, y, dx, dy := w.buffer(residual, dim), w.buffer(activation, dim), w.buffer(residual, dim), w.buffer(activation, dim)
	sum := w.be.NewSum()
	run := func() {
		w.be.Embed(x, e, b)
		w.be.Gather(y, x, b)
		w.be.CrossEntropy(sum, dy, y, head, b)
		w.be.GatherBackward(dx, dy, b)
		w.be.EmbedBackward(e, dx, b)
	}
	return run, func() {
		w.look("dx", dx)
		w.lookGrad("dE", p)
	}
}

func optimiserProgram(w *world) (func(), func()) {
	ps := []backend.Param{w.param(3, 5, 1), w.param(300, 120, 1)}
	ls := []*backend.Linear{
		{Name: "a", In: 5, Out: 3, Train: ps[0]},
		{Name: "b", In: 120, Out: 300, Train: ps[1]},
	}
	b := w.rows(2)
	norms := make([]float32, 0, 3)
	in := []backend.Buffer{w.filled(activation, 2, 5, 1), w.filled(activation, 2, 120, 1)}
	out := []backend.Buffer{w.filled(activation, 2, 3, 1), w.filled(activation, 2, 300, 1)}
	one := [][]*backend.Linear{ls[:1], ls[1:]}
	run := func() {
		norms = norms[:0]
		for step := 1; step <= 3; step++ {
			w.be.ZeroGrad(ps)
			for i := range ls {
				w.be.LinearBackward(nil, in[i], nil, out[i], one[i], b)
			}
			w.be.ScaleGrad(ps, 0.37)
			norms = append(norms, float32(w.be.SumSquares(ps)))
			w.be.AdamW(ps, backend.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Step: step})
		}
	}
	return run, func() {
		w.results = append(w.results, result{"norms", norms})
		for i, p := range ps {
			rows, cols := p.Shape()
			v, m, s := make([]float32, rows*cols), make([]float32, rows*cols), make([]float32, rows*cols)
			p.Read(v)
			p.ReadMoments(m, s)
			w.results = append(w.results, result{fmt.Sprint("p", i), v}, result{fmt.Sprint("m", i), m}, result{fmt.Sprint("v", i), s})
		}
	}
}
