// Package pyre matches names against the regular expressions of Python's re module.
//
// PEFT's configurations hold such expressions. One that Python refuses is refused here, and one that both engines
// accept with different meanings is rewritten: an expression is parsed by Python's rules and put together anew, for
// Go's regexp where the language is regular, for regexp2 where it looks around or refers back.
//
// Subjects are module names: ASCII, without line feeds.
package pyre

import (
	"fmt"
	"regexp"
	"time"

	"github.com/dlclark/regexp2"
)

// MatchTimeout ends a search that goes on and on, as only expressions that look around or refer back can.
const MatchTimeout = time.Second

// Regexp is a compiled expression.
type Regexp struct {
	expr   string
	linear *regexp.Regexp  // one of the two
	back   *regexp2.Regexp // backtracks
	names  map[string]int
}

// Full compiles expr to match whole subjects, as re.fullmatch does.
func Full(expr string) (*Regexp, error) { return compile(expr, `\A(?:`, `)\z`) }

// Prefix compiles expr to match at the start of subjects, as re.match does.
func Prefix(expr string) (*Regexp, error) { return compile(expr, `\A(?:`, `)`) }

func compile(expr, before, after string) (*Regexp, error) {
	p, err := parse(expr)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expr, err)
	}
	r := &Regexp{expr: expr, names: p.names}
	text := before + p.text + after
	if !p.backtracks {
		if r.linear, err = regexp.Compile(text); err == nil {
			return r, nil
		}
		// Too many repetitions for an automaton.
	}
	if r.back, err = regexp2.Compile(text, regexp2.None); err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expr, err)
	}
	r.back.MatchTimeout = MatchTimeout
	return r, nil
}

// Match reports whether subject matches. It fails only when an expression that backtracks takes too long.
func (r *Regexp) Match(subject string) (bool, error) {
	if r.linear != nil {
		return r.linear.MatchString(subject), nil
	}
	ok, err := r.back.MatchString(subject)
	if err != nil {
		return false, r.slow(subject)
	}
	return ok, nil
}

// Group matches subject and returns what the named group matched; ok is false without a match.
func (r *Regexp) Group(subject, name string) (text string, ok bool, err error) {
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
	return fmt.Errorf("regular expression %q: no answer for %q within %v", r.expr, subject, MatchTimeout)
}
