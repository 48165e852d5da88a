package train

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/biolora/biolora/train/instruct"
)

// BestDir is the folder in the output directory that holds the best adapter.
const BestDir = "best"

// limits are what data and plan must know of the engine.
type limits struct {
	vocab, positions      int
	trainable, parameters int64
	saving                int64 // bytes that Save takes
	dropout               bool
	lengthMatters         bool // what a token becomes depends on the length of its row
}

// defaultMaxSeqLength is what MaxSeqLength 0 stands for, unless the model has fewer positions.
const defaultMaxSeqLength = 1024

// TokenizeOptions says how a run makes tokens of rows for a model with that vocabulary and number of positions. 0 is
// for a model that is not known.
func (o Options) TokenizeOptions(vocab, positions int) instruct.TokenizeOptions {
	length := o.MaxSeqLength
	if length == 0 {
		length = defaultMaxSeqLength
		if positions > 0 {
			length = min(length, positions)
		}
	}
	return instruct.TokenizeOptions{
		MaxLength: length, KeepTokens: o.MaxSeqLength == 0, TrainOnInputs: o.TrainOnInputs, VocabSize: vocab,
	}
}

// prepare checks the options, makes tokens of the data, and says what the run is going to do.
func prepare(ctx context.Context, e engine, tok instruct.Tokenizer, data *instruct.Dataset, o Options) (*run, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	lim := e.limits()
	tokens := o.TokenizeOptions(lim.vocab, lim.positions)
	examples, err := data.Tokenize(ctx, tok, tokens)
	if err != nil {
		return nil, err
	}
	r := &run{engine: e, Options: o, data: examples, dropout: lim.dropout}
	r.filler.list = examples.List
	r.filler.share = o.SharePrefixes == shareAlways || o.SharePrefixes == shareAuto && !lim.dropout
	if lim.lengthMatters {
		r.filler.share = false
	}
	r.result = Result{EvalLoss: math.NaN(), EvalLossBefore: math.NaN(), BestEvalLoss: math.NaN()}
	if r.rows, r.held, err = split(len(examples.List), o.ValSetSize, o.Seed); err != nil {
		return nil, err
	}
	windows := o.windowsOf(len(r.rows))
	steps, err := o.totalSteps(windows)
	if err != nil {
		return nil, err
	}
	r.schedule = schedule{o.LRSchedulerType, o.warmupSteps(steps), steps}
	r.plan = Plan{
		Steps:               steps,
		WarmupSteps:         r.schedule.warmup,
		Epochs:              float64(steps) / float64(windows),
		MaxSeqLength:        tokens.MaxLength,
		TrainableParameters: lim.trainable,
		TotalParameters:     lim.parameters,
		Example:             Describe(&examples.List[r.order(0)[0]], tok),
	}
	r.plan.Rows = r.countRows(data)
	r.plan.Warnings = r.warnings(tok, lim)
	return r, r.fitting(r.load())
}

func (r *run) countRows(data *instruct.Dataset) Rows {
	c := Rows{
		Read: data.Len() + data.Bad(), Bad: data.Bad(),
		Train: len(r.rows), Eval: len(r.held),
		Cut: r.data.Cut, NoLabel: r.data.NoLabel,
	}
	for _, i := range r.rows {
		c.Tokens += int64(len(r.data.List[i].IDs))
		c.LabelTokens += int64(r.data.List[i].LabelTokens())
	}
	if r.filler.share {
		for part := range slices.Chunk(r.order(0), r.PerDeviceTrainBatchSize) {
			b, tokens, _ := r.filler.fill(part)
			c.Shared += int64(tokens - len(b.Tokens))
		}
	}
	return c
}

// warnings tells what is allowed but most likely not meant.
func (r *run) warnings(tok instruct.Tokenizer, lim limits) (w []string) {
	say := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	long, longest := 0, 0
	for i := range r.data.List {
		n := len(r.data.List[i].IDs)
		if n > lim.positions {
			long++
		}
		longest = max(longest, n)
	}
	if long > 0 {
		say("%d rows are longer than the model's %d positions (max_position_embeddings), the longest has %d tokens", long, lim.positions, longest)
	}
	if n := r.data.Unlabelled; n > 0 {
		say("%d pre-tokenised rows have no label: they take their place in a micro-batch and teach nothing", n)
	}
	if tok != nil && tok.VocabSize() > lim.vocab {
		say("the tokenizer has %d tokens, the model %d; no row uses those beyond", tok.VocabSize(), lim.vocab)
	}
	if r.SharePrefixes == shareAlways && lim.lengthMatters {
		say("rows do not share what they begin with: with dynamic rope scaling a token's rotation depends on the length of its row")
	} else if r.filler.share && r.dropout {
		say("rows that begin with the same tokens share the dropout mask of these")
	}
	if r.data.NoEOS {
		say("the tokenizer has no EOS token: the model does not learn where an answer ends")
	}
	if r.schedule.warmup > 0 && r.LRSchedulerType == constant {
		say("the schedule %q has no warm-up, so that %d warm-up steps have no effect; %q has one", constant, r.schedule.warmup, constantWithWarmup)
	} else if r.schedule.warmup >= r.plan.Steps {
		say("the warm-up of %d steps is as long as the run of %d steps: the learning rate does not reach %v", r.schedule.warmup, r.plan.Steps, r.LearningRate)
	}
	return w
}
