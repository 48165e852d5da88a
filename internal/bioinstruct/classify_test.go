package bioinstruct

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/rows"
)

func TestParseLabels(t *testing.T) {
	for text, want := range map[string][]string{
		"1: QA\n2: IE\n3: other":                      {"QA", "IE", "other"},
		"Task 2 - gen\n**1.** `qa`\n":                 {"QA", "GEN", ""},
		"1: QA\n1: IE\n2: IE\n2: IE":                  {"", "IE", ""},
		"0: QA\n4: IE\n99999999999999999999: IE\nQA":  {"", "", ""},
		"1: Question\n2: IEE\n3: other, I think":      {"", "", "other"},
		"The first one is QA because 1 is a question": {"", "", ""},
	} {
		if got := parseLabels(text, 3); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{"**GEN**.": "GEN", "1: QA": "QA", "It is QA": ""} {
		if got := parseLabels(text, 1); got[0] != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// judge labels rows by the word in their instruction, but leaves out those with "shy" in a batch, and those with "mute"
// always.
func judge(r ask.Request) string {
	var b strings.Builder
	blocks := strings.Split(r.Messages[0].Content, "\nTask ")[1:]
	for k, block := range blocks {
		if strings.Contains(block, "mute") || strings.Contains(block, "shy") && len(blocks) > 1 {
			continue
		}
		for _, c := range Categories {
			if strings.Contains(block, "say "+c+" ") {
				fmt.Fprintf(&b, "%d: %s\n", k+1, c)
			}
		}
	}
	return b.String()
}

func exam() (all []rows.Row) {
	for i := range 23 {
		r := rows.Row{Instruction: fmt.Sprintf("say %s %d", Categories[i*i%4], i), Input: "N/A", Output: strings.Repeat("long ", 200)}
		switch i {
		case 3, 9:
			r.Instruction += " shy"
		case 5:
			r.Instruction += " mute"
		case 7:
			r.Category, r.Instruction = "IE", "say GEN 7"
		}
		all = append(all, r)
	}
	return all
}

func TestClassify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	l, o := Labelling{Sampling: Sampling{Model: "m"}, Batch: 4}, Options{Ask: ask.Defaults()}
	all := exam()
	// The first run ends in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	o.Ask.Concurrency = 1
	stops := modelFunc(func(r ask.Request) string {
		if n++; n == 3 {
			cancel()
		}
		return judge(r)
	})
	if _, err := Classify(ctx, path, stops, l, all, o); !errors.Is(err, context.Canceled) || all[0].Category != "" {
		t.Fatalf("%v, %+v", err, all[0])
	}
	if _, err := Classify(t.Context(), path, nil, l, all, o); err == nil || !strings.Contains(err.Error(), "does not have all answers") {
		t.Errorf("offline, half a journal: %v", err)
	}
	got, err := Classify(t.Context(), path, modelFunc(judge), l, all, o)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{5}, got.Unlabelled); d != "" || got.Kept != 1 || got.Totals.Asked != 6-3+3 {
		t.Errorf("%s, %+v", d, got)
	}
	for i, r := range all {
		want := Categories[i*i%4]
		switch i {
		case 5:
			want = ""
		case 7:
			want = "IE"
		}
		if r.Category != want {
			t.Errorf("row %d is %q, want %q", i, r.Category, want)
		}
	}
	again := exam()
	if _, err := Classify(t.Context(), path, nil, l, again, Options{}); err != nil || cmp.Diff(all, again) != "" {
		t.Errorf("offline: %v, %s", err, cmp.Diff(all, again))
	}
	changed := exam()
	changed[1].Output = "another"
	if _, err := Classify(t.Context(), path, modelFunc(judge), l, changed, o); err == nil || !strings.Contains(err.Error(), "journal is of another job; rows is") {
		t.Errorf("other rows: %v", err)
	}
	if _, err := Classify(t.Context(), path, nil, l, changed, o); err == nil || !strings.Contains(err.Error(), "about other rows") {
		t.Errorf("other rows, offline: %v", err)
	}
	l.All = true
	relabelled := exam()
	if got, err := Classify(t.Context(), path+"2", modelFunc(judge), l, relabelled, o); err != nil || got.Kept != 0 || relabelled[7].Category != "GEN" {
		t.Errorf("all: %v, %+v", err, got)
	}
}

func TestClassifyQuestion(t *testing.T) {
	c := classification{all: []rows.Row{{Instruction: "Say\nit.", Input: "(None)", Output: strings.Repeat("w ", shownWords+1)}}}
	got := c.question([]int{0})
	want := "\nTask 1\nInstruction: Say it.\nOutput: " + strings.Repeat("w ", shownWords) + "…\n"
	if !strings.HasSuffix(got, want) || !strings.HasPrefix(got, definitions) {
		t.Errorf("%s", got)
	}
}

// scale weighs by the word in the instruction, as judge does, and knows nothing of "mute".
type scale struct{ asked []int }

func (s *scale) Weigh(ctx context.Context, _ string, questions, options []string) (all []local.Likely, err error) {
	s.asked = append(s.asked, len(questions))
	for _, q := range questions {
		l := local.Likely{Prompt: 7}
		for _, o := range options {
			sum := -2.0
			if strings.Contains(q, "say "+strings.TrimPrefix(o, "1: ")+" ") {
				sum = -1
			}
			l.Sums = append(l.Sums, sum)
		}
		if strings.Contains(q, "mute") {
			l.Sums = nil
		}
		all = append(all, l)
	}
	return all, ctx.Err()
}

func TestClassifyLocally(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	l := Labelling{Sampling: Sampling{Model: "m"}, Batch: 1, Identity: &local.Identity{Checkpoint: "c", Template: "alpaca t"}}
	all, s := exam(), &scale{}
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(t ask.Totals) {
		if t.Taken == 8 {
			cancel()
		}
	}
	if _, err := ClassifyLocally(ctx, path, s, l, all, LocalOptions{Together: 4, Progress: stop}); !errors.Is(err, context.Canceled) || all[0].Category != "" {
		t.Fatalf("%v, %+v", err, all[0])
	}
	if _, err := Classify(t.Context(), path, nil, Labelling{Sampling: l.Sampling, Batch: 8}, all, Options{}); err == nil || !strings.Contains(err.Error(), "does not have all answers") {
		t.Errorf("offline, half a journal: %v", err)
	}
	got, err := ClassifyLocally(t.Context(), path, s, l, all, LocalOptions{Together: 5})
	if err != nil || !slices.Equal(s.asked, []int{4, 4, 5, 5, 5, 2}) {
		t.Fatalf("%v, asked %v", err, s.asked)
	}
	if d := cmp.Diff([]int{5}, got.Unlabelled); d != "" || got.Kept != 1 || got.Totals.Asked != 22-8 || got.Totals.Usage.Prompt != 22*7 {
		t.Errorf("%s, %+v", d, got)
	}
	for i, r := range all {
		if want := Categories[i*i%4]; i != 5 && i != 7 && r.Category != want {
			t.Errorf("row %d is %q, want %q", i, r.Category, want)
		}
	}
	again := exam()
	if _, err := Classify(t.Context(), path, nil, Labelling{Sampling: l.Sampling, Batch: 8}, again, Options{}); err != nil || cmp.Diff(all, again) != "" {
		t.Errorf("offline: %v, %s", err, cmp.Diff(all, again))
	}
	other := l
	other.Identity = &local.Identity{Checkpoint: "d", Template: "alpaca t"}
	if _, err := ClassifyLocally(t.Context(), path, s, other, exam(), LocalOptions{Together: 4}); !errors.Is(err, ask.ErrOtherJob) || !strings.Contains(err.Error(), `checkpoint is "c" there and "d" here`) {
		t.Errorf("another model: %v", err)
	}
	endpoint := Labelling{Sampling: l.Sampling, Batch: 4}
	if _, err := Classify(t.Context(), path, modelFunc(judge), endpoint, exam(), Options{Ask: ask.Defaults()}); !errors.Is(err, ask.ErrOtherJob) || !strings.Contains(err.Error(), `checkpoint is "c" there and absent here`) {
		t.Errorf("an endpoint: %v", err)
	}
	if _, err := ClassifyLocally(t.Context(), path+"2", s, endpoint, exam(), LocalOptions{Together: 4}); err == nil {
		t.Error("a model without an identity was asked")
	}
}
