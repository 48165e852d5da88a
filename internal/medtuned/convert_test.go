package medtuned

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/rows"
)

var update = flag.Bool("update", false, "write the golden rows anew")

// samples are made-up files in the form of each corpus.
var samples = map[string]struct {
	files   []string
	rows    int
	skipped int
}{
	"ncbi-disease":      {[]string{"ncbi-disease-train.tsv"}, 20, 0},
	"bc5cdr-disease":    {[]string{"bc5cdr-disease-dev.tsv"}, 20, 0},
	"bc5cdr-chem":       {[]string{"bc5cdr-chem-test.tsv"}, 20, 0},
	"bc2gm":             {[]string{"bc2gm-train.tsv"}, 20, 0},
	"jnlpba":            {[]string{"jnlpba-test.tsv"}, 20, 3},
	"ner":               {[]string{"ner-train.txt"}, 12, 0},
	"ner-typed":         {[]string{"ner-typed-dev.tsv"}, 16, 0},
	"i2b2-2012":         {[]string{"i2b2-2012-train.tsv"}, 20, 0},
	"gad":               {[]string{"gad-train.jsonl"}, 20, 0},
	"i2b2-2010":         {[]string{"i2b2-2010-test.tsv"}, 30, 0},
	"mednli":            {[]string{"mli_dev_made_up.jsonl"}, 21, 0},
	"hoc":               {[]string{"hoc-test.json"}, 25, 0},
	"hoc-documents":     {[]string{"hoc-documents-train.jsonl"}, 12, 0},
	"medqa":             {[]string{"medqa-train.jsonl", "medqa-listed-test.json"}, 40, 0},
	"medmcqa":           {[]string{"medmcqa-dev.json", "medmcqa-copy-train.jsonl"}, 40, 2},
	"pubmedqa":          {[]string{"pubmedqa-made-up.json", "pubmedqa-ground_truth.json"}, 24, 0},
	"bioasq":            {[]string{"bioasq-training.json"}, 20, 3},
	"chatdoctor":        {[]string{"chatdoctor-made-up.json"}, 20, 0},
	"icliniq":           {[]string{"icliniq-test.json"}, 20, 0},
	"pmc-llama":         {[]string{"pmc-llama-made-up.jsonl"}, 20, 0},
	"mts-dialog":        {[]string{"mts-dialog-valid.csv"}, 24, 0},
	"aci-bench":         {[]string{"aci-bench-train.json"}, 12, 0},
	"medication-status": {[]string{"medication-status-test.csv"}, 20, 0},
	"coreference":       {[]string{"coreference-test.csv"}, 20, 0},
}

func sampleFiles(name string) (files []string) {
	for _, f := range samples[name].files {
		files = append(files, filepath.Join("testdata", "samples", f))
	}
	return files
}

func lookup(t testing.TB, name string) Converter {
	t.Helper()
	c, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// convert returns the rows and what was wrong, without the directory of the files.
func convert(t testing.TB, c Converter, files []string, o Options) (list []rows.Row, errs []string) {
	t.Helper()
	for row, err := range c.Convert(t.Context(), files, o) {
		if err != nil {
			errs = append(errs, strings.ReplaceAll(err.Error(), filepath.Dir(files[0])+"/", ""))
			continue
		}
		list = append(list, row)
	}
	return list, errs
}

// TestSamples compares the rows of the made-up samples with the golden ones, and looks at what all rows have in common.
func TestSamples(t *testing.T) {
	all, err := Converters()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(samples) {
		t.Errorf("%d converters, %d samples", len(all), len(samples))
	}
	for _, c := range all {
		skipped := 0
		got, errs := convert(t, c, sampleFiles(c.Name), Options{Seed: 1, Skipped: func(p rows.Place, why string) {
			if p.File == "" || why == "" {
				t.Errorf("%s: skipped %q at %v", c.Name, why, p)
			}
			skipped++
		}})
		if errs != nil {
			t.Errorf("%s: %q", c.Name, errs)
		}
		if want := samples[c.Name]; len(got) != want.rows || skipped != want.skipped {
			t.Errorf("%s: %d rows, %d skipped, want %d, %d", c.Name, len(got), skipped, want.rows, want.skipped)
		}
		compareGolden(t, c.Name, got)
		ids := map[string]bool{}
		for _, r := range got {
			if ids[r.ID] || r.Task != c.Task.Name || r.Category != c.Task.Category || r.Source != c.Name ||
				!slices.Contains(Splits, r.Split) || !strings.HasPrefix(r.ID, c.Name+"/") || r.Extra != nil {
				t.Errorf("%s: %+v", c.Name, r)
			}
			if strings.Contains(r.Instruction, "{") || strings.Contains(r.Input+r.Output, "\r") {
				t.Errorf("%s: %+v", c.Name, r)
			}
			ids[r.ID] = true
			checkAnswer(t, c.Task, r)
		}
	}
}

func compareGolden(t *testing.T, name string, got []rows.Row) {
	path := filepath.Join("testdata", "golden", name+".jsonl")
	if *update {
		if _, err := rows.Write(path, sequence(got)); err != nil {
			t.Fatal(err)
		}
	}
	var want []rows.Row
	for row, err := range rows.Read(t.Context(), path) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, row)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func sequence(list []rows.Row) func(yield func(rows.Row, error) bool) {
	return func(yield func(rows.Row, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// checkAnswer holds an output against what the task says of answers.
func checkAnswer(t *testing.T, task Task, r rows.Row) {
	t.Helper()
	ok := true
	switch task.Parser {
	case "choice":
		options := Choices(r.Input)
		i := slices.Index(options, r.Output[3:])
		ok = i >= 0 && r.Output[:3] == letter(i)+". "
	case "label":
		ok = slices.Contains(task.Labels, r.Output)
	case "labels":
		if len(task.Labels) == 0 {
			break
		}
		for _, l := range strings.Split(r.Output, ", ") {
			ok = ok && (r.Output == task.None || slices.Contains(task.Labels, l))
		}
	case "tags":
		tokens, lines := strings.Split(r.Input, " "), strings.Split(r.Output, "\n")
		ok = len(tokens) == len(lines)
		for i := 0; ok && i < len(lines); i++ {
			token, tag, found := strings.Cut(lines[i], " : ")
			prefix, kind, typed := strings.Cut(tag, "-")
			ok = found && token == tokens[i] && strings.Contains("BIO", prefix)
			ok = ok && (!typed || len(task.Labels) == 0 || slices.Contains(task.Labels, kind))
		}
	}
	if !ok {
		t.Errorf("%s: no answer of a task that is read as %s: %q", r.ID, task.Parser, r.Output)
	}
}

// TestScored: answers that are the golden ones get full marks from the scorer of their task.
func TestScored(t *testing.T) {
	all, err := Converters()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		list, _ := convert(t, c, sampleFiles(c.Name), Options{})
		scoreGold(t, c.Task, list)
	}
}

func scoreGold(t *testing.T, task Task, list []rows.Row) {
	t.Helper()
	spec := metrics.Spec{Kind: metrics.Kind(task.Parser), None: task.None, Bootstrap: metrics.Bootstrap{Resamples: 10, Level: 0.95}}
	if task.Parser == "label" || task.Parser == "labels" {
		spec.Labels, spec.Aliases = task.Labels, task.Aliases
	}
	scorer, err := metrics.New(spec)
	if err != nil {
		t.Fatalf("%s: %v", task.Name, err)
	}
	var examples []metrics.Example
	for _, r := range list {
		e := metrics.Example{ID: r.ID, Input: r.Input, Gold: r.Output, Prediction: r.Output, Task: r.Task}
		if task.Parser == "choice" {
			e.Options, e.Gold = Choices(r.Input), r.Output[:1]
		}
		examples = append(examples, e)
	}
	result, err := scorer.Score(examples)
	if err != nil {
		t.Fatalf("%s: %v", task.Name, err)
	}
	if result.Invalid > 0 {
		t.Errorf("%s: %d of %d golden answers cannot be read", task.Name, result.Invalid, len(list))
	}
	for _, name := range task.Metrics {
		if name == "judge" || name == "rouge2" { // rouge2 of one word is 0
			continue
		}
		m, ok := result.Metric(name)
		if !ok || m.Value < 1 {
			t.Errorf("%s: %s is %v of golden answers, %v", task.Name, name, m.Value, ok)
		}
	}
}

// TestMetrics: the names of metrics are those of the scorers.
func TestMetrics(t *testing.T) {
	for _, parser := range Parsers {
		gold := map[string]string{"choice": "A", "label": "yes", "labels": "yes", "tags": "a : B", "text": "a"}[parser]
		scorer, err := metrics.New(metrics.Spec{Kind: metrics.Kind(parser), Bootstrap: metrics.Bootstrap{Resamples: 10, Level: 0.95}})
		if err != nil {
			t.Fatal(err)
		}
		result, err := scorer.Score([]metrics.Example{{ID: "1", Input: "a", Gold: gold, Prediction: gold, Options: []string{"x", "y"}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range Metrics[parser] {
			if _, ok := result.Metric(name); !ok && name != "judge" {
				t.Errorf("%s has no metric %q: %v", parser, name, result.Metrics)
			}
		}
	}
}

// TestWordings: which wording a row gets depends on the seed and its id alone, and all are used.
func TestWordings(t *testing.T) {
	c := lookup(t, "medmcqa")
	files := sampleFiles("medmcqa")
	wording := func(files []string, seed uint64) map[string]string {
		list, errs := convert(t, c, files, Options{Seed: seed})
		if errs != nil {
			t.Fatal(errs)
		}
		m := map[string]string{}
		for _, r := range list {
			m[r.ID] = r.Instruction
		}
		return m
	}
	one := wording(files, 1)
	slices.Reverse(files)
	if diff := cmp.Diff(one, wording(files, 1)); diff != "" {
		t.Errorf("the order of the files matters: %s", diff)
	}
	for id, text := range wording(files[:1], 1) {
		if text != one[id] {
			t.Errorf("the other files matter for %s", id)
		}
	}
	if cmp.Equal(one, wording(files, 2)) {
		t.Error("the seed does not matter")
	}
	used := map[string]bool{}
	for _, text := range one {
		used[text] = true
	}
	if len(used) != len(c.Task.Instructions) {
		t.Errorf("%d of %d wordings are used in %d rows", len(used), len(c.Task.Instructions), len(one))
	}
	const n, draws = 7, 70_000
	var counts [n]int
	for i := range draws {
		counts[Choose(3, fmt.Sprint(i), n)]++
	}
	for i, got := range counts {
		if got < draws/n*95/100 || got > draws/n*105/100 {
			t.Errorf("%d is drawn %d times of %d", i, got, draws)
		}
	}
}

func TestOptions(t *testing.T) {
	c := lookup(t, "mts-dialog")
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte("mts-dialog:\n  - 'Under {section}:'\ngad: [a, b]\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	mine, err := ReadInstructions(path)
	if err != nil {
		t.Fatal(err)
	}
	got, errs := convert(t, c, sampleFiles("mts-dialog"), Options{Split: "test", Source: "ward", Instructions: mine})
	if errs != nil {
		t.Fatal(errs)
	}
	want := rows.Row{Instruction: "Under allergies:", Input: "Doctor: Any allergies to medicines? \nPatient: No, none that I know of.", Output: "No known drug allergies.",
		Task: "mts-dialog", Category: "GEN", Source: "ward", Split: "test", ID: "ward/mts-dialog-valid/0"}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
	for want, bad := range map[string]struct {
		name  string
		files []string
		o     Options
	}{
		"gad: no files": {"gad", nil, Options{}},
		`split "devel" is none of train, dev, test`:                                                        {"gad", []string{"x"}, Options{Split: "devel"}},
		"stat x.jsonl: no such file or directory":                                                          {"gad", []string{"x.jsonl"}, Options{}},
		"y-train_test.jsonl: the name says more than one split (train, test): give the one it is":          {"gad", []string{"y-train_test.jsonl"}, Options{}},
		"a/dev.json and b/dev.tsv: rows of files with the same name would have the same ids":               {"gad", []string{"a/dev.json", "b/dev.tsv"}, Options{}},
		"instructions[0] has the placeholder {topic}; the only one is {section}":                           {"gad", []string{"dev.json"}, Options{Instructions: map[string][]string{"gad": {"{topic}"}}}},
		"the list of instructions is empty":                                                                {"gad", []string{"dev.json"}, Options{Instructions: map[string][]string{"gad": {}}}},
		"the split test is given, and a list of the test questions besides: one of the two":                {"pubmedqa", sampleFiles("pubmedqa"), Options{Split: "test"}},
		"testdata/samples/pubmedqa-made-up.json: the name does not say the split: give train, dev or test": {"pubmedqa", sampleFiles("pubmedqa")[:1], Options{}},
		"stat no/dev.json: no such file or directory":                                                      {"gad", []string{"no/dev.json"}, Options{}},
	} {
		n := 0
		for _, err := range lookup(t, bad.name).Convert(t.Context(), bad.files, bad.o) {
			if n++; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		if n != 1 {
			t.Errorf("%q: %d errors and rows", want, n)
		}
	}
}

func TestSplitsNamed(t *testing.T) {
	for file, want := range map[string]string{
		"NCBI-disease-IOB.train.tsv": "train", "a/b/JNLPBA.devel.tsv": "dev", "mts/test1.csv": "test", "valid.json": "dev", "mli_dev_v1.jsonl": "dev",
		"medqa5_test.json": "test", "11B1_golden.json": "test", "training11b.json": "train", "validation-00000-of-00001.parquet": "dev",
		"train/data.json": "", "trained.json": "", "attest.json": "", "train-dev.json": "train dev", "Train_training.json": "train",
	} {
		if got := strings.Join(SplitsNamed(file), " "); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// TestBadRecords gives each converter records that are wrong.
func TestBadRecords(t *testing.T) {
	for _, c := range []struct {
		converter, file, text string
		rows                  int
		errs                  []string
	}{
		{"ner", "train.txt", "a\tB\nb\tB-X\nc\tI-X\n\nd\tI\n\ne\tO\nf\tO\tO\ng\tQ\n\nh\n\n\xff\tO\n\ni j\tO\n\nk\tO-X\n\nl\tB-\n\nm\tO\n", 2, []string{
			"train.txt:5: the tag I follows O: in IOB2 an entity begins with B", `train.txt:8: expected a token and its tag, got 3 columns: "f\tO\tO"`,
			`train.txt:11: expected a token and its tag, got 1 columns: "h"`, "train.txt:13: invalid UTF-8", `train.txt:15: a token is one word, got "i j"`,
			`train.txt:17: expected a tag O, B-TYPE or I-TYPE, got "O-X"`, `train.txt:19: expected a tag O, B-TYPE or I-TYPE, got "B-"`}},
		{"ner", "train.txt", "a\tB\n\x00\n", 0, []string{"train.txt:2: a zero byte: the file is no text in UTF-8"}},
		{"ner-typed", "train.txt", "a\tB\n\nb\tB-X\nc\tI-Y\n", 0, []string{"train.txt:1: the tag has no type", "train.txt:4: the tag I-Y follows B-X: in IOB2 an entity begins with B"}},
		{"i2b2-2012", "train.txt", "a\tB-test\n\nb\tB-drug\n", 1, []string{`train.txt:3: expected a tag of the types PROBLEM, TEST, TREATMENT, CLINICAL_DEPT, EVIDENTIAL, OCCURRENCE, got "drug"`}},
		{"gad", "train.jsonl", `{"sentence": "@GENE$ and @DISEASE$", "label": 1}
{"sentence": "@GENE$ alone", "label": 2}
{"text": " ", "lable": 1}
[]
{"sentence": 7, "label": true}`, 1, []string{
			"train.jsonl:2: the field \"label\": expected one of Positive, Negative, got \"2\"\nthe sentence has no @DISEASE$",
			"train.jsonl:3: the field \"text\" is empty\nexpected the field \"label\"; the record has \"text\", \"lable\"",
			`train.jsonl:4: expected a JSON object, got "[]"`,
			"train.jsonl:5: the field \"sentence\": expected a string, got the number 7\nthe field \"label\": expected one of Positive, Negative, got \"true\""}},
		{"i2b2-2010", "train.tsv", "sentence\tlabel\n@problem$ and @problem$\tPIP\n@test$ only\tTeRP\n@test$ @problem$\tTeXP\n", 1, []string{
			"train.tsv:3: the sentence has 1 of @problem$, @test$ and @treatment$, expected 2",
			`train.tsv:4: the field "label": expected one of PIP, TeCP, TeRP, TrAP, TrCP, TrIP, TrNAP, TrWP, No Relations, got "TeXP"`}},
		{"mednli", "train.jsonl", `{"sentence1": "a", "sentence2": "b", "gold_label": "-"}`, 0, []string{`train.jsonl:1: the field "gold_label": expected one of Contradiction, Neutral, Entailment, got "-"`}},
		{"hoc-documents", "train.jsonl", `{"document_id": 1, "sentence": "a", "labels": "PS"}
{"document_id": 2, "sentence": "b", "labels": []}
{"document_id": 1, "sentence": "c", "labels": null}
{"index": "x_1", "sentence": "d", "labels": ["A", 1]}
{"index": "x_2", "sentence": "e", "labels": ["A"]}
{"index": "y", "sentence": "f", "labels": ["A"]}`, 2, []string{
			`train.jsonl:3: the abstract "1" came before: its sentences must stand one after another`,
			"train.jsonl:4: labels[1]: expected a string, got the number 1",
			`train.jsonl:6: expected the field "document_id", or an "index" such as 8692541_s3; the record has "index", "sentence", "labels"`}},
		{"medqa", "train.jsonl", `{"question": "q", "options": {"A": "x", "B": "y"}, "answer_idx": "C"}
{"question": "q", "options": {"A": "x", "C": "y"}, "answer": "x"}
{"question": "q", "options": [{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "answer": "z"}
{"question": "q", "options": [{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "answer": "y"}
{"sentence": "q\nA. x", "gold": "A. x"}
{"sentence": "q", "gold": "A. x"}
{"sentence": "q\nA. x\nB. y", "gold": "B. x"}
{"question": "q", "options": {"A": "x"}, "answer_idx": "A"}
{"question": "q"}`, 1, []string{
			`train.jsonl:1: the right option is "C", of 2`, "train.jsonl:2: the options are A, C, expected A, B, and so on\nthe answer \"x\" is none of the options",
			`train.jsonl:3: the answer "z" is none of the options`, "train.jsonl:5: expected from 2 to 26 options, got 1",
			`train.jsonl:6: the sentence does not end with options: lines "A. ...", "B. ...", and so on`, `train.jsonl:7: the gold "B. x" is none of the options`,
			"train.jsonl:8: expected from 2 to 26 options, got 1",
			"train.jsonl:9: expected the field \"options\" with an object from letter to text; the record has \"question\"\nexpected the field \"answer\"; the record has \"question\""}},
		{"medmcqa", "train.jsonl", `{"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 1}`, 0, []string{
			"train.jsonl: cop is neither 0 nor 4 in any record, so that it is not told whether options are counted from 0 or from 1"}},
		{"medmcqa", "train.jsonl", "{\"cop\": 0}\n{\"cop\": \"4\"}", 0, []string{"train.jsonl: cop is 0 in some records and 4 in others: the options are counted in two ways"}},
		{"medmcqa", "train.jsonl", `{"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 4}
{"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "", "cop": "five"}`, 1, []string{
			"train.jsonl:2: the field \"cop\": expected a number from 0 to 4, got \"five\"\nthe field \"opd\" is empty"}},
		{"pubmedqa", "train.json", `{"1": {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "perhaps"}, "2": {"QUESTION": "q", "CONTEXTS": [], "final_decision": "yes"}}`, 0, []string{
			`train.json:1 (element 0): the field "final_decision": expected one of yes, no, maybe, got "perhaps"`, "train.json:1 (element 1): the contexts are empty"}},
		{"bioasq", "train.json", `{"questions": [{"id": "1", "type": "yesno", "body": "q", "exact_answer": "perhaps", "snippets": [3, {}]}]}`, 0, []string{
			"train.json:1 (element 0): snippets[0]: expected an object, got the number 3\nsnippets[1]: expected the field \"text\"; the record has no fields\nthe field \"exact_answer\": expected one of yes, no, got \"perhaps\""}},
		{"bioasq", "train.json", `{"question": []}`, 0, []string{`train.json:1: the object has no key "questions"`}},
		{"mts-dialog", "train.csv", "ID,section_header,section_text,dialogue\n1,X,t,d\n2,CC,,d\n", 0, []string{
			`train.csv:2: the field "section_header": "X" is none of the corpus's 20 sections`, `train.csv:3: the field "section_text" is empty`}},
		{"medication-status", "train.csv", "snippet,active_medications,discontinued_medications,neither_medications\ns,\"[\"\"a, b\"\"]\",a,\"[1]\"\n", 0, []string{
			"train.csv:2: active_medications: expected a name without commas, got \"a, b\"\nthe field \"discontinued_medications\": expected a list such as [\"a\", \"b\"], got \"a\"\nneither_medications[0]: expected a string, got the number 1"}},
	} {
		path := filepath.Join(t.TempDir(), c.file)
		if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
			t.Fatal(err)
		}
		got, errs := convert(t, lookup(t, c.converter), []string{path}, Options{})
		if diff := cmp.Diff(c.errs, errs); diff != "" || len(got) != c.rows {
			t.Errorf("%s: %d rows, want %d: %s", c.converter, len(got), c.rows, diff)
		}
	}
}

// TestLongAbstract: sentences that go on as one abstract are not gathered without end.
func TestLongAbstract(t *testing.T) {
	path := filepath.Join(t.TempDir(), "train.jsonl")
	line := fmt.Sprintf(`{"document_id": "1", "sentence": "%s", "labels": []}`+"\n", strings.Repeat("a ", 5000))
	if err := os.WriteFile(path, []byte(strings.Repeat(line, 40)+strings.Replace(line, `"1"`, `"2"`, 1)), 0o666); err != nil {
		t.Fatal(err)
	}
	got, errs := convert(t, lookup(t, "hoc-documents"), []string{path}, Options{})
	want := []string{`train.jsonl:1: the sentences of the abstract "1" are more than 262144 bytes together`}
	if diff := cmp.Diff(want, errs); diff != "" || len(got) != 1 || got[0].ID != "hoc-documents/2" {
		t.Error(diff, len(got))
	}
}

// TestTruth: PubMedQA's list of the test questions must agree with the data.
func TestTruth(t *testing.T) {
	dir := t.TempDir()
	data, truth := filepath.Join(dir, "data.json"), filepath.Join(dir, "ground_truth.json")
	for path, text := range map[string]string{
		data:  `{"1": {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "yes"}, "2": {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "no"}, "3": {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "no"}}`,
		truth: `{"1": "yes", "2": "maybe", "4": "no"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, errs := convert(t, lookup(t, "pubmedqa"), []string{data, truth}, Options{})
	want := []string{
		`data.json:1 (element 1): the answer is "no", and "maybe" in the list of the test questions`,
		"ground_truth.json: 1 of 3 questions are in none of the other files, the first is 4",
	}
	if diff := cmp.Diff(want, errs); diff != "" || len(got) != 2 || got[0].Split != "test" || got[1].Split != "train" {
		t.Error(diff, got)
	}
}

func TestContext(t *testing.T) {
	for _, name := range []string{"ner", "gad", "pubmedqa", "medmcqa", "hoc-documents"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n := 0
		for _, err := range lookup(t, name).Convert(ctx, sampleFiles(name), Options{}) {
			if n++; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d errors and rows", name, n)
		}
	}
}

// TestStops: a consumer that has enough gets no more.
func TestStops(t *testing.T) {
	for name := range samples {
		for most := 1; most < 4; most++ {
			n := 0
			for range lookup(t, name).Convert(t.Context(), sampleFiles(name), Options{}) {
				if n++; n == most {
					break
				}
			}
			if n != most {
				t.Errorf("%s: %d of %d", name, n, most)
			}
		}
	}
}

// TestDescribe: what people are told has the fields that the converter reads.
func TestDescribe(t *testing.T) {
	all, err := Converters()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		text := c.Describe()
		for _, want := range []string{c.Name + ": ", "category " + c.Task.Category, c.Task.Metrics[0], "Files: ", "A row: "} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not in %s", c.Name, want, text)
			}
		}
	}
}

// TestExamples converts the example that each description ends with.
func TestExamples(t *testing.T) {
	all, err := Converters()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		var example []string
		for _, line := range strings.Split(c.Format, "\n") {
			if text, ok := strings.CutPrefix(line, "\t"); ok {
				example = append(example, text)
			}
		}
		text := strings.Join(example, "\n")
		name := "train.jsonl"
		switch {
		case c.Task.Parser == "tags":
			name = "train.txt"
		case c.Name == "mts-dialog":
			name = "train.csv"
		case c.Name == "pubmedqa" || c.Name == "bioasq" || c.Name == "aci-bench":
			name = "train.json"
		case c.Name == "medmcqa":
			text += "\n" + strings.Replace(text, `"cop": 3`, `"cop": 4`, 1)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if got, errs := convert(t, c, []string{path}, Options{}); errs != nil || len(got) == 0 {
			t.Errorf("%s: %d rows, %q", c.Name, len(got), errs)
		}
	}
}

func TestTasks(t *testing.T) {
	tasks, err := Tasks()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, task := range tasks {
		names = append(names, task.Name)
		if task.Title == "" {
			t.Errorf("%s has no title", task.Name)
		}
	}
	if want := slices.Sorted(maps.Keys(samples)); !cmp.Equal(names, want) {
		t.Errorf("tasks %q, want %q", names, want)
	}
	// As many wordings as Llama2-MedTuned has of each.
	for name, n := range map[string]int{"ncbi-disease": 5, "bc2gm": 5, "i2b2-2010": 3, "gad": 5, "mednli": 5, "hoc": 5, "chatdoctor": 10} {
		if task, err := LoadTask(name); err != nil || len(task.Instructions) != n {
			t.Errorf("%s has %d wordings, want %d: %v", name, len(task.Instructions), n, err)
		}
	}
	if _, err := LoadTask("no/such.yaml"); err == nil || !strings.Contains(err.Error(), "neither built in (aci-bench, bc2gm,") {
		t.Error(err)
	}
	if _, err := Lookup("no"); err == nil || !strings.Contains(err.Error(), `no converter "no"; there are aci-bench, `) {
		t.Error(err)
	}
}

const userTask = `
title: does the note mention a fall?
aliases:
  fell: yes
category: IE
metrics: [accuracy]
parser: label
labels: [yes, "no"]
max_new_tokens: 4
instructions: [Was there a fall?]
`

func TestReadTask(t *testing.T) {
	got, err := ReadTask("dir/falls.yaml", strings.NewReader(userTask))
	want := Task{Name: "falls", Title: "does the note mention a fall?", Category: "IE", Metrics: []string{"accuracy"}, Parser: "label",
		Labels: []string{"yes", "no"}, Aliases: map[string]string{"fell": "yes"}, MaxNewTokens: 4, Shape: "own", Instructions: []string{"Was there a fall?"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	asked := "template: medtuned\nstop: ['\\n\\n', \"\\n\\n\"]\nshots: 2\nshots_split: train\n"
	got, err = ReadTask("falls.yaml", strings.NewReader(userTask+asked))
	want.Template, want.Stop, want.Shots, want.ShotsSplit = "medtuned", []string{`\n\n`, "\n\n"}, 2, "train"
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for change, want := range map[string]string{
		"title: does the note mention a fall?>shots: 65":          "shots: 65 is not from 0 to 64",
		"title: does the note mention a fall?>shots_split: all":   `shots_split: "all" is none of train, dev, test`,
		"title: does the note mention a fall?>stop: ['']":         "stop: an empty text ends every answer",
		"category: IE>category: XX":                               `category: "XX" is none of QA, IE, GEN, other`,
		"[accuracy]>[accuracy, rougeL]":                           `metrics: "rougeL" is none of accuracy, `,
		"[accuracy]>[]":                                           "metrics: none is given",
		"[accuracy]>accuracy":                                     `falls.yaml:6: metrics: expected a list, got the text "accuracy"`,
		"parser: label>parser: [label]":                           "falls.yaml:7: parser: expected a text, got a list",
		`labels: [yes, "no"]>labels: []`:                          "labels: none is given, and the parser label reads them",
		`labels: [yes, "no"]>labels: [a, a]`:                      `falls.yaml:8: labels: [1]: "a" is there twice`,
		"max_new_tokens: 4>max_new_tokens: many":                  `max_new_tokens: expected a whole number, got "many"`,
		"max_new_tokens: 4>max_new_tokens: 0":                     "max_new_tokens: 0 is not from 1 to 65536",
		"max_new_tokens: 4>max_tokens: 4":                         "falls.yaml:9: max_tokens: unknown key; it may be name, title",
		"instructions: [Was there a fall?]>instructions: [' ']":   "instructions[0] is empty",
		"instructions: [Was there a fall?]>instructions: ['{x}']": "instructions[0] has the placeholder {x}",
		"title: does the note mention a fall?>name: A b":          `name: "A b" is not made of small letters`,
		"title: does the note mention a fall?>shape: guessed":     `shape: "guessed" is none of read, inferred, own`,
		"title: does the note mention a fall?>none: x":            "none: the answer for no label is for the parser labels",
		"fell: yes>fell: maybe":                                   `aliases: fell: "maybe" is none of yes, no`,
		"aliases:\n  fell: yes>aliases: [y]":                      "falls.yaml:3: aliases: expected other spellings of labels (spelling: label), got a list",
		"parser: label>parser: choice":                            "labels: the parser choice does not read them",
		"title: does the note mention a fall?>&a title: x":        "falls.yaml:2: an anchor (&) is not read here",
	} {
		from, to, _ := strings.Cut(change, ">")
		text := strings.Replace(userTask, from, to, 1)
		if text == userTask {
			t.Fatalf("%q changes nothing", change)
		}
		if _, err := ReadTask("falls.yaml", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "falls.yaml:") {
			t.Errorf("%s: %v, want %q", change, err, want)
		}
	}
}

func TestReadInstructions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	for text, want := range map[string]string{
		"gad: []":           "x.yaml:1: gad: the list is empty",
		"gadd: [a]":         "x.yaml:1: gadd: no such task; there are aci-bench, ",
		"a: [b]\ngad: text": "x.yaml:2: gad: expected a list, got the text",
		"gad: [&a b]":       "x.yaml:1: an anchor (&)",
		"gad: ['{x}']":      "x.yaml:1: gad: instructions[0] has the placeholder {x}",
		"gad: [a, [b]]":     "x.yaml:1: gad: [1]: expected a text, got a list",
	} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadInstructions(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzTags(f *testing.F) {
	for _, name := range []string{"jnlpba-test.tsv", "ner-train.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata", "samples", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, typed bool) {
		hostile.Bounded(t, len(data), 200, func() {
			g := newTagger("a.tsv", bytes.NewReader(data), typed)
			g.items(t.Context(), func(rows.Place, string) {}, func(it item, err error) bool {
				switch {
				case err != nil && !strings.HasPrefix(err.Error(), "a.tsv:"):
					t.Fatalf("an error without a place: %v", err)
				case err == nil && strings.Count(it.input, " ") != strings.Count(it.output, "\n"):
					t.Fatalf("%q became %q", it.input, it.output)
				}
				return true
			})
		})
	})
}

// FuzzRecords gives records of any kind to all converters: each becomes a row, is passed over, or is a bad row with its
// place.
func FuzzRecords(f *testing.F) {
	all, err := Converters()
	if err != nil {
		f.Fatal(err)
	}
	for i, c := range all {
		for _, file := range sampleFiles(c.Name) {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			line, _, _ := bytes.Cut(text, []byte("\n"))
			f.Add(i, line)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		if i < 0 || bytes.HasPrefix(data, []byte("PAR1")) {
			return
		}
		c := all[i%len(all)]
		path := filepath.Join(dir, "train.json")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		for row, err := range c.Convert(t.Context(), []string{path}, Options{}) {
			if err != nil && !strings.HasPrefix(err.Error(), path) {
				t.Fatalf("an error without a place: %v", err)
			}
			if err == nil && row.Check() != nil {
				t.Fatalf("%+v", row)
			}
		}
	})
}

func FuzzTask(f *testing.F) {
	f.Add(userTask)
	f.Fuzz(func(t *testing.T, text string) {
		task, err := ReadTask("a.yaml", strings.NewReader(text))
		if err == nil && task.Check() != nil {
			t.Fatalf("%+v", task)
		}
	})
}
