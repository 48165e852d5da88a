package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// Settings is everything a run is asked to do. The tags name a flag; the key in YAML is the same name with
// underscores.
type Settings struct {
	Model     string   `name:"model" group:"Input and output" placeholder:"DIR|FILE" help:"Checkpoint: a directory in Hugging Face's or Meta's format, or a .gguf file."`
	Data      []string `name:"data" sep:"none" group:"Input and output" placeholder:"FILE" help:"Rows to train on: a JSON array or JSON Lines. May be repeated."`
	Out       string   `name:"out" group:"Input and output" placeholder:"DIR" help:"Output directory. Without it: ./lora-out/N, N the next free number."`
	Overwrite bool     `name:"overwrite" group:"Input and output" help:"Use an output directory that is not empty. Replaces only what lora-train wrote there."`
	Config    string   `name:"config" group:"Input and output" placeholder:"run.yaml" help:"Read settings from a YAML file. Flags win over it."`
	Preset    string   `name:"preset" group:"Input and output" placeholder:"NAME" help:"Start from alpaca-lora, bioinstruct or medtuned. The file and flags win over it."`

	dataset.Rows
	NoShuffle       bool    `name:"no-shuffle" group:"Data" help:"Keep the order of the files."`
	SharePrefixes   bool    `name:"share-prefixes" group:"Data" help:"With dropout too, compute once what rows of a micro-batch begin with; they share its dropout mask. Without dropout that is always done."`
	NoSharePrefixes bool    `name:"no-share-prefixes" group:"Data" help:"Compute every row on its own."`
	GroupByPrefix   bool    `name:"group-by-prefix" group:"Data" help:"Put rows that begin alike and have similar lengths into the same micro-batches."`
	ValSetSize      float64 `name:"val-set-size" group:"Data" placeholder:"N" help:"Rows held out: a number from 1 on, a share below 1."`

	LoraR              int        `name:"lora-r" group:"LoRA" placeholder:"N" help:"Rank."`
	LoraAlpha          float64    `name:"lora-alpha" group:"LoRA" placeholder:"X" help:"The branch is scaled by alpha / r."`
	LoraDropout        float64    `name:"lora-dropout" group:"LoRA" placeholder:"X" help:"Dropout on the branch's input."`
	UseRslora          bool       `name:"use-rslora" group:"LoRA" help:"Scale by alpha / sqrt(r) instead."`
	TargetModules      lora.Names `name:"target-modules" group:"LoRA" placeholder:"A,B" help:"Linears to adapt: names, regex:EXPR for a regular expression on the full name, or all-linear."`
	ExcludeModules     lora.Names `name:"exclude-modules" group:"LoRA" placeholder:"A,B" help:"Linears to leave out: names or regex:EXPR."`
	RankPattern        lora.Rules `name:"rank-pattern" group:"LoRA" placeholder:"KEY=N" help:"Another rank for the modules whose name KEY matches. May be repeated."`
	AlphaPattern       lora.Rules `name:"alpha-pattern" group:"LoRA" placeholder:"KEY=X" help:"Another alpha. May be repeated."`
	InitLoraWeights    string     `name:"init-lora-weights" group:"LoRA" placeholder:"true|gaussian" help:"How A begins: true (Kaiming), gaussian, or false (A and B random; for debugging)."`
	ModulesToSave      []string   `name:"modules-to-save" group:"LoRA" placeholder:"A,B" help:"Trained in full and saved: embed_tokens, lm_head."`
	LayersToTransform  []int      `name:"layers-to-transform" group:"LoRA" placeholder:"0,2" help:"Layers to adapt. Without it: all."`
	Adapter            string     `name:"adapter" group:"LoRA" placeholder:"DIR" help:"Start from a PEFT adapter. Its configuration rules; only lora-dropout may differ."`
	LearningRate       float64    `name:"learning-rate" group:"Training" placeholder:"X" help:"Peak learning rate of AdamW."`
	LRSchedulerType    string     `name:"lr-scheduler-type" group:"Training" placeholder:"NAME" help:"constant, constant_with_warmup, linear or cosine."`
	BatchSize          microBatch `name:"per-device-train-batch-size" group:"Training" placeholder:"N|auto" help:"Rows in a micro-batch. auto: as many as the memory has room for, of the rows of a step that the default makes with gradient-accumulation-steps; run.yaml then has both numbers."`
	Accumulation       int        `name:"gradient-accumulation-steps" group:"Training" placeholder:"N" help:"Micro-batches in a step."`
	NumTrainEpochs     float64    `name:"num-train-epochs" group:"Training" placeholder:"X" help:"Passes over the data."`
	MaxSteps           int        `name:"max-steps" group:"Training" placeholder:"N" help:"Above 0: so many steps, whatever the epochs."`
	WarmupSteps        int        `name:"warmup-steps" group:"Training" placeholder:"N" help:"Above 0: wins over warmup-ratio."`
	WarmupRatio        float64    `name:"warmup-ratio" group:"Training" placeholder:"X" help:"Warm-up as a share of all steps."`
	WeightDecay        float64    `name:"weight-decay" group:"Training" placeholder:"X" help:"Decoupled, as in AdamW."`
	AdamBeta1          float64    `name:"adam-beta1" group:"Training" placeholder:"X" help:"AdamW's beta 1."`
	AdamBeta2          float64    `name:"adam-beta2" group:"Training" placeholder:"X" help:"AdamW's beta 2."`
	AdamEpsilon        float64    `name:"adam-epsilon" group:"Training" placeholder:"X" help:"AdamW's epsilon."`
	MaxGradNorm        float64    `name:"max-grad-norm" group:"Training" placeholder:"X" help:"Clip the gradients' global norm. 0: no clipping."`
	Seed               uint64     `name:"seed" group:"Training" placeholder:"N" help:"Of the initial weights, shuffling, dropout and the rows held out."`
	EvalSteps          int        `name:"eval-steps" group:"Training" placeholder:"N" help:"Evaluate every N steps and at the end. 0: after each epoch."`
	LoadBestModelAtEnd bool       `name:"load-best-model-at-end" group:"Training" help:"Leave the best adapter at the root of the output directory, not the last."`
	Compute            string     `name:"compute" group:"Machine" placeholder:"auto|f32|bf16" help:"Arithmetic of the products. auto: bf16 on a card, and where the CPU is faster at it."`
	Base               string     `name:"base" group:"Machine" placeholder:"none|nf4|int8" help:"Format of the frozen linears of the layers. none: the checkpoint's. nf4 (QLoRA's, 4.1 bits a value) and int8 (8.5 bits): quantised once, and kept where --cache-dir says. Embeddings, head and norms stay as they are."`
	Device             string     `name:"device" group:"Machine" placeholder:"auto|cpu|cuda|cuda:N" help:"Where to compute: on the CPU, or on an NVIDIA card, the N-th that its driver shows, from 0. auto: on a card where there is one that can be used."`
	Threads            int        `name:"threads" group:"Machine" placeholder:"N" help:"0: one for each CPU. A card has no use for them, so that auto is the CPU."`
	CPUFeatures        string     `name:"cpu-features" group:"Machine" placeholder:"NAME" help:"Instructions to use: ${cpuFeatures}. Without it: the best that this CPU has."`
	ActivationPolicy   string     `name:"activation-policy" group:"Machine" placeholder:"auto|none|some:N|all" help:"How many layers keep what their backward pass reads: all, none (they compute it again), the last N, or as many as the memory allows. Never changes a result."`
	MemoryLimit        string     `name:"memory-limit" group:"Machine" placeholder:"SIZE" help:"What the process may take, such as 12GiB; pages of mapped weights, which the system can take back, do not count unless they are streamed. On a card: what the run may take of the card, weights included. Without it: what is free."`
	Stream             string     `name:"stream" group:"Machine" placeholder:"auto|always|never" help:"Read weights from the disk ahead of their use and drop them after it, layer by layer; micro-batches of a step then pass through a layer together, as many as memory allows. auto: where they have no room in what is free. --memory-limit then counts their pages too. Never changes a result."`
	CacheDir           string     `name:"cache-dir" group:"Machine" placeholder:"DIR" help:"Where weights go that have to be converted or quantised first. Without it: .biolora beside the checkpoint, or the user's cache directory."`
}

// setting is one field of a Settings.
type setting struct {
	flag  string
	group string
	value reflect.Value
}

func (s setting) key() string { return strings.ReplaceAll(s.flag, "-", "_") }

// settings returns the fields of s, which can be set, in their order.
func (s *Settings) settings() []setting {
	return fields(reflect.ValueOf(s).Elem())
}

func fields(v reflect.Value) []setting {
	var list []setting
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			list = append(list, fields(v.Field(i))...)
			continue
		}
		list = append(list, setting{f.Tag.Get("name"), f.Tag.Get("group"), v.Field(i)})
	}
	return list
}

// find returns the setting of that key.
func (s *Settings) find(key string) (setting, bool) {
	for _, f := range s.settings() {
		if f.key() == key {
			return f, true
		}
	}
	return setting{}, false
}

// signed are the settings that may be negative: Hugging Face's "not set" is -1.
var signed = []string{"max_steps"}

// choices are the settings that have a few values.
var choices = map[string][]string{
	"base":              {"none", "nf4", "int8"},
	"compute":           {"auto", "f32", "bf16"},
	"init_lora_weights": {"true", "kaiming", "gaussian", "false"},
	"stream":            {"auto", "always", "never"},
	"lr_scheduler_type": {"constant", "constant_with_warmup", "linear", "cosine"},
}

// validate says what is wrong with the settings by themselves. What they mean to a run is checked by the packages
// that run it.
func (s *Settings) validate() error {
	var errs []error
	for _, f := range s.settings() {
		if err := f.validate(); err != nil {
			errs = append(errs, fmt.Errorf("--%s (%s): %w", f.flag, f.key(), err))
		}
	}
	if s.SharePrefixes && s.NoSharePrefixes {
		errs = append(errs, errors.New("--share-prefixes and --no-share-prefixes are both given"))
	}
	return errors.Join(errs...)
}

func (f setting) validate() error {
	var x float64
	if f.value.Interface() == autoBatch {
		return nil
	}
	switch f.value.Kind() {
	case reflect.Int:
		x = float64(f.value.Int())
	case reflect.Float64:
		x = f.value.Float()
	case reflect.String:
		return f.validateText()
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Errorf("%v is not a finite number", x)
	}
	if x < 0 && !slices.Contains(signed, f.key()) {
		return fmt.Errorf("%v is negative", x)
	}
	return nil
}

func (f setting) validateText() error {
	switch text := f.value.String(); {
	case f.key() == "activation_policy":
		return model.CheckPolicy(text)
	case f.key() == "device":
		return model.CheckDevice(text)
	case f.key() == "cpu_features" && text != "":
		_, err := gemm.Parse(text)
		return err
	case f.key() == "memory_limit" && text != "":
		_, err := memory.Parse(text)
		return err
	}
	return f.validateChoice()
}

func (f setting) validateChoice() error {
	want, limited := choices[f.key()]
	got := f.value.String()
	if !limited || slices.Contains(want, got) {
		return nil
	}
	return fmt.Errorf("%q is none of %s%s", got, strings.Join(want, ", "), cli.Suggestion(got, want))
}
