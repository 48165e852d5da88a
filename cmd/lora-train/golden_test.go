package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
)

// flagsOf are a reference case as a command line.
func flagsOf(c *golden.Case, out string) []string {
	data := []string{"--data", c.Path("rows.jsonl")}
	if text := c.Path("text.jsonl"); exists(text) {
		data = []string{"--data", text, "--template", "alpaca", "--max-seq-length", "512"}
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	return append(data,
		"--model", c.Path("model"), "--adapter", c.Path("adapter_init"), "--out", out,
		"--compute", "f32", "--no-shuffle",
		"--per-device-train-batch-size", strconv.Itoa(c.Train.PerDeviceTrainBatchSize),
		"--gradient-accumulation-steps", strconv.Itoa(c.Train.GradientAccumulationSteps),
		"--max-steps", strconv.Itoa(c.Train.MaxSteps),
		"--learning-rate", number(c.Train.LearningRate),
		"--lr-scheduler-type", c.Train.LRSchedulerType,
		"--warmup-steps", strconv.Itoa(c.Train.WarmupSteps),
		"--warmup-ratio", number(c.Train.WarmupRatio),
		"--adam-beta1", number(c.Train.AdamBeta1),
		"--adam-beta2", number(c.Train.AdamBeta2),
		"--adam-epsilon", number(c.Train.AdamEpsilon),
		"--weight-decay", number(c.Train.WeightDecay),
		"--max-grad-norm", number(c.Train.MaxGradNorm),
	)
}

// The reference cases through the command line: the curve of each step and the adapter that is left.
func TestGoldens(t *testing.T) {
	cases := golden.Own(t)
	if dir := filepath.Join(golden.Root(t), "..", "shared", "goldens"); exists(dir) {
		cases = append(cases, golden.All(t, dir)...)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Train.MaxSteps > 50 && testing.Short() {
				t.Skip("a long case, and -short is set")
			}
			out := filepath.Join(t.TempDir(), "out")
			mustExecute(t, flagsOf(c, out)...)
			steps, _ := events(t, out)
			if len(steps) != len(c.Expected.Losses) {
				t.Fatalf("%d steps, want %d", len(steps), len(c.Expected.Losses))
			}
			for i, s := range steps {
				near(t, "loss", i, s.Loss, c.Expected.Losses[i], 1e-5)
				near(t, "gradient norm", i, s.GradNorm, c.Expected.GradNorms[i], 1e-4)
				near(t, "learning rate", i, s.LR, c.Expected.LRs[i], 1e-12)
				if s.Step != i+1 || s.LabelTokens != c.Expected.LabelTokens[i] {
					t.Errorf("step %d has %d label tokens, want %d", s.Step, s.LabelTokens, c.Expected.LabelTokens[i])
				}
			}
			sameAdapter(t, out, c.Path("adapter_final"))
		})
	}
}

// sameAdapter compares two adapters by their tensors.
func sameAdapter(t *testing.T, got, want string) {
	t.Helper()
	g, err := lora.Read(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := lora.Read(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(w.Modules)), slices.Sorted(maps.Keys(g.Modules))); diff != "" {
		t.Fatalf("modules: %s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(w.Full)), slices.Sorted(maps.Keys(g.Full))); diff != "" {
		t.Fatalf("trained whole: %s", diff)
	}
	close := func(name string, got, want []float32) {
		if d := golden.RelNorm(got, want); d > 1e-4 {
			t.Errorf("%s differs by %.2g relative", name, d)
		}
	}
	for name, m := range w.Modules {
		close(name+".lora_A", g.Modules[name].A, m.A)
		close(name+".lora_B", g.Modules[name].B, m.B)
	}
	for name, m := range w.Full {
		close(name, g.Full[name].Data, m.Data)
	}
}

func near(t *testing.T, what string, step int, got, want, tolerance float64) {
	t.Helper()
	if d := golden.Rel(got, want); d > tolerance {
		t.Errorf("step %d: %s %v, want %v (%.2g relative)", step+1, what, got, want, d)
	}
}
