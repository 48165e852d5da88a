package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
	"github.com/biolora/biolora/tokenizer"
)

// describeCheckpoint tells of a model: a directory or a GGUF file. It returns nothing where there is nothing of one.
func describeCheckpoint(path string, all bool) (*description, error) {
	d := newDescription(path, kindCheckpoint, all)
	ckpt, weightsErr := weights.Open(path)
	if weightsErr == nil {
		defer ckpt.Close()
		d.Format = ckpt.Format()
		d.addFiles(ckpt.Files()...)
		d.Tensors = newTensors(all)
		d.Tensors.addCheckpoint(ckpt)
	}
	configErr := d.describeConfig(path, ckpt)
	noConfig := errors.Is(configErr, fs.ErrNotExist)
	noWeights := errors.Is(weightsErr, fs.ErrNotExist) && !hasWeights(path)
	if noConfig && noWeights {
		d, err := describeTokenizer(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return d, err
	}
	d.refuse(weightsErr)
	d.refuse(configErr)
	if configErr != nil && d.Format == weights.GGUF { // its configuration is metadata, which is there and is not LLaMA's
		configErr = nil
		d.Model = ggufArchitecture(ckpt.Files()[0])
	}
	noTokenizer := d.describeTokenizer(path)
	if errors.Is(noTokenizer, fs.ErrNotExist) {
		d.warn("there is no tokenizer: only rows of token ids can be trained on")
		noTokenizer = nil
	}
	var broken error // what cannot be read, as opposed to what is not there
	if !noWeights {
		broken = weightsErr
	}
	if !noConfig {
		broken = errors.Join(broken, configErr)
	}
	if broken == nil {
		broken = noTokenizer // or else it would often only repeat what is wrong with config.json
	}
	if d.Model == nil && d.Tensors == nil {
		return nil, broken
	}
	return d.finish(), broken
}

// hasWeights says whether there is something that could be weights.
func hasWeights(dir string) bool {
	for _, name := range []string{weights.SingleFile, weights.IndexFile, weights.PickleFile, weights.PickleIndex} {
		if exists(filepath.Join(dir, name)) {
			return true
		}
	}
	for _, name := range []string{"consolidated.*", "*.gguf"} {
		if found, _ := filepath.Glob(filepath.Join(escape(dir), name)); len(found) > 0 {
			return true
		}
	}
	return false
}

// describeConfig tells what the configuration says of the model, and how it fits the weights, where these are open. The
// error is that of a file that cannot be read.
func (d *description) describeConfig(path string, ckpt *weights.Checkpoint) error {
	var o *strictjson.Object
	var source string
	var err error
	switch info, statErr := os.Stat(path); {
	case ckpt != nil:
		o, source, err = ckpt.Config()
	case statErr == nil && !info.IsDir():
		return fs.ErrNotExist // it is in the file that cannot be read
	default:
		source = filepath.Join(path, model.ConfigFile)
		o, err = strictjson.ReadObject(source, maxConfig)
	}
	if err != nil {
		return err
	}
	cfg := d.takeConfig(o, source)
	if ckpt == nil {
		return nil
	}
	if cfg == nil {
		d.Model.Parameters = d.Tensors.Elements
		return nil
	}
	for _, s := range cfg.Stored(ckpt) {
		if t, ok := ckpt.Tensor(s.Name); ok {
			d.Model.Parameters += int64(t.Len())
		}
	}
	fits, err := model.Describe(ckpt)
	if err != nil {
		d.refuse(err)
		return nil
	}
	d.Warnings = append([]string{}, fits.Warnings...)
	return nil
}

// maxConfig is the number of bytes that a config.json may have.
const maxConfig = 16 << 20

// takeConfig tells what a configuration says, and returns it if it can be used.
func (d *description) takeConfig(o *strictjson.Object, source string) *model.Config {
	cfg, warnings, err := model.ParseConfig(strictjson.Format(o), source)
	d.warn(warnings...)
	if err != nil {
		d.refuse(err)
		d.Model = foreign(o)
	} else {
		d.Model = newArchitecture(&cfg)
	}
	d.Model.Source = source
	if err != nil {
		return nil
	}
	return &cfg
}

// foreign tells of a configuration that cannot be used what it says in the usual words.
func foreign(o *strictjson.Object) *architecture {
	a := &architecture{}
	text := func(key string) string {
		v, _ := o.Get(key)
		s, _ := v.(string)
		return s
	}
	number := func(key string) int {
		v, _ := o.Get(key)
		n, _ := v.(json.Number)
		i, _ := n.Int64()
		return int(i)
	}
	a.ModelType, a.DType = text("model_type"), text("torch_dtype")
	if v, _ := o.Get("architectures"); v != nil {
		if list, _ := v.([]any); len(list) > 0 {
			a.Architecture, _ = list[0].(string)
		}
	}
	a.Layers, a.Hidden, a.Intermediate = number("num_hidden_layers"), number("hidden_size"), number("intermediate_size")
	a.Heads, a.KVHeads, a.HeadDim = number("num_attention_heads"), number("num_key_value_heads"), number("head_dim")
	a.Vocabulary, a.Context, a.SlidingWindow = number("vocab_size"), number("max_position_embeddings"), number("sliding_window")
	if v, _ := o.Get("tie_word_embeddings"); v == true {
		a.Tied = true
	}
	return a
}

// some writes the first of many.
func some(list []string) string {
	const most = 3
	if len(list) > most {
		return strings.Join(list[:most], ", ") + ", ..."
	}
	return strings.Join(list, ", ")
}

// tokenizerInfo is what is known of a tokenizer.
type tokenizerInfo struct {
	Format        string            `json:"format"`
	Size          int               `json:"size"` // ids
	BOS           *int32            `json:"bos_token_id"`
	EOS           *int32            `json:"eos_token_id"`
	Special       map[string]string `json:"special_tokens"` // by role
	ChatTemplates []string          `json:"chat_templates"` // names
	Files         []string          `json:"files"`
}

func newTokenizerInfo(t *tokenizer.Tokenizer) *tokenizerInfo {
	i := &tokenizerInfo{Format: t.Format(), Size: t.VocabSize(), Special: t.SpecialNames(), ChatTemplates: []string{}, Files: []string{}}
	for name := range t.ChatTemplates() {
		i.ChatTemplates = append(i.ChatTemplates, name)
	}
	slices.Sort(i.ChatTemplates)
	for _, f := range t.Files() {
		i.Files = append(i.Files, filepath.Base(f))
	}
	if id, ok := t.BOS(); ok {
		i.BOS = &id
	}
	if id, ok := t.EOS(); ok {
		i.EOS = &id
	}
	return i
}

// describeTokenizer tells of the tokenizer beside weights. What keeps it from being used is a reason against them, and
// an error unless it could be read.
func (d *description) describeTokenizer(path string) error {
	t, err := tokenizer.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		d.refuse(err)
		if errors.Is(err, tokenizer.ErrUnsupported) {
			return nil
		}
		return err
	}
	d.Tokenizer = newTokenizerInfo(t)
	d.warn(t.Warnings()...)
	if d.Model != nil && d.Model.Vocabulary > 0 && t.VocabSize() > d.Model.Vocabulary {
		d.warn(fmt.Sprintf("the tokenizer has %d tokens, the model %d", t.VocabSize(), d.Model.Vocabulary))
	}
	return nil
}

// escape makes a pattern that matches just a path.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// describeTokenizer tells of a tokenizer by itself.
func describeTokenizer(path string) (*description, error) {
	t, err := tokenizer.Load(path)
	if err != nil {
		return nil, err
	}
	d := newDescription(path, kindTokenizer, false)
	d.Tokenizer = newTokenizerInfo(t)
	d.addFiles(t.Files()...)
	d.warn(t.Warnings()...)
	return d.finish(), nil
}
