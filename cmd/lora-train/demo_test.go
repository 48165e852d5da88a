package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/testdata/demo"
)

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds, and -short is set")
	}
	out := filepath.Join(t.TempDir(), "out")
	stdout, stderr := mustExecute(t, "--out", out)
	_, evals := events(t, out)
	if len(evals) < 2 || evals[0].Step != 0 || evals[len(evals)-1].EvalLoss > 0.7*evals[0].EvalLoss {
		t.Errorf("the loss on held-out rows hardly falls: %+v", evals)
	}
	answers := map[string]string{}
	for line := range strings.Lines(stdout) {
		if key, text, ok := strings.Cut(line, " "); ok {
			answers[key] = strings.TrimSpace(text)
		}
	}
	if answers["after"] == "" || answers["after"] == answers["before"] || answers["wanted"] != demo.Example.Output || answers["adapter"] != out {
		t.Errorf("the demo shows\n%s", stdout)
	}
	if !strings.Contains(stderr, "held out") {
		t.Errorf("the summary is\n%s", stderr)
	}
	code, _, _ := execute(t, "--out", out)
	if code != exitFailed {
		t.Errorf("a second demo in the same directory: exit code %d", code)
	}
}

// What the demo writes is its own: it can be run again in its directory, and nothing of it is left when it fails.
func TestDemoFilesAreOwned(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	o := &output{path: out}
	if err := o.claim(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := demo.Write(filepath.Join(out, demoDir)); err != nil {
		t.Fatal(err)
	}
	if err := (&output{path: out, overwrite: true}).check(); err != nil {
		t.Error(err)
	}
	o.undo()
	if exists(out) {
		t.Error("files of the demo are left")
	}
}
