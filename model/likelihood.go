package model

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/biolora/biolora/internal/backend/device"
)

// Question is a prompt and what may come after it.
type Question struct {
	Prompt []int32
	// Heads are lengths of the prompt's beginnings, as in GenerateOptions: what questions that are computed together have
	// in common up to such a length is computed once.
	Heads   []int
	Options [][]int32
}

// Likelihood is how likely the model finds an option.
type Likelihood struct {
	Sum    float64 // of the natural logarithms of its tokens' probabilities
	Tokens int
	Greedy bool // each of its tokens is the most likely one, the lowest id among equals
}

// maxLogitRows is the most rows whose logits are computed at once, unless a question alone has more.
const maxLogitRows = 256

// Likelihoods returns how likely the model finds the options of each question. A prompt is computed once for all its
// options, except where a row's rotary table depends on its length. On the CPU they do not depend on the questions beside
// them, to the bit.
func (m *Model) Likelihoods(ctx context.Context, questions []Question) ([][]Likelihood, error) {
	if err := m.checkQuestions(questions); err != nil {
		return nil, err
	}
	var all [][]Likelihood
	for len(questions) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := together(questions)
		found, err := m.likelihoods(ctx, questions[:n])
		if err != nil {
			return nil, err
		}
		all, questions = append(all, found...), questions[n:]
	}
	return all, nil
}

func (m *Model) checkQuestions(questions []Question) error {
	var errs []error
	check := func(ids []int32, format string, a ...any) {
		if at := m.outside(ids); at >= 0 {
			errs = append(errs, fmt.Errorf(format+": token %d at %d is outside the vocabulary of %d", append(a, ids[at], at, m.cfg.VocabSize)...))
		}
	}
	for i, q := range questions {
		if len(q.Prompt) == 0 || len(q.Options) == 0 {
			errs = append(errs, fmt.Errorf("question %d has a prompt of %d tokens and %d options", i, len(q.Prompt), len(q.Options)))
		}
		if !headsFit(q.Heads, len(q.Prompt)) {
			errs = append(errs, fmt.Errorf("question %d: a prompt of %d tokens has heads of %v", i, len(q.Prompt), q.Heads))
		}
		check(q.Prompt, "question %d", i)
		for j, o := range q.Options {
			if len(o) == 0 {
				errs = append(errs, fmt.Errorf("question %d: option %d is empty", i, j))
			}
			check(o, "question %d, option %d", i, j)
		}
	}
	return errors.Join(errs...)
}

// together is how many questions go through the decoder at once.
func together(questions []Question) int {
	rows, logits := 0, 0
	seen := map[string]bool{}
	for i, q := range questions {
		rows += len(q.Prompt)
		before := 0
		for level, n := range q.Heads {
			key := headKey(q.Prompt, q.Heads[:level+1])
			if seen[key] {
				rows -= n - before
			}
			seen[key], before = true, n
		}
		logits++
		for _, o := range q.Options {
			rows += len(o) - 1
			logits += len(o) - 1
		}
		if i > 0 && (rows > prefillRows || logits > maxLogitRows) {
			return i
		}
	}
	return len(questions)
}

// guess is a token whose probability is wanted, and the row after which it comes.
type guess struct {
	row int32
	id  int32
	of  *Likelihood
}

func (m *Model) likelihoods(ctx context.Context, questions []Question) ([][]Likelihood, error) {
	b := &Batch{}
	var guesses []guess
	found := make([][]Likelihood, len(questions))
	apart := m.rope.DependsOnLength() // each option is one segment with its prompt, whose length is that of the whole
	heads := map[string]int32{}
	for i, q := range questions {
		found[i] = make([]Likelihood, len(q.Options))
		prompt := int32(-1)
		if !apart {
			prompt = b.question(&q, heads)
		}
		for j, o := range q.Options {
			l := &found[i][j]
			l.Tokens, l.Greedy = len(o), true
			segment := prompt
			if apart {
				segment = b.after(-1, q.Prompt)
			}
			guesses = append(guesses, guess{b.last(segment), o[0], l})
			if apart {
				b.extend(o[:len(o)-1])
			} else {
				b.after(segment, o[:len(o)-1])
			}
			first := int32(len(b.Tokens) - (len(o) - 1))
			for k := 1; k < len(o); k++ {
				guesses = append(guesses, guess{first + int32(k) - 1, o[k], l})
			}
		}
	}
	return found, m.judge(ctx, b, guesses)
}

// question adds a prompt behind its heads, of which those that are there are used again.
func (b *Batch) question(q *Question, heads map[string]int32) int32 {
	prefix, from := int32(-1), 0
	for level, n := range q.Heads {
		key := headKey(q.Prompt, q.Heads[:level+1])
		segment, ok := heads[key]
		if !ok {
			segment = b.after(prefix, q.Prompt[from:n])
			heads[key] = segment
		}
		prefix, from = segment, n
	}
	return b.after(prefix, q.Prompt[from:])
}

// judge fills what the guesses belong to.
func (m *Model) judge(ctx context.Context, b *Batch, guesses []guess) error {
	var rows []int32
	for _, g := range guesses {
		rows = append(rows, g.row)
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	for few := device.FewRows(m.device); few > 0 && len(rows) <= few; { // a few alone would have other last bits
		rows = append(rows, b.last(b.after(-1, []int32{0})))
	}
	logits, err := m.Logits(ctx, b, rows)
	if err != nil {
		return err
	}
	vocab := m.cfg.VocabSize
	norms, best := make([]float64, len(rows)), make([]int32, len(rows))
	for i := range rows {
		row := logits[i*vocab : (i+1)*vocab]
		if norms[i], err = logSumExp(row); err != nil {
			return fmt.Errorf("likelihoods: row %d: %w", rows[i], err)
		}
		best[i] = int32(slices.Index(row, slices.Max(row)))
	}
	for _, g := range guesses {
		i, _ := slices.BinarySearch(rows, g.row)
		g.of.Sum += float64(logits[i*vocab+int(g.id)]) - norms[i]
		g.of.Greedy = g.of.Greedy && best[i] == g.id
	}
	return nil
}

// after adds a segment that continues another one, and returns its index; without tokens that is the other's.
func (b *Batch) after(prefix int32, tokens []int32) int32 {
	if len(tokens) == 0 {
		return prefix
	}
	position := int32(0)
	if prefix >= 0 {
		position = b.Positions[b.last(prefix)] + 1
	}
	start := int32(len(b.Tokens))
	for i := range tokens {
		b.Positions = append(b.Positions, position+int32(i))
	}
	b.Tokens = append(b.Tokens, tokens...)
	b.Segments = append(b.Segments, Segment{start, int32(len(tokens)), prefix})
	return int32(len(b.Segments) - 1)
}

// extend adds tokens to the last segment.
func (b *Batch) extend(tokens []int32) {
	for _, id := range tokens {
		b.Positions = append(b.Positions, b.Positions[len(b.Positions)-1]+1)
		b.Tokens = append(b.Tokens, id)
	}
	b.Segments[len(b.Segments)-1].Len += int32(len(tokens))
}

// last is the last row of a segment.
func (b *Batch) last(segment int32) int32 {
	return b.Segments[segment].Start + b.Segments[segment].Len - 1
}
