package model_test

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/device/devicetest"
	"github.com/biolora/biolora/internal/benchmark"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// ofDriver is about what the driver and cublasLt take of a card beside what programs ask for.
const ofDriver = 600 << 20

// Large models fit on small cards, by the plan of a micro-batch of 1,024 tokens with all linears adapted.
func TestCardPlansOfLargeModels(t *testing.T) {
	devicetest.Use(t)
	for _, c := range []struct {
		name   string
		sizes  benchmark.Sizes
		base   quant.Format
		atMost int64
	}{
		{"7B nf4", benchmark.Llama7B, quant.NF4, 8e9},
		{"7B int8", benchmark.Llama7B, quant.Int8, 12e9},
		{"7B bf16", benchmark.Llama7B, quant.None, 20e9},
		{"13B nf4", benchmark.Llama13B, quant.NF4, 13e9},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := model.OfZeros(c.sizes.Config(), c.base, model.Options{Device: "cuda", Compute: "bf16", Activations: "none"})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			cfg := lora.Defaults()
			cfg.TargetModules = lora.ParseNames(lora.AllLinear)
			if _, err := lora.Inject(m, cfg); err != nil {
				t.Fatal(err)
			}
			p, err := m.Plan(model.Load{Rows: 1024, EvalRows: 1024, Selected: 1024, Keys: 1024, Batches: 1, EvalBatches: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s, policy %s: peak %s: weights %s, adapter %s, optimizer %s, activations %s, scratch %s; a layer that keeps takes %s; host %s", c.name, p.Policy(),
				memory.Format(p.Peak), memory.Format(p.Weights), memory.Format(p.Adapter), memory.Format(p.Optimizer), memory.Format(p.Activations), memory.Format(p.Scratch), memory.Format(p.Each), memory.Format(p.Host))
			if p.Peak+ofDriver > c.atMost {
				t.Errorf("%d bytes, and %d of the driver: more than %d", p.Peak, int64(ofDriver), c.atMost)
			}
		})
	}
}

// Answers on a card are the CPU's, and what they have room for is the card's memory.
func TestCardGenerates(t *testing.T) {
	card := devicetest.Use(t)
	c := golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths"))
	prompts := [][]int32{{1, 5, 9, 2}, {3, 4}}
	answer := func(device string, limit int64) ([][]int32, model.Room, error) {
		m, err := model.Open(c.Path("model"), model.Options{Compute: "f32", Device: device, MemoryLimit: limit})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}()
		o := model.GenerateOptions{MaxNewTokens: 4}
		room, err := m.Fit(prompts, &o)
		if err != nil {
			return nil, room, err
		}
		out, err := m.Generate(t.Context(), prompts, o)
		return out, room, err
	}
	want, _, err := answer("cpu", 0)
	if err != nil {
		t.Fatal(err)
	}
	got, room, err := answer("cuda", 0)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; on the CPU %v", got, err, want)
	}
	if !strings.HasPrefix(room.From, "free on the card, of 8.00 GiB") || room.Free > 8<<30 || room.Together != 2 {
		t.Errorf("%+v", room)
	}
	if _, _, err := answer("cuda", 1<<10); err == nil || !strings.Contains(err.Error(), "of the memory limit of 1.00 KiB") {
		t.Errorf("with 1 KiB of the card: %v", err)
	}
	card.SetMemory(20 << 10)
	defer card.SetMemory(8 << 30)
	if _, _, err := answer("cuda", 1<<30); !errors.Is(err, model.ErrOutOfMemory) {
		t.Errorf("with less memory than weights: %v", err)
	}
}
