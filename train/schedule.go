package train

import (
	"fmt"
	"math"
	"slices"
)

// The learning-rate schedules, by Hugging Face's names.
const (
	constant           = "constant"
	constantWithWarmup = "constant_with_warmup"
	linear             = "linear"
	cosine             = "cosine"
)

var schedules = []string{constant, constantWithWarmup, linear, cosine}

func knownSchedule(name string) bool { return slices.Contains(schedules, name) }

// schedule is one of transformers.optimization's get_*_schedule*.
type schedule struct {
	kind          string
	warmup, total int // steps
}

// factor is what step s, from 0, multiplies the learning rate by. The first step of a warm-up has 0.
func (s schedule) factor(step int) float64 {
	if s.kind == constant {
		return 1
	}
	if step < s.warmup {
		return float64(step) / float64(s.warmup)
	}
	rest := float64(max(1, s.total-s.warmup))
	switch s.kind {
	case linear:
		return max(0, float64(s.total-step)/rest)
	case cosine:
		progress := float64(step-s.warmup) / rest
		return max(0, 0.5*(1+math.Cos(math.Pi*progress)))
	}
	return 1
}

// warmupSteps is the number of steps of the warm-up: WarmupSteps, or where that is 0 the share WarmupRatio of all
// steps, rounded up.
func (o Options) warmupSteps(total int) int {
	if o.WarmupSteps > 0 {
		return o.WarmupSteps
	}
	return int(math.Ceil(float64(total) * o.WarmupRatio))
}

// totalSteps is the number of optimiser steps over epochs of the given windows each.
func (o Options) totalSteps(windows int) (int, error) {
	if o.MaxSteps > 0 {
		return o.MaxSteps, nil
	}
	steps := math.Ceil(o.NumTrainEpochs * float64(windows))
	if steps > most {
		return 0, fmt.Errorf("%v epochs of %d steps each are more than %d steps", o.NumTrainEpochs, windows, most)
	}
	return int(steps), nil
}

// windowsOf is the number of optimiser steps that go through n rows once: rows make micro-batches, the last of which
// may be smaller, and these make windows, the last of which may be shorter.
func (o Options) windowsOf(n int) int {
	microBatches := o.microBatches(n)
	return (microBatches + o.GradientAccumulationSteps - 1) / o.GradientAccumulationSteps
}

func (o Options) microBatches(n int) int {
	return (n + o.PerDeviceTrainBatchSize - 1) / o.PerDeviceTrainBatchSize
}
