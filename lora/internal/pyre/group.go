package pyre

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// group reads the rest of (...).
func (p *parser) group(f flags, first bool) item {
	at := p.pos - 1
	if !p.take('?') {
		return p.capture(f, at, "")
	}
	switch c := p.next("unexpected end of pattern"); c {
	case 'P':
		return p.named(f, at)
	case ':':
		text, w := p.body(f, at)
		return item{text: "(?:" + text + ")", w: w}
	case '>':
		p.out.backtracks = true
		text, w := p.body(f, at)
		return item{text: "(?>" + text + ")", w: w}
	case '#':
		for p.next("missing ), unterminated comment") != ')' {
		}
		return item{empty: true}
	case '=', '!':
		return p.look(f, at, "(?"+string(c), false)
	case '<':
		c := p.next("unexpected end of pattern")
		if c != '=' && c != '!' {
			p.failAt(at+1, "unknown extension ?<"+string(c))
		}
		return p.look(f, at, "(?<"+string(c), true)
	case '(':
		return p.conditional(f, at)
	default:
		if c == '-' || isFlag(c) {
			return p.flagGroup(f, at, first, c)
		}
		p.failAt(at+1, "unknown extension ?"+string(c))
		return item{}
	}
}

// body reads alternatives and the closing parenthesis.
func (p *parser) body(f flags, at int) (string, width) {
	text, w := p.alternatives(f, false)
	if !p.take(')') {
		p.failAt(at, "missing ), unterminated subpattern")
	}
	return text, w
}

func (p *parser) capture(f flags, at int, name string) item {
	n := len(p.groups)
	if name != "" {
		if _, ok := p.out.names[name]; ok {
			p.failAt(at, fmt.Sprintf("redefinition of group name %q", name))
		}
		p.out.names[name] = n
	}
	p.groups = append(p.groups, width{})
	p.open[n] = true
	text, w := p.body(f, at)
	delete(p.open, n)
	p.groups[n] = w
	return item{text: "(" + text + ")", w: w}
}

// named reads the rest of (?P<name>...) or (?P=name).
func (p *parser) named(f flags, at int) item {
	switch c := p.next("unexpected end of pattern"); c {
	case '<':
		name := p.name('>', at)
		return p.capture(f, at, name)
	case '=':
		name := p.name(')', at)
		n, ok := p.out.names[name]
		if !ok {
			p.failAt(at, fmt.Sprintf("unknown group name %q", name))
		}
		return p.backReference(at, n)
	default:
		p.failAt(at+1, "unknown extension ?P"+string(c))
		return item{}
	}
}

// until reads a name up to end.
func (p *parser) until(end rune, at int) string {
	start := p.pos
	for p.next("missing "+string(end)+", unterminated name") != end {
	}
	if p.pos-1 == start {
		p.failAt(at, "missing group name")
	}
	return string(p.src[start : p.pos-1])
}

func (p *parser) name(end rune, at int) string {
	name := p.until(end, at)
	for i, c := range name {
		if c != '_' && !unicode.IsLetter(c) && (i == 0 || !unicode.IsDigit(c)) {
			p.failAt(at, fmt.Sprintf("bad character in group name %q", name))
		}
	}
	return name
}

// look reads a lookahead or lookbehind. Python looks behind only over a fixed number of characters.
func (p *parser) look(f flags, at int, open string, behind bool) item {
	p.out.backtracks = true
	before := p.behind
	if behind && p.behind == 0 {
		p.behind = len(p.groups)
	}
	text, w := p.body(f, at)
	p.behind = before
	if behind && w.min != w.max {
		p.failAt(at, "look-behind requires fixed-width pattern")
	}
	return item{text: open + text + ")"}
}

// conditional reads the rest of (?(group)yes|no).
func (p *parser) conditional(f flags, at int) item {
	p.out.backtracks = true
	name := p.until(')', at)
	n, err := strconv.Atoi(name)
	switch {
	case err == nil && n < 1:
		p.failAt(at, "bad group number")
	case err == nil:
		p.conditions = append(p.conditions, n)
	default:
		var ok bool
		if n, ok = p.out.names[name]; !ok {
			p.failAt(at, fmt.Sprintf("unknown group name %q", name))
		}
	}
	p.checkBehind(at, n)
	yes, w := p.sequence(f, false)
	no, v := "", width{}
	if p.take('|') {
		no, v = p.sequence(f, false)
		if p.peek() == '|' {
			p.failAt(p.pos, "conditional backref with more than two branches")
		}
	}
	if !p.take(')') {
		p.failAt(at, "missing ), unterminated subpattern")
	}
	return item{text: fmt.Sprintf("(?(%d)%s|%s)", n, yes, no), w: w.or(v)}
}

func isFlag(c rune) bool { return strings.ContainsRune("aiLmsux", c) }

// flagGroup reads the rest of (?flags) or (?flags-flags:...).
func (p *parser) flagGroup(f flags, at int, first bool, c rune) item {
	var on, off string
	for ; c != '-' && c != ')' && c != ':'; c = p.next("missing -, : or )") {
		p.checkFlag(at, c)
		on += string(c)
	}
	if strings.Contains(on, "L") {
		p.failAt(at, "bad inline flags: cannot use 'L' flag with a str pattern")
	}
	if strings.Contains(on, "a") && strings.Contains(on, "u") {
		p.failAt(at, "bad inline flags: flags 'a', 'u' and 'L' are incompatible")
	}
	if c == ')' {
		if !first {
			p.failAt(at, "global flags not at the start of the expression")
		}
		p.global += on
		return item{empty: true}
	}
	if c == '-' {
		for c = p.next("missing flag"); c != ':'; c = p.next("missing :") {
			p.checkFlag(at, c)
			if strings.ContainsRune("aLu", c) {
				p.failAt(at, "bad inline flags: cannot turn off flags 'a', 'u' and 'L'")
			}
			off += string(c)
		}
		if off == "" {
			p.failAt(at, "missing flag")
		}
	}
	for _, c := range off {
		if strings.ContainsRune(on, c) {
			p.failAt(at, "bad inline flags: flag turned on and off")
		}
	}
	return p.scoped(f, at, on, off)
}

func (p *parser) checkFlag(at int, c rune) {
	if !isFlag(c) {
		p.failAt(at, "unknown flag")
	}
}

// scoped reads the body of a group with flags of its own.
func (p *parser) scoped(f flags, at int, on, off string) item {
	f.verbose = (f.verbose || strings.Contains(on, "x")) && !strings.Contains(off, "x")
	text, w := p.body(f, at)
	switch {
	case strings.Contains(on, "i"):
		return item{text: "(?i:" + text + ")", w: w}
	case strings.Contains(off, "i"):
		return item{text: "(?-i:" + text + ")", w: w}
	}
	return item{text: "(?:" + text + ")", w: w}
}
