package model

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/model/weights"
)

// ConfigFile is the name of the file that describes a model, beside its weights.
const ConfigFile = weights.ConfigFile

// Config is what config.json says of a decoder, with the defaults of Transformers for what it leaves out. The fields
// have Hugging Face's names.
type Config struct {
	ModelType    string // "llama" or "mistral"
	Architecture string // as the file spells it; empty where it has none

	VocabSize             int
	HiddenSize            int
	IntermediateSize      int
	NumHiddenLayers       int
	NumAttentionHeads     int
	NumKeyValueHeads      int
	HeadDim               int // even; not always HiddenSize / NumAttentionHeads
	MaxPositionEmbeddings int
	RMSNormEps            float64
	TieWordEmbeddings     bool
	AttentionBias         bool // of q, k, v and o
	MLPBias               bool // of gate, up and down
	SlidingWindow         int  // a query at position i sees those above i - SlidingWindow; 0: all
	Rope                  RopeConfig

	BOSTokenID int32   // -1: none
	EOSTokenID []int32 // any of them ends a text
	PadTokenID int32   // the embedding's row that is never trained; -1: none

	TorchDtype  string // the format of the weights as the file spells it; empty where it does not say
	QuantMethod string // of quantization_config; empty without one
}

// RopeConfig is how positions rotate queries and keys. The numbers that a type does not use are 0.
type RopeConfig struct {
	Type  string  // "default", "linear", "dynamic", "llama3" or "yarn"
	Theta float64 // rope_theta, the base of the wavelengths

	Factor                        float64 // linear, dynamic, llama3, yarn
	OriginalMaxPositionEmbeddings int     // llama3, yarn: the length of the pretraining
	LowFreqFactor, HighFreqFactor float64 // llama3
	AttentionFactor               float64 // yarn: multiplies cos and sin; 0: inferred
	BetaFast, BetaSlow            float64 // yarn
	MScale, MScaleAllDim          float64 // yarn: used to infer AttentionFactor if neither is 0
	Truncate                      bool    // yarn: the ramp begins and ends at whole pairs
}

// Positions is how many positions the model was made for: max_position_embeddings, and the factor times as many with
// dynamic scaling, which is there to go beyond them.
func (c *Config) Positions() int {
	if c.Rope.Type == "dynamic" && c.Rope.Factor > 1 {
		return int(float64(c.MaxPositionEmbeddings) * c.Rope.Factor)
	}
	return c.MaxPositionEmbeddings
}

// The largest sizes that are plausible; far beyond any model, and small enough that no product of two overflows.
const (
	maxSize   = 1<<31 - 1
	maxLayers = 10_000
)

// ReadConfig reads the configuration of the checkpoint at path: config.json in a directory, else what params.json or a
// GGUF file says in its place. See ParseConfig.
func ReadConfig(path string) (Config, []string, error) {
	o, file, err := weights.ReadConfig(path)
	if err != nil {
		return Config{}, nil, err
	}
	return parseConfig(o, file)
}

// ParseConfig reads a config.json as Transformers 5 does (LlamaConfig, MistralConfig, modeling_rope_utils). What would
// change the mathematics and is not supported is an error; all of them are returned at once, each naming path and key.
// Keys that are merely unknown are named in the warnings.
func ParseConfig(data []byte, path string) (Config, []string, error) {
	o, err := strictjson.ParseObject(data)
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	return parseConfig(o, path)
}

func parseConfig(o *strictjson.Object, path string) (Config, []string, error) {
	r := newConfigReader(o, path)
	c := Config{}
	r.family(&c)
	if c.ModelType == "" {
		return Config{}, nil, errors.Join(*r.errs...) // nothing else can be judged
	}
	r.sizes(&c)
	r.features(&c)
	r.tokens(&c)
	r.rope(&c)
	r.foreign(&c)
	if err := errors.Join(*r.errs...); err != nil {
		return Config{}, nil, err
	}
	if err := c.check(path); err != nil {
		return Config{}, nil, err
	}
	return c, r.warn(&c), nil
}

// architectures are the spellings of each model type's causal language model.
var architectures = map[string][]string{
	"llama":   {"LlamaForCausalLM", "LLaMAForCausalLM"},
	"mistral": {"MistralForCausalLM"},
}

// family reads what the model is. It leaves ModelType empty if it is none that is supported.
func (r *configReader) family(c *Config) {
	modelType := r.str("model_type", "")
	if list := r.list("architectures"); len(list) == 1 {
		s, ok := list[0].(string)
		if !ok {
			r.fail("architectures", "want a name, got %s", strictjson.Kind(list[0]))
			return
		}
		c.Architecture = s
	} else if len(list) > 1 {
		r.fail("architectures", "want one, got %d", len(list))
		return
	}
	if modelType == "" {
		for t, names := range architectures {
			if slices.Contains(names, c.Architecture) {
				modelType = t
			}
		}
	}
	names, ok := architectures[modelType]
	switch {
	case modelType == "" && c.Architecture == "":
		r.fail("model_type", "want \"llama\" or \"mistral\", got nothing")
	case modelType == "":
		r.fail("architectures", "want \"LlamaForCausalLM\" or \"MistralForCausalLM\", got %q", c.Architecture)
	case !ok:
		r.fail("model_type", "want \"llama\" or \"mistral\", got %q", modelType)
	case c.Architecture != "" && !slices.Contains(names, c.Architecture):
		r.fail("architectures", "want %q for model_type %q, got %q", names[0], modelType, c.Architecture)
	default:
		c.ModelType = modelType
	}
}

// defaultSizes are those of Transformers' LlamaConfig and MistralConfig.
var defaultSizes = map[string]Config{
	"llama":   {IntermediateSize: 11008, MaxPositionEmbeddings: 2048},
	"mistral": {IntermediateSize: 14336, MaxPositionEmbeddings: 131072, NumKeyValueHeads: 8, SlidingWindow: 4096},
}

func (r *configReader) sizes(c *Config) {
	d := defaultSizes[c.ModelType]
	c.VocabSize = r.size("vocab_size", 32000, maxSize)
	c.HiddenSize = r.size("hidden_size", 4096, maxSize)
	c.IntermediateSize = r.size("intermediate_size", d.IntermediateSize, maxSize)
	c.NumHiddenLayers = r.size("num_hidden_layers", 32, maxLayers)
	c.NumAttentionHeads = r.size("num_attention_heads", 32, maxSize)
	c.MaxPositionEmbeddings = r.size("max_position_embeddings", d.MaxPositionEmbeddings, maxSize)
	switch {
	case r.null("num_key_value_heads"), d.NumKeyValueHeads == 0 && !r.has("num_key_value_heads"):
		c.NumKeyValueHeads = c.NumAttentionHeads
	default:
		c.NumKeyValueHeads = r.size("num_key_value_heads", d.NumKeyValueHeads, maxSize)
	}
	if r.null("head_dim") || !r.has("head_dim") {
		c.HeadDim = c.HiddenSize / max(1, c.NumAttentionHeads)
	} else {
		c.HeadDim = r.size("head_dim", 0, maxSize)
	}
	if c.ModelType == "mistral" && !r.null("sliding_window") {
		c.SlidingWindow = r.size("sliding_window", d.SlidingWindow, maxSize)
	}
	for _, key := range []string{"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"} {
		if !r.has(key) {
			r.missing = append(r.missing, key)
		}
	}
}

func (r *configReader) features(c *Config) {
	c.RMSNormEps = r.float("rms_norm_eps", 1e-6)
	if c.RMSNormEps < 0 {
		r.fail("rms_norm_eps", "want at least 0, got %g", c.RMSNormEps)
	}
	c.TieWordEmbeddings = r.boolean("tie_word_embeddings", false)
	if c.ModelType == "llama" {
		c.AttentionBias = r.boolean("attention_bias", false)
		c.MLPBias = r.boolean("mlp_bias", false)
	}
	if act := r.str("hidden_act", "silu"); act != "silu" && act != "swish" {
		r.fail("hidden_act", "want \"silu\", got %q", act)
	}
	c.TorchDtype = r.optionalStr("torch_dtype")
	if d := r.optionalStr("dtype"); d != "" {
		c.TorchDtype = d
	}
	if q := r.object("quantization_config"); q != nil {
		c.QuantMethod = q.str("quant_method", "unnamed")
	}
}

func (r *configReader) tokens(c *Config) {
	c.BOSTokenID, c.PadTokenID = -1, -1
	if !r.null("bos_token_id") {
		c.BOSTokenID = int32(r.integer("bos_token_id", 1, -1, maxSize))
	}
	if list, ok := r.peek("eos_token_id").([]any); ok {
		for _, v := range list {
			c.EOSTokenID = append(c.EOSTokenID, int32(r.toInteger("eos_token_id", v, 0, maxSize)))
		}
	} else if !r.null("eos_token_id") {
		if id := int32(r.integer("eos_token_id", 2, -1, maxSize)); id >= 0 {
			c.EOSTokenID = []int32{id}
		}
	}
	if r.has("pad_token_id") && !r.null("pad_token_id") {
		// PyTorch counts a negative padding_idx from the end of the table.
		v := c.VocabSize
		if id := r.integer("pad_token_id", 0, -v, v-1); id < 0 {
			c.PadTokenID = int32(id + v)
		} else {
			c.PadTokenID = int32(id)
		}
	}
}

// rope reads rope_scaling (old) or rope_parameters (new) and what belongs to it at the top level. As in Transformers
// the old key rules where both are there.
func (r *configReader) rope(c *Config) {
	theta := r.positive("rope_theta", 10000)
	q, key := r.object("rope_scaling"), "rope_scaling"
	if p := r.object("rope_parameters"); q == nil || len(q.o.Keys) == 0 {
		q, key = p, "rope_parameters"
	}
	if q == nil {
		q = r.nested(strictjson.NewObject(), key)
	}
	p := &c.Rope
	p.Theta = q.positive("rope_theta", theta)
	p.Type = q.str("rope_type", q.str("type", "default"))
	switch p.Type {
	case "default":
	case "linear", "dynamic":
		q.factor(p)
	case "llama3":
		q.factor(p)
		q.original(p, r, c.MaxPositionEmbeddings)
		p.LowFreqFactor, p.HighFreqFactor = q.required("low_freq_factor"), q.required("high_freq_factor")
		if p.HighFreqFactor <= p.LowFreqFactor {
			q.fail("high_freq_factor", "want more than low_freq_factor %g, got %g", p.LowFreqFactor, p.HighFreqFactor)
		}
	case "yarn":
		q.yarn(p, r, c.MaxPositionEmbeddings)
	default:
		q.fail("rope_type", "want default, linear, dynamic, llama3 or yarn, got %q", p.Type)
		return
	}
	if f := p.Factor; f != 0 && f < 1 {
		r.warnings = append(r.warnings, fmt.Sprintf("%s: %s.factor is %g, which is below 1", r.path, key, f))
	}
	if !q.null("partial_rotary_factor") {
		if f := q.float("partial_rotary_factor", 1); f != 1 {
			q.fail("partial_rotary_factor", "want 1, got %g", f)
		}
	}
	r.unknown = append(r.unknown, q.rest()...)
}

// factor reads a factor that must be there.
func (q *configReader) factor(p *RopeConfig) { p.Factor = q.required("factor") }

// original reads the length of the pretraining; the one at the top level of the file wins.
func (q *configReader) original(p *RopeConfig, top *configReader, length int) {
	const key = "original_max_position_embeddings"
	p.OriginalMaxPositionEmbeddings = q.size(key, length, maxSize)
	if top.has(key) {
		p.OriginalMaxPositionEmbeddings = top.size(key, 0, maxSize)
	}
}

func (q *configReader) yarn(p *RopeConfig, top *configReader, length int) {
	q.original(p, top, length)
	if q.null("factor") {
		p.Factor = float64(length) / float64(max(1, p.OriginalMaxPositionEmbeddings))
	} else {
		q.factor(p)
	}
	if q.has("attention_factor") && !q.null("attention_factor") {
		p.AttentionFactor = q.positive("attention_factor", 0)
	}
	p.MScale, p.MScaleAllDim = q.optional("mscale"), q.optional("mscale_all_dim")
	p.BetaFast, p.BetaSlow = 32, 1
	if b := q.optional("beta_fast"); b != 0 {
		p.BetaFast = b
	}
	if b := q.optional("beta_slow"); b != 0 {
		p.BetaSlow = b
	}
	p.Truncate = !q.null("truncate") && q.boolean("truncate", true)
	if p.Theta <= 1 {
		q.fail("rope_theta", "want more than 1 with yarn, got %g", p.Theta)
	}
}

// check compares the numbers with each other.
func (c *Config) check(path string) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(path+": "+format, args...)) }
	if c.ModelType == "llama" && c.HiddenSize%c.NumAttentionHeads != 0 {
		fail("hidden_size %d is not a multiple of num_attention_heads %d", c.HiddenSize, c.NumAttentionHeads)
	}
	if c.NumAttentionHeads%c.NumKeyValueHeads != 0 {
		fail("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.NumAttentionHeads, c.NumKeyValueHeads)
	}
	if c.HeadDim == 0 || c.HeadDim%2 != 0 {
		fail("head_dim: want an even number, got %d", c.HeadDim)
	}
	if c.Rope.Type == "dynamic" && c.HeadDim == 2 {
		fail("head_dim: want more than 2 with dynamic rope, got %d", c.HeadDim)
	}
	for _, p := range []struct {
		what string
		a, b int
	}{
		{"num_attention_heads x head_dim", c.NumAttentionHeads, c.HeadDim},
		{"vocab_size x hidden_size", c.VocabSize, c.HiddenSize},
		{"intermediate_size x hidden_size", c.IntermediateSize, c.HiddenSize},
		{"attention's width x hidden_size", c.NumAttentionHeads * c.HeadDim, c.HiddenSize},
	} {
		const most = 1 << 40 // elements; the largest matrices there are have 2^32
		if hi, lo := bits.Mul64(uint64(p.a), uint64(p.b)); hi != 0 || lo > most {
			fail("%s: %d x %d elements are not plausible", p.what, p.a, p.b)
		}
	}
	return errors.Join(errs...)
}

// warn gathers the warnings.
func (r *configReader) warn(c *Config) []string {
	list := r.warnings
	if c.QuantMethod != "" {
		list = append(list, fmt.Sprintf("%s: quantization_config (%s) is ignored: the weights are used as they are stored", r.path, c.QuantMethod))
	}
	for _, id := range append([]int32{c.BOSTokenID}, c.EOSTokenID...) {
		if int(id) >= c.VocabSize {
			list = append(list, fmt.Sprintf("%s: token %d of bos_token_id or eos_token_id is outside the vocabulary of %d", r.path, id, c.VocabSize))
		}
	}
	if len(r.missing) > 0 {
		list = append(list, fmt.Sprintf("%s: not there, Transformers' defaults are taken: %s", r.path, strings.Join(r.missing, ", ")))
	}
	if unknown := append(r.unknown, r.rest()...); len(unknown) > 0 {
		list = append(list, fmt.Sprintf("%s: unknown keys, ignored: %s", r.path, strings.Join(unknown, ", ")))
	}
	return list
}

// quantised are the endings of tensors that hold quantised weights or their scales: bitsandbytes, GPTQ, AWQ,
// compressed-tensors, FP8.
var quantised = []string{
	".absmax", ".nested_absmax", ".quant_map", ".nested_quant_map", ".SCB", ".weight_format",
	".qweight", ".qzeros", ".g_idx", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight_zero_point",
}

// CheckStored returns an error if the checkpoint's weights are stored quantised, which no reader of floating-point
// matrices can use. A quantization_config on a checkpoint of plain weights is none.
func CheckStored(dir string, c *Config, ckpt *weights.Checkpoint) error {
	for t := range ckpt.All() {
		bad := strings.HasSuffix(t.Name, ".weight") && !t.DType.Float() || strings.Contains(t.Name, ".quant_state.")
		for _, end := range quantised {
			bad = bad || strings.HasSuffix(t.Name, end)
		}
		if !bad {
			continue
		}
		if ckpt.Format() == weights.GGUF {
			return fmt.Errorf("%s: tensor %s is %s %v, a format that cannot be read", t.File, t.Name, t.Type, t.Shape)
		}
		method := "which " + ConfigFile + " does not name"
		if c.QuantMethod != "" {
			method = "quant_method " + c.QuantMethod
		}
		return fmt.Errorf("%s: the weights are stored quantised (%s): %s: tensor %s is %s %v, want F32, F16 or BF16",
			dir, method, t.File, t.Name, t.Type, t.Shape)
	}
	return nil
}
