package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A run whose weights are streamed says so, and learns what one learns that keeps them.
func TestStream(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--model", tiny(t), "--data", tinyRows(t), "--max-steps", "3", "--learning-rate", "1e-2",
		"--per-device-train-batch-size", "2", "--gradient-accumulation-steps", "2", "--val-set-size", "3"}
	adapters := map[string]string{}
	for _, how := range []string{"never", "always"} {
		out := filepath.Join(dir, how)
		_, log := mustExecute(t, append(args, "--out", out, "--stream", how)...)
		adapters[how] = readBytes(t, out, "adapter_model.safetensors")
		for _, told := range []string{
			`(?m)^ +streams \d+\.\d\d GB from disk: \d+ of \d+ layers stay in memory; about \d+\.\d\d GB read a step$`,
			`(?m)^streaming: \d+\.\d\d GB of weights read so far, .* a second while reading; waited \d+\.\d s for them$`,
		} {
			if regexp.MustCompile(told).MatchString(log) != (how == "always") {
				t.Errorf("--stream %s: %s\n%s", how, told, log)
			}
		}
		if yaml := readBytes(t, out, "run.yaml"); !strings.Contains(yaml, "\nstream: "+how+"\n") {
			t.Errorf("run.yaml is\n%s", yaml)
		}
	}
	if adapters["never"] != adapters["always"] {
		t.Error("streaming changes what is learnt")
	}
	stdout, _ := mustExecute(t, append(args, "--plan", "--stream", "always")...)
	if !regexp.MustCompile(`(?m)^streaming .* layers stay in memory; about .* read a step$`).MatchString(stdout) || !strings.Contains(stdout, "; more where the disk is slower") {
		t.Errorf("--plan prints\n%s", stdout)
	}
	code, _, stderr := execute(t, append(args, "--stream", "allways")...)
	if want := `--stream (stream): "allways" is none of auto, always, never, did you mean always?`; code != exitUsage || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
