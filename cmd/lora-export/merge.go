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
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// merge is the command of that name.
type merge struct {
	Model     string `required:"" placeholder:"DIR" help:"Base model: a Hugging Face checkpoint directory."`
	Adapter   string `required:"" placeholder:"DIR" help:"Adapter: a PEFT directory."`
	Out       string `required:"" placeholder:"DIR" help:"Where the merged checkpoint goes: a new or empty directory."`
	Overwrite bool   `help:"Write to a directory that is not empty; replaces only what lora-export wrote."`
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
func (c *merge) run(ctx context.Context, stdout, stderr io.Writer) error {
	start := time.Now()
	cfg, modules, warnings, err := openModel(c.Model)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(stderr, "lora-export: warning:", w)
	}
	updates, err := readAdapter(c.Adapter, modules, cfg.TieWordEmbeddings)
	if err != nil {
		return err
	}
	ckpt, err := weights.Open(c.Model)
	if err != nil {
		return err
	}
	defer ckpt.Close()
	p, err := makePlan(&cfg, ckpt, updates)
	if err != nil {
		return err
	}
	copies, err := sideFiles(c.Model)
	if err != nil {
		return err
	}
	names := slices.Concat(ckpt.Outputs(), copies, []string{model.ConfigFile})
	out := &output{path: c.Out, overwrite: c.Overwrite}
	if err := out.check(names, c.Model, c.Adapter); err != nil {
		return err
	}
	err = out.fill(names, func(dir string) error {
		if err := ckpt.Rewrite(ctx, dir, p.changes); err != nil {
			return err
		}
		if err := copyFiles(dir, c.Model, copies); err != nil {
			return err
		}
		return writeConfig(dir, c.Model, p.untied)
	})
	if err != nil {
		return err
	}
	if p.untied {
		fmt.Fprintln(stdout, "embed_tokens and lm_head are two matrices now: both are stored, and tie_word_embeddings is false")
	}
	fmt.Fprintf(stdout, "merged %d modules of %s into %s: %s, %s of weights in %.1f s\n",
		len(updates), c.Adapter, c.Model, c.Out, size(ckpt.Bytes()), time.Since(start).Seconds())
	return nil
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

// sideFiles lists the files in dir that sidePatterns name.
func sideFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		// Stat, not the entry: a checkpoint in Hugging Face's cache consists of links.
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err != nil || !info.Mode().IsRegular() {
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

// writeConfig copies config.json. In that of a model that is no longer tied it changes the one key.
func writeConfig(to, from string, untied bool) error {
	const key = "tie_word_embeddings"
	to, from = filepath.Join(to, model.ConfigFile), filepath.Join(from, model.ConfigFile)
	if !untied {
		return copyFile(to, from)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	o, err := strictjson.ParseObject(data)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	o.Set(key, false)
	return atomicfile.Write(to, func(w io.Writer) error {
		_, err := w.Write(strictjson.Format(o))
		return err
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
