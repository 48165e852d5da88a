package instruct

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAlpaca(t *testing.T) {
	const with = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nI\n\n### Input:\nX\n\n### Response:\n"
	const without = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nI\n\n### Response:\n"
	p, r := Alpaca.Render("I", "X", "O")
	if p != with || r != "O" {
		t.Errorf("%q, %q", p, r)
	}
	for _, empty := range []string{"", " ", "N/A", "none\n", "None.", "(None)", "No Input", "none required.", "NA", "no"} {
		want := without
		switch empty {
		case "None.", "NA", "no": // not on the list; na may be sodium
			want = strings.ReplaceAll(with, "X", empty)
		}
		if p, _ := Alpaca.Render("I", empty, "O"); p != want {
			t.Errorf("input %q: %q", empty, p)
		}
	}
	more := Alpaca.WithEmptyInputs(" Nothing ")
	if p := more.Prompt("I", "NOTHING"); p != without {
		t.Errorf("an input that was added to the list: %q", p)
	}
	if p := Alpaca.Prompt("I", "NOTHING"); p == without {
		t.Error("WithEmptyInputs changed the template it was called on")
	}
}

func TestMedTuned(t *testing.T) {
	p, r := MedTuned.Render("I", "none", "O")
	if got, want := p+r, "### Instruction: I\n ### Input: none\n ### Output: O \n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !strings.HasSuffix(p, "### Output:") {
		t.Errorf("the prompt is %q", p)
	}
	// The loss begins after the last "### Output:", wherever it comes from.
	if _, r = MedTuned.Render("### Output:", "### Output:", "a ### Output: b"); r != " b \n" {
		t.Errorf("what is learnt is %q", r)
	}
	if got, want := MedTuned.Prompt("I", "X"), "### Instruction:\nI\n\n### Input:\nX\n\n### Output:\n"; got != want {
		t.Errorf("to generate from: %q, want %q", got, want)
	}
}

// What a row says is not a placeholder.
func TestSinglePass(t *testing.T) {
	p, r := Alpaca.Render("{input} {output}", "{instruction}", "{output} {input}")
	if !strings.Contains(p, "### Instruction:\n{input} {output}\n\n### Input:\n{instruction}\n") || r != "{output} {input}" {
		t.Errorf("%q, %q", p, r)
	}
}

func TestLoadTemplate(t *testing.T) {
	if got, err := LoadTemplate("medtuned"); err != nil || got.PromptInput != MedTuned.PromptInput {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := LoadTemplate("vicuna"); err == nil || !strings.Contains(err.Error(), `template "vicuna" is neither built in (alpaca, medtuned, chat) nor a file`) {
		t.Errorf("%v", err)
	}
	path := filepath.Join(t.TempDir(), "t.yaml")
	text := "prompt_input: \"{{\\\"q\\\": {instruction}}}\\n{input}\\n\"\nprompt_no_input: |\n  Q {instruction}\n  A\nresponse: \" {output}\"\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := LoadTemplate(path)
	if err != nil {
		t.Fatal(err)
	}
	if p, r := got.Render("i", "x", "o"); p != "{{\"q\": i}}\nx\n" || r != " o" {
		t.Errorf("%q, %q", p, r)
	}
	if p, _ := got.Render("i", "N/A", "o"); p != "Q i\nA\n" {
		t.Errorf("%q", p)
	}
}

func TestReadTemplate(t *testing.T) {
	one, err := ReadTemplate("t", strings.NewReader("prompt_input: '{instruction} {input}:'"))
	if err != nil {
		t.Fatal(err)
	}
	if p, r := one.Render("i", "none", "o"); p != "i :" || r != "o" {
		t.Errorf("%q, %q", p, r)
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "prompt_input is missing"},
		{"unknown key", "prompt_input: '{instruction} {input}'\nprompt_noinput: x",
			`template t: line 2: unknown key "prompt_noinput"; it may be inference, prompt_input, prompt_no_input, response`},
		{"key given twice", "response: '{output}'\nresponse: '{output}'", `template t: line 2: malformed YAML: mapping key "response" already defined`},
		{"a list for a text", "prompt_input: [x]\nresponse: {a: b}", "template t: line 1: prompt_input: expected a text, got a list\ntemplate t: line 2: response: expected a text, got a mapping"},
		{"a billion laughs", "a: &a [x, x]\nb: &b [*a, *a]\nprompt_input: *b", "template t: line 1: an anchor (&) is not read here"},
		{"deep", "prompt_input: " + strings.Repeat("[", 60000), "template t: line 1: lists and mappings are nested deeper than 16"},
		{"unknown placeholder", "prompt_input: '{instruction} {input} {context}'", "prompt_input has the placeholder {context}; it may have {instruction}, {input}"},
		{"input where there is none", "prompt_input: '{instruction} {input}'\nprompt_no_input: '{instruction} {input}'", "prompt_no_input has the placeholder {input}"},
		{"the answer in the prompt", "prompt_input: '{instruction} {input} {output}'", "prompt_input has the placeholder {output}"},
		{"no instruction", "prompt_input: '{input}'", "prompt_input lacks the placeholder {instruction}"},
		{"no input", "prompt_input: '{instruction}'", "prompt_input lacks the placeholder {input}"},
		{"no output", "prompt_input: '{instruction} {input}'\nresponse: yes", "response lacks the placeholder {output}"},
		{"a list", "[a, b]", "template t: line 1: expected settings (key: value), got a list"},
		{"not YAML", "a: b: c: {", "template t: line 1: malformed YAML: mapping value is not allowed in this context"},
		{"too long", strings.Repeat("# long\n", 1<<18), "more than"},
	} {
		_, err := ReadTemplate("t", strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
}

func FuzzReadTemplate(f *testing.F) {
	f.Add("prompt_input: '{instruction} {input}'\nprompt_no_input: '{instruction}'\nresponse: '{output}'")
	f.Add("prompt_input: |\n  {instruction}\n  {input}\ninference: &a x\n")
	f.Add("a: *a")
	f.Add("? [")
	f.Fuzz(func(t *testing.T, text string) {
		tmpl, err := ReadTemplate("t", strings.NewReader(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "template t: ") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		p, r := tmpl.Render("\x00I", "\x00X", "\x00O")
		if !strings.Contains(p, "\x00I") || !strings.Contains(p, "\x00X") || !strings.Contains(r, "\x00O") {
			t.Errorf("%+v: %q, %q", tmpl, p, r)
		}
	})
}
