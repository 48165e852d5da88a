package profile

import (
	"testing"
	"time"
)

func TestEachMomentCountsOnce(t *testing.T) {
	var now time.Time
	w := &Watch{clock: func() time.Time { return now }}
	wait := func(d time.Duration) { now = now.Add(d) }
	now = now.Add(time.Hour)
	w.Take() // what was before does not count
	wait(1)
	linear := w.Enter(Forward)
	wait(2)
	branch := w.Enter(Branch)
	wait(4)
	w.Leave(branch)
	wait(8)
	w.Leave(linear)
	wait(16)
	loss := w.Enter(Loss)
	wait(32)
	head := w.Enter(Forward) // of the head: it counts for the loss
	wait(64)
	packing := w.Enter(Packing)
	wait(128)
	w.Leave(packing)
	w.Leave(head)
	wait(256)
	w.Leave(loss)
	wait(512)
	got := w.Take()
	want := [Works]time.Duration{Other: 1 + 16 + 512, Forward: 2 + 8, Branch: 4, Loss: 32 + 64 + 128 + 256}
	if got.Spent != want {
		t.Errorf("got %v, want %v", got.Spent, want)
	}
	if got.Total() != 1023 {
		t.Errorf("in all %d, want 1023", got.Total())
	}
	wait(5)
	if got := w.Take(); got.Spent != [Works]time.Duration{Other: 5} {
		t.Errorf("after Take: %v", got.Spent)
	}
}

func TestNoWatch(t *testing.T) {
	var w *Watch
	w.Leave(w.Enter(Loss))
}

func TestEachKindHasAName(t *testing.T) {
	seen := map[string]bool{"": true}
	for k := range Works {
		if seen[k.String()] {
			t.Errorf("kind %d is called %q", k, k)
		}
		seen[k.String()] = true
	}
}
