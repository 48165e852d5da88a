package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/internal/strictyaml"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
	"github.com/biolora/biolora/train"
)

// merge is the command of that name.
type merge struct {
	Model     string `required:"" placeholder:"DIR|FILE" help:"Base model: a checkpoint directory, or a .gguf file."`
	Adapter   string `required:"" placeholder:"DIR" help:"Adapter: a PEFT directory."`
	Out       string `required:"" placeholder:"DIR" help:"Where the merged checkpoint goes: a new or empty directory."`
	DType     string `name:"dtype" placeholder:"f32|f16|bf16" enum:",f32,f16,bf16" default:"" help:"Format of all weights. Without it each keeps its own; quantised ones become bf16."`
	Base      string `name:"base" placeholder:"none|nf4|int8" enum:"none,nf4,int8" default:"none" help:"What an adapter that was trained with lora-train --base is merged into. none: the checkpoint's own weights. nf4, int8: the values that it was trained against; all linears of the layers get these, adapted or not, in the formats that they have."`
	CacheDir  string `name:"cache-dir" placeholder:"DIR" help:"Where lora-train keeps quantised weights. Without it: .biolora beside the checkpoint, or the user's cache directory."`
	Overwrite bool   `help:"Write to a directory that is not empty; replaces only what lora-export wrote."`
}

// dtypes are the values of --dtype, and how config.json spells them.
var dtypes = map[string]struct {
	format numeric.DType
	name   string
}{
	"f32": {numeric.F32, "float32"}, "f16": {numeric.F16, "float16"}, "bf16": {numeric.BF16, "bfloat16"},
}

// update is what an adapter makes of the matrix of one module.
type update struct {
	module string // in full: "model.layers.0.self_attn.q_proj"
	shape  []int  // [out, in]
	whole  bool   // the matrix is replaced, not added to
	// apply turns the base's rows [from, to) in dst into the merged ones.
	apply func(dst []float32, from, to int) error
}

// run merges. Everything that can be checked is checked before anything is written.
func (c *merge) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	start := time.Now()
	ckpt, err := weights.Open(c.Model)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ckpt.Close()) }()
	d, err := model.Describe(ckpt)
	if err != nil {
		return err
	}
	for _, w := range d.Warnings {
		fmt.Fprintln(stderr, "lora-export: warning:", w)
	}
	updates, err := readAdapter(c.Adapter, modules(d), d.Config.TieWordEmbeddings)
	if err != nil {
		return err
	}
	p, copied, err := c.plan(ckpt, d, updates)
	if err != nil {
		return err
	}
	copies, err := sideFiles(ckpt)
	if err != nil {
		return err
	}
	names := slices.Concat(copied.Files(), copies, []string{model.ConfigFile})
	out := &output{path: c.Out, overwrite: c.Overwrite}
	if err := out.check(names, ckpt.Dir(), c.Adapter); err != nil {
		return err
	}
	if c.Base != quant.None.String() {
		if err := c.quantise(ctx, ckpt, d); err != nil {
			return err
		}
		if p, copied, err = c.plan(ckpt, d, updates); err != nil { // of the values that there are now
			return err
		}
	}
	err = out.fill(names, func(dir string) error {
		if err := copied.Write(ctx, dir); err != nil {
			return err
		}
		if err := copyFiles(dir, ckpt.Dir(), copies); err != nil {
			return err
		}
		return c.writeConfig(dir, ckpt, p.untied)
	})
	if err != nil {
		return err
	}
	c.tell(stdout, ckpt, p.untied, copies)
	fmt.Fprintf(stdout, "merged %d modules of %s into %s: %s, %s of weights in %.1f s\n",
		len(updates), c.Adapter, c.Model, c.Out, size(copied.Bytes()), time.Since(start).Seconds())
	return nil
}

// plan finds what becomes of the checkpoint's tensors.
func (c *merge) plan(ckpt *weights.Checkpoint, d *model.Description, updates []update) (*plan, *weights.Rewrite, error) {
	p, err := makePlan(&d.Config, ckpt, updates)
	if err != nil {
		return nil, nil, err
	}
	copied, err := ckpt.Rewrite(p.changes, dtypes[c.DType].format)
	return p, copied, err
}

// quantise gives the layers' linears the values that they have in a run with this base.
func (c *merge) quantise(ctx context.Context, ckpt *weights.Checkpoint, d *model.Description) error {
	f, err := model.ParseBase(c.Base)
	if err != nil {
		return err
	}
	names := d.Config.Quantised()
	return ckpt.Prepare(ctx, weights.PrepareOptions{CacheDir: c.CacheDir, Names: names, Quant: f, Quantised: names})
}

// trainedBase is the base that run.yaml beside an adapter names, or above it where the adapter is a run's best one;
// "" where there is no such thing.
func trainedBase(dir string) string {
	if filepath.Base(dir) == train.BestDir {
		dir = filepath.Dir(dir)
	}
	text, err := regular.ReadFile(filepath.Join(dir, "run.yaml"), strictyaml.MaxBytes)
	if err != nil {
		return ""
	}
	entries, err := strictyaml.Parse(text)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.Key.GetToken().Value != "base" {
			continue
		}
		base, _, _ := strictyaml.Scalar(e.Value)
		if f, err := model.ParseBase(base); err == nil && f != quant.None {
			return base
		}
	}
	return ""
}

// tell says what is not as one might think.
func (c *merge) tell(stdout io.Writer, ckpt *weights.Checkpoint, untied bool, copies []string) {
	if untied {
		fmt.Fprintln(stdout, "embed_tokens and lm_head are two matrices now: both are stored, and tie_word_embeddings is false")
	}
	if trained := trainedBase(c.Adapter); trained != "" && trained != c.Base {
		fmt.Fprintf(stdout, "the adapter was trained on the base in %s: --base %s merges it into the values that it was trained against\n", trained, trained)
	}
	tokenizer := func(name string) bool { return name == "tokenizer.json" || name == "tokenizer.model" }
	if ckpt.Format() == weights.GGUF && !slices.ContainsFunc(copies, tokenizer) {
		fmt.Fprintf(stdout, "the tokenizer of a .gguf file cannot be copied as a file: put the model's tokenizer files into %s\n", c.Out)
	}
}

// size writes a number of bytes in decimal units.
func size(n int64) string {
	f, units := float64(n), []string{"bytes", "kB", "MB", "GB", "TB"}
	for f >= 1000 && len(units) > 1 {
		f, units = f/1000, units[1:]
	}
	return fmt.Sprintf("%.3g %s", f, units[0])
}

// sidePatterns are the files beside the weights that a checkpoint needs: what it generates with, its tokenizer in any
// of its forms, its chat template, and the terms under which it may be passed on.
var sidePatterns = []string{
	"generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
	"added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
	"LICENSE*", "USE_POLICY*", "NOTICE*",
}

// sideFiles lists the files beside the weights that sidePatterns name. Those beside a .gguf file that was named itself
// may belong to other models.
func sideFiles(ckpt *weights.Checkpoint) ([]string, error) {
	if ckpt.Path() != ckpt.Dir() {
		return nil, nil
	}
	entries, err := os.ReadDir(ckpt.Dir())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		// Stat, not the entry: a checkpoint in Hugging Face's cache consists of links.
		if info, err := os.Stat(filepath.Join(ckpt.Dir(), e.Name())); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if isSideFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func isSideFile(name string) bool {
	return slices.ContainsFunc(sidePatterns, func(pattern string) bool {
		ok, _ := filepath.Match(pattern, name)
		return ok
	})
}

func copyFiles(to, from string, names []string) error {
	for _, name := range names {
		if err := copyFile(filepath.Join(to, name), filepath.Join(from, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.Write(to, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

// writeConfig copies config.json, with what the merged model has otherwise, or writes the one that was made of what
// the checkpoint has in its place.
func (c *merge) writeConfig(dir string, ckpt *weights.Checkpoint, untied bool) error {
	o, from, err := ckpt.Config()
	if err != nil {
		return err
	}
	to := filepath.Join(dir, model.ConfigFile)
	made := filepath.Base(from) != model.ConfigFile
	if !made && !untied && c.DType == "" {
		return copyFile(to, from)
	}
	if untied {
		o.Set("tie_word_embeddings", false)
	}
	c.setDType(o, made)
	return atomicfile.Write(to, func(w io.Writer) error {
		_, err := w.Write(strictjson.Format(o))
		return err
	})
}

// setDType names the format of the weights, under the key that is there: Transformers has had two. Only quantised
// weights, whose configuration is made, have no name, and are bfloat16 now.
func (c *merge) setDType(o *strictjson.Object, made bool) {
	const old, now = "torch_dtype", "dtype"
	key := old
	if _, ok := o.Get(now); ok {
		key = now
	}
	_, named := o.Get(key)
	switch {
	case c.DType != "":
		o.Set(key, dtypes[c.DType].name)
	case made && !named:
		o.Set(key, dtypes["bf16"].name)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
