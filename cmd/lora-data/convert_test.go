package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/medtuned"
)

func samples(t *testing.T) string {
	return filepath.Join(golden.Root(t), "internal", "medtuned", "testdata", "samples")
}

func TestConvert(t *testing.T) {
	in, out := filepath.Join(samples(t), "gad-train.jsonl"), filepath.Join(t.TempDir(), "gad.jsonl")
	code, stdout, stderr := execute(strings.NewReader(""), "convert", "gad", in, "--out", out)
	if code != cli.Done || stdout != "" {
		t.Fatalf("exit %d, %q, %s", code, stdout, stderr)
	}
	text := read(t, out)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var row struct{ Task, Category, Split, Source, ID, Output string }
	if err := json.Unmarshal([]byte(lines[0]), &row); err != nil {
		t.Fatal(err)
	}
	if row.Task != "gad" || row.Category != "IE" || row.Split != "train" || row.Source != "gad" || row.ID == "" {
		t.Errorf("%+v", row)
	}
	if code, stdout, _ := execute(strings.NewReader(""), "convert", "gad", in); code != cli.Done || stdout != text {
		t.Errorf("exit %d; standard output is not the file:\n%s", code, stdout)
	}
	if _, stdout, _ := execute(strings.NewReader(""), "convert", "gad", in, "--split", "test", "--source", "mine"); !strings.Contains(stdout, `"source": "mine", "split": "test"`) {
		t.Errorf("%s", stdout)
	}
	wordings := filepath.Join(t.TempDir(), "w.yaml")
	if err := os.WriteFile(wordings, []byte("gad: ['Is there a link?']\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, stdout, _ := execute(strings.NewReader(""), "convert", "gad", in, "--instructions", wordings); strings.Count(stdout, "Is there a link?") != len(lines) {
		t.Errorf("%s", stdout)
	}
}

func TestConvertTellsOfItself(t *testing.T) {
	all, err := medtuned.Converters()
	if err != nil {
		t.Fatal(err)
	}
	list := must(t, "", "convert", "--list")
	if strings.Count(list, "\n") != 2*len(all) || !strings.Contains(list, "known from descriptions only: BLUE's TSV; .con, .rel and .txt\n") {
		t.Errorf("%d corpora, listed are\n%s", len(all), list)
	}
	for _, c := range all {
		if got := must(t, "", "convert", c.Name, "--describe"); !strings.Contains(got, c.Format[:20]) {
			t.Errorf("%s: %s", c.Name, got)
		}
	}
}

func TestConvertWrong(t *testing.T) {
	dir := write(t, map[string]string{
		"train.jsonl": `{"sentence":"@GENE$ and @DISEASE$","label":1}` + "\n" + `{"sentence":"@GENE$ and @DISEASE$","label":7}` + "\n",
	})
	in, out := filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "out.jsonl")
	empty := filepath.Join(write(t, map[string]string{"dev.jsonl": ""}), "dev.jsonl")
	for want, c := range map[string]struct {
		code int
		args []string
	}{
		"no corpus is given": {cli.Usage, nil},
		"gda":                {cli.Usage, []string{"gda", in}},
		"no files are given": {cli.Usage, []string{"gad"}},
		`--split "valid" is none of train, dev, test`:   {cli.Usage, []string{"gad", in, "--split", "valid"}},
		"rows are written as .json, .jsonl or .parquet": {cli.Usage, []string{"gad", in, "--out", filepath.Join(dir, "x.csv")}},
		in + " exists": {cli.Usage, []string{"gad", in, "--out", in}},
		in + " is " + in + ", which would be replaced": {cli.Usage, []string{"gad", in, "--out", in, "--overwrite"}},
		"no rows: the files have no record":            {cli.Failed, []string{"gad", empty, "--out", out}},
		in + ":2":                                      {cli.Failed, []string{"gad", in, "--out", out}},
	} {
		code, _, stderr := execute(strings.NewReader(""), append([]string{"convert"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, %s\nwant %d, %s", c.args, code, stderr, c.code, want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%v: something was written", c.args)
		}
	}
	if code, _, stderr := execute(strings.NewReader(""), "convert", "gad", in, "--max-bad", "-1"); code != cli.Done {
		t.Errorf("a negative number: exit %d, %s", code, stderr)
	}
	code, _, stderr := execute(strings.NewReader(""), "convert", "gad", in, "--out", out, "--max-bad", "1")
	if code != cli.Done || !strings.Contains(stderr, "left out: "+in+":2") || !strings.Contains(stderr, "1 rows, 1 bad") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
