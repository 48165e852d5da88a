package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/judge"
)

// asker is a judge that replies as a function of the prompt says.
type asker struct {
	asked int // not at the same time: one request at a time
	reply func(prompt string) string
}

func (a *asker) Ask(_ context.Context, r ask.Request) (ask.Answer, error) {
	a.asked++
	text := a.reply(r.Messages[0].Content)
	return ask.Answer{Text: text, Finish: "stop", Model: "judge-1", Usage: ask.Usage{Prompt: 100, Completion: 10}}, nil
}

// good replies with the mark that stands in the answer, "good 4".
func good(prompt string) string {
	_, answer, _ := strings.Cut(prompt, "[answer to be marked ")
	for mark := 1; mark <= judge.Best; mark++ {
		if strings.Contains(answer, fmt.Sprintf("good %d", mark)) {
			return fmt.Sprintf("Reason: <b>it</b> is good %d\nMark: %d", mark, mark)
		}
	}
	return "I cannot say."
}

// judged are options with existing answers of two systems to a task of that many rows: "good N" by their marks; 0: another
// answer.
func judged(t *testing.T, a *asker, source Source, first, second []int) Options {
	t.Helper()
	o := base(t)
	o.Sources = []Source{source}
	var answers strings.Builder
	for system, marks := range map[string][]int{"base": first, "tuned": second} {
		for i, m := range marks {
			fmt.Fprintf(&answers, `{"system": %q, "id": "note-%d", "answer": "good %d "}`+"\n", system, i, m)
		}
	}
	lines := strings.SplitAfter(answers.String(), "\n")
	for i, line := range lines { // base is the first system
		if strings.Contains(line, `"base"`) {
			lines[0], lines[i] = lines[i], lines[0]
			break
		}
	}
	o.Predictions = []string{write(t, "answers.jsonl", strings.Join(lines, ""))}
	o.Judge = &judge.Options{Settings: judge.Settings{Model: "j", Rubric: judge.BuiltIn()}, Model: a, Ask: ask.Defaults()}
	o.Judge.Ask.Concurrency = 1
	return o
}

func notesSource(t *testing.T, n int) Source {
	return Source{Task: noted, Files: []string{write(t, "notes.jsonl", notes(n))}}
}

// The metric is the mean of the marks; answers without one are counted and in no figure.
func TestJudge(t *testing.T) {
	a := &asker{reply: good}
	o := judged(t, a, notesSource(t, 5), []int{1, 2, 0, 2, 1}, []int{4, 2, 5, 0, 3})
	res := mustRun(t, o)
	task := &res.Tasks[0]
	first, second := task.Scores[0], task.Scores[1]
	if task.Main != MarkMetric || first.System != "base" || first.Metrics[0].Name != MarkMetric {
		t.Fatalf("%+v", task)
	}
	if got := float64(first.Metrics[0].Value); got != 1.5 || *first.Marks != (Marks{4, 1, [5]int{2, 2}}) {
		t.Errorf("%v, %+v", got, first.Marks)
	}
	if m := second.Metrics[0]; float64(m.Value) != 3.5 || !(1 < m.Low && m.Low < m.Value && m.Value < m.High && m.High < 5) {
		t.Errorf("%+v", m)
	}
	test := task.Comparisons[0].Tests[0] // rows 0, 1 and 4: 1 2 1 and 4 2 3
	if test.Metric != MarkMetric || test.Rows != 3 || math.Abs(float64(test.Difference)-5.0/3) > 1e-12 || test.PMcNemar != nil {
		t.Errorf("%+v", test)
	}
	// "good 2 " of both to row 1 is one question; two answers are asked about twice.
	j := res.Judge
	if j.Questions != 9 || j.Again != 2 || a.asked != 11 || j.PromptTokens != 1100 || j.CompletionTokens != 110 || j.Replies["judge-1"] != 11 || *j.Temperature != 0 {
		t.Errorf("%d asked, %+v", a.asked, j)
	}
	if g := j.Gains[0]; g.System != "tuned" || g.Over != "base" || g.Before != 1.5 || g.After != 3.5 || math.Abs(float64(g.Relative)-4.0/3) > 1e-12 || j.Published != nil {
		t.Errorf("%+v, %v: the task is a user's", g, j.Published)
	}
	var table bytes.Buffer
	if err := res.Text(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"system  judge              rougeL", "base    1.50 [1.00, 2.00]  ", "base, marks 1 to 5: 2 2 0 0 0; unjudged 1\n", "tuned, marks 1 to 5: 0 1 1 1 1; unjudged 1\n",
		"tuned - base: +1.67 [+0.00, +3.00], p ", ", of the 3 rows where both have a mark", "judge: j, rubric built-in (" + judge.BuiltIn().ID() + "), temperature 0: 9 questions, 2 of them twice; 1,100 tokens",
		"tuned over base: mean mark 3.50 after 1.50, +133.3 % (notes (dev))", "note: notes: 1 of the 5 answers of base are unjudged",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &table)
		}
	}
	raw := string(read(t, o, ReportFile))
	page := html.UnescapeString(raw)
	for _, want := range []string{"judge, mean mark from 1 to 5", "The judge's marks", "mark 4: <b>it</b> is good 4", `unjudged: no line of it begins with "Mark:"`, "+133.3 %", "3 rows with both marks"} {
		if !strings.Contains(page, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(raw, "<b>it</b>") {
		t.Error("a reason is markup")
	}
	lines := strings.Split(strings.TrimSpace(string(read(t, o, verdictsFile))), "\n")
	var v verdict
	if err := json.Unmarshal([]byte(lines[2]), &v); err != nil || len(lines) != 10 || v.Mark != nil || v.ID != "note-2" || v.System != "base" || len(v.Requests) != 2 || v.Prompt != 200 {
		t.Errorf("%v, %d lines, %+v", err, len(lines), v)
	}
}

// gone is a judge that is not there any more after so many replies.
type gone struct {
	asker
	after int
}

func (g *gone) Ask(ctx context.Context, r ask.Request) (ask.Answer, error) {
	if g.asked == g.after {
		return ask.Answer{}, errors.New("no such host")
	}
	return g.asker.Ask(ctx, r)
}

// Who pays for replies is told that those which there are stay.
func TestJudgeGone(t *testing.T) {
	o := judged(t, &asker{reply: good}, notesSource(t, 3), []int{1, 2, 3}, []int{4, 4, 4})
	for _, after := range []int{0, 2} {
		o.Judge.Model = &gone{asker{reply: good}, after}
		_, err := Run(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "no such host") || strings.Contains(err.Error(), "has the 2 replies so far, and the same command goes on") != (after > 0) {
			t.Errorf("after %d: %v", after, err)
		}
	}
	o.Judge.Model = &gone{asker{reply: good}, 4}
	mustRun(t, o)
}

// A prompt that was too long to be asked has no answer to be marked: it is unjudged, which is told with the reason.
func TestJudgeTooLong(t *testing.T) {
	a := &asker{reply: good}
	o := judged(t, a, notesSource(t, 3), []int{1, 2, 0}, []int{4, 4, 4})
	text, err := os.ReadFile(o.Predictions[0])
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"id": "note-0", "answer": "good 1 "`), []byte(`"id": "note-0", "answer": "", "finish": "too_long"`), 1)
	o.Predictions = []string{write(t, "answers.jsonl", string(text))}
	res := mustRun(t, o)
	s := res.Tasks[0].Scores[0]
	if a.asked != 6 || s.Metrics[0].Value != 2 || *s.Marks != (Marks{1, 2, [5]int{0, 1}}) || res.Tasks[0].Comparisons[0].Tests[0].Rows != 1 {
		t.Errorf("%d asked, %+v, %+v", a.asked, s, s.Marks)
	}
	for _, want := range []string{
		"notes: 1 of the 3 prompts are longer than base has positions: they were not asked, and count as invalid, and as unjudged",
		"notes: 1 of the 3 answers of base are unjudged, since no mark could be read of the judge's replies; they are in no figure of the judge",
	} {
		if !slices.Contains(res.Warnings, want) {
			t.Errorf("no warning %q in %q", want, res.Warnings)
		}
	}
	line, _, _ := strings.Cut(string(read(t, o, verdictsFile)), "\n")
	if line != `{"task":"notes","id":"note-0","system":"base","mark":null,"fault":"not asked: the prompt is too long","requests":[],"model":"","prompt_tokens":0,"completion_tokens":0}` {
		t.Error(line)
	}
}

// The marks of a journal are those of the judge, to the byte, and nobody is asked; other answers need the judge.
func TestJudgeReplay(t *testing.T) {
	a := &asker{reply: good}
	o := judged(t, a, notesSource(t, 3), []int{1, 0, 3}, []int{4, 5, 3})
	o.Judge.NoTemperature = true
	mustRun(t, o)
	asked := a.asked
	again := o
	again.Out = filepath.Join(t.TempDir(), "again")
	again.Judge = &judge.Options{Journal: filepath.Join(o.Out, JudgeJournal)}
	mustRun(t, again)
	for _, name := range []string{ResultsFile, ReportFile, verdictsFile} {
		if diff := cmp.Diff(string(read(t, o, name)), string(read(t, again, name))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	more := judged(t, a, notesSource(t, 3), []int{1, 2, 3}, []int{4, 5, 3})
	more.Judge = again.Judge
	if _, err := Run(t.Context(), more); err == nil || !strings.Contains(err.Error(), "has no reply to the question about row note-1 of notes; a run with a judge asks it") {
		t.Error(err)
	}
	if a.asked != asked {
		t.Errorf("%d questions", a.asked-asked)
	}
	// Another judge is refused before anybody is asked anything.
	other := again
	other.Judge = &judge.Options{Settings: judge.Settings{Model: "k", Rubric: judge.BuiltIn()}, Model: a, Ask: ask.Defaults(), Journal: again.Judge.Journal}
	other.Predictions, other.Systems = nil, []System{{Name: "m", Model: "nowhere"}}
	if _, err := Run(t.Context(), other); err == nil || !strings.Contains(err.Error(), `the judge "j" with`) || !strings.Contains(err.Error(), `is "k" with`) {
		t.Error(err)
	}
}

// Answers of a run are judged when a judge comes later, without being made again, and a run whose judge fails goes on.
func TestJudgeLater(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	res := mustRun(t, o)
	if res.Judge != nil || res.Tasks[1].Main != "rougeL" || !strings.Contains(strings.Join(res.Warnings, "\n"), "notes: not judged: the task asks for the marks of a judge, and there is none; rougeL stands first") {
		t.Errorf("%+v", res)
	}
	before := read(t, o, predictionsFile)
	plain := read(t, o, ResultsFile)

	ctx, stop := context.WithCancel(t.Context())
	a := &asker{}
	a.reply = func(string) string {
		if a.asked == 3 {
			stop()
		}
		return "Mark: 2"
	}
	o.Judge = &judge.Options{Settings: judge.Settings{Model: "j", Rubric: judge.BuiltIn()}, Model: a, Ask: ask.Defaults()}
	o.Judge.Ask.Concurrency = 1
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	res = mustRun(t, o)
	m, _ := res.Tasks[1].Scores[0].Metric(MarkMetric)
	if res.Tasks[1].Main != MarkMetric || m.Value != 2 || a.asked != res.Judge.Questions || res.Tasks[0].Scores[0].Marks != nil || res.Judge.Gains != nil {
		t.Errorf("%d asked, %+v", a.asked, res.Judge)
	}
	if !bytes.Equal(before, read(t, o, predictionsFile)) {
		t.Error("the answers were made again")
	}
	o.Judge = nil
	mustRun(t, o)
	if _, err := os.Stat(filepath.Join(o.Out, verdictsFile)); !errors.Is(err, os.ErrNotExist) || !bytes.Equal(plain, read(t, o, ResultsFile)) {
		t.Error("verdicts are left of a run with a judge:", err)
	}
}

// The paper's gain stands beside the gain in tasks that may be the paper's, and nowhere else.
func TestPublishedMarks(t *testing.T) {
	row := func(split, task string) string { return rowLine("Answer.", "A cough.", "Rest.", task, split, "note-0") }
	for name, c := range map[string]struct {
		task, rows string
		set        func(*Options)
		shown      bool
	}{
		"theirs":        {"icliniq", row("test", "icliniq"), nil, true},
		"no split":      {"icliniq", row("", "icliniq"), nil, false},
		"another task":  {"icliniq", row("test", "x"), nil, false},
		"another group": {"pmc-llama", row("test", "pmc-llama"), nil, false},
		"not the nine":  {"aci-bench", row("test", "aci-bench"), nil, false},
		"some rows":     {"icliniq", row("test", "icliniq"), func(o *Options) { o.Where = where(t, `id == "note-0"`) }, false},
	} {
		s, err := LoadSource(c.task, write(t, "rows.jsonl", c.rows))
		if err != nil {
			t.Fatal(err)
		}
		o := judged(t, &asker{reply: good}, s, []int{2}, []int{3})
		if c.set != nil {
			c.set(&o)
		}
		res := mustRun(t, o)
		var text bytes.Buffer
		if err := res.Text(&text); err != nil {
			t.Fatal(err)
		}
		const want = "published: BioInstruct, GEN, mean score of GPT-4 as a judge +96.0 % over the base model (value [F] read; which tasks: [I] inferred; split [N] not found); another judge, another prompt"
		for _, where := range []string{text.String(), html.UnescapeString(string(read(t, o, ReportFile)))} {
			if got := strings.Contains(where, want); got != c.shown {
				t.Errorf("%s: shown %v in\n%s", name, got, &text)
			}
		}
		if c.shown && (res.Tasks[0].Main != MarkMetric || !strings.Contains(text.String(), "mean mark 3.00 after 2.00, +50.0 % (icliniq (test))")) {
			t.Errorf("%s", &text)
		}
	}
}

// A system whose answers are all unjudged has no mean, and no test.
func TestUnjudged(t *testing.T) {
	o := judged(t, &asker{reply: good}, notesSource(t, 2), []int{0, 0}, []int{4, 5})
	res := mustRun(t, o)
	var text bytes.Buffer
	if err := res.Text(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "- [-, -]") || !strings.Contains(text.String(), "mean mark 4.50 after -, -") || res.Tasks[0].Comparisons[0].Tests[0].Metric == MarkMetric {
		t.Errorf("%s", &text)
	}
	if !bytes.Contains(read(t, o, ResultsFile), []byte(`"value": null`)) {
		t.Error("the mean is not null")
	}

	o = base(t)
	o.Sources = o.Sources[:1]
	o.Systems = []System{{Name: "m", Model: "nowhere"}}
	o.Judge = &judge.Options{}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "there is a judge, and no task has judge among its metrics") {
		t.Error(err)
	}
}
