package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/biolora/biolora/internal/cli"
)

// endpoint is a server that writes tasks, or answers "1: QA, 2: IE, …" to questions about categories. stop, where it is not
// nil, is called at the third request.
func endpoint(t *testing.T, stop func()) string {
	t.Helper()
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Messages []struct{ Content string } }
		if r.Header.Get("Authorization") != "Bearer sk-of-the-test" || json.NewDecoder(r.Body).Decode(&q) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		n := calls.Add(1)
		if stop != nil && n == 3 {
			stop()
			<-r.Context().Done()
			return
		}
		var text strings.Builder
		if strings.HasPrefix(q.Messages[0].Content, "Say of each task") {
			for k := range strings.Count(q.Messages[0].Content, "\nTask ") {
				fmt.Fprintf(&text, "%d: %s\n", k+1, []string{"QA", "IE"}[k%2])
			}
		} else {
			fmt.Fprintf(&text, "Instruction: Explain x%d to y%d and z%d.\nInput: None\nOutput: It rises.\n###\nTask 5\nInstruction: Draw it.\nInput: a\nOutput: b", n, n, n)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"model": "m", "choices": []any{map[string]any{"finish_reason": "stop", "message": map[string]any{"content": text.String()}}},
			"usage": map[string]any{"prompt_tokens": 1000, "completion_tokens": 200},
		})
	}))
	t.Cleanup(s.Close)
	t.Setenv("OPENAI_BASE_URL", s.URL)
	t.Setenv("TEST_KEY", "sk-of-the-test")
	return s.URL
}

func TestGenerateCommand(t *testing.T) {
	endpoint(t, nil)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	got := must(t, "", "generate", "--model", "m", "--key-env", "TEST_KEY", "--target", "3", "--concurrency", "1", "--out", path("a.jsonl"), "--rejected", path("no.jsonl"),
		"--price-prompt", "10", "--price-completion", "20")
	want := "3 rows of 3 answers in " + path("a.jsonl") + "\n      2 rejected: instruction of 3 words or fewer\nanswers: 3 by m; 3 of them new; 0 failed attempts; 3,000 tokens of prompts and 600 of answers, which cost 0.04 in all\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, target := range []string{"0", "-4"} { // be there a journal or not
		code, _, stderr := execute(strings.NewReader(""), "generate", "--model", "m", "--target", target, "--out", path("a.jsonl"), "--overwrite")
		if code != cli.Usage || !strings.Contains(stderr, "--target "+target+": want at least 1") || strings.Contains(stderr, "goes on") {
			t.Errorf("a target of %s: %d, %s", target, code, stderr)
		}
	}
	rows := read(t, path("a.jsonl"))
	if strings.Count(rows, "\n") != 3 || !strings.HasPrefix(rows, `{"instruction": "Explain x1 to y1 and z1.",`) {
		t.Errorf("%s", rows)
	}
	if no := read(t, path("no.jsonl")); strings.Count(no, "\n") != 2 || !strings.Contains(no, `"why":"instruction of 3 words or fewer","instruction":"`) {
		t.Errorf("%s", no)
	}
	if strings.Contains(read(t, path("a.jsonl.journal")), "sk-of-the-test") {
		t.Error("the key is in the journal")
	}
	must(t, "", "generate", "--replay", "--journal", path("a.jsonl.journal"), "--out", path("b.jsonl"))
	if read(t, path("b.jsonl")) != rows {
		t.Error("the replay is another")
	}
	for want, args := range map[string][]string{
		path("a.jsonl") + " exists": {"--model", "m", "--out", path("a.jsonl")},
		"--model is missing":        {"--out", path("c.jsonl")},
		"--out is missing":          {"--model", "m"},
		"no use for --model, --seeds, --prompt, --seed, --per-request, --max-requests, --max-barren, --base-url": {"--replay", "--model", "m", "--seeds", "s", "--prompt", "p", "--seed", "1",
			"--per-request", "2", "--max-requests", "3", "--max-barren", "4", "--base-url", "http://x", "--out", path("c.jsonl")},
		"no use for --key-env, --temperature, --top-p, --max-tokens, --max-completion-tokens, --concurrency, --requests-per-minute, --tokens-per-minute, --timeout, --attempts": {"--replay", "--key-env", "K",
			"--temperature", "0", "--top-p", "1", "--max-tokens", "1", "--max-completion-tokens", "1", "--concurrency", "1", "--requests-per-minute", "1", "--tokens-per-minute", "1",
			"--timeout", "1s", "--attempts", "1", "--out", path("c.jsonl")},
		"rows are written as .json":        {"--model", "m", "--out", path("c.txt")},
		"must be different files":          {"--model", "m", "--out", path("c.jsonl"), "--journal", path("c.jsonl")},
		"no {tasks}":                       {"--model", "m", "--out", path("c.jsonl"), "--prompt", path("a.jsonl")},
		"--replay asks nothing":            {"--replay", "--dry-run"},
		`base URL "ftp://x": want http://`: {"--model", "m", "--out", path("c.jsonl"), "--base-url", "ftp://x"},
	} {
		code, _, stderr := execute(strings.NewReader(""), append([]string{"generate"}, args...)...)
		if code != cli.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%v: %d, %s\nwant %s", args, code, stderr, want)
		}
	}
}

func TestGenerateDryRun(t *testing.T) {
	code, stdout, stderr := execute(strings.NewReader(""), "generate", "--model", "m", "--dry-run")
	if code != cli.Done || !strings.Contains(stdout, "Write 10 new tasks") || !strings.Contains(stderr, "80 seed tasks") {
		t.Errorf("%d\n%s\n%s", code, stdout, stderr)
	}
}

// TestGenerateRefused: an endpoint that takes no key ends the run at once, and says so.
func TestGenerateRefused(t *testing.T) {
	endpoint(t, nil)
	t.Setenv("TEST_KEY", "sk-wrong-wrong")
	code, _, stderr := execute(strings.NewReader(""), "generate", "--model", "m", "--key-env", "TEST_KEY", "--out", filepath.Join(t.TempDir(), "a.jsonl"))
	if code != cli.Failed || !strings.Contains(stderr, "HTTP status 401") {
		t.Errorf("%d, %s", code, stderr)
	}
}

// TestGenerateInterrupted: Ctrl-C leaves no rows and a journal with which the same command goes on.
func TestGenerateInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endpoint(t, cancel)
	out := filepath.Join(t.TempDir(), "a.jsonl")
	args := []string{"generate", "--model", "m", "--key-env", "TEST_KEY", "--target", "4", "--concurrency", "1", "--out", out}
	code, _, stderr := executeContext(ctx, strings.NewReader(""), args...)
	if code != cli.Interrupted || !strings.Contains(stderr, out+".journal has what was answered so far; the same command goes on") {
		t.Fatalf("%d, %s", code, stderr)
	}
	if got := must(t, "", args...); !strings.Contains(got, "answers: 4 by m; 2 of them new") {
		t.Errorf("%s", got)
	}
}

func TestClassifyCommand(t *testing.T) {
	endpoint(t, nil)
	dir := write(t, map[string]string{"rows.jsonl": `{"instruction":"a","output":"1"}
{"instruction":"b","output":"2"}
{"instruction":"c","output":"3","category":"GEN"}
{"output":"no instruction"}
`})
	path := func(name string) string { return filepath.Join(dir, name) }
	args := []string{"classify", path("rows.jsonl"), "--max-bad", "1", "--out", path("out.jsonl")}
	code, stdout, stderr := execute(strings.NewReader(""), append(args, "--model", "m", "--key-env", "TEST_KEY")...)
	want := "QA           1\nIE           1\nGEN          0\nother        0\n3 rows in " + path("out.jsonl") + ": 2 were asked about, 1 had a category\n"
	if code != cli.Done || !strings.HasPrefix(stdout, want) || !strings.Contains(stderr, path("rows.jsonl")+":4: ") {
		t.Errorf("%d\n%s\n%s", code, stdout, stderr)
	}
	rows := read(t, path("out.jsonl"))
	for _, want := range []string{`"instruction": "a", "input": "", "output": "1"`, `"category": "QA"`, `"category": "IE"`, `"category": "GEN"`} {
		if !strings.Contains(rows, want) {
			t.Errorf("no %s in %s", want, rows)
		}
	}
	code, _, stderr = execute(strings.NewReader(""), append(args, "--overwrite", "--replay", "--journal", path("out.jsonl.journal"))...)
	if code != cli.Done || read(t, path("out.jsonl")) != rows {
		t.Errorf("replay: %d %s", code, stderr)
	}
	for want, more := range map[string][]string{
		"exists (--overwrite":                    {"--model", "m"},
		"--model is missing":                     {"--overwrite"},
		"no use for --model, --batch, --timeout": {"--overwrite", "--replay", "--model", "m", "--batch", "3", "--timeout", "1s"},
		"must be different files":                {"--overwrite", "--model", "m", "--journal", path("out.jsonl")},
		"--batch 0: want at least 1":             {"--overwrite", "--model", "m", "--batch", "0"},
	} {
		code, _, stderr := execute(strings.NewReader(""), append(args, more...)...)
		if code != cli.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%v: %d, %s\nwant %s", more, code, stderr, want)
		}
	}
}

func TestStatsCommand(t *testing.T) {
	dir := write(t, map[string]string{"rows.json": `[{"instruction":"Name the gene.","input":"N/A","output":"one two","category":"QA"}]`, "bad.jsonl": "{}\n"})
	file := filepath.Join(dir, "rows.json")
	got := must(t, "", "stats", file, file)
	for _, want := range []string{"2 rows\n", "QA                  2  100.0 %  22.8 % [F]", `empty in disguise: 2 ("N/A" 2)`, "repeated: 1 rows"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(must(t, "", "stats", "--json", "--tokenizer", own(t, "tokenizer", "sp.json"), file)), &m); err != nil || m["rows"] != 1.0 || m["tokens"] == nil {
		t.Errorf("%v, %v", err, m)
	}
	svg := filepath.Join(dir, "a.svg")
	must(t, "", "stats", file, "--plot", svg)
	if text := read(t, svg); !strings.HasPrefix(text, "<svg ") || !strings.Contains(text, "QA: 1 rows") {
		t.Errorf("%s", text)
	}
	if code, _, stderr := execute(strings.NewReader(""), "stats", file, "--plot", svg); code != cli.Usage || !strings.Contains(stderr, svg+" exists") {
		t.Errorf("%d, %s", code, stderr)
	}
	if code, _, stderr := execute(strings.NewReader(""), "stats", file, "--plot", svg+".png"); code != cli.Usage || !strings.Contains(stderr, "drawings are SVG") {
		t.Errorf("%d, %s", code, stderr)
	}
	code, _, stderr := execute(strings.NewReader(""), "stats", filepath.Join(dir, "bad.jsonl"))
	if code != cli.Failed || !strings.Contains(stderr, "bad.jsonl:1: ") {
		t.Errorf("%d, %s", code, stderr)
	}
}
