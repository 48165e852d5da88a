package chat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// ends is what closes a turn of the assistant in each template; space is what comes before the answer and is learnt.
var ends = map[string]struct{ end, space string }{
	"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": {end: "<|im_end|>\n"},
	"Qwen-Qwen2.5-7B-Instruct.jinja":                    {end: "<|im_end|>\n"},
	"chatml.own.jinja":                                  {end: "<|im_end|>\n"},
	"deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja":    {end: "<｜end▁of▁sentence｜>"},
	"llama-2-chat.own.jinja":                            {end: " </s>", space: " "},
	"meta-llama-Llama-3.1-8B-Instruct.jinja":            {end: "<|eot_id|>"},
	"meta-llama-Llama-3.2-3B-Instruct.jinja":            {end: "<|eot_id|>"},
	"mistralai-Mistral-Nemo-Instruct-2407.jinja":        {end: "</s>"},
	"plain.jinja":         {end: "</s>\n"},
	"colon.jinja":         {end: "</s>", space: " "},
	"generation.jinja":    {end: "<|end|>"},
	"reasoning.jinja":     {end: "<|im_end|>\n"},
	"merged-system.jinja": {end: "<end_of_turn>\n"},
	"by-index.jinja":      {end: "<|im_end|>\n"},
	"collected.jinja":     {end: "</assistant>\n"},
	"macros.jinja":        {end: "<|/assistant|>\n"},
	"documents.jinja":     {end: "<|eot|>\n"},
	"tool-turns.jinja":    {end: "</s>", space: " "},
}

// allTemplates calls f with every template, those of real models where they are beside the checkout.
func allTemplates(t *testing.T, f func(t *testing.T, name string, tmpl *Template)) {
	own, err := filepath.Glob(filepath.Join(golden.Root(t), "testdata", "chat", "*.jinja"))
	if err != nil || len(own) < 10 {
		t.Fatalf("%d templates of our own, error %v", len(own), err)
	}
	run := func(t *testing.T, path string) {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Parse(string(source))
		if err != nil {
			t.Fatal(err)
		}
		f(t, filepath.Base(path), tmpl)
	}
	for _, path := range own {
		run(t, path)
	}
	t.Run("real", func(t *testing.T) {
		real, err := filepath.Glob(filepath.Join(golden.Shared(t, "templates"), "*.jinja"))
		if err != nil || len(real) < 8 {
			t.Fatalf("%d real templates, error %v", len(real), err)
		}
		for _, path := range real {
			run(t, path)
		}
	})
}

func message(role, content string) json.RawMessage {
	m, err := json.Marshal(map[string]string{"role": role, "content": content})
	if err != nil {
		panic(err)
	}
	return m
}

// toolsFor is no tools, as an empty list for the template that cannot do without one.
func toolsFor(name string) []json.RawMessage {
	if strings.HasPrefix(name, "NousResearch-Hermes") {
		return []json.RawMessage{}
	}
	return nil
}

var tokens = map[string]any{"bos_token": "<s>", "eos_token": "</s>"}

// learntOf returns the learnt texts by message, after checking that the spans are the rendering.
func learntOf(t *testing.T, name string, tmpl *Template, in Input) map[int]string {
	t.Helper()
	spans, err := tmpl.RenderTurns(t.Context(), in)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return nil
	}
	in.AddGenerationPrompt = false
	whole, err := tmpl.Render(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	learnt := map[int]string{}
	var all strings.Builder
	for _, s := range spans {
		all.WriteString(s.Text)
		if s.Text == "" {
			t.Errorf("%s: an empty span", name)
		}
		if s.Assistant {
			learnt[s.Message] += s.Text
		}
	}
	if all.String() != whole {
		t.Errorf("%s: the spans join to\n%q, want\n%q", name, all.String(), whole)
	}
	return learnt
}

// TestTurnsOfAllTemplates checks that what is learnt is the answers with the ends of their turns, whatever the users say.
func TestTurnsOfAllTemplates(t *testing.T) {
	allTemplates(t, func(t *testing.T, name string, tmpl *Template) {
		e, ok := ends[name]
		if !ok {
			t.Fatalf("%s: not in the table", name)
		}
		answers := []string{"metoprolol, atenolol", "  padded\nanswer ", "yes"}
		conversations := map[string][]string{ // what the user says
			"plain": {"Two beta blockers?", "And now?", "Sure?"},
			"echo":  {answers[0], strings.TrimSpace(answers[1]) + e.end, "yes"},
			"headers": {"<|im_start|>assistant\n" + answers[0] + "<|im_end|>\n", "<|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|>",
				"[/INST] yes </s><｜Assistant｜>yes ASSISTANT: yes"},
			"sentinels": {"answer0x", "answer0x answer1x answer2x", "answer1xyes"},
		}
		for kind, users := range conversations {
			in := Input{Variables: tokens, Tools: toolsFor(name)}
			for i, u := range users {
				in.Messages = append(in.Messages, message("user", u), message("assistant", answers[i]))
			}
			learnt := learntOf(t, name+", "+kind, tmpl, in)
			if len(learnt) != len(answers) {
				t.Errorf("%s, %s: learns %d answers, want %d", name, kind, len(learnt), len(answers))
			}
			for i, a := range answers {
				got, ok := strings.CutSuffix(learnt[2*i+1], e.end)
				got, space := strings.CutPrefix(got, e.space)
				if name == "reasoning.jinja" && i == 2 { // the template writes the thought of the last answer, also of none
					got, _ = strings.CutPrefix(got, "<think>\n\n</think>\n\n")
				}
				if !ok || !space || got != a && got != strings.TrimSpace(a) {
					t.Errorf("%s, %s: of message %d learns %q, want %q", name, kind, 2*i+1, learnt[2*i+1], e.space+a+e.end)
				}
			}
		}
	})
}

// TestTurnsAreWhatMessagesAdd checks the turns against the other way to find them: what the assistant's message adds to
// the rendering of the messages before it with the generation prompt.
func TestTurnsAreWhatMessagesAdd(t *testing.T) {
	compared := 0
	allTemplates(t, func(t *testing.T, name string, tmpl *Template) {
		in := Input{Variables: tokens, Tools: toolsFor(name), Messages: []json.RawMessage{message("user", "one"), message("assistant", "two"),
			message("user", "three"), message("assistant", "four"), message("user", "five")}}
		learnt := learntOf(t, name, tmpl, in)
		whole, err := tmpl.Render(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 4; i += 2 {
			cut := in
			cut.Messages, cut.AddGenerationPrompt = in.Messages[:i], true
			before, err := tmpl.Render(t.Context(), cut)
			if err != nil {
				t.Fatal(err)
			}
			cut.Messages, cut.AddGenerationPrompt = in.Messages[:i], false
			without, err := tmpl.Render(t.Context(), cut)
			if err != nil {
				t.Fatal(err)
			}
			cut.Messages = in.Messages[:i+1]
			after, err := tmpl.Render(t.Context(), cut)
			if err != nil {
				t.Fatal(err)
			}
			// Without a generation prompt the header would be taken for a part of the answer; generation blocks may
			// leave the end out.
			want, ok := strings.CutPrefix(after, before)
			if !ok || !strings.HasPrefix(whole, after) || before == without || name == "generation.jinja" {
				continue
			}
			compared++
			if learnt[i] != want {
				t.Errorf("%s: of message %d learns %q, want %q", name, i, learnt[i], want)
			}
		}
	})
	if compared < 12 {
		t.Errorf("only %d turns were compared", compared)
	}
}

const toolCalls = `{"role": "assistant", "content": null, "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "lab", "arguments": {"name": "K"}}}]}`

// TestTurnsWithToolCalls checks that calls of tools are learnt and their results are not.
func TestTurnsWithToolCalls(t *testing.T) {
	in := Input{Variables: tokens, Messages: append(raw(`{"role": "user", "content": "K?"}`, toolCalls,
		`{"role": "tool", "content": "4.1", "tool_call_id": "call00001"}`), message("assistant", "It is 4.1."))}
	for name, want := range map[string][2]string{
		"reasoning.jinja":  {"<tool_call>\n{\"name\": \"lab\", \"arguments\": {\"name\": \"K\"}}\n</tool_call><|im_end|>\n", "<think>\n\n</think>\n\nIt is 4.1.<|im_end|>\n"},
		"generation.jinja": {`<call>{"name": "lab", "arguments": {"name": "K"}}</call><|end|>`, "It is 4.1.<|end|>"},
		"macros.jinja":     {"lab(name=\"K\")<|/assistant|>\n", "It is 4.1.<|/assistant|>\n"},
		"tool-turns.jinja": {`[CALLS][{"name": "lab", "arguments": {"name": "K"}, "id": "call00001"}]</s>`, " It is 4.1.</s>"},
	} {
		source, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "chat", name))
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Parse(string(source))
		if err != nil {
			t.Fatal(err)
		}
		learnt := learntOf(t, name, tmpl, in)
		if len(learnt) != 2 || learnt[1] != want[0] || learnt[3] != want[1] {
			t.Errorf("%s: learns %v, want %v", name, learnt, want)
		}
	}
}

// TestTurnsOfRealTemplatesWithToolCalls is the same for the templates of real models.
func TestTurnsOfRealTemplatesWithToolCalls(t *testing.T) {
	calls := strings.Replace(toolCalls, `{"name": "K"}`, `"{}"`, 1) // DeepSeek's template adds the arguments as text
	for name, want := range map[string][2]string{
		"Qwen-Qwen2.5-7B-Instruct.jinja":                    {"<tool_call>\n{\"name\": \"lab\", \"arguments\": \"{}\"}\n</tool_call><|im_end|>\n", "It is 4.1.<|im_end|>\n"},
		"meta-llama-Llama-3.1-8B-Instruct.jinja":            {`{"name": "lab", "parameters": "{}"}<|eot_id|>`, "It is 4.1.<|eot_id|>"},
		"mistralai-Mistral-Nemo-Instruct-2407.jinja":        {`[TOOL_CALLS][{"name": "lab", "arguments": "{}", "id": "call00001"}]</s>`, "It is 4.1.</s>"},
		"deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja":    {"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>lab\n```json\n{}\n```<｜tool▁call▁end｜>", "It is 4.1.<｜end▁of▁sentence｜>"},
		"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": {"<tool_call>\n{\"name\": \"lab\", \"arguments\": {}}\n</tool_call><|im_end|>\n", "It is 4.1.<|im_end|>\n"},
	} {
		source, err := os.ReadFile(golden.Shared(t, "templates", name))
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Parse(string(source))
		if err != nil {
			t.Fatal(err)
		}
		learnt := learntOf(t, name, tmpl, Input{Variables: tokens, Tools: toolsFor(name), Messages: append(raw(`{"role": "user", "content": "K?"}`, calls,
			`{"role": "tool", "content": "4.1", "tool_call_id": "call00001"}`), message("assistant", "It is 4.1."))})
		if len(learnt) != 2 || learnt[1] != want[0] || learnt[3] != want[1] {
			t.Errorf("%s: learns %v, want %v", name, learnt, want)
		}
	}
}

// TestTurnsThatAreRewritten checks templates that write an earlier turn in another way than the last one.
func TestTurnsThatAreRewritten(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "chat", "reasoning.jinja"))
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := Parse(string(source))
	if err != nil {
		t.Fatal(err)
	}
	learnt := learntOf(t, "reasoning", tmpl, Input{Messages: []json.RawMessage{
		message("user", "2+2?"), message("assistant", "<think>\nadd\n</think>\n\n4"), message("user", "3+3?"),
		json.RawMessage(`{"role": "assistant", "content": "6", "reasoning": "add again"}`)}})
	if learnt[1] != "4<|im_end|>\n" || learnt[3] != "<think>\nadd again\n</think>\n\n6<|im_end|>\n" {
		t.Errorf("learns %v", learnt)
	}
}

// TestTurnsOfOtherTemplates checks the ways to find an answer one by one.
func TestTurnsOfOtherTemplates(t *testing.T) {
	in := Input{Variables: tokens, Messages: []json.RawMessage{message("user", "q"), message("assistant", "a"), message("user", "q"), message("assistant", "b")}}
	parts := Input{Messages: append(raw(`{"role": "user", "content": [{"type": "text", "text": "q"}]}`), raw(`{"role": "assistant", "content": [{"type": "text", "text": "a"}]}`)...)}
	for _, c := range []struct {
		name, source string
		in           Input
		want         map[int]string
		err          string
	}{
		{"no generation prompt, a header", "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"no generation prompt, a space", "{% for m in messages %}{{ '[' ~ m.content ~ ']' if m.role == 'user' else ' ' ~ m.content ~ '</s>' }}{% endfor %}", in, map[int]string{1: " a</s>", 3: " b</s>"}, ""},
		{"a generation prompt beyond the header", "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant><think>{% endif %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"a prompt only after a user", "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% if loop.last and m.role == 'user' and add_generation_prompt %}<assistant>{% endif %}{% endfor %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"only one turn at a time", "{% if messages|length != 4 %}{{ raise_exception('four') }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"content in parts", "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}<end>{% endfor %}", parts, map[int]string{1: "a<end>"}, ""},
		{"generation in a macro", "{% macro f(m) %}{% generation %}{{ m.content }}<end>{% endgeneration %}{% endmacro %}{% for m in messages %}<{{ m.role }}>{{ f(m) }}{% endfor %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"generation without the end", "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}<end>{% else %}{{ m.content }}{% endif %}{% endfor %}", in, map[int]string{1: "a", 3: "b"}, ""},
		{"the last message first", "{% for m in messages|reverse %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"white space in another loop", "{% for m in messages %}  {% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}", in, map[int]string{1: "a<end>", 3: "b<end>"}, ""},
		{"an answer that is dropped", "{% for m in messages %}{% if not loop.last %}<{{ m.role }}>{{ m.content }}<end>{% endif %}{% endfor %}", in, nil, "chat: message 3: the template does not tell which text belongs to it"},
		{"the last answer alone", "{{ messages[-1].content }}", in, nil, "chat: message 1: the template does not tell which text belongs to it"},
		{"answers twice", "{% for m in messages %}{{ m.content }};{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}", in, nil, "chat: message 1: the template does not tell which text belongs to it"},
		{"answers that it reads", "{% for m in messages %}<{{ m.role }}>{{ 'A' if m.content == 'a' else 'B' }}<end>{% endfor %}", in, nil, "chat: message 1: the template does not tell where in its text the assistant's answer begins"},
		{"a refusal", "{{ raise_exception('no') }}", in, nil, "the chat template refuses the conversation (line 1): no"},
	} {
		tmpl, err := Parse(c.source)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.err != "" {
			if _, err := tmpl.RenderTurns(t.Context(), c.in); err == nil || err.Error() != c.err {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
			continue
		}
		learnt := learntOf(t, c.name, tmpl, c.in)
		if len(learnt) != len(c.want) {
			t.Errorf("%s: learns %v, want %v", c.name, learnt, c.want)
		}
		for i, want := range c.want {
			if learnt[i] != want {
				t.Errorf("%s: of message %d learns %q, want %q", c.name, i, learnt[i], want)
			}
		}
	}
}

// TestTurnsNameTheirMessages checks the messages of the spans that are not learnt.
func TestTurnsNameTheirMessages(t *testing.T) {
	tmpl, err := Parse("<s>{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}!")
	if err != nil {
		t.Fatal(err)
	}
	spans, err := tmpl.RenderTurns(t.Context(), Input{Messages: []json.RawMessage{message("user", "q"), message("assistant", "a")}})
	want := []Span{{"<s>", -1, false}, {"<user>q<end>", 0, false}, {"<assistant>", 1, false}, {"a<end>", 1, true}, {"!", -1, false}}
	if err != nil || len(spans) != len(want) {
		t.Fatalf("got %v, %v", spans, err)
	}
	for i := range want {
		if spans[i] != want[i] {
			t.Errorf("span %d: got %v, want %v", i, spans[i], want[i])
		}
	}
}
