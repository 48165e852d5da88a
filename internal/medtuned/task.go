package medtuned

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictyaml"
)

// Task is what is asked of a model in one kind of row, and how its answers are judged.
type Task struct {
	Name     string
	Title    string // one line for people
	Category string // QA, IE, GEN or other
	// Metrics are the figures that answers get, the first of them before all others: those of the parser in package
	// eval/metrics, by its names, and judge for text.
	Metrics []string
	// Parser is how an answer is read, a kind of package eval/metrics: choice (one of the options that the input lists, see
	// Choices), label (one of Labels), labels (several of Labels), tags (a line "token : tag" for each token), text.
	Parser string
	// Labels are what an answer may name: of tags B, I and O, or the types. Of labels and tags there may be none: then it
	// may name anything.
	Labels []string
	// Aliases are other spellings of labels.
	Aliases map[string]string
	// None is the answer that stands for no label, or empty.
	None         string
	MaxNewTokens int
	// Shape is how the shape of input and output is known: "read" in the papers' data or code, "inferred", or "own" where
	// nothing is published.
	Shape        string
	Instructions []string // wordings, of which a row gets one; may have the placeholder {section}

	// How a model is asked, where nothing else is said.
	Template string   // of the prompt, by its name or file; empty: nothing is said
	Stop     []string // texts that end an answer
	Shots    int      // examples before the question
	// ShotsSplit is the split that the examples are of, where they come from the files of the questions.
	ShotsSplit string
}

// What a task may say.
var (
	Categories = []string{"QA", "IE", "GEN", "other"}
	Shapes     = []string{"read", "inferred", "own"}
	Parsers    = []string{"choice", "label", "labels", "tags", "text"}
	// Metrics are those of each parser.
	Metrics = map[string][]string{
		"choice": {"accuracy"},
		"label":  {"accuracy", "micro_f1", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "exact_match"},
		"labels": {"example_f1", "example_precision", "example_recall", "micro_f1", "micro_precision", "micro_recall", "macro_f1", "exact_match"},
		"tags":   {"f1", "precision", "recall", "macro_f1", "strict_f1", "strict_precision", "strict_recall", "repository_f1", "token_accuracy"},
		"text":   {"judge", "rougeL", "rouge1", "rouge2", "rougeLsum", "exact_match"},
	}
)

const (
	maxNewTokens = 1 << 16 // of an answer that a task may ask for
	MaxShots     = 64
)

//go:embed tasks/*.yaml
var taskFiles embed.FS

var builtin = sync.OnceValues(func() (tasks []Task, err error) {
	files, err := taskFiles.ReadDir("tasks")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := taskFiles.ReadFile("tasks/" + f.Name())
		if err != nil {
			return nil, err
		}
		t, err := parseTask(f.Name(), text)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(a, b Task) int { return strings.Compare(a.Name, b.Name) })
	return tasks, nil
})

// Tasks returns the built-in tasks by name. The error is one of this package's own files.
func Tasks() ([]Task, error) {
	tasks, err := builtin()
	return slices.Clone(tasks), err
}

// LoadTask returns the built-in task of that name, or reads a file; see ReadTask.
func LoadTask(nameOrFile string) (Task, error) {
	tasks, err := builtin()
	if err != nil {
		return Task{}, err
	}
	for _, t := range tasks {
		if t.Name == nameOrFile {
			return t, nil
		}
	}
	f, err := regular.Open(nameOrFile)
	if err != nil {
		return Task{}, fmt.Errorf("task %q is neither built in (%s) nor a file that can be read: %w", nameOrFile, strings.Join(names(tasks), ", "), err)
	}
	defer f.Close()
	return ReadTask(nameOrFile, f)
}

func names(tasks []Task) (list []string) {
	for _, t := range tasks {
		list = append(list, t.Name)
	}
	return list
}

// ReadTask reads a task from YAML, of at most 64 KiB. The keys are name, title, category, metrics, parser, labels, aliases (another
// spelling: the label), none, max_new_tokens, shape (left out: own), instructions, template, stop, shots and shots_split; where name is left out,
// it is the file's without .yaml.
func ReadTask(name string, src io.Reader) (Task, error) {
	text, err := io.ReadAll(io.LimitReader(src, strictyaml.MaxBytes+1))
	if err != nil {
		return Task{}, fmt.Errorf("%s: %w", name, err)
	}
	return parseTask(name, text)
}

func parseTask(file string, text []byte) (Task, error) {
	entries, err := strictyaml.Parse(text)
	if err != nil {
		return Task{}, strictyaml.In(file, err)
	}
	t := Task{Name: strings.TrimSuffix(path.Base(strings.ReplaceAll(file, `\`, "/")), ".yaml"), Shape: "own"}
	var number, shots string
	texts := map[string]*string{
		"name": &t.Name, "title": &t.Title, "category": &t.Category, "parser": &t.Parser, "none": &t.None, "shape": &t.Shape, "max_new_tokens": &number,
		"template": &t.Template, "shots": &shots, "shots_split": &t.ShotsSplit,
	}
	lists := map[string]*[]string{"metrics": &t.Metrics, "labels": &t.Labels, "instructions": &t.Instructions}
	var errs []error
	for _, e := range entries {
		key := e.Key.GetToken().Value
		if into, ok := texts[key]; ok {
			*into, err = scalar(e.Value)
		} else if into, ok := lists[key]; ok {
			*into, err = list(e.Value)
		} else if key == "aliases" {
			t.Aliases, err = mapping(e.Value)
		} else if key == "stop" { // where white space counts
			t.Stop, err = items(e.Value, verbatim)
		} else {
			err = errors.New("unknown key; it may be name, title, category, metrics, parser, labels, aliases, none, max_new_tokens, shape, instructions, template, stop, shots, shots_split")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w", file, e.Key.GetToken().Position.Line, key, err))
		}
	}
	whole := func(key, text string, into *int) {
		if text == "" {
			return
		}
		if *into, err = strconv.Atoi(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: expected a whole number, got %q", file, key, text))
		}
	}
	whole("max_new_tokens", number, &t.MaxNewTokens)
	whole("shots", shots, &t.Shots)
	if len(errs) == 0 {
		errs = append(errs, strictyaml.In(file, t.Check()))
	}
	if err := errors.Join(errs...); err != nil {
		return Task{}, err
	}
	return t, nil
}

// Check says all that is wrong with a task.
func (t *Task) Check() error {
	var errs []error
	one := func(key, value string, of []string) {
		if !slices.Contains(of, value) {
			errs = append(errs, fmt.Errorf("%s: %q is none of %s", key, value, strings.Join(of, ", ")))
		}
	}
	if !nameForm.MatchString(t.Name) {
		errs = append(errs, fmt.Errorf("name: %q is not made of small letters, digits and hyphens", t.Name))
	}
	one("category", t.Category, Categories)
	one("parser", t.Parser, Parsers)
	one("shape", t.Shape, Shapes)
	if len(t.Metrics) == 0 {
		errs = append(errs, errors.New("metrics: none is given"))
	}
	for _, m := range t.Metrics {
		if of, ok := Metrics[t.Parser]; ok {
			one("metrics", m, of)
		}
	}
	if t.Parser == "label" && len(t.Labels) == 0 {
		errs = append(errs, fmt.Errorf("labels: none is given, and the parser %s reads them", t.Parser))
	}
	if !slices.Contains([]string{"label", "labels", "tags"}, t.Parser) && len(t.Labels) > 0 {
		errs = append(errs, fmt.Errorf("labels: the parser %s does not read them", t.Parser))
	}
	if t.None != "" && t.Parser != "labels" {
		errs = append(errs, errors.New("none: the answer for no label is for the parser labels"))
	}
	for _, other := range slices.Sorted(maps.Keys(t.Aliases)) {
		one("aliases: "+other, t.Aliases[other], t.Labels)
	}
	if t.MaxNewTokens < 1 || t.MaxNewTokens > maxNewTokens {
		errs = append(errs, fmt.Errorf("max_new_tokens: %d is not from 1 to %d", t.MaxNewTokens, maxNewTokens))
	}
	if t.Shots < 0 || t.Shots > MaxShots {
		errs = append(errs, fmt.Errorf("shots: %d is not from 0 to %d", t.Shots, MaxShots))
	}
	if t.ShotsSplit != "" {
		one("shots_split", t.ShotsSplit, Splits)
	}
	if slices.Contains(t.Stop, "") {
		errs = append(errs, errors.New("stop: an empty text ends every answer"))
	}
	if len(t.Instructions) == 0 {
		errs = append(errs, errors.New("instructions: none is given"))
	}
	return errors.Join(append(errs, checkInstructions(t.Instructions))...)
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	placeholder = regexp.MustCompile(`\{[A-Za-z_][A-Za-z0-9_]*\}`)
)

// section is the one placeholder of instructions: the section of a note that a dialogue is to become.
const section = "{section}"

func checkInstructions(list []string) error {
	var errs []error
	for i, s := range list {
		if strings.TrimSpace(s) == "" {
			errs = append(errs, fmt.Errorf("instructions[%d] is empty", i))
		}
		for _, p := range placeholder.FindAllString(s, -1) {
			if p != section {
				errs = append(errs, fmt.Errorf("instructions[%d] has the placeholder %s; the only one is %s", i, p, section))
			}
		}
	}
	return errors.Join(errs...)
}

// ReadInstructions reads a user's wordings from a YAML file of at most 64 KiB: names of tasks, each with a list of
// instructions that are used instead of the task's own.
func ReadInstructions(file string) (map[string][]string, error) {
	text, err := regular.ReadFile(file, strictyaml.MaxBytes)
	if err != nil {
		return nil, err
	}
	entries, err := strictyaml.Parse(text)
	if err != nil {
		return nil, strictyaml.In(file, err)
	}
	tasks, err := builtin()
	if err != nil {
		return nil, err
	}
	var errs []error
	known := names(tasks)
	all := map[string][]string{}
	for _, e := range entries {
		key := e.Key.GetToken().Value
		fail := func(err error) {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w", file, e.Key.GetToken().Position.Line, key, err))
		}
		wordings, err := list(e.Value)
		if err == nil && len(wordings) == 0 {
			err = errors.New("the list is empty")
		}
		if err == nil {
			err = checkInstructions(wordings)
		}
		if !slices.Contains(known, key) {
			err = fmt.Errorf("no such task; there are %s", strings.Join(known, ", "))
		}
		if err != nil {
			fail(err)
		}
		all[key] = wordings
	}
	return all, errors.Join(errs...)
}

func scalar(n ast.Node) (string, error) {
	s, err := verbatim(n)
	return strings.TrimSpace(s), err
}

// verbatim is scalar with the space at its ends.
func verbatim(n ast.Node) (string, error) {
	s, _, ok := strictyaml.Scalar(n)
	if !ok {
		return "", fmt.Errorf("expected a text, got %s", strictyaml.Describe(n))
	}
	return s, nil
}

// mapping reads names and texts.
func mapping(n ast.Node) (map[string]string, error) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, fmt.Errorf("expected other spellings of labels (spelling: label), got %s", strictyaml.Describe(n))
	}
	m := map[string]string{}
	for _, v := range values {
		key := v.Key.GetToken().Value
		s, err := scalar(v.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		m[key] = s
	}
	return m, nil
}

func list(n ast.Node) ([]string, error) { return items(n, scalar) }

// items reads a list of texts, each by read.
func items(n ast.Node, read func(ast.Node) (string, error)) (items []string, err error) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return nil, fmt.Errorf("expected a list, got %s", strictyaml.Describe(n))
	}
	for i, v := range seq.Values {
		s, err := read(v)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		if slices.Contains(items, s) {
			return nil, fmt.Errorf("[%d]: %q is there twice", i, s)
		}
		items = append(items, s)
	}
	return items, nil
}
