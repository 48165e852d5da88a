package eval

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/eval/published"
)

// score makes results of the answers.
func (r *run) score(ctx context.Context) (*Results, error) {
	res, err := r.results()
	if err != nil {
		return nil, err
	}
	for _, x := range r.sets {
		t, err := r.scoreSet(ctx, x)
		if err != nil {
			return nil, fmt.Errorf("task %s: %w", x.Task.Name, err)
		}
		res.Tasks = append(res.Tasks, t)
		res.Warnings = append(res.Warnings, r.warn(x, t.Main)...)
	}
	res.Judge = r.judgeInfo(res.Tasks)
	return res, nil
}

// warn says what a reader of a task's figures must know.
func (r *run) warn(x *set, main string) (list []string) {
	say := func(format string, a ...any) { list = append(list, x.Task.Name+": "+fmt.Sprintf(format, a...)) }
	switch split := x.split(); split {
	case "mixed":
		say("the rows are of several splits (%s)", x.splitNames())
	case "":
		say("the rows do not say their split")
	case "train":
		say("the rows are of the split train: a model may have seen them")
	}
	for _, name := range slices.Sorted(maps.Keys(x.unknown)) {
		say("%d rows of the files are of the split %q, which is none of train, dev (or validation) and test", x.unknown[name], name)
	}
	if x.of > 0 {
		how := "chosen"
		if x.byLabel {
			how = "chosen label by label"
		}
		say("%d of %d rows, %s with seed %d", len(x.rows), x.of, how, r.Seed)
	}
	for _, system := range r.systems {
		n := 0
		for _, a := range r.answers[system][x] {
			if a.Finish == tooLong {
				n++
			}
		}
		if n > 0 {
			unjudged := ""
			if x.wantsJudge() && r.judged != nil {
				unjudged = ", and as unjudged"
			}
			say("%d of the %d prompts are longer than %s has positions: they were not asked, and count as invalid%s", n, len(x.rows), system, unjudged)
		}
	}
	if x.other > 0 {
		say("the rows say that they are of another task")
	}
	return append(list, r.warnJudge(x, main)...)
}

// spec is how a task's answers are scored.
func (r *run) spec(x *set) metrics.Spec {
	s := metrics.Spec{Kind: metrics.Kind(x.Task.Parser), Bootstrap: r.Bootstrap}
	if s.Kind == metrics.SingleLabel || s.Kind == metrics.LabelList {
		s.Labels, s.Aliases, s.None = x.Task.Labels, x.Task.Aliases, x.Task.None
	}
	return s
}

func (r *run) scoreSet(ctx context.Context, x *set) (Task, error) {
	t := Task{Name: x.Task.Name, Title: x.Task.Title, Category: x.Task.Category, Parser: x.Task.Parser, BuiltIn: x.BuiltIn,
		Metrics: x.Task.Metrics,
		Split:   x.split(), Splits: x.splits, Rows: len(x.rows), Files: x.files, rows: x.rows}
	if x.of > 0 {
		t.Sample = &Sample{x.of, r.Seed, x.byLabel}
	}
	if len(r.Predictions) == 0 {
		t.Shots, t.ShotFiles, t.MaxNewTokens, t.Template = r.shotCount(x), x.shotFiles, r.newTokens(x), x.Task.Template
	}
	scorer, err := metrics.New(r.spec(x))
	if err != nil {
		return t, err
	}
	var all []*metrics.Result
	for _, system := range r.systems {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		answers := r.answers[system][x]
		scored, err := scorer.Score(examples(x, answers))
		if err != nil {
			return t, err
		}
		s, err := r.summary(x, answers, scored)
		if err != nil {
			return t, err
		}
		if err := r.mark(&t, &s, x, system); err != nil {
			return t, err
		}
		s.System = system
		t.Scores = append(t.Scores, s)
		t.answers = append(t.answers, answers)
		t.examples = append(t.examples, scored.Scores)
		all = append(all, scored)
	}
	t.Main = mainMetric(x.Task.Metrics, &t.Scores[0])
	for i := 1; i < len(all); i++ {
		tests, err := metrics.Compare(all[0], all[i], r.Bootstrap)
		if err != nil {
			return t, err
		}
		c := comparison(r.systems[0], r.systems[i], tests)
		if err := t.compareMarks(&c, i, r.Bootstrap); err != nil {
			return t, err
		}
		t.Comparisons = append(t.Comparisons, c)
	}
	t.Published = x.published()
	return t, nil
}

// mainMetric is the first of a task's metrics that there is.
func mainMetric(names []string, s *Score) string {
	for _, name := range names {
		if _, ok := s.Metric(name); ok {
			return name
		}
	}
	return s.Metrics[0].Name
}

func examples(x *set, answers []Answer) []metrics.Example {
	list := make([]metrics.Example, len(x.rows))
	for i, row := range x.rows {
		list[i] = metrics.Example{ID: row.key, Input: row.Input, Gold: row.gold(), Options: row.options, Task: x.Task.Name}
		if answers != nil {
			list[i].Prediction = answers[i].Answer
		}
	}
	return list
}

// gold is the gold answer as a scorer reads it: of an option's whole line its letter.
func (r row) gold() string {
	for i, option := range r.options {
		if r.Output == optionLine(i, option) {
			return metrics.ChoiceLetter(i)
		}
	}
	return r.Output
}

// checkGold finds gold answers that cannot be scored, before anybody is asked.
func (r *run) checkGold() error {
	var errs []error
	for _, x := range r.sets {
		spec := r.spec(x)
		spec.Bootstrap.Resamples = 1
		scorer, err := metrics.New(spec)
		if err == nil {
			_, err = scorer.Score(examples(x, nil))
		}
		if err == nil && r.Likelihood && (spec.Kind == metrics.SingleLabel || spec.Kind == metrics.MultipleChoice) {
			_, err = goldOptions(x)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("task %s: %w", x.Task.Name, err))
		}
	}
	return errors.Join(errs...)
}

// summary is the figures of a system on a task.
func (r *run) summary(x *set, answers []Answer, scored *metrics.Result) (Score, error) {
	s := Score{N: len(answers), Invalid: scored.Invalid, InvalidShare: float64(scored.Invalid) / float64(len(answers)), Finish: map[string]int{}}
	for _, m := range scored.Metrics {
		s.Metrics = append(s.Metrics, metric(m))
	}
	for _, c := range scored.Classes {
		s.Classes = append(s.Classes, Class{c.Name, c.Hits, c.Predicted, c.Gold, Number(c.Precision), Number(c.Recall), Number(c.F1)})
	}
	for _, a := range answers {
		if a.Finish != "" {
			s.Finish[a.Finish]++
		}
	}
	s.Errors = errorKinds(scored, answers)
	var err error
	if s.Perplexity, err = r.perplexity(answers); err != nil {
		return s, err
	}
	s.Likelihood, err = r.choices(x, answers)
	return s, err
}

// perplexity is that of the gold outputs of the rows that were asked, where the answers have their likelihood.
func (r *run) perplexity(answers []Answer) (*Metric, error) {
	var nll []float64
	var tokens []int
	for _, a := range answers {
		if a.Finish == tooLong {
			continue
		}
		if a.Gold == nil {
			return nil, nil
		}
		if a.Gold.Tokens < 1 {
			return nil, fmt.Errorf("the likelihood of the gold output of %s is that of %d tokens", a.ID, a.Gold.Tokens)
		}
		nll, tokens = append(nll, -a.Gold.LogLikelihood), append(tokens, a.Gold.Tokens)
	}
	if len(nll) == 0 {
		return nil, nil
	}
	p, err := metrics.Perplexity(nll, tokens, r.Bootstrap)
	if err != nil {
		return nil, err
	}
	m := metric(p)
	return &m, nil
}

// choices are the accuracies of the most likely option: by its likelihood, that of each token, and of each byte. A row that
// was not asked is wrong.
func (r *run) choices(x *set, answers []Answer) (list []Metric, err error) {
	asked := 0
	for _, a := range answers {
		if a.Finish == tooLong {
			continue
		}
		if asked++; len(a.Options) == 0 {
			return nil, nil
		}
	}
	if asked == 0 {
		return nil, nil
	}
	gold, err := goldOptions(x)
	if err != nil {
		return nil, err
	}
	for _, by := range []struct {
		name string
		of   func(Likelihood) float64
	}{
		{"likelihood_accuracy", func(l Likelihood) float64 { return l.LogLikelihood }},
		{"likelihood_accuracy_per_token", func(l Likelihood) float64 { return l.LogLikelihood / float64(l.Tokens) }},
		{"likelihood_accuracy_per_byte", func(l Likelihood) float64 { return l.LogLikelihood / float64(l.Bytes) }},
	} {
		right := make([]float64, len(answers))
		sum := 0.0
		for i, a := range answers {
			if a.Finish == tooLong {
				continue
			}
			if len(a.Options) <= gold[i] {
				return nil, fmt.Errorf("row %s has likelihoods of %d options, and the %d. is right", a.ID, len(a.Options), gold[i]+1)
			}
			if best(a.Options, by.of) == gold[i] {
				right[i] = 1
				sum++
			}
		}
		interval, err := r.Bootstrap.Mean(right)
		if err != nil {
			return nil, err
		}
		list = append(list, metric(metrics.Metric{Name: by.name, Value: sum / float64(len(answers)), Interval: interval}))
	}
	return list, nil
}

// best is the first of the options with the largest value.
func best(options []Likelihood, value func(Likelihood) float64) int {
	at := 0
	for i := range options {
		if value(options[i]) > value(options[at]) {
			at = i
		}
	}
	return at
}

// goldOptions are the right options of all rows.
func goldOptions(x *set) (list []int, err error) {
	for _, row := range x.rows {
		at, ok := 0, false
		if x.Task.Parser == "choice" {
			at, ok = metrics.Choice(row.gold(), row.options)
		} else {
			labels, err := metrics.NewLabels(x.Task.Labels, x.Task.Aliases)
			if err != nil {
				return nil, err
			}
			label, valid := labels.One(row.Output)
			at, ok = slices.Index(x.Task.Labels, label), valid
		}
		if !ok || at < 0 {
			return nil, fmt.Errorf("row %s: which option is right cannot be read from %.60q", row.key, row.Output)
		}
		list = append(list, at)
	}
	return list, nil
}

// optionLine is an option as a row's input has it.
func optionLine(i int, option string) string { return metrics.ChoiceLetter(i) + ". " + option }

// paperMetric is which of ours is computed as a paper's is.
var paperMetric = map[string]string{"entity F1": "repository_f1", "accuracy": "exact_match"}

// papers reports whether a task may be the papers': a built-in one, whose rows say that they are of it and of one of the
// splits that figures can be of, none of them left out.
func (x *set) papers() bool {
	split := x.split()
	return x.BuiltIn && !x.partial && (split == "dev" || split == "test") &&
		!slices.ContainsFunc(x.rows, func(r row) bool { return r.Task != x.Task.Name })
}

// published are the papers' figures of a task, where it may be theirs.
func (x *set) published() (list []Published) {
	if !x.papers() {
		return nil
	}
	for _, f := range published.Of(x.Task.Name, x.split()) {
		list = append(list, Published{
			Paper: f.Paper, Model: f.Model, Metric: f.Metric, Ours: paperMetric[f.Metric], Value: Number(f.Value / 100), Split: f.Split,
			ValueKnown: f.ValueKnown.String(), SplitKnown: f.SplitKnown.String(), Note: f.Note,
		})
	}
	return list
}

// errorKinds counts what is wrong with the answers that are not wholly right, the most frequent first.
func errorKinds(r *metrics.Result, answers []Answer) (list []ErrorKind) {
	counts := map[string]int{}
	for i, s := range r.Scores {
		if kind := errorKind(r.Kind, s, answers[i]); kind != "" {
			counts[kind]++
		}
	}
	for kind, n := range counts {
		list = append(list, ErrorKind{kind, n})
	}
	slices.SortFunc(list, func(a, b ErrorKind) int {
		if a.N != b.N {
			return b.N - a.N
		}
		if a.Kind < b.Kind {
			return -1
		}
		return 1
	})
	return list
}

// notAsked is what an answer is where its prompt is too long.
const notAsked = "not asked: the prompt is too long"

func errorKind(kind metrics.Kind, s metrics.ExampleScore, a Answer) string {
	switch {
	case a.Finish == tooLong:
		return notAsked
	case !s.Valid && a.Answer == "":
		return "no answer"
	case !s.Valid && a.Finish == cut:
		return "cannot be read, and was cut at the most tokens"
	case !s.Valid:
		return "cannot be read"
	case s.Score >= 1:
		return ""
	}
	switch kind {
	case metrics.MultipleChoice:
		return "another option"
	case metrics.SingleLabel:
		return fmt.Sprintf("%s for %s", s.Prediction, s.Gold)
	case metrics.LabelList:
		return part(s.Score, "some labels are right", "no label is right")
	case metrics.TokenTags:
		return part(s.Score, "some entities are right", "no entity is right")
	}
	return part(math.Floor(s.Score*2), "ROUGE-L of 0.5 or more", "ROUGE-L below 0.5")
}

func part(score float64, some, none string) string {
	if score > 0 {
		return some
	}
	return none
}
