package benchmark

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/backend/profile"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train/instruct"
)

var small = Sizes{Hidden: 64, Intermediate: 128, Layers: 2, Heads: 4, Vocab: 96}

// smallCase is a case of so many rows a step.
func smallCase(tb testing.TB, s Sizes, rows Shape) Case {
	tb.Helper()
	c, err := MakeUp(tb.Context(), s, lora.Defaults(), rows, model.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Model.Close() })
	return c
}

func TestRun(t *testing.T) {
	r, err := Run(t.Context(), smallCase(t, small, Shape{Rows: 4, Tokens: 12}))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Steps) != 3 || r.Plan.Steps != 4 {
		t.Fatalf("%d steps of %d count, want 3 of 4", len(r.Steps), r.Plan.Steps)
	}
	for i, s := range r.Steps {
		if s.Tokens != 48 || s.Rows != 48 || s.Selected != 44 { // the last token of a row has nothing to predict
			t.Errorf("step %d: %d tokens, %d computed, %d to the head; want 48, 48, 44", i, s.Tokens, s.Rows, s.Selected)
		}
		for _, k := range []profile.Work{profile.Other, profile.Forward, profile.Backward, profile.Attention, profile.Elementwise, profile.Loss, profile.Optimizer} {
			if s.Spent[k] <= 0 {
				t.Errorf("step %d: nothing was spent on: %v", i, k)
			}
		}
	}
}

// A benchmark without time measures one step.
func TestRunEndsInTime(t *testing.T) {
	c := smallCase(t, small, Shape{Rows: 2, Tokens: 4})
	c.Most = 0
	r, err := Run(t.Context(), c)
	if err != nil || len(r.Steps) != 1 {
		t.Errorf("%v; %d steps, want 1", err, len(r.Steps))
	}
}

func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, smallCase(t, small, Shape{Rows: 2, Tokens: 4})); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMedian(t *testing.T) {
	step := func(d time.Duration, rows int) Step {
		return Step{Times: profile.Times{Spent: [profile.Works]time.Duration{profile.Forward: d}, Rows: rows}}
	}
	steps := []Step{step(90, 10), step(20, 10), step(70, 20), step(80, 10)} // 9, 2, 3.5 and 8 a token
	if got := median(steps); got != steps[2] {
		t.Errorf("of four: %+v", got)
	}
	if got := median(steps[:3]); got != steps[2] {
		t.Errorf("of three: %+v", got)
	}
}

func TestDecode(t *testing.T) {
	c := smallCase(t, small, Shape{Rows: 2, Tokens: 4})
	if s, err := Decode(t.Context(), c.Model, 4, 3); err != nil || !(s > 0) {
		t.Errorf("%v, %v", s, err)
	}
}

// Made-up rows are as long as BioInstruct's, have as many labels and share their beginnings as those do.
func TestRowsAreLikeBioInstructs(t *testing.T) {
	for _, n := range []int{8, 16, 32, 128} {
		rows, err := MakeRows(Shape{Rows: n, Vocab: 32000})
		if err != nil {
			t.Fatal(err)
		}
		tokens, labels := 0, 0
		heads := map[[headInput]int32]int{}
		for i := range n {
			r := rows.Row(i)
			tokens += len(r.InputIDs)
			heads[[headInput]int32(r.InputIDs)]++
			for _, l := range r.Labels {
				if l != instruct.Masked {
					labels++
				}
			}
		}
		if mean := float64(tokens) / float64(n); math.Abs(mean-BioInstructTokens) > 0.02*BioInstructTokens {
			t.Errorf("%d rows: %.1f tokens a row, want %v", n, mean, BioInstructTokens)
		}
		if share := float64(labels) / float64(tokens); math.Abs(share-0.38) > 0.01 {
			t.Errorf("%d rows: a share of %.3f has a label, want 0.38", n, share)
		}
		most := 0
		for _, k := range heads {
			most = max(most, k)
		}
		if most < n*13/16 {
			t.Errorf("%d rows: %d begin alike", n, most)
		}
	}
	rows, err := MakeRows(Shape{Rows: 3, Vocab: 96, MostTokens: 50})
	if err != nil || len(rows.Row(1).InputIDs) != 50 {
		t.Errorf("%v; a row of %d tokens, cut at 50", err, len(rows.Row(1).InputIDs))
	}
}

func TestExtrapolate(t *testing.T) {
	two, four := Llama7B, Llama7B
	two.Layers, four.Layers = 2, 4
	const spared = 3.0 / 12 // share of a layer's backward pass that is not needed below the lowest adapter
	layer := two.layer()
	s := Step{Times: profile.Times{Spent: [profile.Works]time.Duration{
		profile.Other: 1 * time.Second, profile.Forward: 2 * time.Second, profile.Backward: 7 * time.Second / 4,
		profile.Attention: 3 * time.Second, profile.Loss: 5 * time.Second,
	}}}
	forward, backward := 2*layer, (2-spared)*layer
	for _, c := range []struct {
		to   Sizes
		want float64
	}{{two, 1 + 2 + 1.75 + 3 + 5}, {four, 1 + 4 + 3.75 + 6 + 5}} {
		if got := s.Extrapolate(two, c.to, forward, backward); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%d layers: %v s, want %v", c.to.Layers, got, c.want)
		}
	}
	bytes := int64(2 * (two.layers() + two.head()))
	if got, want := ExtrapolateWeights(two, four, bytes), 2*(four.layers()+four.head()); got != want {
		t.Errorf("%v bytes, want %v", got, want)
	}
}

// BenchmarkStep is a training step at 7B's width, one layer and the head; where its time goes is told as metrics.
func BenchmarkStep(b *testing.B) {
	s := Llama7B
	s.Layers = 1
	c := smallCase(b, s, Shape{Rows: 8})
	c.Steps = 1
	var sum profile.Times
	for b.Loop() {
		r, err := Run(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		for k, d := range r.Median.Spent {
			sum.Spent[k] += d
		}
		sum.Rows += r.Median.Rows
	}
	b.ReportMetric(float64(sum.Rows)/sum.Total().Seconds(), "tokens/s")
	for k, d := range sum.Spent {
		b.ReportMetric(100*d.Seconds()/sum.Total().Seconds(), strings.NewReplacer(" ", "_", ",", "").Replace(profile.Work(k).String())+"-%")
	}
}
