package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile are templates that would take all time or memory, or reach what is none of theirs, and what is said of them.
var hostile = []struct{ name, source, want string }{
	{"a huge range", "{% for i in range(10**12) %}x{% endfor %}", "line 1: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."},
	{"nested ranges", "{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
		"line 1: the template does not come to an end: it is stopped after 2"},
	{"nested ranges that write", "{% for i in range(100000) %}{% for j in range(100000) %}xxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}", "line 1: the template makes a text of more than 167"},
	{"a macro for ever", "{% macro f() %}{{ f() }}{% endmacro %}\n{{ f() }}", "line 1: macro 'f': calls are nested deeper than 200"},
	{"a macro that doubles", "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(150) }}", "stopped after 2"},
	{"a caller for ever", "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}", "calls are nested deeper than 200"},
	{"a loop in itself", "{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "line 1: loop: calls are nested deeper than 200"},
	{"a long text", "{{ 'a' * 10**9 }}", "line 1: the template makes a text of more than 167"},
	{"a very long text", "{{ 'ab' * 10**30 }}", "line 1: cannot fit 'int' into an index-sized integer"},
	{"a long list", "{{ [0] * 10**9 }}", "line 1: the template makes too many values: more than 134"},
	{"a text that doubles", "{% set ns = namespace(x='ab') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "line 1: the template makes a text of more than 167"},
	{"a sum that doubles", "{% set ns = namespace(x='ab') %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "line 1: the template makes a text of 33554432 bytes, more than the limit of 167"},
	{"a list that doubles", "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "line 1: the template makes too many values"},
	{"a list in itself twice", "{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}", "stopped after 2"},
	{"equal lists in themselves", "{% set a = namespace(x=[]) %}{% set b = namespace(x=[]) %}{% for i in range(99) %}{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}{% endfor %}{{ a.x == b.x }}", "stopped after 2"},
	{"a deep list", "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "line 1: a value is nested deeper than 500"},
	{"a deep list as JSON", "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}", "line 1: a value is nested deeper than 500"},
	{"deep lists compared", "{% set a = namespace(x=[], y=[]) %}{% for i in range(9999) %}{% set a.x = [a.x] %}{% set a.y = [a.y] %}{% endfor %}{{ a.x < a.y }}{{ a.x == a.y }}", "line 1: a value is nested deeper than 500"},
	{"a tuple in itself as a key", "{% set ns = namespace(x=()) %}{% for i in range(99) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1}|length }}", "line 1: the template "},
	{"a wide center", "{{ 'a'|center(10**9) }}", "line 1: the template makes a text of more than 167"},
	{"a wide format", "{{ '{:>999999999}'.format('a') }}", "line 1: the template makes a text of more than 167"},
	{"a width too wide to read", "{{ '{:>99999999999999999999}'.format('a') }}", "line 1: Too many decimal digits in format string"},
	{"a width in an argument", "{{ '%*d' % (10**9, 1) }}", "line 1: the template makes a text of more than 167"},
	{"a precise float", "{{ '%.999999999f' % 1.5 }}", "line 1: the template makes a text of 999999999 bytes"},
	{"grouped zeros", "{{ '{:0999999999,}'.format(1) }}", "line 1: the template makes too many values"},
	{"a wide indent", "{{ [[1]]|tojson(indent=10**9) }}", "line 1: the template makes a text of more than 167"},
	{"a deep indent", "{{ ([[[[1] * 9] * 99] * 99] * 99)|tojson(indent=9999) }}", "line 1: the template makes a text of more than 167"},
	{"a wide filter indent", "{{ 'a\nb'|indent(10**9) }}", "line 2: the template makes a text of more than 167"},
	{"replace nothing", "{{ ('a' * 99999)|replace('', 'b' * 9999) }}", "line 1: the template makes a text of 16"},
	{"join long", "{{ range(99999)|join('x' * 9999) }}", "line 1: the template makes a text of more than 167"},
	{"fill a batch", "{{ [1]|batch(10**9, 0)|list }}", "line 1: the template makes too many values"},
	{"slices without end", "{{ [1]|slice(10**9)|list }}", "line 1: the template"},
	{"tabs", "{{ ('\t' * 999)|string }}{{ 'a\tb'.expandtabs(10**9) }}", "line 1: the template makes a text of more than 167"},
	{"zeros", "{{ '1'.zfill(10**9) }}", "line 1: the template makes a text of more than 167"},
	{"a huge power", "{{ (10**10)**(10**10) }}", "line 1: an integer of more than 131072 bits"},
	{"a power of a power", "{{ (2**99999)**99999 }}", "line 1: an integer of more than 131072 bits"},
	{"a product that grows", "{% set ns = namespace(x=3) %}{% for i in range(99999) %}{% set ns.x = ns.x * ns.x %}{% endfor %}", "line 1: an integer of more than 131072 bits"},
	{"an integer of many digits", "{{ 10**5000 }}", "line 1: Exceeds the limit (4300 digits) for integer string conversion"},
	{"a huge slice", "{{ ('ab' * 10**6)[::-1][10**30:-10**30:10**30] }}{{ range(10)[::10**20]|list }}{{ 1/0 }}", "line 1: division by zero"},
	{"a format in itself", "{{ '{:{:{:{}}}}'.format(1, 2, 3, 4) }}", "line 1: Max string recursion exceeded"},
	{"strings in a list", "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = ns.x + ['a' * 99999 ~ i] %}{% endfor %}", "line 1: the template makes too many values"},
	{"keys without end", "{% set ns = namespace() %}{% for i in range(99999) %}{% for j in range(99999) %}{% set ns.x = dict(ns.x or {}, **{i ~ '-' ~ j: i}) %}{% endfor %}{% endfor %}", "line 1: the template"},
	{"sorting without end", "{% for i in range(99999) %}{{ range(99999)|sort|length }}{% endfor %}", "line 1: the template"},
	{"generators over generators", "{% set ns = namespace(g=[1]) %}{% for i in range(99999) %}{% set ns.g = ns.g|map('string') %}{% endfor %}{{ ns.g|list }}", "line 1: generators are nested deeper than 500"},
	{"selections of selections", "{% set ns = namespace(g=[1]) %}{% for i in range(99999) %}{% set ns.g = ns.g|select|batch(2)|unique %}{% endfor %}{{ ns.g|list }}", "line 1: generators are nested deeper than 500"},
	{"loops over loops", "{% set ns = namespace(l=range(99999)) %}{% for i in range(99999) %}{% for x in ns.l %}{% set ns.l = loop %}{% break %}{% endfor %}{% endfor %}", "line 1: generators are nested deeper than 500"},
	{"many names", "{% for i in range(99999) %}" + many("{%%set v%d=1%%}", 50_000) + "{% endfor %}", "stopped after "},
	{"many named arguments", "{% set ns = namespace(d={}) %}{% for i in range(1001) %}{% set ns.d = dict(ns.d, **{'k' ~ i: i}) %}{% endfor %}{{ dict(**ns.d) }}", "line 1: a call with more than 1000 named arguments"},
	{"a namespace in itself", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "line 1: a value is nested deeper than 500"},
	{"a class", "{{ ''.__class__.__mro__ }}", "line 1: access to attribute '__class__' of 'str' object is unsafe."},
	{"a class of a message", "{{ messages[0].__class__.__init__.__globals__ }}", "line 1: access to attribute '__init__' of 'Undefined' object is unsafe."},
	{"the class by subscript", "{{ ''['__class__']['__mro__'] }}", "line 1: access to attribute '__class__' of 'str' object is unsafe."},
	{"the class by a filter", "{{ (''|attr('__class__')).x }}", "line 1: access to attribute '__class__' of 'str' object is unsafe."},
	{"the class by map", "{{ ['']|map(attribute='__class__.__mro__')|list }}", "line 1: access to attribute '__class__' of 'str' object is unsafe."},
	{"the class by format", "{{ '{0.__class__.__mro__}'.format('') }}", "line 1: access to attribute '__class__' of 'str' object is unsafe."},
	{"globals of a macro", "{% macro f() %}{% endmacro %}{{ f.__call__.x }}", "line 1: access to attribute '__call__' of 'Macro' object is unsafe."},
	{"globals of a function", "{{ raise_exception.__globals__['os'] }}", "line 1: access to attribute '__globals__' of 'builtin_function_or_method' object is unsafe."},
	{"append", "{{ messages.append(1) }}", "line 1: access to attribute 'append' of 'list' object is unsafe."},
	{"update", "{{ messages[0].update({}) }}", "line 1: access to attribute 'update' of 'dict' object is unsafe."},
	{"a private namespace", "{% set ns = namespace() %}{% set ns._x = 1 %}", "line 1: Chat templates cannot store underscore-prefixed attributes on a namespace, but got '_x'."},
	{"mro", "{{ ''.mro.x }}", "line 1: 'str object' has no attribute 'mro'"},
	{"encode", "{{ 'a'.encode() }}", "line 1: the method encode of str is not supported"},
	{"lipsum", "{{ lipsum() }}", "line 1: the function lipsum of Jinja is not supported"},
	{"an address", "{{ range }}", "line 1: a builtin_function_or_method has no fixed text: Python writes its address in memory"},
}

// many writes a format with n numbers.
func many(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// TestHostileTemplates checks that each ends soon, with the message that says why, and leaves nothing behind.
func TestHostileTemplates(t *testing.T) {
	in := Input{Messages: raw(`{"role": "user", "content": "hi"}`)}
	before := runtime.NumGoroutine()
	for _, h := range hostile {
		tmpl, err := Parse(h.source)
		if err != nil {
			t.Errorf("%s: %v", h.name, err)
			continue
		}
		var from, to runtime.MemStats
		runtime.ReadMemStats(&from)
		out, err := tmpl.Render(t.Context(), in)
		runtime.ReadMemStats(&to)
		if err == nil || !strings.Contains(err.Error(), h.want) {
			t.Errorf("%s: got %.80q and error %v, want %q", h.name, out, err, h.want)
		}
		if made := to.TotalAlloc - from.TotalAlloc; made > 1<<30 { // what lives at once is below the limit of 128 MiB
			t.Errorf("%s: allocated %d MiB", h.name, made>>20)
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines left behind", after-before)
	}
}

// TestHostileSources checks what does not parse.
func TestHostileSources(t *testing.T) {
	deep := func(open, inner, closing string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(closing, n)
	}
	const n = 100_000
	tooDeep := "an expression has more than 500 operators or brackets within each other"
	for _, h := range []struct{ name, source, want string }{
		{"include", "a\n{% include '/etc/passwd' %}", `line 2: the tag "include" is refused: other templates are never read`},
		{"import", "{% import 'x' as y %}", `line 1: the tag "import" is refused: other templates are never read`},
		{"from", "{% from 'x' import y %}", `line 1: the tag "from" is refused: other templates are never read`},
		{"extends", "{% extends 'x' %}", `line 1: the tag "extends" is refused: other templates are never read`},
		{"block", "{% block a %}{% endblock %}", `line 1: the tag "block" is refused: it serves templates that extend others`},
		{"parentheses", "{{ " + deep("(", "1", ")", n) + " }}", tooDeep},
		{"lists", "{{ " + deep("[", "1", "]", n) + " }}", tooDeep},
		{"dictionaries", "{{ " + deep("{1:", "1", "}", n) + " }}", tooDeep},
		{"nots", "{{ " + deep("not ", "1", "", n) + " }}", tooDeep},
		{"minuses", "{{ " + deep("-", "1", "", n) + " }}", tooDeep},
		{"calls", "{{ " + deep("f(", "1", ")", n) + " }}", tooDeep},
		{"subscripts", "{{ x" + deep("[0]", "", "", n) + " }}", tooDeep},
		{"attributes", "{{ x" + deep(".a", "", "", n) + " }}", tooDeep},
		{"filters", "{{ x" + deep("|trim", "", "", n) + " }}", tooDeep},
		{"tests", "{{ x" + deep(" is odd", "", "", n) + " }}", "tests cannot be chained with is"},
		{"sums", "{{ 1" + deep("+1", "", "", n) + " }}", tooDeep},
		{"conditions", "{{ 1" + deep(" if 1 else 1", "", "", n/2) + " }}", tooDeep},
		{"ands", "{{ 1" + deep(" and 1", "", "", n) + " }}", tooDeep},
		{"slices", "{{ x" + deep("[x", "", ":]", n) + " }}", tooDeep},
		{"targets", "{% set " + deep("(", "x", ")", n) + " = 1 %}", tooDeep},
		{"blocks", deep("{% if 1 %}", "x", "{% endif %}", n/4), "blocks are nested deeper than 100"},
		{"loops", deep("{% for x in y %}", "x", "{% endfor %}", n/4), "blocks are nested deeper than 100"},
		{"open blocks", deep("{% if 1 %}", "", "", n), "blocks are nested deeper than 100"},
		{"open filter blocks", deep("{% filter trim %}", "", "", n/2), "blocks are nested deeper than 100"},
		{"open brackets", "{{ " + strings.Repeat("[", 1<<19), tooDeep},
		{"named arguments", "{{ f(" + deep("a=1,", "", "", n) + ") }}", `line 1: the argument "a" is there twice`},
		{"many named arguments", "{{ f(" + many("a%d=1,", 2000) + ") }}", "line 1: a call with more than 1000 named arguments"},
		{"arguments of a macro", "{% macro f(" + many("a%d,", 2000) + "b) %}{% endmacro %}", "line 1: a macro with more than 1000 arguments"},
		{"a long number", "{{ " + strings.Repeat("1", 1<<19) + " }}", "line 1: an integer of 524288 digits, more than 4300"},
		{"a template too long", strings.Repeat("x", 1<<20+1), "line 1: the template has 1048577 bytes, at most 1048576 are read"},
		{"not UTF-8", "ab\n\xff{{ x }}", "line 2: not valid UTF-8 at byte 3"},
		{"a surrogate", `{{ "\ud83d" }}`, `line 1: \ud83d is no character`},
		{"a name of a character", `{{ "\N{DASH}" }}`, `line 1: \N escapes are not supported; write the character itself`},
		{"an unknown filter", "{{ x|nope }}", `line 1: no filter named "nope"`},
		{"a filter that is not there", "{{ x|urlize }}", `line 1: the filter "urlize" of Jinja is not supported`},
		{"an unknown test", "{{ x is nope }}", `line 1: no test named "nope"`},
		{"an unknown tag", "{% do x %}", `line 1: unknown tag "do"`},
	} {
		_, err := Parse(h.source)
		if err == nil || !strings.Contains(err.Error(), h.want) {
			t.Errorf("%s: error %.300v, want %q", h.name, err, h.want)
		}
	}
}

// TestSyntaxErrorsAreGathered checks that one reading tells all that is wrong, each with its line.
func TestSyntaxErrorsAreGathered(t *testing.T) {
	_, err := Parse("{{ a b }}\n{% for x of y %}\n{% if %}x{% endif %}\n{{ 'a' | nope }}{% endfor %}\n{% endmacro %}\n{{ ok }}\n{% macro f(a, a) %}{% break %}{% endmacro %}\n{% while x %}\n{% if x %}{{ ) }}")
	want := `chat template: line 1: unexpected "b", want the end of the tag
line 2: unexpected "of", want "in"
line 3: unexpected the end of the tag, want an expression
line 4: no filter named "nope"
line 5: unexpected tag "endmacro": no block is open that it belongs to
line 7: the argument "a" is there twice
line 7: "break" outside of a loop
line 8: unknown tag "while"
line 9: unexpected ')'
line 9: the block "if" is not closed: "endif" is missing`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestLinesOfErrors checks that the line is that of what fails, not of the tag's end or of what was evaluated last.
func TestLinesOfErrors(t *testing.T) {
	for source, line := range map[string]int{
		"a\n{{ x.y.z }}":          2,
		"{{ [1,\n2,\n1/0,\n3] }}": 3,
		"{{\n\n'a'\n+\n1 }}":      4,
		"{% macro f() %}\n{{ 1/0 }}{% endmacro %}\n\n{{ f() }}":        2,
		"{% for x in [1]\n%}\n{{ raise_exception('no') }}{% endfor %}": 3,
		"{# a\nb #}{% raw %}\n{% endraw %}\n{{ 1/0 }}":                 4,
		"{%- if true -%}\n\n\n{{- 1/0 }}{% endif %}":                   4,
	} {
		tmpl, err := Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tmpl.Render(t.Context(), Input{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("line %d", line)) {
			t.Errorf("%q: error %v, want line %d", source, err, line)
		}
	}
}

// TestRenderIsCancelled checks that the end of ctx ends a rendering.
func TestRenderIsCancelled(t *testing.T) {
	tmpl, err := Parse("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tmpl.Render(ctx, Input{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that ctx is cancelled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := tmpl.Render(ctx, Input{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that ctx is over", err)
	}
	if _, err := tmpl.RenderTurns(ctx, Input{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that ctx is over", err)
	}
}

// TestInputErrors checks that all that is wrong with an input is told at once.
func TestInputErrors(t *testing.T) {
	tmpl, err := Parse("x")
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmpl.Render(t.Context(), Input{
		Messages:  raw(`{"role": "user"}`, `[]`, `{"a": 1, "a": 2}`, `{"a": "\ud800"}`, ``),
		Tools:     raw(`"x"`),
		Documents: raw(`{`),
		Variables: map[string]any{"messages": "x", "bos_token": struct{}{}},
	})
	for _, want := range []string{
		"chat: message 1: want a JSON object, got an array", `chat: message 2: line 1, byte 9: key "a" is there twice`,
		"chat: message 3: line 1, byte 7: lone surrogate", "chat: message 4: line 1, byte 0: ", `chat: tool 0: want a JSON object, got "x"`,
		"chat: document 0: line 1, byte 1: ", `chat: the variable "messages" is a field of the input`,
		`chat: variable "bos_token": a value of type struct {} is none that a template can use`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func raw(texts ...string) (all []json.RawMessage) {
	for _, t := range texts {
		all = append(all, json.RawMessage(t))
	}
	return all
}
