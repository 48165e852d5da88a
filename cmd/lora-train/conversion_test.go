package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/golden"
)

// A model trains from each of its forms to the same adapter.
func TestFormsTrainAlike(t *testing.T) {
	rows := writeFile(t, "rows.jsonl", `{"input_ids": [1, 5, 6, 7, 2], "labels": [-100, -100, 6, 7, 2]}
{"input_ids": [1, 9, 12, 17, 3, 2], "labels": [-100, 9, 12, 17, 3, 2]}
`)
	forms := filepath.Join(golden.Root(t), "testdata", "weights")
	want := ""
	for _, form := range []string{"base", "zip", "meta-2", "mistral", "gguf-f16/tiny-f16.gguf"} {
		out := filepath.Join(t.TempDir(), "out")
		mustExecute(t, "--model", filepath.Join(forms, form), "--data", rows, "--out", out, "--max-steps", "4", "--learning-rate", "1e-2", "--threads", "1")
		got := readBytes(t, out, "adapter_model.safetensors")
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%s ends in another adapter", form)
		}
	}
}

func TestConversion(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var b strings.Builder
		c := &conversion{w: &b, terminal: terminal, start: time.Now()}
		c.progress(1e9, 13e9)
		if b.Len() != 0 {
			t.Errorf("drawn at once: %q", b.String())
		}
		c.start, c.last = time.Now().Add(-20*time.Second), time.Now().Add(-11*time.Second)
		c.progress(4e9, 13e9)
		c.progress(5e9, 13e9)
		c.end()
		c.summary([]string{"/cache/file"}, false)
		want := "^converting the weights: 4.0 of 13.0 GB, 0.20 GB/s\n"
		if terminal {
			want = "^\rconverting the weights: 4.0 of 13.0 GB, 0.20 GB/s +\n"
		}
		want += "converted 5.0 GB of weights in 20.0 s \\(0.25 GB/s\\), kept in /cache/file\n$"
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("drawn %q, want %q", b.String(), want)
		}
	}
	var b strings.Builder
	c := &conversion{w: &b, start: time.Now()}
	c.end()
	c.summary(nil, false) // nothing was kept
	c.summary([]string{"/found"}, false)
	if b.Len() != 0 {
		t.Errorf("drawn %q of nothing", b.String())
	}
}
