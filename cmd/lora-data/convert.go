package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/rows"
)

// convert is the command of that name.
type convert struct {
	Corpus       string   `arg:"" optional:"" help:"Corpus: one of those that --list shows."`
	Files        []string `arg:"" optional:"" help:"Files of the corpus."`
	Out          string   `placeholder:"FILE" help:"Where the rows go: .json, .jsonl or .parquet. Without it: JSON Lines on standard output."`
	Overwrite    bool     `help:"Replace the output where it exists."`
	List         bool     `help:"List the corpora."`
	Describe     bool     `help:"Tell what files the corpus needs, and stop."`
	Seed         uint64   `placeholder:"N" help:"Chooses among the wordings of an instruction, together with the row's id."`
	Split        string   `placeholder:"NAME" help:"Split of the rows: train, dev or test. Without it: what the file's name says."`
	Source       string   `placeholder:"NAME" help:"Source of the rows. Without it: the corpus."`
	Instructions string   `placeholder:"FILE" help:"Wordings of your own: YAML, names of tasks with a list of instructions each."`
	MaxBad       int      `name:"max-bad" placeholder:"N" help:"Bad records that may be left out. -1: any number."`
}

// Help is the longer help.
func (convert) Help() string {
	return `Makes instruction rows {instruction, input, output, task, category, source, split, id} of a corpus. Corpora under a licence are
yours to bring; --describe says which file of a corpus is meant and what must be in it. An instruction has several wordings:
which one a row gets depends on --seed and the row's id alone.

Records that cannot be used are told by file and line. None may be bad unless --max-bad allows it.

Examples:

  lora-data convert --list
  lora-data convert ncbi-disease --describe
  lora-data convert ncbi-disease train.tsv --out ncbi-train.jsonl
  lora-data convert medqa questions.jsonl --split test --out medqa-test.jsonl`
}

// Run carries the command out.
func (c *convert) Run(ctx context.Context, s *cli.Streams) error {
	if c.List {
		return c.list(s)
	}
	if c.Corpus == "" {
		return cli.Usagef("no corpus is given; --list shows them")
	}
	conv, err := medtuned.Lookup(c.Corpus)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	if c.Describe {
		fmt.Fprintln(s.Out, strings.TrimRight(conv.Describe(), "\n"))
		return nil
	}
	if err := c.check(); err != nil {
		return err
	}
	o := medtuned.Options{Seed: c.Seed, Split: c.Split, Source: c.Source}
	if c.Instructions != "" {
		if o.Instructions, err = medtuned.ReadInstructions(c.Instructions); err != nil {
			return err
		}
	}
	skipped := map[string]int{}
	o.Skipped = func(_ rows.Place, why string) { skipped[why]++ }
	bad := &rows.Bad{Limit: c.MaxBad}
	var b *bar
	if c.Out != "" { // and nothing is drawn among rows
		ctx, b = reading(ctx, s.Err, c.Files)
	}
	n, err := c.write(s, some(bad.LeaveOut(conv.Convert(ctx, c.Files, o))))
	if b != nil {
		b.end()
	}
	if err != nil {
		if errors.Is(err, errNoRows) {
			tellLeftOut(s.Err, bad, skipped)
		}
		return err
	}
	c.tell(s.Err, n, bad, skipped)
	return nil
}

func (c *convert) check() error {
	switch {
	case len(c.Files) == 0:
		return cli.Usagef("%s: no files are given; --describe says which the corpus needs", c.Corpus)
	case c.Split != "" && !slices.Contains(medtuned.Splits, c.Split):
		return cli.Usagef("--split %q is none of %s", c.Split, strings.Join(medtuned.Splits, ", "))
	case c.Out == "":
		return nil
	}
	if _, err := os.Lstat(c.Out); err == nil && !c.Overwrite {
		return cli.Usagef("%s exists (--overwrite replaces it)", c.Out)
	}
	if err := replaces("--out", c.Out, append([]string{c.Instructions}, c.Files...)); err != nil {
		return err
	}
	return writable(c.Out)
}

func (c *convert) write(s *cli.Streams, seq iter.Seq2[rows.Row, error]) (int, error) {
	if c.Out == "" {
		return rows.Encode(s.Out, ".jsonl", seq)
	}
	return rows.Write(c.Out, seq)
}

var errNoRows = errors.New("no rows: the files have no record that one could be made of")

// some ends in errNoRows where seq has no row, so that no empty file is written.
func some(seq iter.Seq2[rows.Row, error]) iter.Seq2[rows.Row, error] {
	return func(yield func(rows.Row, error) bool) {
		found := false
		for row, err := range seq {
			found = true
			if !yield(row, err) {
				return
			}
		}
		if !found {
			yield(rows.Row{}, errNoRows)
		}
	}
}

// tell says what was done where standard output is not in the way.
func (c *convert) tell(w io.Writer, n int, bad *rows.Bad, skipped map[string]int) {
	tellLeftOut(w, bad, skipped)
	fmt.Fprintf(w, "%d rows, %d bad, in %s\n", n, bad.Count, cmp.Or(c.Out, "standard output"))
}

func tellLeftOut(w io.Writer, bad *rows.Bad, skipped map[string]int) {
	for _, err := range bad.First {
		fmt.Fprintln(w, "lora-data: left out:", err)
	}
	if more := bad.Count - len(bad.First); more > 0 {
		fmt.Fprintf(w, "lora-data: left out: %d more\n", more)
	}
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "lora-data: %d records passed over: %s\n", skipped[why], why)
	}
}

func (c *convert) list(s *cli.Streams) error {
	all, err := medtuned.Converters()
	if err != nil {
		return err
	}
	for _, conv := range all {
		fmt.Fprintf(s.Out, "%-18s %-5s %s\n%25s%s\n", conv.Name, conv.Task.Category, conv.Task.Title, "", conv.Tried())
	}
	return nil
}
