package matrix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/filelock"
	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// Options are what does not change a result.
type Options struct {
	Out       string // directory; it is made where it is absent
	Device    string // see model.Options
	Threads   int    // 0: one for each CPU
	CacheDir  string // of converted and quantised weights
	KeepGoing bool   // goes on with the next cell where one fails
	// Judge is the grid's judge. All cells share one journal, judge.journal in Out.
	Judge *judge.Options
	// Progress is told how far the run has come, Converting how many bytes of weights are converted, and Note, for each
	// model that is opened, what is worth knowing about the device. They may be nil.
	Progress   func(Progress)
	Converting func(done, total int64)
	Note       func(text string)
}

// Progress is how far a run has come.
type Progress struct {
	Cell        string // or base
	Training    bool
	What        string // "training", or the task that is answered
	Step, Steps int    // of the training, or rows of the task
	Done, Total int    // cells
	Found       int    // of those done, the ones that were done before
}

// The files of a run's directory.
const (
	claimFile   = "grid.json"
	ResultsFile = "matrix.json"
	ReportFile  = "matrix.html"
	trainedFile = "trained.json" // of a cell
	doneFile    = "cell.json"    // of a cell
	adapterDir  = "adapter"
)

// runner is a run.
type runner struct {
	*Plan
	Options
	prints map[string]string // of the bases' models
	now    Progress
}

// Run does the cells that are not done, and writes matrix.json and matrix.html into Out. When ctx ends, what is done is
// kept, nothing is written, and the error is the context's. Where cells fail and KeepGoing is set, there are results of the
// others, and an error that has all failures.
func Run(ctx context.Context, p *Plan, o Options) (*Results, error) {
	r := &runner{Plan: p, Options: o, prints: map[string]string{}}
	r.now.Total = len(p.Cells)
	release, err := r.claim()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := r.checkJudge(); err != nil {
		return nil, err
	}
	res := r.results()
	for i := range p.Grid.Bases {
		b := &p.Grid.Bases[i]
		into := &res.Bases[i]
		into.Scores, into.Notes, err = r.ask(ctx, b, b.Name, filepath.Join(o.Out, "bases", b.Name), "")
		if err != nil {
			return nil, r.failed(ctx, "base "+b.Name, err)
		}
		into.Fingerprint = r.prints[b.Name]
	}
	if err := r.checkMarks(); err != nil {
		return nil, err
	}
	var errs []error
	for i := range p.Cells {
		c := &p.Cells[i]
		done, err := r.cell(ctx, c)
		if err != nil {
			err = r.failed(ctx, "cell "+c.Name(), err)
			if !o.KeepGoing || ctx.Err() != nil {
				return nil, err
			}
			errs = append(errs, err)
			done = &Done{Error: err.Error()}
		}
		done.Cell = *c
		r.now.Done++
		res.Cells = append(res.Cells, *done)
	}
	res.finish(p.Notes)
	return res, errors.Join(append(errs, res.write(o.Out))...)
}

// failed names what failed; of an end of the context there is nothing to say.
func (r *runner) failed(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s: %w", name, err)
}

// claim takes the directory, until release. One with other things in it is somebody else's, and one in which another
// process is at work that process's.
func (r *runner) claim() (release func(), err error) {
	if err := os.MkdirAll(r.Out, 0o777); err != nil {
		return nil, err
	}
	if err := r.checkOut(); err != nil {
		return nil, err
	}
	if release, err = filelock.Dir(r.Out); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteJSON(filepath.Join(r.Out, claimFile), r.Grid); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// checkOut finds out whether the directory is a matrix's, or may become one's.
func (r *runner) checkOut() error {
	if _, err := os.Lstat(filepath.Join(r.Out, claimFile)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(r.Out)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") { // a temporary file of a run that was killed, or a lock
			return fmt.Errorf("%s is not empty, and has no %s: it is not of a matrix", r.Out, claimFile)
		}
	}
	return nil
}

// version changes when the same settings give other adapters or scores.
const version = 1

// settings are all that an adapter depends on. Files are told by their contents.
type settings struct {
	Version  int      `json:"version"`
	Model    string   `json:"model"`
	Template string   `json:"template"`
	Chat     string   `json:"chat,omitempty"`
	Data     []string `json:"data"`
	Where    string   `json:"where"`
	Count    int      `json:"count"`
	Seed     uint64   `json:"seed"`
	Train    Train    `json:"train"`
}

// trained is the mark of a cell whose adapter is there.
type trained struct {
	Settings settings `json:"settings"`
	Steps    int      `json:"steps"`
	Loss     float64  `json:"loss"` // of the last step
	Cut      int      `json:"cut"`
	NoLabel  int      `json:"no_label"`
}

// finished is the mark of a cell that is done.
type finished struct {
	Fingerprint string `json:"fingerprint"`
	Done        *Done  `json:"done"`
}

func (r *runner) dir(c *Cell) string {
	return filepath.Join(r.Out, "cells", filepath.FromSlash(c.Name()))
}

// settings are those of a cell; its base has been asked.
func (r *runner) settings(c *Cell) (settings, error) {
	s := settings{Version: version, Model: r.prints[c.Base], Where: c.part.where, Count: c.part.Count, Seed: c.Seed, Train: r.Grid.Train}
	t, err := instruct.LoadTemplate(c.base.Template)
	if err != nil {
		return s, err
	}
	s.Template = fingerprint.Texts(t.PromptInput, t.PromptNoInput, t.Response, t.Inference, t.LossAfter)
	if t.Chat {
		source := c.base.ChatTemplate
		if text, err := regular.ReadFile(source, dataset.MaxTemplate); err == nil {
			source = string(text)
		}
		s.Chat = fingerprint.Texts(source, c.base.SystemPrompt)
	}
	for _, f := range r.Files {
		s.Data = append(s.Data, f.SHA256)
	}
	return s, nil
}

// fingerprint is the SHA-256 of all that a cell's scores depend on.
func (r *runner) fingerprint(s settings) (string, error) {
	parts := []any{s, r.Grid.Eval, eval.Version}
	if r.Judge != nil { // the endpoint apart, which changes no mark
		parts = append(parts, r.Grid.Judge, r.Judge.Rubric.ID())
	}
	for _, t := range r.tasks {
		parts = append(parts, t.source.Task, t.Split, t.Where, t.Limit)
		for _, f := range t.files {
			parts = append(parts, f.SHA256)
		}
		for _, f := range t.shots {
			parts = append(parts, "shots "+f.SHA256)
		}
		if t.ShotsSplit != "" {
			parts = append(parts, "shots of "+t.ShotsSplit)
		}
	}
	text, err := json.Marshal(parts)
	return fingerprint.Texts(string(text)), err
}

// read reads a mark; ok tells whether there is one.
func read(path string, into any) (ok bool, err error) {
	text, err := regular.ReadFile(path, 1<<26)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return false, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return true, nil
}

// checkMarks finds adapters that were trained with other settings, before anything is trained.
func (r *runner) checkMarks() error {
	var errs []error
	for i := range r.Cells {
		c := &r.Cells[i]
		var mark trained
		ok, err := read(filepath.Join(r.dir(c), trainedFile), &mark)
		if err == nil && ok {
			var now settings
			if now, err = r.settings(c); err == nil {
				err = differ(mark.Settings, now)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cell %s: %w", c.Name(), err))
		}
		if len(errs) == 8 {
			errs = append(errs, errors.New("and perhaps more"))
			break
		}
	}
	return errors.Join(errs...)
}

// differ says how the settings of an adapter that is there differ from those that are wanted.
func differ(before, now settings) error {
	x, err := flat(before)
	if err != nil {
		return err
	}
	y, err := flat(now)
	if err != nil {
		return err
	}
	var list []string
	for i := range y {
		if x[i] != y[i] {
			list = append(list, fmt.Sprintf("%s was %s, is %s", y[i][0], x[i][1], y[i][1]))
		}
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("it was trained with other settings (%s): choose another directory, or remove the cell's", strings.Join(list, "; "))
}

// flat are the settings' names and values.
func flat(s settings) (list [][2]string, err error) {
	t := s.Train
	s.Train = Train{}
	for _, v := range []any{s, t} {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.Token() // the brace
		for d.More() {
			key, _ := d.Token()
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				return nil, err
			}
			if key != "train" {
				list = append(list, [2]string{fmt.Sprint(key), string(value)})
			}
		}
	}
	return list, nil
}

// cell does what is left of a cell.
func (r *runner) cell(ctx context.Context, c *Cell) (*Done, error) {
	now, err := r.settings(c)
	if err != nil {
		return nil, err
	}
	print, err := r.fingerprint(now)
	if err != nil {
		return nil, err
	}
	dir := r.dir(c)
	var mark finished
	if ok, err := read(filepath.Join(dir, doneFile), &mark); err != nil {
		return nil, err
	} else if ok && mark.Fingerprint == print && mark.Done != nil {
		r.now.Found++
		return mark.Done, nil
	}
	var t trained
	ok, err := read(filepath.Join(dir, trainedFile), &t)
	if err == nil && !ok {
		t, err = r.train(ctx, c, now)
	}
	if err != nil {
		return nil, err
	}
	done := &Done{Steps: t.Steps, Loss: t.Loss, Cut: t.Cut, NoLabel: t.NoLabel}
	if done.Scores, done.Notes, err = r.ask(ctx, c.base, c.Name(), dir, filepath.Join(dir, adapterDir)); err != nil {
		return nil, err
	}
	return done, atomicfile.WriteJSON(filepath.Join(dir, doneFile), finished{print, done})
}

// train trains a cell's adapter from the beginning.
func (r *runner) train(ctx context.Context, c *Cell, now settings) (t trained, err error) {
	dir := r.dir(c)
	if err := os.RemoveAll(dir); err != nil {
		return t, err
	}
	out := filepath.Join(dir, adapterDir)
	if err := os.MkdirAll(out, 0o777); err != nil {
		return t, err
	}
	file := filepath.Join(dir, "rows.jsonl")
	if err := r.choose(ctx, c, file); err != nil {
		return t, err
	}
	data, err := r.open(ctx, c, file)
	if err != nil {
		return t, err
	}
	o := r.modelOptions()
	o.Base, o.Progress = r.Grid.Train.Base, r.Converting
	m, err := model.OpenContext(ctx, c.base.Path, o)
	if err != nil {
		return t, err
	}
	defer m.Close()
	a, err := lora.Inject(m, r.Grid.Train.lora(c.Seed))
	if err != nil {
		return t, err
	}
	p := r.now
	p.Cell, p.What, p.Training = c.Name(), "training", true
	w := &watch{tell: r.Progress, now: p}
	settings := r.Grid.Train.options(c.Seed)
	settings.OutputDir, settings.Hooks = out, []train.Hook{w}
	res, err := train.Run(ctx, m, a, data.Tokenizer, data.Rows, settings)
	if err != nil {
		return t, err
	}
	if res.Interrupted {
		return t, ctx.Err()
	}
	if err := os.Remove(file); err != nil { // the data has them
		return t, err
	}
	t = trained{now, res.Steps, res.Loss, w.rows.Cut, w.rows.NoLabel}
	return t, atomicfile.WriteJSON(filepath.Join(dir, trainedFile), t)
}

// choose writes the rows of a cell.
func (r *runner) choose(ctx context.Context, c *Cell, file string) error {
	recipe := &mix.Recipe{Seed: c.Seed, KeepOrder: true, Sources: []mix.Source{
		{Name: "data", Files: r.Grid.Data, Where: c.part.where, Count: c.part.Count}}}
	chosen, _, err := mix.Mix(ctx, recipe, mix.Options{})
	if err != nil {
		return err
	}
	if len(chosen) != c.Rows {
		return fmt.Errorf("%d rows to train on, and %d when the grid was read: the data has changed", len(chosen), c.Rows)
	}
	_, err = rows.Write(file, func(yield func(rows.Row, error) bool) {
		for _, row := range chosen {
			row.Extra = nil // may be taken for another form of rows
			if !yield(row, nil) {
				return
			}
		}
	})
	return err
}

// open reads the rows of a cell in the style of its base.
func (r *runner) open(ctx context.Context, c *Cell, file string) (*dataset.Data, error) {
	s := dataset.Defaults()
	s.Template, s.ChatTemplate, s.SystemPrompt = c.base.Template, c.base.ChatTemplate, c.base.SystemPrompt
	s.TrainOnInputs, s.MaxSeqLength = r.Grid.Train.TrainOnInputs, r.Grid.Train.MaxSeqLength
	t, err := instruct.LoadTemplate(s.Template)
	if err != nil {
		return nil, err
	}
	if t.Chat { // the day that answers are told, too
		s.TemplateDate = eval.Defaults().Now.Format("2006-01-02")
	}
	return s.OpenFor(ctx, c.base.Path, []string{file})
}

func (r *runner) modelOptions() model.Options {
	return model.Options{Compute: r.Grid.Train.Compute, Device: r.Device, Threads: r.Threads, CacheDir: r.CacheDir, Note: r.Note}
}

// watch tells of steps.
type watch struct {
	train.NopHook
	tell func(Progress)
	now  Progress
	rows train.Rows
}

func (w *watch) Begin(p train.Plan) error {
	w.now.Steps, w.rows = p.Steps, p.Rows
	w.say()
	return nil
}

func (w *watch) Step(e train.StepEvent) error {
	w.now.Step = e.Step
	w.say()
	return nil
}

func (w *watch) say() {
	if w.tell != nil {
		w.tell(w.now)
	}
}

// ask has a base, or an adapter of it, answer all tasks.
func (r *runner) ask(ctx context.Context, b *Base, name, dir, adapter string) (scores []Score, notes []string, err error) {
	for i := range r.tasks {
		t := &r.tasks[i]
		o := eval.Defaults()
		o.Systems = []eval.System{{Name: name, Model: b.Path, Adapter: adapter, Base: r.Grid.Train.Base, Template: b.Template}}
		o.Sources = []eval.Source{t.source}
		o.Out = filepath.Join(dir, "eval", t.source.Task.Name)
		o.Split, o.Where, o.Limit = t.Split, t.where, t.Limit
		o.ChatTemplate, o.SystemPrompt = b.ChatTemplate, b.SystemPrompt
		o.BatchSize, o.Beams, o.MaxNewTokens, o.Stop = r.Grid.Eval.BatchSize, r.Grid.Eval.Beams, r.Grid.Eval.MaxNewTokens, r.Grid.Eval.Stop
		if n := r.Grid.Eval.Shots; n != nil {
			o.Shots = *n
		}
		o.ShotsSplit = cmp.Or(t.ShotsSplit, r.Grid.Eval.ShotsSplit)
		o.Perplexity = false
		o.Model = r.modelOptions()
		o.Model.Progress = r.Converting
		o.Progress = func(x eval.Progress) {
			p := r.now
			p.Cell, p.What, p.Step, p.Steps = name, t.source.Task.Name, x.Done, x.Total
			if r.Progress != nil {
				r.Progress(p)
			}
		}
		if r.Judge != nil && t.wantsJudge() {
			o.Judge = r.judgeOf(name, t.source.Task.Name)
		}
		res, err := eval.Run(ctx, o)
		if err != nil {
			return nil, nil, fmt.Errorf("task %s: %w", t.source.Task.Name, err)
		}
		if adapter == "" {
			r.prints[b.Name] = res.Systems[0].ModelFingerprint
		}
		scores, notes = append(scores, score(res)), append(notes, res.Warnings...)
	}
	return scores, notes, nil
}

// checkJudge finds what would keep a judge from marking, before anything is trained.
func (r *runner) checkJudge() error {
	if (r.Judge == nil) != (r.Grid.Judge == nil) {
		return errors.New("a judge is asked if, and only if, the grid names one")
	}
	if r.Judge == nil {
		return nil
	}
	o := *r.Judge
	o.Journal = filepath.Join(r.Out, eval.JudgeJournal)
	r.Judge = &o
	if err := o.Check(); err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	return nil
}

// judgeOf is the judge for the answers of a cell, or of a base, to a task.
func (r *runner) judgeOf(name, task string) *judge.Options {
	o := *r.Judge
	o.Progress = func(x judge.Progress) {
		p := r.now
		p.Cell, p.What, p.Step, p.Steps = name, task+", judge", x.Done, x.Total
		if r.Progress != nil {
			r.Progress(p)
		}
	}
	return &o
}
