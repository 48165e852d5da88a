package bioinstruct

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/rows"
)

// Labelling decides how a model is asked for categories.
type Labelling struct {
	Kind string `json:"kind"` // set by Classify
	Sampling
	Batch int  `json:"batch"` // rows a request
	All   bool `json:"all"`   // rows that have a category, too
	// Local says which model of this machine is asked; nil: an endpoint is.
	*local.Identity
	// Rows is the SHA-256 of the rows that are asked about; set by Classify.
	Rows string `json:"rows"`
}

const classifyKind = "classify"

// Labels is what came of Classify.
type Labels struct {
	Counts map[string]int // of the rows that were asked about
	// Unlabelled are the places of rows to which no category could be read in two answers; theirs is as it was.
	Unlabelled []int
	Kept       int // rows that had a category and were not asked about
	Totals     ask.Totals
}

// Classify sets the category of rows. The paper's were given by GPT-4 [F]; what it was told is not known [N]. Rows are
// asked about in batches, and once more, alone, where an answer lacks them. Where the model is nil, answers come from the
// journal alone, be it of ClassifyLocally, and one that is missing is an error.
func Classify(ctx context.Context, path string, m ask.Model, l Labelling, all []rows.Row, o Options) (*Labels, error) {
	var run runFunc
	if m != nil {
		run = func(ctx context.Context, j *ask.Journal, job ask.Job) (ask.Totals, error) {
			return ask.Run(ctx, j, m, o.Ask, job)
		}
	}
	return classify(ctx, path, run, l, all)
}

// runFunc puts a job's requests to a model.
type runFunc func(context.Context, *ask.Journal, ask.Job) (ask.Totals, error)

// classify is Classify, or ClassifyLocally. Without run it is a replay of either.
func classify(ctx context.Context, path string, run runFunc, l Labelling, all []rows.Row) (*Labels, error) {
	l.Kind = classifyKind
	if err := l.Sampling.check(); err != nil {
		return nil, err
	}
	if l.Batch < 1 {
		return nil, fmt.Errorf("%d rows a request: want at least 1", l.Batch)
	}
	c := &classification{Labelling: l, all: all, labels: Labels{Counts: map[string]int{}}}
	for i := range all {
		if l.All || all[i].Category == "" {
			c.asked = append(c.asked, i)
		}
	}
	c.labels.Kept = len(all) - len(c.asked)
	c.got = make([]string, len(all))
	c.Rows = digest(all, c.asked)
	if err := c.run(ctx, path, run); err != nil {
		return &c.labels, err
	}
	for _, i := range c.asked {
		if c.got[i] == "" {
			c.labels.Unlabelled = append(c.labels.Unlabelled, i)
			continue
		}
		all[i].Category = c.got[i]
		c.labels.Counts[c.got[i]]++
	}
	return &c.labels, nil
}

// digest tells rows apart.
func digest(all []rows.Row, asked []int) string {
	h := sha256.New()
	for _, i := range asked {
		text, _ := json.Marshal([]string{all[i].Instruction, all[i].Input, all[i].Output}) // strings: it cannot fail
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// classification is two jobs one after another: batches, then single rows that are still without a category.
type classification struct {
	Labelling
	all    []rows.Row
	asked  []int    // places of rows to be asked about
	got    []string // category of each row
	again  []int    // indices into asked; nil in the first job
	single bool
	labels Labels
}

func (c *classification) run(ctx context.Context, path string, run runFunc) (err error) {
	var j *ask.Journal
	if run == nil {
		j, err = c.offline(path)
		run = func(ctx context.Context, j *ask.Journal, _ ask.Job) (ask.Totals, error) {
			t, err := ask.Replay(ctx, j, c)
			if err == nil && !c.complete(t) {
				err = fmt.Errorf("%s: it does not have all answers; a run with a model goes on", path)
			}
			return t, err
		}
	} else {
		j, err = ask.Create(path, c.Labelling, struct{}{})
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if c.labels.Totals, err = run(ctx, j, c); err != nil || c.Identity != nil { // which says the same a second time
		return err
	}
	c.single = true
	for k, i := range c.asked {
		if c.got[i] == "" {
			c.again = append(c.again, k)
		}
	}
	taken, asked, failures := c.labels.Totals.Taken, c.labels.Totals.Asked, c.labels.Totals.Failures
	t, err := run(ctx, j, c)
	t.Taken, t.Asked, t.Failures = t.Taken+taken, t.Asked+asked, t.Failures+failures
	c.labels.Totals = t
	return err
}

// offline opens a journal of this job for reading.
func (c *classification) offline(path string) (*ask.Journal, error) {
	j, err := ask.Read(path)
	if err != nil {
		return nil, err
	}
	var there Labelling
	if err := j.Job(&there); err != nil {
		return nil, err
	}
	if there.Kind != classifyKind || there.Rows != c.Rows || there.All != c.All {
		return nil, fmt.Errorf("%s: a journal of the kind %q about other rows, or other ones of them", path, there.Kind)
	}
	c.Labelling = there
	return j, nil
}

// complete reports whether all requests of a job were answered.
func (c *classification) complete(t ask.Totals) bool {
	_, more := c.Request(t.Taken)
	return !more
}

// batches is how many requests the first job has.
func (c *classification) batches() int { return (len(c.asked) + c.Batch - 1) / c.Batch }

// Request asks about a batch, or a single row.
func (c *classification) Request(i int) (ask.Request, bool) {
	if c.single {
		if i >= len(c.again) {
			return ask.Request{}, false
		}
		k := c.again[i]
		return c.request(c.batches()+k, c.question(c.asked[k:k+1])), true
	}
	if i >= c.batches() {
		return ask.Request{}, false
	}
	return c.request(i, c.question(c.batch(i))), true
}

func (c *classification) batch(i int) []int {
	return c.asked[i*c.Batch : min(len(c.asked), (i+1)*c.Batch)]
}

// Wanted is any number: all answers are needed.
func (c *classification) Wanted() int { return len(c.asked) + 1 }

// Take reads the categories of an answer.
func (c *classification) Take(r ask.Request, a ask.Answer) (enough bool, err error) {
	batch := []int(nil)
	if r.Number < c.batches() {
		batch = c.batch(r.Number)
	} else {
		batch = c.asked[r.Number-c.batches() : r.Number-c.batches()+1]
	}
	for k, label := range parseLabels(a.Text, len(batch)) {
		if label != "" {
			c.got[batch[k]] = label
		}
	}
	return false, nil
}

// definitions of the categories, of this project's wording.
const definitions = `Say of each task below which category it belongs to:

QA: it asks a question, open or with options, that is answered from knowledge or from a text that is given.
IE: something that stands in a text or table is to be found, extracted, recognised or labelled: entities, relations, values, codes, findings, whether one sentence follows from another.
GEN: text is to be written: a summary, a note, an explanation for a patient, a letter, a plan, a simplification, a dialogue.
other: none of these, such as calculations, rankings, conversions or decisions by a rule.

Answer with one line for each task, its number, a colon and QA, IE, GEN or other, and nothing else.
`

// shownWords is how many words of an input or output are shown.
const shownWords = 120

func (c *classification) question(batch []int) string {
	var b strings.Builder
	b.WriteString(definitions)
	for k, i := range batch {
		r := &c.all[i]
		fmt.Fprintf(&b, "\nTask %d\nInstruction: %s\n", k+1, beginning(r.Instruction))
		if input := normal(r.Input); input != "" {
			fmt.Fprintf(&b, "Input: %s\n", beginning(input))
		}
		fmt.Fprintf(&b, "Output: %s\n", beginning(r.Output))
	}
	return b.String()
}

func beginning(text string) string {
	w := strings.Fields(text)
	if len(w) <= shownWords {
		return strings.Join(w, " ")
	}
	return strings.Join(w[:shownWords], " ") + " …"
}

// labelled is a line "3: QA", in whatever decoration.
var labelled = regexp.MustCompile(`(?i)^[^\w]*(?:task\s*)?(\d+)\W+(QA|IE|GEN|other)\b`)

// alone is an answer that is nothing but a category.
var alone = regexp.MustCompile(`(?i)^\W*(QA|IE|GEN|other)\W*$`)

// parseLabels reads the categories of n tasks. A task that has two different ones has none.
func parseLabels(text string, n int) []string {
	got := make([]string, n)
	if m := alone.FindStringSubmatch(text); m != nil && n == 1 {
		got[0] = category(m[1])
		return got
	}
	twice := make([]bool, n)
	for line := range strings.Lines(text) {
		m := labelled.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		k, err := strconv.Atoi(m[1])
		if err != nil || k < 1 || k > n {
			continue
		}
		label := category(m[2])
		twice[k-1] = twice[k-1] || got[k-1] != "" && got[k-1] != label
		got[k-1] = label
	}
	for k := range got {
		if twice[k] {
			got[k] = ""
		}
	}
	return got
}

// category spells a category as Categories does.
func category(text string) string {
	i := slices.IndexFunc(Categories, func(c string) bool { return strings.EqualFold(c, text) })
	return Categories[i]
}
