package train

import (
	"math"
	"strings"
	"testing"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestZeroOptions(t *testing.T) {
	err := Options{}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"PerDeviceTrainBatchSize", "GradientAccumulationSteps", "NumTrainEpochs", "LearningRate", "AdamEpsilon"} {
		if want := name + " is 0; start from Defaults"; !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 7 { // and the names of the schedule and of the sharing
		t.Errorf("%d problems: %v", n, err)
	}
}

func TestValidate(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name string
		set  func(*Options)
		want string // empty: valid
	}{
		{"max steps without epochs", func(o *Options) { o.NumTrainEpochs, o.MaxSteps = 0, 5 }, ""},
		{"no clipping", func(o *Options) { o.MaxGradNorm = 0 }, ""},
		{"part of an epoch", func(o *Options) { o.NumTrainEpochs = 0.5 }, ""},
		{"a share held out", func(o *Options) { o.ValSetSize, o.LoadBestModelAtEnd = 0.1, true }, ""},
		{"negative batch", func(o *Options) { o.PerDeviceTrainBatchSize = -1 }, "PerDeviceTrainBatchSize is -1; it must be above 0"},
		{"huge batch", func(o *Options) { o.PerDeviceTrainBatchSize = 1 << 40 }, "PerDeviceTrainBatchSize is 1099511627776; it must be at most 1073741824"},
		{"huge accumulation", func(o *Options) { o.GradientAccumulationSteps = 1 << 40 }, "GradientAccumulationSteps is 1099511627776; it must be at most 1073741824"},
		{"negative steps", func(o *Options) { o.MaxSteps = -1 }, "MaxSteps is -1; it must be from 0 to 1073741824"},
		{"NaN epochs", func(o *Options) { o.NumTrainEpochs = nan }, "NumTrainEpochs is NaN; it must be above 0"},
		{"infinite rate", func(o *Options) { o.LearningRate = inf }, "LearningRate is +Inf; it must be above 0"},
		{"schedule", func(o *Options) { o.LRSchedulerType = "polynomial" }, `LRSchedulerType is "polynomial"; it must be constant, constant_with_warmup, linear, cosine`},
		{"warm-up", func(o *Options) { o.WarmupSteps = -2 }, "WarmupSteps is -2; it must be from 0 to 1073741824"},
		{"ratio", func(o *Options) { o.WarmupRatio = 1.5 }, "WarmupRatio is 1.5; it must be from 0 to 1"},
		{"decay", func(o *Options) { o.WeightDecay = -0.1 }, "WeightDecay is -0.1; it must be at least 0 and below +Inf"},
		{"beta1", func(o *Options) { o.AdamBeta1 = 1 }, "AdamBeta1 is 1; it must be at least 0 and below 1"},
		{"beta2", func(o *Options) { o.AdamBeta2 = nan }, "AdamBeta2 is NaN; it must be at least 0 and below 1"},
		{"norm", func(o *Options) { o.MaxGradNorm = inf }, "MaxGradNorm is +Inf; it must be at least 0 and below +Inf"},
		{"length", func(o *Options) { o.MaxSeqLength = -1 }, "MaxSeqLength is -1; it must be from 0 to 1073741824"},
		{"validation", func(o *Options) { o.ValSetSize = 2.5 }, "ValSetSize is 2.5; it must be a share below 1 or a whole number"},
		{"negative validation", func(o *Options) { o.ValSetSize = -1 }, "ValSetSize is -1; it must be at least 0 and below 1.073741824e+09"},
		{"nothing to evaluate", func(o *Options) { o.EvalSteps = 5 }, "EvalSteps is 5, but there is nothing to evaluate on: ValSetSize is 0"},
		{"no best", func(o *Options) { o.LoadBestModelAtEnd = true }, "LoadBestModelAtEnd needs a validation set: ValSetSize is 0"},
	} {
		o := Defaults()
		c.set(&o)
		got := ""
		if err := o.Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}
