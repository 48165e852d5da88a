package instruct

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/biolora/biolora/internal/parallel"
	"github.com/biolora/biolora/tokenizer"
)

// Tokenizer makes token ids of text. *tokenizer.Tokenizer is one.
type Tokenizer interface {
	EncodePieces([]tokenizer.Piece) [][]int32 // without BOS and EOS
	BOS() (int32, bool)
	EOS() (int32, bool)
	DecodeWithSpecial(ids []int32) string
	VocabSize() int
}

// TokenizeOptions are the numbers of Tokenize.
type TokenizeOptions struct {
	MaxLength     int  // longer rows are cut on the right; 0: none is
	KeepTokens    bool // pre-tokenised rows are not cut, as in Hugging Face's Trainer
	TrainOnInputs bool // the prompt is learnt too
	VocabSize     int  // of the model: ids and labels must be below; 0: not checked
}

// Example is one row as a model sees it.
type Example struct {
	IDs    []int32
	labels []int32 // of a pre-tokenised row
	// turns are the tokens where, otherwise, what is learnt begins, ends, begins again, and so on.
	turns []int32
	row   int32
}

// Row returns the index of the row in its Dataset.
func (e *Example) Row() int { return int(e.row) }

// Label returns the label of token t, Masked where it is not learnt. The model predicts it from the tokens before t,
// so that label 0 never counts.
func (e *Example) Label(t int) int32 {
	if e.labels != nil {
		return e.labels[t]
	}
	turns, begins := slices.BinarySearch(e.turns, int32(t))
	if begins {
		turns++
	}
	if turns%2 == 0 {
		return Masked
	}
	return e.IDs[t]
}

// LabelTokens counts the labels that are learnt: those from token 1 on that are not Masked.
func (e *Example) LabelTokens() int {
	n := 0
	for t := 1; t < len(e.IDs); t++ {
		if e.Label(t) != Masked {
			n++
		}
	}
	return n
}

// Examples is a data set in tokens, and what became of its rows.
type Examples struct {
	List    []Example // in the order of the rows
	Cut     int       // examples that lost their end to MaxLength
	NoLabel int       // rows left out because no label counts in what is left of them
	// Unlabelled counts pre-tokenised rows that were masked throughout when they came. They are kept, as Transformers'
	// Trainer keeps them: they teach nothing, but micro-batches are cut as the file says.
	Unlabelled int
	NoEOS      bool // the tokenizer has no EOS, so that the end of a response is not learnt
}

// Tokenize makes tokens of all rows: BOS, prompt, response, EOS, with the loss on response and EOS. Prompt and
// response are encoded apart, so that the boundary is exact. BOS and EOS are not doubled where the text brings them
// along. A conversation is what the chat template writes and nothing else, as in Transformers, with the loss on the
// assistant's turns; what is learnt and what is only read are encoded apart too. tok may be nil where all rows are
// pre-tokenised; it is used by several goroutines.
//
// Rows without a label that counts are left out and counted; none left at all is an error. Ids and labels outside the
// vocabulary are errors that name file and line. The context ends the work between two rows.
func (d *Dataset) Tokenize(ctx context.Context, tok Tokenizer, o TokenizeOptions) (*Examples, error) {
	if o.MaxLength < 0 {
		return nil, fmt.Errorf("MaxLength is %d; 0 is for no limit", o.MaxLength)
	}
	t := tokenizing{ctx: ctx, data: d, tok: tok, o: o, results: make([]result, len(d.rows))}
	pool := parallel.New(min(runtime.GOMAXPROCS(0), t.pieces()))
	defer pool.Close()
	pool.Run(t.pieces(), &t)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t.gather()
}

// tokenizing is the work of Tokenize, in pieces of some rows.
type tokenizing struct {
	ctx     context.Context
	data    *Dataset
	tok     Tokenizer
	o       TokenizeOptions
	results []result
}

// result is what became of one row.
type result struct {
	Example
	cut bool
	err error
}

const rowsPerPiece = 64

func (t *tokenizing) pieces() int { return (len(t.data.rows) + rowsPerPiece - 1) / rowsPerPiece }

func (t *tokenizing) Piece(_, piece int) {
	for i := piece * rowsPerPiece; i < min(len(t.results), (piece+1)*rowsPerPiece); i++ {
		if t.ctx.Err() != nil {
			return
		}
		r := &t.results[i]
		var whole int
		r.Example, whole, r.err = t.data.Example(i, t.tok, t.o)
		r.cut = whole > len(r.IDs)
	}
}

// gather makes Examples of the results, in the order of the rows.
func (t *tokenizing) gather() (*Examples, error) {
	out := &Examples{List: make([]Example, 0, len(t.results))}
	var errs []error
	bad, text, labelled := 0, false, false
	for i := range t.results {
		r := &t.results[i]
		if r.err != nil {
			if bad++; bad <= maxReported {
				errs = append(errs, r.err)
			}
			continue
		}
		text = text || r.labels == nil && t.data.rows[i].spans == nil
		switch {
		case r.LabelTokens() > 0:
			labelled = true
		case r.labels != nil && !r.cut:
			out.Unlabelled++
		default:
			out.NoLabel++
			continue
		}
		if r.cut {
			out.Cut++
		}
		out.List = append(out.List, r.Example)
	}
	if bad > maxReported {
		errs = append(errs, fmt.Errorf("%d more rows cannot be used", bad-maxReported))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if !labelled {
		return nil, fmt.Errorf("nothing to learn: none of the %d rows (from %s on) has a label that counts within %s",
			len(t.results), t.data.rows[0].Place(), lengthName(t.o.MaxLength))
	}
	if text {
		_, eos := t.tok.EOS()
		out.NoEOS = !eos
	}
	return out, nil
}

func lengthName(n int) string {
	if n == 0 {
		return "its length"
	}
	return fmt.Sprintf("the maximum length of %d tokens", n)
}

// Example makes tokens of row i as Tokenize does, though none of its labels may count. whole is how many there were
// before the cut.
func (d *Dataset) Example(i int, tok Tokenizer, o TokenizeOptions) (e Example, whole int, err error) {
	if e, err = d.example(i, tok, o); err != nil {
		return e, 0, err
	}
	whole = len(e.IDs)
	if o.MaxLength > 0 && whole > o.MaxLength && !(e.labels != nil && o.KeepTokens) {
		e.shorten(o.MaxLength)
	}
	return e, whole, nil
}

func (d *Dataset) example(i int, tok Tokenizer, o TokenizeOptions) (Example, error) {
	r := &d.rows[i]
	e := Example{row: int32(i)}
	if r.Kind == Tokens {
		e.IDs, e.labels = r.InputIDs, r.Labels
	} else {
		if tok == nil {
			return e, fmt.Errorf("%s: text rows need a tokenizer", r.Place())
		}
		spans := d.Spans(i)
		ids := encode(tok, spans)
		if r.spans == nil {
			ids[0], ids[1] = withEnds(tok, ids[0], ids[1])
		}
		e.join(spans, ids)
		if o.TrainOnInputs {
			e.turns = []int32{0}
		}
	}
	if o.VocabSize > 0 {
		if err := e.inVocabulary(tok, o.VocabSize); err != nil {
			return e, fmt.Errorf("%s: %w", r.Place(), err)
		}
	}
	return e, nil
}

// encode returns the ids of each span.
func encode(tok Tokenizer, spans []Span) [][]int32 {
	pieces := make([]tokenizer.Piece, len(spans))
	for i, s := range spans {
		pieces[i] = tokenizer.Piece{Text: s.Text, Plain: s.Plain}
	}
	return tok.EncodePieces(pieces)
}

// withEnds puts BOS before a prompt and EOS behind a response, unless they are there.
func withEnds(tok Tokenizer, prompt, response []int32) (withBOS, withEOS []int32) {
	first := prompt
	if len(prompt) == 0 {
		first = response
	}
	if bos, ok := tok.BOS(); ok && (len(first) == 0 || first[0] != bos) {
		prompt = append([]int32{bos}, prompt...)
	}
	if eos, ok := tok.EOS(); ok && (len(response) == 0 || response[len(response)-1] != eos) {
		response = append(response, eos)
	}
	return prompt, response
}

// join makes one example of the ids of spans.
func (e *Example) join(spans []Span, ids [][]int32) {
	e.IDs = slices.Concat(ids...)
	at, learnt := 0, false
	for i, s := range spans {
		if s.Learnt != learnt && len(ids[i]) > 0 {
			e.turns = append(e.turns, int32(at))
			learnt = s.Learnt
		}
		at += len(ids[i])
	}
}

func (e *Example) shorten(n int) {
	e.IDs = e.IDs[:n]
	if e.labels != nil {
		e.labels = e.labels[:n]
	}
}

func (e *Example) inVocabulary(tok Tokenizer, vocab int) error {
	for t, id := range e.IDs {
		if int(id) < vocab {
			continue
		}
		if e.labels != nil {
			return fmt.Errorf("input_ids[%d] is %d, outside the model's vocabulary of %d", t, id, vocab)
		}
		return fmt.Errorf("token %q has the id %d, outside the model's vocabulary of %d",
			tok.DecodeWithSpecial(e.IDs[t:t+1]), id, vocab)
	}
	for t, l := range e.labels {
		if int(l) >= vocab {
			return fmt.Errorf("labels[%d] is %d, outside the model's vocabulary of %d", t, l, vocab)
		}
	}
	return nil
}
