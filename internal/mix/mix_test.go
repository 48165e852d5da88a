package mix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/rows"
)

// corpus writes n rows to a file and returns its path.
func corpus(t *testing.T, name string, n int) string {
	t.Helper()
	var lines strings.Builder
	for i := range n {
		category := []string{"QA", "IE", "GEN", "other"}[i%4]
		fmt.Fprintf(&lines, `{"instruction":"Answer.","input":"%s question %d","output":"answer %d","category":%q,"split":"train","id":"%s-%d"}`+"\n", name, i, i, category, name, i)
	}
	path := filepath.Join(t.TempDir(), name+".jsonl")
	if err := os.WriteFile(path, []byte(lines.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func mixed(t *testing.T, recipe string, files map[string][]string) ([]string, []Part) {
	t.Helper()
	r, err := Parse("recipe", []byte(recipe))
	if err != nil {
		t.Fatal(err)
	}
	got, parts, err := Mix(context.Background(), r, Options{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, row := range got {
		ids = append(ids, row.ID)
	}
	return ids, parts
}

func TestMix(t *testing.T) {
	a, b := corpus(t, "a", 100), corpus(t, "b", 40)
	files := map[string][]string{"a": {a}, "b": {b}}
	const recipe = "seed: 7\nsources:\n  - {name: a, where: 'category in [\"QA\", \"IE\"]', count: 20}\n  - {name: b}\n"
	ids, parts := mixed(t, recipe, files)
	if len(ids) != 60 || parts[0] != (Part{Source: "a", Read: 100, Matched: 50, Taken: 20}) || parts[1] != (Part{Source: "b", Read: 40, Matched: 40, Taken: 40}) {
		t.Fatalf("%d rows, %+v", len(ids), parts)
	}
	if slices.IsSorted(ids) || slices.IndexFunc(ids, func(s string) bool { return s[0] == 'b' }) > 20 {
		t.Errorf("not shuffled: %v", ids)
	}
	if again, _ := mixed(t, recipe, files); !slices.Equal(again, ids) {
		t.Error("the same recipe gives other rows")
	}
	of := func(ids []string, source string) (out []string) {
		for _, id := range ids {
			if strings.HasPrefix(id, source) {
				out = append(out, id)
			}
		}
		return out
	}
	alone, _ := mixed(t, "seed: 7\nsources:\n  - {name: a, where: 'category in [\"QA\", \"IE\"]', count: 20}\n", map[string][]string{"a": {a}})
	if !slices.Equal(alone, of(ids, "a")) {
		t.Errorf("rows of a source depend on the others:\n%v, alone\n%v", of(ids, "a"), alone)
	}
	other, _ := mixed(t, strings.Replace(recipe, "seed: 7", "seed: 8", 1), files)
	if slices.Equal(of(other, "a"), of(ids, "a")) {
		t.Error("another seed gives the same rows")
	}
	// Fewer rows are among the more.
	fewer, _ := mixed(t, strings.Replace(recipe, "count: 20", "count: 5", 1), files)
	for _, id := range of(fewer, "a") {
		if !slices.Contains(ids, id) {
			t.Errorf("%s is not among the 20", id)
		}
	}
	kept, _ := mixed(t, "keep_order: true\n"+recipe, files)
	if !slices.Equal(of(kept, "b"), kept[20:]) || kept[20] != "b-0" || kept[59] != "b-39" {
		t.Errorf("keep_order: %v", kept)
	}
}

func TestMixRepeatsAndSets(t *testing.T) {
	files := map[string][]string{"a": {corpus(t, "a", 10)}}
	r, err := Parse("recipe", []byte("seed: 1\nsources:\n  - {name: a, count: 24, repeat: true, set: {source: corpus-a, category: IE}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := Mix(context.Background(), r, Options{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, row := range got {
		times[row.ID]++
		if row.Source != "corpus-a" || row.Category != "IE" || row.Split != "train" {
			t.Fatalf("%+v", row)
		}
	}
	twice, thrice := 0, 0
	for _, n := range times {
		switch n {
		case 2:
			twice++
		case 3:
			thrice++
		}
	}
	if twice != 6 || thrice != 4 {
		t.Errorf("%d rows twice and %d three times, want 6 and 4: %v", twice, thrice, times)
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		total  int
		shares []float64
		want   []int
	}{
		{10, []float64{0.333, 0.333, 0.334}, []int{3, 3, 4}},
		{100, []float64{1. / 3, 1. / 3, 1. / 3}, []int{34, 33, 33}},
		{7, []float64{0.5, 0.25}, []int{3, 2}},
		{200252, []float64{0.25, 0.75}, []int{50063, 150189}},
	} {
		r := Recipe{Total: c.total}
		for i, s := range c.shares {
			r.Sources = append(r.Sources, Source{Name: fmt.Sprint(i), Share: s})
		}
		if err := r.Check(); err != nil {
			t.Error(err)
		}
		if got := r.Counts(); !slices.Equal(got, c.want) {
			t.Errorf("%v of %d: %v, want %v", c.shares, c.total, got, c.want)
		}
	}
}

func TestBadRecipes(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "recipe: the recipe has no sources",
		"sources: [{name: a}]\nx: 1": `unknown field "x"`,
		"total: 10\nsources: [{name: a, share: 0.6}, {name: a, count: 6}, {count: -1}]": "recipe: a: every source needs a name of its own\n" +
			"source 3: every source needs a name of its own\nsource 3: a count of -1, a share of 0\ncounts and shares come to 12 rows, the total is 10",
		"sources: [{name: a, share: 0.5}]":                                 "recipe: a: a share, but the recipe has no total",
		"sources: [{name: a, repeat: true}]":                               "recipe: a: repeat needs a count or a share",
		"sources: [{name: a, set: {output: x}}]":                           `recipe: a: set: "output" is none of task, category, source, split`,
		"sources: [{name: a, where: 'category'}]":                          "expected bool, but got string",
		"sources: [{name: a, where: 'colour == \"red\"'}]":                 "unknown name colour",
		"sources: [{name: a, where: 'now().Year() > 2000'}]":               "unknown name now",
		"sources: &x [{name: a}]":                                          "recipe:1: ",
		"sources: [{name: a, where: '" + strings.Repeat("a", 5000) + "'}]": "an expression of 5000 bytes, at most 4096",
	} {
		_, err := Parse("recipe", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v\nwant %s", text, err, want)
		}
	}
}

// A short expression cannot take long.
func TestWhereIsBounded(t *testing.T) {
	for _, text := range []string{
		`reduce(1..30, #acc + #acc, "x") != ""`,
		`replace(repeat("a", 1000), "a", repeat("b", 1000)) != ""`,
		`let a = input + input; let b = a + a; len(b + b) > 0`,
		`len(1..1000000) > 0`,
		`1 in 1..3`,
		`any(["a", "b"], # == source)`,
		`all(["a"], {all(["b"], true)})`,
		`len(toJSON(input)) > 0`,
		`len(map(["a"], #)) > 0`,
		`len(string(input)) > 0`,
	} {
		if _, err := ParseWhere(text); err == nil {
			t.Errorf("%s is allowed", text)
		}
	}
	row := rows.Row{Source: "GAD", Category: "IE", Output: " yes "}
	for text, want := range map[string]bool{
		`lower(source) == "gad" && category in ["QA", "IE"]`:                true,
		`not (source startsWith "G") or len(output) > 5`:                    false,
		`trim(output) matches "^(yes|no)$" ? true : split == "test"`:        true,
		`source contains "A" and indexOf(source, "D") == 2 and input == ""`: true,
	} {
		w, err := ParseWhere(text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := w.Holds(&row); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestMixBadFiles(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.jsonl")
	text := `{"instruction":"a","output":"b"}` + "\n" + `{"instruction":"a"}` + "\n"
	if err := os.WriteFile(bad, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := Parse("recipe", []byte("sources:\n  - {name: a, count: 2}\n  - {name: b, about: the b corpus}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = Mix(context.Background(), r, Options{Files: map[string][]string{"a": {bad}, "c": {bad}}})
	if want := "the recipe has no source \"c\"\nsource b has no file: the b corpus"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	var missing *Missing
	if !errors.As(err, &missing) || len(missing.Sources) != 1 {
		t.Errorf("missing: %+v", missing)
	}
	r.Sources = r.Sources[:1]
	_, _, err = Mix(context.Background(), r, Options{Files: map[string][]string{"a": {bad}}})
	if err == nil || !strings.Contains(err.Error(), bad+":2") {
		t.Errorf("error %v, want one that names line 2", err)
	}
	_, _, err = Mix(context.Background(), r, Options{Files: map[string][]string{"a": {bad}}, MaxBad: 1})
	if want := "source a: 2 rows are wanted, 1 of 1 match"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	r.Sources[0].Count = 1
	_, parts, err := Mix(context.Background(), r, Options{Files: map[string][]string{"a": {bad}}, MaxBad: 1})
	if err != nil || parts[0] != (Part{Source: "a", Read: 1, Matched: 1, Bad: 1, Taken: 1}) {
		t.Errorf("%+v, %v", parts, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err = Mix(ctx, r, Options{Files: map[string][]string{"a": {bad}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestShipped(t *testing.T) {
	if len(Shipped()) != 8 {
		t.Errorf("%v", Shipped())
	}
	for _, name := range Shipped() {
		r, err := Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if r.About == "" {
			t.Errorf("%s says nothing about itself", name)
		}
		sum := 0
		for i, n := range r.Counts() {
			sum += n
			if r.Sources[i].About == "" {
				t.Errorf("%s: %s does not say what file to bring", name, r.Sources[i].Name)
			}
		}
		if name == "medtuned" && sum != 200252 {
			t.Errorf("%d rows", sum)
		}
	}
	if _, err := Open("no-such-recipe"); err == nil || !strings.Contains(err.Error(), "bioinstruct-qa, ") {
		t.Errorf("error %v", err)
	}
}

func TestLeakage(t *testing.T) {
	long := "the patient was given aspirin and a statin after his second myocardial infarction in march"
	training := []rows.Row{
		{Instruction: "Answer.", Input: "What is THE cause of gout?", Output: "uric acid", ID: "1", Source: "x"},
		{Instruction: "Answer.", Input: "something else", Output: "Note: " + strings.ToUpper(long) + ".", ID: "2"},
		{Instruction: "Answer.", Input: "the patient was given aspirin and a statin after his second myocardial stroke", Output: "short"},
		{Instruction: "What is the cause of scurvy?", Output: "a lack of vitamin C"},
		{Instruction: "Answer.", Input: "clean", Output: "clean"},
		{Instruction: "Answer.", Input: long + " of this year", Output: "x"},
	}
	path := filepath.Join(t.TempDir(), "test.jsonl")
	text := `{"instruction":"Choose.","input":"what is the cause of gout","output":"A","id":"t1"}
{"instruction":"Choose.","input":"Case: ` + long + `, he said.","output":"B"}
{"instruction":"What is the cause of scurvy?","output":"C"}
{"instruction":"Choose.","input":"nothing in common","output":"D"}
`
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	var compared []int
	leaks, leaky, err := Leakage(context.Background(), training, []TestSet{{"exam", []string{path}}, {"none", nil}}, func(n int) { compared = append(compared, n) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []bool{true, true, false, true, false, true}; !slices.Equal(leaky, want) {
		t.Errorf("leaky %v, want %v", leaky, want)
	}
	if !slices.Equal(compared, []int{1, 2, 3, 4, 5, 6}) {
		t.Errorf("progress %v", compared)
	}
	l := leaks[0]
	if l.Rows != 4 || l.Exact != 2 || l.Overlap != 1 || l.Training != 4 || len(l.Examples) != 3 {
		t.Errorf("%+v", l)
	}
	if e := l.Examples[0]; e != (Overlap{"t1", "x 1", true, "what is the cause of gout"}) {
		t.Errorf("%+v", e)
	}
	if e := l.Examples[1]; e.Training != "2" || e.Exact || e.Text != strings.Join(strings.Fields(long)[:13], " ") {
		t.Errorf("%+v", e)
	}
	if leaks[1].Rows != 0 || leaks[1].Training != 0 {
		t.Errorf("%+v", leaks[1])
	}
}

// Tags of other sentences have runs of words in common with everything.
func TestLeakageOfTags(t *testing.T) {
	tags := func(words string) string {
		return strings.Join(strings.Fields(words), " : O\n") + " : O"
	}
	training := []rows.Row{{Instruction: "Tag.", Input: "of the patients in the study of gout", Output: tags("of the patients in the study of gout")}}
	path := filepath.Join(t.TempDir(), "test.jsonl")
	text := fmt.Sprintf(`{"instruction":"Tag.","input":"some of the patients in the study of asthma","output":%q}`+"\n", tags("some of the patients in the study of asthma"))
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	leaks, leaky, err := Leakage(context.Background(), training, []TestSet{{"ner", []string{path}}}, nil)
	if err != nil || leaky[0] || leaks[0].Overlap != 0 {
		t.Errorf("%+v, %v", leaks, err)
	}
}

func BenchmarkLeakage(b *testing.B) {
	training := make([]rows.Row, 20000)
	for i := range training {
		training[i].Input = strings.Repeat(fmt.Sprintf("word%d other%d ", i, i%7), 40)
	}
	for b.Loop() {
		if _, _, err := Leakage(context.Background(), training, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(training)*b.N)/b.Elapsed().Seconds(), "rows/s")
}

// Words that all rows share are looked at in each test row once, and concern every training row all the same.
func TestLeakageOfBoilerplate(t *testing.T) {
	shared := strings.Repeat("one two three four five six seven ", 2)
	var text strings.Builder
	for i := range 50 {
		fmt.Fprintf(&text, "{\"instruction\":\"x\",\"input\":%q,\"output\":\"o\",\"id\":\"t%d\"}\n", fmt.Sprint(shared, "test", i), i)
	}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.jsonl"), filepath.Join(dir, "second.jsonl")
	for path, text := range map[string]string{first: text.String(), second: `{"instruction":"` + shared + `","output":"o"}`} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	training := make([]rows.Row, 40)
	for i := range training {
		training[i] = rows.Row{Instruction: "x", Input: fmt.Sprint(shared, "training", i), Output: "o"}
	}
	training[7].Input, training[9].Input, training[11].Input = "nothing", shared, shared
	leaks, leaky, err := Leakage(context.Background(), training, []TestSet{{"first", []string{first}}, {"second", []string{second}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range leaky {
		if l != (i != 7) {
			t.Errorf("row %d: %v", i, l)
		}
	}
	if l := leaks[0]; l.Exact != 0 || l.Overlap != 50 || l.Training != 39 || len(l.Examples) != maxExamples {
		t.Errorf("%+v", l)
	}
	if l := leaks[1]; l.Exact != 1 || l.Overlap != 1 || l.Training != 39 || len(l.Examples) != 1 {
		t.Errorf("%+v", l)
	}

	x := newIndex()
	for i := range 50 {
		x.add(0, "t", &rows.Row{Input: fmt.Sprint(shared, "test", i)})
	}
	if out, sets := x.find(&training[0]); len(out) != 50 || !sets[0] {
		t.Errorf("the first row: %d test rows, sets %v", len(out), sets)
	}
	if out, sets := x.find(&training[1]); len(out) != 0 || !sets[0] {
		t.Errorf("the second row: %d test rows once more, sets %v", len(out), sets)
	}
}

func TestRecipesAreBounded(t *testing.T) {
	for want, r := range map[string]Recipe{
		"a count of 5000000000, at most 100000000": {Sources: []Source{{Name: "a", Count: 5_000_000_000, Repeat: true}}},
		"total: 5000000000 rows":                   {Total: 5_000_000_000, Sources: []Source{{Name: "a", Share: 1, Repeat: true}}},
	} {
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := Open(os.DevNull); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}
