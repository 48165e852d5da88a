package main

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// modules lists what of the base model an adapter may change.
func modules(d *model.Description) []lora.Module {
	var linears []lora.Module
	for _, l := range d.Linears {
		linears = append(linears, lora.Module{Name: l.Name, In: l.In, Out: l.Out})
	}
	return lora.Decoder(linears, d.Config.VocabSize, d.Config.HiddenSize)
}

// readAdapter reads the adapter in dir, which must fit the modules, and returns what it changes, by name.
func readAdapter(dir string, modules []lora.Module, tied bool) ([]update, error) {
	s, err := lora.Read(dir)
	if err != nil {
		return nil, err
	}
	if err := s.Fits(modules, tied); err != nil {
		return nil, fmt.Errorf("the adapter in %s does not fit the model: %w", dir, err)
	}
	var list []update
	for _, name := range slices.Sorted(maps.Keys(s.Modules)) {
		l := s.Modules[name]
		list = append(list, newUpdate(s, name, []int{l.Out, l.In}, false))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Full)) {
		f := s.Full[name]
		list = append(list, newUpdate(s, name, []int{f.Rows, f.Cols}, true))
	}
	return list, nil
}

func newUpdate(s *lora.Saved, module string, shape []int, whole bool) update {
	apply := func(dst []float32, from, to int) error {
		return inParallel(from, to, func(a, b int) error {
			return s.MergeRows(dst[(a-from)*shape[1]:(b-from)*shape[1]], module, a, b)
		})
	}
	return update{module: module, shape: shape, whole: whole, apply: apply}
}

// inParallel calls do for parts of the rows [from, to), one for each processor.
func inParallel(from, to int, do func(from, to int) error) error {
	n := min(runtime.GOMAXPROCS(0), to-from)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(from+(to-from)*i/n, from+(to-from)*(i+1)/n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
