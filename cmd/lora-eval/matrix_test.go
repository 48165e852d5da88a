package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/filelock"
	"github.com/biolora/biolora/internal/matrix"
	"github.com/biolora/biolora/testdata/demo"
)

// gridOf writes rows of two categories and a grid of two subsets of them on the demo model, and returns the grid's file.
func gridOf(t *testing.T, steps int) string {
	t.Helper()
	dir := t.TempDir()
	model, file, err := demo.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"train": file, "test": filepath.Join(dir, demo.Holdout)} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		var list []map[string]string
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		for i, r := range list[:24] {
			r["id"], r["split"], r["category"] = fmt.Sprint(name, i), name, []string{"QA", "IE"}[i%2]
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name+".jsonl"), b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, category := range []string{"QA", "IE"} {
		yaml := "category: " + category + "\nmetrics: [rougeL]\nparser: text\nmax_new_tokens: 8\ninstructions: [Answer.]\n"
		if err := os.WriteFile(filepath.Join(dir, "answers-"+strings.ToLower(category)+".yaml"), []byte(yaml), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	grid := fmt.Sprintf(`
bases: [{name: demo, path: %[1]q}]
data: [%[2]s/train.jsonl]
subsets:
  - {name: all}
  - {name: QA, where: category == "QA", count: 8}
seeds: [1]
train: {max_steps: %[3]d, learning_rate: 3e-3, per_device_train_batch_size: 4, lora_r: 4}
tasks:
  - {task: %[2]s/answers-qa.yaml, rows: %[2]s/test.jsonl, where: category == "QA", limit: 6}
  - {task: %[2]s/answers-ie.yaml, rows: %[2]s/test.jsonl, where: category == "IE", limit: 6}
eval: {batch_size: 2}
`, model, filepath.ToSlash(dir), steps)
	return write(t, "grid.yaml", grid)
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A study that is killed in a training, in the answers of a cell, and after a cell, goes on to the bytes that it would
// have come to; cells that were done are left as they were.
func TestMatrixKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, under which training takes long")
	}
	grid := gridOf(t, 12)
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "out")
	table := must(t, "matrix", "--grid", grid, "--out", whole)
	for _, want := range []string{"demo: gains over the base", "trained on", "QA (rougeL)", "IE (rougeL)", "published: QA +17.3 % (mean accuracy; [F] read)"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	first := filepath.Join(out, "cells", "demo", "all", "seed-1")
	for _, at := range []string{
		filepath.Join(first, "adapter", "events.jsonl"),
		filepath.Join(first, "eval", "answers-qa", "predictions.jsonl"),
		filepath.Join(first, "cell.json"),
	} {
		killAt(t, at, syscall.SIGKILL, "matrix", "--grid", grid, "--out", out)
		if _, err := os.Stat(filepath.Join(out, matrix.ResultsFile)); err == nil {
			t.Fatalf("%s: it was done before it was killed", at)
		}
	}
	before, err := os.Stat(filepath.Join(first, "cell.json"))
	if err != nil {
		t.Fatal(err)
	}
	must(t, "matrix", "--grid", grid, "--out", out)
	if after, err := os.Stat(filepath.Join(first, "cell.json")); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Error("a cell that was done was done again", err)
	}
	page := contents(t, filepath.Join(whole, matrix.ReportFile))
	if n := bytes.Count(page, []byte("<rect ")); n != 2*4 || !bytes.Contains(page, []byte("they are no reference")) || !bytes.Equal(page, contents(t, filepath.Join(out, matrix.ReportFile))) {
		t.Errorf("%d squares in the heat map, want 8; or the page of the study that was killed differs", n)
	}
	want := contents(t, filepath.Join(whole, matrix.ResultsFile))
	if got := contents(t, filepath.Join(out, matrix.ResultsFile)); !bytes.Equal(got, want) {
		t.Errorf("%s differs:\n%s\n%s", matrix.ResultsFile, got, want)
	}
	var res matrix.Results
	if err := json.Unmarshal(want, &res); err != nil {
		t.Fatal(err)
	}
	if len(res.Cells) != 2 || res.Cells[0].Rows != 24 || res.Cells[1].Rows != 8 || res.Cells[1].Steps != 12 || len(res.Gains) != 2*4 {
		t.Errorf("%s", want)
	}

	// Another setting of training is not mixed with cells that are there.
	other := write(t, "other.yaml", strings.Replace(string(contents(t, grid)), "lora_r: 4", "lora_r: 2", 1))
	code, _, stderr := execute("matrix", "--grid", other, "--out", out)
	if code != cli.Failed || !strings.Contains(stderr, "cell demo/all/seed-1: it was trained with other settings (lora_r was 4, is 2)") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

// killAt starts the command and sends it a signal once a file is there and has something in it.
func killAt(t *testing.T, path string, sig os.Signal, args ...string) (code int, stderr string) {
	t.Helper()
	cmd := child(t, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	for waiting := true; waiting; {
		select {
		case <-ended:
			t.Fatalf("it ended before %s was there: %s", path, &errs)
		case <-time.After(time.Millisecond):
			info, err := os.Stat(path)
			waiting = err != nil || info.Size() == 0
		}
	}
	cmd.Process.Signal(sig)
	<-ended
	return cmd.ProcessState.ExitCode(), errs.String()
}

func TestMatrixInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, under which training takes long")
	}
	out := filepath.Join(t.TempDir(), "out")
	code, stderr := killAt(t, filepath.Join(out, "cells", "demo", "all", "seed-1", "adapter", "events.jsonl"), syscall.SIGINT,
		"matrix", "--grid", gridOf(t, 500), "--out", out)
	if code != cli.Interrupted || !strings.Contains(stderr, "interrupted; 0 of 2 cells are done and stay. The training of demo/all/seed-1, at step ") ||
		!strings.Contains(stderr, " of 500, begins anew when the same command is given again") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

// Base and adapters are asked with examples of the rows that the grid names for them, which is said; scores with other
// numbers of examples are not mixed.
func TestMatrixShots(t *testing.T) {
	grid := gridOf(t, 1)
	text := string(contents(t, grid))
	train := regexp.MustCompile(`data: \[(.*)\]`).FindStringSubmatch(text)[1]
	shown := strings.NewReplacer("limit: 6}", "limit: 6, shots_split: train, shots_from: "+train+"}", "batch_size: 2}", "batch_size: 2, shots: 1, shots_split: test}").Replace(text)
	grid, out := write(t, "shown.yaml", shown), filepath.Join(t.TempDir(), "out")
	table := must(t, "matrix", "--grid", grid, "--out", out)
	if !strings.Contains(table, "answers-qa (QA): rougeL, 6 of 12 rows, seed 42, test, 1-shot;") {
		t.Errorf("the table does not say that there was an example:\n%s", table)
	}
	for _, of := range []string{"bases/demo", "cells/demo/QA/seed-1"} {
		var res eval.Results
		if err := json.Unmarshal(contents(t, filepath.Join(out, of, "eval", "answers-ie", eval.ResultsFile)), &res); err != nil {
			t.Fatal(err)
		}
		if x := res.Tasks[0]; x.Shots != 1 || len(x.ShotFiles) != 1 || filepath.Base(x.ShotFiles[0].Path) != "train.jsonl" {
			t.Errorf("%s: %d examples of %v", of, x.Shots, x.ShotFiles)
		}
	}
	cell := filepath.Join(out, "cells", "demo", "all", "seed-1", "cell.json")
	before := contents(t, cell)
	if must(t, "matrix", "--grid", grid, "--out", out); !bytes.Equal(contents(t, cell), before) {
		t.Error("the same grid did a cell again")
	}
	two := write(t, "two.yaml", strings.Replace(shown, "shots: 1", "shots: 2", 1))
	code, _, stderr := execute("matrix", "--grid", two, "--out", out)
	if code != cli.Failed || !strings.Contains(stderr, "tasks[0].shots was 1, is 2") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	code, _, stderr = execute("matrix", "--grid", write(t, "none.yaml", strings.Replace(shown, "shots_from: "+train, "shots_from: absent.jsonl", 1)), "--out", out)
	if code != cli.Failed || !strings.Contains(stderr, "task answers-qa: shots_from: ") || !strings.Contains(stderr, "absent.jsonl") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

func TestMatrixPlan(t *testing.T) {
	grid := gridOf(t, 1)
	text := string(contents(t, grid))
	out := filepath.Join(t.TempDir(), "out")
	list := must(t, "matrix", "--grid", grid, "--out", out, "--dry-run")
	for _, want := range []string{"2 cells: 1 base(s), 2 subset(s), 1 seed(s)", "demo/all/seed-1", "24 rows", "demo/QA/seed-1", "8 rows"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	standard := text[:strings.Index(text, "subsets:")] + "subsets: standard" + text[strings.Index(text, "\nseeds"):]
	if list := must(t, "matrix", "--grid", write(t, "grid.yaml", standard), "--out", out, "--dry-run"); !strings.Contains(list, "3 cells") {
		t.Errorf("of two categories, the subsets are not all, QA and IE:\n%s", list)
	}
	for _, c := range []struct{ old, new, want string }{
		{`category == "QA", count: 8`, `category == "GEN"`, `subset QA: no row of the data meets "category == \"GEN\""`},
		{"count: 8", "count: 13", "subset QA: 13 rows are wanted, and 12 are there"},
		{"{name: demo", "{name: demo, template: nothing", `nothing`},
		{"{name: demo", "{name: demo, system_prompt: Hi", "are for the template chat"},
		{"/train.jsonl", "/nowhere.jsonl", "nowhere.jsonl"},
		{"answers-ie.yaml", "answers-qa.yaml", "every task needs a name of its own"},
	} {
		changed := strings.Replace(text, c.old, c.new, 1)
		if changed == text {
			t.Fatalf("%q is not there", c.old)
		}
		code, _, stderr := execute("matrix", "--grid", write(t, "grid.yaml", changed), "--out", out)
		if code != cli.Failed || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit status %d, %s", c.new, code, stderr)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("there is work before all is checked")
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := execute("matrix", "--grid", grid, "--out", full); code != cli.Failed || !strings.Contains(stderr, "it is not of a matrix") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

// Cells that fail are named with the cause; the others are done where that is asked for.
func TestMatrixKeepsGoing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, under which training takes long")
	}
	grid := string(contents(t, gridOf(t, 1)))
	// Of the rows of one subset, nothing to learn is left within the longest length.
	grid = strings.NewReplacer("{name: all}", "{name: long, where: len(input) > 90}", `category == "QA", count: 8`, `input == ""`,
		"lora_r: 4", "lora_r: 4, max_seq_length: 80").Replace(grid)
	file := write(t, "grid.yaml", grid)
	out := filepath.Join(t.TempDir(), "out")
	code, _, stderr := execute("matrix", "--grid", file, "--out", out)
	if code != cli.Failed || !strings.Contains(stderr, "cell demo/long/seed-1: nothing to learn") {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(out, "cells", "demo", "QA")); err == nil {
		t.Error("it went on behind a cell that failed")
	}
	code, table, stderr := execute("matrix", "--grid", file, "--out", out, "--keep-going")
	if code != cli.Failed || !strings.Contains(stderr, "cell demo/long/seed-1: nothing to learn") || !strings.Contains(table, "failed") {
		t.Fatalf("exit status %d, %s\n%s", code, stderr, table)
	}
	var res matrix.Results
	if err := json.Unmarshal(contents(t, filepath.Join(out, matrix.ResultsFile)), &res); err != nil {
		t.Fatal(err)
	}
	if len(res.Cells) != 2 || res.Cells[0].Error == "" || res.Cells[1].Error != "" || len(res.Cells[1].Scores) != 2 {
		t.Errorf("%+v", res.Cells)
	}
}

// While a study is at work in a directory, another one is told which.
func TestMatrixLocked(t *testing.T) {
	grid, out := gridOf(t, 1), t.TempDir()
	release, err := filelock.Dir(out)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	code, _, stderr := execute("matrix", "--grid", grid, "--out", out)
	if want := fmt.Sprintf("%s: another process is at work there: process %d on ", out, os.Getpid()); code != cli.Failed || !strings.Contains(stderr, want) {
		t.Errorf("exit status %d, %s\nwant %s", code, stderr, want)
	}
	if _, err := os.Stat(filepath.Join(out, "grid.json")); err == nil {
		t.Error("the second study has written its grid")
	}
}

// What is left is told by whole cells that this call has done, not by the one it is in.
func TestStudyLeft(t *testing.T) {
	start := time.Now()
	p := &studyProgress{start: start}
	for _, c := range []struct {
		seconds     time.Duration
		done, found int
		want        string
	}{
		{5, 0, 0, ""},
		{7, 2, 2, ""},
		{10, 3, 2, "  left 20s"}, // of five cells, two were there, one has taken 10 s
		{16, 3, 2, "  left 14s"},
		{24, 4, 2, "  left 12s"},
		{90, 4, 2, "  left 0s"},
	} {
		got := p.left(start.Add(c.seconds*time.Second), matrix.Progress{Done: c.done, Total: 5, Found: c.found})
		if got != c.want {
			t.Errorf("after %d s: %q, want %q", c.seconds, got, c.want)
		}
	}
}
