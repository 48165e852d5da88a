package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/lora"
)

// Standing says how sure a preset's value is.
type Standing string

// The standings of a value.
const (
	Published Standing = "published" // in the paper, or in the authors' code
	Inferred  Standing = "inferred"  // follows from something published
	Ours      Standing = "ours"      // nothing is published: the project's choice
)

// Preset is a set of values for a run, each with its standing.
type Preset struct {
	Name   string
	About  string
	Values []PresetValue
}

// PresetValue is one value of a preset. A value that is ours is the default; it has no Set.
type PresetValue struct {
	Key      string
	Standing Standing
	Why      string
	Set      func(*Settings)
}

func ours(why string, keys ...string) []PresetValue {
	var list []PresetValue
	for _, k := range keys {
		list = append(list, PresetValue{k, Ours, why, nil})
	}
	return list
}

func join(parts ...[]PresetValue) []PresetValue {
	var list []PresetValue
	for _, p := range parts {
		list = append(list, p...)
	}
	return list
}

// presets are the published ways of training that this project is measured by.
func presets() []Preset {
	return []Preset{alpacaLoRA(), bioInstruct(), medTuned()}
}

// alpacaLoRA has the defaults of alpaca-lora's finetune.py.
func alpacaLoRA() Preset {
	script := func(key string, set func(*Settings)) PresetValue {
		return PresetValue{key, Published, "default of alpaca-lora's script", set}
	}
	return Preset{
		Name: "alpaca-lora",
		About: "The defaults of alpaca-lora, a neighbour of BioInstruct: LoRA on LLaMA 7B with the Alpaca template. " +
			"They are not BioInstruct's own values.",
		Values: join([]PresetValue{
			script("lora_r", func(s *Settings) { s.LoraR = 8 }),
			script("lora_alpha", func(s *Settings) { s.LoraAlpha = 16 }),
			script("lora_dropout", func(s *Settings) { s.LoraDropout = 0.05 }),
			script("target_modules", func(s *Settings) { s.TargetModules = lora.Names{List: []string{"q_proj", "v_proj"}} }),
			script("learning_rate", func(s *Settings) { s.LearningRate = 3e-4 }),
			{"per_device_train_batch_size", Published, "128 rows a step = 4 x 32", func(s *Settings) { s.BatchSize = 4 }},
			{"gradient_accumulation_steps", Published, "128 rows a step = 4 x 32", func(s *Settings) { s.Accumulation = 32 }},
			script("num_train_epochs", func(s *Settings) { s.NumTrainEpochs = 3 }),
			script("max_seq_length", func(s *Settings) { s.MaxSeqLength = 256 }),
			script("warmup_steps", func(s *Settings) { s.WarmupSteps = 100 }),
			script("train_on_inputs", func(s *Settings) { s.TrainOnInputs = true }),
		}, ours("the script leaves it to Transformers", "lr_scheduler_type", "weight_decay", "max_grad_norm")),
	}
}

// bioInstruct has what is known of BioInstruct (Tran, Yang, Yao, Yu; 2024).
func bioInstruct() Preset {
	return Preset{
		Name: "bioinstruct",
		About: "BioInstruct (Tran, Yang, Yao, Yu; 2024): LoRA on LLaMA 1 and 2, 7B and 13B. Rank, alpha, targets, " +
			"learning rate and length were not found.",
		Values: join([]PresetValue{
			{"num_train_epochs", Inferred, "the authors' checkpoint 975 = 5 x floor(25005 / 128)", func(s *Settings) { s.NumTrainEpochs = 5 }},
			{"per_device_train_batch_size", Inferred, "128 rows a step, as above; 8 x 16 is ours", func(s *Settings) { s.BatchSize = 8 }},
			{"gradient_accumulation_steps", Inferred, "128 rows a step, as above; 8 x 16 is ours", func(s *Settings) { s.Accumulation = 16 }},
		}, ours("not found in the paper", "lora_r", "lora_alpha", "target_modules", "learning_rate", "max_seq_length"),
			ours("not known", "lora_dropout", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "template",
				"train_on_inputs")),
	}
}

// medTuned has what is known of Llama2-MedTuned (Rohanian, Nouriborji, Clifton; 2023).
func medTuned() Preset {
	return Preset{
		Name: "medtuned",
		About: "Llama2-MedTuned (Rohanian, Nouriborji, Clifton; 2023). The authors trained Llama-2-chat 7B and 13B in " +
			"full, without LoRA: a LoRA run is an adaptation of theirs.",
		Values: join([]PresetValue{
			{"num_train_epochs", Published, "3 epochs", func(s *Settings) { s.NumTrainEpochs = 3 }},
			{"warmup_steps", Published, "1000 steps", func(s *Settings) { s.WarmupSteps = 1000 }},
			{"seed", Published, "42", func(s *Settings) { s.Seed = 42 }},
			{"template", Published, "the authors' training text", func(s *Settings) { s.Template = "medtuned" }},
			{"train_on_inputs", Published, "loss after the last \"### Output:\" only", func(s *Settings) { s.TrainOnInputs = false }},
		}, ours("not found in the paper", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "max_seq_length"),
			ours("not known", "lr_scheduler_type", "weight_decay", "max_grad_norm"),
			ours("the paper has no LoRA", "lora_r", "lora_alpha", "lora_dropout", "target_modules")),
	}
}

func presetNames() []string {
	var names []string
	for _, p := range presets() {
		names = append(names, p.Name)
	}
	return names
}

func findPreset(name string) (Preset, error) {
	for _, p := range presets() {
		if p.Name == name {
			return p, nil
		}
	}
	return Preset{}, fmt.Errorf("preset %q is none of %s%s", name, strings.Join(presetNames(), ", "), cli.Suggestion(name, presetNames()))
}

func (p Preset) apply(s *Settings) {
	for _, v := range p.Values {
		if v.Set != nil {
			v.Set(s)
		}
	}
}

// print writes the preset's values and their standing, and what the run uses instead.
func (p Preset) print(w io.Writer, used *Settings) {
	own := defaults()
	p.apply(&own)
	fmt.Fprintf(w, "preset %s\n%s\n", p.Name, p.About)
	for _, v := range p.Values {
		value, _ := own.find(v.Key)
		use, _ := used.find(v.Key)
		instead := ""
		if !sameValue(value, use) {
			instead = fmt.Sprintf(" [this run: %v]", use.value.Interface())
		}
		fmt.Fprintf(w, "  %-28s %-15v %-10s %s%s\n", v.Key, value.value.Interface(), v.Standing, v.Why, instead)
	}
	fmt.Fprintln(w)
}

// printPreset writes the preset that the run uses, if any.
func (r *Run) printPreset(w io.Writer) error {
	if r.Preset == "" {
		return nil
	}
	p, err := findPreset(r.Preset)
	if err == nil {
		p.print(w, &r.Settings)
	}
	return err
}
