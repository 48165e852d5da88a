package local

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

func demo(t *testing.T) string { return filepath.Join(golden.Root(t), "testdata", "demo", "model") }

// adapter saves a new adapter of the demo model; its B is zero, so that it changes nothing.
func adapter(t *testing.T) string {
	t.Helper()
	m, err := model.Open(demo(t), model.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a, err := lora.Inject(m, lora.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a")
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWeigh: questions that are weighed together are found as likely as each by itself, to the bit, and as by hand, token by
// token.
func TestWeigh(t *testing.T) {
	s := System{Model: demo(t), Adapter: adapter(t), Options: model.Options{Compute: "f32"}}
	m, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	questions := []string{"Is aspirin a drug?", "Is aspirin a drug? Say more of it.", strings.Repeat("word ", 600), "Name a gene."}
	options := []string{"yes", "no, it is not"}
	all, err := m.Weigh(t.Context(), "", questions, options)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 || all[2].Sums != nil || all[2].Best() != -1 || all[2].Prompt <= m.Positions() {
		t.Errorf("%+v", all)
	}
	for i, question := range questions {
		alone, err := m.Weigh(t.Context(), "", questions[i:i+1], options)
		if err != nil || !slices.Equal(alone[0].Sums, all[i].Sums) {
			t.Errorf("question %d alone: %v, %v; want %v", i, alone, err, all[i].Sums)
		}
		if i == 2 {
			continue
		}
		text, err := m.ask.prompt(t.Context(), question)
		if err != nil {
			t.Fatal(err)
		}
		ids := Tokens(m.ask.tok, text)
		for k, option := range options {
			o := After(m.ask.tok, text, option)
			b := &model.Batch{}
			first := b.Append(append(append([]int32(nil), ids...), o...))
			want := 0.0
			for n, id := range o {
				logits, err := m.model.Logits(t.Context(), b, []int32{first + int32(len(ids)+n-1)})
				if err != nil {
					t.Fatal(err)
				}
				sum := 0.0
				for _, x := range logits {
					sum += math.Exp(float64(x))
				}
				want += float64(logits[id]) - math.Log(sum)
			}
			if got := all[i].Sums[k]; math.Abs(got-want) > 1e-4 {
				t.Errorf("question %d, option %d: %v, want %v", i, k, got, want)
			}
		}
	}
	if l := (Likely{Sums: []float64{-2, -1, -1}}); l.Best() != 1 {
		t.Errorf("the best is %d", l.Best())
	}
}

// TestPositions: a model with dynamic scaling is asked what goes beyond the positions that it was pretrained with.
func TestPositions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	if err := os.CopyFS(dir, os.DirFS(demo(t))); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), `"rope_scaling": null`, `"rope_scaling": {"type": "dynamic", "factor": 4.0}`, 1))
	if err := os.WriteFile(config, text, 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := Open(t.Context(), System{Model: dir, Options: model.Options{Compute: "f32"}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	all, err := m.Weigh(t.Context(), "", []string{strings.Repeat("word ", 600)}, []string{"yes", "no"})
	if err != nil {
		t.Fatal(err)
	}
	if c := m.model.Config(); m.Positions() != 4*c.MaxPositionEmbeddings || all[0].Prompt <= c.MaxPositionEmbeddings || len(all[0].Sums) != 2 {
		t.Errorf("%d positions, %+v", m.Positions(), all)
	}
}

// TestChat: a model with a chat template is asked in it unless another template is named.
func TestChat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	if err := os.CopyFS(dir, os.DirFS(demo(t))); err != nil {
		t.Fatal(err)
	}
	template, err := json.Marshal("{{ strftime_now('%d %b %Y') }} {% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %}[reply]{% endif %}")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "tokenizer_config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	plain, err := System{Model: dir}.Check()
	if err != nil {
		t.Fatal(err)
	}
	keys["chat_template"] = template
	if text, err = json.Marshal(keys); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, text, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"": "26 Jul 2024 [user] Why?[reply]", "medtuned": "### Instruction:\nWhy?\n\n### Input:\n\n\n### Output:\n"} {
		a, err := System{Model: dir, Template: name}.asker()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.prompt(t.Context(), "Why?"); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
	chat, err := System{Model: dir}.Check()
	if err != nil || !strings.HasPrefix(plain.Template, "alpaca ") || !strings.HasPrefix(chat.Template, "chat ") || chat.Checkpoint == plain.Checkpoint {
		t.Errorf("%v: %+v, %+v", err, plain, chat)
	}
}

func TestCheckRefuses(t *testing.T) {
	misfit := adapter(t)
	config := filepath.Join(misfit, lora.ConfigFile)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), `"q_proj"`, `"x_proj"`, 1)), 0o666); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]System{
		"no such file":                       {Model: filepath.Join(t.TempDir(), "none")},
		"no chat template":                   {Model: demo(t), Template: "chat"},
		"belongs to a module":                {Model: demo(t), Adapter: misfit},
		filepath.Join("gone", "adapter_con"): {Model: demo(t), Adapter: filepath.Join(t.TempDir(), "gone")},
	} {
		if _, err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestMemory: what does not fit is refused with both numbers before it is computed.
func TestMemory(t *testing.T) {
	m, err := Open(t.Context(), System{Model: demo(t), Options: model.Options{Compute: "f32", MemoryLimit: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Weigh(t.Context(), "", []string{strings.Repeat("word ", 100)}, []string{"yes"}); err == nil || !strings.Contains(err.Error(), "1.00 MiB") || !strings.Contains(err.Error(), "ask fewer") {
		t.Errorf("%v", err)
	}
}

// TestIdentity: another adapter, template or arithmetic is another identity.
func TestIdentity(t *testing.T) {
	seen := map[Identity]int{}
	for i, s := range []System{
		{Model: demo(t)},
		{Model: demo(t), Adapter: adapter(t)},
		{Model: demo(t), Template: "medtuned"},
		{Model: demo(t), Options: model.Options{Base: "nf4"}},
		{Model: demo(t), Options: model.Options{Compute: "f32"}},
	} {
		id, err := s.Check()
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[id]; ok {
			t.Errorf("systems %d and %d are one: %+v", before, i, id)
		}
		seen[id] = i
	}
}
