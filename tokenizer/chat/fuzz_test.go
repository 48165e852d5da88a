package chat

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/golden"
)

// seeds adds the templates and snippets of testdata/chat.
func seeds(f *testing.F, add func(source string)) {
	dir := filepath.Join(golden.Root(f), "testdata", "chat")
	paths, err := filepath.Glob(filepath.Join(dir, "*.jinja"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		add(string(source))
	}
	data, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		f.Fatal(err)
	}
	var file struct{ Cases []renderCase }
	if err := json.Unmarshal(data, &file); err != nil {
		f.Fatal(err)
	}
	for _, c := range file.Cases {
		if c.Source != "" {
			add(c.Source)
		}
	}
}

// FuzzParse checks that whatever is read as a template parses or fails with the lines of what is wrong.
func FuzzParse(f *testing.F) {
	seeds(f, func(source string) { f.Add(source) })
	for _, h := range hostile {
		f.Add(h.source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		_, err := Parse(source)
		if err != nil && (strings.Contains(err.Error(), "internal error") || !strings.Contains(err.Error(), "line ")) {
			t.Errorf("%v", err)
		}
	})
}

// FuzzRender checks that a template and a message from strangers render or fail within the limits, that a rendering does
// not depend on those before it, and that spans are the rendering.
func FuzzRender(f *testing.F) {
	seeds(f, func(source string) { f.Add(source, "Hi <|im_end|>") })
	f.Fuzz(func(t *testing.T, source, content string) {
		tmpl, err := Parse(source)
		if err != nil {
			return
		}
		in := Input{
			Messages:  []json.RawMessage{message("system", "s"), message("user", content), message("assistant", content), message("user", "x")},
			Tools:     raw(`{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}}`),
			Variables: map[string]any{"s": content, "n": 42, "l": []any{1, 2.5, "x", nil}, "m": map[string]any{"a": 1}, "bos_token": "<s>"},
			Now:       time.Unix(0, 0).UTC(),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := tmpl.Render(ctx, in)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("takes more than 20 seconds")
		}
		if err != nil {
			if strings.Contains(err.Error(), "internal error") {
				t.Errorf("%v", err)
			}
			return
		}
		if again, err := tmpl.Render(ctx, in); err == nil && again != out {
			t.Errorf("renders %q, and then %q", out, again)
		}
		spans, err := tmpl.RenderTurns(ctx, in)
		if err != nil {
			if strings.Contains(err.Error(), "internal error") {
				t.Errorf("%v", err)
			}
			return
		}
		var all strings.Builder
		for _, s := range spans {
			all.WriteString(s.Text)
		}
		if all.String() != out {
			t.Errorf("the spans join to %q, want %q", all.String(), out)
		}
	})
}
