package jinja

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	exprDepth  = 500 // operators and brackets within each other
	blockDepth = 100 // blocks within each other
	maxErrors  = 10  // what Parse gathers
)

// Parse reads a template. The error is Errors, with every place that is wrong (at most 10 of them).
func Parse(src string) (t *Template, err error) {
	if len(src) > MaxSource {
		return nil, Errors{{1, fmt.Sprintf("the template has %d bytes, at most %d are read", len(src), MaxSource)}}
	}
	if !utf8.ValidString(src) {
		return nil, Errors{{1 + strings.Count(src[:invalidAt(src)], "\n"),
			fmt.Sprintf("not valid UTF-8 at byte %d", invalidAt(src))}}
	}
	p := &parser{lex: newLexer(src)}
	defer func() {
		v := recover()
		if e, ok := v.(*Error); ok {
			p.errs = append(p.errs, e)
		} else if v != nil && v != errEnough {
			p.errs = append(p.errs, asError(v, p.lex.line).(*Error))
		}
		if len(p.errs) > 0 {
			t, err = nil, p.errs
		}
	}()
	root := p.newFrame()
	p.frame = root
	body, _ := p.body()
	for _, f := range slices.Backward(p.frames) { // those within before those around them
		f.decide()
	}
	return &Template{body, root, len(src), p.generation}, nil
}

func invalidAt(s string) int {
	for i, c := range s {
		if _, n := utf8.DecodeRuneInString(s[i:]); c == utf8.RuneError && n == 1 {
			return i
		}
	}
	return len(s)
}

// errEnough ends parsing after maxErrors.
var errEnough = new(int)

type parser struct {
	lex        *lexer
	buf        []token // read ahead
	errs       Errors
	depth      int
	open       []openBlock
	soft       bool     // within an if: an unknown filter is an error only when it is reached
	unknown    []*Error // filters and tests of this tag, unless they turn out to stand in a condition
	loops      int      // for loops around, within the same macro
	generation bool
	frame      *frame // of the body that is read
	frames     []*frame
	special    [len(specialNames)]bool // which of them the body of the macro reads
}

// specialNames are what a macro that reads them is given.
var specialNames = [...]string{"caller", "kwargs", "varargs"}

// openBlock is a block that is not closed yet, and what may come next in it.
type openBlock struct {
	name string
	line int
	ends []string
}

func (p *parser) fail(line int, format string, args ...any) {
	panic(&Error{line, fmt.Sprintf(format, args...)})
}

// peek returns the i-th token from here; 0 is the next.
func (p *parser) peek(i int) token {
	for len(p.buf) <= i {
		p.buf = append(p.buf, p.lex.next())
	}
	return p.buf[i]
}

func (p *parser) next() token {
	t := p.peek(0)
	p.buf = p.buf[1:]
	return t
}

func (p *parser) line() int { return p.peek(0).line }

func (p *parser) isOp(op string) bool   { t := p.peek(0); return t.kind == tokOp && t.text == op }
func (p *parser) isName(n string) bool  { t := p.peek(0); return t.kind == tokName && t.text == n }
func (p *parser) skipOp(op string) bool { return p.isOp(op) && p.next().kind == tokOp }
func (p *parser) skipName(n string) bool {
	return p.isName(n) && p.next().kind == tokName
}

func (p *parser) expectOp(op string) {
	if !p.skipOp(op) {
		p.unexpected(strconv.Quote(op))
	}
}

func (p *parser) name() string {
	if p.peek(0).kind != tokName {
		p.unexpected("a name")
	}
	return p.next().text
}

func (p *parser) unexpected(want string) {
	t := p.peek(0)
	p.fail(t.line, "unexpected %s, want %s", t.describe(), want)
}

// end consumes the end of a tag.
func (p *parser) end(kind tokenKind) {
	if p.peek(0).kind != kind {
		p.unexpected("the end of the tag")
	}
	if len(p.unknown) > 0 {
		panic(p.unknown[0])
	}
	p.next()
}

// guard runs f, which reads a tag; where it fails the error is kept and the rest of the tag skipped.
func (p *parser) guard(f func()) {
	depth, soft := p.depth, p.soft
	defer func() {
		v := recover()
		p.unknown = nil
		if v == nil {
			return
		}
		e, ok := v.(*Error)
		if !ok {
			panic(v)
		}
		p.errs = append(p.errs, e)
		if len(p.errs) >= maxErrors {
			panic(errEnough)
		}
		p.depth, p.soft = depth, soft
		p.skipTag()
	}()
	f()
}

// skipTag drops what is left of the tag.
func (p *parser) skipTag() {
	for i, t := range p.buf {
		if t.kind == tokBlockEnd || t.kind == tokVarEnd {
			p.buf = p.buf[i+1:]
			return
		}
	}
	p.buf = nil
	p.lex.skipTag()
}

// body reads up to a tag that closes or divides one of the open blocks, and returns its name with the tag's arguments
// still to be read; "" at the end of the template. What is wrong in it is kept, not thrown.
func (p *parser) body() (body []stmt, end string) {
	for more := true; more && end == ""; {
		p.guard(func() {
			t := p.peek(0)
			switch t.kind {
			case tokEOF:
				more = false
			case tokData:
				p.next()
				body = append(body, data(t.text))
			case tokVarBegin:
				p.next()
				e := p.tuple(true, false)
				p.end(tokVarEnd)
				body = append(body, &output{e, t.line})
			default:
				p.next()
				if end = p.blockEnd(); end == "" {
					body = append(body, p.statement())
				}
			}
		})
	}
	return body, end
}

// blockEnd reports whether the tag closes or divides an open block, and if so consumes its name.
func (p *parser) blockEnd() (end string) {
	t := p.peek(0)
	if t.kind != tokName {
		return ""
	}
	for i := len(p.open) - 1; i >= 0; i-- {
		if !slices.Contains(p.open[i].ends, t.text) {
			continue
		}
		if i < len(p.open)-1 && !strings.HasPrefix(t.text, "end") {
			return "" // an else belongs to the innermost block only
		}
		p.next()
		return t.text
	}
	return ""
}

// inBlock reads the body of a block up to one of ends.
func (p *parser) inBlock(name string, line int, ends ...string) ([]stmt, string) {
	if len(p.open) >= blockDepth {
		p.errs = append(p.errs, &Error{line, fmt.Sprintf("blocks are nested deeper than %d", blockDepth)})
		panic(errEnough)
	}
	p.open = append(p.open, openBlock{name, line, ends})
	body, end := p.body()
	p.open = p.open[:len(p.open)-1]
	if !slices.Contains(ends, end) {
		p.errs = append(p.errs, &Error{line, fmt.Sprintf("the block %q is not closed: %q is missing", name, ends[len(ends)-1])})
		if end == "" || len(p.errs) >= maxErrors {
			panic(errEnough)
		}
		// The tag closes an outer block: give it back.
		p.buf = append([]token{{kind: tokBlockBegin, line: p.lex.line}, {kind: tokName, text: end, line: p.lex.line}}, p.buf...)
		return body, ""
	}
	return body, end
}

// closed reads a block that has nothing but a body, to the end of its last tag.
func (p *parser) closed(name string, line int) []stmt {
	body, end := p.inBlock(name, line, "end"+name)
	if end != "" {
		p.guard(func() { p.end(tokBlockEnd) })
	}
	return body
}

// inner reads a body with variables of its own.
func (p *parser) inner(f *frame, read func()) {
	soft := p.soft
	p.soft = false
	p.within(f, read)
	p.soft = soft
}

// inMacro is inner for a body that is called: loops around it are not its own.
func (p *parser) inMacro(f *frame, read func()) {
	loops, special := p.loops, p.special
	p.loops, p.special = 0, [len(specialNames)]bool{}
	p.inner(f, read)
	p.loops = loops
	for i := range special {
		p.special[i] = p.special[i] || special[i]
	}
}

var refusedTags = map[string]string{
	"include": "other templates are never read", "import": "other templates are never read",
	"from": "other templates are never read", "extends": "other templates are never read",
	"block": "it serves templates that extend others", "autoescape": "chat templates write plain text",
}

// statement reads a block tag, its body and its closing tag.
func (p *parser) statement() stmt {
	t := p.peek(0)
	if t.kind != tokName {
		p.unexpected("the name of a tag")
	}
	p.next()
	switch t.text {
	case "for":
		return p.forLoop(t.line)
	case "if":
		return p.ifElse(t.line)
	case "set":
		return p.set(t.line)
	case "macro":
		return p.macro(t.line)
	case "call":
		return p.callBlock(t.line)
	case "filter":
		return p.filterBlock(t.line)
	case "with":
		return p.with(t.line)
	case "print":
		return p.print(t.line)
	case "generation":
		return p.generated(t.line)
	case "break", "continue":
		if p.loops == 0 {
			p.fail(t.line, "%q outside of a loop", t.text)
		}
		p.end(tokBlockEnd)
		return leave{map[string]flow{"break": flowBreak, "continue": flowContinue}[t.text]}
	}
	if why, ok := refusedTags[t.text]; ok {
		p.fail(t.line, "the tag %q is refused: %s", t.text, why)
	}
	if strings.HasPrefix(t.text, "end") || strings.HasPrefix(t.text, "el") {
		p.fail(t.line, "unexpected tag %q: no block is open that it belongs to", t.text)
	}
	p.fail(t.line, "unknown tag %q", t.text)
	return nil
}

// head reads what stands between a tag's name and its end; where that is wrong the block is read nevertheless.
func (p *parser) head(f func()) {
	p.guard(func() {
		depth := p.depth
		f()
		p.depth = depth
		p.end(tokBlockEnd)
	})
}

func (p *parser) forLoop(line int) stmt {
	s := &forLoop{line: line}
	p.head(func() {
		s.target = p.targets(true)
		if names(s.target, "loop") {
			p.fail(line, "the variable of a loop cannot be called loop")
		}
		if !p.skipName("in") {
			p.unexpected(`"in"`)
		}
		s.iter = p.tuple(false, false)
		if p.skipName("if") {
			s.testFrame = p.newFrame()
			p.within(s.testFrame, func() {
				p.store(s.target)
				s.test = p.expr()
			})
		}
		s.recursive = p.skipName("recursive")
	})
	s.frame, s.elseFrame = p.newFrame(), p.newFrame()
	end := ""
	p.inner(s.frame, func() {
		p.frame.mentions("loop")
		p.store(s.target)
		p.loops++
		s.body, end = p.inBlock("for", line, "else", "endfor")
		p.loops--
	})
	if end == "else" {
		p.inner(s.elseFrame, func() {
			p.guard(func() { p.end(tokBlockEnd) })
			s.orElse, end = p.inBlock("for", line, "endfor")
		})
	}
	if end != "" {
		p.guard(func() { p.end(tokBlockEnd) })
	}
	return s
}

// names reports whether one of the names that a target assigns is name.
func names(target expr, name string) bool {
	switch t := target.(type) {
	case *nameExpr:
		return t.name == name
	case *tupleExpr:
		return slices.ContainsFunc(t.items, func(e expr) bool { return names(e, name) })
	}
	return false
}

func (p *parser) ifElse(line int) stmt {
	soft, f := p.soft, p.frame
	p.soft = true
	f.branches++
	s := &ifElse{}
	end := "elif"
	for end == "elif" {
		var test expr
		p.head(func() { test = p.tuple(false, false) })
		var body []stmt
		body, end = p.inBlock("if", line, "elif", "else", "endif")
		s.tests, s.bodies = append(s.tests, test), append(s.bodies, body)
	}
	if end == "else" {
		p.guard(func() { p.end(tokBlockEnd) })
		s.orElse, end = p.inBlock("if", line, "endif")
	}
	if end != "" {
		p.guard(func() { p.end(tokBlockEnd) })
	}
	p.soft = soft
	f.branches--
	return s
}

func (p *parser) set(line int) stmt {
	s := &assign{line: line}
	block := false
	p.head(func() {
		s.target = p.targets(false)
		if p.skipOp("=") {
			s.value = p.tuple(true, false)
			return
		}
		block = true
		s.value = p.filters(&captured{}, false)
	})
	p.store(s.target)
	if !block {
		return s
	}
	b := &setBlock{target: s.target, value: s.value, frame: p.newFrame(), line: line}
	p.inner(b.frame, func() { b.body = p.closed("set", line) })
	return b
}

func (p *parser) macro(line int) stmt {
	m := &macroDef{line: line, frame: p.newFrame()}
	p.head(func() {
		m.name = p.name()
		p.assignable(m.name, line)
		p.frame.assigns(m.name)
		p.within(m.frame, func() { p.signature(m) })
	})
	p.macroBody(m, "macro")
	return m
}

// macroBody reads what a macro writes.
func (p *parser) macroBody(m *macroDef, tag string) {
	p.inMacro(m.frame, func() {
		m.body = p.closed(tag, m.line)
		m.reads = p.special
	})
	if i := slices.IndexFunc(m.params, func(q param) bool { return q.name == "caller" }); i >= 0 && m.params[i].def == nil && m.reads[0] {
		p.errs = append(p.errs, &Error{m.line, "the argument \"caller\" of a macro needs a default"})
	}
}

// signature reads the arguments that a macro takes.
func (p *parser) signature(m *macroDef) {
	p.expectOp("(")
	for !p.isOp(")") {
		if len(m.params) > 0 {
			p.expectOp(",")
		}
		line := p.line()
		name := p.name()
		p.assignable(name, line)
		p.frame.names[name] = false
		if len(m.params) == maxNamed {
			p.fail(line, "a macro with more than %d arguments", maxNamed)
		}
		if slices.ContainsFunc(m.params, func(q param) bool { return q.name == name }) {
			p.fail(line, "the argument %q is there twice", name)
		}
		var def expr
		if p.skipOp("=") {
			def = p.expr()
		} else if n := len(m.params); n > 0 && m.params[n-1].def != nil {
			p.fail(line, "the argument %q without a default follows one with a default", name)
		}
		m.params = append(m.params, param{name, def})
	}
	p.expectOp(")")
}

func (p *parser) callBlock(line int) stmt {
	s := &callBlock{line: line, caller: &macroDef{name: "caller", line: line, frame: p.newFrame()}}
	p.head(func() {
		if p.isOp("(") {
			p.within(s.caller.frame, func() { p.signature(s.caller) })
		}
		e := p.expr()
		c, ok := e.(*callExpr)
		if !ok {
			p.fail(line, "the tag \"call\" needs a call")
		}
		s.call = c
	})
	p.macroBody(s.caller, "call")
	return s
}

func (p *parser) filterBlock(line int) stmt {
	s := &filterBlock{line: line, frame: p.newFrame()}
	p.head(func() { s.value = p.filters(&captured{}, true) })
	p.inner(s.frame, func() { s.body = p.closed("filter", line) })
	return s
}

func (p *parser) with(line int) stmt {
	s := &with{frame: p.newFrame()}
	p.head(func() {
		for p.peek(0).kind != tokBlockEnd {
			if len(s.targets) > 0 {
				p.expectOp(",")
			}
			t := p.targets(false)
			if _, ok := t.(*attrTarget); ok {
				p.fail(line, "the tag \"with\" cannot set an attribute")
			}
			p.expectOp("=")
			s.targets, s.values = append(s.targets, t), append(s.values, p.expr())
		}
	})
	p.inner(s.frame, func() {
		for _, t := range s.targets {
			p.store(t)
		}
		s.body = p.closed("with", line)
	})
	return s
}

func (p *parser) print(line int) stmt {
	var all block
	for p.peek(0).kind != tokBlockEnd {
		if len(all) > 0 {
			p.expectOp(",")
		}
		all = append(all, &output{p.expr(), line})
	}
	p.end(tokBlockEnd)
	return all
}

func (p *parser) generated(line int) stmt {
	p.generation = true
	s := &generation{frame: p.newFrame()}
	p.head(func() {})
	p.inMacro(s.frame, func() { s.body = p.closed("generation", line) })
	return s
}

// assignable fails for names that are no variables.
func (p *parser) assignable(name string, line int) {
	switch name {
	case "true", "false", "none", "True", "False", "None", "self":
		p.fail(line, "cannot assign to %q", name)
	}
}

// targets reads what is assigned to: names, and tuples of them.
func (p *parser) targets(loop bool) expr {
	line := p.line()
	var items []expr
	tuple := false
	for {
		if len(items) > 0 && (p.isOp("=") || p.isName("in") || p.peek(0).kind == tokBlockEnd) {
			break
		}
		items = append(items, p.target(loop))
		if !p.skipOp(",") {
			break
		}
		tuple = true
	}
	if !tuple {
		return items[0]
	}
	return &tupleExpr{items: items, line: line}
}

func (p *parser) target(loop bool) expr {
	line := p.line()
	if p.skipOp("(") {
		defer p.deeper()()
		t := p.targets(loop)
		p.expectOp(")")
		return t
	}
	name := p.name()
	p.assignable(name, line)
	if !loop && p.skipOp(".") {
		return &attrTarget{name, p.name(), line}
	}
	return &nameExpr{name, line}
}

// deeper goes one level deeper, and back when what it returns is called.
func (p *parser) deeper() func() {
	p.deepen(1)
	return func() { p.depth-- }
}

func (p *parser) deepen(n int) {
	if p.depth += n; p.depth > exprDepth {
		p.fail(p.line(), "an expression has more than %d operators or brackets within each other", exprDepth)
	}
}

// tuple reads an expression, or several with commas between them. In parentheses there may be none.
func (p *parser) tuple(condition, parentheses bool) expr {
	line := p.line()
	var items []expr
	isTuple := false
	for {
		if t := p.peek(0); t.kind == tokVarEnd || t.kind == tokBlockEnd || p.isOp(")") ||
			!condition && p.isName("recursive") {
			break
		}
		if condition {
			items = append(items, p.expr())
		} else {
			items = append(items, p.or())
		}
		if !p.skipOp(",") {
			break
		}
		isTuple = true
	}
	if !isTuple && len(items) == 1 {
		return items[0]
	}
	if len(items) == 0 && !parentheses {
		p.unexpected("an expression")
	}
	return &tupleExpr{items: items, line: line}
}

// expr reads an expression, which may be a conditional one.
func (p *parser) expr() expr {
	defer p.deeper()()
	depth, unknown, line := p.depth, len(p.unknown), p.line()
	e := p.or()
	for p.skipName("if") {
		p.unknown = p.unknown[:unknown]
		p.deepen(1)
		soft := p.soft
		p.soft = true
		c := &condExpr{then: e, line: line, test: p.or()}
		if p.skipName("else") {
			c.orElse = p.expr()
		}
		p.soft = soft
		e = c
	}
	p.depth = depth
	return e
}

// chain reads operands with operators between them that group from the left.
func (p *parser) chain(operand func() expr, isOp func() bool, join func(op string, line int, l, r expr) expr) expr {
	depth := p.depth
	e := operand()
	for isOp() {
		p.deepen(1)
		t := p.next()
		e = join(t.text, t.line, e, operand())
	}
	p.depth = depth
	return e
}

func (p *parser) or() expr {
	return p.chain(p.and, func() bool { return p.isName("or") }, func(_ string, line int, l, r expr) expr {
		return &boolExpr{l, r, true}
	})
}

func (p *parser) and() expr {
	return p.chain(p.not, func() bool { return p.isName("and") }, func(_ string, line int, l, r expr) expr {
		return &boolExpr{l, r, false}
	})
}

func (p *parser) not() expr {
	if p.skipName("not") {
		defer p.deeper()()
		return &notExpr{p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	line := p.line()
	first := p.sum()
	var c *compareExpr
	for {
		op, n := p.compareOp()
		if n == 0 {
			break
		}
		for range n {
			p.next()
		}
		if c == nil {
			c = &compareExpr{first: first, line: line}
		}
		c.ops, c.rest = append(c.ops, op), append(c.rest, p.sum())
	}
	if c == nil {
		return first
	}
	return c
}

// compareOp is the comparison that comes next, and of how many tokens it is.
func (p *parser) compareOp() (string, int) {
	switch t := p.peek(0); {
	case t.kind == tokOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.text):
		return t.text, 1
	case p.isName("in"):
		return "in", 1
	case p.isName("not"):
		if t := p.peek(1); t.kind == tokName && t.text == "in" {
			return "not in", 2
		}
	}
	return "", 0
}

func binary(op string, line int, l, r expr) expr { return &binaryExpr{op, l, r, line} }

func (p *parser) sum() expr {
	return p.chain(p.concat, func() bool { return p.isOp("+") || p.isOp("-") }, binary)
}

func (p *parser) concat() expr {
	line := p.line()
	first := p.product()
	if !p.isOp("~") {
		return first
	}
	c := &concatExpr{items: []expr{first}, line: line}
	for p.skipOp("~") {
		c.items = append(c.items, p.product())
	}
	return c
}

func (p *parser) product() expr {
	return p.chain(p.power, func() bool { return p.isOp("*") || p.isOp("/") || p.isOp("//") || p.isOp("%") }, binary)
}

func (p *parser) power() expr {
	return p.chain(func() expr { return p.unary(true) }, func() bool { return p.isOp("**") }, binary)
}

// unary reads an operand with its signs, what follows it, and its filters and tests.
func (p *parser) unary(filters bool) expr {
	depth := p.depth
	var e expr
	if t := p.peek(0); t.kind == tokOp && (t.text == "-" || t.text == "+") {
		p.next()
		p.deepen(1)
		e = &signExpr{t.text, p.unary(false), t.line}
	} else {
		e = p.primary()
	}
	e = p.postfix(e)
	if filters {
		e = p.filterExpr(e)
	}
	p.depth = depth
	return e
}

func (p *parser) primary() expr {
	t := p.peek(0)
	switch t.kind {
	case tokName:
		p.next()
		switch t.text {
		case "true", "True":
			return constant{true}
		case "false", "False":
			return constant{false}
		case "none", "None":
			return constant{nil}
		}
		if i := slices.Index(specialNames[:], t.text); i >= 0 {
			p.special[i] = true
		}
		p.frame.mentions(t.text)
		return &nameExpr{t.text, t.line}
	case tokString:
		return p.strings()
	case tokInt, tokFloat:
		p.next()
		return constant{t.val}
	}
	defer p.deeper()()
	switch {
	case p.skipOp("("):
		e := p.tuple(true, true)
		p.expectOp(")")
		return e
	case p.skipOp("["):
		return p.list(t.line)
	case p.skipOp("{"):
		return p.dict(t.line)
	}
	p.unexpected("an expression")
	return nil
}

// strings reads string literals, several of which are one.
func (p *parser) strings() expr {
	s := p.next().text
	if p.peek(0).kind != tokString {
		return constant{s}
	}
	var b strings.Builder
	b.WriteString(s)
	for p.peek(0).kind == tokString {
		b.WriteString(p.next().text)
	}
	return constant{b.String()}
}

func (p *parser) list(line int) expr {
	e := &listExpr{line: line}
	for !p.isOp("]") {
		if len(e.items) > 0 {
			p.expectOp(",")
			if p.isOp("]") {
				break
			}
		}
		e.items = append(e.items, p.expr())
	}
	p.expectOp("]")
	return e
}

func (p *parser) dict(line int) expr {
	e := &dictExpr{line: line}
	for !p.isOp("}") {
		if len(e.keys) > 0 {
			p.expectOp(",")
			if p.isOp("}") {
				break
			}
		}
		e.keys = append(e.keys, p.expr())
		p.expectOp(":")
		e.values = append(e.values, p.expr())
	}
	p.expectOp("}")
	return e
}

// postfix reads attributes, subscripts and calls.
func (p *parser) postfix(e expr) expr {
	for {
		switch {
		case p.isOp(".") || p.isOp("["):
			p.deepen(1)
			e = p.subscript(e)
		case p.isOp("("):
			p.deepen(1)
			e = p.call(e)
		default:
			return e
		}
	}
}

func (p *parser) filterExpr(e expr) expr {
	for {
		switch {
		case p.isOp("|"):
			e = p.filters(e, false)
		case p.isName("is"):
			p.deepen(1)
			e = p.test(e)
		case p.isOp("("):
			p.deepen(1)
			e = p.call(e)
		default:
			return e
		}
	}
}

func (p *parser) subscript(e expr) expr {
	line := p.line()
	if p.skipOp(".") {
		switch t := p.peek(0); t.kind {
		case tokName:
			p.next()
			return &attrExpr{e, t.text, line}
		case tokInt:
			p.next()
			return &itemExpr{e, constant{t.val}, line}
		}
		p.unexpected("a name or a number")
	}
	p.expectOp("[")
	var args []expr
	for !p.isOp("]") {
		if len(args) > 0 {
			p.expectOp(",")
		}
		args = append(args, p.index())
	}
	p.expectOp("]")
	if len(args) != 1 {
		for _, a := range args {
			if isBareSlice(a) {
				p.fail(line, "a slice with several indices")
			}
		}
		return &itemExpr{e, &tupleExpr{items: args, line: line}, line}
	}
	if isBareSlice(args[0]) {
		s := args[0].(*sliceExpr)
		s.of = e
		return s
	}
	return &itemExpr{e, args[0], line}
}

// isBareSlice reports whether an index is a slice, and not an expression that ends in one.
func isBareSlice(e expr) bool {
	s, ok := e.(*sliceExpr)
	return ok && s.of == nil
}

// index reads one index, or a slice.
func (p *parser) index() expr {
	s := &sliceExpr{line: p.line()}
	if !p.isOp(":") {
		e := p.expr()
		if !p.isOp(":") {
			return e
		}
		s.bounds[0] = e
	}
	p.next()
	for i := 1; i < 3; i++ {
		if !p.isOp(":") && !p.isOp("]") && !p.isOp(",") {
			s.bounds[i] = p.expr()
		}
		if i == 2 || !p.skipOp(":") {
			break
		}
	}
	return s
}

func (p *parser) call(e expr) expr {
	return &callExpr{e, p.args(), p.line()}
}

// args reads the arguments of a call.
func (p *parser) args() argList {
	line := p.line()
	p.expectOp("(")
	var a argList
	check := func(ok bool) {
		if !ok {
			p.fail(line, "arguments of a call in a wrong order")
		}
	}
	for first := true; !p.isOp(")"); first = false {
		if !first {
			p.expectOp(",")
			if p.isOp(")") {
				break
			}
		}
		t, n := p.peek(0), p.peek(1)
		switch {
		case p.skipOp("*"):
			check(a.dynPos == nil && a.dynNamed == nil)
			a.dynPos = p.expr()
		case p.skipOp("**"):
			check(a.dynNamed == nil)
			a.dynNamed = p.expr()
		case t.kind == tokName && n.kind == tokOp && n.text == "=":
			check(a.dynNamed == nil)
			p.next()
			p.next()
			if len(a.names) == maxNamed {
				p.fail(t.line, "a call with more than %d named arguments", maxNamed)
			}
			if slices.Contains(a.names, t.text) {
				p.fail(t.line, "the argument %q is there twice", t.text)
			}
			a.names, a.named = append(a.names, t.text), append(a.named, p.expr())
		default:
			check(a.dynPos == nil && a.dynNamed == nil && len(a.names) == 0)
			a.pos = append(a.pos, p.expr())
		}
	}
	p.expectOp(")")
	return a
}

// dotted reads a name that may have dots in it.
func (p *parser) dotted() string {
	name := p.name()
	for p.skipOp(".") {
		name += "." + p.name()
	}
	return name
}

// filters reads a chain of filters over e; with inline the first one stands without its bar.
func (p *parser) filters(e expr, inline bool) expr {
	for inline || p.isOp("|") {
		if !inline {
			p.next()
		}
		inline = false
		p.deepen(1)
		line := p.line()
		f := &filterExpr{of: e, name: p.dotted(), line: line}
		if p.isOp("(") {
			f.args = p.args()
		}
		f.call = filters[f.name]
		if f.call == nil && !p.soft {
			p.unknown = append(p.unknown, &Error{line, unknown("filter", f.name)})
		}
		e = f
	}
	return e
}

func (p *parser) test(e expr) expr {
	p.next() // is
	negated := p.skipName("not")
	line := p.line()
	t := &testExpr{of: e, name: p.dotted(), line: line}
	switch n := p.peek(0); {
	case p.isOp("("):
		t.args = p.args()
	case n.kind == tokName && (n.text == "else" || n.text == "or" || n.text == "and"):
	case p.isName("is"):
		p.fail(n.line, "tests cannot be chained with is")
	case n.kind == tokName || n.kind == tokString || n.kind == tokInt || n.kind == tokFloat || p.isOp("[") || p.isOp("{"):
		t.args.pos = []expr{p.postfix(p.primary())}
	}
	t.call = tests[t.name]
	if t.call == nil && !p.soft {
		p.unknown = append(p.unknown, &Error{line, unknown("test", t.name)})
	}
	if negated {
		return &notExpr{t}
	}
	return t
}

// unknown says that a filter or test is not there.
func unknown(kind, name string) string {
	if kind == "filter" && slices.Contains(unsupportedFilters, name) {
		return fmt.Sprintf("the filter %q of Jinja is not supported", name)
	}
	return fmt.Sprintf("no %s named %q", kind, name)
}
