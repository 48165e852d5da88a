package ask

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// quiz is a job of n questions, or enough of their answers.
type quiz struct {
	n, enough int
	got       []string
	fail      error
}

func (q *quiz) Request(i int) (Request, bool) {
	return Request{Number: i, Model: "m", Messages: []Message{{"user", fmt.Sprint("question ", i)}}}, i < q.n
}

func (q *quiz) Take(r Request, a Answer) (bool, error) {
	q.got = append(q.got, fmt.Sprint(r.Number, " ", a.Text))
	return len(q.got) == q.enough, q.fail
}

func (q *quiz) Wanted() int { return 1000 }

// modelFunc is a Model that is a function.
type modelFunc func(ctx context.Context, r Request) (Answer, error)

func (f modelFunc) Ask(ctx context.Context, r Request) (Answer, error) { return f(ctx, r) }

func reply(r Request) Answer {
	return Answer{Text: "answer to " + r.Messages[0].Content, Finish: "stop", Model: "m", Usage: Usage{Prompt: 10, Completion: 5}}
}

func create(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Create(path, map[string]int{"job": 1}, map[string]int{"target": 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func temporary(after time.Duration) error {
	return &CallError{Err: errors.New("busy"), Status: 429, Temporary: true, After: after}
}

// TestOrder: answers that come in any order are taken in that of the questions, and the same by a replay.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "j")
		var most, now int
		var mu sync.Mutex
		m := modelFunc(func(ctx context.Context, r Request) (Answer, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Duration(r.Number*7%11+1) * time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return reply(r), nil
		})
		j, q := create(t, path), &quiz{n: 30}
		totals, err := Run(t.Context(), j, m, Defaults(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(q.got) != 30 || q.got[11] != "11 answer to question 11" || !slices.IsSortedFunc(q.got, func(a, b string) int {
			var x, y int
			fmt.Sscan(a, &x)
			fmt.Sscan(b, &y)
			return x - y
		}) {
			t.Errorf("%d answers: %q", len(q.got), q.got)
		}
		if most != Defaults().Concurrency {
			t.Errorf("%d requests at a time, want %d", most, Defaults().Concurrency)
		}
		if totals.Asked != 30 || totals.Taken != 30 || totals.Usage != (Usage{Prompt: 300, Completion: 150}) || totals.Models["m"] != 30 {
			t.Errorf("totals %+v", totals)
		}
		j.Close()
		there, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		again := &quiz{n: 30}
		if _, err := Replay(t.Context(), there, again); err != nil || !slices.Equal(again.got, q.got) {
			t.Errorf("replay: %v, %q", err, again.got)
		}
		var settings map[string]int
		if err := there.Settings(&settings); err != nil || settings["target"] != 7 {
			t.Errorf("settings %v, %v", settings, err)
		}
	})
}

// TestRetries: how long a run waits between attempts, by a clock of its own.
func TestRetries(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		failures int
		min, max time.Duration
		want     string
	}{
		"back-off doubles":         {temporary(0), 3, 3500 * time.Millisecond, 7 * time.Second, ""},
		"as long as it asks":       {temporary(50 * time.Second), 2, 100 * time.Second, 101 * time.Second, ""},
		"longer than anyone waits": {temporary(time.Hour), 1, 0, 0, "asks to wait 1h0m0s, and 15m0s is the longest"},
		"for good":                 {&CallError{Err: errors.New("no such model"), Status: 404}, 1, 0, 0, "request 0: no such model"},
		"too often":                {temporary(0), 99, 0, time.Hour, "request 0 failed 8 times"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := 0
				m := modelFunc(func(_ context.Context, r Request) (Answer, error) {
					if failed < c.failures {
						failed++
						return Answer{}, c.err
					}
					return reply(r), nil
				})
				j, begin := create(t, filepath.Join(t.TempDir(), "j")), time.Now()
				o := Defaults()
				o.Concurrency = 1
				totals, err := Run(t.Context(), j, m, o, &quiz{n: 1})
				took := time.Since(begin)
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("%v, want %s", err, c.want)
					}
					return
				}
				if err != nil || took < c.min || took > c.max || totals.Failures != c.failures {
					t.Errorf("%v after %v, want %v to %v; %d failures", err, took, c.min, c.max, totals.Failures)
				}
			})
		})
	}
}

// TestTimeout: an attempt without an answer is given up and made again.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		m := modelFunc(func(ctx context.Context, r Request) (Answer, error) {
			if first {
				first = false
				<-ctx.Done()
				return Answer{}, ctx.Err()
			}
			return reply(r), nil
		})
		var last error
		o := Defaults()
		o.Concurrency, o.Timeout = 1, 30*time.Second
		o.Progress = func(t Totals) {
			if t.LastError != nil {
				last = t.LastError
			}
		}
		begin := time.Now()
		_, err := Run(t.Context(), create(t, filepath.Join(t.TempDir(), "j")), m, o, &quiz{n: 1})
		if took := time.Since(begin); err != nil || took < 30*time.Second || took > 32*time.Second || last == nil || !strings.Contains(last.Error(), "no answer within 30s") {
			t.Errorf("%v after %v; told of %v", err, took, last)
		}
	})
}

// TestRates: requests and tokens a minute are kept from the first second on.
func TestRates(t *testing.T) {
	for name, c := range map[string]struct {
		requests, tokens float64
		want             time.Duration
	}{
		"requests": {60, 0, 19 * time.Second},
		"tokens":   {0, 150, 19 * 6 * time.Second}, // of 15 each
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Defaults()
				o.RequestsPerMinute, o.TokensPerMinute = c.requests, c.tokens
				begin := time.Now()
				m := modelFunc(func(_ context.Context, r Request) (Answer, error) { return reply(r), nil })
				_, err := Run(t.Context(), create(t, filepath.Join(t.TempDir(), "j")), m, o, &quiz{n: 20})
				// A few requests begin before the first answers tell how many tokens they have.
				if took := time.Since(begin); err != nil || took < c.want*8/10 || took > c.want*11/10 {
					t.Errorf("%v after %v, want about %v", err, took, c.want)
				}
			})
		})
	}
}

// TestGoesOn: a run that was ended goes on where it was, and asks nothing twice.
func TestGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	asked := map[int]int{}
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	m := modelFunc(func(ctx context.Context, r Request) (Answer, error) {
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		asked[r.Number]++
		if len(asked) == 5 {
			cancel()
		}
		return reply(r), nil
	})
	o := Defaults()
	o.Concurrency = 2
	j := create(t, path)
	if _, err := Run(ctx, j, m, o, &quiz{n: 12}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	j.Close()
	answered := create(t, path)
	before := answered.Answers()
	q := &quiz{n: 12}
	totals, err := Run(t.Context(), answered, m, o, q)
	if err != nil || len(q.got) != 12 || before == 0 || totals.Asked != 12-before {
		t.Errorf("%v, %d answers, %d of them there, %d asked", err, len(q.got), before, totals.Asked)
	}
	for n, times := range asked {
		if times > 2 || times == 2 && n > 6 {
			t.Errorf("question %d was asked %d times", n, times)
		}
	}
}

// TestTorn: whatever the last write left behind, the journal is read up to there and goes on.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	m := modelFunc(func(_ context.Context, r Request) (Answer, error) { return reply(r), nil })
	j, q := create(t, path), &quiz{n: 3}
	if _, err := Run(t.Context(), j, m, Defaults(), q); err != nil {
		t.Fatal(err)
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut < len(whole); cut += 5 {
		if err := os.WriteFile(path, whole[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		j, got := create(t, path), &quiz{n: 3}
		if _, err := Run(t.Context(), j, m, Defaults(), got); err != nil || !slices.Equal(got.got, q.got) {
			t.Fatalf("cut at %d: %v, %q", cut, err, got.got)
		}
		j.Close()
	}
}

func TestJournalRefused(t *testing.T) {
	const job, request, answer = `{"kind":"job","version":1,"job":{"a":1}}` + "\n", `{"kind":"request","n":0,"request":{"model":"m"}}` + "\n", `{"kind":"answer","n":0,"answer":{"text":"x"}}` + "\n"
	for want, text := range map[string]string{
		"empty, not a journal":                         "",
		"line 1: not a record of a journal":            "hello\n",
		`line 1: kind "request": the first line`:       request,
		"version 9 of the format":                      strings.Replace(job, `"version":1`, `"version":9`, 1),
		"line 2: an answer to request 0, which is not": job + answer,
		"line 4: a second answer to request 0":         job + request + answer + answer,
		`line 2: kind "x"`:                             job + `{"kind":"x","n":1}` + "\n",
		"line 2: a record of kind \"answer\" without":  job + `{"kind":"answer"}` + "\n",
	} {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestOtherJob(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := create(t, path)
	if _, err := Create(path, map[string]int{"job": 1}, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two writers: %v", err)
	}
	m := modelFunc(func(_ context.Context, r Request) (Answer, error) { return reply(r), nil })
	refuses := modelFunc(func(context.Context, Request) (Answer, error) { return Answer{}, errors.New("no") })
	if _, err := Run(t.Context(), j, refuses, Defaults(), &quiz{n: 1}); err == nil {
		t.Fatal("no error")
	}
	j.Close()
	// What nobody has answered is no loss.
	unanswered, err := Create(path, map[string]int{"job": 0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unanswered.Close()
	j = create(t, path)
	if _, err := Run(t.Context(), j, m, Defaults(), &quiz{n: 1}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if _, err := Create(path, map[string]any{"job": 2, "b": "x"}, nil); err == nil || !strings.Contains(err.Error(), "job is 1 there and 2 here") || !strings.Contains(err.Error(), `b is absent there and "x" here`) {
		t.Errorf("another job: %v", err)
	}
	j = create(t, path)
	if _, err := Run(t.Context(), j, m, Defaults(), other{&quiz{n: 1}}); err == nil || !strings.Contains(err.Error(), "request 0 is another one here; model is \"m\" there and \"n\" here") {
		t.Errorf("another request: %v", err)
	}
}

// other is a quiz for another model.
type other struct{ *quiz }

func (o other) Request(i int) (Request, bool) {
	r, ok := o.quiz.Request(i)
	r.Model = "n"
	return r, ok
}

func TestJobEnds(t *testing.T) {
	m := modelFunc(func(_ context.Context, r Request) (Answer, error) { return reply(r), nil })
	q := &quiz{n: 1000, enough: 5}
	totals, err := Run(t.Context(), create(t, filepath.Join(t.TempDir(), "j")), m, Defaults(), q)
	if err != nil || len(q.got) != 5 || totals.Asked > 5+ahead*Defaults().Concurrency {
		t.Errorf("%v, %d taken, %d asked", err, len(q.got), totals.Asked)
	}
	broken := errors.New("broken")
	if _, err := Run(t.Context(), create(t, filepath.Join(t.TempDir(), "j")), m, Defaults(), &quiz{n: 9, fail: broken}); !errors.Is(err, broken) {
		t.Errorf("the job's own error: %v", err)
	}
}

// TestFullDisk: that the journal cannot be written is said once, however many answers are lost by it.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := create(t, path)
	var all sync.WaitGroup
	all.Add(Defaults().Concurrency)
	full := sync.OnceFunc(func() { j.file.Close() })
	m := modelFunc(func(_ context.Context, r Request) (Answer, error) {
		all.Done()
		all.Wait()
		full()
		return reply(r), nil
	})
	if _, err := Run(t.Context(), j, m, Defaults(), &quiz{n: 4}); err == nil || strings.Count(err.Error(), "already closed") != 1 {
		t.Errorf("%v", err)
	}
}

func TestOptionsCheck(t *testing.T) {
	err := Options{Concurrency: -1, RequestsPerMinute: -1, TokensPerMinute: -1, MaxWait: -1}.Check()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"concurrency -1", "-1 requests a minute", "-1 tokens a minute", "timeout 0s", "0 attempts", "longest wait -1ns"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
