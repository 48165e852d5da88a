package lora

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/hostile"
)

// What an adapter_config.json can take: so much for each byte, and the one expression that is too large.
const (
	perByte   = 2000
	automaton = 600 << 20
)

// hostileConfigs are the fields of adapter_config.json that are more than an adapter has, or lie.
func hostileConfigs() map[string]string {
	list := func(n int, name string) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf(name, i)
		}
		text, _ := json.Marshal(names)
		return string(text)
	}
	rules := func(n int, key string) string {
		o := map[string]int{}
		for i := range n {
			o[fmt.Sprintf(key, i)] = 4
		}
		text, _ := json.Marshal(o)
		return string(text)
	}
	long := strings.Repeat("a.", 1000)
	return map[string]string{
		`"r":2147483648`:                           "r is 2147483648, at most 1048576 is plausible",
		`"r":-1`:                                   "r is -1, want 1 or more (Defaults has 16)",
		`"r":1e400`:                                "r: want a whole number, got 1e400",
		`"r":2.5`:                                  "r: want a whole number, got 2.5",
		`"r":9223372036854775808`:                  "r: want a whole number, got 9223372036854775808",
		`"r":` + strings.Repeat("9", 10_000):       "r: want a whole number, got " + strings.Repeat("9", 40),
		`"lora_alpha":1e400`:                       "lora_alpha: want a number, got 1e400",
		`"lora_alpha":"NaN"`:                       `lora_alpha: want a number, got "NaN"`,
		`"lora_alpha":NaN`:                         "line 1, byte 33: want a value, got 'N'",
		`"lora_alpha":-Infinity`:                   "line 1, byte 34: want a digit, got 'I'",
		`"lora_dropout":1`:                         "lora_dropout is 1, want at least 0 and less than 1",
		`"target_modules":` + list(20_000, "m%d"):  "target_modules has 20000 names, at most 16384 are plausible",
		`"exclude_modules":` + list(20_000, "m%d"): "exclude_modules has 20000 names, at most 16384 are plausible",
		`"modules_to_save":` + list(20_000, "m%d"): "modules_to_save has 20000 names, at most 16384 are plausible",
		`"layers_pattern":` + list(20_000, "m%d"):  "layers_pattern has 20000 names, at most 16384 are plausible",
		`"layers_to_transform":[0` + strings.Repeat(",0", 20_000) + `]`: "layers_to_transform has 20001 entries, at most 16384 are plausible",
		`"rank_pattern":` + rules(20_000, "m%d"):                        "rank_pattern has 20000 entries, at most 16384 are plausible",
		`"alpha_pattern":` + rules(20_000, "m%d"):                       "alpha_pattern has 20000 entries, at most 16384 are plausible",
		`"target_modules":["` + long + `"]`:                             `target_modules has a name of 2000 bytes, at most 1024 are plausible: "` + long[:60] + `"...`,
		`"target_modules":"` + strings.Repeat("(", 20_000) + `"`:        `target_modules: regular expression "` + strings.Repeat("(", 120) + `": 20000 bytes, at most 16384 are plausible`,
		`"target_modules":"` + strings.Repeat("a{999}", 2500) + `"`:     `target_modules: regular expression "` + strings.Repeat("a{999}", 20) + `": with those before it too large`,
		`"rank_pattern":` + rules(1, "(%d"):                             `rank_pattern: regular expression "(.*\\.)?((0)$": missing ), unterminated subpattern at position 7`,
		`"rank_pattern":{"a":1e300}`:                                    `rank_pattern "a" is 1e+300, want a whole number from 1`,
		`"rank_pattern":{"` + long + `":0}`:                             `rank_pattern "` + long[:120] + `" is 0, want a whole number from 1`,
		`"rank_pattern":{"a":2,"a":2}`:                                  `line 1, byte 42: key "a" is there twice`,
		`"modules_to_save":["(((("]`:                                    `modules_to_save: regular expression "(^|.*\\.)((((($|\\..*)": missing ), unterminated subpattern at position 11`,
		`"init_lora_weights":"` + long + `"`:                            `init_lora_weights: "` + long[:120] + `" is not supported`,
		`"base_model_name_or_path":["../../etc/passwd"]`:                "base_model_name_or_path: want a string, got an array",
		`"bias":"all"`: `bias: "all" is not supported, only "none"`,
		`"auto_mapping":` + strings.Repeat("[", 100) + strings.Repeat("]", 100): "line 1, byte 98: nested deeper than 64",
		`"` + long + `":1`: "unknown field " + long[:120] + " is the number 1",
	}
}

func TestHostileConfigs(t *testing.T) {
	for fields, want := range hostileConfigs() {
		text := []byte(`{"peft_type":"LORA",` + fields + "}")
		hostile.Bounded(t, len(text)+automaton/perByte, perByte, func() {
			if _, err := ParseConfig(text); err == nil || err.Error() != want {
				t.Errorf("%.60s: got %.400v\nwant %s", fields, err, want)
			}
		})
	}
}
