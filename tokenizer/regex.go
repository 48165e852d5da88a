package tokenizer

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// expression is a regular expression of a file, matched as Oniguruma does, the engine of Hugging Face's tokenizers: from
// left to right, by trying alternatives in their order and going back. A state that led nowhere is not tried again, in
// no later match either, so that no expression takes a time that grows with more than the product of its own length
// and the text's.
type expression struct {
	code   []instruction
	splits int // instructions with two ways on
}

// instruction is a step of an expression.
type instruction struct {
	op   opcode
	next int32
	also int32 // opSplit: the way that is tried second
	nth  int32 // of the opSplit
	most int32 // opRun: how many characters at most, 0 for any number
	set  *set
	not  bool // opAhead, opBehind, opEdge: the contrary
}

type opcode uint8

const (
	opMatch     opcode = iota
	opSet              // one character of the set
	opRun              // as many characters of the set as there are; none is given back
	opSplit            // two ways on
	opAhead            // a character of the set follows
	opBehind           // a character of the set stands before
	opEdge             // the border of a word
	opStart            // the start of the text
	opEnd              // the end of the text
	opLineStart        // the start of a line
	opLineEnd          // the end of a line
)

// maxCode is the length of the longest expression; memory of a match is that many bits for a byte of the text.
const maxCode = 512

// newPattern returns a matcher for a regular expression in the syntax of Hugging Face's tokenizers (Oniguruma's of
// Ruby). What cannot be matched as the reference does is an error.
func newPattern(source string) (pattern, error) {
	if s := known(source); s != nil {
		return s, nil
	}
	return newExpression(source)
}

func newExpression(source string) (*expression, error) {
	p := &regexParser{source: source}
	n, err := p.parse()
	if err == nil && n.shortest() == 0 {
		err = errors.New("it can match nothing at all; such a pattern cannot cut text")
	}
	if err != nil {
		return nil, fmt.Errorf("regular expression %.200q: %w", source, err)
	}
	e := &expression{code: []instruction{{op: opMatch}}}
	start, err := e.compile(n, 0)
	if err != nil {
		return nil, fmt.Errorf("regular expression %.200q: %w", source, err)
	}
	e.code = append(e.code, instruction{op: opSplit, next: start, nth: -1}) // the last one is where matching starts
	return e, nil
}

// in returns the matches in s.
func (e *expression) in(s string) func(from int) (start, end int) {
	m := &regexMatch{expression: e, s: s, tried: make([]uint64, (len(s)*e.splits+e.splits)/64+1), runs: make([][2]int, len(e.code))}
	return m.next
}

// regexMatch is the work of finding matches in a text, one after another.
type regexMatch struct {
	*expression
	s     string
	tried []uint64 // bit position*splits + nth: that split led nowhere from that position
	runs  [][2]int // for each opRun the run of characters that was found last
	stack []regexState
}

// regexState is a way that is still to be tried.
type regexState struct{ at, pc int32 }

// next returns the first match at or after from, start -1 if there is none. from does not go back.
func (m *regexMatch) next(from int) (start, end int) {
	for start = from; start < len(m.s); {
		if end = m.try(start); end >= 0 {
			m.forget(end)
			return start, end
		}
		_, n := utf8.DecodeRuneInString(m.s[start:])
		start += n
	}
	return -1, -1
}

// forget takes back what is known of a position: the way that led to the match at its end was no failure. What was tried
// beyond it was.
func (m *regexMatch) forget(at int) {
	for i := range m.splits {
		bit := at*m.splits + i
		m.tried[bit/64] &^= 1 << (bit % 64)
	}
}

// try returns the end of the match at start, -1 if there is none.
func (m *regexMatch) try(start int) int {
	m.stack = append(m.stack[:0], regexState{int32(start), m.code[len(m.code)-1].next})
	for len(m.stack) > 0 {
		top := m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
		if end := m.follow(int(top.at), top.pc); end >= 0 {
			return end
		}
	}
	return -1
}

// follow goes on from a state until it fails (-1) or matches. Second ways are put on the stack.
func (m *regexMatch) follow(at int, pc int32) int {
	for {
		i := &m.code[pc]
		switch i.op {
		case opMatch:
			return at
		case opSplit:
			bit := at*m.splits + int(i.nth)
			if m.tried[bit/64]>>(bit%64)&1 == 1 {
				return -1
			}
			m.tried[bit/64] |= 1 << (bit % 64)
			m.stack = append(m.stack, regexState{int32(at), i.also})
		case opSet:
			r, n := utf8.DecodeRuneInString(m.s[at:])
			if n == 0 || !i.set.has(r) {
				return -1
			}
			at += n
		case opRun:
			at = m.run(at, pc)
		default:
			if m.holds(i, at) == i.not {
				return -1
			}
		}
		pc = i.next
	}
}

// run returns the end of the run of characters at a position. What was found last is kept: it is asked for again from
// within.
func (m *regexMatch) run(at int, pc int32) int {
	i := &m.code[pc]
	if last := m.runs[pc]; i.most == 0 && last[0] <= at && at < last[1] {
		return last[1]
	}
	end := at
	for count := int32(0); i.most == 0 || count < i.most; count++ {
		r, n := utf8.DecodeRuneInString(m.s[end:])
		if n == 0 || !i.set.has(r) {
			break
		}
		end += n
	}
	m.runs[pc] = [2]int{at, end}
	return end
}

// holds reports whether a condition is true at a position.
func (m *regexMatch) holds(i *instruction, at int) bool {
	before, n := utf8.DecodeLastRuneInString(m.s[:at])
	after, k := utf8.DecodeRuneInString(m.s[at:])
	switch i.op {
	case opAhead:
		return k > 0 && i.set.has(after)
	case opBehind:
		return n > 0 && i.set.has(before)
	case opEdge:
		return (n > 0 && isExpressionWord(before)) != (k > 0 && isExpressionWord(after))
	case opStart:
		return n == 0
	case opLineStart:
		return n == 0 || before == '\n' && k > 0
	case opLineEnd:
		return k == 0 || after == '\n'
	}
	return k == 0
}

// compile adds the code of a node that goes on at next, and returns where it begins.
func (e *expression) compile(n *regexNode, next int32) (int32, error) {
	switch n.kind {
	case nodeSequence:
		for i := len(n.parts) - 1; i >= 0; i-- {
			var err error
			if next, err = e.compile(n.parts[i], next); err != nil {
				return 0, err
			}
		}
		return next, nil
	case nodeChoice:
		first, err := e.compile(n.parts[len(n.parts)-1], next)
		for i := len(n.parts) - 2; i >= 0 && err == nil; i-- {
			var way int32
			if way, err = e.compile(n.parts[i], next); err == nil {
				first, err = e.split(way, first, false)
			}
		}
		return first, err
	case nodeRepeat:
		return e.compileRepeat(n, next)
	}
	return e.add(instruction{op: n.op, set: n.set, not: n.not, next: next})
}

// compileRepeat writes a part as often as it must stand, and then as often as it may.
func (e *expression) compileRepeat(n *regexNode, next int32) (int32, error) {
	part := n.parts[0]
	var err error
	switch {
	case n.possessive && n.most >= 0: // X?+
		next, err = e.add(instruction{op: opRun, set: part.set, most: int32(n.most - n.least), next: next})
	case n.possessive:
		next, err = e.add(instruction{op: opRun, set: part.set, next: next})
	case n.most < 0:
		var loop, body int32
		if loop, err = e.split(0, next, false); err != nil {
			return 0, err
		}
		if body, err = e.compile(part, loop); err != nil {
			return 0, err
		}
		e.code[loop].next = body
		if n.lazy {
			e.code[loop].next, e.code[loop].also = next, body
		}
		next = loop
	default:
		end := next
		for range n.most - n.least {
			var body int32
			if body, err = e.compile(part, next); err != nil {
				return 0, err
			}
			if next, err = e.split(body, end, n.lazy); err != nil {
				return 0, err
			}
		}
	}
	for i := 0; i < n.least && err == nil; i++ {
		next, err = e.compile(part, next)
	}
	return next, err
}

// split adds an instruction with two ways on.
func (e *expression) split(first, second int32, lazy bool) (int32, error) {
	if lazy {
		first, second = second, first
	}
	e.splits++
	return e.add(instruction{op: opSplit, next: first, also: second, nth: int32(e.splits - 1)})
}

func (e *expression) add(i instruction) (int32, error) {
	if len(e.code) >= maxCode {
		return 0, fmt.Errorf("it has more than %d steps", maxCode)
	}
	e.code = append(e.code, i)
	return int32(len(e.code) - 1), nil
}
