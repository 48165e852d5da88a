// Package strictyaml reads small YAML files that come from strangers: one mapping of names to values. What lets a few
// bytes stand for many (anchors, aliases, merge keys) is refused, and so are tags, names that are there twice, deep
// nesting and long files. Time and memory are bounded by MaxBytes and MaxDepth, and each error says its line.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxBytes is the longest text that Parse takes.
	MaxBytes = 1 << 16
	// MaxDepth is how deeply lists and mappings may be nested.
	MaxDepth = 16
)

// Error is what is wrong with a text, and where.
type Error struct {
	Line int // from 1; 0 where it is not known
	Msg  string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Msg
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Msg)
}

// Unmarshal reads a text into what dst points to, which keeps what the text does not say. A name that dst has not is an
// error. Errors begin with name, which stands for the text, and the line.
func Unmarshal(name string, text []byte, dst any) error {
	entries, err := Parse(text)
	if len(entries) > 0 { // of a text without any, the library makes a dst that is empty
		err = mistaken(yaml.UnmarshalWithOptions(bytes.TrimPrefix(text, mark), dst, yaml.Strict()))
	}
	return In(name, err)
}

// In says of an error what text it is in, by its name, and in which line, where that is known: "grid.yaml:3: ". Nil stays nil.
func In(name string, err error) error {
	if bad, ok := errors.AsType[*Error](err); ok && bad.Line > 0 {
		return fmt.Errorf("%s:%d: %s", name, bad.Line, bad.Msg)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// mistaken puts the library's errors into other words, which do not speak of Go.
func mistaken(err error) error {
	said, ok := errors.AsType[yaml.Error](err)
	if !ok || said.GetToken() == nil {
		return err
	}
	bad := &Error{said.GetToken().Position.Line, said.GetMessage()}
	value := said.GetToken().Value
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		bad.Msg = fmt.Sprintf("expected %s, got %q", expected(typed.DstType), value)
	}
	if typed, ok := errors.AsType[*yaml.OverflowError](err); ok {
		bad.Msg = fmt.Sprintf("expected %s, got %q", expected(typed.DstType), value)
	}
	return bad
}

// expected is what a value of a type is called.
func expected(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a time with its unit, such as 5m or 30s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Map || t.Kind() == reflect.Struct:
		return "settings (key: value)"
	case reflect.Int <= t.Kind() && t.Kind() <= reflect.Int64:
		return "a whole number"
	case reflect.Uint <= t.Kind() && t.Kind() <= reflect.Uint64:
		return "a whole number from 0"
	}
	return "another kind of value"
}

// mark is the byte order mark, with which some editors begin a file.
var mark = []byte("\uFEFF")

// Parse returns the entries of the mapping that a text is; none for a text without any. A byte order mark is passed over.
// An error is an *Error.
func Parse(text []byte) (entries []*ast.MappingValueNode, err error) {
	text = bytes.TrimPrefix(text, mark)
	if len(text) > MaxBytes {
		return nil, &Error{0, fmt.Sprintf("the file has more than %d bytes", MaxBytes)}
	}
	defer func() {
		if p := recover(); p != nil { // the library's; a broken file is no reason to fall
			entries, err = nil, &Error{0, fmt.Sprintf("malformed YAML (%v)", p)}
		}
	}()
	tokens := lexer.Tokenize(string(text))
	if err := check(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, syntaxError(err)
	}
	return body(file)
}

func syntaxError(err error) error {
	var syntax interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &syntax) && syntax.GetToken() != nil {
		return &Error{syntax.GetToken().Position.Line, "malformed YAML: " + syntax.GetMessage()}
	}
	return &Error{0, "malformed YAML: " + strings.SplitN(err.Error(), "\n", 2)[0]}
}

// refused are the tokens of what is not read.
var refused = map[token.Type]string{
	token.AnchorType: "an anchor (&)", token.AliasType: "an alias (*)", token.MergeKeyType: "a merge key (<<)", token.TagType: "a tag (!)",
}

// check looks at the tokens before they are parsed: the parser's time grows with the square of the depth.
func check(tokens token.Tokens) error {
	brackets, row, line := 0, 0, 0
	for _, t := range tokens {
		if what, ok := refused[t.Type]; ok {
			return &Error{t.Position.Line, what + " is not read here"}
		}
		if t.Position.Line != line {
			row, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType:
			row++ // "- - -" is a list in a list in a list
		}
		if brackets+row > MaxDepth {
			return &Error{t.Position.Line, fmt.Sprintf("lists and mappings are nested deeper than %d", MaxDepth)}
		}
	}
	return nil
}

// body returns the entries of the one document that a file has.
func body(file *ast.File) ([]*ast.MappingValueNode, error) {
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, &Error{d.Body.GetToken().Position.Line, "a second document; expected one"}
		}
		body = d.Body
	}
	switch b := body.(type) {
	case nil:
		return nil, nil
	case *ast.MappingNode:
		return b.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{b}, nil
	}
	return nil, &Error{body.GetToken().Position.Line, "expected settings (key: value), got " + Describe(body)}
}

// Describe names a value's type and, where it is short, what it says.
func Describe(n ast.Node) string {
	text, quoted, ok := Scalar(n)
	if !ok {
		return map[ast.NodeType]string{
			ast.MappingType: "a mapping", ast.MappingValueType: "a mapping", ast.SequenceType: "a list", ast.NullType: "null",
		}[n.Type()]
	}
	if len(text) > 40 {
		text = strings.ToValidUTF8(text[:40], "") + "..."
	}
	if quoted || n.Type() == ast.StringType {
		return fmt.Sprintf("the text %q", text)
	}
	return text
}

// Scalar returns what a scalar says, and whether it is quoted.
func Scalar(n ast.Node) (text string, quoted, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		t := n.GetToken().Type
		return n.Value, t == token.SingleQuoteType || t == token.DoubleQuoteType, true
	case *ast.LiteralNode:
		return n.Value.Value, true, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, false, true
	}
	return "", false, false
}
