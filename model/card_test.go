package model_test

import (
	"testing"

	"github.com/biolora/biolora/internal/backend/device/devicetest"
	"github.com/biolora/biolora/internal/benchmark"
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
