package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/visible"
)

// mixing is the command mix.
type mixing struct {
	Recipe    string   `required:"" placeholder:"NAME|FILE" help:"Recipe: one that is shipped, or a YAML file."`
	Source    []string `sep:"none" placeholder:"NAME=FILE" help:"File of a source, in place of the recipe's. May be repeated; several of one name are read one after another."`
	Out       string   `required:"" placeholder:"FILE" help:"Where the rows go: .json, .jsonl or .parquet."`
	Overwrite bool     `help:"Replace the output, and the report, where they exist."`
	Seed      *uint64  `placeholder:"N" help:"In place of the recipe's seed."`
	Test      []string `sep:"none" placeholder:"NAME=FILE" help:"Test set to look for in the rows. May be repeated."`
	Leakage   string   `enum:"report,drop,fail" default:"report" help:"What becomes of rows that a test set has: told (report), told and left out (drop), or nothing is written (fail)."`
	MaxBad    int      `name:"max-bad" placeholder:"N" help:"Bad rows that a source may have; they are left out. -1: any number."`
	Report    string   `placeholder:"FILE" help:"Write what was done as JSON, too."`
}

// Help is the longer help.
func (mixing) Help() string {
	return `A recipe names sources and says how many rows of each are taken, or which share of a total, and by which condition:

  seed: 42
  total: 10000
  sources:
    - name: gad
      files: [gad/train.jsonl]
      where: 'split == "train" && len(output) > 0'
      share: 0.25
    - name: medqa
      files: [medqa/train.parquet]
      count: 7500
      set: {category: QA}

Conditions are expressions over task, category, source, split, id, instruction, input and output. Which rows are taken, and
their order, depend on the seed alone: the same files give the same result, byte for byte. keep_order: true does not shuffle;
repeat: true takes rows again where there are too few.

Shipped: ` + strings.Join(mix.Shipped(), ", ") + `.

A test row leaks where its question (the input; the instruction, where there is no input) is a training row's question, but
for case and punctuation, or shares 13 words in a row with a training row's question or output (but for tags of entities).

Examples:

  lora-data mix --recipe bioinstruct-qa --source bioinstruct=classified.jsonl --out qa.jsonl
  lora-data mix --recipe mix.yaml --test medqa=medqa-test.jsonl --leakage drop --out train.jsonl --report mix.json`
}

// mixReport is what --report writes.
type mixReport struct {
	Recipe  string     `json:"recipe"`
	About   string     `json:"about,omitempty"` // what the recipe says of itself
	Seed    uint64     `json:"seed"`
	Out     string     `json:"out"`
	Rows    int        `json:"rows"`
	Sources []mix.Part `json:"sources"`
	Leakage []mix.Leak `json:"leakage,omitempty"`
}

// Run carries the command out.
func (c *mixing) Run(ctx context.Context, s *cli.Streams) error {
	sources, err := named("--source", c.Source)
	if err != nil {
		return err
	}
	sets, err := c.sets()
	if err != nil {
		return err
	}
	if c.Leakage != "report" && len(sets) == 0 {
		return cli.Usagef("--leakage %s needs a --test", c.Leakage)
	}
	for _, path := range []string{c.Out, c.Report} {
		if _, err := os.Lstat(path); err == nil && path != "" && !c.Overwrite {
			return cli.Usagef("%s exists (--overwrite replaces it)", path)
		}
	}
	if err := writable(c.Out); err != nil {
		return err
	}
	if dir := filepath.Dir(c.Report); c.Report != "" {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
	}
	recipe, err := mix.Open(c.Recipe)
	if err != nil {
		return err
	}
	if err := c.apart(recipe, sources, sets); err != nil {
		return err
	}
	if c.Seed != nil {
		recipe.Seed = *c.Seed
	}
	under, b := reading(ctx, s.Err, filesOf(recipe, sources))
	all, parts, err := mix.Mix(under, recipe, mix.Options{Files: sources, MaxBad: c.MaxBad})
	b.end()
	if err != nil {
		return err
	}
	report := &mixReport{Recipe: c.Recipe, About: recipe.About, Seed: recipe.Seed, Out: c.Out, Sources: parts}
	if len(sets) > 0 {
		var leaky []bool
		b := newBar(s.Err, len(all), "rows compared")
		report.Leakage, leaky, err = mix.Leakage(ctx, all, sets, b.set)
		b.end()
		if err != nil {
			return err
		}
		if all, err = c.leaked(s, report, all, leaky); err != nil {
			return err
		}
	}
	report.Rows = len(all)
	if len(all) == 0 {
		return fmt.Errorf("no rows are left to write")
	}
	if _, err := rows.Write(c.Out, sequence(ctx, all)); err != nil {
		return err
	}
	report.print(s)
	return c.write(report)
}

// apart refuses outputs that would replace what is read, or one another.
func (c *mixing) apart(r *mix.Recipe, sources map[string][]string, sets []mix.TestSet) error {
	inputs := append([]string{c.Recipe}, filesOf(r, sources)...)
	for _, s := range sets {
		inputs = append(inputs, s.Files...)
	}
	if err := replaces("--out", c.Out, inputs); err != nil {
		return err
	}
	if c.Report == "" {
		return nil
	}
	if filepath.Clean(c.Report) == filepath.Clean(c.Out) {
		return cli.Usagef("--out and --report are both %s", c.Out)
	}
	return replaces("--report", c.Report, append(inputs, c.Out))
}

// filesOf are the files of a recipe's sources: those that are named, or its own.
func filesOf(r *mix.Recipe, named map[string][]string) (files []string) {
	for _, s := range r.Sources {
		if these := named[s.Name]; len(these) > 0 {
			files = append(files, these...)
		} else {
			files = append(files, s.Files...)
		}
	}
	return files
}

// replaces refuses an output that is one of the files that are read, under whatever name.
func replaces(flag, out string, inputs []string) error {
	at, err := os.Stat(out)
	if err != nil {
		return nil // nothing is there
	}
	for _, in := range inputs {
		if info, err := os.Stat(in); err == nil && os.SameFile(at, info) {
			return cli.Usagef("%s %s is %s, which would be replaced", flag, out, in)
		}
	}
	return nil
}

// named takes NAME=FILE apart.
func named(flag string, values []string) (map[string][]string, error) {
	files := map[string][]string{}
	for _, v := range values {
		name, file, ok := strings.Cut(v, "=")
		if !ok || name == "" || file == "" {
			return nil, cli.Usagef("%s %q: want NAME=FILE", flag, v)
		}
		files[name] = append(files[name], file)
	}
	return files, nil
}

// sets are the test sets in the order of the flags.
func (c *mixing) sets() (sets []mix.TestSet, err error) {
	files, err := named("--test", c.Test)
	if err != nil {
		return nil, err
	}
	for _, v := range c.Test {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc(sets, func(s mix.TestSet) bool { return s.Name == name }) {
			sets = append(sets, mix.TestSet{Name: name, Files: files[name]})
		}
	}
	return sets, nil
}

// leaked does with the rows that test sets have what the flag says.
func (c *mixing) leaked(s *cli.Streams, report *mixReport, all []rows.Row, leaky []bool) ([]rows.Row, error) {
	n := 0
	for _, l := range leaky {
		if l {
			n++
		}
	}
	if n == 0 || c.Leakage == "report" {
		return all, nil
	}
	if c.Leakage == "fail" {
		report.printLeaks(s)
		return nil, fmt.Errorf("%d training rows have something in common with a test set; nothing was written", n)
	}
	var kept []rows.Row
	for i := range all {
		if !leaky[i] {
			kept = append(kept, all[i])
		}
	}
	fmt.Fprintf(s.Out, "%d rows that a test set has are left out\n", n)
	return kept, nil
}

// writable refuses, before any work, a file that rows cannot be written to for its name.
func writable(out string) error {
	if _, err := rows.Encode(io.Discard, strings.ToLower(filepath.Ext(out)), func(func(rows.Row, error) bool) {}); err != nil {
		return cli.Usagef("--out %s: %w", out, err)
	}
	return nil
}

// sequence makes a slice what rows.Write takes.
func sequence(ctx context.Context, all []rows.Row) iter.Seq2[rows.Row, error] {
	return func(yield func(rows.Row, error) bool) {
		for _, r := range all {
			if err := ctx.Err(); err != nil {
				yield(rows.Row{}, err)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (r *mixReport) print(s *cli.Streams) {
	if r.About != "" {
		fmt.Fprintln(s.Out, visible.Text(r.About))
	}
	width := len("source")
	for _, p := range r.Sources {
		width = max(width, len(p.Source))
	}
	fmt.Fprintf(s.Out, "%-*s %9s %7s %9s %9s\n", width, "source", "read", "bad", "matched", "taken")
	for _, p := range r.Sources {
		fmt.Fprintf(s.Out, "%-*s %9d %7d %9d %9d\n", width, p.Source, p.Read, p.Bad, p.Matched, p.Taken)
	}
	r.printLeaks(s)
	fmt.Fprintf(s.Out, "%d rows in %s\n", r.Rows, r.Out)
}

func (r *mixReport) printLeaks(s *cli.Streams) {
	for _, l := range r.Leakage {
		fmt.Fprintf(s.Out, "%s: %d of %d test rows are in the training rows, %d share 13 words with one; %d training rows concerned\n",
			l.Test, l.Exact, l.Rows, l.Overlap, l.Training)
		for _, e := range l.Examples[:min(3, len(l.Examples))] {
			fmt.Fprintf(s.Out, "  %s and %s: %q\n", e.Test, cmp.Or(e.Training, "a row"), e.Text)
		}
	}
}

func (c *mixing) write(r *mixReport) error {
	if c.Report == "" {
		return nil
	}
	return atomicfile.WriteJSON(c.Report, r)
}
