package jinja

import (
	"math"
	"slices"
	"strings"
)

// getAttr is a.name: what Python's getattr finds, or else a[name]. What the sandbox forbids is undefined, and using that
// an error.
func (r *run) getAttr(v any, name string) any {
	if a, ok := r.attribute(v, name); ok {
		return a
	}
	switch v := v.(type) {
	case *Dict:
		if item, ok := v.get(name); ok {
			return item
		}
	case *undefined:
		r.undefined(v)
	}
	return &undefined{obj: v, of: true, name: name}
}

// getItem is a[index]: an element, or else an attribute of that name.
func (r *run) getItem(v, index any) any {
	if item, ok := r.item(v, index); ok {
		return item
	}
	if name, ok := plain(index); ok {
		if a, ok := r.attribute(v, name); ok {
			return a
		}
	}
	return &undefined{obj: v, of: true, name: index}
}

// item is Python's v[index] where that is no error.
func (r *run) item(v, index any) (any, bool) {
	switch v := v.(type) {
	case *undefined:
		r.undefined(v)
	case *Dict:
		switch index.(type) {
		case *List, *Dict, *namespace, *view:
			return nil, false
		}
		return v.get(r.hash(index))
	case string, markup:
		i, ok := asInt(index)
		if !ok {
			return nil, false
		}
		s, _ := plain(v)
		c, ok := r.character(s, i)
		return like(v, c), ok
	case *List:
		return element(v.items, index)
	case *tuple:
		return element(v.items, index)
	case *rangeValue:
		if i, ok := place(v.len(), index); ok {
			return v.start + int64(i)*v.step, true
		}
	}
	return nil, false
}

// place is an index from either end.
func place(n int, index any) (int, bool) {
	i, ok := asInt(index)
	if i < 0 {
		i += int64(n)
	}
	return int(i), ok && i >= 0 && i < int64(n)
}

func element(items []any, index any) (any, bool) {
	if i, ok := place(len(items), index); ok {
		return items[i], true
	}
	return nil, false
}

// character is the i-th character of s, from its end if i is negative.
func (r *run) character(s string, i int64) (string, bool) {
	n, ok := place(r.runes(s), i)
	if !ok {
		return "", false
	}
	next := characters(s)
	for range n {
		next()
	}
	c, _ := next()
	r.step(n >> 4)
	return c.(string), true
}

// like returns s as the type of string that v is.
func like(v any, s string) any {
	if _, ok := v.(markup); ok {
		return markup(s)
	}
	return s
}

// slice is v[a:b:c].
func (r *run) slice(v any, bounds [3]any) any {
	if u, ok := v.(*undefined); ok {
		r.undefined(u)
	}
	switch v := v.(type) {
	case string, markup:
		s, _ := plain(v)
		return like(v, r.sliceText(s, bounds))
	case *List:
		return &List{r.sliceItems(v.items, bounds)}
	case *tuple:
		return &tuple{items: r.sliceItems(v.items, bounds)}
	case *rangeValue:
		from, step, n := r.sliceRange(v.len(), bounds)
		start := v.start + int64(from)*v.step
		return &rangeValue{start, start + int64(n*step)*v.step, int64(step) * v.step}
	case *Dict:
		r.fail("unhashable type: 'slice'")
	}
	r.fail("'%s' object is not subscriptable", typeName(v))
	return nil
}

// sliceRange is where a slice of n elements begins, its step and how many it has.
func (r *run) sliceRange(n int, bounds [3]any) (from, step, count int) {
	step = 1
	if bounds[2] != nil {
		if step = r.index(bounds[2], "slice step"); step == 0 {
			r.fail("slice step cannot be zero")
		}
	}
	low, high := 0, n
	if step < 0 {
		low, high = -1, n-1
	}
	limit := func(v any, def int) int {
		if v == nil {
			return def
		}
		i := r.index(v, "slice")
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	if step > 0 {
		from = limit(bounds[0], low)
		count = (limit(bounds[1], high) - from + step - 1) / step
	} else {
		from = limit(bounds[0], high)
		count = (from - limit(bounds[1], low) - step - 1) / -step
	}
	return from, step, max(count, 0)
}

func (r *run) sliceItems(items []any, bounds [3]any) []any {
	from, step, n := r.sliceRange(len(items), bounds)
	r.alloc(16 * n)
	r.step(n >> 4)
	out := make([]any, n)
	for i := range out {
		out[i] = items[from+i*step]
	}
	return out
}

func (r *run) sliceText(s string, bounds [3]any) string {
	r.allocText(len(s))
	chars := []rune(nil)
	n := r.runes(s)
	from, step, count := r.sliceRange(n, bounds)
	if step == 1 && n == len(s) { // ASCII
		return s[from : from+count]
	}
	r.alloc(4 * n)
	r.step(n >> 4)
	chars = []rune(s)
	if step == 1 {
		return string(chars[from : from+count])
	}
	out := make([]rune, count)
	for i := range out {
		out[i] = chars[from+i*step]
	}
	return string(out)
}

// attribute is what Python's getattr finds, if the sandbox gives it out.
func (r *run) attribute(v any, name string) (any, bool) {
	if name != "" && name[0] == '_' {
		if isDunder(v, name) {
			return r.unsafe(v, name), true
		}
		return nil, false
	}
	switch v := v.(type) {
	case string, markup:
		if m, ok := stringMethods[name]; ok {
			return &function{name, func(r *run, a args) any { return r.stringMethod(v, name, m, a) }}, true
		}
		return r.unsupported(v, name, "encode", "translate", "maketrans", "isidentifier", "isnumeric", "isdecimal", "format_map")
	case *Dict:
		if slices.Contains([]string{"clear", "pop", "popitem", "setdefault", "update"}, name) {
			return r.unsafe(v, name), true
		}
		if m, ok := dictMethods[name]; ok {
			return method(name, func(r *run, a args) any { return m(r, v, a) })
		}
		return r.unsupported(v, name, "fromkeys")
	case *List:
		mutable := []string{"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"}
		if slices.Contains(mutable, name) {
			return r.unsafe(v, name), true
		}
		if name == "copy" {
			return method(name, func(r *run, a args) any { a.bind(r, name, 0); return &List{r.appended(v.items, nil)} })
		}
		return sequenceMethod(v.items, name)
	case *tuple:
		if i := slices.Index(v.names, name); i >= 0 {
			return v.items[i], true
		}
		return sequenceMethod(v.items, name)
	case *namespace:
		return v.attrs.get(name)
	case *loop:
		return r.loopAttr(v, name)
	case *rangeValue:
		return v.attr(name)
	case *macro:
		return macroAttr(v, name)
	case *view:
		return r.unsupported(v, name, "isdisjoint", "mapping")
	case bool, int64, float64:
		return r.numberAttr(v, name)
	case *iterator:
		return r.unsupported(v, name, "send", "throw", "close")
	}
	return nil, false
}

// unsupported is a function in place of a method that Python has and this package has not; calling it is an error.
func (r *run) unsupported(v any, name string, has ...string) (any, bool) {
	if !slices.Contains(has, name) {
		return nil, false
	}
	return method(name, func(r *run, _ args) any {
		r.fail("the method %s of %s is not supported", name, typeName(v))
		return nil
	})
}

func method(name string, call func(r *run, a args) any) (any, bool) {
	return &function{name, call}, true
}

// unsafe is what the sandbox gives in place of an attribute.
func (r *run) unsafe(v any, name string) any {
	return &undefined{
		hint: "access to attribute " + r.repr(name) + " of '" + typeName(v) + "' object is unsafe.", name: name, unsafe: true,
	}
}

// dunders are the attributes that every object of Python has.
var dunders = strings.Fields(`__class__ __delattr__ __dir__ __doc__ __eq__ __format__ __ge__ __getattribute__
	__getstate__ __gt__ __hash__ __init__ __init_subclass__ __le__ __lt__ __ne__ __new__ __reduce__ __reduce_ex__
	__repr__ __setattr__ __sizeof__ __str__ __subclasshook__`)

// isDunder reports whether v has an attribute of Python's own under that name.
func isDunder(v any, name string) bool {
	if slices.Contains(dunders, name) {
		return true
	}
	switch name {
	case "__len__", "__contains__":
		return iterable(v) && typeName(v) != "generator"
	case "__iter__":
		return iterable(v)
	case "__call__":
		return callable(v)
	case "__globals__", "__code__", "__closure__", "__defaults__", "__self__", "__name__", "__qualname__":
		_, ok := v.(*function)
		return ok
	case "__module__", "__dict__", "__slots__", "__weakref__":
		switch v.(type) {
		case *function, *macro, *undefined, *loop, *namespace:
			return true
		}
	}
	return false
}

func callable(v any) bool {
	switch v.(type) {
	case *function, *macro, *loop, *undefined:
		return true
	}
	return false
}

type dictMethod func(r *run, d *Dict, a args) any

var dictMethods = map[string]dictMethod{
	"keys":   func(r *run, d *Dict, a args) any { a.bind(r, "keys", 0); return &view{d, "keys"} },
	"values": func(r *run, d *Dict, a args) any { a.bind(r, "values", 0); return &view{d, "values"} },
	"items":  func(r *run, d *Dict, a args) any { a.bind(r, "items", 0); return &view{d, "items"} },
	"copy": func(r *run, d *Dict, a args) any {
		a.bind(r, "copy", 0)
		r.alloc(96 * len(d.entries))
		return d.clone()
	},
	"get": func(r *run, d *Dict, a args) any {
		a.positional(r, "get")
		b := a.bind(r, "get", 1, "key", "default")
		if v, ok := d.get(r.hash(b[0])); ok {
			return v
		}
		return orNone(b[1])
	},
}

func orNone(v any) any {
	if v == missing {
		return nil
	}
	return v
}

func sequenceMethod(items []any, name string) (any, bool) {
	switch name {
	case "count":
		return method(name, func(r *run, a args) any {
			a.positional(r, name)
			v := a.bind(r, name, 1, "value")[0]
			n := int64(0)
			for _, item := range items {
				if r.same(v, item, 0) {
					n++
				}
			}
			return n
		})
	case "index":
		return method(name, func(r *run, a args) any {
			a.positional(r, name)
			b := a.bind(r, name, 1, "value", "start", "stop")
			for i := range b[1:] {
				if b[i+1] == missing {
					b[i+1] = nil
				}
			}
			from, _, n := r.sliceRange(len(items), [3]any{b[1], b[2]})
			for i := from; i < from+n; i++ {
				if r.same(b[0], items[i], 0) {
					return int64(i)
				}
			}
			r.fail("%s is not in list", r.repr(b[0]))
			return nil
		})
	}
	return nil, false
}

// loopAttr is an attribute of the variable loop.
func (r *run) loopAttr(l *loop, name string) (any, bool) {
	i := int64(l.index)
	switch name {
	case "index0":
		return i, true
	case "index":
		return i + 1, true
	case "revindex0":
		return int64(l.len()) - i - 1, true
	case "revindex":
		return int64(l.len()) - i, true
	case "length":
		return int64(l.len()), true
	case "first":
		return i == 0, true
	case "last":
		_, more := l.peek()
		return !more, true
	case "depth0":
		return int64(l.depth), true
	case "depth":
		return int64(l.depth) + 1, true
	case "previtem":
		if i == 0 {
			return &undefined{hint: "there is no previous item"}, true
		}
		return l.before, true
	case "nextitem":
		if v, ok := l.peek(); ok {
			return v, true
		}
		return &undefined{hint: "there is no next item"}, true
	case "cycle":
		return method(name, func(r *run, a args) any {
			if len(a.pos) == 0 {
				r.fail("no items for cycling given")
			}
			return a.pos[l.index%len(a.pos)]
		})
	case "changed":
		return method(name, func(r *run, a args) any {
			now := &tuple{items: a.pos}
			if l.changed != nil && r.equal(l.changed, now, 0) {
				return false
			}
			l.changed = now
			return true
		})
	}
	return nil, false
}

func (v *rangeValue) attr(name string) (any, bool) {
	switch name {
	case "start":
		return v.start, true
	case "stop":
		return v.stop, true
	case "step":
		return v.step, true
	}
	if name != "count" && name != "index" {
		return nil, false
	}
	return method(name, func(r *run, a args) any {
		m, _ := sequenceMethod(r.elements(v, -1), name)
		return m.(*function).call(r, a)
	})
}

func macroAttr(m *macro, name string) (any, bool) {
	switch name {
	case "name":
		if m.name == "" {
			return nil, true
		}
		return m.name, true
	case "arguments":
		t := &tuple{}
		for _, p := range m.def.params {
			t.items = append(t.items, p.name)
		}
		return t, true
	case "caller":
		return m.def.reads[0], true
	case "catch_kwargs":
		return m.def.reads[1], true
	case "catch_varargs":
		return m.def.reads[2], true
	}
	return nil, false
}

func (r *run) numberAttr(v any, name string) (any, bool) {
	f, isFloat := v.(float64)
	switch name {
	case "real":
		return r.sign("+", v), true
	case "imag":
		if isFloat {
			return 0.0, true
		}
		return int64(0), true
	case "is_integer":
		if isFloat {
			return method(name, func(r *run, a args) any { return f == math.Trunc(f) && !math.IsInf(f, 0) })
		}
		return nil, false // before Python 3.12
	}
	names := []string{"as_integer_ratio", "conjugate"}
	if isFloat {
		return r.unsupported(v, name, append(names, "hex", "fromhex")...)
	}
	return r.unsupported(v, name, append(names, "bit_length", "bit_count", "to_bytes", "from_bytes")...)
}

// setAttr gives a namespace an attribute.
func (r *run) setAttr(ns *namespace, name string, v any) {
	if strings.HasPrefix(name, "_") {
		r.fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got %s. "+
			"Please rename the attribute.", r.repr(name))
	}
	r.alloc(96)
	ns.attrs.Set(name, v)
}
