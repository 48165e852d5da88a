// Package instruct reads instruction data: files of rows, the prompt templates that make text of them, and the
// token ids and label masks that a model is trained on.
package instruct

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/tokenizer"
)

// Dataset is the rows of one or more files, in their order, and the template that makes text of them.
type Dataset struct {
	Template Template
	rows     []Row
	plain    bool // special tokens in rows are text
	bad      int
	badRows  []error
}

// maxReported is how many bad rows an error or a report names one by one.
const maxReported = 10

// Option changes how files are read.
type Option func(*reader)

// WithFields gives other names to the fields of text rows; an empty name stands for the default one. A name given
// here that no row has is an error.
func WithFields(f Fields) Option { return func(r *reader) { r.given = f } }

// WithContext ends the reading when the context does.
func WithContext(ctx context.Context) Option { return func(r *reader) { r.ctx = ctx } }

// OnlyRows takes n rows from row from on, counted from 0 over all files, and reads no further. Bad rows do not count.
func OnlyRows(from, n int) Option { return func(r *reader) { r.from, r.most = from, n } }

// SkipBad goes on after rows that cannot be used and counts them, instead of failing.
func SkipBad() Option { return func(r *reader) { r.skipBad = true } }

// Open reads one file of rows: a JSON array of objects, or JSON Lines; which of the two is told by its first
// character. Rows are {instruction, input, output}, {prompt, completion} (no template), conversations {messages, tools}
// or, in ShareGPT's form, {conversations} (see WithChat), or pre-tokenised {input_ids, labels} (Hugging Face's
// convention: labels are aligned with the ids, -100 is masked); a file may mix them. Fields that are none of these are
// ignored. All bad rows are reported, by file and line.
func Open(path string, t Template, opts ...Option) (*Dataset, error) {
	return OpenAll([]string{path}, t, opts...)
}

// OpenAll reads several files as one data set, in the order given.
func OpenAll(paths []string, t Template, opts ...Option) (*Dataset, error) {
	if len(paths) == 0 {
		return nil, errors.New("no data file is given")
	}
	r := newReader(t, opts)
	var errs []error
	for _, p := range paths {
		if err := r.file(p); err != nil {
			errs = append(errs, err)
		}
	}
	return r.finish(strings.Join(paths, ", "), errs)
}

// Read reads one file's rows from src; name stands for the file in messages.
func Read(name string, src io.Reader, t Template, opts ...Option) (*Dataset, error) {
	r := newReader(t, opts)
	var errs []error
	if err := r.read(name, src); err != nil {
		errs = append(errs, err)
	}
	return r.finish(name, errs)
}

// Len returns the number of usable rows.
func (d *Dataset) Len() int { return len(d.rows) }

// Bad returns the number of rows that SkipBad left out.
func (d *Dataset) Bad() int { return d.bad }

// BadRows returns what was wrong with the first of the rows that SkipBad left out.
func (d *Dataset) BadRows() []error { return d.badRows }

// Row returns row i. The caller does not change it.
func (d *Dataset) Row(i int) *Row { return &d.rows[i] }

// OnlyTokens reports whether all rows are token ids, which need no tokenizer.
func (d *Dataset) OnlyTokens() bool {
	return !slices.ContainsFunc(d.rows, func(r Row) bool { return r.Kind != Tokens })
}

// Conversations counts the rows that a chat template made text of.
func (d *Dataset) Conversations() (n int) {
	for i := range d.rows {
		if d.rows[i].spans != nil {
			n++
		}
	}
	return n
}

// Span is a stretch of a row's text.
type Span struct {
	Text   string
	Learnt bool // or only read
	// Plain are the parts of Text in which special tokens are text; see NoSpecialInText.
	Plain []tokenizer.Range
}

// Spans returns the text of row i as the model is to see it. A conversation has all of its text in them; the prompt and
// the response of other rows get BOS and EOS besides. A pre-tokenised row has none. The caller does not change them.
func (d *Dataset) Spans(i int) []Span {
	r := &d.rows[i]
	if r.spans != nil {
		return r.spans
	}
	switch r.Kind {
	case Instruction:
		prompt, response := d.Template.render(r.Instruction, r.Input, r.Output)
		if !d.plain {
			prompt.Plain, response.Plain = nil, nil
		}
		return []Span{prompt, response}
	case Prompt:
		spans := []Span{{Text: r.Prompt}, {Text: r.Completion, Learnt: true}}
		for i := range spans {
			if d.plain {
				spans[i].Plain = []tokenizer.Range{{To: len(spans[i].Text)}}
			}
		}
		return spans
	}
	return nil
}

// reader gathers the rows and the complaints of several files.
type reader struct {
	Dataset
	ctx        context.Context
	given      Fields // as the caller gave them
	fields     names  // with defaults
	chat       Chat
	special    []string // the tokenizer's special tokens
	skipBad    bool
	from, most int       // OnlyRows
	good       int       // rows so far, those before from included
	seen       Fields    // the given names that some row has
	pending    []pending // conversations
	places     []int     // of badRows among all rows
	err        error     // of the options
}

func newReader(t Template, opts []Option) *reader {
	r := &reader{Dataset: Dataset{Template: t}, ctx: context.Background(), most: math.MaxInt}
	for _, o := range opts {
		o(r)
	}
	fields, err := r.given.resolve()
	r.fields = fields
	r.err = errors.Join(t.validate(), err)
	if r.from < 0 || r.most < 1 {
		r.err = errors.Join(r.err, fmt.Errorf("rows from %d on, %d of them: expected one at least, counted from 0", r.from, r.most))
	}
	return r
}

func (r *reader) file(path string) error {
	if r.err != nil {
		return nil // finish reports it once
	}
	f, err := regular.Open(path)
	if err != nil {
		return fmt.Errorf("data file: %w", err)
	}
	defer f.Close()
	return r.read(path, f)
}

// read adds the rows of one file. The error it returns is the file's own (it cannot be read on); bad rows are
// kept in the reader.
func (r *reader) read(name string, src io.Reader) error {
	if r.err != nil {
		return nil
	}
	in := bufio.NewReaderSize(src, 1<<16)
	if err := jsoncut.Text(in); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s := jsoncut.NewLoose(name, in)
	for r.good-r.from < r.most {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		raw, err := s.Next()
		if err == io.EOF {
			return nil
		}
		var bad *jsoncut.Error
		if err != nil && !errors.As(err, &bad) {
			return err
		}
		if err == nil {
			var row Row
			var c *conversation
			if row, c, err = parseRow(raw, r.fields, &r.seen); err == nil {
				r.accept(row, c)
				continue
			}
		}
		r.reject(r.good+r.bad, err)
	}
	return nil
}

// accept takes a row that is well-formed.
func (r *reader) accept(row Row, c *conversation) {
	at := r.good + r.bad
	if r.good++; r.good <= r.from {
		return
	}
	if c == nil && r.Template.Chat && row.Kind != Tokens {
		c = r.Template.conversation(&row)
	}
	if c != nil {
		r.pending = append(r.pending, pending{conversation: c, row: len(r.rows), at: at})
	}
	r.rows = append(r.rows, row)
}

// reject counts a bad row, which is row number at of all files, and keeps the complaint if it is one of the first.
func (r *reader) reject(at int, err error) {
	r.bad++
	i, _ := slices.BinarySearch(r.places, at)
	if i == maxReported {
		return
	}
	r.places = slices.Insert(r.places, i, at)
	r.badRows = slices.Insert(r.badRows, i, err)
	if len(r.places) > maxReported {
		r.places, r.badRows = r.places[:maxReported], r.badRows[:maxReported]
	}
}

func (r *reader) finish(names string, errs []error) (*Dataset, error) {
	if r.err != nil {
		return nil, r.err
	}
	if err := r.render(); err != nil {
		errs = append(errs, err)
	}
	if !r.skipBad && r.bad > 0 {
		errs = append(r.badRows, errs...)
		if more := r.bad - len(r.badRows); more > 0 {
			errs = append(errs, fmt.Errorf("%s: %d more bad rows (%d of %d rows are bad)", names, more, r.bad, r.bad+len(r.rows)))
		}
	}
	if len(errs) == 0 && len(r.rows) > 0 && r.most == math.MaxInt {
		errs = append(errs, r.unseenFields(names)...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(r.rows) == 0 {
		if r.from > 0 && r.good > 0 {
			return nil, fmt.Errorf("%s: %d rows are to be passed over, and the data set has no more than %d", names, r.from, r.good)
		}
		if r.bad > 0 {
			return nil, fmt.Errorf("%s: the data set is empty: all of its %d rows are bad, the first: %w", names, r.bad, r.badRows[0])
		}
		return nil, fmt.Errorf("%s: the data set is empty", names)
	}
	d := r.Dataset
	return &d, nil
}

// unseenFields complains of names that were given and that no row has: they are misspelt, and a row without an
// input would go unnoticed.
func (r *reader) unseenFields(names string) []error {
	var errs []error
	seen := r.seen.list()
	for i, f := range r.given.list() {
		if *f.name != "" && *seen[i].name == "" {
			errs = append(errs, fmt.Errorf("%s: no row has the field %q, given as the name of %s", names, *f.name, f.role))
		}
	}
	return errs
}
