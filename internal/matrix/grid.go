// Package matrix is the multi-task study of BioInstruct: each of some base models is trained on each of some subsets of the
// data, with each of some seeds, and scored on tasks; what comes out is how much each subset gains over the base.
//
// A cell is one base, one subset and one seed. Its directory has the adapter, the answers and two marks: one that training
// is done, one that all is done, each with the settings it was done with. A cell that is done is not done again; one that
// was trained in part begins anew; answers go on where they were. The marks are whole or absent, so that a run may be
// killed at any moment and goes on when it is called again, to the same matrix.json, byte for byte.
package matrix

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictyaml"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// Grid says what is compared. Paths are relative to the working directory.
type Grid struct {
	About string `yaml:"about" json:"about,omitempty"`
	Bases []Base `yaml:"bases" json:"bases"`
	// Data are files of instruction rows to train on, and Where a condition that all of them have to meet.
	Data    List     `yaml:"data" json:"data"`
	Where   string   `yaml:"where" json:"where,omitempty"`
	Subsets Subsets  `yaml:"subsets" json:"-"`
	Seeds   []uint64 `yaml:"seeds" json:"seeds"` // of initial values, order, dropout, and of the rows that a count takes
	Train   Train    `yaml:"train" json:"train"`
	Tasks   []Task   `yaml:"tasks" json:"tasks"`
	Eval    Eval     `yaml:"eval" json:"eval"`
	// Judge marks the answers of tasks whose metrics have judge; nil: nobody does.
	Judge *Judge `yaml:"judge" json:"judge,omitempty"`
}

// Base is a model that is trained and asked in its own style.
type Base struct {
	Name         string `yaml:"name" json:"name"`
	Path         string `yaml:"path" json:"path"`
	Template     string `yaml:"template" json:"template"`                     // by name or file; empty: alpaca
	ChatTemplate string `yaml:"chat_template" json:"chat_template,omitempty"` // of the template chat; empty: the tokenizer's own
	SystemPrompt string `yaml:"system_prompt" json:"system_prompt,omitempty"` // of the template chat
}

// Subset is a part of the data.
type Subset struct {
	Name  string `yaml:"name" json:"name"`
	Where string `yaml:"where" json:"where,omitempty"` // see mix.Where; empty: all rows
	Count int    `yaml:"count" json:"count,omitempty"` // of rows, chosen by the seed; 0: all
}

// Subsets are listed, or the standard ones.
type Subsets struct {
	Standard bool
	List     []Subset
}

// UnmarshalYAML reads a list, or the word standard.
func (s *Subsets) UnmarshalYAML(decode func(any) error) error {
	var word string
	if decode(&word) == nil {
		if word != "standard" {
			return fmt.Errorf("subsets: %q: want a list of name, where and count, or the word standard", word)
		}
		s.Standard = true
		return nil
	}
	return decode(&s.List)
}

// List is a list of texts, which may be written as one text.
type List []string

// UnmarshalYAML reads a text or a list of them.
func (l *List) UnmarshalYAML(decode func(any) error) error {
	var word string
	if decode(&word) == nil {
		*l = List{word}
		return nil
	}
	var list []string
	err := decode(&list)
	*l = list
	return err
}

// Train are the settings of training, in Hugging Face's names.
type Train struct {
	LoraR           int     `yaml:"lora_r" json:"lora_r"`
	LoraAlpha       float64 `yaml:"lora_alpha" json:"lora_alpha"`
	LoraDropout     float64 `yaml:"lora_dropout" json:"lora_dropout"`
	UseRSLoRA       bool    `yaml:"use_rslora" json:"use_rslora"`
	TargetModules   List    `yaml:"target_modules" json:"target_modules"` // names, all-linear, or regex:EXPR
	LearningRate    float64 `yaml:"learning_rate" json:"learning_rate"`
	LRSchedulerType string  `yaml:"lr_scheduler_type" json:"lr_scheduler_type"`
	WarmupSteps     int     `yaml:"warmup_steps" json:"warmup_steps"`
	WarmupRatio     float64 `yaml:"warmup_ratio" json:"warmup_ratio"`
	WeightDecay     float64 `yaml:"weight_decay" json:"weight_decay"`
	MaxGradNorm     float64 `yaml:"max_grad_norm" json:"max_grad_norm"`
	BatchSize       int     `yaml:"per_device_train_batch_size" json:"per_device_train_batch_size"`
	Accumulation    int     `yaml:"gradient_accumulation_steps" json:"gradient_accumulation_steps"`
	NumTrainEpochs  float64 `yaml:"num_train_epochs" json:"num_train_epochs"`
	MaxSteps        int     `yaml:"max_steps" json:"max_steps"` // above 0: so many, whatever the epochs
	MaxSeqLength    int     `yaml:"max_seq_length" json:"max_seq_length"`
	TrainOnInputs   bool    `yaml:"train_on_inputs" json:"train_on_inputs"`
	GroupByPrefix   bool    `yaml:"group_by_prefix" json:"group_by_prefix"`
	Compute         string  `yaml:"compute" json:"compute"` // of training and of answers: f32, bf16, or empty for the faster one
	Base            string  `yaml:"base" json:"base"`       // format of the frozen linears, in training and in answers
}

// Task is what adapters are scored on.
type Task struct {
	Task  string `yaml:"task" json:"task"` // built in, or a YAML file
	Rows  List   `yaml:"rows" json:"rows"`
	Split string `yaml:"split" json:"split,omitempty"`
	Where string `yaml:"where" json:"where,omitempty"`
	Limit int    `yaml:"limit" json:"limit,omitempty"` // of rows, chosen as eval.Options.Limit says; 0: all
	// ShotsFrom are files of rows to take examples from, those of ShotsSplit where that is said; none: Rows. An empty
	// ShotsSplit is Eval's.
	ShotsFrom  List   `yaml:"shots_from" json:"shots_from,omitempty"`
	ShotsSplit string `yaml:"shots_split" json:"shots_split,omitempty"`
}

// Eval are the settings of answers.
type Eval struct {
	BatchSize    int      `yaml:"batch_size" json:"batch_size"`
	Beams        int      `yaml:"beams" json:"beams"`
	MaxNewTokens int      `yaml:"max_new_tokens" json:"max_new_tokens"` // 0: each task's
	Stop         []string `yaml:"stop" json:"stop,omitempty"`
	Shots        *int     `yaml:"shots" json:"shots,omitempty"`             // examples before each question; nil: each task's
	ShotsSplit   string   `yaml:"shots_split" json:"shots_split,omitempty"` // of the rows to take examples from; empty: each task's
}

// Judge is a chat model behind an endpoint. What does not change a mark is in no file of results.
type Judge struct {
	Model               string         `yaml:"model" json:"model"`
	Rubric              string         `yaml:"rubric" json:"rubric,omitempty"` // file; empty: the built-in one
	NoTemperature       bool           `yaml:"no_temperature" json:"no_temperature,omitempty"`
	MaxTokens           int            `yaml:"max_tokens" json:"max_tokens,omitempty"`
	MaxCompletionTokens int            `yaml:"max_completion_tokens" json:"max_completion_tokens,omitempty"`
	BaseURL             string         `yaml:"base_url" json:"-"`
	KeyEnv              string         `yaml:"key_env" json:"-"`     // variable of the environment
	Concurrency         *int           `yaml:"concurrency" json:"-"` // nil, here and below: package ask's default
	RequestsPerMinute   float64        `yaml:"requests_per_minute" json:"-"`
	TokensPerMinute     float64        `yaml:"tokens_per_minute" json:"-"`
	Timeout             *time.Duration `yaml:"timeout" json:"-"`
	Attempts            *int           `yaml:"attempts" json:"-"`
}

// Defaults are the settings that a grid does not say: those of the packages that train and ask.
func Defaults() Grid {
	l, t, e := lora.Defaults(), train.Defaults(), eval.Defaults()
	return Grid{
		Seeds: []uint64{t.Seed},
		Train: Train{
			LoraR: l.R, LoraAlpha: l.LoraAlpha, LoraDropout: l.LoraDropout, TargetModules: l.TargetModules.List,
			LearningRate: t.LearningRate, LRSchedulerType: t.LRSchedulerType, MaxGradNorm: t.MaxGradNorm,
			BatchSize: t.PerDeviceTrainBatchSize, Accumulation: t.GradientAccumulationSteps, NumTrainEpochs: t.NumTrainEpochs,
		},
		Eval: Eval{BatchSize: e.BatchSize, Beams: e.Beams},
	}
}

// Load reads a grid from a YAML file of at most 64 KiB, and checks it by itself.
func Load(path string) (*Grid, error) {
	text, err := regular.ReadFile(path, strictyaml.MaxBytes)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Parse reads a grid's text; name stands for it in messages.
func Parse(name string, text []byte) (*Grid, error) {
	g := Defaults()
	if err := strictyaml.Unmarshal(name, text, &g); err != nil {
		return nil, err
	}
	for i := range g.Bases {
		g.Bases[i].Template = cmp.Or(g.Bases[i].Template, instruct.Alpaca.Name)
	}
	if err := g.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &g, nil
}

// safeName is what a directory can be called everywhere.
var safeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// Check gathers what is wrong with a grid by itself, the files that it names apart.
func (g *Grid) Check() error {
	var errs []error
	wrong := func(is bool, format string, a ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	wrong(len(g.Bases) == 0, "bases: there is none")
	wrong(len(g.Data) == 0, "data: there is no file of rows to train on")
	wrong(!g.Subsets.Standard && len(g.Subsets.List) == 0, "subsets: want a list of name, where and count, or the word standard")
	wrong(len(g.Seeds) == 0, "seeds: there is none")
	wrong(len(g.Tasks) == 0, "tasks: there is none")
	names := map[string]bool{} // in lower case, since they name directories
	for i, b := range g.Bases {
		key := "base " + strings.ToLower(b.Name)
		wrong(!safeName.MatchString(b.Name), "bases[%d]: name %q: want letters, digits and . _ + -", i, b.Name)
		wrong(names[key], "bases[%d]: a second base named %s", i, b.Name)
		wrong(b.Path == "", "bases[%d]: %s has no path", i, b.Name)
		names[key] = true
	}
	for i, s := range g.Subsets.List {
		key := "subset " + strings.ToLower(s.Name)
		wrong(!safeName.MatchString(s.Name), "subsets[%d]: name %q: want letters, digits and . _ + -", i, s.Name)
		wrong(names[key], "subsets[%d]: a second subset named %s", i, s.Name)
		wrong(s.Count < 0, "subsets[%d]: %s: a count of %d", i, s.Name, s.Count)
		_, err := mix.ParseWhere(s.Where)
		wrong(err != nil, "subsets[%d]: %s: where: %w", i, s.Name, err)
		names[key] = true
	}
	for i, seed := range g.Seeds {
		wrong(slices.Contains(g.Seeds[:i], seed), "seeds: %d is there twice", seed)
	}
	_, err := mix.ParseWhere(g.Where)
	wrong(err != nil, "where: %w", err)
	for i, t := range g.Tasks {
		wrong(t.Task == "", "tasks[%d]: which task? want one that is built in, or a file", i)
		wrong(len(t.Rows) == 0, "tasks[%d]: %s has no rows", i, t.Task)
		wrong(t.Split != "" && !slices.Contains(medtuned.Splits, t.Split), "tasks[%d]: split %q is none of %q", i, t.Split, medtuned.Splits)
		wrong(t.ShotsSplit != "" && !slices.Contains(medtuned.Splits, t.ShotsSplit), "tasks[%d]: shots_split %q is none of %q", i, t.ShotsSplit, medtuned.Splits)
		wrong(t.Limit < 0, "tasks[%d]: a limit of %d", i, t.Limit)
		_, err := mix.ParseWhere(t.Where)
		wrong(err != nil, "tasks[%d]: where: %w", i, err)
	}
	wrong(g.Eval.BatchSize < 1 || g.Eval.BatchSize > 4096, "eval: batch_size %d: want 1 to 4096", g.Eval.BatchSize)
	wrong(g.Eval.Beams < 1 || g.Eval.Beams > 64, "eval: beams %d: want 1 to 64", g.Eval.Beams)
	wrong(g.Eval.MaxNewTokens < 0, "eval: max_new_tokens %d", g.Eval.MaxNewTokens)
	wrong(slices.Contains(g.Eval.Stop, ""), "eval: an empty stop string ends every answer")
	if n := g.Eval.Shots; n != nil {
		wrong(*n < 0 || *n > medtuned.MaxShots, "eval: shots %d: want 0 to %d", *n, medtuned.MaxShots)
	}
	split := g.Eval.ShotsSplit
	wrong(split != "" && !slices.Contains(medtuned.Splits, split), "eval: shots_split %q is none of %q", split, medtuned.Splits)
	wrong(g.Judge != nil && g.Judge.Model == "", "judge: which model? want its name at the endpoint")
	if err := g.Train.check(); err != nil {
		errs = append(errs, fmt.Errorf("train: %w", err))
	}
	return errors.Join(errs...)
}

// inYAML says what is wrong with options by the names of the grid.
var inYAML = strings.NewReplacer("PerDeviceTrainBatchSize ", "per_device_train_batch_size ", "GradientAccumulationSteps ", "gradient_accumulation_steps ",
	"NumTrainEpochs ", "num_train_epochs ", "MaxSteps ", "max_steps ", "LearningRate ", "learning_rate ", "LRSchedulerType ", "lr_scheduler_type ",
	"WarmupSteps ", "warmup_steps ", "WarmupRatio ", "warmup_ratio ", "WeightDecay ", "weight_decay ", "MaxGradNorm ", "max_grad_norm ",
	"MaxSeqLength ", "max_seq_length ", "; start from Defaults", "; it must be above 0")

func (t *Train) check() error {
	errs := []error{t.lora(0).Validate()}
	if err := t.options(0).Validate(); err != nil {
		errs = append(errs, errors.New(inYAML.Replace(err.Error())))
	}
	if !slices.Contains([]string{"", "auto", "f32", "bf16"}, t.Compute) {
		errs = append(errs, fmt.Errorf("compute %q is none of auto, f32, bf16", t.Compute))
	}
	if t.Base != "" {
		_, err := model.ParseBase(t.Base)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// options are the settings as package train takes them.
func (t *Train) options(seed uint64) train.Options {
	o := train.Defaults()
	o.LearningRate, o.LRSchedulerType, o.WarmupSteps, o.WarmupRatio = t.LearningRate, t.LRSchedulerType, t.WarmupSteps, t.WarmupRatio
	o.WeightDecay, o.MaxGradNorm = t.WeightDecay, t.MaxGradNorm
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = t.BatchSize, t.Accumulation
	o.NumTrainEpochs, o.MaxSteps, o.MaxSeqLength = t.NumTrainEpochs, t.MaxSteps, t.MaxSeqLength
	o.TrainOnInputs, o.GroupByPrefix, o.Seed = t.TrainOnInputs, t.GroupByPrefix, seed
	return o
}

// lora are the settings as package lora takes them.
func (t *Train) lora(seed uint64) lora.Config {
	c := lora.Defaults()
	c.R, c.LoraAlpha, c.LoraDropout, c.UseRSLoRA, c.Seed = t.LoraR, t.LoraAlpha, t.LoraDropout, t.UseRSLoRA, seed
	c.TargetModules = lora.Names{List: t.TargetModules}
	if len(t.TargetModules) == 1 {
		c.TargetModules = lora.ParseNames(t.TargetModules[0])
	}
	return c
}
