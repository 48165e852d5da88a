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

	"github.com/biolora/biolora/model"
)

// generateCases are what Transformers gives for the demo's model (testdata/reference/make_generate_cases.py).
type generateCases struct {
	Beams []struct {
		Prompt        []int32
		Beams         int
		LengthPenalty float64 `json:"length_penalty"`
		Stop          []int32
		MaxNewTokens  int `json:"max_new_tokens"`
		Answer        []int32
	}
	Options []struct {
		Prompt      []int32
		Options     [][]int32
		Likelihoods []struct {
			Sum    float64
			Greedy bool
		}
	}
}

func demoModel(t *testing.T) (*model.Model, generateCases) {
	t.Helper()
	var c generateCases
	data, err := os.ReadFile("testdata/generate_cases.json")
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Open("../testdata/demo/model", model.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, c
}

func TestBeamsGolden(t *testing.T) {
	m, cases := demoModel(t)
	for i, c := range cases.Beams {
		for head := range min(2, len(c.Prompt)-1) {
			o := model.GenerateOptions{Beams: c.Beams, LengthPenalty: c.LengthPenalty, Stop: c.Stop, MaxNewTokens: c.MaxNewTokens, Head: c.Prompt[:head]}
			got, err := m.Generate(context.Background(), [][]int32{c.Prompt[head:]}, o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[0], c.Answer) {
				t.Errorf("case %d, %d beams, penalty %v, head of %d:\n%v, want\n%v", i, c.Beams, c.LengthPenalty, head, got[0], c.Answer)
			}
		}
	}
}

// Prompts beside one another do not change each other's answers, with beams and without.
func TestGenerateBeside(t *testing.T) {
	m, cases := demoModel(t)
	var prompts [][]int32
	for _, c := range cases.Beams {
		prompts = append(prompts, c.Prompt[1:])
	}
	bos := cases.Beams[0].Prompt[:1]
	for _, o := range []model.GenerateOptions{
		{Beams: 3, LengthPenalty: 1}, {Temperature: 0.8, Seed: 3}, {}, {Head: bos}, {Beams: 2, Head: bos},
	} {
		o.MaxNewTokens, o.Stop = 8, []int32{1}
		together, err := m.Generate(context.Background(), prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range prompts {
			if o.Temperature > 0 && i > 0 {
				break // the seed is used with the prompt's index
			}
			alone, err := m.Generate(context.Background(), [][]int32{p}, o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(alone[0], together[i]) {
				t.Errorf("%+v: prompt %d: %v beside others, %v alone", o, i, together[i], alone[0])
			}
		}
		if len(o.Head) == 0 {
			continue
		}
		head := o.Head
		o.Head = nil
		whole := make([][]int32, len(prompts))
		for i, p := range prompts {
			whole[i] = slices.Concat(head, p)
		}
		if got, err := m.Generate(context.Background(), whole, o); err != nil || !slices.EqualFunc(got, together, slices.Equal) {
			t.Errorf("with the head in the prompts (%v):\n%v, apart:\n%v", err, got, together)
		}
	}
}

// More prompts than go through the decoder at once.
func TestGenerateMany(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	r := rand.New(rand.NewPCG(1, 1))
	prompts := make([][]int32, 60)
	for i := range prompts {
		prompts[i], _ = sample(r, 90+i, 0)
	}
	for _, o := range []model.GenerateOptions{{MaxNewTokens: 2}, {MaxNewTokens: 3, Beams: 5}} {
		got, err := m.Generate(context.Background(), prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, 18, 19, 59} {
			if alone, err := m.Generate(context.Background(), prompts[i:i+1], o); err != nil || !slices.Equal(alone[0], got[i]) {
				t.Errorf("%d beams, prompt %d: %v (%v), alone %v", o.Beams, i, got[i], err, alone[0])
			}
		}
	}
}

// An answer ends after the token at which Done says so.
func TestGenerateDone(t *testing.T) {
	m, cases := demoModel(t)
	prompt := cases.Beams[2].Prompt
	free, err := m.Generate(context.Background(), [][]int32{prompt}, model.GenerateOptions{MaxNewTokens: 10})
	if err != nil {
		t.Fatal(err)
	}
	last := free[0][3]
	at := slices.Index(free[0], last)
	for _, beams := range []int{1, 3} {
		got, err := m.Generate(context.Background(), [][]int32{prompt}, model.GenerateOptions{MaxNewTokens: 10, Beams: beams,
			Done: func(i int, a []int32) bool { return i == 0 && slices.Contains(a, last) }})
		if err != nil {
			t.Fatal(err)
		}
		n := slices.Index(got[0], last)
		if n >= 0 && n != len(got[0])-1 {
			t.Errorf("%d beams: %v goes on after %d", beams, got[0], last)
		}
		if beams == 1 && !slices.Equal(got[0], free[0][:at+1]) {
			t.Errorf("%v, want %v", got[0], free[0][:at+1])
		}
	}
}

func TestBeamsBadInput(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	for want, o := range map[string]model.GenerateOptions{
		"generate: -1 beams at temperature 0: beams do not sample":                {Beams: -1},
		"generate: 2 beams at temperature 0.5: beams do not sample":               {Beams: 2, Temperature: 0.5},
		"generate: 13 beams for a vocabulary of 37 and 2 stop tokens, at most 12": {Beams: 13, Stop: []int32{1, 2}},
		"the prompts' head: token 37 at 1 is outside the vocabulary of 37":        {Head: []int32{1, 37}},
		"generate: 0 new tokens, temperature 0, top-k -2, top-p 0":                {TopK: -2},
	} {
		if _, err := m.Generate(context.Background(), [][]int32{{1}}, o); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Generate(ctx, [][]int32{{1}}, model.GenerateOptions{MaxNewTokens: 20, Beams: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLikelihoodsGolden(t *testing.T) {
	m, cases := demoModel(t)
	questions := make([]model.Question, len(cases.Options))
	for i, c := range cases.Options {
		questions[i] = model.Question{Prompt: c.Prompt[1:], Options: c.Options}
	}
	got, err := m.Likelihoods(context.Background(), cases.Options[0].Prompt[:1], questions)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases.Options {
		for j, want := range c.Likelihoods {
			// float32 logits of about 20 differ by 1e-5; a sum over six tokens by some of that.
			l := got[i][j]
			if math.Abs(l.Sum-want.Sum) > 1e-4 || l.Greedy != want.Greedy || l.Tokens != len(c.Options[j]) {
				t.Errorf("question %d, option %d: %+v, want %+v", i, j, l, want)
			}
		}
	}
}

// Where a row's rotary table depends on its length, each option is computed with its prompt.
func TestLikelihoodsOfLength(t *testing.T) {
	for name, over := range map[string]map[string]any{
		"plain":   nil,
		"dynamic": {"max_position_embeddings": 8, "rope_scaling": map[string]any{"rope_type": "dynamic", "factor": 4.0}},
	} {
		m := tiny(t, model.Options{}, false, over)
		head, prompt := []int32{1, 5, 9, 3, 8}, []int32{7, 2, 11, 30}
		options := [][]int32{{4}, {6, 12, 9}, {31, 2}}
		got, err := m.Likelihoods(context.Background(), head, []model.Question{{Prompt: prompt, Options: options}, {Options: options[1:2]}})
		if err != nil {
			t.Fatal(err)
		}
		for j, o := range options {
			if want := likelihood(t, m, slices.Concat(head, prompt), o); math.Abs(got[0][j].Sum-want) > 1e-5 {
				t.Errorf("%s: option %d: %v, want %v", name, j, got[0][j].Sum, want)
			}
		}
		if want := likelihood(t, m, head, options[1]); math.Abs(got[1][0].Sum-want) > 1e-5 {
			t.Errorf("%s: after the head alone: %v, want %v", name, got[1][0].Sum, want)
		}
	}
}

// likelihood runs the whole text at once.
func likelihood(t *testing.T, m *model.Model, prompt, option []int32) (sum float64) {
	t.Helper()
	b := &model.Batch{}
	b.Append(slices.Concat(prompt, option[:len(option)-1]))
	for k, id := range option {
		logits, err := m.Logits(context.Background(), b, []int32{int32(len(prompt) - 1 + k)})
		if err != nil {
			t.Fatal(err)
		}
		sum += math.Log(softmax(logits)[id])
	}
	return sum
}

func TestLikelihoodsBadInput(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	_, err := m.Likelihoods(context.Background(), nil, []model.Question{{Prompt: []int32{1, 99}, Options: [][]int32{{}, {3, 37}}}, {}})
	want := "question 0: token 99 at 1 is outside the vocabulary of 37\n" +
		"question 0: option 0 is empty\n" +
		"question 0, option 1: token 37 at 1 is outside the vocabulary of 37\n" +
		"question 1 has a prompt of 0 tokens and 0 options"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
