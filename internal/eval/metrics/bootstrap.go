package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/parallel"
)

// Bootstrap says how often examples are drawn anew. Draws come from Philox4x32-10 with the key Seed and a counter of
// resample and position, so that results are the same for any number of workers and on every machine.
type Bootstrap struct {
	Resamples int     // at least 1
	Seed      uint64  //
	Level     float64 // the share of resamples inside an interval, between 0 and 1
	Workers   int     // 0: one for each processor
}

// DefaultBootstrap is 10,000 resamples for intervals of 95 %.
func DefaultBootstrap() Bootstrap {
	return Bootstrap{Resamples: 10000, Seed: 42, Level: 0.95}
}

// Interval is a percentile bootstrap interval (Efron 1979): Level of the resamples are inside. Percentiles are
// interpolated linearly, as NumPy's default is. Both ends are NaN where a resample has no value.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Table has a row of numbers for each example. Metrics are functions of the sums of its columns: a mean of the sums of
// values and ones, an F1 of the sums of hits, predicted and gold.
type Table struct {
	Columns int
	Data    []float64 // [examples, Columns]
}

// Rows is the number of examples.
func (t Table) Rows() int {
	if t.Columns == 0 {
		return 0
	}
	return len(t.Data) / t.Columns
}

// row is the row of one example.
func (t Table) row(i int) []float64 { return t.Data[i*t.Columns : (i+1)*t.Columns] }

// sums adds all rows up, in their order.
func (t Table) sums() []float64 {
	sums := make([]float64, t.Columns)
	for i := range t.Rows() {
		add(sums, t.row(i))
	}
	return sums
}

func add(sums, row []float64) {
	for c, v := range row {
		sums[c] += v
	}
}

// Metrics computes several metrics from the sums of a table's columns; it may run on several goroutines at once.
type Metrics func(sums, out []float64)

// What a stream of random words is for.
const (
	forResample uint32 = 1 + iota
	forSwap
)

func (b Bootstrap) check() error {
	var problems []error
	if b.Resamples < 1 {
		problems = append(problems, fmt.Errorf("%d resamples: at least 1 is needed; see DefaultBootstrap", b.Resamples))
	}
	if !(b.Level > 0 && b.Level < 1) {
		problems = append(problems, fmt.Errorf("intervals of level %v: it must be between 0 and 1", b.Level))
	}
	if b.Workers < 0 {
		problems = append(problems, fmt.Errorf("%d workers", b.Workers))
	}
	return errors.Join(problems...)
}

// words calls use with 4 random words at a time, until n of them have been there; the last call may get less.
func (b Bootstrap) words(resample, n int, purpose uint32, use func(at int, words []uint32)) {
	for at := 0; at < n; at += 4 {
		r := backend.Philox(b.Seed, uint32(at/4), uint32(resample), purpose, math.MaxUint32-1)
		use(at, r[:min(4, n-at)])
	}
}

// draw fills rows with examples drawn with replacement from len(rows).
func (b Bootstrap) draw(rows []int32, resample int) {
	n := uint64(len(rows))
	b.words(resample, len(rows), forResample, func(at int, words []uint32) {
		for i, w := range words {
			rows[at+i] = int32(uint64(w) * n >> 32)
		}
	})
}

// task is a resample for each piece.
type task func(worker, resample int)

func (t task) Piece(worker, i int) { t(worker, i) }

// each runs one call for each resample, and returns when all are done.
func (b Bootstrap) each(do func(worker, resample int)) {
	pool := parallel.New(b.workers())
	defer pool.Close()
	pool.Run(b.Resamples, task(do))
}

func (b Bootstrap) workers() int {
	return cmp.Or(b.Workers, runtime.GOMAXPROCS(0))
}

// Of is the interval of a metric of n examples that is given as a function of their indices: each resample calls it
// with n indices, drawn with replacement. It may run on several goroutines at once and must not keep its argument.
func (b Bootstrap) Of(n int, metric func(examples []int32) float64) (Interval, error) {
	if err := b.checkRows(n); err != nil {
		return Interval{}, err
	}
	values := make([]float64, b.Resamples)
	rows := scratch[int32](b.workers(), n)
	b.each(func(worker, resample int) {
		b.draw(rows[worker], resample)
		values[resample] = metric(rows[worker])
	})
	return b.interval(values), nil
}

// Mean is the interval of the mean of values.
func (b Bootstrap) Mean(values []float64) (Interval, error) {
	in, err := b.Sums(Table{Columns: 1, Data: values}, 1, func(sums, out []float64) {
		out[0] = sums[0] / float64(len(values))
	})
	if err != nil {
		return Interval{}, err
	}
	return in[0], nil
}

// Sums are the intervals of n metrics that are functions of the sums of a table's columns. All share their resamples.
func (b Bootstrap) Sums(t Table, n int, f Metrics) ([]Interval, error) {
	if err := b.checkRows(t.Rows()); err != nil {
		return nil, err
	}
	values := b.resample(t, n, f)
	out := make([]Interval, n)
	for m := range out {
		out[m] = b.interval(values[m])
	}
	return out, nil
}

// resample returns the metrics, [n, Resamples], of as many draws of the table's rows.
func (b Bootstrap) resample(t Table, n int, f Metrics) [][]float64 {
	values := scratch[float64](n, b.Resamples)
	sums := scratch[float64](b.workers(), t.Columns)
	outs := scratch[float64](b.workers(), n)
	size := uint64(t.Rows())
	b.each(func(worker, resample int) {
		sum, out := sums[worker], outs[worker]
		clear(sum)
		b.words(resample, t.Rows(), forResample, func(_ int, words []uint32) {
			for _, w := range words {
				add(sum, t.row(int(uint64(w)*size>>32)))
			}
		})
		f(sum, out)
		for m, v := range out {
			values[m][resample] = v
		}
	})
	return values
}

func (b Bootstrap) checkRows(n int) error {
	if n == 0 {
		return errors.New("no examples to draw from")
	}
	if n > math.MaxInt32 {
		return fmt.Errorf("%d examples: at most %d can be drawn from", n, math.MaxInt32)
	}
	return b.check()
}

// scratch is [n, size] zeros, each row in memory of its own.
func scratch[T any](n, size int) [][]T {
	out := make([][]T, n)
	for i := range out {
		out[i] = make([]T, size)
	}
	return out
}

// interval takes the percentiles of values, which it sorts.
func (b Bootstrap) interval(values []float64) Interval {
	slices.Sort(values)
	if math.IsNaN(values[0]) { // sorted first
		return Interval{math.NaN(), math.NaN()}
	}
	tail := (1 - b.Level) / 2
	return Interval{Low: percentile(values, tail), High: percentile(values, 1-tail)}
}

// percentile is the share q of sorted values, interpolated.
func percentile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (sorted[i+1]-sorted[i])*(at-float64(i))
}

// Perplexity is exp of the negative log-likelihood per token, from sums over each example: nll in nats, and tokens.
func Perplexity(nll []float64, tokens []int, b Bootstrap) (Metric, error) {
	if len(nll) != len(tokens) {
		return Metric{}, fmt.Errorf("perplexity: %d sums of log-likelihoods, %d counts of tokens", len(nll), len(tokens))
	}
	t := Table{Columns: 2}
	var problems problems
	for i, n := range tokens {
		if n < 0 || math.IsNaN(nll[i]) {
			problems.add("example %d: a sum of %v over %d tokens", i, nll[i], n)
		}
		t.Data = append(t.Data, nll[i], float64(n))
	}
	if sums := t.sums(); len(problems) == 0 && sums[1] == 0 {
		problems.add("no tokens in %d examples", len(tokens))
	}
	if err := problems.err(); err != nil {
		return Metric{}, fmt.Errorf("perplexity: %w", err)
	}
	f := func(sums, out []float64) { out[0] = math.Exp(sums[0] / sums[1]) }
	in, err := b.Sums(t, 1, f)
	if err != nil {
		return Metric{}, fmt.Errorf("perplexity: %w", err)
	}
	var out [1]float64
	f(t.sums(), out[:])
	return Metric{Name: "perplexity", Value: out[0], Interval: in[0]}, nil
}
