package cpu

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
)

// scoreRows is the number of rows of scores in a piece of attention: query rows times the heads that share a key
// head. Scores of more rows never exist at once.
const scoreRows = 64

// span is a run of keys at consecutive positions. Column kv*HeadDim of k and v belongs to key head kv.
type span struct {
	k, v     []float32
	ldk, ldv int
	position int // of the first key
	n        int
	row      int // of the batch, the first key's; -1 for cached keys
}

// visible returns the keys of s that some query at positions first..last sees.
func (s *span) visible(first, last, window int) (from, to int) {
	if window > 0 {
		from = max(0, first-window+1-s.position)
	}
	return from, min(s.n, last-s.position+1)
}

// queries are consecutive rows of a segment whose scores are computed together.
type queries struct {
	start, n int // rows of the batch
	position int // of the first row
	spans    []span
	next     int // the next block of the same tree of segments, or -1
}

// attention is the plan of one call and its scratch.
type attention struct {
	be    *Backend
	a     *backend.Attention
	b     *backend.Batch
	group int // query heads that share a key head
	qkv   *Buffer
	cache *cache
	keys  *Buffer // [T, KVHeads*HeadDim] rotated

	spans    []span // of all segments, those of the prefix chain first
	ends     []int32
	blocks   []queries
	trees    []int32 // the first block of each tree of segments that share prefixes
	lasts    []int32 // the last block of each tree so far
	treeOf   []int32 // of each segment
	scratch  []attentionScratch
	maxKeys  int // of a block
	maxRows  int // of a block's scores
	y, lse   *Buffer
	dy, dqkv *Buffer

	rotateKeys rotateTask
	unrotate   unrotateTask
	forward    forwardTask
	backward   backwardTask
}

// attentionScratch is one worker's, for a block of queries and one key head.
type attentionScratch struct {
	q, o, do Buffer // [rows, HeadDim]
	s, ds    Buffer // [rows, keys]
	factors  []float32
}

func (t *attention) init(be *Backend) {
	t.be = be
	t.keys = &Buffer{}
	t.scratch = make([]attentionScratch, be.pool.Workers())
	t.rotateKeys.t, t.unrotate.t, t.forward.t, t.backward.t = t, t, t, t
}

// Attention computes softmax(scale * q kᵀ) v for each head, block of query rows by block.
func (be *Backend) Attention(y, lse, qkv backend.Buffer, a *backend.Attention, b *backend.Batch, c backend.Cache) {
	t := &be.attention
	t.y, t.lse = mat(y), mat(lse)
	mustEqual("columns of attention's output", t.y.cols, a.OutCols())
	mustEqual("columns of lse", t.lse.cols, a.Heads)
	store, _ := c.(*cache)
	t.begin(mat(qkv), a, b, store)
	t.y.Resize(t.qkv.rows)
	t.lse.Resize(t.qkv.rows)
	be.pool.Run(len(t.blocks)*a.KVHeads, &t.forward)
	t.store()
}

// AttentionBackward recomputes the scores from lse and writes the gradient of qkv. A tree of segments that share
// prefixes is one piece of work for each key head, so that the gradients of its keys add up in the segments' order.
func (be *Backend) AttentionBackward(dqkv, qkv, lse, dy backend.Buffer, a *backend.Attention, b *backend.Batch) {
	t := &be.attention
	t.lse, t.dy, t.dqkv = mat(lse), mat(dy), mat(dqkv)
	mustEqual("columns of attention's gradient", t.dy.cols, a.OutCols())
	mustEqual("columns of attention's dqkv", t.dqkv.cols, a.QKVCols())
	t.dqkv.Resize(mat(qkv).rows)
	t.begin(mat(qkv), a, b, nil)
	mustEqual("rows of lse", t.lse.rows, t.qkv.rows)
	mustEqual("rows of dy", t.dy.rows, t.qkv.rows)
	for i := range t.scratch {
		s := &t.scratch[i]
		s.do.shape(t.maxRows, a.HeadDim)
		s.ds.shape(t.maxRows, t.maxKeys)
	}
	for i := range t.dqkv.rows {
		clear(t.dqkv.row(i)[a.OutCols():])
	}
	be.pool.Run(len(t.trees)*a.KVHeads, &t.backward)
	be.rows(t.qkv.rows, &t.unrotate)
}

// begin checks the batch, rotates the keys and lists spans and blocks.
func (t *attention) begin(qkv *Buffer, a *backend.Attention, b *backend.Batch, c *cache) {
	t.qkv, t.a, t.b, t.cache, t.group = qkv, a, b, c, a.Heads/a.KVHeads
	mustEqual("columns of attention's input", qkv.cols, a.QKVCols())
	mustEqual("query heads left over by the key heads", a.Heads%a.KVHeads, 0)
	mustEqual("odd columns of a head", a.HeadDim%2, 0)
	mustEqual("positions of attention's rows", len(b.Positions), qkv.rows)
	mustEqual("cosines of attention's rows", len(b.Cos), qkv.rows*a.HeadDim/2)
	mustEqual("sines of attention's rows", len(b.Sin), qkv.rows*a.HeadDim/2)
	t.keys.shape(qkv.rows, a.KVHeads*a.HeadDim)
	t.be.rows(qkv.rows, &t.rotateKeys)
	t.plan()
	for i := range t.scratch { // a worker may get any block
		s := &t.scratch[i]
		s.q.shape(t.maxRows, a.HeadDim)
		s.o.shape(t.maxRows, a.HeadDim)
		s.s.shape(t.maxRows, t.maxKeys)
		s.factors = grown(s.factors, t.maxRows)
	}
}

// plan lists the spans of each segment and the blocks of its queries.
func (t *attention) plan() {
	t.spans, t.ends, t.blocks = t.spans[:0], t.ends[:0], t.blocks[:0]
	t.trees, t.lasts, t.treeOf = t.trees[:0], t.lasts[:0], t.treeOf[:0]
	t.maxKeys, t.maxRows = 0, 0
	rows, nSpans := 0, 0
	for i := range t.b.Segments {
		t.check(i)
		rows += int(t.b.Segments[i].Len)
		nSpans += t.chainSpans(i)
	}
	mustEqual("rows of attention's segments", rows, t.qkv.rows)
	if cap(t.spans) < nSpans { // at once: blocks keep slices of it
		t.spans = make([]span, 0, nSpans+nSpans/4)
	}
	for i := range t.b.Segments {
		t.addSegment(i)
	}
}

// check panics unless segment i lies in the batch and its positions are consecutive.
func (t *attention) check(i int) {
	s := &t.b.Segments[i]
	if s.Start < 0 || s.Len < 0 || s.Past < 0 || int(s.Start)+int(s.Len) > t.qkv.rows {
		panic(fmt.Sprintf("cpu: segment %d: rows %d+%d of %d, past %d", i, s.Start, s.Len, t.qkv.rows, s.Past))
	}
	if s.Prefix < -1 || int(s.Prefix) >= i {
		panic(fmt.Sprintf("cpu: segment %d: prefix %d, want -1 or an earlier segment", i, s.Prefix))
	}
	if s.Past > 0 {
		if t.cache == nil {
			panic(fmt.Sprintf("cpu: segment %d: %d cached positions, but no cache", i, s.Past))
		}
		t.cache.held(int(s.Slot), int(s.Past))
	}
	positions := t.b.Positions[s.Start : s.Start+s.Len]
	for j, p := range positions {
		if p != positions[0]+int32(j) {
			panic(fmt.Sprintf("cpu: segment %d: position %d at its row %d, want %d", i, p, j, positions[0]+int32(j)))
		}
	}
}

// chainSpans returns how many spans segment i and its prefixes have at most.
func (t *attention) chainSpans(i int) (n int) {
	for ; i >= 0; i = int(t.b.Segments[i].Prefix) {
		n += 2
	}
	return n
}

func (t *attention) addSegment(i int) {
	s := &t.b.Segments[i]
	begin := len(t.spans)
	tree := int32(len(t.trees))
	end := 0 // position after the prefix
	if p := s.Prefix; p >= 0 {
		from := int32(0)
		if p > 0 {
			from = t.ends[p-1]
		}
		t.spans = append(t.spans, t.spans[from:t.ends[p]]...)
		tree = t.treeOf[p]
		if n := len(t.spans); n > begin {
			end = t.spans[n-1].position + t.spans[n-1].n
		}
	} else {
		t.trees, t.lasts = append(t.trees, -1), append(t.lasts, -1)
	}
	own := end + int(s.Past)
	if s.Len > 0 {
		own = int(t.b.Positions[s.Start])
	}
	if own < end+int(s.Past) {
		panic(fmt.Sprintf("cpu: segment %d: begins at position %d, after a prefix up to %d and %d cached", i, own, end, s.Past))
	}
	if s.Past > 0 {
		rows := t.cache.held(int(s.Slot), int(s.Past)).v
		t.spans = append(t.spans, span{k: rows, v: rows[t.cache.cols/2:], ldk: t.cache.cols, ldv: t.cache.cols,
			position: own - int(s.Past), n: int(s.Past), row: -1})
	}
	if s.Len > 0 {
		at, values := int(s.Start), (t.a.Heads+t.a.KVHeads)*t.a.HeadDim
		t.spans = append(t.spans, span{k: t.keys.v[at*t.keys.ld:], v: t.qkv.v[at*t.qkv.ld+values:], ldk: t.keys.ld, ldv: t.qkv.ld,
			position: own, n: int(s.Len), row: at})
	}
	t.treeOf = append(t.treeOf, tree)
	t.ends = append(t.ends, int32(len(t.spans)))
	t.addBlocks(s, tree, own, t.spans[begin:])
}

func (t *attention) addBlocks(s *backend.Segment, tree int32, position int, spans []span) {
	step := max(1, scoreRows/t.group)
	for done := 0; done < int(s.Len); done += step {
		q := queries{start: int(s.Start) + done, n: min(step, int(s.Len)-done), position: position + done, spans: spans, next: -1}
		t.maxKeys = max(t.maxKeys, t.countKeys(&q))
		t.maxRows = max(t.maxRows, q.n*t.group)
		i := int32(len(t.blocks))
		if last := t.lasts[tree]; last >= 0 {
			t.blocks[last].next = int(i)
		} else {
			t.trees[tree] = i
		}
		t.lasts[tree] = i
		t.blocks = append(t.blocks, q)
	}
}

func (t *attention) countKeys(q *queries) (n int) {
	for i := range q.spans {
		from, to := q.spans[i].visible(q.position, q.position+q.n-1, t.a.Window)
		n += max(0, to-from)
	}
	return n
}

func (t *attention) angles(row int) (cos, sin []float32) {
	half := t.a.HeadDim / 2
	return t.b.Cos[row*half : (row+1)*half], t.b.Sin[row*half : (row+1)*half]
}

type rotateTask struct{ t *attention }

func (r *rotateTask) Piece(_, i int) {
	t, hd := r.t, r.t.a.HeadDim
	from, to := blockOf(i, t.qkv.rows)
	for row := from; row < to; row++ {
		cos, sin := t.angles(row)
		t.be.unit.Rotate(t.keys.row(row), hd, t.qkv.row(row)[t.a.OutCols():], hd, t.a.KVHeads, cos, sin)
	}
}

type unrotateTask struct{ t *attention }

func (u *unrotateTask) Piece(_, i int) {
	t, hd := u.t, u.t.a.HeadDim
	from, to := blockOf(i, t.dqkv.rows)
	for row := from; row < to; row++ {
		cos, sin := t.angles(row)
		k := t.dqkv.row(row)[t.a.OutCols():]
		t.be.unit.RotateBack(k, hd, k, hd, t.a.KVHeads, cos, sin)
	}
}

// queryColumn returns where query head j of key head kv begins in a row.
func (t *attention) queryColumn(kv, j int) int { return (kv*t.group + j) * t.a.HeadDim }

// gatherQueries writes the rotated queries of a block, a row for each (row, head), to s.q.
func (t *attention) gatherQueries(s *attentionScratch, q *queries, kv int) {
	for r := range q.n {
		cos, sin := t.angles(q.start + r)
		x := t.qkv.row(q.start + r)[t.queryColumn(kv, 0):]
		t.be.unit.Rotate(s.q.v[r*t.group*s.q.ld:], s.q.ld, x, t.a.HeadDim, t.group, cos, sin)
	}
}

// product computes dst[rows, keys] = alpha * x kᵀ for the visible keys (or values) of all spans, and returns how
// many there are.
func (t *attention) product(w int, dst, x *Buffer, alpha float32, q *queries, kv int, values bool) (keys int) {
	hd := t.a.HeadDim
	for i := range q.spans {
		sp := &q.spans[i]
		from, to := sp.visible(q.position, q.position+q.n-1, t.a.Window)
		if from >= to {
			continue
		}
		// [rows, HeadDim] x [HeadDim, keys] -> [rows, keys]
		t.be.engine.GemmOn(w, dst.v[keys:], dst.ld, q.n*t.group, to-from, hd, alpha, rowMajor(x.v, x.ld), transposed(sp.head(values, from, kv*hd)), false)
		keys += to - from
	}
	return keys
}

// head returns the keys (or values) from key i on, of the key head that begins at column.
func (s *span) head(values bool, i, column int) gemm.View {
	if values {
		return rowMajor(s.v[i*s.ldv+column:], s.ldv)
	}
	return rowMajor(s.k[i*s.ldk+column:], s.ldk)
}

func transposed(v gemm.View) gemm.View {
	return gemm.View{Data: v.Data, RowStride: v.ColStride, ColStride: v.RowStride}
}

// seen returns which columns lo..hi-1 of the block's scores its row r sees: one run, since positions rise along the
// spans.
func (t *attention) seen(q *queries, r int) (lo, hi int) {
	at, position := 0, q.position+r
	for i := range q.spans {
		sp := &q.spans[i]
		from, to := sp.visible(q.position, q.position+q.n-1, t.a.Window)
		if from >= to {
			continue
		}
		first, last := sp.visible(position, position, t.a.Window)
		if first, last = max(first, from), min(last, to); first < last {
			if hi == 0 {
				lo = at + first - from
			}
			hi = at + last - from
		}
		at += to - from
	}
	return lo, hi
}

// hide clears what a row does not see.
func hide(s []float32, lo, hi int) {
	clear(s[:lo])
	clear(s[hi:])
}

type forwardTask struct{ t *attention }

func (f *forwardTask) Piece(w, i int) {
	t := f.t
	hd, kvHeads := t.a.HeadDim, t.a.KVHeads
	q, kv, s := &t.blocks[i/kvHeads], i%kvHeads, &t.scratch[w]
	t.gatherQueries(s, q, kv)
	n := t.product(w, &s.s, &s.q, t.a.Scale, q, kv, false)
	for r := range q.n {
		lse := t.lse.row(q.start + r)
		lo, hi := t.seen(q, r)
		for j := range t.group {
			row := r*t.group + j
			scores := s.s.v[row*s.s.ld:][:n]
			top := t.be.unit.Max(scores[lo:hi])
			total := t.be.unit.ExpSum(scores[lo:hi], top)
			hide(scores, lo, hi)
			s.factors[row] = float32(1 / total)
			lse[kv*t.group+j] = float32(float64(top) + math.Log(total))
		}
	}
	t.weigh(w, &s.o, &s.s, q, kv, true)
	for r := range q.n {
		y := t.y.row(q.start + r)
		for j := range t.group {
			row := r*t.group + j
			t.be.unit.Scale(y[t.queryColumn(kv, j):][:hd], s.o.row(row), s.factors[row])
		}
	}
}

// weigh computes dst[rows, HeadDim] = p times the visible values (or keys) of all spans.
func (t *attention) weigh(w int, dst, p *Buffer, q *queries, kv int, values bool) {
	hd, at := t.a.HeadDim, 0
	for i := range q.spans {
		sp := &q.spans[i]
		from, to := sp.visible(q.position, q.position+q.n-1, t.a.Window)
		if from >= to {
			continue
		}
		// [rows, keys] x [keys, HeadDim] -> [rows, HeadDim]
		t.be.engine.GemmOn(w, dst.v, dst.ld, q.n*t.group, hd, to-from, 1, rowMajor(p.v[at:], p.ld), sp.head(values, from, kv*hd), at > 0)
		at += to - from
	}
}

// store leaves the keys and values of the batch's segments in their slots.
func (t *attention) store() {
	if t.cache == nil {
		return
	}
	kvCols := t.a.KVHeads * t.a.HeadDim
	for i := range t.b.Segments {
		seg := &t.b.Segments[i]
		if seg.Slot < 0 || seg.Len == 0 {
			continue
		}
		n := int(seg.Past + seg.Len)
		s := t.cache.at(int(seg.Slot), n)
		for r := range int(seg.Len) {
			row := s.v[(int(seg.Past)+r)*t.cache.cols:][:t.cache.cols]
			copy(row, t.keys.row(int(seg.Start)+r))
			copy(row[kvCols:], t.qkv.row(int(seg.Start) + r)[t.a.OutCols()+kvCols:])
		}
		s.n = n
	}
}

type backwardTask struct{ t *attention }

func (b *backwardTask) Piece(w, i int) {
	t := b.t
	kv := i % t.a.KVHeads
	for at := int(t.trees[i/t.a.KVHeads]); at >= 0; at = t.blocks[at].next {
		t.backwardBlock(w, &t.blocks[at], kv)
	}
}

// backwardBlock does a block of queries with one key head: p = e^(s-lse), dp = dy vᵀ, dv += pᵀ dy,
// ds = scale * p∘(dp - delta), dk += dsᵀ q, dq = ds k (Dao, "FlashAttention-2", 2023, section 3.1). But delta is
// sum(p∘dp), not sum(dy∘y): it cancels to the last bit where a query sees one key, or keys whose dp are the same.
func (t *attention) backwardBlock(w int, q *queries, kv int) {
	hd, s := t.a.HeadDim, &t.scratch[w]
	t.gatherQueries(s, q, kv)
	for r := range q.n {
		for j := range t.group {
			copy(s.do.row(r*t.group+j), t.dy.row(q.start + r)[t.queryColumn(kv, j):][:hd])
		}
	}
	n := t.product(w, &s.s, &s.q, t.a.Scale, q, kv, false)
	t.product(w, &s.ds, &s.do, 1, q, kv, true)
	for r := range q.n {
		lse := t.lse.row(q.start + r)
		lo, hi := t.seen(q, r)
		for j := range t.group {
			row := r*t.group + j
			p, ds := s.s.v[row*s.s.ld:][:n], s.ds.v[row*s.ds.ld:][:n]
			t.softmaxBackward(p[lo:hi], ds[lo:hi], lse[kv*t.group+j])
			hide(p, lo, hi)
			hide(ds, lo, hi)
		}
	}
	t.addKeys(w, s, q, kv)
	t.weigh(w, &s.o, &s.ds, q, kv, false)
	for r := range q.n {
		cos, sin := t.angles(q.start + r)
		dq := t.dqkv.row(q.start + r)
		t.be.unit.RotateBack(dq[t.queryColumn(kv, 0):], hd, s.o.v[r*t.group*s.o.ld:], s.o.ld, t.group, cos, sin)
	}
}

// softmaxBackward turns scores into p and the gradient of p into that of the unscaled scores. lse is rounded to f32:
// dividing by the sum makes up for that.
func (t *attention) softmaxBackward(p, ds []float32, lse float32) {
	total, dot := t.be.unit.ExpDot(p, ds, lse)
	t.be.unit.SoftmaxBackward(p, ds, float32(1/total), float32(dot/total), t.a.Scale)
}

// addKeys adds what the block gives to the gradients of the keys and values it sees.
func (t *attention) addKeys(w int, s *attentionScratch, q *queries, kv int) {
	hd, at, m := t.a.HeadDim, 0, q.n*t.group
	keys := t.a.OutCols() + kv*hd
	values := keys + t.a.KVHeads*hd
	for i := range q.spans {
		sp := &q.spans[i]
		from, to := sp.visible(q.position, q.position+q.n-1, t.a.Window)
		if from >= to {
			continue
		}
		rows := t.dqkv.v[(sp.row+from)*t.dqkv.ld:]
		// [keys, rows] x [rows, HeadDim] -> [keys, HeadDim]
		t.be.engine.GemmOn(w, rows[values:], t.dqkv.ld, to-from, hd, m, 1, columnMajor(s.s.v[at:], s.s.ld), rowMajor(s.do.v, s.do.ld), true)
		t.be.engine.GemmOn(w, rows[keys:], t.dqkv.ld, to-from, hd, m, 1, columnMajor(s.ds.v[at:], s.ds.ld), rowMajor(s.q.v, s.q.ld), true)
		at += to - from
	}
}
