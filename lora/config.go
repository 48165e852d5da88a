package lora

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/biolora/biolora/lora/internal/pyre"
)

// Config says what is adapted and how: PEFT's LoraConfig. Every field is taken as it stands, 0 included; start from
// Defaults.
type Config struct {
	R           int     // rank
	LoraAlpha   float64 // the branch is multiplied by alpha / r
	LoraDropout float64 // probability in [0, 1) that an input of A is dropped in training

	TargetModules  Names // what gets a low-rank branch
	ExcludeModules Names // what does not, though TargetModules says so

	// RankPattern and AlphaPattern give some modules a rank or an alpha of their own. A key is a Python regular
	// expression for the end of a module's name, from a dot on; the first that matches counts.
	RankPattern  Rules
	AlphaPattern Rules

	LayersToTransform []int    // only these layers; empty: all. For lists of targets only
	LayersPattern     []string // what stands before the layer's number in a name; empty: anything

	UseRSLoRA       bool // scale by alpha / sqrt(r) (Kalajdzievski 2023)
	InitLoraWeights Init

	// ModulesToSave are trained whole, and saved: names, found at the end of a module's name.
	ModulesToSave []string
	// EnsureWeightTying keeps embed_tokens and lm_head one matrix when a tied model trains it.
	EnsureWeightTying bool

	BaseModel string // base_model_name_or_path; empty: the directory of the model
	Revision  string // of the base model on the hub

	// Seed is that of the initial values. It is not saved.
	Seed uint64
}

// Init is how A and B start.
type Init string

const (
	// Kaiming is PEFT's default (init_lora_weights true): A uniform within ±1/sqrt(in), B zero.
	Kaiming Init = "kaiming"
	// Gaussian is A normal with standard deviation 1/r, B zero.
	Gaussian Init = "gaussian"
	// Random is A and B uniform within ±1/sqrt of their inputs (init_lora_weights false): not a no-op at the start,
	// for debugging.
	Random Init = "random"
)

// Rule gives the modules that Key matches a value of their own.
type Rule struct {
	Key   string
	Value float64
}

// Rules are rank_pattern or alpha_pattern, in the order that counts.
type Rules []Rule

// Defaults returns rank 16 and alpha 32 on q_proj and v_proj, without dropout.
func Defaults() Config {
	return Config{
		R:               16,
		LoraAlpha:       32,
		TargetModules:   Names{List: []string{"q_proj", "v_proj"}},
		InitLoraWeights: Kaiming,
	}
}

// AllLinear is the string that stands for every linear but the output embedding, in any case.
const AllLinear = "all-linear"

// Names choose modules: a list or a string. The zero value chooses none.
type Names struct {
	// List has names that equal a module's full name, or what follows a dot in it.
	List []string
	// Expr is PEFT's string: a Python regular expression that matches full names, or AllLinear.
	Expr string
}

// ParseNames reads a flag: "a,b" is a list, "regex:EXPR" an expression, "all-linear" itself.
func ParseNames(s string) Names {
	if expr, ok := strings.CutPrefix(s, "regex:"); ok {
		return Names{Expr: expr}
	}
	if strings.EqualFold(s, AllLinear) {
		return Names{Expr: AllLinear}
	}
	var n Names
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			n.List = append(n.List, name)
		}
	}
	return n
}

// String is what ParseNames reads.
func (n Names) String() string {
	switch {
	case strings.EqualFold(n.Expr, AllLinear):
		return AllLinear
	case n.Expr != "":
		return "regex:" + n.Expr
	}
	return strings.Join(n.List, ",")
}

// IsZero reports whether n chooses nothing.
func (n Names) IsZero() bool { return n.Expr == "" && len(n.List) == 0 }

func (n Names) allLinear() bool { return strings.EqualFold(n.Expr, AllLinear) }

// Validate gathers what is wrong with c, whatever the model.
func (c Config) Validate() error {
	_, err := c.compile()
	return err
}

// Limits that no adapter of a real model reaches.
const (
	maxRank  = 1 << 20 // beyond any rank that a model's width could hold
	maxNames = 1 << 14 // of a list; a model of 126 layers has 882 linears
	maxName  = 1 << 10 // bytes
)

// problems gathers errors of a configuration.
type problems struct{ errs []error }

func (p *problems) addf(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

// maxProblems is the most that are spelled out; a wrong adapter may have hundreds of the same kind.
const maxProblems = 12

func (p *problems) err() error {
	errs := p.errs
	if more := len(errs) - maxProblems; more > 0 {
		errs = append(slices.Clone(errs[:maxProblems]), fmt.Errorf("and %d more like these", more))
	}
	return errors.Join(errs...)
}

// compile checks every field and prepares the matching.
func (c Config) compile() (*rules, error) {
	p := &problems{}
	if c.checkLengths(p); len(p.errs) > 0 {
		return nil, p.err()
	}
	if c.R < 1 {
		p.addf("r is %d, want 1 or more (Defaults has %d)", c.R, Defaults().R)
	}
	if c.R > maxRank {
		p.addf("r is %d, at most %d is plausible", c.R, maxRank)
	}
	if c.LoraAlpha == 0 || !finite(c.LoraAlpha) {
		p.addf("lora_alpha is %v, want a number other than 0 (Defaults has %v)", c.LoraAlpha, Defaults().LoraAlpha)
	}
	if !(c.LoraDropout >= 0 && c.LoraDropout < 1) {
		p.addf("lora_dropout is %v, want at least 0 and less than 1", c.LoraDropout)
	}
	switch c.InitLoraWeights {
	case Kaiming, Gaussian, Random:
	default:
		p.addf("init_lora_weights is %q, want %q, %q or %q", c.InitLoraWeights, Kaiming, Gaussian, Random)
	}
	if c.TargetModules.IsZero() {
		p.addf("target_modules is empty (Defaults has %s)", Defaults().TargetModules)
	}
	c.checkLayers(p)
	r := &rules{cfg: c}
	b := &pyre.Budget{}
	r.target = compileNames(p, b, "target_modules", c.TargetModules)
	r.exclude = compileNames(p, b, "exclude_modules", c.ExcludeModules)
	r.ranks = compileRules(p, b, "rank_pattern", c.RankPattern)
	r.alphas = compileRules(p, b, "alpha_pattern", c.AlphaPattern)
	c.checkPatternValues(p)
	for _, m := range c.ModulesToSave {
		if m == "" {
			p.addf("modules_to_save holds an empty name")
			continue
		}
		re, err := b.Prefix(`(^|.*\.)` + m + `($|\..*)`)
		if err != nil {
			p.addf("modules_to_save: %w", err)
			continue
		}
		r.saved = append(r.saved, re)
	}
	for _, l := range c.LayersPattern {
		re, err := b.Prefix(`(?:^|.*?\.)` + l + `\.(?P<idx>\d+)\.`)
		if err != nil {
			p.addf("layers_pattern: %w", err)
			continue
		}
		r.layers = append(r.layers, re)
	}
	return r, p.err()
}

// checkLengths refuses what would take long to match, and what no model has.
func (c Config) checkLengths(p *problems) {
	names := func(field string, list []string) {
		if len(list) > maxNames {
			p.addf("%s has %d names, at most %d are plausible", field, len(list), maxNames)
		}
		for _, name := range list {
			if len(name) > maxName {
				p.addf("%s has a name of %d bytes, at most %d are plausible: %.60q...", field, len(name), maxName, name)
			}
		}
	}
	names("target_modules", c.TargetModules.List)
	names("exclude_modules", c.ExcludeModules.List)
	names("modules_to_save", c.ModulesToSave)
	names("layers_pattern", c.LayersPattern)
	for field, n := range map[string]int{
		"rank_pattern": len(c.RankPattern), "alpha_pattern": len(c.AlphaPattern), "layers_to_transform": len(c.LayersToTransform),
	} {
		if n > maxNames {
			p.addf("%s has %d entries, at most %d are plausible", field, n, maxNames)
		}
	}
}

func (c Config) checkLayers(p *problems) {
	if c.TargetModules.Expr != "" && (len(c.LayersToTransform) > 0 || len(c.LayersPattern) > 0) {
		p.addf("layers_to_transform and layers_pattern need a list of target_modules, not the string %.120q", c.TargetModules.Expr)
	}
	if len(c.LayersPattern) > 0 && len(c.LayersToTransform) == 0 {
		p.addf("layers_pattern is of no use without layers_to_transform")
	}
	for _, l := range c.LayersToTransform {
		if l < 0 {
			p.addf("layers_to_transform holds %d, layers count from 0", l)
		}
	}
}

func (c Config) checkPatternValues(p *problems) {
	for _, r := range c.RankPattern {
		if r.Value < 1 || r.Value > maxRank || r.Value != math.Trunc(r.Value) {
			p.addf("rank_pattern %.120q is %v, want a whole number from 1", r.Key, r.Value)
		}
	}
	for _, r := range c.AlphaPattern {
		if r.Value == 0 || !finite(r.Value) {
			p.addf("alpha_pattern %.120q is %v, want a number other than 0", r.Key, r.Value)
		}
	}
}

func finite(f float64) bool { return f-f == 0 }

// names is a compiled Names.
type names struct {
	list []string
	expr *pyre.Regexp
}

func compileNames(p *problems, b *pyre.Budget, field string, n Names) (out names) {
	if n.Expr != "" && len(n.List) > 0 {
		p.addf("%s is a list and a string at once", field)
	}
	if slices.Contains(n.List, "") {
		p.addf("%s holds an empty name", field)
	}
	out.list = n.List
	if n.Expr == "" || field == "target_modules" && n.allLinear() {
		return out
	}
	re, err := b.Full(n.Expr)
	if err != nil {
		p.addf("%s: %w", field, err)
	}
	out.expr = re
	return out
}

func compileRules(p *problems, b *pyre.Budget, field string, rs Rules) (out []*pyre.Regexp) {
	seen := map[string]bool{}
	for _, r := range rs {
		if seen[r.Key] {
			p.addf("%s has %.120q twice", field, r.Key)
		}
		seen[r.Key] = true
		re, err := b.Prefix(`(.*\.)?(` + r.Key + `)$`)
		if err != nil {
			p.addf("%s: %w", field, err)
		}
		if errors.Is(err, pyre.ErrTooLarge) {
			break // so are all others
		}
		out = append(out, re)
	}
	return out
}
