// Package yamlcheck looks at YAML of strangers before it is parsed. What settings and templates need is scalars, lists
// and mappings; what multiplies (aliases) or takes a parser time and stack (deep nesting, endless tokens) is refused.
package yamlcheck

import (
	"fmt"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// The limits, far above what a file of settings has.
const (
	maxTokens = 20_000
	maxDepth  = 32
)

// Error is a place in the text and what is wrong there.
type Error struct {
	Line int // from 1
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// Check returns an *Error for what should not be given to a parser. It takes time in proportion to the text.
func Check(text []byte) error {
	depth, entries, line := 0, 0, 0 // open brackets; list entries one after another in one line
	for i, t := range lexer.Tokenize(string(text)) {
		at := func(format string, a ...any) error {
			return &Error{t.Position.Line, fmt.Sprintf(format, a...)}
		}
		if i == maxTokens {
			return at("more than %d tokens", maxTokens)
		}
		if t.Type != token.SequenceEntryType || t.Position.Line != line {
			entries = 0
		}
		line = t.Position.Line
		switch t.Type {
		case token.AnchorType, token.AliasType:
			return at("anchors and aliases are not supported (%s)", t.Value)
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			entries++
		}
		if depth > maxDepth || entries > maxDepth {
			return at("nested deeper than %d", maxDepth)
		}
	}
	return nil
}
