package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
)

// attentionTolerance is relative to the largest value. f32: sums of up to some hundred terms in another order, and
// e^x. bf16: rotated queries and keys are rounded (scores are off by some 2^-9 of their terms, and p, which is their
// exponential, by as much), p and ds are rounded for the next product, and what is written is.
func attentionTolerance(be *Backend) float64 {
	if be.half {
		return 2e-2
	}
	if onCard() {
		return 1e-5 // e^x and log x are approximations
	}
	return 5e-6
}

// testAttention runs p in each order of the threads against float64, and wants the same bits in each.
func testAttention(t *testing.T, be *Backend, p backendtest.Program) {
	t.Helper()
	want := backendtest.Execute(backendtest.Oracle, be.half, p)
	var first []backendtest.Result
	for _, order := range orders {
		setOrder(t, order)
		got := backendtest.Execute(be, be.half, p)
		backendtest.Compare(t, got, want, attentionTolerance(be))
		if first == nil {
			first = got
		}
		for i := range got {
			if !backendtest.SameBits(got[i].V, first[i].V) {
				t.Errorf("%s: not the same bits where threads take turns in order %d", got[i].Name, order)
			}
		}
	}
	setOrder(t, 0)
}

// chainOf makes segments of the given lengths and prefixes.
func chainOf(lengths, prefixes []int32) (segments []backend.Segment) {
	row := int32(0)
	for i, n := range lengths {
		segments = append(segments, backend.Segment{Start: row, Len: n, Prefix: prefixes[i], Slot: -1})
		row += n
	}
	return segments
}

// TestAttentionShapes: heads of all widths that kernels tell apart, groups, windows, and trees of odd lengths.
func TestAttentionShapes(t *testing.T) {
	one := func(n int32) []backend.Segment { return chainOf([]int32{n}, []int32{-1}) }
	tree := chainOf([]int32{67, 0, 5, 33, 1, 70}, []int32{-1, 0, 1, 1, 3, -1})
	cases := map[string]struct {
		a        backend.Attention
		segments []backend.Segment
	}{
		"64":               {backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 64}, chainOf([]int32{130, 3}, []int32{-1, -1})},
		"128":              {backend.Attention{Heads: 2, KVHeads: 2, HeadDim: 128}, one(69)},
		"128/tree":         {backend.Attention{Heads: 3, KVHeads: 1, HeadDim: 128, Window: 40}, chainOf([]int32{21, 0, 30}, []int32{-1, 0, 1})},
		"16/tree":          {backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 16}, tree},
		"16/tree/window":   {backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 16, Window: 50}, tree},
		"48/eight to one":  {backend.Attention{Heads: 8, KVHeads: 1, HeadDim: 48}, one(19)},
		"80":               {backend.Attention{Heads: 1, KVHeads: 1, HeadDim: 80}, one(65)},
		"24/window":        {backend.Attention{Heads: 6, KVHeads: 2, HeadDim: 24, Window: 7}, one(40)},
		"8/seventy to one": {backend.Attention{Heads: 70, KVHeads: 1, HeadDim: 8}, one(5)},
		"136":              {backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 136}, one(18)},
		"256":              {backend.Attention{Heads: 1, KVHeads: 1, HeadDim: 256}, one(5)},
		"one row":          {backend.Attention{Heads: 5, KVHeads: 5, HeadDim: 32}, one(1)},
	}
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		be.poison = true
		for name, c := range cases {
			c.a.Scale = float32(1 / math.Sqrt(float64(c.a.HeadDim)))
			t.Run(compute+"/"+name, func(t *testing.T) { testAttention(t, be, backendtest.AttentionProgram(c.a, c.segments)) })
		}
	}
}

// TestAttentionSmallCards: cards for games have 99 KiB of shared memory for a block, which suffices for heads of up to 128
// columns; where it does not the error says so.
func TestAttentionSmallCards(t *testing.T) {
	d := emulatedDevice(t)
	d.SetShared(99 << 10)
	defer d.SetShared(163 << 10)
	segments := chainOf([]int32{3}, []int32{-1})
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		backendtest.Execute(be, be.half, backendtest.AttentionProgram(backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 128, Scale: 0.1}, segments))
		err := failure(func() {
			backendtest.Execute(be, be.half, backendtest.AttentionProgram(backend.Attention{Heads: 1, KVHeads: 1, HeadDim: 256, Scale: 0.1}, segments))
		})
		if want := "bytes of shared memory, the device has 101376 for a block"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", compute, err, want)
		}
		be.Wait()
	}
}

// TestAttentionForests draws geometries and forests of segments.
func TestAttentionForests(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		be.poison = true
		for seed := range uint64(8) {
			r := rand.New(rand.NewPCG(seed, 7))
			kv := 1 + r.IntN(2)
			a := backend.Attention{KVHeads: kv, Heads: kv * (1 + r.IntN(4)), HeadDim: 2 * (1 + r.IntN(20)), Scale: 0.3}
			if be.half {
				a.HeadDim = 8 * (1 + r.IntN(5))
			}
			if r.IntN(2) == 0 {
				a.Window = 1 + r.IntN(60)
			}
			var lengths, prefixes []int32
			for i := range 1 + r.IntN(5) {
				lengths, prefixes = append(lengths, int32(r.IntN(45))), append(prefixes, int32(r.IntN(i+1))-1)
			}
			t.Run(fmt.Sprint(compute, "/", seed), func(t *testing.T) {
				got := backendtest.Execute(be, be.half, backendtest.AttentionProgram(a, chainOf(lengths, prefixes)))
				backendtest.Compare(t, got, backendtest.Execute(backendtest.Oracle, be.half, backendtest.AttentionProgram(a, chainOf(lengths, prefixes))), attentionTolerance(be))
			})
		}
	}
}

// longCache fills a slot with n positions, then decodes from it: some rows, one row, and two sequences that go on from the
// slot without writing to it.
func longCache(a backend.Attention, n int32) backendtest.Program {
	return func(w *backendtest.World) (func(), func()) {
		batches := []*backend.Batch{
			w.Batch(0, a.HeadDim, backend.Segment{Len: n, Prefix: -1, Slot: 1}),
			w.Batch(0, a.HeadDim, backend.Segment{Len: 3, Prefix: -1, Slot: 1, Past: n}, backend.Segment{Start: 3, Len: 2, Prefix: -1, Slot: 0}),
			w.Batch(0, a.HeadDim, backend.Segment{Len: 1, Prefix: -1, Slot: 1, Past: n + 3}),
			w.Batch(0, a.HeadDim, backend.Segment{Prefix: -1, Slot: 1, Past: n - 5}, backend.Segment{Len: 1, Prefix: 0, Slot: 2}, backend.Segment{Start: 1, Len: 2, Prefix: 0, Slot: -1}),
		}
		c := w.Backend.NewCache(&a)
		var in, ys, lses []backend.Buffer
		for _, b := range batches {
			in = append(in, w.Filled(backend.Activation, len(b.Positions), a.QKVCols(), 1))
			ys, lses = append(ys, w.Buffer(backend.Activation, a.OutCols())), append(lses, w.Buffer(backend.Stat, a.Heads))
		}
		run := func() {
			for i, b := range batches {
				w.Backend.Attention(ys[i], lses[i], in[i], &a, b, c)
			}
		}
		return run, func() {
			for i := range ys {
				w.Look(fmt.Sprint("y", i), ys[i])
				w.Look(fmt.Sprint("lse", i), lses[i])
			}
		}
	}
}

// TestAttentionDecode: long caches, whose keys are cut into pieces.
func TestAttentionDecode(t *testing.T) {
	for _, c := range []struct {
		compute string
		a       backend.Attention
		n       int32
	}{
		{"f32", backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 6}, 300},
		{"f32", backend.Attention{Heads: 1, KVHeads: 1, HeadDim: 40, Window: 270}, 400},
		{"bf16", backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 32}, 530},
		{"bf16", backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 16, Window: 515}, 600},
		{"bf16", backend.Attention{Heads: 1, KVHeads: 1, HeadDim: 128}, 515},
		{"bf16", backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 6}, 270},
	} {
		be := emulated(t, c.compute)
		be.poison = true
		c.a.Scale = 0.5
		t.Run(fmt.Sprint(c.compute, "/", c.a.HeadDim), func(t *testing.T) {
			testAttention(t, be, longCache(c.a, c.n))
			if !slices.ContainsFunc(be.attention.plans[:], func(p attentionPlan) bool { return len(p.splits) > 0 }) {
				t.Error("no keys were cut into pieces")
			}
		})
	}
}

// attend runs both passes over one batch.
func attend(be *Backend, a *backend.Attention, b *backend.Batch, qkv, dy []float32) (y, d []float32) {
	n := len(b.Positions)
	in, grad := be.NewBuffer(backend.Activation, a.QKVCols()), be.NewBuffer(backend.Activation, a.OutCols())
	in.Resize(n)
	in.Write(qkv)
	grad.Resize(n)
	grad.Write(dy)
	out, lse, dqkv := be.NewBuffer(backend.Activation, a.OutCols()), be.NewBuffer(backend.Stat, a.Heads), be.NewBuffer(backend.Activation, a.QKVCols())
	be.Attention(out, lse, in, a, b, nil)
	be.AttentionBackward(dqkv, in, lse, grad, a, b)
	y, d = make([]float32, n*a.OutCols()), make([]float32, n*a.QKVCols())
	out.Read(y)
	dqkv.Read(d)
	return y, d
}

// TestAttentionOneKey: the softmax of a query that sees one key, or keys with one value, is a constant, and the gradients
// of q and k are exactly 0: Adam would make a step of full size of any rounding left over.
func TestAttentionOneKey(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, be.half)
		for _, window := range []int{0, 1} {
			a := &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 24, Scale: 0.3, Window: window}
			const n = 70
			values := a.QKVCols() - a.KVHeads*a.HeadDim
			qkv, dy := w.Values(n*a.QKVCols(), 3), w.Values(n*a.OutCols(), 1)
			if window == 0 {
				for r := range n {
					copy(qkv[r*a.QKVCols()+values:(r+1)*a.QKVCols()], qkv[values:a.QKVCols()])
				}
			}
			_, d := attend(be, a, w.Batch(0, a.HeadDim, chainOf([]int32{n}, []int32{-1})...), qkv, dy)
			for i, v := range d {
				if i%a.QKVCols() < values && v != 0 {
					t.Fatalf("%s, window %d: gradient %g at row %d column %d, want 0", compute, window, v, i/a.QKVCols(), i%a.QKVCols())
				}
			}
		}
	}
}

// TestAttentionAlone: a sequence has the same bits in any batch.
func TestAttentionAlone(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, be.half)
		a := &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 16, Scale: 0.25}
		lengths := []int32{3, 90, 1, 40}
		n := 134
		qkv, dy := w.Values(n*a.QKVCols(), 1), w.Values(n*a.OutCols(), 1)
		y, d := attend(be, a, w.Batch(0, a.HeadDim, chainOf(lengths, []int32{-1, -1, -1, -1})...), qkv, dy)
		at := 0
		for i, l := range lengths {
			to := at + int(l)
			gotY, gotD := attend(be, a, w.Batch(0, a.HeadDim, chainOf([]int32{l}, []int32{-1})...), qkv[at*a.QKVCols():to*a.QKVCols()], dy[at*a.OutCols():to*a.OutCols()])
			if !backendtest.SameBits(gotY, y[at*a.OutCols():to*a.OutCols()]) {
				t.Errorf("%s: y of segment %d depends on the others", compute, i)
			}
			if !backendtest.SameBits(gotD, d[at*a.QKVCols():to*a.QKVCols()]) {
				t.Errorf("%s: dqkv of segment %d depends on the others", compute, i)
			}
			at = to
		}
	}
}

// TestAttentionNaN: a NaN reaches the results of its row and not those of another sequence.
func TestAttentionNaN(t *testing.T) {
	finite := func(v []float32) bool {
		for _, f := range v {
			if f-f != 0 {
				return false
			}
		}
		return true
	}
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, be.half)
		a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 8, Scale: 0.5}
		b := w.Batch(0, a.HeadDim, chainOf([]int32{70, 5}, []int32{-1, -1})...)
		for _, column := range []int{0, 17, 25} { // of a query, a key, a value
			qkv, dy := w.Values(75*a.QKVCols(), 1), w.Values(75*a.OutCols(), 1)
			qkv[66*a.QKVCols()+column] = float32(math.NaN())
			y, d := attend(be, a, b, qkv, dy)
			for name, v := range map[string][]float32{"y": y, "dqkv": d} {
				cols := len(v) / 75
				if finite(v[66*cols : 67*cols]) {
					t.Errorf("%s: column %d: %s loses a NaN", compute, column, name)
				}
				if !finite(v[70*cols:]) {
					t.Errorf("%s: column %d: a NaN of %s reaches another sequence", compute, column, name)
				}
			}
		}
	}
}

// TestAttentionSerial: what is kept of a batch is that batch's, and once it is there nothing is allocated any more but by the driver's calls.
func TestAttentionSerial(t *testing.T) {
	be := emulated(t, "bf16")
	w := backendtest.NewWorld(be, true)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 16, Scale: 0.25}
	long := w.Batch(0, 16, chainOf([]int32{40, 9}, []int32{-1, 0})...)
	short := w.Batch(0, 16, chainOf([]int32{20, 29}, []int32{-1, -1})...)
	qkv, dy := w.Values(49*a.QKVCols(), 1), w.Values(49*a.OutCols(), 1)
	var want [2][]float32
	for i, b := range []*backend.Batch{long, short} {
		want[i], _ = attend(be, a, b, qkv, dy)
	}
	long.Serial, short.Serial = 1<<40, 1<<40+1
	for range 2 {
		for i, b := range []*backend.Batch{long, short} {
			if got, _ := attend(be, a, b, qkv, dy); !backendtest.SameBits(got, want[i]) {
				t.Errorf("batch %d differs with a serial", i)
			}
		}
	}
	narrow := *a
	narrow.Window = 3
	if got, _ := attend(be, &narrow, short, qkv, dy); backendtest.SameBits(got, want[1]) {
		t.Error("another window, the same result")
	}

	in, y, lse := w.Filled(backend.Activation, 49, a.QKVCols(), 1), w.Buffer(backend.Activation, a.OutCols()), w.Buffer(backend.Stat, a.Heads)
	d, grad := w.Buffer(backend.Activation, a.QKVCols()), w.Filled(backend.Activation, 49, a.OutCols(), 1)
	run := func() {
		be.Attention(y, lse, in, a, long, nil)
		be.AttentionBackward(d, in, lse, grad, a, long)
	}
	run()
	held := be.heap.held
	if n := testing.AllocsPerRun(5, run); n > 7 { // calls of the driver: five kernels, two contexts made current
		t.Errorf("%v allocations a run", n)
	}
	if be.heap.held != held {
		t.Errorf("%d bytes of the card more than after the first run", be.heap.held-held)
	}
}

// TestAttentionReserve: what is reserved is enough, for long segments.
func TestAttentionReserve(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, be.half)
		a := &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 8, Scale: 0.25}
		b := w.Batch(0, 8, chainOf([]int32{150}, []int32{-1})...)
		be.Reserve(backend.Need{Rows: 150, Forward: 150, Keys: 150, Attention: a, Head: &backend.Linear{In: 1, Out: 1}})
		s := &be.attention
		before := []memory{s.rotated, s.delta, s.plans[0].mem}
		attend(be, a, b, w.Values(150*a.QKVCols(), 1), w.Values(150*a.OutCols(), 1))
		for i, m := range []memory{s.rotated, s.delta, s.plans[0].mem} {
			if m != before[i] {
				t.Errorf("%s: memory %d grew from %d to %d bytes", compute, i, before[i].bytes, m.bytes)
			}
		}
	}
}

// TestCache: slots grow and keep what they hold, and the memory is counted.
func TestCache(t *testing.T) {
	be := emulated(t, "bf16")
	be.poison = true
	w := backendtest.NewWorld(be, true)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 16, Scale: 0.25}
	const n = 150
	cols := a.QKVCols()
	qkv := w.Values(n*cols, 1)
	y, lse := be.NewBuffer(backend.Activation, a.OutCols()), be.NewBuffer(backend.Stat, a.Heads)
	forward := func(at, l int, c backend.Cache) []float32 {
		in := be.NewBuffer(backend.Activation, cols)
		in.Resize(l)
		in.Write(qkv[at*cols : (at+l)*cols])
		be.Attention(y, lse, in, a, w.Batch(0, a.HeadDim, backend.Segment{Len: int32(l), Prefix: -1, Slot: 0, Past: int32(at)}), c)
		got := make([]float32, l*a.OutCols())
		y.Read(got)
		return got
	}
	want := forward(0, n, be.NewCache(a))
	c := be.NewCache(a)
	var got []float32
	for at := 0; at < n; at += 30 {
		got = append(got, forward(at, 30, c)...)
	}
	if d := backendtest.Distance(got, want); d > 1e-2 {
		t.Errorf("in steps: distance %.2g", d)
	}
	// Slot 0 has doubled from 64 positions of 32 bf16 twice; the table has room for 32 slots.
	if want := int64(256*32*2 + 256); c.Bytes() != want {
		t.Errorf("%d bytes held, want %d", c.Bytes(), want)
	}
	c.Copy(3, 0, 100)
	c.Truncate(0, 100)
	again := forward(100, 50, c)
	if d := backendtest.Distance(again, want[100*a.OutCols():]); d > 1e-2 {
		t.Errorf("after Truncate: distance %.2g", d)
	}
	for text, f := range map[string]func(){
		"101 positions of cache slot 3 wanted, it holds 100": func() { c.Truncate(3, 101) },
		"cache slot -1": func() { c.Copy(-1, 0, 1) },
		"segments 0 and 1 both name cache slot 0": func() {
			b := w.Batch(0, a.HeadDim, backend.Segment{Prefix: -1, Slot: 0, Past: 9}, backend.Segment{Len: 1, Prefix: -1, Slot: 0, Past: 7})
			be.Attention(y, lse, w.Filled(backend.Activation, 1, cols, 1), a, b, c)
		},
	} {
		wantPanic(t, text, f)
	}
}

// TestAttentionMistakes: what does not fit is named.
func TestAttentionMistakes(t *testing.T) {
	be := emulated(t, "f32")
	w := backendtest.NewWorld(be, false)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 2, Scale: 1}
	qkv, y, lse := w.Filled(backend.Activation, 4, 8, 1), be.NewBuffer(backend.Activation, 4), be.NewBuffer(backend.Stat, 2)
	with := func(f func(*backend.Batch)) func() {
		b := w.Batch(0, 2, chainOf([]int32{4}, []int32{-1})...)
		f(b)
		return func() { be.Attention(y, lse, qkv, a, b, nil) }
	}
	for text, f := range map[string]func(){
		"segment 0: position 7 at its row 2, want 2": with(func(b *backend.Batch) { b.Positions[2] = 7 }),
		"segment 1: begins at position 1, after a prefix up to 2 and 0 cached": with(func(b *backend.Batch) {
			b.Segments = chainOf([]int32{2, 2}, []int32{-1, 0})
			b.Positions[2], b.Positions[3] = 1, 2
		}),
		"rows of attention's segments: 3, want 4": with(func(b *backend.Batch) { b.Segments[0].Len = 3 }),
		"prefix 0, want -1 or an earlier segment": with(func(b *backend.Batch) { b.Segments[0].Prefix = 0 }),
		"2 cached positions, but no cache":        with(func(b *backend.Batch) { b.Segments[0].Past = 2 }),
		"segment 0: rows 0+9 of 4":                with(func(b *backend.Batch) { b.Segments[0].Len = 9 }),
		"cosines of attention's rows: 3, want 4":  with(func(b *backend.Batch) { b.Cos = b.Cos[1:] }),
		"2 positions of cache slot 1 wanted, it holds 0": func() {
			b := w.Batch(0, 2, backend.Segment{Len: 4, Prefix: -1, Slot: 1, Past: 2})
			be.Attention(y, lse, qkv, a, b, be.NewCache(a))
		},
		"heads of 300 columns, at most 256": func() {
			wide := &backend.Attention{Heads: 1, KVHeads: 1, HeadDim: 300}
			be.Attention(be.NewBuffer(backend.Activation, 300), be.NewBuffer(backend.Stat, 1), w.Filled(backend.Activation, 1, 900, 1), wide, w.Rows(1), nil)
		},
	} {
		wantPanic(t, text, f)
	}
	// What failed leaves nothing behind, and a batch without rows is none.
	with(func(*backend.Batch) {})()
	qkv.Resize(0)
	be.Attention(y, lse, qkv, a, &backend.Batch{}, nil)
	be.AttentionBackward(w.Buffer(backend.Activation, 8), qkv, lse, y, a, &backend.Batch{})
}

func wantPanic(t *testing.T, text string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if r := fmt.Sprint(recover()); !strings.Contains(r, text) {
			t.Errorf("panic %q, want %q in it", r, text)
		}
	}()
	f()
}
