package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// loraKeys are the settings that an adapter's configuration has too.
var loraKeys = []string{
	"lora_r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "exclude_modules", "rank_pattern",
	"alpha_pattern", "init_lora_weights", "modules_to_save", "layers_to_transform",
}

// inits are the values of --init-lora-weights: PEFT's, and the names they go by.
var inits = map[string]lora.Init{
	"true": lora.Kaiming, "kaiming": lora.Kaiming, "gaussian": lora.Gaussian, "false": lora.Random,
}

// setLoRA sets the LoRA settings to those of c.
func (s *Settings) setLoRA(c lora.Config) {
	s.LoraR = c.R
	s.LoraAlpha = c.LoraAlpha
	s.LoraDropout = c.LoraDropout
	s.UseRslora = c.UseRSLoRA
	s.TargetModules = c.TargetModules
	s.ExcludeModules = c.ExcludeModules
	s.RankPattern = c.RankPattern
	s.AlphaPattern = c.AlphaPattern
	s.ModulesToSave = c.ModulesToSave
	s.LayersToTransform = c.LayersToTransform
	for _, name := range []string{"true", "gaussian", "false"} {
		if inits[name] == c.InitLoraWeights {
			s.InitLoraWeights = name
		}
	}
}

// lora returns the LoRA settings as package lora takes them.
func (s *Settings) lora() lora.Config {
	c := lora.Defaults()
	c.R = s.LoraR
	c.LoraAlpha = s.LoraAlpha
	c.LoraDropout = s.LoraDropout
	c.UseRSLoRA = s.UseRslora
	c.TargetModules = s.TargetModules
	c.ExcludeModules = s.ExcludeModules
	c.RankPattern = s.RankPattern
	c.AlphaPattern = s.AlphaPattern
	c.ModulesToSave = s.ModulesToSave
	c.LayersToTransform = s.LayersToTransform
	c.InitLoraWeights = inits[s.InitLoraWeights]
	c.Seed = s.Seed
	return c
}

// mapNames lets kong read names: a list, regex:EXPR, or all-linear.
func mapNames(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("names", &text); err != nil {
		return err
	}
	names := lora.ParseNames(text)
	if names.IsZero() {
		return fmt.Errorf("%q names no module", text)
	}
	target.Set(reflect.ValueOf(names))
	return nil
}

// mapRules lets kong read KEY=VALUE, once for each time the flag is given.
func mapRules(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("KEY=VALUE", &text); err != nil {
		return err
	}
	rules, err := addRule(target.Interface().(lora.Rules), text)
	target.Set(reflect.ValueOf(rules))
	return err
}

// addRule appends KEY=VALUE. The last equals sign counts: a key is a regular expression and may have some.
func addRule(rules lora.Rules, text string) (lora.Rules, error) {
	i := strings.LastIndexByte(text, '=')
	if i < 1 {
		return rules, fmt.Errorf("expected KEY=VALUE, got %q", text)
	}
	key := text[:i]
	value, err := strconv.ParseFloat(text[i+1:], 64)
	if err != nil {
		return rules, fmt.Errorf("expected KEY=VALUE with a number, got %q", text)
	}
	if slices.ContainsFunc(rules, func(r lora.Rule) bool { return r.Key == key }) {
		return rules, fmt.Errorf("the key %q is given twice", key)
	}
	return append(rules, lora.Rule{Key: key, Value: value}), nil
}

// load loads the adapter to start from. The run's settings become the adapter's, so that run.yaml has them.
func (s *session) load() (*lora.Adapter, error) {
	saved, err := lora.Read(s.Adapter)
	if err != nil {
		return nil, err
	}
	if err := s.contradictions(saved.Config, modulesOf(s.model)); err != nil {
		return nil, usageError{err}
	}
	var opts []lora.Option
	if s.Given["lora_dropout"] {
		opts = append(opts, lora.Dropout(s.LoraDropout))
	}
	a, err := lora.Load(s.model, s.Adapter, opts...)
	if err != nil {
		return nil, err
	}
	s.setLoRA(a.Config())
	return a, nil
}

func modulesOf(m *model.Model) []lora.Module {
	var linears []lora.Module
	for _, l := range m.Linears() {
		linears = append(linears, lora.Module{Name: l.Name(), In: l.In(), Out: l.Out()})
	}
	return lora.Decoder(linears, m.Config().VocabSize, m.Config().HiddenSize)
}

// contradictions says which of the given settings an adapter's configuration c does not have. The adapter rules; only
// the dropout may differ. What is said in other words and comes to the same on these modules does not contradict:
// all-linear, and the list that PEFT saves for it.
func (r *Run) contradictions(c lora.Config, modules []lora.Module) error {
	var has Settings
	has.setLoRA(c)
	var errs []error
	for _, key := range loraKeys {
		if !r.Given[key] || key == "lora_dropout" {
			continue
		}
		asked, _ := r.find(key)
		saved, _ := has.find(key)
		if sameValue(asked, saved) || sameTargets(c, r.with(c, key), modules) {
			continue
		}
		errs = append(errs, fmt.Errorf("--%s (%s) is %v, but the adapter in %s has %v: leave it out, or start a fresh adapter",
			asked.flag, key, asked.value.Interface(), r.Adapter, saved.value.Interface()))
	}
	return errors.Join(errs...)
}

// with is c with the run's value of one key.
func (r *Run) with(c lora.Config, key string) lora.Config {
	var s Settings
	s.setLoRA(c)
	from, _ := r.find(key)
	to, _ := s.find(key)
	to.value.Set(from.value)
	out := s.lora()
	out.LayersPattern, out.EnsureWeightTying = c.LayersPattern, c.EnsureWeightTying
	return out
}

// sameTargets tells whether two configurations adapt the same modules in the same way, from the same initial values.
func sameTargets(a, b lora.Config, modules []lora.Module) bool {
	x, errX := a.Match(modules)
	y, errY := b.Match(modules)
	return errX == nil && errY == nil && a.InitLoraWeights == b.InitLoraWeights &&
		slices.Equal(x.Targets, y.Targets) && slices.Equal(x.Save, y.Save)
}
