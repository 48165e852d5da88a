package jinja

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// filterFunc applies a filter to a value.
type filterFunc func(r *run, v any, a args) any

// unsupportedFilters are those of Jinja that are not here.
var unsupportedFilters = []string{"filesizeformat", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"}

var filters map[string]filterFunc

func init() { // filters use the table
	length := func(r *run, v any, a args) any {
		a.bind(r, "length", 0)
		n, ok := r.length(v)
		if !ok {
			r.fail("object of type '%s' has no len()", typeName(v))
		}
		return int64(n)
	}
	fallback := func(r *run, v any, a args) any {
		b := a.bind(r, "default", 0, "default_value", "boolean")
		_, undefined := v.(*undefined)
		if !undefined && (b[1] == missing || !r.truth(b[1]) || r.truth(v)) {
			return v
		}
		if b[0] == missing {
			return ""
		}
		return b[0]
	}
	escape := func(r *run, v any, a args) any {
		a.bind(r, "escape", 0)
		if _, ok := v.(markup); ok {
			return v
		}
		return markup(r.escape(r.str(v)))
	}
	filters = map[string]filterFunc{
		"abs": absolute, "attr": attrFilter, "batch": batch, "capitalize": textFilter("capitalize", capitalize),
		"center": func(r *run, v any, a args) any {
			b := a.bind(r, "center", 0, "width")
			if b[0] == missing {
				b[0] = int64(80)
			}
			return r.call2(v, "center", b[0])
		},
		"count": length, "length": length, "d": fallback, "default": fallback, "dictsort": dictSort,
		"e": escape, "escape": escape,
		"first": firstOf, "float": toFloat,
		"forceescape": func(r *run, v any, a args) any { a.bind(r, "forceescape", 0); return markup(r.escape(r.str(v))) },
		"format":      formatFilter, "groupby": groupBy, "indent": indent, "int": toInt, "items": itemsOf, "join": joinFilter,
		"last": lastOf,
		"list": func(r *run, v any, a args) any {
			a.bind(r, "list", 0)
			return &List{r.appended(r.elements(v, -1), nil)}
		},
		"lower": textFilter("lower", lower), "map": mapFilter,
		"min":    func(r *run, v any, a args) any { return r.extreme(v, a, "<") },
		"max":    func(r *run, v any, a args) any { return r.extreme(v, a, ">") },
		"reject": func(r *run, v any, a args) any { return r.selected(v, a, false, false) },
		"rejectattr": func(r *run, v any, a args) any {
			return r.selected(v, a, true, false)
		},
		"replace": replaceFilter, "reverse": reverse, "round": round,
		"safe":       func(r *run, v any, a args) any { a.bind(r, "safe", 0); return markup(r.str(v)) },
		"select":     func(r *run, v any, a args) any { return r.selected(v, a, false, true) },
		"selectattr": func(r *run, v any, a args) any { return r.selected(v, a, true, true) },
		"slice":      sliceFilter, "sort": sortFilter,
		"string": func(r *run, v any, a args) any { a.bind(r, "string", 0); return r.soft(v) },
		"sum":    sum, "title": textFilter("title", jinjaTitle), "tojson": toJSON,
		"trim": func(r *run, v any, a args) any {
			return r.call2(v, "strip", present(a.bind(r, "trim", 0, "chars"))...)
		},
		"truncate": truncate, "unique": unique, "upper": textFilter("upper", upper), "urlencode": urlEncode,
		"wordcount": wordCount,
	}
}

// soft is str() that leaves markup what it is.
func (r *run) soft(v any) any {
	if _, ok := v.(markup); ok {
		return v
	}
	return r.str(v)
}

// present leaves arguments out that are not given.
func present(all []any) []any {
	return slices.DeleteFunc(all, func(v any) bool { return v == missing })
}

// call2 calls a method of a value's text.
func (r *run) call2(v any, name string, pos ...any) any {
	return r.stringMethod(r.soft(v), name, stringMethods[name], args{pos: pos})
}

// textFilter is a filter that changes the text of a value.
func textFilter(name string, f func(string) string) filterFunc {
	return func(r *run, v any, a args) any {
		a.bind(r, name, 0)
		v = r.soft(v)
		s, _ := plain(v)
		r.allocText(len(s))
		return like(v, f(s))
	}
}

// jinjaTitle is Jinja's own: words begin after spaces, dashes and opening brackets.
func jinjaTitle(s string) string {
	var b strings.Builder
	for s != "" {
		n := strings.IndexFunc(s, isWordBreak)
		if n < 0 {
			n = len(s)
		}
		m := len(s) - len(strings.TrimLeftFunc(s[n:], isWordBreak))
		if n > 0 {
			_, first := nextRune(s)
			b.WriteString(upper(s[:first]))
			b.WriteString(lower(s[first:n]))
		}
		b.WriteString(s[n:m])
		s = s[m:]
	}
	return b.String()
}

func nextRune(s string) (rune, int) {
	for i, c := range s {
		if i > 0 {
			return c, i
		}
	}
	return 0, len(s)
}

func isWordBreak(c rune) bool { return isSpace(c) || strings.ContainsRune("-({[<", c) }

func absolute(r *run, v any, a args) any {
	a.bind(r, "abs", 0)
	if f, ok := v.(float64); ok {
		return math.Abs(f)
	}
	if b, ok := asBig(v); ok {
		return normInt(new(big.Int).Abs(b))
	}
	return r.sign("abs()", v)
}

func attrFilter(r *run, v any, a args) any {
	name := r.needText(a.bind(r, "attr", 1, "name")[0])
	if u, ok := v.(*undefined); ok && !isDunder(v, name) {
		r.undefined(u)
	}
	if found, ok := r.attribute(v, name); ok {
		return found
	}
	return &undefined{obj: v, of: true, name: name}
}

// batch makes lists of so many elements each.
func batch(r *run, v any, a args) any {
	b := a.bind(r, "batch", 1, "linecount", "fill_with")
	return r.generator(v, func() func() (any, bool) {
		n, next, ended := r.index(b[0], "batch"), r.iterate(v), false
		return func() (any, bool) {
			var items []any
			for !ended && (len(items) < n || n <= 0) {
				item, ok := next()
				if ended = !ok; ok {
					r.step(1)
					r.alloc(32)
					items = append(items, item)
				}
			}
			if len(items) == 0 {
				return nil, false
			}
			if fill := orNone(b[1]); fill != nil && len(items) < n {
				items = append(items, r.repeated([]any{fill}, n-len(items))...)
			}
			return &List{items}, true
		}
	})
}

// sliceFilter makes so many lists.
func sliceFilter(r *run, v any, a args) any {
	b := a.bind(r, "slice", 1, "slices", "fill_with")
	return r.generator(v, func() func() (any, bool) {
		items := r.elements(v, -1)
		n := r.index(b[0], "slice")
		if n == 0 {
			r.fail("integer division or modulo by zero")
		}
		i, at := 0, 0
		return func() (any, bool) {
			if i >= n {
				return nil, false
			}
			size := len(items) / n
			extra := i < len(items)%n
			if extra {
				size++
			}
			r.step(1)
			part := r.appended(items[at:at+size], nil)
			if fill := orNone(b[1]); fill != nil && !extra {
				part = append(part, fill)
			}
			i, at = i+1, at+size
			return &List{part}, true
		}
	})
}

// generator is an iterator over a value that begins its work when the first element is read.
func (r *run) generator(over any, start func() func() (any, bool)) *iterator {
	var next func() (any, bool)
	return &iterator{"generator", func() (any, bool) {
		if next == nil {
			next = start()
		}
		return next()
	}, r.over(over)}
}

func dictSort(r *run, v any, a args) any {
	b := a.bind(r, "dictsort", 0, "case_sensitive", "by", "reverse")
	by := 0
	if b[1] != missing {
		if by = slices.Index([]string{"key", "value"}, r.str(b[1])); by < 0 {
			r.fail("You can only sort by either \"key\" or \"value\"")
		}
	}
	d, ok := v.(*Dict)
	if !ok {
		if u, ok := v.(*undefined); ok {
			r.undefined(u)
		}
		r.fail("'%s' object has no attribute 'items'", typeName(v))
	}
	items := r.elements(&view{d, "items"}, -1)
	caseless := b[0] == missing || !r.truth(b[0])
	key := func(v any) any {
		k := v.(*tuple).items[by]
		if s, ok := plain(k); ok && caseless {
			return lower(s)
		}
		return k
	}
	return &List{r.sorted(items, key, b[2] != missing && r.truth(b[2]))}
}

// sorted orders values by their keys; equal ones keep their order.
func (r *run) sorted(items []any, key func(any) any, reverse bool) []any {
	type keyed struct{ key, item any }
	r.alloc(48 * len(items))
	all := make([]keyed, len(items))
	for i, item := range items {
		all[i] = keyed{key(item), item}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		c, _ := r.order("<", a.key, b.key, 0)
		if reverse {
			c = -c
		}
		return c
	})
	out := make([]any, len(all))
	for i := range all {
		out[i] = all[i].item
	}
	return out
}

func firstOf(r *run, v any, a args) any {
	a.bind(r, "first", 0)
	if first, ok := r.iterate(v)(); ok {
		return first
	}
	return &undefined{hint: "No first item, sequence was empty."}
}

func lastOf(r *run, v any, a args) any {
	a.bind(r, "last", 0)
	if last, ok := r.reversed(v)(); ok {
		return last
	}
	return &undefined{hint: "No last item, sequence was empty."}
}

// reversed gives the elements of a sequence from its end.
func (r *run) reversed(v any) func() (any, bool) {
	switch w := v.(type) {
	case *iterator, *loop:
	case string, markup:
		s, _ := plain(w)
		return (&List{r.elements(like(v, reverseText(s)), -1)}).iterate()
	default:
		if iterable(v) {
			all := r.elements(v, -1)
			return counted(len(all), func(i int) any { return all[len(all)-1-i] })
		}
	}
	r.fail("'%s' object is not reversible", typeName(v))
	return nil
}

func reverseText(s string) string {
	chars := []rune(s)
	slices.Reverse(chars)
	return string(chars)
}

func reverse(r *run, v any, a args) any {
	a.bind(r, "reverse", 0)
	if s, ok := plain(v); ok {
		r.allocText(5 * len(s))
		return like(v, reverseText(s))
	}
	switch v.(type) {
	case *iterator, *loop:
		all := r.appended(r.elements(v, -1), nil)
		slices.Reverse(all)
		return &List{all}
	}
	if !iterable(v) {
		r.fail("argument must be iterable")
	}
	return &iterator{"list_reverseiterator", r.reversed(v), 0}
}

func toFloat(r *run, v any, a args) any {
	b := a.bind(r, "float", 0, "default")
	if isNumber(v) {
		return r.float(v)
	}
	if s, ok := plain(v); ok {
		if f, ok := parseFloat(s); ok {
			return f
		}
	}
	if u, ok := v.(*undefined); ok {
		r.undefined(u)
	}
	if b[0] == missing {
		return 0.0
	}
	return b[0]
}

func toInt(r *run, v any, a args) any {
	b := a.bind(r, "int", 0, "default", "base")
	if b[0] == missing {
		b[0] = int64(0)
	}
	base := 10
	if b[1] != missing {
		base = r.index(b[1], "int")
	}
	if u, ok := v.(*undefined); ok {
		r.undefined(u)
	}
	if s, ok := plain(v); ok {
		if base != 0 && (base < 2 || base > 36) {
			return b[0]
		}
		if len(s) <= maxDigits {
			if i, ok := r.parseInt(s, base); ok {
				return i
			}
		}
		f, ok := parseFloat(s)
		if !ok {
			return b[0]
		}
		v = f
	}
	switch v := v.(type) {
	case bool:
		return r.sign("+", v)
	case int64, *big.Int:
		return v
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return r.truncated(v)
		}
	}
	return b[0]
}

func formatFilter(r *run, v any, a args) any {
	if len(a.pos) > 0 && len(a.names) > 0 {
		r.fail("can't handle positional and keyword arguments at the same time")
	}
	s := r.soft(v)
	if len(a.names) > 0 {
		d := NewDict()
		for i, name := range a.names {
			d.Set(name, a.named[i])
		}
		return r.binary("%", s, d)
	}
	return r.binary("%", s, &tuple{items: a.pos})
}

// getter reads an attribute, by a path with dots in it, of elements.
func (r *run) getter(path any, def any) func(any) any {
	var parts []any
	if s, ok := plain(path); ok {
		for _, p := range strings.Split(s, ".") {
			if n, err := strconv.ParseUint(p, 10, 31); err == nil {
				parts = append(parts, int64(n))
			} else {
				parts = append(parts, p)
			}
		}
	} else if path != nil && path != missing {
		parts = []any{path}
	}
	return func(v any) any {
		for _, p := range parts {
			v = r.getItem(v, p)
			if _, ok := v.(*undefined); ok && def != nil {
				v = def
			}
		}
		return v
	}
}

// caseless makes small letters of strings.
func caseless(get func(any) any) func(any) any {
	return func(v any) any {
		v = get(v)
		if s, ok := plain(v); ok {
			return lower(s)
		}
		return v
	}
}

// keyOf is the key by which filters order elements.
func (r *run) keyOf(attribute, caseSensitive any) func(any) any {
	get := r.getter(attribute, nil)
	if caseSensitive == missing || !r.truth(caseSensitive) {
		return caseless(get)
	}
	return get
}

func sortFilter(r *run, v any, a args) any {
	b := a.bind(r, "sort", 0, "reverse", "case_sensitive", "attribute")
	paths := []any{b[2]}
	if s, ok := plain(b[2]); ok {
		paths = nil
		for _, p := range strings.Split(s, ",") {
			paths = append(paths, p)
		}
	}
	keys := make([]func(any) any, len(paths))
	for i, p := range paths {
		keys[i] = r.keyOf(p, b[1])
	}
	key := func(v any) any { // a list also of one: what is equal in it needs no order
		r.alloc(16 * len(keys))
		t := &tuple{items: make([]any, len(keys))}
		for i, k := range keys {
			t.items[i] = k(v)
		}
		return t
	}
	return &List{r.sorted(r.elements(v, -1), key, b[0] != missing && r.truth(b[0]))}
}

func unique(r *run, v any, a args) any {
	b := a.bind(r, "unique", 0, "case_sensitive", "attribute")
	return r.generator(v, func() func() (any, bool) {
		key, next, seen := r.keyOf(b[1], b[0]), r.iterate(v), NewDict()
		return func() (any, bool) {
			for {
				item, ok := next()
				if !ok {
					return nil, false
				}
				r.step(1)
				k := key(item)
				if _, ok := seen.get(r.hash(k)); !ok {
					r.put(seen, k, nil)
					return item, true
				}
			}
		}
	})
}

// extreme is the smallest or largest element.
func (r *run) extreme(v any, a args, op string) any {
	b := a.bind(r, "min/max", 0, "case_sensitive", "attribute")
	key := r.keyOf(b[1], b[0])
	next := r.iterate(v)
	best, ok := next()
	if !ok {
		return &undefined{hint: "No aggregated item, sequence was empty."}
	}
	bestKey := key(best)
	for {
		item, ok := next()
		if !ok {
			return best
		}
		if k := key(item); r.compare(op, k, bestKey) {
			best, bestKey = item, k
		}
	}
}

func groupBy(r *run, v any, a args) any {
	b := a.bind(r, "groupby", 1, "attribute", "default", "case_sensitive")
	sensitive := b[2] != missing && r.truth(b[2])
	get := r.getter(b[0], orNone(b[1]))
	key := get
	if !sensitive {
		key = caseless(get)
	}
	out := &List{}
	var last *List
	var lastKey any
	for _, item := range r.sorted(r.elements(v, -1), key, false) {
		k := key(item)
		r.alloc(160)
		if last == nil || !r.same(k, lastKey, 0) {
			last, lastKey = &List{}, k
			group := k
			if !sensitive {
				group = get(item)
			}
			out.items = append(out.items, &tuple{[]any{group, last}, []string{"grouper", "list"}})
		}
		last.items = append(last.items, item)
	}
	return out
}

func indent(r *run, v any, a args) any {
	b := a.bind(r, "indent", 0, "width", "first", "blank")
	with := any("    ")
	if b[0] != missing {
		if _, ok := plain(b[0]); ok {
			with = b[0]
		} else {
			with = r.padded("", " ", r.index(b[0], "indent"), 0)
		}
	}
	s := r.needText(v)
	by := r.str(with)
	blank := b[2] != missing && r.truth(b[2])
	t := &text{r: r}
	for i, line := range splitLines(s+"\n", false) {
		if i > 0 {
			t.add("\n")
		}
		if i == 0 && b[1] != missing && r.truth(b[1]) || i > 0 && (blank || line != "") {
			t.add(by)
		}
		t.add(line)
	}
	return like(v, string(t.b))
}

func itemsOf(r *run, v any, a args) any {
	a.bind(r, "items", 0)
	return r.generator(v, func() func() (any, bool) {
		switch v := v.(type) {
		case *undefined:
			return counted(0, nil)
		case *Dict:
			return r.iterate(&view{v, "items"})
		}
		r.fail("Can only get item pairs from a mapping.")
		return nil
	})
}

func joinFilter(r *run, v any, a args) any {
	b := a.bind(r, "join", 0, "d", "attribute")
	sep := ""
	if b[0] != missing {
		sep = r.str(b[0])
	}
	get := r.getter(b[1], nil)
	return r.joinText(sep, v, func(_ int, item any) string { return r.str(get(item)) })
}

// mapFilter applies a filter, or reads an attribute, of each element.
func mapFilter(r *run, v any, a args) any {
	return r.lazily(v, func() func(any) (any, bool) {
		var f func(any) any
		if attr, ok := a.take("attribute"); ok && len(a.pos) == 0 {
			def, _ := a.take("default")
			if len(a.names) > 0 {
				r.fail("Unexpected keyword argument '%s'", a.names[0])
			}
			f = r.getter(attr, def)
		} else if len(a.pos) == 0 {
			r.fail("map requires a filter argument")
		} else {
			name := r.str(a.pos[0])
			call := filters[name]
			if call == nil {
				r.fail("%s", unknown("filter", name))
			}
			f = func(item any) any { return call(r, item, args{a.pos[1:], a.names, a.named}) }
		}
		return func(item any) (any, bool) { return f(item), true }
	})
}

// lazily changes or drops the elements of v as they are read; what does so is prepared when the first is.
func (r *run) lazily(v any, prepare func() func(any) (any, bool)) *iterator {
	return r.generator(v, func() func() (any, bool) {
		if !r.truth(v) {
			return counted(0, nil)
		}
		f, next := prepare(), r.iterate(v)
		return func() (any, bool) {
			for {
				item, ok := next()
				if !ok {
					return nil, false
				}
				r.step(1)
				if out, ok := f(item); ok {
					return out, true
				}
			}
		}
	})
}

// selected keeps the elements for which a test, or their truth, has the answer want.
func (r *run) selected(v any, a args, attr, want bool) any {
	return r.lazily(v, func() func(any) (any, bool) {
		get := func(v any) any { return v }
		pos := a.pos
		if attr {
			if len(pos) == 0 {
				r.fail("Missing parameter for attribute name")
			}
			get, pos = r.getter(pos[0], nil), pos[1:]
		}
		ask := r.truth
		if len(pos) > 0 {
			name := r.str(pos[0])
			call := tests[name]
			if call == nil {
				r.fail("%s", unknown("test", name))
			}
			ask = func(v any) bool { return call(r, v, args{pos[1:], a.names, a.named}) }
		}
		return func(item any) (any, bool) { return item, ask(get(item)) == want }
	})
}

func replaceFilter(r *run, v any, a args) any {
	b := a.bind(r, "replace", 2, "old", "new", "count")
	n := -1
	if b[2] != missing && b[2] != nil {
		n = r.index(b[2], "replace")
	}
	s := r.replace(r.str(v), r.str(b[0]), r.str(b[1]), n)
	r.allocText(len(s))
	return s
}

func round(r *run, v any, a args) any {
	b := a.bind(r, "round", 0, "precision", "method")
	method, precision := "common", 0
	if b[1] != missing {
		method = r.str(b[1])
	}
	if b[0] != missing {
		precision = r.index(b[0], "round")
	}
	if !slices.Contains([]string{"common", "ceil", "floor"}, method) {
		r.fail("method must be common, ceil or floor")
	}
	if !isNumber(v) {
		return r.sign("round()", v)
	}
	if method != "common" {
		scale := r.binary("**", int64(10), int64(precision))
		f := r.float(r.binary("*", v, scale))
		if method == "ceil" {
			f = math.Ceil(f)
		} else {
			f = math.Floor(f)
		}
		return r.binary("/", r.truncated(f), scale)
	}
	if f, ok := v.(float64); ok {
		return roundFloat(f, precision)
	}
	return r.roundInt(v, precision)
}

// roundFloat rounds half to even, exactly.
func roundFloat(f float64, precision int) float64 {
	if precision > 1100 || math.IsInf(f, 0) || math.IsNaN(f) {
		return f
	}
	if precision >= 0 {
		f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
		return f
	}
	if precision < -400 {
		return math.Copysign(0, f)
	}
	scale := new(big.Float).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-precision)), nil))
	q, _ := new(big.Float).SetPrec(200).Quo(big.NewFloat(f), scale).Float64()
	out, _ := new(big.Float).SetPrec(2000).Mul(big.NewFloat(math.RoundToEven(q)), scale).Float64()
	return out
}

// roundInt rounds an integer to tens, hundreds and so on.
func (r *run) roundInt(v any, precision int) any {
	b, _ := asBig(v)
	if precision >= 0 {
		return normInt(b)
	}
	if precision < -maxDigits {
		return int64(0)
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-precision)), nil)
	q, m := new(big.Int).DivMod(b, unit, new(big.Int))
	twice := new(big.Int).Lsh(m, 1).Cmp(unit)
	if twice > 0 || twice == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return normInt(q.Mul(q, unit))
}

func sum(r *run, v any, a args) any {
	b := a.bind(r, "sum", 0, "attribute", "start")
	total := b[1]
	if total == missing {
		total = int64(0)
	}
	if _, ok := plain(total); ok {
		r.fail("sum() can't sum strings [use ''.join(seq) instead]")
	}
	get := r.getter(b[0], nil)
	next := r.iterate(v)
	for {
		item, ok := next()
		if !ok {
			return total
		}
		r.step(1)
		total = r.binary("+", total, get(item))
	}
}

func truncate(r *run, v any, a args) any {
	b := a.bind(r, "truncate", 0, "length", "killwords", "end", "leeway")
	length, leeway, end := 255, 5, "..."
	if b[0] != missing {
		length = r.index(b[0], "truncate")
	}
	if b[2] != missing {
		end = r.needText(b[2])
	}
	if b[3] != missing && b[3] != nil {
		leeway = r.index(b[3], "truncate")
	}
	if n := r.runes(end); length < n {
		r.fail("expected length >= %d, got %d", n, length)
	}
	if leeway < 0 {
		r.fail("expected leeway >= 0, got %d", leeway)
	}
	if n, ok := r.length(v); ok && n <= length+leeway {
		return v
	}
	s := r.needText(v)
	s = r.sliceText(s, [3]any{nil, int64(length - r.runes(end))})
	if b[1] == missing || !r.truth(b[1]) {
		if i := strings.LastIndexByte(s, ' '); i >= 0 {
			s = s[:i]
		}
	}
	return like(v, s+end)
}

func urlEncode(r *run, v any, a args) any {
	a.bind(r, "urlencode", 0)
	quote := func(v any, query bool) string {
		t := &text{r: r}
		for _, c := range []byte(r.str(v)) {
			switch {
			case isAlnum(c) || strings.IndexByte("_.-~", c) >= 0 || c == '/' && !query:
				t.addByte(c)
			case c == ' ' && query:
				t.addByte('+')
			default:
				t.add("%" + strings.ToUpper(strconv.FormatUint(0x100|uint64(c), 16)[1:]))
			}
		}
		return string(t.b)
	}
	if _, ok := plain(v); ok || !iterable(v) {
		return quote(v, false)
	}
	if d, ok := v.(*Dict); ok {
		v = &view{d, "items"}
	}
	return r.joinText("&", v, func(_ int, item any) string {
		pair := r.elements(item, 3)
		if len(pair) != 2 {
			r.fail("expected pairs, got %d values", len(pair))
		}
		return quote(pair[0], true) + "=" + quote(pair[1], true)
	})
}

func wordCount(r *run, v any, a args) any {
	a.bind(r, "wordcount", 0)
	n, in := int64(0), false
	for _, c := range r.str(v) {
		word := c == '_' || unicode.IsLetter(c) || unicode.IsNumber(c)
		if word && !in {
			n++
		}
		in = word
	}
	return n
}
