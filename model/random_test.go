package model_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// madeUp is the config.json of a model that is made up: hidden 64, feed-forward 128, a vocabulary of 96.
func madeUp(layers int) []byte {
	return fmt.Appendf(nil, `{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": %d,
		"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96, "rms_norm_eps": 1e-5}`, layers)
}

func random(t *testing.T, layers int, seed uint64, o model.Options) *model.Model {
	t.Helper()
	m, err := model.Random(t.Context(), madeUp(layers), seed, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func threeRows() *model.Batch {
	b := &model.Batch{Targets: []model.Target{{Row: 1, Label: 5, Count: 1}, {Row: 2, Label: 6, Count: 1}}}
	b.Append([]int32{1, 2, 3})
	return b
}

func TestRandom(t *testing.T) {
	loss := func(seed uint64, o model.Options) float64 {
		l, err := random(t, 2, seed, o).Loss(t.Context(), threeRows())
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	one := loss(1, model.Options{})
	if again := loss(1, model.Options{}); again != one {
		t.Errorf("losses %v and %v with one seed", one, again)
	}
	if other := loss(2, model.Options{}); other == one {
		t.Errorf("loss %v with either seed", one)
	}
	if other := loss(1, model.Options{Base: "nf4"}); other == one {
		t.Errorf("loss %v with a quantised base too", one)
	}
	if _, err := model.Random(t.Context(), []byte(`{"model_type": "gpt2"}`), 1, model.Options{}); err == nil || !strings.Contains(err.Error(), "gpt2") {
		t.Errorf("another architecture: %v", err)
	}
}

// A profile changes no bit, and counts the rows.
func TestProfile(t *testing.T) {
	norm := func(o model.Options) float64 {
		m := random(t, 2, 1, o)
		if _, err := lora.Inject(m, lora.Defaults()); err != nil {
			t.Fatal(err)
		}
		if err := m.Backward(t.Context(), threeRows()); err != nil {
			t.Fatal(err)
		}
		return m.Params().Norm()
	}
	p := new(model.Profile)
	if with, without := norm(model.Options{Profile: p}), norm(model.Options{}); with != without {
		t.Errorf("gradients of norm %v with a profile, %v without", with, without)
	}
	if got := p.Take(); got.Rows != 3 || got.Selected != 2 || got.Total() <= 0 {
		t.Errorf("%+v, want 3 rows, 2 of them for the head", got)
	}
}

func TestWork(t *testing.T) {
	const qkv, o, up, down, head = 64 * (64 + 2*32), 64 * 64, 2 * 64 * 128, 128 * 64, 64 * 96
	const layer = qkv + o + up + down
	for _, c := range []struct {
		name     string
		adapt    func(c *lora.Config)
		backward int
	}{
		{"q_proj", func(c *lora.Config) { c.TargetModules = lora.ParseNames("q_proj") }, o + up + down + layer},
		{"o_proj of the last layer", func(c *lora.Config) {
			c.TargetModules, c.LayersToTransform = lora.ParseNames("o_proj"), []int{1}
		}, up + down},
		{"down_proj", func(c *lora.Config) { c.TargetModules = lora.ParseNames("down_proj") }, layer},
	} {
		m := random(t, 2, 1, model.Options{})
		cfg := lora.Defaults()
		c.adapt(&cfg)
		if _, err := lora.Inject(m, cfg); err != nil {
			t.Fatal(err)
		}
		forward, backward := m.Work(10, 3)
		if want := float64(2 * (10*2*layer + 3*head)); forward != want {
			t.Errorf("%s: forward %v, want %v", c.name, forward, want)
		}
		if want := float64(2 * (10*c.backward + 3*head)); backward != want {
			t.Errorf("%s: backward %v, want %v", c.name, backward, want)
		}
	}
	if got := random(t, 2, 1, model.Options{}).Weights(); got != 2*(2*layer+head) {
		t.Errorf("a pass reads %d bytes of weights, want %d", got, 2*(2*layer+head))
	}
}
