package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// preTokenizer cuts text into the words that the model sees one at a time.
type preTokenizer interface {
	// split cuts each piece further. at says what stands before the first one; no piece is empty, before or after.
	split(pieces []string, at place) []string
}

type preTokenizers []preTokenizer

func (ps preTokenizers) split(pieces []string, at place) []string {
	for _, p := range ps {
		pieces = p.split(pieces, at)
	}
	return pieces
}

// placeOf returns what stands before piece i.
func placeOf(i int, at place) place {
	if i > 0 {
		return afterToken
	}
	return at
}

// byteLevel spells the bytes of each piece as characters, cut into GPT-2's words if wanted.
type byteLevel struct {
	prefixSpace bool // a space before each piece that has none
	words       bool
}

func (b byteLevel) split(pieces []string, at place) []string {
	if b.prefixSpace {
		pieces = slices.Clone(pieces)
		for i, p := range pieces {
			if placeOf(i, at) != afterText && !strings.HasPrefix(p, " ") {
				pieces[i] = " " + p
			}
		}
	}
	if b.words {
		pieces = split{pattern: scanner(scanGPT2)}.split(pieces, at)
	}
	return spellBytes(pieces)
}

// spellBytes spells the bytes of each piece as characters. All pieces share one string.
func spellBytes(pieces []string) []string {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	var all strings.Builder
	all.Grow(size + size/2)
	ends := make([]int, len(pieces))
	for i, p := range pieces {
		for j := 0; j < len(p); j++ {
			all.WriteRune(byteToRune[p[j]])
		}
		ends[i] = all.Len()
	}
	out, from := make([]string, len(pieces)), 0
	for i, end := range ends {
		out[i] = all.String()[from:end]
		from = end
	}
	return out
}

// prefixScheme says which pieces get a dummy space.
type prefixScheme uint8

const (
	prefixAlways prefixScheme = iota
	prefixFirst               // only at the start of the whole text
	prefixNever
)

// spaceMark writes spaces as a mark, in LLaMA "▁", with one in front (Metaspace).
type spaceMark struct {
	mark   string
	prefix prefixScheme
	cut    bool // each mark begins a word
}

func (m spaceMark) split(pieces []string, at place) []string {
	out := make([]string, 0, len(pieces))
	for i, p := range pieces {
		p = strings.ReplaceAll(p, " ", m.mark)
		if m.wants(placeOf(i, at)) && !strings.HasPrefix(p, m.mark) {
			p = m.mark + p
		}
		out = append(out, p)
	}
	if m.cut {
		return split{pattern: literal(m.mark), keep: withNext}.split(out, at)
	}
	return out
}

func (m spaceMark) wants(at place) bool {
	return m.prefix == prefixAlways && at != afterText || m.prefix == prefixFirst && at == atStart
}

// behavior says what becomes of the matches of a split.
type behavior uint8

const (
	isolated behavior = iota
	removed
	withPrevious
	withNext
	contiguous
)

// split cuts at the matches of a pattern; inverted, at what lies between them.
type split struct {
	pattern pattern
	keep    behavior
	invert  bool
}

// part is a stretch of text that is a match or lies between matches.
type part struct {
	start, end int
	match      bool
}

func (sp split) split(pieces []string, _ place) []string {
	out := make([]string, 0, len(pieces))
	var parts []part
	for _, p := range pieces {
		parts = sp.parts(p, parts[:0])
		for _, q := range sp.join(parts) {
			out = append(out, p[q.start:q.end])
		}
	}
	return out
}

// parts returns the matches in s and what lies between them, appended to dst.
func (sp split) parts(s string, dst []part) []part {
	at := 0
	for next := sp.pattern.in(s); at < len(s); {
		start, end := next(at)
		if start < 0 {
			break
		}
		if start > at {
			dst = append(dst, part{at, start, sp.invert})
		}
		dst = append(dst, part{start, end, !sp.invert})
		at = end
	}
	if at < len(s) {
		dst = append(dst, part{at, len(s), sp.invert})
	}
	return dst
}

// join applies the behavior: the pieces that are left, in place. The rules are those of Hugging Face's
// SplitDelimiterBehavior: of several matches in a row only one joins its neighbour.
func (sp split) join(parts []part) []part {
	switch sp.keep {
	case removed:
		return slices.DeleteFunc(parts, func(p part) bool { return p.match })
	case contiguous:
		return joinParts(parts, func(a, b part) bool { return a.match == b.match })
	case withPrevious:
		return joinParts(parts, func(a, b part) bool { return b.match && !a.match })
	case withNext:
		return joinNext(parts)
	}
	return parts
}

// joinParts joins each part to the one before it where wanted; joins looks at the parts as they were.
func joinParts(parts []part, joins func(a, b part) bool) []part {
	out := parts[:0]
	var last part
	for i, p := range parts {
		if i > 0 && joins(last, p) {
			out[len(out)-1].end = p.end
		} else {
			out = append(out, p)
		}
		last = p
	}
	return out
}

// joinNext joins each match to the part after it, unless that is a match too.
func joinNext(parts []part) []part {
	out := parts[:0]
	for i := 0; i < len(parts); i++ {
		p := parts[i]
		if p.match && i+1 < len(parts) && !parts[i+1].match {
			i++
			p.end = parts[i].end
		}
		out = append(out, p)
	}
	return out
}

// A pattern finds its matches in s one after another: the first at or after from, which does not go back; start is -1 if
// there is none. No match is empty.
type pattern interface {
	in(s string) func(from int) (start, end int)
}

// literal matches itself.
type literal string

func (l literal) in(s string) func(int) (int, int) {
	return func(from int) (int, int) {
		i := strings.Index(s[from:], string(l))
		if i < 0 {
			return -1, -1
		}
		return from + i, from + i + len(l)
	}
}

// oneRune matches each character that it is true of.
type oneRune func(rune) bool

func (f oneRune) in(s string) func(int) (int, int) {
	return func(from int) (int, int) {
		for from < len(s) {
			r, n := utf8.DecodeRuneInString(s[from:])
			if f(r) {
				return from, from + n
			}
			from += n
		}
		return -1, -1
	}
}

// scanner matches at the start of any text that is not empty and returns the length of its match.
type scanner func(s string) int

func (f scanner) in(s string) func(int) (int, int) {
	return func(from int) (int, int) {
		if from == len(s) {
			return -1, -1
		}
		return from, from + f(s[from:])
	}
}

// isPunctuation is true of Unicode's punctuation and of ASCII's, which has some symbols more.
func isPunctuation(r rune) bool {
	return r < 0x80 && (r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~') ||
		unicode.IsPunct(r)
}
