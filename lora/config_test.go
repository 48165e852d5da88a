package lora

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaults(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	text, err := Defaults().text()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "alpha_pattern": {},
  "auto_mapping": null,
  "base_model_name_or_path": null,
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": 32,
  "lora_dropout": 0.0,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 16,
  "rank_pattern": {},
  "revision": null,
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": false
}`
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
}

func TestConfigText(t *testing.T) {
	c := Config{
		R: 1 << 20, LoraAlpha: 2.5, LoraDropout: 0.05,
		TargetModules: Names{Expr: `.*(?<=q)_proj|é`}, ExcludeModules: Names{List: []string{"k_proj"}},
		RankPattern: Rules{{"b", 1e6}, {"a<b", 3}}, AlphaPattern: Rules{{"c", 1e20}, {"d", 1e-7}},
		UseRSLoRA: true, InitLoraWeights: Gaussian, ModulesToSave: []string{"lm_head"}, EnsureWeightTying: true,
		BaseModel: "meta-llama/Llama-2-7b-hf", Revision: "main",
	}
	text, err := c.text()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"r": 1048576,`, `"lora_alpha": 2.5,`, `"lora_dropout": 0.05,`, `"target_modules": ".*(?<=q)_proj|é",`, `"exclude_modules": [`,
		"\"rank_pattern\": {\n    \"a<b\": 3,\n    \"b\": 1000000\n  },", `"c": 1e+20,`, `"d": 0.0000001`, `"init_lora_weights": "gaussian",`,
		`"ensure_weight_tying": true,`, `"revision": "main",`, `"base_model_name_or_path": "meta-llama/Llama-2-7b-hf",`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	got, err := ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	c.RankPattern = Rules{{"a<b", 3}, {"b", 1e6}}
	if d := cmp.Diff(c, got); d != "" {
		t.Error(d)
	}
}

func TestParseConfigDefaults(t *testing.T) {
	c, err := ParseConfig([]byte(`{"peft_type": "LORA", "target_modules": null, "r": 4, "megatron_core": "megatron.core", "qalora_group_size": 16,
		"peft_version": "0.99", "auto_mapping": {"base_model_class": "LlamaForCausalLM"}, "runtime_config": {"x": true}, "loftq_config": {}, "new_thing": false, "newer": null, "newest": ""}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{R: 4, LoraAlpha: 8, TargetModules: Names{List: []string{"q_proj", "v_proj"}}, InitLoraWeights: Kaiming}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	// The order of the file counts.
	c, err = ParseConfig([]byte(`{"peft_type": "LORA", "layers_to_transform": 3, "layers_pattern": "layers", "alpha_pattern": {"b": 1, "a": 2}, "init_lora_weights": false, "use_rslora": null}`))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.AlphaPattern, Rules{{"b", 1}, {"a", 2}}) || !slices.Equal(c.LayersToTransform, []int{3}) || !slices.Equal(c.LayersPattern, []string{"layers"}) || c.InitLoraWeights != Random {
		t.Errorf("%+v", c)
	}
}

func TestParseConfigErrors(t *testing.T) {
	for fields, want := range map[string]string{
		`"use_dora": true`:                                "use_dora is true: not supported",
		`"lora_bias": true`:                               "lora_bias is true: not supported",
		`"fan_in_fan_out": true`:                          "fan_in_fan_out is true: not supported",
		`"target_parameters": ["x"]`:                      "target_parameters is an array: not supported",
		`"trainable_token_indices": [1]`:                  "trainable_token_indices is an array: not supported",
		`"loftq_config": {"loftq_bits": 4}`:               "loftq_config is an object: not supported",
		`"megatron_core": "other"`:                        `megatron_core is "other": not supported`,
		`"qalora_group_size": 32`:                         "qalora_group_size is the number 32: not supported",
		`"layer_replication": [[0, 4]]`:                   "layer_replication is an array: not supported",
		`"wings": 2`:                                      "unknown field wings is the number 2",
		`"wings": 0`:                                      "unknown field wings is the number 0",
		`"bias": "all"`:                                   `bias: "all" is not supported, only "none"`,
		`"task_type": "SEQ_CLS"`:                          `task_type: "SEQ_CLS", want "CAUSAL_LM"`,
		`"init_lora_weights": "pissa"`:                    `init_lora_weights: "pissa" is not supported`,
		`"init_lora_weights": 1`:                          "init_lora_weights: want true, false or a string, got the number 1",
		`"r": 2.5`:                                        "r: want a whole number, got 2.5",
		`"r": "8"`:                                        `r: want a whole number, got "8"`,
		`"r": 0`:                                          "r is 0, want 1 or more",
		`"r": 99999999999999999999`:                       "r: want a whole number",
		`"lora_alpha": 0`:                                 "lora_alpha is 0, want a number other than 0",
		`"lora_alpha": 1e999`:                             "lora_alpha: want a number, got 1e999",
		`"lora_dropout": 1`:                               "lora_dropout is 1, want at least 0 and less than 1",
		`"target_modules": []`:                            "target_modules: it is empty",
		`"target_modules": [1]`:                           "target_modules: want a list of strings, it holds the number 1",
		`"target_modules": "(["`:                          `target_modules: regular expression "([": unterminated character set`,
		`"exclude_modules": 1`:                            "exclude_modules: want a list of strings, got the number 1",
		`"rank_pattern": {"a": 0}`:                        `rank_pattern "a" is 0, want a whole number from 1`,
		`"rank_pattern": {"a": 1.5}`:                      `rank_pattern "a" is 1.5, want a whole number from 1`,
		`"rank_pattern": ["a"]`:                           "rank_pattern: want an object, got an array",
		`"rank_pattern": {"a": 1, "a": 2}`:                `key "a" is there twice`,
		`"alpha_pattern": {"a": "b"}`:                     `alpha_pattern: "a": want a number, got "b"`,
		`"layers_pattern": "layers"`:                      "layers_pattern is of no use without layers_to_transform",
		`"layers_to_transform": [-1]`:                     "layers_to_transform holds -1",
		`"layers_to_transform": "x"`:                      "layers_to_transform: want a list of whole numbers",
		`"modules_to_save": [""]`:                         "modules_to_save holds an empty name",
		`"modules_to_save": "lm_head"`:                    "modules_to_save: want a list of strings",
		`"r": 1, "r": 2`:                                  `key "r" is there twice`,
		`"target_modules": "a", "layers_to_transform": 1`: `layers_to_transform and layers_pattern need a list of target_modules, not the string "a"`,
	} {
		_, err := ParseConfig([]byte(`{"peft_type": "LORA", ` + fields + `}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", fields, err, want)
		}
	}
	_, err := ParseConfig([]byte(`{"peft_type": "LORA", "r": -1, "lora_dropout": 3, "lora_alpha": 0}`))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not all problems: %v", err)
	}
	_, err = ParseConfig([]byte(`{"use_dora": true, "wings": 2}`))
	for _, want := range []string{"peft_type is null", "use_dora", "wings"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"r is 0, want 1 or more (Defaults has 16)":             func(c *Config) { c.R = 0 },
		"lora_alpha is NaN":                                    func(c *Config) { c.LoraAlpha = math.NaN() },
		"lora_dropout is NaN":                                  func(c *Config) { c.LoraDropout = math.NaN() },
		`init_lora_weights is "", want "kaiming"`:              func(c *Config) { c.InitLoraWeights = "" },
		"target_modules is empty (Defaults has q_proj,v_proj)": func(c *Config) { c.TargetModules = Names{} },
		"target_modules is a list and a string at once":        func(c *Config) { c.TargetModules.Expr = "x" },
		"exclude_modules holds an empty name":                  func(c *Config) { c.ExcludeModules.List = []string{""} },
		`rank_pattern has "a" twice`:                           func(c *Config) { c.RankPattern = Rules{{"a", 1}, {"a", 2}} },
	} {
		c := Defaults()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if err := (Config{}).Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("the zero value: %v", err)
	}
}

func TestParseNames(t *testing.T) {
	for text, want := range map[string]Names{
		"q_proj":       {List: []string{"q_proj"}},
		" a , b.c,":    {List: []string{"a", "b.c"}},
		"regex:.*,x":   {Expr: ".*,x"},
		"All-Linear":   {Expr: AllLinear},
		"all-linear,a": {List: []string{"all-linear", "a"}},
		"":             {},
		"regex:":       {},
	} {
		got := ParseNames(text)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", text, d)
		}
		if d := cmp.Diff(want, ParseNames(got.String())); d != "" {
			t.Errorf("%q through String: %s", text, d)
		}
	}
}

// randomConfig makes any valid configuration.
func randomConfig(rng *rand.Rand) Config {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	names := func() Names {
		if rng.IntN(3) == 0 {
			return Names{Expr: pick(AllLinear, `.*\.(q|v)_proj`, `(?!x).*"é\\`, "a|b")}
		}
		var n Names
		for range 1 + rng.IntN(4) {
			n.List = append(n.List, pick("q_proj", "v_proj", "mlp.down_proj", "lm_head", "<&>", "\u2028"))
		}
		return n
	}
	rules := func(values ...float64) (rs Rules) {
		for _, key := range []string{"a", `b\.c`, "(?:d|é)", `"`} {
			if rng.IntN(2) == 0 {
				rs = append(rs, Rule{key, values[rng.IntN(len(values))]})
			}
		}
		return rs.sorted()
	}
	c := Config{
		R: 1 + rng.IntN(100), LoraAlpha: []float64{1, 16, 0.1, -3, 1e-30, 1e30}[rng.IntN(6)], LoraDropout: rng.Float64() * 0.9,
		TargetModules: names(), RankPattern: rules(1, 2, 1e6), AlphaPattern: rules(1, 0.3, 1e17), UseRSLoRA: rng.IntN(2) == 0,
		InitLoraWeights: Init(pick("kaiming", "gaussian", "random")), EnsureWeightTying: rng.IntN(2) == 0,
		BaseModel: pick("", "a/b", `C:\x`), Revision: pick("", "main"),
	}
	if rng.IntN(2) == 0 {
		c.ExcludeModules = names()
	}
	if c.TargetModules.Expr == "" && rng.IntN(2) == 0 {
		c.LayersToTransform = []int{rng.IntN(9), 3}
		c.LayersPattern = [][]string{nil, {"layers"}, {"h", "layers"}}[rng.IntN(3)]
	}
	if rng.IntN(2) == 0 {
		c.ModulesToSave = []string{pick("lm_head", "embed_tokens", "x+")}
	}
	return c
}

func TestConfigRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 500 {
		c := randomConfig(rng)
		text, err := c.text()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseConfig(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Fatalf("%s\n%s", d, text)
		}
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var again Config
		if err := json.Unmarshal(data, &again); err != nil || !cmp.Equal(c, again) {
			t.Fatalf("%v\n%s", err, data)
		}
	}
}

// What is accepted is written so that it is accepted again, as the same, whatever it matches.
func FuzzParseConfig(f *testing.F) {
	_, cases := readPEFTCases(f)
	for i, c := range cases {
		if i%8 == 0 {
			f.Add([]byte(c.text()))
		}
	}
	f.Add(read(f, ConfigFile))
	modules := testModules(2)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		text, err := c.text()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		second, err := again.text()
		if err != nil || string(second) != string(text) {
			t.Fatalf("%v\n%s\n%s", err, text, second)
		}
		if m, err := c.Match(modules); err == nil {
			checkSaved(t, string(text), m, modules, false)
		}
	})
}
