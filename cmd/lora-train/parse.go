package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// Run is a resolved command line.
type Run struct {
	Settings
	// Given are the keys that a flag or the configuration file sets, not a preset or the defaults.
	Given map[string]bool
	// Demo is a command line that names neither model nor data.
	Demo bool
	// Plan is to say what the run would take, and not to run.
	Plan bool
	// Benchmark is to measure this machine, and not to run.
	Benchmark bool
	// VerifyBase is to compare all converted weights with the checkpoint.
	VerifyBase bool
}

// flags are the command line: settings, and what to do with them.
type flags struct {
	Settings
	Plan bool `name:"plan" group:"Machine" help:"Print what memory the run takes and how long a step, and stop."`

	Benchmark bool `name:"benchmark" group:"Machine" help:"Measure in about a minute how fast this machine trains with these settings and where the time goes, and stop. Without --model: on a made-up one, with figures for 7B and 13B. Without --data: on made-up rows like BioInstruct's."`

	VerifyBase bool `name:"verify-base" group:"Machine" help:"Compare weights that were converted or quantised earlier with what the checkpoint gives now, every byte: as long as making them. What differs is made anew. Without it, checkpoint and cache are told by sizes, times, checksums and samples of their pages."`
}

// usageError is a command line that makes no sense, as opposed to a file that does not.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errHelp says that help was asked for and printed.
var errHelp = errors.New("help")

// defaults is the one table of defaults: those of the packages that run a run.
func defaults() Settings {
	t, l := train.Defaults(), lora.Defaults()
	s := Settings{
		Rows:             dataset.Defaults(),
		Compute:          "auto",
		Base:             "none",
		Device:           "auto",
		ActivationPolicy: "auto",
		Stream:           "auto",

		ValSetSize:         t.ValSetSize,
		NoShuffle:          !t.Shuffle,
		LearningRate:       t.LearningRate,
		LRSchedulerType:    t.LRSchedulerType,
		BatchSize:          microBatch(t.PerDeviceTrainBatchSize),
		Accumulation:       t.GradientAccumulationSteps,
		NumTrainEpochs:     t.NumTrainEpochs,
		MaxSteps:           t.MaxSteps,
		WarmupSteps:        t.WarmupSteps,
		WarmupRatio:        t.WarmupRatio,
		WeightDecay:        t.WeightDecay,
		AdamBeta1:          t.AdamBeta1,
		AdamBeta2:          t.AdamBeta2,
		AdamEpsilon:        t.AdamEpsilon,
		MaxGradNorm:        t.MaxGradNorm,
		Seed:               t.Seed,
		EvalSteps:          t.EvalSteps,
		LoadBestModelAtEnd: t.LoadBestModelAtEnd,
	}
	s.setLoRA(l)
	return s
}

// withDemo are the flags that may stand beside the demo: where it goes and how it is computed.
var withDemo = []string{"out", "overwrite", "compute", "base", "device", "threads", "cpu_features", "activation_policy", "memory_limit", "stream"}

// parse resolves a command line: flags win over the configuration file, it wins over the preset, and that over the
// defaults. Help goes to stdout.
func parse(args []string, stdout io.Writer) (*Run, error) {
	var flags flags
	given, err := parseFlags(args, &flags, stdout)
	if err != nil {
		return nil, err
	}
	file, inFile, err := parseConfig(flags.Config)
	if err != nil {
		return nil, err
	}
	r := &Run{Settings: defaults(), Given: map[string]bool{}, Plan: flags.Plan, Benchmark: flags.Benchmark, VerifyBase: flags.VerifyBase}
	name := flags.Preset
	if name == "" {
		name = file.Preset
	}
	if name != "" {
		p, err := findPreset(name)
		if err != nil {
			return nil, usageError{err}
		}
		p.apply(&r.Settings)
	}
	r.take(inFile, &file)
	r.take(given, &flags.Settings)
	r.MaxSteps = max(0, r.MaxSteps)
	if err := errors.Join(r.missing(given), r.validate(), r.Check(), r.lora().Validate(), inFlags(r.options().Validate())); err != nil {
		return nil, usageError{err}
	}
	return r, nil
}

// helpExamples stand in the help.
const helpExamples = `Examples:

  lora-train --model Llama-2-7b-hf --data bioinstruct.json --out adapter
  lora-train --preset bioinstruct --model Llama-2-7b-hf --base nf4 --data bioinstruct.json --out adapter
  lora-train --config run.yaml --learning-rate 1e-4 --out adapter-2
  lora-train --model Llama-2-7b-hf --data bioinstruct.json --benchmark`

// parseFlags reads the command line and returns the keys it gives.
func parseFlags(args []string, into *flags, stdout io.Writer) (given []string, err error) {
	helped := false
	var help bytes.Buffer
	k, err := kong.New(into,
		kong.Name("lora-train"),
		kong.Description("Fine-tunes a LLaMA checkpoint with LoRA on instruction data and saves a PEFT adapter. "+
			"Without arguments it runs a demo on an embedded tiny model.\n\n"+
			"Exit status: 0 done, 1 failed, 2 wrong usage, 3 interrupted."),
		kong.Writers(&help, io.Discard),
		kong.Exit(func(int) { helped = true }),
		kong.TypeMapper(reflect.TypeFor[lora.Names](), kong.MapperFunc(mapNames)),
		kong.TypeMapper(reflect.TypeFor[lora.Rules](), kong.MapperFunc(mapRules)),
		kong.Vars{"cpuFeatures": strings.Join(gemm.Names(), ", ")},
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
	)
	if err != nil {
		return nil, err
	}
	k.Model.Detail = helpExamples
	showDefaults(k)
	ctx, err := k.Parse(cli.JoinNegative(args))
	switch {
	case helped:
		if _, err := help.WriteTo(stdout); err != nil {
			return nil, fmt.Errorf("standard output: %w", err)
		}
		return nil, errHelp
	case err != nil:
		return nil, usageError{err}
	}
	for _, p := range ctx.Path {
		if p.Flag == nil {
			continue
		}
		key := strings.ReplaceAll(p.Flag.Name, "-", "_")
		if _, ok := into.find(key); ok { // not help, plan, benchmark or verify-base
			given = append(given, key)
		}
	}
	return given, nil
}

// showDefaults adds the table of defaults to the help.
func showDefaults(k *kong.Kong) {
	d := defaults()
	for _, f := range k.Model.Flags {
		s, ok := d.find(strings.ReplaceAll(f.Name, "-", "_"))
		numeric := ok && (s.value.CanInt() || s.value.CanUint() || s.value.CanFloat())
		if !ok || s.value.IsZero() && !numeric {
			continue
		}
		f.Help += fmt.Sprintf(" Default: %v.", s.value.Interface())
	}
}

// parseConfig reads the configuration file, where one is named.
func parseConfig(path string) (s Settings, given []string, err error) {
	if path == "" {
		return s, nil, nil
	}
	given, err = readConfig(path, &s)
	return s, given, err
}

// take sets the given keys to their values in s.
func (r *Run) take(given []string, s *Settings) {
	for _, key := range given {
		from, _ := s.find(key)
		to, _ := r.find(key)
		to.value.Set(from.value)
		r.Given[key] = true
	}
}

// missing says what a run lacks. Without a model and data it is the demo, if nothing speaks of training.
func (r *Run) missing(flags []string) error {
	if r.Benchmark {
		return r.benchmarks(flags)
	}
	var errs []error
	if r.Model == "" {
		errs = append(errs, errors.New("--model is missing: a checkpoint directory or a .gguf file"))
	}
	if len(r.Data) == 0 {
		errs = append(errs, errors.New("--data is missing: a file of rows, JSON Lines or a JSON array"))
	}
	if len(errs) == 2 && !r.Plan && !slices.ContainsFunc(flags, func(key string) bool { return !slices.Contains(withDemo, key) }) {
		r.Demo = true
		return nil
	}
	return errors.Join(errs...)
}

// absolute makes the paths of a run independent of the working directory, so that run.yaml repeats it from anywhere.
func (r *Run) absolute() error {
	paths := []*string{&r.Model, &r.Adapter, &r.CacheDir}
	for i := range r.Data {
		paths = append(paths, &r.Data[i])
	}
	if !slices.Contains([]string{instruct.Alpaca.Name, instruct.MedTuned.Name, instruct.InChat.Name}, r.Template) {
		paths = append(paths, &r.Template)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("%s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

// sameValue compares two settings; the order of names means nothing.
func sameValue(a, b setting) bool {
	sorted := func(v any) any {
		switch v := v.(type) {
		case lora.Names:
			v.List = slices.Sorted(slices.Values(v.List))
			return v.String()
		case []string:
			return strings.Join(slices.Sorted(slices.Values(v)), ",")
		case []int:
			return fmt.Sprint(slices.Sorted(slices.Values(v)))
		case lora.Rules:
			return fmt.Sprint(v)
		}
		return v
	}
	return reflect.DeepEqual(sorted(a.value.Interface()), sorted(b.value.Interface()))
}
