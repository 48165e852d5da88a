package train

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train/instruct"
)

// fake is an engine with one parameter w, where a label l costs (w - l)²/2.
type fake struct {
	w, grad, loss float64
	lim           limits
	saved         map[*model.Snapshot]float64
	reserved      int
	memory        model.Memory // what is planned; Least is 1 MiB for each row of a micro-batch, Peak what it has beyond
	forgot        int

	batches  []model.Batch // given to BackwardAll
	evals    []int         // tokens of the batches given to LossAll
	adamw    []model.AdamW
	grads    []float64 // at each AdamW
	failAt   int       // the micro-batch, from 1, that fails
	before   func(call int)
	evalLoss func(w float64) float64 // of a token, instead of the parabola
	culprit  error                   // what CheckFinite says
	saveErr  error

	together, evalsTogether int // micro-batches given at a time
	asked                   string
}

func newFake() *fake {
	return &fake{lim: limits{vocab: 1000, positions: 64, trainable: 1, parameters: 11}, saved: map[*model.Snapshot]float64{}}
}

var errFake = errors.New("device lost")

func (f *fake) BackwardAll(_ context.Context, bs []*model.Batch) error {
	f.together = max(f.together, len(bs))
	for _, b := range bs {
		if err := f.backward(b); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) backward(b *model.Batch) error {
	c := *b
	c.Tokens, c.Positions = slices.Clone(b.Tokens), slices.Clone(b.Positions)
	c.Segments, c.Targets = slices.Clone(b.Segments), slices.Clone(b.Targets)
	if b.Dropout != nil {
		d := *b.Dropout
		d.Samples = slices.Clone(d.Samples)
		c.Dropout = &d
	}
	f.batches = append(f.batches, c)
	if f.before != nil {
		f.before(len(f.batches))
	}
	if f.failAt == len(f.batches) {
		return errFake
	}
	for _, t := range b.Targets {
		d := f.w - float64(t.Label)
		f.loss += d * d / 2
		f.grad += d
	}
	return nil
}

func (f *fake) LossAll(_ context.Context, bs []*model.Batch) (losses []float64, err error) {
	f.evalsTogether = max(f.evalsTogether, len(bs))
	for _, b := range bs {
		losses = append(losses, f.evaluate(b))
	}
	return losses, nil
}

func (f *fake) evaluate(b *model.Batch) (sum float64) {
	f.evals = append(f.evals, len(b.Tokens))
	for _, t := range b.Targets {
		if f.evalLoss != nil {
			sum += f.evalLoss(f.w)
			continue
		}
		d := f.w - float64(t.Label)
		sum += d * d / 2
	}
	return sum
}

func (f *fake) TakeLoss() float64           { l := f.loss; f.loss, f.asked = 0, f.asked+" loss"; return l }
func (f *fake) CheckFinite() error          { return f.culprit }
func (f *fake) Zero()                       { f.grad = 0 }
func (f *fake) Scale(by float64)            { f.grad *= by }
func (f *fake) Norm() float64               { f.asked += " norm"; return math.Abs(f.grad) }
func (f *fake) limits() limits              { return f.lim }
func (f *fake) sums(l float64, n int) *Sums { return &Sums{Loss: l, LabelTokens: n} }

func (f *fake) Plan(l model.Load) (model.Memory, error) {
	m := f.memory
	m.Least = int64(l.Rows) << 20
	m.Peak += m.Least
	return m, nil
}

func (f *fake) Reserve(l model.Load) (model.Memory, error) {
	f.reserved = l.Rows
	return f.Plan(l)
}

func (f *fake) AdamW(o model.AdamW) {
	f.adamw = append(f.adamw, o)
	f.grads = append(f.grads, f.grad)
	f.w -= o.LR * f.grad
}

func (f *fake) Snapshot(*model.Snapshot) *model.Snapshot {
	s := &model.Snapshot{}
	f.saved[s] = f.w
	return s
}

func (f *fake) Restore(s *model.Snapshot) { f.w = f.saved[s] }

func (f *fake) Err() error            { return nil }
func (f *fake) KeptStep() (int, bool) { return 0, false }
func (f *fake) forget()               { f.forgot++; f.loss, f.grad = 0, 0 }

func (f *fake) finite() error {
	if !finite(f.w) {
		return fmt.Errorf("w is %v", f.w)
	}
	return nil
}

func (f *fake) Save(dir string) error {
	if f.saveErr != nil {
		return f.saveErr
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "adapter"), []byte(fmt.Sprint(f.w)), 0o666)
}

// savedIn is the parameter that Save left in dir; NaN if none.
func savedIn(t *testing.T, dir string) float64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "adapter"))
	if errors.Is(err, fs.ErrNotExist) {
		return math.NaN()
	}
	var w float64
	if _, err := fmt.Sscan(string(text), &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// dataset makes pre-tokenised rows; row i has the tokens 100+i, of which the last labels[i] are learnt, as 1.
func dataset(t *testing.T, lengths, labels []int) *instruct.Dataset {
	t.Helper()
	var b strings.Builder
	for i, n := range lengths {
		ids, ls := make([]int, n), make([]int, n)
		for t := range ids {
			ids[t], ls[t] = 100+i, -100
			if t >= n-labels[i] {
				ls[t] = 1
			}
		}
		line, _ := json.Marshal(map[string][]int{"input_ids": ids, "labels": ls})
		b.Write(append(line, '\n'))
	}
	return read(t, b.String())
}

func read(t *testing.T, text string) *instruct.Dataset {
	t.Helper()
	d, err := instruct.Read("f", strings.NewReader(text), instruct.Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ten is ten rows of three to five tokens.
func ten(t *testing.T) *instruct.Dataset {
	return dataset(t, []int{3, 4, 5, 3, 4, 5, 3, 4, 5, 3}, []int{1, 1, 2, 2, 1, 2, 2, 3, 4, 1})
}

// plain is options with nothing but steps: batches of 2, no shuffling, a constant rate of 0.1.
func plain() Options {
	o := Defaults()
	o.Shuffle, o.PerDeviceTrainBatchSize, o.NumTrainEpochs = false, 2, 1
	o.LRSchedulerType, o.LearningRate, o.MaxGradNorm = constant, 0.1, 0
	return o
}

// recorder is a hook that keeps what it is told.
type recorder struct {
	plan   Plan
	steps  []StepEvent
	evals  []EvalEvent
	ends   []Result
	onStep func(StepEvent) error
}

func (r *recorder) Begin(p Plan) error     { r.plan = p; return nil }
func (r *recorder) Eval(e EvalEvent) error { r.evals = append(r.evals, e); return nil }
func (r *recorder) End(res Result) error   { r.ends = append(r.ends, res); return nil }
func (r *recorder) Step(e StepEvent) error {
	r.steps = append(r.steps, e)
	if r.onStep != nil {
		return r.onStep(e)
	}
	return nil
}

// run runs the fake and fails the test if the run does.
func (f *fake) run(t *testing.T, d *instruct.Dataset, o Options) (*Result, *recorder) {
	t.Helper()
	rec := &recorder{}
	o.Hooks = append(o.Hooks, rec)
	res, err := start(t.Context(), f, nil, d, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.ends) != 1 {
		t.Fatalf("End was called %d times", len(rec.ends))
	}
	return res, rec
}

func TestWindow(t *testing.T) {
	f := newFake()
	o := plain()
	o.GradientAccumulationSteps, o.WeightDecay = 3, 0.01
	res, rec := f.run(t, ten(t), o)
	// Micro-batches of rows 01 23 45 67 89; windows 01 23 45, and 67 89.
	wantEvents := []StepEvent{
		{Step: 1, Epoch: 0.6, Loss: 0.5, GradNorm: 1, LR: 0.1, Tokens: 24, LabelTokens: 9},
		{Step: 2, Epoch: 1, Loss: 0.405, GradNorm: 0.9, LR: 0.1, Tokens: 15, LabelTokens: 10},
	}
	approx := cmpopts.EquateApprox(1e-12, 0)
	if diff := cmp.Diff(wantEvents, rec.steps, cmpopts.IgnoreFields(StepEvent{}, "Seconds"), approx); diff != "" {
		t.Error(diff)
	}
	want := model.AdamW{LR: 0.1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}
	for i, got := range f.adamw {
		want.Step = i + 1
		if got != want {
			t.Errorf("AdamW %+v, want %+v", got, want)
		}
	}
	if diff := cmp.Diff([]float64{-1, -0.9}, f.grads, approx); diff != "" {
		t.Error(diff)
	}
	if res.Steps != 2 || math.Abs(res.Loss-0.405) > 1e-12 || !math.IsNaN(res.EvalLoss) || res.Interrupted {
		t.Errorf("%+v", res)
	}
	wantBatch := model.Batch{
		Tokens: []int32{102, 102, 102, 102, 102, 103, 103, 103}, Positions: []int32{0, 1, 2, 3, 4, 0, 1, 2},
		Segments: []model.Segment{{Start: 0, Len: 5, Prefix: -1}, {Start: 5, Len: 3, Prefix: -1}},
		Targets:  []model.Target{{Row: 2, Label: 1, Count: 1}, {Row: 3, Label: 1, Count: 1}, {Row: 5, Label: 1, Count: 1}, {Row: 6, Label: 1, Count: 1}},
	}
	if diff := cmp.Diff(wantBatch, f.batches[1]); diff != "" {
		t.Error(diff)
	}
	if f.forgot != 1 {
		t.Errorf("forget was called %d times", f.forgot)
	}
	if f.reserved != 9 {
		t.Errorf("%d rows are reserved, want 9", f.reserved)
	}
	wantRows := Rows{Read: 10, Train: 10, Tokens: 39, LabelTokens: 19}
	if diff := cmp.Diff(wantRows, rec.plan.Rows); diff != "" {
		t.Error(diff)
	}
	if p := rec.plan; p.Steps != 2 || p.Epochs != 1 || p.MaxSeqLength != 64 || p.TrainableParameters != 1 || p.TotalParameters != 11 || len(p.Warnings) != 0 {
		t.Errorf("%+v", p)
	}
}

func TestClipping(t *testing.T) {
	f := newFake()
	o := plain()
	o.MaxGradNorm, o.MaxSteps = 0.25, 1
	_, rec := f.run(t, ten(t), o)
	if got, want := f.grads[0], -0.25/(1+1e-6); math.Abs(got-want) > 1e-12 || rec.steps[0].GradNorm != 1 {
		t.Errorf("gradient %v, want %v; norm %v", got, want, rec.steps[0].GradNorm)
	}
}

// The micro-batches, label counts and rates are those of the reference's own loop.
func TestGoldenSteps(t *testing.T) {
	for _, c := range golden.All(t, golden.Shared(t, "goldens")) {
		f := newFake()
		f.lim.vocab, f.lim.positions = 1<<20, 1<<20
		d, err := instruct.Open(c.Path("rows.jsonl"), instruct.Alpaca)
		if err != nil {
			t.Fatal(err)
		}
		o := goldenOptions(c)
		_, rec := f.run(t, d, o)
		var micro [][]int
		for s, window := range c.Steps {
			micro = append(micro, window...)
			if rec.steps[s].LabelTokens != c.Expected.LabelTokens[s] {
				t.Errorf("%s: step %d has %d label tokens, want %d", c.Name, s+1, rec.steps[s].LabelTokens, c.Expected.LabelTokens[s])
			}
			if golden.Rel(f.adamw[s].LR, c.Expected.LRs[s]) > 1e-14 {
				t.Errorf("%s: step %d has the rate %v, want %v", c.Name, s+1, f.adamw[s].LR, c.Expected.LRs[s])
			}
		}
		if len(f.batches) != len(micro) || len(rec.steps) != len(c.Steps) {
			t.Errorf("%s: %d micro-batches in %d steps, want %d in %d", c.Name, len(f.batches), len(rec.steps), len(micro), len(c.Steps))
			continue
		}
		for i, rows := range micro {
			var ids []int32
			for _, r := range rows {
				ids = append(ids, c.Rows[r].InputIDs...)
			}
			if !slices.Equal(f.batches[i].Tokens, ids) {
				t.Errorf("%s: micro-batch %d is not of rows %v", c.Name, i, rows)
			}
		}
	}
}

// goldenOptions are the options of a reference case.
func goldenOptions(c *golden.Case) Options {
	o := Defaults()
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = c.Train.PerDeviceTrainBatchSize, c.Train.GradientAccumulationSteps
	o.MaxSteps, o.LearningRate, o.LRSchedulerType = c.Train.MaxSteps, c.Train.LearningRate, c.Train.LRSchedulerType
	o.WarmupSteps, o.WarmupRatio = c.Train.WarmupSteps, c.Train.WarmupRatio
	o.AdamBeta1, o.AdamBeta2, o.AdamEpsilon = c.Train.AdamBeta1, c.Train.AdamBeta2, c.Train.AdamEpsilon
	o.WeightDecay, o.MaxGradNorm = c.Train.WeightDecay, c.Train.MaxGradNorm
	o.Shuffle = false
	o.SharePrefixes = shareNever // so that micro-batches can be compared as they are
	return o
}

func TestShuffling(t *testing.T) {
	tokens := func(seed uint64) (all []int32) {
		f := newFake()
		o := plain()
		o.Shuffle, o.Seed, o.NumTrainEpochs, o.PerDeviceTrainBatchSize = true, seed, 2, 1
		f.run(t, ten(t), o)
		for _, b := range f.batches {
			all = append(all, b.Tokens[0]-100)
		}
		return all
	}
	got := tokens(42)
	var want []int32
	for epoch := range uint32(2) {
		for _, i := range permutation(10, 42, forEpoch, epoch) {
			want = append(want, int32(i))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if slices.Equal(got[:10], got[10:]) || slices.Equal(got, tokens(43)) {
		t.Error("epochs or seeds have the same order")
	}
}

func TestDropout(t *testing.T) {
	f := newFake()
	f.lim.dropout = true
	o := plain()
	o.Seed, o.NumTrainEpochs, o.ValSetSize = 7, 2, 2
	f.run(t, ten(t), o)
	for i, b := range f.batches {
		if b.Dropout == nil || b.Dropout.Seed != 7 || int(b.Dropout.Epoch) != i/4 || len(b.Dropout.Samples) != len(b.Tokens) {
			t.Fatalf("micro-batch %d: %+v", i, b.Dropout)
		}
		for j, id := range b.Tokens {
			if int32(b.Dropout.Samples[j]) != id-100 { // the row's index in the file
				t.Fatalf("micro-batch %d: token %d of sample %d", i, id, b.Dropout.Samples[j])
			}
		}
	}
	f = newFake()
	f.run(t, ten(t), plain())
	if f.batches[0].Dropout != nil {
		t.Error("dropout where there is none")
	}
}

// Micro-batches that are given to the engine together are those that it is given one after another.
func TestTogether(t *testing.T) {
	o := plain()
	o.GradientAccumulationSteps, o.NumTrainEpochs, o.ValSetSize, o.PerDeviceTrainBatchSize = 4, 2, 3, 1
	run := func(s *model.Streaming) (*fake, *recorder) {
		f := newFake()
		f.lim.dropout, f.memory.Stream = true, s
		_, rec := f.run(t, ten(t), o)
		return f, rec
	}
	want, wantRec := run(nil)
	got, rec := run(&model.Streaming{Batches: 3, Evals: 2})
	if want.together != 1 || want.evalsTogether != 1 || got.together != 3 || got.evalsTogether != 2 {
		t.Errorf("%d and %d micro-batches together, then %d and %d", want.together, want.evalsTogether, got.together, got.evalsTogether)
	}
	if diff := cmp.Diff(want.batches, got.batches); diff != "" {
		t.Errorf("micro-batches: %s", diff)
	}
	if diff := cmp.Diff(wantRec.steps, rec.steps, cmpopts.IgnoreFields(StepEvent{}, "Seconds")); diff != "" || len(rec.steps) != 4 {
		t.Errorf("steps: %s", diff)
	}
	if diff := cmp.Diff(wantRec.evals, rec.evals); diff != "" {
		t.Errorf("evaluations: %s", diff)
	}
}

func TestEvaluation(t *testing.T) {
	for _, c := range []struct {
		every int
		want  []int // steps
	}{{0, []int{0, 4, 8}}, {3, []int{0, 3, 6, 8}}, {4, []int{0, 4, 8}}, {100, []int{0, 8}}} {
		f := newFake()
		o := plain()
		o.NumTrainEpochs, o.ValSetSize, o.EvalSteps = 2, 3, c.every
		res, rec := f.run(t, ten(t), o)
		var steps []int
		for _, e := range rec.evals {
			steps = append(steps, e.Step)
			w := 1 - math.Pow(0.9, float64(e.Step))
			if want := (1 - w) * (1 - w) / 2; math.Abs(e.EvalLoss-want) > 1e-12 || math.Abs(e.Perplexity-math.Exp(want)) > 1e-12 {
				t.Errorf("every %d: %+v, want %v", c.every, e, want)
			}
		}
		if !slices.Equal(steps, c.want) {
			t.Errorf("every %d: evaluations after %v, want %v", c.every, steps, c.want)
		}
		last := rec.evals[len(rec.evals)-1].EvalLoss
		if res.EvalLossBefore != 0.5 || res.EvalLoss != last || res.BestEvalLoss != last || res.BestStep != 8 {
			t.Errorf("every %d: %+v", c.every, res)
		}
		if rec.plan.Rows.Eval != 3 || rec.plan.Rows.Train != 7 || len(f.evals) != 2*len(c.want) {
			t.Errorf("every %d: %+v, %d batches evaluated", c.every, rec.plan.Rows, len(f.evals))
		}
	}
}

// The loss is smallest after step 4 of 8: between 4 and 5 again as small does not make another best.
func TestBest(t *testing.T) {
	at := func(step int) float64 { return 1 - math.Pow(0.9, float64(step)) }
	for _, load := range []bool{false, true} {
		for _, write := range []bool{false, true} {
			f := newFake()
			f.evalLoss = func(w float64) float64 { return max(1, 1+math.Abs(w-at(4))-(at(5)-at(4))) }
			o := plain()
			o.NumTrainEpochs, o.ValSetSize, o.EvalSteps, o.LoadBestModelAtEnd = 2, 3, 1, load
			if write {
				o.OutputDir = filepath.Join(t.TempDir(), "a", "b")
			}
			res, _ := f.run(t, ten(t), o)
			w, loss := at(8), 1+at(8)-at(5)
			if load {
				w, loss = at(4), 1
			}
			if math.Abs(f.w-w) > 1e-12 || math.Abs(res.EvalLoss-loss) > 1e-12 || res.BestStep != 4 || res.BestEvalLoss != 1 || res.Steps != 8 {
				t.Errorf("load %v, write %v: w %v, want %v; %+v", load, write, f.w, w, res)
			}
			if !write {
				continue
			}
			root, best := savedIn(t, o.OutputDir), savedIn(t, filepath.Join(o.OutputDir, BestDir))
			if root != f.w || math.Abs(best-at(4)) > 1e-12 {
				t.Errorf("load %v: the root holds %v, want %v; best holds %v, want %v", load, root, f.w, best, at(4))
			}
		}
	}
}

func TestEventsFile(t *testing.T) {
	f := newFake()
	o := plain()
	o.ValSetSize, o.OutputDir = 0.2, t.TempDir()
	o.Hooks = []Hook{&recorder{onStep: func(e StepEvent) error {
		// Each line is there as soon as the step is done.
		if n := len(lines(t, o.OutputDir)); n != 1+e.Step {
			t.Errorf("%d lines after step %d", n, e.Step)
		}
		return nil
	}}}
	_, rec := f.run(t, ten(t), o)
	got := lines(t, o.OutputDir)
	if len(got) != 6 {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	if want := `{"step":0,"eval_loss":0.5,"perplexity":1.6487212707001282}`; got[0] != want {
		t.Errorf("%s, want %s", got[0], want)
	}
	if want := `{"step":1,"epoch":0.25,"loss":0.5,"grad_norm":1,"lr":0.1,"tokens":7,"label_tokens":3,"seconds":`; !strings.HasPrefix(got[1], want) {
		t.Errorf("%s, want %s…", got[1], want)
	}
	for i, line := range got[1:5] {
		var e StepEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil || e != rec.steps[i] {
			t.Errorf("%s is not %+v (%v)", line, rec.steps[i], err)
		}
	}
}

func lines(t *testing.T, dir string) (out []string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, EventsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		out = append(out, s.Text())
	}
	return out
}

func TestHugePerplexity(t *testing.T) {
	f := newFake()
	f.evalLoss = func(float64) float64 { return 1e5 }
	o := plain()
	o.ValSetSize, o.OutputDir = 1, t.TempDir()
	f.run(t, ten(t), o)
	if got, want := lines(t, o.OutputDir)[0], `{"step":0,"eval_loss":100000,"perplexity":1.7976931348623157e+308}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Ten rows in micro-batches of one and windows of two: the context ends during micro-batch n.
func TestCancel(t *testing.T) {
	for n, wantSteps := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 7: 3} {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFake()
		f.before = func(call int) {
			if call == n {
				cancel()
			}
		}
		o := plain()
		o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps, o.OutputDir = 1, 2, t.TempDir()
		rec := &recorder{}
		o.Hooks = []Hook{rec}
		res, err := start(ctx, f, nil, ten(t), o)
		if err != nil || !res.Interrupted || res.Steps != wantSteps || len(f.batches) != n {
			t.Errorf("in micro-batch %d: %+v, %v after %d micro-batches", n, res, err, len(f.batches))
			continue
		}
		if len(rec.ends) != 1 || len(lines(t, o.OutputDir)) != wantSteps {
			t.Errorf("in micro-batch %d: End %v, %d lines", n, rec.ends, len(lines(t, o.OutputDir)))
		}
		got, want := savedIn(t, o.OutputDir), 1-math.Pow(0.9, float64(wantSteps))
		if wantSteps == 0 && !math.IsNaN(got) || wantSteps > 0 && !(math.Abs(got-want) < 1e-12) {
			t.Errorf("in micro-batch %d: saved %v, want %v", n, got, want)
		}
	}
}

func TestCancelEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := plain()
	o.OutputDir = filepath.Join(t.TempDir(), "out")
	res, err := start(ctx, newFake(), nil, ten(t), o)
	if err != nil || !res.Interrupted || res.Steps != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := os.Stat(o.OutputDir); err == nil {
		t.Error("an output directory of a run that did not begin")
	}
}

// The last adapter is left when the run is interrupted, even where the best is asked for: that one is in best/.
func TestCancelKeepsTheLast(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newFake()
	f.evalLoss = func(w float64) float64 { return w } // the first evaluation is the best
	f.before = func(call int) {
		if call == 3 {
			cancel()
		}
	}
	o := plain()
	o.ValSetSize, o.EvalSteps, o.LoadBestModelAtEnd, o.OutputDir = 2, 1, true, t.TempDir()
	res, err := start(ctx, f, nil, ten(t), o)
	if err != nil || !res.Interrupted || res.BestStep != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	root, best := savedIn(t, o.OutputDir), savedIn(t, filepath.Join(o.OutputDir, BestDir))
	if math.Abs(root-0.271) > 1e-12 || math.Abs(best-0.1) > 1e-12 {
		t.Errorf("the root holds %v, want 0.271; best holds %v, want 0.1", root, best)
	}
	if !math.IsNaN(res.EvalLoss) {
		t.Errorf("the loss of an adapter that was not evaluated is %v", res.EvalLoss)
	}
}

func TestFailures(t *testing.T) {
	nan := math.NaN()
	hook := func(at int) Hook {
		return &recorder{onStep: func(e StepEvent) error {
			if e.Step == at {
				return errors.New("hook is tired")
			}
			return nil
		}}
	}
	for _, c := range []struct {
		name  string
		set   func(f *fake, o *Options)
		want  string
		saved float64 // NaN: nothing
		steps int
	}{
		{"a loss that is not finite", func(f *fake, o *Options) {
			f.culprit = errors.New("model.safetensors: tensor x: element 3 is NaN")
			f.before = func(call int) {
				if call == 3 {
					f.loss = nan
				}
			}
		}, "step 3: the loss is NaN: model.safetensors: tensor x: element 3 is NaN (the adapter of step 2 is saved in DIR)", 0.19, 2},
		{"a norm that is not finite", func(f *fake, o *Options) {
			f.before = func(call int) {
				if call == 2 {
					f.grad = math.Inf(1)
				}
			}
		}, "step 2: the gradients' norm is +Inf: all weights and gradients are finite, so it comes from the arithmetic: try a smaller learning rate, or compute f32 (the adapter of step 1 is saved in DIR)", 0.1, 1},
		{"at the first step", func(f *fake, o *Options) {
			f.culprit = errors.New("model.safetensors: tensor x: element 3 is NaN")
			f.before = func(int) { f.loss = nan }
		}, "step 1: the loss is NaN: model.safetensors: tensor x: element 3 is NaN", nan, 0},
		{"an adapter that is not finite", func(f *fake, o *Options) {
			f.before = func(call int) {
				if call == 3 {
					f.w = nan
				}
			}
		}, "step 3: the loss is NaN: all weights and gradients are finite, so it comes from the arithmetic: try a smaller learning rate, or compute f32\nthe adapter is not saved: w is NaN", nan, 2},
		{"an evaluation that is not finite", func(f *fake, o *Options) {
			o.ValSetSize, o.EvalSteps = 1, 2
			f.evalLoss = func(w float64) float64 {
				if w > 0.15 {
					return nan
				}
				return 1
			}
		}, "evaluation after step 2: the loss is NaN: all weights and gradients are finite, so it comes from the arithmetic: try a smaller learning rate, or compute f32 (the adapter of step 2 is saved in DIR)", 0.19, 2},
		{"the engine", func(f *fake, o *Options) { f.failAt = 4 }, "step 4: device lost (the adapter of step 3 is saved in DIR)", 0.271, 3},
		{"a hook", func(f *fake, o *Options) { o.Hooks = append(o.Hooks, hook(2)) }, "step 2: hook is tired (the adapter of step 2 is saved in DIR)", 0.19, 2},
		{"saving", func(f *fake, o *Options) { f.saveErr = errors.New("no space left on device") }, "saving the adapter: no space left on device", nan, 5},
		{"saving after a failure", func(f *fake, o *Options) { f.failAt, f.saveErr = 4, errors.New("no space left on device") }, "step 4: device lost\nsaving the adapter: no space left on device", nan, 3},
		{"saving the best", func(f *fake, o *Options) {
			o.ValSetSize, o.EvalSteps = 1, 2
			f.saveErr = errors.New("no space left on device")
		}, "saving the best adapter: no space left on device\nsaving the adapter: no space left on device", nan, 2},
		{"reducing", func(f *fake, o *Options) {
			o.Reduce = func(context.Context, *Sums) error { return errors.New("peer is gone") }
		}, "step 1: peer is gone", nan, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			o := plain()
			o.OutputDir = t.TempDir()
			c.set(f, &o)
			rec := &recorder{}
			o.Hooks = append(o.Hooks, rec)
			res, err := start(t.Context(), f, nil, ten(t), o)
			want := strings.ReplaceAll(c.want, "DIR", o.OutputDir)
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if got := savedIn(t, o.OutputDir); !(math.Abs(got-c.saved) < 1e-12 || math.IsNaN(got) && math.IsNaN(c.saved)) {
				t.Errorf("saved %v, want %v", got, c.saved)
			}
			if res.Steps != c.steps || len(rec.ends) != 0 {
				t.Errorf("%+v, End %d times", res, len(rec.ends))
			}
		})
	}
}

// The norm is asked for before the loss, which a card then has brought along, unless Reduce changes the gradients.
func TestNormComesFirst(t *testing.T) {
	o := plain()
	o.MaxSteps = 2
	f := newFake()
	f.run(t, ten(t), o)
	if want := " norm loss norm loss"; f.asked != want {
		t.Errorf("asked for%s, want%s", f.asked, want)
	}
	f = newFake()
	o.Reduce = func(context.Context, *Sums) error { f.asked += " reduce"; return nil }
	f.run(t, ten(t), o)
	if want := " loss reduce norm loss reduce norm"; f.asked != want {
		t.Errorf("asked for%s, want%s", f.asked, want)
	}
}

func TestReduce(t *testing.T) {
	f := newFake()
	o := plain()
	o.MaxSteps = 1
	o.Reduce = func(_ context.Context, s *Sums) error { // two processes with the same rows
		s.Loss, s.LabelTokens = 2*s.Loss, 2*s.LabelTokens
		f.grad *= 2
		return nil
	}
	_, rec := f.run(t, ten(t), o)
	if e := rec.steps[0]; e.Loss != 0.5 || e.GradNorm != 1 || e.LabelTokens != 4 || f.grads[0] != -1 {
		t.Errorf("%+v, gradient %v", e, f.grads[0])
	}
}

func TestOutputDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(dir, "used")
	o := plain()
	o.OutputDir = used
	newFake().run(t, ten(t), o)
	for path, want := range map[string]string{
		file:                       "output directory: mkdir " + file + ": not a directory",
		filepath.Join(file, "sub"): "output directory: mkdir " + file + ": not a directory",
		used:                       "output directory " + used + " holds the events.jsonl of another run: open " + filepath.Join(used, EventsFile) + ": file exists",
	} {
		o.OutputDir = path
		f := newFake()
		if _, err := start(t.Context(), f, nil, ten(t), o); err == nil || err.Error() != want || len(f.batches) > 0 {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	e := &events{f: full}
	if err := e.Step(StepEvent{}); err == nil || !strings.Contains(err.Error(), "writing events: write /dev/full: no space left on device") {
		t.Errorf("%v", err)
	}
	if err := e.close(); err != nil {
		t.Error(err)
	}
}

func TestPrepareErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		set        func(o *Options)
		want       string
	}{
		{"options", "", func(o *Options) { o.LearningRate = 0 }, "LearningRate is 0; start from Defaults"},
		{"vocabulary", "\n" + `{"input_ids":[1,1000],"labels":[1,2]}`, nil, "f:2: input_ids[1] is 1000, outside the model's vocabulary of 1000"},
		{"no labels", `{"input_ids":[1,2,3],"labels":[1,-100,-100]}`, nil, "nothing to learn: none of the 1 rows (from f:1 on) has a label that counts within the maximum length of 64 tokens"},
		{"nothing left", `{"input_ids":[1,2],"labels":[1,2]}`, func(o *Options) { o.ValSetSize = 1 }, "ValSetSize 1 holds out 1 of 1 rows: nothing is left to train on"},
		{"text without a tokenizer", `{"prompt":"p","completion":"c"}`, nil, "f:1: text rows need a tokenizer"},
	} {
		o := plain()
		o.OutputDir = filepath.Join(t.TempDir(), "out")
		if c.set != nil {
			c.set(&o)
		}
		text := c.text
		if text == "" {
			text = `{"input_ids":[1,2],"labels":[1,2]}`
		}
		_, err := start(t.Context(), newFake(), nil, read(t, text), o)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
		if _, err := os.Stat(o.OutputDir); err == nil {
			t.Errorf("%s: an output directory of a run that did not begin", c.name)
		}
	}
}

// Text is cut at a default, pre-tokenised rows only at a length that was asked for.
func TestMaxSeqLength(t *testing.T) {
	var text strings.Builder
	for _, n := range [][2]int{{100, 1900}, {68, 2}, {1, 63}, {7, 3}} {
		line, _ := json.Marshal(map[string]string{"prompt": strings.Repeat("p", n[0]-1), "completion": strings.Repeat("c", n[1]-1)})
		text.Write(append(line, '\n')) // BOS and EOS make n[0] and n[1] tokens
	}
	for _, c := range []struct {
		tokens              bool
		positions, length   int
		want                int
		train, cut, skipped int
		warning             string
	}{
		{false, 64, 0, 64, 2, 0, 2, ""},
		{false, 4096, 0, 1024, 4, 1, 0, ""},
		{false, 64, 500, 500, 4, 1, 0, "2 rows are longer than the model's 64 positions (max_position_embeddings), the longest has 500 tokens"},
		{false, 64, 5, 5, 1, 1, 3, ""},
		{true, 64, 0, 64, 4, 0, 0, "2 rows are longer than the model's 64 positions (max_position_embeddings), the longest has 2000 tokens"},
		{true, 64, 64, 64, 2, 0, 2, ""},
	} {
		f := newFake()
		f.lim.positions = c.positions
		o := plain()
		o.MaxSeqLength = c.length
		rec := &recorder{}
		o.Hooks = []Hook{rec}
		d, tok := read(t, text.String()), instruct.Tokenizer(letters{300, true})
		if c.tokens {
			d, tok = dataset(t, []int{2000, 70, 64, 10}, []int{1900, 1, 63, 3}), nil
		}
		if _, err := start(t.Context(), f, tok, d, o); err != nil {
			t.Fatal(err)
		}
		p := rec.plan
		if p.MaxSeqLength != c.want || p.Rows.Train != c.train || p.Rows.Cut != c.cut || p.Rows.NoLabel != c.skipped {
			t.Errorf("%+v: %d, %+v", c, p.MaxSeqLength, p.Rows)
		}
		if got := strings.Join(p.Warnings, "; "); got != c.warning {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestWarnings(t *testing.T) {
	f := newFake()
	f.lim.vocab = 300
	o := plain()
	o.WarmupSteps = 3
	rec := &recorder{}
	o.Hooks = []Hook{rec}
	d := read(t, `{"prompt":"ab","completion":"cd"}`)
	if _, err := start(t.Context(), f, letters{vocab: 301}, d, o); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"the tokenizer has 301 tokens, the model 300; no row uses those beyond",
		"the tokenizer has no EOS token: the model does not learn where an answer ends",
		`the schedule "constant" has no warm-up, so that 3 warm-up steps have no effect; "constant_with_warmup" has one`,
	}
	if diff := cmp.Diff(want, rec.plan.Warnings); diff != "" {
		t.Error(diff)
	}
	o.LRSchedulerType = linear
	if _, err := start(t.Context(), f, letters{vocab: 300, eos: true}, d, o); err != nil {
		t.Fatal(err)
	}
	want = []string{"the warm-up of 3 steps is as long as the run of 1 steps: the learning rate does not reach 0.1"}
	if diff := cmp.Diff(want, rec.plan.Warnings); diff != "" {
		t.Error(diff)
	}
}

// letters is a tokenizer of bytes, whose decoder drops a space at the beginning of a text, as SentencePiece's does.
type letters struct {
	vocab int
	eos   bool
}

func (letters) EncodePieces(pieces []tokenizer.Piece) [][]int32 {
	ids := make([][]int32, len(pieces))
	for i, p := range pieces {
		for _, c := range []byte(p.Text) {
			ids[i] = append(ids[i], int32(c))
		}
	}
	return ids
}
func (letters) BOS() (int32, bool)   { return '^', true }
func (l letters) EOS() (int32, bool) { return '$', l.eos }
func (l letters) VocabSize() int     { return l.vocab }
func (letters) DecodeWithSpecial(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteByte(byte(id))
	}
	return strings.TrimPrefix(b.String(), " ")
}

func TestExample(t *testing.T) {
	o := plain()
	rec := &recorder{}
	o.Hooks = []Hook{rec}
	if _, err := start(t.Context(), newFake(), letters{300, true}, read(t, `{"prompt":"ask:","completion":" yes"}`), o); err != nil {
		t.Fatal(err)
	}
	want := Example{Pieces: []Piece{{Text: "^ask:", Tokens: 5}, {Text: " yes$", Tokens: 5, Label: true}}}
	if diff := cmp.Diff(want, rec.plan.Example); diff != "" {
		t.Error(diff)
	}
	if _, err := start(t.Context(), newFake(), nil, read(t, `{"input_ids":[1,7,8,9],"labels":[1,7,-100,9]}`), o); err != nil {
		t.Fatal(err)
	}
	want = Example{Pieces: []Piece{{"1", 1, false}, {"7", 1, true}, {"8", 1, false}, {"9", 1, true}}}
	if diff := cmp.Diff(want, rec.plan.Example); diff != "" {
		t.Error(diff)
	}
	// A character's bytes in two pieces.
	if _, err := start(t.Context(), newFake(), letters{300, true}, read(t, `{"input_ids":[65,195,169],"labels":[-100,-100,169]}`), o); err != nil {
		t.Fatal(err)
	}
	if got := rec.plan.Example.Pieces; got[0].Text+got[1].Text != "A\u00e9" {
		t.Errorf("%+v", got)
	}
}

func TestFirstExampleIsTheFirstTrainedOn(t *testing.T) {
	f := newFake()
	o := plain()
	o.Shuffle, o.ValSetSize = true, 4
	_, rec := f.run(t, ten(t), o)
	if got, want := strings.Fields(rec.plan.Example.Pieces[0].Text)[0], fmt.Sprint(f.batches[0].Tokens[0]); got != want {
		t.Errorf("the example begins with %s, the first micro-batch with %s", got, want)
	}
}

func TestMicroBatchesDoNotAllocate(t *testing.T) {
	x, err := ten(t).Tokenize(t.Context(), nil, instruct.TokenizeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, share := range []bool{false, true} {
		f := filler{list: x.List, share: share}
		rows := []int{0, 4, 8, 9}
		if n := testing.AllocsPerRun(100, func() { f.fill(rows); f.withDropout(rows, 1, 2) }); n != 0 {
			t.Errorf("share %v: %v allocations a micro-batch", share, n)
		}
	}
}
