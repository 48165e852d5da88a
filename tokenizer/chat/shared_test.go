package chat

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/golden"
)

// renderCase is one rendering by Transformers: see testdata/chat/README.md.
type renderCase struct {
	Template string
	Name     string
	Messages []json.RawMessage
	Kwargs   map[string]json.RawMessage
	Output   *string
	Error    string
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
	tmpl, err := Parse(source)
	if err != nil {
		t.Errorf("%s: %v", c.Template, err)
		return
	}
	got, err := tmpl.Render(t.Context(), c.input(t))
	if c.Output != nil {
		if err != nil || got != *c.Output {
			t.Errorf("%s, %s: error %v, got\n%q, want\n%q", c.Template, c.Name, err, got, *c.Output)
		}
		return
	}
	if err == nil {
		t.Errorf("%s, %s: got %q, want the error %q", c.Template, c.Name, got, c.Error)
		return
	}
	var refused *Refused
	if errors.As(err, &refused) && refused.Message != c.Error {
		t.Errorf("%s, %s: refused with %q, want %q", c.Template, c.Name, refused.Message, c.Error)
	}
	if !errors.As(err, &refused) && !strings.Contains(c.Error, "Error: ") && !strings.Contains(err.Error(), c.Error) {
		t.Errorf("%s, %s: error %q, want %q", c.Template, c.Name, err, c.Error)
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
