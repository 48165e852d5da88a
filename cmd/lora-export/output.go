package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// manifestName is the file that lists what lora-export wrote into a directory.
const manifestName = ".lora-export"

const manifestHead = "# What lora-export wrote here. --overwrite replaces these files and nothing else.\n"

// stageName is the directory inside an output directory in which the new files come into being.
const stageName = ".lora-export-new"

// output is a directory that receives files all at once.
type output struct {
	path      string
	overwrite bool
}

// check says why the files called names could not be put here, before anything is changed. Inputs are directories that
// are read.
func (o *output) check(names []string, inputs ...string) error {
	entries, err := os.ReadDir(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	here, err := os.Stat(o.path)
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	for _, in := range inputs {
		if st, err := os.Stat(in); err == nil && os.SameFile(st, here) {
			return fmt.Errorf("output directory %s is where %s is read from: name another --out", o.path, in)
		}
	}
	if len(entries) > 0 && !o.overwrite {
		return fmt.Errorf("output directory %s is not empty (%d entries, the first is %s): name another --out, or give --overwrite, "+
			"which replaces only what lora-export wrote", o.path, len(entries), entries[0].Name())
	}
	owned, err := o.owned()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range append(names, manifestName) {
		path := filepath.Join(o.path, name)
		if exists(path) && !slices.Contains(owned, name) {
			errs = append(errs, fmt.Errorf("%s is in the way and was not written by lora-export: move it, or name another --out", path))
		}
	}
	return errors.Join(errs...)
}

// owned returns the files in the directory that an earlier run wrote. Names that no run writes are not believed.
func (o *output) owned() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(o.path, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	body, ok := strings.CutPrefix(string(text), manifestHead)
	if !ok {
		return nil, nil
	}
	owned := []string{manifestName}
	for _, name := range strings.Split(body, "\n") {
		if filepath.Base(name) == name && (isWeights(name) || isSideFile(name) || name == model.ConfigFile) {
			owned = append(owned, name)
		}
	}
	return owned, nil
}

func isWeights(name string) bool {
	return name == weights.IndexFile || strings.HasSuffix(name, ".safetensors")
}

// fill lets make write the files called names into an empty directory and then puts them in place, the last of names
// last. If make fails, everything is as it was.
func (o *output) fill(names []string, make func(dir string) error) (err error) {
	made := !exists(o.path)
	if err := os.MkdirAll(o.path, 0o777); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	stage := filepath.Join(o.path, stageName)
	defer func() {
		err = errors.Join(err, os.RemoveAll(stage))
		if err != nil && made {
			os.Remove(o.path) // only if nothing is in it
		}
	}()
	if err := os.RemoveAll(stage); err != nil { // of a run that was killed
		return fmt.Errorf("output directory: %w", err)
	}
	if err := os.Mkdir(stage, 0o777); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if err := make(stage); err != nil {
		return err
	}
	return o.replace(stage, names)
}

// replace moves the new files into place and removes those of an earlier run that have no successor. Whenever it is
// broken off, the manifest lists all files that are ours.
func (o *output) replace(stage string, names []string) error {
	owned, err := o.owned()
	if err != nil {
		return err
	}
	if err := o.writeManifest(append(slices.Clone(names), owned...)); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(stage, name), filepath.Join(o.path, name)); err != nil {
			return fmt.Errorf("output directory: %w", err)
		}
	}
	for _, name := range owned {
		if name == manifestName || slices.Contains(names, name) {
			continue
		}
		if err := os.Remove(filepath.Join(o.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("output directory: %w", err)
		}
	}
	return o.writeManifest(names)
}

func (o *output) writeManifest(names []string) error {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	names = slices.DeleteFunc(names, func(n string) bool { return n == manifestName })
	text := manifestHead + strings.Join(names, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(o.path, manifestName), []byte(text), 0o666); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	return nil
}
