package train

import (
	"fmt"
	"strings"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train/instruct"
)

// filler makes micro-batches of examples, in the same memory each time.
type filler struct {
	list    []instruct.Example
	share   bool // rows share what they begin with
	batch   model.Batch
	dropout model.Dropout
	sharer  sharer
}

// fill makes one micro-batch: the rows one after another, each a segment of its own, or a tree of segments where they
// share what they begin with; the row of token t has the label of token t+1 as its target. tokens and labels count
// those of the rows, whether shared or not.
func (f *filler) fill(rows []int) (b *model.Batch, tokens, labels int) {
	b = &f.batch
	b.Reset()
	if f.share {
		f.sharer.fill(b, f.list, rows)
	} else {
		f.fillRows(rows)
	}
	for _, r := range rows {
		tokens += len(f.list[r].IDs)
	}
	for _, t := range b.Targets {
		labels += int(t.Count)
	}
	return b, tokens, labels
}

func (f *filler) fillRows(rows []int) {
	b := &f.batch
	for _, r := range rows {
		e := &f.list[r]
		first := b.Append(e.IDs)
		for t := 1; t < len(e.IDs); t++ {
			if label := e.Label(t); label != instruct.Masked {
				b.Targets = append(b.Targets, model.Target{Row: first + int32(t) - 1, Label: label, Count: 1})
			}
		}
	}
}

// withDropout tells the micro-batch that fill has just made of rows what decides its dropout. What rows share has the
// mask of the first of them.
func (f *filler) withDropout(rows []int, seed uint64, epoch int) {
	f.dropout.Seed, f.dropout.Epoch = seed, uint32(epoch)
	f.dropout.Samples = f.dropout.Samples[:0]
	if f.share {
		for _, i := range f.sharer.owner {
			f.dropout.Samples = append(f.dropout.Samples, uint32(f.list[rows[i]].Row()))
		}
		f.batch.Dropout = &f.dropout
		return
	}
	for _, r := range rows {
		e := &f.list[r]
		for range e.IDs {
			f.dropout.Samples = append(f.dropout.Samples, uint32(e.Row()))
		}
	}
	f.batch.Dropout = &f.dropout
}

// Describe decodes an example piece by piece; tok may be nil. Pieces are cut out of the decoded whole, since tokens decode otherwise
// at the beginning of a text than inside it.
func Describe(e *instruct.Example, tok instruct.Tokenizer) Example {
	var x Example
	learnt := func(t int) bool { return t > 0 && e.Label(t) != instruct.Masked }
	for from := 0; from < len(e.IDs); {
		to := from + 1
		for to < len(e.IDs) && learnt(to) == learnt(from) {
			to++
		}
		x.Pieces = append(x.Pieces, Piece{Text: decode(e.IDs, from, to, tok), Tokens: to - from, Label: learnt(from)})
		from = to
	}
	return x
}

// decode returns the text of ids[from:to] inside ids; the ids themselves where there is no tokenizer.
func decode(ids []int32, from, to int, tok instruct.Tokenizer) string {
	if tok == nil {
		return strings.Trim(fmt.Sprint(ids[from:to]), "[]")
	}
	before, whole := tok.DecodeWithSpecial(ids[:from]), tok.DecodeWithSpecial(ids[:to])
	if text, ok := strings.CutPrefix(whole, before); ok {
		return text
	}
	return tok.DecodeWithSpecial(ids[from:to]) // a character's bytes lie on both sides
}
