package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const testKey = "sk-very-secret-0123456789"

// completion is what a server that works says.
func completion(text string) string {
	body, _ := json.Marshal(map[string]any{
		"id": "c1", "object": "chat.completion", "created": 1, "model": "m-0613",
		"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": text}}},
		"usage":   map[string]any{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
	})
	return string(body)
}

func says(status int, header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// cut begins a response and breaks the connection.
func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `{"id":"c1","choices":[{"index":0,`)
	w.(http.Flusher).Flush()
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		c.Close()
	}
}

// stream answers with half a stream of events, which nobody asked for.
func stream(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\ndata: {\"choi")
}

func endpoint(t *testing.T, h http.HandlerFunc) Model {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	m, err := NewOpenAI(Endpoint{BaseURL: s.URL + "/v1", Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOpenAI(t *testing.T) {
	// What OpenAI's library looks for in the environment must not matter.
	t.Setenv("OPENAI_API_KEY", "sk-of-the-environment")
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/")
	t.Setenv("OPENAI_ORG_ID", "org-x")
	var got struct {
		path, key, org string
		body           map[string]any
	}
	m := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		got.path, got.key, got.org = r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("OpenAI-Organization")
		if err := json.NewDecoder(r.Body).Decode(&got.body); err != nil {
			t.Error(err)
		}
		says(200, nil, completion("hello "+testKey))(w, r)
	})
	temperature := 0.25
	a, err := m.Ask(t.Context(), Request{Model: "m", Messages: []Message{{"system", "s"}, {"user", "u"}, {"assistant", "a"}}, Temperature: &temperature, MaxTokens: 9, MaxCompletionTokens: 8})
	if err != nil || a.Text != "hello [key]" || a.Finish != "stop" || a.Model != "m-0613" || a.ID != "c1" || a.Usage != (Usage{Prompt: 12, Completion: 3}) {
		t.Errorf("%+v, %v", a, err)
	}
	if got.path != "/v1/chat/completions" || got.key != "Bearer "+testKey || got.org != "" {
		t.Errorf("%+v", got)
	}
	text, _ := json.Marshal(got.body)
	want := `{"max_completion_tokens":8,"max_tokens":9,"messages":[{"content":"s","role":"system"},{"content":"u","role":"user"},{"content":"a","role":"assistant"}],"model":"m","temperature":0.25}`
	if string(text) != want {
		t.Errorf("asked %s\nwant  %s", text, want)
	}
}

// TestFailures: what each way of failing means.
func TestFailures(t *testing.T) {
	apiError := func(code, message string) string {
		return fmt.Sprintf(`{"error":{"code":%q,"message":%q,"param":null,"type":"x"}}`, code, message)
	}
	for name, c := range map[string]struct {
		serve     http.HandlerFunc
		temporary bool
		after     time.Duration
		want      string
	}{
		"429":               {says(429, map[string]string{"Retry-After": "17"}, apiError("rate_limit_exceeded", "slow down")), true, 17 * time.Second, "HTTP status 429: rate_limit_exceeded slow down"},
		"429, milliseconds": {says(429, map[string]string{"Retry-After-Ms": "250"}, "{}"), true, 250 * time.Millisecond, "429"},
		"account empty":     {says(429, nil, apiError("insufficient_quota", "pay")), false, 0, "pay"},
		"500":               {says(500, nil, "<html>oops"), true, 0, "HTTP status 500: Internal Server Error"},
		"503":               {says(503, map[string]string{"Retry-After": "soon"}, ""), true, 0, "HTTP status 503"},
		"401, key repeated": {says(401, nil, apiError("invalid_api_key", "Incorrect key: "+testKey)), false, 0, "Incorrect key: [key]"},
		"no such model":     {says(404, nil, apiError("model_not_found", "no model m")), false, 0, "no model m"},
		"cut connection":    {cut, true, 0, "EOF"},
		"garbage":           {says(200, nil, `{"choices": [}`), true, 0, "parsing"},
		"not JSON":          {says(200, map[string]string{"Content-Type": "text/html"}, "<html>"), true, 0, "HTTP status 200: the response is text/html, not JSON: is the base URL right?"},
		"half a stream":     {stream, true, 0, "text/event-stream"},
		"no choices":        {says(200, nil, `{"id":"c","choices":[]}`), true, 0, "no choices"},
		"no end":            {says(200, nil, `{"id":"c","choices":[{"message":{"content":"x"}}]}`), true, 0, "why the answer ended"},
		"too long":          {says(200, nil, `{"id":"`+strings.Repeat("x", maxResponse)+`"}`), true, 0, "more than 16777216 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := endpoint(t, c.serve).Ask(t.Context(), Request{Model: "m", Messages: []Message{{"user", "u"}}})
			call, ok := errors.AsType[*CallError](err)
			if !ok || call.Temporary != c.temporary || call.After != c.after || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), testKey) {
				t.Errorf("%v, %+v", err, call)
			}
		})
	}
	for name, body := range map[string]string{
		"OpenAI":    apiError("context_length_exceeded", "This model's maximum context length is 4096 tokens."),
		"llama.cpp": `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`,
		"vLLM":      `{"error":{"code":400,"message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError"}}`,
		"neither":   apiError("invalid", "no"),
	} {
		_, err := endpoint(t, says(400, nil, body)).Ask(t.Context(), Request{Model: "m", Messages: []Message{{"user", "u"}}})
		if call, ok := errors.AsType[*CallError](err); !ok || call.Temporary || call.TooLong != (name != "neither") {
			t.Errorf("%s: %+v", name, call)
		}
	}
	a, err := endpoint(t, says(400, nil, apiError("content_filter", "no"))).Ask(t.Context(), Request{Model: "m", Messages: []Message{{"user", "u"}}})
	if err != nil || a.Finish != "content_filter" || a.Text != "" {
		t.Errorf("content filter: %+v, %v", a, err)
	}
	gone, err := NewOpenAI(Endpoint{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = gone.Ask(t.Context(), Request{Model: "m"})
	if call, ok := errors.AsType[*CallError](err); !ok || !call.Temporary || call.Status != 0 {
		t.Errorf("nobody there: %v", err)
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
		"1.5":                           1500 * time.Millisecond,
		"-3":                            0,
		"NaN":                           0,
		"1e300":                         24000 * time.Hour,
		"":                              0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestBaseURL(t *testing.T) {
	for _, u := range []string{"", "localhost:8080", "ftp://host", "http://", "http://user:hunter2@\x7f/", "ftp://user:hunter2@host"} {
		if _, err := NewOpenAI(Endpoint{BaseURL: u}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// TestMisbehaving: a run through a server that fails in turn in every way it can. All answers come, and the key is nowhere in
// the journal.
func TestMisbehaving(t *testing.T) {
	faults := []http.HandlerFunc{
		says(429, map[string]string{"Retry-After-Ms": "20"}, "{}"), says(500, nil, testKey), cut, says(200, nil, "{"), says(200, nil, `{"choices":[]}`), stream,
		func(_ http.ResponseWriter, r *http.Request) {
			select { // slow
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		},
		says(502, nil, `{"error":{"message":"`+testKey+`"}}`),
	}
	var mu sync.Mutex
	calls := 0
	m := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		n := calls
		calls++
		mu.Unlock()
		if n%2 == 0 {
			faults[n/2%len(faults)](w, r)
			return
		}
		var q Request
		if err := json.Unmarshal(body, &q); err != nil {
			t.Error(err)
			return
		}
		says(200, nil, completion("answer to "+q.Messages[0].Content))(w, r)
	})
	o := Defaults()
	o.Timeout, o.Backoff, o.MaxBackoff, o.Attempts = time.Second, time.Millisecond, 2*time.Millisecond, 50
	path := filepath.Join(t.TempDir(), "j")
	q := &quiz{n: 25}
	totals, err := Run(context.Background(), create(t, path), m, o, q)
	if err != nil || len(q.got) != 25 || q.got[24] != "24 answer to question 24" || totals.Failures < len(faults) {
		t.Errorf("%v, %d failures, %q", err, totals.Failures, q.got)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), testKey) {
		t.Errorf("%v; the key is in the journal: %v", err, strings.Contains(string(text), testKey))
	}
	if !strings.Contains(string(text), "[key]") {
		t.Error("the server's echo of the key is not in the journal: the test tests nothing")
	}
}
