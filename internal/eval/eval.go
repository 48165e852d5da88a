// Package eval has models answer tasks that are given as instruction rows, and scores their answers: a base model, an
// adapter, or several of both side by side.
//
// # A run
//
// [Run] asks every system every row of every task, in this order. As many rows as a batch has are answered at a time; when
// an answer has ended the next row takes its place. Answers are added to predictions.jsonl in the order of the rows, a
// batch at a time, and flushed to the disk, so that a run that was killed goes on behind the last whole line when it is
// called again; run.json beside it has what the answers depend on, and a run with other settings does not go on with
// them. What is made of the answers, results.json and report.html, is made anew each time. One process works in a
// directory at a time. Answers that exist already are scored without a model ([Options.Predictions]).
//
// # How a model is asked
//
// A prompt is the template's text to generate from. With examples (n-shot) it begins with them: the prompt of each, its
// output, and an empty line; in a chat template they are turns of user and assistant. The papers' own form of examples is
// not known. Examples are the first rows of an order that the seed makes of the rows they are taken from, and never a row
// with the question's own input. An answer ends at an end token of the model, at a stop string, which is cut from it, or
// after so many new tokens; examples add a stop string, the beginning of another prompt.
//
// What prompts have in common, examples and instruction, is computed once and kept while there is room for it. On the CPU
// an answer and its likelihoods are, to the bit, a function of the row and the settings: neither the size of batches nor
// the rows beside it, the memory, an interruption or the number of threads changes them. Passes have more rows than the
// kernels for few rows take for that, if need be rows of no use: see model.GenerateOptions.Steady. What is drawn in
// sampling is a function of the seed, the task, the row's id and the token's place in the answer.
//
// Keys and values take no more memory than there is: fewer rows are answered together then, which is told. A prompt that
// leaves the model no position for an answer is not asked: its answer is empty, which is invalid, and its end too_long.
//
// Beside the answer, a row has the likelihood of its gold output after the same prompt, with the end token, of which
// perplexity is made; and, if asked for, that of each option.
//
// # A judge
//
// Tasks may ask for the marks of a judge, a chat model behind an endpoint (see package judge): the metric is their mean,
// from 1 to 5, over the answers that got one. Answers without a mark are counted, and are no mark. Two systems are compared
// on the rows where both have marks. What the judge was asked and said is in judge.journal, of which a run goes on or is
// repeated without the judge, and what was read of it in verdicts.jsonl, a line for each answer.
//
// # Splits
//
// The rows of a task must be of one split, as they say themselves, unless Options.MixedSplits allows others. It is shown
// wherever a figure is.
//
// # Some rows only
//
// Options.Limit takes so many rows of a task, the same for all systems: those that a seeded order has first, of each label
// its share where answers are labels, since files are often sorted by it. How many of how many is shown with the figures,
// and the papers' figures are not.
package eval

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/filelock"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/model"
)

// System is what answers: a model, or one with an adapter.
type System struct {
	Name    string // in tables and files
	Model   string // checkpoint directory or .gguf file
	Adapter string // PEFT directory; empty: the model alone
	Base    string // format of the model's linears, as model.Options.Base
	// Template of its prompts, by name or file; empty: Options.Template.
	Template string
}

// Source is a task and its rows.
type Source struct {
	Task medtuned.Task
	// BuiltIn says that Task is the one of its name that comes with the program, so that the papers' figures are of it.
	BuiltIn bool
	Files   []string
	// ShotFiles are rows to take examples from; empty: rows of the split Options.ShotsSplit in Files.
	ShotFiles []string
}

// LoadSource is a source whose task is a built-in one or a file's.
func LoadSource(nameOrFile string, files ...string) (Source, error) {
	task, err := medtuned.LoadTask(nameOrFile)
	if err != nil {
		return Source{}, err
	}
	return Source{Task: task, BuiltIn: task.Name == nameOrFile, Files: files}, nil
}

// Options say who is asked what, and how. Start from Defaults.
type Options struct {
	Systems []System
	Sources []Source
	Out     string // directory; it is made where it is absent
	// Overwrite begins anew, whatever Out has of an earlier run.
	Overwrite bool
	// Predictions are files of answers to score, instead of asking; then there are no Systems, and nothing of the rest but
	// what says which rows there are, and Bootstrap, matters.
	Predictions []string
	// Named says whose answers a file of Predictions has, whatever the file says: runs of one model with several templates
	// are several systems then. A file without a name keeps its own.
	Named map[string]string

	Where       mix.Where // rows that it does not hold for are left out
	Split       string    // rows of other splits are left out; empty: none are
	MixedSplits bool
	Limit       int // of rows of a task, chosen by Seed; 0: all

	Template     string    // of prompts where neither system nor task has one, by name or file
	ChatTemplate string    // of the template chat: one of the tokenizer's by name, or a file; empty: its own
	SystemPrompt string    // of the template chat
	Now          time.Time // what the template chat is told
	Stop         []string
	MaxNewTokens int    // 0: each task's
	Shots        int    // examples; -1: each task's
	ShotsSplit   string // empty: each task's

	Beams         int // 1: none
	LengthPenalty float64
	Temperature   float64
	TopK          int
	TopP          float64
	Seed          uint64 // of sampling, and of the choice of rows and examples
	BatchSize     int    // rows that are answered at a time; it changes no answer

	Likelihood bool // of the options of multiple choice, and of labels
	Perplexity bool // of the gold outputs

	// Judge marks the answers of tasks whose metrics have judge. Nil: nobody does, which is said. Its Journal may be empty:
	// then it is judge.journal in Out.
	Judge *judge.Options

	Bootstrap metrics.Bootstrap
	Model     model.Options // but for Base, which systems have
	// Progress is told of every batch that is written, and of what is there already. It may be nil.
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct {
	System, Task string
	Done, Total  int    // rows, of all systems and tasks
	Resumed      int    // of those done, the ones that were there
	Tokens       int    // of the answers of this call
	Note         string // something else that a person should know; mostly empty
}

// Defaults are greedy answers to Alpaca's prompt.
func Defaults() Options {
	return Options{
		Template: "alpaca", Shots: -1, Beams: 1, LengthPenalty: 1, BatchSize: 8, Seed: 42, Perplexity: true,
		Now:       time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC), // Llama 3.1's own where it is told none
		Bootstrap: metrics.DefaultBootstrap(),
	}
}

// The files of a run's directory.
const (
	runFile         = "run.json"
	predictionsFile = "predictions.jsonl"
	ResultsFile     = "results.json"
	ReportFile      = "report.html"
	JudgeJournal    = "judge.journal" // where options name no other
	verdictsFile    = "verdicts.jsonl"
)

// Check says all that is wrong with the options by themselves.
func (o *Options) Check() error {
	var errs []error
	wrong := func(is bool, format string, a ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	wrong(o.Out == "", "there is no directory for the results")
	wrong(len(o.Sources) == 0, "there is no task")
	wrong(len(o.Systems) == 0 && len(o.Predictions) == 0, "there is neither a model nor a file of answers")
	wrong(len(o.Systems) > 0 && len(o.Predictions) > 0, "models are asked, or existing answers scored, not both")
	names := map[string]bool{}
	for _, s := range o.Systems {
		wrong(s.Name == "" || s.Model == "", "a system needs a name and a model: %q, %q", s.Name, s.Model)
		wrong(names[s.Name], "two systems have the name %q", s.Name)
		names[s.Name] = true
	}
	tasks := map[string]bool{}
	for _, s := range o.Sources {
		if err := s.Task.Check(); err != nil {
			errs = append(errs, fmt.Errorf("task %s: %w", s.Task.Name, err))
		}
		wrong(tasks[s.Task.Name], "the task %s is there twice", s.Task.Name)
		wrong(len(s.Files) == 0, "the task %s has no rows", s.Task.Name)
		tasks[s.Task.Name] = true
	}
	for _, split := range []string{o.Split, o.ShotsSplit} {
		wrong(split != "" && !slices.Contains(medtuned.Splits, split), "split %q is none of %q", split, medtuned.Splits)
	}
	wrong(o.Limit < 0, "limit %d: want 0 for all rows, or a number of them", o.Limit)
	wrong(slices.Contains(o.Stop, ""), "an empty stop string ends every answer")
	wrong(o.MaxNewTokens < 0, "%d new tokens", o.MaxNewTokens)
	wrong(o.Shots < -1 || o.Shots > medtuned.MaxShots, "%d examples: want 0 to %d", o.Shots, medtuned.MaxShots)
	wrong(o.Beams < 1 || o.Beams > 64, "%d beams: want 1 to 64", o.Beams)
	wrong(o.Beams > 1 && o.Temperature > 0, "%d beams at temperature %v: beams do not sample", o.Beams, o.Temperature)
	wrong(!(o.Temperature >= 0) || o.TopK < 0 || !(o.TopP >= 0 && o.TopP <= 1), "temperature %v, top-k %d, top-p %v: want numbers from 0, top-p up to 1",
		o.Temperature, o.TopK, o.TopP)
	wrong(o.Temperature == 0 && (o.TopK > 0 || o.TopP > 0), "top-k and top-p are for sampling: at temperature 0 nothing is sampled")
	wrong(o.Beams == 1 && o.LengthPenalty != Defaults().LengthPenalty, "the length penalty is for beams, and there is 1")
	wrong(!slices.Contains([]string{"", "auto", "f32", "bf16"}, o.Model.Compute), "compute %q is none of auto, f32, bf16", o.Model.Compute)
	wrong(o.Beams > 1 && !(math.Abs(o.LengthPenalty) <= 100), "a length penalty of %v: want -100 to 100", o.LengthPenalty)
	wrong(o.BatchSize < 1 || o.BatchSize > 4096, "a batch of %d rows: want 1 to 4096", o.BatchSize)
	if err := o.Bootstrap.Check(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Run asks and scores, and writes run.json, predictions.jsonl, results.json and report.html into Out, and what a judge
// says.  When ctx ends, the
// answers so far are kept, the results are not written, and the error is the context's.
func Run(ctx context.Context, o Options) (*Results, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	sets, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	r := &run{Options: o, sets: sets, answers: map[string]map[*set][]Answer{}, release: func() {}}
	if err := errors.Join(r.checkGold(), r.checkJudge()); err != nil {
		return nil, err
	}
	defer func() { r.release() }()
	if len(o.Predictions) > 0 {
		err = r.existing(ctx)
	} else {
		err = r.ask(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := r.judge(ctx); err != nil {
		return nil, err
	}
	res, err := r.score(ctx)
	if err != nil {
		return nil, err
	}
	return res, errors.Join(r.writeVerdicts(), res.write(o.Out))
}

// run is a run with its rows.
type run struct {
	Options
	sets     []*set
	settings *settings // nil where answers exist
	backends map[string]string
	systems  []string
	// answers of a system to a set's rows, in their order.
	answers  map[string]map[*set][]Answer
	verdicts map[string]map[*set][]judge.Verdict // of the answers of tasks that are judged
	judged   *judge.Result                       // nil: nobody judges
	warnings []string
	given    []File // of existing answers
	release  func() // gives the directory back
}

// take makes the directory and keeps other processes out of it, until release.
func (r *run) take() error {
	if err := os.MkdirAll(r.Out, 0o777); err != nil {
		return err
	}
	release, err := filelock.Dir(r.Out)
	if err == nil {
		r.release = release
	}
	return err
}

func (r *run) path(name string) string { return filepath.Join(r.Out, name) }
