package eval

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/biolora/biolora/internal/eval/published"
	"github.com/biolora/biolora/internal/visible"
)

// columns are the metrics of a task's table: the main one first, the task's others, what is computed as the papers' figures
// are, and what is not made of answers. Of those that are the same by definition one is shown.
func (t *Task) columns() []string {
	names := append([]string{t.Main}, t.Metrics...)
	for _, p := range t.Published {
		names = append(names, p.Ours)
	}
	for _, m := range t.Scores[0].Likelihood {
		names = append(names, m.Name)
	}
	names = append(names, "perplexity")
	var shown, twins []string
	for _, name := range names {
		if _, ok := t.Scores[0].Metric(name); ok && !slices.Contains(twins, t.twin(name)) {
			shown, twins = append(shown, name), append(twins, t.twin(name))
		}
	}
	return shown
}

// twin is the metric that a metric is the same as by its definition, on such a task: an invalid answer is a wrong label, and
// a mean over one type of entity is that type's. Other names are their own.
func (t *Task) twin(name string) string {
	switch {
	case t.Parser == "label" && name == "micro_f1":
		return "accuracy"
	case t.Parser == "tags" && len(t.Scores[0].Classes) == 1:
		return strings.Replace(name, "macro_f1", "f1", 1)
	}
	return name
}

// splitText is how a split is shown.
func (t *Task) splitText() string {
	switch t.Split {
	case "":
		return "split not said"
	case "mixed":
		return "mixed splits"
	}
	return t.Split
}

// shown is a metric as a person reads it: a share in per cent, perplexity and marks as they are.
func shown(m Metric) string {
	if m.Name == "perplexity" {
		return fmt.Sprintf("%.3g [%.3g, %.3g]", m.Value, m.Low, m.High)
	}
	u := UnitOf(m.Name)
	return fmt.Sprintf("%s [%s, %s]", u.Text(m.Value), u.Text(m.Low), u.Text(m.High))
}

// shown is the difference with its interval, as a person reads it.
func (t Test) shown() string {
	u := UnitOf(t.Metric)
	return fmt.Sprintf("%s [%s, %s]", u.Signed(t.Difference), u.Signed(t.Low), u.Signed(t.High))
}

// rows says how many rows a test is of, where these are not all.
func (t Test) rows() string {
	if t.Rows == 0 {
		return ""
	}
	return fmt.Sprintf(", of the %d rows where both have a mark", t.Rows)
}

// Text writes a table for each task: a line for each system, with the metrics in per cent, marks as they are, and their
// intervals, and the papers' figures below; then what there is to say of the judge.
func (r *Results) Text(w io.Writer) error {
	for i := range r.Tasks {
		t := &r.Tasks[i]
		fmt.Fprintf(w, "%s (%s), %s, %s, %.0f %% intervals\n", t.Name, t.Category, t.splitText(), t.Sample.Text(t.Rows), 100*r.Intervals.Level)
		tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		columns := t.columns()
		fmt.Fprintf(tab, "  system\t%s\tinvalid\n", strings.Join(columns, "\t"))
		for k := range t.Scores {
			s := &t.Scores[k]
			fmt.Fprintf(tab, "  %s", visible.Text(s.System))
			for _, name := range columns {
				cell := "-"
				if m, ok := s.Metric(name); ok {
					cell = shown(m)
				}
				fmt.Fprintf(tab, "\t%s", cell)
			}
			fmt.Fprintf(tab, "\t%.1f\n", 100*s.InvalidShare)
		}
		if err := tab.Flush(); err != nil {
			return err
		}
		for _, s := range t.Scores {
			if s.Marks != nil {
				fmt.Fprintf(w, "  %s, %s\n", visible.Text(s.System), s.Marks)
			}
		}
		for _, c := range t.Comparisons {
			for _, test := range c.Tests {
				if test.Metric == t.Main {
					fmt.Fprintf(w, "  %s - %s: %s, p %.2g%s\n", visible.Text(c.B), visible.Text(c.A), test.shown(), test.PRandomisation, test.rows())
				}
			}
		}
		for _, p := range t.Published {
			fmt.Fprintf(w, "  published: %s\n", p.text())
		}
		fmt.Fprintln(w)
	}
	if j := r.Judge; j != nil {
		fmt.Fprintf(w, "judge: %s\n", j.Who())
		for _, g := range j.Gains {
			fmt.Fprintf(w, "  %s\n", g)
		}
		if j.Published != nil {
			fmt.Fprintf(w, "  published: %s\n", j.Published)
		}
		fmt.Fprintln(w)
	}
	if r.HasPublished() {
		fmt.Fprintf(w, "published figures: %s\n", published.Legend)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "note: %s\n", visible.Text(warning))
	}
	return nil
}

// HasPublished reports whether a paper's figure stands among the results.
func (r *Results) HasPublished() bool {
	return r.Judge != nil && r.Judge.Published != nil || slices.ContainsFunc(r.Tasks, func(t Task) bool { return len(t.Published) > 0 })
}

// text is a paper's figure with how it is known.
func (p *Published) text() string {
	split := p.Split
	if split == "" {
		split = "split " + published.Tagged(p.SplitKnown)
	} else {
		split += " split, " + published.Tagged(p.SplitKnown)
	}
	text := fmt.Sprintf("%s, %s %.2f (%s; value %s; here: %s; %s)", p.Model, p.Metric, 100*p.Value, p.Paper, published.Tagged(p.ValueKnown), p.Ours, split)
	if p.Note != "" {
		text += "; " + p.Note
	}
	return text
}
