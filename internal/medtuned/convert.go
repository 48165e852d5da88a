package medtuned

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/biolora/biolora/internal/rows"
)

// Converter makes rows of the files of one corpus.
type Converter struct {
	Name   string // the task's, and the source of its rows
	Task   Task
	Format string // what files it takes and what must be in them, for people
	More   string // other files that it takes, or empty
	// Seen are the shapes of files that were read from the corpus itself, and Told those that are known from public
	// descriptions, or from programs that read them.
	Seen, Told string

	trainOnly bool // the corpus has no splits
	items     itemsFunc
}

// itemsFunc reads what the rows are made of. It tells skip of records that are no rows of the task. Errors are as in
// package rows.
type itemsFunc func(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error]

type skipFunc func(place rows.Place, why string)

// item is what a row is made of.
type item struct {
	place  rows.Place
	key    string // names the item in its file
	global bool   // or in the whole corpus
	split  string // where it is not the file's

	instruction   string // where the corpus has its own
	section       string // of a note, for wordings that name it
	input, output string
}

// Options say how rows are made.
type Options struct {
	// Seed chooses among an instruction's wordings, together with the row's id.
	Seed uint64
	// Split is the rows' split: train, dev or test. Empty: the file's name says it.
	Split string
	// Source is the rows' source. Empty: the converter's name.
	Source string
	// Instructions are wordings by task, instead of the tasks' own; see ReadInstructions.
	Instructions map[string][]string
	// Skipped, if set, is told of each record that is no row of the task, such as a question of another type.
	Skipped func(place rows.Place, why string)
}

// Converters returns all converters by name. The error is one of this package's own files.
func Converters() ([]Converter, error) {
	all := slices.Clone(converters)
	for i := range all {
		var err error
		if all[i].Task, err = LoadTask(all[i].Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Lookup returns the converter of that name.
func Lookup(name string) (Converter, error) {
	all, err := Converters()
	if err != nil {
		return Converter{}, err
	}
	var names []string
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return Converter{}, fmt.Errorf("no converter %q; there are %s", name, strings.Join(names, ", "))
}

// Describe tells a person what the converter does and what files it needs.
func (c Converter) Describe() string {
	known := map[string]string{
		"read":     "[F] The rows have the shape of Llama2-MedTuned's data (Rohanian et al., 2023).",
		"inferred": "[I] The shape of the rows is inferred from the papers, not published.",
		"own":      "[N] The shape of the rows is our own: the papers publish none.",
	}[c.Task.Shape]
	files := strings.TrimSpace(c.Format)
	if c.More != "" {
		files += "\n\n" + strings.TrimSpace(c.More)
	}
	return fmt.Sprintf("%s: %s\ncategory %s; metrics %s; answers are read as %s, up to %d tokens; %d wordings\n%s\n%s\n\n%s\n",
		c.Name, c.Task.Title, c.Task.Category, strings.Join(c.Task.Metrics, ", "), c.Task.Parser, c.Task.MaxNewTokens,
		len(c.Task.Instructions), known, c.Tried(), files)
}

// Tried says on what the converter was tried.
func (c Converter) Tried() string {
	var parts []string
	if c.Seen != "" {
		parts = append(parts, "tried on the corpus: "+c.Seen)
	}
	if c.Told != "" {
		parts = append(parts, "known from descriptions only: "+c.Told)
	}
	return strings.Join(parts, "; ")
}

// Convert makes rows of files. After a bad record, which is a *rows.Error, the sequence goes on; any other error is its
// end. rows.Bad gathers the bad ones.
func (c Converter) Convert(ctx context.Context, files []string, o Options) iter.Seq2[rows.Row, error] {
	return func(yield func(rows.Row, error) bool) {
		splits, err := c.check(files, &o)
		if err != nil {
			yield(rows.Row{}, err)
			return
		}
		for it, err := range c.items(ctx, files, &c.Task, o.Skipped) {
			var row rows.Row
			if err == nil {
				row, err = c.row(&it, &o, splits)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// check completes the options, and says what split each file is.
func (c Converter) check(files []string, o *Options) (splits map[string]string, err error) {
	var errs []error
	if len(files) == 0 {
		errs = append(errs, fmt.Errorf("%s: no files", c.Name))
	}
	if o.Split != "" && !slices.Contains(Splits, o.Split) {
		errs = append(errs, fmt.Errorf("split %q is none of %s", o.Split, strings.Join(Splits, ", ")))
	}
	if o.Source == "" {
		o.Source = c.Name
	}
	if o.Skipped == nil {
		o.Skipped = func(rows.Place, string) {}
	}
	if wordings := o.Instructions[c.Task.Name]; wordings != nil {
		if len(wordings) == 0 {
			errs = append(errs, errors.New("the list of instructions is empty"))
		}
		errs = append(errs, checkInstructions(wordings))
	}
	splits = map[string]string{}
	stems := map[string]string{}
	truth := slices.ContainsFunc(files, func(f string) bool { return isTruth(c.Name, f) })
	if truth && o.Split != "" {
		errs = append(errs, fmt.Errorf("the split %s is given, and a list of the test questions besides: one of the two", o.Split))
	}
	for _, f := range files {
		if other, ok := stems[stem(f)]; ok {
			errs = append(errs, fmt.Errorf("%s and %s: rows of files with the same name would have the same ids", other, f))
		}
		stems[stem(f)] = f
		if truth {
			continue // its rows say their split
		}
		if splits[f], err = c.split(f, o.Split); err != nil {
			errs = append(errs, err)
		}
	}
	return splits, errors.Join(errs...)
}

// split is that of a file's rows.
func (c Converter) split(file, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	found := SplitsNamed(file)
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && c.trainOnly:
		return "train", nil
	case len(found) == 0:
		if _, err := os.Stat(file); err != nil { // a name that is mistyped, not one that says too little
			return "", err
		}
		return "", fmt.Errorf("%s: the name does not say the split: give train, dev or test", file)
	}
	return "", fmt.Errorf("%s: the name says more than one split (%s): give the one it is", file, strings.Join(found, ", "))
}

// Splits are what a row's split may be.
var Splits = []string{"train", "dev", "test"}

var splitWords = map[string]string{
	"train": "train", "training": "train",
	"dev": "dev", "devel": "dev", "development": "dev", "val": "dev", "valid": "dev", "validation": "dev",
	"test": "test", "testing": "test", "golden": "test",
}

// SplitsNamed are the splits that the words of a file's name mean, each once: those of "mts-test1.csv" are test.
func SplitsNamed(file string) (found []string) {
	words := strings.FieldsFunc(strings.ToLower(filepath.Base(file)), func(r rune) bool { return !unicode.IsLetter(r) })
	for _, w := range words {
		if s, ok := splitWords[w]; ok && !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	return found
}

// stem is a file's name without folder and last extension.
func stem(file string) string {
	base := filepath.Base(file)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// row makes a row of an item.
func (c Converter) row(it *item, o *Options, splits map[string]string) (rows.Row, error) {
	r := rows.Row{
		Input: it.input, Output: it.output, Task: c.Task.Name, Category: c.Task.Category, Source: o.Source,
		Split: it.split, ID: o.Source + "/" + stem(it.place.File) + "/" + it.key,
	}
	if it.global {
		r.ID = o.Source + "/" + it.key
	}
	if r.Split == "" {
		r.Split = splits[it.place.File]
	}
	if r.Instruction = it.instruction; r.Instruction == "" {
		wordings := c.Task.Instructions
		if w := o.Instructions[c.Task.Name]; w != nil {
			wordings = w
		}
		r.Instruction = strings.ReplaceAll(wordings[Choose(o.Seed, r.ID, len(wordings))], section, it.section)
	}
	if err := r.Check(); err != nil {
		return rows.Row{}, &rows.Error{Place: it.place, Err: err}
	}
	return r, nil
}

// Choose picks one of n wordings for a row: a number from 0 to n-1 that depends on seed and id alone.
func Choose(seed uint64, id string, n int) int {
	sum := sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, seed), id...))
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(sum[:]), uint64(n))
	return int(hi)
}
