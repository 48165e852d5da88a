package benchmark

import (
	"encoding/json"

	"github.com/biolora/biolora/internal/backend/profile"
)

// Sizes are those of a LLaMA decoder.
type Sizes struct{ Hidden, Intermediate, Layers, Heads, Vocab int }

// The sizes of LLaMA and LLaMA-2.
var (
	Llama7B  = Sizes{Hidden: 4096, Intermediate: 11008, Layers: 32, Heads: 32, Vocab: 32000}
	Llama13B = Sizes{Hidden: 5120, Intermediate: 13824, Layers: 40, Heads: 40, Vocab: 32000}
)

// Config is the config.json of such a model.
func (s Sizes) Config() []byte {
	text, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": s.Hidden,
		"intermediate_size": s.Intermediate, "num_hidden_layers": s.Layers, "num_attention_heads": s.Heads, "vocab_size": s.Vocab,
		"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
	})
	if err != nil {
		panic(err) // numbers and strings have no errors
	}
	return text
}

// layer is the number of elements of a layer's matrices.
func (s Sizes) layer() float64 { return float64(s.Hidden) * float64(4*s.Hidden+3*s.Intermediate) }

func (s Sizes) layers() float64 { return float64(s.Layers) * s.layer() }
func (s Sizes) head() float64   { return float64(s.Hidden) * float64(s.Vocab) }

// Extrapolate is how long a step on the rows of s would take on a model of sizes to, in seconds, where s was measured on
// one of sizes from: products with weights by their operations, what else layers do by layers and width. forward and
// backward are the operations of the measured layers' products (model.Model.Work without the head). It holds for layers
// that all keep what their backward pass reads, or none, as those that were measured.
func (s *Step) Extrapolate(from, to Sizes, forward, backward float64) (seconds float64) {
	spared := (forward - backward) * to.layer() / from.layer() // below the lowest adapter; it is so once
	allForward := forward * to.layers() / from.layers()
	width := float64(to.Layers*to.Hidden) / float64(from.Layers*from.Hidden)
	for work, spent := range s.Spent {
		factor := width
		switch profile.Work(work) {
		case profile.Forward:
			factor = allForward / forward
		case profile.Backward:
			factor = (allForward - spared) / backward
		case profile.Loss:
			factor = to.head() / from.head()
		case profile.Other:
			factor = 1
		}
		seconds += factor * spent.Seconds()
	}
	return seconds
}

// ExtrapolateWeights is the bytes that decoding a token reads of a model of sizes to, where it is so many on one of sizes
// from, whose head is bf16.
func ExtrapolateWeights(from, to Sizes, bytes int64) float64 {
	return (float64(bytes)-2*from.head())*to.layers()/from.layers() + 2*to.head()
}
