package train_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/testdata/demo"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// The whole run of every reference case: losses, gradient norms, learning rates, label tokens of every step and the
// adapter that is left. Losses within 1e-5 and adapters within 1e-4, relative: float32 against float64 is 7e-7 and
// 7e-6 in PyTorch, whose own kernels differ by 1.3e-6 and 4e-6.
func TestSharedGoldens(t *testing.T) {
	testGoldens(t, golden.All(t, golden.Shared(t, "goldens")), "auto", "auto")
}

func TestOwnGoldens(t *testing.T) {
	for _, sharing := range []string{"auto", "never"} {
		t.Run(sharing, func(t *testing.T) { testGoldens(t, golden.Own(t), sharing, "auto") })
	}
}

// TestGivenGoldens runs the cases below the directory that BIOLORA_CASES names, such as
// testdata/reference/random_cases.py makes.
func TestGivenGoldens(t *testing.T) {
	if dir := os.Getenv("BIOLORA_CASES"); dir != "" {
		testGoldens(t, golden.All(t, dir), "auto", "auto")
	}
}

func optionsOf(c *golden.Case, out string) train.Options {
	o := train.Defaults()
	o.PerDeviceTrainBatchSize = c.Train.PerDeviceTrainBatchSize
	o.GradientAccumulationSteps = c.Train.GradientAccumulationSteps
	o.MaxSteps = c.Train.MaxSteps
	o.LearningRate = c.Train.LearningRate
	o.LRSchedulerType = c.Train.LRSchedulerType
	o.WarmupSteps = c.Train.WarmupSteps
	o.WarmupRatio = c.Train.WarmupRatio
	o.AdamBeta1, o.AdamBeta2, o.AdamEpsilon = c.Train.AdamBeta1, c.Train.AdamBeta2, c.Train.AdamEpsilon
	o.WeightDecay, o.MaxGradNorm = c.Train.WeightDecay, c.Train.MaxGradNorm
	o.Shuffle = false
	o.OutputDir = out
	return o
}

func testGoldens(t *testing.T, cases []*golden.Case, sharing, device string) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			skipLong(t, c)
			m, a, data := openCase(t, c, model.Options{Compute: "f32", Device: device})
			defer m.Close()
			checkEvaluation(t, c, m, c.Expected.EvalBefore)
			out := filepath.Join(t.TempDir(), "out")
			o := optionsOf(c, out)
			o.SharePrefixes = sharing
			if _, err := train.Run(context.Background(), m, a, nil, data, o); err != nil {
				t.Fatal(err)
			}
			checkEvaluation(t, c, m, c.Expected.EvalAfter)
			checkEvents(t, c, filepath.Join(out, "events.jsonl"))
			checkAdapter(t, c, out)
		})
	}
}

// checkEvaluation compares the mean loss over all label tokens of the case's evaluation rows, where it has some.
func checkEvaluation(t *testing.T, c *golden.Case, m *model.Model, want *float64) {
	t.Helper()
	if want == nil {
		return
	}
	var sum float64
	labels := 0
	for _, r := range golden.Rows(t, c.Path("eval_rows.jsonl")) {
		b := &model.Batch{}
		b.Append(r.InputIDs)
		for i, label := range r.Labels[1:] {
			if label != instruct.Masked {
				b.Targets = append(b.Targets, model.Target{Row: int32(i), Label: label, Count: 1})
			}
		}
		loss, err := m.Loss(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		sum += loss
		labels += len(b.Targets)
	}
	t.Logf("evaluation loss %.6f", sum/float64(labels))
	if d := golden.Rel(sum/float64(labels), *want); !(d <= 1e-5) {
		t.Errorf("evaluation loss %v, want %v", sum/float64(labels), *want)
	}
}

// skipLong leaves the long case out of short runs: under the race detector it takes minutes.
func skipLong(t *testing.T, c *golden.Case) {
	t.Helper()
	if testing.Short() && c.Train.MaxSteps > 20 {
		t.Skipf("-short: %d steps", c.Train.MaxSteps)
	}
}

func checkEvents(t *testing.T, c *golden.Case, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var worstLoss, worstNorm float64
	i := 0
	for s := bufio.NewScanner(f); s.Scan(); i++ {
		var e train.StepEvent
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if i >= len(c.Expected.Losses) {
			t.Fatalf("more than %d steps", i)
		}
		worstLoss = max(worstLoss, golden.Rel(e.Loss, c.Expected.Losses[i]))
		worstNorm = max(worstNorm, golden.Rel(e.GradNorm, c.Expected.GradNorms[i]))
		if golden.Rel(e.LR, c.Expected.LRs[i]) > 1e-12 || e.LabelTokens != c.Expected.LabelTokens[i] || e.Step != i+1 {
			t.Errorf("step %d: %+v, want lr %v, %d label tokens", i+1, e, c.Expected.LRs[i], c.Expected.LabelTokens[i])
		}
	}
	t.Logf("%d steps: losses %.1e, norms %.1e", i, worstLoss, worstNorm)
	if i != len(c.Expected.Losses) || !(worstLoss <= 1e-5) || !(worstNorm <= 5e-5) {
		t.Errorf("%d steps of %d; losses are off by %.1e, norms by %.1e", i, len(c.Expected.Losses), worstLoss, worstNorm)
	}
}

func checkAdapter(t *testing.T, c *golden.Case, dir string) {
	t.Helper()
	got, err := lora.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := lora.Read(c.Path("adapter_final"))
	if err != nil {
		t.Fatal(err)
	}
	var worst float64
	compare := func(name string, g, w []float32) {
		worst = max(worst, golden.RelNorm(g, w))
	}
	if len(got.Modules) != len(want.Modules) || len(got.Full) != len(want.Full) {
		t.Errorf("%d branches and %d whole matrices, want %d and %d", len(got.Modules), len(got.Full), len(want.Modules), len(want.Full))
	}
	for name, w := range want.Modules {
		if g := got.Modules[name]; g != nil {
			compare(name+" A", g.A, w.A)
			compare(name+" B", g.B, w.B)
		} else {
			t.Errorf("the adapter lacks %s", name)
		}
	}
	for name, w := range want.Full {
		if g := got.Full[name]; g != nil {
			compare(name, g.Data, w.Data)
		} else {
			t.Errorf("the adapter lacks %s", name)
		}
	}
	t.Logf("adapter %.1e", worst)
	if !(worst <= 1e-4) {
		t.Errorf("the adapter is off by %.1e", worst)
	}
}

// planned keeps what a run says it is going to do.
type planned struct {
	train.NopHook
	plan  train.Plan
	steps []train.StepEvent
}

func (p *planned) Begin(x train.Plan) error     { p.plan = x; return nil }
func (p *planned) Step(x train.StepEvent) error { p.steps = append(p.steps, x); return nil }

// A window of rows without a label has a loss and a gradient of 0, where Trainer would divide by 0.
func TestWindowWithoutLabels(t *testing.T) {
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "masked-rows"))
	m, a, data := openCase(t, c, model.Options{Compute: "f32"})
	defer m.Close()
	p := &planned{}
	o := optionsOf(c, "")
	o.PerDeviceTrainBatchSize, o.MaxSteps, o.Hooks = 1, 2, []train.Hook{p}
	if _, err := train.Run(context.Background(), m, a, nil, data, o); err != nil {
		t.Fatal(err)
	}
	if s := p.steps[1]; s.Loss != 0 || s.GradNorm != 0 || s.LabelTokens != 0 || s.Tokens != 6 {
		t.Errorf("%+v", s)
	}
	want := "3 pre-tokenised rows have no label: they take their place in a micro-batch and teach nothing"
	if len(p.plan.Warnings) != 1 || p.plan.Warnings[0] != want {
		t.Errorf("warnings %q", p.plan.Warnings)
	}
}

// Rows that share what they begin with train to the same adapter as rows that do not: with the loss on the prompt
// too, with part of a row masked where another's is learnt, and where the shared tokens end in different ones.
func TestSharingChangesNothing(t *testing.T) {
	checkpoint, file, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, onInputs := range []bool{false, true} {
		run := func(sharing string) (losses []float64, adapter map[string][]float32, shared int64) {
			m, err := model.Open(checkpoint, model.Options{Compute: "f32"})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			cfg := lora.Defaults()
			cfg.LoraDropout = 0
			a, err := lora.Inject(m, cfg)
			if err != nil {
				t.Fatal(err)
			}
			data, err := instruct.Open(file, instruct.Alpaca)
			if err != nil {
				t.Fatal(err)
			}
			o := train.Defaults()
			o.MaxSteps, o.LearningRate, o.LRSchedulerType = 5, 1e-3, "constant"
			o.TrainOnInputs, o.SharePrefixes = onInputs, sharing
			o.OutputDir = filepath.Join(t.TempDir(), "out")
			w := &watcher{}
			o.Hooks = []train.Hook{w}
			if _, err := train.Run(context.Background(), m, a, tok, data, o); err != nil {
				t.Fatal(err)
			}
			return w.losses, golden.Tensors(t, filepath.Join(o.OutputDir, "adapter_model.safetensors")), w.shared
		}
		losses, adapter, shared := run("auto")
		wantLosses, want, none := run("never")
		if shared == 0 || none != 0 {
			t.Errorf("%d tokens are shared, %d where none should be", shared, none)
		}
		for i := range losses {
			if golden.Rel(losses[i], wantLosses[i]) > 1e-5 {
				t.Errorf("onInputs %v: step %d has a loss of %v, without sharing %v", onInputs, i+1, losses[i], wantLosses[i])
			}
		}
		for name := range want {
			if d := golden.RelNorm(adapter[name], want[name]); d > 1e-4 {
				t.Errorf("onInputs %v: %s is %g away", onInputs, name, d)
			}
		}
	}
}

// watcher keeps what a run tells.
type watcher struct {
	train.NopHook
	losses []float64
	shared int64
}

func (w *watcher) Begin(p train.Plan) error     { w.shared = p.Rows.Shared; return nil }
func (w *watcher) Step(e train.StepEvent) error { w.losses = append(w.losses, e.Loss); return nil }
