package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/filelock"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/testdata/demo"
)

var update = flag.Bool("update", false, "write testdata/schema.txt anew")

// demoModel writes the demo's model.
func demoModel(t *testing.T) string {
	t.Helper()
	dir, _, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// adapter makes an adapter of the demo's model that changes its answers.
func adapter(t *testing.T, base string, seed uint64) string {
	t.Helper()
	m, err := model.Open(base, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c := lora.Defaults()
	c.InitLoraWeights, c.Seed, c.LoraAlpha = lora.Random, seed, 400
	a, err := lora.Inject(m, c)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("adapter%d", seed))
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// rowLine is a line of a file of rows.
func rowLine(instruction, input, output, task, split, id string) string {
	text, err := json.Marshal(map[string]string{"instruction": instruction, "input": input, "output": output, "task": task, "split": split, "id": id})
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}

// questions are n rows with a label, of a split.
func questions(n int, split string) string {
	var b strings.Builder
	drugs := []string{"metformin", "sertraline", "amoxicillin", "budesonide", "ibuprofen"}
	for i := range n {
		gold := []string{"yes", "no"}[i%2]
		b.WriteString(rowLine("Is the drug named?", fmt.Sprintf("She takes %s %d mg once a day.", drugs[i%len(drugs)], 10*i+10), gold, "named", split, fmt.Sprintf("%s-%d", split, i)))
	}
	return b.String()
}

// notes are n rows to be answered in free text. One has markup.
func notes(n int) string {
	var b strings.Builder
	for i := range n {
		input := fmt.Sprintf("He was diagnosed with asthma in %d.", 1990+i)
		if i == 1 {
			input = "<script>alert('x')</script> & \u202e"
		}
		b.WriteString(rowLine("Which diagnosis does the text give?", input, "Diagnosis: asthma", "notes", "dev", fmt.Sprint("note-", i)))
	}
	return b.String()
}

var (
	named = medtuned.Task{Name: "named", Category: "IE", Metrics: []string{"accuracy"}, Parser: "label", Labels: []string{"yes", "no"},
		MaxNewTokens: 6, Shape: "own", Instructions: []string{"Is the drug named?"}}
	noted = medtuned.Task{Name: "notes", Category: "GEN", Metrics: []string{"judge", "rougeL"}, Parser: "text",
		MaxNewTokens: 12, Shape: "own", Instructions: []string{"Which diagnosis does the text give?"}}
)

// base are options for both tasks, without who answers.
func base(t *testing.T) Options {
	o := Defaults()
	o.Out = filepath.Join(t.TempDir(), "out")
	o.BatchSize, o.Likelihood = 4, true
	o.Bootstrap.Resamples = 200
	o.Sources = []Source{
		{Task: named, Files: []string{write(t, "named.jsonl", questions(10, "test"))}},
		{Task: noted, Files: []string{write(t, "notes.jsonl", notes(6))}},
	}
	return o
}

func mustRun(t *testing.T, o Options) *Results {
	t.Helper()
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func read(t *testing.T, o Options, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.Out, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A run whose answers end anywhere goes on to the same files.
func TestResume(t *testing.T) {
	dir := demoModel(t)
	for name, set := range map[string]func(*Options){
		"greedy":   func(*Options) {},
		"sampling": func(o *Options) { o.Temperature, o.TopP = 1.5, 0.9 },
		"beams":    func(o *Options) { o.Beams = 4 },
		"shots": func(o *Options) {
			o.Shots, o.Sources = 2, o.Sources[:1]
			o.Sources[0].ShotFiles = []string{write(t, "shots.jsonl", questions(8, "train"))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := base(t)
			o.Systems = []System{{Name: "demo", Model: dir}}
			set(&o)
			mustRun(t, o)
			want := map[string][]byte{}
			for _, name := range []string{predictionsFile, ResultsFile, ReportFile, runFile} {
				want[name] = read(t, o, name)
			}
			whole := want[predictionsFile]
			for _, n := range []int{0, 1, len(whole) / 3, len(whole) / 2, bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1, len(whole) - 1, len(whole)} {
				if err := os.WriteFile(filepath.Join(o.Out, predictionsFile), whole[:n], 0o666); err != nil {
					t.Fatal(err)
				}
				os.Remove(filepath.Join(o.Out, ResultsFile))
				asked := 0
				o.Progress = func(p Progress) { asked = p.Done - p.Resumed }
				mustRun(t, o)
				for name, text := range want {
					if !bytes.Equal(text, read(t, o, name)) {
						t.Errorf("%s differs after %d of %d bytes", name, n, len(whole))
					}
				}
				if again := asked > 0; again != (n < len(whole)) {
					t.Errorf("after %d of %d bytes: %d rows were asked", n, len(whole), asked)
				}
			}
		})
	}
}

// Nothing but a row and the settings changes an answer or a likelihood, to the bit: neither the size of batches nor threads,
// memory, an interruption at another size, the order of the rows, or which of them are asked.
func TestBatchesChangeNothing(t *testing.T) {
	dir := demoModel(t)
	for name, set := range map[string]func(*Options){
		"greedy":   func(*Options) {},
		"sampling": func(o *Options) { o.Temperature, o.TopP = 1.5, 0.9 },
		"beams":    func(o *Options) { o.Beams, o.LengthPenalty = 3, 0.5 },
		"shots": func(o *Options) {
			o.Shots, o.Sources = 2, o.Sources[:1]
			o.Sources[0].ShotFiles = []string{write(t, "shots.jsonl", questions(8, "train")+questions(3, "test"))}
		},
	} {
		o := base(t)
		o.Systems = []System{{Name: "demo", Model: dir}}
		o.Sources[0].Files = []string{write(t, "more.jsonl", questions(14, "test"))}
		set(&o)
		mustRun(t, o)
		want := map[string]Answer{}
		for _, a := range answersOf(t, o) {
			want[a.Task+a.ID] = a
		}
		check := func(what string, o Options, n int) {
			t.Helper()
			got := answersOf(t, o)
			if len(got) != n {
				t.Errorf("%s, %s: %d answers, want %d", name, what, len(got), n)
			}
			for _, a := range got {
				if d := cmp.Diff(want[a.Task+a.ID], a); d != "" {
					t.Errorf("%s, %s: %s", name, what, d)
				}
			}
		}
		for _, c := range []struct{ size, threads int }{{1, 3}, {3, 1}, {16, 2}} {
			p := o
			p.Out, p.BatchSize, p.Model.Threads = filepath.Join(t.TempDir(), "out"), c.size, c.threads
			mustRun(t, p)
			check(fmt.Sprintf("%+v", c), p, len(want))
		}
		p := o
		p.Out, p.Limit = filepath.Join(t.TempDir(), "out"), 5
		mustRun(t, p)
		check("a limit", p, 5*len(p.Sources))
		p = o
		p.Out, p.Sources = filepath.Join(t.TempDir(), "out"), slices.Clone(o.Sources)
		lines := strings.SplitAfter(strings.TrimSpace(questions(14, "test"))+"\n", "\n")
		slices.Reverse(lines)
		p.Sources[0].Files = []string{write(t, "reversed.jsonl", strings.Join(lines, ""))}
		mustRun(t, p)
		check("another order", p, len(want))
		whole := read(t, o, predictionsFile)
		if err := os.WriteFile(filepath.Join(o.Out, predictionsFile), whole[:len(whole)/2], 0o666); err != nil {
			t.Fatal(err)
		}
		o.BatchSize = 7
		mustRun(t, o)
		if !bytes.Equal(read(t, o, predictionsFile), whole) {
			t.Errorf("%s: a run that goes on at another size has other answers", name)
		}
	}
}

// Where there is little memory fewer rows are answered together, which is told; where there is none for one, that is said
// before anybody is asked.
func TestLittleMemory(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems, o.BatchSize, o.Perplexity, o.Likelihood = []System{{Name: "demo", Model: dir}}, 4096, false, false
	o.Sources, o.MaxNewTokens = o.Sources[1:], 4000
	o.Sources[0].Files = []string{write(t, "many.jsonl", notes(40))}
	o.Stop = []string{"e"} // nobody waits for 4000 tokens
	mustRun(t, o)
	want := read(t, o, predictionsFile)
	m, err := model.Open(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	room, err := m.Fit([][]int32{slices.Repeat([]int32{1}, 200)}, &model.GenerateOptions{MaxNewTokens: 4000})
	if err := errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	told := ""
	for _, limit := range []int64{8, 16, 32, 64} { // what else the test's process holds is not known
		p := o
		p.Out, p.Model.MemoryLimit = filepath.Join(t.TempDir(), "out"), limit*room.Each
		p.Progress = func(x Progress) { told += x.Note }
		_, err := Run(t.Context(), p)
		if err != nil {
			if !strings.Contains(err.Error(), "demo: notes, rows from note-0 on: the keys and values of a prompt of up to") {
				t.Fatal(err)
			}
			continue
		}
		if !bytes.Equal(read(t, p, predictionsFile), want) {
			t.Error("with little memory there are other answers")
		}
		if told != "" {
			break
		}
	}
	if !strings.Contains(told, " rows are answered together, not 40: the keys and values of one take up to ") {
		t.Errorf("it says %q", told)
	}
	o.Out, o.Model.MemoryLimit = filepath.Join(t.TempDir(), "out"), 1<<20
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "take ") || !strings.Contains(err.Error(), "and there is room for 0 bytes (of the memory limit of 1.00 MiB)") {
		t.Error(err)
	}
}

// A limit takes a sample that the seed makes, of each label its share, the same for all systems; how many of how many is
// shown.
func TestSample(t *testing.T) {
	var sorted strings.Builder
	for i := range 60 {
		gold := "yes"
		if i >= 45 {
			gold = "No."
		}
		sorted.WriteString(rowLine("Is the drug named?", fmt.Sprint("text ", i), gold, "named", "test", fmt.Sprint(i)))
	}
	file := write(t, "sorted.jsonl", sorted.String())
	keys := func(seed uint64, limit int, task medtuned.Task) (keys []string, x *set) {
		t.Helper()
		o := base(t)
		o.Sources = []Source{{Task: task, Files: []string{file}}}
		o.Seed, o.Limit = seed, limit
		sets, err := o.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range sets[0].rows {
			keys = append(keys, r.key)
		}
		return keys, sets[0]
	}
	for limit, want := range map[int]int{4: 3, 20: 15, 21: 16, 22: 16, 59: 44} {
		got, x := keys(42, limit, named)
		yes := 0
		for _, r := range x.rows {
			if r.Output == "yes" {
				yes++
			}
		}
		if len(got) != limit || yes != want || x.of != 60 || !x.byLabel || !x.partial {
			t.Errorf("%d of 60: %d rows, %d of them yes, want %d; %+v", limit, len(got), yes, want, x)
		}
		if !slices.IsSortedFunc(x.rows, func(a, b row) int { return len(a.key) - len(b.key) }) {
			t.Errorf("the rows are in another order than in the file: %v", got)
		}
	}
	one, _ := keys(1, 20, named)
	again, _ := keys(1, 20, named)
	other, _ := keys(2, 20, named)
	if !slices.Equal(one, again) || slices.Equal(one, other) {
		t.Error("the sample is not the seed's")
	}
	if _, x := keys(1, 60, named); x.of != 0 || x.partial {
		t.Errorf("all rows are no sample: %+v", x)
	}
	free, x := keys(1, 20, noted)
	if x.byLabel || len(free) != 20 || free[0] == "0" && free[19] == "19" {
		t.Errorf("%v", free)
	}
	o := base(t)
	o.Sources, o.Limit = []Source{{Task: named, Files: []string{file}}}, 20
	var answers strings.Builder
	for i := range 60 {
		fmt.Fprintf(&answers, `{"id": "%d", "answer": "yes"}`+"\n", i)
	}
	o.Predictions = []string{write(t, "a.jsonl", answers.String())}
	res := mustRun(t, o)
	if m, _ := res.Tasks[0].Scores[0].Metric("accuracy"); m.Value != 0.75 || *res.Tasks[0].Sample != (Sample{60, 42, true}) {
		t.Errorf("%+v", res.Tasks[0])
	}
	var text bytes.Buffer
	if err := res.Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"named (IE), test, 20 of 60 rows, seed 42, 95 %", "note: named: 20 of 60 rows, chosen label by label with seed 42"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	if !bytes.Contains(read(t, o, ReportFile), []byte("IE, test, 20 of 60 rows, seed 42")) {
		t.Error("the report does not say how many of how many rows")
	}
}

// What is wrong with the rows is wrong with a sample of them, too, be it in it or not.
func TestSampleOfWrongRows(t *testing.T) {
	for want, wrong := range map[string]string{
		"several splits (dev: 1, test: 60)":          rowLine("Is the drug named?", "x", "yes", "named", "dev", "dev-0"),
		"1 of the 61 rows say that they are of anot": rowLine("Is the drug named?", "x", "yes", "other", "test", "other-0"),
		`two rows have the id "test-0"`:              rowLine("Is the drug named?", "x", "yes", "named", "test", "test-0"),
	} {
		o := base(t)
		o.Sources, o.Limit = []Source{{Task: named, Files: []string{write(t, "q.jsonl", questions(60, "test")+wrong)}}}, 1
		o.Systems = []System{{Name: "demo", Model: demoModel(t)}}
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// A prompt that leaves no position for an answer is not asked, and counts as invalid; one that leaves few gets few tokens.
func TestTooLong(t *testing.T) {
	dir := demoModel(t)
	config, _, err := model.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	o.Sources = o.Sources[:1]
	m, err := model.Open(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// "a a a ...": as many words as tokens, but for some at the ends.
	long := func(words int) string { return strings.TrimSpace(strings.Repeat("a ", words)) }
	rows := questions(3, "test")
	for i, words := range []int{2 * config.MaxPositionEmbeddings, config.MaxPositionEmbeddings - 60} {
		rows += rowLine("Is the drug named?", long(words), "yes", "named", "test", fmt.Sprint("long-", i))
	}
	o.Sources[0].Files, o.MaxNewTokens = []string{write(t, "q.jsonl", rows)}, 200
	res := mustRun(t, o)
	all := answersOf(t, o)
	s := res.Tasks[0].Scores[0]
	if a := all[3]; a.Finish != tooLong || a.Answer != "" || a.Tokens != 0 || a.Gold != nil || a.Prompt < config.MaxPositionEmbeddings {
		t.Errorf("%+v", a)
	}
	if a := all[4]; a.Finish == tooLong || a.Gold == nil || a.Prompt+a.Tokens > config.MaxPositionEmbeddings || a.Prompt < config.MaxPositionEmbeddings-150 {
		t.Errorf("%+v", a)
	}
	if s.Finish[tooLong] != 1 || s.Invalid < 1 || s.Perplexity == nil || len(s.Likelihood) != 3 ||
		!slices.Contains(s.Errors, ErrorKind{"not asked: the prompt is too long", 1}) ||
		!slices.Contains(res.Warnings, "named: 1 of the 5 prompts are longer than demo has positions: they were not asked, and count as invalid") {
		t.Errorf("%+v %q", s, res.Warnings)
	}
	o.Out, o.Where = filepath.Join(t.TempDir(), "only"), where(t, `id == "long-0"`)
	if s := mustRun(t, o).Tasks[0].Scores[0]; s.Invalid != 1 || s.Perplexity != nil || len(s.Likelihood) != 0 {
		t.Errorf("%+v", s)
	}
}

// Splits have other names elsewhere; those that nobody knows are told.
func TestSplitNames(t *testing.T) {
	o := base(t)
	o.Sources = o.Sources[:1]
	o.Sources[0].Files = []string{write(t, "q.jsonl", questions(2, "validation")+questions(3, "Devel")+questions(4, "fold-1"))}
	o.Split = "dev"
	var answers strings.Builder
	for i := range 3 {
		fmt.Fprintf(&answers, `{"id": "validation-%d", "answer": "yes"}`+"\n"+`{"id": "Devel-%d", "answer": "yes"}`+"\n", i, i)
	}
	o.Predictions = []string{write(t, "a.jsonl", answers.String())}
	res := mustRun(t, o)
	if res.Tasks[0].Split != "dev" || res.Tasks[0].Rows != 5 ||
		!slices.Contains(res.Warnings, `named: 4 rows of the files are of the split "fold-1", which is none of train, dev (or validation) and test`) {
		t.Errorf("%+v %q", res.Tasks[0], res.Warnings)
	}
}

// Metrics that are the same by definition are one column.
func TestTwins(t *testing.T) {
	entity := func(kinds int) *Task {
		task := &Task{Parser: "tags", Main: "f1", Metrics: []string{"f1", "macro_f1", "strict_f1", "repository_f1", "repository_macro_f1"}, Scores: []Score{{}}}
		for _, name := range task.Metrics {
			task.Scores[0].Metrics = append(task.Scores[0].Metrics, Metric{Name: name})
		}
		task.Scores[0].Classes = make([]Class, kinds)
		return task
	}
	if got, want := entity(1).columns(), []string{"f1", "strict_f1", "repository_f1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := entity(2).columns(); len(got) != 5 {
		t.Errorf("%v", got)
	}
	label := &Task{Parser: "label", Main: "micro_f1", Metrics: []string{"micro_f1", "accuracy", "macro_f1"}, Scores: []Score{{Metrics: []Metric{{Name: "accuracy"}, {Name: "micro_f1"}, {Name: "macro_f1"}}}}}
	if got, want := label.columns(), []string{"micro_f1", "macro_f1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Existing answers get the scores that they got in their run.
func TestPredictions(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	ran := mustRun(t, o)
	again := base(t)
	again.Sources = o.Sources
	again.Predictions = []string{filepath.Join(o.Out, predictionsFile)}
	got := mustRun(t, again)
	for i := range ran.Tasks {
		if diff := cmp.Diff(ran.Tasks[i].Scores, got.Tasks[i].Scores); diff != "" {
			t.Error(diff)
		}
	}
	if got.Systems[0].Name != "demo" || got.Generation != nil || got.Tasks[0].Scores[0].Perplexity == nil || len(got.Tasks[0].Scores[0].Likelihood) != 3 {
		t.Errorf("%+v", got)
	}
	again.Sources = again.Sources[:1]
	again.Overwrite = true
	var theirs strings.Builder
	for i := range 10 {
		fmt.Fprintf(&theirs, `{"id": "test-%d", "prediction": "%s", "more": 1}`+"\n", i, []string{"Yes.", "I cannot tell", "The answer is yes"}[i%3])
	}
	again.Predictions = []string{write(t, "theirs.jsonl", strings.TrimSuffix(theirs.String(), "\n"))}
	s := mustRun(t, again).Tasks[0].Scores[0]
	m, _ := s.Metric("accuracy")
	// Valid are 0 2 3 5 6 8 9, all of them yes, which is right for even ones.
	if s.System != "theirs" || s.Invalid != 3 || m.Value != 0.4 {
		t.Errorf("%+v", s)
	}
	// The same in other forms of files.
	lines := strings.Split(strings.TrimSpace(theirs.String()), "\n")
	table := "id,prediction\n"
	for i := range lines {
		table += fmt.Sprintf("test-%d,%s\n", i, []string{"Yes.", "I cannot tell", "The answer is yes"}[i%3])
	}
	for name, text := range map[string]string{
		"array.json": "[" + strings.Join(lines, ",\n") + "]", "bom.jsonl": "\uFEFF" + strings.Join(lines, "\r\n"), "table.csv": table,
	} {
		again.Predictions = []string{write(t, name, text)}
		if other := mustRun(t, again).Tasks[0].Scores[0]; other.Invalid != 3 || other.Metrics[0] != s.Metrics[0] {
			t.Errorf("%s: %+v", name, other)
		}
	}
	for text, want := range map[string]string{
		`{"id": "test-0", "prediction": ["yes"]}`:                    `wrong.jsonl:1: the field "prediction": expected a string, got: array`,
		`{"id": "test-0", "answer": "a", "gold": {"tokens": "3"}}`:   `wrong.jsonl:1: the field "gold.tokens": expected a number, got: string`,
		`{"id": "test-0", "output": "yes"}`:                          `wrong.jsonl:1: it has neither answer nor prediction, but "id", "output"`,
		"{\"id\": \"test-0\", \"prediction\": \"a\"}\n[1]":           `wrong.jsonl:2: expected a JSON object, got "[1]"`,
		"{\"id\": \"test-0\", \"prediction\": \"a\"}\n{\"id\": \"te": "wrong.jsonl:2: byte 10 of the row: ",
	} {
		again.Predictions = []string{write(t, "wrong.jsonl", text)}
		if _, err := Run(t.Context(), again); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// Systems that share a model are asked as each would be alone.
func TestSideBySide(t *testing.T) {
	dir := demoModel(t)
	one, two := adapter(t, dir, 1), adapter(t, dir, 2)
	all := []System{{Name: "base", Model: dir}, {Name: "one", Model: dir, Adapter: one}, {Name: "two", Model: dir, Adapter: two}}
	o := base(t)
	o.Systems = all
	res := mustRun(t, o)
	var alone []byte
	var answers []string
	for _, s := range all {
		single := base(t)
		single.Sources, single.Systems = o.Sources, []System{s}
		mustRun(t, single)
		text := read(t, single, predictionsFile)
		answers = append(answers, strings.ReplaceAll(string(text), s.Name, ""))
		alone = append(alone, text...)
	}
	if diff := cmp.Diff(string(alone), string(read(t, o, predictionsFile))); diff != "" {
		t.Error(diff)
	}
	if answers[0] == answers[1] || answers[1] == answers[2] {
		t.Error("the adapters change nothing")
	}
	if len(res.Tasks[0].Scores) != 3 || len(res.Tasks[0].Comparisons) != 2 || res.Tasks[0].Comparisons[1].B != "two" {
		t.Errorf("%+v", res.Tasks[0])
	}
}

// The report is well-formed, needs nothing from elsewhere, and has no text of a row as markup.
func TestReport(t *testing.T) {
	o := base(t)
	var answers strings.Builder
	for i := range 6 {
		for _, system := range []string{"a", "b<i>"} {
			fmt.Fprintf(&answers, `{"system": %q, "task": "notes", "id": "note-%d", "answer": "</td><script>alert(1)</script>\u001b[2J asthma %s"}`+"\n", system, i, system)
		}
	}
	o.Sources = o.Sources[1:]
	o.Predictions = []string{write(t, "a.jsonl", answers.String())}
	mustRun(t, o)
	text := read(t, o, ReportFile)
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if slices.Contains([]string{"script", "link", "img", "iframe", "i"}, e.Name.Local) {
			t.Errorf("the report has the element %s", e.Name.Local)
		}
		for _, a := range e.Attr {
			if (a.Name.Local == "src" || a.Name.Local == "href") || strings.HasPrefix(a.Name.Local, "on") {
				t.Errorf("the report has %s=%q", a.Name.Local, a.Value)
			}
		}
	}
	for _, want := range []string{"&lt;script&gt;alert(&#39;x&#39;)", "&lt;/td&gt;", "<svg", "b&lt;i&gt;", "note-5", "6 of 6 rows"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the report lacks %s", want)
		}
	}
	if bytes.ContainsAny(text, "\u202e\x1b") {
		t.Error("the report has characters that steer")
	}
}

// Examples are never the row's own question, and all come in a fixed order.
func TestShots(t *testing.T) {
	dir := demoModel(t)
	own := questions(6, "test")
	o := base(t)
	o.Sources = o.Sources[:1]
	o.Sources[0].Files = []string{write(t, "q.jsonl", own)}
	o.Sources[0].ShotFiles = []string{write(t, "shots.jsonl", own)} // the same rows
	o.Shots = 5
	o.Systems = []System{{Name: "demo", Model: dir}}
	sets, err := o.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := sets[0]
	p, err := (&run{Options: o, sets: sets}).prompter(o.Systems[0], nil, x)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range x.rows {
		text, err := p.text(t.Context(), row)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(text, row.Input); n != 1 {
			t.Errorf("row %s is in its prompt %d times", row.key, n)
		}
		if n := strings.Count(text, "### Response:\n"); n != 6 || !strings.HasSuffix(text, row.Input+"\n\n### Response:\n") {
			t.Errorf("a prompt of %d parts:\n%s", n, text)
		}
		for _, other := range x.rows {
			if other.key != row.key && !strings.Contains(text, other.Input+"\n\n### Response:\n"+other.Output+"\n\nBelow is") {
				t.Errorf("row %s lacks the example %s", row.key, other.key)
			}
		}
	}
	if got := p.stop(); !strings.HasPrefix(got, "\n\nBelow is an instruction that describes a task") {
		t.Errorf("stop string %q", got)
	}
	o.Shots = 6
	if _, err := o.read(t.Context()); err == nil || !strings.Contains(err.Error(), "there are 5 rows to take examples from, and 6 are wanted") {
		t.Error(err)
	}
	// From another split of the same file, by the task's own words.
	o.Sources[0].Files = []string{write(t, "both.jsonl", own+questions(6, "train"))}
	o.Sources[0].ShotFiles, o.Sources[0].Task.Shots, o.Sources[0].Task.ShotsSplit = nil, 2, "train"
	o.Shots, o.Split = -1, "test"
	if sets, err = o.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range sets[0].shotsFor(sets[0].rows[0], 2) {
		if s.Split != "train" {
			t.Errorf("an example of the split %s", s.Split)
		}
	}
}

// Prompts are the template's texts to generate from.
func TestPrompts(t *testing.T) {
	o := base(t)
	o.Sources = o.Sources[:1]
	sets, err := o.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"alpaca": "Below is an instruction that describes a task, paired with an input that provides further context. " +
			"Write a response that appropriately completes the request.\n\n### Instruction:\nIs the drug named?\n\n" +
			"### Input:\nShe takes metformin 10 mg once a day.\n\n### Response:\n",
		"medtuned": "### Instruction:\nIs the drug named?\n\n### Input:\nShe takes metformin 10 mg once a day.\n\n### Output:\n",
	} {
		p, err := (&run{Options: o, sets: sets}).prompter(System{Template: name}, nil, sets[0])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.text(t.Context(), sets[0].rows[0]); got != want || err != nil {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

func TestChat(t *testing.T) {
	dir := demoModel(t)
	template := write(t, "chat.jinja", "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}")
	o := base(t)
	o.Sources = o.Sources[:1]
	o.Systems = []System{{Name: "demo", Model: dir, Template: "chat"}}
	o.ChatTemplate, o.SystemPrompt, o.Shots = template, "Be brief.", 1
	o.Sources[0].ShotFiles = []string{write(t, "shots.jsonl", questions(1, "train")+questions(1, "dev"))}
	o.Where = where(t, `id == "test-3"`)
	res := mustRun(t, o)
	if res.Tasks[0].Rows != 1 || res.Tasks[0].Shots != 1 {
		t.Errorf("%+v", res.Tasks[0])
	}
	sets, err := o.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := asking{run: &run{Options: o, sets: sets, backends: map[string]string{"demo": "x"}}}
	if err := a.open(t.Context(), "demo"); err != nil {
		t.Fatal(err)
	}
	defer a.close()
	p, err := a.prompter(o.Systems[0], a.tok, sets[0])
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.text(t.Context(), sets[0].rows[0])
	want := "<|begin_of_text|>[system] Be brief.\n[user] Is the drug named?\n\nShe takes metformin 10 mg once a day.\n[assistant] yes\n" +
		"[user] Is the drug named?\n\nShe takes budesonide 40 mg once a day.\n[assistant] "
	if got != want || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if bos, _ := a.tok.BOS(); p.tokens(got)[0] != bos || p.tokens(got)[1] == bos {
		t.Errorf("BOS is not there once: %v", p.tokens(got)[:3])
	}
}

func where(t *testing.T, text string) mix.Where {
	t.Helper()
	w, err := mix.ParseWhere(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A stop string ends an answer and is not part of it.
func TestStop(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	o.Sources, o.MaxNewTokens = o.Sources[1:], 24
	mustRun(t, o)
	free := answersOf(t, o)
	letter := "a"
	for _, beams := range []int{1, 3} {
		p := o
		p.Out, p.Stop, p.Beams = filepath.Join(t.TempDir(), "stop"), []string{letter, "\x00"}, beams
		mustRun(t, p)
		stopped := 0
		for i, a := range answersOf(t, p) {
			if strings.Contains(a.Answer, letter) {
				t.Errorf("%q goes on behind the stop string", a.Answer)
			}
			if a.Finish == "stop" {
				stopped++
			}
			if cut, _, found := strings.Cut(free[i].Answer, letter); beams == 1 && (cut != a.Answer || found != (a.Finish == "stop") || found && a.Tokens > free[i].Tokens) {
				t.Errorf("%+v is stopped as %+v", free[i], a)
			}
		}
		if stopped == 0 {
			t.Errorf("%d beams: no answer was stopped", beams)
		}
	}
}

func answersOf(t *testing.T, o Options) (list []Answer) {
	t.Helper()
	for line := range bytes.Lines(read(t, o, predictionsFile)) {
		var a Answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

// The figures of the papers are shown where task and split are theirs.
func TestPublished(t *testing.T) {
	row := func(split, task, id string) string {
		return rowLine("Compare.", "Sentence 1: a\nSentence 2: b", "Neutral", task, split, id)
	}
	for name, c := range map[string]struct {
		rows string
		set  func(*Options)
		n    int
	}{
		"theirs":        {rows: row("dev", "mednli", "0"), n: 3},
		"another split": {rows: row("test", "mednli", "0")},
		"no split":      {rows: row("", "mednli", "0")},
		"another task":  {rows: row("dev", "nli", "0")},
		"no task":       {rows: row("dev", "", "0")},
		"some rows":     {rows: row("dev", "mednli", "0") + row("dev", "mednli", "1"), set: func(o *Options) { o.Limit = 1 }},
		"mixed":         {rows: row("dev", "mednli", "0") + row("test", "mednli", "1"), set: func(o *Options) { o.MixedSplits = true }},
		"a user's task": {rows: row("dev", "mednli", "0"), set: func(o *Options) { o.Sources[0].BuiltIn = false }},
	} {
		o := base(t)
		s, err := LoadSource("mednli", write(t, "rows.jsonl", c.rows))
		if err != nil {
			t.Fatal(err)
		}
		o.Sources = []Source{s}
		o.Predictions = []string{write(t, "answers.jsonl", `{"id": "0", "answer": "Neutral"}`+"\n"+`{"id": "1", "answer": "Neutral"}`)}
		if c.set != nil {
			c.set(&o)
		}
		res := mustRun(t, o)
		if got := len(res.Tasks[0].Published); got != c.n {
			t.Errorf("%s: %d figures", name, got)
		}
		if c.n == 0 {
			continue
		}
		var text bytes.Buffer
		if err := res.Text(&text); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"mednli (IE), dev, 1 rows", "accuracy", "exact_match", "Llama2-MedTuned-13b, accuracy 89.46 (Llama2-MedTuned; value [F] read; here: exact_match; dev split, [C] computed); full fine-tuning",
			"published figures: [F] read in the paper"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %q in\n%s", want, &text)
			}
		}
		if !bytes.Contains(read(t, o, ReportFile), []byte("accuracy 89.46 (Llama2-MedTuned; value [F] read")) {
			t.Error("the report lacks the papers' figures")
		}
	}
}

// Options are compared by their likelihood in all, for each token, and for each byte.
func TestChoices(t *testing.T) {
	o := base(t)
	x := &set{Source: Source{Task: named}, rows: []row{{}}}
	x.rows[0].Output = "no"
	r := &run{Options: o}
	for _, c := range []struct {
		yes, no Likelihood
		want    [3]Number
	}{
		{Likelihood{-4, 1, 4}, Likelihood{-5, 2, 4}, [3]Number{0, 1, 0}},
		{Likelihood{-4, 1, 2}, Likelihood{-5, 1, 4}, [3]Number{0, 0, 1}},
		{Likelihood{-6, 3, 9}, Likelihood{-5, 1, 4}, [3]Number{1, 0, 0}},
	} {
		got, err := r.choices(x, []Answer{{Options: []Likelihood{c.yes, c.no}}})
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range got {
			if m.Value != c.want[i] {
				t.Errorf("%v %v: %s is %v", c.yes, c.no, m.Name, m.Value)
			}
		}
	}
}

// The likelihoods in predictions are those of the texts behind the prompts.
func TestLikelihoods(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Sources = o.Sources[:1]
	o.Systems = []System{{Name: "demo", Model: dir}}
	mustRun(t, o)
	sets, err := o.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := asking{run: &run{Options: o, sets: sets, backends: map[string]string{"demo": "x"}}}
	if err := a.open(t.Context(), "demo"); err != nil {
		t.Fatal(err)
	}
	defer a.close()
	p, err := a.prompter(o.Systems[0], a.tok, sets[0])
	if err != nil {
		t.Fatal(err)
	}
	eos, _ := a.tok.EOS()
	for i, answer := range answersOf(t, o) {
		text, err := p.text(t.Context(), sets[0].rows[i])
		if err != nil {
			t.Fatal(err)
		}
		prompt, b := p.tokens(text), &model.Batch{}
		ids := append(slices.Clone(prompt), append(a.tok.EncodeContinuation(sets[0].rows[i].Output), eos)...)
		b.Append(ids)
		for at := len(prompt); at < len(ids); at++ {
			b.Targets = append(b.Targets, model.Target{Row: int32(at - 1), Label: ids[at], Count: 1})
		}
		loss, err := a.model.Loss(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if got := -answer.Gold.LogLikelihood; answer.Gold.Tokens != len(ids)-len(prompt) || got < loss*0.999 || got > loss*1.001 {
			t.Errorf("row %d: %v nats for %d tokens, want %v for %d", i, got, answer.Gold.Tokens, loss, len(ids)-len(prompt))
		}
		if len(answer.Options) != 2 || answer.Options[i%2].Tokens != answer.Gold.Tokens-1 || answer.Options[i%2].LogLikelihood < answer.Gold.LogLikelihood {
			t.Errorf("row %d: %+v", i, answer)
		}
	}
}

// results.json has the keys that it has.
func TestSchema(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "base", Model: dir}, {Name: "tuned", Model: dir, Adapter: adapter(t, dir, 1)}}
	o.Sources[1].Files = o.Sources[1].Files[:1]
	s, err := LoadSource("mednli", write(t, "m.jsonl", rowLine("Compare.", "a", "Neutral", "mednli", "dev", "0")))
	if err != nil {
		t.Fatal(err)
	}
	g, err := LoadSource("icliniq", write(t, "g.jsonl", rowLine("Answer.", "A cough.", "Rest.", "icliniq", "test", "0")))
	if err != nil {
		t.Fatal(err)
	}
	o.Sources = append(o.Sources, s, g)
	o.Sources[1].Task.Category = "other" // so that all gains are in the paper's tasks
	marks := 0
	o.Judge = &judge.Options{Settings: judge.Settings{Model: "j", Rubric: judge.BuiltIn()}, Ask: ask.Defaults(), Model: &asker{reply: func(string) string {
		if marks++; marks == 1 {
			return ""
		}
		return "Mark: 2"
	}}}
	o.Judge.Ask.Concurrency = 1
	mustRun(t, o)
	keys := map[string]bool{}
	var tree any
	if err := json.Unmarshal(read(t, o, ResultsFile), &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, value := range v {
				if strings.HasSuffix(path, ".finish") || strings.HasSuffix(path, ".splits") || strings.HasSuffix(path, ".replies") {
					k = "*"
				}
				walk(path+"."+k, value)
			}
		case []any:
			for _, value := range v {
				walk(path+"[]", value)
			}
		default:
			keys[path] = true
		}
	}
	walk("", tree)
	var list []string
	for k := range keys {
		list = append(list, k)
	}
	slices.Sort(list)
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "schema.txt"), []byte(strings.Join(list, "\n")+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(filepath.Join("testdata", "schema.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), strings.Join(list, "\n")+"\n"); diff != "" {
		t.Error(diff)
	}
	var back Results
	if err := json.Unmarshal(read(t, o, ResultsFile), &back); err != nil || back.Schema != 1 || len(back.Tasks) != 4 {
		t.Errorf("%v %+v", err, back)
	}
}

func TestInterrupt(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o.Progress = func(p Progress) {
		if p.Done > 0 {
			stop()
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := len(answersOf(t, o)); n != o.BatchSize {
		t.Errorf("%d answers are left", n)
	}
	o.Progress = nil
	mustRun(t, o)
	// One that begins anew leaves nothing of the earlier one, were it stopped at once.
	for _, name := range []string{ReportFile, verdictsFile} {
		if err := os.WriteFile(filepath.Join(o.Out, name), []byte("of the earlier run"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop = context.WithCancel(t.Context())
	o.Overwrite, o.Progress = true, func(Progress) { stop() }
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, name := range []string{ResultsFile, ReportFile, verdictsFile} {
		if _, err := os.Lstat(filepath.Join(o.Out, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestWrong(t *testing.T) {
	dir := demoModel(t)
	answers := func(lines ...string) func(*Options) {
		return func(o *Options) {
			o.Systems, o.Sources = nil, o.Sources[:1]
			o.Sources[0].Files = []string{write(t, "q.jsonl", questions(2, "test"))}
			o.Predictions = []string{write(t, "p.jsonl", strings.Join(lines, "\n"))}
		}
	}
	with := func(text string) func(*Options) {
		return func(o *Options) { o.Sources[0].Files = []string{write(t, "rows.jsonl", text)} }
	}
	for name, c := range map[string]struct {
		set  func(*Options)
		want string
	}{
		"nobody":        {func(o *Options) { o.Systems = nil }, "there is neither a model nor a file of answers"},
		"both":          {func(o *Options) { o.Predictions = []string{"x"} }, "models are asked, or existing answers scored, not both"},
		"no task":       {func(o *Options) { o.Sources = nil }, "there is no task"},
		"beams":         {func(o *Options) { o.Beams, o.Temperature = 2, 1 }, "beams do not sample"},
		"top-k":         {func(o *Options) { o.TopK = 5 }, "at temperature 0 nothing is sampled"},
		"batch":         {func(o *Options) { o.BatchSize = 0 }, "a batch of 0 rows"},
		"resamples":     {func(o *Options) { o.Bootstrap.Resamples = 2_000_000_000 }, "2000000000 resamples: it must be 1 to"},
		"same name":     {func(o *Options) { o.Systems = append(o.Systems, o.Systems[0]) }, `two systems have the name "demo"`},
		"model":         {func(o *Options) { o.Systems[0].Model = filepath.Join(dir, "none") }, "none"},
		"adapter":       {func(o *Options) { o.Systems[0].Adapter = dir }, lora.ConfigFile},
		"template":      {func(o *Options) { o.Template = "alpacca" }, `template "alpacca" is neither built in`},
		"chat":          {func(o *Options) { o.SystemPrompt = "x" }, "demo: a chat template, a system prompt and a date are for the template chat, and the prompts are made with alpaca"},
		"chat template": {func(o *Options) { o.Template = "chat" }, "demo: the model has no chat template: name a file"},
		"rows":          {func(o *Options) { o.Sources[0].Files = []string{"nowhere.jsonl"} }, "nowhere.jsonl"},
		"bad row":       {with(questions(1, "test") + `{"instruction": "x"}` + "\n"), "rows.jsonl:2"},
		"gold":          {with(rowLine("a", "b", "maybe", "named", "test", "7")), `example 1 (id "7"): the gold answer "maybe" is none of the labels`},
		"twice":         {with(rowLine("a", "b", "yes", "named", "test", "7") + rowLine("a", "c", "no", "named", "test", "7")), `two rows have the id "7"`},
		"mixed":         {with(questions(1, "test") + questions(2, "dev")), "the rows are of several splits (dev: 2, test: 1): choose one"},
		"other task":    {with(questions(1, "test") + rowLine("a", "b", "yes", "x", "test", "8")), "1 of the 2 rows say that they are of another task"},
		"none left":     {func(o *Options) { o.Split = "train" }, "none of the 10 rows is left"},
		"options":       {func(o *Options) { o.Sources[0].Task.Parser, o.Sources[0].Task.Labels = "choice", nil }, "its input does not end in the lines of options"},
		"shots":         {func(o *Options) { o.Shots = 1 }, "1 examples: from which rows?"},
		"shots' split":  {func(o *Options) { o.Shots, o.ShotsSplit = 1, "test" }, "the examples are to be of the split test, whose rows are scored"},
		"missing":       {answers(`{"id": "test-0", "answer": ""}`), `p has no answer to 1 of the 2 rows of named: "test-1" is the first`},
		"answer twice":  {answers(`{"id": "test-0", "answer": ""}`, `{"id": "test-0", "answer": ""}`), `p.jsonl:2: a second answer of "p" to "test-0"`},
		"no answer":     {answers(`{"id": "test-0"}`), "p.jsonl:1: it has neither answer nor prediction"},
		"two answers":   {answers(`{"id": "test-0", "answer": "", "prediction": ""}`), "p.jsonl:1: it has both"},
		"torn":          {answers(`{"id": "test-0", "answer": ""}`, `{"id": "te`), "p.jsonl:2: "},
		"no id":         {answers(`{"id": true, "answer": ""}`), "p.jsonl:1: it has no id that is a text or a number"},
		"none of ours":  {answers(`{"id": "x", "answer": ""}`), "no answer is one to a row of the tasks"},
	} {
		o := base(t)
		o.Systems = []System{{Name: "demo", Model: dir}}
		c.set(&o)
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(o.Out, ResultsFile)); err == nil {
			t.Errorf("%s: there are results", name)
		}
	}
}

// A directory belongs to one run.
func TestOtherSettings(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	mustRun(t, o)
	for name, c := range map[string]struct {
		set  func(*Options)
		want string
	}{
		"tokens": {func(o *Options) { o.MaxNewTokens = 7 }, "tasks[0].max_new_tokens was 6, is 7; tasks[1].max_new_tokens was 12, is 7"},
		"rows":   {func(o *Options) { o.Limit = 3 }, "tasks[0].n was 10, is 3"},
		"seed":   {func(o *Options) { o.Seed = 1 }, "seed was 42, is 1"},
		"answers": {func(o *Options) { o.Predictions, o.Systems = []string{filepath.Join(o.Out, predictionsFile)}, nil },
			"is the directory of a run that has answers of its own"},
	} {
		p := o
		c.set(&p)
		if _, err := Run(t.Context(), p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(o.Out, predictionsFile), []byte(`{"system":"demo","task":"named","id":"x","answer":""}`+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), `line 1 is the answer of "demo" to "x" of "named"; there should be that of "demo" to "test-0"`) {
		t.Error(err)
	}
	p := o
	p.Overwrite, p.MaxNewTokens = true, 7
	mustRun(t, p)
	// A run that came to no answer claims nothing.
	q := base(t)
	q.Systems = o.Systems
	ctx, stop := context.WithCancel(t.Context())
	q.Progress = func(Progress) { stop() }
	if _, err := Run(ctx, q); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	q.Seed, q.Progress = 7, nil
	mustRun(t, q)
}

// What would end a run late ends it before anybody is asked.
func TestTried(t *testing.T) {
	dir := demoModel(t)
	fitting := adapter(t, dir, 1)
	bent := filepath.Join(t.TempDir(), "bent")
	saved, err := lora.Read(fitting)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range saved.Modules {
		m.In /= 2
		m.A = m.A[:m.In*m.R]
		saved.Modules[name] = m
	}
	if err := saved.Write(bent); err != nil {
		t.Fatal(err)
	}
	for want, last := range map[string]System{
		"bent: the adapter in ":             {Name: "bent", Model: dir, Adapter: bent},
		"chat: the model has no chat templ": {Name: "chat", Model: dir, Template: "chat"},
	} {
		o := base(t)
		o.Systems = []System{{Name: "fits", Model: dir, Adapter: fitting}, last}
		asked := false
		o.Progress = func(Progress) { asked = true }
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) || asked {
			t.Errorf("%v, want %q; asked: %v", err, want, asked)
		}
	}
}

// Ids may be numbers, in rows and in answers.
func TestNumbers(t *testing.T) {
	o := base(t)
	o.Sources = o.Sources[:1]
	o.Sources[0].Files = []string{write(t, "q.jsonl", `{"instruction": "Is it?", "output": "yes", "id": 12345678901234567890}`)}
	o.Predictions = []string{write(t, "p.jsonl", `{"id": 12345678901234567890, "prediction": "yes"}`)}
	if m, _ := mustRun(t, o).Tasks[0].Scores[0].Metric("accuracy"); m.Value != 1 {
		t.Errorf("%+v", m)
	}
}

// Two runs in one directory do not mix their answers: the second is told of the first, and where a file system has no
// locks, the first of the second's.
func TestTwoAtWork(t *testing.T) {
	dir := demoModel(t)
	o := base(t)
	o.Systems = []System{{Name: "demo", Model: dir}}
	if err := os.MkdirAll(o.Out, 0o777); err != nil {
		t.Fatal(err)
	}
	release, err := filelock.Dir(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	scored := base(t)
	scored.Out, scored.Sources = o.Out, scored.Sources[1:]
	scored.Predictions = []string{write(t, "p.jsonl", `{"id": "note-0", "answer": "yes"}`)}
	for _, second := range []Options{o, scored} {
		if _, err := Run(t.Context(), second); !errors.Is(err, filelock.ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("process %d on ", os.Getpid())) {
			t.Error(err)
		}
	}
	release()
	o.Progress = func(p Progress) {
		if p.Done != o.BatchSize {
			return
		}
		f, err := os.OpenFile(filepath.Join(o.Out, predictionsFile), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another one is at work there") {
		t.Error(err)
	}
}

func TestErrorKinds(t *testing.T) {
	o := base(t)
	o.Sources = o.Sources[:1]
	o.Sources[0].Files = []string{write(t, "q.jsonl", questions(6, "test"))}
	var lines []string
	for i, a := range []string{"yes", "yes", "no", "", "dunno", "yes"} {
		lines = append(lines, fmt.Sprintf(`{"id": "test-%d", "answer": %q, "finish": "length"}`, i, a))
	}
	o.Predictions = []string{write(t, "p.jsonl", strings.Join(lines, "\n"))}
	got := mustRun(t, o).Tasks[0].Scores[0].Errors
	want := []ErrorKind{{"yes for no", 2}, {"cannot be read, and was cut at the most tokens", 1}, {"no answer", 1}, {"no for yes", 1}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
