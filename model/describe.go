package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/biolora/biolora/model/weights"
)

// Description is what a checkpoint holds, found without reading a matrix.
type Description struct {
	Config   Config
	Linears  []LinearSize // in the order of Model.Linears
	Warnings []string     // what of the configuration and the tensors is not understood and was passed over
}

// LinearSize is the size of one of the decoder's linears.
type LinearSize struct {
	Name    string // such as "model.layers.0.self_attn.q_proj"
	In, Out int
}

// Describe checks that a checkpoint is a model that can be opened: that the configuration is one of those that are
// supported, and that it has the tensors that this asks for, all problems at once.
func Describe(ckpt *weights.Checkpoint) (*Description, error) {
	o, path, err := ckpt.Config()
	if err != nil {
		return nil, err
	}
	cfg, warnings, err := parseConfig(o, path)
	if err != nil {
		return nil, err
	}
	if err := CheckStored(ckpt.Path(), &cfg, ckpt); err != nil {
		return nil, err
	}
	if _, err := NewRope(cfg); err != nil {
		return nil, err
	}
	d := &Description{Config: cfg, Warnings: append(warnings, ckpt.Warnings()...)}
	stored := cfg.Stored(ckpt)
	if err := checkTensors(ckpt, path, stored); err != nil {
		return nil, err
	}
	d.Warnings = append(d.Warnings, unused(ckpt, stored)...)
	for i := range cfg.NumHiddenLayers {
		d.Linears = append(d.Linears, cfg.layerLinears(i)...)
	}
	d.Linears = append(d.Linears, LinearSize{LMHead, cfg.HiddenSize, cfg.VocabSize})
	return d, nil
}

// layerLinears are the linears of a layer: q, k, v, o, gate, up, down.
func (c *Config) layerLinears(layer int) []LinearSize {
	d, q, kv, ff := c.HiddenSize, c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim, c.IntermediateSize
	list := []LinearSize{
		{"self_attn.q_proj", d, q}, {"self_attn.k_proj", d, kv}, {"self_attn.v_proj", d, kv}, {"self_attn.o_proj", q, d},
		{"mlp.gate_proj", d, ff}, {"mlp.up_proj", d, ff}, {"mlp.down_proj", ff, d},
	}
	for i := range list {
		list[i].Name = fmt.Sprintf("model.layers.%d.%s", layer, list[i].Name)
	}
	return list
}

// checkTensors gathers what is wrong with the tensors that the configuration in the file path asks for.
func checkTensors(ckpt *weights.Checkpoint, path string, list []Stored) error {
	var errs []error
	for _, w := range list {
		t, ok := ckpt.Tensor(w.Name)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: tensor %s is missing, want shape %v", ckpt.Path(), w.Name, w.Shape))
		case !slices.Equal(t.Shape, w.Shape):
			errs = append(errs, fmt.Errorf("%s: tensor %s has shape %v, %s asks for %v", t.File, w.Name, t.Shape, path, w.Shape))
		case !t.DType.Float():
			errs = append(errs, fmt.Errorf("%s: tensor %s is stored as %s, want floating point", t.File, w.Name, t.Type))
		}
	}
	const most = 100
	if n := len(errs) - most; n > 0 {
		errs = append(errs[:most:most], fmt.Errorf("%s: and %d more tensors", ckpt.Path(), n))
	}
	return errors.Join(errs...)
}

// unused tells of tensors that the decoder has no place for.
func unused(ckpt *weights.Checkpoint, list []Stored) []string {
	used := map[string]bool{embedTensor: true, headTensor: true}
	for _, w := range list {
		used[w.Name] = true
	}
	var names []string
	for _, n := range ckpt.Names() {
		if !used[n] && !strings.HasSuffix(n, "rotary_emb.inv_freq") {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil
	}
	text := strings.Join(names[:min(len(names), 5)], ", ")
	if len(names) > 5 {
		text += ", ..."
	}
	return []string{fmt.Sprintf("%s: %d tensors are not used: %s", ckpt.Path(), len(names), text)}
}
