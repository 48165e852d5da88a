package cuda

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// queryTile and keyTile are attention.h's.
type queryTile struct{ row, n, position, head, heads, first, count, part int32 }

type keyTile struct{ row, slot, position, n, first, count int32 }

// attentionPlan says how the work of a batch is cut into tiles, on the host and on the card. It depends on the batch's
// segments alone, and what becomes of a row on its own sequence alone.
type attentionPlan struct {
	serial uint64
	used   uint64 // the turn of its last use
	of     backend.Attention
	rows   int
	cached bool
	tile   int // packed query rows, and keys, of a tile

	queries []queryTile // those with most keys first
	splits  []queryTile // query tiles whose keys are cut into pieces
	keys    []keyTile   // segment by segment
	seen    []int32     // key tiles of each query tile
	seers   []int32     // query tiles of each key tile
	places  []int32     // slot and position of each row's key in the cache
	parts   int         // packed rows of the pieces

	segments []plannedSegment
	chain    []int32 // segments that the one at hand continues, itself first
	slots    []int32 // of each slot: 1 + the segment that names it

	raw                                                    []byte
	mem                                                    memory
	atQueries, atSplits, atKeys, atSeen, atSeers, atPlaces driver.Ptr
}

// plannedSegment is where a segment's keys lie among the tiles, and the position after them.
type plannedSegment struct{ first, count, end int32 }

// pieceTiles is the number of key tiles in a piece of a query tile that is cut. Cut are sequences that add few rows to many
// cached keys: one tile of queries would keep one processor busy for each key head.
const pieceTiles = 8

// plan returns the plan of b, which is kept as long as few others come between.
func (be *Backend) plan(a *backend.Attention, b *backend.Batch, rows int, c *cache) *attentionPlan {
	s := &be.attention
	s.turn++
	p := &s.plans[0]
	for i := range s.plans {
		o := &s.plans[i]
		if b.Serial != 0 && o.serial == b.Serial && o.of == *a && o.rows == rows && o.cached == (c != nil) {
			o.used = s.turn
			return o
		}
		if o.used < p.used {
			p = o
		}
	}
	p.serial, p.used = 0, 0 // until all of it is there
	p.of, p.rows, p.cached, p.tile = *a, rows, c != nil, be.attentionTile(a)
	p.build(b)
	p.place(be)
	if p.serial = b.Serial; b.Serial != 0 {
		p.used = s.turn
	}
	return p
}

func (p *attentionPlan) build(b *backend.Batch) {
	p.queries, p.splits, p.keys, p.seen, p.seers = p.queries[:0], p.splits[:0], p.keys[:0], p.seen[:0], p.seers[:0]
	p.places, p.segments, p.slots, p.parts = p.places[:0], p.segments[:0], p.slots[:0], 0
	rows := 0
	for i := range b.Segments {
		p.check(b, i)
		p.addKeys(b, i)
		p.addQueries(b, i)
		rows += int(b.Segments[i].Len)
	}
	mustEqual("rows of attention's segments", rows, p.rows)
	if p.cached {
		p.addPlaces(b)
	}
	slices.SortStableFunc(p.queries, func(x, y queryTile) int { return int(y.count - x.count) })
	if !p.cached {
		p.addSeers()
	}
}

// check panics unless segment i lies in the batch and its positions are consecutive.
func (p *attentionPlan) check(b *backend.Batch, i int) {
	s := &b.Segments[i]
	if s.Start < 0 || s.Len < 0 || s.Past < 0 || int(s.Start)+int(s.Len) > p.rows {
		panic(fmt.Sprintf("cuda: segment %d: rows %d+%d of %d, past %d", i, s.Start, s.Len, p.rows, s.Past))
	}
	if s.Prefix < -1 || int(s.Prefix) >= i {
		panic(fmt.Sprintf("cuda: segment %d: prefix %d, want -1 or an earlier segment", i, s.Prefix))
	}
	if s.Past > 0 && !p.cached {
		panic(fmt.Sprintf("cuda: segment %d: %d cached positions, but no cache", i, s.Past))
	}
	if p.cached && s.Slot >= 0 {
		for len(p.slots) <= int(s.Slot) {
			p.slots = append(p.slots, 0)
		}
		if other := p.slots[s.Slot]; other > 0 && (s.Len > 0 || b.Segments[other-1].Len > 0) {
			panic(fmt.Sprintf("cuda: segments %d and %d both name cache slot %d, and one writes to it", other-1, i, s.Slot))
		}
		p.slots[s.Slot] = int32(i + 1)
	}
	positions := b.Positions[s.Start : s.Start+s.Len]
	for j, at := range positions {
		if at != positions[0]+int32(j) {
			panic(fmt.Sprintf("cuda: segment %d: position %d at its row %d, want %d", i, at, j, positions[0]+int32(j)))
		}
	}
}

// addKeys cuts segment i's own keys into tiles: rows of the batch, or where it has a slot all of the slot's positions,
// since its rows lie there too when the tiles are read.
func (p *attentionPlan) addKeys(b *backend.Batch, i int) {
	s := &b.Segments[i]
	end := int32(0) // position after the prefix
	if s.Prefix >= 0 {
		end = p.segments[s.Prefix].end
	}
	own := end + s.Past
	if s.Len > 0 {
		own = b.Positions[s.Start]
	}
	if own < end+s.Past {
		panic(fmt.Sprintf("cuda: segment %d: begins at position %d, after a prefix up to %d and %d cached", i, own, end, s.Past))
	}
	row, slot, n := s.Start, int32(-1), s.Len
	if p.cached && s.Slot >= 0 {
		row, slot, n = 0, s.Slot, s.Past+s.Len
	}
	first := int32(len(p.keys))
	for at := int32(0); at < n; at += int32(p.tile) {
		p.keys = append(p.keys, keyTile{row: row + at, slot: slot, position: own + s.Len - n + at, n: min(int32(p.tile), n-at)})
	}
	if n > 0 {
		end = own + s.Len
	}
	p.segments = append(p.segments, plannedSegment{first, int32(len(p.keys)) - first, end})
}

// addQueries cuts segment i's rows into tiles of whole rows with all heads that share a key head, or where these are more
// than a tile has rows, of one row with some of them.
func (p *attentionPlan) addQueries(b *backend.Batch, i int) {
	s := &b.Segments[i]
	p.chain = p.chain[:0]
	for at := int32(i); at >= 0; at = b.Segments[at].Prefix {
		p.chain = append(p.chain, at)
	}
	group := p.of.Heads / p.of.KVHeads
	heads, step := min(group, p.tile), int32(max(1, p.tile/group))
	for done := int32(0); done < s.Len; done += step {
		t := queryTile{row: s.Start + done, n: min(step, s.Len-done), position: b.Positions[s.Start+done], first: int32(len(p.seen)), part: -1}
		p.addSeen(&t)
		for head := 0; head < group; head += heads {
			t.head, t.heads = int32(head), int32(min(heads, group-head))
			if p.cached && s.Len <= step && t.count > pieceTiles {
				p.split(t)
			} else {
				p.queries = append(p.queries, t)
			}
		}
	}
}

// addSeen lists the key tiles that t sees, the latest positions first.
func (p *attentionPlan) addSeen(t *queryTile) {
	last := t.position + t.n - 1
	for _, s := range p.chain {
		of := p.segments[s]
		for k := of.first + of.count - 1; k >= of.first; k-- {
			tile := &p.keys[k]
			if p.of.Window > 0 && int(tile.position+tile.n-1) <= int(t.position)-p.of.Window {
				return // all others are before it
			}
			if tile.position <= last {
				p.seen = append(p.seen, k)
				t.count++
			}
		}
	}
}

// split cuts the keys of t into pieces.
func (p *attentionPlan) split(t queryTile) {
	rows := t.n * t.heads
	whole := t
	whole.first, whole.count = int32(p.parts), 0
	for at := int32(0); at < t.count; at += pieceTiles {
		piece := t
		piece.first, piece.count, piece.part = t.first+at, min(pieceTiles, t.count-at), int32(p.parts)
		p.queries = append(p.queries, piece)
		p.parts += int(rows)
		whole.count++
	}
	p.splits = append(p.splits, whole)
}

// addPlaces tells of each row where its key goes in the cache.
func (p *attentionPlan) addPlaces(b *backend.Batch) {
	p.places = slices.Grow(p.places, 2*p.rows)[:2*p.rows]
	for i := range b.Segments {
		s := &b.Segments[i]
		for r := range s.Len {
			p.places[2*(s.Start+r)], p.places[2*(s.Start+r)+1] = s.Slot, s.Past+r
		}
	}
}

// addSeers turns seen around.
func (p *attentionPlan) addSeers() {
	for i := range p.queries {
		t := &p.queries[i]
		for _, k := range p.seen[t.first : t.first+t.count] {
			p.keys[k].count++
		}
	}
	n := int32(0)
	for k := range p.keys {
		p.keys[k].first = n
		n += p.keys[k].count
		p.keys[k].count = 0
	}
	p.seers = slices.Grow(p.seers[:0], int(n))[:n]
	for i := range p.queries {
		t := &p.queries[i]
		for _, k := range p.seen[t.first : t.first+t.count] {
			key := &p.keys[k]
			p.seers[key.first+key.count] = int32(i)
			key.count++
		}
	}
}

// place copies the plan to the card in one go.
func (p *attentionPlan) place(be *Backend) {
	p.raw = p.raw[:0]
	p.atQueries = appendAligned(&p.raw, p.queries)
	p.atSplits = appendAligned(&p.raw, p.splits)
	p.atKeys = appendAligned(&p.raw, p.keys)
	p.atSeen = appendAligned(&p.raw, p.seen)
	p.atSeers = appendAligned(&p.raw, p.seers)
	p.atPlaces = appendAligned(&p.raw, p.places)
	if len(p.raw) == 0 {
		return
	}
	be.grow(&p.mem, int64(len(p.raw)))
	be.upload(p.mem.at, p.raw)
	for _, at := range []*driver.Ptr{&p.atQueries, &p.atSplits, &p.atKeys, &p.atSeen, &p.atSeers, &p.atPlaces} {
		*at += p.mem.at
	}
}

// appendAligned adds the memory of v at a multiple of 16 and returns its offset.
func appendAligned[T queryTile | keyTile | int32](raw *[]byte, v []T) driver.Ptr {
	for len(*raw)%16 != 0 {
		*raw = append(*raw, 0)
	}
	at := driver.Ptr(len(*raw))
	if len(v) > 0 {
		*raw = append(*raw, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))...)
	}
	return at
}
