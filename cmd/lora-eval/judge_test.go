package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/matrix"
)

// bench is an endpoint that gives each answer a mark of its own, or none; at the stop-th request it calls stopping and says
// nothing.
type bench struct {
	calls, stop atomic.Int64
	stopping    func()
}

func (b *bench) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct{ Messages []struct{ Content string } }
	if r.Header.Get("Authorization") != "Bearer sk-of-the-test" || json.NewDecoder(r.Body).Decode(&q) != nil || len(q.Messages) != 1 {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if n := b.calls.Add(1); n == b.stop.Load() {
		b.stopping()
		<-r.Context().Done()
		return
	}
	text := "I would rather not."
	if n := sha256.Sum256([]byte(q.Messages[0].Content))[0] % 6; n > 0 {
		text = fmt.Sprintf("Reason: so it is\nMark: %d", n)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"model": "judge-1", "choices": []any{map[string]any{"finish_reason": "stop", "message": map[string]any{"content": text}}},
		"usage": map[string]any{"prompt_tokens": 1000, "completion_tokens": 20},
	})
}

// judgedTask is setUp with a task that asks for a judge, and the endpoint in the environment.
func judgedTask(t *testing.T, times int) (b *bench, dir, task string) {
	t.Helper()
	b = &bench{}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	t.Setenv("OPENAI_BASE_URL", s.URL)
	t.Setenv("TEST_KEY", "sk-of-the-test")
	dir, task = setUp(t, times)
	_, rows, _ := strings.Cut(task, "=")
	yaml := write(t, "notes.yaml", "category: GEN\nmetrics: [judge, rougeL]\nparser: text\nmax_new_tokens: 24\ninstructions: [Answer.]\n")
	return b, dir, yaml + "=" + rows
}

// A run that is killed while its answers are judged goes on to what it would have come to, and its journal gives the same
// without the judge.
func TestJudgeKilled(t *testing.T) {
	b, dir, task := judgedTask(t, 1)
	args := func(out string) []string {
		return []string{"run", "--model", dir, "--task", task, "--limit", "12", "--resamples", "100", "--out", out,
			"--judge", "gpt-x", "--judge-key-env", "TEST_KEY", "--judge-concurrency", "2", "--judge-price-prompt", "10", "--judge-price-completion", "100"}
	}
	whole := filepath.Join(t.TempDir(), "whole")
	table := must(t, args(whole)...)
	all := b.calls.Load()
	want := fmt.Sprintf("replies of the judge: %d, %d of them new; 0 failed attempts; the tokens cost %.2f in all\n", all, all, float64(all)*0.012)
	if !strings.Contains(table, want) || !strings.Contains(table, "judge: gpt-x, rubric built-in (") || !strings.Contains(table, "marks 1 to 5: ") {
		t.Errorf("no %q in\n%s", want, table)
	}

	out := filepath.Join(t.TempDir(), "out")
	cmd := child(t, args(out)...)
	b.stopping = func() { cmd.Process.Kill() }
	b.calls.Store(0)
	b.stop.Store(6)
	if err := cmd.Run(); err == nil {
		t.Fatal("it was not killed")
	}
	if _, err := os.Stat(filepath.Join(out, eval.ResultsFile)); err == nil {
		t.Fatal("it was done before it was killed")
	}
	b.stop.Store(0)
	must(t, args(out)...)
	if again := b.calls.Load() - all; again < 1 || again > 2 { // at most what was under way
		t.Errorf("%d requests more than for the whole", again)
	}

	replay := filepath.Join(t.TempDir(), "replay")
	calls := b.calls.Load()
	must(t, "run", "--model", dir, "--task", task, "--limit", "12", "--resamples", "100", "--out", replay,
		"--judge-replay", "--judge-journal", filepath.Join(out, eval.JudgeJournal))
	if b.calls.Load() != calls {
		t.Error("a replay asks")
	}
	for _, name := range []string{eval.ResultsFile, eval.ReportFile} {
		want := contents(t, filepath.Join(whole, name))
		for _, dir := range []string{out, replay} {
			if !bytes.Equal(contents(t, filepath.Join(dir, name)), want) {
				t.Errorf("%s of %s differs", name, dir)
			}
		}
	}
	for _, dir := range []string{whole, out, replay} {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if bytes.Contains(contents(t, filepath.Join(dir, f.Name())), []byte("sk-of-the-test")) {
				t.Errorf("%s has the key", f.Name())
			}
		}
	}
	code, _, stderr := execute(slices.Concat(args(out), []string{"--judge", "gpt-y"})...)
	if code != cli.Failed || !strings.Contains(stderr, `"gpt-x" with`) || !strings.Contains(stderr, `"gpt-y" with`) {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

func TestJudgeUsage(t *testing.T) {
	_, dir, task := judgedTask(t, 1)
	rubric := write(t, "mine.txt", "{answer} Mark:")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--judge-attempts", "3", "--judge-rubric", rubric}, cli.Usage, "--judge-attempts, --judge-rubric: for which judge?"},
		{[]string{"--judge-replay", "--judge-no-temperature", "--judge-timeout", "1s"}, cli.Usage, "--judge-no-temperature, --judge-timeout is for asking"},
		{[]string{"--judge-replay"}, cli.Failed, "judge.journal"},
		{[]string{"--judge", "m", "--judge-rubric", rubric}, cli.Failed, "the rubric has no {reference}"},
		{[]string{"--judge", "m", "--judge-concurrency", "0"}, cli.Usage, "concurrency 0: want at least 1"},
		{[]string{"--judge", "m", "--judge-max-tokens=-1"}, cli.Failed, "-1 and 0 tokens at most"},
		{[]string{"--judge", "m", "--judge-base-url", "example.org"}, cli.Usage, "--judge-base-url: base URL"},
		{[]string{"--judge", "m", "--judge-key-env", "NO_SUCH_KEY", "--limit", "1"}, cli.Failed, "judge: request 0: HTTP status 401"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		code, _, stderr := execute(append([]string{"run", "--model", dir, "--task", task, "--out", out}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit status %d, %s", c.args, code, stderr)
		}
		if _, err := os.Stat(filepath.Join(out, eval.ResultsFile)); err == nil {
			t.Errorf("%v: there are results", c.args)
		}
	}
}

// A study with a judge: its marks are the metric, the same answers of base and cells are one question, a study that is
// repeated asks nobody, and one without the judge says so.
func TestMatrixJudge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, under which training takes long")
	}
	b, _, _ := judgedTask(t, 1)
	plain := string(contents(t, gridOf(t, 2)))
	for _, path := range regexp.MustCompile(`task: (\S+yaml)`).FindAllStringSubmatch(plain, -1) {
		yaml := strings.Replace(string(contents(t, path[1])), "[rougeL]", "[judge, rougeL]", 1)
		if err := os.WriteFile(path[1], []byte(yaml), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	grid := write(t, "grid.yaml", plain+"judge: {model: gpt-x, key_env: TEST_KEY, concurrency: 2, timeout: 1m}\n")
	out := filepath.Join(t.TempDir(), "out")
	first := must(t, "matrix", "--grid", grid, "--out", out)
	for _, want := range []string{"QA (judge)", "IE (judge)", "judge: gpt-x, rubric built-in ("} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in\n%s", want, first)
		}
	}
	calls := b.calls.Load()
	want := contents(t, filepath.Join(out, matrix.ResultsFile))
	if bytes.Contains(want, []byte("TEST_KEY")) || !bytes.Contains(want, []byte(`"metric": "judge"`)) {
		t.Errorf("%s", want)
	}
	for _, more := range [][]string{nil, {"--judge-replay"}} {
		for _, done := range []string{"all", "QA"} { // the marks are taken anew
			if err := os.Remove(filepath.Join(out, "cells", "demo", done, "seed-1", "cell.json")); err != nil {
				t.Fatal(err)
			}
		}
		must(t, append([]string{"matrix", "--grid", grid, "--out", out}, more...)...)
		if b.calls.Load() != calls || !bytes.Equal(want, contents(t, filepath.Join(out, matrix.ResultsFile))) {
			t.Errorf("%v: %d calls more, or other results", more, b.calls.Load()-calls)
		}
	}

	without := write(t, "grid.yaml", plain)
	if got := must(t, "matrix", "--grid", without, "--out", out); !strings.Contains(got, "QA (rougeL)") || !strings.Contains(got, "note: answers-qa: not judged: ") {
		t.Errorf("%s", got)
	}
	for text, want := range map[string]string{
		"judge: {key_env: X}\n":                    "judge: which model?",
		"judge: {model: gpt-x, rubric: nowhere}\n": "nowhere",
		"judge: {model: gpt-y}\n":                  `this run's is "gpt-y" with`,
		"judge: {model: gpt-x, attempts: 0}\n":     "0 attempts",
	} {
		code, _, stderr := execute("matrix", "--grid", write(t, "grid.yaml", plain+text), "--out", out)
		if code != cli.Failed || !strings.Contains(stderr, want) { // wrong usage is the command line's alone
			t.Errorf("%s: exit status %d, %s", text, code, stderr)
		}
	}
	code, _, stderr := execute("matrix", "--grid", without, "--out", out, "--judge-replay")
	if code != cli.Usage || !strings.Contains(stderr, "the grid names no judge") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
	nobody := write(t, "grid.yaml", string(contents(t, gridOf(t, 2)))+"judge: {model: gpt-x}\n")
	if code, _, stderr := execute("matrix", "--grid", nobody, "--out", out); code != cli.Failed || !strings.Contains(stderr, "judge: no task has judge among its metrics") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}
