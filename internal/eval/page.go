package eval

import (
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/eval/published"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/internal/webpage"
)

//go:embed report.html.tmpl
var pageText string

var pageTemplate = webpage.Parse(pageText, template.FuncMap{
	"percent": func(n any) string {
		switch n := n.(type) {
		case Number:
			return fmt.Sprintf("%.2f", 100*n)
		case float64:
			return fmt.Sprintf("%.2f", 100*n)
		}
		return ""
	},
	"signed": func(metric string, n Number) string { return decimals(Number(UnitOf(metric).factor)*n, "%+.2f") },
	"legend": func() string { return published.Legend },
	"p":      func(n Number) string { return fmt.Sprintf("%.2g", n) },
	"whole":  func(share float64) string { return fmt.Sprintf("%.4g", 100*share) },
})

// page is report.html: one file that needs no other.
func (r *Results) page() ([]byte, error) {
	p := page{Results: r}
	for i := range r.Tasks {
		p.Tasks = append(p.Tasks, r.taskView(&r.Tasks[i]))
	}
	return webpage.Render(pageTemplate, p)
}

type page struct {
	*Results
	Tasks []taskView
}

type taskView struct {
	*Task
	SplitText string
	RowsText  string
	Columns   []string
	Table     [][]string // of each system, a cell for each column
	Chart     chart
	Papers    []string
	// Comparisons are the task's, but for metrics that are the same as others by definition.
	Comparisons []Comparison
	Examples    []exampleView
	Marks       bool // of a judge
}

// chart is a horizontal bar chart of the main metric or, where there are papers' figures, of the one that is computed as
// theirs is.
type chart struct {
	Width, Height int
	Label         string
	Ticks         []tick
	Bars          []bar
}

type tick struct {
	X    int
	Text string
}

type bar struct {
	Name, Text            string
	Y, Middle, Base       int // top, centre, and where the text stands
	X, Width              int
	Interval              bool
	Low, High, Top, Under int // the interval's ends, and its whiskers'
	Published             bool
}

const (
	chartWidth = 760
	chartLeft  = 220
	chartPlot  = 400
	barHeight  = 18
	barStep    = 28
)

func (t *Task) chart() chart {
	shown := t.Main
	if len(t.Published) > 0 {
		shown = t.Published[0].Ours
	}
	u := UnitOf(shown)
	c := chart{Width: chartWidth, Label: shown + ", " + u.name}
	add := func(name string, m Metric, published bool) {
		y := barStep*len(c.Bars) + 6
		b := bar{Name: short(name), Text: u.Text(m.Value), Y: y, Middle: y + barHeight/2, Base: y + barHeight - 5, X: chartLeft,
			Width: u.at(m.Value) - chartLeft, Top: y + 4, Under: y + barHeight - 4, Published: published}
		if low, high := float64(m.Low), float64(m.High); !published && low == low && high == high {
			b.Interval, b.Low, b.High = true, u.at(m.Low), u.at(m.High)
		}
		c.Bars = append(c.Bars, b)
	}
	for i := range t.Scores {
		if m, ok := t.Scores[i].Metric(shown); ok {
			add(t.Scores[i].System, m, false)
		}
	}
	for _, p := range t.Published {
		add(p.Model+" (paper)", Metric{Value: p.Value}, true)
	}
	c.Height = barStep*len(c.Bars) + 28
	for i := range 1 + int(math.Round((u.high-u.low)/u.step)) {
		at := Number(u.low + float64(i)*u.step)
		c.Ticks = append(c.Ticks, tick{u.at(at), fmt.Sprintf("%.0f", Number(u.factor)*at)})
	}
	return c
}

// short is a name that has room beside a bar.
func short(name string) string {
	const most = 28
	letters := []rune(name)
	if len(letters) <= most {
		return name
	}
	return "…" + string(letters[len(letters)-most+1:])
}

// exampleView is a row with all answers.
type exampleView struct {
	ID, Instruction, Input, Gold string
	Answers                      []answerView
}

type answerView struct {
	System, Text, Read, Finish, Class string
	Score, Verdict                    string
}

// shownExamples is how many rows of a task the report has.
const shownExamples = 40

// shownText is how much of a text it has, in bytes.
const shownText = 1200

func (r *Results) taskView(t *Task) taskView {
	v := taskView{Task: t, SplitText: t.splitText(), RowsText: t.Sample.Text(t.Rows), Columns: t.columns(), Chart: t.chart(), Marks: t.verdicts != nil}
	for i := range t.Scores {
		var cells []string
		for _, name := range v.Columns {
			cell := "–"
			if m, ok := t.Scores[i].Metric(name); ok {
				cell = shown(m)
			}
			cells = append(cells, cell)
		}
		v.Table = append(v.Table, cells)
	}
	for _, c := range t.Comparisons {
		var twins []string
		c.Tests = slices.DeleteFunc(slices.Clone(c.Tests), func(test Test) bool {
			again := slices.Contains(twins, t.twin(test.Metric))
			twins = append(twins, t.twin(test.Metric))
			return again
		})
		v.Comparisons = append(v.Comparisons, c)
	}
	for i := range t.Published {
		v.Papers = append(v.Papers, t.Published[i].text())
	}
	for _, i := range t.chosen() {
		v.Examples = append(v.Examples, t.example(i))
	}
	return v
}

// chosen are the rows that are shown: those that systems differ on before those that one has wrong before the others, and
// all in the order of the rows.
func (t *Task) chosen() []int {
	rank := func(i int) int {
		wrong, differ := false, false
		for _, scores := range t.examples {
			wrong = wrong || scores[i].Score < 1
			differ = differ || scores[i].Score != t.examples[0][i].Score
		}
		for _, verdicts := range t.verdicts {
			wrong = wrong || verdicts[i].Mark < judge.Best
			differ = differ || verdicts[i].Mark != t.verdicts[0][i].Mark
		}
		switch {
		case differ:
			return 0
		case wrong:
			return 1
		}
		return 2
	}
	all := make([]int, len(t.rows))
	for i := range all {
		all[i] = i
	}
	slices.SortStableFunc(all, func(a, b int) int { return rank(a) - rank(b) })
	all = all[:min(shownExamples, len(all))]
	slices.Sort(all)
	return all
}

func (t *Task) example(i int) exampleView {
	row := t.rows[i]
	v := exampleView{ID: abridged(row.key), Instruction: abridged(row.Instruction), Input: abridged(row.Input), Gold: abridged(row.Output)}
	for k, answers := range t.answers {
		s := t.examples[k][i]
		a := answerView{System: visible.Text(t.Scores[k].System), Text: abridged(answers[i].Answer), Finish: visible.Text(answers[i].Finish), Class: "part", Score: fmt.Sprintf("%.2f", s.Score)}
		switch {
		case !s.Valid:
			a.Class, a.Read = "wrong", "cannot be read"
		case s.Score >= 1:
			a.Class = "right"
		case s.Score <= 0:
			a.Class = "wrong"
		}
		if s.Valid && s.Prediction != "" && len(s.Prediction) < 80 {
			a.Read = "read as " + visible.Text(s.Prediction)
		}
		if t.verdicts != nil {
			a.Verdict = verdictText(t.verdicts[k][i])
		}
		v.Answers = append(v.Answers, a)
	}
	return v
}

// abridged is a text fit to be shown: of long ones the beginning.
func abridged(text string) string {
	if len(text) <= shownText {
		return visible.Text(text)
	}
	cut := shownText
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return visible.Text(strings.TrimSpace(text[:cut])) + fmt.Sprintf(" … (%d bytes more)", len(text)-cut)
}
