package pyre

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits that no honest expression reaches.
const (
	maxLength = 1 << 14
	maxDepth  = 100
	maxRepeat = 1<<32 - 1
)

// parsed is an expression in the syntax that regexp and regexp2 share. Groups are unnamed and numbered as in Python.
type parsed struct {
	text       string
	names      map[string]int
	backtracks bool // needs what an automaton cannot do
}

// width is how many characters something matches, at least and at most.
type width struct{ min, max int64 }

func (w width) then(v width) width { return width{sat(w.min + v.min), sat(w.max + v.max)} }
func (w width) or(v width) width   { return width{min(w.min, v.min), max(w.max, v.max)} }

func (w width) times(lo, hi int64) width { return width{satMul(w.min, lo), satMul(w.max, hi)} }

// sat keeps widths small enough to add and multiply.
func sat(n int64) int64 { return min(n, maxRepeat) }

func satMul(a, b int64) int64 {
	if a != 0 && b > maxRepeat/a {
		return maxRepeat
	}
	return a * b
}

// parser walks an expression as Lib/re/_parser.py does, and refuses what it refuses.
type parser struct {
	src        []rune
	pos        int
	out        parsed
	groups     []width // by number; [0] is unused
	open       map[int]bool
	behind     int // groups that existed when the outermost lookbehind began, 0 outside
	conditions []int
	depth      int
	global     string // flags of the whole expression
}

// flags are those that change how the rest is read; the others are written as they stand.
type flags struct{ verbose bool }

type syntaxError struct {
	pos int
	msg string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at position %d", e.msg, e.pos) }

func parse(expr string) (*parsed, error) {
	if len(expr) > maxLength {
		return nil, fmt.Errorf("%d bytes, at most %d are plausible", len(expr), maxLength)
	}
	if !utf8.ValidString(expr) {
		return nil, fmt.Errorf("not valid UTF-8")
	}
	p, text, err := parseWith(expr, flags{})
	// Python starts again when it meets a verbose flag: everything is to be read anew.
	if err == nil && strings.Contains(p.global, "x") {
		p, text, err = parseWith(expr, flags{verbose: true})
	}
	if err != nil {
		return nil, err
	}
	if strings.Contains(p.global, "i") {
		text = "(?i:" + text + ")"
	}
	p.out.text = text
	return &p.out, nil
}

func parseWith(expr string, f flags) (p *parser, text string, err error) {
	p = &parser{src: []rune(expr), groups: make([]width, 1), open: map[int]bool{}, out: parsed{names: map[string]int{}}}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *syntaxError:
			err = e
		default:
			panic(e)
		}
	}()
	text, _ = p.alternatives(f, true)
	if p.pos < len(p.src) {
		p.failAt(p.pos, "unbalanced parenthesis")
	}
	for _, n := range p.conditions {
		if n >= len(p.groups) {
			p.failAt(p.pos, fmt.Sprintf("invalid group reference %d", n))
		}
	}
	return p, text, nil
}

func (p *parser) failAt(pos int, msg string) { panic(&syntaxError{pos, msg}) }

// peek returns the next character, -1 at the end.
func (p *parser) peek() rune {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return -1
}

func (p *parser) take(c rune) bool {
	if p.peek() == c {
		p.pos++
		return true
	}
	return false
}

func (p *parser) next(what string) rune {
	c := p.peek()
	if c < 0 {
		p.failAt(p.pos, what)
	}
	p.pos++
	return c
}

// alternatives reads a|b|... up to a closing parenthesis or the end.
func (p *parser) alternatives(f flags, first bool) (string, width) {
	if p.depth++; p.depth > maxDepth {
		p.failAt(p.pos, "too many nested groups")
	}
	defer func() { p.depth-- }()
	text, w := p.sequence(f, first)
	for p.take('|') {
		t, v := p.sequence(f, false)
		text, w = text+"|"+t, w.or(v)
	}
	return text, w
}

// item is one element of a sequence.
type item struct {
	text   string
	w      width
	repeat bool // it is a repetition already
	at     bool // it is a place such as ^, which cannot be repeated
	empty  bool // it is nothing at all, such as a comment
}

// sequence reads items up to | or ) or the end.
func (p *parser) sequence(f flags, first bool) (string, width) {
	var b strings.Builder
	var w width
	var last *item
	flush := func() {
		if last != nil {
			b.WriteString(last.text)
			w = w.then(last.w)
		}
	}
	for {
		c := p.peek()
		if c < 0 || c == '|' || c == ')' {
			break
		}
		if f.verbose && p.skipVerbose() {
			continue
		}
		if strings.ContainsRune("*+?{", c) {
			if p.quantifier(&last) {
				continue
			}
		}
		it := p.item(f, first && b.Len() == 0 && last == nil)
		if it.empty {
			continue
		}
		flush()
		last = &it
	}
	flush()
	return b.String(), w
}

func (p *parser) skipVerbose() bool {
	switch c := p.peek(); {
	case strings.ContainsRune(" \t\n\r\v\f", c):
		p.pos++
		return true
	case c == '#':
		for p.pos < len(p.src) && p.src[p.pos] != '\n' {
			p.pos++
		}
		return true
	}
	return false
}

// quantifier applies a repetition to the item before it. It returns false for a brace that is none.
func (p *parser) quantifier(last **item) bool {
	at := p.pos
	lo, hi, ok := p.counts()
	if !ok {
		p.pos = at
		return false
	}
	it := *last
	if it == nil || it.at {
		p.failAt(at, "nothing to repeat")
	}
	if it.repeat {
		p.failAt(at, "multiple repeat")
	}
	count := fmt.Sprintf("{%d,%d}", lo, hi)
	switch {
	case lo == 0 && hi == maxRepeat:
		count = "*"
	case lo == 1 && hi == maxRepeat:
		count = "+"
	case lo == 0 && hi == 1:
		count = "?"
	case hi == maxRepeat:
		count = fmt.Sprintf("{%d,}", lo)
	}
	text := "(?:" + it.text + ")" + count
	switch {
	case p.take('?'):
		text += "?"
	case p.take('+'):
		text = "(?>" + text + ")"
		p.out.backtracks = true
	}
	*last = &item{text: text, w: it.w.times(lo, hi), repeat: true}
	return true
}

// counts reads * + ? or {m,n}; ok is false for a brace that is a plain character.
func (p *parser) counts() (lo, hi int64, ok bool) {
	at := p.pos
	switch p.next("") {
	case '*':
		return 0, maxRepeat, true
	case '+':
		return 1, maxRepeat, true
	case '?':
		return 0, 1, true
	}
	if p.peek() == '}' {
		return 0, 0, false
	}
	loText := p.digits()
	hiText := loText
	if p.take(',') {
		hiText = p.digits()
	}
	if !p.take('}') {
		return 0, 0, false
	}
	lo, hi = 0, maxRepeat
	var err error
	if loText != "" {
		if lo, err = strconv.ParseInt(loText, 10, 64); err != nil || lo >= maxRepeat {
			p.failAt(at, "the repetition number is too large")
		}
	}
	if hiText != "" {
		if hi, err = strconv.ParseInt(hiText, 10, 64); err != nil || hi >= maxRepeat {
			p.failAt(at, "the repetition number is too large")
		}
		if hi < lo {
			p.failAt(at, "min repeat greater than max repeat")
		}
	}
	return lo, hi, true
}

func (p *parser) digits() string {
	start := p.pos
	for p.peek() >= '0' && p.peek() <= '9' {
		p.pos++
	}
	return string(p.src[start:p.pos])
}

// item reads one element.
func (p *parser) item(f flags, first bool) item {
	one := width{1, 1}
	switch c := p.next(""); c {
	case '.':
		return item{text: ".", w: one}
	case '^', '$':
		return item{text: string(c), at: true}
	case '[':
		return item{text: p.set(), w: one}
	case '\\':
		return p.escape()
	case '(':
		return p.group(f, first)
	default:
		return item{text: regexp.QuoteMeta(string(c)), w: one}
	}
}

// The classes of ASCII. Python's \s has the separators from 0x1c on too.
var (
	digitRanges = []rune{'0', '9'}
	wordRanges  = []rune{'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}
	spaceRanges = []rune{'\t', '\r', 0x1c, ' '}
)

// category returns the ranges of \d \D \s \S \w \W, nil for another letter.
func category(c rune) []rune {
	var r []rune
	switch c {
	case 'd', 'D':
		r = digitRanges
	case 's', 'S':
		r = spaceRanges
	case 'w', 'W':
		r = wordRanges
	default:
		return nil
	}
	if unicode.IsLower(c) {
		return r
	}
	var not []rune
	from := rune(0)
	for i := 0; i < len(r); i += 2 {
		not = append(not, from, r[i]-1)
		from = r[i+1] + 1
	}
	return append(not, from, unicode.MaxRune)
}

// class writes a set of ranges.
func class(ranges []rune, negated bool) string {
	var b strings.Builder
	b.WriteByte('[')
	if negated {
		b.WriteByte('^')
	}
	for i := 0; i < len(ranges); i += 2 {
		writeRune(&b, ranges[i])
		if ranges[i+1] != ranges[i] {
			b.WriteByte('-')
			writeRune(&b, ranges[i+1])
		}
	}
	b.WriteByte(']')
	return b.String()
}

func writeRune(b *strings.Builder, c rune) {
	if c < utf8.RuneSelf && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
		fmt.Fprintf(b, `\x%02x`, c)
		return
	}
	b.WriteRune(c)
}

// set reads the rest of [...].
func (p *parser) set() string {
	start := p.pos - 1
	const unterminated = "unterminated character set"
	negated := p.take('^')
	var ranges []rune
	for first := true; ; first = false {
		c := p.next(unterminated)
		if c == ']' && !first {
			return class(ranges, negated)
		}
		lo, cat := p.setChar(c)
		if !p.take('-') {
			if cat != nil {
				ranges = append(ranges, cat...)
			} else {
				ranges = append(ranges, lo, lo)
			}
			continue
		}
		c = p.next(unterminated)
		if c == ']' {
			if cat == nil {
				cat = []rune{lo, lo}
			}
			return class(append(append(ranges, cat...), '-', '-'), negated)
		}
		hi, hiCat := p.setChar(c)
		if cat != nil || hiCat != nil || hi < lo {
			p.failAt(start, "bad character range")
		}
		ranges = append(ranges, lo, hi)
	}
}

// setChar is a character of a set, or a category.
func (p *parser) setChar(c rune) (rune, []rune) {
	if c != '\\' {
		return c, nil
	}
	at := p.pos - 1
	c = p.next("bad escape (end of pattern)")
	if cat := category(c); cat != nil {
		return 0, cat
	}
	switch {
	case c == 'b':
		return '\b', nil
	case c >= '0' && c <= '7':
		return p.octal(at, 3), nil
	}
	if v, ok := p.charEscape(at, c); ok {
		return v, nil
	}
	p.failAt(at, `bad escape \`+string(c))
	return 0, nil
}

// octal reads up to n octal digits, the first of which has been read.
func (p *parser) octal(at, n int) rune {
	v := p.src[p.pos-1] - '0'
	for i := 1; i < n && p.peek() >= '0' && p.peek() <= '7'; i++ {
		v = v<<3 | (p.next("") - '0')
	}
	if v > 0o377 {
		p.failAt(at, "octal escape value outside of range 0-0o377")
	}
	return v
}

// charEscape is an escape that stands for one character, inside a set or outside; digits are not among them.
func (p *parser) charEscape(at int, c rune) (rune, bool) {
	if i := strings.IndexRune("afnrtv", c); i >= 0 {
		return []rune{'\a', '\f', '\n', '\r', '\t', '\v'}[i], true
	}
	switch c {
	case 'x':
		return p.hex(at, 2), true
	case 'u':
		return p.hex(at, 4), true
	case 'U':
		return p.hex(at, 8), true
	case 'N':
		p.failAt(at, "named characters are not supported")
	}
	if c >= '0' && c <= '9' || c < utf8.RuneSelf && unicode.IsLetter(c) {
		return 0, false
	}
	return c, true
}

func (p *parser) hex(at, n int) rune {
	if p.pos+n > len(p.src) {
		p.failAt(at, "incomplete escape")
	}
	v, err := strconv.ParseUint(string(p.src[p.pos:p.pos+n]), 16, 32)
	if err != nil {
		p.failAt(at, "incomplete escape")
	}
	p.pos += n
	if !utf8.ValidRune(rune(v)) || v > unicode.MaxRune {
		p.failAt(at, "bad escape: not a character")
	}
	return rune(v)
}

// escape reads the rest of an escape outside a set.
func (p *parser) escape() item {
	at := p.pos - 1
	c := p.next("bad escape (end of pattern)")
	one := width{1, 1}
	if cat := category(c); cat != nil {
		return item{text: class(cat, false), w: one}
	}
	switch c {
	case 'A', 'b', 'B':
		return item{text: `\` + string(c), at: true}
	case 'Z', 'z':
		return item{text: `\z`, at: true}
	case '0':
		return item{text: regexp.QuoteMeta(string(p.octal(at, 3))), w: one}
	}
	if c >= '1' && c <= '9' {
		return p.reference(at)
	}
	v, ok := p.charEscape(at, c)
	if !ok {
		p.failAt(at, `bad escape \`+string(c))
	}
	return item{text: regexp.QuoteMeta(string(v)), w: one}
}

// reference reads \1 to \99, or an octal escape of three digits.
func (p *parser) reference(at int) item {
	isOctal := func(i int) bool { return i < len(p.src) && p.src[i] >= '0' && p.src[i] <= '7' }
	if isOctal(p.pos-1) && isOctal(p.pos) && isOctal(p.pos+1) {
		return item{text: regexp.QuoteMeta(string(p.octal(at, 3))), w: width{1, 1}}
	}
	n := int(p.src[p.pos-1] - '0')
	if c := p.peek(); c >= '0' && c <= '9' {
		n = n*10 + int(p.next("")-'0')
	}
	if n >= len(p.groups) {
		p.failAt(at, fmt.Sprintf("invalid group reference %d", n))
	}
	return p.backReference(at, n)
}

func (p *parser) backReference(at, n int) item {
	if p.open[n] {
		p.failAt(at, "cannot refer to an open group")
	}
	p.checkBehind(at, n)
	p.out.backtracks = true
	return item{text: fmt.Sprintf(`(?:\%d)`, n), w: p.groups[n]}
}

func (p *parser) checkBehind(at, n int) {
	switch {
	case p.behind == 0:
	case p.open[n] || n >= len(p.groups):
		p.failAt(at, "cannot refer to an open group")
	case n >= p.behind:
		p.failAt(at, "cannot refer to group defined in the same lookbehind subpattern")
	}
}
