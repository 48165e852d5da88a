package bioinstruct

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/rows"
)

func of(all ...rows.Row) iter.Seq2[rows.Row, error] {
	return func(yield func(rows.Row, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func TestMeasure(t *testing.T) {
	sample := []rows.Row{
		{Instruction: "Name the gene of this disease.", Input: "gout", Output: "none known", Category: "QA"},
		{Instruction: "Name the gene of this disease.", Input: "gout", Output: "none known", Category: "QA"},
		{Instruction: "Name the gene of this disease.", Input: "gout", Output: "another answer", Category: "IE"},
		{Instruction: "Name the gene of that disease.", Input: "N/A", Output: "one two three"},
		{Instruction: "Draw it.", Input: "", Output: "x"},
	}
	got, err := Measure(of(sample...), MeasureOptions{Seeds: []Seed{{Instruction: "Draw it."}, {Instruction: "Name them"}}, Tokens: func(s string) int { return len(s) }, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]int{"QA": 2, "IE": 1, "": 2}, got.Categories); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int{"N/A": 1}, got.DisguisedBy); d != "" || got.EmptyInputs != 1 || got.Inputs != 3 {
		t.Errorf("%s %+v", d, got)
	}
	if got.SameRows != 1 || got.SameTasks != 1 || got.SameInstr != 2 || got.SimilarInstr != 1 || got.LargestRougeL != 5.0/6 {
		t.Errorf("repeated: %+v", got)
	}
	if d := cmp.Diff(map[Reason]int{TooShort: 1}, got.Rejected); d != "" {
		t.Error(d)
	}
	if w := got.Words.Total; w.Mean != (9+9+9+10+3)/5. || w.Min != 3 || w.Median != 9 || w.Max != 10 {
		t.Errorf("words %+v", w)
	}
	if k := got.Tokens.Output; k.Min != 1 || k.Max != 14 {
		t.Errorf("tokens %+v", k)
	}
	if n := got.NearestSeed; n.Max != 1 || n.Min != 2*1.0/(6+2) {
		t.Errorf("nearest seeds %+v", n)
	}
	var text, asJSON bytes.Buffer
	if err := errors.Join(got.WriteText(&text), got.WriteJSON(&asJSON)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5 rows\n", "QA                  2   40.0 %  22.8 % [F]\n", "(none)              2   40.0 %\n", `empty in disguise: 1 ("N/A" 1)`, "  1: instruction of 3 words or fewer\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	var back Stats
	if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil || back.Words.Total.Max != 10 || back.Rows != 5 {
		t.Errorf("%v\n%s", err, asJSON.String())
	}
}

// TestSVG: the drawing is well-formed, whatever categories are called, and has a bar for every row.
func TestSVG(t *testing.T) {
	var all []rows.Row
	for i := range 300 {
		all = append(all, rows.Row{Instruction: strings.Repeat("word ", i%60), Output: strings.Repeat("x ", i*i%700), Category: []string{"QA", "<&\x1b>"}[i%2]})
	}
	got, err := Measure(of(all...), MeasureOptions{Seeds: []Seed{{Instruction: "word word"}}, Tokens: func(s string) int { return len(s) }})
	if err != nil {
		t.Fatal(err)
	}
	var svg bytes.Buffer
	if err := got.WriteSVG(&svg); err != nil {
		t.Fatal(err)
	}
	var drawn struct {
		G []struct {
			Text []string `xml:"text"`
			Rect []struct {
				Title string `xml:"title"`
			} `xml:"rect"`
		} `xml:"g"`
	}
	if err := xml.Unmarshal(svg.Bytes(), &drawn); err != nil || len(drawn.G) != 10 || strings.Contains(svg.String(), "NaN") {
		t.Fatalf("%v, %d panels", err, len(drawn.G))
	}
	for _, g := range drawn.G {
		sum := 0
		for _, r := range g.Rect {
			var n int
			words := strings.Fields(r.Title)
			if _, err := fmt.Sscan(words[len(words)-2], &n); err != nil {
				t.Error(err)
			}
			sum += n
		}
		if sum != 300 || len(g.Rect) > bins+1 {
			t.Errorf("%s: %d bars, %d rows", g.Text[0], len(g.Rect), sum)
		}
	}
	for i := range 20 {
		got.Categories[fmt.Sprint("a name that is rather long ", i)] = 1
	}
	svg.Reset()
	if err := got.WriteSVG(&svg); err != nil || !strings.Contains(svg.String(), ">15 more<") || strings.Contains(svg.String(), "rather long 5") {
		t.Errorf("%v, %s", err, svg.String())
	}
	svg.Reset()
	empty, err := Measure(of(), MeasureOptions{})
	if err := errors.Join(err, empty.WriteSVG(&svg)); err != nil || strings.Contains(svg.String(), "NaN") {
		t.Errorf("%v, %s", err, svg.String())
	}
}

func TestMeasureNothing(t *testing.T) {
	got, err := Measure(of(), MeasureOptions{})
	if err != nil || got.Rows != 0 || got.Words.Total.Max != 0 {
		t.Errorf("%v, %+v", err, got)
	}
	var text bytes.Buffer
	if err := got.WriteText(&text); err != nil || strings.Contains(text.String(), "NaN") {
		t.Errorf("%v\n%s", err, text.String())
	}
	broken := errors.New("broken")
	if _, err := Measure(func(yield func(rows.Row, error) bool) { yield(rows.Row{}, broken) }, MeasureOptions{}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestMeasureBioInstruct: the figures of the real rows are those in the project's notes.
func TestMeasureBioInstruct(t *testing.T) {
	path := golden.Shared(t, "data", "bioinstruct", "bioinstruct-2501.json")
	seeds, err := Seeds()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Measure(rows.Read(t.Context(), path), MeasureOptions{Seeds: seeds, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if w := got.Words; int(w.Instruction.Mean+0.5) != 15 || int(10*w.Input.Mean+0.5) != 164 || int(10*w.Output.Mean+0.5) != 389 || w.Total.P99 != 195 || w.Total.Max != 531 {
		t.Errorf("means %g %g %g, total p99 %g max %g", w.Instruction.Mean, w.Input.Mean, w.Output.Mean, w.Total.P99, w.Total.Max)
	}
	if got.Rows != 2501 || got.LargestRougeL != 0.7 || got.SimilarInstr != 0 || len(got.Rejected) != 0 || got.SameInstr != 0 {
		t.Errorf("%+v", got)
	}
	if share := percent(got.EmptyInputs+got.Disguised(), got.Rows); share < 6 || share > 9 {
		t.Errorf("%.1f %% of the inputs are empty", share)
	}
	var text bytes.Buffer
	if err := got.WriteText(&text); err != nil || !strings.Contains(text.String(), `are not on the list: 24 ("(no input required)" 5, "(No input required)" 3, "-" 2`) {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestLooksEmpty(t *testing.T) {
	for _, text := range []string{"(no input required)", "No input.", "[None]", "\"N/A\"", "n.a.", "-", "…", "No additional input is needed for this task.", "Input: none", "The input is not required",
		"None provided", "NOT APPLICABLE", "<noinput>", "Not needed.", "(blank)"} {
		if !looksEmpty(text) {
			t.Errorf("%q does not look empty", text)
		}
	}
	for _, text := range []string{"NA", "Na", "Na+", "no", "not", "No fever.", "0", "+", "none of the above", "No input from the family was needed", "null hypothesis", "context", "> 5", "empty stomach", "no data", "≤",
		strings.Repeat(" ", 101)} {
		if looksEmpty(text) {
			t.Errorf("%q looks empty", text)
		}
	}
}

func TestHistogram(t *testing.T) {
	d := Distribution{}
	for v := range 200 {
		d.add(float64(v))
	}
	d.add(5000)
	d.finish()
	if counts, width, open := d.histogram(1); width != 5 || len(counts) != 40 || counts[0] != 5 || counts[39] != 6 || !open {
		t.Errorf("width %v, %v, %v", width, counts, open)
	}
	share := Distribution{}
	for v := range 11 {
		share.add(float64(v) / 10)
	}
	share.finish()
	if counts, width, open := share.histogram(0.01); width != 0.05 || len(counts) != 21 || counts[6] != 1 || counts[20] != 1 || open {
		t.Errorf("width %v, %v, %v", width, counts, open)
	}
	for x, want := range map[float64]float64{0: 1, 1: 1, 1.1: 2, 2.1: 5, 5.1: 10, 40: 50, 1001: 2000} {
		if got := nice(x, 1); got != want {
			t.Errorf("nice(%v) is %v, want %v", x, got, want)
		}
	}
}
