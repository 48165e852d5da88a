package train

import (
	"context"
	"fmt"

	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train/instruct"
)

// Run trains the adapter a of the model m on data and returns what came of it. tok may be nil where data is
// pre-tokenised.
//
// The rows go in a new order each epoch (Options.Shuffle) or in the file's. An epoch is cut into micro-batches, of
// which the last may be smaller, and these into windows of GradientAccumulationSteps, of which the last may be
// shorter. One window is one step: its sums of token losses and gradients are divided by its label tokens, the
// gradients clipped, and AdamW is stepped.
//
// When ctx ends, Run stops before the model's next layer: it forgets the window it is in, saves the adapter of the
// last whole step, if there was one, and returns a Result that is Interrupted, and no error. LoadBestModelAtEnd does
// not apply then: the best is in best/. On an error the adapter of the last whole step is saved too, if there was one
// and it is finite; the Result then tells how far the run came.
func Run(ctx context.Context, m *model.Model, a *lora.Adapter, tok *tokenizer.Tokenizer, data *instruct.Dataset, o Options) (*Result, error) {
	if m == nil || a == nil || data == nil {
		return nil, errMissing
	}
	return start(ctx, subject{m, m.Params(), a}, tokenizerOf(tok), data, o)
}

// subject is a model, what is trained in it, and the adapter that saves it: the engine of real runs.
type subject struct {
	*model.Model
	*model.Params
	*lora.Adapter
}

func (s subject) forget() {
	s.TakeLoss()
	s.Reset()
}

func (s subject) finite() error {
	var block [1 << 12]float32
	for _, p := range s.All() {
		for from := 0; from < p.Len(); from += len(block) {
			v := block[:min(len(block), p.Len()-from)]
			p.ReadFrom(v, from)
			for i, x := range v {
				if x-x != 0 {
					return fmt.Errorf("%s: element %d is %v", p.Name(), from+i, x)
				}
			}
		}
	}
	return nil
}

func (s subject) sums(loss float64, labels int) *Sums {
	return &Sums{Loss: loss, LabelTokens: labels, Params: s.Params}
}

func (s subject) limits() limits {
	c := s.Model.Config()
	return limits{
		vocab:      c.VocabSize,
		positions:  c.MaxPositionEmbeddings,
		trainable:  s.Count(),
		parameters: s.Parameters() + s.Count(),
		saving:     s.SaveBytes(),
		dropout:    s.Adapter.Config().LoraDropout > 0,

		lengthMatters: c.Rope.Type == "dynamic",
	}
}
