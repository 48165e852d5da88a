package rouge

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"sync"
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

// pair is a case of scores.json: reference, prediction, and rouge_score's [1, 2, L, Lsum] x [P, R, F] without and with
// the stemmer (null where it changes nothing).
type pair struct {
	reference, prediction string
	scores                [2]*[4][3]float64
}

func (p *pair) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&p.reference, &p.prediction, &p.scores[0], &p.scores[1]})
}

func pairs(t testing.TB) (ps []pair) {
	read(t, "testdata/scores.json", &ps)
	for i := range ps {
		if ps[i].scores[1] == nil {
			ps[i].scores[1] = ps[i].scores[0]
		}
	}
	return ps
}

func (s Scores) list() [4]Score { return [4]Score{s.Rouge1, s.Rouge2, s.RougeL, s.RougeLsum} }

func TestScoresAreThoseOfRougeScore(t *testing.T) {
	ps := pairs(t)
	if len(ps) < 200 {
		t.Fatalf("%d cases", len(ps))
	}
	for stem, s := range []*Scorer{New(false), New(true)} {
		for i, p := range ps {
			for k, got := range s.Score(p.reference, p.prediction).list() {
				for j, v := range []float64{got.Precision, got.Recall, got.F} {
					if want := p.scores[stem][k][j]; math.Abs(v-want) > 1e-9 {
						t.Errorf("case %d, stemmer %d, measure %d, number %d: %v, rouge_score has %v\n%q\n%q",
							i, stem, k, j, v, want, p.reference, p.prediction)
					}
				}
			}
		}
	}
}

func TestStemsAreThoseOfNLTK(t *testing.T) {
	var lists []string
	read(t, "testdata/stems.json", &lists)
	words, stems := strings.Fields(lists[0]), strings.Fields(lists[1])
	if len(words) != len(stems) || len(words) < 2000 {
		t.Fatalf("%d words, %d stems", len(words), len(stems))
	}
	for i, w := range words {
		if got := porter([]byte(w)); string(got) != stems[i] {
			t.Errorf("%s: %s, NLTK has %s", w, got, stems[i])
		}
	}
}

// TestOneScorerServesManyGoroutines also tells that nothing of a comparison stays for the next.
func TestOneScorerServesManyGoroutines(t *testing.T) {
	ps, s := pairs(t), New(true)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range ps {
				p := ps[(i*7+w*31)%len(ps)]
				if got := s.Score(p.reference, p.prediction); math.Abs(got.RougeLsum.F-p.scores[1][3][2]) > 1e-9 {
					t.Errorf("goroutine %d: RougeLsum %v, want %v", w, got.RougeLsum.F, p.scores[1][3][2])
				}
			}
		})
	}
	wg.Wait()
}

func FuzzScore(f *testing.F) {
	f.Add("The cat sat.\nOn a mat", "a cat\nsat", true)
	f.Add(strings.Repeat("a b c ", 50), strings.Repeat("c a ", 70), false)
	f.Fuzz(func(t *testing.T, a, b string, stem bool) {
		if len(a)*len(b) > 1<<20 {
			return
		}
		s := New(stem)
		ab, ba, aa := s.Score(a, b).list(), s.Score(b, a).list(), s.Score(a, a).list()
		for k := range ab {
			x, y := ab[k], ba[k]
			if !(x.F >= 0 && x.F <= 1 && x.Precision >= 0 && x.Precision <= 1 && x.Recall >= 0 && x.Recall <= 1) {
				t.Errorf("measure %d: %+v is not between 0 and 1", k, x)
			}
			if k < 3 && (x.Precision != y.Recall || x.Recall != y.Precision) {
				t.Errorf("measure %d: %+v one way, %+v the other", k, x, y)
			}
		}
		v := newVocabulary(stem)
		tokens, other := v.add(nil, a), v.add(nil, b)
		for k, least := range []int{1, 2, 1, 1} {
			if want := float64(min(1, len(tokens)/least)); aa[k].F != want {
				t.Errorf("measure %d of a text with itself: %v, want %v", k, aa[k].F, want)
			}
		}
		if got, want := ab[2], score(table(tokens, other), len(tokens), len(other)); got != want {
			t.Errorf("ROUGE-L %v, by the table %v", got, want)
		}
	})
}

// table is the length of the longest common subsequence the plain way.
func table(a, b []uint32) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			above := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(above, row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

func FuzzPorter(f *testing.F) {
	f.Add("generalizations")
	f.Add("yyyying")
	f.Fuzz(func(t *testing.T, text string) {
		v := newVocabulary(false)
		v.add(nil, text)
		for w := range v.words {
			if s := porter([]byte(w)); len(s) == 0 || len(s) > len(w)+1 || bytes.ContainsAny(s, " \n") {
				t.Errorf("%q: stem %q", w, s)
			}
		}
	})
}
