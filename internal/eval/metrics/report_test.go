package metrics

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

func read(t testing.TB, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// near fails unless got is want to 1e-9.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-9) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func nearPRF(t *testing.T, what string, got PRF, want [3]float64) {
	t.Helper()
	near(t, what+" precision", got.Precision, want[0])
	near(t, what+" recall", got.Recall, want[1])
	near(t, what+" F1", got.F1, want[2])
}

// named is a row of a reference report: name, precision, recall, F1, support.
type named struct {
	name    string
	prf     [3]float64
	support int
}

func (n *named) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&n.name, &n.prf[0], &n.prf[1], &n.prf[2], &n.support})
}

func TestClassificationIsThatOfScikitLearn(t *testing.T) {
	var cases []struct {
		Gold, Pred             []string
		Accuracy               float64
		Micro, Macro, Weighted [3]float64
		Classes                []named
	}
	read(t, "testdata/classes.json", &cases)
	for i, c := range cases {
		r, accuracy, err := Classification(c.Gold, c.Pred)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "accuracy", accuracy, c.Accuracy)
		nearPRF(t, "micro", r.Micro, c.Micro)
		nearPRF(t, "macro", r.Macro, c.Macro)
		nearPRF(t, "weighted", r.Weighted, c.Weighted)
		if len(r.Classes) != len(c.Classes) {
			t.Fatalf("case %d: %d classes, want %d", i, len(r.Classes), len(c.Classes))
		}
		for k, want := range c.Classes {
			if got := r.Classes[k]; got.Name != want.name || got.Gold != want.support {
				t.Errorf("case %d: class %q of %d, want %q of %d", i, got.Name, got.Gold, want.name, want.support)
			}
			nearPRF(t, want.name, r.Classes[k].PRF, want.prf)
		}
		if t.Failed() {
			t.Fatalf("case %d: %v %v", i, c.Gold, c.Pred)
		}
	}
}

func TestMultiLabelIsThatOfScikitLearn(t *testing.T) {
	var cases []struct {
		Gold, Pred                      [][]string
		Subset                          float64
		Micro, Macro, Weighted, Samples [3]float64
	}
	read(t, "testdata/multilabel.json", &cases)
	for i, c := range cases {
		r, samples, subset, err := MultiLabel(c.Gold, c.Pred)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "subset accuracy", subset, c.Subset)
		nearPRF(t, "micro", r.Micro, c.Micro)
		nearPRF(t, "macro", r.Macro, c.Macro)
		nearPRF(t, "weighted", r.Weighted, c.Weighted)
		nearPRF(t, "samples", samples, c.Samples)
		if t.Failed() {
			t.Fatalf("case %d: %v %v", i, c.Gold, c.Pred)
		}
	}
}

func TestEntitiesAreThoseOfSeqeval(t *testing.T) {
	var cases []struct {
		Gold, Pred      []string
		Default, Strict []named
	}
	read(t, "testdata/entities.json", &cases)
	split := func(lines []string) (out [][]string) {
		for _, l := range lines {
			out = append(out, strings.Fields(l))
		}
		return out
	}
	strict := 0
	for i, c := range cases {
		gold, pred := split(c.Gold), split(c.Pred)
		for mode, want := range map[Mode][]named{Default: c.Default, Strict: c.Strict} {
			got, err := mode.Entities(gold, pred)
			if want == nil { // the reference has no strict mode for E and S
				if all := strings.Join(append(c.Gold, c.Pred...), " "); err == nil && strings.ContainsAny(all, "ES") {
					t.Errorf("case %d: strict mode takes tags that are not IOB2", i)
				}
				continue
			}
			if err != nil {
				t.Fatalf("case %d: %v", i, err)
			}
			strict += int(mode)
			last := len(want) - 3 // micro, macro, weighted
			if len(got.Classes) != last {
				t.Fatalf("case %d, mode %d: %+v, want %+v", i, mode, got.Classes, want)
			}
			for k, w := range want[:last] {
				if g := got.Classes[k]; g.Name != w.name || g.Gold != w.support {
					t.Errorf("type %q of %d, want %q of %d", g.Name, g.Gold, w.name, w.support)
				}
				nearPRF(t, w.name, got.Classes[k].PRF, w.prf)
			}
			nearPRF(t, "micro", got.Micro, want[last].prf)
			nearPRF(t, "macro", got.Macro, want[last+1].prf)
			nearPRF(t, "weighted", got.Weighted, want[last+2].prf)
			if t.Failed() {
				t.Fatalf("case %d, mode %d: %v %v", i, mode, gold, pred)
			}
		}
	}
	if strict < 100 {
		t.Errorf("only %d strict cases", strict)
	}
}

func TestReportsTellWhatIsWrong(t *testing.T) {
	tags := func(s string) [][]string { return [][]string{{"O"}, strings.Fields(s)} }
	_, err := Default.Entities(tags("B-A I-A X-A"), tags("B-A I-A O"))
	wants(t, err, "sentence 2, gold: token 3", `"X-A"`, "BIOES")
	_, err = Strict.Entities(tags("B-A S-A"), tags("B-A "))
	wants(t, err, "sentence 2: 2 gold tags, 1 predicted")
	_, err = Default.Entities(nil, nil)
	wants(t, err, "no examples")
	_, _, err = Classification([]string{"a"}, nil)
	wants(t, err, "1 gold examples, 0 predictions")
	_, _, _, err = MultiLabel(nil, nil)
	wants(t, err, "no examples")
}

// wants fails unless err says all of parts.
func wants(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error %q lacks %q", err, p)
		}
	}
}
