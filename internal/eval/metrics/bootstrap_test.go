package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestMcNemarAndPercentilesAreThoseOfSciPyAndNumPy(t *testing.T) {
	var cases struct {
		McNemar     [][3]float64
		Percentiles [][3]json.RawMessage
	}
	read(t, "testdata/tests.json", &cases)
	for _, c := range cases.McNemar {
		if p := McNemar(int(c[0]), int(c[1])); math.Abs(p-c[2]) > 1e-9*c[2] {
			t.Errorf("%v to %v: p %v, want %v", c[0], c[1], p, c[2])
		}
	}
	for _, c := range cases.Percentiles {
		var x []float64
		var q, want float64
		for i, into := range []any{&x, &q, &want} {
			if err := json.Unmarshal(c[i], into); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(x)
		near(t, "percentile", percentile(x, q/100), want)
	}
}

func random(n int, seed uint64) (x []float64) {
	r := rand.New(rand.NewPCG(seed, 0))
	for range n {
		x = append(x, r.NormFloat64())
	}
	return x
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v
	}
	return m / float64(len(x))
}

func TestIntervalsDoNotDependOnWorkersNorOnTheWayTheyAreMade(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 100, 1001} {
		x := random(n, uint64(n))
		b := DefaultBootstrap()
		b.Resamples = 500
		want, err := b.Mean(x)
		if err != nil {
			t.Fatal(err)
		}
		if m := mean(x); !(want.Low <= m && m <= want.High) {
			t.Errorf("%d examples: the mean %v is outside %v", n, m, want)
		}
		for workers := 1; workers < 5; workers++ {
			b.Workers = workers
			got, err := b.Mean(x)
			of, err2 := b.Of(n, func(rows []int32) (m float64) {
				for _, i := range rows {
					m += x[i]
				}
				return m / float64(n)
			})
			if err != nil || err2 != nil || got != want || of != want {
				t.Errorf("%d examples, %d workers: %v and %v (%v, %v), want %v", n, workers, got, of, err, err2, want)
			}
		}
		b.Seed++
		if other, _ := b.Mean(x); n > 2 && other == want {
			t.Errorf("%d examples: another seed draws the same", n)
		}
	}
}

// TestIntervalsAreAsWideAsTheory compares with the normal approximation of a share.
func TestIntervalsAreAsWideAsTheory(t *testing.T) {
	x := make([]float64, 1000)
	for i := range x[:300] {
		x[i] = 1
	}
	for _, c := range []struct{ level, z float64 }{{0.95, 1.959964}, {0.8, 1.281552}} {
		b := DefaultBootstrap()
		b.Level = c.level
		got, err := b.Mean(x)
		if err != nil {
			t.Fatal(err)
		}
		want := 2 * c.z * math.Sqrt(0.3*0.7/1000)
		if w := got.High - got.Low; math.Abs(w-want) > 0.03*want {
			t.Errorf("level %v: width %v, theory has %v", c.level, w, want)
		}
	}
}

func TestDrawsAreUniform(t *testing.T) {
	b := Bootstrap{Seed: 7}
	const n, resamples = 13, 4000
	var at [n]int // how often each example is drawn
	rows := make([]int32, n)
	for r := range resamples {
		b.draw(rows, n, 0, r)
		for _, i := range rows {
			at[i]++
		}
	}
	chi := 0.0
	for _, k := range at {
		chi += math.Pow(float64(k)-resamples, 2) / resamples
	}
	if chi > 32.9 { // 12 degrees of freedom, p = 0.001
		t.Errorf("chi-squared %v: %v", chi, at)
	}
}

func TestStreamsAreOfTheirOwn(t *testing.T) {
	seen := map[uint32]string{}
	for _, b := range []Bootstrap{{Seed: 1}, {Seed: 2}} {
		for resample := range 3 {
			for _, purpose := range []uint32{forResample, forSwap} {
				var words [10]uint32
				b.words(words[:], 0, resample, purpose)
				name := fmt.Sprint("seed ", b.Seed, ", resample ", resample, ", purpose ", purpose)
				for _, w := range words {
					if other, ok := seen[w]; ok {
						t.Errorf("%s and %s share %d", name, other, w)
					}
					seen[w] = name
				}
				var tail [5]uint32
				if b.words(tail[:], 4, resample, purpose); !slices.Equal(tail[:], words[4:9]) {
					t.Errorf("%s from word 4: %v, want %v", name, tail, words[4:9])
				}
			}
		}
	}
}

func TestBootstrapTellsWhatIsWrong(t *testing.T) {
	_, err := Bootstrap{Level: 1, Workers: -2}.Mean([]float64{1})
	wants(t, err, "0 resamples", "level 1", "-2 workers")
	_, err = DefaultBootstrap().Mean(nil)
	wants(t, err, "no examples")
	_, err = DefaultBootstrap().PairedMeans([]float64{1}, nil)
	wants(t, err, "1 values of one system, 0 of the other")
	_, err = DefaultBootstrap().PairedMeans([]float64{1}, []float64{math.NaN()})
	wants(t, err, "not a number")
	in, err := DefaultBootstrap().Mean([]float64{1, math.NaN()})
	if err != nil || !math.IsNaN(in.Low) || !math.IsNaN(in.High) {
		t.Errorf("%v, %v; want NaN", in, err)
	}
}

func TestPerplexity(t *testing.T) {
	m, err := Perplexity([]float64{2, 6, 4}, []int{2, 3, 1}, DefaultBootstrap())
	if err != nil {
		t.Fatal(err)
	}
	near(t, "perplexity", m.Value, math.Exp(2))
	near(t, "low", m.Interval.Low, math.Exp(1))
	near(t, "high", m.Interval.High, math.Exp(4))
	_, err = Perplexity([]float64{1, math.NaN()}, []int{-1, 2}, DefaultBootstrap())
	wants(t, err, "perplexity", "example 0", "-1 tokens", "example 1", "NaN")
	_, err = Perplexity([]float64{1}, []int{0}, DefaultBootstrap())
	wants(t, err, "no tokens in 1 examples")
	_, err = Perplexity([]float64{1}, nil, DefaultBootstrap())
	wants(t, err, "1 sums", "0 counts")
}

// TestRandomisationIsThatOfAllSwaps compares with the exact test, which goes through all 2¹² swaps.
func TestRandomisationIsThatOfAllSwaps(t *testing.T) {
	const n = 12
	for seed := range uint64(4) {
		x, y := random(n, seed), random(n, 100+seed)
		for i := range y {
			y[i] += 0.6
		}
		observed := math.Abs(mean(y) - mean(x))
		large := 0
		for swaps := range 1 << n {
			d := 0.0
			for i := range n {
				sign := float64(1 - 2*(swaps>>i&1))
				d += sign * (y[i] - x[i])
			}
			if math.Abs(d/n) >= observed-tie {
				large++
			}
		}
		want := float64(large) / (1 << n)
		got, err := DefaultBootstrap().PairedMeans(x, y)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.PRandomisation-want) > 4*math.Sqrt(want*(1-want)/10000) {
			t.Errorf("p %v, over all swaps %v", got.PRandomisation, want)
		}
		near(t, "difference", got.Difference, mean(y)-mean(x))
		if !(got.Interval.Low <= got.Difference && got.Difference <= got.Interval.High) {
			t.Errorf("%v is outside %v", got.Difference, got.Interval)
		}
		back, _ := DefaultBootstrap().PairedMeans(y, x)
		if back.PRandomisation != got.PRandomisation || back.PBootstrap != got.PBootstrap {
			t.Errorf("%+v one way, %+v the other", got, back)
		}
	}
}

func TestPairedTestsAtTheirEnds(t *testing.T) {
	x := random(200, 1)
	same, _ := DefaultBootstrap().PairedMeans(x, x)
	if same.PBootstrap != 1 || same.PRandomisation != 1 || same.Interval != (Interval{}) {
		t.Errorf("a system against itself: %+v", same)
	}
	y := slices.Clone(x)
	for i := range y {
		y[i] += 0.5 + 0.1*float64(i%3)
	}
	far, _ := DefaultBootstrap().PairedMeans(x, y)
	if far.PBootstrap > 0.0002 || far.PRandomisation > 0.0002 || far.Interval.Low < 0.5 {
		t.Errorf("a system that is always better: %+v", far)
	}
}

func BenchmarkIntervals(b *testing.B) {
	boot := DefaultBootstrap()
	x := random(1273, 1)
	for b.Loop() {
		if _, err := boot.Mean(x); err != nil {
			b.Fatal(err)
		}
	}
}
