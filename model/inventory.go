package model

import (
	"fmt"

	"github.com/biolora/biolora/model/weights"
)

// Stored is a tensor that a checkpoint of a model has.
type Stored struct {
	Name  string
	Shape []int
}

// Stored lists the tensors that a checkpoint with this configuration must have, as Open looks for them: the embedding,
// the layers, the last norm and, unless it is tied, the head. A tied checkpoint may store its one matrix under either
// name; ckpt says under which it does, and may be nil.
func (c *Config) Stored(ckpt *weights.Checkpoint) []Stored {
	d, q, kv, ff := c.HiddenSize, c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim, c.IntermediateSize
	table := embedTensor
	if ckpt != nil && c.TieWordEmbeddings {
		_, embed := ckpt.Tensor(embedTensor)
		if _, head := ckpt.Tensor(headTensor); head && !embed {
			table = headTensor
		}
	}
	list := []Stored{{table, []int{c.VocabSize, d}}}
	if !c.TieWordEmbeddings {
		list = append(list, Stored{headTensor, []int{c.VocabSize, d}})
	}
	for i := range c.NumHiddenLayers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		linear := func(name string, out, in int, bias bool) {
			list = append(list, Stored{layer + name + ".weight", []int{out, in}})
			if bias {
				list = append(list, Stored{layer + name + ".bias", []int{out}})
			}
		}
		list = append(list, Stored{layer + "input_layernorm.weight", []int{d}}, Stored{layer + "post_attention_layernorm.weight", []int{d}})
		linear("self_attn.q_proj", q, d, c.AttentionBias)
		linear("self_attn.k_proj", kv, d, c.AttentionBias)
		linear("self_attn.v_proj", kv, d, c.AttentionBias)
		linear("self_attn.o_proj", d, q, c.AttentionBias)
		linear("mlp.gate_proj", ff, d, c.MLPBias)
		linear("mlp.up_proj", ff, d, c.MLPBias)
		linear("mlp.down_proj", d, ff, c.MLPBias)
	}
	return append(list, Stored{"model.norm.weight", []int{d}})
}
