package lora

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/strictjson"
)

// ParseConfig reads the text of an adapter_config.json. Missing fields have PEFT's defaults, not those of Defaults.
// A field that this package does not know must be null, false, empty or PEFT's default; all problems are gathered.
func ParseConfig(data []byte) (Config, error) {
	o, err := strictjson.ParseObject(data)
	if err != nil {
		return Config{}, err
	}
	return parseConfig(o)
}

// UnmarshalJSON is ParseConfig.
func (c *Config) UnmarshalJSON(data []byte) (err error) {
	*c, err = ParseConfig(data)
	return err
}

// peftDefaults are PEFT's values of fields that are not in the file.
func peftDefaults() Config {
	return Config{
		R:               8,
		LoraAlpha:       8,
		TargetModules:   Names{List: []string{"q_proj", "v_proj"}}, // of LLaMA and Mistral (constants.py)
		InitLoraWeights: Kaiming,
	}
}

// ignored are fields that say nothing about the numbers.
var ignored = []string{"auto_mapping", "inference_mode", "peft_version", "runtime_config"}

// unsupported are PEFT's fields that change what an adapter does or needs.
var unsupported = []string{
	"alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "fan_in_fan_out", "kasa_config",
	"layer_replication", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config", "megatron_core",
	"monteclora_config", "qalora_group_size", "target_parameters", "trainable_token_indices", "use_bdlora", "use_dora",
	"use_qalora", "velora_config",
}

func parseConfig(o *strictjson.Object) (Config, error) {
	c := peftDefaults()
	p := &problems{}
	if v, _ := o.Get("peft_type"); v != "LORA" {
		p.addf("peft_type is %s, want \"LORA\"", strictjson.Kind(v))
	}
	for _, key := range o.Keys {
		v, _ := o.Get(key)
		if set, ok := fields[key]; ok {
			if err := set(&c, v); err != nil {
				p.addf("%s: %w", key, err)
			}
			continue
		}
		if slices.Contains(ignored, key) || empty(v) || isDefault(key, v) {
			continue
		}
		if slices.Contains(unsupported, key) {
			p.addf("%s is %s: not supported", key, strictjson.Kind(v))
		} else {
			p.addf("unknown field %.120s is %s", key, strictjson.Kind(v))
		}
	}
	if len(p.errs) == 0 {
		p.errs = append(p.errs, c.Validate())
	}
	return c, p.err()
}

// empty reports whether v is null, false or has nothing in it.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case *strictjson.Object:
		return len(v.Keys) == 0
	}
	return false
}

func isDefault(key string, v any) bool {
	switch key {
	case "megatron_core":
		return v == "megatron.core"
	case "qalora_group_size":
		return v == json.Number("16")
	}
	return false
}

// fields read what we know.
var fields = map[string]func(c *Config, v any) error{
	"peft_type": func(*Config, any) error { return nil }, // has been looked at
	"task_type": func(_ *Config, v any) error {
		if v != nil && v != "CAUSAL_LM" {
			return fmt.Errorf("%s, want \"CAUSAL_LM\"", strictjson.Kind(v))
		}
		return nil
	},
	"bias": func(_ *Config, v any) error {
		if v != nil && v != "none" {
			return fmt.Errorf("%s is not supported, only \"none\"", strictjson.Kind(v))
		}
		return nil
	},
	"r":                       func(c *Config, v any) (err error) { c.R, err = parseInt(v); return },
	"lora_alpha":              func(c *Config, v any) (err error) { c.LoraAlpha, err = parseFloat(v); return },
	"lora_dropout":            func(c *Config, v any) (err error) { c.LoraDropout, err = parseFloat(v); return },
	"target_modules":          parseTargets,
	"exclude_modules":         func(c *Config, v any) (err error) { c.ExcludeModules, err = parseNames(v); return },
	"rank_pattern":            func(c *Config, v any) (err error) { c.RankPattern, err = parseRules(v); return },
	"alpha_pattern":           func(c *Config, v any) (err error) { c.AlphaPattern, err = parseRules(v); return },
	"layers_to_transform":     parseLayers,
	"layers_pattern":          parseLayersPattern,
	"use_rslora":              func(c *Config, v any) (err error) { c.UseRSLoRA, err = parseBool(v); return },
	"init_lora_weights":       func(c *Config, v any) (err error) { c.InitLoraWeights, err = parseInit(v); return },
	"modules_to_save":         parseModulesToSave,
	"ensure_weight_tying":     func(c *Config, v any) (err error) { c.EnsureWeightTying, err = parseBool(v); return },
	"base_model_name_or_path": func(c *Config, v any) (err error) { c.BaseModel, err = parseString(v); return },
	"revision":                func(c *Config, v any) (err error) { c.Revision, err = parseString(v); return },
}

func parseInt(v any) (int, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("want a whole number, got %s", strictjson.Kind(v))
	}
	i, err := strconv.Atoi(string(n))
	if err != nil {
		return 0, fmt.Errorf("want a whole number, got %.40s", n)
	}
	return i, nil
}

func parseFloat(v any) (float64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("want a number, got %s", strictjson.Kind(v))
	}
	f, err := n.Float64()
	if err != nil {
		return 0, fmt.Errorf("want a number, got %.40s", n)
	}
	return f, nil
}

// parseBool takes null for false, as Python does.
func parseBool(v any) (bool, error) {
	b, ok := v.(bool)
	if !ok && v != nil {
		return false, fmt.Errorf("want true or false, got %s", strictjson.Kind(v))
	}
	return b, nil
}

func parseString(v any) (string, error) {
	s, ok := v.(string)
	if !ok && v != nil {
		return "", fmt.Errorf("want a string, got %s", strictjson.Kind(v))
	}
	return s, nil
}

func parseStrings(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		return nil, fmt.Errorf("want a list of strings, got %s", strictjson.Kind(v))
	}
	var out []string
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, fmt.Errorf("want a list of strings, it holds %s", strictjson.Kind(e))
		}
		out = append(out, s)
	}
	return out, nil
}

func parseNames(v any) (Names, error) {
	if s, ok := v.(string); ok {
		return Names{Expr: s}, nil
	}
	list, err := parseStrings(v)
	return Names{List: list}, err
}

// parseTargets leaves PEFT's default for null.
func parseTargets(c *Config, v any) error {
	if v == nil {
		return nil
	}
	n, err := parseNames(v)
	if err == nil && n.IsZero() {
		err = fmt.Errorf("it is empty")
	}
	c.TargetModules = n
	return err
}

func parseRules(v any) (Rules, error) {
	if v == nil {
		return nil, nil
	}
	o, ok := v.(*strictjson.Object)
	if !ok {
		return nil, fmt.Errorf("want an object, got %s", strictjson.Kind(v))
	}
	var out Rules
	for _, key := range o.Keys {
		v, _ := o.Get(key)
		f, err := parseFloat(v)
		if err != nil {
			return nil, fmt.Errorf("%.120q: %w", key, err)
		}
		out = append(out, Rule{key, f})
	}
	return out, nil
}

func parseLayers(c *Config, v any) error {
	list, ok := v.([]any)
	if _, isNumber := v.(json.Number); isNumber {
		list, ok = []any{v}, true
	}
	if !ok && v != nil {
		return fmt.Errorf("want a list of whole numbers, got %s", strictjson.Kind(v))
	}
	c.LayersToTransform = nil
	for _, e := range list {
		n, err := parseInt(e)
		if err != nil {
			return err
		}
		c.LayersToTransform = append(c.LayersToTransform, n)
	}
	return nil
}

func parseLayersPattern(c *Config, v any) error {
	n, err := parseNames(v)
	c.LayersPattern = n.List
	if n.Expr != "" {
		c.LayersPattern = []string{n.Expr}
	}
	return err
}

func parseModulesToSave(c *Config, v any) (err error) {
	c.ModulesToSave, err = parseStrings(v)
	return err
}

func parseInit(v any) (Init, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return Kaiming, nil
		}
		return Random, nil
	case string:
		if strings.EqualFold(v, string(Gaussian)) {
			return Gaussian, nil
		}
		// The others change the frozen weights, or what is trained: pissa, olora, loftq, corda, eva, mica ...
		return "", fmt.Errorf("%.120q is not supported", v)
	}
	return "", fmt.Errorf("want true, false or a string, got %s", strictjson.Kind(v))
}

// MarshalJSON writes PEFT's adapter_config.json, without spaces. Fields that old versions of PEFT do not know are
// there only where they are not the default. Patterns are sorted by key, as in PEFT: see Matching.Config.
func (c Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(c.object()); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// text is the file as PEFT lays it out: indented by two, keys sorted, no line feed at the end.
func (c Config) text() ([]byte, error) {
	data, err := c.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (c Config) object() map[string]any {
	o := map[string]any{
		"alpha_pattern":           c.AlphaPattern.object(),
		"auto_mapping":            nil,
		"base_model_name_or_path": orNull(c.BaseModel),
		"bias":                    "none",
		"fan_in_fan_out":          false,
		"inference_mode":          true,
		"init_lora_weights":       map[Init]any{Kaiming: true, Gaussian: "gaussian", Random: false}[c.InitLoraWeights],
		"layers_pattern":          nil,
		"layers_to_transform":     nil,
		"lora_alpha":              number(c.LoraAlpha),
		"lora_dropout":            number(c.LoraDropout),
		"modules_to_save":         nil,
		"peft_type":               "LORA",
		"r":                       c.R,
		"rank_pattern":            c.RankPattern.object(),
		"revision":                orNull(c.Revision),
		"target_modules":          c.TargetModules.value(),
		"task_type":               "CAUSAL_LM",
		"use_dora":                false,
		"use_rslora":              c.UseRSLoRA,
	}
	if c.LoraDropout == 0 {
		o["lora_dropout"] = json.Number("0.0")
	}
	if len(c.LayersPattern) == 1 {
		o["layers_pattern"] = c.LayersPattern[0]
	} else if len(c.LayersPattern) > 1 {
		o["layers_pattern"] = c.LayersPattern
	}
	if len(c.LayersToTransform) > 0 {
		o["layers_to_transform"] = c.LayersToTransform
	}
	if len(c.ModulesToSave) > 0 {
		o["modules_to_save"] = c.ModulesToSave
	}
	if !c.ExcludeModules.IsZero() {
		o["exclude_modules"] = c.ExcludeModules.value()
	}
	if c.EnsureWeightTying {
		o["ensure_weight_tying"] = true
	}
	return o
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (n Names) value() any {
	if n.Expr != "" {
		return n.Expr
	}
	return n.List
}

func (rs Rules) object() map[string]json.Number {
	o := map[string]json.Number{}
	for _, r := range rs {
		o[r.Key] = number(r.Value)
	}
	return o
}

// number writes whole numbers as such: PEFT wants ranks to be integers.
func number(f float64) json.Number {
	format := byte('g')
	if math.Abs(f) < 1e15 {
		format = 'f'
	}
	return json.Number(strconv.FormatFloat(f, format, -1, 64))
}
