package medtuned

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/strictjson"
)

// Options of a question are lines "A. ..." at the end of the input, and the answer is such a line.

// maxOptions is how many options a question may have: A to Z.
const maxOptions = 26

// letter is the letter of option i.
func letter(i int) string { return string(rune('A' + i)) }

// Choices returns the options that the input of a row with a choice lists, without their letters: the last lines, from
// "A. ..." on, as the converters write them. None are there where the input does not end so.
func Choices(input string) (options []string) {
	_, options = splitChoices(input)
	return options
}

// splitChoices parts an input before its options.
func splitChoices(input string) (question string, options []string) {
	lines := strings.Split(input, "\n")
	for from := len(lines) - 1; from >= 0; from-- {
		if _, ok := choice(lines[from], 0); !ok {
			continue
		}
		options = nil
		for i, line := range lines[from:] {
			o, ok := choice(line, i)
			if !ok {
				return input, nil
			}
			options = append(options, o)
		}
		return strings.Join(lines[:from], "\n"), options
	}
	return input, nil
}

// choice returns the text of a line that is option i.
func choice(line string, i int) (string, bool) {
	if i >= maxOptions {
		return "", false
	}
	text, ok := strings.CutPrefix(line, letter(i)+". ")
	return strings.TrimSpace(text), ok && strings.TrimSpace(text) != ""
}

// askChoice makes the input and output of a question with options, of which number right is right.
func askChoice(f *fields, question string, options []string, right int) (input, output string) {
	if len(options) < 2 || len(options) > maxOptions {
		f.fail("expected from 2 to %d options, got %d", maxOptions, len(options))
		return "", ""
	}
	lines := []string{question}
	for i, o := range options {
		if o == "" {
			f.fail("option %s is empty", letter(i))
		}
		if strings.Contains(o, "\n") {
			o = strings.Join(strings.Fields(o), " ")
		}
		lines = append(lines, letter(i)+". "+o)
	}
	if right < 0 || right >= len(options) {
		f.fail("the right option is number %d of %d", right+1, len(options))
		return "", ""
	}
	return strings.Join(lines, "\n"), lines[1+right]
}

const medQAFormat = `Files: MedQA-USMLE, in one of three forms. Records of jind11/MedQA {"question", "options": {"A": ...}, "answer_idx"} (or
"answer", its text, instead of answer_idx); its copies in Parquet with "options" as a list of {"key", "value"}; or records
{"sentence", "gold"}, the sentence with its options as the last lines "A. ...", the gold as one of these lines.
A row: the question and a line "A. ..." for each option -> the right one of these lines.

	{"question": "Which vitamin prevents scurvy?", "options": {"A": "Vitamin C", "B": "Vitamin D"}, "answer_idx": "A"}
`

func medQAItem(f *fields, _ *Task) (it item) {
	if _, v := f.get([]string{"sentence"}); v != nil {
		it.input, it.output = listedChoice(f)
		return it
	}
	question, options := f.text("question"), f.options()
	var right int
	if _, v := f.get([]string{"answer_idx"}); v != nil {
		right = letterIndex(f, f.text("answer_idx"), len(options))
	} else if answer := f.text("answer"); answer != "" {
		if right = slices.Index(options, answer); right < 0 {
			f.fail("the answer %q is none of the options", short(answer))
		}
	}
	if len(f.errs) == 0 {
		it.input, it.output = askChoice(f, question, options, right)
	}
	return it
}

// listedChoice reads a question whose options are lines of it.
func listedChoice(f *fields) (input, output string) {
	question, options := splitChoices(trimLines(f.text("sentence")))
	gold := trimLines(f.text("gold"))
	if len(f.errs) > 0 {
		return "", ""
	}
	if options == nil {
		f.fail(`the sentence does not end with options: lines "A. ...", "B. ...", and so on`)
		return "", ""
	}
	for i, o := range options {
		if gold == letter(i)+". "+o {
			return askChoice(f, question, options, i)
		}
	}
	f.fail("the gold %q is none of the options", short(gold))
	return "", ""
}

// trimLines trims each line, and takes away a last line that is a lone quote: some copies of MedQA have one, left over
// from CSV.
func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	if last := len(lines) - 1; last > 0 && strings.TrimSpace(lines[last]) == `"` {
		lines = lines[:last]
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// options reads the field options: an object from letter to text, or a list of {key, value}.
func (f *fields) options() []string {
	byLetter := map[string]string{}
	add := func(key string, value any) {
		s, ok := value.(string)
		if !ok {
			f.fail("option %q: expected a string, got %s", key, strictjson.Kind(value))
		}
		byLetter[key] = tidy(s)
	}
	switch _, v := f.get([]string{"options"}); v := v.(type) {
	case *strictjson.Object:
		for _, key := range v.Keys {
			value, _ := v.Get(key)
			add(key, value)
		}
	case []any:
		for i, e := range v {
			o, ok := e.(*strictjson.Object)
			if !ok {
				f.fail("options[%d]: expected an object, got %s", i, strictjson.Kind(e))
				return nil
			}
			key, _ := o.Get("key")
			value, _ := o.Get("value")
			add(fmt.Sprint(key), value)
		}
	default:
		f.fail(`expected the field "options" with an object from letter to text; the record has %s`, f.rec.Names())
		return nil
	}
	var options []string
	for i, key := range slices.Sorted(maps.Keys(byLetter)) {
		if i >= maxOptions || key != letter(i) {
			f.fail("the options are %s, expected A, B, and so on", strings.Join(slices.Sorted(maps.Keys(byLetter)), ", "))
			return nil
		}
		options = append(options, byLetter[key])
	}
	return options
}

// letterIndex is the option that a letter names.
func letterIndex(f *fields, s string, n int) int {
	if len(s) == 1 && s[0] >= 'A' && int(s[0]-'A') < n {
		return int(s[0] - 'A')
	}
	f.fail("the right option is %q, of %d", short(s), n)
	return -1
}

const medMCQAFormat = `Files: MedMCQA's train.json, dev.json (JSON Lines in spite of the name) or its copies in Parquet: records {"question", "opa",
"opb", "opc", "opd", "cop"}, and an "id". cop is the right option, counted from 1 in the original and from 0 in the copy;
which of the two is told by the whole file, where a 0 or a 4 must occur. Records without cop, or with -1, as in the
published test set, are passed over.
A row: the question and a line "A. ..." for each option -> the right one of these lines.

	{"id": "x1", "question": "Which vitamin prevents scurvy?", "opa": "A", "opb": "B1", "opc": "C", "opd": "D", "cop": 3}
`

func medMCQA(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		for _, file := range files {
			base, err := firstOption(ctx, file)
			if err != nil {
				yield(item{}, err)
				return
			}
			one := func(f *fields, _ *Task) item { return medMCQAItem(f, base) }
			if !fileItems(ctx, file, rows.Shape{}, task, skip, one, yield) {
				return
			}
		}
	}
}

func medMCQAItem(f *fields, base int) (it item) {
	right, ok, err := copOf(f.rec)
	if !ok {
		f.skip = "a question whose answer is not given"
		return it
	}
	if err != nil {
		f.fail("%w", err)
	}
	it.key = f.optional("id")
	it.global = it.key != ""
	question := f.text("question")
	options := []string{f.text("opa"), f.text("opb"), f.text("opc"), f.text("opd")}
	if len(f.errs) == 0 {
		it.input, it.output = askChoice(f, question, options, right-base)
	}
	return it
}

// copOf is the field cop; ok is false where the answer is not given.
func copOf(rec rows.Record) (n int, ok bool, err error) {
	v, _ := rec.Fields.Get("cop")
	var s string
	switch v := v.(type) {
	case nil:
		return 0, false, nil
	case json.Number:
		s = v.String()
	case string:
		s = v
	}
	if n, err = strconv.Atoi(s); err != nil || n > 4 || n < -1 {
		return 0, true, fmt.Errorf(`the field "cop": expected a number from 0 to 4, got %s`, strictjson.Kind(v))
	}
	return n, n >= 0, nil
}

// firstOption tells whether a file counts options from 0 or from 1.
func firstOption(ctx context.Context, file string) (int, error) {
	seen := map[int]bool{}
	for rec, err := range rows.Records(ctx, file, rows.Shape{}) {
		var bad *rows.Error
		if err != nil && !errors.As(err, &bad) {
			return 0, err
		}
		if err != nil {
			continue // told when the rows are made
		}
		if n, ok, err := copOf(rec); ok && err == nil {
			seen[n] = true
		}
	}
	switch {
	case seen[0] && seen[4]:
		return 0, fmt.Errorf("%s: cop is 0 in some records and 4 in others: the options are counted in two ways", file)
	case seen[0]:
		return 0, nil
	case seen[4] || len(seen) == 0:
		return 1, nil
	}
	return 0, fmt.Errorf("%s: cop is neither 0 nor 4 in any record, so that it is not told whether options are counted from 0 or from 1", file)
}

const pubMedQA = "pubmedqa"

const pubMedQAFormat = `Files: PubMedQA's ori_pqal.json: an object from PMID to {"QUESTION", "CONTEXTS", "final_decision"}; or its copies in JSON
Lines or Parquet with {"pubid", "question", "context": {"contexts"}, "final_decision"}. With test_ground_truth.json among
the files (an object from PMID to the answer), the rows it names are test and the others train; it must agree with the data.
A row: "Context: ...\nQuestion: ..." -> "yes", "no" or "maybe".

	{"17": {"QUESTION": "Does rest help?", "CONTEXTS": ["We asked 20 patients."], "final_decision": "maybe"}}
`

// isTruth reports whether a file is PubMedQA's list of the test questions.
func isTruth(converter, file string) bool {
	return converter == pubMedQA && strings.Contains(strings.ToLower(filepath.Base(file)), "ground_truth")
}

// maxTruth is the longest list of test questions, in bytes.
const maxTruth = 16 << 20

func pubMedQAItems(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		var data []string
		var truth *strictjson.Object
		var named string
		for _, file := range files {
			if !isTruth(pubMedQA, file) {
				data = append(data, file)
				continue
			}
			var err error
			if truth, err = strictjson.ReadObject(file, maxTruth); err != nil {
				yield(item{}, err)
				return
			}
			named = file
		}
		found := map[string]bool{}
		one := perRecord(rows.Shape{Keyed: true}, func(f *fields, task *Task) item {
			it := pubMedQAItem(f, task)
			if truth != nil {
				found[it.key] = true
				inTruth(f, &it, truth)
			}
			return it
		})
		for it, err := range one(ctx, data, task, skip) {
			if !yield(it, err) {
				return
			}
		}
		if truth == nil || ctx.Err() != nil {
			return
		}
		lost := slices.DeleteFunc(slices.Clone(truth.Keys), func(key string) bool { return found[key] })
		if len(lost) > 0 {
			yield(item{}, fmt.Errorf("%s: %d of %d questions are in none of the other files, the first is %s", named, len(lost), len(truth.Keys), short(lost[0])))
		}
	}
}

// inTruth sets the split by the list of the test questions, and compares the answers.
func inTruth(f *fields, it *item, truth *strictjson.Object) {
	answer, ok := truth.Get(it.key)
	if !ok {
		it.split = "train"
		return
	}
	it.split = "test"
	if answer != it.output && it.output != "" {
		f.fail("the answer is %q, and %s in the list of the test questions", it.output, strictjson.Kind(answer))
	}
}

func pubMedQAItem(f *fields, task *Task) item {
	it := item{key: f.rec.Key, global: true}
	if it.key == "" {
		it.key = f.scalar("pubid", "pmid", "id")
	}
	contexts := f.contexts()
	question := f.text("QUESTION", "question")
	it.input = "Context: " + strings.Join(contexts, "\n") + "\nQuestion: " + question
	it.output = f.label(task.Labels, nil, "final_decision")
	return it
}

// contexts are the parts of the abstract.
func (f *fields) contexts() (list []string) {
	if _, v := f.get([]string{"context"}); v != nil {
		o, ok := v.(*strictjson.Object)
		if !ok {
			f.fail(`the field "context": expected an object with "contexts", got %s`, strictjson.Kind(v))
			return nil
		}
		inner := &fields{rec: rows.Record{Fields: o}}
		list = inner.list("contexts")
		f.errs = append(f.errs, inner.errs...)
	} else {
		list = f.list("CONTEXTS")
	}
	if len(list) == 0 && len(f.errs) == 0 {
		f.fail("the contexts are empty")
	}
	return list
}

const bioASQFormat = `Files: BioASQ task B (registration needed): {"questions": [{"id", "type", "body", "snippets": [{"text"}], "exact_answer"}]}, such
as training11b.json or 11B1_golden.json. Questions of other types than yesno are passed over, and counted.
A row: "Context: (the snippets)\nQuestion: ..." -> "yes" or "no".

	{"questions": [{"id": "x1", "type": "yesno", "body": "Is rest useful?", "snippets": [{"text": "Rest helps."}], "exact_answer": "yes"}]}
`

func bioASQItem(f *fields, task *Task) (it item) {
	if kind := f.text("type"); kind != "" && kind != "yesno" {
		f.skip = "a question of the type " + short(kind)
		return it
	}
	it.key, it.global = f.text("id"), true
	it.input = "Question: " + f.text("body")
	if snippets := f.snippets(); len(snippets) > 0 {
		it.input = "Context: " + strings.Join(snippets, "\n") + "\n" + it.input
	}
	if _, v := f.get([]string{"exact_answer"}); v != nil {
		if list, ok := v.([]any); ok && len(list) == 1 {
			f.rec.Fields.Set("exact_answer", list[0]) // some years have it in a list
		}
	}
	it.output = f.label(task.Labels, nil, "exact_answer")
	return it
}

// snippets are the texts that a question comes with, each once.
func (f *fields) snippets() (list []string) {
	_, v := f.get([]string{"snippets"})
	array, ok := v.([]any)
	if !ok && v != nil {
		f.fail(`the field "snippets": expected a list, got %s`, strictjson.Kind(v))
	}
	for i, e := range array {
		o, ok := e.(*strictjson.Object)
		if !ok {
			f.fail("snippets[%d]: expected an object, got %s", i, strictjson.Kind(e))
			continue
		}
		inner := &fields{rec: rows.Record{Fields: o}}
		if s := inner.text("text"); s != "" && !slices.Contains(list, s) {
			list = append(list, s)
		}
		for _, err := range inner.errs {
			f.fail("snippets[%d]: %w", i, err)
		}
	}
	return list
}
