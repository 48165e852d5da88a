package model

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/device"
)

// prefillRows is about how many rows of prompts go through the decoder at once.
const prefillRows = 2048

// sequence is a run of tokens whose keys and values are in a slot of the cache.
type sequence struct {
	index  int // among the prompts
	after  *sequence
	slot   int
	length int     // positions in the slot
	feed   []int32 // tokens to run next
	out    []int32 // chosen
	room   [1]int32
}

// position is that of the first token to run. What s comes after is in the cache, or runs before it.
func (s *sequence) position() int {
	n := s.length
	for a := s.after; a != nil; a = a.after {
		n += a.length + len(a.feed)
	}
	return n
}

// next makes the sequence run one token.
func (s *sequence) next(id int32) {
	s.room[0] = id
	s.feed = s.room[:]
}

// answering is a prompt that is being answered.
type answering interface {
	// feeds appends the sequences that are to run next.
	feeds(list []*sequence) []*sequence
	// take is told the logits after one of them.
	take(s *sequence, logits []float32) error
	// advance ends a step, after which all feeds were run.
	advance() (over bool)
	// prompt is the prompt's own sequence.
	prompt() *sequence
}

// head is a beginning of prompts whose keys and values are kept for all of them.
type head struct {
	sequence
	key    string
	level  int
	before *head
	users  int // prompts that are being answered and begin with it
	used   int // when it was last wanted
}

// pool hands out runs of neighbouring slots, all of a size.
type pool struct {
	size  int // positions of a slot
	width int // slots of a run
	quota int // runs at most
	made  int
	free  []int // the first slot of each run that is free
}

// generator answers prompts: as many at a time as may advance together, the next as soon as one has ended.
type generator struct {
	m       *Model
	o       GenerateOptions
	sampler *sampler
	prompts [][]int32
	out     [][]int32
	prep    prepared
	logits  []float32
	placed  map[*sequence]int32 // segments of the batch that others come after

	slots   int
	owns    *pool   // of prompts behind their heads and, without beams, their answers
	answers *pool   // of beams
	levels  []*pool // of heads
	heads   map[string]*head
	wanted  map[string]int // prompts to come that begin with a head
	clock   int
	steady  int // rows of a pass at least
}

// newGenerator finds how many prompts can advance together, and what room there is for heads.
func (m *Model) newGenerator(prompts [][]int32, o GenerateOptions, out [][]int32) (*generator, error) {
	if m.rope.DependsOnLength() {
		o.Heads = nil
	}
	g := &generator{m: m, o: o, prompts: prompts, out: out, sampler: newSampler(o, m.cfg.VocabSize), placed: map[*sequence]int32{},
		heads: map[string]*head{}, wanted: map[string]int{}}
	if few := device.FewRows(m.device); o.Steady && few > 0 {
		g.steady = few + 1
	}
	if g.o.Together == 0 {
		g.o.Together = max(1, len(prompts))
	}
	g.pools()
	for i := range prompts {
		for level := range g.cuts(i) {
			g.wanted[g.key(i, level)]++
		}
	}
	if o.Positions == 0 {
		return g, nil
	}
	need := g.need()
	if need > o.Positions {
		return nil, fmt.Errorf("generate: keys and values of one prompt and its answer take up to %d positions, and there is room for %d", need, o.Positions)
	}
	g.o.Together = min(g.o.Together, o.Positions/need)
	g.owns.quota, g.answers.quota = g.o.Together, g.o.Together
	left := o.Positions - g.o.Together*need
	for _, p := range g.levels {
		more := left / p.size
		p.quota = g.o.Together + more
		left -= more * p.size
	}
	return g, nil
}

// pools makes the pools for the largest of all prompts.
func (g *generator) pools() {
	g.owns = &pool{width: 1, quota: math.MaxInt}
	g.answers = &pool{width: g.o.Beams, size: g.o.MaxNewTokens, quota: math.MaxInt}
	for i, p := range g.prompts {
		before := 0
		for level, n := range g.cuts(i) {
			if level == len(g.levels) {
				g.levels = append(g.levels, &pool{width: 1, quota: math.MaxInt})
			}
			g.levels[level].size = max(g.levels[level].size, n-before)
			before = n
		}
		g.owns.size = max(g.owns.size, len(p)-before)
	}
	if g.o.Beams <= 1 {
		g.owns.size += g.o.MaxNewTokens
	}
}

// need is the positions that a prompt and its answer take at most.
func (g *generator) need() int {
	n := g.owns.size
	if g.o.Beams > 1 {
		n += g.answers.width * g.answers.size
	}
	for _, p := range g.levels {
		n += p.size
	}
	return n
}

// cuts are the lengths of a prompt's heads.
func (g *generator) cuts(i int) []int {
	if g.o.Heads == nil {
		return nil
	}
	return g.o.Heads[i]
}

// key tells a head: by its tokens, and where it is cut.
func (g *generator) key(i, level int) string { return headKey(g.prompts[i], g.cuts(i)[:level+1]) }

func headKey(tokens []int32, cuts []int) string {
	last := cuts[len(cuts)-1]
	b := make([]byte, 0, 4*(last+len(cuts)))
	for _, n := range cuts {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, id := range tokens[:last] {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return string(b)
}

// all answers all prompts.
func (g *generator) all(ctx context.Context) error {
	var active []answering
	var feed []*sequence
	began := 0
	for began < len(g.prompts) || len(active) > 0 {
		for ; began < len(g.prompts) && len(active) < g.o.Together; began++ {
			if g.o.MaxNewTokens == 0 {
				if err := g.ended(began); err != nil {
					return err
				}
				continue
			}
			active = append(active, g.begin(began))
		}
		feed = feed[:0]
		by := map[*sequence]answering{}
		for _, a := range active {
			from := len(feed)
			feed = a.feeds(feed)
			for _, s := range feed[from:] {
				by[s] = a
			}
			feed = slices.Insert(feed, from, unrun(a.prompt().after, feed[:from])...)
		}
		if err := g.step(ctx, feed, by); err != nil {
			return err
		}
		rest := active[:0]
		for _, a := range active {
			if !a.advance() {
				rest = append(rest, a)
				continue
			}
			g.release(a)
			if err := g.ended(a.prompt().index); err != nil {
				return err
			}
		}
		clear(active[len(rest):])
		active = rest
	}
	return nil
}

// unrun are the sequences up to s that have not run and are not in a list yet, in their order.
func unrun(s *sequence, list []*sequence) (some []*sequence) {
	for ; s != nil && s.feed != nil && !slices.Contains(list, s); s = s.after {
		some = append(some, s)
	}
	slices.Reverse(some)
	return some
}

// step runs what the sequences feed, as many rows at once as go through the decoder.
func (g *generator) step(ctx context.Context, ss []*sequence, by map[*sequence]answering) error {
	for len(ss) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, rows := 0, 0
		for n < len(ss) && (n == 0 || rows+len(ss[n].feed) <= prefillRows) {
			rows += len(ss[n].feed)
			n++
		}
		if err := g.run(ss[:n]); err != nil {
			return err
		}
		for i, s := range ss[:n] {
			if a := by[s]; a != nil {
				if err := a.take(s, g.row(i)); err != nil {
					return err
				}
			}
		}
		ss = ss[n:]
	}
	return nil
}

// ended tells of an answer.
func (g *generator) ended(i int) error {
	if g.o.OnAnswer == nil {
		return nil
	}
	return g.o.OnAnswer(i, g.out[i])
}

// begin begins to answer a prompt.
func (g *generator) begin(i int) answering {
	s := &sequence{index: i, feed: g.prompts[i]}
	if cuts := g.cuts(i); len(cuts) > 0 {
		s.after, s.feed = &g.headsOf(i).sequence, g.prompts[i][cuts[len(cuts)-1]:]
	}
	s.slot = g.take(g.owns)
	if g.o.Beams > 1 {
		return &search{g: g, own: s, slot: g.take(g.answers)}
	}
	return &single{g: g, sequence: s}
}

// release gives back what an answer needed.
func (g *generator) release(a answering) {
	s := a.prompt()
	g.owns.free = append(g.owns.free, s.slot)
	if b, ok := a.(*search); ok {
		g.answers.free = append(g.answers.free, b.slot)
	}
	for level := len(g.cuts(s.index)) - 1; level >= 0; level-- {
		h := g.heads[g.key(s.index, level)]
		if h.users--; h.users == 0 && g.wanted[h.key] == 0 {
			g.drop(h)
		}
	}
}

// headsOf returns the last of a prompt's heads, and makes those that are not there. Their first run is their users'.
func (g *generator) headsOf(i int) (last *head) {
	from := 0
	for level, n := range g.cuts(i) {
		key := g.key(i, level)
		h := g.heads[key]
		if h == nil {
			h = &head{key: key, level: level, before: last, sequence: sequence{index: i, slot: g.takeHead(level), feed: g.prompts[i][from:n]}}
			if last != nil {
				h.after = &last.sequence
			}
			g.heads[key] = h
		}
		g.clock++
		g.wanted[key]--
		h.users++
		h.used, last, from = g.clock, h, n
	}
	return last
}

// drop drops a head that no answer needs, and those that come after it.
func (g *generator) drop(h *head) {
	if g.heads[h.key] != h {
		return
	}
	delete(g.heads, h.key)
	p := g.levels[h.level]
	p.free = append(p.free, h.slot)
	for _, next := range g.heads {
		if next.before == h {
			g.drop(next)
		}
	}
}

// takeHead returns a slot for a head; where there is no room, that of the one that was not wanted for the longest time.
func (g *generator) takeHead(level int) int {
	p := g.levels[level]
	if len(p.free) > 0 || p.made < p.quota {
		return g.take(p)
	}
	var oldest *head
	for _, h := range g.heads {
		if h.level == level && h.users == 0 && (oldest == nil || h.used < oldest.used) {
			oldest = h
		}
	}
	g.drop(oldest) // the quota leaves one for each prompt that is being answered
	return g.take(p)
}

// take returns the first slot of a run that is free. There is one: the quota is for as many as advance together.
func (g *generator) take(p *pool) int {
	if n := len(p.free); n > 0 {
		slot := p.free[n-1]
		p.free = p.free[:n-1]
		return slot
	}
	slot := g.slots
	g.slots += p.width
	p.made++
	if g.o.Positions > 0 {
		g.reserve(slot, p)
	}
	return slot
}

// reserve makes a run of slots as large as they get, so that none has room for more.
func (g *generator) reserve(slot int, p *pool) {
	for _, l := range g.m.layers {
		if c, ok := l.Cache.(backend.Reserver); ok {
			for i := range p.width {
				c.Reserve(slot+i, p.size)
			}
		}
	}
}

// single is a prompt that has one answer: greedy, or sampled.
type single struct {
	g *generator
	*sequence
	over bool
}

func (s *single) prompt() *sequence { return s.sequence }

func (s *single) feeds(list []*sequence) []*sequence { return append(list, s.sequence) }

func (s *single) advance() bool { return s.over }

// take chooses the next token.
func (s *single) take(_ *sequence, logits []float32) error {
	g, o := s.g, &s.g.o
	id, err := g.sampler.choose(logits, s.sequence)
	if err != nil {
		return err
	}
	if slices.Contains(o.Stop, id) {
		s.over = true
		return nil
	}
	s.next(id)
	s.out = append(s.out, id)
	g.out[s.index] = s.out
	if o.OnToken != nil {
		o.OnToken(s.index, id)
	}
	s.over = o.Done != nil && o.Done(s.index, s.out) || len(s.out) == o.MaxNewTokens
	return nil
}

// row returns the logits after the i-th sequence of the last run.
func (g *generator) row(i int) []float32 {
	vocab := g.m.cfg.VocabSize
	return g.logits[i*vocab : (i+1)*vocab]
}

// run sends what the sequences feed through the decoder, a segment each, which leaves the logits after the last token of
// each. What they come after is in the cache, or before them in the list.
func (g *generator) run(group []*sequence) error {
	d := &g.prep.batch
	d.Tokens, d.Positions, d.Segments, d.Rows = d.Tokens[:0], d.Positions[:0], d.Segments[:0], d.Rows[:0]
	clear(g.placed)
	for _, s := range group {
		prefix := g.place(s.after)
		position := s.position()
		g.placed[s] = int32(len(d.Segments))
		g.segment(s.feed, backend.Segment{Prefix: prefix, Slot: int32(s.slot), Past: int32(s.length)}, position)
	}
	for len(d.Rows) < g.steady {
		g.segment([]int32{0}, backend.Segment{Prefix: -1, Slot: -1}, 0)
	}
	g.m.rotary(&g.prep)
	d.Changed()
	g.logits = grow(g.logits, len(d.Rows)*g.m.cfg.VocabSize)
	if err := g.m.runLogits(d, g.logits); err != nil {
		return err
	}
	for _, s := range group {
		s.length += len(s.feed)
		s.feed = nil
	}
	return nil
}

// segment adds tokens to the batch, and wants the logits after the last one.
func (g *generator) segment(tokens []int32, s backend.Segment, position int) {
	d := &g.prep.batch
	s.Start, s.Len = int32(len(d.Tokens)), int32(len(tokens))
	d.Tokens = append(d.Tokens, tokens...)
	for i := range tokens {
		d.Positions = append(d.Positions, int32(position+i))
	}
	d.Segments = append(d.Segments, s)
	d.Rows = append(d.Rows, s.Start+s.Len-1)
}

// place returns the segment of s: that of its run, or one without rows where it is wholly in the cache. -1 for nil.
func (g *generator) place(s *sequence) int32 {
	if s == nil {
		return -1
	}
	if at, ok := g.placed[s]; ok {
		return at
	}
	prefix := g.place(s.after)
	d := &g.prep.batch
	g.placed[s] = int32(len(d.Segments))
	d.Segments = append(d.Segments, backend.Segment{Start: int32(len(d.Tokens)), Prefix: prefix, Slot: int32(s.slot), Past: int32(s.length)})
	return g.placed[s]
}
