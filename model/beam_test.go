package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
			o := model.GenerateOptions{Beams: c.Beams, LengthPenalty: c.LengthPenalty, Stop: c.Stop, MaxNewTokens: c.MaxNewTokens}
			if head > 0 {
				o.Heads = [][]int{{head}}
			}
			got, err := m.Generate(context.Background(), [][]int32{c.Prompt}, o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[0], c.Answer) {
				t.Errorf("case %d, %d beams, penalty %v, head of %d:\n%v, want\n%v", i, c.Beams, c.LengthPenalty, head, got[0], c.Answer)
			}
		}
	}
}

// Nothing that is beside a prompt changes its answer: neither other prompts, nor how many advance together, nor the room
// for keys and values; and heads are computed once or again as it suits.
func TestGenerateBeside(t *testing.T) {
	m, cases := demoModel(t)
	var prompts [][]int32
	var heads [][]int
	var seeds []uint64
	for n := range 3 {
		for i, c := range cases.Beams[:6] {
			p := slices.Concat(c.Prompt[:1], []int32{int32(5 + n), 9}, c.Prompt[1:])
			prompts, heads, seeds = append(prompts, p), append(heads, [][]int{{1, 3}, {2}, nil}[i%3]), append(seeds, uint64(7*n+i))
		}
	}
	longest := 0
	for _, p := range prompts {
		longest = max(longest, len(p))
	}
	for _, o := range []model.GenerateOptions{
		{Beams: 3, LengthPenalty: 1}, {Temperature: 0.8, Seeds: seeds}, {}, {Heads: heads}, {Beams: 2, Heads: heads}, {Temperature: 2, TopP: 0.9, Seeds: seeds, Heads: heads},
	} {
		o.MaxNewTokens, o.Stop, o.Steady = 8, []int32{1}, true
		want, err := m.Generate(context.Background(), prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		one := longest + 4 + 8*max(1, o.Beams) // heads may be of other prompts than the longest rest is
		for _, c := range []struct{ together, positions int }{{1, 0}, {5, 0}, {0, one}, {3, 3*one + 4}, {100, 100 * one}} {
			p := o
			p.Together, p.Positions = c.together, c.positions
			ended := make([]int, len(prompts))
			p.OnAnswer = func(i int, answer []int32) error {
				ended[i]++
				if !slices.Equal(answer, want[i]) {
					t.Errorf("%+v: prompt %d: %v, want %v", c, i, answer, want[i])
				}
				return nil
			}
			got, err := m.Generate(context.Background(), prompts, p)
			if err != nil || !slices.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%d beams, temperature %v, %+v: %v (%v), want %v", o.Beams, o.Temperature, c, got, err, want)
			}
			if slices.Min(ended) != 1 || slices.Max(ended) != 1 {
				t.Errorf("answers were told of %v times", ended)
			}
		}
		for i, prompt := range prompts[:5] {
			p := o
			if o.Heads != nil {
				p.Heads = heads[i : i+1]
			}
			if o.Seeds != nil {
				p.Seeds = seeds[i : i+1]
			}
			if alone, err := m.Generate(context.Background(), [][]int32{prompt}, p); err != nil || !slices.Equal(alone[0], want[i]) {
				t.Errorf("%d beams, temperature %v: prompt %d: %v (%v) alone, %v beside others", o.Beams, o.Temperature, i, alone[0], err, want[i])
			}
		}
		if o.Heads == nil || o.Temperature > 0 {
			continue
		}
		o.Heads = nil
		if got, err := m.Generate(context.Background(), prompts, o); err != nil || !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("without heads (%v):\n%v, with them:\n%v", err, got, want)
		}
	}
	o := model.GenerateOptions{MaxNewTokens: 8, Positions: longest + 7}
	if _, err := m.Generate(context.Background(), prompts, o); err == nil || err.Error() !=
		fmt.Sprintf("generate: keys and values of one prompt and its answer take up to %d positions, and there is room for %d", longest+8, longest+7) {
		t.Error(err)
	}
}

// An error of OnAnswer ends the work, and the model can be asked for likelihoods in it.
func TestOnAnswer(t *testing.T) {
	m, cases := demoModel(t)
	prompts := [][]int32{cases.Beams[0].Prompt, cases.Beams[1].Prompt, cases.Beams[2].Prompt}
	want, err := m.Generate(context.Background(), prompts, model.GenerateOptions{MaxNewTokens: 6})
	if err != nil {
		t.Fatal(err)
	}
	question := []model.Question{{Prompt: prompts[0], Options: cases.Options[0].Options}}
	before, err := m.Likelihoods(context.Background(), question)
	if err != nil {
		t.Fatal(err)
	}
	o := model.GenerateOptions{MaxNewTokens: 6, Together: 2, Done: func(p int, a []int32) bool { return p == 0 && len(a) == 2 }}
	o.OnAnswer = func(int, []int32) error {
		if got, err := m.Likelihoods(context.Background(), question); err != nil || !slices.Equal(got[0], before[0]) {
			t.Errorf("%v (%v), want %v", got, err, before)
		}
		return nil
	}
	got, err := m.Generate(context.Background(), prompts, o)
	if err != nil || !slices.Equal(got[0], want[0][:2]) || !slices.Equal(got[1], want[1]) || !slices.Equal(got[2], want[2]) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
	enough := errors.New("enough")
	o.OnAnswer = func(int, []int32) error { return enough }
	if got, err := m.Generate(context.Background(), prompts, o); !errors.Is(err, enough) || len(got[2]) > 0 {
		t.Errorf("%v (%v)", got, err)
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
		"prompt 0 of 1 tokens has heads of [1]":                                   {Heads: [][]int{{1}}},
		"generate: 2 lists of heads and 0 seeds for 1 prompts":                    {Heads: make([][]int, 2)},
		"generate: 0 lists of heads and 3 seeds for 1 prompts":                    {Seeds: make([]uint64, 3)},
		"generate: -1 prompts together, 0 positions":                              {Together: -1},
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
		questions[i] = model.Question{Prompt: c.Prompt, Options: c.Options}
		if len(c.Prompt) > 1 {
			questions[i].Heads = []int{1}
		}
	}
	got, err := m.Likelihoods(context.Background(), questions)
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
		alone, err := m.Likelihoods(context.Background(), questions[i:i+1])
		if err != nil || !slices.Equal(alone[0], got[i]) {
			t.Errorf("question %d: %v (%v) alone, %v beside others", i, alone, err, got[i])
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
		got, err := m.Likelihoods(context.Background(), []model.Question{
			{Prompt: slices.Concat(head, prompt), Heads: []int{2, len(head)}, Options: options}, {Prompt: head, Heads: []int{2}, Options: options[1:2]}})
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
	_, err := m.Likelihoods(context.Background(), []model.Question{{Prompt: []int32{1, 99}, Heads: []int{2}, Options: [][]int32{{}, {3, 37}}}, {}})
	want := "question 0: a prompt of 2 tokens has heads of [2]\n" +
		"question 0: token 99 at 1 is outside the vocabulary of 37\n" +
		"question 0: option 0 is empty\n" +
		"question 0, option 1: token 37 at 1 is outside the vocabulary of 37\n" +
		"question 1 has a prompt of 0 tokens and 0 options"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
