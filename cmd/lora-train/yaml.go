package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictyaml"
	"github.com/biolora/biolora/lora"
)

// readConfig reads a file of settings into s and returns the keys it gives. Settings it does not give stay as they
// are. All that is wrong with it is reported, by file and line.
func readConfig(path string, s *Settings) (given []string, err error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return decodeConfig(path, text, s)
}

// decodeConfig is readConfig on the file's text.
func decodeConfig(path string, text []byte, s *Settings) (given []string, err error) {
	body, err := parseYAML(path, text)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, entry := range body {
		key := entry.Key.GetToken()
		at := func(line int, err error) error { return fmt.Errorf("%s:%d: %s: %w", path, line, key.Value, err) }
		f, ok := s.find(key.Value)
		if !ok {
			errs = append(errs, fmt.Errorf("%s:%d: unknown key %q%s", path, key.Position.Line, key.Value, cli.Suggestion(key.Value, keys())))
			continue
		}
		if f.flag == "config" {
			errs = append(errs, at(key.Position.Line, errors.New("a configuration cannot name another one")))
			continue
		}
		if entry.Value.Type() == ast.NullType {
			continue
		}
		if err := decodeNode(entry.Value, f.value); err != nil {
			line := key.Position.Line
			var wrong *nodeError
			if errors.As(err, &wrong) {
				line = wrong.line
			}
			errs = append(errs, at(line, err))
			continue
		}
		given = append(given, f.key())
	}
	return given, errors.Join(errs...)
}

func keys() []string {
	var list []string
	for _, f := range new(Settings).settings() {
		list = append(list, f.key())
	}
	return list
}

// parseYAML returns the entries of the one mapping that a file is.
func parseYAML(path string, text []byte) ([]*ast.MappingValueNode, error) {
	entries, err := strictyaml.Parse(text)
	var e *strictyaml.Error
	if errors.As(err, &e) && e.Line > 0 {
		return nil, fmt.Errorf("%s:%d: %s", path, e.Line, e.Msg)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s: the file has no settings", path)
	}
	return entries, nil
}

// nodeError is a value that is not what its setting takes.
type nodeError struct {
	line int
	msg  string
}

func (e *nodeError) Error() string { return e.msg }

func wrong(n ast.Node, want string) error {
	return &nodeError{n.GetToken().Position.Line, fmt.Sprintf("expected %s, got %s", want, strictyaml.Describe(n))}
}

// decodeNode sets a setting to what a node says. Nothing is converted: a number with a fraction is no whole number,
// a quoted number is a text.
func decodeNode(n ast.Node, into reflect.Value) error {
	switch p := into.Addr().Interface().(type) {
	case *lora.Names:
		return decodeNames(n, p)
	case *lora.Rules:
		return decodeRules(n, p)
	case *microBatch:
		if text, _, ok := strictyaml.Scalar(n); ok && text == "auto" {
			*p = autoBatch
			return nil
		}
	}
	if into.Kind() == reflect.Slice {
		return decodeList(n, into)
	}
	text, quoted, ok := strictyaml.Scalar(n)
	switch into.Kind() {
	case reflect.String:
		if !ok {
			return wrong(n, "a text")
		}
		if n.Type() == ast.BoolType {
			text = strings.ToLower(text)
		}
		into.SetString(text)
	case reflect.Bool:
		if n.Type() != ast.BoolType {
			return wrong(n, "true or false")
		}
		into.SetBool(strings.EqualFold(text, "true"))
	case reflect.Int:
		x, err := strconv.Atoi(text)
		if !ok || quoted || err != nil {
			return wrong(n, "a whole number")
		}
		into.SetInt(int64(x))
	case reflect.Uint64:
		x, err := strconv.ParseUint(text, 10, 64)
		if !ok || quoted || err != nil {
			return wrong(n, "a whole number of at most 64 bits, not negative")
		}
		into.SetUint(x)
	case reflect.Float64:
		x, err := decodeFloat(n)
		if err != nil {
			return err
		}
		into.SetFloat(x)
	}
	return nil
}

// decodeFloat reads 3e-4 too, which YAML 1.1 takes for a text.
func decodeFloat(n ast.Node) (float64, error) {
	text, quoted, ok := strictyaml.Scalar(n)
	x, err := strconv.ParseFloat(text, 64)
	if !ok || quoted || err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, wrong(n, "a number")
	}
	return x, nil
}

// decodeList reads a list, or one element without the brackets.
func decodeList(n ast.Node, into reflect.Value) error {
	nodes := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		nodes = seq.Values
	}
	list := reflect.MakeSlice(into.Type(), 0, len(nodes))
	for _, e := range nodes {
		v := reflect.New(into.Type().Elem()).Elem()
		if err := decodeNode(e, v); err != nil {
			return err
		}
		list = reflect.Append(list, v)
	}
	into.Set(list)
	return nil
}

func decodeNames(n ast.Node, names *lora.Names) error {
	if _, list := n.(*ast.SequenceNode); !list {
		text, _, ok := strictyaml.Scalar(n)
		if !ok || text == "" {
			return wrong(n, "a list of names, a regular expression, or all-linear")
		}
		*names = lora.Names{Expr: text}
		return nil
	}
	*names = lora.Names{}
	return decodeList(n, reflect.ValueOf(&names.List).Elem())
}

func decodeRules(n ast.Node, rules *lora.Rules) error {
	var entries []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{n}
	default:
		return wrong(n, "a mapping of patterns to numbers")
	}
	*rules = nil
	for _, e := range entries {
		x, err := decodeFloat(e.Value)
		if err != nil {
			return err
		}
		*rules = append(*rules, lora.Rule{Key: e.Key.GetToken().Value, Value: x})
	}
	return nil
}

// notSaved are the settings that say where a run goes, not what it is.
var notSaved = map[string]bool{"out": true, "overwrite": true, "config": true}

// encodeConfig writes all settings that make a run, such that readConfig gives them back exactly.
func encodeConfig(s *Settings) []byte {
	var b strings.Builder
	b.WriteString("# The settings of this run. lora-train --config run.yaml repeats it.\n")
	group := ""
	for _, f := range s.settings() {
		if notSaved[f.key()] || unset(f.value) {
			continue
		}
		if f.group != group {
			group = f.group
			fmt.Fprintf(&b, "\n# %s\n", group)
		}
		fmt.Fprintf(&b, "%s: %s\n", f.key(), encodeValue(f.value))
	}
	return []byte(b.String())
}

// unset tells the settings that say nothing when they are empty: texts and lists. Numbers and switches always say
// something.
func unset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Struct:
		return v.IsZero()
	case reflect.Slice:
		return v.Len() == 0
	}
	return false
}

// encodeValue writes a value on one line.
func encodeValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case lora.Names:
		if x.Expr != "" {
			return encodeText(x.Expr)
		}
		return encodeValue(reflect.ValueOf(x.List))
	case lora.Rules:
		var parts []string
		for _, r := range x {
			parts = append(parts, encodeText(r.Key)+": "+encodeFloat(r.Value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case float64:
		return encodeFloat(x)
	case string:
		return encodeText(x)
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(v.Interface())
	}
	var parts []string
	for i := range v.Len() {
		parts = append(parts, encodeValue(v.Index(i)))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// encodeFloat writes the shortest form that gives x back, with a point before an exponent: YAML 1.1 asks for it.
func encodeFloat(x float64) string {
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if mantissa, exponent, ok := strings.Cut(s, "e"); ok && !strings.Contains(mantissa, ".") {
		return mantissa + ".0e" + exponent
	}
	return s
}

// plainText needs no quotes, whatever reads it.
var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)

// encodeText quotes what is not plainly a text. JSON's strings are YAML's.
func encodeText(s string) string {
	if s == "true" || s == "false" { // of init_lora_weights, as PEFT writes them
		return s
	}
	if plainText.MatchString(s) && !slices.Contains([]string{"null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) &&
		!strings.EqualFold(s, "true") && !strings.EqualFold(s, "false") {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
