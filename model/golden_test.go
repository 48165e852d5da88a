package model_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// What Transformers + PEFT in float32 and a right engine may differ by: float32 against float64 is up to 3e-5 in
// the logits of the trained model (its rows are long), 1.2e-5 in the random ones, 4e-6 relative in gradients.
func tolerances(c *golden.Case) (logits, grads float64) {
	if strings.HasPrefix(c.Name, "stories") {
		return 1e-4, 5e-5
	}
	return 5e-5, 5e-5
}

// openers are the engines that are held against the reference.
var openers = []struct {
	name string
	open func(dir string) (*model.Model, error)
}{
	{"ref", func(dir string) (*model.Model, error) { return model.OpenOn(dir, model.Options{}, ref.New()) }},
	{"cpu f32", func(dir string) (*model.Model, error) { return model.Open(dir, model.Options{Compute: "f32"}) }},
	{"cpu f32 recomputing", func(dir string) (*model.Model, error) {
		return model.Open(dir, model.Options{Compute: "f32", Activations: "none"})
	}},
	{"cpu f32 go", func(dir string) (*model.Model, error) {
		return model.Open(dir, model.Options{Compute: "f32", CPUFeatures: "go"})
	}},
}

func TestSharedGoldens(t *testing.T) {
	testGoldens(t, golden.All(t, golden.Shared(t, "goldens")))
}

func TestOwnGoldens(t *testing.T) { testGoldens(t, golden.Own(t)) }

// TestGivenGoldens runs the cases below the directory that BIOLORA_CASES names, such as
// testdata/reference/random_cases.py makes.
func TestGivenGoldens(t *testing.T) {
	if dir := os.Getenv("BIOLORA_CASES"); dir != "" {
		testGoldens(t, golden.All(t, dir))
	}
}

func testGoldens(t *testing.T, cases []*golden.Case) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			want := golden.Tensors(t, c.Path("expected.safetensors"))
			for _, o := range openers {
				if o.name == "ref" && strings.HasPrefix(c.Name, "stories") {
					continue // the oracle would take half a minute
				}
				t.Run(o.name, func(t *testing.T) {
					m, err := o.open(c.Path("model"))
					if err != nil {
						t.Fatal(err)
					}
					defer m.Close()
					if _, err := lora.Load(m, c.Path("adapter_init")); err != nil {
						t.Fatal(err)
					}
					checkLogits(t, c, m, want["logits"])
					checkGrads(t, c, m, want)
				})
			}
		})
	}
}

// batchOf makes one ragged micro-batch of rows.
func batchOf(c *golden.Case, rows []int) *model.Batch {
	b := &model.Batch{}
	for _, r := range rows {
		first := b.Append(c.Rows[r].InputIDs)
		for i, label := range c.Rows[r].Labels {
			if i > 0 && label != -100 {
				b.Targets = append(b.Targets, model.Target{Row: first + int32(i) - 1, Label: label, Count: 1})
			}
		}
	}
	return b
}

func checkLogits(t *testing.T, c *golden.Case, m *model.Model, want []float32) {
	t.Helper()
	b := batchOf(c, c.LogitsRows)
	rows := make([]int32, len(b.Tokens))
	for i := range rows {
		rows[i] = int32(i)
	}
	got, err := m.Logits(context.Background(), b, rows)
	if err != nil {
		t.Fatal(err)
	}
	tol, _ := tolerances(c)
	worst := golden.MaxAbs(got, want)
	t.Logf("logits: %.1e", worst)
	if !(worst <= tol) {
		t.Errorf("logits are off by %.2e, %.0e is allowed", worst, tol)
	}
}

func checkGrads(t *testing.T, c *golden.Case, m *model.Model, want map[string][]float32) {
	t.Helper()
	m.Params().Zero()
	labels := 0
	for _, rows := range c.Steps[0] {
		b := batchOf(c, rows)
		labels += len(b.Targets)
		if err := m.Backward(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	if loss := m.TakeLoss() / float64(labels); golden.Rel(loss, c.Expected.Losses[0]) > 1e-5 {
		t.Errorf("loss %v, want %v", loss, c.Expected.Losses[0])
	}
	m.Params().Scale(1 / float64(labels))
	if norm := m.Params().Norm(); golden.Rel(norm, c.Expected.GradNorms[0]) > 5e-5 {
		t.Errorf("gradient norm %v, want %v", norm, c.Expected.GradNorms[0])
	}
	_, tol := tolerances(c)
	var worst float64
	for _, p := range m.Params().All() {
		g := make([]float32, p.Len())
		p.ReadGrad(g)
		key := "grad/base_model.model." + p.Name()
		if want[key] == nil {
			t.Errorf("the reference has no %s", key)
			continue
		}
		d := golden.RelNorm(g, want[key])
		worst = max(worst, d)
		if !(d <= tol) {
			t.Errorf("%s is off by %.2e, %.0e is allowed", key, d, tol)
		}
	}
	t.Logf("gradients: %.1e", worst)
}
