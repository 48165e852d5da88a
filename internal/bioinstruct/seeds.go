package bioinstruct

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictjson"
)

// Categories are the kinds of tasks that BioInstruct's authors tell apart: question answering, information extraction,
// generation of text, and other.
var Categories = []string{"QA", "IE", "GEN", "other"}

// Seed is a task written by people, with one answer. Its JSON is what journals have.
type Seed struct {
	Name        string `json:"name"`
	Instruction string `json:"instruction"`
	Input       string `json:"input"` // may be empty
	Output      string `json:"output"`
	Category    string `json:"category,omitempty"` // one of Categories, or empty where the file does not say
}

//go:embed seeds.jsonl
var ownSeeds []byte

// Seeds returns the 80 seed tasks of this project, which were written for it. They are not those of BioInstruct's authors.
func Seeds() ([]Seed, error) { return parseSeeds("seeds.jsonl", ownSeeds) }

// maxSeeds is how many bytes a file of seeds may have.
const maxSeeds = 64 << 20

// ReadSeeds reads seed tasks in Self-Instruct's format, an object a line: id, name, instruction, instances (of which the
// first, {input, output}, is used), is_classification; and category, which Self-Instruct has not. All that is wrong is told.
func ReadSeeds(path string) ([]Seed, error) {
	text, err := regular.ReadFile(path, maxSeeds)
	if err != nil {
		return nil, err
	}
	return parseSeeds(path, text)
}

func parseSeeds(name string, text []byte) (seeds []Seed, err error) {
	var errs []error
	for i, line := range bytes.Split(text, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		s, err := parseSeed(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, i+1, err))
			continue
		}
		seeds = append(seeds, s)
	}
	if len(seeds) < examples && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: %d seed tasks; each prompt shows %d", name, len(seeds), examples))
	}
	return seeds, errors.Join(errs...)
}

func parseSeed(line []byte) (s Seed, err error) {
	o, err := strictjson.ParseObject(line)
	if err != nil {
		return s, err
	}
	var errs []error
	read := func(o *strictjson.Object, key string, required bool) string {
		v, ok := o.Get(key)
		text, isText := v.(string)
		text = strings.TrimSpace(text)
		if ok && !isText || required && text == "" {
			errs = append(errs, fmt.Errorf("%s: want a text, got %s", key, strictjson.Kind(v)))
		}
		return text
	}
	s.Name = read(o, "id", true)
	if name := read(o, "name", false); name != "" {
		s.Name = name
	}
	s.Instruction = read(o, "instruction", true)
	s.Category = read(o, "category", false)
	if s.Category != "" && !slices.Contains(Categories, s.Category) {
		errs = append(errs, fmt.Errorf("category %q is none of %s", s.Category, strings.Join(Categories, ", ")))
	}
	v, _ := o.Get("instances")
	list, _ := v.([]any)
	var first *strictjson.Object
	if len(list) > 0 {
		first, _ = list[0].(*strictjson.Object)
	}
	if first == nil {
		return s, errors.Join(append(errs, errors.New("instances: want a list of objects {input, output}, at least one"))...)
	}
	s.Input, s.Output = read(first, "input", false), read(first, "output", true)
	return s, errors.Join(errs...)
}
