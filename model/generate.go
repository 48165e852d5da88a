package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/biolora/biolora/internal/backend"
)

// GenerateOptions say how tokens are chosen and when to stop. The zero value with MaxNewTokens is greedy.
type GenerateOptions struct {
	MaxNewTokens int
	// Temperature above 0 samples; 0 takes the most likely token, the lowest id among equals.
	Temperature float64
	TopK        int     // sample from the k most likely tokens only; 0: all
	TopP        float64 // ... and from the fewest whose probabilities reach p; 0 or 1: all
	// Seed of sampling. A prompt's tokens depend on the seed, its index and its text only, not on the prompts beside
	// it, but for the rounding of sums: up to four tokens at once are multiplied in another order than more are, so where
	// two logits are equal to six digits or so, another token may be chosen.
	Seed uint64
	// Stop are tokens that end an answer; they are not part of it.
	Stop []int32
	// Done ends an answer after any token: it is given what the answer is so far, that token included, and does not keep
	// it. For stop strings. nil: never.
	Done func(prompt int, answer []int32) bool
	// Head are tokens that come before every prompt: they are computed once. Where a row's rotary table depends on its
	// length they are computed with each prompt.
	Head []int32
	// Beams above 1 searches for the most likely answer with so many beams; see LengthPenalty. Temperature is 0 then.
	Beams int
	// LengthPenalty is the exponent of the length by which a beam's log-likelihood is divided; above 0 it favours long
	// answers. Transformers has 1 where nothing is said, which is up to the caller here.
	LengthPenalty float64
	// OnToken sees every token as it is chosen, prompts interleaved. Stop tokens are not shown. With beams it is not
	// called: tokens are not settled before the end.
	OnToken func(prompt int, id int32)
}

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

// position is that of the first token to run.
func (s *sequence) position() (n int) {
	for ; s != nil; s = s.after {
		n += s.length
	}
	return n
}

// next makes the sequence run one token.
func (s *sequence) next(id int32) {
	s.room[0] = id
	s.feed = s.room[:]
}

// Generate continues each prompt and returns what it came to, the prompts themselves left out. All prompts advance
// together. When ctx ends, what there is so far is returned with its error; of a search with beams that is nothing.
func (m *Model) Generate(ctx context.Context, prompts [][]int32, o GenerateOptions) ([][]int32, error) {
	out := make([][]int32, len(prompts))
	if err := m.checkPrompts(prompts, o); err != nil {
		return out, err
	}
	if o.MaxNewTokens == 0 || len(prompts) == 0 {
		return out, nil
	}
	for _, l := range m.layers {
		l.Cache = m.be.NewCache(&m.dims.Attention)
	}
	defer func() {
		for _, l := range m.layers {
			l.Cache = nil
		}
	}()
	g := &generator{m: m, o: o, out: out}
	if len(o.Head) > 0 && m.rope.DependsOnLength() {
		prompts, g.o.Head = headed(o.Head, prompts), nil
	}
	if o.Beams > 1 {
		return out, g.beams(ctx, prompts)
	}
	g.sampler = newSampler(o, m.cfg.VocabSize)
	return out, g.sample(ctx, prompts)
}

// headed returns prompts that begin with head.
func headed(head []int32, prompts [][]int32) [][]int32 {
	whole := make([][]int32, len(prompts))
	for i, p := range prompts {
		whole[i] = slices.Concat(head, p)
	}
	return whole
}

func (m *Model) checkPrompts(prompts [][]int32, o GenerateOptions) error {
	var errs []error
	for i, p := range prompts {
		if len(p) == 0 {
			errs = append(errs, fmt.Errorf("prompt %d is empty", i))
		}
		if at := m.outside(p); at >= 0 {
			errs = append(errs, fmt.Errorf("prompt %d: token %d at %d is outside the vocabulary of %d", i, p[at], at, m.cfg.VocabSize))
		}
	}
	if at := m.outside(o.Head); at >= 0 {
		errs = append(errs, fmt.Errorf("the prompts' head: token %d at %d is outside the vocabulary of %d", o.Head[at], at, m.cfg.VocabSize))
	}
	if o.MaxNewTokens < 0 || o.TopK < 0 || !(o.TopP >= 0 && o.TopP <= 1) || !(o.Temperature >= 0) {
		errs = append(errs, fmt.Errorf("generate: %d new tokens, temperature %v, top-k %d, top-p %v", o.MaxNewTokens, o.Temperature, o.TopK, o.TopP))
	}
	if o.Beams < 0 || o.Beams > 1 && o.Temperature > 0 {
		errs = append(errs, fmt.Errorf("generate: %d beams at temperature %v: beams do not sample", o.Beams, o.Temperature))
	}
	if most := m.cfg.VocabSize / (1 + max(1, len(o.Stop))); o.Beams > 1 && o.Beams > most {
		errs = append(errs, fmt.Errorf("generate: %d beams for a vocabulary of %d and %d stop tokens, at most %d", o.Beams, m.cfg.VocabSize, len(o.Stop), most))
	}
	return errors.Join(errs...)
}

// outside returns where the first id is that the vocabulary lacks, or -1.
func (m *Model) outside(ids []int32) int {
	return slices.IndexFunc(ids, func(id int32) bool { return id < 0 || int(id) >= m.cfg.VocabSize })
}

type generator struct {
	m       *Model
	o       GenerateOptions
	sampler *sampler
	out     [][]int32
	prep    prepared
	logits  []float32
	placed  map[*sequence]int32 // segments of the batch that others come after
}

// head returns the sequence of the head, or nil. Its keys and values are in slot.
func (g *generator) head(slot int) (*sequence, error) {
	if len(g.o.Head) == 0 {
		return nil, nil
	}
	s := &sequence{slot: slot, feed: g.o.Head}
	return s, g.run([]*sequence{s})
}

// groups calls f with sequences whose tokens, together, are about as many as go through the decoder at once.
func groups(ctx context.Context, ss []*sequence, f func([]*sequence) error) error {
	for len(ss) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, rows := 0, 0
		for n < len(ss) && (n == 0 || rows+len(ss[n].feed) <= prefillRows) {
			rows += len(ss[n].feed)
			n++
		}
		if err := f(ss[:n]); err != nil {
			return err
		}
		ss = ss[n:]
	}
	return nil
}

// sample chooses token after token, those of all prompts together.
func (g *generator) sample(ctx context.Context, prompts [][]int32) error {
	head, err := g.head(len(prompts))
	if err != nil {
		return err
	}
	active := make([]*sequence, len(prompts))
	for i, p := range prompts {
		active[i] = &sequence{index: i, after: head, slot: i, feed: p}
	}
	for len(active) > 0 {
		var rest []*sequence
		err := groups(ctx, active, func(group []*sequence) error {
			if err := g.run(group); err != nil {
				return err
			}
			for i, s := range group {
				goes, err := g.extend(s, g.row(i))
				if err != nil {
					return err
				}
				if goes {
					rest = append(rest, s)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		active = rest
	}
	return nil
}

// extend chooses the token after s, and reports whether s goes on.
func (g *generator) extend(s *sequence, logits []float32) (bool, error) {
	id, err := g.sampler.choose(logits, s)
	if err != nil || slices.Contains(g.o.Stop, id) {
		return false, err
	}
	s.next(id)
	s.out = append(s.out, id)
	g.out[s.index] = s.out
	if g.o.OnToken != nil {
		g.o.OnToken(s.index, id)
	}
	if g.o.Done != nil && g.o.Done(s.index, s.out) {
		return false, nil
	}
	return len(s.out) < g.o.MaxNewTokens, nil
}

// row returns the logits after the i-th sequence of the last run.
func (g *generator) row(i int) []float32 {
	vocab := g.m.cfg.VocabSize
	return g.logits[i*vocab : (i+1)*vocab]
}

// run sends what the sequences feed through the decoder, a segment each, which leaves the logits after the last token of
// each. What they come after is in the cache.
func (g *generator) run(group []*sequence) error {
	d := &g.prep.batch
	d.Tokens, d.Positions, d.Segments, d.Rows = d.Tokens[:0], d.Positions[:0], d.Segments[:0], d.Rows[:0]
	if g.placed == nil {
		g.placed = map[*sequence]int32{}
	}
	clear(g.placed)
	for _, s := range group {
		prefix := g.place(s.after)
		start, position := int32(len(d.Tokens)), s.position()
		d.Tokens = append(d.Tokens, s.feed...)
		for i := range s.feed {
			d.Positions = append(d.Positions, int32(position+i))
		}
		d.Segments = append(d.Segments, backend.Segment{Start: start, Len: int32(len(s.feed)), Prefix: prefix, Slot: int32(s.slot), Past: int32(s.length)})
		d.Rows = append(d.Rows, start+int32(len(s.feed))-1)
	}
	g.m.rotary(&g.prep)
	d.Changed()
	g.logits = grow(g.logits, len(group)*g.m.cfg.VocabSize)
	if err := g.m.runLogits(d, g.logits); err != nil {
		return err
	}
	for _, s := range group {
		s.length += len(s.feed)
		s.feed = nil
	}
	return nil
}

// place returns the segment of s, which is wholly in the cache: one without rows. -1 for nil.
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

// sampler chooses tokens from logits.
type sampler struct {
	o     GenerateOptions
	order []int32
	prob  []float64
}

func newSampler(o GenerateOptions, vocab int) *sampler {
	return &sampler{o: o, order: make([]int32, vocab), prob: make([]float64, vocab)}
}

// choose filters as Transformers does: temperature, the k most likely, then the fewest that reach p.
func (s *sampler) choose(logits []float32, seq *sequence) (int32, error) {
	best := 0
	for i, v := range logits {
		if v != v {
			return 0, fmt.Errorf("generate: the logits of prompt %d are not numbers after %d tokens", seq.index, len(seq.out))
		}
		if v > logits[best] {
			best = i
		}
	}
	if s.o.Temperature == 0 {
		return int32(best), nil
	}
	for i := range s.order {
		s.order[i] = int32(i)
	}
	slices.SortStableFunc(s.order, func(a, b int32) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return int(a - b)
	})
	n := len(s.order)
	if s.o.TopK > 0 {
		n = min(n, s.o.TopK)
	}
	var sum float64
	for i := range n {
		s.prob[i] = math.Exp((float64(logits[s.order[i]]) - float64(logits[best])) / s.o.Temperature)
		sum += s.prob[i]
	}
	if s.o.TopP > 0 && s.o.TopP < 1 {
		n, sum = nucleus(s.prob[:n], sum, s.o.TopP)
	}
	r := backend.Philox(s.o.Seed, uint32(len(seq.out)), uint32(seq.index), 0x67656e, 0)
	u := (float64(r[0])*(1<<21) + float64(r[1]>>11)) / (1 << 53) * sum
	for i := range n {
		if u -= s.prob[i]; u < 0 {
			return s.order[i], nil
		}
	}
	return s.order[n-1], nil
}

// nucleus returns how many of the descending weights are the fewest whose share reaches p, and their sum.
func nucleus(weights []float64, sum, p float64) (n int, kept float64) {
	for i, w := range weights {
		kept += w
		if kept >= p*sum {
			return i + 1, kept
		}
	}
	return len(weights), kept
}
