// Package ask puts many questions to a chat model: several at a time, within rates, with retries, and with a journal
// from which a run that was ended in any way goes on, or is repeated without the model.
//
// What comes of a run does not depend on the order in which answers arrive: Run hands them on in the order of the
// questions, and which questions there are must not depend on answers that were not handed on yet.
package ask

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Request is one question.
type Request struct {
	// Number names the request in the journal; no two of a job have the same.
	Number int `json:"-"`

	Model       string    `json:"model"`
	Messages    []Message `json:"messages"`
	Temperature *float64  `json:"temperature,omitempty"` // nil: the endpoint's default, here and below
	TopP        *float64  `json:"top_p,omitempty"`
	// MaxTokens is how long an answer may be, and MaxCompletionTokens the same by the name that newer models want.
	MaxTokens           int `json:"max_tokens,omitempty"`
	MaxCompletionTokens int `json:"max_completion_tokens,omitempty"`
}

// Answer is what a model says to a request.
type Answer struct {
	Text string `json:"text"`
	// Finish is why it ended: stop, length, content_filter, or what else the endpoint calls it.
	Finish string `json:"finish"`
	Model  string `json:"model"` // that answered, as the endpoint calls it
	ID     string `json:"id,omitempty"`
	Usage  Usage  `json:"usage"`
	// LogLikelihoods are those, in nats, of the answers that it was chosen among. Nil where it was not.
	LogLikelihoods map[string]float64 `json:"log_likelihoods,omitempty"`
}

// Truncated reports whether the answer ends where it was not at its end.
func (a *Answer) Truncated() bool { return a.Finish == "length" }

// Usage counts tokens.
type Usage struct {
	Prompt     int64 `json:"prompt"`
	Completion int64 `json:"completion"`
	// Estimated says that the endpoint did not count and that it is 4 bytes a token.
	Estimated bool `json:"estimated,omitempty"`
}

// Model answers requests. Several goroutines may ask at once.
type Model interface {
	// Ask returns the answer, or an error, which is a *CallError where it matters what becomes of it.
	Ask(ctx context.Context, r Request) (Answer, error)
}

// CallError is an attempt that failed.
type CallError struct {
	Err    error
	Status int // HTTP's; 0: there was none
	// Temporary says that the same request may succeed later.
	Temporary bool
	// After is how long the endpoint asks to wait; 0: it does not say.
	After time.Duration
	// TooLong says that the request has more tokens than the model takes.
	TooLong bool
}

func (e *CallError) Error() string { return e.Err.Error() }
func (e *CallError) Unwrap() error { return e.Err }

// Job is the questions of a run and what becomes of the answers. Its methods are called by one goroutine.
type Job interface {
	// Request returns the i-th request, i = 0, 1, …; false: there is none.
	Request(i int) (Request, bool)
	// Take takes the answers in the order of the requests. enough ends the run.
	Take(r Request, a Answer) (enough bool, err error)
	// Wanted is how many requests, at least 1, are worth having under way at once: a guess that saves answers nobody needs.
	Wanted() int
}

// Options are how a model is asked.
type Options struct {
	Concurrency int // requests at a time, at least 1
	// RequestsPerMinute and TokensPerMinute are what is not exceeded; 0: no limit.
	RequestsPerMinute, TokensPerMinute float64
	Timeout                            time.Duration // of an attempt
	Attempts                           int           // for each request, at least 1
	// Backoff is the wait after a first failure. It doubles with each further one up to MaxBackoff, and up to half of it is
	// taken off at random. An endpoint that asks for a longer wait gets it, up to MaxWait; beyond, the run ends.
	Backoff, MaxBackoff, MaxWait time.Duration
	// Progress is told how far the run is whenever that changes. It may be nil.
	Progress func(Totals)
}

// Defaults are options that suit most endpoints.
func Defaults() Options {
	return Options{
		Concurrency: 4,
		Timeout:     5 * time.Minute,
		Attempts:    8,
		Backoff:     time.Second,
		MaxBackoff:  time.Minute,
		MaxWait:     15 * time.Minute,
	}
}

// Check says what is wrong with the options.
func (o Options) Check() error {
	var errs []error
	check := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	check(o.Concurrency >= 1, "concurrency %d: want at least 1", o.Concurrency)
	check(o.RequestsPerMinute >= 0, "%g requests a minute: want 0 or more", o.RequestsPerMinute)
	check(o.TokensPerMinute >= 0, "%g tokens a minute: want 0 or more", o.TokensPerMinute)
	check(o.Timeout > 0, "timeout %v: want more than 0", o.Timeout)
	check(o.Attempts >= 1, "%d attempts: want at least 1", o.Attempts)
	check(o.Backoff >= 0 && o.MaxBackoff >= o.Backoff, "back-off from %v to %v: want them in this order", o.Backoff, o.MaxBackoff)
	check(o.MaxWait >= 0, "longest wait %v: want 0 or more", o.MaxWait)
	return errors.Join(errs...)
}

// Totals is what a run has done so far.
type Totals struct {
	Taken     int // answers that the job took
	Asked     int // answers of this run, others are the journal's
	Failures  int // failed attempts of this run
	LastError error
	// Usage and Models (answers by the name of the model that gave them) are of all answers in the journal.
	Usage  Usage
	Models map[string]int
}

func (t *Totals) add(a Answer) {
	t.Usage.Prompt += a.Usage.Prompt
	t.Usage.Completion += a.Usage.Completion
	t.Usage.Estimated = t.Usage.Estimated || a.Usage.Estimated
	if t.Models == nil {
		t.Models = map[string]int{}
	}
	t.Models[a.Model]++
}

// Replay hands the journal's answers to the job until it has enough or one is missing.
func Replay(ctx context.Context, j *Journal, job Job) (Totals, error) {
	t := j.totals()
	for i := 0; ; i++ {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		r, ok := job.Request(i)
		if !ok {
			return t, nil
		}
		a, ok, err := j.answer(r)
		if err != nil || !ok {
			return t, err
		}
		t.Taken++
		enough, err := job.Take(r, a)
		if err != nil || enough {
			return t, err
		}
	}
}

// Run asks what the journal does not answer, and hands all answers to the job, until that has enough or has no more
// requests. Each answer is in the journal before it is handed on. When ctx ends, or a request fails for good, the
// error says so; the same call then goes on from there. Requests under way at that time are given up.
func Run(ctx context.Context, j *Journal, m Model, o Options, job Job) (Totals, error) {
	if err := o.Check(); err != nil {
		return Totals{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{
		j: j, m: m, o: o, job: job, totals: j.totals(),
		requests: newPace(o.RequestsPerMinute), tokens: newPace(o.TokensPerMinute),
		results: make(chan result), open: map[int]Request{}, arrived: map[int]Answer{},
	}
	err := r.loop(ctx)
	cancel()
	return r.totals, r.finish(err)
}

// finish waits for all goroutines, so that nobody is left behind who might write to the journal. Answers that come at the
// last moment are paid for, and kept. It returns err, the loop's, and what else went wrong.
func (r *runner) finish(err error) error {
	for r.busy > 0 {
		res := <-r.results
		if res.again {
			continue
		}
		r.busy--
		if res.err != nil {
			continue
		}
		if broken := r.j.addAnswer(r.open[res.i], res.answer); broken != nil && !errors.Is(err, broken) { // said once
			err = errors.Join(err, broken)
		}
	}
	return err
}

// ahead is how many requests for each of those that may be under way are made before the first of them is answered.
const ahead = 8

// result is what a goroutine reports: an answer, a failed attempt (more follows), or the end of a request that failed.
type result struct {
	i      int
	answer Answer
	err    error
	again  bool // it will be tried again
}

// runner is one Run.
type runner struct {
	j      *Journal
	m      Model
	o      Options
	job    Job
	totals Totals

	requests, tokens *pace
	results          chan result
	busy             int // goroutines

	next    int             // request to be made
	first   int             // request to be taken
	end     bool            // there are no more requests
	open    map[int]Request // made and not taken
	arrived map[int]Answer  // of these, those with an answer
}

func (r *runner) loop(ctx context.Context) error {
	for {
		if enough, err := r.take(ctx); err != nil || enough {
			return err
		}
		if err := r.start(ctx); err != nil {
			return err
		}
		if _, ok := r.arrived[r.first]; ok {
			continue
		}
		if r.busy == 0 {
			return ctx.Err() // no requests are left
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case res := <-r.results:
			if err := r.receive(res); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return err
			}
		}
	}
}

// take hands on what has arrived of the next requests in order.
func (r *runner) take(ctx context.Context) (enough bool, err error) {
	for {
		a, ok := r.arrived[r.first]
		if !ok {
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		req := r.open[r.first]
		delete(r.arrived, r.first)
		delete(r.open, r.first)
		r.first++
		r.totals.Taken++
		enough, err = r.job.Take(req, a)
		r.progress()
		if err != nil || enough {
			return enough, err
		}
	}
}

// start makes requests as far ahead as is useful.
func (r *runner) start(ctx context.Context) error {
	limit := min(r.o.Concurrency, max(1, r.job.Wanted()))
	for !r.end && r.busy < limit && r.next < r.first+ahead*r.o.Concurrency {
		req, ok := r.job.Request(r.next)
		if !ok {
			r.end = true
			return nil
		}
		a, ok, err := r.j.answer(req)
		if err != nil {
			return err
		}
		i := r.next
		r.next++
		r.open[i] = req
		if ok {
			r.arrived[i] = a
			continue
		}
		if err := r.j.request(req); err != nil {
			return err
		}
		r.busy++
		go r.ask(ctx, i, req)
	}
	return nil
}

func (r *runner) receive(res result) error {
	if res.again {
		r.totals.Failures++
		r.totals.LastError = res.err
		r.progress()
		return nil
	}
	r.busy--
	if res.err != nil {
		return res.err
	}
	if err := r.j.addAnswer(r.open[res.i], res.answer); err != nil {
		return err
	}
	r.totals.Asked++
	r.totals.add(res.answer)
	r.arrived[res.i] = res.answer
	return nil
}

func (r *runner) progress() {
	if r.o.Progress == nil {
		return
	}
	t := r.totals
	t.Models = maps.Clone(t.Models)
	r.o.Progress(t)
}

// ask tries until there is an answer or no hope of one.
func (r *runner) ask(ctx context.Context, i int, req Request) {
	a, err := r.attempts(ctx, i, req)
	r.results <- result{i: i, answer: a, err: err}
}

func (r *runner) attempts(ctx context.Context, i int, req Request) (Answer, error) {
	backoff := r.o.Backoff
	for n := 1; ; n++ {
		a, err := r.attempt(ctx, req)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return a, ctx.Err()
		}
		call := asCallError(err)
		if err := r.j.failure(req, n, call); err != nil {
			return a, err
		}
		wait := max(call.After, backoff-time.Duration(rand.Int64N(int64(backoff)/2+1)))
		backoff = min(2*backoff, r.o.MaxBackoff)
		switch {
		case !call.Temporary:
			return a, fmt.Errorf("request %d: %w", req.Number, err)
		case n == r.o.Attempts:
			return a, fmt.Errorf("request %d failed %d times; the last time: %w", req.Number, n, err)
		case wait > r.o.MaxWait && call.After > r.o.MaxWait:
			return a, fmt.Errorf("request %d: the endpoint asks to wait %v, and %v is the longest: %w", req.Number, call.After, r.o.MaxWait, err)
		}
		select {
		case r.results <- result{i: i, err: err, again: true}:
		case <-ctx.Done():
			return a, ctx.Err()
		}
		if call.After > 0 { // what it asks of one concerns all
			r.requests.pause(call.After)
			r.tokens.pause(call.After)
		}
		if err := sleep(ctx, wait); err != nil {
			return a, err
		}
	}
}

// attempt asks once, when the rates allow it.
func (r *runner) attempt(ctx context.Context, req Request) (Answer, error) {
	guess := float64(estimate(req))
	if err := r.requests.wait(ctx, 1); err != nil {
		return Answer{}, err
	}
	if err := r.tokens.wait(ctx, guess); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	a, err := r.m.Ask(ctx, req)
	if err == nil {
		r.tokens.correct(float64(a.Usage.Prompt+a.Usage.Completion) - guess)
		return a, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return a, &CallError{Err: fmt.Errorf("no answer within %v: %w", r.o.Timeout, err), Temporary: true}
	}
	return a, err
}

func asCallError(err error) *CallError {
	if c, ok := errors.AsType[*CallError](err); ok {
		return c
	}
	return &CallError{Err: err}
}

// estimate guesses the tokens of a request and, where that has a bound, its answer.
func estimate(r Request) int64 {
	n := int64(max(r.MaxTokens, r.MaxCompletionTokens))
	for _, m := range r.Messages {
		n += Tokens(m.Content)
	}
	return n
}

// Tokens guesses how many tokens a text has where nobody counts: one for 4 bytes.
func Tokens(text string) int64 { return int64(len(text)+3) / 4 }
