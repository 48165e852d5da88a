package train_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda/emu"
	"github.com/biolora/biolora/internal/backend/device"
	"github.com/biolora/biolora/internal/backend/device/devicetest"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
)

func TestMain(m *testing.M) {
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

// A run on a card is the run on the CPU: in f32 but for the order of sums, with dropout, accumulation and shared heads;
// and twice the same bits.
func TestCard(t *testing.T) {
	devicetest.Use(t)
	accumulate := func(o *train.Options) { o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = 2, 2 }
	want, _, _ := fineTune(t, model.Options{Compute: "f32", Device: "cpu"}, accumulate)
	for _, c := range []struct {
		compute   string
		tolerance float64
	}{{"f32", 1e-5}, {"bf16", 3e-2}} {
		o := model.Options{Compute: c.compute, Device: "cuda"}
		got, _, dir := fineTune(t, o, accumulate)
		if len(got) != len(want) {
			t.Fatalf("%d steps, on the CPU %d", len(got), len(want))
		}
		for i := range got {
			if d := golden.Rel(got[i].Loss, want[i].Loss); d > c.tolerance {
				t.Errorf("%s, step %d: a loss of %v, on the CPU %v", c.compute, i+1, got[i].Loss, want[i].Loss)
			}
			if d := golden.Rel(got[i].GradNorm, want[i].GradNorm); d > 4*c.tolerance {
				t.Errorf("%s, step %d: a norm of %v, on the CPU %v", c.compute, i+1, got[i].GradNorm, want[i].GradNorm)
			}
		}
		card, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil || !strings.Contains(string(card), "| trained on | cuda:0 ") {
			t.Errorf("%v; the card says\n%s", err, card)
		}
		o.Activations = "none"
		again, _, other := fineTune(t, o, accumulate)
		for i := range got {
			if again[i].Loss != got[i].Loss || again[i].GradNorm != got[i].GradNorm {
				t.Errorf("%s, step %d: another loss in a second run that keeps nothing", c.compute, i+1)
			}
		}
		if !sameAdapter(t, dir, other) {
			t.Errorf("%s: another adapter in a second run that keeps nothing", c.compute)
		}
	}
}

// The whole run of every reference case on a card, with the CPU's tolerances.
func TestCardGoldens(t *testing.T) {
	devicetest.Use(t)
	testGoldens(t, golden.Own(t), "auto", "cuda")
}

// A long run over ragged batches holds no more of the card, of pinned memory and of the host in the end than soon after
// its beginning.
func TestCardKeepsNothing(t *testing.T) {
	card := devicetest.Use(t)
	t.Setenv("BIOLORA_CUBLASLT", device.Driver) // products have plans for each number of rows
	device.NoCublasLt = false
	type held struct{ card, pinned, host int64 }
	now := func() held {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return held{card.Held(), int64(card.Calls("cuMemAllocHost") - card.Calls("cuMemFreeHost")), int64(m.HeapAlloc)}
	}
	const early, steps = 60, 240
	var before, after held
	rows := map[int]bool{}
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	m, a, data := openCase(t, c, model.Options{Device: "cuda"}, lora.Dropout(0.1))
	defer m.Close()
	o := train.Defaults()
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps, o.LearningRate, o.MaxSteps = 2, 2, 1e-5, steps
	o.Hooks = []train.Hook{eachStep{do: func(e train.StepEvent) {
		rows[e.Tokens] = true
		switch e.Step {
		case early:
			before = now()
		case steps:
			after = now()
		}
	}}}
	_, err := train.Run(t.Context(), m, a, nil, data, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d numbers of rows; after %d steps %+v, after %d %+v", len(rows), early, before, steps, after)
	if len(rows) < 8 {
		t.Errorf("batches have %d numbers of rows only", len(rows))
	}
	if after.card != before.card || after.pinned != before.pinned || after.host > before.host+64<<10 {
		t.Errorf("after %d steps %+v are held, after %d %+v", early, before, steps, after)
	}
}

// A run that goes astray ends in the same step and with the same words as on the CPU.
func TestCardNotFinite(t *testing.T) {
	devicetest.Use(t)
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	var texts []string
	for _, device := range []string{"cpu", "cuda"} {
		m, a, data := openCase(t, c, model.Options{Compute: "f32", Device: device})
		defer m.Close()
		o := train.Defaults()
		o.PerDeviceTrainBatchSize, o.LearningRate, o.MaxGradNorm, o.MaxSteps, o.LRSchedulerType = 4, 1e30, 0, 5, "constant"
		_, err := train.Run(t.Context(), m, a, nil, data, o)
		texts = append(texts, fmt.Sprint(err))
	}
	if !strings.HasPrefix(texts[0], "step 2: ") || texts[1] != texts[0] {
		t.Errorf("%q; on the CPU %q", texts[1], texts[0])
	}
}

// eachStep does something after each step.
type eachStep struct {
	train.NopHook
	do func(train.StepEvent)
}

func (h eachStep) Step(e train.StepEvent) error {
	h.do(e)
	return nil
}

func sameAdapter(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(filepath.Join(a, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(filepath.Join(b, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}

// failing does something to the card after a step.
type failing struct {
	train.NopHook
	step int
	do   func()
}

func (f *failing) Step(e train.StepEvent) error {
	if e.Step == f.step {
		f.do()
	}
	return nil
}

// onCard trains on the emulated card until do, which comes after a step, has done its work, and returns the error.
func onCard(t *testing.T, dir string, steps, after int, do func()) (*train.Result, error) {
	t.Helper()
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	m, a, data := openCase(t, c, model.Options{Compute: "f32", Device: "cuda"})
	defer m.Close()
	o := train.Defaults()
	o.PerDeviceTrainBatchSize, o.LearningRate, o.OutputDir, o.MaxSteps, o.LRSchedulerType = 4, 5e-3, dir, steps, "constant"
	if do != nil {
		o.Hooks = []train.Hook{&failing{step: after, do: do}}
	}
	return train.Run(t.Context(), m, a, nil, data, o)
}

var savedStep = regexp.MustCompile(`the adapter of step (\d+) is saved`)

// Wherever the card is lost, the run ends with an error that says so, and the adapter that it names is saved: that of the
// last step or the one before.
func TestCardLost(t *testing.T) {
	card := devicetest.Use(t)
	adapters := map[int]string{}
	for step := 1; step <= 3; step++ {
		adapters[step] = filepath.Join(t.TempDir(), "out")
		if _, err := onCard(t, adapters[step], step, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, launches := range []int{0, 3, 20, 55, 90} {
		dir := filepath.Join(t.TempDir(), "out")
		res, err := onCard(t, dir, 9, 3, func() { card.LoseAfter(launches) })
		if !errors.Is(err, model.ErrLost) {
			t.Fatalf("lost after %d launches: %v", launches, err)
		}
		found := savedStep.FindStringSubmatch(err.Error())
		if found == nil {
			t.Fatalf("lost after %d launches: %v", launches, err)
		}
		step, _ := strconv.Atoi(found[1])
		if step < 2 || step > res.Steps {
			t.Errorf("lost after %d launches: the adapter of step %d of %d is saved", launches, step, res.Steps)
		}
		if step <= 3 && !sameAdapter(t, dir, adapters[step]) {
			t.Errorf("lost after %d launches: what is saved is not the adapter of step %d", launches, step)
		}
	}
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := onCard(t, dir, 1, 1, nil); err != nil { // a new context works again
		t.Errorf("after that: %v", err)
	}
}

// Where the card's memory does not suffice the run says what it had planned and what to change.
func TestCardOutOfMemory(t *testing.T) {
	card := devicetest.Use(t)
	const outOfMemory = 2
	t.Run("at the beginning", func(t *testing.T) {
		c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
		m, a, data := openCase(t, c, model.Options{Compute: "f32", Device: "cuda"})
		defer m.Close()
		o := train.Defaults()
		o.PerDeviceTrainBatchSize = 4
		card.Fail("cuMemAlloc", 1, outOfMemory) // and again, when it has looked for memory that nobody has
		card.SetMemory(1 << 16)
		defer card.SetMemory(8 << 30)
		_, err := train.Run(t.Context(), m, a, nil, data, o)
		if !errors.Is(err, model.ErrOutOfMemory) {
			t.Fatal(err)
		}
		for _, want := range []string{"planned were", "emulated", "weights", "PerDeviceTrainBatchSize smaller", "nf4"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
	})
	t.Run("after two steps", func(t *testing.T) {
		want, dir := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "out")
		if _, err := onCard(t, want, 2, 0, nil); err != nil {
			t.Fatal(err)
		}
		_, err := onCard(t, dir, 9, 2, func() { card.Fail("cuLaunchKernel", 5, outOfMemory) })
		if !errors.Is(err, model.ErrOutOfMemory) || !strings.Contains(err.Error(), "the adapter of step 2 is saved") || !strings.Contains(err.Error(), "planned were") {
			t.Fatal(err)
		}
		if !sameAdapter(t, want, dir) {
			t.Error("what is saved is not the adapter of step 2")
		}
	})
}

// The plan of a card counts what the run then takes of it.
func TestCardPlan(t *testing.T) {
	card := devicetest.Use(t)
	for _, compute := range []string{"f32", "bf16"} {
		for _, policy := range []string{"all", "none"} {
			card.ResetPeak()
			fineTune(t, model.Options{Compute: compute, Device: "cuda", Activations: policy}, nil)
			peak := card.Peak()
			p := planOf(t, model.Options{Compute: compute, Device: "cuda", Activations: policy})
			if p.Memory.Card == "" || p.Memory.Weights == 0 || p.StepSeconds != 0 {
				t.Fatalf("%+v", p.Memory)
			}
			if d := math.Abs(float64(peak-p.Memory.Peak)) / float64(p.Memory.Peak); d > 0.05 {
				t.Errorf("%s, policy %s: %d bytes are planned, at most %d were held\n%+v", compute, policy, p.Memory.Peak, peak, p.Memory)
			}
		}
	}
}

// planOf is the plan of fineTune.
func planOf(t *testing.T, mo model.Options) *train.Plan {
	t.Helper()
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	m, a, data := openCase(t, c, mo, lora.Dropout(0.25))
	defer m.Close()
	o := train.Defaults()
	o.PerDeviceTrainBatchSize, o.LearningRate = 4, 5e-3
	p, err := train.MakePlan(t.Context(), m, a, nil, data, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
