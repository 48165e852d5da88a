package matrix

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/eval/published"
	"github.com/biolora/biolora/internal/visible"
)

// Text writes the gains in the papers' form: for each base a table with a line for each subset, and for each category the
// mean over its tasks and seeds, in per cent or in marks of a judge, and what is gained: in points, and relative to the base.
func (res *Results) Text(w io.Writer) error {
	var shown []Column
	for _, c := range res.Columns {
		if c.Kind == "category" {
			shown = append(shown, c)
		}
	}
	for _, b := range res.Bases {
		fmt.Fprintf(w, "%s: gains over the base in %s, %d seed(s)\n", visible.Text(b.Name), res.Points(), len(res.Grid.Seeds))
		tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		head, line := "  trained on\trows", "  (base)\t-"
		for _, c := range shown {
			head += fmt.Sprintf("\t%s (%s)\tgain\trelative", c.Name, c.Metric)
			line += fmt.Sprintf("\t%s\t\t", c.unit().Text(eval.Number(c.Mean(b.Scores))))
		}
		fmt.Fprintf(tab, "%s\n%s\n", head, line)
		for _, s := range res.Subsets {
			line := fmt.Sprintf("  %s\t%d", s.Name, s.Rows)
			for _, c := range shown {
				g := res.of(b.Name, s.Name, c)
				line += fmt.Sprintf("\t%s\t%s\t%s", g.Value(), g.unit.Signed(g.Gain), signed(g.Relative, " %"))
			}
			fmt.Fprintln(tab, line)
		}
		if err := tab.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "asked: %s\n", visible.Text(strings.Join(res.Asked(), "; ")))
	var parts []string
	for _, p := range res.Published {
		parts = append(parts, fmt.Sprintf("%s %+.1f %% (%s; %s)", p.Group, 100*p.Gain, p.Metric, published.Tagged(p.Known)))
	}
	fmt.Fprintf(w, "published: %s\n  %s\n", strings.Join(parts, ", "), Beside)
	if res.Grid.Judge != nil {
		fmt.Fprintf(w, "judge: %s\n", res.Who())
	}
	for _, n := range res.Notes {
		fmt.Fprintf(w, "note: %s\n", visible.Text(n))
	}
	return nil
}

// Points is what gains are in.
func (res *Results) Points() string {
	if res.marks() {
		return "points, or in marks where a judge gives them"
	}
	return "points"
}

// marks reports whether a column is of a judge's marks.
func (res *Results) marks() bool {
	return slices.ContainsFunc(res.Columns, func(c Column) bool { return c.Metric == eval.MarkMetric })
}

// Who names the judge, where the grid has one.
func (res *Results) Who() string {
	rubric := "built-in"
	if f := res.Grid.Judge.Rubric; f != "" {
		rubric = filepath.Base(f)
	}
	return fmt.Sprintf("%s, rubric %s (%s); marks are from 1 to 5", visible.Text(res.Grid.Judge.Model), visible.Text(rubric), res.RubricID)
}

// Value is the mean over the seeds and, where there are several, their standard deviation, in per cent or in marks.
func (g Gain) Value() string {
	switch {
	case g.N == 0:
		return "failed"
	case math.IsNaN(float64(g.SD)):
		return g.unit.Text(g.Mean)
	}
	return g.unit.Text(g.Mean) + " ± " + g.unit.Text(g.SD)
}

// signed is a share in per cent with its sign; a dash where there is none.
func signed(n eval.Number, unit string) string {
	if math.IsNaN(float64(n)) {
		return "-"
	}
	return fmt.Sprintf("%+.1f%s", 100*n, unit)
}
