package lora

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/lora/internal/pyre"
)

// The modules that can be trained whole, by their full names.
const (
	embedTokens = "model.embed_tokens"
	lmHead      = "lm_head"
)

// Module is one module of a model: a linear, an embedding, or (In and Out 0) something else, such as a norm or what
// holds other modules.
type Module struct {
	Name      string // in full: "model.layers.0.self_attn.q_proj"
	In, Out   int    // of its matrix [Out, In]; an embedding [vocabulary, hidden] has In hidden, Out vocabulary
	Embedding bool
}

func (m Module) linear() bool { return m.In > 0 && !m.Embedding }

// Target is a linear that gets a low-rank branch.
type Target struct {
	Module
	R     int
	Alpha float64
	Scale float64 // Alpha / R, or Alpha / sqrt(R) with rsLoRA
}

// Matching is what a Config comes to on a model.
type Matching struct {
	Targets []Target // in the order of the modules
	Save    []Module // trained whole, in the order of the modules
	// Config is the one that is saved: it says the same as the original, in PEFT and in any order of its patterns.
	// "all-linear" is spelled out.
	Config   Config
	Warnings []string

	tie bool // embed_tokens and lm_head of Save are one matrix
}

// rules is a Config made ready to match.
type rules struct {
	cfg             Config
	target, exclude names
	ranks, alphas   []*pyre.Regexp
	saved, layers   []*pyre.Regexp
	excludes        bool // exclude_modules was of use
}

// Match applies PEFT's rules (tuners_utils.check_target_module_exists and what surrounds it) to the modules of a
// model, all of them: containers and norms matter too. Decoder makes such a list. A target that is not a linear, and
// a configuration that chooses nothing, are errors that say what there is.
func (c Config) Match(modules []Module) (*Matching, error) { return c.plan(modules, false) }

// plan is Match for a model whose embed_tokens and lm_head may be tied.
func (c Config) plan(modules []Module, tied bool) (*Matching, error) {
	m := &Matching{}
	c, err := c.withTying(m, tied)
	if err != nil {
		return nil, err
	}
	r, err := c.resolve(modules)
	if err != nil {
		return nil, err
	}
	if m.Targets, err = r.targets(modules); err != nil {
		return nil, err
	}
	if err := r.save(m, modules); err != nil {
		return nil, err
	}
	r.warnUnused(m, c)
	m.Config, err = r.portable(m.Targets, modules)
	return m, err
}

// resolve compiles c and puts its targets as PEFT matches them.
func (c Config) resolve(modules []Module) (*rules, error) {
	r, err := c.compile()
	if err != nil {
		return nil, err
	}
	r.cfg.TargetModules = condense(r.allLinear(modules), modules)
	r.target.list = r.cfg.TargetModules.List
	return r, nil
}

// allLinear spells "all-linear" out: every linear but the output embedding.
func (r *rules) allLinear(modules []Module) Names {
	n := r.cfg.TargetModules
	if !n.allLinear() {
		return n
	}
	list := []string{}
	for _, m := range modules {
		if m.linear() && m.Name != lmHead {
			list = append(list, m.Name)
		}
	}
	return Names{List: list}
}

// targets finds the linears that get a branch.
func (r *rules) targets(modules []Module) (list []Target, err error) {
	p := &problems{}
	for _, mod := range modules {
		ok, err := r.targeted(mod.Name)
		if err != nil {
			return nil, err
		}
		switch {
		case !ok:
		case mod.Embedding:
			p.addf("target_modules: %s is an embedding, which cannot have a low-rank branch; to train it whole name it in modules_to_save", mod.Name)
		case !mod.linear():
			p.addf("target_modules: %s is not a linear", mod.Name)
		default:
			t, err := r.newTarget(mod)
			if err != nil {
				return nil, err
			}
			list = append(list, t)
		}
	}
	if len(list) == 0 && len(p.errs) == 0 {
		return nil, r.nothing(modules)
	}
	return list, p.err()
}

// targeted applies the rules in PEFT's order: exclude_modules, modules_to_save, target_modules.
func (r *rules) targeted(name string) (bool, error) {
	if ok, err := r.exclude.match(name); ok || err != nil {
		r.excludes = true
		return false, err
	}
	for _, re := range r.saved {
		if ok, err := re.Match(name); ok || err != nil {
			return false, err
		}
	}
	switch {
	case r.target.expr != nil:
		return r.target.expr.Match(name)
	case slices.Contains(r.target.list, name):
		return true, nil // whatever its layer
	case !endsWithAny(name, r.target.list):
		return false, nil
	case len(r.cfg.LayersToTransform) == 0:
		return true, nil
	}
	layer, err := r.layer(name)
	return slices.Contains(r.cfg.LayersToTransform, layer), err
}

func (n names) match(name string) (bool, error) {
	if n.expr != nil {
		return n.expr.Match(name)
	}
	return slices.Contains(n.list, name) || endsWithAny(name, n.list), nil
}

// endsWithAny reports whether one of the suffixes follows a dot at the end of name.
func endsWithAny(name string, suffixes []string) bool {
	return slices.ContainsFunc(suffixes, func(s string) bool { return endsWith(name, s) })
}

func endsWith(name, suffix string) bool {
	head, ok := strings.CutSuffix(name, suffix)
	return ok && strings.HasSuffix(head, ".")
}

// firstNumber finds the first number between dots after a name between dots.
var firstNumber = regexp.MustCompile(`^.*?\.[^.]*\.(\d+)\.`)

// layer returns the layer that name belongs to, -1 if none.
func (r *rules) layer(name string) (int, error) {
	var digits string
	if len(r.layers) == 0 {
		if m := firstNumber.FindStringSubmatch(name); m != nil {
			digits = m[1]
		}
	}
	for _, re := range r.layers {
		text, ok, err := re.Group(name, "idx")
		if err != nil {
			return -1, err
		}
		if ok {
			digits = text
			break
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1, nil
	}
	return n, nil
}

// newTarget gives the module its rank and alpha: its own after the patterns, else the configuration's.
func (r *rules) newTarget(mod Module) (Target, error) {
	rank, err := firstValue(r.cfg.RankPattern, r.ranks, mod.Name, float64(r.cfg.R))
	if err != nil {
		return Target{}, err
	}
	alpha, err := firstValue(r.cfg.AlphaPattern, r.alphas, mod.Name, r.cfg.LoraAlpha)
	if err != nil {
		return Target{}, err
	}
	return Target{Module: mod, R: int(rank), Alpha: alpha, Scale: scale(alpha, int(rank), r.cfg.UseRSLoRA)}, nil
}

func scale(alpha float64, r int, rs bool) float64 {
	if rs {
		return alpha / math.Sqrt(float64(r))
	}
	return alpha / float64(r)
}

func firstValue(rs Rules, res []*pyre.Regexp, name string, otherwise float64) (float64, error) {
	for i, re := range res {
		ok, err := re.Match(name)
		if err != nil {
			return 0, err
		}
		if ok {
			return rs[i].Value, nil
		}
	}
	return otherwise, nil
}

// nothing says that nothing is targeted, and what there is.
func (r *rules) nothing(modules []Module) error {
	const most = 10
	list := r.cfg.TargetModules.List
	what := strings.Join(list[:min(len(list), most)], ", ")
	if len(list) > most {
		what += fmt.Sprintf(" and %d more", len(list)-most)
	}
	if e := r.cfg.TargetModules.Expr; e != "" {
		what = fmt.Sprintf("the expression %.120q, which is to match a full name,", e)
	}
	msg := fmt.Sprintf("target_modules: %s matches nothing", what)
	if l := r.cfg.LayersToTransform; len(l) > 0 {
		msg += fmt.Sprintf(" in layers %v", l)
	}
	if !r.cfg.ExcludeModules.IsZero() || len(r.cfg.ModulesToSave) > 0 {
		msg += " that exclude_modules and modules_to_save leave"
	}
	return errors.New(msg + "; " + existing(modules))
}

// existing lists the linears by their short names.
func existing(modules []Module) string {
	var short []string
	example := ""
	for _, m := range modules {
		if !m.linear() {
			continue
		}
		if example == "" {
			example = m.Name
		}
		if s := m.Name[strings.LastIndexByte(m.Name, '.')+1:]; !slices.Contains(short, s) {
			short = append(short, s)
		}
	}
	if example == "" {
		return "the model has no linears"
	}
	return fmt.Sprintf("the model's linears are %s (such as %s)", strings.Join(short, ", "), example)
}

// save finds modules_to_save: by a plain end of the name, as PEFT does.
func (r *rules) save(m *Matching, modules []Module) error {
	p := &problems{}
	used := make([]bool, len(r.cfg.ModulesToSave))
	byName := slices.ContainsFunc(r.cfg.ModulesToSave, func(s string) bool { return strings.HasSuffix(lmHead, s) })
	m.tie = m.tie && !byName
	for _, mod := range modules {
		found := m.tie && mod.Name == lmHead
		for i, s := range r.cfg.ModulesToSave {
			if strings.HasSuffix(mod.Name, s) {
				used[i], found = true, true
			}
		}
		switch {
		case !found:
		case mod.Name != embedTokens && mod.Name != lmHead:
			p.addf("modules_to_save: %s cannot be trained whole, only %s and %s can", mod.Name, embedTokens, lmHead)
		case slices.ContainsFunc(m.Targets, func(t Target) bool { return t.Name == mod.Name }):
			p.addf("modules_to_save: %s is a target too; name it in full in one of them", mod.Name)
		default:
			m.Save = append(m.Save, mod)
		}
	}
	if len(used) > 0 && !slices.Contains(used, true) {
		p.addf("modules_to_save: %s is the end of no module's name; %s and %s can be trained whole", strings.Join(r.cfg.ModulesToSave, ", "), embedTokens, lmHead)
	}
	for i, ok := range used {
		if !ok {
			m.warnf("modules_to_save: %s is the end of no module's name", r.cfg.ModulesToSave[i])
		}
	}
	return p.err()
}

func (m *Matching) warnf(format string, args ...any) {
	m.Warnings = append(m.Warnings, fmt.Sprintf(format, args...))
}

// warnUnused names what the configuration says to no effect. PEFT is silent on most of it.
func (r *rules) warnUnused(m *Matching, c Config) {
	any := func(match func(Target) bool) bool { return slices.ContainsFunc(m.Targets, match) }
	for _, s := range c.TargetModules.List {
		if !any(func(t Target) bool { return t.Name == s || endsWith(t.Name, s) }) {
			m.warnf("target_modules: %s matches nothing", s)
		}
	}
	for _, l := range c.LayersToTransform {
		if !any(func(t Target) bool { n, _ := r.layer(t.Name); return n == l }) {
			m.warnf("layers_to_transform: nothing is targeted in layer %d", l)
		}
	}
	if !c.ExcludeModules.IsZero() && !r.excludes {
		m.warnf("exclude_modules: %s excludes nothing", c.ExcludeModules)
	}
	unused := func(field string, rs Rules, res []*pyre.Regexp) {
		for i, re := range res {
			if !any(func(t Target) bool { ok, _ := re.Match(t.Name); return ok }) {
				m.warnf("%s: %.120q matches no target", field, rs[i].Key)
			}
		}
	}
	unused("rank_pattern", c.RankPattern, r.ranks)
	unused("alpha_pattern", c.AlphaPattern, r.alphas)
	if more := len(m.Warnings) - maxProblems; more > 0 {
		m.Warnings = append(m.Warnings[:maxProblems], fmt.Sprintf("and %d more like these", more))
	}
}

// Decoder lists the modules of a LLaMA decoder, as Transformers names them, around its linears (in any order). The
// embedding is a matrix [vocab, hidden].
func Decoder(linears []Module, vocab, hidden int) []Module {
	var out []Module
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, Module{Name: name})
		}
	}
	add("model")
	out = append(out, Module{Name: embedTokens, In: hidden, Out: vocab, Embedding: true})
	add("model.layers")
	for _, l := range linears {
		parts := strings.Split(l.Name, ".")
		for i := 1; i < len(parts); i++ {
			add(strings.Join(parts[:i], "."))
		}
		if len(parts) > 3 && parts[1] == "layers" {
			layer := strings.Join(parts[:3], ".")
			add(layer + ".input_layernorm")
			add(layer + ".post_attention_layernorm")
			add(layer + ".mlp.act_fn")
		}
		out = append(out, l)
	}
	add("model.norm")
	add("model.rotary_emb")
	return out
}
