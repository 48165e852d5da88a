package matrix

import (
	"fmt"
	"html"
	"math"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/eval"
)

// figures are results of one base, two subsets and two seeds, of which one cell has failed.
func figures() *Results {
	scores := func(qa1, qa2, ie float64) []Score {
		return []Score{
			{Task: "ner", Category: "IE", Metric: "f1", Split: "test", N: 70, Sample: &eval.Sample{Of: 900, Seed: 42}, Value: eval.Number(ie)},
			{Task: "medqa", Category: "QA", Metric: "accuracy", Value: eval.Number(qa1)},
			{Task: "pubmedqa", Category: "QA", Metric: "accuracy", Value: eval.Number(qa2)},
		}
	}
	res := &Results{Grid: &Grid{Seeds: []uint64{1, 2}},
		Bases:   []BaseScore{{Base: Base{Name: "b<1>"}, Scores: scores(0.2, 0.4, 0)}},
		Subsets: []Part{{Subset: Subset{Name: "all"}, Rows: 9}, {Subset: Subset{Name: "QA", Where: "len(input) < 3", Count: 4}, Matched: 7, Rows: 4}},
		Cells: []Done{
			{Cell: Cell{Base: "b<1>", Subset: "all", Seed: 1}, Scores: scores(0.4, 0.6, 0.1)},
			{Cell: Cell{Base: "b<1>", Subset: "all", Seed: 2}, Scores: scores(0.6, 0.8, 0.3)},
			{Cell: Cell{Base: "b<1>", Subset: "QA", Seed: 1}, Scores: scores(0.1, 0.2, 0)},
			{Cell: Cell{Base: "b<1>", Subset: "QA", Seed: 2}, Error: "no room"},
		},
	}
	res.finish(nil)
	return res
}

func TestGains(t *testing.T) {
	res := figures()
	var names []string
	for _, c := range res.Columns {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "QA IE ner medqa pubmedqa" {
		t.Fatalf("columns %s", got)
	}
	near := func(got eval.Number, want float64) bool {
		return math.IsNaN(want) && math.IsNaN(float64(got)) || math.Abs(float64(got)-want) < 1e-12
	}
	nan := math.NaN()
	for _, c := range []struct {
		subset                       string
		column                       int
		before, mean, sd, gain, part float64
		n                            int
	}{
		{"all", 0, 0.3, 0.6, math.Sqrt(0.02), 0.3, 1, 2},
		{"all", 1, 0, 0.2, math.Sqrt(0.02), 0.2, nan, 2},
		{"all", 3, 0.2, 0.5, math.Sqrt(0.02), 0.3, 1.5, 2},
		{"QA", 0, 0.3, 0.15, nan, -0.15, -0.5, 1}, // of the seed that is done
	} {
		g := res.of("b<1>", c.subset, res.Columns[c.column])
		if !near(g.Before, c.before) || !near(g.Mean, c.mean) || !near(g.SD, c.sd) || !near(g.Gain, c.gain) || !near(g.Relative, c.part) || g.N != c.n {
			t.Errorf("%s, %s: %+v", c.subset, res.Columns[c.column].Name, g)
		}
	}
}

func TestPage(t *testing.T) {
	text, err := figures().page()
	if err != nil {
		t.Fatal(err)
	}
	page := html.UnescapeString(string(text))
	for _, want := range []string{"b<1>", "failed: no room", "+30.0", "-50.0 %", "60.0 ± 14.1", "darkest colour is 30.0 points", `fill="#1f5fa8"`, "ner (IE): f1, 70 of 900 rows, seed 42, test", "medqa (QA): accuracy, 0 rows, split not said",
		"all rows", "len(input) < 3</code>; 4 of 7, chosen by the seed"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"b<1>", "src=", "href=", "url("} {
		if strings.Contains(string(text), not) {
			t.Errorf("the page has %q: a name is markup, or it needs another file", not)
		}
	}
}

func TestColour(t *testing.T) {
	for _, c := range []struct {
		gain, most float64
		want       string
	}{{0, 1, "#ffffff"}, {0, 0, "#ffffff"}, {1, 1, "#1f5fa8"}, {-1, 1, "#b84a08"}, {math.NaN(), 1, "#dddddd"}} {
		if got, _ := colour(c.gain, c.most); got != c.want {
			t.Errorf("%v of %v: %s, want %s", c.gain, c.most, got, c.want)
		}
	}
	rgb := func(s string) (c [3]float64) {
		var r, g, b int
		if _, err := fmt.Sscanf(s, "#%02x%02x%02x", &r, &g, &b); err != nil {
			t.Fatal(err)
		}
		return [3]float64{float64(r), float64(g), float64(b)}
	}
	if got := contrast(white, black); got != 21 {
		t.Errorf("black on white has a contrast of %v", got)
	}
	for gain := -1.0; gain <= 1; gain += 0.01 { // 4.5: WCAG 2's least for text of this size
		if fill, ink := colour(gain, 1); contrast(rgb(fill), rgb(ink)) < 4.5 {
			t.Errorf("%v: %s on %s cannot be read", gain, ink, fill)
		}
	}
}

// marked are results of one base, one subset and one seed on three tasks of GEN, of which the first two are judged.
func marked(judge *Judge, metrics ...string) *Results {
	scores := func(values ...float64) (list []Score) {
		for i, m := range metrics {
			list = append(list, Score{Task: "gen" + string(rune('a'+i)), Category: "GEN", Metric: m, Value: eval.Number(values[i]), N: 9})
		}
		return list
	}
	res := &Results{Grid: &Grid{Seeds: []uint64{1}, Judge: judge}, RubricID: "0123",
		Bases:     []BaseScore{{Base: Base{Name: "b"}, Scores: scores(1.5, 2.5, 0.25)}},
		Subsets:   []Part{{Subset: Subset{Name: "all"}}},
		Cells:     []Done{{Cell: Cell{Base: "b", Subset: "all", Seed: 1}, Scores: scores(3, 4, 0.5)}},
		Published: []Published{{Group: "QA", Metric: "m", Gain: 0.173, Known: "read"}, {Group: "GEN", Metric: "m", Gain: 0.96, Known: "read"}},
	}
	res.finish(nil)
	return res
}

// Marks are shown from 1 to 5, and have no mean with other figures; the paper's gain in marks stands beside one in marks.
func TestMarks(t *testing.T) {
	judge := &Judge{Model: "gpt-x", Rubric: "dir/strict.txt"}
	for name, c := range map[string]struct {
		res    *Results
		has    []string
		hasNot []string
	}{
		"marks": {marked(judge, "judge", "judge"), []string{
			"gains over the base in points, or in marks where a judge gives them", "GEN (judge)", "2.00", "3.50", "+1.50", "+75.0 %", "GEN +96.0 %", "judge: gpt-x, rubric strict.txt (0123)",
		}, []string{"+150"}},
		"rougeL": {marked(nil, "rougeL", "rougeL"), []string{"gains over the base in points, 1", "GEN (rougeL)", "200.0", "QA +17.3 %"}, []string{"GEN +96.0", "judge:"}},
		"mixed": {marked(judge, "judge", "judge", "rougeL"), []string{
			"note: GEN: some of its tasks are marked by a judge and others are not (judge, rougeL), which have no mean"}, []string{"GEN (", "GEN +96.0"}},
	} {
		var text strings.Builder
		if err := c.res.Text(&text); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.has {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s: no %q in\n%s", name, want, &text)
			}
		}
		for _, not := range c.hasNot {
			if strings.Contains(text.String(), not) {
				t.Errorf("%s: %q in\n%s", name, not, &text)
			}
		}
	}
	page, err := marked(judge, "judge", "judge", "rougeL").page()
	if err != nil {
		t.Fatal(err)
	}
	// Of three gains, 1.5 and 1.5 of 4 marks and 0.25 of 1, the first are the darker.
	for _, want := range []string{"+1.50", "+25.0", "darkest colour is 37.5 points, or 1.50 marks", "Judge: gpt-x, rubric strict.txt", "all on genb: 2.50 before, 4.00 after, +60.0 % relative"} {
		if !strings.Contains(html.UnescapeString(string(page)), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
