// Package study tests what README.md says of data and scores: that the demo model learns what the corpora of testdata/study
// ask through the commands that stand there, that the commands of both papers' sections do their work, and that the way
// from corpora to a report is open for real corpora, too.
package study

import (
	"context"
	"encoding/json"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/rows"
)

// What the tests hold scores against. With 50 answers of yes among 100, guesses are right in 50, give or take 5; a tag of
// a word chosen at random is right in one sentence of eight or so.
const (
	learnt       = 0.9
	chanceYesNo  = 0.65 // three standard deviations above a half
	chanceTagged = 0.3
)

var splits = []string{"train", "dev", "test"}

// corpus converts a file of testdata/study.
func corpus(t *testing.T, converter, file string) (all []rows.Row) {
	t.Helper()
	c, err := medtuned.Lookup(converter)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(golden.Root(t), "testdata", "study", file)
	for r, err := range c.Convert(t.Context(), []string{path}, medtuned.Options{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// both are the rows of a split in both corpora.
func both(t *testing.T, split string) (tagged, asked []rows.Row) {
	t.Helper()
	return corpus(t, "ner", "ner-"+split+".tsv"), corpus(t, "bioasq", "yesno-"+split+".json")
}

// question has the names of a medicine and of a disease.
var question = regexp.MustCompile(`(?m)^Question: (?:Does (\S+) help against (.+)|Is (\S+) good for (.+)|Can (.+) be treated with (\S+))\?$`)

// names are the entities of rows.
func names(t *testing.T, tagged, asked []rows.Row) (list []string) {
	t.Helper()
	for _, r := range tagged {
		lines, _ := metrics.ParseTags(r.Output)
		tokens, tags := make([]string, len(lines)), make([]string, len(lines))
		for i, l := range lines {
			tokens[i], tags[i] = l.Token, l.Tag
		}
		spans, err := metrics.Strict.Spans(nil, tags)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range spans {
			list = append(list, strings.Join(tokens[s.Start:s.End], " "))
		}
	}
	for _, r := range asked {
		found := question.FindStringSubmatch(r.Input)
		if found == nil {
			t.Fatalf("%s: a question of another form: %q", r.ID, r.Input)
		}
		for _, name := range found[1:] {
			if name != "" {
				list = append(list, name)
			}
		}
	}
	return list
}

// No entity is in two rows, told by its first word, since "fever" and "syndrome" end many.
func TestEntitiesAreInOneRowOnly(t *testing.T) {
	seen := map[string]string{}
	for _, split := range splits {
		tagged, asked := both(t, split)
		list := names(t, tagged, asked)
		if len(list) < len(tagged)/2+2*len(asked) {
			t.Errorf("%s: only %d entities were found", split, len(list))
		}
		for _, name := range list {
			word, _, _ := strings.Cut(strings.ToLower(name), " ")
			if before, ok := seen[word]; ok {
				t.Errorf("%q in %s is also in %s", name, split, before)
			}
			seen[word] = split
		}
	}
}

// A row's sentences are in no other row; no test row shares 13 words in a row with a training row; half of the answers
// are yes.
func TestSplitsHaveNothingInCommon(t *testing.T) {
	seen := map[string]string{}
	all := map[string][]rows.Row{}
	for _, split := range splits {
		tagged, asked := both(t, split)
		yes := 0
		for _, r := range asked {
			if r.Output == "yes" {
				yes++
			}
		}
		if 2*yes != len(asked) {
			t.Errorf("%s: %d of %d answers are yes", split, yes, len(asked))
		}
		all[split] = append(tagged, asked...)
		for _, r := range all[split] {
			for s := range strings.SplitSeq(strings.TrimPrefix(r.Input, "Context: "), "\n") {
				if before, ok := seen[s]; ok {
					t.Errorf("%s: %q is also in %s", r.ID, s, before)
				}
				seen[s] = r.ID
			}
		}
	}
	for _, split := range splits[1:] {
		file := filepath.Join(t.TempDir(), split+".jsonl")
		save(t, file, all[split])
		leaks, _, err := mix.Leakage(t.Context(), all["train"], []mix.TestSet{{Name: split, Files: []string{file}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if leaks[0].Rows != len(all[split]) || leaks[0].Exact != 0 || leaks[0].Overlap != 0 {
			t.Errorf("%+v", leaks[0])
		}
	}
}

func save(t *testing.T, file string, all []rows.Row) {
	t.Helper()
	var seq iter.Seq2[rows.Row, error] = func(yield func(rows.Row, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
	if _, err := rows.Write(file, seq); err != nil {
		t.Fatal(err)
	}
}

// The demo model cannot do what the corpora ask, learns it through the commands in README.md, and learns nothing
// where labels are shuffled.
func TestItLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds three commands and trains twice, and -short is set")
	}
	w := newWorkplace(t)
	lines := commands(t, "## From corpora to a score", "lora-data convert", "lora-data mix", "lora-train", "lora-eval run")
	for _, line := range lines {
		w.carryOut(line)
	}
	before, after := w.scores("study/eval")
	t.Logf("before %+v", before)
	t.Logf("after %+v", after)
	if before.yesNo > chanceYesNo || before.likelier < 1-chanceYesNo || before.likelier > chanceYesNo || before.tagged > chanceTagged {
		t.Errorf("before training: %+v", before)
	}
	if after.yesNo <= learnt || after.likelier <= learnt || after.tagged <= learnt {
		t.Errorf("after training: %+v", after)
	}

	w.shuffle("study/train.jsonl", "study/shuffled.jsonl")
	other := strings.NewReplacer("study/train.jsonl", "study/shuffled.jsonl", "study/adapter", "study/other", "study/eval", "study/other-eval")
	for _, line := range lines {
		if strings.HasPrefix(line, "lora-train") || strings.HasPrefix(line, "lora-eval") {
			w.carryOut(other.Replace(line))
		}
	}
	_, shuffled := w.scores("study/other-eval")
	t.Logf("with shuffled labels %+v", shuffled)
	if shuffled.yesNo > chanceYesNo || shuffled.likelier > chanceYesNo || shuffled.tagged > chanceTagged {
		t.Errorf("after training with shuffled labels: %+v", shuffled)
	}
}

// commands are those of a section of README.md, among them each of some.
func commands(t *testing.T, heading string, want ...string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(golden.Root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n##")
	for i, part := range strings.Split(section, "\n```\n") {
		if i%2 == 0 { // between blocks
			continue
		}
		for line := range strings.Lines(part) {
			if strings.HasPrefix(line, "mkdir ") || strings.HasPrefix(line, "lora-") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	for _, name := range want {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+" ") }) {
			t.Fatalf("README.md, %s, has no %s (the section is there: %v): %q", heading, name, found, lines)
		}
	}
	return lines
}

// workplace is a directory with the files that the commands read and with the commands themselves.
type workplace struct {
	t        *testing.T
	dir, bin string
}

func newWorkplace(t *testing.T) *workplace {
	t.Helper()
	w := &workplace{t: t, dir: t.TempDir(), bin: t.TempDir()}
	root := golden.Root(t)
	for _, part := range []string{"study", filepath.Join("demo", "model")} {
		part = filepath.Join("testdata", part)
		if err := os.CopyFS(filepath.Join(w.dir, part), os.DirFS(filepath.Join(root, part))); err != nil {
			t.Fatal(err)
		}
	}
	w.start(root, "go", "build", "-o", w.bin+string(filepath.Separator), "./cmd/lora-data", "./cmd/lora-train", "./cmd/lora-eval")
	return w
}

// start runs a program and waits for its end.
func (w *workplace) start(dir, name string, args ...string) {
	w.t.Helper()
	c := exec.CommandContext(w.t.Context(), name, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		w.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
}

// carryOut does what a line says, which has nothing in it that a shell would change.
func (w *workplace) carryOut(line string) {
	w.t.Helper()
	words := strings.Fields(line)
	if words[0] == "mkdir" {
		if err := os.Mkdir(filepath.Join(w.dir, words[1]), 0o777); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	w.start(w.dir, filepath.Join(w.bin, words[0]), words[1:]...)
}

// score is how a system did, all between 0 and 1.
type score struct {
	yesNo    float64 // accuracy of the answers
	likelier float64 // how often the right answer is the likelier one
	tagged   float64 // F1 of entities
}

// scores are those of the model without and with the adapter.
func (w *workplace) scores(dir string) (without, with score) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, dir, eval.ResultsFile))
	if err != nil {
		w.t.Fatal(err)
	}
	var res eval.Results
	if err := json.Unmarshal(text, &res); err != nil {
		w.t.Fatal(err)
	}
	value := func(task, metric string, system int) float64 {
		for _, x := range res.Tasks {
			if x.Name != task || len(x.Scores) != 2 || x.Rows != 100 || x.Split != "test" {
				continue
			}
			if m, ok := x.Scores[system].Metric(metric); ok {
				return float64(m.Value)
			}
		}
		w.t.Fatalf("no %s of %s on 100 test rows, of two systems, in\n%s", metric, task, text)
		return 0
	}
	of := func(system int) score {
		return score{value("bioasq", "accuracy", system), value("bioasq", "likelihood_accuracy", system), value("ner", "f1", system)}
	}
	return of(0), of(1)
}

// shuffle copies training rows with their labels shuffled: the answers among the questions, the entities of a sentence
// among its words. There are as many of each as before.
func (w *workplace) shuffle(from, to string) {
	w.t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	var all []rows.Row
	var asked []int
	for r, err := range rows.Read(context.Background(), filepath.Join(w.dir, from)) {
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Task == "ner" {
			r.Output = shuffledTags(random, r.Output)
		} else {
			asked = append(asked, len(all))
		}
		all = append(all, r)
	}
	random.Shuffle(len(asked), func(i, j int) {
		a, b := &all[asked[i]].Output, &all[asked[j]].Output
		*a, *b = *b, *a
	})
	save(w.t, filepath.Join(w.dir, to), all)
}

// shuffledTags puts the entities of a sentence, each as long as it is, elsewhere.
func shuffledTags(random *rand.Rand, output string) string {
	lines, _ := metrics.ParseTags(output)
	var pieces [][]string // an O, or B and what follows it
	for _, l := range lines {
		if l.Tag == "I" {
			pieces[len(pieces)-1] = append(pieces[len(pieces)-1], l.Tag)
		} else {
			pieces = append(pieces, []string{l.Tag})
		}
	}
	random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	for i, tag := range slices.Concat(pieces...) {
		lines[i].Tag = tag
	}
	return metrics.FormatTags(lines)
}
