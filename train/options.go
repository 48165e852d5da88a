package train

import (
	"context"
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
	MaxSeqLength              int     // longer rows are cut on the right; 0: min(1024, max_position_embeddings)
	TrainOnInputs             bool    // the loss counts the prompt too

	ValSetSize         float64 // rows held out: a number from 1 on, a share below 1; 0: none
	EvalSteps          int     // evaluate every so many steps, and at the end; 0: at the end of each epoch
	LoadBestModelAtEnd bool    // leave the best evaluation's adapter, not the last one

	// OutputDir receives events.jsonl, the adapter and best/. Empty: nothing is written.
	OutputDir string

	// Hooks see the run as it goes, in order.
	Hooks []Hook

	// Reduce makes one sum of the processes' sums at the end of each window, before the division by the label
	// tokens; nil on one process.
	Reduce func(ctx context.Context, sums *Sums) error
}

// Sums are what a window of micro-batches adds up to.
type Sums struct {
	Loss        float64 // of all token losses
	LabelTokens int
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
	}
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
	Example                              Example // the first row as the model will see it
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
	EvalLoss       float64 // of the adapter that is left; NaN without a validation set
	EvalLossBefore float64 // of the adapter before the first step; NaN without a validation set
	BestStep       int
	BestEvalLoss   float64
	Interrupted    bool // the context ended before the run did
	Seconds        float64
}

// NopHook does nothing.
type NopHook struct{}

func (NopHook) Begin(Plan) error     { return nil }
func (NopHook) Step(StepEvent) error { return nil }
func (NopHook) Eval(EvalEvent) error { return nil }
func (NopHook) End(Result) error     { return nil }
