package eval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/tokenizer/chat"
	"github.com/biolora/biolora/train/instruct"
)

// between is what follows an example.
const between = "\n\n"

// template is what makes the prompts of a system for a task: the system's own, else the task's, else the run's.
func (o *Options) template(s System, x *set) (instruct.Template, string, error) {
	name := s.Template
	if name == "" && x != nil {
		name = x.Task.Template
	}
	if name == "" {
		name = o.Template
	}
	t, err := instruct.LoadTemplate(name)
	return t, name, err
}

// prompter makes the prompts of one system for one task.
type prompter struct {
	template instruct.Template
	tok      *tokenizer.Tokenizer
	chat     *chat.Template // nil for plain text
	system   string         // message of the chat
	vars     map[string]any
	now      time.Time
	shots    int
	set      *set
}

// prompter opens the template of a system for a task.
func (r *run) prompter(s System, tok *tokenizer.Tokenizer, x *set) (*prompter, error) {
	t, _, err := r.template(s, x)
	if err != nil {
		return nil, err
	}
	p := &prompter{template: t, tok: tok, system: r.SystemPrompt, shots: r.shotCount(x), set: x, now: r.Now}
	if !t.Chat {
		if r.ChatTemplate != "" || r.SystemPrompt != "" || !r.Now.Equal(Defaults().Now) {
			return nil, fmt.Errorf("a chat template, a system prompt and a date are for the template chat, and the prompts are made with %s", t.Name)
		}
		return p, nil
	}
	p.vars = map[string]any{}
	for name, token := range tok.SpecialNames() {
		p.vars[name] = token
	}
	source, err := dataset.ChatSource(tok, r.ChatTemplate)
	if err != nil {
		return nil, err
	}
	if p.chat, err = chat.Parse(source); err != nil {
		return nil, fmt.Errorf("the chat template: %w", err)
	}
	return p, nil
}

// text is the prompt of a row.
func (p *prompter) text(ctx context.Context, r row) (string, error) {
	return p.render(ctx, p.set.shotsFor(r, p.shots), r.Row)
}

// render is the prompt of a row behind examples.
func (p *prompter) render(ctx context.Context, shots []row, r rows.Row) (string, error) {
	ask := func(r rows.Row) string { return p.template.Prompt(r.Instruction, r.Input) }
	if p.chat == nil {
		var b strings.Builder
		for _, s := range shots {
			b.WriteString(ask(s.Row) + s.Output + between)
		}
		return b.String() + ask(r), nil
	}
	in := chat.Input{AddGenerationPrompt: true, Variables: p.vars, Now: p.now}
	add := func(role, content string) error {
		text, err := json.Marshal(map[string]string{"role": role, "content": content})
		in.Messages = append(in.Messages, text)
		return err
	}
	var errs []error
	if p.system != "" {
		errs = append(errs, add("system", p.system))
	}
	for _, s := range shots {
		errs = append(errs, add("user", ask(s.Row)), add("assistant", s.Output))
	}
	errs = append(errs, add("user", ask(r)))
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	return p.chat.Render(ctx, in)
}

// stop is the string that ends an answer behind examples: the beginning of another prompt. It is empty without examples,
// in a chat, and where a template begins with the row's own words.
func (p *prompter) stop() string {
	if p.shots == 0 || p.chat != nil {
		return ""
	}
	text := p.template.Inference
	if text == "" {
		text = p.template.PromptInput
	}
	first, _, _ := strings.Cut(text, "{")
	first, _, _ = strings.Cut(first, "\n")
	if other := p.template.PromptNoInput; p.template.Inference == "" && other != "" {
		first = common(first, other)
	}
	if first = strings.TrimSpace(first); first == "" {
		return ""
	}
	return between + first
}

// common is what two texts have in common at their beginning.
func common(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return strings.ToValidUTF8(a[:n], "")
}

func (p *prompter) tokens(prompt string) []int32 { return local.Tokens(p.tok, prompt) }

// follow are the ids of a text behind a prompt, encoded apart as in training, with the end token where end says so.
func (p *prompter) follow(prompt, text string, end bool) []int32 {
	ids := local.After(p.tok, prompt, text)
	if eos, ok := p.tok.EOS(); ok && end {
		ids = append(slices.Clone(ids), eos)
	}
	return ids
}

// prompt is how a row is asked.
type prompt struct {
	text string
	ids  []int32
	// heads are lengths of beginnings that other rows may have in common. They depend on the row and its examples alone,
	// not on other rows, because what is computed apart may differ in its last bits.
	heads []int
}

// minHead is the shortest part of a prompt that is worth being computed apart, in tokens.
const minHead = 8

// all are the prompts of all rows.
func (p *prompter) all(ctx context.Context) ([]prompt, error) {
	list := make([]prompt, len(p.set.rows))
	h := heads{prompter: p, known: map[string][]int32{}}
	for i, row := range p.set.rows {
		text, err := p.text(ctx, row)
		if err != nil {
			return nil, fmt.Errorf("row %s: %w", row.key, err)
		}
		ids := p.tokens(text)
		if len(ids) == 0 {
			return nil, fmt.Errorf("row %s: the prompt has no tokens", row.key)
		}
		list[i] = prompt{text: text, ids: ids}
		if list[i].heads, err = h.of(ctx, row, ids); err != nil {
			return nil, fmt.Errorf("row %s: %w", row.key, err)
		}
	}
	return list, nil
}

// heads finds what prompts have in common.
type heads struct {
	*prompter
	known map[string][]int32 // beginnings, by what they depend on
}

// of are the lengths of a prompt's heads: up to the instruction, with all examples, and up to the input.
func (h *heads) of(ctx context.Context, r row, ids []int32) (lengths []int, err error) {
	shots := h.set.shotsFor(r, h.shots)
	depends := make([]string, 0, len(shots)+2)
	for _, s := range shots {
		depends = append(depends, s.key)
	}
	hasInput := h.template.Prompt("", r.Input) != h.template.Prompt("", "")
	ask := func(instruction, word string) rows.Row {
		if hasInput {
			return rows.Row{Instruction: instruction, Input: word}
		}
		return rows.Row{Instruction: instruction}
	}
	common, err := h.common(ctx, append(depends, fmt.Sprint(hasInput)), shots, func(word string) rows.Row { return ask(word, word) })
	if err != nil {
		return nil, err
	}
	parts := [][]int32{common}
	if hasInput {
		if common, err = h.common(ctx, append(depends, "instruction", r.Instruction), shots, func(word string) rows.Row { return ask(r.Instruction, word) }); err != nil {
			return nil, err
		}
		parts = append(parts, common)
	}
	before := 0
	for _, part := range parts {
		if n := len(begin(part, ids[:len(ids)-1])); n >= before+minHead {
			lengths, before = append(lengths, n), n
		}
	}
	return lengths, nil
}

// common is what prompts begin with whatever the word in them is. It is found once for all that it depends on.
func (h *heads) common(ctx context.Context, depends []string, shots []row, ask func(word string) rows.Row) ([]int32, error) {
	key := fingerprint.Texts(depends...)
	if ids, ok := h.known[key]; ok {
		return ids, nil
	}
	var two [2][]int32
	for i, word := range []string{"Q", "("} {
		text, err := h.render(ctx, shots, ask(word))
		if err != nil {
			return nil, err
		}
		two[i] = h.tokens(text)
	}
	h.known[key] = begin(two[0], two[1])
	return h.known[key], nil
}

// begin is what two lists have in common at their beginning.
func begin(a, b []int32) []int32 {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}
