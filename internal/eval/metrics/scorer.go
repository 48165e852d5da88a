// Package metrics scores answers of models on the papers' kinds of tasks: multiple choice, labels, lists of labels,
// tagged tokens and free text. It reads answers by fixed rules, computes the metrics with bootstrap intervals, and tests
// whether two systems differ. It knows neither models nor files.
//
// Metrics are those of scikit-learn (zero_division=0), seqeval 1.2.2 and rouge_score 0.1.2. All are functions of sums
// over examples (see [Table]), so that one pass over the resamples gives the intervals of all.
//
// # How answers are read
//
// A model's answer is text, and a label has to be found in it. The rules are fixed, know nothing of the gold answer, and
// prefer no reading at all to a guess: an answer that names no label where one is due, or several, is invalid, and an
// invalid answer is wrong. Letter case, runs of space, quotes, Markdown's asterisks and punctuation at the ends never
// matter. A statement is what follows "answer", "option", "label", "relation" and the like with "is" or a colon, up to
// the next one or the end of the line: "The answer is no." See [Choice], [Labels.One], [Labels.Many] and [AlignTags].
//
// Not here: BLEU and BERTScore, which neither paper reports, the latter needing a BERT besides; and the marks of a
// judge, whose means [Bootstrap.Mean] and [Bootstrap.PairedMeans] take.
package metrics

import (
	"fmt"
	"slices"
	"strings"
)

// Example is an answer to score.
type Example struct {
	ID         string
	Input      string
	Gold       string
	Prediction string
	Options    []string // texts of a multiple choice's options, in the order of their letters
	Task       string
}

// Kind is how answers are read and which metrics there are.
type Kind string

// The kinds, with their metrics, the main one first. All have invalid, the share of answers that cannot be read.
const (
	// MultipleChoice: the answer is one of Example.Options, see [Choice]; gold is a letter or the option's text.
	// Metrics: accuracy.
	MultipleChoice Kind = "choice"
	// SingleLabel: the answer is one of Spec.Labels, see [Labels.One]. Metrics: accuracy; micro_f1, which is the same,
	// an invalid answer being a wrong one; macro_precision, macro_recall, macro_f1, weighted_f1 over labels; and
	// exact_match of the text as it stands, but for line breaks and space at the ends, which is how MedTuned's repository
	// has the accuracy of NLI. Its relations are read in another way than here: it takes any label that is somewhere in
	// the answer, and leaves answers without one out.
	SingleLabel Kind = "label"
	// LabelList: the answer lists some of Spec.Labels, see [Labels.Many]. Metrics: example_f1, example_precision,
	// example_recall, the means over examples, where Spec.None counts as a label of its own, so that it can be right;
	// micro_f1, micro_precision, micro_recall, macro_f1 over labels; and exact_match of the sets.
	LabelList Kind = "labels"
	// TokenTags: the answer has a line "token : tag" for each token, in IOB2. Metrics of entities: f1, precision,
	// recall, macro_f1 in seqeval's default mode and strict_f1, strict_precision, strict_recall, with each line aligned
	// with its token ([AlignTags]); the same with repository_ before their names, with one tag for each distinct token
	// ([RepositoryTags]), which is how MedTuned's repository computes f1; and token_accuracy, aligned.
	TokenTags Kind = "tags"
	// FreeText: metrics: rougeL, rouge1, rouge2, rougeLsum (F-measures, mean over examples), and exact_match but for
	// case, space and punctuation at the ends. Only an empty answer is invalid.
	FreeText Kind = "text"
)

// Spec describes a task to score.
type Spec struct {
	Kind Kind
	// Labels of SingleLabel and LabelList; empty: those that occur in the gold answers.
	Labels []string
	// Aliases are other spellings of labels.
	Aliases map[string]string
	// None is the text of LabelList that stands for no label; empty: there is none.
	None string
	// Stem cuts words by Porter's algorithm before FreeText compares them.
	Stem      bool
	Bootstrap Bootstrap
}

// Metric is a number with its interval.
type Metric struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Interval Interval `json:"interval"`
}

// ExampleScore is how one example went.
type ExampleScore struct {
	ID         string  `json:"id"`
	Gold       string  `json:"gold"`       // as read
	Prediction string  `json:"prediction"` // as read; empty if invalid
	Valid      bool    `json:"valid"`
	Score      float64 `json:"score"` // 0 to 1: right or wrong; the F1 of labels or entities, 1 where neither has any; ROUGE-L
}

// Result is how a set of examples went.
type Result struct {
	Kind    Kind           `json:"kind"`
	Invalid int            `json:"invalid"` // answers that could not be read
	Metrics []Metric       `json:"metrics"` // the main one first
	Classes []Class        `json:"classes,omitempty"`
	Scores  []ExampleScore `json:"scores"`

	table   Table
	metrics Metrics
	binary  map[string]int // metrics that are means of zeros and ones, and their columns
}

// Metric returns the metric of a name.
func (r *Result) Metric(name string) (Metric, bool) {
	i := slices.IndexFunc(r.Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return r.Metrics[i], true
}

// Scorer scores the answers of a task.
type Scorer struct {
	spec   Spec
	labels *Labels // nil if they are to come from the gold answers
}

// New returns a scorer. Its errors are all problems of the spec.
func New(spec Spec) (*Scorer, error) {
	var p problems
	s := &Scorer{spec: spec}
	if err := spec.Bootstrap.Check(); err != nil {
		p = append(p, err)
	}
	labelled := spec.Kind == SingleLabel || spec.Kind == LabelList
	if !slices.Contains([]Kind{MultipleChoice, SingleLabel, LabelList, TokenTags, FreeText}, spec.Kind) {
		p.add("there is no kind %q: it must be choice, label, labels, tags or text", spec.Kind)
	}
	if !labelled && len(spec.Labels)+len(spec.Aliases) > 0 {
		p.add("labels and aliases are for the kinds label and labels, not %q", spec.Kind)
	}
	if spec.Kind != LabelList && spec.None != "" {
		p.add("a text for no label (%q) is for the kind labels, not %q", spec.None, spec.Kind)
	}
	if spec.Kind != FreeText && spec.Stem {
		p.add("stemming is for the kind text, not %q", spec.Kind)
	}
	if labelled && len(spec.Labels) > 0 {
		var err error
		if s.labels, err = NewLabels(spec.Labels, spec.Aliases); err != nil {
			p = append(p, err)
		}
	}
	if err := p.err(); err != nil {
		return nil, fmt.Errorf("scorer: %w", err)
	}
	return s, nil
}

// Score reads and scores the answers. Errors are about the gold side: every example whose gold answer does not fit.
func (s *Scorer) Score(examples []Example) (*Result, error) {
	if len(examples) == 0 {
		return nil, fmt.Errorf("scorer: no examples")
	}
	r := &run{spec: s.spec, labels: s.labels, examples: examples, scores: make([]ExampleScore, len(examples))}
	for i, e := range examples {
		r.scores[i].ID = e.ID
	}
	switch s.spec.Kind {
	case MultipleChoice:
		r.choice()
	case SingleLabel:
		r.single()
	case LabelList:
		r.list()
	case TokenTags:
		r.tags()
	case FreeText:
		r.text()
	}
	if err := r.problems.err(); err != nil {
		return nil, fmt.Errorf("scorer: %w", err)
	}
	return r.result()
}

// run is the scoring of one set of examples. Each kind fills the scores, and puts columns of per-example numbers and
// the metrics that are made of their sums side by side.
type run struct {
	spec     Spec
	labels   *Labels
	examples []Example
	problems problems

	scores  []ExampleScore
	columns [][]float64 // each [examples]
	names   []string
	parts   []func(sums, out []float64)
	binary  map[string]int
	classes []Class
}

// wrong says what is the matter with an example.
func (r *run) wrong(i int, format string, args ...any) {
	e := r.examples[i]
	r.problems.add("example %d (id %q): %w", i+1, e.ID, fmt.Errorf(format, args...))
}

// column returns a new column and its number.
func (r *run) column() ([]float64, int) {
	c := make([]float64, len(r.examples))
	r.columns = append(r.columns, c)
	return c, len(r.columns) - 1
}

// mean adds a metric that is the mean of a new column, which it returns.
func (r *run) mean(name string) []float64 {
	c, at := r.column()
	n := float64(len(c))
	r.metric(name, func(sums []float64) float64 { return sums[at] / n })
	return c
}

// share is mean for a column of zeros and ones.
func (r *run) share(name string) []float64 {
	if r.binary == nil {
		r.binary = map[string]int{}
	}
	r.binary[name] = len(r.columns)
	return r.mean(name)
}

func (r *run) metric(name string, f func(sums []float64) float64) {
	r.names = append(r.names, name)
	r.parts = append(r.parts, func(sums, out []float64) { out[0] = f(sums) })
}

// result puts it all together.
func (r *run) result() (*Result, error) {
	invalid := r.share("invalid")
	out := &Result{Kind: r.spec.Kind, Classes: r.classes, Scores: r.scores, binary: r.binary}
	for i, s := range r.scores {
		if !s.Valid {
			invalid[i] = 1
			out.Invalid++
		}
	}
	out.table = Table{Columns: len(r.columns), Data: make([]float64, 0, len(r.columns)*len(r.examples))}
	for i := range r.examples {
		for _, c := range r.columns {
			out.table.Data = append(out.table.Data, c[i])
		}
	}
	parts := r.parts
	out.metrics = func(sums, values []float64) {
		for m, f := range parts {
			f(sums, values[m:])
		}
	}
	values := make([]float64, len(parts))
	out.metrics(out.table.sums(), values)
	intervals, err := r.spec.Bootstrap.Sums(out.table, len(parts), out.metrics)
	if err != nil {
		return nil, fmt.Errorf("scorer: %w", err)
	}
	for m, name := range r.names {
		out.Metrics = append(out.Metrics, Metric{name, values[m], intervals[m]})
	}
	return out, nil
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// choice scores multiple choice.
func (r *run) choice() {
	accuracy := r.share("accuracy")
	for i, e := range r.examples {
		s := &r.scores[i]
		gold, err := goldChoice(e.Gold, e.Options)
		if err != nil {
			r.wrong(i, "%w", err)
			continue
		}
		s.Gold = ChoiceLetter(gold)
		got, ok := Choice(e.Prediction, e.Options)
		if s.Valid = ok; ok {
			s.Prediction = ChoiceLetter(got)
		}
		s.Score = truth(ok && got == gold)
		accuracy[i] = s.Score
	}
}

// goldChoice reads the gold answer: a letter, alone or with punctuation, or an option's text.
func goldChoice(gold string, options []string) (int, error) {
	if len(options) < 2 {
		return 0, fmt.Errorf("%d options: at least 2 are needed", len(options))
	}
	folded, found := fold(gold), votes{}
	if len(folded) == 1 {
		i := int(folded[0]) - 'a'
		found.add(i, i >= 0 && i < min(len(options), maxOptions))
	}
	for i, o := range options {
		found.add(i, folded != "" && fold(o) == folded)
	}
	i, ok := found.result()
	if !ok && found.split {
		return 0, fmt.Errorf("the gold answer %.60q could be more than one of %d options", gold, len(options))
	}
	if !ok {
		return 0, fmt.Errorf("the gold answer %.60q is none of %d options, nor a letter of one", gold, len(options))
	}
	return i, nil
}

// gather takes the labels from the gold answers, if the spec has none: names gives those of one.
func (r *run) gather(names func(gold string) []string) bool {
	if r.labels != nil {
		return true
	}
	var all []string
	for _, e := range r.examples {
		all = append(all, names(e.Gold)...)
	}
	var err error
	if r.labels, err = NewLabels(set(all), r.spec.Aliases); err != nil {
		r.problems.add("labels of the gold answers: %w", err)
		return false
	}
	return true
}

// counted adds columns of hits, predicted and gold for each of n classes, and returns them, [3n], and the first one's
// number.
func (r *run) counted(n int) (columns [][]float64, at int) {
	at = len(r.columns)
	for range 3 * n {
		c, _ := r.column()
		columns = append(columns, c)
	}
	return columns, at
}

// countClasses fills Classes from columns of counts.
func (r *run) countClasses(names []string, columns [][]float64) {
	total := func(c []float64) (n int) {
		for _, v := range c {
			n += int(v)
		}
		return n
	}
	for k, name := range names {
		c := Counts{total(columns[3*k]), total(columns[3*k+1]), total(columns[3*k+2])}
		r.classes = append(r.classes, Class{name, c, c.PRF()})
	}
}

// single scores one label.
func (r *run) single() {
	if !r.gather(func(gold string) []string { return []string{strings.TrimSpace(gold)} }) {
		return
	}
	n := len(r.labels.names)
	accuracy := r.share("accuracy")
	r.metric("micro_f1", func(sums []float64) float64 { return sums[0] / float64(len(accuracy)) })
	counts, at := r.counted(n)
	macro := func(name string, pick func(macro, weighted PRF) float64) {
		r.metric(name, func(sums []float64) float64 {
			_, m, w := averages(sums[at : at+3*n])
			return pick(m, w)
		})
	}
	macro("macro_precision", func(m, _ PRF) float64 { return m.Precision })
	macro("macro_recall", func(m, _ PRF) float64 { return m.Recall })
	macro("macro_f1", func(m, _ PRF) float64 { return m.F1 })
	macro("weighted_f1", func(_, w PRF) float64 { return w.F1 })
	exact := r.share("exact_match")
	for i, e := range r.examples {
		s := &r.scores[i]
		gold, ok := r.labels.one(e.Gold)
		if !ok {
			r.wrong(i, "the gold answer %.60q is none of the labels %q", e.Gold, r.labels.names)
			continue
		}
		s.Gold = r.labels.names[gold]
		counts[3*gold+2][i] = 1
		exact[i] = truth(strings.ReplaceAll(strings.TrimSpace(e.Prediction), "\n", "") == strings.TrimSpace(e.Gold))
		got, ok := r.labels.one(e.Prediction)
		if !ok {
			continue
		}
		s.Valid, s.Prediction = true, r.labels.names[got]
		s.Score = truth(got == gold)
		counts[3*got+1][i] = 1
		counts[3*gold][i] = s.Score
		accuracy[i] = s.Score
	}
	r.countClasses(r.labels.names, counts)
}

// list scores lists of labels.
func (r *run) list() {
	none := fold(r.spec.None)
	items := func(gold string) (out []string) {
		for item := range strings.SplitSeq(gold, ",") {
			if item = strings.TrimSpace(item); item != "" && (none == "" || fold(item) != none) {
				out = append(out, item)
			}
		}
		return out
	}
	if !r.gather(items) {
		return
	}
	n := len(r.labels.names)
	exampleF1 := r.mean("example_f1")
	precision, recall := r.mean("example_precision"), r.mean("example_recall")
	counts, at := r.counted(n)
	unknown, unknownAt := r.column()
	micro := func(name string, pick func(PRF) float64) {
		r.metric(name, func(sums []float64) float64 {
			var h, p, g float64
			for c := at; c < at+3*n; c += 3 {
				h, p, g = h+sums[c], p+sums[c+1], g+sums[c+2]
			}
			return pick(prf(h, p+sums[unknownAt], g))
		})
	}
	micro("micro_f1", func(s PRF) float64 { return s.F1 })
	micro("micro_precision", func(s PRF) float64 { return s.Precision })
	micro("micro_recall", func(s PRF) float64 { return s.Recall })
	r.metric("macro_f1", func(sums []float64) float64 {
		_, m, _ := averages(sums[at : at+3*n])
		return m.F1
	})
	exact := r.share("exact_match")
	for i, e := range r.examples {
		s := &r.scores[i]
		gold, got := r.labels.Many(e.Gold, r.spec.None), r.labels.Many(e.Prediction, r.spec.None)
		if !gold.Valid || gold.Unknown > 0 {
			r.wrong(i, "the gold answer %.60q has %d labels and %d items that are none of %q",
				e.Gold, len(gold.Labels), gold.Unknown, r.labels.names)
			continue
		}
		s.Gold, s.Prediction, s.Valid = r.written(gold), r.written(got), got.Valid
		g, p := r.sets(gold), r.sets(got)
		c := setCounts(g, p, map[string]Counts{})
		c.Predicted += got.Unknown
		f := c.PRF()
		s.Score = f.F1
		exampleF1[i], precision[i], recall[i] = f.F1, f.Precision, f.Recall
		exact[i] = truth(c.Hits == c.Gold && c.Hits == c.Predicted)
		unknown[i] = float64(got.Unknown)
		for k, name := range r.labels.names {
			inGold, inGot := slices.Contains(gold.Labels, name), slices.Contains(got.Labels, name)
			counts[3*k][i], counts[3*k+1][i], counts[3*k+2][i] = truth(inGold && inGot), truth(inGot), truth(inGold)
		}
	}
	r.countClasses(r.labels.names, counts)
}

// sets is the sorted labels of an answer; where it says that there are none, that is one.
func (r *run) sets(s Set) []string {
	if s.Valid && len(s.Labels) == 0 {
		return []string{r.spec.None}
	}
	return set(s.Labels)
}

// written is a set as text.
func (r *run) written(s Set) string {
	if s.Valid && len(s.Labels) == 0 {
		return r.spec.None
	}
	return strings.Join(s.Labels, ", ")
}
