package matrix

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/eval/published"
)

// schema is the version of matrix.json. It changes when a key goes or means something else.
const schema = 1

// Results are matrix.json. Values are between 0 and 1, but for marks of a judge, between 1 and 5. They have no times: the same grid gives the same bytes.
type Results struct {
	Schema    int         `json:"schema"`
	Grid      *Grid       `json:"grid"`
	Data      []File      `json:"data"`
	RubricID  string      `json:"rubric_id,omitempty"` // of the judge
	Bases     []BaseScore `json:"bases"`
	Subsets   []Part      `json:"subsets"`
	Columns   []Column    `json:"columns"`
	Cells     []Done      `json:"cells"`
	Gains     []Gain      `json:"gains"`
	Published []Published `json:"published"`
	Notes     []string    `json:"notes,omitempty"`
}

// BaseScore is a base and how it does without training.
type BaseScore struct {
	Base
	Fingerprint string   `json:"fingerprint"` // of the model
	Scores      []Score  `json:"scores"`      // in the order of the tasks
	Notes       []string `json:"notes,omitempty"`
}

// Done is a cell with its scores.
type Done struct {
	Cell
	Steps   int      `json:"steps"`
	Loss    float64  `json:"loss"`     // of the last step
	Cut     int      `json:"cut"`      // rows that lost their end to the longest length
	NoLabel int      `json:"no_label"` // rows that were left out because nothing to learn is left of them
	Scores  []Score  `json:"scores,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Error   string   `json:"error,omitempty"` // of a cell that failed
}

// Score is how a model does on a task.
type Score struct {
	Task     string      `json:"task"`
	Category string      `json:"category"`
	Split    string      `json:"split"`
	Metric   string      `json:"metric"` // the task's main one
	Value    eval.Number `json:"value"`
	Low      eval.Number `json:"low"`
	High     eval.Number `json:"high"`
	N        int         `json:"n"`
	Invalid  int         `json:"invalid"`
	Unjudged int         `json:"unjudged,omitempty"` // of a judge's marks: answers without one, which are not in Value
	Shots    int         `json:"shots,omitempty"`    // examples before each question
	// Sample says of how many rows the N were chosen; nil: they are all.
	Sample *eval.Sample `json:"sample,omitempty"`
}

// Column is what gains are of: a category, as the mean over its tasks, or a task.
type Column struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind"` // category or task
	Tasks  []string `json:"tasks"`
	Metric string   `json:"metric"`
}

// unit is that of the column's values.
func (c Column) unit() eval.Unit { return eval.UnitOf(c.Metric) }

// Gain is what a subset gains over a base, over the seeds.
type Gain struct {
	Base     string      `json:"base"`
	Subset   string      `json:"subset"`
	Column   string      `json:"column"`
	Kind     string      `json:"kind"`
	Before   eval.Number `json:"before"` // of the base
	Mean     eval.Number `json:"mean"`
	SD       eval.Number `json:"sd"` // between seeds, with n - 1; null for one seed
	Gain     eval.Number `json:"gain"`
	Relative eval.Number `json:"relative"` // gain / before; null where before is 0
	N        int         `json:"n"`        // seeds

	unit eval.Unit // of Before, Mean, SD and Gain
}

// Published is a gain that BioInstruct's authors published.
type Published struct {
	Group  string      `json:"group"`
	Metric string      `json:"metric"`
	Gain   eval.Number `json:"gain"`
	Known  string      `json:"known"`
}

// Beside is what has to be said where the papers' gains are shown.
const Beside = "gains that BioInstruct's paper gives over its base models: other models, other tasks, other training data and, for GEN, another judge and prompt; they are no reference for the figures here"

// results are those that there are before anything is asked.
func (r *runner) results() *Results {
	res := &Results{Schema: schema, Grid: r.Grid, Data: r.Files, Subsets: r.Subsets}
	if r.Judge != nil {
		res.RubricID = r.Judge.Rubric.ID()
	}
	for _, b := range r.Grid.Bases {
		res.Bases = append(res.Bases, BaseScore{Base: b})
	}
	for _, g := range published.Gains() {
		res.Published = append(res.Published, Published{g.Group, g.Metric, eval.Number(g.Value / 100), g.Known.String()})
	}
	return res
}

// score takes the main figure out of a run of one task.
func score(res *eval.Results) Score {
	t := &res.Tasks[0]
	s := &t.Scores[0]
	m, _ := s.Metric(t.Main)
	found := Score{t.Name, t.Category, t.Split, t.Main, m.Value, m.Low, m.High, s.N, s.Invalid, 0, t.Shots, t.Sample}
	if t.Main == eval.MarkMetric {
		found.Unjudged = s.Marks.Unjudged
	}
	return found
}

// finish makes columns and gains of the scores.
func (res *Results) finish(notes []string) {
	all := slices.Clone(notes)
	for _, b := range res.Bases {
		all = append(all, b.Notes...)
	}
	for _, c := range res.Cells {
		all = append(all, c.Notes...)
	}
	for _, n := range all {
		if !slices.Contains(res.Notes, n) {
			res.Notes = append(res.Notes, n)
		}
	}
	res.Columns = columns(res.Bases[0].Scores)
	res.leaveMixed()
	res.leaveUnjudged()
	for _, b := range res.Bases {
		for _, s := range res.Subsets {
			for _, c := range res.Columns {
				res.Gains = append(res.Gains, res.gain(&b, s.Name, c))
			}
		}
	}
}

// columns are the categories, in the papers' order, and then the tasks.
func columns(scores []Score) (list []Column) {
	order := []string{"QA", "IE", "GEN"}
	rank := func(c string) int {
		if i := slices.Index(order, c); i >= 0 {
			return i
		}
		return len(order)
	}
	for _, s := range scores {
		i := slices.IndexFunc(list, func(c Column) bool { return c.Name == s.Category })
		if i < 0 {
			list = append(list, Column{s.Category, "category", []string{s.Task}, s.Metric})
			continue
		}
		c := &list[i]
		c.Tasks = append(c.Tasks, s.Task)
		if !slices.Contains(strings.Split(c.Metric, ", "), s.Metric) {
			c.Metric += ", " + s.Metric
		}
	}
	slices.SortStableFunc(list, func(a, b Column) int {
		return cmp.Or(cmp.Compare(rank(a.Name), rank(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range scores {
		list = append(list, Column{s.Task, "task", []string{s.Task}, s.Metric})
	}
	return list
}

// Asked says of each task which rows it has and how they are scored: what a figure is of.
func (res *Results) Asked() (list []string) {
	for _, s := range res.Bases[0].Scores {
		text := fmt.Sprintf("%s (%s): %s, %s, %s", s.Task, s.Category, s.Metric, s.Sample.Text(s.N), s.splitText())
		if s.Shots > 0 {
			text += fmt.Sprintf(", %d-shot", s.Shots)
		}
		list = append(list, text)
	}
	return list
}

func (s *Score) splitText() string {
	if s.Split == "" {
		return "split not said"
	}
	return s.Split
}

// leaveMixed takes categories out of whose tasks some are marked by a judge and some are not: such figures have no mean.
func (res *Results) leaveMixed() {
	res.Columns = slices.DeleteFunc(res.Columns, func(c Column) bool {
		names := strings.Split(c.Metric, ", ")
		mixed := len(names) > 1 && slices.Contains(names, eval.MarkMetric)
		if mixed {
			res.Notes = append(res.Notes, fmt.Sprintf("%s: some of its tasks are marked by a judge and others are not (%s), which have no mean", c.Name, c.Metric))
		}
		return mixed
	})
}

// leaveUnjudged takes the paper's gain in a judge's marks out where the category has none to set beside it.
func (res *Results) leaveUnjudged() {
	judged := slices.ContainsFunc(res.Columns, func(c Column) bool {
		return c.Name == "GEN" && c.Kind == "category" && c.Metric == eval.MarkMetric
	})
	if !judged {
		res.Published = slices.DeleteFunc(res.Published, func(p Published) bool { return p.Group == "GEN" })
	}
}

// Mean is a column's value in the scores of a model.
func (c Column) Mean(scores []Score) float64 {
	sum := 0.0
	for _, s := range scores {
		if slices.Contains(c.Tasks, s.Task) {
			sum += float64(s.Value)
		}
	}
	return sum / float64(len(c.Tasks))
}

func (res *Results) gain(b *BaseScore, subset string, c Column) Gain {
	var values []float64
	for i := range res.Cells {
		if d := &res.Cells[i]; d.Base == b.Name && d.Subset == subset && d.Error == "" {
			values = append(values, c.Mean(d.Scores))
		}
	}
	before := c.Mean(b.Scores)
	mean, sd := spread(values)
	g := Gain{Base: b.Name, Subset: subset, Column: c.Name, Kind: c.Kind, N: len(values), Before: eval.Number(before), Mean: eval.Number(mean),
		SD: eval.Number(sd), Gain: eval.Number(mean - before), Relative: eval.Number(math.NaN()), unit: c.unit()}
	if before > 0 {
		g.Relative = eval.Number((mean - before) / before)
	}
	return g
}

// spread is the mean of values and their standard deviation, with n - 1; NaN where there are too few.
func spread(values []float64) (mean, sd float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	for _, v := range values {
		sd += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(sd / (n - 1))
}

// of returns a gain.
func (res *Results) of(base, subset string, c Column) Gain {
	i := slices.IndexFunc(res.Gains, func(g Gain) bool {
		return g.Base == base && g.Subset == subset && g.Column == c.Name && g.Kind == c.Kind
	})
	return res.Gains[i]
}

// write writes matrix.json and matrix.html.
func (res *Results) write(dir string) error {
	page, err := res.page()
	if err != nil {
		return fmt.Errorf("%s: %w", ReportFile, err)
	}
	if err := atomicfile.WriteJSON(filepath.Join(dir, ResultsFile), res); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, ReportFile), func(w io.Writer) error {
		_, err := w.Write(page)
		return err
	})
}
