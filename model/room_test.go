package model_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/model"
)

// As many prompts advance together as have room for their keys and values.
func TestFit(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	prompts := make([][]int32, 40)
	for i := range prompts {
		prompts[i] = slices.Repeat([]int32{int32(1 + i%30)}, 50)
	}
	o := model.GenerateOptions{MaxNewTokens: 20, Steady: true}
	want, err := m.Generate(context.Background(), prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	free := o
	r, err := m.Fit(prompts, &free)
	if err != nil || r.Together != 40 || r.From != "" && (free.Together != 40 || free.Positions < 40*70) {
		t.Errorf("%+v, %+v: %v", r, free, err)
	}
	// What one takes is more than chance changes in what the process holds.
	o.MaxNewTokens = 20_000
	limited := func(each float64) (model.Room, model.GenerateOptions, error) {
		p := o
		m.SetOptions(model.Options{MemoryLimit: 1 << 40})
		r, err := m.Fit(prompts, &p)
		if err != nil {
			t.Fatal(err)
		}
		// All that is not for keys and values, where one prompt advances.
		p.Together = 1
		if r, err = m.Fit(prompts, &p); err != nil {
			t.Fatal(err)
		}
		p = o
		m.SetOptions(model.Options{MemoryLimit: 1<<40 - r.Free + int64(each*float64(r.Each))})
		r, err = m.Fit(prompts, &p)
		return r, p, err
	}
	if r, p, err := limited(3.5); err != nil || r.Together < 2 || r.Together > 3 || p.Together != r.Together || int64(p.Positions) > 7*r.Each/2/(r.Each/20_050)+2000 {
		t.Errorf("%+v, %+v: %v", r, p, err)
	}
	_, _, err = limited(0.5)
	if err == nil || !regexp.MustCompile(`^the keys and values of a prompt of up to 50 tokens and its answer of up to 20000 take [0-9.]+ MiB, and there is room for [0-9.]+ MiB \(of the memory limit of `).MatchString(err.Error()) {
		t.Error(err)
	}
	o.MaxNewTokens, o.Together, o.Positions = 20, 3, 250
	got, err := m.Generate(context.Background(), prompts, o)
	if err != nil || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("with little room (%v) there are other answers", err)
	}
}

// A generation takes the memory that Fit counts with, and no more.
func TestFitKeeps(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	prompts := [][]int32{slices.Repeat([]int32{3}, 40), {4, 5}, slices.Repeat([]int32{6}, 30), {7}}
	o := model.GenerateOptions{MaxNewTokens: 10, Heads: [][]int{{20}, {1}, {20, 25}, nil}}
	r, err := m.Fit(prompts, &o)
	if err != nil {
		t.Fatal(err)
	}
	o.Together, o.Positions = 2, 2*int(r.Each/m.PositionBytes())
	var most int64
	o.OnToken = func(int, int32) { most = max(most, m.CacheBytes()) }
	if _, err := m.Generate(context.Background(), prompts, o); err != nil {
		t.Fatal(err)
	}
	if most == 0 || most > int64(o.Positions)*m.PositionBytes() {
		t.Errorf("%s of keys and values, want up to %s", memory.Format(most), memory.Format(int64(o.Positions)*m.PositionBytes()))
	}
}

// A model that is frozen again is what it was, and can be trained otherwise.
func TestFreeze(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	prompt := [][]int32{{1, 5, 7, 2}}
	b := &model.Batch{}
	b.Append(prompt[0])
	logits := func() []float32 {
		t.Helper()
		l, err := m.Logits(context.Background(), b, []int32{0, 3})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	want := logits()
	params := m.Params()
	adapt(t, m, 0, "q_proj", "down_proj")
	for _, name := range []string{model.EmbedTokens, model.LMHead} {
		p, err := m.TrainFull(name)
		if err != nil {
			t.Fatal(err)
		}
		v := p.Values()
		for i := range v {
			v[i] *= 1.5
		}
		p.Write(v)
	}
	adapted := logits()
	if slices.Equal(adapted, want) {
		t.Error("the adapter changes nothing")
	}
	m.Freeze()
	if !slices.Equal(logits(), want) || params.Count() != 0 || m.Params().Bytes() != 0 {
		t.Errorf("something is left: %d parameters", params.Count())
	}
	if err := m.Backward(context.Background(), b); err == nil || !strings.Contains(err.Error(), "nothing in the model is trained") {
		t.Error(err)
	}
	adapt(t, m, 0, "q_proj", "down_proj")
	if _, err := m.TrainFull(model.LMHead); err != nil {
		t.Error(err)
	}
}
