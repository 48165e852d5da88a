package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/model"
)

// run is the command run.
type run struct {
	Model       []string `sep:"none" group:"Who answers" placeholder:"DIR" help:"Checkpoint: a directory or a .gguf file. May be repeated, without adapters."`
	Adapter     []string `sep:"none" group:"Who answers" placeholder:"DIR" help:"Adapter of the model, a PEFT directory. May be repeated."`
	WithBase    bool     `group:"Who answers" help:"With adapters: ask the model without one, too, first."`
	Predictions []string `sep:"none" group:"Who answers" placeholder:"[NAME=]FILE" help:"Score the answers of a file (predictions.jsonl, or records with id and prediction: JSON, JSON Lines, CSV, TSV or Parquet) instead of asking a model. May be repeated; NAME says whose answers they are."`

	Task        []string `sep:"none" required:"" group:"Rows" placeholder:"NAME|FILE=ROWS" help:"A task, built in or a YAML file, and a file of its rows. May be repeated; several files of one task are read one after another."`
	Split       string   `group:"Rows" enum:",train,dev,test" default:"" placeholder:"NAME" help:"Only rows of this split: train, dev (validation) or test."`
	MixedSplits bool     `group:"Rows" help:"Rows of several splits may be scored together."`
	Where       string   `group:"Rows" placeholder:"EXPR" help:"Only rows that this expression holds for, over task, category, source, split, id, instruction, input and output."`
	Limit       int      `group:"Rows" placeholder:"N" help:"Only N rows of each task, chosen by the seed: of each label its share, and the same ones for all systems."`

	Template      string   `group:"Prompts" placeholder:"NAME|FILE" help:"Prompt template: alpaca (BioInstruct's), medtuned, chat (the chat template of the model), or a YAML file."`
	ChatTemplate  string   `group:"Prompts" placeholder:"NAME|FILE" help:"Chat template: the name of one that the tokenizer has, or a Jinja file. Without it: the tokenizer's own."`
	SystemPrompt  string   `group:"Prompts" placeholder:"TEXT" help:"System message of the chat."`
	TemplateDate  string   `group:"Prompts" placeholder:"DATE" help:"The day that chat templates are told, such as 2026-01-31."`
	Shots         *int     `group:"Prompts" placeholder:"N" help:"Examples before each question. Without it: each task's, which is 0 if it says none."`
	ShotsFrom     []string `sep:"none" group:"Prompts" placeholder:"NAME=ROWS" help:"File of rows to take a task's examples from. May be repeated."`
	ShotsSplit    string   `group:"Prompts" enum:",train,dev,test" default:"" placeholder:"NAME" help:"Split of the rows to take examples from; without --shots-from they are in the task's own file."`
	MaxNewTokens  int      `group:"Answers" placeholder:"N" help:"Most tokens of an answer. Without it: each task's."`
	Stop          []string `sep:"none" group:"Answers" placeholder:"TEXT" help:"Text that ends an answer and is cut from it; \\n, \\t and \\\\ are read as in Go. May be repeated."`
	Beams         int      `group:"Answers" placeholder:"N" help:"Beams of a search for the most likely answer; MedTuned's authors have 4. 1: greedy, or sampling."`
	LengthPenalty float64  `group:"Answers" placeholder:"X" help:"Exponent of a beam's length, by which its log-likelihood is divided."`
	Temperature   float64  `group:"Answers" placeholder:"X" help:"Above 0: sample."`
	TopK          int      `group:"Answers" placeholder:"N" help:"Sample from the N most likely tokens only."`
	TopP          float64  `group:"Answers" placeholder:"X" help:"Sample from the fewest tokens whose probabilities reach X."`
	Seed          uint64   `group:"Answers" placeholder:"N" help:"Of sampling, of the choice of rows and examples, and of the intervals."`
	BatchSize     int      `group:"Answers" placeholder:"N" help:"Rows that are answered at a time: when one has ended, the next takes its place. It changes no answer. After so many rows the answers are on the disk."`
	Likelihood    bool     `group:"Scores" help:"Score options and labels by their likelihood, too: in all, for each token, and for each byte."`
	NoPerplexity  bool     `group:"Scores" help:"Do not compute the likelihood of the gold outputs."`
	Resamples     int      `group:"Scores" placeholder:"N" help:"Of the bootstrap that makes the intervals."`

	judging

	Out       string `required:"" group:"Results" placeholder:"DIR" help:"Directory of predictions.jsonl, results.json and report.html. A run that was stopped goes on there."`
	Overwrite bool   `group:"Results" help:"Begin anew, whatever the directory has of an earlier run."`

	Base        string `group:"Engine" placeholder:"FORMAT" help:"Quantise the model's linears: nf4 or int8. Without it: none."`
	Compute     string `group:"Engine" placeholder:"f32|bf16" help:"Arithmetic of the products. Without it: the faster one."`
	Device      string `group:"Engine" default:"auto" placeholder:"auto|cpu|cuda|cuda:N" help:"Where to compute: on the CPU, or on an NVIDIA card, the N-th that its driver shows, from 0. auto: on a card where there is one that can be used."`
	Threads     int    `group:"Engine" placeholder:"N" help:"Threads. Without it: one for each CPU. A card has no use for them, so that auto is the CPU."`
	MemoryLimit string `name:"memory-limit" group:"Engine" placeholder:"SIZE" help:"Most memory, weights apart, such as 12GiB: fewer rows are answered together to keep it. On a card: most of the card's memory, weights included. Without it: what is free."`
	CacheDir    string `name:"cache-dir" group:"Engine" placeholder:"DIR" help:"Where converted and quantised weights are kept."`
}

// defaults are shown in the help.
func defaults() map[string]any {
	o := eval.Defaults()
	return map[string]any{
		"template": o.Template, "template-date": o.Now.Format(time.DateOnly), "beams": o.Beams, "length-penalty": o.LengthPenalty,
		"seed": o.Seed, "batch-size": o.BatchSize, "resamples": o.Bootstrap.Resamples,
	}
}

// Help is the longer help.
func (run) Help() string {
	var names []string
	if tasks, err := medtuned.Tasks(); err == nil {
		for _, t := range tasks {
			names = append(names, t.Name)
		}
	}
	return `Rows are instruction rows as lora-data convert writes them. A task says how answers are read and scored; a task of your own is a
YAML file:

  title: does the note mention a fall?
  category: IE
  metrics: [accuracy, macro_f1]
  parser: label                # choice, label, labels, tags or text
  labels: ["yes", "no"]
  max_new_tokens: 4
  instructions: [Does the note mention a fall?]
  template: alpaca             # these four may be left out
  stop: ["\n"]
  shots: 1
  shots_split: train

Built in: ` + strings.Join(names, ", ") + `.

Tasks whose metrics have judge are marked from 1 to 5 by a chat model, if one is named: it sees instruction, input, reference and
answer, and not whose answer that is; the same answer to the same row is one question. A reply without exactly one mark is asked for
once more; then the answer is unjudged, which is counted and is no mark. Requests and replies are in judge.journal in the directory,
and --judge-replay makes the same results of it without asking. A rubric of your own has the fields {instruction}, {input},
{reference} and {answer}, {fence} for a word that answers cannot know, and says that a reply ends in a line "Mark: N"; one that says
"Reason:" gets a line with a reason before it. The answers leave your machine for the endpoint.

A run that was stopped, or killed, goes on when the same command is given again, and gives the same answers, byte for byte. On
the CPU an answer depends on its row and the settings alone, not on --batch-size or what is asked beside it. A row's split is
shown beside each figure; the papers' figures are shown where task and split are theirs. Llama2-MedTuned is full fine-tuning, so
that a LoRA run is an adaptation of it.

Examples:

  lora-data convert gad gad-test.jsonl --out gad.jsonl
  lora-eval run --model Llama-2-7b-hf --adapter bio --with-base --task gad=gad.jsonl --out eval/gad
  lora-eval run --model tuned --template medtuned --beams 4 --task ncbi-disease=ncbi-dev.jsonl --out eval/ncbi
  lora-eval run --model Llama-2-7b-hf --task medqa=medqa.jsonl --shots 1 --shots-split train --split test --likelihood --out eval/medqa
  lora-eval run --model Llama-2-7b-hf --adapter bio --with-base --task icliniq=icliniq.jsonl --judge gpt-4o --out eval/icliniq
  lora-eval run --predictions eval/icliniq/predictions.jsonl --task icliniq=icliniq.jsonl --judge-replay --judge-journal eval/icliniq/judge.journal --out eval/again
  lora-eval run --predictions theirs.jsonl --task falls.yaml=falls.jsonl --out eval/theirs
  lora-eval run --predictions alpaca=eval/a/predictions.jsonl --predictions chat=eval/b/predictions.jsonl --task gad=gad.jsonl --out eval/both`
}

// Run carries the command out.
func (c *run) Run(ctx context.Context, s *cli.Streams) error {
	o, err := c.options()
	if err != nil {
		return err
	}
	p := &progress{w: s.Err, style: report.StyleOf(s.Err)}
	o.Progress = p.tell
	o.Model.Progress, o.Model.Note = p.converting, p.note
	if o.Judge != nil {
		o.Judge.Progress = p.judging
	}
	res, err := eval.Run(ctx, o)
	p.end()
	if err != nil {
		return err
	}
	if err := res.Text(s.Out); err != nil {
		return err
	}
	c.judging.tell(s, res.Judge)
	fmt.Fprintf(s.Out, "results in %s, report in %s\n", filepath.Join(c.Out, eval.ResultsFile), filepath.Join(c.Out, eval.ReportFile))
	return nil
}

// options are what the command line comes to.
func (c *run) options() (eval.Options, error) {
	o := eval.Defaults()
	o.Out, o.Overwrite = c.Out, c.Overwrite
	o.Predictions, o.Named = c.predictions()
	o.Split, o.MixedSplits, o.Limit = c.Split, c.MixedSplits, c.Limit
	o.Template, o.ChatTemplate, o.SystemPrompt, o.MaxNewTokens = c.Template, c.ChatTemplate, c.SystemPrompt, c.MaxNewTokens
	o.ShotsSplit, o.Beams, o.LengthPenalty, o.Temperature, o.TopK, o.TopP = c.ShotsSplit, c.Beams, c.LengthPenalty, c.Temperature, c.TopK, c.TopP
	o.Seed, o.BatchSize, o.Likelihood, o.Perplexity = c.Seed, c.BatchSize, c.Likelihood, !c.NoPerplexity
	o.Bootstrap.Resamples, o.Bootstrap.Seed = c.Resamples, c.Seed
	o.Model = model.Options{Compute: c.Compute, Device: c.Device, Threads: c.Threads, CacheDir: c.CacheDir}
	if err := model.CheckDevice(c.Device); err != nil {
		return o, cli.Usagef("--device: %w", err)
	}
	if c.MemoryLimit != "" {
		var err error
		if o.Model.MemoryLimit, err = memory.Parse(c.MemoryLimit); err != nil {
			return o, cli.Usagef("--memory-limit: %w", err)
		}
	}
	if c.Shots != nil {
		if o.Shots = *c.Shots; o.Shots < 0 {
			return o, cli.Usagef("--shots %d: want 0 or more", o.Shots)
		}
	}
	var err error
	if o.Where, err = mix.ParseWhere(c.Where); err != nil {
		return o, cli.Usagef("--where: %w", err)
	}
	if o.Now, err = time.Parse(time.DateOnly, c.TemplateDate); err != nil {
		return o, cli.Usagef("--template-date %q: want a day such as 2026-01-31", c.TemplateDate)
	}
	for _, text := range c.Stop {
		o.Stop = append(o.Stop, unescape.Replace(text))
	}
	if o.Systems, err = c.systems(); err != nil {
		return o, err
	}
	if o.Sources, err = c.sources(); err != nil {
		return o, err
	}
	if o.Judge, err = c.judge(); err != nil {
		return o, err
	}
	if err := o.Check(); err != nil {
		return o, cli.UsageError{Err: err}
	}
	return o, nil
}

// predictions are the files of existing answers, and the names that some are given. A file whose own name has an equals sign
// is itself.
func (c *run) predictions() (files []string, named map[string]string) {
	named = map[string]string{}
	for _, v := range c.Predictions {
		if name, file, ok := strings.Cut(v, "="); ok && name != "" && file != "" {
			if _, err := os.Stat(v); err != nil {
				named[file], v = name, file
			}
		}
		files = append(files, v)
	}
	return files, named
}

var unescape = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t")

// systems are who answers: models, or adapters of one.
func (c *run) systems() (list []eval.System, err error) {
	if len(c.Predictions) > 0 {
		if len(c.Model)+len(c.Adapter) > 0 || c.WithBase {
			return nil, cli.Usagef("--predictions scores existing answers, and --model, --adapter and --with-base are for asking")
		}
		if given := c.asking(); len(given) > 0 {
			return nil, cli.Usagef("--predictions scores existing answers, and %s is for asking", strings.Join(given, ", "))
		}
		return nil, nil
	}
	switch {
	case len(c.Model) == 0:
		return nil, cli.Usagef("--model or --predictions is needed")
	case len(c.Model) > 1 && len(c.Adapter) > 0:
		return nil, cli.Usagef("--adapter is of one model, and there are %d", len(c.Model))
	case c.WithBase && len(c.Adapter) == 0:
		return nil, cli.Usagef("--with-base is for adapters; a model without one is asked anyway")
	}
	if c.Base != "" {
		if _, err := model.ParseBase(c.Base); err != nil {
			return nil, cli.Usagef("--base: %w", err)
		}
	}
	if len(c.Adapter) == 0 || c.WithBase {
		for i, name := range shortNames(c.Model) {
			list = append(list, eval.System{Name: name, Model: c.Model[i], Base: c.Base})
		}
	}
	for i, name := range shortNames(c.Adapter) {
		if slices.ContainsFunc(list, func(s eval.System) bool { return s.Name == name }) {
			name = c.Adapter[i]
		}
		list = append(list, eval.System{Name: name, Model: c.Model[0], Adapter: c.Adapter[i], Base: c.Base})
	}
	return list, nil
}

// asking are the flags that are given and for asking models alone.
func (c *run) asking() (given []string) {
	o := eval.Defaults()
	for _, f := range []struct {
		name string
		is   bool
	}{
		{"template", c.Template != o.Template},
		{"chat-template", c.ChatTemplate != ""},
		{"system-prompt", c.SystemPrompt != ""},
		{"template-date", c.TemplateDate != o.Now.Format(time.DateOnly)},
		{"shots", c.Shots != nil},
		{"shots-from", len(c.ShotsFrom) > 0},
		{"shots-split", c.ShotsSplit != ""},
		{"max-new-tokens", c.MaxNewTokens != 0},
		{"stop", len(c.Stop) > 0},
		{"beams", c.Beams != o.Beams},
		{"length-penalty", c.LengthPenalty != o.LengthPenalty},
		{"temperature", c.Temperature != 0},
		{"top-k", c.TopK != 0},
		{"top-p", c.TopP != 0},
		{"batch-size", c.BatchSize != o.BatchSize},
		{"likelihood", c.Likelihood},
		{"no-perplexity", c.NoPerplexity},
		{"base", c.Base != ""},
		{"compute", c.Compute != ""},
		{"device", c.Device != "auto"},
		{"threads", c.Threads != 0},
		{"memory-limit", c.MemoryLimit != ""},
		{"cache-dir", c.CacheDir != ""},
	} {
		if f.is {
			given = append(given, "--"+f.name)
		}
	}
	return given
}

// shortNames are the last parts of paths, or the paths where two have the same.
func shortNames(paths []string) []string {
	names := make([]string, len(paths))
	count := map[string]int{}
	for i, p := range paths {
		names[i] = filepath.Base(filepath.Clean(p))
		count[names[i]]++
	}
	for i, p := range paths {
		if count[names[i]] > 1 {
			names[i] = p
		}
	}
	return names
}

// sources are the tasks with their rows, in the order of the flags.
func (c *run) sources() (list []eval.Source, err error) {
	var errs []error
	at := map[string]int{}
	for _, v := range c.Task {
		name, file, ok := strings.Cut(v, "=")
		if !ok || name == "" || file == "" {
			errs = append(errs, cli.Usagef("--task %q: want NAME=ROWS, such as gad=gad-test.jsonl", v))
			continue
		}
		if i, ok := at[name]; ok {
			list[i].Files = append(list[i].Files, file)
			continue
		}
		s, err := eval.LoadSource(name, file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		at[name] = len(list)
		list = append(list, s)
	}
	for _, v := range c.ShotsFrom {
		name, file, ok := strings.Cut(v, "=")
		i := slices.IndexFunc(list, func(s eval.Source) bool { return s.Task.Name == name })
		if j, named := at[name]; named {
			i = j
		}
		if !ok || file == "" || i < 0 {
			errs = append(errs, cli.Usagef("--shots-from %q: want NAME=ROWS, with the name of a task that is asked", v))
			continue
		}
		list[i].ShotFiles = append(list[i].ShotFiles, file)
	}
	return list, errors.Join(errs...)
}
