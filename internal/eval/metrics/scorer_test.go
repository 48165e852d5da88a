package metrics

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

func scorer(t testing.TB, spec Spec) *Scorer {
	t.Helper()
	if spec.Bootstrap.Resamples == 0 {
		spec.Bootstrap = DefaultBootstrap()
		spec.Bootstrap.Resamples = 200
	}
	s, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answers are examples of gold and prediction in turn.
func answers(texts ...string) (out []Example) {
	for i := 0; i < len(texts); i += 2 {
		out = append(out, Example{ID: fmt.Sprint("e", i/2), Gold: texts[i], Prediction: texts[i+1]})
	}
	return out
}

func score(t testing.TB, s *Scorer, examples []Example) *Result {
	t.Helper()
	r, err := s.Score(examples)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func check(t *testing.T, r *Result, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		m, ok := r.Metric(name)
		if !ok {
			t.Errorf("there is no metric %s", name)
		}
		near(t, name, m.Value, v)
	}
	for _, m := range r.Metrics {
		if !(m.Value >= 0 && m.Value <= 1 && m.Interval.Low >= 0 && m.Interval.High <= 1 && m.Interval.Low <= m.Interval.High) {
			t.Errorf("%+v is not between 0 and 1", m)
		}
	}
}

func TestMultipleChoice(t *testing.T) {
	examples := answers("B", "The answer is (B).", "salt", "A", "A", "salt", "C", "A or B", "(d)", "pepper")
	for i := range examples {
		examples[i].Options = []string{"salt", "water", "air", "pepper"}
	}
	r := score(t, scorer(t, Spec{Kind: MultipleChoice}), examples)
	check(t, r, map[string]float64{"accuracy": 0.8, "invalid": 0.2})
	if r.Metrics[0].Name != "accuracy" || r.Invalid != 1 || r.Scores[3].Valid || r.Scores[3].Gold != "C" {
		t.Errorf("%+v", r)
	}
	if s := r.Scores[4]; s.ID != "e4" || s.Gold != "D" || s.Prediction != "D" || s.Score != 1 {
		t.Errorf("%+v", s)
	}
	examples[1].Gold, examples[2].Options, examples[3].Gold = "gold", nil, "A"
	examples[3].Options = []string{"B", "A"}
	_, err := scorer(t, Spec{Kind: MultipleChoice}).Score(examples)
	wants(t, err, `example 2 (id "e1"): the gold answer "gold" is none of 4`, `example 3 (id "e2"): 0 options`, "example 4", "more than one")
}

func TestSingleLabel(t *testing.T) {
	examples := answers("yes", "yes", "yes", "No.", "no", "no", "maybe", "It depends", "no", "Yes, it does", "yes", " yes\n")
	for _, names := range [][]string{nil, {"yes", "no", "maybe", "never"}} {
		r := score(t, scorer(t, Spec{Kind: SingleLabel, Labels: names}), examples)
		// yes: 2 of 3 predicted, 3 gold; no: 1 of 2, 2 gold; maybe: 0 of 0, 1 gold
		check(t, r, map[string]float64{
			"accuracy": 0.5, "micro_f1": 0.5, "invalid": 1. / 6, "exact_match": 0.5,
			"macro_precision": (2./3 + 1./2) / 3, "macro_recall": (2./3 + 1./2) / 3, "macro_f1": (2./3 + 1./2) / 3,
			"weighted_f1": (3*2./3 + 2*1./2) / 6,
		})
		if r.Invalid != 1 || len(r.Classes) < 3 {
			t.Errorf("%d invalid, %d classes", r.Invalid, len(r.Classes))
		}
	}
	_, err := scorer(t, Spec{Kind: SingleLabel, Labels: []string{"no", "maybe"}}).Score(examples)
	wants(t, err, `example 1 (id "e0")`, `"yes" is none of the labels`, "example 6")
}

func TestLabelList(t *testing.T) {
	spec := Spec{Kind: LabelList, Labels: []string{"A1", "B1", "C1"}, None: "None", Aliases: map[string]string{"alpha": "A1"}}
	r := score(t, scorer(t, spec), answers("A1, B1", "alpha", "None", "None", "C1", "C1, zzz", "B1", "what?", "None", "A1"))
	check(t, r, map[string]float64{
		"example_f1": (2./3 + 1 + 2./3 + 0 + 0) / 5, "example_precision": (1 + 1 + 0.5 + 0 + 0) / 5, "example_recall": (0.5 + 1 + 1) / 5,
		"micro_precision": 2. / 5, "micro_recall": 2. / 4, "micro_f1": 4. / 9, "exact_match": 1. / 5, "invalid": 1. / 5,
		"macro_f1": (2./3 + 0 + 1) / 3, // A1: 1 of 2 predicted, 1 gold; B1: none of 2; C1: 1 of 1
	})
	_, err := scorer(t, spec).Score(answers("A1, X", "A1", "", "B1"))
	wants(t, err, "example 1", "1 labels and 1 items", "example 2", "0 labels and 0 items")
	_, err = scorer(t, Spec{Kind: LabelList, None: "None"}).Score(answers("None", "None"))
	wants(t, err, "no labels")
}

func TestTokenTags(t *testing.T) {
	lines := func(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "/", " : "), " , ", "\n") }
	examples := answers(
		lines("the/O , p53/B-gene , gene/I-gene , the/O , flu/B-disease"), lines("the/O , p53/B-gene , gene/I-gene , the/O , flu/O"),
		lines("p53/B-gene , and/O , p53/O"), lines("p53/B-gene , and/O , p53/O"),
		lines("flu/B-disease , shot/O"), lines("flu/I-disease , shot/B-zzz"),
		lines("a/O , b/O"), "I do not know.",
	)
	r := score(t, scorer(t, Spec{Kind: TokenTags}), examples)
	check(t, r, map[string]float64{
		"f1": 2 * 3. / (3 + 4), "precision": 1, "recall": 3. / 4, "macro_f1": (1 + 2./3) / 2, "token_accuracy": 10. / 12, "invalid": 1. / 4,
		"strict_f1": 2 * 2. / (2 + 4), "strict_recall": 2. / 4, "strict_precision": 1,
		// The second sentence's p53 has the last line's tag, so that its entity is lost on both sides.
		"repository_f1": 2 * 2. / (2 + 3), "repository_recall": 2. / 3, "repository_precision": 1, "repository_strict_f1": 2 * 1. / (1 + 3),
	})
	if want := "O B-gene I-gene O O"; r.Scores[0].Prediction != want || r.Scores[3].Valid {
		t.Errorf("%+v", r.Scores)
	}
	if c := r.Classes; len(c) != 2 || c[0].Name != "disease" || c[0].Counts != (Counts{1, 1, 2}) || c[1].Counts != (Counts{2, 2, 2}) {
		t.Errorf("%+v", c)
	}
	_, err := scorer(t, Spec{Kind: TokenTags}).Score(answers("a : S-x\nb : B--x", "", "nothing", ""))
	wants(t, err, `line 1: the tag "S-x"`, "line 2", `"B--x" as "-x"`, "example 2", "0 lines", "1 others")
}

func TestFreeText(t *testing.T) {
	r := score(t, scorer(t, Spec{Kind: FreeText}), answers("Take aspirin.", "take Aspirin", "a b c d", "b d", "yes", " "))
	check(t, r, map[string]float64{
		"rougeL": (1 + 2./3 + 0) / 3, "rouge1": (1 + 2./3 + 0) / 3, "rouge2": 1. / 3, "exact_match": 1. / 3, "invalid": 1. / 3,
	})
	plain, stemmed := scorer(t, Spec{Kind: FreeText}), scorer(t, Spec{Kind: FreeText, Stem: true})
	words := answers("treated patients", "treatment of a patient")
	a, _ := score(t, plain, words).Metric("rouge1")
	b, _ := score(t, stemmed, words).Metric("rouge1")
	if a.Value != 0 || b.Value == 0 {
		t.Errorf("%v without and %v with the stemmer", a.Value, b.Value)
	}
	_, err := plain.Score(answers(" ", "a"))
	wants(t, err, "example 1", "empty")
}

func TestNewTellsAllThatIsWrong(t *testing.T) {
	_, err := New(Spec{Kind: "essay", Labels: []string{"a"}, None: "None", Stem: true})
	wants(t, err, `no kind "essay"`, "labels and aliases are for", "no label", "stemming is for", "0 resamples")
	_, err = New(Spec{Kind: SingleLabel, Labels: []string{"a", "A"}, Bootstrap: DefaultBootstrap()})
	wants(t, err, `"A" could be two labels`)
	_, err = scorer(t, Spec{Kind: FreeText}).Score(nil)
	wants(t, err, "no examples")
	many := make([]Example, 50)
	_, err = scorer(t, Spec{Kind: FreeText}).Score(many)
	wants(t, err, "example 20 ", "and 30 more")
}

// randomAnswers makes n examples of a kind, many of them wrong.
func randomAnswers(kind Kind, n int, seed uint64) (out []Example) {
	r := rand.New(rand.NewPCG(seed, 1))
	names := []string{"alpha", "beta", "gamma delta", "None"}
	gold := rand.New(rand.NewPCG(5, 5)) // the same for all seeds
	for i := range n {
		e := Example{ID: fmt.Sprint(i), Gold: names[gold.IntN(4)], Prediction: names[r.IntN(4)], Options: names}
		if r.IntN(3) == 0 {
			e.Prediction = e.Gold
		}
		if kind == TokenTags {
			var g, p strings.Builder
			for range 2 + gold.IntN(8) {
				token := names[gold.IntN(4)]
				fmt.Fprintf(&g, "%s : %s\n", token, []string{"O", "B-x", "I-x", "B-y", "I-y"}[gold.IntN(5)])
				fmt.Fprintf(&p, "%s : %s\n", token, []string{"O", "B-x", "I-x", "B-y", "zzz"}[r.IntN(5)])
			}
			e.Gold, e.Prediction = g.String(), p.String()
		}
		if r.IntN(8) == 0 {
			e.Prediction = "?"
		}
		out = append(out, e)
	}
	return out
}

var kinds = map[Kind]Spec{
	MultipleChoice: {Kind: MultipleChoice}, SingleLabel: {Kind: SingleLabel}, LabelList: {Kind: LabelList, None: "None"},
	TokenTags: {Kind: TokenTags}, FreeText: {Kind: FreeText},
}

func TestOrderAndWorkersDoNotMatter(t *testing.T) {
	for kind, spec := range kinds {
		examples := randomAnswers(kind, 300, 1)
		r := score(t, scorer(t, spec), examples)
		check(t, r, nil)
		for _, m := range r.Metrics {
			if !(m.Interval.Low <= m.Value && m.Value <= m.Interval.High && (m.Value == 0 || m.Interval.Low < m.Interval.High)) {
				t.Errorf("%s: %+v", kind, m)
			}
		}
		shuffled := slices.Clone(examples)
		rand.New(rand.NewPCG(9, 9)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := score(t, scorer(t, spec), shuffled)
		for i, m := range r.Metrics {
			near(t, fmt.Sprint(kind, " ", m.Name), other.Metrics[i].Value, m.Value)
		}
		spec.Bootstrap = DefaultBootstrap()
		spec.Bootstrap.Resamples, spec.Bootstrap.Workers = 200, 3
		if again := score(t, scorer(t, spec), examples); !slices.Equal(again.Metrics, r.Metrics) {
			t.Errorf("%s: 3 workers have %v, not %v", kind, again.Metrics, r.Metrics)
		}
		if data, err := json.Marshal(r); err != nil || !strings.Contains(string(data), `"interval":{"low":`) {
			t.Errorf("%s: as JSON %.100s, %v", kind, data, err)
		}
	}
}

// TestScorersAgreeWithReports ties the scorers to the functions that are compared with scikit-learn and seqeval.
func TestScorersAgreeWithReports(t *testing.T) {
	for _, kind := range []Kind{SingleLabel, LabelList, TokenTags} {
		examples := randomAnswers(kind, 200, 2)
		examples = slices.DeleteFunc(examples, func(e Example) bool { return e.Prediction == "?" })
		var gold, got []string
		var goldSets, gotSets [][]string
		for _, e := range examples {
			gold, got = append(gold, e.Gold), append(got, e.Prediction)
			sets := [][]string{{e.Gold}, {e.Prediction}}
			if kind == TokenTags {
				for i, text := range []string{e.Gold, strings.ReplaceAll(e.Prediction, "zzz", "O")} {
					lines, _ := ParseTags(text)
					sets[i] = nil
					for _, l := range lines {
						sets[i] = append(sets[i], l.Tag)
					}
				}
			}
			goldSets, gotSets = append(goldSets, sets[0]), append(gotSets, sets[1])
		}
		r := score(t, scorer(t, kinds[kind]), examples)
		switch kind {
		case SingleLabel:
			want, accuracy, err := Classification(gold, got)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, map[string]float64{"accuracy": accuracy, "micro_f1": want.Micro.F1, "macro_f1": want.Macro.F1,
				"macro_precision": want.Macro.Precision, "macro_recall": want.Macro.Recall, "weighted_f1": want.Weighted.F1})
			if !slices.Equal(r.Classes, want.Classes) {
				t.Errorf("classes %+v, want %+v", r.Classes, want.Classes)
			}
		case LabelList: // None is a label to the samples' averages, and none to the others
			_, samples, subset, err := MultiLabel(goldSets, gotSets)
			if err != nil {
				t.Fatal(err)
			}
			for i := range goldSets {
				for _, s := range []*[]string{&goldSets[i], &gotSets[i]} {
					if (*s)[0] == "None" {
						*s = nil
					}
				}
			}
			want, _, _, err := MultiLabel(goldSets, gotSets)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, map[string]float64{"example_f1": samples.F1, "exact_match": subset, "micro_f1": want.Micro.F1,
				"micro_recall": want.Micro.Recall, "macro_f1": want.Macro.F1})
		case TokenTags:
			for mode, prefix := range map[Mode]string{Default: "", Strict: "strict_"} {
				want, err := mode.Entities(goldSets, gotSets)
				if err != nil {
					t.Fatal(err)
				}
				check(t, r, map[string]float64{prefix + "f1": want.Micro.F1, prefix + "precision": want.Micro.Precision})
				if mode == Default {
					check(t, r, map[string]float64{"macro_f1": want.Macro.F1})
				}
			}
		}
	}
}

func TestCompare(t *testing.T) {
	boot := DefaultBootstrap()
	boot.Resamples = 400
	for kind, spec := range kinds {
		s := scorer(t, spec)
		examples := randomAnswers(kind, 200, 1)
		perfect := slices.Clone(examples)
		for i := range perfect {
			perfect[i].Prediction = perfect[i].Gold
		}
		a, b := score(t, s, examples), score(t, s, perfect)
		got, err := Compare(a, b, boot)
		if err != nil {
			t.Fatal(err)
		}
		main := got[0]
		if main.Metric != a.Metrics[0].Name || main.A != a.Metrics[0].Value || main.B != b.Metrics[0].Value || main.Difference != main.B-main.A {
			t.Errorf("%s: %+v", kind, main)
		}
		if !(main.Interval.Low > 0) || main.PBootstrap > 0.01 || main.PRandomisation > 0.01 {
			t.Errorf("%s: right answers against others: %+v", kind, main)
		}
		for _, c := range got {
			if c.Metric == "accuracy" && (c.McNemar == nil || c.McNemar.OnlyA != 0 || float64(c.McNemar.OnlyB) != 200*(1-main.A)) {
				t.Errorf("%s: %+v of %+v", kind, c.McNemar, c)
			}
		}
		if same, _ := Compare(a, a, boot); same[0].PRandomisation != 1 || same[0].Difference != 0 {
			t.Errorf("%s: against itself %+v", kind, same[0])
		}
		other := slices.Clone(examples)
		other[3].ID = "other"
		_, err = Compare(a, score(t, s, other), boot)
		wants(t, err, "example 3", `"other"`)
		_, err = Compare(a, score(t, s, examples[1:]), boot)
		wants(t, err, "one has 200 examples, the other 199")
	}
	_, err := Compare(&Result{Kind: FreeText}, &Result{Kind: TokenTags}, boot)
	wants(t, err, "kind text", "the other of tags")
}

// TestRealNER scores the gold tags of real corpora as if a model had answered them, and with the tags of each token that
// comes again changed: the aligned parser sees that, the repository-compatible one only where the last one is changed.
func TestRealNER(t *testing.T) {
	for _, name := range []string{"NCBI-disease-IOB.devel.tsv", "BC5CDR-chem-IOB.devel.tsv", "JNLPBA.test.tsv"} {
		examples := conll(t, golden.Shared(t, "data", "ner", name))
		spec := Spec{Kind: TokenTags, Bootstrap: Bootstrap{Resamples: 10, Level: 0.95}}
		r := score(t, scorer(t, spec), examples)
		check(t, r, map[string]float64{"f1": 1, "repository_f1": 1, "strict_f1": 1, "token_accuracy": 1, "invalid": 0})
		for i, e := range examples {
			lines, _ := ParseTags(e.Gold)
			last := map[string]int{}
			for j, l := range lines {
				last[l.Token] = j
			}
			for j, l := range lines {
				if last[l.Token] != j {
					lines[j].Tag = "O"
				}
			}
			examples[i].Prediction = FormatTags(lines)
		}
		r = score(t, scorer(t, spec), examples)
		f1, _ := r.Metric("f1")
		check(t, r, map[string]float64{"repository_f1": 1})
		if f1.Value > 0.99 {
			t.Errorf("%s: f1 %v", name, f1.Value)
		}
		t.Logf("%s: %d sentences; with each distinct token tagged once only, f1 is %.4f", name, len(examples), f1.Value)
	}
}

// conll reads sentences of lines "token TAB tag" as examples that are answered rightly.
func conll(t *testing.T, path string) (out []Example) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []TokenTag
	flush := func() {
		if len(lines) > 0 {
			text := FormatTags(lines)
			out = append(out, Example{ID: fmt.Sprint(len(out)), Gold: text, Prediction: text})
		}
		lines = nil
	}
	for s := bufio.NewScanner(f); s.Scan(); {
		token, tag, ok := strings.Cut(s.Text(), "\t")
		if !ok {
			flush()
			continue
		}
		lines = append(lines, TokenTag{token, strings.TrimSpace(tag)})
	}
	flush()
	return out
}

// TestRealChoices reads the letters and the options' texts of MedQA as answers, in several ways of saying them.
func TestRealChoices(t *testing.T) {
	data, err := os.ReadFile(golden.Shared(t, "data", "medqa", "medqa5_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct{ Sentence, Gold string }
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	read := map[string]int{}
	for i, row := range rows {
		var options []string
		for line := range strings.SplitSeq(row.Sentence, "\n") {
			if letter := ChoiceLetter(len(options)) + ". "; strings.HasPrefix(line, letter) {
				options = append(options, line[len(letter):])
			}
		}
		want := int(strings.TrimSpace(row.Gold)[0] - 'A')
		if want >= len(options) {
			t.Fatalf("row %d: gold %q of %d options", i, row.Gold, len(options))
		}
		for _, say := range []string{"%[1]s", "%[1]s.", "(%[1]s)", "%[1]s. %[2]s", "(%[1]s) %[2]s", "The answer is %[1]s.", "Answer: %[1]s. %[2]s",
			"**%[1]s**", "%[2]s", "The answer is %[2]s"} {
			got, ok := Choice(fmt.Sprintf(say, ChoiceLetter(want), options[want]), options)
			if ok && got != want {
				t.Errorf("row %d: %q of %q is read as %d, not %d", i, say, options, got, want)
			}
			if ok {
				read[say]++
			}
		}
	}
	for say, n := range read {
		if share := float64(n) / float64(len(rows)); share < 0.99 || math.IsNaN(share) {
			t.Errorf("%q is read in %.1f %% of %d rows", say, 100*share, len(rows))
		}
	}
	t.Logf("of %d rows: %v", len(rows), read)
}

func BenchmarkScore(b *testing.B) {
	for _, kind := range []Kind{SingleLabel, TokenTags, FreeText} {
		b.Run(string(kind), func(b *testing.B) {
			spec := kinds[kind]
			spec.Bootstrap = DefaultBootstrap()
			s, examples := scorer(b, spec), randomAnswers(kind, 1000, 1)
			for b.Loop() {
				score(b, s, examples)
			}
		})
	}
}
