package metrics

import (
	"errors"
	"fmt"
	"math"
)

// Paired is how a metric of system B differs from that of system A on the same examples.
type Paired struct {
	Metric     string   `json:"metric"`
	A          float64  `json:"a"`
	B          float64  `json:"b"`
	Difference float64  `json:"difference"` // B - A
	Interval   Interval `json:"interval"`   // of the difference, by paired bootstrap
	// PBootstrap is the two-sided p-value of the paired bootstrap: how often a resample's difference is further from the
	// observed one than that is from 0 (Berg-Kirkpatrick et al., "An Empirical Investigation of Statistical
	// Significance in NLP", 2012).
	PBootstrap float64 `json:"p_bootstrap"`
	// PRandomisation is that of approximate randomisation: how often the difference is as large when each example's
	// answers are swapped between the systems by a coin (Noreen 1989).
	PRandomisation float64 `json:"p_randomisation"`
	// McNemar is the exact test of accuracies; nil for other metrics.
	McNemar *McNemarTest `json:"mcnemar,omitempty"`
}

// McNemarTest is what McNemar's exact test saw.
type McNemarTest struct {
	OnlyA int     `json:"only_a"` // examples that A alone has right
	OnlyB int     `json:"only_b"`
	P     float64 `json:"p"`
}

// tie is the difference of metrics that rounding may make.
const tie = 1e-12

// Compare tests each metric of two results on the same examples. It does not correct for the number of tests.
func Compare(a, b *Result, boot Bootstrap) ([]Paired, error) {
	if err := mismatch(a, b); err != nil {
		return nil, fmt.Errorf("comparing two results: %w", err)
	}
	if err := boot.checkRows(a.table.Rows()); err != nil {
		return nil, fmt.Errorf("comparing two results: %w", err)
	}
	out := boot.paired(a.table, b.table, len(a.Metrics), a.metrics)
	for m := range out {
		out[m].Metric = a.Metrics[m].Name
		if column, ok := a.binary[out[m].Metric]; ok {
			out[m].McNemar = mcnemar(a.table, b.table, column)
		}
	}
	return out, nil
}

// mismatch gathers what stands against comparing a and b.
func mismatch(a, b *Result) error {
	if a.Kind != b.Kind {
		return fmt.Errorf("one is of kind %s, the other of %s", a.Kind, b.Kind)
	}
	if len(a.Scores) != len(b.Scores) {
		return fmt.Errorf("one has %d examples, the other %d", len(a.Scores), len(b.Scores))
	}
	var p problems
	for i, x := range a.Scores {
		if y := b.Scores[i]; x.ID != y.ID || x.Gold != y.Gold {
			p.add("example %d is %q (%.40q) in one and %q (%.40q) in the other", i, x.ID, x.Gold, y.ID, y.Gold)
		}
	}
	if len(p) == 0 && (len(a.Metrics) != len(b.Metrics) || a.table.Columns != b.table.Columns) {
		p.add("they were scored with different labels")
	}
	return p.err()
}

// paired compares n metrics of two tables whose rows are the same examples.
func (b Bootstrap) paired(x, y Table, n int, f Metrics) []Paired {
	out := make([]Paired, n)
	at, bt := make([]float64, n), make([]float64, n)
	f(x.sums(), at)
	f(y.sums(), bt)
	xs, ys := b.resample(x, n, f), b.resample(y, n, f)
	swapped := b.swap(x, y, n, f)
	for m := range out {
		p := &out[m]
		p.A, p.B, p.Difference = at[m], bt[m], bt[m]-at[m]
		far, large := 0, 0
		diffs := ys[m]
		for i := range diffs {
			diffs[i] -= xs[m][i]
			if math.Abs(diffs[i]-p.Difference) >= math.Abs(p.Difference)-tie {
				far++
			}
			if math.Abs(swapped[m][i]) >= math.Abs(p.Difference)-tie {
				large++
			}
		}
		p.Interval = b.interval(diffs)
		p.PBootstrap = float64(far+1) / float64(b.Resamples+1)
		p.PRandomisation = float64(large+1) / float64(b.Resamples+1)
	}
	return out
}

// swap returns the differences of the metrics, [n, Resamples], when each row is swapped between the tables by a coin.
func (b Bootstrap) swap(x, y Table, n int, f Metrics) [][]float64 {
	diffs := scratch[float64](n, b.Resamples)
	sums := scratch[float64](b.workers(), 2*x.Columns)
	outs := scratch[float64](b.workers(), 2*n)
	rows := x.Rows()
	coins := scratch[uint32](b.workers(), (rows+31)/32)
	b.each(func(worker, resample int) {
		clear(sums[worker])
		one, two := sums[worker][:x.Columns], sums[worker][x.Columns:]
		b.words(coins[worker], 0, resample, forSwap)
		for i := range rows {
			to, other := one, two
			if coins[worker][i/32]>>(i%32)&1 != 0 {
				to, other = two, one
			}
			add(to, x.row(i))
			add(other, y.row(i))
		}
		a, b := outs[worker][:n], outs[worker][n:]
		f(one, a)
		f(two, b)
		for m := range a {
			diffs[m][resample] = b[m] - a[m]
		}
	})
	return diffs
}

// mcnemar counts the examples that one table alone has 1 for in a column of zeros and ones.
func mcnemar(x, y Table, column int) *McNemarTest {
	t := &McNemarTest{}
	for i := range x.Rows() {
		switch a, b := x.row(i)[column], y.row(i)[column]; {
		case a > b:
			t.OnlyA++
		case b > a:
			t.OnlyB++
		}
	}
	t.P = McNemar(t.OnlyA, t.OnlyB)
	return t
}

// McNemar is the two-sided p-value of McNemar's exact test: that a fair coin falls as unevenly as onlyA to onlyB.
func McNemar(onlyA, onlyB int) float64 {
	n, few := onlyA+onlyB, min(onlyA, onlyB)
	if onlyA == onlyB {
		return 1
	}
	whole, _ := math.Lgamma(float64(n + 1))
	sum := 0.0
	for k := 0; k <= few; k++ {
		a, _ := math.Lgamma(float64(k + 1))
		b, _ := math.Lgamma(float64(n - k + 1))
		sum += math.Exp(whole - a - b - float64(n)*math.Ln2)
	}
	return min(1, 2*sum)
}

// PairedMeans compares the means of two systems' values on the same examples, such as a judge's marks.
func (b Bootstrap) PairedMeans(x, y []float64) (Paired, error) {
	if len(x) != len(y) {
		return Paired{}, fmt.Errorf("%d values of one system, %d of the other", len(x), len(y))
	}
	if err := b.checkRows(len(x)); err != nil {
		return Paired{}, err
	}
	for i := range x {
		if math.IsNaN(x[i]) || math.IsNaN(y[i]) {
			return Paired{}, errors.New("a value is not a number")
		}
	}
	mean := func(sums, out []float64) { out[0] = sums[0] / float64(len(x)) }
	return b.paired(Table{1, x}, Table{1, y}, 1, mean)[0], nil
}
