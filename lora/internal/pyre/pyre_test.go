package pyre

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

type pythonCase struct {
	Expr, Error        string
	Full, Prefix, None []string
}

func pythonCases(tb testing.TB) []pythonCase {
	data, err := os.ReadFile("testdata/cases.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Cases []pythonCase }
	if err := json.Unmarshal(data, &file); err != nil {
		tb.Fatal(err)
	}
	return file.Cases
}

// What CPython accepts matches just the same here, and what it refuses is refused.
func TestPython(t *testing.T) {
	backtracking := 0
	for _, c := range pythonCases(t) {
		full, err := Full(c.Expr)
		if c.Error != "" {
			if err == nil {
				t.Errorf("%q: Python says %s, we accept it", c.Expr, c.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v; Python accepts it", err)
			continue
		}
		prefix, err := Prefix(c.Expr)
		if err != nil {
			t.Errorf("%v; Python accepts it", err)
			continue
		}
		if full.back != nil {
			backtracking++
		}
		check := func(r *Regexp, how string, subjects []string, want bool) {
			for _, s := range subjects {
				got, err := r.Match(s)
				if err != nil || got != want {
					t.Errorf("%q on %q, %s: %v, %v, want %v", c.Expr, s, how, got, err, want)
				}
			}
		}
		matched := map[string]bool{}
		for _, s := range c.Full {
			matched[s] = true
		}
		check(full, "full", c.Full, true)
		check(prefix, "prefix", c.Prefix, true)
		check(prefix, "prefix", c.None, false)
		for _, s := range append(c.Prefix, c.None...) {
			if !matched[s] {
				check(full, "full", []string{s}, false)
			}
		}
	}
	if backtracking < 50 {
		t.Errorf("only %d cases backtrack", backtracking)
	}
}

func TestGroup(t *testing.T) {
	for _, c := range []struct{ expr, subject, want string }{
		{`(?:^|.*?\.)layers\.(?P<idx>\d+)\.`, "model.layers.12.mlp.3.x", "12"},
		{`(?:^|.*?\.)(a|layers)\.(?P<idx>\d+)\.`, "layers.7.x", "7"},
		{`(?=m)(.*?)\.(?P<idx>\d+)\.`, "m.x.4.y.5.z", "4"},
		{`(?P<idx>\d+)`, "x1", ""},
		{`(?!a)(?P<idx>\d+)`, "x1", ""},
	} {
		r, err := Prefix(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := r.Group(c.subject, "idx")
		if err != nil || got != c.want || ok != (c.want != "") {
			t.Errorf("%q on %q: %q, %v, %v, want %q", c.expr, c.subject, got, ok, err, c.want)
		}
	}
}

func TestEndlessSearch(t *testing.T) {
	subject := strings.Repeat("a", 40) + "!"
	r, err := Full(`(a+)+\1b`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Match(subject); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("got %v", err)
	}
	if r, err = Full(`(a+)+b`); err != nil || r.back != nil {
		t.Fatalf("a regular language needs no backtracking: %v", err)
	}
	if ok, err := r.Match(subject); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for expr, want := range map[string]string{
		"a(b":                   `regular expression "a(b": missing ), unterminated subpattern at position 1`,
		"ab)":                   `regular expression "ab)": unbalanced parenthesis at position 2`,
		"a**":                   `regular expression "a**": multiple repeat at position 2`,
		`\q`:                    `regular expression "\\q": bad escape \q at position 0`,
		"\xff":                  `regular expression "\xff": not valid UTF-8`,
		`\N{DOT}`:               `regular expression "\\N{DOT}": named characters are not supported at position 0`,
		strings.Repeat("(", 99): "",
	} {
		_, err := Full(expr)
		if err == nil || want != "" && err.Error() != want {
			t.Errorf("%q: %v\nwant %s", expr, err, want)
		}
	}
	for _, expr := range []string{strings.Repeat("(", 1<<13) + strings.Repeat(")", 1<<13), strings.Repeat("a", 1<<15)} {
		if _, err := Full(expr); err == nil {
			t.Errorf("%.10q... of %d bytes is accepted", expr, len(expr))
		}
	}
}

func FuzzCompile(f *testing.F) {
	for i, c := range pythonCases(f) {
		if i%10 == 0 {
			f.Add(c.Expr, "model.layers.0.self_attn.q_proj")
		}
	}
	f.Fuzz(func(t *testing.T, expr, subject string) {
		for _, compile := range []func(string) (*Regexp, error){Full, Prefix} {
			r, err := compile(expr)
			if err != nil {
				continue
			}
			_, _ = r.Match(subject[:min(len(subject), 64)])
		}
	})
}

func TestBudget(t *testing.T) {
	b := &Budget{}
	for i := range 1000 {
		if _, err := b.Full(fmt.Sprintf(`model\.layers\.%d\.self_attn\.(q|k|v|o)_proj`, i)); err != nil {
			t.Fatal(err)
		}
	}
	large := strings.Repeat("a{900}b", 400)
	_, err := b.Full(large)
	if !errors.Is(err, ErrTooLarge) || err.Error() != fmt.Sprintf("regular expression %.120q: with those before it too large", large) {
		t.Errorf("got %.300v", err)
	}
	if _, err := b.Prefix("a"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("after it: %v", err)
	}
	b = &Budget{spent: maxTime}
	r, err := b.Full("(?=a)a")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := r.Match("a"); !ok || err != nil {
		t.Errorf("the last match: %t, %v", ok, err)
	}
	want := `regular expression "(?=a)a": with the others it has taken more than 5s`
	if _, err := r.Match("a"); err == nil || err.Error() != want {
		t.Errorf("Match: %v", err)
	}
	if _, _, err := r.Group("a", "x"); err == nil || err.Error() != want {
		t.Errorf("Group: %v", err)
	}
}
