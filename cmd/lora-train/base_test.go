package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// A run on a quantised base says so wherever it says what it is, learns something else, and is repeated by its run.yaml.
func TestBase(t *testing.T) {
	dir, rows := t.TempDir(), tinyRows(t)
	adapters := map[string]string{}
	for _, base := range []string{"none", "nf4", "int8"} {
		out := filepath.Join(dir, base)
		_, log := mustExecute(t, "--model", tiny(t), "--data", rows, "--out", out, "--max-steps", "4", "--learning-rate", "1e-2", "--base", base, "--verify-base")
		adapters[base] = readBytes(t, out, "adapter_model.safetensors")
		told := base != "none"
		if card := readBytes(t, out, "README.md"); strings.Contains(card, "| base in training | linears in "+base+" |") != told {
			t.Errorf("%s: the card is\n%s", base, card)
		}
		if strings.Contains(log, ", base in "+base+"\n") != told {
			t.Errorf("%s: told was\n%s", base, log)
		}
		if yaml := readBytes(t, out, "run.yaml"); !strings.Contains(yaml, "\nbase: "+base+"\n") || strings.Contains(yaml, "verify") {
			t.Errorf("%s: run.yaml is\n%s", base, yaml)
		}
		again := filepath.Join(dir, base+"-again")
		mustExecute(t, "--config", filepath.Join(out, "run.yaml"), "--out", again)
		if readBytes(t, again, "adapter_model.safetensors") != adapters[base] {
			t.Errorf("%s: run.yaml repeats another run", base)
		}
	}
	if adapters["none"] == adapters["nf4"] || adapters["nf4"] == adapters["int8"] || adapters["none"] == adapters["int8"] {
		t.Error("the base makes no difference")
	}
	code, _, stderr := execute(t, "--model", tiny(t), "--data", rows, "--base", "nf3")
	if want := `--base (base): "nf3" is none of none, nf4, int8, did you mean nf4?`; code != exitUsage || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d: %s\nwant %s", code, stderr, want)
	}
}
