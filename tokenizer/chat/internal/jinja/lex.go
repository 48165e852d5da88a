package jinja

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokData
	tokVarBegin
	tokVarEnd
	tokBlockBegin
	tokBlockEnd
	tokName
	tokString
	tokInt
	tokFloat
	tokOp
)

type token struct {
	kind tokenKind
	text string // name, operator, data, or the value of a string
	val  any    // of numbers
	line int
}

// describe names a token for messages.
func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "the end of the template"
	case tokVarEnd, tokBlockEnd:
		return "the end of the tag"
	case tokString:
		return "a string"
	case tokData, tokVarBegin, tokBlockBegin:
		return "text"
	case tokInt, tokFloat:
		return "a number"
	}
	return strconv.Quote(t.text)
}

// lexer cuts a template into tokens, one at a time.
type lexer struct {
	src       string
	pos       int
	line      int
	tag       byte   // 0 outside of tags, '{' or '%' inside
	brackets  []byte // the closing ones that are awaited
	lineStart bool   // the last token ended in a newline, or nothing came before
	pending   []token
}

// newLexer prepares a source: newlines become \n, and one at the end is dropped.
func newLexer(src string) *lexer {
	if strings.Contains(src, "\r") {
		src = strings.ReplaceAll(src, "\r\n", "\n")
		src = strings.ReplaceAll(src, "\r", "\n")
	}
	return &lexer{src: strings.TrimSuffix(src, "\n"), line: 1, lineStart: true}
}

func (l *lexer) fail(format string, args ...any) {
	panic(&Error{l.line, fmt.Sprintf(format, args...)})
}

func (l *lexer) next() token {
	for {
		if len(l.pending) > 0 {
			t := l.pending[0]
			l.pending = l.pending[1:]
			return t
		}
		if l.tag != 0 {
			return l.inTag()
		}
		if l.pos == len(l.src) {
			return token{kind: tokEOF, line: l.line}
		}
		l.root()
	}
}

// take consumes the next n bytes.
func (l *lexer) take(n int) string {
	s := l.src[l.pos : l.pos+n]
	l.pos += n
	l.line += strings.Count(s, "\n")
	return s
}

// skipSpace consumes white space.
func (l *lexer) skipSpace() {
	rest := l.src[l.pos:]
	l.take(len(rest) - len(strings.TrimLeftFunc(rest, isSpace)))
}

// root reads text up to a tag, and the beginning of the tag.
func (l *lexer) root() {
	rest := l.src[l.pos:]
	at := findTag(rest)
	if at < 0 {
		l.data(rest, len(rest))
		return
	}
	kind := rest[at+1]
	sign := byte(0)
	if at+2 < len(rest) && (rest[at+2] == '-' || rest[at+2] == '+') {
		sign = rest[at+2]
	}
	l.data(l.strip(rest[:at], kind, sign), at)
	begin := 2
	if sign != 0 {
		begin = 3
	}
	switch kind {
	case '#':
		l.comment(begin)
	case '%':
		if !l.raw(begin) {
			l.begin(tokBlockBegin, '%', begin)
		}
	default:
		l.begin(tokVarBegin, '{', begin)
	}
}

// findTag returns where the next tag begins, or -1.
func findTag(s string) int {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '{')
		if i < 0 || from+i+1 >= len(s) {
			return -1
		}
		if c := s[from+i+1]; c == '{' || c == '%' || c == '#' {
			return from + i
		}
		from += i + 1
	}
}

// strip cuts the end of a text before a tag: all white space for a minus, the indentation of a block or comment that
// stands first on its line.
func (l *lexer) strip(s string, kind, sign byte) string {
	if sign == '-' {
		return strings.TrimRightFunc(s, isSpace)
	}
	if sign == '+' || kind == '{' {
		return s
	}
	at := strings.LastIndexByte(s, '\n') + 1
	if at == 0 && !l.lineStart {
		return s
	}
	if strings.TrimLeftFunc(s[at:], isSpace) == "" {
		return s[:at]
	}
	return s
}

// data queues a text, of which n bytes are consumed.
func (l *lexer) data(s string, n int) {
	if s != "" {
		l.pending = append(l.pending, token{kind: tokData, text: s, line: l.line})
	}
	l.take(n)
}

func (l *lexer) begin(kind tokenKind, tag byte, n int) {
	l.pending = append(l.pending, token{kind: kind, line: l.line})
	l.take(n)
	l.tag, l.brackets = tag, l.brackets[:0]
}

// comment skips a comment, of whose beginning n bytes are known.
func (l *lexer) comment(n int) {
	l.take(n)
	end := strings.Index(l.src[l.pos:], "#}")
	if end < 0 {
		line := l.line
		l.take(len(l.src) - l.pos)
		l.line = line
		l.fail("the comment is not closed: #} is missing")
	}
	body := l.take(end + 2)
	l.after(body[:end], true)
}

// after consumes what the end of a tag takes of the text behind it: body is the tag's end before its closing brackets.
func (l *lexer) after(body string, block bool) {
	at := l.pos
	switch {
	case strings.HasSuffix(body, "-"):
		l.skipSpace()
	case strings.HasSuffix(body, "+") || !block:
	case l.pos < len(l.src) && l.src[l.pos] == '\n':
		l.take(1)
	}
	l.lineStart = l.pos > at && l.src[l.pos-1] == '\n'
}

// raw reads a raw block as text.
func (l *lexer) raw(n int) bool {
	word, rest := l.word(l.pos+n, "raw")
	if !word {
		return false
	}
	end, minus := tagEnd(l.src[rest:])
	if end < 0 {
		return false
	}
	line := l.line
	l.take(rest + end - l.pos)
	if minus {
		l.skipSpace()
	}
	for from := l.pos; ; {
		i := strings.Index(l.src[from:], "{%")
		if i < 0 {
			l.take(len(l.src) - l.pos)
			l.line = line
			l.fail("the raw block is not closed: {%% endraw %%} is missing")
		}
		from += i
		sign, at := byte(0), from+2
		if at < len(l.src) && (l.src[at] == '-' || l.src[at] == '+') {
			sign = l.src[at]
			at++
		}
		word, rest := l.word(at, "endraw")
		end := -1
		if word {
			end, _ = tagEnd(l.src[rest:])
		}
		if end < 0 {
			from += 2
			continue
		}
		l.lineStart = l.src[l.pos-1] == '\n'
		s := l.src[l.pos:from]
		l.data(l.strip(s, '%', sign), len(s))
		tag := l.take(rest + end - l.pos)
		l.after(tag[:len(tag)-2], true)
		return true
	}
}

// word reports whether the word stands at a byte, after white space, and where what follows it begins.
func (l *lexer) word(at int, want string) (bool, int) {
	s := strings.TrimLeftFunc(l.src[at:], isSpace)
	if !strings.HasPrefix(s, want) {
		return false, 0
	}
	s = strings.TrimLeftFunc(s[len(want):], isSpace)
	return true, len(l.src) - len(s)
}

// tagEnd is the length of a block's end at the beginning of s, or -1.
func tagEnd(s string) (n int, minus bool) {
	switch {
	case strings.HasPrefix(s, "%}"):
		return 2, false
	case strings.HasPrefix(s, "-%}"):
		return 3, true
	case strings.HasPrefix(s, "+%}"):
		return 3, false
	}
	return -1, false
}

// inTag reads one token of a tag.
func (l *lexer) inTag() token {
	l.skipSpace()
	if l.pos == len(l.src) {
		return token{kind: tokEOF, line: l.line}
	}
	if t, ok := l.tagEnd(); ok {
		return t
	}
	line := l.line
	rest := l.src[l.pos:]
	switch c := rest[0]; {
	case c >= '0' && c <= '9':
		return l.number(rest)
	case c == '"' || c == '\'':
		return l.string(rest)
	}
	if n := nameLength(rest); n > 0 {
		return token{kind: tokName, text: l.take(n), line: line}
	}
	return l.operator(rest)
}

func (l *lexer) tagEnd() (token, bool) {
	if len(l.brackets) > 0 {
		return token{}, false
	}
	line := l.line
	rest := l.src[l.pos:]
	kind, closing := tokBlockEnd, "%}"
	if l.tag == '{' {
		kind, closing = tokVarEnd, "}}"
	}
	body := ""
	if rest[0] == '-' || rest[0] == '+' && l.tag == '%' {
		body, rest = rest[:1], rest[1:]
	}
	if !strings.HasPrefix(rest, closing) {
		return token{}, false
	}
	l.take(len(body) + 2)
	l.after(body, l.tag == '%')
	l.tag = 0
	return token{kind: kind, line: line}, true
}

// nameLength is the length of the identifier at the beginning of s.
func nameLength(s string) int {
	for i, c := range s {
		if c != '_' && !unicode.IsLetter(c) && (i == 0 || !unicode.IsDigit(c) && !unicode.Is(unicode.M, c)) {
			return i
		}
	}
	return len(s)
}

func (l *lexer) number(s string) token {
	line := l.line
	if n := floatLength(s); n > 0 && l.src[l.pos-1] != '.' { // a.1.5 is two subscripts
		t := l.take(n)
		f, _ := strconv.ParseFloat(strings.ReplaceAll(t, "_", ""), 64) // out of range is infinity, as in Python
		return token{kind: tokFloat, text: t, val: f, line: line}
	}
	t := l.take(integerLength(s))
	if len(t) > maxDigits {
		l.fail("an integer of %d digits, more than %d", len(t), maxDigits)
	}
	digits := strings.ReplaceAll(t, "_", "")
	base := 10
	if len(digits) > 1 && digits[0] == '0' && digits[1] > '9' {
		base = map[byte]int{'x': 16, 'o': 8, 'b': 2}[digits[1]|0x20]
		digits = digits[2:]
	}
	v, ok := new(big.Int).SetString(digits, base)
	if !ok {
		l.fail("%q is not a number", t)
	}
	return token{kind: tokInt, text: t, val: normInt(v), line: line}
}

// digits is the length of digits with single underscores between them at the beginning of s.
func digits(s string, is func(byte) bool) int {
	n := 0
	for n < len(s) && (is(s[n]) || s[n] == '_' && n > 0 && s[n-1] != '_' && n+1 < len(s) && is(s[n+1])) {
		n++
	}
	return n
}

func decimal(c byte) bool { return '0' <= c && c <= '9' }

func floatLength(s string) int {
	n := digits(s, decimal)
	float := false
	if n < len(s) && s[n] == '.' {
		if m := digits(s[n+1:], decimal); m > 0 {
			n, float = n+1+m, true
		}
	}
	if n < len(s) && s[n]|0x20 == 'e' {
		at := n + 1
		if at < len(s) && (s[at] == '+' || s[at] == '-') {
			at++
		}
		if m := digits(s[at:], decimal); m > 0 {
			n, float = at+m, true
		}
	}
	if !float {
		return 0
	}
	return n
}

func integerLength(s string) int {
	if len(s) > 2 && s[0] == '0' {
		is := map[byte]func(byte) bool{
			'x': func(c byte) bool { return decimal(c) || 'a' <= c|0x20 && c|0x20 <= 'f' },
			'o': func(c byte) bool { return '0' <= c && c <= '7' },
			'b': func(c byte) bool { return c == '0' || c == '1' },
		}[s[1]|0x20]
		if is != nil {
			at := 2
			if s[at] == '_' {
				at++
			}
			if n := digits(s[at:], is); n > 0 {
				return at + n
			}
		}
	}
	if s[0] == '0' { // zeros only: 012 is two tokens, and so an error
		return digits(s, func(c byte) bool { return c == '0' })
	}
	return digits(s, decimal)
}

func (l *lexer) string(s string) token {
	line := l.line
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			body := l.take(i + 1)
			return token{kind: tokString, text: l.unescape(body[1:i]), line: line}
		}
	}
	l.fail("the string is not closed: %c is missing", s[0])
	return token{}
}

var escapes = map[byte]string{'\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r",
	't': "\t", 'v': "\v", '\n': ""}

// unescape reads Python's escapes in a string.
func (l *lexer) unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		if e, ok := escapes[s[0]]; ok {
			b.WriteString(e)
			s = s[1:]
			continue
		}
		n := l.codeEscape(&b, s)
		s = s[n:]
	}
}

// codeEscape reads an escape that gives a code point, after the backslash, and returns its length; what is none stays as
// it is.
func (l *lexer) codeEscape(b *strings.Builder, s string) int {
	from, n, base := 1, map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]], 16
	switch {
	case s[0] == 'N':
		l.fail("\\N escapes are not supported; write the character itself")
	case '0' <= s[0] && s[0] <= '7':
		from, base = 0, 8
		for n < 3 && n < len(s) && '0' <= s[n] && s[n] <= '7' {
			n++
		}
	case n == 0:
		b.WriteByte('\\')
		return 0
	}
	if len(s) < from+n {
		l.fail("a \\%c escape needs %d hexadecimal digits", s[0], n)
	}
	v, err := strconv.ParseUint(s[from:from+n], base, 32)
	if err != nil {
		l.fail("a \\%c escape needs %d hexadecimal digits", s[0], n)
	}
	if !utf8.ValidRune(rune(v)) || v > unicode.MaxRune {
		l.fail("\\%s is no character", s[:from+n])
	}
	b.WriteRune(rune(v))
	return from + n
}

var twoByteOps = []string{"//", "**", "==", "!=", ">=", "<="}

func (l *lexer) operator(s string) token {
	line := l.line
	for _, op := range twoByteOps {
		if strings.HasPrefix(s, op) {
			return token{kind: tokOp, text: l.take(2), line: line}
		}
	}
	c := s[0]
	if strings.IndexByte("+-/*%~[](){}><=.:|,;", c) < 0 {
		r, n := utf8.DecodeRuneInString(s)
		l.take(n)
		l.fail("unexpected character %q", r)
	}
	switch c {
	case '(':
		l.brackets = append(l.brackets, ')')
	case '[':
		l.brackets = append(l.brackets, ']')
	case '{':
		l.brackets = append(l.brackets, '}')
	case ')', ']', '}':
		n := len(l.brackets)
		if n == 0 || l.brackets[n-1] != c {
			want := ""
			if n > 0 {
				want = fmt.Sprintf(", %q is awaited", l.brackets[n-1])
			}
			l.take(1)
			l.fail("unexpected %q%s", c, want)
		}
		l.brackets = l.brackets[:n-1]
	}
	return token{kind: tokOp, text: l.take(1), line: line}
}

// skipTag goes to the end of the tag after an error in it.
func (l *lexer) skipTag() {
	for l.tag != 0 && l.pos < len(l.src) {
		closing := "%}"
		if l.tag == '{' {
			closing = "}}"
		}
		end := strings.Index(l.src[l.pos:], closing)
		if end < 0 {
			l.take(len(l.src) - l.pos)
			return
		}
		body := l.take(end + 2)
		l.after(body[:end], l.tag == '%')
		l.tag = 0
	}
}

// isSpace is Python's str.isspace.
func isSpace(c rune) bool { return unicode.IsSpace(c) || 0x1c <= c && c <= 0x1f }
