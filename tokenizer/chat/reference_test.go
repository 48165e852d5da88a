package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/golden"
)

// renderCase is one rendering by Transformers: see testdata/chat/README.md.
type renderCase struct {
	Template string
	Source   string
	Name     string // of the conversation, in testdata/chat
	Setting  int    // testdata/chat: which of the arguments
	Messages []json.RawMessage
	Kwargs   map[string]json.RawMessage
	Output   *string
	Error    string
	// Generated are the ranges of characters that Transformers takes for the assistant's.
	Generated [][2]int
}

func (c renderCase) input(t testing.TB) Input {
	t.Helper()
	in := Input{Messages: c.Messages, Variables: map[string]any{}, Now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	for name, v := range c.Kwargs {
		var err error
		switch name {
		case "add_generation_prompt":
			err = json.Unmarshal(v, &in.AddGenerationPrompt)
		case "tools":
			err = json.Unmarshal(v, &in.Tools)
		case "documents":
			err = json.Unmarshal(v, &in.Documents)
		default:
			in.Variables[name] = v
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return in
}

// check compares a rendering with Transformers'.
func (c renderCase) check(t *testing.T, source string) {
	t.Helper()
	what := strings.TrimSpace(c.Template + " " + c.Name + " " + c.Source)
	tmpl, err := Parse(source)
	got := ""
	if err == nil {
		got, err = tmpl.Render(t.Context(), c.input(t))
	}
	if c.Output != nil {
		if err != nil || got != *c.Output {
			t.Errorf("%s: error %v, got\n%q, want\n%q", what, err, got, *c.Output)
		}
		return
	}
	if err == nil {
		t.Errorf("%s: got %q, want the error %q", what, got, c.Error)
		return
	}
	if strings.Contains(err.Error(), "internal error") {
		t.Errorf("%s: %v", what, err)
	}
	var refused *Refused
	if isRefusal := errors.As(err, &refused); isRefusal != !strings.Contains(c.Error, "Error: ") || isRefusal && refused.Message != c.Error {
		t.Errorf("%s: error %v, want %q", what, err, c.Error)
	}
	if want, ok := strings.CutPrefix(c.Error, "UndefinedError: "); ok && !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
}

// TestSharedRenderings renders the templates of real models as Transformers does.
func TestSharedRenderings(t *testing.T) {
	path := golden.Shared(t, "templates", "cases.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []renderCase }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 192 {
		t.Fatalf("%s has %d cases", path, len(file.Cases))
	}
	for _, c := range file.Cases {
		source, err := os.ReadFile(golden.Shared(t, "templates", c.Template))
		if err != nil {
			t.Fatal(err)
		}
		c.check(t, string(source))
	}
}

// TestOwnRenderings renders the templates and snippets of testdata/chat as Transformers does.
func TestOwnRenderings(t *testing.T) {
	dir := filepath.Join(golden.Root(t), "testdata", "chat")
	data, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Data          map[string]json.RawMessage
		Conversations map[string][]json.RawMessage
		Settings      []map[string]json.RawMessage
		Cases         []renderCase
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	generated := 0
	for _, c := range file.Cases {
		if c.Template == "" {
			c.Kwargs = file.Data
			c.check(t, c.Source)
			continue
		}
		c.Messages, c.Kwargs = file.Conversations[c.Name], file.Settings[c.Setting]
		source, err := os.ReadFile(filepath.Join(dir, c.Template))
		if err != nil {
			t.Fatal(err)
		}
		c.check(t, string(source))
		if c.Generated != nil {
			generated++
			c.checkGenerated(t, string(source))
		}
	}
	if generated < 20 {
		t.Errorf("only %d cases tell what is generated", generated)
	}
}

// checkGenerated compares what is learnt with Transformers' mask of the assistant's text.
func (c renderCase) checkGenerated(t *testing.T, source string) {
	t.Helper()
	tmpl, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	spans, err := tmpl.RenderTurns(t.Context(), c.input(t))
	if err != nil {
		t.Errorf("%s, %s: %v", c.Template, c.Name, err)
		return
	}
	var got, want []string
	for _, s := range spans {
		if s.Assistant {
			got = append(got, s.Text)
			if role := struct{ Role string }{}; json.Unmarshal(c.Messages[s.Message], &role) != nil || role.Role != "assistant" {
				t.Errorf("%s, %s: learns of message %d, which is of %q", c.Template, c.Name, s.Message, role.Role)
			}
		}
	}
	for _, g := range c.Generated {
		want = append(want, string([]rune(*c.Output)[g[0]:g[1]]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s, %s: learns %q, want %q", c.Template, c.Name, got, want)
	}
}
