package train_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// history is a hook that keeps the events of steps.
type history struct {
	train.NopHook
	steps []train.StepEvent
}

func (h *history) Step(e train.StepEvent) error { h.steps = append(h.steps, e); return nil }

// openCase opens model, adapter and rows of a reference case.
func openCase(t *testing.T, c *golden.Case, mo model.Options, lo ...lora.Option) (*model.Model, *lora.Adapter, *instruct.Dataset) {
	t.Helper()
	m, err := model.Open(c.Path("model"), mo)
	if err != nil {
		t.Fatal(err)
	}
	a, err := lora.Load(m, c.Path("adapter_init"), lo...)
	if err != nil {
		t.Fatal(errors.Join(err, m.Close()))
	}
	data, err := instruct.Open(c.Path("rows.jsonl"), instruct.Alpaca)
	if err != nil {
		t.Fatal(errors.Join(err, m.Close()))
	}
	return m, a, data
}

// fineTune trains a small real model with dropout and returns the steps and the directory of the adapter.
func fineTune(t *testing.T, mo model.Options, set func(*train.Options)) ([]train.StepEvent, *train.Result, string) {
	t.Helper()
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	m, a, data := openCase(t, c, mo, lora.Dropout(0.25))
	defer m.Close()
	o := train.Defaults()
	o.PerDeviceTrainBatchSize, o.LearningRate, o.OutputDir = 4, 5e-3, filepath.Join(t.TempDir(), "out")
	if set != nil {
		set(&o)
	}
	h := &history{}
	o.Hooks = []train.Hook{h}
	res, err := train.Run(t.Context(), m, a, nil, data, o)
	if err != nil {
		t.Fatal(err)
	}
	return h.steps, res, o.OutputDir
}

// The same run is the same to the last bit, with any number of threads and whatever the layers keep.
func TestReproducible(t *testing.T) {
	steps, _, dir := fineTune(t, model.Options{Compute: "f32"}, nil)
	want := golden.Tensors(t, filepath.Join(dir, "adapter_model.safetensors"))
	for name, mo := range map[string]model.Options{
		"again":       {Compute: "f32"},
		"one thread":  {Compute: "f32", Threads: 1},
		"seven":       {Compute: "f32", Threads: 7},
		"recomputing": {Compute: "f32", Activations: "none"},
		"streaming":   {Compute: "f32", Stream: "always"},
	} {
		got, _, dir := fineTune(t, mo, nil)
		if diff := cmp.Diff(steps, got, cmpopts.IgnoreFields(train.StepEvent{}, "Seconds")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(want, golden.Tensors(t, filepath.Join(dir, "adapter_model.safetensors"))); diff != "" {
			t.Errorf("%s: the adapters differ", name)
		}
	}
}

// How a window is cut into micro-batches changes nothing but rounding, dropout included.
func TestMicroBatchesAgree(t *testing.T) {
	want, _, _ := fineTune(t, model.Options{Compute: "f32"}, nil)
	got, _, _ := fineTune(t, model.Options{Compute: "f32"}, func(o *train.Options) {
		o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = 1, 4
	})
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(train.StepEvent{}, "Epoch", "Seconds"), cmpopts.EquateApprox(1e-5, 0)); diff != "" {
		t.Error(diff)
	}
	other, _, _ := fineTune(t, model.Options{Compute: "f32"}, func(o *train.Options) { o.Seed++; o.Shuffle = false })
	plain, _, _ := fineTune(t, model.Options{Compute: "f32"}, func(o *train.Options) { o.Shuffle = false })
	if golden.Rel(other[0].Loss, plain[0].Loss) < 1e-5 {
		t.Error("another seed, and the same dropout")
	}
}

// cutter cuts a file short after the first step.
type cutter struct {
	train.NopHook
	path string
}

func (c *cutter) Step(train.StepEvent) error { return os.Truncate(c.path, 100) }

// A checkpoint that is cut short while its weights are streamed ends the run with an error that names it, and what was
// learnt until then is saved.
func TestCutShortWhileStreaming(t *testing.T) {
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "model"), os.DirFS(c.Path("model"))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "model", "model.safetensors")
	m, err := model.Open(filepath.Join(dir, "model"), model.Options{Compute: "f32", Stream: "always"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a, err := lora.Load(m, c.Path("adapter_init"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := instruct.Open(c.Path("rows.jsonl"), instruct.Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	o := train.Defaults()
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps, o.OutputDir = 1, 2, filepath.Join(dir, "out")
	o.Hooks = []train.Hook{&cutter{path: file}}
	_, err = train.Run(t.Context(), m, a, nil, data, o)
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "(the adapter of step 1 is saved in "+o.OutputDir+")") {
		t.Fatalf("%v", err)
	}
	if len(golden.Tensors(t, filepath.Join(o.OutputDir, "adapter_model.safetensors"))) == 0 {
		t.Error("nothing is saved")
	}
}

// What is saved as the best evaluates as the best, and is left at the root where that is asked for.
func TestBestIsOnDisk(t *testing.T) {
	_, res, dir := fineTune(t, model.Options{Compute: "f32"}, func(o *train.Options) {
		o.ValSetSize, o.EvalSteps, o.LoadBestModelAtEnd, o.LearningRate, o.NumTrainEpochs = 0.3, 1, true, 0.1, 5
	})
	if res.BestStep == 0 || res.BestStep == res.Steps || res.EvalLoss != res.BestEvalLoss || math.IsNaN(res.EvalLossBefore) {
		t.Fatalf("%+v: the rate should be too high for the last step to be the best", res)
	}
	for _, name := range []string{"adapter_model.safetensors", "adapter_config.json"} {
		root, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		best, err := os.ReadFile(filepath.Join(dir, train.BestDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(root) != string(best) {
			t.Errorf("%s at the root is not that of %s", name, train.BestDir)
		}
	}
}

// A second run begins as the first did: AdamW does not remember the run before.
func TestSecondRun(t *testing.T) {
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	m, a, data := openCase(t, c, model.Options{Compute: "f32"})
	defer m.Close()
	start := m.Params().Snapshot(nil)
	var first []train.StepEvent
	for run := range 2 {
		m.Params().Restore(start)
		h := &history{}
		o := train.Defaults()
		o.PerDeviceTrainBatchSize, o.Hooks = 2, []train.Hook{h}
		if _, err := train.Run(t.Context(), m, a, nil, data, o); err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			first = h.steps
		} else if diff := cmp.Diff(first, h.steps, cmpopts.IgnoreFields(train.StepEvent{}, "Seconds")); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRunNeedsItsParts(t *testing.T) {
	if _, err := train.Run(t.Context(), nil, nil, nil, nil, train.Defaults()); err == nil {
		t.Error("no error")
	}
}

// The micro-batch that the memory has room for: all rows of a step where that is so, fewer where less is given.
func TestFitMicroBatch(t *testing.T) {
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	o := train.Defaults()
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = 2, 2
	fit := func(limit int64) (size, accumulation int, err error) {
		m, a, data := openCase(t, c, model.Options{Compute: "f32", MemoryLimit: limit, Activations: "none"})
		defer m.Close()
		return train.FitMicroBatch(t.Context(), m, a, nil, data, o)
	}
	if size, n, err := fit(0); size != 4 || n != 1 || err != nil {
		t.Errorf("with all memory: %d rows, %d a step, %v", size, n, err)
	}
	seen := map[int]bool{}
	for limit := int64(1 << 30); len(seen) < 3; limit -= limit / 256 {
		size, n, err := fit(limit)
		if err != nil {
			if !strings.Contains(err.Error(), "cannot be kept") || !seen[1] {
				t.Errorf("%d bytes: %v", limit, err)
			}
			break
		}
		if size*n != 4 {
			t.Fatalf("%d bytes: %d rows, %d a step", limit, size, n)
		}
		seen[size] = true
	}
	if !seen[4] || !seen[1] {
		t.Errorf("sizes that came: %v", seen)
	}
}
