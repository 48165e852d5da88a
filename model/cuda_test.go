package model_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

func TestMain(m *testing.M) {
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

// emulatedDevice is the emulated device's driver, and what can be set and read of it.
func emulatedDevice(t *testing.T) (path string, d *emu.Device) {
	t.Helper()
	if !driver.Built {
		t.Skip("no CUDA in this build")
	}
	path, err := emu.Driver()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	}
	if err == nil {
		d, err = emu.Open(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, d
}

// onCUDA opens a model on the emulated device.
func onCUDA(t *testing.T, dir, compute string, o model.Options) *model.Model {
	t.Helper()
	path, _ := emulatedDevice(t)
	be, err := cuda.New(cuda.Options{Compute: compute, Driver: path})
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.OpenOn(dir, o, be)
	if err != nil {
		t.Fatal(errors.Join(err, be.Close()))
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// The emulated device, in f32, against the reference, by the CPU's tolerances.

func TestCUDASharedGoldens(t *testing.T) {
	testCUDAGoldens(t, golden.All(t, golden.Shared(t, "goldens")))
}

func TestCUDAOwnGoldens(t *testing.T) { testCUDAGoldens(t, golden.Own(t)) }

func testCUDAGoldens(t *testing.T, cases []*golden.Case) {
	for _, c := range cases {
		if strings.HasPrefix(c.Name, "stories") {
			continue // minutes on the emulated device
		}
		t.Run(c.Name, func(t *testing.T) {
			want := golden.Tensors(t, c.Path("expected.safetensors"))
			m := onCUDA(t, c.Path("model"), "f32", model.Options{})
			if _, err := lora.Load(m, c.Path("adapter_init")); err != nil {
				t.Fatal(err)
			}
			checkLogits(t, c, m, want["logits"])
			checkGrads(t, c, m, want)
		})
	}
}

// TestCUDABackends: the emulated device against the oracle, over odd sizes and all kinds of training; the same bits with
// all activations kept and with none. In bf16 each of a layer's ten roundings is off by up to 2^-9, in a random
// direction: 2e-3 in the loss and 2e-2 in the gradients are measured after three layers, in f32 1e-7 and 9e-7.
func TestCUDABackends(t *testing.T) {
	for compute, tolerance := range map[string][2]float64{"f32": {1e-6, 5e-6}, "bf16": {3e-3, 3e-2}} {
		for _, suffixes := range [][]string{{"q_proj", "v_proj"}, {"layers.1.self_attn.k_proj", "lm_head"}, allLinears} {
			b := randomBatch(4)
			oracle := tiny(t, model.Options{}, true, nil)
			adapt(t, oracle, 0.1, suffixes...)
			b.Dropout = &model.Dropout{Seed: 3, Samples: make([]uint32, len(b.Tokens))}
			wantLoss, want := grads(t, oracle, b)
			var first []float32
			for _, activations := range []string{"all", "none"} {
				m := onCUDA(t, oracle.Dir(), compute, model.Options{Activations: activations})
				adapt(t, m, 0.1, suffixes...)
				loss, g := grads(t, m, b)
				t.Logf("%s %v: loss off by %.1e, gradients by %.1e", compute, suffixes, golden.Rel(loss, wantLoss), golden.RelNorm(g, want))
				if golden.Rel(loss, wantLoss) > tolerance[0] || golden.RelNorm(g, want) > tolerance[1] {
					t.Errorf("%s %v: loss %v, want %v; gradients are off by %.1e", compute, suffixes, loss, wantLoss, golden.RelNorm(g, want))
				}
				if first == nil {
					first = g
				}
				if !slices.Equal(g, first) {
					t.Errorf("%s %v: with activations %s gradients differ by %g", compute, suffixes, activations, golden.MaxAbs(g, first))
				}
			}
		}
	}
}

// What samples begin with is computed once, with what each by itself gives.
func TestCUDASharedPrefixes(t *testing.T) {
	dir := tiny(t, model.Options{}, false, nil).Dir()
	testSharedPrefixes(t, onCUDA(t, dir, "f32", model.Options{}), 3e-6)
	testSharedPrefixes(t, onCUDA(t, dir, "bf16", model.Options{}), 2e-2) // heads are summed in another order before they are rounded
}

// TestCUDAQuantisedBase: nf4 and int8 on the emulated device against the oracle; tolerances as in TestCUDABackends.
func TestCUDAQuantisedBase(t *testing.T) {
	dir := tiny(t, model.Options{}, false, nil).Dir()
	suffixes := []string{"q_proj", "down_proj"}
	b := randomBatch(4)
	_, plain := grads(t, adapted(t, onCUDA(t, dir, "f32", model.Options{}), suffixes), b)
	for _, base := range []string{"nf4", "int8"} {
		oracle, err := model.OpenOn(dir, model.Options{Base: base}, ref.New())
		if err != nil {
			t.Fatal(err)
		}
		defer oracle.Close()
		wantLoss, want := grads(t, adapted(t, oracle, suffixes), b)
		for compute, tolerance := range map[string][2]float64{"f32": {1e-6, 5e-6}, "bf16": {3e-3, 3e-2}} {
			loss, g := grads(t, adapted(t, onCUDA(t, dir, compute, model.Options{Base: base}), suffixes), b)
			t.Logf("%s, %s: loss off by %.1e, gradients by %.1e", base, compute, golden.Rel(loss, wantLoss), golden.RelNorm(g, want))
			if golden.Rel(loss, wantLoss) > tolerance[0] || golden.RelNorm(g, want) > tolerance[1] {
				t.Errorf("%s, %s: loss %v, want %v; gradients are off by %.1e", base, compute, loss, wantLoss, golden.RelNorm(g, want))
			}
			if golden.RelNorm(g, plain) < 1e-4 {
				t.Errorf("%s, %s: these are the gradients on the checkpoint's own values", base, compute)
			}
		}
	}
}

func adapted(t *testing.T, m *model.Model, suffixes []string) *model.Model {
	t.Helper()
	adapt(t, m, 0, suffixes...)
	return m
}

// TestCUDADecodes: a token after the other, as on the CPU, for heads that share keys, a window that is shorter than the
// text, a tied head, modules that were trained whole and positions that depend on the length.
func TestCUDADecodes(t *testing.T) {
	for _, name := range []string{"mistral-window", "mistral-window-one", "mqa-regex-shards", "save-both-tied", "tied-as-lm-head", "dynamic-theta"} {
		c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", name))
		host, err := model.Open(c.Path("model"), model.Options{Compute: "f32", Device: "cpu"})
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		m := onCUDA(t, c.Path("model"), "f32", model.Options{})
		var answers [2][][]int32
		for i, m := range []*model.Model{host, m} {
			if _, err := lora.Load(m, c.Path("adapter_init")); err != nil {
				t.Fatal(err)
			}
			prompts := [][]int32{{1, 5, 7, 9, 13, 2, 4, 8, 11, 3, 6}, {1}, {1, 9, 11}}
			if answers[i], err = m.Generate(t.Context(), prompts, model.GenerateOptions{MaxNewTokens: 12}); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(answers[0], answers[1]) {
			t.Errorf("%s: %v, the CPU has %v", name, answers[1], answers[0])
		}
	}
}

// TestCUDAGenerates: greedy, together and with beams, as on the CPU.
func TestCUDAGenerates(t *testing.T) {
	host := tiny(t, model.Options{}, false, nil)
	m := onCUDA(t, host.Dir(), "f32", model.Options{})
	adapt(t, host, 0, "q_proj", "down_proj")
	adapt(t, m, 0, "q_proj", "down_proj")
	prompts := [][]int32{{1, 5, 7, 9, 30, 2, 4}, {1}, {1, 9, 11}}
	for _, o := range []model.GenerateOptions{{MaxNewTokens: 9}, {MaxNewTokens: 5, Beams: 3}} {
		want, err := host.Generate(context.Background(), prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Generate(context.Background(), prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("%+v: prompt %d: %v, the CPU has %v", o, i, got[i], want[i])
			}
		}
	}
}

// TestCUDAWaitsOnce: a step over several micro-batches, in the order in which train asks, waits for the device once, and
// allocates nothing there.
func TestCUDAWaitsOnce(t *testing.T) {
	_, d := emulatedDevice(t)
	host := tiny(t, model.Options{}, false, nil)
	for _, compute := range []string{"f32", "bf16"} {
		m := onCUDA(t, host.Dir(), compute, model.Options{})
		adapt(t, m, 0.1, "q_proj", "v_proj", "down_proj", "lm_head")
		var bs []*model.Batch
		for seed := range uint64(3) {
			b := randomBatch(seed)
			b.Dropout = &model.Dropout{Samples: make([]uint32, len(b.Tokens))}
			bs = append(bs, b)
		}
		at := 0
		step := func() {
			at++
			if err := m.BackwardAll(context.Background(), bs); err != nil {
				t.Fatal(err)
			}
			norm := m.Params().Norm()
			if loss := m.TakeLoss(); !(loss > 0 && norm > 0) {
				t.Fatalf("loss %v, norm %v", loss, norm)
			}
			m.Params().Scale(0.5)
			m.Params().AdamW(model.AdamW{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: at})
			m.Params().Zero()
		}
		step()
		step()
		calls := []string{"cuStreamSynchronize", "cuEventSynchronize", "cuMemAlloc", "cuMemFree", "cuMemAllocHost", "cuMemFreeHost"}
		before := map[string]int{}
		for _, c := range calls {
			before[c] = d.Calls(c)
		}
		const steps = 4
		for range steps {
			step()
		}
		for i, c := range calls {
			want := 0
			if i == 0 {
				want = steps
			}
			if got := d.Calls(c) - before[c]; got != want {
				t.Errorf("%s: %d calls of %s in %d steps, want %d", compute, got, c, steps, want)
			}
		}
		if n := testing.AllocsPerRun(3, step); n > 0 {
			t.Errorf("%s: %v allocations a step", compute, n)
		}
	}
}
