package matrix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/train/instruct"
)

// chatModel writes a model of random numbers with a real tokenizer and chat template.
func chatModel(t *testing.T, name, template string, vocab int, specials string) string {
	t.Helper()
	const hidden, inner, heads = 16, 32, 2
	dir := t.TempDir()
	put := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	read := func(elem ...string) []byte {
		text, err := os.ReadFile(golden.Shared(t, elem...))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	put("tokenizer.json", read("tokenizers", name, "tokenizer.json"))
	source, err := json.Marshal(string(read("templates", template)))
	if err != nil {
		t.Fatal(err)
	}
	put("tokenizer_config.json", fmt.Appendf(nil, `{"chat_template": %s, %s}`, source, specials))
	put("config.json", fmt.Appendf(nil, `{"model_type": "llama", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 1,
		"num_attention_heads": %d, "num_key_value_heads": %[3]d, "vocab_size": %d, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
		"tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 2}`, hidden, inner, heads, vocab))
	random := rand.New(rand.NewPCG(1, 2))
	var sources []safetensors.Source
	add := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]byte, 2*n)
		for i := range n { // bf16 of absolute value below 1/8
			data[2*i], data[2*i+1] = byte(random.Uint32()), byte(random.Uint32N(2)<<7|0x3d)
		}
		sources = append(sources, safetensors.Source{Name: name, DType: numeric.BF16, Shape: shape, Data: data})
	}
	add("model.embed_tokens.weight", vocab, hidden)
	for _, p := range []string{"q", "k", "v", "o"} {
		add("model.layers.0.self_attn."+p+"_proj.weight", hidden, hidden)
	}
	add("model.layers.0.mlp.gate_proj.weight", inner, hidden)
	add("model.layers.0.mlp.up_proj.weight", inner, hidden)
	add("model.layers.0.mlp.down_proj.weight", hidden, inner)
	for _, p := range []string{"model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"} {
		add(p+".weight", hidden)
	}
	if err := safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), sources, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Each base is trained on the very prompts that it is asked: Alpaca's, and those of real chat templates on their real
// vocabularies, with and without a system message. (MedTuned's authors train on one text and ask with another.)
func TestStyles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: reads real vocabularies, which takes seconds")
	}
	llama2 := chatModel(t, "llama2", "llama-2-chat.own.jinja", 32000, `"bos_token": "<s>", "eos_token": "</s>"`)
	llama3 := chatModel(t, "llama3", "meta-llama-Llama-3.1-8B-Instruct.jinja", 128256, `"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"`)
	dir := t.TempDir()
	data := filepath.Join(dir, "rows.jsonl")
	_, err := rows.Write(data, func(yield func(rows.Row, error) bool) {
		for i, input := range []string{"", "Aspirin 100 mg <|eot_id|> [/INST]", "β-blockers,\n\nλ = 3", " two  spaces ", "None"} {
			r := rows.Row{Instruction: strings.Repeat("Name the drug. ", i+1), Input: input, Output: "aspirin", Category: "QA", ID: fmt.Sprint(i)}
			if !yield(r, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	task := filepath.Join(dir, "drug.yaml")
	if err := os.WriteFile(task, []byte("category: QA\nmetrics: [rougeL]\nparser: text\nmax_new_tokens: 2\ninstructions: [Name it.]\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	g, err := Parse("grid.yaml", fmt.Appendf(nil, `
bases:
  - {name: alpaca, path: %[1]q}
  - {name: medtuned, path: %[1]q, template: medtuned}
  - {name: llama2, path: %[1]q, template: chat, system_prompt: You are careful.}
  - {name: llama3, path: %[2]q, template: chat, chat_template: %[3]q}
data: [%[4]q]
subsets: [{name: all}]
train: {max_steps: 1, lora_r: 2}
tasks: [{task: %[5]q, rows: %[4]q}]
`, llama2, llama3, golden.Shared(t, "templates", "meta-llama-Llama-3.2-3B-Instruct.jinja"), data, task))
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if _, err := Run(t.Context(), p, Options{Out: out}); err != nil {
		t.Fatal(err)
	}
	r := &runner{Plan: p}
	for i := range p.Cells {
		c := &p.Cells[i]
		d, err := r.open(t.Context(), c, data)
		if err != nil {
			t.Fatal(err)
		}
		x, err := d.Rows.Tokenize(t.Context(), d.Tokenizer, instruct.TokenizeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(out, "cells", filepath.FromSlash(c.Name()), "eval", "drug", "predictions.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		asked := json.NewDecoder(bytes.NewReader(text))
		for k := range x.List {
			var a eval.Answer
			if err := asked.Decode(&a); err != nil {
				t.Fatal(err)
			}
			e := &x.List[k]
			read := 0 // tokens before those that are learnt
			for read < len(e.IDs) && e.Label(read) == instruct.Masked {
				read++
			}
			if c.Base != "medtuned" && a.Prompt != read {
				t.Errorf("%s, row %s: asked with a prompt of %d tokens, trained on one of %d", c.Base, a.ID, a.Prompt, read)
			}
		}
	}
	broken := filepath.Join(dir, "broken.jinja")
	if err := os.WriteFile(broken, []byte("{% if x %}"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Base){
		"the model has no chat template": func(b *Base) {
			b.Path, b.ChatTemplate = filepath.Join(golden.Root(t), "testdata", "demo", "model"), ""
		},
		"nor a file that can be read":             func(b *Base) { b.ChatTemplate = "nowhere.jinja" },
		"chat_template and system_prompt are for": func(b *Base) { b.Template, b.SystemPrompt = "medtuned", "Hi." },
		`template "nothing" is neither built in`:  func(b *Base) { b.Template = "nothing" },
		"nowhere: no such file or directory":      func(b *Base) { b.Path = "nowhere" },
		"base llama3: the chat template: ":        func(b *Base) { b.ChatTemplate = broken },
	} {
		bad := *g
		bad.Bases = []Base{g.Bases[3]} // llama3
		change(&bad.Bases[0])
		if _, err := MakePlan(t.Context(), &bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v\nwant %s", err, name)
		}
	}
}
