package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/matrix"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/model"
)

// study is the command matrix.
type study struct {
	Grid      string `required:"" placeholder:"FILE" help:"What is compared: a YAML file."`
	Out       string `required:"" placeholder:"DIR" help:"Directory of the cells, matrix.json and matrix.html. A study that was stopped goes on there."`
	DryRun    bool   `name:"dry-run" help:"List the cells and how many rows each trains on, and do nothing."`
	KeepGoing bool   `name:"keep-going" help:"Go on with the next cell where one fails."`
	Replay    bool   `name:"judge-replay" help:"Take the judge's marks from judge.journal in the directory, without asking anybody."`
	Device    string `default:"auto" placeholder:"auto|cpu|cuda|cuda:N" help:"Where to compute: on the CPU, or on an NVIDIA card, the N-th that its driver shows, from 0. auto: on a card where there is one that can be used."`
	Threads   int    `placeholder:"N" help:"Threads. Without it: one for each CPU. A card has no use for them, so that auto is the CPU."`
	CacheDir  string `name:"cache-dir" placeholder:"DIR" help:"Where converted and quantised weights are kept."`
}

// Help is the longer help.
func (study) Help() string {
	return `The study of BioInstruct: each base model is trained on each subset of the rows, with each seed, and scored on the tasks. A grid:

  bases:
    - {name: llama, path: Llama-2-7b-hf, template: alpaca}
    - {name: chat, path: Llama-2-7b-chat-hf, template: chat}
  data: [rows.jsonl]               # as lora-data convert and mix write them
  where: split == "train"          # of all rows to train on; may be left out
  subsets:                         # or: subsets: standard
    - {name: all}
    - {name: QA, where: category == "QA"}
    - {name: no-i2b2, where: not (source startsWith "i2b2"), count: 5000}
  seeds: [1, 2, 3]
  train:                           # names and defaults are those of lora-train
    learning_rate: 3e-4
    num_train_epochs: 3
    target_modules: all-linear
  tasks:
    - {task: pubmedqa, rows: pubmedqa.jsonl, split: test}    # with rows of the split train, for the examples
    - {task: falls.yaml, rows: [a.jsonl, b.jsonl], limit: 200, shots_from: c.jsonl}
  eval: {batch_size: 8, beams: 1, shots: 1, shots_split: train}
  judge: {model: gpt-4o}           # of tasks with the metric judge; may be left out: then their next metric stands for it

Paths are relative to the working directory. subsets: standard is all, QA, IE, GEN, their pairs, and all but one category, as far
as the data has them; of several with the same rows, one. A count of rows is chosen by the seed. train has lora_r, lora_alpha, lora_dropout,
use_rslora, target_modules, learning_rate, lr_scheduler_type, warmup_steps, warmup_ratio, weight_decay, max_grad_norm,
per_device_train_batch_size, gradient_accumulation_steps, num_train_epochs, max_steps, max_seq_length, train_on_inputs, group_by_prefix,
compute (f32, bf16) and base (none, nf4, int8); eval has batch_size, beams, max_new_tokens, stop, shots (examples before each question;
BioInstruct's authors show one) and shots_split, the split of the rows that examples are of; a task may have a shots_split
of its own, and shots_from, files of such rows. judge has model, rubric, base_url,
key_env, no_temperature, max_tokens, max_completion_tokens, concurrency, requests_per_minute, tokens_per_minute, timeout and attempts,
which are what the flags --judge-... of lora-eval run are.

A study that was stopped, or killed, goes on when the same command is given again: cells that are done are not done again, one that
was trained in part begins anew. Bases, subsets, seeds and tasks may be added to a grid.

Examples:

  lora-eval matrix --grid study.yaml --out study --dry-run
  lora-eval matrix --grid study.yaml --out study`
}

// Run carries the command out.
func (c *study) Run(ctx context.Context, s *cli.Streams) error {
	if c.Threads < 0 {
		return cli.Usagef("--threads %d: want 0 or more", c.Threads)
	}
	if err := model.CheckDevice(c.Device); err != nil {
		return cli.Usagef("--device: %w", err)
	}
	grid, err := matrix.Load(c.Grid)
	if err != nil {
		return err
	}
	plan, err := matrix.MakePlan(ctx, grid)
	if err != nil && ctx.Err() != nil {
		return cli.StoppedError{Note: "; nothing was begun", Err: ctx.Err()}
	}
	if err != nil {
		return err
	}
	bench, err := c.judge(grid.Judge)
	if err != nil {
		return err
	}
	if c.DryRun {
		return c.list(s, plan)
	}
	p := &studyProgress{progress: progress{w: s.Err, style: report.StyleOf(s.Err)}, start: time.Now()}
	res, err := matrix.Run(ctx, plan, matrix.Options{
		Out: c.Out, Device: c.Device, Threads: c.Threads, CacheDir: c.CacheDir, KeepGoing: c.KeepGoing, Judge: bench, Progress: p.tell, Converting: p.converting, Note: p.note,
	})
	p.end()
	if err != nil && ctx.Err() != nil {
		return cli.StoppedError{Note: p.kept(), Err: ctx.Err()}
	}
	if res == nil {
		return err
	}
	if failed := res.Text(s.Out); failed != nil {
		return failed
	}
	fmt.Fprintf(s.Out, "results in %s, heat map in %s\n", filepath.Join(c.Out, matrix.ResultsFile), filepath.Join(c.Out, matrix.ReportFile))
	return err
}

// judge are the options of a grid's judge; nil: it has none.
func (c *study) judge(g *matrix.Judge) (*judge.Options, error) {
	if g == nil {
		if c.Replay {
			return nil, cli.Usagef("--judge-replay: the grid names no judge")
		}
		return nil, nil
	}
	flags := judging{Judge: g.Model, Rubric: g.Rubric, Replay: c.Replay}
	if !c.Replay {
		flags.BaseURL, flags.KeyEnv, flags.NoTemperature = g.BaseURL, g.KeyEnv, g.NoTemperature
		flags.MaxTokens, flags.MaxCompletionTokens = g.MaxTokens, g.MaxCompletionTokens
		flags.Concurrency, flags.RequestsPerMinute, flags.TokensPerMinute = g.Concurrency, g.RequestsPerMinute, g.TokensPerMinute
		flags.Timeout, flags.Attempts = g.Timeout, g.Attempts
	}
	o, err := flags.judge()
	if wrong, ok := errors.AsType[cli.UsageError](err); ok { // of a file, not of the command line
		err = wrong.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: judge: %w", c.Grid, err)
	}
	if o.Rubric.Text == "" {
		o.Rubric = judge.BuiltIn()
	}
	return o, nil
}

// list says what there is to do.
func (c *study) list(s *cli.Streams, p *matrix.Plan) error {
	fmt.Fprintf(s.Out, "%d cells: %d base(s), %d subset(s), %d seed(s)\n", len(p.Cells), len(p.Grid.Bases), len(p.Subsets), len(p.Grid.Seeds))
	for i := range p.Cells {
		cell := &p.Cells[i]
		fmt.Fprintf(s.Out, "  %-40s %8s rows\n", cell.Name(), visible.Count(int64(cell.Rows)))
	}
	for _, note := range p.Notes {
		fmt.Fprintf(s.Out, "note: %s\n", visible.Text(note))
	}
	return nil
}

// studyProgress tells how far a study has come.
type studyProgress struct {
	progress
	start time.Time
	made  int           // cells that this call has done
	took  time.Duration // by all of them together
	was   string        // what the last line was about
	now   matrix.Progress
}

// left says how long the cells take that are left, by those that this call has done.
func (p *studyProgress) left(now time.Time, x matrix.Progress) string {
	spent := now.Sub(p.start)
	if made := x.Done - x.Found; made > p.made {
		p.made, p.took = made, spent
	}
	if p.made == 0 {
		return ""
	}
	whole := p.took * time.Duration(x.Total-x.Found) / time.Duration(p.made)
	return "  left " + max(0, whole-spent).Round(time.Second).String()
}

// kept says what a study that is stopped leaves, and how it goes on.
func (p *studyProgress) kept() string {
	x := p.now
	if x.Total == 0 {
		return "; nothing was begun"
	}
	text := fmt.Sprintf("; %d of %d cells are done and stay", x.Done, x.Total)
	if x.Training {
		text += fmt.Sprintf(". The training of %s, at step %d of %d, begins anew", x.Cell, x.Step, x.Steps)
	} else {
		text += fmt.Sprintf(", and so do the answers of %s to %s so far", x.Cell, x.What)
	}
	return text + " when the same command is given again"
}

func (p *studyProgress) tell(x matrix.Progress) {
	p.now = x
	now := time.Now()
	is := x.Cell + " " + x.What
	wait := every
	if p.style.Terminal {
		wait = time.Second / 5
	}
	if is == p.was && now.Sub(p.last) < wait {
		return
	}
	p.last, p.was = now, is
	left := p.left(now, x)
	p.line("%d/%d cells%s  %s: %s %d/%d", x.Done, x.Total, left, visible.Text(x.Cell), x.What, x.Step, x.Steps)
}
