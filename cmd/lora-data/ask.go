package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/bioinstruct"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/visible"
)

// asking are the flags of commands that ask an endpoint.
type asking struct {
	BaseURL             string        `name:"base-url" group:"Endpoint" placeholder:"URL" help:"What /chat/completions is put behind. Without it: OPENAI_BASE_URL, and without that OpenAI."`
	KeyEnv              string        `name:"key-env" group:"Endpoint" default:"OPENAI_API_KEY" placeholder:"NAME" help:"Variable of the environment that holds the key (${default}). The key is written nowhere."`
	Temperature         *float64      `group:"Endpoint" placeholder:"T" help:"Temperature, 0 to 2. Without it, as below: the endpoint's own."`
	TopP                *float64      `name:"top-p" group:"Endpoint" placeholder:"P" help:"Nucleus, above 0 up to 1."`
	MaxTokens           int           `name:"max-tokens" group:"Endpoint" placeholder:"N" help:"Tokens that an answer may have: max_tokens."`
	MaxCompletionTokens int           `name:"max-completion-tokens" group:"Endpoint" placeholder:"N" help:"The same as max_completion_tokens, for models that want that."`
	Concurrency         int           `group:"Endpoint" default:"4" placeholder:"N" help:"Requests at a time (${default})."`
	RequestsPerMinute   float64       `name:"requests-per-minute" group:"Endpoint" placeholder:"N" help:"Requests a minute, not to be exceeded."`
	TokensPerMinute     float64       `name:"tokens-per-minute" group:"Endpoint" placeholder:"N" help:"Tokens a minute, of prompts and answers."`
	Timeout             time.Duration `group:"Endpoint" default:"5m" placeholder:"TIME" help:"How long an attempt may take (${default})."`
	Attempts            int           `group:"Endpoint" default:"8" placeholder:"N" help:"Attempts for each request (${default})."`
	PricePrompt         float64       `name:"price-prompt" group:"Endpoint" placeholder:"PRICE" help:"Price of a million tokens of prompts, to tell the cost."`
	PriceCompletion     float64       `name:"price-completion" group:"Endpoint" placeholder:"PRICE" help:"Price of a million tokens of answers."`
}

func (a *asking) sampling(model string) bioinstruct.Sampling {
	return bioinstruct.Sampling{Model: model, Temperature: a.Temperature, TopP: a.TopP, MaxTokens: a.MaxTokens, MaxCompletionTokens: a.MaxCompletionTokens}
}

// The defaults of flags, as their tags have them.
const (
	defaultKeyEnv      = "OPENAI_API_KEY"
	defaultConcurrency = 4
	defaultTimeout     = 5 * time.Minute
	defaultAttempts    = 8
)

// given are the flags that say something about asking an endpoint. Prices are not among them: they are for telling what
// was paid.
func (a *asking) given() []string {
	return flagsGiven([]flagGiven{
		{"base-url", a.BaseURL != ""},
		{"key-env", a.KeyEnv != defaultKeyEnv},
		{"temperature", a.Temperature != nil},
		{"top-p", a.TopP != nil},
		{"max-tokens", a.MaxTokens != 0},
		{"max-completion-tokens", a.MaxCompletionTokens != 0},
		{"concurrency", a.Concurrency != defaultConcurrency},
		{"requests-per-minute", a.RequestsPerMinute != 0},
		{"tokens-per-minute", a.TokensPerMinute != 0},
		{"timeout", a.Timeout != defaultTimeout},
		{"attempts", a.Attempts != defaultAttempts},
	})
}

// flagGiven is a flag's name and whether it has another value than its default.
type flagGiven struct {
	name string
	is   bool
}

func flagsGiven(all []flagGiven) (names []string) {
	for _, f := range all {
		if f.is {
			names = append(names, "--"+f.name)
		}
	}
	return names
}

// open makes the model of the flags and of the environment.
func (a *asking) open(model string) (ask.Model, error) {
	if model == "" {
		return nil, cli.Usagef("--model is missing: which model to ask")
	}
	m, err := ask.NewOpenAI(ask.Endpoint{
		BaseURL: cmp.Or(a.BaseURL, os.Getenv("OPENAI_BASE_URL"), ask.OpenAI),
		Key:     os.Getenv(a.KeyEnv),
	})
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	return m, nil
}

func (a *asking) options() ask.Options {
	o := ask.Defaults()
	o.Concurrency, o.RequestsPerMinute, o.TokensPerMinute = a.Concurrency, a.RequestsPerMinute, a.TokensPerMinute
	o.Timeout, o.Attempts = a.Timeout, a.Attempts
	return o
}

// tell says what was asked and what it cost.
func (a *asking) tell(s *cli.Streams, t ask.Totals) {
	about := ""
	if t.Usage.Estimated {
		about = "about "
	}
	var by []string
	for _, m := range slices.Sorted(maps.Keys(t.Models)) {
		by = append(by, fmt.Sprintf("%d by %s", t.Models[m], cmp.Or(visible.Text(m), "a model without a name")))
	}
	fmt.Fprintf(s.Out, "answers: %s; %d of them new; %d failed attempts; %s%s tokens of prompts and %s of answers",
		cmp.Or(strings.Join(by, ", "), "none"), t.Asked, t.Failures, about, visible.Count(t.Usage.Prompt), visible.Count(t.Usage.Completion))
	if price := (bioinstruct.Price{Prompt: a.PricePrompt, Completion: a.PriceCompletion}); price != (bioinstruct.Price{}) {
		fmt.Fprintf(s.Out, ", which cost %s%.2f in all", about, price.Of(t.Usage))
	}
	fmt.Fprintln(s.Out)
	if len(t.Models) > 1 {
		fmt.Fprintln(s.Err, "lora-data: warning: more than one model answered")
	}
}

// answers is how many answers a journal has.
func answers(t ask.Totals) (n int) {
	for _, k := range t.Models {
		n += k
	}
	return n
}

// failed says, of a run that has ended before its end, how it goes on.
func failed(s *cli.Streams, journal string, err error) error {
	if err == nil || errors.Is(err, ask.ErrOtherJob) {
		return err
	}
	if j, readErr := ask.Read(journal); readErr == nil && j.Answers() > 0 {
		fmt.Fprintf(s.Err, "lora-data: %s has what was answered so far; the same command goes on from there\n", journal)
	}
	return err
}
