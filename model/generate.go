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
	// it.
	Seed uint64
	// Stop are tokens that end an answer; they are not part of it.
	Stop []int32
	// OnToken sees every token as it is chosen, prompts interleaved. Stop tokens are not shown.
	OnToken func(prompt int, id int32)
}

// prefillRows is about how many rows of prompts go through the decoder at once.
const prefillRows = 2048

// sequence is a prompt that is being continued.
type sequence struct {
	index  int // among the prompts
	length int // positions in the cache
	next   int32
	out    []int32
}

// Generate continues each prompt and returns what it came to, the prompts themselves left out. All prompts advance
// together. When ctx ends, what there is so far is returned with its error.
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
	g := &generator{m: m, o: o, out: out, sampler: newSampler(o, m.cfg.VocabSize)}
	err := g.prefill(ctx, prompts)
	for err == nil && len(g.active) > 0 {
		if err = ctx.Err(); err == nil {
			err = g.step()
		}
	}
	return out, err
}

func (m *Model) checkPrompts(prompts [][]int32, o GenerateOptions) error {
	var errs []error
	for i, p := range prompts {
		if len(p) == 0 {
			errs = append(errs, fmt.Errorf("prompt %d is empty", i))
		}
		for j, id := range p {
			if id < 0 || int(id) >= m.cfg.VocabSize {
				errs = append(errs, fmt.Errorf("prompt %d: token %d at %d is outside the vocabulary of %d", i, id, j, m.cfg.VocabSize))
				break
			}
		}
	}
	if o.MaxNewTokens < 0 || o.TopK < 0 || !(o.TopP >= 0 && o.TopP <= 1) || !(o.Temperature >= 0) {
		errs = append(errs, fmt.Errorf("generate: %d new tokens, temperature %v, top-k %d, top-p %v", o.MaxNewTokens, o.Temperature, o.TopK, o.TopP))
	}
	return errors.Join(errs...)
}

type generator struct {
	m       *Model
	o       GenerateOptions
	sampler *sampler
	active  []*sequence
	out     [][]int32
	prep    prepared
	batch   Batch
	logits  []float32
}

// prefill runs the prompts, a few at a time, and chooses each one's first token.
func (g *generator) prefill(ctx context.Context, prompts [][]int32) error {
	for from := 0; from < len(prompts); {
		if err := ctx.Err(); err != nil {
			return err
		}
		g.batch.Reset()
		var group []*sequence
		for from < len(prompts) && (len(group) == 0 || len(g.batch.Tokens)+len(prompts[from]) <= prefillRows) {
			g.batch.Append(prompts[from])
			group = append(group, &sequence{index: from})
			from++
		}
		if err := g.run(group); err != nil {
			return err
		}
	}
	return nil
}

// step runs the last token of every active sequence and chooses the next.
func (g *generator) step() error {
	g.batch.Reset()
	for _, s := range g.active {
		at := int32(len(g.batch.Tokens))
		g.batch.Tokens = append(g.batch.Tokens, s.next)
		g.batch.Positions = append(g.batch.Positions, int32(s.length))
		g.batch.Segments = append(g.batch.Segments, Segment{at, 1, -1})
	}
	group := g.active
	g.active = nil
	return g.run(group)
}

// run sends the batch, one segment for each sequence, through the decoder; those that go on become active.
func (g *generator) run(group []*sequence) error {
	d := &g.prep.batch
	d.Tokens, d.Positions, d.Segments, d.Rows = g.batch.Tokens, g.batch.Positions, d.Segments[:0], d.Rows[:0]
	for i, s := range g.batch.Segments {
		d.Segments = append(d.Segments, backend.Segment{Start: s.Start, Len: s.Len, Prefix: -1, Slot: int32(group[i].index), Past: int32(group[i].length)})
		d.Rows = append(d.Rows, s.Start+s.Len-1)
	}
	g.m.rotary(&g.prep)
	vocab := g.m.cfg.VocabSize
	g.logits = grow(g.logits, len(group)*vocab)
	if err := g.m.runLogits(d, g.logits); err != nil {
		return err
	}
	for i, s := range group {
		s.length += int(g.batch.Segments[i].Len)
		id, err := g.sampler.choose(g.logits[i*vocab:(i+1)*vocab], s)
		if err != nil {
			return err
		}
		if slices.Contains(g.o.Stop, id) {
			continue
		}
		s.next, s.out = id, append(s.out, id)
		g.out[s.index] = s.out
		if g.o.OnToken != nil {
			g.o.OnToken(s.index, id)
		}
		if len(s.out) < g.o.MaxNewTokens {
			g.active = append(g.active, s)
		}
	}
	return nil
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
