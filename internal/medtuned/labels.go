package medtuned

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/rows"
)

const gadFormat = `Files: records {"sentence", "label"}. The sentence has the gene as @GENE$ and the disease as @DISEASE$; the label is 1 or 0
(or Positive, Negative). CSV and TSV need a first line of names.
A row: the sentence -> "Positive" or "Negative".

	{"sentence": "@GENE$ raises the risk of @DISEASE$.", "label": 1}
`

func gadItem(f *fields, task *Task) item {
	it := item{
		input:  f.text("sentence", "text"),
		output: f.label(task.Labels, map[string]string{"1": "Positive", "0": "Negative"}, "label"),
	}
	for _, mark := range []string{"@GENE$", "@DISEASE$"} {
		if it.input != "" && !strings.Contains(it.input, mark) {
			f.fail("the sentence has no %s", mark)
		}
	}
	return it
}

const i2b2RelationFormat = `Files: records {"sentence", "label"}, one for each pair of concepts in a sentence of i2b2/VA 2010's discharge summaries (they
need a data use agreement). The two concepts stand as @problem$, @test$ or @treatment$; the label is PIP, TeCP, TeRP,
TrAP, TrCP, TrIP, TrNAP or TrWP, and for pairs without a relation: No Relations (or None, false). The BLUE benchmark's
scripts make this of the corpus, as TSV with the columns index, sentence and label.
A row: the sentence -> the label.

	{"sentence": "@test$ showed @problem$ .", "label": "TeRP"}
`

func i2b2RelationItem(f *fields, task *Task) item {
	it := item{
		input:  f.text("sentence", "text"),
		output: f.label(task.Labels, map[string]string{"none": noRelation, "false": noRelation, "no relation": noRelation}, "label"),
	}
	marks := 0
	for _, m := range []string{"@problem$", "@test$", "@treatment$"} {
		marks += strings.Count(it.input, m)
	}
	if it.input != "" && marks < 2 {
		f.fail("the sentence has %d of @problem$, @test$ and @treatment$, expected 2", marks)
	}
	return it
}

const medNLIFormat = `Files: MedNLI's mli_train_v1.jsonl, mli_dev_v1.jsonl, mli_test_v1.jsonl (PhysioNet, credentialed access): records
{"sentence1", "sentence2", "gold_label"}, and a "pairID" if there is one. The label is entailment, contradiction or neutral.
A row: "Sentence 1: ...\nSentence 2: ..." -> "Entailment", "Contradiction" or "Neutral".

	{"sentence1": "No fever.", "sentence2": "He is afebrile.", "gold_label": "entailment", "pairID": "x1"}
`

func medNLIItem(f *fields, task *Task) item {
	key := f.optional("pairID")
	return item{
		key: key, global: key != "",
		input:  "Sentence 1: " + f.text("sentence1") + "\nSentence 2: " + f.text("sentence2"),
		output: f.label(task.Labels, nil, "gold_label"),
	}
}

const hallmarkLabels = `Labels are the hallmarks' names, in any letter case, with or without their abbreviation, or the abbreviations alone: PS, GS,
CD, RI, A, IM, GI, TPI, CE, ID; as a list or in one text, apart by commas or semicolons. No label: an empty list or text,
or none. Or ten flags, "0_0,1_0,2_1,...", as in the BLUE benchmark's files for BERT: each hallmark by its number from 0, with 1
where it applies. That numbers follow the alphabet, as in the list of BLUE's own scorer, is inferred.
`

const hocFormat = `Files: records {"sentence", "labels"}: sentences of the Hallmarks of Cancer corpus.
` + hallmarkLabels + `A row: the sentence -> the labels, such as "Resisting cell death (CD), Inducing angiogenesis (A)", or "None".

	{"sentence": "The compound induced apoptosis.", "labels": ["resisting cell death"]}
`

const hocDocumentsFormat = `Files: records {"document_id", "sentence", "labels"}: sentences of the Hallmarks of Cancer corpus, those of an abstract one
after another. Instead of document_id there may be an "index" such as 8692541_s3, whose part before the last underscore
names the abstract. A record may be a whole abstract.
` + hallmarkLabels + `A row: the sentences with spaces between -> all their labels, or "None".

	{"document_id": "17", "sentence": "The compound induced apoptosis.", "labels": ["resisting cell death"]}
`

// hallmarks reads the field labels.
func hallmarks(f *fields, task *Task) (found []string) {
	var given []string
	switch name, v := f.get([]string{"labels", "label"}); v := v.(type) {
	case nil:
		if _, ok := f.rec.Fields.Get(name); !ok {
			f.fail(`expected the field "labels"; the record has %s`, f.rec.Names())
		}
	case string:
		given = strings.FieldsFunc(strings.Trim(v, "[] \t"), func(r rune) bool { return r == ',' || r == ';' })
	default:
		given = f.list("labels", "label")
	}
	return f.hallmarks(given, task)
}

// hallmarks finds labels by their names, abbreviations or flags.
func (f *fields) hallmarks(given []string, task *Task) (found []string) {
	names, ok, err := flagged(given)
	if err != nil {
		f.fail("%w", err)
		return nil
	}
	if ok {
		given = names
	}
	others := map[string]string{}
	for other, label := range task.Aliases {
		others[strings.ToLower(other)] = label
	}
	for _, label := range task.Labels {
		_, abbreviation, _ := strings.Cut(strings.TrimSuffix(label, ")"), " (")
		others[strings.ToLower(abbreviation)] = label
	}
	for _, g := range given {
		g = strings.Trim(g, " \t\n'\"")
		if g == "" || strings.EqualFold(g, "none") || strings.EqualFold(g, "null") {
			continue
		}
		l, ok := findLabel(g, task.Labels, others)
		if !ok {
			f.fail("expected hallmarks of cancer (%s) or none, got %q", strings.Join(task.Labels, ", "), short(g))
			continue
		}
		if !slices.Contains(found, l) {
			found = append(found, l)
		}
	}
	return found
}

// joinLabels lists labels in the order of the task.
func joinLabels(found []string, task *Task) string {
	var in []string
	for _, l := range task.Labels {
		if slices.Contains(found, l) {
			in = append(in, l)
		}
	}
	if len(in) == 0 {
		return task.None
	}
	return strings.Join(in, ", ")
}

func hocItem(f *fields, task *Task) item {
	return item{input: f.text("sentence", "text"), output: joinLabels(hallmarks(f, task), task)}
}

// document names the abstract that a sentence is of.
func document(f *fields) string {
	const key = "document_id"
	for _, name := range []string{key, "doc_id", "pmid"} {
		if _, v := f.get([]string{name}); v != nil {
			return f.scalar(name)
		}
	}
	index := f.optional("index")
	if i := strings.LastIndexByte(index, '_'); i > 0 {
		return index[:i]
	}
	f.fail(`expected the field "document_id", or an "index" such as 8692541_s3; the record has %s`, f.rec.Names())
	return ""
}

// maxAbstract is the longest abstract, in bytes.
const maxAbstract = 1 << 18

// hocDocuments joins the sentences of abstracts. A bad sentence makes its abstract bad.
func hocDocuments(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error] {
	parts := byExtension(perRecord(rows.Shape{}, func(f *fields, task *Task) item {
		return item{key: document(f), input: f.text("sentence", "text"), output: joinLabels(hallmarks(f, task), task)}
	}), map[string]fileFunc{".txt": wholeAbstract})
	return func(yield func(item, error) bool) {
		var doc item // with nothing in it before the first sentence
		var wrong []error
		done := map[string]bool{}
		flush := func() bool {
			if doc.key == "" {
				return true
			}
			it, err := doc, errors.Join(wrong...)
			doc, wrong = item{}, nil
			it.global = true
			it.output = joinLabels(strings.Split(it.output, ", "), task)
			if done[it.key] {
				err = errors.Join(err, fmt.Errorf("the abstract %q came before: its sentences must stand one after another", short(it.key)))
			}
			done[it.key] = true
			if err != nil {
				err = &rows.Error{Place: it.place, Err: err}
			}
			return yield(it, err)
		}
		for it, err := range parts(ctx, files, task, skip) {
			var bad *rows.Error
			switch {
			case err != nil && !errors.As(err, &bad):
				if flush() {
					yield(item{}, err)
				}
				return
			case err != nil && (it.key == "" || it.input == ""): // of no abstract that could be told
				if !flush() || !yield(item{}, err) {
					return
				}
				continue
			case it.key != doc.key || it.place.File != doc.place.File:
				if !flush() {
					return
				}
				doc = it
			case len(doc.input)+len(it.input) > maxAbstract:
				if len(wrong) == 0 {
					wrong = append(wrong, fmt.Errorf("the sentences of the abstract %q are more than %d bytes together", short(doc.key), maxAbstract))
				}
			default:
				doc.input += " " + it.input
				doc.output += ", " + it.output
			}
			switch {
			case err == nil:
			case bad.Place == doc.place:
				wrong = append(wrong, bad.Err)
			default:
				wrong = append(wrong, err)
			}
		}
		flush()
	}
}
