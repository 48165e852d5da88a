package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/train"
)

// execute runs a command line in this process.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = command(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

// mustExecute is execute of what has to end well.
func mustExecute(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := execute(t, args...)
	if code != exitDone {
		t.Fatalf("exit code %d of %s\n%s", code, strings.Join(args, " "), stderr)
	}
	return stdout, stderr
}

// tiny is a checkpoint of a few kilobytes.
func tiny(t testing.TB) string {
	return filepath.Join(golden.Root(t), "testdata", "golden", "linear-theta", "model")
}

// tinyRows is a file of rows for it.
func tinyRows(t testing.TB) string {
	return writeFile(t, "rows.jsonl", `{"instruction": "one", "input": "two", "output": "three"}
{"instruction": "four", "input": "N/A", "output": "five"}
{"instruction": "six", "output": "seven"}
{"input_ids": [1, 5, 6, 7, 2], "labels": [-100, -100, 6, 7, 2]}
`)
}

// events reads events.jsonl, the seconds of its steps set to 0.
func events(t *testing.T, dir string) (steps []train.StepEvent, evals []train.EvalEvent) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var step train.StepEvent
		var eval train.EvalEvent
		var into any = &step
		if strings.Contains(s.Text(), "eval_loss") {
			into = &eval
		}
		d := json.NewDecoder(strings.NewReader(s.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			t.Fatalf("%s: %v", s.Text(), err)
		}
		if into == &eval {
			evals = append(evals, eval)
			continue
		}
		if step.Seconds <= 0 {
			t.Errorf("step %d took %v seconds", step.Step, step.Seconds)
		}
		step.Seconds = 0
		steps = append(steps, step)
	}
	return steps, evals
}

func readBytes(t *testing.T, elem ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// run.yaml repeats a run bit for bit, dropout, shuffling and validation included.
func TestConfigRepeatsARun(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	mustExecute(t, "--model", tiny(t), "--data", tinyRows(t), "--data", tinyRows(t), "--out", first, "--max-steps", "7",
		"--per-device-train-batch-size", "2", "--lora-dropout", "0.3", "--target-modules", `regex:.*\.(q|o)_proj`,
		"--rank-pattern", "o_proj=3", "--val-set-size", "2", "--eval-steps", "3", "--seed", "7", "--learning-rate", "1e-2",
		"--empty-input", "two", "--preset", "alpaca-lora", "--load-best-model-at-end", "--threads", "1")
	t.Chdir(t.TempDir())
	mustExecute(t, "--config", filepath.Join(first, runName), "--out", second)
	steps1, evals1 := events(t, first)
	steps2, evals2 := events(t, second)
	if diff := cmp.Diff(steps1, steps2); diff != "" || len(steps1) != 7 {
		t.Errorf("%d steps; %s", len(steps1), diff)
	}
	if diff := cmp.Diff(evals1, evals2); diff != "" || len(evals1) < 3 {
		t.Errorf("%d evaluations; %s", len(evals1), diff)
	}
	for _, name := range append([]string{runName}, adapterNames...) {
		if diff := cmp.Diff(readBytes(t, first, name), readBytes(t, second, name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Neither the number of threads nor what is kept for the backward pass changes a bit of the adapter.
func TestMachineSettingsChangeNothing(t *testing.T) {
	rows := tinyRows(t)
	var first string
	for _, machine := range []string{"--threads 1 --activation-policy all", "--threads 3 --activation-policy all", "--threads 2 --activation-policy none"} {
		out := filepath.Join(t.TempDir(), "out")
		mustExecute(t, append(strings.Fields(machine), "--model", tiny(t), "--data", rows, "--out", out, "--max-steps", "4",
			"--lora-dropout", "0.2", "--target-modules", "all-linear", "--learning-rate", "0.01")...)
		adapter := readBytes(t, out, "adapter_model.safetensors")
		if first == "" {
			first = adapter
		}
		if adapter != first {
			t.Errorf("%s gives another adapter", machine)
		}
	}
}

func TestRunsAreNumbered(t *testing.T) {
	model, rows := tiny(t), tinyRows(t)
	t.Chdir(t.TempDir())
	for n := 1; n <= 2; n++ {
		stdout, _ := mustExecute(t, "--model", model, "--data", rows, "--max-steps", "1")
		dir := filepath.Join("lora-out", strconv.Itoa(n))
		if !strings.Contains(stdout, dir) || !exists(filepath.Join(dir, "adapter_model.safetensors")) {
			t.Errorf("run %d does not say that it lies in %s:\n%s", n, dir, stdout)
		}
	}
}

func TestOverwrite(t *testing.T) {
	out := t.TempDir()
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "2"}
	mustExecute(t, args...)
	if list := readBytes(t, out, manifestName); strings.Contains(list, "best/") || !strings.Contains(list, "\nevents.jsonl\n") {
		t.Errorf("the list of files is\n%s", list)
	}
	mustWrite(t, filepath.Join(out, "notes.txt"), "mine")
	code, _, stderr := execute(t, args...)
	if code != exitFailed || !strings.Contains(stderr, "not empty") || !strings.Contains(stderr, "--overwrite") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	mustExecute(t, append(args, "--overwrite", "--max-steps", "3")...)
	if steps, _ := events(t, out); len(steps) != 3 {
		t.Errorf("%d steps in events.jsonl, want those of the second run", len(steps))
	}
	if readBytes(t, out, "notes.txt") != "mine" {
		t.Error("a foreign file changed")
	}
	adapter := readBytes(t, out, "adapter_model.safetensors")
	masked := writeFile(t, "masked.jsonl", `{"input_ids": [1, 2], "labels": [-100, -100]}`)
	if code, _, _ = execute(t, "--model", tiny(t), "--data", masked, "--out", out, "--overwrite"); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if steps, _ := events(t, out); len(steps) != 3 || readBytes(t, out, "adapter_model.safetensors") != adapter {
		t.Error("a run that failed before its first step took the output of the last one")
	}
	code, _, stderr = execute(t, append(args, "--overwrite", "--adapter", out)...)
	if code != exitFailed || !strings.Contains(stderr, "is read by this run") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestStartFromAnAdapter(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	base := []string{"--model", tiny(t), "--data", tinyRows(t), "--max-steps", "2", "--learning-rate", "0.01"}
	mustExecute(t, append(base, "--out", first, "--lora-r", "4", "--target-modules", "k_proj,o_proj", "--lora-alpha", "6")...)
	_, stderr := mustExecute(t, append(base, "--out", second, "--adapter", first, "--lora-dropout", "0.5", "--lora-r", "4")...)
	if !strings.Contains(stderr, "starts from "+first) {
		t.Errorf("the summary does not name the adapter:\n%s", stderr)
	}
	var config struct {
		R       int      `json:"r"`
		Alpha   float64  `json:"lora_alpha"`
		Dropout float64  `json:"lora_dropout"`
		Targets []string `json:"target_modules"`
	}
	if err := json.Unmarshal([]byte(readBytes(t, second, "adapter_config.json")), &config); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(config); got != "{4 6 0.5 [k_proj o_proj]}" {
		t.Errorf("the configuration is %s", got)
	}
	if readBytes(t, first, "adapter_model.safetensors") == readBytes(t, second, "adapter_model.safetensors") {
		t.Error("nothing was learnt")
	}
	code, _, stderr := execute(t, append(base, "--out", dir+"/3", "--adapter", first, "--lora-r", "8", "--lora-alpha", "16")...)
	for _, want := range []string{"--lora-r (lora_r) is 8", "has 4", "is 16", "has 6"} {
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, want %q in: %s", code, want, stderr)
		}
	}
	third := filepath.Join(dir, "4")
	mustExecute(t, "--config", filepath.Join(second, runName), "--out", third)
	if readBytes(t, third, "adapter_model.safetensors") != readBytes(t, second, "adapter_model.safetensors") {
		t.Error("run.yaml of a run from an adapter does not repeat it")
	}
}

func TestRowsAreCounted(t *testing.T) {
	data := writeFile(t, "rows.jsonl", `{"question": "one", "context": "", "answer": "two"}
{"question": "three"}
not json
`)
	args := []string{"--model", tiny(t), "--data", data, "--field-instruction", "question", "--field-input", "context",
		"--field-output", "answer", "--max-steps", "1", "--out", filepath.Join(t.TempDir(), "out")}
	code, _, stderr := execute(t, args...)
	for _, want := range []string{"rows.jsonl:2", "answer", "rows.jsonl:3"} {
		if code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, want %q in: %s", code, want, stderr)
		}
	}
	_, stderr = mustExecute(t, append(args, "--skip-bad-rows")...)
	log := readBytes(t, args[len(args)-1], logName)
	for _, want := range []string{"3 read", "1 to train on", "2 bad", "left out: ", "rows.jsonl:3"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("want %q in: %s", want, stderr)
		}
		if !strings.Contains(log, want) {
			t.Errorf("want %q in %s: %s", want, logName, log)
		}
	}
}

func TestTemplateFile(t *testing.T) {
	template := writeFile(t, "t.yaml", "prompt_input: \"Q: {instruction} ({input}) \"\nresponse: \"A: {output}\"\n")
	rows := writeFile(t, "rows.jsonl", `{"instruction": "I", "input": "D", "output": "O"}`)
	_, stderr := mustExecute(t, "--model", tiny(t), "--data", rows, "--template", template, "--no-shuffle",
		"--max-steps", "1", "--out", filepath.Join(t.TempDir(), "out"))
	for _, want := range []string{"Q: I (D)", "A: O"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the first example lacks %q:\n%s", want, stderr)
		}
	}
}

// Rows of token ids need no tokenizer.
func TestTokensWithoutATokenizer(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		mustWrite(t, filepath.Join(dir, name), readBytes(t, tiny(t), name))
	}
	rows := writeFile(t, "rows.jsonl", `{"input_ids": [1, 5, 6], "labels": [-100, 5, 6]}`)
	_, stderr := mustExecute(t, "--model", dir, "--data", rows, "--max-steps", "1", "--out", filepath.Join(t.TempDir(), "out"))
	if !strings.Contains(stderr, "no tokenizer") {
		t.Errorf("no warning:\n%s", stderr)
	}
}

func TestWrongInputs(t *testing.T) {
	model, rows := tiny(t), tinyRows(t)
	copyOf := func(change func(dir string)) string {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(model)); err != nil {
			t.Fatal(err)
		}
		change(dir)
		return dir
	}
	edit := func(dir, name, from, to string) {
		text := readBytes(t, dir, name)
		if !strings.Contains(text, from) {
			t.Fatalf("%s lacks %q", name, from)
		}
		mustWrite(t, filepath.Join(dir, name), strings.ReplaceAll(text, from, to))
	}
	cut := copyOf(func(dir string) {
		path := filepath.Join(dir, "model.safetensors")
		mustWrite(t, path, readBytes(t, path)[:3000])
	})
	shape := copyOf(func(dir string) { edit(dir, "config.json", `"vocab_size": `, `"vocab_size": 1`) })
	nan := copyOf(func(dir string) {
		path := filepath.Join(dir, "model.safetensors")
		text := readBytes(t, path)
		mustWrite(t, path, text[:len(text)-2]+"\xc0\x7f") // bfloat16, little-endian
	})
	other := copyOf(func(dir string) { edit(dir, "config.json", "LlamaForCausalLM", "GPT2LMHeadModel") })
	noWeights := copyOf(func(dir string) { os.Remove(filepath.Join(dir, "model.safetensors")) })
	noTokenizer := copyOf(func(dir string) { os.Remove(filepath.Join(dir, "tokenizer.json")) })
	masked := writeFile(t, "masked.jsonl", `{"input_ids": [1, 2], "labels": [-100, -100]}`+"\n")
	outside := writeFile(t, "outside.jsonl", `{"input_ids": [1, 99999], "labels": [1, 99999]}`+"\n")
	broken := writeFile(t, "broken.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": \n")
	empty := writeFile(t, "empty.jsonl", "")
	config := writeFile(t, "run.yaml", "model: "+model+"\ndata: "+rows+"\nlearning_rte: 1\nmax_steps: many\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no model", []string{"--model", "no-such-model"}, exitFailed, []string{"no-such-model"}},
		{"a file as model", []string{"--model", rows}, exitFailed, []string{rows, "name the directory"}},
		{"model and data", []string{"--model", "no-such-model", "--data", "no-such-data"}, exitFailed,
			[]string{"no-such-model", "no-such-data"}},
		{"no such data", []string{"--data", "no-such-data"}, exitFailed, []string{"no-such-data"}},
		{"a directory as data", []string{"--data", model}, exitFailed, []string{model, "directory"}},
		{"empty data", []string{"--data", empty}, exitFailed, []string{empty}},
		{"broken line", []string{"--data", broken}, exitFailed, []string{"broken.jsonl:2"}},
		{"two problems", []string{"--data", broken, "--target-modules", "c_attn"}, exitFailed, []string{"broken.jsonl:2", "c_attn", "q_proj"}},
		{"every label masked", []string{"--data", masked}, exitFailed, []string{"masked.jsonl", "label"}},
		{"id outside", []string{"--data", outside}, exitFailed, []string{"outside.jsonl", "99999"}},
		{"missing shard", []string{"--model", noWeights}, exitFailed, []string{noWeights}},
		{"truncated weights", []string{"--model", cut}, exitFailed, []string{"model.safetensors", "holds 888", "cut off"}},
		{"wrong shape", []string{"--model", shape}, exitFailed, []string{"embed_tokens", "shape"}},
		{"not a number", []string{"--model", nan}, exitFailed, []string{"step 1", "NaN", "weight"}},
		{"other architecture", []string{"--model", other}, exitFailed, []string{"GPT2LMHeadModel"}},
		{"text without a tokenizer", []string{"--model", noTokenizer}, exitFailed, []string{"tokenizer.json"}},
		{"no such target", []string{"--target-modules", "c_attn"}, exitFailed, []string{"c_attn", "q_proj", "down_proj"}},
		{"wrong adapter", []string{"--adapter", model}, exitFailed, []string{"adapter_config.json"}},
		{"no such template", []string{"--template", "alpacca"}, exitFailed, []string{"alpacca", "alpaca"}},
		{"no such adapter", []string{"--adapter", "no-such-adapter"}, exitFailed, []string{"no-such-adapter"}},
		{"output is a file", []string{"--out", rows}, exitFailed, []string{rows}},
		{"output below a file", []string{"--out", filepath.Join(rows, "x")}, exitFailed, []string{rows}},
		{"wrong configuration", []string{"--config", config}, exitFailed,
			[]string{config + ":3", "learning_rte", "did you mean learning_rate?", config + ":4: max_steps", "many"}},
		{"no configuration", []string{"--config", "no-such.yaml"}, exitFailed, []string{"no-such.yaml"}},
		{"unknown flag", []string{"--learning-rte", "1"}, exitUsage, []string{"--learning-rte", "--learning-rate"}},
		{"no learning rate", []string{"--learning-rate", "0"}, exitUsage, []string{"learning"}},
		{"no batch", []string{"--per-device-train-batch-size", "0"}, exitUsage, []string{"--per-device-train-batch-size is 0"}},
		{"no such card", []string{"--device", "cuda:4000"}, exitFailed, []string{"device cuda:4000", "CUDA is not available", "device cpu"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			work := t.TempDir()
			t.Chdir(work)
			args := []string{"--max-steps", "1"}
			for flag, value := range map[string]string{"--model": model, "--data": rows, "--out": "out"} {
				if !strings.Contains(strings.Join(c.args, " ")+" ", flag+" ") {
					args = append(args, flag, value)
				}
			}
			code, stdout, stderr := execute(t, append(args, c.args...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("the message lacks %q: %s", w, stderr)
				}
			}
			if stdout != "" {
				t.Errorf("a failed run says %q", stdout)
			}
			if left, _ := os.ReadDir(work); len(left) > 0 {
				t.Errorf("a failed run leaves %v", left)
			}
		})
	}
}

func TestInterruptedBeforeTheFirstStep(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	out := filepath.Join(t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	if code := command(ctx, []string{"--model", tiny(t), "--data", tinyRows(t), "--out", out}, &stdout, &stderr); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	if exists(out) {
		t.Error("an output directory is left with nothing in it")
	}
}
