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
	Resamples int // 1 to 10,000,000
	Seed      uint64
	Level     float64 // the share of resamples inside an interval, between 0 and 1
	Workers   int     // 0: one for each processor
}

// maxResamples bounds the memory: a number for each resample and metric is kept.
const maxResamples = 10_000_000

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

// Check gathers what is wrong with b.
func (b Bootstrap) Check() error {
	var problems []error
	if b.Resamples < 1 || b.Resamples > maxResamples {
		problems = append(problems, fmt.Errorf("%d resamples: it must be 1 to %d; see DefaultBootstrap", b.Resamples, maxResamples))
	}
	if !(b.Level > 0 && b.Level < 1) {
		problems = append(problems, fmt.Errorf("intervals of level %v: it must be between 0 and 1", b.Level))
	}
	if b.Workers < 0 {
		problems = append(problems, fmt.Errorf("%d workers", b.Workers))
	}
	return errors.Join(problems...)
}

// chunk is how many random words are made at a time.
const chunk = 256

// words fills dst with the words at, at+1, ... of a resample's stream; at is a multiple of 4.
func (b Bootstrap) words(dst []uint32, at, resample int, purpose uint32) {
	for len(dst) > 0 {
		r := backend.Philox(b.Seed, uint32(at/4), uint32(resample), purpose, math.MaxUint32-1)
		dst = dst[copy(dst, r[:]):]
		at += 4
	}
}

// draw fills examples with some of n, drawn with replacement: the draws at, at+1, ... of a resample, at being a
// multiple of 4.
func (b Bootstrap) draw(examples []int32, n, at, resample int) {
	var words [chunk]uint32
	for len(examples) > 0 {
		part := words[:min(chunk, len(examples))]
		b.words(part, at, resample, forResample)
		for i, w := range part {
			examples[i] = int32(uint64(w) * uint64(n) >> 32)
		}
		examples, at = examples[len(part):], at+len(part)
	}
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
		b.draw(rows[worker], n, 0, resample)
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
	b.each(func(worker, resample int) {
		out := outs[worker]
		b.drawnSums(sums[worker], t, resample)
		f(sums[worker], out)
		for m, v := range out {
			values[m][resample] = v
		}
	})
	return values
}

// drawnSums adds as many of the table's rows up as it has, drawn with replacement.
func (b Bootstrap) drawnSums(sums []float64, t Table, resample int) {
	clear(sums)
	var drawn [chunk]int32
	n := t.Rows()
	for at := 0; at < n; at += chunk {
		rows := drawn[:min(chunk, n-at)]
		b.draw(rows, n, at, resample)
		if t.Columns == 1 { // a mean
			sum := sums[0]
			for _, i := range rows {
				sum += t.Data[i]
			}
			sums[0] = sum
			continue
		}
		for _, i := range rows {
			add(sums, t.row(int(i)))
		}
	}
}

func (b Bootstrap) checkRows(n int) error {
	if n == 0 {
		return errors.New("no examples to draw from")
	}
	if n > math.MaxInt32 {
		return fmt.Errorf("%d examples: at most %d can be drawn from", n, math.MaxInt32)
	}
	return b.Check()
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
