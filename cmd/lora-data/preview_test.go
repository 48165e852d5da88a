package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

func demoModel(t *testing.T) string { return own(t, "demo", "model") }

const threeRows = `{"prompt": "Name a drug: ", "completion": "aspirin"}
{"input_ids": [5, 6, 7], "labels": [-100, 6, -100]}
{"prompt": "The patient was seen in the clinic twice. ", "completion": "Yes"}
`

func rowsFile(t *testing.T, text string) string {
	return filepath.Join(write(t, map[string]string{"rows.jsonl": text}), "rows.jsonl")
}

func TestPreviewText(t *testing.T) {
	data := rowsFile(t, threeRows)
	got := must(t, "", "preview", "--model", demoModel(t), "--data", data, "--max-seq-length", "9")
	want := strings.ReplaceAll(`what is only read is marked, the rest is learnt

row 1, FILE:1: 9 tokens, 3 of them learnt; cut, there were 11
--- read, 6 tokens
<|begin_of_text|>Name a drug:`+" "+`
--- learnt, 3 tokens
aspir
---

row 2, FILE:2: 3 tokens, 1 of them learnt
--- read, 1 tokens
$
--- learnt, 1 tokens
%
--- read, 1 tokens
&
---

row 3, FILE:3: 9 tokens, 0 of them learnt; cut, there were 14; nothing to learn, so it is left out
--- read, 9 tokens
<|begin_of_text|>The patient was seen in the clinic
---
`, "FILE", data)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPreviewChoice(t *testing.T) {
	data := rowsFile(t, threeRows)
	for _, c := range []struct {
		flags string
		want  []string // rows
	}{
		{"", []string{"row 1,", "row 2,", "row 3,"}},
		{"-n 1", []string{"row 1,"}},
		{"--rows 2 --from 2", []string{"row 2,", "row 3,"}},
		{"--row 3", []string{"row 3,"}},
		{"-n 999999999999 --from 3", []string{"row 3,"}},
	} {
		out := must(t, "", append([]string{"preview", "--model", demoModel(t), "--data", data}, strings.Fields(c.flags)...)...)
		var got []string
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "row ") {
				got = append(got, line[:6])
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: rows %q, want %q", c.flags, got, c.want)
		}
	}
}

func TestPreviewErrors(t *testing.T) {
	good, bad := rowsFile(t, threeRows), rowsFile(t, "{\"prompt\": 1, \"completion\": \"x\"}\n{\"prompt\": \"\\u001b[2J\"}\n")
	foreign := rowsFile(t, `{"input_ids": [1, 100000], "labels": [1, 100000]}`)
	for _, c := range []struct {
		name, data, flags string
		code              int
		want              []string
	}{
		{"row beyond the end", good, "--row 4", cli.Failed, []string{good + ": ", "the data set has"}},
		{"bad rows", bad, "", cli.Failed, []string{bad + ":1: ", bad + ":2: "}},
		{"no such data", "no/such", "", cli.Failed, []string{"no/such: no such file"}},
		{"outside the vocabulary", foreign, "", cli.Failed, []string{foreign + ":1: input_ids[1] is 100000, outside the model's vocabulary of"}},
		{"outside the vocabulary, as JSON", foreign, "--json", cli.Failed, []string{foreign + ":1: input_ids[1] is 100000"}},
		{"no such template", good, "--template no/such", cli.Failed, []string{`template "no/such" is neither built in`}},
		{"no such field", good, "--field-prompt question", cli.Failed, []string{"question"}},
		{"none", good, "-n 0", cli.Usage, []string{"-n is 0: want at least 1"}},
		{"negative", good, "--from=-1 --max-seq-length=-2", cli.Usage, []string{"--from is -1", "--max-seq-length is -2"}},
		{"row and range", good, "--row 1 -n 2", cli.Usage, []string{"--row names one row"}},
		{"wrong flag", good, "--max-seq-lenght 3", cli.Usage, []string{`did you mean "--max-seq-length"?`}},
		{"training's flag", good, "--learning-rate 1", cli.Usage, []string{"unknown flag --learning-rate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"preview", "--model", demoModel(t), "--data", c.data}, strings.Fields(c.flags)...)
			code, stdout, stderr := execute(strings.NewReader(""), args...)
			if code != c.code || strings.Contains(stdout, "row 1,") || strings.ContainsRune(stderr, '\x1b') {
				t.Errorf("exit status %d, %q, %q", code, stdout, stderr)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("the message lacks %q: %q", w, stderr)
				}
			}
		})
	}
	if code, _, stderr := execute(strings.NewReader(""), "preview"); code != cli.Usage || !strings.Contains(stderr, "--model") {
		t.Errorf("exit status %d, %q", code, stderr)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, flags := range []string{"", "--json", "--json -n 1"} {
		args := append([]string{"preview", "--model", demoModel(t), "--data", good}, strings.Fields(flags)...)
		if code, _, stderr := executeContext(ctx, nil, args...); code != cli.Interrupted || stderr != "lora-data: interrupted\n" {
			t.Errorf("%s: exit status %d, %q", flags, code, stderr)
		}
	}
}

// The parts of a model that preview does without.
func TestPreviewOfParts(t *testing.T) {
	data := rowsFile(t, threeRows)
	noConfig := write(t, map[string]string{"tokenizer.json": read(t, filepath.Join(demoModel(t), "tokenizer.json"))})
	code, stdout, stderr := execute(nil, "preview", "--model", noConfig, "--data", data)
	if code != cli.Done || !strings.Contains(stdout, "row 3,") || !strings.Contains(stderr, "has no configuration") {
		t.Errorf("without config.json: %d, %q, %q", code, stdout, stderr)
	}
	noTokenizer := write(t, map[string]string{"config.json": read(t, filepath.Join(demoModel(t), "config.json"))})
	code, _, stderr = execute(nil, "preview", "--model", noTokenizer, "--data", data)
	if code != cli.Failed || !strings.Contains(stderr, "no tokenizer.json") {
		t.Errorf("text without a tokenizer: %d, %q", code, stderr)
	}
	tokens := rowsFile(t, `{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}`)
	code, stdout, stderr = execute(nil, "preview", "--model", noTokenizer, "--data", tokens)
	if code != cli.Done || !strings.Contains(stdout, "--- read, 1 tokens\n5\n--- learnt, 2 tokens\n6 7\n---\n") || !strings.Contains(stderr, "has no tokenizer") {
		t.Errorf("tokens without a tokenizer: %d, %q, %q", code, stdout, stderr)
	}
	broken := write(t, map[string]string{"config.json": "{", "tokenizer.json": read(t, filepath.Join(demoModel(t), "tokenizer.json"))})
	code, _, stderr = execute(nil, "preview", "--model", broken, "--data", data)
	if code != cli.Failed || !strings.Contains(stderr, "config.json") {
		t.Errorf("a broken config.json: %d, %q", code, stderr)
	}
}

func TestPreviewSkipsBadRows(t *testing.T) {
	data := rowsFile(t, "{\"prompt\": 1}\n"+threeRows)
	code, stdout, stderr := execute(nil, "preview", "--model", demoModel(t), "--data", data, "--skip-bad-rows", "-n", "1")
	if code != cli.Done || !strings.Contains(stdout, "row 1, "+data+":2: ") || !strings.Contains(stderr, "left out: "+data+":1: ") {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
}

type tokenRow struct {
	InputIDs []int32 `json:"input_ids"`
	Labels   []int32
}

func tokenRows(t *testing.T, text string) (rows []tokenRow) {
	t.Helper()
	for line := range strings.Lines(text) {
		var r tokenRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, r)
	}
	return rows
}

func TestPreviewJSON(t *testing.T) {
	data := rowsFile(t, threeRows)
	tok, err := tokenizer.Load(demoModel(t))
	if err != nil {
		t.Fatal(err)
	}
	bos, _ := tok.BOS()
	eos, _ := tok.EOS()
	prompt, answer := append([]int32{bos}, tok.Encode("Name a drug: ")...), append(tok.EncodeContinuation("aspirin"), eos)
	masked := slices.Repeat([]int32{instruct.Masked}, len(prompt))
	want := []tokenRow{
		{slices.Concat(prompt, answer), slices.Concat(masked, answer)},
		{[]int32{5, 6, 7}, []int32{-100, 6, -100}},
	}
	for _, n := range []string{"1", "2"} {
		got := tokenRows(t, must(t, "", "preview", "--json", "-n", n, "--model", demoModel(t), "--data", data))
		if diff := cmp.Diff(want[:len(got)], got); diff != "" || len(got) != int(n[0]-'0') {
			t.Errorf("-n %s: %s", n, diff)
		}
	}
	all := tokenRows(t, must(t, "", "preview", "--json", "--model", demoModel(t), "--data", data))
	if diff := cmp.Diff(want, all[:2]); diff != "" || len(all) != 3 {
		t.Errorf("all: %s", diff)
	}
	if got := tokenRows(t, must(t, "", "preview", "--json", "-n", "1", "--train-on-inputs", "--model", demoModel(t), "--data", data)); !slices.Equal(got[0].Labels, want[0].InputIDs) {
		t.Errorf("--train-on-inputs: labels %v", got[0].Labels)
	}
	// Rows that the cut leaves nothing of are left out, whether all rows are asked for or some; rows of tokens without
	// any label stay.
	unlabelled := rowsFile(t, threeRows+`{"input_ids": [5, 6], "labels": [5, -100]}`+"\n")
	for _, flags := range []string{"", "-n 4 --from 1", "-n 99"} {
		args := append([]string{"preview", "--json", "--max-seq-length", "3", "--model", demoModel(t), "--data", unlabelled}, strings.Fields(flags)...)
		code, stdout, stderr := execute(nil, args...)
		if code != cli.Done || stdout != "{\"input_ids\":[5,6,7],\"labels\":[-100,6,-100]}\n{\"input_ids\":[5,6],\"labels\":[5,-100]}\n" || !strings.Contains(stderr, "left out") {
			t.Errorf("%s: %d, %q, %q", flags, code, stdout, stderr)
		}
	}
}

// Training on what --json prints is training on the rows it was made of, to the last bit.
func TestPreviewJSONTrainsTheSame(t *testing.T) {
	settings := dataset.Defaults()
	for _, c := range []struct {
		rows  string
		flags []string
		with  func(r *dataset.Rows)
	}{
		{own(t, "demo", "data", "holdout.json"), nil, nil},
		{own(t, "demo", "data", "holdout.json"), []string{"--train-on-inputs", "--max-seq-length", "70"}, func(r *dataset.Rows) { r.TrainOnInputs, r.MaxSeqLength = true, 70 }},
		{rowsFile(t, strings.Repeat(conversation, 5)), []string{"--chat-template", chatTemplate(t), "--assistant-turns", "last"},
			func(r *dataset.Rows) { r.ChatTemplate, r.AssistantTurns = chatTemplate(t), "last" }},
	} {
		r := settings
		if c.with != nil {
			c.with(&r)
		}
		args := append([]string{"preview", "--json", "--model", demoModel(t), "--data", c.rows}, c.flags...)
		code, stdout, stderr := execute(nil, args...)
		if code != cli.Done {
			t.Fatalf("%d, %s", code, stderr)
		}
		if got, want := fit(t, settings, rowsFile(t, stdout)), fit(t, r, c.rows); !cmp.Equal(got, want) {
			t.Errorf("%v: the losses are %v, want %v", c.flags, got, want)
		}
	}
}

const conversation = `{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}, ` +
	`{"role": "user", "content": "A drug?"}, {"role": "assistant", "content": "aspirin"}]}` + "\n"

func chatTemplate(t *testing.T) string {
	return filepath.Join(write(t, map[string]string{
		"chat.jinja": "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}",
	}), "chat.jinja")
}

func TestPreviewConversation(t *testing.T) {
	got := must(t, "", "preview", "--model", demoModel(t), "--data", rowsFile(t, conversation), "--chat-template", chatTemplate(t), "--assistant-turns", "last", "--system-prompt", "Be brief.")
	_, got, _ = strings.Cut(got, "learnt\n--- ")
	want := regexp.MustCompile(`^read, \d+ tokens
\[system\] Be brief\.
\[user\] Hello
\[assistant\] Good day
\[user\] A drug\?
\[assistant\] ?
--- learnt, \d+ tokens
 ?aspirin
---
$`)
	if !want.MatchString(got) {
		t.Errorf("got\n%s", got)
	}
	for flags, want := range map[string]string{
		"": "has no chat template: give one with --chat-template FILE", "--chat-template no/such": `chat template "no/such" is neither`,
	} {
		args := append([]string{"preview", "--model", demoModel(t), "--data", rowsFile(t, conversation)}, strings.Fields(flags)...)
		if code, _, stderr := execute(nil, args...); code != cli.Failed || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %q", flags, code, stderr)
		}
	}
	if code, _, stderr := execute(nil, "preview", "--model", demoModel(t), "--data", rowsFile(t, conversation), "--assistant-turns", "some"); code != cli.Usage || !strings.Contains(stderr, `"some" is none of all, last`) {
		t.Errorf("%d, %q", code, stderr)
	}
}

// fit trains a few steps and returns the loss and the gradient's norm of each.
func fit(t *testing.T, r dataset.Rows, path string) []float64 {
	t.Helper()
	m, err := model.Open(demoModel(t), model.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cfg := lora.Defaults()
	cfg.R = 2
	a, err := lora.Inject(m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.OpenFor(t.Context(), demoModel(t), []string{path})
	if err != nil {
		t.Fatal(err)
	}
	o := train.Defaults()
	r.Options(&o)
	o.MaxSteps, o.PerDeviceTrainBatchSize = 3, 4
	l := &losses{}
	o.Hooks = []train.Hook{l}
	if _, err := train.Run(t.Context(), m, a, data.Tokenizer, data.Rows, o); err != nil {
		t.Fatal(err)
	}
	if len(l.list) != 6 {
		t.Fatalf("%d numbers of 3 steps", len(l.list))
	}
	return l.list
}

// losses gathers the loss and the gradient's norm of each step.
type losses struct {
	train.NopHook
	list []float64
}

func (l *losses) Step(e train.StepEvent) error {
	l.list = append(l.list, e.Loss, e.GradNorm)
	return nil
}

// preview has lora-train's defaults, and says them in its help.
func TestPreviewDefaults(t *testing.T) {
	help := must(t, "", "preview", "--help")
	for name, value := range dataset.Flags() {
		if !strings.Contains(help, "--"+name) {
			t.Errorf("--%s is missing", name)
		}
		if text := strings.Join(strings.Fields(help), " "); name == "template" && !strings.Contains(text, "Default: "+value.(string)) {
			t.Errorf("--%s: the default %v is not in the help", name, value)
		}
	}
}
