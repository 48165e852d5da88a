// Package benchmark measures training steps and decoding on this machine: with package train's own loop, on a model that
// is given or made up.
package benchmark

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/biolora/biolora/internal/backend/profile"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// Case is what is measured.
type Case struct {
	Model     *model.Model
	Profile   *model.Profile // the one that the model was opened with
	Adapter   *lora.Adapter
	Tokenizer *tokenizer.Tokenizer // nil where all rows are tokens
	Data      *instruct.Dataset
	// Train are the numbers of the run. Its length, evaluation, output and hooks are the benchmark's.
	Train train.Options

	Warm  int           // steps that do not count
	Steps int           // steps that do
	Most  time.Duration // no step begins later than that after the warm ones; one is measured always
}

// MakeUp is a case on a made-up model of these sizes with a fresh adapter, on made-up rows of which all are one step. It
// counts three steps after a warm one. The caller closes the model.
func MakeUp(ctx context.Context, s Sizes, l lora.Config, rows Shape, o model.Options) (Case, error) {
	rows.Vocab = s.Vocab
	c := Case{Profile: new(model.Profile), Train: train.Defaults(), Warm: 1, Steps: 3, Most: time.Hour}
	c.Train.PerDeviceTrainBatchSize, c.Train.Shuffle = rows.Rows, false
	var err error
	if c.Data, err = MakeRows(rows); err != nil {
		return c, err
	}
	o.Profile = c.Profile
	if c.Model, err = model.Random(ctx, s.Config(), 1, o); err != nil {
		return c, err
	}
	if c.Adapter, err = lora.Inject(c.Model, l); err != nil {
		return c, errors.Join(err, c.Model.Close())
	}
	return c, nil
}

// Step is a step of the optimiser.
type Step struct {
	profile.Times
	Tokens int // of its rows, whether shared or not
}

// Seconds is how long the step took.
func (s *Step) Seconds() float64 { return s.Total().Seconds() }

// TokenSeconds is how long it took for each token that was computed.
func (s *Step) TokenSeconds() float64 { return s.Seconds() / float64(max(1, s.Rows)) }

// Result is what was measured.
type Result struct {
	Plan   train.Plan
	Steps  []Step // in their order
	Median Step   // the one of them whose time for each computed token is the median
	Memory memory.Use
	// MemoryKnown is whether the system says what the process has in memory.
	MemoryKnown bool
}

// Run measures. It returns the context's error where that ends it.
func Run(ctx context.Context, c Case) (*Result, error) {
	within, enough := context.WithCancel(ctx)
	defer enough()
	m := &meter{c: &c, enough: enough}
	o := c.Train
	o.MaxSteps, o.ValSetSize, o.EvalSteps, o.LoadBestModelAtEnd = c.Warm+c.Steps, 0, 0, false
	o.OutputDir, o.Hooks = "", []train.Hook{m}
	if _, err := train.Run(within, c.Model, c.Adapter, c.Tokenizer, c.Data, o); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.result.Median = median(m.result.Steps)
	m.result.Memory, m.result.MemoryKnown = memory.Now()
	return &m.result, nil
}

// meter looks at the profile after each step.
type meter struct {
	train.NopHook
	c      *Case
	enough func()
	began  time.Time // of the first step that counts
	result Result
}

func (m *meter) Begin(p train.Plan) error {
	m.result.Plan = p
	m.c.Profile.Take()
	m.began = time.Now()
	return nil
}

func (m *meter) Step(e train.StepEvent) error {
	times := m.c.Profile.Take()
	if e.Step <= m.c.Warm {
		m.began = time.Now()
		return nil
	}
	m.result.Steps = append(m.result.Steps, Step{times, e.Tokens})
	if time.Since(m.began) >= m.c.Most {
		m.enough()
	}
	return nil
}

// median is the step in the middle, by the time for each token; the faster one of two.
func median(steps []Step) Step {
	sorted := slices.Clone(steps)
	slices.SortFunc(sorted, func(a, b Step) int {
		switch x, y := a.TokenSeconds(), b.TokenSeconds(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return sorted[(len(sorted)-1)/2]
}

// Decode is how long the model takes for one more token of one text, in seconds: the median of n, after a prompt of
// that many tokens.
func Decode(ctx context.Context, m *model.Model, prompt, n int) (float64, error) {
	var took []float64
	last := time.Now()
	_, err := m.Generate(ctx, [][]int32{make([]int32, prompt)}, model.GenerateOptions{MaxNewTokens: n + 1, OnToken: func(int, int32) {
		now := time.Now()
		took = append(took, now.Sub(last).Seconds())
		last = now
	}})
	if err != nil {
		return 0, err
	}
	took = took[1:] // the first one is the prompt's
	slices.Sort(took)
	return took[(len(took)-1)/2], nil
}
