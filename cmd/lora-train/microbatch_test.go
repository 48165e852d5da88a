package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A micro-batch that is left to the memory is a number in run.yaml, and the rows of a step stay what they were.
func TestAutoBatch(t *testing.T) {
	for _, args := range [][]string{
		{"--per-device-train-batch-size", "auto", "--gradient-accumulation-steps", "3"},
		{"--config", writeFile(t, "auto.yaml", "per_device_train_batch_size: auto\ngradient_accumulation_steps: 3\n")},
	} {
		r, err := parse(append(args, "--model", "m", "--data", "d"), io.Discard)
		if err != nil || r.BatchSize != autoBatch || r.options().PerDeviceTrainBatchSize != 8 {
			t.Fatalf("%v: %v, %v", args, r, err)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	mustExecute(t, "--model", tiny(t), "--data", tinyRows(t), "--out", out, "--max-steps", "1",
		"--per-device-train-batch-size", "auto", "--gradient-accumulation-steps", "3")
	text, err := os.ReadFile(filepath.Join(out, runName))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"per_device_train_batch_size: 24\n", "gradient_accumulation_steps: 1\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("run.yaml has no %q:\n%s", want, text)
		}
	}
}
