package mix

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/biolora/biolora/internal/rows"
)

// gram is the length of the runs of words that must not be in training and test rows alike: 13, as since GPT-3 (Brown et
// al., 2020, appendix C).
const gram = 13

// maxExamples is how many overlaps a report shows of each test set.
const maxExamples = 20

// TestSet is rows that a model is to be tested on.
type TestSet struct {
	Name  string
	Files []string
}

// Leak is what a test set and training rows have in common.
type Leak struct {
	Test string `json:"test"`
	Rows int    `json:"rows"` // of the test set
	// Exact are the test rows whose question is a training row's question, but for case, punctuation and spaces; Overlap
	// those that share a run of 13 words with a training row, exact ones among them where they are as long.
	Exact   int `json:"exact"`
	Overlap int `json:"overlap"`
	// Training are the training rows that Exact or Overlap concern.
	Training int       `json:"training_rows"`
	Examples []Overlap `json:"examples,omitempty"`
}

// Overlap is one test row and one training row that have something in common.
type Overlap struct {
	Test     string `json:"test"`     // the test row: file and place, or its id
	Training string `json:"training"` // the training row's source and id, or its place in the result
	Exact    bool   `json:"exact"`
	Text     string `json:"text"` // the words that both have
}

// question is the text that makes a row what it is: its input, or its instruction where it has none, since rows of a task
// share their instructions.
func question(r *rows.Row) string {
	if strings.TrimSpace(r.Input) != "" {
		return r.Input
	}
	return r.Instruction
}

// answer is the output where it says something of its own. The lines "token : tag" of entity tagging do not: they are the
// input once more, and with a tag behind each word six common words would make a run of 13.
func answer(r *rows.Row) string {
	for line := range strings.Lines(r.Output) {
		token, tag, ok := strings.Cut(strings.TrimSpace(line), " : ")
		if !ok || strings.ContainsFunc(token+tag, unicode.IsSpace) {
			return r.Output
		}
	}
	return ""
}

// words are the letters and digits of a text in lower case, cut at everything else.
func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) })
}

// index finds test rows by the words of a training row.
type index struct {
	seed  maphash.Seed
	tests []testRow
	exact map[string][]int32   // whole questions -> test rows
	grams map[uint64][]posting // hashes of 13 words
	// What was found once is known: later training rows with the same question or run of words concern the same sets, and
	// need not look at each test row again. Boilerplate, which thousands of rows share, would take the product of both.
	knownExact map[string][]int
	knownGrams map[uint64][]int
}

type testRow struct {
	set   int
	name  string
	texts [2][]string // question and output
}

type posting struct {
	row, at int32
	text    int8
}

// Leakage looks for the rows of test sets in training rows. Two rows overlap where a run of 13 words of one's question or
// output is in the other's question or output. leaks are in the order of the sets; leaky says which training rows are
// concerned. progress is told how many training rows were compared; it may be nil.
func Leakage(ctx context.Context, training []rows.Row, sets []TestSet, progress func(compared int)) (leaks []Leak, leaky []bool, err error) {
	x := newIndex()
	leaks, leaky = make([]Leak, len(sets)), make([]bool, len(training))
	for i, s := range sets {
		leaks[i].Test = s.Name
		for _, file := range s.Files {
			for row, err := range rows.Read(ctx, file) {
				if err != nil {
					return nil, nil, err
				}
				leaks[i].Rows++
				x.add(i, cmp.Or(row.ID, file+", row "+strconv.Itoa(leaks[i].Rows)), &row)
			}
		}
	}
	exact, overlap := make([]bool, len(x.tests)), make([]bool, len(x.tests))
	for i := range training {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		out, concerned := x.find(&training[i])
		for _, o := range out {
			t := &x.tests[o.test]
			first := !exact[o.test] && !overlap[o.test]
			exact[o.test] = exact[o.test] || o.exact
			overlap[o.test] = overlap[o.test] || !o.exact
			if l := &leaks[t.set]; first && len(l.Examples) < maxExamples {
				l.Examples = append(l.Examples, Overlap{t.name, name(&training[i], i), o.exact, o.text})
			}
		}
		for set := range concerned {
			leaks[set].Training++
			leaky[i] = true
		}
		if progress != nil {
			progress(i + 1)
		}
	}
	for i, t := range x.tests {
		if exact[i] {
			leaks[t.set].Exact++
		}
		if overlap[i] {
			leaks[t.set].Overlap++
		}
	}
	return leaks, leaky, nil
}

func name(r *rows.Row, i int) string {
	if r.ID != "" {
		return strings.TrimSpace(r.Source + " " + r.ID)
	}
	return strings.TrimSpace(r.Source + " row " + strconv.Itoa(i+1))
}

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), exact: map[string][]int32{}, grams: map[uint64][]posting{},
		knownExact: map[string][]int{}, knownGrams: map[uint64][]int{}}
}

func (x *index) add(set int, name string, r *rows.Row) {
	t := testRow{set: set, name: name, texts: [2][]string{words(question(r)), words(answer(r))}}
	n := int32(len(x.tests))
	x.tests = append(x.tests, t)
	if len(t.texts[0]) > 0 {
		whole := strings.Join(t.texts[0], " ")
		x.exact[whole] = append(x.exact[whole], n)
	}
	for k, text := range t.texts {
		for at := 0; at+gram <= len(text); at++ {
			h := x.hash(text[at : at+gram])
			x.grams[h] = append(x.grams[h], posting{n, int32(at), int8(k)})
		}
	}
}

func (x *index) hash(run []string) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	for _, w := range run {
		h.WriteString(w)
		h.WriteByte(' ')
	}
	return h.Sum64()
}

// found is a test row that a training row has something in common with.
type found struct {
	test  int32
	exact bool
	text  string
}

// find returns the test rows that r has something in common with, in their order, but for those that an earlier row had the
// same in common with, and the sets that r concerns.
func (x *index) find(r *rows.Row) (out []found, concerned map[int]bool) {
	concerned = map[int]bool{}
	type key struct {
		test  int32
		exact bool
	}
	seen := map[key]bool{}
	known := func(sets []int) {
		for _, set := range sets {
			concerned[set] = true
		}
	}
	add := func(f found) {
		if k := (key{f.test, f.exact}); !seen[k] {
			seen[k] = true
			out = append(out, f)
		}
	}
	texts := [2][]string{words(question(r)), words(answer(r))}
	whole := strings.Join(texts[0], " ")
	if sets, ok := x.knownExact[whole]; ok {
		known(sets)
	} else if tests := x.exact[whole]; len(tests) > 0 {
		for _, t := range tests {
			add(found{t, true, cut(whole)})
		}
		x.knownExact[whole] = x.sets(tests)
		known(x.knownExact[whole])
	}
	for _, text := range texts {
		for at := 0; at+gram <= len(text); at++ {
			run := text[at : at+gram]
			h := x.hash(run)
			postings := x.grams[h]
			if sets, ok := x.knownGrams[h]; ok {
				if slices.Equal(run, x.words(postings[0])) { // not the hash alone
					known(sets)
				}
				continue
			}
			var tests []int32
			for _, p := range postings {
				if slices.Equal(run, x.words(p)) {
					add(found{p.row, false, strings.Join(run, " ")})
					tests = append(tests, p.row)
				}
			}
			sets := x.sets(tests)
			known(sets)
			if len(tests) > 0 && len(tests) == len(postings) { // where hashes collide, each is looked at each time
				x.knownGrams[h] = sets
			}
		}
	}
	slices.SortStableFunc(out, func(a, b found) int { return cmp.Compare(a.test, b.test) })
	return out, concerned
}

// words are the run that a posting is of.
func (x *index) words(p posting) []string { return x.tests[p.row].texts[p.text][p.at : p.at+gram] }

// sets are those that test rows are of.
func (x *index) sets(tests []int32) (sets []int) {
	for _, t := range tests {
		if set := x.tests[t].set; !slices.Contains(sets, set) {
			sets = append(sets, set)
		}
	}
	return sets
}

// cut shortens a text for a report.
func cut(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " ..."
}
