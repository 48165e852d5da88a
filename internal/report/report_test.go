package report

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
)

func plan() train.Plan {
	return train.Plan{
		Rows:  train.Rows{Read: 100, Train: 80, Eval: 10, Cut: 7, NoLabel: 6, Bad: 4, Tokens: 123456, LabelTokens: 7890},
		Steps: 40, WarmupSteps: 3, Epochs: 2.5, MaxSeqLength: 512,
		TrainableParameters: 8960, TotalParameters: 1234567,
		Example: train.Example{Pieces: []train.Piece{
			{Text: "Question\x1b[2J?\n", Tokens: 5},
			{Text: "Answer</s>", Tokens: 3, Label: true},
		}},
		Warnings: []string{"rows are long"},
	}
}

func draw(t *testing.T, s Style, clock func() time.Time) string {
	t.Helper()
	var out bytes.Buffer
	r := New(&out, s, Run{Model: "m", Data: []string{"a.jsonl", "b.jsonl"}, Backend: "cpu go", Compute: "f32",
		Note: "slow", Adapter: "rank 8", Start: "old", Output: "out", Warnings: []string{"odd key"}})
	if clock != nil {
		r.now = clock
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.Begin(plan()))
	for i := 1; i <= 40; i++ {
		must(r.Step(train.StepEvent{Step: i, Loss: 1 / float64(i), LR: 1e-3, Tokens: 100, Seconds: 0.5}))
		if i == 20 {
			must(r.Eval(train.EvalEvent{Step: 20, EvalLoss: 0.5, Perplexity: 1.6487}))
		}
	}
	must(r.End(train.Result{}))
	return out.String()
}

func TestPlainReport(t *testing.T) {
	out := draw(t, Style{}, nil)
	for _, want := range []string{
		"adapter     rank 8\n", "starts from old", "f32 on cpu go", "slow", "8,960 trained, 1,234,567 in all", "a.jsonl, b.jsonl",
		"100 read: 80 to train on, 10 held out; 7 cut at 512 tokens, 6 skipped without a label, 4 bad",
		"123,456 to read, 7,890 to learn", "40, 3 of them warm-up (2.5 epochs)", "warning     odd key", "warning     rows are long",
		"8 tokens, 3 of them learnt", "--- read, 5 tokens\nQuestion\\x1b[2J?\n--- learnt, 3 tokens\nAnswer</s>\n---\n",
		"step 1/40 ", "step 40/40 ", "200 tokens/s", "evaluation at step 20: loss 0.5000, perplexity 1.649",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.ContainsAny(out, "\x1b\r") {
		t.Error("a plain report steers the terminal")
	}
	if n := strings.Count(out, "step "); n < 20 || n > 25 {
		t.Errorf("%d lines for 40 steps, want about 20", n)
	}
}

func TestSlowStepsAreReportedInTime(t *testing.T) {
	now := time.Unix(0, 0)
	r := New(&bytes.Buffer{}, Style{}, Run{})
	r.now = func() time.Time { return now }
	r.plan.Steps = 100000
	r.lastLine = now
	if r.due(2) {
		t.Error("step 2 is due at once")
	}
	now = now.Add(31 * time.Second)
	if !r.due(2) {
		t.Error("a step after 31 s is not reported")
	}
}

func TestTerminalReport(t *testing.T) {
	out := draw(t, Style{Terminal: true, Color: true, Width: 120}, nil)
	for _, want := range []string{dim + "Question\\x1b[2J?\n" + reset + "Answer</s>", "evaluation at step 20", "40/40", "loss 0.0250"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%q", want, out)
		}
	}
	if out = draw(t, Style{Terminal: true, Width: 80}, nil); strings.Contains(out, dim) {
		t.Error("dimmed without colours")
	}
}

func TestSummary(t *testing.T) {
	var out bytes.Buffer
	Summary(&out, train.Result{Steps: 5, Loss: 0.25, EvalLoss: 0.5, EvalLossBefore: 2, BestStep: 4, BestEvalLoss: 0.4, Seconds: 65.04}, "lora-out/3")
	want := "done        5 steps in 1m5s, last loss 0.2500\n" +
		"evaluation  held-out loss 2.0000 before, 0.5000 after\n" +
		"best        held-out loss 0.4000 at step 4, in best/\n" +
		"adapter     lora-out/3\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	out.Reset()
	Summary(&out, train.Result{EvalLoss: math.NaN(), EvalLossBefore: 2, BestEvalLoss: math.NaN(), Interrupted: true}, "d")
	if got := out.String(); !strings.Contains(got, "held-out loss 2.0000 before\n") || strings.Contains(got, "best") || strings.Contains(got, "NaN") {
		t.Errorf("got\n%s", got)
	}
	out.Reset()
	Summary(&out, train.Result{Steps: 5, Loss: 0.25, EvalLoss: math.NaN(), EvalLossBefore: math.NaN(), Interrupted: true}, "d")
	if got := out.String(); strings.Contains(got, "evaluation") || !strings.HasPrefix(got, "interrupted") {
		t.Errorf("got\n%s", got)
	}
}

func TestMemoryLine(t *testing.T) {
	m := model.Memory{Peak: 3 << 30, Limit: 4 << 30, From: "MemAvailable", Layers: 4, Kept: 4, Each: 150 << 20}
	r := Report{w: &bytes.Buffer{}, plan: train.Plan{Memory: m}}
	r.summary()
	want := "memory      3.00 GiB of 4.00 GiB (MemAvailable)\n            policy all: all 4 layers keep 150 MiB each\n"
	if got := r.w.(*bytes.Buffer).String(); !strings.Contains(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for want, m := range map[string]model.Memory{
		"of 2.00 GiB (--memory-limit): it does not fit": {Peak: 3 << 30, Limit: 2 << 30, Given: true},
		"": {Peak: 1},
	} {
		if got := Limited(&m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	m.Kept = 0
	if got, want := Keeping(&m), "policy none: 4 layers compute again what they do not keep (150 MiB each)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m.Kept = 1
	if got, want := Keeping(&m), "policy some:1: 1 of 4 layers keep 150 MiB each"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("é", maxPiece+10)
	got := shorten(long)
	if !strings.Contains(got, "[... 10 characters ...]") || !strings.HasPrefix(got, "éé") {
		t.Errorf("got %q", got[:80])
	}
	if s := "short"; shorten(s) != s {
		t.Error("a short text changed")
	}
}

func TestStyleOfABufferIsPlain(t *testing.T) {
	if s := StyleOf(&bytes.Buffer{}); s != (Style{}) {
		t.Errorf("got %+v", s)
	}
}
