// Package judge has a chat model mark answers from 1 to 5 against reference answers, as BioInstruct's authors had GPT-4 do.
//
// The judge sees an instruction, an input, a reference and one answer, and nothing of who gave it. Each question stands for
// itself, so that their order does not matter; answers that are the same text to the same row are one question. A reply
// that cannot be read ([Parse]) is asked for once more, with what was wrong; if that fails, or the question is too long
// for the model, the answer is unjudged, which is counted and is no mark.
//
// Every request and reply goes to a journal of package ask: a run that was ended in any way goes on, and without a model
// the same marks come of the journal. A journal is of one judge, which is a model, a rubric and the settings it is asked
// with, and may serve several runs: requests are found in it by what they ask.
package judge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/biolora/biolora/internal/ask"
)

// Marks are from 1 to Best.
const Best = 5

// Settings are all that decides what a judge is asked.
type Settings struct {
	Model  string
	Rubric Rubric
	// NoTemperature leaves the temperature to the endpoint, for models that take none. It is 0 otherwise.
	NoTemperature                  bool
	MaxTokens, MaxCompletionTokens int // of a reply, under either name; 0: not said
}

// Item is an answer to mark.
type Item struct {
	Name                          string // of the row, in messages; the judge does not see it
	Instruction, Input, Reference string
	Answer                        string
}

// Verdict is what a judge says of an item.
type Verdict struct {
	Mark   int    // 1 to 5; 0: unjudged
	Reason string // where the rubric asks for one and the reply has it
	Fault  string // why it is unjudged
	// Requests are the numbers of the first and of the second question in the journal; two where the first reply was of no
	// use.
	Requests []int
	Model    string // that gave the last reply, as the endpoint calls it
	Usage    ask.Usage
}

// Options are how items are judged.
type Options struct {
	Settings
	Journal string // file
	// Model answers. Nil: the journal alone does, and what Settings leave empty is taken from it.
	Model ask.Model
	Ask   ask.Options
	// Progress is told how far the questions are whenever that changes. It may be nil.
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct {
	Done, Total int // questions with replies; what is asked again counts twice
	Failures    int // failed attempts of this round, and the last of them
	LastError   error
}

// Result is what came of it.
type Result struct {
	Settings           // with what was taken from the journal
	Verdicts []Verdict // of the items, in their order
	// Questions is how many different ones the items are; Again, how many were asked a second time.
	Questions, Again int
	Models           map[string]int // replies by the model that gave them
	Usage            ask.Usage      // of all questions
	// Asked and Failures are replies and failed attempts of this call; the other replies were in the journal.
	Asked, Failures int
}

// kind of the journals.
const kind = "judge"

// job is the first line of a journal.
type job struct {
	Kind                string   `json:"kind"`
	Model               string   `json:"model"`
	Rubric              string   `json:"rubric"` // name
	RubricID            string   `json:"rubric_id"`
	Text                string   `json:"rubric_text"`
	Temperature         *float64 `json:"temperature,omitempty"`
	MaxTokens           int      `json:"max_tokens,omitempty"`
	MaxCompletionTokens int      `json:"max_completion_tokens,omitempty"`
}

func (s *Settings) job() job {
	j := job{Kind: kind, Model: s.Model, Rubric: s.Rubric.Name, RubricID: s.Rubric.ID(), Text: s.Rubric.Text,
		MaxTokens: s.MaxTokens, MaxCompletionTokens: s.MaxCompletionTokens}
	if !s.NoTemperature {
		j.Temperature = new(float64)
	}
	return j
}

func (j *job) settings() Settings {
	return Settings{j.Model, Rubric{j.Rubric, j.Text}, j.Temperature == nil, j.MaxTokens, j.MaxCompletionTokens}
}

// String names a judge.
func (s Settings) String() string {
	temperature := "temperature 0"
	if s.NoTemperature {
		temperature = "its own temperature"
	}
	text := fmt.Sprintf("%q with the rubric %q (%s) at %s", s.Model, s.Rubric.Name, s.Rubric.ID(), temperature)
	if n := cmp.Or(s.MaxTokens, s.MaxCompletionTokens); n > 0 {
		text += fmt.Sprintf(" and at most %d tokens", n)
	}
	return text
}

// Check says what is wrong with the options, a journal of another judge among it.
func (o *Options) Check() error {
	_, err := o.resolve()
	return err
}

// resolve finds the settings, which are partly the journal's where there is no model.
func (o *Options) resolve() (Settings, error) {
	there, err := o.there()
	if err != nil {
		return Settings{}, err
	}
	s := o.Settings
	if o.Model == nil {
		s.Model = cmp.Or(s.Model, there.Model)
		if s.Rubric.Text == "" {
			s.Rubric = there.Rubric
		}
		s.NoTemperature, s.MaxTokens, s.MaxCompletionTokens = there.NoTemperature, there.MaxTokens, there.MaxCompletionTokens
	} else if err := o.Ask.Check(); err != nil {
		return s, err
	}
	if err := s.check(); err != nil {
		return s, err
	}
	if there == nil {
		return s, nil
	}
	want := s
	want.Rubric.Name = there.Rubric.Name // the same text under another name is the same rubric
	if want != *there {
		return s, fmt.Errorf("%s is the journal of the judge %v, and this run's is %v: name another journal or directory", o.Journal, *there, s)
	}
	return want, nil
}

func (s *Settings) check() error {
	errs := []error{s.Rubric.Check()}
	if s.Model == "" {
		errs = append(errs, errors.New("no model is named as the judge"))
	}
	if s.MaxTokens < 0 || s.MaxCompletionTokens < 0 {
		errs = append(errs, fmt.Errorf("%d and %d tokens at most: want 0 or more", s.MaxTokens, s.MaxCompletionTokens))
	}
	return errors.Join(errs...)
}

// there are the settings of the journal; nil where it is absent or has no reply, which does not keep another judge from
// it: a model's name may have been wrong. Without a model an absent journal is an error.
func (o *Options) there() (*Settings, error) {
	j, err := ask.Read(o.Journal)
	if o.Model != nil && (errors.Is(err, os.ErrNotExist) || errors.Is(err, ask.ErrEmpty)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var first job
	if err := j.Job(&first); err != nil {
		return nil, err
	}
	if first.Kind != kind {
		return nil, fmt.Errorf("%s: a journal of the kind %q, not %q", o.Journal, first.Kind, kind)
	}
	if o.Model != nil && j.Answers() == 0 {
		return nil, nil
	}
	s := first.settings()
	return &s, nil
}

// Judge marks the items. When ctx ends, or the endpoint fails for good, what was replied is in the journal, and the same
// call goes on there.
func Judge(ctx context.Context, o Options, items []Item) (res *Result, err error) {
	s, err := o.resolve()
	if err != nil {
		return nil, err
	}
	j, err := o.open(&s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if o.Model != nil {
		o.Model = lenient{o.Model}
	}
	b := &bench{Options: o, s: s, journal: j, reasons: s.Rubric.Reasons()}
	if err := b.questions(items); err != nil {
		return nil, err
	}
	for b.round = range b.rounds {
		if err := b.ask(ctx); err != nil {
			return nil, err
		}
	}
	return b.result(), nil
}

func (o *Options) open(s *Settings) (*ask.Journal, error) {
	if o.Model == nil {
		return ask.Read(o.Journal)
	}
	return ask.Create(o.Journal, s.job(), struct{}{})
}
