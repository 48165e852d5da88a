package main

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/benchmark"
)

// keysOf are what the lines of a report begin with.
func keysOf(text string) (keys []string) {
	for line := range strings.Lines(text) {
		if key := strings.TrimSpace(line[:min(11, len(line))]); key != "" && !strings.HasPrefix(line, " ") {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestBenchmarkOfAModel(t *testing.T) {
	model, rows := tiny(t), tinyRows(t)
	t.Chdir(t.TempDir()) // where a run without --out writes
	stdout, _ := mustExecute(t, "--benchmark", "--model", model, "--data", rows, "--compute", "f32", "--threads", "2")
	want := []string{"machine", "computes", "ceiling", "model", "adapter", "rows", "keeps", "a step", "speed", "where the t", "decoding", "memory", "estimate"}
	if got := slices.DeleteFunc(keysOf(stdout), func(k string) bool { return k == "warning" }); !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q:\n%s", got, want, stdout)
	}
	for _, pattern := range []string{`(?m)^computes +cpu \w+, f32, 2 threads$`, `(?m)^  attention +\S+s +\d+\.\d %$`, `3 epochs on this model: [\d.]+ (minutes|hours)`} {
		if !regexp.MustCompile(pattern).MatchString(stdout) {
			t.Errorf("nothing like %s:\n%s", pattern, stdout)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("a benchmark wrote something: %v, %v", left, err)
	}
}

// The shares of the kinds of work are of the whole step.
func TestBenchmarkOfAMadeUpModel(t *testing.T) {
	defer func(s benchmark.Sizes) { madeUpSizes = s }(madeUpSizes)
	madeUpSizes = benchmark.Sizes{Hidden: 64, Intermediate: 128, Layers: 2, Heads: 4, Vocab: 96}
	stdout, _ := mustExecute(t, "--benchmark", "--base", "nf4", "--activation-policy", "none", "--lora-r", "4", "--per-device-train-batch-size", "3")
	for _, want := range []string{"rank 4", "quantised to nf4", "policy none", "3 a micro-batch", "LLaMA-2 7B ", "LLaMA-2 13B "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it lacks %q:\n%s", want, stdout)
		}
	}
	shares := regexp.MustCompile(`(?m)^  \S.* (\d+\.\d) %`).FindAllStringSubmatch(stdout, -1)
	var sum float64
	for _, s := range shares {
		share, err := strconv.ParseFloat(s[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += share
	}
	if math.Abs(sum-100) > 0.5 {
		t.Errorf("the shares come to %v %%:\n%s", sum, stdout)
	}
	if len(shares) != 9 {
		t.Errorf("%d kinds of work, want 9:\n%s", len(shares), stdout)
	}
}

func TestBenchmarkUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--benchmark --plan --model m", "--plan and --benchmark"},
		{"--benchmark --out o", "--out says nothing"},
		{"--benchmark --model m --overwrite", "--overwrite says nothing"},
		{"--benchmark --data d", "--data needs --model"},
		{"--benchmark --adapter a", "--adapter needs --model"},
	} {
		_, err := parse(strings.Fields(c.args), &bytes.Buffer{})
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a usage error with %q", c.args, err, c.want)
		}
	}
	for _, args := range []string{"--benchmark", "--benchmark --model m", "--benchmark --base nf4 --lora-r 8"} {
		if r, err := parse(strings.Fields(args), &bytes.Buffer{}); err != nil || r.Demo {
			t.Errorf("%s: %v, or the demo", args, err)
		}
	}
}

// A benchmark says what is wrong with its inputs, as a run does.
func TestBenchmarkOfNothing(t *testing.T) {
	code, stdout, stderr := execute(t, "--benchmark", "--model", filepath.Join(t.TempDir(), "none"))
	if code != exitFailed || !strings.Contains(stderr, "none") || stdout != "" {
		t.Errorf("exit code %d, %s; measured before: %s", code, stderr, stdout)
	}
}

func TestCPUFeatures(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	mustExecute(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "1", "--cpu-features", "go")
	if log := readBytes(t, out, logName); !strings.Contains(log, "cpu go, f32") {
		t.Errorf("other instructions than those asked for:\n%s", log)
	}
	if yaml, err := os.ReadFile(filepath.Join(out, runName)); err != nil || !strings.Contains(string(yaml), "cpu_features: go\n") {
		t.Errorf("%v; run.yaml lacks them:\n%s", err, yaml)
	}
	_, err := parse([]string{"--model", "m", "--data", "d", "--cpu-features", "sse9"}, &bytes.Buffer{})
	if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), "sse9") || !strings.Contains(err.Error(), gemm.Detect().String()) {
		t.Errorf("unknown features: %v", err)
	}
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, &help); !errors.Is(err, errHelp) {
		t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(help.String()), " ")
	if list := strings.Join(gemm.Names(), ", "); !strings.Contains(flat, list) {
		t.Errorf("the help lacks %q", list)
	}
}
