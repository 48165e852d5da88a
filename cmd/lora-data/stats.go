package main

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/bioinstruct"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/tokenizer"
)

// stats is the command of that name.
type stats struct {
	Data      []string `arg:"" placeholder:"FILE" help:"Files of instruction rows."`
	JSON      bool     `name:"json" help:"Print JSON."`
	Tokenizer string   `placeholder:"DIR|FILE" help:"Count tokens, too: a directory with a tokenizer, or its file."`
	Seeds     string   `placeholder:"FILE" help:"Seed tasks to compare with, in Self-Instruct's format. Without it: those that come with the program."`
	Plot      string   `placeholder:"FILE" help:"Draw the figures, too, as SVG."`
	Overwrite bool     `help:"Replace the drawing where it exists."`
	MaxBad    int      `name:"max-bad" placeholder:"N" help:"Bad rows that may be left out. -1: any number."`
}

// Help is the longer help.
func (stats) Help() string {
	return `Tells of a file of rows what BioInstruct's authors tell of theirs, and more: categories, lengths, inputs that are empty or only say
that there is none ("N/A"), rows and instructions that are repeated or much alike (ROUGE-L above 0.7), and how near instructions
are to the nearest seed task. BioInstruct's own figures stand beside: [F] read in the paper, [C] computed on 2,501 of its rows.

Examples:

  lora-data stats bioinstruct.json
  lora-data stats made.jsonl --tokenizer Llama-2-7b-hf --seeds my-seeds.jsonl
  lora-data stats made.jsonl --plot made.svg
  lora-data stats made.jsonl --json > made-stats.json`
}

// Run carries the command out.
func (c *stats) Run(ctx context.Context, s *cli.Streams) (err error) {
	if c.Plot != "" && !strings.EqualFold(filepath.Ext(c.Plot), ".svg") {
		return cli.Usagef("--plot %s: drawings are SVG, in files *.svg", c.Plot)
	}
	if _, err := os.Lstat(c.Plot); err == nil && c.Plot != "" && !c.Overwrite {
		return cli.Usagef("%s exists (--overwrite replaces it)", c.Plot)
	}
	o := bioinstruct.MeasureOptions{Workers: runtime.GOMAXPROCS(0)}
	if c.Seeds == "" {
		o.Seeds, err = bioinstruct.Seeds()
	} else {
		o.Seeds, err = bioinstruct.ReadSeeds(c.Seeds)
	}
	if err != nil {
		return err
	}
	if c.Tokenizer != "" {
		tok, err := tokenizer.Load(c.Tokenizer, tokenizer.TokenizerFilesOnly())
		if err != nil {
			return err
		}
		o.Tokens = func(text string) int { return len(tok.Encode(text)) }
	}
	got, err := bioinstruct.Measure(allRows(ctx, s, c.Data, c.MaxBad), o)
	if err != nil {
		return err
	}
	if c.Plot != "" {
		if err := atomicfile.Write(c.Plot, got.WriteSVG); err != nil {
			return err
		}
	}
	if c.JSON {
		return got.WriteJSON(s.Out)
	}
	return got.WriteText(s.Out)
}

// allRows reads files one after another, and shows how far that is. Bad rows are left out, as far as they may, and told at
// the end.
func allRows(ctx context.Context, s *cli.Streams, files []string, maxBad int) iter.Seq2[rows.Row, error] {
	ctx, b := reading(ctx, s.Err, files)
	bad := &rows.Bad{Limit: maxBad}
	chained := func(yield func(rows.Row, error) bool) {
		for _, file := range files {
			for r, err := range rows.Read(ctx, file) {
				if !yield(r, err) {
					return
				}
			}
		}
	}
	return func(yield func(rows.Row, error) bool) {
		defer b.end() // however the reading ends
		for r, err := range bad.LeaveOut(chained) {
			if !yield(r, err) || err != nil {
				return
			}
		}
		b.end()
		for _, err := range bad.First {
			fmt.Fprintln(s.Err, "lora-data: left out:", err)
		}
		if more := bad.Count - len(bad.First); more > 0 {
			fmt.Fprintf(s.Err, "lora-data: left out: %d more\n", more)
		}
	}
}
