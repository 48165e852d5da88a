package main

import (
	"reflect"
	"regexp"
	"strings"

	"github.com/biolora/biolora/train"
)

// options are the run's settings as package train takes them.
func (r *Run) options() train.Options {
	o := train.Defaults()
	o.PerDeviceTrainBatchSize = r.BatchSize.rows()
	o.GradientAccumulationSteps = r.Accumulation
	o.NumTrainEpochs = r.NumTrainEpochs
	o.MaxSteps = r.MaxSteps
	o.LearningRate = r.LearningRate
	o.LRSchedulerType = r.LRSchedulerType
	o.WarmupSteps = r.WarmupSteps
	o.WarmupRatio = r.WarmupRatio
	o.WeightDecay = r.WeightDecay
	o.AdamBeta1, o.AdamBeta2 = r.AdamBeta1, r.AdamBeta2
	o.AdamEpsilon = r.AdamEpsilon
	o.MaxGradNorm = r.MaxGradNorm
	o.Seed = r.Seed
	o.Shuffle = !r.NoShuffle
	switch {
	case r.SharePrefixes:
		o.SharePrefixes = "always"
	case r.NoSharePrefixes:
		o.SharePrefixes = "never"
	}
	o.GroupByPrefix = r.GroupByPrefix
	r.Rows.Options(&o)
	o.ValSetSize = r.ValSetSize
	o.EvalSteps = r.EvalSteps
	o.LoadBestModelAtEnd = r.LoadBestModelAtEnd
	return o
}

// wordStart finds where a word begins in a Go name, and a run of capitals (LR) counts as one.
var wordStart = regexp.MustCompile(`([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])`)

// inFlags says what is wrong with the options by the names of the flags.
func inFlags(err error) error {
	if err == nil {
		return nil
	}
	names := []string{"; start from Defaults", "; it must be above 0"} // what libraries are told, and what users are
	t := reflect.TypeFor[train.Options]()
	for i := range t.NumField() {
		name := t.Field(i).Name
		flag := strings.ToLower(wordStart.ReplaceAllString(name, "$1$3-$2$4"))
		names = append(names, name+" ", "--"+flag+" ")
	}
	return flagError{strings.NewReplacer(names...).Replace(err.Error()), err}
}

// flagError is an error in other words.
type flagError struct {
	text string
	err  error
}

func (e flagError) Error() string { return e.text }
func (e flagError) Unwrap() error { return e.err }
