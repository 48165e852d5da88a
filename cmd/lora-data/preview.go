package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// preview is the command of that name.
type preview struct {
	Model string   `required:"" placeholder:"DIR|FILE" help:"Checkpoint: its tokenizer and its configuration are read, no weights."`
	Data  []string `required:"" sep:"none" placeholder:"FILE" help:"Rows: a JSON array or JSON Lines. May be repeated."`
	N     *int     `name:"rows" short:"n" placeholder:"N" help:"How many rows to show. Without it: 3, and with --json all."`
	From  int      `placeholder:"N" help:"The first row to show, counted from 1."`
	Row   int      `placeholder:"N" help:"Show this row only."`
	JSON  bool     `name:"json" help:"Print {input_ids, labels}, one row a line, ready to be --data again."`

	dataset.Rows
}

// Help is the longer help.
func (preview) Help() string {
	return `Shows rows as the model will see them: what is only read is dimmed, or marked where there are no colours (NO_COLOR turns
them off), and the rest is learnt. The flags under "Data" are lora-train's.

--json prints the tokens themselves. Training on them is training on the rows they come from: rows that the cut leaves without
a label are left out, as in training.

Examples:

  lora-data preview --model Llama-2-7b-hf --data bioinstruct.json
  lora-data preview --model Llama-2-7b-hf --data bioinstruct.json --max-seq-length 512 --row 17
  lora-data preview --model Llama-2-7b-hf --data bioinstruct.json --json > tokens.jsonl`
}

// Run carries the command out.
func (c *preview) Run(ctx context.Context, s *cli.Streams) error {
	if err := c.validate(); err != nil {
		return err
	}
	v, err := c.open(ctx, s)
	if err != nil {
		return err
	}
	switch {
	case !c.JSON:
		return v.show(ctx, s)
	case v.part:
		return v.print(ctx, s)
	}
	return v.printAll(ctx, s)
}

// validate says what is wrong with the flags by themselves.
func (c *preview) validate() error {
	var errs []error
	fail := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.N != nil && *c.N < 1 {
		fail("-n is %d: want at least 1", *c.N)
	}
	if c.From < 0 {
		fail("--from is %d: rows are counted from 1", c.From)
	}
	if c.Row < 0 {
		fail("--row is %d: rows are counted from 1", c.Row)
	}
	if c.Row != 0 && (c.N != nil || c.From != 0) {
		fail("--row names one row: neither --from nor -n goes with it")
	}
	if c.MaxSeqLength < 0 {
		fail("--max-seq-length is %d: want 0 or more", c.MaxSeqLength)
	}
	if err := errors.Join(append(errs, c.Check())...); err != nil {
		return cli.UsageError{Err: err}
	}
	return nil
}

// defaultRows is how many rows are shown.
const defaultRows = 3

// chosen returns the first row to show, from 0, and how many. part is false where it is all of them.
func (c *preview) chosen() (from, n int, part bool) {
	switch {
	case c.Row != 0:
		return c.Row - 1, 1, true
	case c.N != nil:
		return max(0, c.From-1), *c.N, true
	case c.JSON:
		return max(0, c.From-1), math.MaxInt, c.From > 1
	}
	return max(0, c.From-1), defaultRows, true
}

// view is a data set as a model sees it.
type view struct {
	data    *instruct.Dataset
	part    bool               // the data has other rows too
	from    int                // the first row's number, from 0
	tok     instruct.Tokenizer // nil where rows are token ids and there is none
	options instruct.TokenizeOptions
}

// open reads rows, tokenizer and configuration. All that is wrong is gathered.
func (c *preview) open(ctx context.Context, s *cli.Streams) (*view, error) {
	note := func(format string, a ...any) {
		fmt.Fprintln(s.Err, "lora-data: note:", visible.Text(fmt.Sprintf(format, a...)))
	}
	v := &view{}
	opts := []instruct.Option{}
	var n int
	if v.from, n, v.part = c.chosen(); v.part {
		opts = append(opts, instruct.OnlyRows(v.from, n))
	}
	d, dataErr := c.OpenFor(ctx, c.Model, c.Data, opts...)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if dataErr == nil {
		v.data = d.Rows
		if d.Tokenizer != nil {
			v.tok = d.Tokenizer
		}
		for _, w := range d.Warnings {
			note("%s", w)
		}
	}
	if _, err := os.Stat(c.Model); err != nil {
		return nil, dataErr // what every reader of it would say
	}
	o := train.Defaults()
	c.Options(&o)
	cfg, _, configErr := model.ReadConfig(c.Model)
	if errors.Is(configErr, fs.ErrNotExist) {
		v.options, configErr = o.TokenizeOptions(0, 0), nil
		note("%s has no configuration: ids are not compared with the model's vocabulary", c.Model)
	} else {
		v.options = o.TokenizeOptions(cfg.VocabSize, cfg.MaxPositionEmbeddings)
	}
	return v, errors.Join(dataErr, configErr)
}

// show draws rows.
func (v *view) show(ctx context.Context, s *cli.Streams) error {
	style := report.StyleOf(s.Stdout)
	fmt.Fprintf(s.Out, "what is only read is %s, the rest is learnt\n", style.Masked())
	for i := range v.data.Len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, whole, err := v.data.Example(i, v.tok, v.options)
		if err != nil {
			return err
		}
		row := v.data.Row(i)
		text := fmt.Sprintf("\nrow %d, %s: %d tokens, %d of them learnt", v.from+i+1, row.Place(), len(e.IDs), e.LabelTokens())
		if whole > len(e.IDs) {
			text += fmt.Sprintf("; cut, there were %d", whole)
		}
		if e.LabelTokens() == 0 {
			text += "; nothing to learn"
			if !v.kept(&e, whole) {
				text += ", so it is left out"
			}
		}
		fmt.Fprintln(s.Out, visible.Text(text))
		report.Example(s.Out, style, train.Describe(&e, v.tok))
	}
	return nil
}

// kept says whether a row is trained on, as instruct.Dataset.Tokenize decides it.
func (v *view) kept(e *instruct.Example, whole int) bool {
	return e.LabelTokens() > 0 || v.data.Row(e.Row()).Kind == instruct.Tokens && whole == len(e.IDs)
}

// print writes some rows as JSON.
func (v *view) print(ctx context.Context, s *cli.Streams) error {
	for i := range v.data.Len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, whole, err := v.data.Example(i, v.tok, v.options)
		if err != nil {
			return err
		}
		if !v.kept(&e, whole) {
			fmt.Fprintf(s.Err, "lora-data: note: %s is left out: the cut at %d tokens leaves nothing to learn\n",
				visible.Text(v.data.Row(i).Place()), v.options.MaxLength)
			continue
		}
		if err := writeTokens(s, &e); err != nil {
			return err
		}
	}
	return nil
}

// printAll writes all rows as JSON. All that is wrong with them is reported before the first line.
func (v *view) printAll(ctx context.Context, s *cli.Streams) error {
	all, err := v.data.Tokenize(ctx, v.tok, v.options)
	if err != nil {
		return err
	}
	for i := range all.List {
		if err := writeTokens(s, &all.List[i]); err != nil {
			return err
		}
	}
	if all.Cut > 0 || all.NoLabel > 0 {
		fmt.Fprintf(s.Err, "lora-data: note: %d rows were cut at %d tokens, %d left out because nothing to learn was left\n",
			all.Cut, v.options.MaxLength, all.NoLabel)
	}
	return ctx.Err()
}

// writeTokens writes a row of tokens.
func writeTokens(s *cli.Streams, e *instruct.Example) error {
	var b strings.Builder
	list := func(name string, at func(t int) int32) {
		b.WriteString(name)
		for t := range e.IDs {
			if t > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Itoa(int(at(t))))
		}
	}
	list(`{"input_ids":[`, func(t int) int32 { return e.IDs[t] })
	list(`],"labels":[`, e.Label)
	b.WriteString("]}\n")
	if _, err := s.Out.WriteString(b.String()); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	return nil
}
