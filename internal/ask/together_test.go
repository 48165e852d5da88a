package ask

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// chorus answers several requests with how many there were, and remembers which.
type chorus struct {
	asked [][]int
	stop  func(call int) error
	short bool
}

func (c *chorus) AskAll(_ context.Context, all []Request) (answers []Answer, err error) {
	var numbers []int
	for _, r := range all {
		numbers = append(numbers, r.Number)
		a := reply(r)
		a.Text, a.LogLikelihoods = fmt.Sprint(a.Text, " of ", len(all)), map[string]float64{"x": -1.5}
		answers = append(answers, a)
	}
	c.asked = append(c.asked, numbers)
	if c.stop != nil {
		err = c.stop(len(c.asked))
	}
	if c.short {
		answers = answers[1:]
	}
	return answers, err
}

// TestTogether: wherever a journal ends, a run goes on from there, asks the same requests together as one that was not
// ended, and comes to the same answers.
func TestTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, q, c := create(t, path), &quiz{n: 8}, &chorus{}
	var told []int
	totals, err := RunTogether(t.Context(), j, c, 3, func(t Totals) { told = append(told, t.Taken) }, q)
	if err != nil || totals.Asked != 8 || totals.Usage.Prompt != 80 || !slices.Equal(told, []int{0, 3, 6, 8}) || fmt.Sprint(c.asked) != "[[0 1 2] [3 4 5] [6 7]]" {
		t.Fatalf("%v, %+v, told %v, asked %v", err, totals, told, c.asked)
	}
	if q.got[7] != "7 answer to question 7 of 2" {
		t.Errorf("%q", q.got)
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(whole), `"log_likelihoods":{"x":-1.5}`) {
		t.Errorf("%s", whole)
	}
	for cut := 0; cut < len(whole); cut += 31 {
		if err := os.WriteFile(path, whole[:cut], 0o666); err != nil {
			t.Fatal(err)
		}
		j, got := create(t, path), &quiz{n: 8}
		before := j.Answers()
		totals, err := RunTogether(t.Context(), j, &chorus{}, 3, nil, got)
		if err != nil || !slices.Equal(got.got, q.got) || totals.Asked != 8-before {
			t.Fatalf("cut at %d: %v, %q", cut, err, got.got)
		}
		j.Close()
		there, err := Read(path)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		again := &quiz{n: 8}
		if _, err := Replay(t.Context(), there, again); err != nil || !slices.Equal(again.got, q.got) {
			t.Fatalf("cut at %d, replay: %v, %q", cut, err, again.got)
		}
	}
}

func TestTogetherEnds(t *testing.T) {
	run := func(c *chorus, size int, q *quiz) (Totals, error) {
		return RunTogether(t.Context(), create(t, filepath.Join(t.TempDir(), "j")), c, size, nil, q)
	}
	broken := errors.New("broken")
	if _, err := run(&chorus{stop: func(int) error { return broken }}, 3, &quiz{n: 9}); !errors.Is(err, broken) || !strings.Contains(err.Error(), "requests 0 to 2") {
		t.Errorf("the model's error: %v", err)
	}
	if _, err := run(&chorus{}, 3, &quiz{n: 9, fail: broken}); !errors.Is(err, broken) {
		t.Errorf("the job's error: %v", err)
	}
	if q := (&quiz{n: 9, enough: 4}); true {
		if totals, err := run(&chorus{}, 3, q); err != nil || len(q.got) != 4 || totals.Asked != 6 {
			t.Errorf("enough: %v, %d taken, %d asked", err, len(q.got), totals.Asked)
		}
	}
	if _, err := run(&chorus{short: true}, 3, &quiz{n: 9}); err == nil || !strings.Contains(err.Error(), "2 answers to 3 requests") {
		t.Errorf("an answer is missing: %v", err)
	}
	if _, err := run(&chorus{}, 0, &quiz{n: 9}); err == nil || !strings.Contains(err.Error(), "0 requests at a time") {
		t.Errorf("none at a time: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "j")
	j := create(t, path)
	_, err := RunTogether(ctx, j, &chorus{stop: func(call int) error {
		if call == 2 {
			cancel()
		}
		return ctx.Err()
	}}, 3, nil, &quiz{n: 9})
	if !errors.Is(err, context.Canceled) || j.Answers() != 3 {
		t.Errorf("cancelled: %v, %d answers", err, j.Answers())
	}
}
