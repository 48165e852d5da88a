package instruct

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/biolora/biolora/internal/jsoncut"
)

// Kind tells the forms of a row.
type Kind uint8

const (
	Instruction  Kind = iota // instruction, input and output, for a template
	Prompt                   // prompt and completion, used as they stand
	Tokens                   // input_ids and labels
	Conversation             // messages, for the model's chat template
)

// Masked is the label of a token that is not learnt, as in PyTorch's cross-entropy.
const Masked = -100

// Row is one row of a file.
type Row struct {
	Kind Kind
	// Of an Instruction row. Input is empty where the row has none.
	Instruction, Input, Output string
	// Of a Prompt row.
	Prompt, Completion string
	// Of a Tokens row: InputIDs and Labels of the same length, labels aligned with the ids, Masked or not negative.
	InputIDs, Labels []int32

	place jsoncut.Place
	spans []Span // of what a chat template made text of
}

// Place says where the row stands: file and line, and the index in a JSON array.
func (r *Row) Place() string { return r.place.String() }

// Fields are the names that text rows have for their fields.
type Fields struct {
	Instruction, Input, Output string
	Prompt, Completion         string
}

type fieldName struct {
	role string
	name *string
}

func (f *Fields) list() []fieldName {
	return []fieldName{
		{"instruction", &f.Instruction}, {"input", &f.Input}, {"output", &f.Output},
		{"prompt", &f.Prompt}, {"completion", &f.Completion},
	}
}

// names are the fields to look for, and for which form of a row first: a row may be either where a name that was
// given for one form is the default name of a field of the other.
type names struct {
	Fields
	promptFirst bool
}

// resolve fills in the default names.
func (f Fields) resolve() (names, error) {
	n := names{f, f.Prompt != "" && f.Instruction == ""}
	for _, field := range n.list() {
		if *field.name == "" {
			*field.name = field.role
		}
	}
	if err := unique(f.list()); err != nil {
		return n, err
	}
	all := n.list()
	return n, errors.Join(unique(all[:3]), unique(all[3:]))
}

// unique complains of names that two roles share.
func unique(fields []fieldName) error {
	var errs []error
	role := map[string]string{"input_ids": "the token ids", "labels": "the labels", "messages": "the messages", "conversations": "the messages"}
	for _, f := range fields {
		if *f.name == "" {
			continue
		}
		if other := role[*f.name]; other != "" {
			errs = append(errs, fmt.Errorf("the field %q cannot be both %s and %s", *f.name, other, f.role))
		}
		role[*f.name] = f.role
	}
	return errors.Join(errs...)
}

// parseRow makes a Row of its JSON, and what a chat template needs of it where it is a conversation. Names of f that
// the row has are noted in seen.
func parseRow(raw jsoncut.Record, f names, seen *Fields) (Row, *conversation, error) {
	bad := func(err error) (Row, *conversation, error) {
		return Row{}, nil, &jsoncut.Error{Place: raw.Place, Err: err}
	}
	if len(raw.JSON) == 0 || raw.JSON[0] != '{' {
		return bad(fmt.Errorf("expected a JSON object, got %s", abbreviate(raw.JSON)))
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw.JSON, &object); err != nil {
		return bad(syntaxError(raw, err))
	}
	has := func(name string) bool { _, ok := object[name]; return ok }
	note := seen.list()
	for i, n := range f.list() {
		if has(*n.name) {
			*note[i].name = *n.name
		}
	}
	p := fieldParser{object: object}
	row := Row{place: raw.Place}
	switch {
	case has("input_ids") || has("labels"):
		row.Kind = Tokens
		row.InputIDs, row.Labels = p.tokens()
	case has("messages") || has("conversations"):
		row.Kind = Conversation
		c, err := parseConversation(raw)
		if err != nil {
			return bad(err)
		}
		return row, c, nil
	case has(f.Instruction) && !(f.promptFirst && has(f.Prompt)):
		row.Kind = Instruction
		row.Instruction = p.text(f.Instruction, required)
		row.Input = p.text(f.Input, optional)
		row.Output = p.text(f.Output, required)
	case has(f.Prompt):
		row.Kind = Prompt
		row.Prompt = p.text(f.Prompt, mayBeEmpty)
		row.Completion = p.text(f.Completion, required)
	default:
		return bad(fmt.Errorf("expected the fields %q and %q, %q and %q, \"messages\", or \"input_ids\" and \"labels\"; the row has %s",
			f.Instruction, f.Output, f.Prompt, f.Completion, keys(object)))
	}
	if len(p.errs) > 0 {
		return bad(errors.Join(p.errs...))
	}
	return row, nil, nil
}

// fieldParser reads fields of one row and gathers what is wrong with them.
type fieldParser struct {
	object map[string]json.RawMessage
	errs   []error
}

func (p *fieldParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

type need uint8

const (
	required   need = iota // must be there and say something
	mayBeEmpty             // must be there
	optional               // may be absent or null
)

func (p *fieldParser) text(name string, n need) string {
	raw, ok := p.object[name]
	null := ok && string(raw) == "null"
	if n == optional && (!ok || null) {
		return ""
	}
	if !ok {
		p.fail("the field %q is missing; the row has %s", name, keys(p.object))
		return ""
	}
	if raw[0] != '"' {
		p.fail("the field %q: expected a string, got %s", name, abbreviate(raw))
		return ""
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		p.fail("the field %q: %w", name, err)
		return ""
	}
	if loneSurrogate(raw, s) {
		p.fail("the field %q has half of a surrogate pair (\\ud800 to \\udfff), which is no character", name)
	}
	if n == required && strip(s) == "" {
		p.fail("the field %q is empty", name)
	}
	return s
}

// loneSurrogate reports whether decoding put U+FFFD where the JSON has not: encoding/json does that to surrogates
// without a partner, in silence.
func loneSurrogate(raw []byte, s string) bool {
	const replacement = "\uFFFD"
	n := strings.Count(s, replacement)
	return n > 0 && n != bytes.Count(raw, []byte(replacement))+bytes.Count(bytes.ToLower(raw), []byte(`\ufffd`))
}

func (p *fieldParser) tokens() (ids, labels []int32) {
	ids = p.integers("input_ids", 0)
	labels = p.integers("labels", Masked)
	if len(p.errs) > 0 {
		return nil, nil
	}
	if len(ids) == 0 {
		p.fail("input_ids is empty")
	}
	if len(ids) != len(labels) {
		p.fail("input_ids has %d tokens, labels has %d; they must be aligned", len(ids), len(labels))
	}
	for i, l := range labels {
		if l < 0 && l != Masked {
			p.fail("labels[%d] is %d: a label is a token id or %d", i, l, Masked)
			break
		}
	}
	if _, ok := p.object["attention_mask"]; ok {
		mask := p.integers("attention_mask", 0)
		if len(p.errs) == 0 && (len(mask) != len(ids) || slices.ContainsFunc(mask, func(m int32) bool { return m != 1 })) {
			p.fail("attention_mask must be %d ones: rows are given without padding", len(ids))
		}
	}
	if _, ok := p.object["position_ids"]; ok {
		p.fail("position_ids are not supported: the positions of a row count from 0")
	}
	return ids, labels
}

// integers reads an array of integers of at least lowest. (json.Unmarshal would take null for 0.)
func (p *fieldParser) integers(name string, lowest int32) []int32 {
	raw, ok := p.object[name]
	if !ok {
		p.fail("the field %q is missing; the row has %s", name, keys(p.object))
		return nil
	}
	if raw[0] != '[' {
		p.fail("the field %q: expected an array of integers, got %s", name, abbreviate(raw))
		return nil
	}
	rest := bytes.TrimSpace(raw[1 : len(raw)-1])
	if len(rest) == 0 {
		return nil
	}
	out := make([]int32, 0, bytes.Count(rest, []byte{','})+1)
	for more := true; more; {
		var part []byte
		part, rest, more = bytes.Cut(rest, []byte{','})
		part = bytes.TrimSpace(part)
		n, err := strconv.ParseInt(string(part), 10, 64)
		if err != nil || n < int64(lowest) || n > math.MaxInt32 {
			p.fail("%s[%d]: expected an integer from %d to %d, got %s", name, len(out), lowest, math.MaxInt32, abbreviate(part))
			return nil
		}
		out = append(out, int32(n))
	}
	return out
}

// syntaxError says where in the file an error of encoding/json is.
func syntaxError(raw jsoncut.Record, err error) error {
	var s *json.SyntaxError
	if !errors.As(err, &s) {
		return err
	}
	end := min(int(s.Offset), len(raw.JSON))
	if raw.Element < 0 {
		if end == len(raw.JSON) {
			return fmt.Errorf("%w at byte %d of the line (a row must be one JSON object on one line)", err, s.Offset)
		}
		return fmt.Errorf("%w at byte %d of the line", err, s.Offset)
	}
	return fmt.Errorf("%w in line %d", err, raw.Line+bytes.Count(raw.JSON[:end], []byte{'\n'}))
}

func keys(object map[string]json.RawMessage) string {
	if len(object) == 0 {
		return "none"
	}
	list := slices.Sorted(maps.Keys(object))
	const most = 20
	for i, n := range list {
		list[i] = strconv.Quote(abbreviate([]byte(n)))
	}
	if len(list) > most {
		list = append(list[:most], fmt.Sprintf("and %d more", len(list)-most))
	}
	return strings.Join(list, ", ")
}

// abbreviate makes a piece of a file fit for a message.
func abbreviate(b []byte) string {
	const most = 40
	if len(b) == 0 {
		return "nothing"
	}
	s := string(b[:min(len(b), most)])
	if len(b) > most {
		s = strings.ToValidUTF8(s, "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// strip removes what Python's str.strip removes.
func strip(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F })
}
