package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/judge"
	"github.com/biolora/biolora/internal/visible"
)

// judging are the flags of a judge.
type judging struct {
	Judge               string         `group:"Judge" placeholder:"MODEL" help:"Chat model that marks the answers of tasks with the metric judge, as its endpoint calls it. Without it nobody judges."`
	BaseURL             string         `name:"judge-base-url" group:"Judge" placeholder:"URL" help:"What /chat/completions is put behind. Without it: OPENAI_BASE_URL, and without that OpenAI."`
	KeyEnv              string         `name:"judge-key-env" group:"Judge" placeholder:"NAME" help:"Variable of the environment that holds the key. Without it: OPENAI_API_KEY. The key is written nowhere."`
	Rubric              string         `name:"judge-rubric" group:"Judge" placeholder:"FILE" help:"What the judge is told, with {instruction}, {input}, {reference} and {answer}. Without it: one that comes with the program."`
	Journal             string         `name:"judge-journal" group:"Judge" placeholder:"FILE" help:"All requests and replies. Without it: judge.journal in the directory of results."`
	Replay              bool           `name:"judge-replay" group:"Judge" help:"Take the marks from the journal without asking anybody."`
	NoTemperature       bool           `name:"judge-no-temperature" group:"Judge" help:"Leave the temperature to the endpoint, for models that take none. It is 0 otherwise."`
	MaxTokens           int            `name:"judge-max-tokens" group:"Judge" placeholder:"N" help:"Tokens that a reply may have: max_tokens."`
	MaxCompletionTokens int            `name:"judge-max-completion-tokens" group:"Judge" placeholder:"N" help:"The same as max_completion_tokens, for models that want that."`
	Concurrency         *int           `name:"judge-concurrency" group:"Judge" placeholder:"N" help:"Requests at a time. Without it: 4."`
	RequestsPerMinute   float64        `name:"judge-requests-per-minute" group:"Judge" placeholder:"N" help:"Requests a minute, not to be exceeded."`
	TokensPerMinute     float64        `name:"judge-tokens-per-minute" group:"Judge" placeholder:"N" help:"Tokens a minute, of prompts and replies."`
	Timeout             *time.Duration `name:"judge-timeout" group:"Judge" placeholder:"TIME" help:"How long an attempt may take. Without it: 5m."`
	Attempts            *int           `name:"judge-attempts" group:"Judge" placeholder:"N" help:"Attempts for each request. Without it: 8."`
	PricePrompt         float64        `name:"judge-price-prompt" group:"Judge" placeholder:"PRICE" help:"Price of a million tokens of prompts, to tell the cost."`
	PriceCompletion     float64        `name:"judge-price-completion" group:"Judge" placeholder:"PRICE" help:"Price of a million tokens of replies."`
}

// given are the flags that were, of those for asking a judge, and of those for any.
func (c *judging) given() (asking, any []string) {
	for _, f := range []struct {
		name          string
		is, forAsking bool
	}{
		{"base-url", c.BaseURL != "", true},
		{"key-env", c.KeyEnv != "", true},
		{"no-temperature", c.NoTemperature, true},
		{"max-tokens", c.MaxTokens != 0, true},
		{"max-completion-tokens", c.MaxCompletionTokens != 0, true},
		{"concurrency", c.Concurrency != nil, true},
		{"requests-per-minute", c.RequestsPerMinute != 0, true},
		{"tokens-per-minute", c.TokensPerMinute != 0, true},
		{"timeout", c.Timeout != nil, true},
		{"attempts", c.Attempts != nil, true},
		{"rubric", c.Rubric != "", false},
		{"journal", c.Journal != "", false},
		{"price-prompt", c.PricePrompt != 0, false},
		{"price-completion", c.PriceCompletion != 0, false},
	} {
		if f.is && f.forAsking {
			asking = append(asking, "--judge-"+f.name)
		}
		if f.is {
			any = append(any, "--judge-"+f.name)
		}
	}
	return asking, any
}

// judge are the options of the flags; nil: nobody judges.
func (c *judging) judge() (*judge.Options, error) {
	asking, any := c.given()
	if c.Judge == "" && !c.Replay {
		if len(any) > 0 {
			return nil, cli.Usagef("%s: for which judge? Name it with --judge, or give --judge-replay", strings.Join(any, ", "))
		}
		return nil, nil
	}
	if c.Replay && len(asking) > 0 {
		return nil, cli.Usagef("--judge-replay asks nobody, and %s is for asking", strings.Join(asking, ", "))
	}
	o := &judge.Options{Journal: c.Journal, Settings: judge.Settings{Model: c.Judge, NoTemperature: c.NoTemperature,
		MaxTokens: c.MaxTokens, MaxCompletionTokens: c.MaxCompletionTokens}}
	if c.Rubric != "" {
		var err error
		if o.Rubric, err = judge.LoadRubric(c.Rubric); err != nil {
			return nil, err
		}
	}
	if c.Replay {
		return o, nil
	}
	if c.Rubric == "" {
		o.Rubric = judge.BuiltIn()
	}
	o.Ask = c.options()
	if err := o.Ask.Check(); err != nil {
		return nil, cli.Usagef("--judge: %w", err)
	}
	m, err := ask.NewOpenAI(ask.Endpoint{
		BaseURL: cmp.Or(c.BaseURL, os.Getenv("OPENAI_BASE_URL"), ask.OpenAI),
		Key:     os.Getenv(cmp.Or(c.KeyEnv, "OPENAI_API_KEY")),
	})
	if err != nil {
		return nil, cli.Usagef("--judge-base-url: %w", err)
	}
	o.Model = m
	return o, nil
}

func (c *judging) options() ask.Options {
	o := ask.Defaults()
	o.RequestsPerMinute, o.TokensPerMinute = c.RequestsPerMinute, c.TokensPerMinute
	if c.Concurrency != nil {
		o.Concurrency = *c.Concurrency
	}
	if c.Timeout != nil {
		o.Timeout = *c.Timeout
	}
	if c.Attempts != nil {
		o.Attempts = *c.Attempts
	}
	return o
}

// tell says what of a judge's replies is new, and what all of them cost.
func (c *judging) tell(s *cli.Streams, j *eval.Judge) {
	if j == nil {
		return
	}
	all := 0
	for _, n := range j.Replies {
		all += n
	}
	fmt.Fprintf(s.Out, "replies of the judge: %d, %d of them new; %d failed attempts", all, j.Asked, j.Failures)
	if c.PricePrompt > 0 || c.PriceCompletion > 0 {
		about := ""
		if j.Estimated {
			about = "about "
		}
		cost := (float64(j.PromptTokens)*c.PricePrompt + float64(j.CompletionTokens)*c.PriceCompletion) / 1e6
		fmt.Fprintf(s.Out, "; the tokens cost %s%.2f in all", about, cost)
	}
	fmt.Fprintln(s.Out)
}

// judging tells how far a judge is.
func (p *progress) judging(x judge.Progress) {
	now := time.Now()
	wait := every
	if p.style.Terminal {
		wait = time.Second / 5
	}
	if now.Sub(p.last) < wait && x.Done < x.Total {
		return
	}
	p.last = now
	text := ""
	if x.Failures > 0 {
		text = fmt.Sprintf("  %d failed attempts, the last: %s", x.Failures, visible.Text(fmt.Sprint(x.LastError)))
	}
	p.line("%d/%d replies of the judge%s", x.Done, x.Total, text)
}
