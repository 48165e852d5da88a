package lora

import (
	"fmt"
	"slices"
	"strings"

	"github.com/biolora/biolora/lora/internal/pyre"
)

// tieable are the last parts of the names of two matrices that are one in a tied model.
var tieable = []string{"embed_tokens", "lm_head"}

func isTieable(name string) bool {
	return slices.Contains(tieable, name[strings.LastIndexByte(name, '.')+1:])
}

// withTying applies ensure_weight_tying (BaseTuner._check_tied_modules): with it, whichever of the two matrices of a
// tied model is to be trained whole, one matrix is trained and serves as both. Without it they part company, which
// deserves a warning.
func (c Config) withTying(m *Matching, tied bool) (Config, error) {
	if _, err := c.compile(); err != nil {
		return c, err
	}
	whole := slices.ContainsFunc(c.ModulesToSave, isTieable)
	branch, err := c.targetsTieable()
	switch {
	case err != nil:
		return c, err
	case !tied && c.EnsureWeightTying:
		m.warnf("ensure_weight_tying: the model is not tied")
	case !tied:
	case !c.EnsureWeightTying && (whole || branch):
		m.warnf("the model is tied (tie_word_embeddings), the adapter changes embed_tokens or lm_head: they part company. ensure_weight_tying keeps one matrix of modules_to_save")
	case !c.EnsureWeightTying:
	case whole:
		m.tie = true
		return c.tieModulesToSave()
	case branch:
		return c, fmt.Errorf("ensure_weight_tying with a branch on a tied lm_head needs one on the embedding, which is not supported; name embed_tokens in modules_to_save instead")
	default:
		m.warnf("ensure_weight_tying: neither embed_tokens nor lm_head is in modules_to_save")
	}
	return c, nil
}

func (c Config) targetsTieable() (bool, error) {
	if c.TargetModules.Expr == "" {
		return slices.ContainsFunc(c.TargetModules.List, isTieable), nil
	}
	re, err := pyre.Full(c.TargetModules.Expr)
	if err != nil {
		return false, err
	}
	for _, name := range tieable {
		if ok, err := re.Match(name); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// tieModulesToSave names the embedding in full and drops what names the head (LoraModel._add_modules_to_save_to_tie,
// which drops only the first).
func (c Config) tieModulesToSave() (Config, error) {
	list := slices.Clone(c.ModulesToSave)
	if !slices.Contains(list, embedTokens) {
		list = append(list, embedTokens)
	}
	for i, s := range list {
		re, err := pyre.Prefix(`(^|.*\.)` + s + `($|\..*)`)
		if err != nil {
			return c, err
		}
		ok, err := re.Match(lmHead)
		if err != nil {
			return c, err
		}
		if ok {
			list = slices.Delete(list, i, i+1)
			break
		}
	}
	c.ModulesToSave = list
	return c, nil
}
