package eval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/eval/published"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/visible"
)

// MarkMetric is the name of the mean of a judge's marks among metrics.
const MarkMetric = "judge"

// wantsJudge reports whether a task asks for marks.
func (x *set) wantsJudge() bool { return slices.Contains(x.Task.Metrics, MarkMetric) }

// checkJudge finds what would keep answers from being judged, before anybody is asked.
func (r *run) checkJudge() error {
	if r.Judge == nil {
		return nil
	}
	if !slices.ContainsFunc(r.sets, (*set).wantsJudge) {
		return errors.New("there is a judge, and no task has judge among its metrics")
	}
	o := *r.Judge
	if o.Journal == "" {
		o.Journal = r.path(JudgeJournal)
	}
	r.Judge = &o
	if err := o.Check(); err != nil {
		return fmt.Errorf("judge: %w", err)
	}
	return nil
}

// judge has the answers judged whose tasks ask for it. Where a system was not asked there is nothing to mark.
func (r *run) judge(ctx context.Context) (err error) {
	if r.Judge == nil {
		return nil
	}
	r.verdicts = map[string]map[*set][]judge.Verdict{}
	for _, system := range r.systems {
		r.verdicts[system] = map[*set][]judge.Verdict{}
	}
	var items []judge.Item
	var verdicts []*judge.Verdict // of the items
	for _, x := range r.sets {
		if !x.wantsJudge() {
			continue
		}
		for _, system := range r.systems {
			r.verdicts[system][x] = make([]judge.Verdict, len(x.rows))
		}
		for i, row := range x.rows {
			for _, system := range r.systems {
				a, v := r.answers[system][x][i], &r.verdicts[system][x][i]
				if a.Finish == tooLong {
					*v = judge.Verdict{Fault: notAsked, Requests: []int{}}
					continue
				}
				items = append(items, judge.Item{Name: fmt.Sprintf("row %s of %s", row.key, x.Task.Name), Instruction: row.Instruction, Input: row.Input,
					Reference: row.Output, Answer: strings.TrimSpace(a.Answer)})
				verdicts = append(verdicts, v)
			}
		}
	}
	if r.judged, err = judge.Judge(ctx, *r.Judge, items); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if j, unread := ask.Read(r.Judge.Journal); r.Judge.Model != nil && unread == nil && j.Answers() > 0 {
			err = fmt.Errorf("%w; %s has the %d replies so far, and the same command goes on there", err, r.Judge.Journal, j.Answers())
		}
		return fmt.Errorf("judge: %w", err)
	}
	for i, v := range r.judged.Verdicts {
		*verdicts[i] = v
	}
	return nil
}

// verdict is a line of verdicts.jsonl.
type verdict struct {
	Task     string `json:"task"`
	ID       string `json:"id"`
	System   string `json:"system"`
	Mark     *int   `json:"mark"` // null: unjudged
	Reason   string `json:"reason,omitempty"`
	Fault    string `json:"fault,omitempty"`
	Requests []int  `json:"requests"` // numbers in the journal
	Model    string `json:"model"`    // that replied, as the endpoint calls it
	Prompt   int64  `json:"prompt_tokens"`
	Reply    int64  `json:"completion_tokens"`
}

// writeVerdicts writes verdicts.jsonl, or removes the one of an earlier run with a judge.
func (r *run) writeVerdicts() error {
	if r.judged == nil {
		if err := os.Remove(r.path(verdictsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return atomicfile.Write(r.path(verdictsFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		for _, x := range r.sets {
			for _, system := range r.systems {
				for i, v := range r.verdicts[system][x] {
					line := verdict{x.Task.Name, x.rows[i].key, system, nil, v.Reason, v.Fault, v.Requests, v.Model, v.Usage.Prompt, v.Usage.Completion}
					if v.Mark > 0 {
						line.Mark = &v.Mark
					}
					if err := e.Encode(line); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// Marks are how a judge's marks fall.
type Marks struct {
	Judged   int             `json:"judged"`
	Unjudged int             `json:"unjudged"` // no mark could be read of the judge's replies, or there was no answer to mark
	Counts   [judge.Best]int `json:"counts"`   // answers with the marks 1, 2, ...
}

// mark adds the marks of a system to its figures.
func (r *run) mark(t *Task, s *Score, x *set, system string) error {
	t.papers = x.papers()
	verdicts, ok := r.verdicts[system][x]
	if !ok {
		return nil
	}
	t.verdicts = append(t.verdicts, verdicts)
	s.Marks = &Marks{}
	var values []float64
	for _, v := range verdicts {
		if v.Mark == 0 {
			s.Marks.Unjudged++
			continue
		}
		s.Marks.Judged++
		s.Marks.Counts[v.Mark-1]++
		values = append(values, float64(v.Mark))
	}
	none := Number(math.NaN())
	m := Metric{MarkMetric, none, none, none}
	if len(values) > 0 {
		interval, err := r.Bootstrap.Mean(values)
		if err != nil {
			return err
		}
		m = metric(metrics.Metric{Name: MarkMetric, Value: mean(values), Interval: interval})
	}
	s.Metrics = append([]Metric{m}, s.Metrics...)
	return nil
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// compareMarks adds the test of the marks of the i-th system against those of the first, on the rows where both have one.
func (t *Task) compareMarks(c *Comparison, i int, b metrics.Bootstrap) error {
	if t.verdicts == nil {
		return nil
	}
	var x, y []float64
	for k, v := range t.verdicts[0] {
		if w := t.verdicts[i][k]; v.Mark > 0 && w.Mark > 0 {
			x, y = append(x, float64(v.Mark)), append(y, float64(w.Mark))
		}
	}
	if len(x) == 0 {
		return nil
	}
	p, err := b.PairedMeans(x, y)
	if err != nil {
		return err
	}
	p.Metric = MarkMetric
	found := test(p)
	if len(x) < len(t.verdicts[0]) {
		found.Rows = len(x)
	}
	c.Tests = append([]Test{found}, c.Tests...)
	return nil
}

// warnJudge says what a reader of a task's marks must know. main is the metric that stands first.
func (r *run) warnJudge(x *set, main string) (list []string) {
	if !x.wantsJudge() {
		return nil
	}
	if r.judged == nil {
		return []string{fmt.Sprintf("%s: not judged: the task asks for the marks of a judge, and there is none; %s stands first", x.Task.Name, main)}
	}
	for _, system := range r.systems {
		n := 0
		for i, v := range r.verdicts[system][x] {
			if v.Mark == 0 && r.answers[system][x][i].Finish != tooLong { // of which run.warn tells
				n++
			}
		}
		if n > 0 {
			list = append(list, fmt.Sprintf("%s: %d of the %d answers of %s are unjudged, since no mark could be read of the judge's replies; they are in no figure of the judge",
				x.Task.Name, n, len(x.rows), system))
		}
	}
	return list
}

// Judge is who gave the marks.
type Judge struct {
	Model       string         `json:"model"`   // that was asked
	Replies     map[string]int `json:"replies"` // by the model that gave them, as the endpoint calls it
	Rubric      string         `json:"rubric"`  // name
	RubricID    string         `json:"rubric_id"`
	Temperature *float64       `json:"temperature,omitempty"` // absent: the endpoint's own
	Questions   int            `json:"questions"`             // different ones
	Again       int            `json:"again"`                 // of these, those that were asked a second time
	// Tokens are of all questions, a fourth of the bytes where the endpoint does not count.
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	Estimated        bool  `json:"estimated,omitempty"`
	// Gains are what systems gain over the first one on tasks of the category GEN.
	Gains     []MarkGain     `json:"gains,omitempty"`
	Published *PublishedGain `json:"published,omitempty"`

	// Asked and Failures are replies and failed attempts of this call; the other replies were in the journal.
	Asked    int `json:"-"`
	Failures int `json:"-"`
}

// MarkGain is what a system gains in marks.
type MarkGain struct {
	System string   `json:"system"`
	Over   string   `json:"over"`
	Tasks  []string `json:"tasks"`  // with their splits
	Before Number   `json:"before"` // mean over the tasks of the mean mark
	After  Number   `json:"after"`
	// Relative is (After - Before) / Before. It is the form of BioInstruct's figure; marks begin at 1, not at 0.
	Relative Number `json:"relative"`
}

// PublishedGain is a paper's.
type PublishedGain struct {
	Paper      string `json:"paper"`
	Group      string `json:"group"`
	Metric     string `json:"metric"`
	Relative   Number `json:"relative"`
	ValueKnown string `json:"value_known"`
	TasksKnown string `json:"tasks_known"`
	SplitKnown string `json:"split_known"`
	Note       string `json:"note"`
}

// judgeInfo is what there is to say of the judge; nil: there is none.
func (r *run) judgeInfo(tasks []Task) *Judge {
	if r.judged == nil {
		return nil
	}
	g := r.judged
	j := &Judge{Model: g.Settings.Model, Replies: g.Models, Rubric: g.Rubric.Name, RubricID: g.Rubric.ID(), Questions: g.Questions, Again: g.Again,
		PromptTokens: g.Usage.Prompt, CompletionTokens: g.Usage.Completion, Estimated: g.Usage.Estimated,
		Asked: g.Asked, Failures: g.Failures}
	if !g.NoTemperature {
		j.Temperature = new(float64)
	}
	for i := 1; i < len(r.systems); i++ {
		if gain := markGain(tasks, i); gain != nil {
			j.Gains = append(j.Gains, *gain)
		}
	}
	if len(j.Gains) > 0 && (len(r.Systems) == 0 || r.Systems[0].Adapter == "") { // of existing answers it is not known
		j.Published = publishedGain(tasks)
	}
	return j
}

// markGain is that of the i-th system over the first; nil where no task of the category GEN is judged.
func markGain(tasks []Task, i int) *MarkGain {
	var names []string
	var before, after []float64
	for k := range tasks {
		t := &tasks[k]
		if t.Category != "GEN" || t.verdicts == nil {
			continue
		}
		a, _ := t.Scores[0].Metric(MarkMetric)
		b, _ := t.Scores[i].Metric(MarkMetric)
		names, before, after = append(names, fmt.Sprintf("%s (%s)", t.Name, t.splitText())), append(before, float64(a.Value)), append(after, float64(b.Value))
	}
	if names == nil {
		return nil
	}
	a, b := mean(before), mean(after)
	return &MarkGain{tasks[0].Scores[i].System, tasks[0].Scores[0].System, names, Number(a), Number(b), Number((b - a) / a)}
}

// publishedGain is the paper's, where all tasks that a gain is made of may be the paper's.
func publishedGain(tasks []Task) *PublishedGain {
	gains := published.Gains()
	g := gains[slices.IndexFunc(gains, func(g published.Gain) bool { return g.Group == "GEN" })]
	for k := range tasks {
		t := &tasks[k]
		if t.Category == "GEN" && t.verdicts != nil && !(t.papers && slices.Contains(g.Tasks, t.Name)) {
			return nil
		}
	}
	return &PublishedGain{published.BioInstruct, g.Group, g.Metric, Number(g.Value / 100), g.Known.String(), g.TasksKnown.String(), published.NotFound.String(),
		"another judge, another prompt and other models: it is no reference for the gain here"}
}

// Who names the judge.
func (j *Judge) Who() string {
	temperature := "temperature 0"
	if j.Temperature == nil {
		temperature = "its own temperature"
	}
	about := ""
	if j.Estimated {
		about = "about "
	}
	return fmt.Sprintf("%s, rubric %s (%s), %s: %d questions, %d of them twice; %s%s tokens of prompts and %s of replies", visible.Text(j.Model),
		visible.Text(j.Rubric), j.RubricID, temperature, j.Questions, j.Again, about, visible.Count(j.PromptTokens), visible.Count(j.CompletionTokens))
}

// String is the gain as a person reads it.
func (g MarkGain) String() string {
	return fmt.Sprintf("%s over %s: mean mark %s after %s, %s (%s)", visible.Text(g.System), visible.Text(g.Over),
		decimals(g.After, "%.2f"), decimals(g.Before, "%.2f"), decimals(100*g.Relative, "%+.1f %%"), strings.Join(g.Tasks, ", "))
}

// String is the gain as a person reads it, with how it is known.
func (p PublishedGain) String() string {
	return fmt.Sprintf("%s, %s, %s %+.1f %% over the base model (value %s; which tasks: %s; split %s); %s", p.Paper, p.Group, p.Metric, 100*p.Relative,
		published.Tagged(p.ValueKnown), published.Tagged(p.TasksKnown), published.Tagged(p.SplitKnown), p.Note)
}

// String lists the marks.
func (m Marks) String() string {
	text := "marks 1 to 5:"
	for _, n := range m.Counts {
		text += fmt.Sprintf(" %d", n)
	}
	return text + fmt.Sprintf("; unjudged %d", m.Unjudged)
}

// verdictText is a verdict beside an answer.
func verdictText(v judge.Verdict) string {
	switch {
	case v.Mark == 0:
		return "unjudged: " + abridged(v.Fault)
	case v.Reason == "":
		return fmt.Sprintf("mark %d", v.Mark)
	}
	return fmt.Sprintf("mark %d: %s", v.Mark, abridged(v.Reason))
}
