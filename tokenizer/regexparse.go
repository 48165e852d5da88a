package tokenizer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// regexNode is a part of an expression.
type regexNode struct {
	kind  nodeKind
	parts []*regexNode

	op  opcode // nodeOne
	set *set
	not bool

	least, most      int // nodeRepeat; most is -1 for any number
	lazy, possessive bool
}

type nodeKind uint8

const (
	nodeOne nodeKind = iota // a character or a condition
	nodeSequence
	nodeChoice
	nodeRepeat
)

// shortest returns how many characters a match has at least.
func (n *regexNode) shortest() int {
	switch n.kind {
	case nodeSequence:
		sum := 0
		for _, p := range n.parts {
			sum += p.shortest()
		}
		return min(sum, maxCode)
	case nodeChoice:
		least := n.parts[0].shortest()
		for _, p := range n.parts {
			least = min(least, p.shortest())
		}
		return least
	case nodeRepeat:
		return min(n.least*n.parts[0].shortest(), maxCode)
	}
	if n.op == opSet {
		return 1
	}
	return 0
}

// regexParser reads an expression.
type regexParser struct {
	source string
	at     int
	depth  int
	fold   bool // case does not count
}

// maxRegexDepth bounds how deep groups may lie in groups.
const maxRegexDepth = 64

// parse reads all of the expression.
func (p *regexParser) parse() (*regexNode, error) {
	n, err := p.choice()
	if err == nil && p.rest() != "" {
		err = errors.New("an unmatched )")
	}
	if err != nil {
		return nil, fmt.Errorf("%w at byte %d", err, p.at)
	}
	return n, nil
}

func (p *regexParser) rest() string { return p.source[p.at:] }

// accept goes past text if it comes next.
func (p *regexParser) accept(text string) bool {
	if !strings.HasPrefix(p.rest(), text) {
		return false
	}
	p.at += len(text)
	return true
}

func unsupported(what string) error { return fmt.Errorf("%.60s is %w", what, ErrUnsupported) }

func (p *regexParser) choice() (*regexNode, error) {
	if p.depth++; p.depth > maxRegexDepth {
		return nil, fmt.Errorf("groups lie more than %d deep in each other", maxRegexDepth)
	}
	defer func() { p.depth-- }()
	n := &regexNode{kind: nodeChoice}
	for {
		part, err := p.sequence()
		if err != nil {
			return nil, err
		}
		n.parts = append(n.parts, part)
		if !p.accept("|") {
			break
		}
	}
	if len(n.parts) == 1 {
		return n.parts[0], nil
	}
	return n, nil
}

func (p *regexParser) sequence() (*regexNode, error) {
	n := &regexNode{kind: nodeSequence}
	for p.rest() != "" && p.rest()[0] != '|' && p.rest()[0] != ')' {
		part, err := p.atom()
		if err == nil {
			part, err = p.repeat(part)
		}
		if err != nil {
			return nil, err
		}
		n.parts = append(n.parts, part)
	}
	if len(n.parts) == 1 {
		return n.parts[0], nil
	}
	return n, nil
}

// repeat reads what may stand behind a part.
func (p *regexParser) repeat(part *regexNode) (*regexNode, error) {
	n := &regexNode{kind: nodeRepeat, parts: []*regexNode{part}, most: -1}
	at, braces := p.at, false
	switch {
	case p.accept("*"):
	case p.accept("+"):
		n.least = 1
	case p.accept("?"):
		n.most = 1
	case p.accept("{"):
		braces = true
		if err := p.count(n); err != nil {
			return nil, err
		}
	default:
		return part, nil
	}
	switch {
	case part.kind == nodeOne && part.op != opSet:
		return nil, errors.New("a repeated condition is not supported")
	case p.accept("?"):
		if n.lazy = true; braces && n.least == n.most { // in Ruby it makes the whole optional
			return nil, unsupported(p.source[at:p.at])
		}
	case p.accept("+"):
		if n.possessive = true; braces || part.kind != nodeOne { // behind braces it repeats once more
			return nil, unsupported("the possessive quantifier " + p.source[at:p.at] + " of more than a character")
		}
	}
	if rest := p.rest(); rest != "" && strings.IndexByte("*+?{", rest[0]) >= 0 {
		return nil, unsupported("the repeated quantifier " + p.source[at:p.at+1])
	}
	return n, nil
}

// count reads the numbers in braces: {2}, {2,}, {,3} or {2,3}.
func (p *regexParser) count(n *regexNode) error {
	inside, _, found := strings.Cut(p.rest(), "}")
	low, high, two := strings.Cut(inside, ",")
	number := func(text string, dst *int) bool {
		v, err := strconv.ParseUint(text, 10, 16)
		*dst = int(v)
		return err == nil
	}
	ok := found && inside != ","
	if ok = ok && (two && low == "" || number(low, &n.least)); !two {
		n.most = n.least
	} else if high != "" {
		ok = ok && number(high, &n.most)
	}
	switch {
	case !ok:
		return unsupported("{" + inside)
	case n.most >= 0 && n.most < n.least || n.most == 0 || max(n.least, n.most) > maxCode:
		return fmt.Errorf("{%.10s}: want counts from 1 to %d in their order", inside, maxCode)
	}
	p.at += len(inside) + 1
	return nil
}

// atom reads a character, a class, a condition or a group.
func (p *regexParser) atom() (*regexNode, error) {
	switch c := p.rest()[0]; c {
	case '[':
		return p.class()
	case '(':
		return p.group()
	case '\\':
		return p.escape()
	case '^':
		p.at++
		return &regexNode{op: opLineStart}, nil
	case '$':
		p.at++
		return &regexNode{op: opLineEnd}, nil
	case '.':
		p.at++
		return p.one(setItem{low: '\n', high: '\n'}, true), nil
	case '*', '+', '?', '{', ']':
		return nil, unsupported(string(rune(c)) + " in this place")
	}
	r, n := utf8.DecodeRuneInString(p.rest())
	if r == utf8.RuneError && n == 1 {
		return nil, errors.New("the text is not UTF-8")
	}
	p.at += n
	return p.one(setItem{low: r, high: r}, false), nil
}

// one is a character of a set with one item, or of those outside.
func (p *regexParser) one(item setItem, not bool) *regexNode {
	return &regexNode{op: opSet, set: newSet([]setItem{item}, not, p.fold)}
}

func (p *regexParser) group() (*regexNode, error) {
	fold := p.fold
	defer func() { p.fold = fold }()
	var around *regexNode
	switch {
	case p.accept("(?:"):
	case p.accept("(?i:"):
		p.fold = true
	case p.accept("(?="):
		around = &regexNode{op: opAhead}
	case p.accept("(?!"):
		around = &regexNode{op: opAhead, not: true}
	case p.accept("(?<="):
		around = &regexNode{op: opBehind}
	case p.accept("(?<!"):
		around = &regexNode{op: opBehind, not: true}
	case strings.HasPrefix(p.rest(), "(?"):
		return nil, unsupported("the group " + p.rest()[:min(4, len(p.rest()))])
	default: // what it captures is not wanted
		p.at++
	}
	n, err := p.choice()
	if err != nil {
		return nil, err
	}
	if !p.accept(")") {
		return nil, errors.New("a missing )")
	}
	if around == nil {
		return n, nil
	}
	if n.kind != nodeOne || n.op != opSet {
		return nil, errors.New("looking around for more than one character is not supported")
	}
	around.set = n.set
	return around, nil
}

// class reads a class in brackets.
func (p *regexParser) class() (*regexNode, error) {
	p.at++
	not := p.accept("^")
	var items []setItem
	for first := true; ; first = false {
		rest := p.rest()
		switch {
		case rest == "":
			return nil, errors.New("a missing ]")
		case rest[0] == ']' && first:
			return nil, unsupported("an empty class")
		case rest[0] == ']':
			p.at++
			return &regexNode{op: opSet, set: newSet(items, not, p.fold)}, nil
		case rest[0] == '[':
			return nil, unsupported("a class within a class")
		case strings.HasPrefix(rest, "&&"):
			return nil, unsupported("an intersection of classes")
		}
		item, err := p.member()
		if err != nil {
			return nil, err
		}
		rest = p.rest()
		if len(rest) > 1 && rest[0] == '-' && rest[1] != ']' {
			p.at++
			end, err := p.member()
			if err != nil {
				return nil, err
			}
			if item.high = end.high; item.test != nil || end.test != nil || item.high < item.low {
				return nil, errors.New("a range without an end, or in the wrong order")
			}
		}
		items = append(items, item)
	}
}

// member reads one character of a class, or an escape.
func (p *regexParser) member() (setItem, error) {
	if p.rest() == "" {
		return setItem{}, errors.New("a missing ]")
	}
	if p.rest()[0] == '\\' {
		return p.escaped(isClassWord)
	}
	r, n := utf8.DecodeRuneInString(p.rest())
	if r == utf8.RuneError && n == 1 {
		return setItem{}, errors.New("the text is not UTF-8")
	}
	p.at += n
	return setItem{low: r, high: r}, nil
}

// escape reads an escape outside of classes.
func (p *regexParser) escape() (*regexNode, error) {
	switch {
	case p.accept(`\b`):
		return &regexNode{op: opEdge}, nil
	case p.accept(`\B`):
		return &regexNode{op: opEdge, not: true}, nil
	case p.accept(`\A`):
		return &regexNode{op: opStart}, nil
	case p.accept(`\z`):
		return &regexNode{op: opEnd}, nil
	}
	item, err := p.escaped(isExpressionWord)
	if err != nil {
		return nil, err
	}
	return p.one(item, false), nil
}

// escaped reads an escape that stands for characters; word is \w.
func (p *regexParser) escaped(word func(rune) bool) (setItem, error) {
	rest := p.rest()
	if len(rest) < 2 {
		return setItem{}, errors.New(`a trailing \`)
	}
	letter := func(r rune) (setItem, error) {
		p.at += 2
		return setItem{low: r, high: r}, nil
	}
	class := func(test func(rune) bool) (setItem, error) {
		p.at += 2
		return setItem{test: test, not: unicode.IsUpper(rune(rest[1]))}, nil
	}
	switch c := rest[1]; {
	case c == 'n':
		return letter('\n')
	case c == 'r':
		return letter('\r')
	case c == 't':
		return letter('\t')
	case c == 'f':
		return letter('\f')
	case c == 'v':
		return letter('\v')
	case c == 's' || c == 'S':
		return class(unicode.IsSpace)
	case c == 'd' || c == 'D':
		return class(inCategory("Nd"))
	case c == 'w' || c == 'W':
		return class(word)
	case c == 'p' || c == 'P':
		return p.property()
	case c == 'x':
		return p.hexadecimal(`\x{`, "}", 6)
	case c == 'u':
		return p.hexadecimal(`\u`, "", 4)
	case c < utf8.RuneSelf && isPunctuation(rune(c)) || c == ' ':
		return letter(rune(c))
	}
	return setItem{}, unsupported(`the escape \` + string([]rune(rest[1:])[0]))
}

// hexadecimal reads \x{H...} or \uHHHH.
func (p *regexParser) hexadecimal(open, end string, digits int) (setItem, error) {
	bad := unsupported("the escape " + p.rest()[:min(len(p.rest()), 8)])
	if !p.accept(open) {
		return setItem{}, bad
	}
	n := 0
	for n < digits && n < len(p.rest()) && isHex(p.rest()[n]) {
		n++
	}
	r, err := strconv.ParseUint(p.rest()[:n], 16, 32)
	p.at += n
	if err != nil || end == "" && n != digits || !p.accept(end) || !utf8.ValidRune(rune(r)) {
		return setItem{}, bad
	}
	return setItem{low: rune(r), high: rune(r)}, nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// property reads \p{...} or \P{...}: a general category or a script.
func (p *regexParser) property() (setItem, error) {
	not := p.rest()[1] == 'P'
	inside, _, found := strings.Cut(p.rest()[2:], "}")
	if !found || inside == "" || inside[0] != '{' {
		return setItem{}, unsupported("the escape " + p.rest()[:2] + " without braces")
	}
	p.at += 2 + len(inside) + 1
	name, inverse := strings.CutPrefix(inside[1:], "^")
	item := setItem{not: not != inverse}
	if item.test = inCategory(name); item.test == nil {
		return setItem{}, unsupported("the property " + name)
	}
	return item, nil
}

// set is a set of characters.
type set struct {
	items []setItem
	not   bool
	fold  bool // case does not count
	ascii [2]uint64
}

// setItem is a range of characters, or those that are tested for.
type setItem struct {
	low, high rune
	test      func(rune) bool // nil for a range
	not       bool
}

func newSet(items []setItem, not, fold bool) *set {
	s := &set{items: items, not: not, fold: fold}
	for r := range rune(utf8.RuneSelf) {
		if s.search(r) {
			s.ascii[r/64] |= 1 << (r % 64)
		}
	}
	return s
}

// has reports whether r is in the set.
func (s *set) has(r rune) bool {
	if r < utf8.RuneSelf {
		return s.ascii[r/64]>>(r%64)&1 == 1
	}
	return s.search(r)
}

func (s *set) search(r rune) bool {
	found := s.holds(r)
	if s.fold {
		for f := unicode.SimpleFold(r); f != r && !found; f = unicode.SimpleFold(f) {
			found = s.holds(f)
		}
	}
	return found != s.not
}

func (s *set) holds(r rune) bool {
	for i := range s.items {
		item := &s.items[i]
		if item.test == nil && item.low <= r && r <= item.high || item.test != nil && item.test(r) != item.not {
			return true
		}
	}
	return false
}
