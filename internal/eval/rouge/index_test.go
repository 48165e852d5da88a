package rouge

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// madeUp are instructions of words with about the frequencies of English, every tenth a variant of one before.
func madeUp(n int, seed uint64) []string {
	r := rand.New(rand.NewPCG(seed, 0))
	zipf := rand.NewZipf(r, 1.15, 4, 12000)
	out := make([]string, n)
	for i := range out {
		if i > 0 && i%10 == 0 {
			words := strings.Fields(out[r.IntN(i)])
			for range 1 + r.IntN(5) {
				words[r.IntN(len(words))] = fmt.Sprint("w", zipf.Uint64())
			}
			out[i] = strings.Join(words, " ")
			continue
		}
		words := make([]string, 4+r.IntN(12)+r.IntN(12))
		for j := range words {
			words[j] = fmt.Sprint("w", zipf.Uint64())
		}
		out[i] = strings.Join(words, " ")
	}
	return out
}

func tokenised(texts []string) (v *vocabulary, tokens [][]uint32) {
	v = newVocabulary(false)
	for _, text := range texts {
		tokens = append(tokens, v.add(nil, text))
	}
	return v, tokens
}

// nearest is Nearest the plain way.
func nearest(texts [][]uint32, text []uint32, above float64) (best Match, ok bool) {
	for i, other := range texts {
		if f := fraction(table(other, text), len(other)+len(text)); f > above && (!ok || f > best.F) {
			best, ok = Match{i, f}, true
		}
	}
	return best, ok
}

func TestNearestIsExactForAnyNumberOfWorkers(t *testing.T) {
	texts := madeUp(3000, 1)
	for i := 0; i < len(texts); i += 100 {
		texts[i] = strings.Join(texts[i:i+8], " ") // longer than 64 tokens
		texts[i+1] = texts[i] + " w1 w2"
	}
	texts[5], texts[6], texts[70] = "", " ", "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10"
	queries := append(texts[:40:40], "", "nothing is known", "w1", "w1 w2 w3 w4 w5 w6 w7 x x x", strings.Repeat("w1 ", 300))
	one, many := NewIndex(false, 1), NewIndex(false, 5)
	defer one.Close()
	defer many.Close()
	for i, text := range texts {
		if a, b := one.Add(text), many.Add(text); a != i || b != i {
			t.Fatalf("text %d got the numbers %d and %d", i, a, b)
		}
	}
	v, tokens := tokenised(texts)
	hits := 0
	for _, above := range []float64{-1, 0, 0.3, 0.7, 0.95, 1} {
		for _, q := range queries {
			want, ok := nearest(tokens, v.add(nil, q), above)
			for _, x := range []*Index{one, many} {
				if got, gotOK := x.Nearest(q, above); got != want || gotOK != ok {
					t.Fatalf("above %v: %v, %v; the plain way %v, %v\n%q", above, got, gotOK, want, ok, q)
				}
			}
			if ok {
				hits++
			}
		}
	}
	if hits < len(queries) {
		t.Errorf("only %d hits", hits)
	}
}

func TestAnFOfExactlyTheLimitIsNotAbove(t *testing.T) {
	x := NewIndex(false, 1)
	defer x.Close()
	if _, ok := x.Nearest("a", -1); ok {
		t.Error("an empty index has a nearest text")
	}
	for total := 2; total < 400; total++ {
		q := query{above: 0.7}
		if want := 7*total/20 + 1; q.need(total) != want {
			t.Errorf("texts of %d tokens together need %d in common for more than 0.7, not %d", total, want, q.need(total))
		}
	}
	x.Add("a b c d e f g h i j")
	if m, ok := x.Nearest("a b c d e f g 1 2 3", 0.7); ok {
		t.Errorf("%v is above 0.7", m)
	}
	if m, ok := x.Nearest("a b c d e f g 1 2 3", 0.699999); !ok || m.F != 0.7 {
		t.Errorf("%v, %v; want 0.7", m, ok)
	}
}

// TestBioInstruct goes through the 2,501 rows: each against all before it. The digest is that of rouge_score 0.1.2's
// answers, "row nearest F" a line.
func TestBioInstruct(t *testing.T) {
	data, err := os.ReadFile(golden.Shared(t, "data", "bioinstruct", "bioinstruct-2501.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct{ Instruction string }
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	x := NewIndex(false, 2)
	defer x.Close()
	h := sha256.New()
	for i, r := range rows {
		if m, ok := x.Nearest(r.Instruction, 0.7); ok {
			t.Errorf("row %d: %v with row %d", i, m.F, m.Text)
		}
		if m, ok := x.Nearest(r.Instruction, -1); ok {
			fmt.Fprintf(h, "%d %d %.9f\n", i, m.Text, m.F)
		}
		x.Add(r.Instruction)
	}
	const want = "106c496d874adbec0ee4db3e43bbed373fb2178930deb9614c88b62a363f13ed"
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want || len(rows) != 2501 {
		t.Errorf("%d rows, digest %s, want %s", len(rows), got, want)
	}
}

func FuzzNearest(f *testing.F) {
	f.Add("a b c\nb c d\n\nc d", "b c", 0.5)
	f.Add(strings.Repeat("a b ", 60)+"\na", strings.Repeat("b a ", 70), 0.0)
	f.Fuzz(func(t *testing.T, lines, text string, above float64) {
		if len(lines)*len(text) > 1<<20 {
			return
		}
		texts := strings.Split(lines, "\n")
		x := NewIndex(false, 1)
		defer x.Close()
		for _, s := range texts {
			x.Add(s)
		}
		v, tokens := tokenised(texts)
		want, ok := nearest(tokens, v.add(nil, text), above)
		if got, gotOK := x.Nearest(text, above); got != want || gotOK != ok {
			t.Errorf("above %v: %v, %v; the plain way %v, %v", above, got, gotOK, want, ok)
		}
	})
}

// BenchmarkDeduplicate takes 25,000 made-up instructions, as Self-Instruct does: each is kept if none of those kept
// before is above 0.7 with it.
func BenchmarkDeduplicate(b *testing.B) {
	texts := madeUp(25000, 2)
	for b.Loop() {
		x := NewIndex(false, runtime.GOMAXPROCS(0))
		for _, text := range texts {
			if _, ok := x.Nearest(text, 0.7); !ok {
				x.Add(text)
			}
		}
		b.ReportMetric(float64(x.Len()), "kept")
		x.Close()
	}
}

// BenchmarkNearest finds for each of 25,000 made-up instructions the nearest of all before it.
func BenchmarkNearest(b *testing.B) {
	texts := madeUp(25000, 2)
	for b.Loop() {
		x := NewIndex(false, runtime.GOMAXPROCS(0))
		for _, text := range texts {
			x.Nearest(text, -1)
			x.Add(text)
		}
		x.Close()
	}
}

func BenchmarkScore(b *testing.B) {
	texts := madeUp(1000, 3)
	for i := range texts {
		texts[i] += "\n" + texts[(i+1)%1000] + "\n" + texts[(i+2)%1000]
	}
	s := New(true)
	i := 0
	for b.Loop() {
		s.Score(texts[i%1000], texts[(i+1)%1000])
		i++
	}
}
