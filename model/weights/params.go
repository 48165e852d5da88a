package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/biolora/biolora/internal/strictjson"
)

// params is what Meta's params.json says of a model, in the words of Meta's ModelArgs, or of Mistral's.
type params struct {
	path                        string
	dim, layers, heads, kvHeads int
	headDim, hiddenDim          int // hiddenDim 0: multiple_of and ffn_dim_multiplier say
	multipleOf                  int // 0: the file does not say
	ffnMultiplier               json.Number
	vocab                       int // 0: the file does not say
	maxSeqLen                   int // 0: the file does not say
	window                      any // of attention; nil: none
	eps, theta                  json.Number
	scaledRope                  bool
	ropeFactor                  json.Number // "" where the file does not say
	mistral                     bool
	unknown                     []string
	ffnRows, vocabRows          int // what the weights have
}

// paramsReader takes values out of params.json and gathers what is wrong.
type paramsReader struct {
	o    *strictjson.Object
	path string
	used map[string]bool
	errs []error
}

func (r *paramsReader) fail(key, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: %s: %s", r.path, key, fmt.Sprintf(format, args...)))
}

// get returns the value of key; false for one that is null or not there.
func (r *paramsReader) get(key string) (any, bool) {
	r.used[key] = true
	v, ok := r.o.Get(key)
	return v, ok && v != nil
}

const maxParam = 1<<31 - 1 // far beyond any model

// size is a whole number from 1 on, or def if key is not there; a negative def: it must be.
func (r *paramsReader) size(key string, def int) int {
	v, ok := r.get(key)
	if !ok {
		if def < 0 {
			r.fail(key, "is missing, want a whole number from 1 on")
			return 1
		}
		return def
	}
	n, ok := v.(json.Number)
	f, err := n.Float64()
	if !ok || err != nil || f != math.Trunc(f) || f < 1 || f > maxParam {
		r.fail(key, "want a whole number from 1 to %d, got %s", maxParam, strictjson.Kind(v))
		return 1
	}
	return int(f)
}

// number is a number above 0, or def if key is not there.
func (r *paramsReader) number(key string, def json.Number) json.Number {
	v, ok := r.get(key)
	if !ok {
		return def
	}
	n, ok := v.(json.Number)
	if f, err := n.Float64(); !ok || err != nil || f <= 0 {
		r.fail(key, "want a number above 0, got %s", strictjson.Kind(v))
		return "1"
	}
	return n
}

func (r *paramsReader) boolean(key string) bool {
	v, ok := r.get(key)
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		r.fail(key, "want true or false, got %s", strictjson.Kind(v))
	}
	return b
}

// parseParams reads params.json. Everything that is wrong with it is returned at once.
func parseParams(o *strictjson.Object, path string) (*params, error) {
	r := &paramsReader{o: o, path: path, used: map[string]bool{}}
	p := &params{path: path}
	p.dim, p.layers, p.heads = r.size("dim", -1), r.size("n_layers", -1), r.size("n_heads", -1)
	p.kvHeads = r.size("n_kv_heads", p.heads)
	p.headDim = r.size("head_dim", 0)
	p.hiddenDim = r.size("hidden_dim", 0)
	p.multipleOf = r.size("multiple_of", 0)
	p.ffnMultiplier = r.number("ffn_dim_multiplier", "")
	p.maxSeqLen = r.size("max_seq_len", 0)
	p.eps, p.theta = r.number("norm_eps", "1e-05"), r.number("rope_theta", "10000.0")
	p.scaledRope = r.boolean("use_scaled_rope")
	p.ropeFactor = r.number("rope_scaling_factor", "")
	if v, _ := r.get("vocab_size"); v != json.Number("-1") { // LLaMA 1 and 2: the tokenizer says
		p.vocab = r.size("vocab_size", 0)
	}
	if _, ok := r.get("sliding_window"); ok {
		p.window = json.Number(strconv.Itoa(r.size("sliding_window", 0)))
	}
	p.mistral = p.headDim > 0 || p.hiddenDim > 0 || p.window != nil
	if len(r.errs) == 0 {
		p.checkSizes(r)
	}
	r.rest(p)
	if err := errors.Join(r.errs...); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *params) checkSizes(r *paramsReader) {
	if p.headDim == 0 {
		if p.dim%p.heads != 0 {
			r.fail("dim", "%d is not a multiple of n_heads %d", p.dim, p.heads)
		}
		p.headDim = max(1, p.dim/p.heads)
	}
	if p.headDim%2 != 0 {
		r.fail("head_dim", "want an even number, got %d", p.headDim)
	}
	if p.heads%p.kvHeads != 0 {
		r.fail("n_kv_heads", "want a divisor of n_heads %d, got %d", p.heads, p.kvHeads)
	}
}

// rest looks at the keys that nothing asked for. Those that hold more than a value describe parts that a LLaMA decoder
// does not have; the others are only told.
func (r *paramsReader) rest(p *params) {
	for _, key := range r.o.Keys {
		if r.used[key] {
			continue
		}
		v, _ := r.o.Get(key)
		switch v.(type) {
		case *strictjson.Object, []any:
			r.fail(printable(key), "is not supported: it describes more than a LLaMA decoder")
		case nil:
		default:
			p.unknown = append(p.unknown, key)
		}
	}
}

// ffn is the width of the inner layer that the file's formula gives.
func (p *params) ffn() int {
	if p.hiddenDim > 0 {
		return p.hiddenDim
	}
	n := 8 * p.dim / 3
	if f, err := p.ffnMultiplier.Float64(); err == nil {
		n = int(min(f*float64(n), 1<<40)) // beyond any layer, and what follows does not overflow
	}
	return (n + p.multipleOf - 1) / p.multipleOf * p.multipleOf
}

// fit compares the file with the weights and takes from these what it leaves open.
func (p *params) fit(c *Checkpoint) error {
	var errs []error
	matrix := func(name string) (Tensor, int) {
		t, ok := c.Tensor(name)
		if !ok || len(t.Shape) != 2 {
			return t, 0
		}
		return t, t.Shape[0]
	}
	t, rows := matrix(embedName)
	p.vocabRows = rows
	switch {
	case rows == 0:
		errs = append(errs, fmt.Errorf("%s: there is no matrix tok_embeddings.weight, which tells the size of the vocabulary", c.dir))
	case p.vocab != 0 && rows != p.vocab:
		errs = append(errs, fmt.Errorf("%s: vocab_size is %d, tok_embeddings.weight has %d rows", p.path, p.vocab, rows))
	case t.Shape[1] != p.dim:
		errs = append(errs, fmt.Errorf("%s: dim is %d, tok_embeddings.weight is %v", p.path, p.dim, t.Shape))
	}
	if _, rows := matrix(headName); rows != 0 && p.vocabRows != 0 && rows != p.vocabRows {
		errs = append(errs, fmt.Errorf("%s: output.weight has %d rows, tok_embeddings.weight %d", c.dir, rows, p.vocabRows))
	}
	_, p.ffnRows = matrix("model.layers.0.mlp.gate_proj.weight")
	switch {
	case p.ffnRows == 0:
		errs = append(errs, fmt.Errorf("%s: there is no matrix layers.0.feed_forward.w1.weight, which tells the width of the inner layer", c.dir))
	case (p.multipleOf > 0 || p.hiddenDim > 0) && p.ffn() != p.ffnRows:
		errs = append(errs, fmt.Errorf("%s: its numbers give an inner layer of %d, layers.0.feed_forward.w1.weight has %d rows", p.path, p.ffn(), p.ffnRows))
	}
	return errors.Join(errs...)
}

// config translates the file into Hugging Face's names.
func (p *params) config(c *Checkpoint) *strictjson.Object {
	o := strictjson.NewObject()
	set := func(key string, v any) {
		if n, ok := v.(int); ok {
			v = json.Number(strconv.Itoa(n))
		}
		o.Set(key, v)
	}
	architecture, kind := "LlamaForCausalLM", "llama"
	if p.mistral {
		architecture, kind = "MistralForCausalLM", "mistral"
	}
	set("architectures", []any{architecture})
	set("model_type", kind)
	set("vocab_size", p.vocabRows)
	set("hidden_size", p.dim)
	set("intermediate_size", p.ffnRows)
	set("num_hidden_layers", p.layers)
	set("num_attention_heads", p.heads)
	set("num_key_value_heads", p.kvHeads)
	set("head_dim", p.headDim)
	set("hidden_act", "silu")
	set("rms_norm_eps", p.eps)
	set("rope_theta", p.theta)
	if p.mistral {
		set("sliding_window", p.window)
	}
	if n := p.context(); n > 0 {
		set("max_position_embeddings", n)
	}
	if p.scaledRope {
		set("rope_scaling", p.ropeScaling())
	}
	_, head := c.Tensor(headName)
	set("tie_word_embeddings", !head)
	bos, eos := 1, []any{json.Number("2")}
	if p.vocabRows >= llama3Vocab {
		bos, eos = llama3Vocab, []any{json.Number("128001"), json.Number("128008"), json.Number("128009")}
	}
	set("bos_token_id", bos)
	set("eos_token_id", eos)
	if t, ok := c.Tensor("model.layers.0.mlp.gate_proj.weight"); ok {
		if name, ok := torchNames[t.DType]; ok {
			set("torch_dtype", name)
		}
	}
	return o
}

// llama3Vocab is the number of Llama 3's tokens before the special ones.
const llama3Vocab = 128_000

// context is the length that the model was made for, as far as the file lets it be known; else 0.
func (p *params) context() int {
	theta, _ := p.theta.Float64()
	switch {
	case p.maxSeqLen > 0:
		return p.maxSeqLen
	case p.scaledRope: // Llama 3.1 and 3.2
		return 131072
	case p.vocabRows >= llama3Vocab:
		return 8192
	case theta >= 1e6 && !p.mistral: // Code Llama
		return 16384
	}
	return 0
}

// ropeScaling is what use_scaled_rope means: constants in Meta's code. Only the factor differs, 32 in Llama 3.2 1B and
// 3B, which their sizes tell from 3.1, and 8 in the others.
func (p *params) ropeScaling() *strictjson.Object {
	factor := p.ropeFactor
	if factor == "" {
		factor = "8.0"
		if p.dim == 2048 && p.layers == 16 || p.dim == 3072 && p.layers == 28 {
			factor = "32.0"
		}
	}
	return llama3Scaling(factor)
}

// llama3Scaling are Llama 3.1's and 3.2's parameters of rotary scaling.
func llama3Scaling(factor json.Number) *strictjson.Object {
	o := strictjson.NewObject()
	o.Set("rope_type", "llama3")
	o.Set("factor", factor)
	o.Set("low_freq_factor", json.Number("1.0"))
	o.Set("high_freq_factor", json.Number("4.0"))
	o.Set("original_max_position_embeddings", json.Number("8192"))
	return o
}
