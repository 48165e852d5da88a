package eval

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/judge"
)

// schema is the version of results.json. It changes when a key goes or means something else.
const schema = 1

// Number is a number that results.json has as null where it is none.
type Number float64

// MarshalJSON writes the number.
func (n Number) MarshalJSON() ([]byte, error) {
	if f := float64(n); !math.IsNaN(f) && !math.IsInf(f, 0) {
		return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads it.
func (n *Number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = Number(math.NaN())
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	*n = Number(f)
	return err
}

// Results are results.json. Shares and metrics are between 0 and 1, but for perplexity and the mean of a judge's marks,
// which is between 1 and 5.
type Results struct {
	Schema      int         `json:"schema"`
	Version     string      `json:"version"` // of this program
	Go          string      `json:"go"`
	Fingerprint string      `json:"fingerprint,omitempty"` // of all that the answers depend on; none of existing answers
	Systems     []Answerer  `json:"systems"`
	Predictions []File      `json:"predictions,omitempty"` // the files of existing answers
	Intervals   Intervals   `json:"intervals"`
	Generation  *Generation `json:"generation,omitempty"` // nil for existing answers
	Judge       *Judge      `json:"judge,omitempty"`
	Tasks       []Task      `json:"tasks"`
	Warnings    []string    `json:"warnings,omitempty"`
}

// Answerer is a system.
type Answerer struct {
	Name     string `json:"name"`
	Model    string `json:"model,omitempty"`
	Adapter  string `json:"adapter,omitempty"`
	Base     string `json:"base,omitempty"`
	Template string `json:"template,omitempty"`
	// The fingerprints: of the configuration, the tokenizer, and names, sizes and samples of the weights; of all that an
	// adapter is.
	ModelFingerprint   string `json:"model_fingerprint,omitempty"`
	AdapterFingerprint string `json:"adapter_fingerprint,omitempty"`
	Backend            string `json:"backend,omitempty"` // what computed when the system was asked first
}

// Intervals say how intervals were found.
type Intervals struct {
	Method    string  `json:"method"`
	Level     float64 `json:"level"`
	Resamples int     `json:"resamples"`
	Seed      uint64  `json:"seed"`
}

// Generation says how answers were made.
type Generation struct {
	Beams         int      `json:"beams"`
	LengthPenalty float64  `json:"length_penalty"`
	Temperature   float64  `json:"temperature"`
	TopK          int      `json:"top_k"`
	TopP          float64  `json:"top_p"`
	Seed          uint64   `json:"seed"`
	BatchSize     int      `json:"batch_size"`
	Stop          []string `json:"stop,omitempty"`
}

// Task is a task and how the systems did on it.
type Task struct {
	Name         string         `json:"task"`
	Title        string         `json:"title,omitempty"`
	Category     string         `json:"category"`
	Parser       string         `json:"parser"`
	BuiltIn      bool           `json:"built_in"`
	Split        string         `json:"split"` // train, dev, test, mixed, or empty where the rows do not say it
	Splits       map[string]int `json:"splits"`
	Rows         int            `json:"rows"`
	Sample       *Sample        `json:"sample,omitempty"` // nil: all rows
	Files        []File         `json:"files"`
	MaxNewTokens int            `json:"max_new_tokens,omitempty"`
	Template     string         `json:"template,omitempty"` // the task's own, for systems that have none
	Shots        int            `json:"shots"`
	ShotFiles    []File         `json:"shot_files,omitempty"`
	Metrics      []string       `json:"metrics"`     // the task's own choice of them
	Main         string         `json:"main_metric"` // the first of them that there is
	Scores       []Score        `json:"scores"`      // in the order of the systems
	// Comparisons are of each system with the first. They are not corrected for their number.
	Comparisons []Comparison `json:"comparisons,omitempty"`
	// Published are the papers' figures of this task and split. That the rows are theirs is not checked.
	Published []Published `json:"published,omitempty"`

	rows     []row
	answers  [][]Answer // of each system
	examples [][]metrics.ExampleScore
	verdicts [][]judge.Verdict // of each system; nil where nobody judges
	papers   bool              // see set.papers
}

// Sample says how the rows of a task were chosen from more; see Options.Limit.
type Sample struct {
	Of      int    `json:"of"`
	Seed    uint64 `json:"seed"`
	ByLabel bool   `json:"by_label"` // each label has its share
}

// Text is how many rows there are and, of a sample, of how many.
func (s *Sample) Text(n int) string {
	if s == nil {
		return fmt.Sprintf("%d rows", n)
	}
	return fmt.Sprintf("%d of %d rows, seed %d", n, s.Of, s.Seed)
}

// Score is how a system did on a task.
type Score struct {
	System       string         `json:"system"`
	N            int            `json:"n"`
	Invalid      int            `json:"invalid"` // answers that could not be read, and count as wrong
	InvalidShare float64        `json:"invalid_share"`
	Metrics      []Metric       `json:"metrics"`
	Marks        *Marks         `json:"marks,omitempty"`      // behind the metric judge
	Perplexity   *Metric        `json:"perplexity,omitempty"` // of the gold outputs, with the end token, behind the prompt
	Likelihood   []Metric       `json:"likelihood,omitempty"`
	Classes      []Class        `json:"classes,omitempty"`
	Finish       map[string]int `json:"finish"` // answers by why they ended
	Errors       []ErrorKind    `json:"errors,omitempty"`
}

// Metric returns a metric by its name; perplexity and likelihoods are among them.
func (s *Score) Metric(name string) (Metric, bool) {
	all := append(append([]Metric(nil), s.Metrics...), s.Likelihood...)
	if s.Perplexity != nil {
		all = append(all, *s.Perplexity)
	}
	for _, m := range all {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// Metric is a number with its interval.
type Metric struct {
	Name  string `json:"name"`
	Value Number `json:"value"`
	Low   Number `json:"low"`
	High  Number `json:"high"`
}

func metric(m metrics.Metric) Metric {
	return Metric{m.Name, Number(m.Value), Number(m.Interval.Low), Number(m.Interval.High)}
}

// Class is how well one label or type of entity was found.
type Class struct {
	Name      string `json:"name"`
	Hits      int    `json:"hits"`
	Predicted int    `json:"predicted"`
	Gold      int    `json:"gold"`
	Precision Number `json:"precision"`
	Recall    Number `json:"recall"`
	F1        Number `json:"f1"`
}

// ErrorKind is one way in which answers are wrong.
type ErrorKind struct {
	Kind string `json:"kind"`
	N    int    `json:"n"`
}

// Comparison tests whether system B differs from A.
type Comparison struct {
	A     string `json:"a"`
	B     string `json:"b"`
	Tests []Test `json:"tests"`
}

// Test is that of one metric; see metrics.Paired.
type Test struct {
	Metric         string  `json:"metric"`
	Rows           int     `json:"rows,omitempty"` // that both have a value for, where these are not all
	Difference     Number  `json:"difference"`     // B - A
	Low            Number  `json:"low"`
	High           Number  `json:"high"`
	PBootstrap     Number  `json:"p_bootstrap"`
	PRandomisation Number  `json:"p_randomisation"`
	PMcNemar       *Number `json:"p_mcnemar,omitempty"`
}

func comparison(a, b string, tests []metrics.Paired) Comparison {
	c := Comparison{A: a, B: b}
	for _, p := range tests {
		c.Tests = append(c.Tests, test(p))
	}
	return c
}

func test(p metrics.Paired) Test {
	t := Test{p.Metric, 0, Number(p.Difference), Number(p.Interval.Low), Number(p.Interval.High), Number(p.PBootstrap), Number(p.PRandomisation), nil}
	if p.McNemar != nil {
		n := Number(p.McNemar.P)
		t.PMcNemar = &n
	}
	return t
}

// Published is a paper's figure.
type Published struct {
	Paper      string `json:"paper"`
	Model      string `json:"model"`
	Metric     string `json:"metric"` // the paper's name of it
	Ours       string `json:"ours"`   // the metric here that is computed alike
	Value      Number `json:"value"`
	Split      string `json:"split"` // empty: see SplitKnown
	ValueKnown string `json:"value_known"`
	SplitKnown string `json:"split_known"`
	Note       string `json:"note,omitempty"`
}

// results are those that there are before anything is scored.
func (r *run) results() (*Results, error) {
	res := &Results{Schema: schema, Version: version(), Go: runtime.Version(), Predictions: r.given, Warnings: r.warnings,
		Intervals: Intervals{"percentile bootstrap over rows", r.Bootstrap.Level, r.Bootstrap.Resamples, r.Bootstrap.Seed}}
	if r.settings == nil {
		for _, name := range r.systems {
			res.Systems = append(res.Systems, Answerer{Name: name})
		}
		return res, nil
	}
	for _, s := range r.settings.Systems {
		at := r.settings.paths[s.Name]
		res.Systems = append(res.Systems, Answerer{s.Name, at.model, at.adapter, s.Base, s.Template, s.Model, s.Adapter, r.backends[s.Name]})
	}
	res.Generation = &Generation{r.Beams, r.LengthPenalty, r.Temperature, r.TopK, r.TopP, r.Seed, r.BatchSize, r.Stop}
	var err error
	res.Fingerprint, err = r.settings.fingerprint()
	return res, err
}

// version is that of the program: its module's, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value
		}
	}
	if v == "" {
		return "unknown"
	}
	return v
}

// write writes results.json and report.html.
func (r *Results) write(dir string) error {
	report, err := r.page()
	if err != nil {
		return fmt.Errorf("%s: %w", ReportFile, err)
	}
	if err := atomicfile.WriteJSON(filepath.Join(dir, ResultsFile), r); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, ReportFile), func(w io.Writer) error {
		_, err := w.Write(report)
		return err
	})
}
