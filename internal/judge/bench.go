package judge

import (
	"context"
	"errors"
	"fmt"

	"github.com/biolora/biolora/internal/ask"
)

// bench is items before a judge: two jobs one after another, all questions, then once more those whose replies were of no
// use.
type bench struct {
	Options
	s       Settings
	journal *ask.Journal
	reasons bool

	items   []int      // the question of each
	all     []question // in the order of the items
	round   int
	rounds  [2][]int    // the questions of each
	pending map[int]int // questions by their number in the journal

	numbers map[string]int // of requests, by their keys
	next    int
	totals  [2]ask.Totals
}

// question is one or several items that ask the same.
type question struct {
	prompt   string
	requests [2]ask.Request
	name     string // of the first item
	models   [2]string
	verdict  Verdict
}

// lenient takes a question that is too long for the model as one that it does not answer, instead of ending the run: the
// other questions have answers.
type lenient struct{ ask.Model }

// tooLong is why such an answer ends.
const tooLong = "too_long"

func (l lenient) Ask(ctx context.Context, r ask.Request) (ask.Answer, error) {
	a, err := l.Model.Ask(ctx, r)
	if call, ok := errors.AsType[*ask.CallError](err); ok && call.TooLong {
		return ask.Answer{Finish: tooLong, Model: r.Model}, nil
	}
	return a, err
}

// questions finds the different ones.
func (b *bench) questions(items []Item) error {
	b.numbers, b.next = b.journal.Known()
	b.pending = map[int]int{}
	seen := map[string]int{}
	for _, x := range items {
		prompt := b.s.Rubric.prompt(x)
		at, ok := seen[prompt]
		if !ok {
			at = len(b.all)
			seen[prompt] = at
			b.all = append(b.all, question{prompt: prompt, name: x.Name})
			if err := b.add(at, prompt); err != nil {
				return err
			}
		}
		b.items = append(b.items, at)
	}
	return nil
}

// add puts a question into the round, under the number that it has in the journal or a new one.
func (b *bench) add(at int, prompt string) error {
	r := b.request(prompt)
	key, err := r.Key()
	if err != nil {
		return err
	}
	n, ok := b.numbers[key]
	if !ok {
		n = b.next
		b.numbers[key], b.next = n, n+1
	}
	r.Number = n
	q := &b.all[at]
	k := len(q.verdict.Requests)
	q.requests[k] = r
	q.verdict.Requests = append(q.verdict.Requests, n)
	b.rounds[k] = append(b.rounds[k], at)
	b.pending[n] = at
	return nil
}

func (b *bench) request(prompt string) ask.Request {
	r := ask.Request{Model: b.s.Model, Messages: []ask.Message{{Role: "user", Content: prompt}},
		MaxTokens: b.s.MaxTokens, MaxCompletionTokens: b.s.MaxCompletionTokens}
	if !b.s.NoTemperature {
		r.Temperature = new(float64)
	}
	return r
}

// ask has the questions of the round answered, by the model or the journal.
func (b *bench) ask(ctx context.Context) (err error) {
	done := 0
	if b.round == 1 {
		done = len(b.all)
	}
	if b.Model == nil {
		t, err := ask.Replay(ctx, b.journal, b)
		if err == nil && t.Taken < len(b.rounds[b.round]) {
			missing := b.all[b.rounds[b.round][t.Taken]]
			err = fmt.Errorf("%s has no reply to the question about %s; a run with a judge asks it", b.Journal, missing.name)
		}
		b.totals[b.round] = t
		return err
	}
	o := b.Ask
	o.Progress = func(t ask.Totals) {
		if b.Progress != nil {
			b.Progress(Progress{done + t.Taken, len(b.all) + len(b.rounds[1]), t.Failures, t.LastError})
		}
	}
	b.totals[b.round], err = ask.Run(ctx, b.journal, b.Model, o, b)
	return err
}

// Request is the i-th of the round.
func (b *bench) Request(i int) (ask.Request, bool) {
	if i >= len(b.rounds[b.round]) {
		return ask.Request{}, false
	}
	return b.all[b.rounds[b.round][i]].requests[b.round], true
}

// Wanted is any number: all replies are needed.
func (b *bench) Wanted() int { return len(b.all) + 1 }

// Take reads a reply.
func (b *bench) Take(r ask.Request, a ask.Answer) (enough bool, err error) {
	at := b.pending[r.Number]
	q := &b.all[at]
	v := &q.verdict
	var refused bool
	v.Mark, v.Reason, v.Fault, refused = read(a, b.reasons)
	v.Model, q.models[b.round] = a.Model, a.Model
	v.Usage.Prompt += a.Usage.Prompt
	v.Usage.Completion += a.Usage.Completion
	v.Usage.Estimated = v.Usage.Estimated || a.Usage.Estimated
	if v.Mark > 0 || refused || b.round == 1 {
		return false, nil
	}
	return false, b.add(at, q.prompt+"\n\nAn earlier reply to this could not be used: "+v.Fault+". Reply in the form that is asked for above, and with nothing else.")
}

func (b *bench) result() *Result {
	res := &Result{Settings: b.s, Questions: len(b.all), Again: len(b.rounds[1]), Models: map[string]int{}}
	for _, at := range b.items {
		res.Verdicts = append(res.Verdicts, b.all[at].verdict)
	}
	for i := range b.all {
		q := &b.all[i]
		for k := range q.verdict.Requests {
			res.Models[q.models[k]]++
		}
		res.Usage.Prompt += q.verdict.Usage.Prompt
		res.Usage.Completion += q.verdict.Usage.Completion
		res.Usage.Estimated = res.Usage.Estimated || q.verdict.Usage.Estimated
	}
	for _, t := range b.totals {
		res.Asked += t.Asked
		res.Failures += t.Failures
	}
	return res
}
