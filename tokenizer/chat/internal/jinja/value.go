package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// Values are Python's: nil (None), bool, int64 and *big.Int beyond it, float64, string, markup, *List, *tuple, *Dict,
// *view, *rangeValue, *iterator, *undefined, *namespace, *loop, *macro and *function. Lists and dictionaries never
// change once a template sees them.

// List is a Python list.
type List struct{ items []any }

// NewList returns a list of values.
func NewList(items []any) *List { return &List{items} }

type tuple struct {
	items []any
	names []string // of the elements, where they are attributes as well
}

// markup is a string that is escaped already: str as the filter safe makes it.
type markup string

// undefined is what a name stands for that nothing is known of.
type undefined struct {
	hint   string
	obj    any // whose attribute is not there
	of     bool
	name   any
	unsafe bool
}

// undefined fails as Jinja does where such a value is used.
func (r *run) undefined(u *undefined) {
	if u.hint != "" {
		r.fail("%s", u.hint)
	}
	if !u.of {
		r.fail("%s is undefined", r.repr(u.name))
	}
	kind := typeName(u.obj) + " object"
	switch u.obj.(type) {
	case nil:
		kind = "None"
	case *macro, *loop:
		kind = "jinja2.runtime." + kind
	case *namespace:
		kind = "transformers.utils.chat_template_utils._cached_compile_jinja_template.<locals>.TemplateNamespace object"
	case markup:
		kind = "markupsafe." + kind
	}
	if _, ok := plain(u.name); ok {
		r.fail("'%s' has no attribute %s", kind, r.repr(u.name))
	}
	r.fail("%s has no element %s", kind, r.repr(u.name))
}

type namespace struct{ attrs *Dict }

type rangeValue struct{ start, stop, step int64 }

func (v *rangeValue) len() int {
	if v.step > 0 && v.start < v.stop {
		return int((v.stop-v.start-1)/v.step + 1)
	}
	if v.step < 0 && v.start > v.stop {
		return int((v.start-v.stop-1)/-v.step + 1)
	}
	return 0
}

// view is what the methods of a dictionary return.
type view struct {
	of   *Dict
	kind string // keys, values or items
}

func (v *view) at(i int) any {
	e := &v.of.entries[i]
	switch v.kind {
	case "keys":
		return e.key
	case "values":
		return e.value
	}
	return &tuple{items: []any{e.key, e.value}}
}

// iterator gives its elements once.
type iterator struct {
	kind  string // Python's name of its type
	next  func() (any, bool)
	depth int // generators that it reads through
}

// over returns how many generators something that reads v reads through.
func (r *run) over(v any) int {
	depth := 0
	switch v := v.(type) {
	case *iterator:
		depth = v.depth
	case *loop:
		depth = v.nesting
	}
	if depth >= valueDepth {
		r.fail("generators are nested deeper than %d", valueDepth)
	}
	return depth + 1
}

type function struct {
	name string
	call func(r *run, a args) any
}

// Dict is a Python dictionary: it keeps the order of its keys.
type Dict struct {
	entries []entry
	index   map[any]int // by hash, once there are many
}

// entry is a key with its value. The hash is what equal keys have in common; that of a string is the string.
type entry struct{ hash, key, value any }

// NewDict returns an empty dictionary.
func NewDict() *Dict { return &Dict{} }

// Set gives a key a value.
func (d *Dict) Set(key string, v any) { d.set(key, key, v) }

// Get returns the value of a key.
func (d *Dict) Get(key string) (any, bool) { return d.get(key) }

// Each calls f for every key that is a string, in order.
func (d *Dict) Each(f func(key string, v any)) {
	for _, e := range d.entries {
		if k, ok := plain(e.key); ok {
			f(k, e.value)
		}
	}
}

// clone returns a copy; what is in it is shared.
func (d *Dict) clone() *Dict {
	c := NewDict()
	for _, e := range d.entries {
		c.set(e.hash, e.key, e.value)
	}
	return c
}

// keys returns the keys as a sequence.
func (d *Dict) keys() *view { return &view{d, "keys"} }

const indexedFrom = 9

// find returns the place of a hash.
func (d *Dict) find(hash any) (int, bool) {
	if d.index != nil {
		i, ok := d.index[hash]
		return i, ok
	}
	for i := range d.entries {
		if d.entries[i].hash == hash {
			return i, true
		}
	}
	return 0, false
}

func (d *Dict) get(hash any) (any, bool) {
	if i, ok := d.find(hash); ok {
		return d.entries[i].value, true
	}
	return nil, false
}

func (d *Dict) set(hash, key, v any) {
	if i, ok := d.find(hash); ok {
		d.entries[i].value = v
		return
	}
	d.entries = append(d.entries, entry{hash, key, v})
	if d.index != nil {
		d.index[hash] = len(d.entries) - 1
	} else if len(d.entries) == indexedFrom {
		d.index = make(map[any]int, 2*indexedFrom)
		for i, e := range d.entries {
			d.index[e.hash] = i
		}
	}
}

// put is set for a key that a template chose.
func (r *run) put(d *Dict, key, v any) {
	r.alloc(192)
	d.set(r.hash(key), key, v)
}

// compound is the hash of a value of several parts.
type compound string

// hash is what equal values have in common; a list or dictionary has none.
func (r *run) hash(v any) any {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case float64:
		if v != math.Trunc(v) || math.IsInf(v, 0) {
			return v
		}
		b, _ := big.NewFloat(v).Int(nil)
		return r.hash(normInt(b))
	case *big.Int:
		return compound(v.Text(16))
	case markup:
		return string(v)
	case *tuple:
		t := &text{r: r}
		r.addHash(t, v, 0)
		return compound(t.b)
	case *undefined:
		return compound("undefined")
	case *List, *Dict, *namespace:
		r.fail("unhashable type: '%s'", typeName(v))
	case *view:
		if v.kind != "values" {
			r.fail("unhashable type: '%s'", typeName(v))
		}
	}
	return v
}

// addHash adds the parts of a tuple, each with its type and length.
func (r *run) addHash(t *text, v any, depth int) {
	r.step(1)
	if depth > valueDepth {
		r.fail("a value is nested deeper than %d", valueDepth)
	}
	if v, ok := v.(*tuple); ok {
		t.add("(")
		for _, item := range v.items {
			r.addHash(t, item, depth+1)
		}
		t.add(")")
		return
	}
	switch h := r.hash(v).(type) {
	case string:
		t.add(fmt.Sprintf("s%d:", len(h)))
		t.add(h)
	case compound:
		t.add(fmt.Sprintf("c%d:", len(h)))
		t.add(string(h))
	default:
		t.add(fmt.Sprintf("%T:%v;", h, h)) // what is neither has its address
	}
}

// typeName is Python's name of a value's type.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case *List:
		return "list"
	case *tuple:
		return "tuple"
	case *Dict:
		return "dict"
	case *view:
		return "dict_" + v.kind
	case *rangeValue:
		return "range"
	case *iterator:
		return v.kind
	case *undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case *loop:
		return "LoopContext"
	case *macro:
		return "Macro"
	}
	return "builtin_function_or_method"
}

// plain returns the characters of a string.
func plain(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// truth is Python's bool().
func (r *run) truth(v any) bool {
	switch v := v.(type) {
	case nil, *undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case *big.Int:
		return true // what fits an int64 is one
	case float64:
		return v != 0
	}
	if n, ok := r.length(v); ok {
		return n > 0
	}
	return true
}

// length is Python's len(), false for what has none.
func (r *run) length(v any) (int, bool) {
	switch v := v.(type) {
	case string:
		return r.runes(v), true
	case markup:
		return r.runes(string(v)), true
	case *List:
		return len(v.items), true
	case *tuple:
		return len(v.items), true
	case *Dict:
		return len(v.entries), true
	case *view:
		return len(v.of.entries), true
	case *rangeValue:
		return v.len(), true
	case *undefined:
		return 0, true
	case *loop:
		return v.len(), true
	}
	return 0, false
}

// runes counts the characters of a string.
func (r *run) runes(s string) int {
	r.step(len(s) >> 8)
	return utf8.RuneCountInString(s)
}

// iterable reports whether a loop may run over v.
func iterable(v any) bool {
	switch v.(type) {
	case string, markup, *List, *tuple, *Dict, *view, *rangeValue, *iterator, *undefined, *loop:
		return true
	}
	return false
}

// iterate returns the elements of v one by one.
func (r *run) iterate(v any) func() (any, bool) {
	switch v := v.(type) {
	case string:
		return characters(v)
	case markup:
		return characters(string(v))
	case *List:
		return v.iterate()
	case *tuple:
		return (&List{v.items}).iterate()
	case *Dict:
		return r.iterate(v.keys())
	case *view:
		return counted(len(v.of.entries), v.at)
	case *rangeValue:
		return counted(v.len(), func(i int) any { return v.start + int64(i)*v.step })
	case *iterator:
		return v.next
	case *undefined:
		return counted(0, nil)
	case *loop:
		return func() (any, bool) {
			if !v.advance() {
				return nil, false
			}
			return &tuple{items: []any{v.current, v}}, true
		}
	}
	r.fail("'%s' object is not iterable", typeName(v))
	return nil
}

func (l *List) iterate() func() (any, bool) {
	return counted(len(l.items), func(i int) any { return l.items[i] })
}

func counted(n int, at func(i int) any) func() (any, bool) {
	i := 0
	return func() (any, bool) {
		if i >= n {
			return nil, false
		}
		i++
		return at(i - 1), true
	}
}

func characters(s string) func() (any, bool) {
	return func() (any, bool) {
		if s == "" {
			return nil, false
		}
		_, n := utf8.DecodeRuneInString(s)
		c := s[:n]
		s = s[n:]
		return c, true
	}
}

// elements returns what is in v, at most limit of it if that is not negative.
func (r *run) elements(v any, limit int) []any {
	switch v := v.(type) {
	case *List:
		return v.items
	case *tuple:
		return v.items
	}
	var all []any
	next := r.iterate(v)
	for limit < 0 || len(all) < limit {
		e, ok := next()
		if !ok {
			break
		}
		r.step(1)
		r.alloc(96)
		all = append(all, e)
	}
	return all
}

// str is Python's str().
func (r *run) str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case *undefined:
		return ""
	}
	t := &text{r: r}
	r.addRepr(t, v, 0)
	return string(t.b)
}

// repr is Python's repr().
func (r *run) repr(v any) string {
	t := &text{r: r}
	r.addRepr(t, v, 0)
	return string(t.b)
}

func (r *run) addRepr(t *text, v any, depth int) {
	r.step(1)
	if depth > valueDepth {
		r.fail("a value is nested deeper than %d", valueDepth)
	}
	switch v := v.(type) {
	case nil:
		t.add("None")
	case bool:
		if v {
			t.add("True")
		} else {
			t.add("False")
		}
	case int64, *big.Int:
		t.add(r.integer(v))
	case float64:
		t.add(floatRepr(v))
	case string:
		quote(t, v)
	case markup:
		t.add("Markup(")
		quote(t, string(v))
		t.add(")")
	case *undefined:
		t.add("Undefined")
	case *List:
		t.add("[")
		r.addReprs(t, v.items, depth)
		t.add("]")
	case *tuple:
		t.add("(")
		r.addReprs(t, v.items, depth)
		if len(v.items) == 1 {
			t.add(",")
		}
		t.add(")")
	case *Dict:
		t.add("{")
		for i, e := range v.entries {
			if i > 0 {
				t.add(", ")
			}
			r.addRepr(t, e.key, depth+1)
			t.add(": ")
			r.addRepr(t, e.value, depth+1)
		}
		t.add("}")
	case *view:
		t.add(typeName(v) + "([")
		r.addReprs(t, r.elements(v, -1), depth)
		t.add("])")
	case *namespace:
		t.add("<Namespace ")
		r.addRepr(t, v.attrs, depth+1)
		t.add(">")
	case *rangeValue:
		t.add(fmt.Sprintf("range(%d, %d", v.start, v.stop))
		if v.step != 1 {
			t.add(fmt.Sprintf(", %d", v.step))
		}
		t.add(")")
	case *loop:
		t.add(fmt.Sprintf("<LoopContext %d/%d>", v.index+1, v.len()))
	case *macro:
		if v.name == "" {
			t.add("<Macro anonymous>")
			return
		}
		t.add("<Macro ")
		quote(t, v.name)
		t.add(">")
	default:
		r.fail("a %s has no fixed text: Python writes its address in memory", typeName(v))
	}
}

func (r *run) addReprs(t *text, items []any, depth int) {
	for i, item := range items {
		if i > 0 {
			t.add(", ")
		}
		r.addRepr(t, item, depth+1)
	}
}

// compare is one of Python's comparisons.
func (r *run) compare(op string, a, b any) bool {
	switch op {
	case "==":
		return r.equal(a, b, 0)
	case "!=":
		return !r.equal(a, b, 0)
	case "in":
		return r.contains(b, a)
	case "not in":
		return !r.contains(b, a)
	}
	c, ordered := r.order(op, a, b, 0)
	if !ordered {
		return false
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// equal is Python's ==.
func (r *run) equal(a, b any, depth int) bool {
	r.step(1)
	if depth > valueDepth {
		r.fail("a value is nested deeper than %d", valueDepth)
	}
	if c, ordered, ok := compareNumbers(a, b); ok {
		return ordered && c == 0
	}
	if s, ok := plain(a); ok {
		t, ok := plain(b)
		return ok && s == t
	}
	switch a := a.(type) {
	case *List:
		b, ok := b.(*List)
		return ok && (a == b || r.equalAll(a.items, b.items, depth))
	case *tuple:
		b, ok := b.(*tuple)
		return ok && (a == b || r.equalAll(a.items, b.items, depth))
	case *Dict:
		b, ok := b.(*Dict)
		return ok && (a == b || r.equalDicts(a, b, depth))
	case *view:
		b, ok := b.(*view)
		return ok && (a == b || a.kind == b.kind && a.kind != "values" && len(a.of.entries) == len(b.of.entries) &&
			r.equalViews(a, b))
	case *rangeValue:
		b, ok := b.(*rangeValue)
		return ok && r.equalAll(r.elements(a, -1), r.elements(b, -1), depth)
	case *undefined:
		_, ok := b.(*undefined)
		return ok
	}
	return a == b
}

// equalViews compares views as the sets that they are.
func (r *run) equalViews(a, b *view) bool {
	for _, e := range a.of.entries {
		v, ok := b.of.get(e.hash)
		if !ok || a.kind == "items" && !r.equal(e.value, v, 1) {
			return false
		}
	}
	return true
}

// same is identity or equality, as elements are compared.
func (r *run) same(a, b any, depth int) bool {
	if f, ok := a.(float64); ok && f != f {
		return false
	}
	return r.equal(a, b, depth)
}

func (r *run) equalAll(a, b []any, depth int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !r.same(a[i], b[i], depth+1) {
			return false
		}
	}
	return true
}

func (r *run) equalDicts(a, b *Dict, depth int) bool {
	if len(a.entries) != len(b.entries) {
		return false
	}
	for _, e := range a.entries {
		v, ok := b.get(e.hash)
		if !ok || !r.same(e.value, v, depth+1) {
			return false
		}
	}
	return true
}

// order compares what Python orders; ordered is false for NaN.
func (r *run) order(op string, a, b any, depth int) (c int, ordered bool) {
	r.step(1)
	if depth > valueDepth {
		r.fail("a value is nested deeper than %d", valueDepth)
	}
	if c, ordered, ok := compareNumbers(a, b); ok {
		return c, ordered
	}
	s, ok := plain(a)
	t, also := plain(b)
	if ok && also {
		return strings.Compare(s, t), true // the order of UTF-8 is the order of code points
	}
	if a, ok := a.(*List); ok {
		if b, ok := b.(*List); ok {
			return r.orderAll(op, a.items, b.items, depth)
		}
	}
	if a, ok := a.(*tuple); ok {
		if b, ok := b.(*tuple); ok {
			return r.orderAll(op, a.items, b.items, depth)
		}
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(*undefined); ok {
			r.undefined(u)
		}
	}
	r.fail("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	return 0, false
}

func (r *run) orderAll(op string, a, b []any, depth int) (int, bool) {
	for i := range min(len(a), len(b)) {
		if !r.same(a[i], b[i], depth+1) {
			return r.order(op, a[i], b[i], depth+1)
		}
	}
	return len(a) - len(b), true
}

// contains is Python's in.
func (r *run) contains(in, v any) bool {
	switch in := in.(type) {
	case string, markup:
		sub, ok := plain(v)
		if !ok {
			r.fail("'in <string>' requires string as left operand, not %s", typeName(v))
		}
		s, _ := plain(in)
		r.step(len(s) >> 8)
		return strings.Contains(s, sub)
	case *Dict:
		_, ok := in.get(r.hash(v))
		return ok
	case *view:
		if in.kind == "keys" {
			_, ok := in.of.get(r.hash(v))
			return ok
		}
	}
	if !iterable(in) {
		r.fail("argument of type '%s' is not iterable", typeName(in))
	}
	next := r.iterate(in)
	for {
		e, ok := next()
		if !ok {
			return false
		}
		if r.same(v, e, 0) {
			return true
		}
	}
}
