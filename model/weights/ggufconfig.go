package weights

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/strictjson"
)

// keyValues is the metadata that a model is described by.
type keyValues interface {
	Path() string
	Keys() []string
	Has(key string) bool
	Uint(key string) (uint64, error)
	Float(key string) (float64, error)
	String(key string) (string, error)
	Value(key string) (any, bool)
}

// metadataReader translates metadata into Hugging Face's configuration and gathers what is wrong.
type metadataReader struct {
	f    keyValues
	o    *strictjson.Object
	used map[string]bool
	errs []error
}

func (r *metadataReader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(r.f.Path()+": "+format, args...))
}

func (r *metadataReader) has(key string) bool {
	r.used[key] = true
	return r.f.Has(key)
}

// size is a whole number from 1 on; def where the key is not there, and 0 if that is wrong.
func (r *metadataReader) size(key string, def int) int {
	if !r.has(key) {
		if def <= 0 {
			r.fail("%s is missing", key)
		}
		return def
	}
	n, err := r.f.Uint(key)
	if err != nil {
		r.errs = append(r.errs, err)
		return 0
	}
	if n < 1 || n > maxParam {
		r.fail("%s: want a whole number from 1 to %d, got %d", key, maxParam, n)
		return 0
	}
	return int(n)
}

// number is a number above 0; def where the key is not there.
func (r *metadataReader) number(key string, def float64) float64 {
	if !r.has(key) {
		if def == 0 {
			r.fail("%s is missing", key)
			return 1
		}
		return def
	}
	f, err := r.f.Float(key)
	if err != nil {
		r.errs = append(r.errs, err)
		return 1
	}
	if !(f > 0 && f < math.MaxFloat64) {
		r.fail("%s: want a number above 0, got %g", key, f)
		return 1
	}
	return f
}

func (r *metadataReader) text(key, def string) string {
	if !r.has(key) {
		return def
	}
	s, err := r.f.String(key)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	return s
}

// whole is a JSON number.
func whole(n int) json.Number { return json.Number(strconv.Itoa(n)) }

// decimal is a number with as many digits as its float32 needs: that is what the file holds.
func decimal(f float64) json.Number {
	if float64(float32(f)) == f {
		return json.Number(strconv.FormatFloat(f, 'g', -1, 32))
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
}

// readMetadata describes the model of a file with the given tensors, which still have the file's names. Only the
// architecture "llama" is computed; everything that would change the mathematics and is not supported is an error.
func readMetadata(f keyValues, tensors []Tensor) (*metadata, error) {
	r := &metadataReader{f: f, o: strictjson.NewObject(), used: map[string]bool{}}
	const arch = "general.architecture"
	if !f.Has(arch) {
		return nil, fmt.Errorf("%s: %s is missing", f.Path(), arch)
	}
	if a := r.text(arch, ""); len(r.errs) == 0 && a != "llama" {
		return nil, fmt.Errorf("%s: %s is %s, only \"llama\" is supported", f.Path(), arch, quoted(a))
	}
	if kind := r.text("general.type", "model"); len(r.errs) == 0 && kind != "model" {
		return nil, fmt.Errorf("%s: general.type is %s, want \"model\"", f.Path(), quoted(kind))
	}
	byName := map[string]Tensor{}
	for _, t := range tensors {
		byName[t.Name] = t
	}
	m := &metadata{config: r.o}
	r.o.Set("architectures", []any{"LlamaForCausalLM"})
	r.o.Set("model_type", "llama")
	r.sizes(m, byName)
	r.rope(m, byName[ropeFreqs])
	r.biases(tensors)
	r.window()
	r.tokens()
	r.refuse(m)
	r.rest(m)
	return m, join(r.errs)
}

func (r *metadataReader) sizes(m *metadata, tensors map[string]Tensor) {
	hidden := r.size("llama.embedding_length", 0)
	inner := r.size("llama.feed_forward_length", 0)
	layers := r.size("llama.block_count", 0)
	m.heads = r.size("llama.attention.head_count", 0)
	m.kvHeads = r.size("llama.attention.head_count_kv", max(1, m.heads))
	m.headDim = r.size("llama.attention.key_length", max(1, hidden/max(1, m.heads)))
	if len(r.errs) > 0 {
		return // what follows would only repeat it
	}
	if n := r.size("llama.attention.value_length", m.headDim); n != m.headDim {
		r.fail("llama.attention.value_length is %d, key_length %d: they must be equal", n, m.headDim)
	}
	if m.headDim%2 != 0 {
		r.fail("heads of %d: want an even number", m.headDim)
	}
	if n := r.size("llama.rope.dimension_count", m.headDim); n != m.headDim {
		r.fail("llama.rope.dimension_count is %d, a head has %d: only whole heads are rotated", n, m.headDim)
	}
	embed, ok := tensors["token_embd.weight"]
	vocab := 0
	if ok && len(embed.Shape) == 2 {
		vocab = embed.Shape[0]
	} else {
		r.fail("there is no matrix token_embd.weight: a file of metadata or of a vocabulary alone is no model")
	}
	if n := r.size("llama.vocab_size", max(1, vocab)); vocab > 0 && n != vocab {
		r.fail("llama.vocab_size is %d, token_embd.weight has %d rows", n, vocab)
	}
	r.o.Set("vocab_size", whole(vocab))
	r.o.Set("hidden_size", whole(hidden))
	r.o.Set("intermediate_size", whole(inner))
	r.o.Set("num_hidden_layers", whole(layers))
	r.o.Set("num_attention_heads", whole(m.heads))
	r.o.Set("num_key_value_heads", whole(m.kvHeads))
	r.o.Set("head_dim", whole(m.headDim))
	r.o.Set("hidden_act", "silu")
	r.o.Set("max_position_embeddings", whole(r.size("llama.context_length", 0)))
	r.o.Set("rms_norm_eps", decimal(r.number("llama.attention.layer_norm_rms_epsilon", 0)))
	_, head := tensors["output.weight"]
	r.o.Set("tie_word_embeddings", !head)
	if q, ok := tensors["blk.0.attn_q.weight"]; ok && !q.blocks {
		if name, ok := torchNames[q.DType]; ok {
			r.o.Set("torch_dtype", name)
		}
	}
}

// rope reads the rotary scaling: of the keys, or of the tensor of factors that llama.cpp makes of Llama 3.1's.
func (r *metadataReader) rope(m *metadata, factors Tensor) {
	theta := r.number("llama.rope.freq_base", 10000)
	r.o.Set("rope_theta", decimal(theta))
	scaling := strictjson.NewObject()
	kind := r.text("llama.rope.scaling.type", "none")
	factor := r.number("llama.rope.scaling.factor", r.number("llama.rope.scale_linear", 1))
	original := r.size("llama.rope.scaling.original_context_length", 1)
	attention := r.number("llama.rope.scaling.attn_factor", 1)
	fast, slow := r.number("llama.rope.scaling.yarn_beta_fast", 32), r.number("llama.rope.scaling.yarn_beta_slow", 1)
	r.used["llama.rope.scaling.finetuned"] = true // it changes nothing
	if !r.f.Has("llama.rope.scaling.type") && factor != 1 {
		kind = "linear"
	}
	switch kind {
	case "none":
	case "linear":
		scaling.Set("rope_type", "linear")
		scaling.Set("factor", decimal(factor))
	case "yarn":
		scaling.Set("rope_type", "yarn")
		scaling.Set("factor", decimal(factor))
		if r.f.Has("llama.rope.scaling.original_context_length") {
			scaling.Set("original_max_position_embeddings", whole(original))
		}
		scaling.Set("beta_fast", decimal(fast))
		scaling.Set("beta_slow", decimal(slow))
		if attention != 1 { // llama.cpp multiplies by its own factor too
			scaling.Set("attention_factor", decimal(attention*(1+0.1*math.Log(max(1, factor)))))
		}
	default:
		r.fail("llama.rope.scaling.type is %s, want \"none\", \"linear\" or \"yarn\"", quoted(kind))
	}
	if attention != 1 && kind != "yarn" {
		r.fail("llama.rope.scaling.attn_factor is %g, only with the type \"yarn\" may it not be 1", attention)
	}
	if factors.Name != "" {
		scaling = r.llama3(m, theta, factors, scaling)
	}
	if len(scaling.Keys) > 0 {
		r.o.Set("rope_scaling", scaling)
	}
}

// llama3 finds the parameters of Llama 3.1's scaling that give the factors in t, by which llama.cpp divides the
// frequencies of the pairs.
func (r *metadataReader) llama3(m *metadata, theta float64, t Tensor, scaling *strictjson.Object) *strictjson.Object {
	if !slices.Equal(t.Shape, []int{m.headDim / 2}) {
		r.fail("%s has shape %v, want [%d]: a factor for each pair of a head", ropeFreqs, t.Shape, m.headDim/2)
		return scaling
	}
	got := make([]float32, t.Len())
	if err := t.Elements(got, 0); err != nil {
		r.errs = append(r.errs, err)
		return scaling
	}
	if !slices.ContainsFunc(got, func(f float32) bool { return f != 1 }) {
		return scaling
	}
	if len(scaling.Keys) > 0 {
		r.fail("%s beside llama.rope.scaling.type: only one of them is supported", ropeFreqs)
		return scaling
	}
	factor := float64(slices.Max(got))
	for i, want := range llama3Factors(m.headDim, theta, factor) {
		if !(math.Abs(float64(got[i])-want) <= 1e-4*want) { // the writer computes in float32; NaN is not near anything
			r.fail("%s: factor %d is %g, Llama 3.1's scaling by %g has %g there: another scaling is not supported", ropeFreqs, i, got[i], factor, want)
			return scaling
		}
	}
	return llama3Scaling(decimal(factor))
}

// llama3Factors are the divisors of the frequencies with low_freq_factor 1, high_freq_factor 4 and an original length
// of 8192.
func llama3Factors(headDim int, theta, factor float64) []float64 {
	const low, high, original = 1, 4, 8192
	list := make([]float64, headDim/2)
	for i := range list {
		wavelength := 2 * math.Pi * math.Pow(theta, float64(2*i)/float64(headDim))
		switch {
		case wavelength < original/high:
			list[i] = 1
		case wavelength > original/low:
			list[i] = factor
		default:
			smooth := (original/wavelength - low) / (high - low)
			list[i] = 1 / ((1-smooth)/factor + smooth)
		}
	}
	return list
}

// biases tells whether there are any: the configuration has one word for those of attention, and one for the others.
func (r *metadataReader) biases(tensors []Tensor) {
	attention, mlp := false, false
	for _, t := range tensors {
		_, module, ok := layerOf(t.Name, "blk.")
		part, kind, _ := strings.Cut(module, ".")
		if m, known := ggufModules[part]; ok && known && kind == "bias" && m.role != vector {
			attention = attention || strings.HasPrefix(m.name, "self_attn.")
			mlp = mlp || strings.HasPrefix(m.name, "mlp.")
		}
	}
	r.o.Set("attention_bias", attention)
	r.o.Set("mlp_bias", mlp)
}

// window turns the model into a Mistral where it has one.
func (r *metadataReader) window() {
	const key = "llama.attention.sliding_window"
	if !r.has(key) {
		return
	}
	n, err := r.f.Uint(key)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	if n == 0 {
		return
	}
	r.o.Set("architectures", []any{"MistralForCausalLM"})
	r.o.Set("model_type", "mistral")
	r.o.Set("sliding_window", json.Number(strconv.FormatUint(n, 10)))
}

func (r *metadataReader) tokens() {
	id := func(key string) (json.Number, bool) {
		if !r.f.Has(key) {
			return "", false
		}
		n, err := r.f.Uint(key)
		if err != nil {
			r.errs = append(r.errs, err)
		}
		return json.Number(strconv.FormatUint(n, 10)), true
	}
	r.o.Set("bos_token_id", nil)
	if n, ok := id("tokenizer.ggml.bos_token_id"); ok {
		r.o.Set("bos_token_id", n)
	}
	var eos []any
	for _, key := range []string{"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"} {
		if n, ok := id(key); ok && !slices.Contains(eos, any(n)) {
			eos = append(eos, n)
		}
	}
	r.o.Set("eos_token_id", nil)
	if len(eos) > 0 {
		r.o.Set("eos_token_id", eos)
	}
}

// refuse names what the decoder does not compute.
func (r *metadataReader) refuse(m *metadata) {
	for _, key := range []string{"llama.expert_count", "llama.expert_used_count"} {
		if n, err := r.f.Uint(key); r.has(key) && (err != nil || n != 0) {
			r.fail("%s is %d: a mixture of experts is not supported", key, n)
		}
	}
	for key, want := range map[string]float64{
		"llama.attention.scale": 1 / math.Sqrt(float64(max(1, m.headDim))), "llama.logit_scale": 1, "llama.residual_scale": 1,
		"llama.embedding_scale": 1, "llama.rope.scaling.yarn_log_multiplier": 0, "llama.attention.clamp_kqv": 0,
		"llama.attention.max_alibi_bias": 0, "llama.attn_logit_softcapping": 0, "llama.final_logit_softcapping": 0,
		"llama.rope.scaling.yarn_ext_factor": 1, "llama.rope.scaling.yarn_attn_factor": 1, "llama.attention.temperature_scale": 0,
		"llama.attention.temperature_length": 0, "llama.attention.layer_norm_epsilon": 0,
	} {
		if f, err := r.f.Float(key); r.has(key) && (err != nil || math.Abs(f-want) > 1e-6*want) {
			r.fail("%s is %g, only %g is supported", key, f, want)
		}
	}
	for key, want := range map[string]bool{"llama.use_parallel_residual": false, "llama.attention.causal": true} {
		if v, _ := r.f.Value(key); r.has(key) && v != want {
			r.fail("%s is %v, only %v is supported", key, v, want)
		}
	}
}

// rest lists the keys of the model that nothing asked for.
func (r *metadataReader) rest(m *metadata) {
	r.used["llama.tensor_data_layout"] = true // "Meta AI original pth": there is no other
	for _, key := range r.f.Keys() {
		if strings.HasPrefix(key, "llama.") && !r.used[key] {
			m.unknown = append(m.unknown, key)
		}
	}
}

var _ keyValues = (*gguf.File)(nil)
