package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train/instruct"
)

// engine is what a run needs of a model and its adapter.
type engine interface {
	// Of model.Model.
	BackwardAll(ctx context.Context, bs []*model.Batch) error
	LossAll(ctx context.Context, bs []*model.Batch) ([]float64, error)
	TakeLoss() float64
	CheckFinite() error
	Plan(l model.Load) (model.Memory, error)
	Reserve(l model.Load) (model.Memory, error)
	// Of model.Params.
	Zero()
	Scale(f float64)
	Norm() float64
	AdamW(o model.AdamW)
	Snapshot(into *model.Snapshot) *model.Snapshot
	Restore(s *model.Snapshot)
	// Of lora.Adapter.
	Save(dir string) error

	// forget clears what an earlier run has left: gradients, losses, AdamW's moments.
	forget()
	// finite is nil when everything that is trained is finite.
	finite() error
	// Err is what has failed on a card since forget, in a method that returns no error.
	Err() error
	// KeptStep tells of which step the values are that Save finds when the card is lost; 0: there are none.
	KeptStep() (step int, lost bool)
	// sums is what Options.Reduce is given.
	sums(loss float64, labels int) *Sums
	limits() limits
}

// run is the state of a run.
type run struct {
	engine
	Options
	plan     Plan
	data     *instruct.Examples
	rows     []int // indices into data.List: trained on
	held     []int // held out
	dropout  bool
	schedule schedule
	filler   filler
	fillers  []*filler      // of micro-batches that are there at the same time: the first is filler
	batches  []*model.Batch // that they made
	hooks    []Hook
	events   *events
	step     int // optimiser steps done
	began    time.Time
	result   Result
	best     *model.Snapshot
}

// start prepares a run, and goes through with it.
func start(ctx context.Context, e engine, tok instruct.Tokenizer, data *instruct.Dataset, o Options) (*Result, error) {
	r, err := prepare(ctx, e, tok, data, o)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return &Result{EvalLoss: math.NaN(), EvalLossBefore: math.NaN(), BestEvalLoss: math.NaN(), Interrupted: true}, nil
	}
	if err != nil {
		return nil, err
	}
	if o.OutputDir != "" {
		if r.events, err = createEvents(o.OutputDir); err != nil {
			return nil, err
		}
		r.hooks = append(r.hooks, r.events)
	}
	r.hooks = append(r.hooks, o.Hooks...)
	var m model.Memory
	if m, err = r.Reserve(r.plan.Load); err == nil {
		r.plan.Memory = m
		err = r.train(ctx)
	}
	err = r.explain(err)
	if r.events != nil {
		err = errors.Join(err, r.events.close())
	}
	if err != nil {
		return &r.result, err
	}
	for _, h := range r.hooks {
		if err := h.End(r.result); err != nil {
			return &r.result, err
		}
	}
	return &r.result, nil
}

// train runs from the first evaluation to the saved adapter.
func (r *run) train(ctx context.Context) error {
	for _, h := range r.hooks {
		if err := h.Begin(r.plan); err != nil {
			return err
		}
	}
	r.began = time.Now()
	err := r.loop(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		r.result.Interrupted, err = true, nil
	}
	if err == nil && !r.result.Interrupted && r.best != nil && r.result.BestStep != r.step {
		r.Restore(r.best)
		r.result.EvalLoss = r.result.BestEvalLoss
	}
	if r.step > 0 { // otherwise nothing was learnt
		err = r.leave(err)
	}
	r.result.Seconds = time.Since(r.began).Seconds()
	return err
}

// leave saves the adapter, unless it is not finite, after a run that ended with err.
func (r *run) leave(err error) error {
	if r.OutputDir == "" {
		return err
	}
	step, lost := r.KeptStep()
	switch {
	case !lost:
		step = r.step
	case step == 0:
		return errors.Join(err, errors.New("the adapter was on the card alone: it is not saved"))
	}
	if bad := r.finite(); bad != nil {
		return errors.Join(err, fmt.Errorf("the adapter is not saved: %w", bad))
	}
	if bad := r.save(r.OutputDir); bad != nil {
		return errors.Join(err, fmt.Errorf("saving the adapter: %w", bad))
	}
	if err != nil {
		return fmt.Errorf("%w (the adapter of step %d is saved in %s)", err, step, r.OutputDir)
	}
	return nil
}

// large is the size of an adapter in memory that is not to be garbage beside the next one.
const large = 64 << 20

// save saves the adapter. What the last time has left is collected first where it is large: allocating as much again
// would not wait for that.
func (r *run) save(dir string) error {
	if r.limits().saving >= large {
		runtime.GC()
	}
	return r.Save(dir)
}

// loop goes through all steps and evaluations.
func (r *run) loop(ctx context.Context) error {
	r.forget()
	if err := r.Err(); err != nil {
		return err
	}
	if err := r.evaluate(ctx); err != nil {
		return err
	}
	windows := r.windowsOf(len(r.rows))
	for epoch := 0; ; epoch++ {
		order := r.order(epoch)
		for w := range windows {
			if r.step == r.plan.Steps {
				return nil
			}
			if err := r.window(ctx, epoch, order, w); err != nil {
				return err
			}
			if !r.evaluates(w == windows-1) {
				continue
			}
			if err := r.evaluate(ctx); err != nil {
				return err
			}
		}
	}
}

// window does one optimiser step: the w-th of an epoch.
func (r *run) window(ctx context.Context, epoch int, order []int, w int) error {
	began := time.Now()
	size := r.PerDeviceTrainBatchSize * r.GradientAccumulationSteps
	rows := order[w*size : min(len(order), (w+1)*size)]
	event := StepEvent{
		Step:  r.step + 1,
		Epoch: float64(epoch) + float64(w*r.GradientAccumulationSteps+r.microBatches(len(rows)))/float64(r.microBatches(len(order))),
		LR:    r.LearningRate * r.schedule.factor(r.step),
	}
	r.Zero()
	together, _ := r.together()
	for part := range slices.Chunk(rows, together*r.PerDeviceTrainBatchSize) {
		tokens, labels, err := r.backward(ctx, epoch, part)
		if err != nil {
			return fmt.Errorf("step %d: %w", event.Step, err)
		}
		event.Tokens += tokens
		event.LabelTokens += labels
	}
	if err := r.update(ctx, &event); err != nil {
		return fmt.Errorf("step %d: %w", event.Step, err)
	}
	event.Seconds = time.Since(began).Seconds()
	r.step++
	r.result.Steps, r.result.Loss = r.step, event.Loss
	r.result.EvalLoss = math.NaN() // until this adapter is evaluated
	for _, h := range r.hooks {
		if err := h.Step(event); err != nil {
			return fmt.Errorf("step %d: %w", event.Step, err)
		}
	}
	return nil
}

// together is how many micro-batches are given to the engine at a time, in training and in an evaluation.
func (r *run) together() (train, eval int) {
	if s := r.plan.Memory.Stream; s != nil {
		return s.Batches, s.Evals
	}
	return 1, 1
}

// backward adds the losses and gradients of the micro-batches of rows to the window's.
func (r *run) backward(ctx context.Context, epoch int, rows []int) (tokens, labels int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	r.batches = r.batches[:0]
	for part := range slices.Chunk(rows, r.PerDeviceTrainBatchSize) {
		f := r.next()
		b, t, l := f.fill(part)
		if r.dropout {
			f.withDropout(part, r.Seed, epoch)
		}
		r.batches = append(r.batches, b)
		tokens += t
		labels += l
	}
	return tokens, labels, r.BackwardAll(ctx, r.batches)
}

// next is the filler of the micro-batch that comes to those in batches.
func (r *run) next() *filler {
	i := len(r.batches)
	if len(r.fillers) == 0 {
		r.fillers = append(r.fillers, &r.filler)
	}
	if len(r.fillers) == i {
		r.fillers = append(r.fillers, &filler{list: r.filler.list, share: r.filler.share})
	}
	return r.fillers[i]
}

// update turns the window's sums into means, and makes the step.
func (r *run) update(ctx context.Context, event *StepEvent) error {
	var norm float64
	if r.Reduce == nil {
		norm = r.Norm() // before the loss: a card brings both with the one wait of a step
	}
	sums := r.sums(r.TakeLoss(), event.LabelTokens)
	if r.Reduce != nil {
		if err := r.Reduce(ctx, sums); err != nil {
			return err
		}
		event.LabelTokens = sums.LabelTokens
		norm = r.Norm()
	}
	n := float64(max(1, sums.LabelTokens)) // a window of unlabelled rows has a loss of 0
	event.Loss = sums.Loss / n
	event.GradNorm = norm / n
	if err := r.Err(); err != nil {
		return err
	}
	if !finite(event.Loss) {
		return r.notFinite("the loss", event.Loss)
	}
	if !finite(event.GradNorm) {
		return r.notFinite("the gradients' norm", event.GradNorm)
	}
	r.Scale(clip(event.GradNorm, r.MaxGradNorm) / n)
	r.AdamW(model.AdamW{
		LR: event.LR, Beta1: r.AdamBeta1, Beta2: r.AdamBeta2, Eps: r.AdamEpsilon, WeightDecay: r.WeightDecay,
		Step: event.Step,
	})
	return r.Err()
}

// clip is the factor that makes a global norm at most limit (torch.nn.utils.clip_grad_norm_).
func clip(norm, limit float64) float64 {
	if limit == 0 {
		return 1
	}
	return min(1, limit/(norm+1e-6))
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// notFinite looks for the tensor from which a NaN or an infinity comes.
func (r *run) notFinite(what string, v float64) error {
	cause := r.CheckFinite()
	if cause == nil {
		cause = errors.New("all weights and gradients are finite, so it comes from the arithmetic: try a smaller learning rate, or compute f32")
	}
	return fmt.Errorf("%s is %v: %w", what, v, cause)
}

// evaluates tells whether an evaluation follows the step that was just made.
func (r *run) evaluates(endOfEpoch bool) bool {
	switch {
	case r.step == r.plan.Steps:
		return true
	case r.EvalSteps > 0:
		return r.step%r.EvalSteps == 0
	}
	return endOfEpoch
}

// evaluate takes the mean loss over all label tokens of the rows held out, and keeps the best adapter.
func (r *run) evaluate(ctx context.Context) error {
	if len(r.held) == 0 {
		return nil
	}
	var sum float64
	var n int
	_, together := r.together()
	for rows := range slices.Chunk(r.held, together*r.PerDeviceTrainBatchSize) {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.batches = r.batches[:0]
		for part := range slices.Chunk(rows, r.PerDeviceTrainBatchSize) {
			b, _, labels := r.next().fill(part)
			r.batches = append(r.batches, b)
			n += labels
		}
		losses, err := r.LossAll(ctx, r.batches)
		if err != nil {
			return fmt.Errorf("evaluation after step %d: %w", r.step, err)
		}
		for _, loss := range losses {
			sum += loss
		}
	}
	loss := sum / float64(n)
	if !finite(loss) {
		return fmt.Errorf("evaluation after step %d: %w", r.step, r.notFinite("the loss", loss))
	}
	r.result.EvalLoss = loss
	if r.step == 0 {
		r.result.EvalLossBefore = loss
	} else if err := r.keepBest(loss); err != nil {
		return err
	}
	// JSON has no infinity; a loss above 709 would be one here.
	event := EvalEvent{Step: r.step, EvalLoss: loss, Perplexity: min(math.Exp(loss), math.MaxFloat64)}
	for _, h := range r.hooks {
		if err := h.Eval(event); err != nil {
			return fmt.Errorf("evaluation after step %d: %w", r.step, err)
		}
	}
	return nil
}

// keepBest keeps the adapter if its evaluation has the lowest loss of those so far.
func (r *run) keepBest(loss float64) error {
	if r.result.BestStep > 0 && loss >= r.result.BestEvalLoss {
		return nil
	}
	r.result.BestStep, r.result.BestEvalLoss = r.step, loss
	if r.LoadBestModelAtEnd {
		r.best = r.Snapshot(r.best)
	}
	if r.OutputDir == "" {
		return nil
	}
	if err := r.save(filepath.Join(r.OutputDir, BestDir)); err != nil {
		return fmt.Errorf("saving the best adapter: %w", err)
	}
	return nil
}
