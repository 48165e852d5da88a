package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/pickle"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/lora"
)

// adapterInfo is what is known of an adapter.
type adapterInfo struct {
	Base          string             `json:"base_model_name_or_path"`
	R             int                `json:"r"`
	Alpha         float64            `json:"lora_alpha"`
	Dropout       float64            `json:"lora_dropout"`
	RSLoRA        bool               `json:"use_rslora"`
	Targets       string             `json:"target_modules"` // as lora-train's flag takes it
	Exclude       string             `json:"exclude_modules,omitempty"`
	RankPattern   map[string]float64 `json:"rank_pattern,omitempty"`
	AlphaPattern  map[string]float64 `json:"alpha_pattern,omitempty"`
	ModulesToSave []string           `json:"modules_to_save,omitempty"`
	Layers        []int              `json:"layers_to_transform,omitempty"`
	// Of the tensors.
	Parameters int64          `json:"parameters"` // trained ones
	Modules    map[string]int `json:"modules"`    // with a branch, by the last part of the name
	Whole      []string       `json:"whole"`      // trained whole
	Ranks      []int          `json:"ranks"`      // that there are
	Complete   bool           `json:"complete"`   // each module has both matrices
	Incomplete []string       `json:"incomplete"` // the modules that lack one
}

// pickleAdapter is the older name of an adapter's weights.
const pickleAdapter = "adapter_model.bin"

// describeAdapter tells of a PEFT directory.
func describeAdapter(dir string, all bool) (*description, error) {
	d := newDescription(dir, kindAdapter, all)
	d.Adapter = &adapterInfo{Modules: map[string]int{}, Whole: []string{}, Ranks: []int{}, Incomplete: []string{}}
	path := filepath.Join(dir, lora.ConfigFile)
	o, err := strictjson.ReadObject(path, maxConfig)
	if err != nil {
		return nil, err
	}
	d.addFiles(path)
	cfg, err := lora.ParseConfig(strictjson.Format(o))
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			d.Unsupported = append(d.Unsupported, path+": "+line)
		}
		d.Adapter.takeForeign(o)
	} else {
		d.Adapter.take(cfg)
	}
	broken := d.adapterTensors(dir)
	if errors.Is(broken, fs.ErrNotExist) {
		d.refuse(broken)
		broken = nil
	}
	noTokenizer := d.describeTokenizer(dir)
	if broken != nil {
		d.refuse(broken)
	}
	if broken == nil && !errors.Is(noTokenizer, fs.ErrNotExist) {
		broken = noTokenizer
	}
	return d.finish(), broken
}

// take takes over a configuration.
func (a *adapterInfo) take(c lora.Config) {
	a.Base, a.R, a.Alpha, a.Dropout, a.RSLoRA = c.BaseModel, c.R, c.LoraAlpha, c.LoraDropout, c.UseRSLoRA
	a.Targets, a.Exclude = c.TargetModules.String(), c.ExcludeModules.String()
	a.ModulesToSave, a.Layers = c.ModulesToSave, c.LayersToTransform
	rules := func(list lora.Rules) map[string]float64 {
		m := map[string]float64{}
		for _, r := range list {
			m[r.Key] = r.Value
		}
		return m
	}
	a.RankPattern, a.AlphaPattern = rules(c.RankPattern), rules(c.AlphaPattern)
}

// takeForeign takes what a configuration that cannot be used says in the usual words.
func (a *adapterInfo) takeForeign(o *strictjson.Object) {
	number := func(key string) float64 {
		v, _ := o.Get(key)
		n, _ := v.(json.Number)
		x, err := n.Float64()
		if err != nil || math.IsInf(x, 0) {
			return 0
		}
		return x
	}
	base, _ := o.Get("base_model_name_or_path")
	a.Base, _ = base.(string)
	a.Alpha, a.Dropout = number("lora_alpha"), number("lora_dropout")
	if r := number("r"); r > 0 && r < math.MaxInt32 {
		a.R = int(r)
	}
	targets, _ := o.Get("target_modules")
	switch v := targets.(type) {
	case string:
		a.Targets = lora.Names{Expr: v}.String()
	case []any:
		var n lora.Names
		for _, e := range v {
			if s, ok := e.(string); ok {
				n.List = append(n.List, s)
			}
		}
		a.Targets = n.String()
	}
}

// adapterTensors tells of the adapter's weights.
func (d *description) adapterTensors(dir string) error {
	path := filepath.Join(dir, lora.WeightsFile)
	if old := filepath.Join(dir, pickleAdapter); !exists(path) && exists(old) {
		path = old
	}
	d.addFiles(path)
	d.Tensors = newTensors(true)
	var err error
	if d.Format, _, err = d.Tensors.addFile(path); err != nil {
		d.Tensors = nil
		return err
	}
	d.Tensors.finish()
	d.pairs()
	if !d.all {
		d.Tensors.List = nil
	}
	return nil
}

// addFile adds the tensors of a safetensors file or one of PyTorch's, which it tells by the name. Metadata is what the
// file says beside them.
func (ts *tensors) addFile(path string) (format string, metadata map[string]string, err error) {
	if strings.HasSuffix(path, ".safetensors") {
		f, err := safetensors.Open(path)
		if err != nil {
			return "", nil, err
		}
		for t := range f.All() {
			ts.add(tensor{Name: t.Name, Format: t.Type, Shape: t.Shape, Bytes: int64(len(t.Data))})
		}
		return "safetensors", f.Metadata(), f.Close()
	}
	f, err := pickle.Open(path)
	if err != nil {
		return "", nil, err
	}
	for _, name := range f.Names() {
		v, _ := f.View(name)
		ts.add(tensor{Name: name, Format: v.DType.String(), Shape: v.Shape, Bytes: int64(product(v.Shape) * v.DType.Size())})
	}
	return "pickle", nil, f.Close()
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// pairs says which modules have a branch, and whether both of its matrices are there and fit each other.
func (d *description) pairs() {
	a := d.Adapter
	type pair struct{ a, b []int }
	found := map[string]*pair{}
	ranks := map[int]bool{}
	var unknown []string
	get := func(module string) *pair {
		if found[module] == nil {
			found[module] = &pair{}
		}
		return found[module]
	}
	for _, t := range d.Tensors.List {
		name := strings.TrimPrefix(t.Name, "base_model.model.")
		if strings.Contains(name, ".base_layer.") {
			continue
		}
		a.Parameters += int64(product(t.Shape))
		if module, ok := strings.CutSuffix(name, ".lora_A.weight"); ok && len(t.Shape) == 2 {
			get(module).a = t.Shape
			ranks[t.Shape[0]] = true
		} else if module, ok := strings.CutSuffix(name, ".lora_B.weight"); ok && len(t.Shape) == 2 {
			get(module).b = t.Shape
			ranks[t.Shape[1]] = true
		} else if module, ok := strings.CutSuffix(name, ".weight"); ok && !strings.Contains(name, ".lora_") {
			a.Whole = append(a.Whole, module)
		} else {
			unknown = append(unknown, t.Name)
		}
	}
	var apart []string
	for _, module := range slices.Sorted(maps.Keys(found)) {
		p := found[module]
		a.Modules[module[strings.LastIndexByte(module, '.')+1:]]++
		if p.a == nil || p.b == nil {
			a.Incomplete = append(a.Incomplete, module)
		} else if p.a[0] != p.b[1] {
			apart = append(apart, fmt.Sprintf("%s: lora_A is %v, lora_B %v", module, p.a, p.b))
		}
	}
	a.Ranks = slices.Sorted(maps.Keys(ranks))
	a.Complete = len(found) > 0 && len(a.Incomplete) == 0
	complain := func(list []string, what string) {
		if len(list) > 0 {
			d.Unsupported = append(d.Unsupported, fmt.Sprintf("%d %s: %s", len(list), what, some(list)))
		}
	}
	complain(unknown, "tensors are not those of a LoRA branch")
	complain(a.Incomplete, "modules lack lora_A or lora_B")
	complain(apart, "modules have matrices of two ranks")
	if len(found) == 0 {
		d.Unsupported = append(d.Unsupported, "there is no tensor of a low-rank branch")
	}
}
