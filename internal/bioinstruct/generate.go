package bioinstruct

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/rows"
)

// Sampling is how a model is asked; nil and 0 leave it to the endpoint.
type Sampling struct {
	Model               string   `json:"model"`
	Temperature         *float64 `json:"temperature,omitempty"`
	TopP                *float64 `json:"top_p,omitempty"`
	MaxTokens           int      `json:"max_tokens,omitempty"`
	MaxCompletionTokens int      `json:"max_completion_tokens,omitempty"`
}

func (s Sampling) check() error {
	var errs []error
	if s.Model == "" {
		errs = append(errs, errors.New("no model is named"))
	}
	if s.Temperature != nil && !(*s.Temperature >= 0 && *s.Temperature <= 2) {
		errs = append(errs, fmt.Errorf("temperature %g: want 0 to 2", *s.Temperature))
	}
	if s.TopP != nil && !(*s.TopP > 0 && *s.TopP <= 1) {
		errs = append(errs, fmt.Errorf("top_p %g: want more than 0 and at most 1", *s.TopP))
	}
	if s.MaxTokens < 0 || s.MaxCompletionTokens < 0 {
		errs = append(errs, fmt.Errorf("%d and %d tokens at most: want 0 or more", s.MaxTokens, s.MaxCompletionTokens))
	}
	return errors.Join(errs...)
}

func (s Sampling) request(number int, content string) ask.Request {
	return ask.Request{
		Number: number, Model: s.Model, Messages: []ask.Message{{Role: "user", Content: content}},
		Temperature: s.Temperature, TopP: s.TopP, MaxTokens: s.MaxTokens, MaxCompletionTokens: s.MaxCompletionTokens,
	}
}

// Recipe decides what a model is asked: request number i is a function of the recipe and i, and of no answer.
type Recipe struct {
	Kind string `json:"kind"` // set by Generate
	Sampling
	Seed       uint64 `json:"seed"`        // chooses the examples of each request
	PerRequest int    `json:"per_request"` // tasks that are asked for at a time
	Prompt     string `json:"prompt"`      // with {tasks} and {count}; {first} and {examples} besides
	Seeds      []Seed `json:"seeds"`
}

const generateKind = "generate"

// Check says what is wrong with a recipe.
func (r *Recipe) Check() error {
	errs := []error{r.Sampling.check(), checkPrompt(r.Prompt)}
	if r.PerRequest < 1 {
		errs = append(errs, fmt.Errorf("%d tasks a request: want at least 1", r.PerRequest))
	}
	if len(r.Seeds) < examples {
		errs = append(errs, fmt.Errorf("%d seeds: want at least %d", len(r.Seeds), examples))
	}
	return errors.Join(errs...)
}

// Request returns request number i.
func (r *Recipe) Request(i int) ask.Request {
	shown := make([]Seed, examples)
	for k, s := range choose(r.Seed, i, len(r.Seeds), examples) {
		shown[k] = r.Seeds[s]
	}
	return r.request(i, fill(r.Prompt, shown, r.PerRequest))
}

// Limits say when a run has enough.
type Limits struct {
	Target      int `json:"target"`       // accepted tasks
	MaxRequests int `json:"max_requests"` // 0: any number
	// MaxBarren ends a run, with an error, when so many requests in a row gave nothing that was accepted; 0: never.
	MaxBarren int `json:"max_barren"`
}

func (l Limits) check() error {
	var errs []error
	if l.Target < 1 {
		errs = append(errs, fmt.Errorf("a target of %d tasks: want at least 1", l.Target))
	}
	if l.MaxRequests < 0 || l.MaxBarren < 0 {
		errs = append(errs, fmt.Errorf("%d requests, %d barren ones at most: want 0 or more", l.MaxRequests, l.MaxBarren))
	}
	return errors.Join(errs...)
}

// Options are what does not change the result.
type Options struct {
	Ask     ask.Options
	Workers int // that look for similar instructions; 0: 1
	// Progress is told how far Generate is. It may be nil.
	Progress func(*Result)
	// Rejected is given each task that was not accepted. It may be nil.
	Rejected func(Rejection)
}

// Rejection is a task that was not accepted.
type Rejection struct {
	Request int    `json:"request"`
	Why     Reason `json:"why"`
	Near    string `json:"near,omitempty"` // what the instruction is too much like
	Task
}

// Result is what has been made.
type Result struct {
	Rows     []rows.Row
	Requests int            // answers that were looked at
	Rejected map[Reason]int // tasks by what was wrong with them
	Enough   bool           // the target was reached
	Totals   ask.Totals
}

// Generate makes rows until there are enough. The journal at path is begun, or goes on where it ends.
func Generate(ctx context.Context, path string, m ask.Model, r Recipe, l Limits, o Options) (*Result, error) {
	r.Kind = generateKind
	if err := errors.Join(r.Check(), l.check(), o.Ask.Check()); err != nil {
		return nil, err
	}
	j, err := ask.Create(path, r, l)
	if err != nil {
		return nil, err
	}
	g := newGeneration(r, l, o)
	defer g.filter.Close()
	progress := o.Ask.Progress
	o.Ask.Progress = func(t ask.Totals) {
		g.result.Totals = t
		if progress != nil {
			progress(t)
		}
		if o.Progress != nil {
			o.Progress(&g.result)
		}
	}
	g.result.Totals, err = ask.Run(ctx, j, m, o.Ask, g)
	if err := errors.Join(err, j.Close()); err != nil {
		return &g.result, err
	}
	return &g.result, nil
}

// Replay makes the rows of a journal again, without a model: those that Generate made, in its order. Of a run that was
// ended early it makes what there is up to the first request without an answer. With a target that is not 0 it makes so
// many, and else as many as the last run was to make.
func Replay(ctx context.Context, path string, target int, o Options) (*Result, error) {
	j, err := ask.Read(path)
	if err != nil {
		return nil, err
	}
	var r Recipe
	var l Limits
	if err := errors.Join(j.Job(&r), j.Settings(&l)); err != nil {
		return nil, err
	}
	if r.Kind != generateKind {
		return nil, fmt.Errorf("%s: a journal of the kind %q, not %q", path, r.Kind, generateKind)
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.Target, l.MaxBarren = cmp.Or(target, l.Target), 0
	g := newGeneration(r, l, o)
	defer g.filter.Close()
	g.result.Totals, err = ask.Replay(ctx, j, g)
	return &g.result, err
}

// generation is the job.
type generation struct {
	Recipe
	Limits
	rejected func(Rejection)
	filter   *Filter
	result   Result
	barren   int
}

func newGeneration(r Recipe, l Limits, o Options) *generation {
	return &generation{
		Recipe: r, Limits: l, rejected: o.Rejected,
		filter: NewFilter(r.Seeds, max(1, o.Workers)), result: Result{Rejected: map[Reason]int{}},
	}
}

// Request is request number i, within the limit.
func (g *generation) Request(i int) (ask.Request, bool) {
	if g.MaxRequests > 0 && i >= g.MaxRequests {
		return ask.Request{}, false
	}
	return g.Recipe.Request(i), true
}

// Wanted guesses from what requests gave so far how many more it takes.
func (g *generation) Wanted() int {
	missing := float64(g.Target - len(g.result.Rows))
	each := float64(g.PerRequest)
	if g.result.Requests > 0 {
		each = float64(len(g.result.Rows)) / float64(g.result.Requests)
	}
	if missing > each*math.MaxInt16 {
		return math.MaxInt16
	}
	return int(math.Ceil(missing / each))
}

// Take looks at the tasks of an answer.
func (g *generation) Take(r ask.Request, a ask.Answer) (enough bool, err error) {
	g.result.Requests++
	before := len(g.result.Rows)
	found, unreadable, cut := parse(a.Text, a.Truncated())
	if unreadable == 0 && len(found) == 0 && !cut {
		unreadable = 1
	}
	for range unreadable {
		g.reject(Rejection{Request: r.Number, Why: Unreadable})
	}
	if cut {
		g.reject(Rejection{Request: r.Number, Why: Truncated})
	}
	for i, t := range found {
		t.Input = normal(t.Input)
		t.Instruction = oneLine(t.Instruction)
		if why, near := g.filter.Accept(t); why != "" {
			g.reject(Rejection{Request: r.Number, Why: why, Near: near, Task: t})
			continue
		}
		g.result.Rows = append(g.result.Rows, rows.Row{
			Instruction: t.Instruction, Input: t.Input, Output: t.Output,
			Source: "generated", ID: fmt.Sprintf("%d-%d", r.Number, i+1),
		})
		if len(g.result.Rows) == g.Target {
			g.result.Enough = true
			return true, nil
		}
	}
	if len(g.result.Rows) > before {
		g.barren = 0
		return false, nil
	}
	g.barren++
	if g.barren == g.MaxBarren {
		return false, fmt.Errorf("%d requests in a row gave nothing that was accepted; there are %d tasks of %d, and a higher limit of such requests goes on", g.barren, len(g.result.Rows), g.Target)
	}
	return false, nil
}

func (g *generation) reject(r Rejection) {
	g.result.Rejected[r.Why]++
	if g.rejected != nil {
		g.rejected(r)
	}
}

// Price is what tokens cost, in whatever currency, by the million.
type Price struct{ Prompt, Completion float64 }

// Of is the cost of tokens.
func (p Price) Of(u ask.Usage) float64 {
	return (float64(u.Prompt)*p.Prompt + float64(u.Completion)*p.Completion) / 1e6
}
