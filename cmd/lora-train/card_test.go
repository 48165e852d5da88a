package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/device"
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

// What a card cannot be used for is told in a line that says why and what to do; auto computes on the CPU then and says
// why in the output and in the log, but not on machines without a card.
func TestCardUnavailable(t *testing.T) {
	card := devicetest.Use(t)
	path := device.Driver
	defer card.SetVersion(12040)
	defer card.SetCapability(8, 0)
	defer card.SetDevices(1)
	for i, c := range []struct {
		make   func()
		want   string
		silent bool
	}{
		{func() { card.SetVersion(11020) }, "the driver is for CUDA 11.2, CUDA 11.4 or later is needed", false},
		{func() { card.SetVersion(12040); card.SetCapability(7, 5) }, "compute capability 7.5, 8.0 or later is needed", false},
		{func() { card.SetCapability(8, 0) }, "", false},
		{func() { card.Fail("cuDevicePrimaryCtxRetain", 1, 46) }, "another process has the card for itself", false},
		{func() { card.Fail("cuDevicePrimaryCtxRetain", 1, 2) }, "other programs hold the card's memory", false},
		{func() { card.SetDevices(0) }, "the driver finds no NVIDIA card", true},
		{func() { path = "/no/such/libcuda.so" }, "no NVIDIA driver", true},
	} {
		run := func(name string) (code int, stderr, log string) {
			c.make()
			device.Driver = filepath.Join(t.TempDir(), "libcuda.so") // under another name it is opened again
			if err := os.Symlink(path, device.Driver); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "out")
			code, _, stderr = execute(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--device", name, "--max-steps", "1")
			text, _ := os.ReadFile(filepath.Join(out, logName))
			return code, stderr, string(text)
		}
		code, stderr, _ := run("cuda")
		if c.want == "" {
			if code != exitDone {
				t.Errorf("%d: %d, %s", i, code, stderr)
			}
			continue
		}
		if code != exitFailed || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "device cpu computes without a card") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%d: %d, %s", i, code, stderr)
		}
		code, stderr, log := run("auto")
		for _, text := range []string{stderr, log} {
			if n := strings.Count(text, "no card is used: "); code != exitDone || !strings.Contains(text, " on cpu") || (n == 0) != c.silent || n > 1 || (n == 1) != strings.Contains(text, c.want) {
				t.Errorf("%d, auto: %d, %s", i, code, text)
			}
		}
	}
}

// That products are slower than they could be is told once, by the plan and by the run.
func TestCardWithoutCublasLt(t *testing.T) {
	devicetest.Use(t)
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--out", out, "--device", "cuda", "--max-steps", "1"}
	_, plan := mustExecute(t, append(args, "--plan")...)
	_, run := mustExecute(t, args...)
	for _, text := range []string{plan, run, readBytes(t, out, logName)} {
		if strings.Count(text, "products by own kernels, which are slower than cublasLt: ") != 1 {
			t.Errorf("%s", text)
		}
	}
	t.Setenv("BIOLORA_CUBLASLT", device.Driver)
	device.NoCublasLt = false
	_, run = mustExecute(t, append(args, "--overwrite")...)
	if strings.Contains(run+readBytes(t, out, logName), "cublasLt") {
		t.Errorf("with cublasLt: %s", run)
	}
}

// Another process has the card's memory: the plan says how much, the micro-batch is as large as what is left allows, and
// a run that finds nothing left says what it had planned.
func TestCardIsShared(t *testing.T) {
	card := devicetest.Use(t)
	defer card.SetMemory(8 << 30)
	defer card.SetOthers(0)
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--device", "cuda", "--compute", "f32", "--max-steps", "1"}
	batch := func(more ...string) string {
		out := filepath.Join(t.TempDir(), "out")
		mustExecute(t, slices.Concat(args, more, []string{"--out", out})...)
		return regexp.MustCompile(`(?m)^per_device_train_batch_size: .*\ngradient_accumulation_steps: .*$`).FindString(readBytes(t, out, runName))
	}
	auto := []string{"--per-device-train-batch-size", "auto", "--gradient-accumulation-steps", "1"}
	if got := batch(auto...); got != "per_device_train_batch_size: 8\ngradient_accumulation_steps: 1" {
		t.Errorf("alone: %q", got)
	}
	card.SetOthers(8<<30 - 17<<20) // the memory that operations work in alone is 16 MiB
	if got := batch(auto...); got != "per_device_train_batch_size: 1\ngradient_accumulation_steps: 8" {
		t.Errorf("beside another program: %q", got)
	}
	card.SetMemory(6 << 20)
	card.SetOthers(4 << 20)
	stdout, stderr := mustExecute(t, append(args, "--plan")...)
	for _, want := range []string{"of the card's 6.00 MiB; other programs and the driver hold 4.00 MiB", "it does not fit"} {
		if !strings.Contains(stdout, want) || !strings.Contains(stderr, "there is memory for ") {
			t.Errorf("%q is not in: %s%s", want, stdout, stderr)
		}
	}
	card.SetOthers(6<<20 - 64<<10)
	code, _, stderr := execute(t, slices.Concat(args, []string{"--out", filepath.Join(t.TempDir(), "out")})...)
	for _, want := range []string{"out of device memory", "planned were ", "--per-device-train-batch-size", "nf4"} {
		if code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("%d; %q is not in: %s", code, want, stderr)
		}
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
