package chat

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// twentyTurns is a conversation of twenty messages.
func twentyTurns() (in Input) {
	in.Variables = tokens
	for i := range 10 {
		in.Messages = append(in.Messages, message("user", fmt.Sprintf("Question %d: what does the potassium of 4.1 mmol/L mean?", i)),
			message("assistant", fmt.Sprintf("Answer %d: it is within the normal range of 3.5 to 5.0 mmol/L.", i)))
	}
	return in
}

func benchTemplate(b *testing.B, name string) *Template {
	b.Helper()
	source, err := os.ReadFile(filepath.Join(golden.Root(b), "testdata", "chat", name))
	if err != nil {
		b.Fatal(err)
	}
	tmpl, err := Parse(string(source))
	if err != nil {
		b.Fatal(err)
	}
	return tmpl
}

var benchTemplates = []string{"plain.jinja", "merged-system.jinja", "reasoning.jinja"}

func BenchmarkRender(b *testing.B) {
	in := twentyTurns()
	for _, name := range benchTemplates {
		b.Run(name, func(b *testing.B) {
			tmpl := benchTemplate(b, name)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tmpl.Render(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRenderTurns(b *testing.B) {
	in := twentyTurns()
	for _, name := range benchTemplates {
		b.Run(name, func(b *testing.B) {
			tmpl := benchTemplate(b, name)
			for b.Loop() {
				if _, err := tmpl.RenderTurns(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	source, err := os.ReadFile(filepath.Join(golden.Root(b), "testdata", "chat", "reasoning.jinja"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(source)))
	for b.Loop() {
		if _, err := Parse(string(source)); err != nil {
			b.Fatal(err)
		}
	}
}

// TestConcurrentUse renders one template from several goroutines; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "chat", "macros.jinja"))
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := Parse(string(source))
	if err != nil {
		t.Fatal(err)
	}
	in := twentyTurns()
	want, err := tmpl.Render(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := tmpl.Render(t.Context(), in)
			if _, turns := tmpl.RenderTurns(t.Context(), in); err != nil || turns != nil || got != want {
				t.Errorf("errors %v and %v, got %q", err, turns, got)
			}
		})
	}
	wg.Wait()
}
