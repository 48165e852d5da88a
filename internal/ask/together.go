package ask

import (
	"context"
	"fmt"
	"maps"
)

// Together answers several requests at once, as a model on this machine does best.
type Together interface {
	// AskAll returns an answer to each request, in their order.
	AskAll(ctx context.Context, all []Request) ([]Answer, error)
}

// RunTogether is Run with a model that is asked size requests at a time: the first size of the job, the next, and so on;
// those of which the journal has all are left out, and of others what it has already counts. The answers of all are in
// the journal before the next are asked. There is nothing to wait for here, and no second attempt.
func RunTogether(ctx context.Context, j *Journal, m Together, size int, progress func(Totals), job Job) (Totals, error) {
	t := j.totals()
	if size < 1 {
		return t, fmt.Errorf("%d requests at a time: want at least 1", size)
	}
	tell := func() {
		if progress != nil {
			now := t
			now.Models = maps.Clone(t.Models)
			progress(now)
		}
	}
	tell()
	for from := 0; ; from += size {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		var all []Request
		for len(all) < size {
			r, ok := job.Request(from + len(all))
			if !ok {
				break
			}
			all = append(all, r)
		}
		if len(all) == 0 {
			return t, nil
		}
		answers, err := answerAll(ctx, j, m, all, &t)
		if err != nil {
			return t, err
		}
		for i, a := range answers {
			t.Taken++
			if enough, err := job.Take(all[i], a); err != nil || enough {
				return t, err
			}
		}
		tell()
	}
}

// answerAll finds the answers to some requests: in the journal where that has all of them, and else asks all. What the
// journal has already counts.
func answerAll(ctx context.Context, j *Journal, m Together, all []Request, t *Totals) ([]Answer, error) {
	answers := make([]Answer, len(all))
	var missing []int
	for i, r := range all {
		a, ok, err := j.answer(r)
		if err != nil {
			return nil, err
		}
		if answers[i] = a; !ok {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return answers, nil
	}
	got, err := m.AskAll(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("requests %d to %d: %w", all[0].Number, all[len(all)-1].Number, err)
	}
	if len(got) != len(all) {
		return nil, fmt.Errorf("%d answers to %d requests", len(got), len(all))
	}
	for _, i := range missing {
		answers[i] = got[i]
		t.Asked++
		t.add(got[i])
	}
	return answers, j.addAll(all, got, missing)
}
