package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
)

// TestClassifyLocally: a model of this machine sorts rows, goes on, and its journal makes the same rows without it.
func TestClassifyLocally(t *testing.T) {
	dir := write(t, map[string]string{"rows.jsonl": `{"instruction":"What is anaemia?","output":"Too few red blood cells."}
{"instruction":"Name the drug.","input":"He takes aspirin.","output":"aspirin"}
{"instruction":"Write a note.","output":"Seen today."}
{"instruction":"c","output":"3","category":"GEN"}
`, "other.jsonl": `{"instruction":"a","output":"b"}` + "\n"})
	path := func(name string) string { return filepath.Join(dir, name) }
	args := func(out string, more ...string) []string {
		return append([]string{"classify", path("rows.jsonl"), "--out", path(out)}, more...)
	}
	local := []string{"--model", demoModel(t), "--compute", "f32", "--batch", "2"}
	got := must(t, "", args("a.jsonl", local...)...)
	if !strings.Contains(got, "4 rows in "+path("a.jsonl")+": 3 were asked about, 1 had a category\nanswers: 3 by model; 3 of them new") {
		t.Errorf("%s", got)
	}
	if n := strings.Count(read(t, path("a.jsonl.journal")), `"log_likelihoods":{"GEN":-`); n != 3 {
		t.Errorf("%d answers with likelihoods:\n%s", n, read(t, path("a.jsonl.journal")))
	}
	must(t, "", args("b.jsonl", "--replay", "--journal", path("a.jsonl.journal"))...)
	if read(t, path("a.jsonl")) != read(t, path("b.jsonl")) {
		t.Error("the replay is another")
	}
	// However many rows are asked about together, it is the same job.
	code, stdout, stderr := execute(strings.NewReader(""), args("a.jsonl", append(local[:4:4], "--overwrite")...)...)
	if code != cli.Done || !strings.Contains(stdout, "; 0 of them new") || !strings.Contains(stderr, "3 of 3 answers are there already") {
		t.Errorf("again: %d\n%s\n%s", code, stdout, stderr)
	}
	code, _, stderr = execute(strings.NewReader(""), args("a.jsonl", "--overwrite", "--model", demoModel(t), "--prompt-template", "medtuned", "--compute", "f32", "--batch", "2")...)
	if code != cli.Failed || !strings.Contains(stderr, "this journal is of another job; template is \"alpaca ") || strings.Contains(stderr, "goes on from there") {
		t.Errorf("another template: %d %s", code, stderr)
	}
	for want, more := range map[string][]string{
		"is a model of this machine, and --base-url, --temperature is for":     append(local, "--base-url", "http://x", "--temperature", "0"),
		"neither a directory nor a file, and --adapter, --memory-limit is for": {"--model", "m", "--adapter", "a", "--memory-limit", "1GiB"},
		"no use for --model, --batch, --compute":                               append(local, "--replay"),
		"--base: ":                                                             {"--model", demoModel(t), "--base", "q4"},
		"--memory-limit: ":                                                     {"--model", demoModel(t), "--memory-limit", "much"},
		"--threads -1: want 1":                                                 {"--model", demoModel(t), "--threads", "-1"},
	} {
		code, _, stderr := execute(strings.NewReader(""), args("c.jsonl", more...)...)
		if code != cli.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%v: %d, %s\nwant %s", more, code, stderr, want)
		}
	}
	code, _, stderr = execute(strings.NewReader(""), args("c.jsonl", "--model", path("gone"))...)
	if code != cli.Failed || !strings.Contains(stderr, path("gone")) {
		t.Errorf("a path that is not there: %d, %s", code, stderr)
	}
	code, _, stderr = execute(strings.NewReader(""), args("c.jsonl", "--model", demoModel(t), "--adapter", path("gone"))...)
	if code != cli.Failed || strings.Count(stderr, filepath.Join("gone", "adapter_config.json")) != 1 {
		t.Errorf("an adapter that is not there: %d, %s", code, stderr)
	}
}
