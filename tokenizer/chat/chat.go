// Package chat renders conversations with the chat templates that models carry, as Transformers' apply_chat_template
// does, and tells which part of a rendering the model is to learn.
//
// A template is a program by a stranger. It reads nothing but its input, and one that does not come to an end, or makes
// too much, is stopped: see Template.Render.
package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/tokenizer/chat/internal/jinja"
)

// Template is a parsed chat template. It is safe for concurrent use.
type Template struct {
	source string
	t      *jinja.Template
}

// Input is a conversation with what a template is told beside it. Messages, tools and documents are JSON objects; they
// keep the order of their keys, and numbers are written as Python writes them.
type Input struct {
	Messages  []json.RawMessage
	Tools     []json.RawMessage // nil: none
	Documents []json.RawMessage // nil: none
	// AddGenerationPrompt asks for the header of the assistant's turn at the end.
	AddGenerationPrompt bool
	// Variables are the names that the template may read: the special tokens ("bos_token": "<s>") and what else a model
	// documents ("enable_thinking": false). Values are strings, booleans, numbers, nil, json.RawMessage, and slices and
	// maps of these.
	Variables map[string]any
	// Now is what strftime_now tells; zero is the time of the call.
	Now time.Time
}

// Refused is a conversation that the template refuses, by raise_exception.
type Refused struct {
	Message string
	Line    int // of the template
}

func (e *Refused) Error() string {
	return fmt.Sprintf("the chat template refuses the conversation (line %d): %s", e.Line, e.Message)
}

// Parse reads a template, of at most 1 MiB. The error holds all its syntax errors, one on a line, each with its line.
// Tags that would read other templates (include, import, extends) are among them.
func Parse(source string) (*Template, error) {
	t, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return &Template{source, t}, nil
}

// Render returns the text of a conversation. The error names the template's line; *Refused is one that the template
// raises itself. A rendering is stopped after 2 million evaluations and 8 for each byte of the template and the input,
// when its text passes 16 MiB and four times these bytes, when what it makes on the way passes eight times that, when
// macros or values are nested too deeply, and when ctx ends.
func (t *Template) Render(ctx context.Context, in Input) (string, error) {
	c, err := t.conversation(in)
	if err != nil {
		return "", err
	}
	out, err := c.render(ctx, c.messages, in.AddGenerationPrompt)
	return out.Text, err
}

// conversation is an input as values of the template's language.
type conversation struct {
	t         *Template
	messages  []*jinja.Dict
	variables map[string]any
	size      int
	now       time.Time
}

// own are the variables that Input has fields for.
var own = []string{"messages", "tools", "documents", "add_generation_prompt"}

func (t *Template) conversation(in Input) (*conversation, error) {
	c := &conversation{t: t, variables: map[string]any{}, now: in.Now}
	if c.now.IsZero() {
		c.now = time.Now()
	}
	var errs []error
	for name, v := range in.Variables {
		if slices.Contains(own, name) {
			errs = append(errs, fmt.Errorf("chat: the variable %q is a field of the input", name))
			continue
		}
		value, err := jinja.FromGo(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("chat: variable %q: %w", name, err))
		}
		c.variables[name] = value
		c.size += size(v)
	}
	for i, text := range in.Messages {
		m, err := c.object(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("chat: message %d: %w", i, err))
			continue
		}
		c.messages = append(c.messages, aliasReasoning(m))
	}
	c.variables["tools"] = c.list("tool", in.Tools, &errs)
	c.variables["documents"] = c.list("document", in.Documents, &errs)
	return c, errors.Join(errs...)
}

// size is about how many bytes a variable has.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case json.RawMessage:
		return len(v)
	}
	return 0
}

func (c *conversation) object(text json.RawMessage) (*jinja.Dict, error) {
	c.size += len(text)
	v, err := jinja.FromJSON(text)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*jinja.Dict)
	if !ok {
		got, _ := strictjson.Parse(text)
		return nil, fmt.Errorf("want a JSON object, got %s", strictjson.Kind(got))
	}
	return d, nil
}

// list is a variable with several objects, None for nil.
func (c *conversation) list(what string, texts []json.RawMessage, errs *[]error) any {
	if texts == nil {
		return nil
	}
	all := make([]any, len(texts))
	for i, text := range texts {
		d, err := c.object(text)
		if err != nil {
			*errs = append(*errs, fmt.Errorf("chat: %s %d: %w", what, i, err))
		}
		all[i] = d
	}
	return jinja.NewList(all)
}

// reasoningFields are the names under which data has an assistant's reasoning, as Transformers knows them.
var reasoningFields = []string{"reasoning_content", "thinking", "reasoning"}

// aliasReasoning gives reasoning the names that templates read it by, as Transformers 5 does.
func aliasReasoning(m *jinja.Dict) *jinja.Dict {
	for _, name := range reasoningFields {
		v, _ := m.Get(name)
		if v == nil {
			continue
		}
		out := jinja.NewDict()
		out.Set("thinking", v) // comes first where it is new, and keeps its own value where it is not
		m.Each(out.Set)
		out.Set("reasoning_content", v)
		return out
	}
	return m
}

func (c *conversation) render(ctx context.Context, messages []*jinja.Dict, prompt bool) (jinja.Output, error) {
	all := make([]any, len(messages))
	for i, m := range messages {
		all[i] = m
	}
	c.variables["messages"] = jinja.NewList(all)
	c.variables["add_generation_prompt"] = prompt
	out, err := c.t.t.Render(ctx, jinja.Input{Variables: c.variables, Size: c.size, Now: c.now, Messages: messages})
	var raised *jinja.Raised
	if errors.As(err, &raised) {
		return jinja.Output{}, &Refused{raised.Message, raised.Line}
	}
	if err != nil {
		return jinja.Output{}, fmt.Errorf("chat template: %w", err)
	}
	return out, nil
}

// text is a value of a message that is a string.
func text(m *jinja.Dict, key string) string {
	v, _ := m.Get(key)
	s, _ := v.(string)
	return s
}

// isAssistant reports whether the model wrote a message.
func isAssistant(m *jinja.Dict) bool { return text(m, "role") == "assistant" }

// isBlank reports whether a message says nothing at all.
func isBlank(m *jinja.Dict) bool {
	calls, _ := m.Get("tool_calls")
	content, _ := m.Get("content")
	s, isText := content.(string)
	return calls == nil && (content == nil || isText && strings.TrimSpace(s) == "")
}
