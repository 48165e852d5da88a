package main

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/strictyaml"
	"github.com/biolora/biolora/lora"
)

func TestDecodeConfig(t *testing.T) {
	text := `# a run
model: m
data:
  - a.jsonl
  - b.jsonl
learning_rate: 3e-4
adam_epsilon: 1.0e-8
max_steps: 010
val_set_size: 0.1
use_rslora: True
init_lora_weights: true
target_modules: '.*\.(q|v)_proj'
exclude_modules: [down_proj]
rank_pattern: {q_proj: 4, 'layers\.1\.': 8}
alpha_pattern:
  v_proj: 2.5
layers_to_transform: 3
modules_to_save: [lm_head]
empty_input: None
seed: 18446744073709551615
preset:
`
	var s Settings
	given, err := decodeConfig("run.yaml", []byte(text), &s)
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Model: "m", Data: []string{"a.jsonl", "b.jsonl"}, LearningRate: 3e-4, AdamEpsilon: 1e-8, MaxSteps: 10, ValSetSize: 0.1,
		UseRslora: true, InitLoraWeights: "true",
		TargetModules: lora.Names{Expr: `.*\.(q|v)_proj`}, ExcludeModules: lora.Names{List: []string{"down_proj"}},
		RankPattern:       lora.Rules{{Key: "q_proj", Value: 4}, {Key: `layers\.1\.`, Value: 8}},
		AlphaPattern:      lora.Rules{{Key: "v_proj", Value: 2.5}},
		LayersToTransform: []int{3}, ModulesToSave: []string{"lm_head"}, Rows: dataset.Rows{EmptyInput: []string{"None"}}, Seed: math.MaxUint64,
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if len(given) != strings.Count(text, "\n")-5 {
		t.Errorf("given: %v", given)
	}
}

func TestDecodeConfigErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "lora_r: 8\nlearning_rte: 1\n", []string{"run.yaml:2:", `unknown key "learning_rte"`, "did you mean learning_rate?"}},
		{"kebab case", "learning-rate: 1\n", []string{"run.yaml:1:", "did you mean learning_rate?"}},
		{"text for a number", "\nlearning_rate: fast\n", []string{"run.yaml:2: learning_rate", "a number", `"fast"`}},
		{"quoted number", "learning_rate: '3e-4'\n", []string{"run.yaml:1: learning_rate", "a number"}},
		{"fraction", "max_steps: 2.5\n", []string{"run.yaml:1: max_steps", "whole number", "2.5"}},
		{"negative seed", "seed: -1\n", []string{"seed", "-1"}},
		{"not a switch", "use_rslora: yes\n", []string{"use_rslora", "true or false", "yes"}},
		{"list for a switch", "use_rslora: [true]\n", []string{"use_rslora", "a list"}},
		{"infinite", "learning_rate: .inf\n", []string{"a number", ".inf"}},
		{"list of wrong", "layers_to_transform: [0, 1,\n  x]\n", []string{"run.yaml:2: layers_to_transform", `"x"`}},
		{"mapping for a text", "model: {a: b}\n", []string{"a text", "a mapping"}},
		{"pattern without numbers", "rank_pattern:\n  q: 1\n  k: many\n", []string{"run.yaml:3: rank_pattern", `"many"`}},
		{"pattern as a list", "rank_pattern: [q]\n", []string{"a mapping of patterns"}},
		{"several", "a1: 1\nmax_steps: x\nseed: y\n", []string{"run.yaml:1:", "run.yaml:2:", "run.yaml:3:"}},
		{"key twice", "seed: 1\nseed: 2\n", []string{"run.yaml:2: malformed YAML", "already defined"}},
		{"broken", "data: [a\nseed: 1\n", []string{"run.yaml:2: malformed YAML"}},
		{"list", "- a\n", []string{"run.yaml:1: expected settings"}},
		{"text", "hello\n", []string{"run.yaml:1: expected settings"}},
		{"empty", "", []string{"no settings"}},
		{"comments only", "# nothing\n", []string{"no settings"}},
		{"two documents", "seed: 1\n---\nseed: 2\n", []string{"second document"}},
		{"another configuration", "config: x.yaml\n", []string{"cannot name another"}},
		{"anchor", "seed: &a 1\n", []string{"run.yaml:1: an anchor (&) is not read here"}},
		{"alias", "seed: 1\ndata: [*a, *a]\n", []string{"run.yaml:2: an alias (*) is not read here"}},
		{"merge key", "<<: {seed: 1}\n", []string{"run.yaml:1: a merge key (<<) is not read here"}},
		{"deep", "data: " + strings.Repeat("[", 60000), []string{"run.yaml:1: lists and mappings are nested deeper than 16"}},
		{"too long", strings.Repeat("#", strictyaml.MaxBytes+1), []string{"more than"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decodeConfig("run.yaml", []byte(c.text), new(Settings))
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the message lacks %q: %v", w, err)
				}
			}
		})
	}
}

func TestReadConfigThatIsNotThere(t *testing.T) {
	if _, err := readConfig("no/such.yaml", new(Settings)); err == nil || !strings.Contains(err.Error(), "no/such.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestConfigRoundTrip(t *testing.T) {
	s := defaults()
	s.Model, s.Data = "/a b/#c: d", []string{"x: y", "-", "- z", "'q'", "tr\tue"}
	s.EmptyInput = []string{"None", "null", "~", "true", "1e3", " spaces ", "two\nlines", "ümlaut", "{x}", "[y]", "&a", "*b", "!c", "%d", "@e", "`f"}
	s.TargetModules = lora.Names{Expr: `model\.layers\.[0-3]\..*(?:q|v)_proj`}
	s.ExcludeModules = lora.Names{List: []string{"true", "0"}}
	s.RankPattern = lora.Rules{{Key: "z", Value: 3}, {Key: `a: {#}\d`, Value: 4}}
	s.AlphaPattern = lora.Rules{{Key: "q", Value: 0.1}}
	s.AdamEpsilon, s.LearningRate, s.WeightDecay, s.WarmupRatio = 1e-8, 1.0/3, 5e-324, 0.1
	s.Seed, s.LayersToTransform, s.NoShuffle = math.MaxUint64, []int{0, 2}, true
	roundTrip(t, s)
}

func roundTrip(t *testing.T, s Settings) {
	t.Helper()
	s.Out, s.Config, s.Overwrite = "", "", false
	text := encodeConfig(&s)
	back := defaults()
	back.TargetModules = lora.Names{}
	if _, err := decodeConfig("run.yaml", text, &back); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
}

func FuzzConfigRoundTrip(f *testing.F) {
	f.Add("m", "d", "q_proj", 3e-4, uint64(42))
	f.Add("- a", "x: #y", `.*\d{2}`, 1e-300, uint64(1)<<63)
	f.Add("\x00\x1b", "\u2028", "\xff", -0.5, uint64(0))
	f.Add("|", ">-", "---", 1e21, uint64(1))
	f.Add("a\n b\n", " \n", "\t", math.MaxFloat64, uint64(1))
	f.Fuzz(func(t *testing.T, model, data, key string, x float64, n uint64) {
		for _, text := range []string{model, data, key} {
			if strings.ToValidUTF8(text, "") != text || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }) {
				return // not a text that YAML can hold
			}
		}
		if math.IsNaN(x) || math.IsInf(x, 0) || x == 0 {
			return // not a number that a setting can be
		}
		s := defaults()
		s.Model, s.Data, s.Seed, s.LearningRate = model, []string{data, key}, n, x
		s.TargetModules = lora.Names{List: []string{key}}
		if data != "" {
			s.RankPattern = lora.Rules{{Key: data, Value: x}}
		}
		if key != "" {
			s.ExcludeModules = lora.Names{Expr: key}
		}
		roundTrip(t, s)
	})
}

func FuzzDecodeConfig(f *testing.F) {
	for _, s := range []string{"seed: 1\n", "data: [a, b]\n", "rank_pattern: {a: 1}\n", "a:\n - b\n- c\n", "\t a: 3", "!!binary x", "&a *a",
		"<<: *x\n", "seed: |\n  1\n", "? a\n: b\n", strings.Repeat("[", 100), "seed: \"\\x\"", "%YAML 1.2\n---\nseed: 1\n", "seed:\n  - - - 1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Settings
		_, err := decodeConfig("run.yaml", text, &s)
		if err != nil && !strings.Contains(err.Error(), "run.yaml") {
			t.Errorf("the error does not name the file: %v", err)
		}
		if reflect.ValueOf(s).FieldByName("Config").String() != "" {
			t.Error("a configuration names another one")
		}
	})
}
