package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/bioinstruct"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/rows"
)

// classify is the command of that name.
type classify struct {
	Data      []string `arg:"" placeholder:"FILE" help:"Files of instruction rows."`
	Out       string   `required:"" placeholder:"FILE" help:"Where the rows go with their categories: .json, .jsonl or .parquet."`
	Overwrite bool     `help:"Replace the output where it exists. The journal is never replaced."`
	Journal   string   `placeholder:"FILE" help:"All requests and answers. Without it: the output's name and .journal."`
	Replay    bool     `help:"Take the categories from the journal without asking anybody."`
	All       bool     `help:"Ask about rows that have a category, too."`
	Batch     int      `default:"8" placeholder:"N" help:"Rows a request (${default}); of a local model: rows that are asked about together."`
	MaxBad    int      `name:"max-bad" placeholder:"N" help:"Bad rows that may be left out. -1: any number."`

	Model string `group:"Endpoint" placeholder:"NAME|DIR" help:"Model to ask, as the endpoint calls it; or a local one: a directory with a checkpoint, or a .gguf file."`
	asking
	onThisMachine
}

// defaultBatch is the default of --batch, as its tag has it.
const defaultBatch = 8

// Help is the longer help.
func (classify) Help() string {
	return `Asks a model for the category of each row: ` + strings.Join(bioinstruct.Categories, ", ") + `, as BioInstruct's authors asked GPT-4; what they told it is not
known, and the definitions are this project's own. Rows that have a category keep it unless --all. A row that an answer leaves
out is asked about once more, alone, and then left without a category, which is told.

Every request and answer is in the journal before it is used. A run that ended in whatever way goes on with the same command.

A local model is asked about one row at a time, in the same words, and gives the category whose line it finds the most likely
answer; the journal has the likelihoods of all four. Nothing leaves the machine.

Examples:

  lora-data classify made.jsonl --model gpt-4o --out classified.jsonl
  lora-data classify made.jsonl --model llama --base-url http://localhost:8000/v1 --temperature 0 --out classified.jsonl
  lora-data classify made.jsonl --model Llama-2-7b-chat-hf --adapter sorter --out classified.jsonl
  lora-data classify made.jsonl --replay --journal classified.jsonl.journal --out again.jsonl`
}

// Run carries the command out.
func (c *classify) Run(ctx context.Context, s *cli.Streams) error {
	if err := c.check(); err != nil {
		return err
	}
	all, err := readRows(ctx, s, c.Data, c.MaxBad)
	if err != nil {
		return err
	}
	got, err := c.ask(ctx, s, all)
	if err != nil {
		return err
	}
	if _, err := rows.Write(c.Out, sequence(ctx, all)); err != nil {
		return err
	}
	c.report(s, all, got)
	return nil
}

func (c *classify) check() error {
	if c.Journal == "" {
		c.Journal = c.Out + ".journal"
	}
	if c.Batch < 1 {
		return cli.Usagef("--batch %d: want at least 1", c.Batch)
	}
	endpoint, local := c.asking.given(), c.onThisMachine.given()
	switch {
	case c.Replay:
		asks := slices.Concat(flagsGiven([]flagGiven{{"model", c.Model != ""}, {"batch", c.Batch != defaultBatch}}), endpoint, local)
		if len(asks) > 0 {
			return cli.Usagef("--replay takes everything from the journal and asks nobody: it has no use for %s", strings.Join(asks, ", "))
		}
	case c.local() && len(endpoint) > 0:
		return cli.Usagef("--model %s is a model of this machine, and %s is for an endpoint", c.Model, strings.Join(endpoint, ", "))
	case !c.local() && len(local) > 0:
		return cli.Usagef("--model %s is neither a directory nor a file, and %s is for a model of this machine", c.Model, strings.Join(local, ", "))
	}
	if c.Journal == c.Out {
		return cli.Usagef("--out and --journal must be different files")
	}
	if _, err := os.Lstat(c.Out); err == nil && !c.Overwrite {
		return cli.Usagef("%s exists (--overwrite replaces it)", c.Out)
	}
	return writable(c.Out)
}

// local reports whether the model is one of this machine: a path that is there, or that can be nothing but a path.
func (c *classify) local() bool {
	if filepath.IsAbs(c.Model) || filepath.Ext(c.Model) == ".gguf" || strings.HasPrefix(c.Model, "."+string(filepath.Separator)) || strings.HasPrefix(c.Model, "..") {
		return true
	}
	_, err := os.Stat(c.Model)
	return err == nil
}

func (c *classify) ask(ctx context.Context, s *cli.Streams, all []rows.Row) (*bioinstruct.Labels, error) {
	l := bioinstruct.Labelling{Sampling: c.sampling(c.Model), Batch: c.Batch, All: c.All}
	if c.Replay {
		l.Model = "-" // the journal's
		return bioinstruct.Classify(ctx, c.Journal, nil, l, all, bioinstruct.Options{})
	}
	if c.local() {
		got, err := c.weigh(ctx, s, l, all)
		return got, failed(s, c.Journal, err)
	}
	m, err := c.open(c.Model)
	if err != nil {
		return nil, err
	}
	o := bioinstruct.Options{Ask: c.options()}
	b := newBar(s.Err, (asked(l, all)+l.Batch-1)/l.Batch, "answers") // and a few more, to rows that these leave out
	o.Ask.Progress = func(t ask.Totals) { b.set(answers(t)) }
	got, err := bioinstruct.Classify(ctx, c.Journal, m, l, all, o)
	b.end()
	return got, failed(s, c.Journal, err)
}

func (c *classify) report(s *cli.Streams, all []rows.Row, got *bioinstruct.Labels) {
	asked := len(all) - got.Kept
	for _, category := range bioinstruct.Categories {
		fmt.Fprintf(s.Out, "%-6s %7d\n", category, got.Counts[category])
	}
	fmt.Fprintf(s.Out, "%d rows in %s: %d were asked about, %d had a category\n", len(all), c.Out, asked, got.Kept)
	if n := len(got.Unlabelled); n > 0 {
		fmt.Fprintf(s.Err, "lora-data: warning: no category could be read for %d rows, the first of them row %d\n", n, got.Unlabelled[0]+1)
	}
	c.tell(s, got.Totals)
}

// readRows reads the rows of several files and tells of bad ones.
func readRows(ctx context.Context, s *cli.Streams, files []string, maxBad int) (all []rows.Row, err error) {
	for r, err := range allRows(ctx, s, files, maxBad) {
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no rows", strings.Join(files, ", "))
	}
	return all, nil
}
