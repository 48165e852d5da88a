package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
)

// chatTemplate has the special tokens of the demo's tokenizer. It tells the time, as Llama 3.2's does.
const chatTemplate = `{{- bos_token + 'Today is ' + strftime_now('%d %b %Y %H:%M:%S') + '.' }}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('no ' + message.role + ' here') }}
    {%- endif %}
    {{- '\n' + message.role + ': ' + message.content | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\nassistant: ' }}{% endif %}`

// demoModel is the demo's model, with its data as rows of three kinds that all say the same.
func demoModel(t *testing.T) (model, messages, shareGPT, instructions string) {
	t.Helper()
	dir := filepath.Join(golden.Root(t), "testdata", "demo")
	var rows []struct{ Instruction, Input, Output string }
	if err := json.Unmarshal([]byte(readBytes(t, dir, "data", "train.json")), &rows); err != nil {
		t.Fatal(err)
	}
	var m, s, p strings.Builder
	for _, r := range rows[:200] {
		user := r.Instruction
		if r.Input != "" {
			user += "\n\n" + r.Input
		}
		write := func(b *strings.Builder, row any) {
			text, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(b, "%s\n", text)
		}
		write(&m, map[string]any{"messages": []map[string]string{{"role": "user", "content": user}, {"role": "assistant", "content": r.Output}}})
		write(&s, map[string]any{"conversations": []map[string]string{{"from": "human", "value": user}, {"from": "gpt", "value": r.Output}}})
		write(&p, map[string]string{"instruction": r.Instruction, "input": r.Input, "output": r.Output})
	}
	return filepath.Join(dir, "model"), writeFile(t, "messages.jsonl", m.String()), writeFile(t, "sharegpt.jsonl", s.String()),
		writeFile(t, "instructions.jsonl", p.String())
}

// Conversations train, the same whatever they are written in, and run.yaml repeats the run with the time that the
// template was told.
func TestConversations(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds, and -short is set")
	}
	model, messages, shareGPT, instructions := demoModel(t)
	template := writeFile(t, "chat.jinja", chatTemplate)
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		out := filepath.Join(dir, name)
		mustExecute(t, append(args, "--out", out, "--max-steps", "40", "--learning-rate", "3e-3", "--target-modules", "all-linear", "--no-shuffle")...)
		return out
	}
	base := []string{"--model", model, "--chat-template", template, "--system-prompt", "Answer."}
	first := run("messages", append(base, "--data", messages)...)
	steps, _ := events(t, first)
	if begin, end := steps[0].Loss, steps[len(steps)-1].Loss; end > 0.6*begin {
		t.Errorf("the loss falls from %v to %v only", begin, end)
	}
	config := readBytes(t, first, runName)
	for _, want := range []string{"template_date: ", "system_prompt: Answer.\n", "assistant_turns: all", "chat_template: " + template} {
		if !strings.Contains(config, want) {
			t.Errorf("run.yaml lacks %q:\n%s", want, config)
		}
	}
	t.Chdir(t.TempDir())
	again := run("again", "--config", filepath.Join(first, runName))
	if got := readBytes(t, again, runName); got != config {
		t.Errorf("run.yaml of the repeated run: %s", cmp.Diff(config, got))
	}
	_, date, _ := strings.Cut(config, "template_date: \"")
	date, _, _ = strings.Cut(date, "\"")
	adapter := readBytes(t, first, "adapter_model.safetensors")
	for name, out := range map[string]string{
		"run.yaml":     again,
		"ShareGPT":     run("sharegpt", append(base, "--data", shareGPT, "--template-date", date)...),
		"instructions": run("instructions", append(base, "--data", instructions, "--template", "chat", "--template-date", date)...),
	} {
		if readBytes(t, out, "adapter_model.safetensors") != adapter {
			t.Errorf("%s: another adapter than of the messages", name)
		}
	}
	if out := run("yesterday", append(base, "--data", messages, "--template-date", "2024-07-26")...); readBytes(t, out, "adapter_model.safetensors") == adapter {
		t.Error("the template is not told the time that is given")
	}
}

// The first example shows what is learnt of a conversation.
func TestConversationIsShown(t *testing.T) {
	model, _, _, _ := demoModel(t)
	template := writeFile(t, "chat.jinja", chatTemplate)
	rows := writeFile(t, "rows.jsonl", `{"messages":[{"role":"user","content":"a <|end_of_text|>"},{"role":"assistant","content":"first"},{"role":"user","content":"b"},{"role":"assistant","content":"last"}]}`)
	for _, c := range []struct{ flags, want string }{
		{"", "--- read, 37 tokens\n<|begin_of_text|>Today is 26 Jul 2024 00:00:00.\nuser: a <|end_of_text|><|end_of_text|>\nassistant: \n--- learnt, 3 tokens\nfirst<|end_of_text|>\n--- read"},
		{"--no-special-in-text", "--- read, 46 tokens\n<|begin_of_text|>Today is"},
		{"--assistant-turns last", "\nassistant: first<|end_of_text|>\nuser: b<|end_of_text|>\nassistant: \n--- learnt, 3 tokens\nlast<|end_of_text|>\n---"},
		{"--train-on-inputs", "user: b<|end_of_text|>\nassistant: last<|end_of_text|>\n---"},
	} {
		_, stderr := mustExecute(t, append(strings.Fields(c.flags), "--model", model, "--data", rows, "--chat-template", template,
			"--template-date", "2024-07-26", "--max-steps", "1", "--out", filepath.Join(t.TempDir(), "out"))...)
		if !strings.Contains(stderr, c.want) {
			t.Errorf("%s: the example lacks\n%s\nin\n%s", c.flags, c.want, stderr)
		}
	}
}

func TestWrongConversations(t *testing.T) {
	model, messages, _, instructions := demoModel(t)
	template := writeFile(t, "chat.jinja", chatTemplate)
	broken := writeFile(t, "broken.jinja", "{{ bos_token }}\n{% for m in messages %}")
	rows := writeFile(t, "rows.jsonl", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}
{"messages":[{"role":"nurse","content":"a"},{"role":"assistant","content":"b"}]}
{"messages":[{"role":"user","content":"a"}]}
`)
	named := t.TempDir()
	if err := os.CopyFS(named, os.DirFS(model)); err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(readBytes(t, model, "tokenizer_config.json"), "{", `{"chat_template": [{"name": "tool_use", "template": "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"}, {"name": "rag", "template": "x"}],`, 1)
	mustWrite(t, filepath.Join(named, "tokenizer_config.json"), config)
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no template", []string{"--data", messages}, exitFailed, []string{messages + ":1: the row is a conversation: " + model + " has no chat template: give one with --chat-template FILE"}},
		{"no template for instructions", []string{"--data", instructions, "--template", "chat"}, exitFailed, []string{instructions + ":1: the row is a conversation"}},
		{"no default template", []string{"--model", named, "--data", messages}, exitFailed,
			[]string{named + " has no chat template for it: choose one with --chat-template (it has rag, tool_use), or give a file"}},
		{"no such template", []string{"--model", named, "--data", messages, "--chat-template", "tool"}, exitFailed,
			[]string{`chat template "tool" is neither one of the tokenizer's (rag, tool_use) nor a file that can be read`, "no such file"}},
		{"a broken template", []string{"--data", messages, "--chat-template", broken}, exitFailed, []string{broken + ": chat template: line 2"}},
		{"a directory", []string{"--data", messages, "--chat-template", model}, exitFailed, []string{model + " is a directory"}},
		{"bad rows", []string{"--data", rows, "--chat-template", template}, exitFailed,
			[]string{rows + ":2: the chat template refuses the conversation: no nurse here", rows + ":3: no message is the assistant's"}},
		{"no model", []string{"--model", "no-such-model", "--data", messages}, exitFailed, []string{"model: stat ", "no-such-model", "the chat template is the tokenizer's"}},
		{"no conversations", []string{"--data", instructions, "--chat-template", template, "--system-prompt", "x", "--assistant-turns", "last", "--template-date", "2024-07-26"}, exitFailed,
			[]string{"--chat-template (chat_template) is for conversations", "--system-prompt", "--assistant-turns", "--template-date", "--template chat makes conversations of all"}},
		{"no such turns", []string{"--data", messages, "--assistant-turns", "first"}, exitUsage, []string{`--assistant-turns (assistant_turns): "first" is none of all, last`}},
		{"no date", []string{"--data", messages, "--template-date", "26 Jul 2024"}, exitUsage, []string{`--template-date (template_date): "26 Jul 2024" is no date`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append(c.args, "--out", filepath.Join(t.TempDir(), "out"))
			if !strings.Contains(strings.Join(args, " "), "--model") {
				args = append(args, "--model", model)
			}
			code, _, stderr := execute(t, args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("the message lacks %q: %s", w, stderr)
				}
			}
		})
	}
	_, stderr := mustExecute(t, "--model", model, "--data", rows, "--chat-template", template, "--skip-bad-rows", "--max-steps", "1",
		"--out", filepath.Join(t.TempDir(), "out"))
	for _, want := range []string{"3 read", "1 to train on", "2 bad", "no nurse here"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the summary lacks %q: %s", want, stderr)
		}
	}
	_, stderr = mustExecute(t, "--model", named, "--data", messages, "--chat-template", "tool_use", "--max-steps", "1", "--out", filepath.Join(t.TempDir(), "out"))
	if !strings.Contains(stderr, "learnt") {
		t.Error(stderr)
	}
}
