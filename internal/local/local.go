// Package local is a model of this machine that is asked something: a checkpoint, perhaps with an adapter. It says what
// the two are by fingerprints, whether they fit, and which of a few answers the model finds most likely.
package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/tokenizer/chat"
	"github.com/biolora/biolora/train/instruct"
)

// System says which model, and how it is asked.
type System struct {
	Model   string // checkpoint directory or .gguf file
	Adapter string // PEFT directory; empty: the model alone
	// Template puts a question into the words that the model was trained on, by name or file. Empty: the model's own chat
	// template where it has one, and else Alpaca's.
	Template string
	Options  model.Options
}

// Identity is what answers depend on, but for the machine.
type Identity struct {
	Checkpoint string `json:"checkpoint"` // fingerprint
	Adapter    string `json:"adapter"`    // fingerprint, or empty
	Template   string `json:"template"`   // name, and fingerprint of the texts
	Base       string `json:"base"`
	Compute    string `json:"compute"`
}

// asker puts questions into a template.
type asker struct {
	tok      *tokenizer.Tokenizer
	template instruct.Template
	chat     *chat.Template // nil for plain text
	vars     map[string]any
	print    string // of the template
}

func (s System) asker() (*asker, error) {
	tok, err := tokenizer.Load(s.Model)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(s.Template, instruct.Alpaca.Name)
	if _, has := tok.ChatTemplate(); has && s.Template == "" {
		name = instruct.InChat.Name
	}
	a := &asker{tok: tok}
	if a.template, err = instruct.LoadTemplate(name); err != nil {
		return nil, err
	}
	source := ""
	if a.template.Chat {
		if source, err = dataset.ChatSource(tok, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Model, err)
		}
		if a.chat, err = chat.Parse(source); err != nil {
			return nil, fmt.Errorf("%s: the chat template: %w", s.Model, err)
		}
	}
	a.vars = map[string]any{}
	for name, token := range tok.SpecialNames() {
		a.vars[name] = token
	}
	a.print = fingerprint.Texts(a.template.PromptInput, a.template.PromptNoInput, a.template.Inference, source)
	return a, nil
}

// today is what templates are told that ask for the day, so that a run goes on alike on another one: Llama 3.1's own where
// it is told none.
var today = time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC)

// prompt is the text that asks a question.
func (a *asker) prompt(ctx context.Context, question string) (string, error) {
	text := a.template.Prompt(question, "")
	if a.chat == nil {
		return text, nil
	}
	turn, err := json.Marshal(map[string]string{"role": "user", "content": text})
	if err != nil {
		return "", err
	}
	in := chat.Input{Messages: []json.RawMessage{turn}, AddGenerationPrompt: true, Variables: a.vars, Now: today}
	return a.chat.Render(ctx, in)
}

// Tokens are the ids of a prompt. They begin with BOS, once.
func Tokens(tok *tokenizer.Tokenizer, prompt string) []int32 {
	ids := tok.EncodePieces([]tokenizer.Piece{{Text: prompt}})[0]
	if bos, ok := tok.BOS(); ok && (len(ids) == 0 || ids[0] != bos) {
		ids = append([]int32{bos}, ids...)
	}
	return ids
}

// After are the ids of a text behind a prompt, encoded apart as in training.
func After(tok *tokenizer.Tokenizer, prompt, text string) []int32 {
	return tok.EncodePieces([]tokenizer.Piece{{Text: prompt}, {Text: text}})[1]
}

// Check looks at the files without opening the model, and returns what answers depend on.
func (s System) Check() (Identity, error) {
	id := Identity{Base: s.Options.Base, Compute: s.Options.Compute}
	a, err := s.asker()
	if err != nil {
		return id, err
	}
	if _, err := a.prompt(context.Background(), "?"); err != nil {
		return id, err
	}
	var errs []error
	shorten := func(print string, err error) string { // 128 bits tell models apart, and fit into a message
		errs = append(errs, err)
		return print[:min(len(print), 32)]
	}
	id.Template = a.template.Name + " " + shorten(a.print, nil)
	id.Checkpoint = shorten(ModelFingerprint(s.Model))
	if s.Adapter != "" {
		print, err := AdapterFingerprint(s.Adapter)
		if id.Adapter = shorten(print, err); err == nil {
			errs = append(errs, Fits(s.Model, s.Adapter))
		}
	}
	return id, errors.Join(errs...)
}

// Model is an open one. It belongs to one goroutine at a time.
type Model struct {
	model *model.Model
	ask   *asker
	plan  model.Load
}

// Open opens a system.
func Open(ctx context.Context, s System) (_ *Model, err error) {
	a, err := s.asker()
	if err != nil {
		return nil, err
	}
	m, err := model.OpenContext(ctx, s.Model, s.Options)
	if err != nil {
		return nil, err
	}
	if s.Adapter != "" {
		if _, err := lora.Load(m, s.Adapter, lora.Dropout(0)); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return &Model{model: m, ask: a}, nil
}

// Close closes the model.
func (m *Model) Close() error { return m.model.Close() }

// Positions is how many tokens a sequence of the model may have.
func (m *Model) Positions() int {
	config := m.model.Config()
	return config.Positions()
}

// Likely is how likely a model finds the answers to a question.
type Likely struct {
	Prompt int // its tokens
	// Sums are the log-likelihoods of the options, in nats, one for each. They are nil where the prompt and an option are
	// longer than the model's positions.
	Sums []float64
}

// Best is the option that is most likely, the first among equals; -1 where there are no sums.
func (l *Likely) Best() int {
	best := -1
	for i, s := range l.Sums {
		if best < 0 || s > l.Sums[best] {
			best = i
		}
	}
	return best
}

// Weigh finds how likely the options are behind each of the questions: the probability that the model's answer begins
// with an option. What questions have in common with head, which all of them should begin with, is computed once for those
// that are weighed together; which they are does not matter to the result, on the CPU to the bit.
func (m *Model) Weigh(ctx context.Context, head string, questions, options []string) ([]Likely, error) {
	text, err := m.ask.prompt(ctx, head)
	if err != nil {
		return nil, err
	}
	begin := Tokens(m.ask.tok, text)
	all := make([]Likely, len(questions))
	var asked []int
	var list []model.Question
	for i, question := range questions {
		text, err := m.ask.prompt(ctx, question)
		if err != nil {
			return nil, fmt.Errorf("question %d: %w", i, err)
		}
		ids, after := Tokens(m.ask.tok, text), make([][]int32, len(options))
		for k, option := range options {
			after[k] = After(m.ask.tok, text, option)
		}
		all[i].Prompt = len(ids)
		if len(ids)+longest(after) > m.Positions() {
			continue
		}
		q := model.Question{Prompt: ids, Options: after}
		if n := common(begin, ids[:len(ids)-1]); n > 0 {
			q.Heads = []int{n}
		}
		asked, list = append(asked, i), append(list, q)
	}
	if len(list) == 0 {
		return all, nil
	}
	if err := m.reserve(list); err != nil {
		return nil, err
	}
	found, err := m.model.Likelihoods(ctx, list)
	if err != nil {
		return nil, err
	}
	for k, i := range asked {
		for _, l := range found[k] {
			all[i].Sums = append(all[i].Sums, l.Sum)
		}
	}
	return all, nil
}

func longest(all [][]int32) (n int) {
	for _, ids := range all {
		n = max(n, len(ids))
	}
	return n
}

// common is how many tokens two lists begin with alike.
func common(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// reserve plans the memory of the questions, all of them at once, and fails where there is not enough.
func (m *Model) reserve(list []model.Question) error {
	var need model.Load
	heads := map[int]bool{}
	for _, q := range list {
		need.Rows += len(q.Prompt)
		for _, n := range q.Heads {
			if heads[n] {
				need.Rows -= n
			}
			heads[n] = true
		}
		need.Selected++
		for _, o := range q.Options {
			need.Rows += len(o) - 1
			need.Selected += len(o) - 1
			need.Keys = max(need.Keys, len(q.Prompt)+len(o)-1)
		}
	}
	if need.Rows <= m.plan.Rows && need.Selected <= m.plan.Selected && need.Keys <= m.plan.Keys {
		return nil
	}
	need.Rows, need.Selected, need.Keys = max(need.Rows, m.plan.Rows), max(need.Selected, m.plan.Selected), max(need.Keys, m.plan.Keys)
	p, err := m.model.Plan(need)
	if err != nil {
		return err
	}
	if !p.Fits() {
		return fmt.Errorf("%d questions, %d tokens, take %s of memory, and there is %s (%s): ask fewer at a time",
			len(list), need.Rows, memory.Format(p.Peak), memory.Format(p.Limit), p.From)
	}
	m.plan = need
	_, err = m.model.Reserve(need)
	return err
}
