package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/biolora/biolora/model"
)

// Options are the numbers of a run, with Hugging Face's names and meanings. Every field is taken as it stands,
// 0 included; start from Defaults.
type Options struct {
	PerDeviceTrainBatchSize   int     // samples a micro-batch
	GradientAccumulationSteps int     // micro-batches an optimiser step
	NumTrainEpochs            float64 // passes over the data
	MaxSteps                  int     // above 0: rules over NumTrainEpochs and goes round the data
	LearningRate              float64
	LRSchedulerType           string  // constant, constant_with_warmup, linear, cosine
	WarmupSteps               int     // above 0: rules over WarmupRatio
	WarmupRatio               float64 // of all steps, rounded up
	WeightDecay               float64 // decoupled
	AdamBeta1, AdamBeta2      float64
	AdamEpsilon               float64
	MaxGradNorm               float64 // clip the global norm; 0: no clipping
	Seed                      uint64  // of shuffling, dropout and the validation split
	Shuffle                   bool    // a new order each epoch; otherwise the file's
	TrainOnInputs             bool    // the loss counts the prompt too

	// SharePrefixes says whether the tokens with which several rows of a micro-batch begin are computed once for all of
	// them, which changes neither loss nor gradients but by rounding: "auto": yes, unless the adapter has dropout, since
	// the rows would then share the mask of these tokens too; "always": with dropout as well; "never". It is never done
	// where a token's rotation depends on the length of its row (dynamic rope scaling).
	SharePrefixes string
	// GroupByPrefix puts rows that begin alike, and of these such of similar length, into the same micro-batches: within
	// runs of 64 micro-batches of the shuffled order, whose micro-batches are then shuffled.
	GroupByPrefix bool

	// MaxSeqLength is where longer rows are cut on the right. 0: text at min(1024, max_position_embeddings),
	// pre-tokenised rows not at all.
	MaxSeqLength int

	ValSetSize         float64 // rows held out: a number from 1 on, a share below 1 (rounded up); 0: none
	EvalSteps          int     // evaluate every so many steps, and at the end; 0: at the end of each epoch
	LoadBestModelAtEnd bool    // leave the adapter of the evaluation with the lowest loss, not the last one

	// OutputDir receives events.jsonl, the adapter and, with a validation set, best/: the adapter of the evaluation
	// with the lowest loss (of those after a step, as in Hugging Face's Trainer). It may exist, but not hold an
	// events.jsonl. Empty: nothing is written.
	OutputDir string

	// Hooks see the run as it goes, in order.
	Hooks []Hook

	// Reduce makes one sum of all processes' sums at the end of each window, before the division by the label
	// tokens; nil on one process.
	Reduce func(ctx context.Context, sums *Sums) error
}

// Sums are what a window of micro-batches adds up to.
type Sums struct {
	Loss        float64 // of all token losses
	LabelTokens int
	Params      *model.Params // hold the sums of the gradients
}

// Defaults is the one table of defaults; the help prints it, YAML overrides it, run.yaml records it.
func Defaults() Options {
	return Options{
		PerDeviceTrainBatchSize:   8,
		GradientAccumulationSteps: 1,
		NumTrainEpochs:            3,
		LearningRate:              3e-4,
		LRSchedulerType:           "linear",
		AdamBeta1:                 0.9,
		AdamBeta2:                 0.999,
		AdamEpsilon:               1e-8,
		MaxGradNorm:               1,
		Seed:                      42,
		Shuffle:                   true,
		SharePrefixes:             shareAuto,
	}
}

// most bounds the counts of Options, so that their products are numbers too.
const most = 1 << 30

// Validate gathers everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	// A zero here makes no sense: most likely the options did not start from Defaults.
	positive := func(name string, v float64) {
		if v == 0 {
			check(false, "%s is 0; start from Defaults", name)
			return
		}
		check(v > 0 && !math.IsInf(v, 0), "%s is %v; it must be above 0", name, v)
	}
	count := func(name string, v, lowest int) {
		check(v >= lowest && v <= most, "%s is %d; it must be from %d to %d", name, v, lowest, most)
	}
	within := func(name string, v, lowest, below float64) {
		check(v >= lowest && v < below, "%s is %v; it must be at least %v and below %v", name, v, lowest, below)
	}
	positive("PerDeviceTrainBatchSize", float64(o.PerDeviceTrainBatchSize))
	positive("GradientAccumulationSteps", float64(o.GradientAccumulationSteps))
	check(o.PerDeviceTrainBatchSize <= most, "PerDeviceTrainBatchSize is %d; it must be at most %d", o.PerDeviceTrainBatchSize, most)
	check(o.GradientAccumulationSteps <= most, "GradientAccumulationSteps is %d; it must be at most %d", o.GradientAccumulationSteps, most)
	count("MaxSteps", o.MaxSteps, 0)
	if o.MaxSteps == 0 {
		positive("NumTrainEpochs", o.NumTrainEpochs)
	}
	positive("LearningRate", o.LearningRate)
	check(knownSchedule(o.LRSchedulerType), "LRSchedulerType is %q; it must be %s", o.LRSchedulerType, strings.Join(schedules, ", "))
	count("WarmupSteps", o.WarmupSteps, 0)
	check(o.WarmupRatio >= 0 && o.WarmupRatio <= 1, "WarmupRatio is %v; it must be from 0 to 1", o.WarmupRatio)
	within("WeightDecay", o.WeightDecay, 0, math.Inf(1))
	within("AdamBeta1", o.AdamBeta1, 0, 1)
	within("AdamBeta2", o.AdamBeta2, 0, 1)
	positive("AdamEpsilon", o.AdamEpsilon)
	within("MaxGradNorm", o.MaxGradNorm, 0, math.Inf(1))
	check(slices.Contains(sharings, o.SharePrefixes), "SharePrefixes is %q; it must be %s", o.SharePrefixes, strings.Join(sharings, ", "))
	count("MaxSeqLength", o.MaxSeqLength, 0)
	within("ValSetSize", o.ValSetSize, 0, most)
	check(o.ValSetSize < 1 || o.ValSetSize == math.Trunc(o.ValSetSize), "ValSetSize is %v; it must be a share below 1 or a whole number", o.ValSetSize)
	count("EvalSteps", o.EvalSteps, 0)
	check(o.EvalSteps == 0 || o.ValSetSize != 0, "EvalSteps is %d, but there is nothing to evaluate on: ValSetSize is 0", o.EvalSteps)
	check(!o.LoadBestModelAtEnd || o.ValSetSize != 0, "LoadBestModelAtEnd needs a validation set: ValSetSize is 0")
	return errors.Join(errs...)
}

// Hook is told what happens in a run. Its methods are called between steps on the goroutine of Run; an error ends
// the run. Embed NopHook to implement some of them only.
type Hook interface {
	Begin(Plan) error
	Step(StepEvent) error
	Eval(EvalEvent) error
	End(Result) error
}

// Plan is what a run is going to do, known before its first step.
type Plan struct {
	Rows                                 Rows
	Steps                                int // optimiser steps
	WarmupSteps                          int
	Epochs                               float64
	MaxSeqLength                         int
	TrainableParameters, TotalParameters int64
	Example                              Example      // the first row as the model will see it
	Load                                 model.Load   // the largest micro-batch
	Memory                               model.Memory // what that takes
	StepSeconds                          float64      // what a step takes on average; 0: not measured (see MakePlan)
	Warnings                             []string
}

// Rows counts what became of the data.
type Rows struct {
	Read        int   // rows in the files, the bad ones included
	Train       int   // rows that are trained on
	Eval        int   // rows held out
	Cut         int   // rows that lost their end to MaxSeqLength (of Train and Eval)
	NoLabel     int   // skipped: no label left after the cut
	Bad         int   // skipped with --skip-bad-rows
	Tokens      int64 // of Train
	Shared      int64 // of Tokens: those that the first epoch does not compute, because a row before began with them too
	LabelTokens int64 // of Train: labels that count
}

// Example is a row decoded piece by piece; pieces with Label are learnt.
type Example struct {
	Pieces []Piece
}

// Piece is a run of tokens that are all masked or all labelled.
type Piece struct {
	Text   string
	Tokens int
	Label  bool
}

// StepEvent is one optimiser step, as it stands in events.jsonl.
type StepEvent struct {
	Step        int     `json:"step"` // from 1
	Epoch       float64 `json:"epoch"`
	Loss        float64 `json:"loss"`      // sum of the token losses / label tokens, over the whole window
	GradNorm    float64 `json:"grad_norm"` // before clipping
	LR          float64 `json:"lr"`        // as used in this step
	Tokens      int     `json:"tokens"`    // the rows' own
	LabelTokens int     `json:"label_tokens"`
	Seconds     float64 `json:"seconds"`
}

// EvalEvent is one evaluation, as it stands in events.jsonl. Step is 0 before training.
type EvalEvent struct {
	Step       int     `json:"step"`
	EvalLoss   float64 `json:"eval_loss"`
	Perplexity float64 `json:"perplexity"`
}

// Result is what a run came to.
type Result struct {
	Steps          int
	Loss           float64 // of the last step
	EvalLoss       float64 // of the adapter that is left; NaN where it was not evaluated
	EvalLossBefore float64 // of the adapter before the first step; NaN without a validation set
	BestStep       int     // of the evaluation with the lowest loss; 0 without one
	BestEvalLoss   float64 // its loss; NaN without one
	Interrupted    bool    // the context ended before the run did
	Seconds        float64 // from the first evaluation or step to the saved adapter
}

// NopHook does nothing.
type NopHook struct{}

func (NopHook) Begin(Plan) error     { return nil }
func (NopHook) Step(StepEvent) error { return nil }
func (NopHook) Eval(EvalEvent) error { return nil }
func (NopHook) End(Result) error     { return nil }
