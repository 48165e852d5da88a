package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
)

// mixFiles writes a recipe and its corpora.
func mixFiles(t *testing.T) string {
	return write(t, map[string]string{
		"recipe.yaml": "about: Two corpora.\nseed: 3\nsources:\n  - {name: a, where: 'split == \"train\"', count: 2}\n  - {name: b}\n",
		"a.jsonl": `{"instruction":"Name it.","input":"one","output":"1","split":"train","id":"a1"}
{"instruction":"Name it.","input":"two","output":"2","split":"train","id":"a2"}
{"instruction":"Name it.","input":"three","output":"3","split":"test","id":"a3"}
`,
		"b.json":     `[{"instruction":"What is gout?","output":"A disease.","id":"b1"}]`,
		"test.jsonl": `{"instruction":"what is GOUT","output":"?","id":"t1"}` + "\n",
	})
}

func TestMix(t *testing.T) {
	dir := mixFiles(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	args := func(more ...string) []string {
		return append([]string{"mix", "--recipe", path("recipe.yaml"), "--source", "a=" + path("a.jsonl"), "--source", "b=" + path("b.json")}, more...)
	}
	out, report := path("out.jsonl"), path("report.json")
	got := must(t, "", args("--out", out, "--test", "exam="+path("test.jsonl"), "--report", report)...)
	want := `Two corpora.
source      read     bad   matched     taken
a              3       0         2         2
b              1       0         1         1
exam: 1 of 1 test rows are in the training rows, 0 share 13 words with one; 1 training rows concerned
  t1 and b1: "what is gout"
3 rows in ` + out + "\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	first, err := os.ReadFile(out)
	if err != nil || strings.Count(string(first), "\n") != 3 || strings.Contains(string(first), "three") {
		t.Errorf("%v, %s", err, first)
	}
	var r mixReport
	text, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || r.Rows != 3 || r.About != "Two corpora." || r.Seed != 3 || r.Leakage[0].Exact != 1 {
		t.Errorf("%v, %+v", err, r)
	}
	must(t, "", args("--out", out, "--overwrite")...)
	if again, _ := os.ReadFile(out); string(again) != string(first) {
		t.Error("the same recipe writes other bytes")
	}
	must(t, "", args("--out", path("dropped.json"), "--test", "exam="+path("test.jsonl"), "--leakage", "drop")...)
	if text, _ := os.ReadFile(path("dropped.json")); strings.Contains(string(text), "gout") || !strings.Contains(string(text), "two") {
		t.Errorf("dropped: %s", text)
	}
}

func TestMixWrong(t *testing.T) {
	dir := mixFiles(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	a, b, out := "a="+path("a.jsonl"), "b="+path("b.json"), path("out.jsonl")
	for want, c := range map[string]struct {
		code int
		args []string
	}{
		`--source "x": want NAME=FILE`:                  {cli.Usage, []string{"--source", "x"}},
		"--leakage fail needs a --test":                 {cli.Usage, []string{"--leakage", "fail"}},
		"the recipe has no source":                      {cli.Failed, []string{"--source", a, "--source", b, "--source", "c=" + path("b.json")}},
		"source b has no file":                          {cli.Failed, []string{"--source", a}},
		"rows are written as .json, .jsonl or .parquet": {cli.Usage, []string{"--source", a, "--source", b, "--out", path("out.txt")}},
		path("a.jsonl") + " exists":                     {cli.Usage, []string{"--source", a, "--source", b, "--out", path("a.jsonl")}},
		path("a.jsonl") + ", which would be replaced":   {cli.Usage, []string{"--source", a, "--source", b, "--out", path("a.jsonl"), "--overwrite"}},
		path("test.jsonl") + ", which would be":         {cli.Usage, []string{"--source", a, "--source", b, "--test", "t=" + path("test.jsonl"), "--out", path("test.jsonl"), "--overwrite"}},
		path("recipe.yaml") + ", which would be":        {cli.Usage, []string{"--source", a, "--source", b, "--report", path("recipe.yaml"), "--overwrite"}},
		"--out and --report are both " + out:            {cli.Usage, []string{"--source", a, "--source", b, "--report", out}},
		"1 training rows have something in common":      {cli.Failed, []string{"--source", a, "--source", b, "--test", "t=" + path("test.jsonl"), "--leakage", "fail"}},
	} {
		args := append([]string{"mix", "--recipe", path("recipe.yaml")}, c.args...)
		if !slices.Contains(args, "--out") {
			args = append(args, "--out", out)
		}
		code, _, stderr := execute(strings.NewReader(""), args...)
		if code != c.code || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, %s\nwant %d, %s", c.args, code, stderr, c.code, want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%v: something was written", c.args)
		}
	}
}
