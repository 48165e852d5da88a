package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/strictjson"
)

// configReader takes values out of a JSON object, remembers what it was asked for and gathers what is wrong.
type configReader struct {
	o      *strictjson.Object
	path   string
	prefix string // of the keys in messages
	used   map[string]bool
	errs   *[]error // shared with the readers of nested objects

	warnings []string
	missing  []string // keys whose default is a guess about the model
	unknown  []string
}

func newConfigReader(o *strictjson.Object, path string) *configReader {
	return &configReader{o: o, path: path, used: map[string]bool{}, errs: new([]error)}
}

// nested returns a reader of an object in this one.
func (r *configReader) nested(o *strictjson.Object, key string) *configReader {
	return &configReader{o: o, path: r.path, prefix: r.prefix + key + ".", used: map[string]bool{}, errs: r.errs}
}

func (r *configReader) fail(key, format string, args ...any) {
	*r.errs = append(*r.errs, fmt.Errorf("%s: %s%s: %s", r.path, r.prefix, key, fmt.Sprintf(format, args...)))
}

// value returns the value of key and marks it as known.
func (r *configReader) value(key string) (any, bool) {
	r.used[key] = true
	return r.o.Get(key)
}

func (r *configReader) peek(key string) any {
	v, _ := r.value(key)
	return v
}

func (r *configReader) has(key string) bool {
	_, ok := r.value(key)
	return ok
}

// null reports whether key is there and null.
func (r *configReader) null(key string) bool {
	v, ok := r.value(key)
	return ok && v == nil
}

func (r *configReader) wrongType(key, want string, got any) {
	r.fail(key, "want %s, got %s", want, strictjson.Kind(got))
}

// size is an integer from 1 to most, or def if key is not there.
func (r *configReader) size(key string, def, most int) int { return r.integer(key, def, 1, most) }

// integer is an integer from least to most, or def if key is not there.
func (r *configReader) integer(key string, def, least, most int) int {
	v, ok := r.value(key)
	if !ok {
		return def
	}
	return r.toInteger(key, v, least, most)
}

// toInteger converts a value of key. JSON does not tell 4096 from 4096.0 or 4.096e3.
func (r *configReader) toInteger(key string, v any, least, most int) int {
	n, ok := v.(json.Number)
	if !ok {
		r.wrongType(key, "an integer", v)
		return least
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		f, err := n.Float64()
		if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			r.wrongType(key, fmt.Sprintf("an integer from %d to %d", least, most), v)
			return least
		}
		i = int64(f)
	}
	if i < int64(least) || i > int64(most) {
		r.fail(key, "want an integer from %d to %d, got %s", least, most, n)
		return least
	}
	return int(i)
}

// float is a number, or def if key is not there.
func (r *configReader) float(key string, def float64) float64 {
	f, _ := r.number(key, def)
	return f
}

// positive is a number above 0, or def if key is not there.
func (r *configReader) positive(key string, def float64) float64 {
	f, ok := r.number(key, def)
	if ok && f <= 0 {
		r.fail(key, "want a number above 0, got %g", f)
		return 1
	}
	return f
}

// number is the number at key. It is def, and false, if there is none.
func (r *configReader) number(key string, def float64) (float64, bool) {
	v, ok := r.value(key)
	if !ok {
		return def, false
	}
	n, ok := v.(json.Number)
	if !ok {
		r.wrongType(key, "a number", v)
		return def, false
	}
	f, err := n.Float64()
	if err != nil {
		r.fail(key, "%s is too large", n)
		return def, false
	}
	return f, true
}

// required is a number above 0 that must be there.
func (r *configReader) required(key string) float64 {
	if !r.has(key) {
		r.fail(key, "is missing, want a number above 0")
		return 1
	}
	return r.positive(key, 1)
}

// optional is a number, 0 if key is not there or null.
func (r *configReader) optional(key string) float64 {
	if r.null(key) {
		return 0
	}
	return r.float(key, 0)
}

func (r *configReader) boolean(key string, def bool) bool {
	v, ok := r.value(key)
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		r.wrongType(key, "true or false", v)
	}
	return b
}

func (r *configReader) str(key, def string) string {
	v, ok := r.value(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		r.wrongType(key, "a string", v)
		return def
	}
	return s
}

// optionalStr is a string, empty if key is not there or null.
func (r *configReader) optionalStr(key string) string {
	if r.null(key) {
		return ""
	}
	return r.str(key, "")
}

// list is an array, empty if key is not there or null.
func (r *configReader) list(key string) []any {
	v, ok := r.value(key)
	if !ok || v == nil {
		return nil
	}
	a, ok := v.([]any)
	if !ok {
		r.wrongType(key, "a list", v)
	}
	return a
}

// object is a reader of the object at key, nil if it is not there or null.
func (r *configReader) object(key string) *configReader {
	v, ok := r.value(key)
	if !ok || v == nil {
		return nil
	}
	o, ok := v.(*strictjson.Object)
	if !ok {
		r.wrongType(key, "an object", v)
		return nil
	}
	return r.nested(o, key)
}

// rest lists the keys that nobody asked for.
func (r *configReader) rest() []string {
	var keys []string
	for _, key := range r.o.Keys {
		if !r.used[key] {
			keys = append(keys, r.prefix+key)
		}
	}
	return keys
}

// foreign goes through the keys that the decoder does not use: those that other models use to change the mathematics
// must have a value that changes nothing, those that every config.json has are passed over.
func (r *configReader) foreign(c *Config) {
	for _, key := range r.o.Keys {
		if r.used[key] {
			continue
		}
		v, _ := r.o.Get(key)
		switch rule, ok := foreignRule(key); {
		case !ok:
		case neutral(v, rule, c):
			r.used[key] = true
		default:
			r.used[key] = true
			r.fail(key, "want %s, got %s: what else it means is not supported", rule, strictjson.Kind(v))
		}
	}
	for _, key := range standardKeys {
		r.used[key] = true
	}
	for _, key := range []string{"sliding_window", "attention_bias", "mlp_bias", "use_sliding_window", "max_window_layers", "layer_types"} {
		if v, ok := r.o.Get(key); ok && (v == nil || v == false) {
			r.used[key] = true
		}
	}
	if p := r.optional("attention_dropout"); p != 0 {
		r.warnings = append(r.warnings, fmt.Sprintf("%s: attention_dropout %g is not applied", r.path, p))
	}
}

// A rule says which values of a foreign key change nothing, apart from null.
type rule string

const (
	ruleOne     rule = "1 or null"
	ruleOff     rule = "0, false or null"
	ruleHeadDim rule = "head_dim or null"
)

// foreignRule returns the rule for a key that changes the mathematics of models related to LLaMA: Granite, MiniCPM,
// Cohere, Gemma, OLMo, DBRX, Mixtral and others.
func foreignRule(key string) (rule, bool) {
	switch key {
	case "partial_rotary_factor", "rotary_pct", "logit_scale", "logits_scale", "logits_scaling", "logit_scaling",
		"scale_emb", "embedding_scale", "residual_scale", "attention_scale", "mup_width_scale":
		return ruleOne, true
	case "clip_qkv", "scale_depth", "qk_norm", "use_qk_norm", "qk_layernorm", "use_qk_layernorm", "alibi",
		"num_experts", "num_local_experts", "n_routed_experts", "parallel_attn", "use_parallel_residual",
		"attention_chunk_size", "attn_temperature_tuning", "embedding_scaling", "residual_scaling":
		return ruleOff, true
	case "query_pre_attn_scalar":
		return ruleHeadDim, true
	}
	switch {
	case strings.HasSuffix(key, "_multiplier"):
		return ruleOne, true
	case strings.Contains(key, "softcap"), strings.Contains(key, "soft_cap"):
		return ruleOff, true
	}
	return "", false
}

// neutral reports whether v changes nothing by the rule.
func neutral(v any, by rule, c *Config) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v && by == ruleOff
	case json.Number:
		f, err := v.Float64()
		want := map[rule]float64{ruleOne: 1, ruleOff: 0, ruleHeadDim: float64(c.HeadDim)}[by]
		return err == nil && f == want
	}
	return false
}

// standardKeys are those that config.json files of Transformers carry and that do not touch the forward pass.
var standardKeys = strings.Fields(`
	_name_or_path name_or_path _commit_hash transformers_version auto_map tokenizer_class use_cache initializer_range
	pretraining_tp attention_dropout id2label label2id num_labels problem_type task_specific_params finetuning_task
	output_attentions output_hidden_states return_dict torchscript use_bfloat16 tf_legacy_loss pruned_heads prefix
	is_decoder is_encoder_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder
	decoder_start_token_id sep_token_id chunk_size_feed_forward gradient_checkpointing max_sequence_length
	_attn_implementation _attn_implementation_autoset _attn_implementation_internal attn_implementation
	_flash_attn_2_enabled _experts_implementation experts_implementation
	max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
	typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
	num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
	remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
	original_max_position_embeddings unsloth_fixed unsloth_version`)
