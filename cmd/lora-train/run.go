package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// errInterrupted says that a signal ended the run; what was learnt lies in the output directory.
var errInterrupted = errors.New("interrupted")

// session is a run with its inputs open.
type session struct {
	*Run
	out            *output
	stdout, stderr io.Writer

	model     *model.Model
	adapter   *lora.Adapter
	tokenizer *tokenizer.Tokenizer
	data      *instruct.Dataset
	warnings  []string
	watch     *model.Profile // of a benchmark
}

// run carries out a resolved command line.
func (r *Run) run(ctx context.Context, stdout, stderr io.Writer) error {
	s := &session{Run: r, out: &output{path: r.Out, overwrite: r.Overwrite}, stdout: stdout, stderr: stderr}
	defer s.close()
	if r.Benchmark {
		return s.benchmark(ctx)
	}
	if r.Demo {
		return s.demo(ctx)
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if r.Plan {
		return s.printPlan(ctx)
	}
	_, err := s.train(ctx)
	return err
}

// prepare opens all that the run reads and looks at where it writes. All that is wrong is gathered; nothing is changed
// on the disk, but that weights which cannot be computed with as they lie in their files are converted into a cache.
func (s *session) prepare(ctx context.Context) error {
	if err := s.absolute(); err != nil {
		return err
	}
	if err := s.printPreset(s.stderr); err != nil {
		return err
	}
	err := s.open(ctx)
	if ctx.Err() != nil {
		fmt.Fprintln(s.stderr, "interrupted before the first step: nothing was learnt, nothing is kept")
		return errInterrupted
	}
	return err
}

// files are those that an output directory must not replace under the run's hands.
func (s *session) files() []string {
	files := append(slices.Clone(s.Data), s.Template, s.ChatTemplate, s.Model)
	for _, name := range []string{model.ConfigFile, weights.ParamsFile, weights.SingleFile, weights.PickleFile, "tokenizer.json", "tokenizer.model"} {
		files = append(files, filepath.Join(s.Model, name))
	}
	if s.Adapter != "" {
		for _, name := range adapterNames {
			files = append(files, filepath.Join(s.Adapter, name))
		}
	}
	return files
}

// open opens model, tokenizer, data and adapter. What takes long comes last, and not if anything is wrong.
func (s *session) open(ctx context.Context) error {
	errs := []error{s.openData(ctx)}
	if !s.out.claimed && !s.Plan {
		errs = append(errs, s.out.check(s.files()...))
	}
	if err := errors.Join(errs...); err != nil && (!exists(s.Model) || s.convertsLong()) {
		return err
	}
	return errors.Join(append([]error{s.openModel(ctx)}, errs...)...)
}

// convertsLong reports whether so much of the model's weights has to be converted that it takes a file.
func (s *session) convertsLong() bool {
	c, err := weights.Open(s.Model)
	if err != nil {
		return false
	}
	defer c.Close()
	if s.Base != "none" {
		return c.Bytes() > weights.MemoryLimit
	}
	n, err := c.Unprepared(weights.PrepareOptions{DType: numeric.BF16})
	return err == nil && n > weights.MemoryLimit
}

// openModel opens the model and puts the adapter into it.
func (s *session) openModel(ctx context.Context) (err error) {
	c := &conversion{w: s.stderr, terminal: report.StyleOf(s.stderr).Terminal, start: time.Now(), base: s.Base}
	o := s.modelOptions()
	o.Progress = c.progress
	s.model, err = model.OpenContext(ctx, s.Model, o)
	c.end()
	if err != nil {
		return err
	}
	c.summary(s.model.Caches(), s.model.CachesVerified())
	s.warnings = append(s.warnings, s.model.Warnings()...)
	return s.openAdapter()
}

// modelOptions say how the model is run.
func (s *session) modelOptions() model.Options {
	return model.Options{
		Compute: s.Compute, Device: s.Device, Threads: s.Threads, CPUFeatures: s.CPUFeatures, Activations: s.ActivationPolicy,
		MemoryLimit: s.memoryLimit(), Stream: s.Stream, Base: s.Base, VerifyBase: s.VerifyBase, CacheDir: s.CacheDir, Profile: s.watch,
	}
}

func (s *session) close() {
	if s.model != nil {
		s.model.Close()
	}
}

// openData opens the rows and the model's tokenizer.
func (s *session) openData(ctx context.Context) error {
	d, err := s.OpenFor(ctx, s.Model, s.Data)
	if err != nil {
		return err
	}
	s.data, s.tokenizer = d.Rows, d.Tokenizer
	s.warnings = append(s.warnings, d.Warnings...)
	return nil
}

// openAdapter puts a fresh adapter into the model, or the one to start from.
func (s *session) openAdapter() (err error) {
	if s.Adapter == "" {
		s.adapter, err = lora.Inject(s.model, s.lora())
	} else {
		s.adapter, err = s.load()
	}
	if err == nil {
		s.warnings = append(s.warnings, s.adapter.Warnings()...)
	}
	return err
}

// train trains, leaves the adapter in the output directory and says so. A run that ends before its first step leaves
// the directory as it was.
func (s *session) train(ctx context.Context) (res *train.Result, err error) {
	kept := &keeper{out: s.out}
	defer func() {
		if !kept.stepped {
			s.out.undo()
		}
	}()
	o := s.options()
	o.OutputDir = outputRoot // something will be saved
	if err := s.fitBatch(ctx, &o); err != nil {
		return nil, inFlags(err)
	}
	log, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	res, err = s.fit(ctx, kept, log)
	switch {
	case err != nil:
		fmt.Fprintln(log, "failed:", err)
		return nil, err
	case !kept.stepped && res.Interrupted:
		fmt.Fprintln(s.stderr, "interrupted before the first step: nothing was learnt, nothing is kept")
		return nil, errInterrupted
	}
	report.Summary(io.MultiWriter(s.stdout, log), *res, s.out.path)
	if err := s.out.seal(); err != nil {
		return nil, err
	}
	if res.Interrupted {
		return nil, errInterrupted
	}
	return res, nil
}

// begin takes the output directory, saves the settings in it and opens the log.
func (s *session) begin() (log *os.File, err error) {
	if !s.out.claimed {
		if err := s.out.claim(); err != nil {
			return nil, err
		}
	}
	s.Compute, s.Device = s.model.Compute(), s.model.Device() // what auto came to
	if err := s.out.write(runName, encodeConfig(&s.Settings)); err != nil {
		return nil, err
	}
	if log, err = os.Create(filepath.Join(s.out.path, logName)); err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	return log, nil
}

// fit trains, and reports to the user and to the log.
func (s *session) fit(ctx context.Context, kept *keeper, log io.Writer) (*train.Result, error) {
	info := report.Run{
		Model: s.Model, Data: s.Data, Adapter: adapted(s.adapter), Start: s.Adapter, Output: s.out.path,
		Backend: s.model.BackendName(), Compute: s.model.Compute(), Note: s.model.Note(), Warnings: s.warnings,
		Streamed: s.model.Streamed,
	}
	drawn := report.New(s.stderr, report.StyleOf(s.stderr), info)
	defer drawn.Close()
	o := s.options()
	o.OutputDir = s.out.path
	c := newCollector()
	defer c.end()
	o.Hooks = []train.Hook{c, kept, drawn, report.New(log, report.Style{}, info)}
	res, err := train.Run(ctx, s.model, s.adapter, s.tokenizer, s.data, o)
	return res, inFlags(err)
}

// adapted says what is adapted, without the number of parameters, which the report has from the plan.
func adapted(a *lora.Adapter) string {
	text := a.Describe()
	return text[:max(0, strings.LastIndex(text, "; "))]
}

// keeper parts with the output of an earlier run once this one has a step of its own.
type keeper struct {
	train.NopHook
	out     *output
	stepped bool
}

// Step is told of the first step.
func (k *keeper) Step(train.StepEvent) error {
	if k.stepped {
		return nil
	}
	k.stepped = true
	return k.out.settle()
}
