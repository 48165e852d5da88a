package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// plan is what becomes of the tensors of a checkpoint.
type plan struct {
	changes []weights.Change
	untied  bool // embed_tokens and lm_head were one matrix and are two now
}

// makePlan finds the tensor of each update. It names every module that does not fit.
func makePlan(cfg *model.Config, ckpt *weights.Checkpoint, updates []update) (*plan, error) {
	p := &plan{}
	var errs []error
	tied := map[string]*update{}
	for i := range updates {
		u := &updates[i]
		if cfg.TieWordEmbeddings && (u.module == model.EmbedTokens || u.module == model.LMHead) {
			tied[u.module] = u
			continue
		}
		base, err := find(ckpt, u, u.module)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.changes = append(p.changes, change(u.module, "", base, u))
	}
	errs = append(errs, p.addTied(ckpt, tied))
	return p, errors.Join(errs...)
}

// find returns the tensor of a module, which must have the update's shape.
func find(ckpt *weights.Checkpoint, u *update, module string) (weights.Tensor, error) {
	t, ok := ckpt.Tensor(module + ".weight")
	if !ok {
		return t, fmt.Errorf("%s: the model has no tensor %s.weight", u.module, module)
	}
	if !slices.Equal(t.Shape, u.shape) {
		return t, fmt.Errorf("%s: the adapter is for %v, %s has %v", u.module, u.shape, t.Name, t.Shape)
	}
	return t, nil
}

// change gives the tensor of a module the rows of base, updated by u unless that is nil.
func change(module, like string, base weights.Tensor, u *update) weights.Change {
	return weights.Change{Name: module + ".weight", Like: like, Rows: func(dst []float32, from, to int) error {
		if err := base.Rows(dst, from, to); err != nil {
			return err
		}
		if u == nil {
			return nil
		}
		return u.apply(dst, from, to)
	}}
}

// addTied adds the changes of the embedding and the head of a tied model. Unless both become the same matrix they part
// company, as they did in training: both are stored from then on.
func (p *plan) addTied(ckpt *weights.Checkpoint, updates map[string]*update) error {
	if len(updates) == 0 {
		return nil
	}
	store := model.EmbedTokens // a tied checkpoint stores either, rarely both
	if _, ok := ckpt.Tensor(store + ".weight"); !ok {
		store = model.LMHead
	}
	var base weights.Tensor
	var errs []error
	for _, u := range updates {
		t, err := find(ckpt, u, store)
		base = t
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	same, err := sameMatrix(updates[model.EmbedTokens], updates[model.LMHead])
	if err != nil {
		return err
	}
	p.untied = !same
	for _, module := range []string{model.EmbedTokens, model.LMHead} {
		u := updates[module]
		_, stored := ckpt.Tensor(module + ".weight")
		if same && !stored || u == nil && module == store {
			continue
		}
		p.changes = append(p.changes, change(module, base.Name, base, u))
	}
	return nil
}

// sameMatrix reports whether two updates replace their matrix by the same one.
func sameMatrix(a, b *update) (bool, error) {
	if a == nil || b == nil || !a.whole || !b.whole {
		return false, nil
	}
	row := [2][]float32{make([]float32, a.shape[1]), make([]float32, a.shape[1])}
	for i := range a.shape[0] {
		if err := errors.Join(a.apply(row[0], i, i+1), b.apply(row[1], i, i+1)); err != nil {
			return false, err
		}
		if !slices.Equal(row[0], row[1]) {
			return false, nil
		}
	}
	return true, nil
}
