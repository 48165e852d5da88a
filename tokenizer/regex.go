package tokenizer

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// expression is a pattern without a scanner of its own. It runs on Go's regexp, whose time is linear in the text:
// a tokenizer file cannot bring a pattern that never ends.
type expression struct {
	re   *regexp.Regexp
	tail bool // group 1 is the last alternative, \s+(?!\S)|\s+
}

// spaceTail ends most patterns of the field. It has the one look-ahead that Go's regexp can be helped over.
const spaceTail = `\s+(?!\S)|\s+`

// newPattern returns a matcher for a regular expression in the syntax of Hugging Face's tokenizers (Oniguruma). What
// cannot be matched as the reference does is an error.
func newPattern(source string) (pattern, error) {
	if s := known(source); s != nil {
		return s, nil
	}
	return newExpression(source)
}

func newExpression(source string) (pattern, error) {
	var e expression
	body := source
	if body, e.tail = strings.CutSuffix(source, "|"+spaceTail); !e.tail {
		body = source
	}
	translated, err := translate(body)
	if err != nil {
		return nil, fmt.Errorf("regular expression %.200q: %w", source, err)
	}
	if e.tail {
		translated += `|(` + spaceClass + `+)`
	}
	if e.re, err = regexp.Compile(translated); err != nil {
		return nil, fmt.Errorf("regular expression %.200q: %w", source, err)
	}
	if e.re.MatchString("") {
		return nil, fmt.Errorf("regular expression %.200q matches nothing at all; such a pattern cannot cut text", source)
	}
	return e, nil
}

func (e expression) find(s string) (int, int) {
	if !e.tail {
		if m := e.re.FindStringIndex(s); m != nil {
			return m[0], m[1]
		}
		return -1, -1
	}
	m := e.re.FindStringSubmatchIndex(s)
	if m == nil {
		return -1, -1
	}
	start, end := m[0], m[1]
	if m[2] >= 0 && end < len(s) { // text follows: it keeps the last white space, if that is not all there is
		if _, n := utf8.DecodeLastRuneInString(s[:end]); end-n > start {
			end -= n
		}
	}
	return start, end
}

// White space as Oniguruma and Unicode have it; Go's \s knows ASCII only.
const (
	spaceRanges   = `\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}`
	unspaceRanges = `\x{0}-\x{8}\x{e}-\x{1f}!-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}` +
		`\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff}`
	spaceClass = `[` + spaceRanges + `]`
)

// translate rewrites an expression for Go's regexp. It refuses what Go reads differently or not at all.
func translate(source string) (string, error) {
	t := translator{rest: source}
	for t.rest != "" && t.err == nil {
		t.step()
	}
	if t.err != nil {
		return "", fmt.Errorf("%w at byte %d", t.err, len(source)-len(t.rest))
	}
	return t.out.String(), nil
}

type translator struct {
	rest    string
	out     strings.Builder
	inClass bool
	err     error
}

// take moves n bytes from the source to the result.
func (t *translator) take(n int) { t.swap(n, t.rest[:n]) }

// swap writes text in the place of n bytes of the source.
func (t *translator) swap(n int, text string) {
	t.out.WriteString(text)
	t.rest = t.rest[n:]
}

func (t *translator) refuse(what string) {
	t.err = fmt.Errorf("%s is not supported", what)
}

func (t *translator) step() {
	switch c := t.rest[0]; {
	case c == '\\':
		t.escape()
	case t.inClass:
		t.member()
	case c == '[':
		t.open()
	case c == '(':
		t.group()
	case c == '^' || c == '$':
		t.refuse("the anchor " + t.rest[:1])
	case strings.ContainsRune("*+?}", rune(c)) && len(t.rest) > 1 && t.rest[1] == '+':
		t.refuse("the possessive or repeated quantifier " + t.rest[:2])
	default:
		t.take(1)
	}
}

// open begins a class. A "]" that comes first is read differently by different engines.
func (t *translator) open() {
	n := 1
	if strings.HasPrefix(t.rest, "[^") {
		n = 2
	}
	if strings.HasPrefix(t.rest[n:], "]") {
		t.refuse("an empty class")
		return
	}
	t.inClass = true
	t.take(n)
}

func (t *translator) member() {
	switch {
	case t.rest[0] == '[':
		t.refuse("a class within a class")
	case strings.HasPrefix(t.rest, "&&"):
		t.refuse("an intersection of classes")
	default:
		t.inClass = t.rest[0] != ']'
		t.take(1)
	}
}

// group begins a group. Captures are not wanted: they become plain groups.
func (t *translator) group() {
	switch {
	case strings.HasPrefix(t.rest, "(?:"):
		t.take(3)
	case strings.HasPrefix(t.rest, "(?i:"):
		t.take(4)
	case strings.HasPrefix(t.rest, "(?"):
		t.refuse("the group " + t.rest[:min(4, len(t.rest))])
	default:
		t.swap(1, "(?:")
	}
}

func (t *translator) escape() {
	if len(t.rest) < 2 {
		t.refuse(`a trailing \`)
		return
	}
	switch c := t.rest[1]; {
	case c == 's' || c == 'S':
		t.white(c == 's')
	case c == 'd':
		t.swap(2, `\p{Nd}`)
	case c == 'D':
		t.swap(2, `\P{Nd}`)
	case c == 'u':
		t.codePoint()
	case c == 'p' || c == 'P' || c == 'x':
		t.braced()
	case strings.IndexByte("rntfv", c) >= 0:
		t.take(2)
	case c < utf8.RuneSelf && isPunctuation(rune(c)):
		t.take(2)
	case c == ' ':
		t.swap(2, " ")
	default:
		t.refuse(`the escape \` + string([]rune(t.rest[1:])[0]))
	}
}

// braced moves an escape with an argument in braces, such as \p{L}.
func (t *translator) braced() {
	end := strings.IndexByte(t.rest, '}')
	if end < 0 || t.rest[2] != '{' {
		t.refuse("the escape " + t.rest[:2] + " without braces")
		return
	}
	t.take(end + 1)
}

// white writes \s or \S with all of Unicode's white space.
func (t *translator) white(is bool) {
	ranges := spaceRanges
	if !is {
		ranges = unspaceRanges
	}
	if !t.inClass {
		ranges = "[" + ranges + "]"
	}
	t.swap(2, ranges)
}

// codePoint writes \uHHHH in Go's way.
func (t *translator) codePoint() {
	if len(t.rest) < 6 || strings.Trim(t.rest[2:6], "0123456789abcdefABCDEF") != "" {
		t.refuse(`\u without four hexadecimal digits`)
		return
	}
	t.swap(6, `\x{`+t.rest[2:6]+`}`)
}
