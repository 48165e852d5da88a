package published

import (
	"strings"
	"testing"
)

func TestFigures(t *testing.T) {
	seen := map[[4]string]bool{}
	for _, f := range Figures() {
		key := [4]string{f.Paper, f.Task, f.Model, f.Split}
		if seen[key] {
			t.Errorf("%v twice", key)
		}
		seen[key] = true
		if f.Value <= 0 || f.Value > 100 || f.ValueKnown != Read {
			t.Errorf("%+v", f)
		}
		if (f.Split == "") != (f.SplitKnown == NotFound) {
			t.Errorf("%s: split %q, but it is %v", f.Task, f.Split, f.SplitKnown)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d figures, want 20", len(seen))
	}
}

// No two ways of knowing look alike, and each tag is in the legend.
func TestTagged(t *testing.T) {
	seen := map[string]bool{}
	for k := NotFound; k <= Inferred; k++ {
		tag, words, _ := strings.Cut(Tagged(k.String()), " ")
		if seen[tag] || words != k.String() || !strings.Contains(Legend, tag+" "+words) {
			t.Errorf("%v: %q", k, Tagged(k.String()))
		}
		seen[tag] = true
	}
}

// A test set's score is never set beside one of the development set.
func TestOfSplit(t *testing.T) {
	if got := Of("ncbi-disease", "test"); len(got) != 0 {
		t.Errorf("figures of the development set for the test set: %+v", got)
	}
	if got := Of("ncbi-disease", "dev"); len(got) != 3 || got[0].Value != 87.18 {
		t.Errorf("%+v", got)
	}
	if got := Of("jnlpba", "test"); len(got) != 3 || got[0].Split != "" {
		t.Errorf("%+v", got)
	}
	if got := Of("mednli", "dev"); len(got) != 3 {
		t.Errorf("%+v", got)
	}
}
