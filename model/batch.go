package model

import (
	"errors"
	"fmt"

	"github.com/biolora/biolora/internal/backend"
)

// Batch is a micro-batch: the rows of all its sequences, one after another, without padding.
type Batch struct {
	Tokens    []int32 // one a row
	Positions []int32 // of each row within its sequence, from 0
	Segments  []Segment
	Targets   []Target // the losses are summed in this order
	Dropout   *Dropout // nil: none
}

// Segment is a run of rows that are consecutive positions of one sequence, together all rows of the batch in
// order. A row sees the rows of its segment up to itself, and those of the chain of segments that Prefix names.
type Segment struct {
	Start, Len int32
	Prefix     int32 // an earlier segment that this one continues, or -1
}

// Target says that the logits at Row of the batch are to predict Label, in Count samples.
type Target struct{ Row, Label, Count int32 }

// Dropout is what decides which inputs of the low-rank branches are dropped: with the row's position, the linear
// and the column, nothing else.
type Dropout struct {
	Seed    uint64
	Epoch   uint32
	Samples []uint32 // of each row of the batch
}

// Append adds a sequence of its own; its tokens are at positions 0 and on. It returns the row of its first token.
func (b *Batch) Append(tokens []int32) (first int32) {
	first = int32(len(b.Tokens))
	b.Tokens = append(b.Tokens, tokens...)
	for i := range tokens {
		b.Positions = append(b.Positions, int32(i))
	}
	b.Segments = append(b.Segments, Segment{first, int32(len(tokens)), -1})
	return first
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	*b = Batch{Tokens: b.Tokens[:0], Positions: b.Positions[:0], Segments: b.Segments[:0], Targets: b.Targets[:0]}
}

// prepared is a Batch as the backend wants it, with memory that is used again.
type prepared struct {
	batch   backend.Batch
	index   []int32 // of each row among those with a target, -1: none
	lengths []int32 // of each row's sequence, for rotary tables that depend on it
	dropout backend.Dropout
	sum     backend.Sum // where its losses go
}

// maxBatchErrors is the most problems of a batch that are reported.
const maxBatchErrors = 8

// prepare checks b and fills p for it.
func (m *Model) prepare(p *prepared, b *Batch) error {
	if err := m.checkBatch(b); err != nil {
		return err
	}
	d := &p.batch
	d.Tokens, d.Positions = b.Tokens, b.Positions
	d.Segments = d.Segments[:0]
	for _, s := range b.Segments {
		d.Segments = append(d.Segments, backend.Segment{Start: s.Start, Len: s.Len, Prefix: s.Prefix, Slot: -1})
	}
	m.rotary(p)
	p.targets(b)
	d.Dropout = nil
	if b.Dropout != nil {
		p.dropout = backend.Dropout{Seed: b.Dropout.Seed, Epoch: b.Dropout.Epoch, Samples: b.Dropout.Samples}
		d.Dropout = &p.dropout
	}
	d.Changed()
	return nil
}

// rotary fills the cosines and sines of each row.
func (m *Model) rotary(p *prepared) {
	d := &p.batch
	n := len(d.Tokens) * m.cfg.HeadDim / 2
	d.Cos, d.Sin = grow(d.Cos, n), grow(d.Sin, n)
	var lengths []int32
	if m.rope.DependsOnLength() {
		p.lengths = grow(p.lengths, len(d.Tokens))
		for _, s := range d.Segments {
			for t := s.Start; t < s.Start+s.Len; t++ {
				p.lengths[t] = d.Positions[s.Start+s.Len-1] + 1
			}
		}
		lengths = p.lengths
	}
	m.rope.Table(d.Positions, lengths, d.Cos, d.Sin)
}

// targets lists the distinct rows that have one, and points the targets at that list.
func (p *prepared) targets(b *Batch) {
	d := &p.batch
	d.Rows, d.Targets = d.Rows[:0], d.Targets[:0]
	p.index = grow(p.index, len(b.Tokens))
	for i := range p.index {
		p.index[i] = -1
	}
	for _, t := range b.Targets {
		p.index[t.Row] = 0
	}
	for row, marked := range p.index {
		if marked == 0 {
			p.index[row] = int32(len(d.Rows))
			d.Rows = append(d.Rows, int32(row))
		}
	}
	for _, t := range b.Targets {
		d.Targets = append(d.Targets, backend.Target{Row: p.index[t.Row], Label: t.Label, Count: t.Count})
	}
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// checkBatch gathers what is wrong with b.
func (m *Model) checkBatch(b *Batch) error {
	var errs []error
	bad := func(format string, a ...any) bool {
		errs = append(errs, fmt.Errorf("batch: "+format, a...))
		return len(errs) >= maxBatchErrors
	}
	if len(b.Tokens) == 0 {
		return errors.New("batch: it has no rows")
	}
	if len(b.Positions) != len(b.Tokens) {
		return fmt.Errorf("batch: %d positions for %d rows", len(b.Positions), len(b.Tokens))
	}
	if d := b.Dropout; d != nil && len(d.Samples) != len(b.Tokens) {
		return fmt.Errorf("batch: %d samples for %d rows of dropout", len(d.Samples), len(b.Tokens))
	}
	vocab := int32(m.cfg.VocabSize)
	for row, id := range b.Tokens {
		if id < 0 || id >= vocab {
			if bad("row %d: token %d is outside the vocabulary of %d", row, id, vocab) {
				break
			}
		}
		if b.Positions[row] < 0 && bad("row %d: position %d", row, b.Positions[row]) {
			break
		}
	}
	next := int32(0)
	for i, s := range b.Segments {
		if s.Start != next || s.Len <= 0 || int(s.Start)+int(s.Len) > len(b.Tokens) {
			return errors.Join(append(errs, fmt.Errorf("batch: segment %d has rows %d to %d, the one before ends at %d and there are %d", i, s.Start, int(s.Start)+int(s.Len), next, len(b.Tokens)))...)
		}
		next = s.Start + s.Len
		if s.Prefix < -1 || int(s.Prefix) >= i {
			return errors.Join(append(errs, fmt.Errorf("batch: segment %d continues segment %d, which does not come before it", i, s.Prefix))...)
		}
		if err := m.checkPositions(b, i); err != nil {
			errs = append(errs, err)
		}
	}
	if int(next) != len(b.Tokens) {
		bad("the segments have %d rows, the batch %d", next, len(b.Tokens))
	}
	for i, t := range b.Targets {
		if t.Row < 0 || int(t.Row) >= len(b.Tokens) || t.Label < 0 || t.Label >= vocab || t.Count < 1 {
			if bad("target %d: label %d at row %d, %d times; there are %d rows and %d labels", i, t.Label, t.Row, t.Count, len(b.Tokens), vocab) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// checkPositions requires that a segment's positions follow one another, and its prefix.
func (m *Model) checkPositions(b *Batch, i int) error {
	s := b.Segments[i]
	want := int32(0)
	if s.Prefix >= 0 {
		p := b.Segments[s.Prefix]
		want = b.Positions[p.Start+p.Len-1] + 1
		if m.rope.DependsOnLength() {
			return fmt.Errorf("batch: segment %d continues another, but with %s rotary scaling a row's table depends on its length", i, m.cfg.Rope.Type)
		}
	}
	for t := s.Start; t < s.Start+s.Len; t++ {
		if b.Positions[t] != want {
			return fmt.Errorf("batch: row %d of segment %d is at position %d, want %d", t, i, b.Positions[t], want)
		}
		want++
	}
	return nil
}
