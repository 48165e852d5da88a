//go:build unix

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

// TestMain lets the test binary be lora-train: tests that need a process of their own start it once more.
func TestMain(m *testing.M) {
	if os.Getenv("LORA_TRAIN_TEST_MAIN") == "" {
		code := m.Run()
		emu.Remove()
		os.Exit(code)
	}
	if limit, err := strconv.ParseUint(os.Getenv("LORA_TRAIN_TEST_FILE_SIZE"), 10, 64); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			panic(err)
		}
	}
	main()
}

// process prepares a lora-train of its own.
func process(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "LORA_TRAIN_TEST_MAIN=1")
	cmd.Dir = t.TempDir()
	var out bytes.Buffer
	cmd.Stdout = &out
	return cmd, &out
}

// interrupt starts a long run, sends signals once it trains, and returns its exit code.
func interrupt(t *testing.T, out string, signals ...os.Signal) (code int, stdout string) {
	t.Helper()
	cmd, output := process(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "100000000", "--learning-rate", "1e-3")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer guard.Stop()
	for s := bufio.NewScanner(stderr); s.Scan(); {
		if len(signals) > 0 && strings.HasPrefix(s.Text(), "step ") {
			for _, sig := range signals {
				cmd.Process.Signal(sig)
			}
			signals = nil
		}
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), output.String()
}

func TestInterruptLeavesWhatWasLearnt(t *testing.T) {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // under nohup a run ignores it too
		signals = append(signals, syscall.SIGHUP)
	}
	for _, sig := range signals {
		out := filepath.Join(t.TempDir(), "out")
		code, stdout := interrupt(t, out, sig)
		if code != exitInterrupted || !strings.HasPrefix(stdout, "interrupted") {
			t.Errorf("%v: exit code %d\n%s", sig, code, stdout)
		}
		if steps, _ := events(t, out); len(steps) == 0 {
			t.Errorf("%v: no step is recorded", sig)
		}
		mustExecute(t, "--model", tiny(t), "--data", tinyRows(t), "--out", filepath.Join(t.TempDir(), "more"), "--max-steps", "1", "--adapter", out)
	}
}

func TestSecondInterruptExitsAtOnce(t *testing.T) {
	if code, _ := interrupt(t, filepath.Join(t.TempDir(), "out"), syscall.SIGINT, syscall.SIGTERM); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}

// One interrupt ends a benchmark, whatever it is doing.
func TestInterruptEndsABenchmark(t *testing.T) {
	cmd, _ := process(t, "--benchmark")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = nil, &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer guard.Stop()
	if s := bufio.NewScanner(stdout); s.Scan() { // its first line
		cmd.Process.Signal(os.Interrupt)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "estimate") {
				t.Error("it went on to its end")
			}
		}
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || strings.Contains(stderr.String(), "saving") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
}

// A run whose output nobody reads any more goes on to its end.
func TestClosedPipe(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	cmd, _ := process(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "2")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Run()
	w.Close()
	if err != nil || !exists(filepath.Join(out, "adapter_model.safetensors")) {
		t.Errorf("%v; the adapter is there: %v", err, exists(filepath.Join(out, "adapter_model.safetensors")))
	}
}

// A limit on the size of files stands for a disk that is full.
func TestFullDisk(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	cmd, _ := process(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "2", "--lora-r", "64", "--target-modules", "all-linear")
	cmd.Env = append(cmd.Env, "LORA_TRAIN_TEST_FILE_SIZE=8192")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
	if text := stderr.String(); !strings.Contains(text, "adapter_model.safetensors") || !strings.Contains(text, "file too large") {
		t.Errorf("the message does not say what could not be written:\n%s", text)
	}
	if exists(filepath.Join(out, "adapter_model.safetensors")) {
		t.Error("a part of an adapter is left")
	}
}

func TestFullDiskBeforeTheFirstStep(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	cmd, _ := process(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "2")
	cmd.Env = append(cmd.Env, "LORA_TRAIN_TEST_FILE_SIZE=16")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(stderr.String(), "file too large") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
	if exists(out) {
		t.Error("an output directory is left with nothing in it")
	}
}
