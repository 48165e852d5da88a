package train

import (
	"strings"
	"testing"

	"github.com/biolora/biolora/model"
)

func TestLoad(t *testing.T) {
	o := plain()
	for name, c := range map[string]struct {
		set  func(*Options)
		want model.Load
	}{
		"all":        {func(*Options) {}, model.Load{Rows: 9, Selected: 5, Keys: 5, Extra: 300, Batches: 1}},
		"one step":   {func(o *Options) { o.MaxSteps = 1 }, model.Load{Rows: 7, Selected: 2, Keys: 4, Extra: 300, Batches: 1}},
		"two steps":  {func(o *Options) { o.MaxSteps, o.GradientAccumulationSteps = 2, 2 }, model.Load{Rows: 9, Selected: 5, Keys: 5, Extra: 300, Batches: 2}},
		"nothing":    {func(o *Options) { o.OutputDir = "" }, model.Load{Rows: 9, Selected: 5, Keys: 5, Batches: 1}},
		"held out":   {func(o *Options) { o.ValSetSize = 4 }, model.Load{Rows: 8, EvalRows: 10, Selected: 6, Keys: 5, Extra: 300, Batches: 1, EvalBatches: 2}},
		"best":       {func(o *Options) { o.ValSetSize, o.LoadBestModelAtEnd = 4, true }, model.Load{Rows: 8, EvalRows: 10, Selected: 6, Keys: 5, Extra: 304, Batches: 1, EvalBatches: 2}},
		"window":     {func(o *Options) { o.GradientAccumulationSteps = 99 }, model.Load{Rows: 9, Selected: 5, Keys: 5, Extra: 300, Batches: 5}},
		"large rows": {func(o *Options) { o.MaxSeqLength = 4 }, model.Load{Rows: 8, Selected: 5, Keys: 4, Extra: 300, Batches: 1}},
	} {
		f, o := newFake(), o
		f.lim.saving = 300
		o.OutputDir = t.TempDir() + "/out"
		c.set(&o)
		r, err := prepare(t.Context(), f, nil, ten(t), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.plan.Load != c.want {
			t.Errorf("%s: %+v, want %+v", name, r.plan.Load, c.want)
		}
	}
}

// What does not fit is told with what would.
func TestMemoryAdvice(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		memory model.Memory
		want   string // of the error or, without a given limit, the warning; "": neither
	}{
		"fits":     {model.Memory{Limit: 16 * mib, Given: true}, ""},
		"no limit": {model.Memory{Peak: 100 * mib}, ""},
		"smaller": {model.Memory{Limit: 9 * mib, Given: true}, "the memory limit of 9.00 MiB cannot be kept: the run takes 16.0 MiB at least, " +
			"with a micro-batch of 16 tokens and activation policy none; " +
			"with PerDeviceTrainBatchSize 2 and GradientAccumulationSteps 2 it takes 9.00 MiB"},
		"one": {model.Memory{Limit: 8 * mib, Given: true}, "with PerDeviceTrainBatchSize 1 and GradientAccumulationSteps 4 it takes 5.00 MiB"},
		"shorter": {model.Memory{Limit: 4 * mib, Given: true},
			"policy none; with PerDeviceTrainBatchSize 1 and MaxSeqLength 4 it takes 4.00 MiB"},
		"nothing": {model.Memory{Limit: mib, Given: true}, "no micro-batch is small enough: give it more memory, or train less (a smaller rank, fewer modules)"},
		"policy": {model.Memory{Limit: 20 * mib, Given: true, Peak: 100 * mib, Layers: 3, Kept: 3}, "the memory limit of 20.0 MiB cannot be kept: " +
			"with activation policy all the run takes 116 MiB; with none it would take 16.0 MiB"},
		"what is free": {model.Memory{Limit: 9 * mib, From: "MemAvailable"}, "there is memory for 9.00 MiB (MemAvailable), but the run takes 16.0 MiB at least"},
	} {
		f, o := newFake(), plain()
		f.memory, o.PerDeviceTrainBatchSize = c.memory, 4
		r, err := prepare(t.Context(), f, nil, ten(t), o)
		switch {
		case c.memory.Given && c.want != "":
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want %q", name, err, c.want)
			}
			continue
		case err != nil:
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join(r.plan.Warnings, "\n"); (got != "") != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: warnings %q, want %q", name, got, c.want)
		}
		if r.Options.PerDeviceTrainBatchSize != 4 || r.Options.GradientAccumulationSteps != 1 {
			t.Errorf("%s: the micro-batch was changed: %+v", name, r.Options)
		}
	}
}
