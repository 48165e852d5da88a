package train

import (
	"math"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// Factors of transformers.get_scheduler (5.23) with a learning rate of 1.
func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		kind          string
		warmup, total int
		want          []float64
	}{
		{"constant", 0, 4, []float64{1.0, 1.0, 1.0, 1.0}},
		{"constant_with_warmup", 3, 6, []float64{0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 1.0, 1.0}},
		{"constant_with_warmup", 0, 3, []float64{1.0, 1.0, 1.0}},
		{"linear", 0, 5, []float64{1.0, 0.8, 0.6, 0.4, 0.2}},
		{"linear", 2, 7, []float64{0.0, 0.5, 1.0, 0.8, 0.6, 0.4, 0.2}},
		{"linear", 7, 5, []float64{0.0, 0.14285714285714285, 0.2857142857142857, 0.42857142857142855, 0.5714285714285714}},
		{"linear", 5, 5, []float64{0.0, 0.2, 0.4, 0.6, 0.8}},
		{"cosine", 0, 5, []float64{1.0, 0.9045084971874737, 0.6545084971874737, 0.34549150281252633, 0.09549150281252633}},
		{"cosine", 3, 9, []float64{0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.9330127018922194, 0.75, 0.5, 0.2500000000000001, 0.06698729810778065}},
		{"cosine", 1, 2, []float64{0.0, 1.0}},
		{"cosine", 4, 4, []float64{0.0, 0.25, 0.5, 0.75}},
	} {
		s := schedule{c.kind, c.warmup, c.total}
		for i, want := range c.want {
			if got := s.factor(i); math.Abs(got-want) > 1e-15 {
				t.Errorf("%+v: step %d has %v, want %v", s, i, got, want)
			}
		}
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct {
		rows, batch, accumulation, maxSteps int
		epochs                              float64
		ratio                               float64
		warmup                              int
		windows, steps, warmupSteps         int
	}{
		{rows: 13, batch: 2, accumulation: 3, epochs: 1, windows: 3, steps: 3},
		{rows: 12, batch: 2, accumulation: 3, epochs: 3, windows: 2, steps: 6},
		{rows: 1, batch: 8, accumulation: 4, epochs: 2, windows: 1, steps: 2},
		{rows: 100, batch: 8, accumulation: 1, epochs: 0.5, windows: 13, steps: 7},
		{rows: 100, batch: 8, accumulation: 1, epochs: 1.01, windows: 13, steps: 14},
		{rows: 100, batch: 8, accumulation: 1, epochs: 1, maxSteps: 40, windows: 13, steps: 40},
		{rows: 100, batch: 8, accumulation: 1, epochs: 3, ratio: 0.1, windows: 13, steps: 39, warmupSteps: 4},
		{rows: 100, batch: 8, accumulation: 1, epochs: 3, ratio: 0.1, warmup: 2, windows: 13, steps: 39, warmupSteps: 2},
	} {
		o := Options{PerDeviceTrainBatchSize: c.batch, GradientAccumulationSteps: c.accumulation, MaxSteps: c.maxSteps,
			NumTrainEpochs: c.epochs, WarmupRatio: c.ratio, WarmupSteps: c.warmup}
		windows := o.windowsOf(c.rows)
		steps, err := o.totalSteps(windows)
		if err != nil || windows != c.windows || steps != c.steps || o.warmupSteps(steps) != c.warmupSteps {
			t.Errorf("%+v: %d windows, %d steps, %d of warm-up, %v", c, windows, steps, o.warmupSteps(steps), err)
		}
	}
	if _, err := (Options{NumTrainEpochs: 1e300}).totalSteps(5); err == nil {
		t.Error("1e300 epochs")
	}
}

func TestGoldenRates(t *testing.T) {
	for _, c := range golden.All(t, golden.Shared(t, "goldens")) {
		s := schedule{c.Train.LRSchedulerType, c.Train.WarmupSteps, c.Train.MaxSteps}
		for i, want := range c.Expected.LRs {
			if got := c.Train.LearningRate * s.factor(i); golden.Rel(got, want) > 1e-14 {
				t.Errorf("%s: step %d has the rate %v, want %v", c.Name, i+1, got, want)
			}
		}
	}
}
