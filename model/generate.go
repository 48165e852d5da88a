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
	// Seed of sampling: what is drawn is a function of it, the prompt's index and the token's. With Seeds it is one of the
	// prompt's own seed and the token's index alone.
	Seed  uint64
	Seeds []uint64
	// Stop are tokens that end an answer; they are not part of it.
	Stop []int32
	// Done ends an answer after any token: it is given what the answer is so far, that token included, and does not keep
	// it. For stop strings. nil: never.
	Done func(prompt int, answer []int32) bool
	// Heads are, for each prompt, lengths of its beginnings, ascending and below its own: what prompts have in common up
	// to such a length is computed once. Where a row's rotary table depends on its length they are not used. nil: none.
	Heads [][]int
	// Together is how many prompts advance together at most; when one has ended the next takes its place. 0: all.
	Together int
	// Positions is how many positions of keys and values there may be at a time; see Model.Fit. As many prompts advance
	// together as have room with their longest answers, and heads are kept as long as there is room beside them. 0: any
	// number.
	Positions int
	// Steady makes an answer the same, to the bit, whatever is beside it. Without it up to four rows are multiplied in
	// another order than more are, which is faster for them; where two logits are equal to six digits or so, another token
	// may then be chosen. It is kept by the CPU only.
	Steady bool
	// Beams above 1 searches for the most likely answer with so many beams; see LengthPenalty. Temperature is 0 then.
	Beams int
	// LengthPenalty is the exponent of the length by which a beam's log-likelihood is divided; above 0 it favours long
	// answers. Transformers has 1 where nothing is said, which is up to the caller here.
	LengthPenalty float64
	// OnToken sees every token as it is chosen, prompts interleaved. Stop tokens are not shown. With beams it is not
	// called: tokens are not settled before the end.
	OnToken func(prompt int, id int32)
	// OnAnswer sees every answer when it has ended, in any order. It may ask the model for likelihoods. Its error ends the
	// work.
	OnAnswer func(prompt int, answer []int32) error
}

// Generate continues each prompt and returns what it came to, the prompts themselves left out. When ctx ends, what there
// is so far is returned with its error; of a search with beams that is nothing.
func (m *Model) Generate(ctx context.Context, prompts [][]int32, o GenerateOptions) (out [][]int32, err error) {
	defer m.noted(&err)
	out = make([][]int32, len(prompts))
	if err := m.checkPrompts(prompts, o); err != nil {
		return out, err
	}
	g, err := m.newGenerator(prompts, o, out)
	if err != nil {
		return out, err
	}
	for _, l := range m.layers {
		l.Cache = m.be.NewCache(&m.dims.Attention)
	}
	defer func() {
		for _, l := range m.layers {
			l.Cache = nil
		}
	}()
	return out, g.all(ctx)
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
		if o.Heads != nil && len(o.Heads) == len(prompts) && !headsFit(o.Heads[i], len(p)) {
			errs = append(errs, fmt.Errorf("prompt %d of %d tokens has heads of %v", i, len(p), o.Heads[i]))
		}
	}
	if o.Heads != nil && len(o.Heads) != len(prompts) || o.Seeds != nil && len(o.Seeds) != len(prompts) {
		errs = append(errs, fmt.Errorf("generate: %d lists of heads and %d seeds for %d prompts", len(o.Heads), len(o.Seeds), len(prompts)))
	}
	if o.MaxNewTokens < 0 || o.TopK < 0 || !(o.TopP >= 0 && o.TopP <= 1) || !(o.Temperature >= 0) {
		errs = append(errs, fmt.Errorf("generate: %d new tokens, temperature %v, top-k %d, top-p %v", o.MaxNewTokens, o.Temperature, o.TopK, o.TopP))
	}
	if o.Together < 0 || o.Positions < 0 {
		errs = append(errs, fmt.Errorf("generate: %d prompts together, %d positions", o.Together, o.Positions))
	}
	if o.Beams < 0 || o.Beams > 1 && o.Temperature > 0 {
		errs = append(errs, fmt.Errorf("generate: %d beams at temperature %v: beams do not sample", o.Beams, o.Temperature))
	}
	if most := m.cfg.VocabSize / (1 + max(1, len(o.Stop))); o.Beams > 1 && o.Beams > most {
		errs = append(errs, fmt.Errorf("generate: %d beams for a vocabulary of %d and %d stop tokens, at most %d", o.Beams, m.cfg.VocabSize, len(o.Stop), most))
	}
	return errors.Join(errs...)
}

// headsFit reports whether these are lengths of beginnings of so many tokens, ascending.
func headsFit(heads []int, tokens int) bool {
	before := 0
	for _, n := range heads {
		if n <= before || n >= tokens {
			return false
		}
		before = n
	}
	return true
}

// outside returns where the first id is that the vocabulary lacks, or -1.
func (m *Model) outside(ids []int32) int {
	return slices.IndexFunc(ids, func(id int32) bool { return id < 0 || int(id) >= m.cfg.VocabSize })
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
	slices.SortFunc(s.order, func(a, b int32) int {
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
	seed, index := s.o.Seed, uint32(seq.index)
	if s.o.Seeds != nil {
		seed, index = s.o.Seeds[seq.index], 0
	}
	r := backend.Philox(seed, uint32(len(seq.out)), index, 0x67656e, 0)
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
