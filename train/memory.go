package train

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train/instruct"
)

// MakePlan says what Run would do with the same arguments, what memory it would take (Plan.Memory) and, from a
// calibration of about a second, how long a step (Plan.StepSeconds). It allocates little of that, and writes nothing. On
// a card nothing is calibrated: the weights would have to be copied there.
func MakePlan(ctx context.Context, m *model.Model, a *lora.Adapter, tok *tokenizer.Tokenizer, data *instruct.Dataset, o Options) (*Plan, error) {
	if m == nil || a == nil || data == nil {
		return nil, errMissing
	}
	r, err := prepare(ctx, subject{m, m.Params(), a}, tokenizerOf(tok), data, o)
	if err != nil {
		return nil, err
	}
	p := &r.plan
	if m.OnCard() {
		return p, nil
	}
	windows := float64(r.windowsOf(len(r.rows)))
	rows, batches := float64(p.Rows.Tokens-p.Rows.Shared), r.microBatches(len(r.rows))
	speed, err := m.Calibrate(ctx, int(rows)/batches, int(p.Rows.Tokens)/p.Rows.Train)
	if err != nil {
		return nil, err
	}
	p.StepSeconds = speed.Step + speed.Seconds(p.Memory, m.Config().NumHiddenLayers, rows, float64(p.Rows.LabelTokens))/windows
	return p, nil
}

var errMissing = errors.New("train: a model, an adapter of it and data are needed")

// tokenizerOf keeps no tokenizer from becoming an interface that holds none.
func tokenizerOf(t *tokenizer.Tokenizer) instruct.Tokenizer {
	if t == nil {
		return nil
	}
	return t
}

// lookAhead is the number of epochs whose micro-batches are measured. A larger one after them is run all the same; only
// its memory is not planned for.
const lookAhead = 100

// load measures the micro-batches of the run, as they are laid out.
func (r *run) load() model.Load {
	l := model.Load{Extra: r.extra(), Batches: min(r.GradientAccumulationSteps, r.microBatches(len(r.rows))), EvalBatches: r.microBatches(len(r.held))}
	left := r.plan.Steps
	for epoch := 0; left > 0 && epoch < lookAhead; epoch++ {
		rows := r.order(epoch)
		rows = rows[:min(len(rows), left*r.PerDeviceTrainBatchSize*r.GradientAccumulationSteps)]
		for part := range slices.Chunk(rows, r.PerDeviceTrainBatchSize) {
			r.enlarge(&l, &l.Rows, part)
		}
		if !r.Shuffle {
			break
		}
		left -= r.windowsOf(len(r.rows))
	}
	for part := range slices.Chunk(r.held, r.PerDeviceTrainBatchSize) {
		r.enlarge(&l, &l.EvalRows, part)
	}
	return l
}

// enlarge makes l, and its number of rows that counts, large enough for the micro-batch of these rows.
func (r *run) enlarge(l *model.Load, rows *int, part []int) {
	n, labels := 0, 0
	for _, i := range part {
		e := &r.data.List[i]
		n += len(e.IDs)
		labels += e.LabelTokens()
		l.Keys = max(l.Keys, len(e.IDs))
	}
	if n > *rows && r.filler.share {
		b, _, _ := r.filler.fill(part)
		n = len(b.Tokens)
	}
	*rows = max(*rows, n)
	l.Selected = max(l.Selected, min(n, labels))
}

// extra is the memory that the run takes beside the model's: the best values, and the adapter while it is saved.
func (r *run) extra() (bytes int64) {
	lim := r.limits()
	if r.LoadBestModelAtEnd && len(r.held) > 0 {
		bytes += 4 * lim.trainable
	}
	if r.OutputDir != "" {
		bytes += lim.saving
	}
	return bytes
}

// fitting plans the memory for a load. Where a limit that was given cannot be kept, the error says what could; where
// what is free does not suffice, a warning does.
func (r *run) fitting(l model.Load) error {
	m, err := r.Plan(l)
	if err != nil {
		return err
	}
	r.plan.Memory, r.plan.Load = m, l
	if m.Fits() {
		return nil
	}
	text := fmt.Sprintf("the run takes %s at least, with a micro-batch of %d tokens and activation policy none",
		memory.Format(m.Least), l.Rows)
	switch advice, err := r.advice(l, m.Limit); {
	case err != nil:
		return err
	case m.Least <= m.Limit:
		text = fmt.Sprintf("with activation policy %s the run takes %s; with none it would take %s", m.Policy(),
			memory.Format(m.Peak), memory.Format(m.Least))
	default:
		text += "; " + advice
	}
	if m.Given {
		return fmt.Errorf("the memory limit of %s cannot be kept: %s", memory.Format(m.Limit), text)
	}
	r.plan.Warnings = append(r.plan.Warnings, fmt.Sprintf("there is memory for %s (%s), but %s", memory.Format(m.Limit), m.From, text))
	return nil
}

// enoughRows is the size of a micro-batch, in tokens, from which on a larger one is hardly faster.
const enoughRows = 2048

// FitMicroBatch finds the largest micro-batch that the memory has room for, and how many of them are a step then: of the
// rows of a step that o asks for, PerDeviceTrainBatchSize * GradientAccumulationSteps, all stay together, so that a step
// is the same one but for rounding. Where a micro-batch of 2,048 tokens or more leaves room to keep what the backward
// pass of all layers reads, the largest such one is taken.
func FitMicroBatch(ctx context.Context, m *model.Model, a *lora.Adapter, tok *tokenizer.Tokenizer, data *instruct.Dataset, o Options) (size, accumulation int, err error) {
	if m == nil || a == nil || data == nil {
		return 0, 0, errMissing
	}
	total := o.PerDeviceTrainBatchSize * o.GradientAccumulationSteps
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = 1, total
	r, err := prepare(ctx, subject{m, m.Params(), a}, tokenizerOf(tok), data, o)
	if err != nil {
		return 0, 0, err
	}
	best := 1
	for n := total; n > 1; n-- {
		if total%n != 0 {
			continue
		}
		r.PerDeviceTrainBatchSize, r.GradientAccumulationSteps = n, total/n
		l := r.load()
		p, err := r.Plan(l)
		if err != nil {
			return 0, 0, err
		}
		keepsAll := p.Kept == p.Layers && l.Rows >= enoughRows
		if p.Fits() && (best == 1 || keepsAll) {
			best = n
		}
		if p.Fits() && keepsAll || l.Rows < enoughRows && best > 1 {
			break
		}
	}
	return best, total / best, nil
}

// advice says what keeps the run within the limit: smaller micro-batches or, if one row is too much, shorter rows.
func (r *run) advice(l model.Load, limit int64) (string, error) {
	least := func(l model.Load) (int64, error) {
		m, err := r.Plan(l)
		return m.Least, err
	}
	defer func() { _, _ = r.Plan(l) }() // what is compiled is the run's own again
	o := r.Options
	for size := o.PerDeviceTrainBatchSize / 2; size > 0; size /= 2 {
		r.PerDeviceTrainBatchSize, r.GradientAccumulationSteps = size, (o.PerDeviceTrainBatchSize*o.GradientAccumulationSteps+size-1)/size
		smaller := r.load()
		r.PerDeviceTrainBatchSize, r.GradientAccumulationSteps = o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps
		n, err := least(smaller)
		if err != nil {
			return "", err
		}
		if n <= limit {
			return fmt.Sprintf("with PerDeviceTrainBatchSize %d and GradientAccumulationSteps %d it takes %s", size,
				(o.PerDeviceTrainBatchSize*o.GradientAccumulationSteps+size-1)/size, memory.Format(n)), nil
		}
	}
	fits, tooLong := 0, l.Keys+1
	var takes int64
	for tooLong-fits > 1 {
		n := (fits + tooLong) / 2
		one := model.Load{Rows: n, EvalRows: min(n, l.EvalRows), Selected: min(n, l.Selected), Keys: n, Extra: l.Extra}
		bytes, err := least(one)
		if err != nil {
			return "", err
		}
		if bytes <= limit {
			fits, takes = n, bytes
		} else {
			tooLong = n
		}
	}
	if fits < 2 {
		return "no micro-batch is small enough: give it more memory, or train less (a smaller rank, fewer modules)", nil
	}
	return fmt.Sprintf("with PerDeviceTrainBatchSize 1 and MaxSeqLength %d it takes %s", fits, memory.Format(takes)), nil
}

// explain says of a card whose memory does not suffice what was planned, and what to change.
func (r *run) explain(err error) error {
	if err == nil || !errors.Is(err, model.ErrOutOfMemory) {
		return err
	}
	m := &r.plan.Memory
	return fmt.Errorf("%w\nplanned were %s on %s (weights %s, adapter and optimizer %s, activations %s, scratch %s), of %s (%s)\n"+
		"what takes less: PerDeviceTrainBatchSize smaller and GradientAccumulationSteps larger, activation policy none, base nf4 or int8, "+
		"MaxSeqLength smaller, another device", err, memory.Format(m.Peak), m.Card, memory.Format(m.Weights),
		memory.Format(m.Adapter+m.Optimizer), memory.Format(m.Activations), memory.Format(m.Scratch), memory.Format(m.Limit), m.From)
}
