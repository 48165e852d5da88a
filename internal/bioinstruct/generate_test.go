package bioinstruct

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/rows"
)

// asWriter makes the test's binary a process that generates, to be killed.
const asWriter = "BIOINSTRUCT_AS_WRITER"

func TestMain(m *testing.M) {
	if args := os.Getenv(asWriter); args != "" {
		url, journal, _ := strings.Cut(args, " ")
		if _, err := generate(context.Background(), url, journal, 60); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// server answers as a model would: what it says depends on the prompt alone. Now and then it fails, and its answers take
// so long that they come in another order.
func server(t *testing.T, delay time.Duration) *httptest.Server {
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q ask.Request
		if json.NewDecoder(r.Body).Decode(&q) != nil {
			return // the client was killed
		}
		n := calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if n%5 == 3 {
			w.Header().Set("Retry-After-Ms", "5")
			w.WriteHeader([]int{429, 500, 503}[n%3])
			return
		}
		h := fnv.New32a()
		io.WriteString(h, q.Messages[0].Content)
		time.Sleep(delay * time.Duration(h.Sum32()%5))
		json.NewEncoder(w).Encode(map[string]any{
			"id": "x", "model": "m",
			"choices": []any{map[string]any{"finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": made(h.Sum32())}}},
			"usage":   map[string]any{"prompt_tokens": 1000, "completion_tokens": 200},
		})
	}))
	t.Cleanup(s.Close)
	return s
}

// made is an answer with 4 tasks, of which one is too short and one is the same in every answer.
func made(n uint32) string {
	word := func(k uint32) string { return fmt.Sprintf("%c%x", 'a'+byte(k%26), (n+1)*(k*2654435761+97)) }
	return fmt.Sprintf("Instruction: Explain how %s changes %s when %s is low.\nInput: N/A\nOutput: It rises.\n###\nTask 5\nInstruction: Too short.\nInput: <noinput>\nOutput: x\n"+
		"###\nTask 6\nInstruction: Which organ makes insulin in people?\nInput: <noinput>\nOutput: The pancreas.\n###\nTask 7\nInstruction: List the %s genes that %s needs for %s.\nInput: a %s\nOutput: one\n\ntwo",
		word(1), word(2), word(3), word(4), word(5), word(6), word(7))
}

func recipe(t testing.TB) Recipe {
	t.Helper()
	seeds, err := Seeds()
	if err != nil {
		t.Fatal(err)
	}
	return Recipe{Sampling: Sampling{Model: "m"}, Seed: 7, PerRequest: 4, Prompt: DefaultPrompt, Seeds: seeds}
}

func generate(ctx context.Context, url, journal string, target int) (*Result, error) {
	seeds, err := Seeds()
	if err != nil {
		return nil, err
	}
	m, err := ask.NewOpenAI(ask.Endpoint{BaseURL: url, Key: "sk-never-to-be-seen"})
	if err != nil {
		return nil, err
	}
	o := ask.Defaults()
	o.Backoff, o.MaxBackoff = time.Millisecond, 10*time.Millisecond
	r := Recipe{Sampling: Sampling{Model: "m"}, Seed: 7, PerRequest: 4, Prompt: DefaultPrompt, Seeds: seeds}
	return Generate(ctx, journal, m, r, Limits{Target: target, MaxBarren: 20}, Options{Ask: o, Workers: 2})
}

// encoded are rows as a file has them.
func encoded(t *testing.T, all []rows.Row) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := rows.Encode(&b, ".jsonl", func(yield func(rows.Row, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGenerate(t *testing.T) {
	s := server(t, 2*time.Millisecond)
	journal := filepath.Join(t.TempDir(), "journal.jsonl")
	got, err := generate(t.Context(), s.URL, journal, 60)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 60 || !got.Enough || got.Rejected[TooShort] == 0 || got.Rejected[LikeAccepted] == 0 || got.Totals.Failures == 0 {
		t.Errorf("%d rows, rejected %v, %+v", len(got.Rows), got.Rejected, got.Totals)
	}
	if r := got.Rows[0]; r.ID != "0-1" || r.Input != "" || r.Output != "It rises." || r.Source != "generated" {
		t.Errorf("first row %+v", r)
	}
	if r := got.Rows[2]; r.ID != "0-4" || r.Output != "one\n\ntwo" {
		t.Errorf("third row %+v", r)
	}
	want := encoded(t, got.Rows)
	for _, workers := range []int{1, 3} {
		again, err := Replay(t.Context(), journal, 0, Options{Workers: workers})
		if err != nil || encoded(t, again.Rows) != want {
			t.Errorf("replay with %d workers: %v, other rows", workers, err)
		}
	}
	if fewer, err := Replay(t.Context(), journal, 10, Options{}); err != nil || !strings.HasPrefix(want, encoded(t, fewer.Rows)) || len(fewer.Rows) != 10 {
		t.Errorf("replay of 10: %v", err)
	}
	if text, err := os.ReadFile(journal); err != nil || strings.Contains(string(text), "never-to-be-seen") {
		t.Errorf("%v, or the key is in the journal", err)
	}
	// The same again asks nothing; more goes on.
	again, err := generate(t.Context(), s.URL, journal, 60)
	if err != nil || again.Totals.Asked != 0 || encoded(t, again.Rows) != want {
		t.Errorf("again: %v, %d asked", err, again.Totals.Asked)
	}
	more, err := generate(t.Context(), s.URL, journal, 70)
	if err != nil || !strings.HasPrefix(encoded(t, more.Rows), want) || len(more.Rows) != 70 {
		t.Errorf("10 more: %v", err)
	}
}

// TestKilled: a process that is killed again and again makes, in the end, what one makes that is left alone.
func TestKilled(t *testing.T) {
	s := server(t, 3*time.Millisecond)
	dir := t.TempDir()
	alone, err := generate(t.Context(), s.URL, filepath.Join(dir, "alone"), 60)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(dir, "killed")
	killed := 0
	for at := int64(1000); ; at += 12000 {
		c := exec.Command(exe)
		c.Env = append(os.Environ(), asWriter+"="+s.URL+" "+journal)
		var errs bytes.Buffer
		c.Stderr = &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		if killAt(t, c, journal, at, ended) {
			killed++
			continue
		}
		if errs.Len() > 0 {
			t.Fatal(errs.String())
		}
		break
	}
	if killed < 3 {
		t.Errorf("killed %d times only", killed)
	}
	got, err := generate(t.Context(), s.URL, journal, 60)
	if err != nil || encoded(t, got.Rows) != encoded(t, alone.Rows) {
		t.Errorf("after %d kills: %v, other rows", killed, err)
	}
}

// killAt kills a process when its journal has so many bytes, and says whether it did.
func killAt(t *testing.T, c *exec.Cmd, journal string, size int64, ended chan error) bool {
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Log(err)
			}
			return false
		case <-time.After(time.Millisecond):
		}
		if info, err := os.Stat(journal); err == nil && info.Size() >= size {
			err := c.Process.Kill()
			<-ended
			if err != nil && !errors.Is(err, os.ErrProcessDone) { // which it may be since the file was looked at
				t.Error(err)
			}
			return err == nil
		}
	}
}

func TestBarren(t *testing.T) {
	m := modelFunc(func(ask.Request) string { return "I am sorry." })
	o := ask.Defaults()
	got, err := Generate(t.Context(), filepath.Join(t.TempDir(), "j"), m, recipe(t), Limits{Target: 5, MaxBarren: 6}, Options{Ask: o})
	if err == nil || !strings.Contains(err.Error(), "6 requests in a row gave nothing") || got.Rejected[Unreadable] != 6 {
		t.Errorf("%v, %v", err, got.Rejected)
	}
	got, err = Generate(t.Context(), filepath.Join(t.TempDir(), "j"), m, recipe(t), Limits{Target: 5, MaxRequests: 9}, Options{Ask: o})
	if err != nil || got.Requests != 9 || got.Enough {
		t.Errorf("%v, %+v", err, got)
	}
}

// modelFunc is a model that says something to each request.
type modelFunc func(r ask.Request) string

func (f modelFunc) Ask(_ context.Context, r ask.Request) (ask.Answer, error) {
	return ask.Answer{Text: f(r), Finish: "stop", Model: "m"}, nil
}

func TestGenerateRefused(t *testing.T) {
	_, err := Generate(t.Context(), filepath.Join(t.TempDir(), "j"), nil, Recipe{Prompt: "x", Sampling: Sampling{Temperature: new(3.0), TopP: new(0.0), MaxTokens: -1}}, Limits{MaxRequests: -1}, Options{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"no model", "temperature 3", "top_p 0", "-1 and 0 tokens", "no {count}", "no {tasks}", "0 tasks a request", "0 seeds", "a target of 0", "-1 requests", "concurrency 0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestRequests: prompts depend on seed and number alone, show 3 different seeds, and come to all of them.
func TestRequests(t *testing.T) {
	r := recipe(t)
	shown := map[int]int{}
	for i := range 400 {
		seen := map[int]bool{}
		for _, s := range choose(r.Seed, i, len(r.Seeds), examples) {
			seen[s] = true
			shown[s]++
		}
		if len(seen) != examples {
			t.Fatalf("request %d shows %v", i, seen)
		}
	}
	if len(shown) != len(r.Seeds) {
		t.Errorf("%d of %d seeds are shown", len(shown), len(r.Seeds))
	}
	text := r.Request(3).Messages[0].Content
	if text != r.Request(3).Messages[0].Content || text == r.Request(4).Messages[0].Content {
		t.Error("the prompt is not the request's own")
	}
	for _, want := range []string{"Write 4 new tasks, numbered from 4 on, after the 3 examples", "###\nTask 1\nInstruction: ", "###\nTask 4\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.ContainsAny(text, "{}") {
		t.Errorf("placeholders are left:\n%s", text)
	}
}

// TestWanted: towards the end no more requests are under way than are needed.
func TestWanted(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	m := modelFunc(func(r ask.Request) string {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return "Instruction: Describe the " + strconv.Itoa(asked*7919) + strings.Repeat(" x"+strconv.Itoa(asked), 5) + "\nOutput: y"
	})
	o := ask.Defaults()
	o.Concurrency = 50
	r := recipe(t)
	r.PerRequest = 1
	if _, err := Generate(t.Context(), filepath.Join(t.TempDir(), "j"), m, r, Limits{Target: 8}, Options{Ask: o}); err != nil || asked > 9 {
		t.Errorf("%v, %d requests for 8 tasks", err, asked)
	}
}
