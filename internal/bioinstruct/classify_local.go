package bioinstruct

import (
	"context"
	"fmt"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/rows"
)

// Weigher says how likely a model finds a few answers to each of some questions; *local.Model is one.
type Weigher interface {
	Weigh(ctx context.Context, head string, questions, options []string) ([]local.Likely, error)
}

// LocalOptions are what does not change the result.
type LocalOptions struct {
	Together int // rows that are asked about together, at least 1
	// Progress is told how far it is. It may be nil.
	Progress func(ask.Totals)
}

// ClassifyLocally is Classify with a model of this machine, which l.Identity says. Each row is asked about by itself, in
// the words that an endpoint is asked in, and gets the category whose line is the most likely answer; the journal has the
// likelihoods of all four. The answers of a model that was trained to give them are the same where it writes them instead,
// at the same cost, which is that of the prompt; but one that is small, or does not follow instructions well, writes hardly
// any in the form that is asked for. A row whose prompt is longer than the model's positions is left without a category.
func ClassifyLocally(ctx context.Context, path string, m Weigher, l Labelling, all []rows.Row, o LocalOptions) (*Labels, error) {
	if l.Identity == nil || l.Batch != 1 {
		return nil, fmt.Errorf("a local model is asked about one row a request, not %d, and it must be said which model it is", l.Batch)
	}
	w := weighing{m, l.Model}
	return classify(ctx, path, func(ctx context.Context, j *ask.Journal, job ask.Job) (ask.Totals, error) {
		return ask.RunTogether(ctx, j, w, o.Together, o.Progress, job)
	}, l, all)
}

// weighing answers questions about single rows by likelihoods.
type weighing struct {
	m    Weigher
	name string
}

// tooLong is why there is no answer.
const tooLong = "longer than the model's positions"

// AskAll is of ask.Together.
func (w weighing) AskAll(ctx context.Context, all []ask.Request) ([]ask.Answer, error) {
	var questions, options []string
	for _, r := range all {
		questions = append(questions, r.Messages[0].Content)
	}
	for _, c := range Categories {
		options = append(options, "1: "+c)
	}
	found, err := w.m.Weigh(ctx, definitions, questions, options)
	if err != nil {
		return nil, err
	}
	if len(found) != len(all) {
		return nil, fmt.Errorf("%d questions were answered, and %d were asked", len(found), len(all))
	}
	answers := make([]ask.Answer, len(all))
	for i, l := range found {
		answers[i] = ask.Answer{Model: w.name, Finish: tooLong, Usage: ask.Usage{Prompt: int64(l.Prompt)}}
		best := l.Best()
		if best < 0 {
			continue
		}
		answers[i].Text, answers[i].Finish = options[best], "likelihood"
		answers[i].LogLikelihoods = map[string]float64{}
		for k, c := range Categories {
			answers[i].LogLikelihoods[c] = l.Sums[k]
		}
	}
	return answers, nil
}
