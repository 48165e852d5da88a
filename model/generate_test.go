package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/model"
)

// The trained stories260K continues its story as its author's own program does.
func TestGenerateStories(t *testing.T) {
	dir := golden.Shared(t, "models", "stories260K")
	var want struct {
		GreedyIDs []int32 `json:"greedy_ids"`
	}
	data, err := os.ReadFile(dir + "/GOLDEN_derived.json")
	if err == nil {
		err = json.Unmarshal(data, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, compute := range []string{"f32"} {
		m, err := model.Open(dir, model.Options{Compute: compute})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		got, err := m.Generate(context.Background(), [][]int32{want.GreedyIDs[:1]}, model.GenerateOptions{MaxNewTokens: len(want.GreedyIDs) - 1})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got[0], want.GreedyIDs[1:]) {
			t.Errorf("%s: generated %v\nwant %v", compute, got[0], want.GreedyIDs[1:])
		}
	}
}

// argmax continues a prompt without a cache, running the whole of it for each token.
func argmax(t *testing.T, m *model.Model, prompt []int32, n int) (out []int32) {
	t.Helper()
	ids := slices.Clone(prompt)
	for range n {
		b := &model.Batch{}
		b.Append(ids)
		logits, err := m.Logits(context.Background(), b, []int32{int32(len(ids) - 1)})
		if err != nil {
			t.Fatal(err)
		}
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		ids = append(ids, int32(best))
	}
	return ids[len(prompt):]
}

func TestGenerateTogether(t *testing.T) {
	for name, over := range map[string]map[string]any{
		"plain":  nil,
		"window": {"model_type": "mistral", "architectures": []string{"MistralForCausalLM"}, "sliding_window": 5},
	} {
		m := tiny(t, model.Options{}, false, over)
		adapt(t, m, 0, "q_proj", "down_proj")
		r := rand.New(rand.NewPCG(1, 1))
		var prompts [][]int32
		for _, n := range []int{9, 1, 4} {
			p, _ := sample(r, n, 0)
			prompts = append(prompts, p)
		}
		var shown [3][]int32
		got, err := m.Generate(context.Background(), prompts, model.GenerateOptions{MaxNewTokens: 12, OnToken: func(p int, id int32) { shown[p] = append(shown[p], id) }})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range prompts {
			want := argmax(t, m, p, 12)
			if !slices.Equal(got[i], want) || !slices.Equal(shown[i], want) {
				t.Errorf("%s: prompt %d: %v, streamed %v, want %v", name, i, got[i], shown[i], want)
			}
		}
		stop := got[0][3]
		at := slices.Index(got[0], stop)
		cut, err := m.Generate(context.Background(), prompts, model.GenerateOptions{MaxNewTokens: 12, Stop: []int32{stop}})
		if err != nil || !slices.Equal(cut[0], got[0][:at]) {
			t.Errorf("%s: with a stop at %d: %v (%v)", name, at, cut[0], err)
		}
	}
}

func TestSampling(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	prompts := [][]int32{{1, 5, 7}, {1, 9}}
	run := func(o model.GenerateOptions, prompts ...[]int32) [][]int32 {
		t.Helper()
		o.MaxNewTokens = 30
		got, err := m.Generate(context.Background(), prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	greedy := run(model.GenerateOptions{}, prompts...)
	hot := model.GenerateOptions{Temperature: 1.5, Seed: 7}
	a, b := run(hot, prompts...), run(hot, prompts...)
	if !slices.Equal(a[0], b[0]) || !slices.Equal(a[1], b[1]) {
		t.Error("the same seed gives other tokens")
	}
	if alone := run(hot, prompts[0]); !slices.Equal(alone[0], a[0]) {
		t.Errorf("a prompt's tokens depend on the prompts beside it: %v, alone %v", a[0], alone[0])
	}
	if slices.Equal(a[0], greedy[0]) {
		t.Error("sampling at 1.5 is greedy")
	}
	hot.Seed++
	if c := run(hot, prompts...); slices.Equal(a[0], c[0]) {
		t.Error("another seed gives the same tokens")
	}
	for name, o := range map[string]model.GenerateOptions{"top-k 1": {Temperature: 2, TopK: 1}, "top-p small": {Temperature: 2, TopP: 1e-9}, "cold": {Temperature: 1e-4}} {
		if got := run(o, prompts...); !slices.Equal(got[0], greedy[0]) {
			t.Errorf("%s is not greedy", name)
		}
	}
}

// Sampled frequencies follow the softmax.
func TestSamplingDistribution(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	prompt := []int32{1, 5, 7}
	const n, temperature = 3000, 6
	prompts := make([][]int32, n)
	for i := range prompts {
		prompts[i] = prompt
	}
	got, err := m.Generate(context.Background(), prompts, model.GenerateOptions{MaxNewTokens: 1, Temperature: temperature, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := &model.Batch{}
	b.Append(prompt)
	logits, err := m.Logits(context.Background(), b, []int32{2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range logits {
		logits[i] /= temperature
	}
	p := softmax(logits)
	counts := make([]float64, len(p))
	for _, g := range got {
		counts[g[0]]++
	}
	var chi2 float64
	for i := range p {
		e := n * p[i]
		chi2 += (counts[i] - e) * (counts[i] - e) / e
	}
	if chi2 > 75 { // 36 degrees of freedom: 75 is exceeded once in 7,000 seeds
		t.Errorf("chi-squared %.1f over %d tokens", chi2, len(p))
	}
}

func TestGenerateBadInput(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	for want, f := range map[string]func() error{
		"prompt 1 is empty": func() error {
			_, err := m.Generate(context.Background(), [][]int32{{1}, {}}, model.GenerateOptions{MaxNewTokens: 1})
			return err
		},
		"prompt 0: token 40 at 1 is outside the vocabulary of 37": func() error {
			_, err := m.Generate(context.Background(), [][]int32{{1, 40}}, model.GenerateOptions{MaxNewTokens: 1})
			return err
		},
		"generate: 1 new tokens, temperature -1, top-k 0, top-p 0": func() error {
			_, err := m.Generate(context.Background(), [][]int32{{1}}, model.GenerateOptions{MaxNewTokens: 1, Temperature: -1})
			return err
		},
	} {
		if err := f(); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	got, err := m.Generate(ctx, [][]int32{{1}}, model.GenerateOptions{MaxNewTokens: 20, OnToken: func(int, int32) { cancel() }})
	if !errors.Is(err, context.Canceled) || len(got[0]) != 1 {
		t.Errorf("cancelled after a token: %v, %v", got, err)
	}
}

func softmax(logits []float32) []float64 {
	p := make([]float64, len(logits))
	top := slices.Max(logits)
	var sum float64
	for i, v := range logits {
		p[i] = math.Exp(float64(v - top))
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}
