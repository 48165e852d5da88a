package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/device/devicetest"
	"github.com/biolora/biolora/internal/benchmark"
)

// On a card the plan is of the card's memory, and a run says where it was.
func TestOnCard(t *testing.T) {
	card := devicetest.Use(t)
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--out", out, "--device", "cuda", "--compute", "f32", "--max-steps", "1",
		"--per-device-train-batch-size", "2"}
	before := card.Calls("cuMemcpyHtoDAsync_v2")
	stdout, _ := mustExecute(t, append(args, "--plan")...)
	var keys []string
	for line := range strings.Lines(stdout) {
		keys = append(keys, strings.TrimSpace(line[:min(12, len(line))]))
	}
	if want := []string{"micro-batch", "on", "weights", "adapter", "optimizer", "activations", "scratch", "peak", "host"}; !slices.Equal(keys, want) {
		t.Errorf("lines %v, want %v:\n%s", keys, want, stdout)
	}
	if !regexp.MustCompile(`(?m)^on +cuda:0 .*, f32$`).MatchString(stdout) || !strings.Contains(stdout, "of the card's 8.00 GiB; other programs and the driver hold") {
		t.Errorf("%s", stdout)
	}
	mustExecute(t, append(args, "--plan", "--memory-limit", "2GiB")...)
	code, _, stderr := execute(t, append(args, "--plan", "--memory-limit", "40kB")...)
	if code != exitFailed || !strings.Contains(stderr, "the memory limit of 39.1 KiB cannot be kept") {
		t.Errorf("%d, %s", code, stderr)
	}
	if n := card.Calls("cuMemcpyHtoDAsync_v2") - before; n > 3*1000 {
		t.Errorf("plans copied %d times to the card", n)
	}
	_, stderr = mustExecute(t, args...)
	if !strings.Contains(stderr, "f32 on cuda:0 ") {
		t.Errorf("%s", stderr)
	}
	if text := readBytes(t, out, runName); !strings.Contains(text, "\ndevice: \"cuda:0\"\n") {
		t.Errorf("%s", text)
	}
	if text := readBytes(t, out, logName); !strings.Contains(text, "f32 on cuda:0 ") {
		t.Errorf("%s", text)
	}
}

// What only the CPU has a use for is refused.
func TestCardRefuses(t *testing.T) {
	devicetest.Use(t)
	for _, more := range [][]string{{"--threads", "2"}, {"--stream", "always"}, {"--cpu-features", "go"}} {
		args := append([]string{"--model", tiny(t), "--data", tinyRows(t), "--device", "cuda", "--plan"}, more...)
		if code, _, stderr := execute(t, args...); code != exitFailed || !strings.Contains(stderr, "device cuda has no use for") {
			t.Errorf("%v: %d, %s", more, code, stderr)
		}
	}
}

func TestBenchmarkOnCard(t *testing.T) {
	devicetest.Use(t)
	defer func(s benchmark.Sizes) { madeUpSizes = s }(madeUpSizes)
	madeUpSizes = benchmark.Sizes{Hidden: 64, Intermediate: 128, Layers: 2, Heads: 4, Vocab: 96}
	stdout, _ := mustExecute(t, "--benchmark", "--device", "cuda", "--compute", "f32", "--per-device-train-batch-size", "1", "--max-seq-length", "16")
	for _, want := range []string{"computes    cuda:0 ", "GB/s of memory: copies within it", "one of large square matrices", "each operation is waited for", "LLaMA-2 7B "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it lacks %q:\n%s", want, stdout)
		}
	}
}
