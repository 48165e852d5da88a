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
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// distance is how far a case in bf16 is from the same case in f32, as testdata/reference/bf16.py measures it for
// PEFT.
type distance struct {
	Logits  float64 `json:"logits_max_abs"`
	Grads   float64 `json:"first_grads_worst_relative"`
	Losses  float64 `json:"losses_worst_relative"`
	Adapter float64 `json:"adapter_final_worst_relative"`
}

// In compute bf16 each case differs from its f32 result by at most twice what PEFT in bf16 differs from PEFT in f32.
// Residuals, norms, softmax, the optimiser and, but on tiles (AMX), the branches and attention stay f32 here, so that
// mostly it is far less.
func TestBF16(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "golden", "bf16.json"))
	if err != nil {
		t.Fatal(err)
	}
	var peft struct {
		Cases map[string]struct {
			BF16     distance `json:"bf16"`
			Autocast distance `json:"bf16_autocast"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(data, &peft); err != nil {
		t.Fatal(err)
	}
	cases := golden.Own(t)
	if _, err := os.Stat(filepath.Join(golden.Root(t), "..", "shared", "goldens")); err == nil {
		cases = append(cases, golden.All(t, golden.Shared(t, "goldens"))...)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			skipLong(t, c)
			limit, ok := peft.Cases[c.Name]
			if !ok {
				t.Fatal("testdata/golden/bf16.json lacks the case")
			}
			d := distanceOf(t, runCompute(t, c, "bf16"), runCompute(t, c, "f32"))
			l := limit.BF16
			// In a small tensor one gradient near zero whose sign turns in Adam's first step decides the adapter's
			// distance, and a few dozen labels decide the loss's: the larger of PEFT's two ways to run bf16 tells how far luck
			// goes.
			l.Adapter, l.Losses = max(l.Adapter, limit.Autocast.Adapter), max(l.Losses, limit.Autocast.Losses)
			t.Logf("share of PEFT's: logits %.2f, gradients %.2f, losses %.2f, adapter %.2f", d.Logits/l.Logits, d.Grads/l.Grads, d.Losses/l.Losses, d.Adapter/l.Adapter)
			for _, x := range []struct {
				name       string
				got, limit float64
			}{{"logits", d.Logits, l.Logits}, {"gradients", d.Grads, l.Grads}, {"losses", d.Losses, l.Losses}, {"adapter", d.Adapter, l.Adapter}} {
				if !(x.got <= 2*x.limit) {
					t.Errorf("%s differ by %.2e, twice PEFT's is %.2e", x.name, x.got, 2*x.limit)
				}
			}
		})
	}
}

// outcome is what a case comes to in one arithmetic.
type outcome struct {
	logits []float32
	grads  [][]float32
	losses []float64
	params [][]float32
}

func runCompute(t *testing.T, c *golden.Case, compute string) (o outcome) {
	t.Helper()
	m, err := model.Open(c.Path("model"), model.Options{Compute: compute})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a, err := lora.Load(m, c.Path("adapter_init"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	probe := &model.Batch{}
	for _, r := range c.LogitsRows {
		probe.Append(c.Rows[r].InputIDs)
	}
	rows := make([]int32, len(probe.Tokens))
	for i := range rows {
		rows[i] = int32(i)
	}
	if o.logits, err = m.Logits(ctx, probe, rows); err != nil {
		t.Fatal(err)
	}
	for _, rows := range c.Steps[0] {
		b := &model.Batch{}
		for _, r := range rows {
			first := b.Append(c.Rows[r].InputIDs)
			for i, label := range c.Rows[r].Labels[1:] {
				if label != instruct.Masked {
					b.Targets = append(b.Targets, model.Target{Row: first + int32(i), Label: label, Count: 1})
				}
			}
		}
		if err := m.Backward(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range m.Params().All() {
		g := make([]float32, p.Len())
		p.ReadGrad(g)
		o.grads = append(o.grads, g)
	}
	m.Params().Zero()
	data, err := instruct.Open(c.Path("rows.jsonl"), instruct.Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	opts := optionsOf(c, out)
	opts.MaxSteps = min(opts.MaxSteps, 20) // of the stories' 120
	if _, err := train.Run(ctx, m, a, nil, data, opts); err != nil {
		t.Fatal(err)
	}
	o.losses = losses(t, filepath.Join(out, train.EventsFile))
	for _, p := range m.Params().All() {
		o.params = append(o.params, p.Values())
	}
	return o
}

func losses(t *testing.T, path string) (ls []float64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var e train.StepEvent
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		ls = append(ls, e.Loss)
	}
	return ls
}

func distanceOf(t *testing.T, got, want outcome) (d distance) {
	t.Helper()
	d.Logits = golden.MaxAbs(got.logits, want.logits)
	for i := range want.grads {
		d.Grads = max(d.Grads, golden.RelNorm(got.grads[i], want.grads[i]))
		d.Adapter = max(d.Adapter, golden.RelNorm(got.params[i], want.params[i]))
	}
	for i := range want.losses {
		d.Losses = max(d.Losses, golden.Rel(got.losses[i], want.losses[i]))
	}
	return d
}
