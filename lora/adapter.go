package lora

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/biolora/biolora/model"
)

// Adapter is an adapter in a model.
type Adapter struct {
	m        *model.Model
	match    *Matching
	branches []branch
	full     map[string]*model.Param
}

type branch struct {
	target Target
	a, b   *model.Param
}

// Inject puts a fresh adapter into a model: low-rank branches on what c chooses, trained copies of modules_to_save.
// With the usual initial values it changes nothing yet. The model must not carry an adapter.
func Inject(m *model.Model, c Config) (*Adapter, error) {
	linears, modules, err := modulesOf(m)
	if err != nil {
		return nil, err
	}
	if c.BaseModel == "" {
		c.BaseModel = m.Dir()
	}
	match, err := c.plan(modules, m.Config().TieWordEmbeddings)
	if err != nil {
		return nil, err
	}
	a := &Adapter{m: m, match: match, full: map[string]*model.Param{}}
	for _, t := range match.Targets {
		va, vb := t.initial(c.InitLoraWeights, c.Seed)
		if err := a.setBranch(linears[t.Name], t, va, vb); err != nil {
			return nil, err
		}
	}
	return a, a.trainFull()
}

// Option changes how Load loads.
type Option func(*Config)

// Dropout is used instead of the saved lora_dropout.
func Dropout(p float64) Option { return func(c *Config) { c.LoraDropout = p } }

// Load puts the adapter saved in dir into a model, to go on training it or to run it. Its configuration rules.
func Load(m *model.Model, dir string, options ...Option) (*Adapter, error) {
	s, err := Read(dir)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		o(&s.Config)
	}
	linears, modules, err := modulesOf(m)
	if err != nil {
		return nil, err
	}
	if s.Config.BaseModel == "" {
		s.Config.BaseModel = m.Dir()
	}
	match, err := s.fit(modules, m.Config().TieWordEmbeddings)
	if err != nil {
		return nil, fmt.Errorf("the adapter in %s: %w", dir, err)
	}
	a := &Adapter{m: m, match: match, full: map[string]*model.Param{}}
	for _, t := range match.Targets {
		l := s.Modules[t.Name]
		if err := a.setBranch(linears[t.Name], t, l.A, l.B); err != nil {
			return nil, err
		}
	}
	if err := a.trainFull(); err != nil {
		return nil, err
	}
	for name, p := range a.full {
		p.Write(s.Full[name].Data)
	}
	return a, nil
}

// Unload takes the adapter off its model, which may get another one then. The adapter is of no use any more.
func (a *Adapter) Unload() {
	a.m.Freeze()
	a.branches, a.full = nil, nil
}

// modulesOf lists the linears by name, and all modules.
func modulesOf(m *model.Model) (map[string]*model.Linear, []Module, error) {
	byName := map[string]*model.Linear{}
	var list []Module
	for _, l := range m.Linears() {
		if a, _ := l.Branch(); a != nil {
			return nil, nil, fmt.Errorf("%s has a low-rank branch already: a model carries one adapter", l.Name())
		}
		byName[l.Name()] = l
		list = append(list, Module{Name: l.Name(), In: l.In(), Out: l.Out()})
	}
	c := m.Config()
	return byName, Decoder(list, c.VocabSize, c.HiddenSize), nil
}

func (a *Adapter) setBranch(l *model.Linear, t Target, va, vb []float32) error {
	if err := l.SetBranch(va, vb, t.R, float32(t.Scale), float32(a.match.Config.LoraDropout)); err != nil {
		return err
	}
	pa, pb := l.Branch()
	a.branches = append(a.branches, branch{t, pa, pb})
	return nil
}

// trainFull makes modules_to_save trained matrices.
func (a *Adapter) trainFull() error {
	if a.match.tie {
		p, err := a.m.TieTraining()
		a.full[embedTokens], a.full[lmHead] = p, p
		return err
	}
	for _, mod := range a.match.Save {
		p, err := a.m.TrainFull(mod.Name)
		if err != nil {
			return err
		}
		a.full[mod.Name] = p
	}
	return nil
}

// Config returns the configuration as it is saved: see Matching.
func (a *Adapter) Config() Config { return a.match.Config }

// Warnings says what in the configuration is probably not meant.
func (a *Adapter) Warnings() []string { return slices.Clone(a.match.Warnings) }

// Targets returns the linears with a branch, in the model's order.
func (a *Adapter) Targets() []Target { return slices.Clone(a.match.Targets) }

// Describe says in one line what is adapted.
func (a *Adapter) Describe() string {
	c := a.match.Config
	count := map[string]int{}
	var order []string
	ranks := []int{}
	for _, t := range a.match.Targets {
		short := t.Name[strings.LastIndexByte(t.Name, '.')+1:]
		if count[short]++; count[short] == 1 {
			order = append(order, short)
		}
		ranks = append(ranks, t.R)
	}
	rank := fmt.Sprint(slices.Min(ranks))
	if top := slices.Max(ranks); top != slices.Min(ranks) {
		rank += fmt.Sprintf(" to %d", top)
	}
	for i, short := range order {
		order[i] = fmt.Sprintf("%d %s", count[short], short)
	}
	s := fmt.Sprintf("rank %s, alpha %v on %s", rank, c.LoraAlpha, strings.Join(order, ", "))
	if len(a.full) > 0 {
		s += "; trained whole: " + strings.Join(slices.Sorted(maps.Keys(a.full)), ", ")
	}
	trained, all := a.m.Params().Count(), a.m.Parameters()
	return s + fmt.Sprintf("; %d parameters are trained (%.3g %% of %d)", trained, 100*float64(trained)/float64(all), all)
}

// Saved copies the adapter's values out of the model.
func (a *Adapter) Saved() *Saved {
	s := &Saved{Config: a.match.Config, Modules: map[string]*LowRank{}, Full: map[string]*Matrix{}}
	if base := a.m.Base(); base != "none" {
		s.Base = base
	}
	if a.m.OnCard() {
		s.Card = a.m.BackendName()
	}
	for _, b := range a.branches {
		t := b.target
		s.Modules[t.Name] = &LowRank{In: t.In, Out: t.Out, R: t.R, Scale: t.Scale, A: b.a.Values(), B: b.b.Values()}
	}
	for name, p := range a.full {
		rows, cols := p.Shape()
		s.Full[name] = &Matrix{rows, cols, p.Values()}
	}
	return s
}

// SaveBytes is the memory that Save takes: a copy of all values, and another one when they are read back.
func (a *Adapter) SaveBytes() (n int64) {
	for _, b := range a.branches {
		n += 8 * int64(b.a.Len()+b.b.Len())
	}
	for _, p := range a.full {
		n += 8 * int64(p.Len())
	}
	return n
}

// Save writes the adapter as a PEFT directory, as Saved.Write does.
func (a *Adapter) Save(dir string) error {
	if a == nil {
		return errors.New("there is no adapter to save")
	}
	return a.Saved().Write(dir)
}
