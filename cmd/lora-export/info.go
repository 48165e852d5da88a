package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// info is the command of that name.
type info struct {
	Path    string `arg:"" placeholder:"DIR|FILE" help:"Checkpoint, adapter or tokenizer: a directory or a file."`
	Tensors bool   `help:"List every tensor, not groups of them."`
	JSON    bool   `name:"json" help:"Print one JSON object."`
}

// Help is the longer help.
func (info) Help() string {
	return `Tells what a checkpoint, an adapter, a tokenizer or one file of them is: architecture, parameters, tensors with format and
shape, sizes, and everything that keeps it from being trained on. Only the heads of files are read, so that a checkpoint of
any size is told at once.

What can be read but not trained on is told all the same, with the reasons, and the exit status is 0. What cannot be read is
an error.

Examples:

  lora-export info Llama-2-7b-hf
  lora-export info my-adapter
  lora-export info --tensors model-00001-of-00002.safetensors
  lora-export info --json llama-2-7b.Q4_K_M.gguf`
}

// Run carries the command out.
func (c *info) Run(_ context.Context, s *cli.Streams) error {
	var d *description
	err := mmap.Guard(func() (err error) {
		d, err = describe(c.Path, c.Tensors)
		return err
	})
	if d == nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(s.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return errors.Join(e.Encode(d), err)
	}
	d.print(s.Out)
	return err
}

// description is what is known of a path. Its keys in JSON do not change.
type description struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`             // checkpoint, adapter, tokenizer, tensors, config, cache
	Format string `json:"format,omitempty"` // of the weights: safetensors, pickle, meta, gguf
	// Usable says whether the other commands take it for what it is.
	Usable      bool     `json:"usable"`
	Unsupported []string `json:"unsupported"` // why it is not usable
	Warnings    []string `json:"warnings"`
	Files       []file   `json:"files"`
	Bytes       int64    `json:"bytes"` // of the files

	Model     *architecture     `json:"model,omitempty"`
	Adapter   *adapterInfo      `json:"adapter,omitempty"`
	Tensors   *tensors          `json:"tensors,omitempty"`
	Tokenizer *tokenizerInfo    `json:"tokenizer,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"` // of a single file, in short

	all bool // every tensor is to be listed
}

type file struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// The kinds of things.
const (
	kindCheckpoint = "checkpoint"
	kindAdapter    = "adapter"
	kindTokenizer  = "tokenizer"
	kindTensors    = "tensors"
	kindConfig     = "config"
	kindCache      = "cache"
)

// newDescription has empty lists, which are [] in JSON.
func newDescription(path, kind string, all bool) *description {
	return &description{all: all, Path: path, Kind: kind, Unsupported: []string{}, Warnings: []string{}, Files: []file{}}
}

// describe says what is at path. Where a part of it is broken and the rest can be told, both results are not nil.
func describe(path string, all bool) (*description, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return describeDir(path, all)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a directory nor a regular file", path)
	}
	return describeFile(path, all)
}

// describeDir tells adapters, checkpoints and tokenizers apart by their files.
func describeDir(dir string, all bool) (*description, error) {
	has := func(name string) bool { return exists(filepath.Join(dir, name)) }
	if has(lora.ConfigFile) && !has(weights.SingleFile) && !has(weights.IndexFile) {
		return describeAdapter(dir, all)
	}
	d, err := describeCheckpoint(dir, all)
	if d == nil && err == nil {
		return nil, fmt.Errorf("%s: no checkpoint (config.json, weights), adapter (%s) or tokenizer is in this directory", dir, lora.ConfigFile)
	}
	return d, err
}

// addFiles notes files and their sizes.
func (d *description) addFiles(paths ...string) {
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			d.Files = append(d.Files, file{filepath.Base(p), info.Size()})
			d.Bytes += info.Size()
		}
	}
}

// refuse notes reasons why the thing is not usable: err's lines, or what it joins.
func (d *description) refuse(err error) {
	if err != nil {
		d.Unsupported = append(d.Unsupported, strings.Split(err.Error(), "\n")...)
	}
}

func (d *description) warn(list ...string) { d.Warnings = append(d.Warnings, list...) }

// finish decides whether the thing is usable.
func (d *description) finish() *description {
	d.Usable = len(d.Unsupported) == 0
	return d
}

// architecture is what a configuration says of a model.
type architecture struct {
	Architecture  string  `json:"architecture,omitempty"`
	ModelType     string  `json:"model_type"`
	Source        string  `json:"source"` // the file that says so
	Parameters    int64   `json:"parameters,omitempty"`
	Layers        int     `json:"num_hidden_layers,omitempty"`
	Hidden        int     `json:"hidden_size,omitempty"`
	Intermediate  int     `json:"intermediate_size,omitempty"`
	Heads         int     `json:"num_attention_heads,omitempty"`
	KVHeads       int     `json:"num_key_value_heads,omitempty"`
	HeadDim       int     `json:"head_dim,omitempty"`
	Vocabulary    int     `json:"vocab_size,omitempty"`
	Context       int     `json:"max_position_embeddings,omitempty"`
	SlidingWindow int     `json:"sliding_window,omitempty"`
	Tied          bool    `json:"tie_word_embeddings"`
	AttentionBias bool    `json:"attention_bias"`
	MLPBias       bool    `json:"mlp_bias"`
	NormEps       float64 `json:"rms_norm_eps,omitempty"`
	Rope          *rope   `json:"rope,omitempty"`
	DType         string  `json:"torch_dtype,omitempty"`
	Quantization  string  `json:"quantization,omitempty"`
}

type rope struct {
	Type     string  `json:"rope_type"`
	Theta    float64 `json:"rope_theta"`
	Factor   float64 `json:"factor,omitempty"`
	Original int     `json:"original_max_position_embeddings,omitempty"`
	Low      float64 `json:"low_freq_factor,omitempty"`
	High     float64 `json:"high_freq_factor,omitempty"`
}

// newArchitecture takes over a configuration that is supported.
func newArchitecture(c *model.Config) *architecture {
	r := c.Rope
	return &architecture{
		Architecture: c.Architecture, ModelType: c.ModelType, Layers: c.NumHiddenLayers, Hidden: c.HiddenSize,
		Intermediate: c.IntermediateSize, Heads: c.NumAttentionHeads, KVHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim,
		Vocabulary: c.VocabSize, Context: c.MaxPositionEmbeddings, SlidingWindow: c.SlidingWindow, Tied: c.TieWordEmbeddings,
		AttentionBias: c.AttentionBias, MLPBias: c.MLPBias, NormEps: c.RMSNormEps, DType: c.TorchDtype, Quantization: c.QuantMethod,
		Rope: &rope{r.Type, r.Theta, r.Factor, r.OriginalMaxPositionEmbeddings, r.LowFreqFactor, r.HighFreqFactor},
	}
}
