package bioinstruct

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/biolora/biolora/internal/eval/rouge"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/train/instruct"
)

// Stats are the figures that the paper gives of its data, and some more, of any file of rows.
type Stats struct {
	Rows       int            `json:"rows"`
	Categories map[string]int `json:"categories"` // rows; those without one are under ""
	// Words are what white space separates; Tokens those of the tokenizer that was given, or nil.
	Words  Lengths  `json:"words"`
	Tokens *Lengths `json:"tokens,omitempty"`

	Inputs      int            `json:"inputs"`       // rows whose input says something
	EmptyInputs int            `json:"empty_inputs"` // rows whose input is empty
	DisguisedBy map[string]int `json:"disguised_by"` // inputs that training takes for none, such as "N/A", with their rows
	// LooksEmpty are inputs that seem to say that there is none, but are not on the list that training goes by, with their
	// rows. They are among Inputs.
	LooksEmpty   map[string]int `json:"looks_empty"`
	SameRows     int            `json:"same_rows"`     // rows equal to an earlier one in instruction, input and output
	SameTasks    int            `json:"same_tasks"`    // rows equal to an earlier one in instruction and input
	SameInstr    int            `json:"same_instr"`    // rows equal to an earlier one in the instruction
	SimilarInstr int            `json:"similar_instr"` // of the others, those whose ROUGE-L with an earlier instruction is above 0.7
	// LargestRougeL is the largest F of two different instructions.
	LargestRougeL float64 `json:"largest_rouge_l"`
	// Rejected are rows that Generate's filter would not accept for their own form.
	Rejected map[Reason]int `json:"rejected"`
	// NearestSeed is, for each row, ROUGE-L's F of its instruction with the seed that is nearest.
	NearestSeed Distribution `json:"nearest_seed"`
}

// Lengths are those of the parts of rows and of all three together.
type Lengths struct {
	Instruction Distribution `json:"instruction"`
	Input       Distribution `json:"input"`
	Output      Distribution `json:"output"`
	Total       Distribution `json:"total"`
}

// Distribution is of one number a row. Percentiles are values that occur, by the nearest-rank method.
type Distribution struct {
	Mean   float64 `json:"mean"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`

	values []float64 // in rising order, once all are there
}

func (d *Distribution) add(v float64) { d.values = append(d.values, v) }

func (d *Distribution) finish() {
	if len(d.values) == 0 {
		return
	}
	slices.Sort(d.values)
	sum := 0.0
	for _, v := range d.values {
		sum += v
	}
	d.Mean = sum / float64(len(d.values))
	d.Min, d.Median, d.P90, d.P99, d.Max = d.at(0), d.at(0.5), d.at(0.9), d.at(0.99), d.at(1)
}

func (d *Distribution) at(share float64) float64 {
	return d.values[max(0, int(math.Ceil(share*float64(len(d.values))))-1)]
}

func (l *Lengths) add(r *rows.Row, count func(string) int) {
	a, b, c := count(r.Instruction), count(r.Input), count(r.Output)
	l.Instruction.add(float64(a))
	l.Input.add(float64(b))
	l.Output.add(float64(c))
	l.Total.add(float64(a + b + c))
}

func (l *Lengths) finish() {
	for _, d := range []*Distribution{&l.Instruction, &l.Input, &l.Output, &l.Total} {
		d.finish()
	}
}

// MeasureOptions say what to measure with.
type MeasureOptions struct {
	Seeds   []Seed
	Tokens  func(text string) int // counts a text's tokens; nil: they are not counted
	Workers int                   // 0: 1
}

// Measure reads rows to their end. An error of the sequence is returned as it is.
func Measure(seq iter.Seq2[rows.Row, error], o MeasureOptions) (*Stats, error) {
	m := &measurement{
		Stats: Stats{Categories: map[string]int{}, DisguisedBy: map[string]int{}, LooksEmpty: map[string]int{}, Rejected: map[Reason]int{}},
		o:     o, all: rouge.NewIndex(false, max(1, o.Workers)), seeds: rouge.NewIndex(false, max(1, o.Workers)),
		rows: map[[3]string]bool{}, tasks: map[[2]string]bool{}, instructions: map[string]bool{},
	}
	defer m.all.Close()
	defer m.seeds.Close()
	for _, s := range o.Seeds {
		m.seeds.Add(s.Instruction)
	}
	if o.Tokens != nil {
		m.Tokens = &Lengths{}
	}
	for r, err := range seq {
		if err != nil {
			return nil, err
		}
		m.add(&r)
	}
	m.Words.finish()
	m.NearestSeed.finish()
	if m.Tokens != nil {
		m.Tokens.finish()
	}
	return &m.Stats, nil
}

type measurement struct {
	Stats
	o            MeasureOptions
	all, seeds   *rouge.Index
	rows         map[[3]string]bool
	tasks        map[[2]string]bool
	instructions map[string]bool
}

func (m *measurement) add(r *rows.Row) {
	m.Rows++
	m.Categories[r.Category]++
	m.Words.add(r, words)
	if m.Tokens != nil {
		m.Tokens.add(r, m.o.Tokens)
	}
	switch {
	case r.Input == "":
		m.EmptyInputs++
	case noneIn(r.Input):
		m.DisguisedBy[r.Input]++
	default:
		m.Inputs++
		if looksEmpty(r.Input) {
			m.LooksEmpty[r.Input]++
		}
	}
	if why := form(Task{r.Instruction, r.Input, r.Output}); why != "" {
		m.Rejected[why]++
	}
	if n, ok := m.seeds.Nearest(r.Instruction, -1); ok {
		m.NearestSeed.add(n.F)
	}
	m.compare(r)
}

// noneIn reports whether training takes an input for none.
func noneIn(input string) bool {
	return slices.Contains(instruct.EmptyInputs(), strings.ToLower(strings.TrimSpace(input)))
}

// sayNone are inputs that say that there is none, in small letters and without anything but letters. "na" is not among
// them: it can be sodium.
var sayNone = regexp.MustCompile(`^(?:|n a|nil|null|none|nothing|blank|empty|noinput|not applicable` +
	`|no(?:ne)?(?: (?:additional|further|specific|other|extra))? (?:inputs?|context)` + sayNeeded + `?` +
	`|no(?:ne|t)?` + sayNeeded +
	`|(?:the )?inputs?(?: is)? (?:none|empty|blank|not applicable|not` + sayNeeded + `))$`)

const sayNeeded = `(?:(?: (?:is|was|are))? (?:required|needed|necessary|provided|given|specified|available)(?: for this (?:task|instruction|question))?)`

// looksEmpty reports whether an input seems to say that there is none, in whatever letters, brackets and punctuation.
func looksEmpty(input string) bool {
	const longest = 100 // bytes
	value := func(r rune) bool { return unicode.IsDigit(r) || unicode.IsSymbol(r) && r != '<' && r != '>' }
	if len(input) > longest || strings.ContainsFunc(input, value) {
		return false
	}
	said := strings.FieldsFunc(strings.ToLower(input), func(r rune) bool { return !unicode.IsLetter(r) })
	return sayNone.MatchString(strings.Join(said, " "))
}

// compare looks for earlier rows that are the same, and for similar instructions.
func (m *measurement) compare(r *rows.Row) {
	row, task := [3]string{r.Instruction, r.Input, r.Output}, [2]string{r.Instruction, r.Input}
	switch {
	case m.rows[row]:
		m.SameRows++
	case m.tasks[task]:
		m.SameTasks++
	}
	m.rows[row], m.tasks[task] = true, true
	if m.instructions[r.Instruction] {
		m.SameInstr++
		return
	}
	m.instructions[r.Instruction] = true
	n, ok := m.all.Nearest(r.Instruction, min(m.LargestRougeL, threshold))
	if ok {
		m.LargestRougeL = max(m.LargestRougeL, n.F)
	}
	if ok && n.F > threshold {
		m.SimilarInstr++
	}
	m.all.Add(r.Instruction)
}

// WriteJSON writes the figures.
func (s *Stats) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

// published are the figures of BioInstruct itself, with how each is known.
var published = struct {
	categories map[string]float64 // per cent of the rows [F]
	words      map[string]float64 // mean, of the 2,501 rows [C]
}{
	map[string]float64{"IE": 33.8, "GEN": 33.5, "QA": 22.8, "other": 10.0},
	map[string]float64{"instruction": 15, "input": 16.4, "output": 38.9},
}

// WriteText writes the figures for people, those of BioInstruct beside them: [F] as the paper has it, [C] computed on
// 2,501 of its 25,005 rows.
func (s *Stats) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s rows\n\ncategory         rows    share  BioInstruct\n", visible.Count(int64(s.Rows)))
	for _, c := range s.categories() {
		fmt.Fprintf(&b, "%-12s %8d %6.1f %%", cmp.Or(visible.Text(c), "(none)"), s.Categories[c], percent(s.Categories[c], s.Rows))
		if p, ok := published.categories[c]; ok {
			fmt.Fprintf(&b, "  %.1f %% [F]", p)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n%-20s %8s %8s %8s %8s %8s  BioInstruct, mean\n", "length", "mean", "median", "p90", "p99", "max")
	s.Words.write(&b, "words", published.words)
	if s.Tokens != nil {
		s.Tokens.write(&b, "tokens", nil)
	}
	fmt.Fprintf(&b, "\ninputs: %d, empty: %d, empty in disguise: %d%s\n", s.Inputs, s.EmptyInputs, s.Disguised(), counted(s.DisguisedBy))
	if n := total(s.LooksEmpty); n > 0 {
		fmt.Fprintf(&b, "of the inputs, such as look empty and are not on the list: %d%s\n  lora-train learns them as inputs, unless --empty-input TEXT adds them to the list\n", n, counted(s.LooksEmpty))
	}
	fmt.Fprintf(&b, "repeated: %d rows; %d more in instruction and input; %d in the instruction\n", s.SameRows, s.SameTasks, s.SameInstr)
	fmt.Fprintf(&b, "ROUGE-L with an earlier instruction above 0.7: %d; largest of two different ones: %.3f (BioInstruct: 0.700 [C])\n", s.SimilarInstr, s.LargestRougeL)
	if len(s.NearestSeed.values) > 0 {
		d := s.NearestSeed
		fmt.Fprintf(&b, "ROUGE-L with the nearest seed: mean %.3f, median %.3f, p90 %.3f, largest %.3f\n", d.Mean, d.Median, d.P90, d.Max)
	}
	b.WriteString("the filter of lora-data generate would reject for their form:")
	if len(s.Rejected) == 0 {
		b.WriteString(" none")
	}
	b.WriteByte('\n')
	for _, why := range Reasons {
		if n := s.Rejected[why]; n > 0 {
			fmt.Fprintf(&b, "  %d: %s\n", n, why)
		}
	}
	b.WriteString("[F] read in the paper, [C] computed on 2,501 of its 25,005 rows\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// Disguised is how many rows have an input that only says that there is none.
func (s *Stats) Disguised() int { return total(s.DisguisedBy) }

func total(counts map[string]int) (n int) {
	for _, rows := range counts {
		n += rows
	}
	return n
}

// counted are texts with their rows, the most frequent first, in brackets.
func counted(counts map[string]int) string {
	var all []string
	for _, text := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	}) {
		all = append(all, fmt.Sprintf("%q %d", text, counts[text]))
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// categories are the paper's, where there are rows of them, and then others.
func (s *Stats) categories() []string {
	rank := func(c string) int {
		if i := slices.Index(Categories, c); i >= 0 {
			return i
		}
		return len(Categories)
	}
	return slices.SortedFunc(maps.Keys(s.Categories), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

func (l *Lengths) write(b *strings.Builder, unit string, means map[string]float64) {
	for _, p := range []struct {
		name string
		d    *Distribution
	}{{"instruction", &l.Instruction}, {"input", &l.Input}, {"output", &l.Output}, {"total", &l.Total}} {
		fmt.Fprintf(b, "%-20s %8.1f %8.0f %8.0f %8.0f %8.0f", p.name+", "+unit, p.d.Mean, p.d.Median, p.d.P90, p.d.P99, p.d.Max)
		if m, ok := means[p.name]; ok {
			fmt.Fprintf(b, "  %g [C]", m)
		}
		b.WriteByte('\n')
	}
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }
