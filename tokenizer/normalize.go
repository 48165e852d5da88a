package tokenizer

import (
	"strings"

	"golang.org/x/text/unicode/norm"
)

// normalizer rewrites text before it is cut into words.
type normalizer interface {
	normalize(s string, at place) string
}

type normalizers []normalizer

func (ns normalizers) normalize(s string, at place) string {
	for _, n := range ns {
		s = n.normalize(s, at)
	}
	return s
}

// prepend puts a string, in LLaMA "▁", in front of text that is not empty and does not continue other text.
type prepend string

func (p prepend) normalize(s string, at place) string {
	if s == "" || at == afterText {
		return s
	}
	return string(p) + s
}

// replace puts text in the place of each match of a pattern.
type replace struct {
	pattern pattern
	text    string
}

func (r replace) normalize(s string, _ place) string {
	if lit, ok := r.pattern.(literal); ok {
		return strings.ReplaceAll(s, string(lit), r.text)
	}
	var b strings.Builder
	next, from := r.pattern.in(s), 0
	for {
		start, end := next(from)
		if start < 0 {
			b.WriteString(s[from:])
			return b.String()
		}
		b.WriteString(s[from:start])
		b.WriteString(r.text)
		from = end
	}
}

// unicodeForm is one of the normal forms of Unicode.
type unicodeForm norm.Form

func (f unicodeForm) normalize(s string, _ place) string { return norm.Form(f).String(s) }
