package lora

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/model"
)

func open(t testing.TB, dir string) *model.Model {
	t.Helper()
	m, err := model.Open(dir, model.Options{Compute: "f32", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// PEFT's adapters pass through a model and come out as they were, with the same meaning.
func TestLoadAndSave(t *testing.T) {
	for _, c := range golden.Own(t) {
		t.Run(c.Name, func(t *testing.T) {
			m := open(t, c.Path("model"))
			a, err := Load(m, c.Path("adapter_final"))
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			if err := a.Save(out); err != nil {
				t.Fatal(err)
			}
			want, err := Read(c.Path("adapter_final"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Read(out)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.Modules, got.Modules); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(want.Full, got.Full); d != "" {
				t.Error(d)
			}
			again, err := Load(open(t, c.Path("model")), out)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(a.Config(), again.Config()); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(a.Targets(), again.Targets()); d != "" {
				t.Error(d)
			}
		})
	}
}

// An adapter that is taken off leaves the model as it was, ready for another one.
func TestUnload(t *testing.T) {
	for _, c := range golden.Own(t) {
		t.Run(c.Name, func(t *testing.T) {
			logits := func(m *model.Model) []float32 {
				b := &model.Batch{}
				b.Append([]int32{1, 2, 3, 4, 5, 6})
				got, err := m.Logits(t.Context(), b, []int32{2, 5})
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			m := open(t, c.Path("model"))
			bare := logits(m)
			for range 2 {
				a, err := Load(m, c.Path("adapter_final"))
				if err != nil {
					t.Fatal(err)
				}
				if slices.Equal(logits(m), bare) {
					t.Error("the adapter changes nothing")
				}
				if a.Unload(); !slices.Equal(logits(m), bare) || m.Params().Count() != 0 {
					t.Error("the adapter leaves something behind")
				}
			}
		})
	}
}

const smallModel = "tied-as-lm-head"

func smallCase(t *testing.T) *golden.Case {
	return golden.Read(t, filepath.Join(golden.Root(t), "testdata", "golden", smallModel))
}

func TestInject(t *testing.T) {
	c := smallCase(t)
	m := open(t, c.Path("model"))
	cfg := Defaults()
	cfg.R, cfg.LoraDropout, cfg.Seed = 4, 0.1, 3
	cfg.RankPattern = Rules{{"v_proj", 2}}
	cfg.ModulesToSave = []string{"embed_tokens"}
	a, err := Inject(m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Warnings()) != 1 || !strings.Contains(a.Warnings()[0], "part company") {
		t.Errorf("warnings %q", a.Warnings())
	}
	layers := m.Config().NumHiddenLayers
	if len(a.Targets()) != 2*layers {
		t.Errorf("%d targets in %d layers", len(a.Targets()), layers)
	}
	d := a.Describe()
	for _, want := range []string{"rank 2 to 4, alpha 32 on", " q_proj, ", "trained whole: model.embed_tokens", "parameters are trained"} {
		if !strings.Contains(d, want) {
			t.Errorf("%q lacks %q", d, want)
		}
	}
	s := a.Saved()
	for name, l := range s.Modules {
		if slices.ContainsFunc(l.B, func(v float32) bool { return v != 0 }) || !slices.ContainsFunc(l.A, func(v float32) bool { return v != 0 }) {
			t.Errorf("%s: B is not zero, or A is", name)
		}
		if want := map[bool]int{true: 2, false: 4}[strings.HasSuffix(name, "v_proj")]; l.R != want || l.Scale != 32/float64(want) {
			t.Errorf("%s: rank %d, scale %v", name, l.R, l.Scale)
		}
	}
	if s.Config.BaseModel != c.Path("model") {
		t.Errorf("base model %q", s.Config.BaseModel)
	}
	if _, err := Inject(m, cfg); err == nil || !strings.Contains(err.Error(), "a model carries one adapter") {
		t.Errorf("a second adapter: %v", err)
	}
	if _, err := Load(m, c.Path("adapter_init")); err == nil || !strings.Contains(err.Error(), "a model carries one adapter") {
		t.Errorf("a second adapter: %v", err)
	}
}

// The initial values do not depend on what else is adapted.
func TestInjectIsOrderless(t *testing.T) {
	c := smallCase(t)
	one, two := Defaults(), Defaults()
	two.TargetModules = Names{Expr: AllLinear}
	var saved []*Saved
	for _, cfg := range []Config{one, two} {
		a, err := Inject(open(t, c.Path("model")), cfg)
		if err != nil {
			t.Fatal(err)
		}
		saved = append(saved, a.Saved())
	}
	for name, l := range saved[0].Modules {
		if d := cmp.Diff(l, saved[1].Modules[name]); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestInjectErrors(t *testing.T) {
	c := smallCase(t)
	m := open(t, c.Path("model"))
	for want, change := range map[string]func(*Config){
		"r is 0": func(c *Config) { c.R = 0 },
		"target_modules: w_proj matches nothing; the model's linears are q_proj, k_proj": func(c *Config) { c.TargetModules = Names{List: []string{"w_proj"}} },
		"is an embedding, which cannot have a low-rank branch; to train it whole":        func(c *Config) { c.TargetModules = Names{List: []string{"q_proj", "embed_tokens"}} },
		"model.norm is not a linear":                                                 func(c *Config) { c.TargetModules = Names{List: []string{"q_proj", "norm"}} },
		"model.norm cannot be trained whole":                                         func(c *Config) { c.ModulesToSave = []string{"model.norm"} },
		"lm_head is a target too":                                                    func(c *Config) { c.TargetModules.List, c.ModulesToSave = []string{"lm_head"}, []string{"head"} },
		"needs one on the embedding":                                                 func(c *Config) { c.TargetModules.List, c.EnsureWeightTying = []string{"lm_head"}, true },
		"in layers [7]":                                                              func(c *Config) { c.LayersToTransform = []int{7} },
		"q_proj, v_proj matches nothing that exclude_modules":                        func(c *Config) { c.ExcludeModules = Names{Expr: ".*_proj"} },
		"modules_to_save: classifier is the end of no module's name":                 func(c *Config) { c.ModulesToSave = []string{"classifier"} },
		"(?P<n>a)(?P<n>b)\": redefinition of group name":                             func(c *Config) { c.ExcludeModules = Names{Expr: "(?P<n>a)(?P<n>b)"} },
		"layers_pattern: regular expression":                                         func(c *Config) { c.LayersToTransform, c.LayersPattern = []int{0}, []string{"["} },
		"rank_pattern: regular expression \"(.*\\\\.)?((?i)q_proj)$\": global flags": func(c *Config) { c.RankPattern = Rules{{"(?i)q_proj", 2}} },
	} {
		cfg := Defaults()
		change(&cfg)
		if _, err := Inject(m, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if n := m.Params().Count(); n != 0 {
		t.Errorf("refused configurations left %d parameters", n)
	}
}

func TestLoadOptions(t *testing.T) {
	c := smallCase(t)
	a, err := Load(open(t, c.Path("model")), c.Path("adapter_init"), Dropout(0.25))
	if err != nil {
		t.Fatal(err)
	}
	if a.Config().LoraDropout != 0.25 {
		t.Errorf("dropout %v", a.Config().LoraDropout)
	}
	if _, err := Load(open(t, c.Path("model")), c.Path("adapter_init"), Dropout(1)); err == nil || !strings.Contains(err.Error(), "lora_dropout is 1") {
		t.Error(err)
	}
}

func TestLoadForAnotherModel(t *testing.T) {
	c := smallCase(t)
	other := filepath.Join(golden.Root(t), "testdata", "golden", "odd-widths", "adapter_init")
	m := open(t, c.Path("model"))
	_, err := Load(m, other)
	if err == nil || !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), "has shape [2, 36], want [2, ") {
		t.Error(err)
	}
	if n := m.Params().Count(); n != 0 {
		t.Errorf("a refused adapter left %d parameters", n)
	}
}

// A patterns' order that matters is kept by full names: PEFT writes patterns sorted.
func TestOrderOfPatterns(t *testing.T) {
	c := smallCase(t)
	cfg := Defaults()
	cfg.AlphaPattern = Rules{{"model.layers.0.self_attn.q_proj", 1}, {"layers.0.*", 5}}
	cfg.RankPattern = Rules{{`v_proj`, 3}, {`.*_proj`, 2}}
	a, err := Inject(open(t, c.Path("model")), cfg)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	b, err := Load(open(t, c.Path("model")), dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a.Targets(), b.Targets()); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil || !strings.Contains(string(text), `"model\\.layers\\.0\\.self_attn\\.q_proj": 1`) {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestInitialValues(t *testing.T) {
	target := Target{Module: Module{Name: "x", In: 500, Out: 300}, R: 7}
	moments := func(v []float32) (mean, std, low, high float64) {
		low, high = math.Inf(1), math.Inf(-1)
		for _, x := range v {
			mean += float64(x) / float64(len(v))
			low, high = min(low, float64(x)), max(high, float64(x))
		}
		for _, x := range v {
			std += (float64(x) - mean) * (float64(x) - mean) / float64(len(v))
		}
		return mean, math.Sqrt(std), low, high
	}
	near := func(what string, got, want, tolerance float64) {
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	a, b := target.initial(Kaiming, 1)
	bound := 1 / math.Sqrt(500)
	mean, std, low, high := moments(a)
	near("mean", mean, 0, 0.03*bound)
	near("deviation", std, bound/math.Sqrt(3), 0.02*bound)
	near("lowest", low, -bound, 0.01*bound)
	near("highest", high, bound, 0.01*bound)
	if low < -bound || high > bound {
		t.Errorf("%v to %v is outside ±%v", low, high, bound)
	}
	if _, _, low, high := moments(b); low != 0 || high != 0 {
		t.Error("B is not zero")
	}
	a, b = target.initial(Gaussian, 1)
	mean, std, _, high = moments(a)
	near("mean", mean, 0, 0.01)
	near("deviation", std, 1./7, 0.005)
	near("highest", high, 3.6/7, 1./7)
	if _, _, low, high := moments(b); low != 0 || high != 0 {
		t.Error("B is not zero")
	}
	_, b = target.initial(Random, 1)
	_, std, low, high = moments(b)
	near("deviation", std, 1/math.Sqrt(21), 0.01)
	near("highest", high, 1/math.Sqrt(7), 0.01)
	near("lowest", low, -1/math.Sqrt(7), 0.01)
	a, _ = target.initial(Kaiming, 1)
	again, _ := target.initial(Kaiming, 1)
	other, _ := target.initial(Kaiming, 2)
	target.Name = "y"
	elsewhere, _ := target.initial(Kaiming, 1)
	if !slices.Equal(a, again) || slices.Equal(a, other) || slices.Equal(a, elsewhere) {
		t.Error("the values depend on something else than seed, name and element")
	}
}
