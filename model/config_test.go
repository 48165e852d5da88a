package model

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model/weights"
)

// smallLlama is what Transformers makes of {"model_type": "llama", ...} with the sizes of small.
func smallLlama() Config {
	return Config{
		ModelType: "llama", VocabSize: 512, HiddenSize: 64, IntermediateSize: 172, NumHiddenLayers: 2,
		NumAttentionHeads: 4, NumKeyValueHeads: 4, HeadDim: 16, MaxPositionEmbeddings: 128, RMSNormEps: 1e-6,
		Rope: RopeConfig{Type: "default", Theta: 10000}, BOSTokenID: 1, EOSTokenID: []int32{2}, PadTokenID: -1,
	}
}

// small is a config.json of a small LLaMA with more keys.
func small(keys string) string {
	text := `{"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2,
		"num_attention_heads": 4, "max_position_embeddings": 128`
	if keys != "" {
		text += ", " + keys
	}
	return text + "}"
}

func TestParseConfig(t *testing.T) {
	for keys, change := range map[string]func(c *Config){
		``:                                                      func(*Config) {},
		`"architectures": ["LlamaForCausalLM"]`:                 func(c *Config) { c.Architecture = "LlamaForCausalLM" },
		`"architectures": ["LLaMAForCausalLM"]`:                 func(c *Config) { c.Architecture = "LLaMAForCausalLM" },
		`"architectures": null`:                                 func(*Config) {},
		`"num_key_value_heads": 2`:                              func(c *Config) { c.NumKeyValueHeads = 2 },
		`"num_key_value_heads": null`:                           func(*Config) {},
		`"num_key_value_heads": 1`:                              func(c *Config) { c.NumKeyValueHeads = 1 },
		`"head_dim": 24`:                                        func(c *Config) { c.HeadDim = 24 },
		`"head_dim": null`:                                      func(*Config) {},
		`"head_dim": 2.4e1`:                                     func(c *Config) { c.HeadDim = 24 },
		`"rms_norm_eps": 1e-05`:                                 func(c *Config) { c.RMSNormEps = 1e-5 },
		`"tie_word_embeddings": true`:                           func(c *Config) { c.TieWordEmbeddings = true },
		`"attention_bias": true`:                                func(c *Config) { c.AttentionBias = true },
		`"mlp_bias": true`:                                      func(c *Config) { c.MLPBias = true },
		`"sliding_window": null`:                                func(*Config) {},
		`"hidden_act": "silu"`:                                  func(*Config) {},
		`"hidden_act": "swish"`:                                 func(*Config) {},
		`"bos_token_id": 128000`:                                nil,
		`"bos_token_id": 5`:                                     func(c *Config) { c.BOSTokenID = 5 },
		`"bos_token_id": null`:                                  func(c *Config) { c.BOSTokenID = -1 },
		`"eos_token_id": [3, 4]`:                                func(c *Config) { c.EOSTokenID = []int32{3, 4} },
		`"eos_token_id": null`:                                  func(c *Config) { c.EOSTokenID = nil },
		`"pad_token_id": 0`:                                     func(c *Config) { c.PadTokenID = 0 },
		`"pad_token_id": -1`:                                    func(c *Config) { c.PadTokenID = 511 },
		`"pad_token_id": null`:                                  func(*Config) {},
		`"torch_dtype": "bfloat16"`:                             func(c *Config) { c.TorchDtype = "bfloat16" },
		`"torch_dtype": "float16", "dtype": "x"`:                func(c *Config) { c.TorchDtype = "x" },
		`"quantization_config": null`:                           func(*Config) {},
		`"rope_theta": 5e5`:                                     func(c *Config) { c.Rope.Theta = 500000 },
		`"rope_scaling": null`:                                  func(*Config) {},
		`"rope_scaling": {}`:                                    func(*Config) {},
		`"rope_parameters": null`:                               func(*Config) {},
		`"rope_scaling": {"rope_type": "default"}`:              func(*Config) {},
		`"rope_theta": 7, "rope_parameters": {"rope_theta": 8}`: func(c *Config) { c.Rope.Theta = 8 },
		`"rope_theta": 7, "rope_scaling": {"rope_theta": 8}`:    func(c *Config) { c.Rope.Theta = 8 },
		`"rope_theta": 7, "rope_scaling": {"type": "default"}`:  func(c *Config) { c.Rope.Theta = 7 },
		`"rope_scaling": {"type": "linear", "factor": 2}`:       func(c *Config) { c.Rope = RopeConfig{Type: "linear", Theta: 10000, Factor: 2} },
		`"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2}`: func(c *Config) { c.Rope = RopeConfig{Type: "dynamic", Theta: 10000, Factor: 2} },
		`"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default", "rope_theta": 5}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "linear", Theta: 10000, Factor: 2}
		},
		`"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 3, "partial_rotary_factor": 1.0}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "linear", Theta: 10000, Factor: 3}
		},
		`"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "llama3", Theta: 10000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 64}
		},
		`"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "llama3", Theta: 10000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 128}
		},
		`"original_max_position_embeddings": 77, "rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "yarn", Theta: 10000, Factor: 4, OriginalMaxPositionEmbeddings: 77, BetaFast: 32, BetaSlow: 1, Truncate: true}
		},
		`"rope_scaling": {"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 32, "beta_fast": 16, "beta_slow": null, "mscale": 0.7, "mscale_all_dim": 0.9, "truncate": false, "attention_factor": 1.2}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "yarn", Theta: 10000, Factor: 4, OriginalMaxPositionEmbeddings: 32, BetaFast: 16, BetaSlow: 1,
				MScale: 0.7, MScaleAllDim: 0.9, AttentionFactor: 1.2}
		},
		`"rope_scaling": {"rope_type": "yarn", "factor": 2, "truncate": null, "attention_factor": null, "mscale": null, "beta_fast": 0}`: func(c *Config) {
			c.Rope = RopeConfig{Type: "yarn", Theta: 10000, Factor: 2, OriginalMaxPositionEmbeddings: 128, BetaFast: 32, BetaSlow: 1}
		},
		`"partial_rotary_factor": 1.0, "logit_scale": null, "residual_multiplier": 1, "final_logit_softcapping": null, "attn_logit_softcapping": 0, "clip_qkv": null, "num_experts": 0, "qk_norm": false, "query_pre_attn_scalar": 16`: func(*Config) {},
	} {
		if change == nil {
			continue // warns; see TestConfigWarnings
		}
		want := smallLlama()
		change(&want)
		got, warnings, err := ParseConfig([]byte(small(keys)), "c")
		if err != nil || len(warnings) != 0 {
			t.Errorf("%s: %v, warnings %q", keys, err, warnings)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", keys, got, want)
		}
	}
}

func TestMistralConfig(t *testing.T) {
	base := Config{
		ModelType: "mistral", VocabSize: 512, HiddenSize: 60, IntermediateSize: 140, NumHiddenLayers: 2, NumAttentionHeads: 8,
		NumKeyValueHeads: 8, HeadDim: 24, MaxPositionEmbeddings: 256, RMSNormEps: 1e-6, SlidingWindow: 4096,
		Rope: RopeConfig{Type: "default", Theta: 10000}, BOSTokenID: 1, EOSTokenID: []int32{2}, PadTokenID: -1,
	}
	for keys, change := range map[string]func(c *Config){
		``: func(*Config) {},
		`, "architectures": ["MistralForCausalLM"]`: func(c *Config) { c.Architecture = "MistralForCausalLM" },
		`, "sliding_window": null`:                  func(c *Config) { c.SlidingWindow = 0 },
		`, "sliding_window": 32`:                    func(c *Config) { c.SlidingWindow = 32 },
		`, "num_key_value_heads": null`:             func(c *Config) { c.NumKeyValueHeads = 8 },
		`, "num_key_value_heads": 2`:                func(c *Config) { c.NumKeyValueHeads = 2 },
		`, "attention_bias": false`:                 func(*Config) {},
	} {
		text := `{"model_type": "mistral", "vocab_size": 512, "hidden_size": 60, "intermediate_size": 140, "num_hidden_layers": 2,
			"num_attention_heads": 8, "head_dim": 24, "max_position_embeddings": 256` + keys + `}`
		want := base
		change(&want)
		got, warnings, err := ParseConfig([]byte(text), "c")
		if err != nil || len(warnings) != 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, warnings %q\n got %+v\nwant %+v", keys, err, warnings, got, want)
		}
	}
}

// A file that only says what the model is gets Transformers' sizes, and a warning that names them.
func TestDefaultSizes(t *testing.T) {
	for text, want := range map[string]Config{
		`{"model_type": "llama"}`: {ModelType: "llama", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 11008, NumHiddenLayers: 32,
			NumAttentionHeads: 32, NumKeyValueHeads: 32, HeadDim: 128, MaxPositionEmbeddings: 2048},
		`{"architectures": ["MistralForCausalLM"]}`: {ModelType: "mistral", Architecture: "MistralForCausalLM", VocabSize: 32000, HiddenSize: 4096,
			IntermediateSize: 14336, NumHiddenLayers: 32, NumAttentionHeads: 32, NumKeyValueHeads: 8, HeadDim: 128, MaxPositionEmbeddings: 131072, SlidingWindow: 4096},
	} {
		want.RMSNormEps, want.Rope, want.BOSTokenID, want.EOSTokenID, want.PadTokenID = 1e-6, RopeConfig{Type: "default", Theta: 10000}, 1, []int32{2}, -1
		got, warnings, err := ParseConfig([]byte(text), "c")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", text, err, got, want)
		}
		w := []string{"c: not there, Transformers' defaults are taken: vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, max_position_embeddings"}
		if !reflect.DeepEqual(warnings, w) {
			t.Errorf("warnings %q, want %q", warnings, w)
		}
	}
}

func TestConfigWarnings(t *testing.T) {
	for keys, want := range map[string]string{
		`"_name_or_path": "x", "transformers_version": "4.31.0", "use_cache": true, "initializer_range": 0.02, "pretraining_tp": 1, "attention_dropout": 0.0, "id2label": {}, "top_p": 0.9`: "",
		`"zebra": 1, "mistral_thing": null, "Hidden_Size": 2`: "c: unknown keys, ignored: zebra, mistral_thing, Hidden_Size",
		`"sliding_window": 5`: "c: unknown keys, ignored: sliding_window",
		`"rope_scaling": {"type": "linear", "factor": 2, "finetuned": true}, "other": 0`: "c: unknown keys, ignored: rope_scaling.finetuned, other",
		`"rope_parameters": {"rope_type": "default", "factor": 2}`:                       "c: unknown keys, ignored: rope_parameters.factor",
		`"rope_scaling": {"type": "linear", "factor": 0.5}`:                              "c: rope_scaling.factor is 0.5, which is below 1",
		`"attention_dropout": 0.1`:                                                       "c: attention_dropout 0.1 is not applied",
		`"bos_token_id": 128000`:                                                         "c: token 128000 of bos_token_id or eos_token_id is outside the vocabulary of 512",
		`"eos_token_id": [2, 512]`:                                                       "c: token 512 of bos_token_id or eos_token_id is outside the vocabulary of 512",
		`"quantization_config": {"quant_method": "bitsandbytes"}`:                        "c: quantization_config (bitsandbytes) is ignored: the weights are used as they are stored",
		`"quantization_config": {"load_in_8bit": true}`:                                  "c: quantization_config (unnamed) is ignored: the weights are used as they are stored",
	} {
		_, warnings, err := ParseConfig([]byte(small(keys)), "c")
		if err != nil || strings.Join(warnings, "\n") != want {
			t.Errorf("%s: %v\n got %q\nwant %q", keys, err, warnings, want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	const only = "want default, linear, dynamic, llama3 or yarn, got "
	for text, want := range map[string]string{
		``:                                       "c: line 1, byte 0: want a value, but the text ends",
		`[]`:                                     "c: want a JSON object, got an array",
		"{\n,}":                                  "c: line 2, byte 2: want a string, got ','",
		small(`"vocab_size": 3`):                 `c: line 2, byte 172: key "vocab_size" is there twice`,
		strings.Repeat("[", 99):                  "c: line 1, byte 64: nested deeper than 64",
		`{}`:                                     `c: model_type: want "llama" or "mistral", got nothing`,
		`{"model_type": "gemma"}`:                `c: model_type: want "llama" or "mistral", got "gemma"`,
		`{"model_type": 1}`:                      "c: model_type: want a string, got the number 1\nc: model_type: want \"llama\" or \"mistral\", got nothing",
		`{"architectures": ["GPT2LMHeadModel"]}`: `c: architectures: want "LlamaForCausalLM" or "MistralForCausalLM", got "GPT2LMHeadModel"`,
		`{"model_type": "llama", "architectures": "x"}`:                                `c: architectures: want a list, got "x"`,
		`{"model_type": "llama", "architectures": [1]}`:                                `c: architectures: want a name, got the number 1`,
		`{"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}`: `c: architectures: want "LlamaForCausalLM" for model_type "llama", got "LlamaForSequenceClassification"`,
		`{"model_type": "llama", "architectures": ["MistralForCausalLM"]}`:             `c: architectures: want "LlamaForCausalLM" for model_type "llama", got "MistralForCausalLM"`,
		`{"model_type": "llama", "architectures": ["LlamaForCausalLM", "x"]}`:          `c: architectures: want one, got 2`,

		small(`"head_dim": "2"`):                                               `c: head_dim: want an integer, got "2"`,
		small(`"head_dim": 1.5`):                                               `c: head_dim: want an integer from 1 to 2147483647, got the number 1.5`,
		small(`"head_dim": 0`):                                                 `c: head_dim: want an integer from 1 to 2147483647, got 0`,
		small(`"head_dim": 1e99`):                                              `c: head_dim: want an integer from 1 to 2147483647, got the number 1e99`,
		small(`"head_dim": 1e999`):                                             `c: head_dim: want an integer from 1 to 2147483647, got the number 1e999`,
		small(`"head_dim": 5`):                                                 `c: head_dim: want an even number, got 5`,
		small(`"num_key_value_heads": 3`):                                      `c: num_attention_heads 4 is not a multiple of num_key_value_heads 3`,
		small(`"num_key_value_heads": true`):                                   `c: num_key_value_heads: want an integer, got true`,
		small(`"rms_norm_eps": "1e-5"`):                                        `c: rms_norm_eps: want a number, got "1e-5"`,
		small(`"rms_norm_eps": -1`):                                            `c: rms_norm_eps: want at least 0, got -1`,
		small(`"rms_norm_eps": 1e999`):                                         `c: rms_norm_eps: 1e999 is too large`,
		small(`"rms_norm_eps": null`):                                          `c: rms_norm_eps: want a number, got null`,
		small(`"tie_word_embeddings": 1`):                                      `c: tie_word_embeddings: want true or false, got the number 1`,
		small(`"attention_bias": null`):                                        `c: attention_bias: want true or false, got null`,
		small(`"hidden_act": "gelu"`):                                          `c: hidden_act: want "silu", got "gelu"`,
		small(`"hidden_act": null`):                                            `c: hidden_act: want a string, got null`,
		small(`"pad_token_id": 512`):                                           `c: pad_token_id: want an integer from -512 to 511, got 512`,
		small(`"bos_token_id": [1]`):                                           `c: bos_token_id: want an integer, got an array`,
		small(`"eos_token_id": ["2"]`):                                         `c: eos_token_id: want an integer, got "2"`,
		small(`"torch_dtype": 16`):                                             `c: torch_dtype: want a string, got the number 16`,
		small(`"quantization_config": 4`):                                      `c: quantization_config: want an object, got the number 4`,
		`{"model_type": "llama", "hidden_size": 10, "num_attention_heads": 4}`: "c: hidden_size 10 is not a multiple of num_attention_heads 4",
		`{"model_type": "llama", "hidden_size": 2147483640, "num_attention_heads": 1, "vocab_size": 2000000000, "num_hidden_layers": 20000}`: "c: num_hidden_layers: want an integer from 1 to 10000, got 20000",
		`{"model_type": "llama", "hidden_size": 2147483640, "num_attention_heads": 1, "vocab_size": 32}`: "c: intermediate_size x hidden_size: 11008 x 2147483640 elements are not plausible\n" +
			"c: attention's width x hidden_size: 2147483640 x 2147483640 elements are not plausible",
		`{"model_type": "mistral", "sliding_window": 0}`: "c: sliding_window: want an integer from 1 to 2147483647, got 0",

		small(`"rope_theta": null`):                                                                      `c: rope_theta: want a number, got null`,
		small(`"rope_theta": 0`):                                                                         `c: rope_theta: want a number above 0, got 0`,
		small(`"rope_scaling": "linear"`):                                                                `c: rope_scaling: want an object, got "linear"`,
		small(`"rope_scaling": {"type": "linear"}`):                                                      `c: rope_scaling.factor: is missing, want a number above 0`,
		small(`"rope_scaling": {"type": "linear", "factor": "2"}`):                                       `c: rope_scaling.factor: want a number, got "2"`,
		small(`"rope_scaling": {"type": "dynamic", "factor": 0}`):                                        `c: rope_scaling.factor: want a number above 0, got 0`,
		small(`"rope_scaling": {"type": "dynamic", "factor": 2}, "head_dim": 2`):                         `c: head_dim: want more than 2 with dynamic rope, got 2`,
		small(`"rope_scaling": {"rope_type": "longrope", "long_factor": [1]}`):                           `c: rope_scaling.rope_type: ` + only + `"longrope"`,
		small(`"rope_parameters": {"rope_type": "proportional"}`):                                        `c: rope_parameters.rope_type: ` + only + `"proportional"`,
		small(`"rope_parameters": {"rope_type": null}`):                                                  `c: rope_parameters.rope_type: want a string, got null`,
		small(`"rope_parameters": {"partial_rotary_factor": 0.5}`):                                       `c: rope_parameters.partial_rotary_factor: want 1, got 0.5`,
		small(`"rope_parameters": {"partial_rotary_factor": 0}`):                                         `c: rope_parameters.partial_rotary_factor: want 1, got 0`,
		small(`"rope_scaling": {"type": "llama3", "factor": 8}`):                                         "c: rope_scaling.low_freq_factor: is missing, want a number above 0\nc: rope_scaling.high_freq_factor: is missing, want a number above 0\nc: rope_scaling.high_freq_factor: want more than low_freq_factor 1, got 1",
		small(`"rope_scaling": {"type": "yarn"}`):                                                        `c: rope_scaling.factor: is missing, want a number above 0`,
		small(`"rope_scaling": {"type": "yarn", "factor": 2, "rope_theta": 1}`):                          `c: rope_scaling.rope_theta: want more than 1 with yarn, got 1`,
		small(`"rope_scaling": {"type": "yarn", "factor": 2, "attention_factor": 0}`):                    `c: rope_scaling.attention_factor: want a number above 0, got 0`,
		small(`"rope_scaling": {"type": "yarn", "factor": 2}, "original_max_position_embeddings": null`): `c: original_max_position_embeddings: want an integer, got null`,

		small(`"partial_rotary_factor": 0.5`):   `c: partial_rotary_factor: want 1 or null, got the number 0.5: what else it means is not supported`,
		small(`"embedding_multiplier": 12`):     `c: embedding_multiplier: want 1 or null, got the number 12: what else it means is not supported`,
		small(`"logit_scale": 0.0625`):          `c: logit_scale: want 1 or null, got the number 0.0625: what else it means is not supported`,
		small(`"logits_scaling": 8`):            `c: logits_scaling: want 1 or null, got the number 8: what else it means is not supported`,
		small(`"attn_logit_softcapping": 50.0`): `c: attn_logit_softcapping: want 0, false or null, got the number 50.0: what else it means is not supported`,
		small(`"final_logit_softcapping": 30`):  `c: final_logit_softcapping: want 0, false or null, got the number 30: what else it means is not supported`,
		small(`"clip_qkv": 8`):                  `c: clip_qkv: want 0, false or null, got the number 8: what else it means is not supported`,
		small(`"use_qk_norm": true`):            `c: use_qk_norm: want 0, false or null, got true: what else it means is not supported`,
		small(`"query_pre_attn_scalar": 256`):   `c: query_pre_attn_scalar: want head_dim or null, got the number 256: what else it means is not supported`,
		small(`"num_local_experts": 8`):         `c: num_local_experts: want 0, false or null, got the number 8: what else it means is not supported`,
		// All problems at once.
		small(`"hidden_act": "relu", "clip_qkv": 6, "rope_scaling": {"type": "su"}, "head_dim": -2`): "c: head_dim: want an integer from 1 to 2147483647, got -2\n" +
			"c: hidden_act: want \"silu\", got \"relu\"\nc: rope_scaling.rope_type: " + only + "\"su\"\n" +
			"c: clip_qkv: want 0, false or null, got the number 6: what else it means is not supported",
	} {
		_, _, err := ParseConfig([]byte(text), "c")
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	if _, _, err := ReadConfig(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte(small("")), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, _, err := ReadConfig(dir); err != nil || !reflect.DeepEqual(c, smallLlama()) {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.WriteFile(path, []byte(`{"model_type": "gemma"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadConfig(dir); err == nil || !strings.HasPrefix(err.Error(), path+": model_type: ") {
		t.Errorf("got %v", err)
	}
}

func TestCheckStored(t *testing.T) {
	const plain = "model.layers.0.mlp.up_proj.weight"
	for name, c := range map[string]struct {
		tensor, format, method string
		bad                    bool
	}{
		"plain":              {plain, "BF16", "", false},
		"stale config":       {plain, "F16", "bitsandbytes", false},
		"a buffer of ids":    {"model.position_ids", "I64", "", false},
		"int8":               {plain, "I8", "bitsandbytes", true},
		"fp8":                {plain, "F8_E4M3", "fp8", true},
		"nf4":                {plain + ".absmax", "F32", "bitsandbytes", true},
		"nf4 state":          {plain + ".quant_state.bitsandbytes__nf4", "U8", "", true},
		"gptq":               {"model.layers.0.mlp.up_proj.qweight", "I32", "", true},
		"compressed-tensors": {plain + "_packed", "I32", "compressed-tensors", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, weights.SingleFile)
			size := map[string]int{"BF16": 2, "F16": 2, "I64": 8, "I8": 1, "F8_E4M3": 1, "F32": 4, "U8": 1, "I32": 4}[c.format]
			err := safetensors.WriteFile(path, []safetensors.Source{
				{Name: "model.norm.weight", DType: numeric.F32, Shape: []int{1}, Data: make([]byte, 4)},
				{Name: c.tensor, Type: c.format, Shape: []int{3}, Data: make([]byte, 3*size)},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			ckpt, err := weights.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer ckpt.Close()
			err = CheckStored(dir, &Config{QuantMethod: c.method}, ckpt)
			if !c.bad {
				if err != nil {
					t.Error(err)
				}
				return
			}
			method := "which config.json does not name"
			if c.method != "" {
				method = "quant_method " + c.method
			}
			want := dir + ": the weights are stored quantised (" + method + "): " + path + ": tensor " + c.tensor + " is " + c.format + " [3], want F32, F16 or BF16"
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// The configurations of real and reference models say what they should, without a warning.
func TestReferenceConfigs(t *testing.T) {
	shared := sharedFolder(t)
	paths, err := filepath.Glob(filepath.Join(shared, "*", "*", "model", "config.json"))
	if err != nil || len(paths) == 0 {
		t.Skip("no reference configurations in", shared)
	}
	for _, path := range paths {
		c, warnings, err := ReadConfig(filepath.Dir(path))
		if err != nil || len(warnings) != 0 {
			t.Errorf("%v, warnings %q", err, warnings)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var raw struct {
			VocabSize   int   `json:"vocab_size"`
			HeadDim     *int  `json:"head_dim"`
			EOS         int32 `json:"eos_token_id"`
			Tied        bool  `json:"tie_word_embeddings"`
			RopeScaling *struct {
				Type     string `json:"type"`
				RopeType string `json:"rope_type"`
			} `json:"rope_scaling"`
		}
		if err := json.Unmarshal(data, &raw); err != nil {
			t.Fatal(err)
		}
		if c.VocabSize != raw.VocabSize || raw.HeadDim != nil && c.HeadDim != *raw.HeadDim || c.EOSTokenID[0] != raw.EOS || c.TieWordEmbeddings != raw.Tied {
			t.Errorf("%s: %+v", path, c)
		}
		if s := raw.RopeScaling; s != nil && c.Rope.Type != s.Type+s.RopeType {
			t.Errorf("%s: rope %+v", path, c.Rope)
		}
	}
}

// sharedFolder finds the folder of larger reference data beside the repository.
func sharedFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			shared := filepath.Join(dir, "..", "shared")
			if _, err := os.Stat(shared); err != nil {
				t.Skip("needs the reference data in ../shared")
			}
			return shared
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// Whatever is accepted passes the checks of the sizes and makes a rope, or is told why not; nothing panics.
func FuzzConfig(f *testing.F) {
	f.Add(small(`"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}`))
	f.Add(small(`"rope_scaling": {"rope_type": "yarn", "factor": null, "truncate": false, "beta_fast": 0.1}, "eos_token_id": [1, 2]`))
	f.Add(small(`"rope_parameters": {"rope_type": "dynamic", "factor": 2}, "head_dim": 4, "pad_token_id": -1`))
	f.Add(`{"model_type": "mistral", "sliding_window": null, "num_key_value_heads": null, "hidden_size": 6, "num_attention_heads": 3}`)
	f.Add(`{"model_type": "llama", "hidden_size": 1e9, "num_attention_heads": 1, "architectures": [null], "clip_qkv": {}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c Config
		var err error
		hostile.Bounded(t, len(text), 1000, func() { c, _, err = ParseConfig([]byte(text), "c") })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "c: ") {
				t.Fatalf("error without the file: %v", err)
			}
			return
		}
		if c.VocabSize < 1 || c.NumHiddenLayers < 1 || c.NumAttentionHeads%c.NumKeyValueHeads != 0 || c.HeadDim%2 != 0 || int(c.PadTokenID) >= c.VocabSize {
			t.Fatalf("accepted %+v", c)
		}
		if c.HeadDim > 1<<16 {
			return
		}
		r, err := NewRope(c)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "rope: ") {
				t.Fatal(err)
			}
			return
		}
		n := c.HeadDim / 2
		r.Table([]int32{0, 3}, []int32{5, 5}, make([]float32, 2*n), make([]float32, 2*n))
	})
}
