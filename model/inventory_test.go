package model_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// Stored is what Open looks for: its complaints about a checkpoint that has nothing.
func TestStoredIsWhatOpenLooksFor(t *testing.T) {
	missing := regexp.MustCompile(`tensor (\S+) is missing, want shape (\[[^]]*\])`)
	for name, over := range map[string]map[string]any{
		"plain":  nil,
		"tied":   {"tie_word_embeddings": true},
		"biases": {"attention_bias": true, "mlp_bias": true, "head_dim": 12},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeModel(t, tinyConfig(over), []safetensors.Source{{Name: "x.weight", DType: numeric.F32, Shape: []int{1}, Data: make([]byte, 4)}})
			_, err := model.Open(dir, model.Options{})
			if err == nil {
				t.Fatal("a checkpoint without tensors opens")
			}
			var want []string
			for _, m := range missing.FindAllStringSubmatch(err.Error(), -1) {
				want = append(want, m[1]+" "+m[2])
			}
			cfg, _, err := model.ReadConfig(dir)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range cfg.Stored(nil) {
				got = append(got, fmt.Sprint(s.Name, " ", s.Shape))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

func TestStoredOfATiedHead(t *testing.T) {
	var ts []safetensors.Source
	for _, s := range tinyTensors() {
		if s.Name != "model.embed_tokens.weight" {
			ts = append(ts, s)
		}
	}
	dir := writeModel(t, tinyConfig(map[string]any{"tie_word_embeddings": true}), ts)
	cfg, _, err := model.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	for _, s := range cfg.Stored(ckpt) {
		if t2, ok := ckpt.Tensor(s.Name); !ok || !slices.Equal(t2.Shape, s.Shape) {
			t.Errorf("%s %v is not there", s.Name, s.Shape)
		}
	}
}
