package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/backend/cuda/emu"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/testdata/demo"
)

// asCommand makes the test's binary the command itself, for tests that kill it.
const asCommand = "LORA_EVAL_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

// child is the command as a process of its own.
func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe, args...)
	c.Env = append(os.Environ(), asCommand+"=1")
	return c
}

func execute(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = program.Run(context.Background(), &commandLine{}, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := execute(args...)
	if code != cli.Done {
		t.Fatalf("%s: exit status %d, %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// setUp returns the demo's model, and --task for a task of the user's over the demo's held-out rows, many times.
func setUp(t *testing.T, times int) (dir, task string) {
	t.Helper()
	dir, _, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), demo.Holdout))
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for n := range times {
		for i, r := range rows {
			r["id"], r["split"] = fmt.Sprintf("%d-%d", n, i), "test"
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	yaml := write(t, "answers.yaml", "category: other\nmetrics: [rougeL, exact_match]\nparser: text\nmax_new_tokens: 24\ninstructions: [Answer.]\n")
	return dir, yaml + "=" + write(t, "rows.jsonl", b.String())
}

// A run that is killed in the middle goes on to what it would have come to.
func TestKilled(t *testing.T) {
	dir, task := setUp(t, 6)
	args := func(out string) []string {
		return []string{"run", "--model", dir, "--task", task, "--batch-size", "3", "--resamples", "100", "--out", out}
	}
	whole := filepath.Join(t.TempDir(), "whole")
	must(t, args(whole)...)
	out := filepath.Join(t.TempDir(), "out")
	cmd := child(t, args(out)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	predictions := filepath.Join(out, "predictions.jsonl")
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if info, err := os.Stat(predictions); err == nil && info.Size() > 2000 {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if _, err := os.Stat(filepath.Join(out, eval.ResultsFile)); err == nil {
		t.Fatal("it was done before it was killed")
	}
	part, err := os.ReadFile(predictions)
	if err != nil || len(part) == 0 {
		t.Fatal("there are no answers", err)
	}
	_, _, stderr := execute(args(out)...)
	if !strings.Contains(stderr, " answers are there already") {
		t.Errorf("it says nothing of what is there: %s", stderr)
	}
	for _, name := range []string{"predictions.jsonl", "run.json", eval.ResultsFile, eval.ReportFile} {
		want, err := os.ReadFile(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}

func TestInterrupted(t *testing.T) {
	dir, task := setUp(t, 12)
	out := filepath.Join(t.TempDir(), "out")
	cmd := child(t, "run", "--model", dir, "--task", task, "--batch-size", "1", "--out", out)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if info, err := os.Stat(filepath.Join(out, "predictions.jsonl")); err == nil && info.Size() > 0 {
			break
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != cli.Interrupted || !strings.Contains(stderr.String(), "interrupted; the answers so far are kept") {
		t.Errorf("exit status %d: %s", code, &stderr)
	}
}

func TestTable(t *testing.T) {
	dir, task := setUp(t, 1)
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"run", "--task", task, "--limit", "5", "--resamples", "100"}
	first := must(t, append(slices.Clone(args), "--model", dir, "--out", out)...)
	lines := strings.Split(first, "\n")
	if lines[0] != "answers (other), test, 5 of 50 rows, seed 42, 95 % intervals" || !strings.HasPrefix(lines[1], "  system  rougeL ") || !strings.HasPrefix(lines[2], "  model   ") {
		t.Errorf("%s", first)
	}
	// The answers that there are get the same table, but for what is said of a model.
	again := must(t, append(slices.Clone(args), "--predictions", filepath.Join(out, "predictions.jsonl"), "--out", filepath.Join(t.TempDir(), "again"))...)
	if got := strings.Split(again, "\n"); !slices.Equal(got[:3], lines[:3]) {
		t.Errorf("%s\n%s", first, again)
	}
	// Two runs of one model, as with two templates, are two systems under names of their own.
	answers := contents(t, filepath.Join(out, "predictions.jsonl"))
	other := filepath.Join(t.TempDir(), "a=b.jsonl")
	if err := os.WriteFile(other, answers, 0o666); err != nil {
		t.Fatal(err)
	}
	both := func(first, second string) []string {
		return append(slices.Clone(args), "--predictions", first, "--predictions", second, "--out", filepath.Join(t.TempDir(), "both"))
	}
	table := must(t, both("one="+filepath.Join(out, "predictions.jsonl"), "two="+other)...)
	if lines := strings.Split(table, "\n"); !strings.HasPrefix(lines[2], "  one ") || !strings.HasPrefix(lines[3], "  two ") || !strings.Contains(table, "two - one: +0.0") {
		t.Errorf("%s", table)
	}
	if code, _, stderr := execute(both("one="+filepath.Join(out, "predictions.jsonl"), other)...); code != cli.Done {
		t.Errorf("%d: %s", code, stderr)
	}
	if code, _, stderr := execute(both(filepath.Join(out, "predictions.jsonl"), other)...); code != cli.Failed || !strings.Contains(stderr, `a second answer of "model"`) {
		t.Errorf("%d: %s", code, stderr)
	}
}

func TestUsage(t *testing.T) {
	dir, task := setUp(t, 1)
	out := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--task x=y", cli.Usage, "--model or --predictions is needed"},
		{"--model M", cli.Usage, "missing flags: --task"},
		{"--model M --task gad", cli.Usage, `--task "gad": want NAME=ROWS`},
		{"--model M --task gadd=x", cli.Failed, `task "gadd" is neither built in`},
		{"--model M --model N --adapter A --task T", cli.Usage, "--adapter is of one model, and there are 2"},
		{"--model M --with-base --task T", cli.Usage, "--with-base is for adapters"},
		{"--model M --predictions P --task T", cli.Usage, "--predictions scores existing answers"},
		{"--predictions P --task T --beams 4 --likelihood", cli.Usage, "--predictions scores existing answers, and --beams, --likelihood is for asking"},
		{"--model M --task T --length-penalty 2", cli.Usage, "the length penalty is for beams"},
		{"--model M --task T --shots 0 --shots-split train", cli.Failed, "no examples are asked for"},
		{"--model M --task T --base int4", cli.Usage, "--base: "},
		{"--model M --task T --split all", cli.Usage, "--split"},
		{"--model M --task T --shots=-1", cli.Usage, "--shots -1: want 0 or more"},
		{"--model M --task T --shots 1", cli.Failed, "1 examples: from which rows?"},
		{"--model M --task T --shots-from gad=x", cli.Usage, "with the name of a task that is asked"},
		{"--model M --task T --where task==", cli.Usage, "--where: "},
		{"--model M --task T --template-date today", cli.Usage, "want a day such as"},
		{"--model M --task T --beams 0", cli.Usage, "0 beams: want 1 to 64"},
		{"--model M --task T --memory-limit much", cli.Usage, "--memory-limit: "},
		{"--predictions P --task T --memory-limit 1GiB", cli.Usage, "--memory-limit is for asking"},
		{"--model M --task T --memory-limit 1MiB", cli.Failed, "and there is room for 0 bytes (of the memory limit of 1.00 MiB)"},
		{"--model M --task T --compute foo", cli.Usage, `compute "foo" is none of auto, f32, bf16`},
		{"--model M --task T --beams 4 --length-penalty 1e308", cli.Usage, "a length penalty of 1e+308: want -100 to 100"},
		{"--model M --task T --resamples 0", cli.Usage, "0 resamples"},
		{"--model M --task T --split dev", cli.Failed, "rows is left"},
		{"--model nowhere --task T", cli.Failed, "nowhere"},
	} {
		args := []string{"run", "--out", out}
		for _, a := range strings.Fields(c.args) {
			switch a {
			case "M":
				a = dir
			case "T":
				a = task
			}
			args = append(args, a)
		}
		code, _, stderr := execute(args...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit status %d, %s", c.args, code, stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(out, eval.ResultsFile)); err == nil {
		t.Error("there are results")
	}
}

func TestHelp(t *testing.T) {
	help := must(t, "run", "--help")
	for _, want := range []string{"Examples:", "lora-eval run --predictions", "Default: alpaca", "ncbi-disease", "a LoRA run is an adaptation of it"} {
		if !strings.Contains(strings.Join(strings.Fields(help), " "), want) {
			t.Errorf("the help lacks %q", want)
		}
	}
}
