// Package pyre matches names against the regular expressions of Python's re module.
//
// PEFT's configurations hold such expressions. One that Python refuses is refused here, and one that both engines
// accept with different meanings is rewritten: an expression is parsed by Python's rules and put together anew, for
// Go's regexp where the language is regular, for regexp2 where it looks around or refers back.
//
// Subjects are module names: ASCII, without line feeds.
//
// Expressions come from strangers. All those of a Budget take at most 10 MB to keep and 5 seconds to match; to find out
// that one is too large takes up to 600 MB for a moment.
package pyre

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"time"

	"github.com/dlclark/regexp2"
)

// MatchTimeout ends a search that goes on and on, as only expressions that look around or refer back can.
const MatchTimeout = time.Second

// What the expressions of one Budget may take together, far above those of any adapter.
const (
	maxSize = 1 << 18         // instructions of their automata
	maxTime = 5 * time.Second // of matching
)

// ErrTooLarge is the error of an expression that takes what a Budget has left, and of all after it.
var ErrTooLarge = errors.New("with those before it too large")

// Budget bounds what a group of expressions takes together: each may be harmless, a million of them are not. The zero
// value is a whole budget. It is not for concurrent use, and neither are its expressions.
type Budget struct {
	size  int
	spent time.Duration
}

// Regexp is a compiled expression.
type Regexp struct {
	budget *Budget
	expr   string
	linear *regexp.Regexp  // one of the two
	back   *regexp2.Regexp // backtracks
	names  map[string]int
}

// Full compiles expr to match whole subjects, as re.fullmatch does.
func Full(expr string) (*Regexp, error) { return new(Budget).Full(expr) }

// Prefix compiles expr to match at the start of subjects, as re.match does.
func Prefix(expr string) (*Regexp, error) { return new(Budget).Prefix(expr) }

// Full is the function of that name for one expression of a group.
func (b *Budget) Full(expr string) (*Regexp, error) { return b.compile(expr, `\A(?:`, `)\z`) }

// Prefix is the function of that name for one expression of a group.
func (b *Budget) Prefix(expr string) (*Regexp, error) { return b.compile(expr, `\A(?:`, `)`) }

func (b *Budget) compile(expr, before, after string) (*Regexp, error) {
	if b.size > maxSize {
		return nil, fmt.Errorf("regular expression %.120q: %w", expr, ErrTooLarge)
	}
	p, err := parse(expr)
	if err != nil {
		return nil, fmt.Errorf("regular expression %.120q: %w", expr, err)
	}
	r := &Regexp{budget: b, expr: expr, names: p.names}
	text := before + p.text + after
	if b.size += size(text); b.size > maxSize {
		return nil, fmt.Errorf("regular expression %.120q: %w", expr, ErrTooLarge)
	}
	if !p.backtracks {
		if r.linear, err = regexp.Compile(text); err == nil {
			return r, nil
		}
		// Too many repetitions for an automaton.
	}
	if r.back, err = regexp2.Compile(text, regexp2.None); err != nil {
		return nil, fmt.Errorf("regular expression %.120q: %w", expr, err)
	}
	r.back.MatchTimeout = MatchTimeout
	return r, nil
}

// size is the number of instructions of an expression's automaton, or the length of one that has none.
func size(text string) int {
	if re, err := syntax.Parse(text, syntax.Perl); err == nil {
		if prog, err := syntax.Compile(re.Simplify()); err == nil {
			return len(prog.Inst)
		}
	}
	return len(text)
}

// Match reports whether subject matches. It fails only when an expression that backtracks takes too long, or all
// expressions of the budget do.
func (r *Regexp) Match(subject string) (ok bool, err error) {
	if r.budget.spent > maxTime {
		return false, r.exhausted()
	}
	began := time.Now()
	defer func() { r.budget.spent += time.Since(began) }()
	if r.linear != nil {
		return r.linear.MatchString(subject), nil
	}
	if ok, err = r.back.MatchString(subject); err != nil {
		return false, r.slow(subject)
	}
	return ok, nil
}

// Group matches subject and returns what the named group matched; ok is false without a match.
func (r *Regexp) Group(subject, name string) (text string, ok bool, err error) {
	if r.budget.spent > maxTime {
		return "", false, r.exhausted()
	}
	began := time.Now()
	defer func() { r.budget.spent += time.Since(began) }()
	n := r.names[name]
	if r.linear != nil {
		m := r.linear.FindStringSubmatch(subject)
		if m == nil {
			return "", false, nil
		}
		return m[n], true, nil
	}
	m, err := r.back.FindStringMatch(subject)
	if err != nil {
		return "", false, r.slow(subject)
	}
	if m == nil {
		return "", false, nil
	}
	return m.GroupByNumber(n).String(), true, nil
}

func (r *Regexp) slow(subject string) error {
	return fmt.Errorf("regular expression %.120q: no answer for %.120q within %v", r.expr, subject, MatchTimeout)
}

func (r *Regexp) exhausted() error {
	return fmt.Errorf("regular expression %.120q: with the others it has taken more than %v", r.expr, maxTime)
}
