package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
)

// --plan prints what the run takes and leaves the output directory as it is, also one that a run would refuse.
func TestPlan(t *testing.T) {
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, "mine"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--out", out, "--plan"}
	stdout, _ := mustExecute(t, args...)
	var keys []string
	for line := range strings.Lines(stdout) {
		keys = append(keys, strings.TrimSpace(line[:min(12, len(line))]))
	}
	want := []string{"micro-batch", "weights", "program", "adapter", "optimizer", "activations", "scratch", "saving", "peak", "a step", "the run"}
	if !slices.Equal(keys, want) {
		t.Errorf("lines %v, want %v:\n%s", keys, want, stdout)
	}
	if ok, _ := regexp.MatchString(`(?m)^activations .* policy all: all \d+ layers keep .* each$`, stdout); !ok {
		t.Errorf("no policy:\n%s", stdout)
	}
	files, err := os.ReadDir(out)
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v in the output directory", files, err)
	}
	stdout, _ = mustExecute(t, append(args, "--activation-policy", "none", "--memory-limit", "3GiB")...)
	if ok, _ := regexp.MatchString(`(?s)policy none: \d+ layers compute again.*peak .* of 3.00 GiB \(--memory-limit\)`, stdout); !ok {
		t.Errorf("policy none of 3 GiB:\n%s", stdout)
	}
}

// A limit that cannot be kept ends plan and run alike, before anything is written.
func TestMemoryLimit(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--out", out, "--memory-limit", "1MiB"}
	for _, more := range [][]string{{"--plan"}, nil} {
		code, stdout, stderr := execute(t, append(args, more...)...)
		want := regexp.MustCompile(`^lora-train: the memory limit of 1.00 MiB cannot be kept: the run takes \S+ MiB at least, with a micro-batch of \d+ ` +
			`tokens and activation policy none; no micro-batch is small enough`)
		if code != exitFailed || stdout != "" || !want.MatchString(lastLines(stderr, "lora-train: ")) {
			t.Errorf("%v: exit code %d, %q, %q", more, code, stdout, stderr)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%v: there is an output directory", more)
		}
	}
	code, _, stderr := execute(t, "--plan")
	if code != exitUsage || !strings.Contains(stderr, "--model is missing") {
		t.Errorf("--plan of nothing: exit code %d, %q", code, stderr)
	}
	_, err := parse([]string{"--model", "m", "--data", "d", "--memory-limit", "12G"}, nil)
	if err == nil || !strings.Contains(err.Error(), `--memory-limit (memory_limit): "12G" is no size: want a number and a unit`) {
		t.Errorf("12G: %v", err)
	}
}

// lastLines is text from the line on that begins with prefix.
func lastLines(text, prefix string) string {
	if i := strings.Index("\n"+text, "\n"+prefix); i >= 0 {
		return text[i:]
	}
	return ""
}

func TestPlanTable(t *testing.T) {
	var b strings.Builder
	p := &train.Plan{Steps: 1234, TrainableParameters: 8388608, StepSeconds: 12.345, Load: model.Load{Rows: 1032, Selected: 401, Keys: 512},
		Memory: model.Memory{Mapped: 13 << 30, Program: 50 << 20, Adapter: 64 << 20, Optimizer: 64 << 20, Activations: 3 << 30, Scratch: 160 << 20,
			Extra: 64 << 20, Peak: 3<<30 + 402<<20, Layers: 32, Kept: 7, Each: 150 << 20, Limit: 3 << 30, From: "MemAvailable"}}
	planTable(&b, p, "cpu avx2, f32, 4 threads")
	want := `micro-batch  at most 1,032 tokens, 401 of them with a label; rows of up to 512 tokens
weights        13.0 GiB  in mapped files: the system's pages, not counted below
program        50.0 MiB  with tokenizer and data
adapter        64.0 MiB  values and gradients of 8,388,608 parameters
optimizer      64.0 MiB  AdamW's moments
activations    3.00 GiB  policy some:7: 7 of 32 layers keep 150 MiB each
scratch         160 MiB
saving         64.0 MiB  the adapter while it is written, and the best one so far if it is kept
peak           3.39 GiB  of 3.00 GiB (MemAvailable): it does not fit
a step           12.35s  on cpu avx2, f32, 4 threads, by a calibration
the run        4h13m54s  for 1,234 steps, evaluations and saving apart
`
	if got := b.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for seconds, want := range map[float64]string{0.01234: "12.3ms", 1.23456: "1.23s", 61.7: "1m2s"} {
		if got := duration(seconds); got != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
	if memory.Format(p.Memory.Peak) != "3.39 GiB" {
		t.Error("the peak is written in another way")
	}
}
