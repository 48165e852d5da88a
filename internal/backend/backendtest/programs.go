package backendtest

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

// Entry is a Program with what its results may differ from the oracle's. Rounds: with bf16 something is rounded
// that the oracle does not round.
type Entry struct {
	Name    string
	Program Program
	Rounds  bool
}

// Entries are the programs that every backend must run.
func Entries() (es []Entry) {
	add := func(name string, p Program) { es = append(es, Entry{Name: name, Program: p}) }
	addRounds := func(name string, p Program) { es = append(es, Entry{name, p, true}) }

	for _, n := range []int{1, 5, 33} {
		add(fmt.Sprintf("linear/plain/%d", n), LinearProgram(n, true, Spec{In: 48, Out: 40}))
		add(fmt.Sprintf("linear/branches/%d", n), LinearProgram(n, false,
			Spec{In: 33, Out: 17, R: 3, Dropout: 0.25}, Spec{In: 33, Out: 7, DType: numeric.F32}, Spec{In: 33, Out: 20, R: 8, Bias: true}))
		add(fmt.Sprintf("linear/train/%d", n), LinearProgram(n, false,
			Spec{In: 20, Out: 31, Train: true, Bias: true}, Spec{In: 20, Out: 5, Train: true, R: 2, Dropout: 0.1}))
	}
	add("linear/add", LinearProgram(9, true, Spec{In: 64, Out: 64, R: 4, Bias: true, DType: numeric.F16}))
	for _, q := range []quant.Format{quant.NF4, quant.Int8} {
		addRounds(fmt.Sprintf("linear/%v", q), LinearProgram(21, true,
			Spec{In: 192, Out: 130, R: 4, Dropout: 0.2, Quant: q}, Spec{In: 192, Out: 33, Quant: q, Bias: true}))
		addRounds(fmt.Sprintf("linear/%v/straddle", q), LinearProgram(5, false, Spec{In: 40, Out: 25, R: 2, Quant: q}))
		addRounds(fmt.Sprintf("gateup/%v", q), GateUpProgram(9, Spec{In: 64, Out: 128, R: 3, Quant: q}, Spec{In: 64, Out: 128, Quant: q}))
	}
	add("linear/page/in", LinearProgram(3, true, Spec{In: 1024, Out: 24, R: 4}))
	add("linear/page/out", LinearProgram(3, true, Spec{In: 24, Out: 1024, R: 4}))
	add("linear/frozen", linearBackwardFrozen)
	addRounds("gateup", GateUpProgram(21, Spec{In: 24, Out: 40, R: 4, Dropout: 0.2}, Spec{In: 24, Out: 40}))
	addRounds("gateup/bias", GateUpProgram(3, Spec{In: 17, Out: 11, Bias: true}, Spec{In: 17, Out: 11, Bias: true, R: 2}))
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
		add("attention/several/"+name, AttentionProgram(a, several))
		add("attention/tree/"+name, AttentionProgram(a, tree))
	}
	for _, window := range []int{0, 6} {
		add(fmt.Sprintf("attention/cache/%d", window), cacheProgram(backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 6, Scale: 0.5, Window: window}))
	}

	for _, d := range []numeric.DType{numeric.F32, numeric.F16, numeric.BF16} {
		add("embed/"+d.String(), embedProgram(Spec{In: 300, Out: 11, DType: d}))
	}
	for _, q := range []quant.Format{quant.NF4, quant.Int8} {
		add(fmt.Sprintf("embed/%v", q), embedProgram(Spec{In: 300, Out: 11, Quant: q}))
	}
	add("embed/train", embedProgram(Spec{In: 300, Out: 11, Train: true}))
	add("gather", gatherProgram)
	addRounds("loss", lossProgram(Spec{In: 16, Out: 60}, true))
	addRounds("loss/branch", lossProgram(Spec{In: 16, Out: 35, R: 4, Dropout: 0.3, Bias: true}, true))
	addRounds("loss/train", lossProgram(Spec{In: 16, Out: 35, Train: true}, true))
	add("loss/evaluation", lossProgram(Spec{In: 16, Out: 35, R: 4}, false))
	addRounds("tied", tiedProgram)
	add("optimiser", optimiserProgram)
	return es
}

// LinearProgram is linears that share an input, forward and backward.
func LinearProgram(n int, withAdd bool, specs ...Spec) Program {
	return func(w *World) (func(), func()) {
		var ls []*backend.Linear
		out, ranks := 0, 0
		for i, s := range specs {
			ls = append(ls, w.Linear(s, uint32(i+1)))
			out += s.Out
			ranks += s.R
		}
		b := w.Rows(n)
		x := w.Filled(activation, n, specs[0].In, 1)
		dy := w.Filled(activation, n, out, 1)
		y, dx := w.Buffer(activation, out), w.Buffer(activation, specs[0].In)
		var add, h backend.Buffer
		if withAdd {
			add, y = w.Filled(residual, n, out, 1), w.Buffer(residual, out)
		}
		if ranks > 0 {
			h = w.Buffer(stat, ranks)
		}
		run := func() {
			w.Backend.Linear(y, h, x, add, ls, b)
			w.Backend.LinearBackward(dx, x, h, dy, ls, b)
		}
		return run, func() {
			w.Look("y", y)
			w.Look("dx", dx)
			if h != nil {
				w.Look("h", h)
			}
			for _, l := range ls {
				w.LookLinear(l)
			}
		}
	}
}

// recomputeProgram does what a backward pass does that kept nothing: h and gu without outputs, in an h that other
// layers of larger ranks share.
func recomputeProgram(w *World) (func(), func()) {
	const n, in, out = 11, 26, 14
	ls := []*backend.Linear{w.Linear(Spec{In: in, Out: out, R: 3, Dropout: 0.2, Bias: true}, 1), w.Linear(Spec{In: in, Out: out, R: 5}, 2)}
	b := w.Rows(n)
	x, dy, dgu := w.Filled(activation, n, in, 1), w.Filled(activation, n, out, 1), w.Filled(activation, n, 2*out, 1)
	h, gu, y := w.Buffer(stat, 12), w.Buffer(activation, 2*out), w.Buffer(activation, out)
	dx, dx2 := w.Buffer(activation, in), w.Buffer(activation, in)
	run := func() {
		w.Backend.Linear(nil, h, x, nil, ls, b)
		w.Backend.LinearBackward(dx, x, h, dgu, ls, b)
		w.Backend.GateUp(nil, gu, h, x, ls[0], ls[1], b)
		w.Backend.SwiGLU(y, gu)
		w.Backend.GateUpBackward(dx2, x, gu, h, dy, ls[0], ls[1], b)
	}
	return run, func() {
		w.Look("dx", dx)
		w.Look("gu", gu)
		w.Look("swiglu", y)
		w.Look("gateup dx", dx2)
		w.LookLinear(ls[0])
		w.LookLinear(ls[1])
	}
}

// linearBackwardFrozen has neither x nor h, then gradients of a branch without dx.
func linearBackwardFrozen(w *World) (func(), func()) {
	const n = 6
	frozen := []*backend.Linear{w.Linear(Spec{In: 18, Out: 9, Bias: true}, 1), w.Linear(Spec{In: 18, Out: 4}, 2)}
	branch := []*backend.Linear{w.Linear(Spec{In: 18, Out: 13, R: 2, Dropout: 0.5}, 3)}
	b := w.Rows(n)
	x, dy := w.Filled(activation, n, 18, 1), w.Filled(residual, n, 13, 1)
	dx, y, h := w.Buffer(activation, 18), w.Buffer(activation, 13), w.Buffer(stat, 2)
	run := func() {
		w.Backend.LinearBackward(dx, nil, nil, dy, frozen, b)
		w.Backend.Linear(y, h, x, nil, branch, b)
		w.Backend.LinearBackward(nil, x, h, dy, branch, b)
	}
	return run, func() {
		w.Look("dx", dx)
		w.LookLinear(branch[0])
	}
}

// GateUpProgram is gate, up and swiglu, forward and backward.
func GateUpProgram(n int, gate, up Spec) Program {
	return func(w *World) (func(), func()) {
		g, u := w.Linear(gate, 1), w.Linear(up, 2)
		b := w.Rows(n)
		x, dy := w.Filled(activation, n, gate.In, 2), w.Filled(activation, n, gate.Out, 1)
		y, gu, dx := w.Buffer(activation, gate.Out), w.Buffer(activation, 2*gate.Out), w.Buffer(activation, gate.In)
		h := w.Buffer(stat, gate.R+up.R)
		run := func() {
			w.Backend.GateUp(y, gu, h, x, g, u, b)
			w.Backend.GateUpBackward(dx, x, gu, h, dy, g, u, b)
		}
		return run, func() {
			w.Look("y", y)
			w.Look("gu", gu)
			w.Look("dx", dx)
			w.LookLinear(g)
			w.LookLinear(u)
		}
	}
}

func normProgram(n, cols int, withAdd bool) Program {
	return func(w *World) (func(), func()) {
		x, dy := w.Filled(residual, n, cols, 3), w.Filled(activation, n, cols, 1)
		g := w.Backend.NewVector(w.Values(cols, 1))
		y, rstd, dx := w.Buffer(activation, cols), w.Buffer(stat, 1), w.Buffer(residual, cols)
		var add backend.Buffer
		if withAdd {
			add = w.Filled(residual, n, cols, 1)
		}
		run := func() {
			w.Backend.RMSNorm(y, rstd, x, g, 1e-5)
			w.Backend.RMSNormBackward(dx, x, rstd, dy, add, g)
		}
		return run, func() {
			w.Look("y", y)
			w.Look("rstd", rstd)
			w.Look("dx", dx)
		}
	}
}

// AttentionProgram is attention over segments, forward and backward.
func AttentionProgram(a backend.Attention, segments []backend.Segment) Program {
	return func(w *World) (func(), func()) {
		b := w.Batch(0, a.HeadDim, segments...)
		n := len(b.Positions)
		qkv, dy := w.Filled(activation, n, a.QKVCols(), 1), w.Filled(activation, n, a.OutCols(), 1)
		y, lse, d := w.Buffer(activation, a.OutCols()), w.Buffer(stat, a.Heads), w.Buffer(activation, a.QKVCols())
		run := func() {
			w.Backend.Attention(y, lse, qkv, &a, b, nil)
			w.Backend.AttentionBackward(d, qkv, lse, dy, &a, b)
		}
		return run, func() {
			w.Look("y", y)
			w.Look("lse", lse)
			w.Look("dqkv", d)
		}
	}
}

// cacheProgram fills slots, truncates and copies them, and continues from them, a cached prefix among them.
func cacheProgram(a backend.Attention) Program {
	return func(w *World) (func(), func()) {
		first := w.Batch(0, a.HeadDim,
			backend.Segment{Start: 0, Len: 9, Prefix: -1, Slot: 0},
			backend.Segment{Start: 9, Len: 5, Prefix: -1, Slot: 2})
		second := w.Batch(0, a.HeadDim,
			backend.Segment{Start: 0, Len: 0, Prefix: -1, Slot: 0, Past: 7},
			backend.Segment{Start: 0, Len: 3, Prefix: 0, Slot: 3},
			backend.Segment{Start: 3, Len: 1, Prefix: -1, Slot: 1, Past: 4},
			backend.Segment{Start: 4, Len: 2, Prefix: -1, Slot: 2, Past: 5})
		third := w.Batch(0, a.HeadDim,
			backend.Segment{Start: 0, Len: 0, Prefix: -1, Slot: 0, Past: 7},
			backend.Segment{Start: 0, Len: 1, Prefix: 0, Slot: 3, Past: 3},
			backend.Segment{Start: 1, Len: 70, Prefix: -1, Slot: 1, Past: 5})
		c := w.Backend.NewCache(&a)
		var ys []backend.Buffer
		var in []backend.Buffer
		for _, b := range []*backend.Batch{first, second, third} {
			in = append(in, w.Filled(activation, len(b.Positions), a.QKVCols(), 1))
			ys = append(ys, w.Buffer(activation, a.OutCols()))
		}
		lse := w.Buffer(stat, a.Heads)
		run := func() {
			w.Backend.Attention(ys[0], lse, in[0], &a, first, c)
			c.Copy(1, 0, 4)
			c.Truncate(0, 7)
			w.Backend.Attention(ys[1], lse, in[1], &a, second, c)
			w.Backend.Attention(ys[2], lse, in[2], &a, third, c)
		}
		return run, func() {
			for i, y := range ys {
				w.Look(fmt.Sprint("y", i), y)
			}
		}
	}
}

// embedProgram has a table of s.Out vectors of s.In elements.
func embedProgram(s Spec) Program {
	return func(w *World) (func(), func()) {
		const n = 40
		l := w.Linear(s, 0)
		e := &backend.Embedding{Vocab: s.Out, Dim: s.In, Padding: 3, Weight: l.Weight, Train: l.Train}
		b := w.Rows(n)
		for i := range b.Tokens {
			b.Tokens[i] %= int32(s.Out)
		}
		x, dx := w.Buffer(residual, s.In), w.Filled(residual, n, s.In, 1)
		run := func() {
			w.Backend.Embed(x, e, b)
			if s.Train {
				w.Backend.EmbedBackward(e, dx, b)
			}
		}
		return run, func() {
			w.Look("x", x)
			w.LookLinear(l)
		}
	}
}

func gatherProgram(w *World) (func(), func()) {
	b := w.Rows(30)
	b.Rows = []int32{0, 1, 7, 8, 15, 16, 29}
	x, dy := w.Filled(residual, 30, 21, 1), w.Filled(residual, len(b.Rows), 21, 1)
	y, dx := w.Buffer(residual, 21), w.Buffer(residual, 21)
	run := func() {
		w.Backend.Gather(y, x, b)
		w.Backend.GatherBackward(dx, dy, b)
	}
	return run, func() {
		w.Look("y", y)
		w.Look("dx", dx)
	}
}

func lossProgram(s Spec, backward bool) Program {
	return func(w *World) (func(), func()) {
		head := w.Linear(s, 9)
		b := w.Rows(26)
		w.Labelled(b, s.Out)
		x := w.Filled(activation, len(b.Rows), s.In, 2)
		sum := w.Backend.NewSum()
		var dx backend.Buffer
		if backward {
			dx = w.Buffer(activation, s.In)
		}
		run := func() { w.Backend.CrossEntropy(sum, dx, x, head, b) }
		return run, func() {
			w.Results = append(w.Results, Result{"loss", []float32{float32(sum.Read())}})
			if backward {
				w.Look("dx", dx)
				w.LookLinear(head)
			}
		}
	}
}

// tiedProgram trains one matrix as embedding and as head.
func tiedProgram(w *World) (func(), func()) {
	const vocab, dim = 37, 24
	p := w.Param(vocab, dim, 0.3)
	e := &backend.Embedding{Vocab: vocab, Dim: dim, Train: p, Padding: -1}
	head := &backend.Linear{Name: "lm_head", In: dim, Out: vocab, Train: p}
	b := w.Rows(12)
	for i := range b.Tokens {
		b.Tokens[i] %= vocab
	}
	w.Labelled(b, vocab)
	x, y, dx, dy := w.Buffer(residual, dim), w.Buffer(activation, dim), w.Buffer(residual, dim), w.Buffer(activation, dim)
	sum := w.Backend.NewSum()
	run := func() {
		w.Backend.Embed(x, e, b)
		w.Backend.Gather(y, x, b)
		w.Backend.CrossEntropy(sum, dy, y, head, b)
		w.Backend.GatherBackward(dx, dy, b)
		w.Backend.EmbedBackward(e, dx, b)
	}
	return run, func() {
		w.Look("dx", dx)
		w.LookGrad("dE", p)
	}
}

func optimiserProgram(w *World) (func(), func()) {
	ps := []backend.Param{w.Param(3, 5, 1), w.Param(300, 120, 1)}
	ls := []*backend.Linear{
		{Name: "a", In: 5, Out: 3, Train: ps[0]},
		{Name: "b", In: 120, Out: 300, Train: ps[1]},
	}
	b := w.Rows(2)
	norms := make([]float32, 0, 3)
	in := []backend.Buffer{w.Filled(activation, 2, 5, 1), w.Filled(activation, 2, 120, 1)}
	out := []backend.Buffer{w.Filled(activation, 2, 3, 1), w.Filled(activation, 2, 300, 1)}
	one := [][]*backend.Linear{ls[:1], ls[1:]}
	run := func() {
		norms = norms[:0]
		for step := 1; step <= 3; step++ {
			w.Backend.ZeroGrad(ps)
			for i := range ls {
				w.Backend.LinearBackward(nil, in[i], nil, out[i], one[i], b)
			}
			w.Backend.ScaleGrad(ps, 0.37)
			norms = append(norms, float32(w.Backend.SumSquares(ps)))
			w.Backend.AdamW(ps, backend.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Step: step})
		}
	}
	return run, func() {
		w.Results = append(w.Results, Result{"norms", norms})
		for i, p := range ps {
			rows, cols := p.Shape()
			v, m, s := make([]float32, rows*cols), make([]float32, rows*cols), make([]float32, rows*cols)
			p.Read(v)
			p.ReadMoments(m, s)
			w.Results = append(w.Results, Result{fmt.Sprint("p", i), v}, Result{fmt.Sprint("m", i), m}, Result{fmt.Sprint("v", i), s})
		}
	}
}
