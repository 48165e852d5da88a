// Package strictyaml reads small YAML files that come from strangers: one mapping of names to values. What lets a few
// bytes stand for many (anchors, aliases, merge keys) is refused, and so are tags, names that are there twice, deep
// nesting and long files. Time and memory are bounded by MaxBytes and MaxDepth, and each error says its line.
package strictyaml

import (
	"errors"
	"fmt"
	"strings"

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

// Parse returns the entries of the mapping that a text is; none for a text without any. An error is an *Error.
func Parse(text []byte) (entries []*ast.MappingValueNode, err error) {
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
