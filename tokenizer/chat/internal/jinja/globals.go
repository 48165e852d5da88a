package jinja

import "math"

// globals are the functions that a template finds without being given them.
var globals = map[string]any{
	"range":           &function{"range", makeRange},
	"dict":            &function{"dict", makeDict},
	"namespace":       &function{"namespace", makeNamespace},
	"raise_exception": &function{"raise_exception", raise},
	"strftime_now":    &function{"strftime_now", strftimeNow},
	"joiner":          &function{"joiner", makeJoiner},
	"cycler":          refusedFunction("cycler"),
	"lipsum":          refusedFunction("lipsum"),
}

func refusedFunction(name string) *function {
	return &function{name, func(r *run, _ args) any {
		r.fail("the function %s of Jinja is not supported", name)
		return nil
	}}
}

func raise(r *run, a args) any {
	message := a.bind(r, "raise_exception", 1, "message")[0]
	panic(&Raised{r.line, r.str(message)})
}

func strftimeNow(r *run, a args) any {
	t := &text{r: r}
	strftime(t, r.now, r.needText(a.bind(r, "strftime_now", 1, "format")[0]))
	return string(t.b)
}

func makeRange(r *run, a args) any {
	a.positional(r, "range")
	b := a.bind(r, "range", 1, "start", "stop", "step")
	n := [3]int64{0, 0, 1}
	for i, v := range b {
		if v == missing {
			continue
		}
		j, ok := asInt(v)
		if !ok || j > math.MaxInt32 || j < math.MinInt32 {
			j = int64(r.index(v, "range"))
		}
		n[i] = j
	}
	if b[1] == missing {
		n[0], n[1] = 0, n[0]
	}
	if n[2] == 0 {
		r.fail("range() arg 3 must not be zero")
	}
	v := &rangeValue{n[0], n[1], n[2]}
	if v.len() > maxRange {
		r.fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	return v
}

// makeDict is Python's dict(): of a mapping or of pairs, and of named arguments.
func makeDict(r *run, a args) any {
	d := NewDict()
	if len(a.pos) > 1 {
		r.fail("dict expected at most 1 argument, got %d", len(a.pos))
	}
	if len(a.pos) == 1 {
		r.fill(d, a.pos[0])
	}
	for i, name := range a.names {
		r.put(d, name, a.named[i])
	}
	return d
}

// fill adds the entries of a mapping, or pairs, to d.
func (r *run) fill(d *Dict, v any) {
	if m, ok := v.(*Dict); ok {
		v = &view{m, "items"}
	}
	next := r.iterate(v)
	for i := 0; ; i++ {
		item, ok := next()
		if !ok {
			return
		}
		pair := r.elements(item, 3)
		if len(pair) != 2 {
			r.fail("dictionary update sequence element #%d has length %d; 2 is required", i, len(pair))
		}
		r.put(d, pair[0], pair[1])
	}
}

func makeNamespace(r *run, a args) any {
	ns := &namespace{NewDict()}
	for _, e := range makeDict(r, a).(*Dict).entries {
		name, ok := plain(e.key)
		if !ok {
			r.put(ns.attrs, e.key, e.value)
			continue
		}
		r.setAttr(ns, name, e.value)
	}
	return ns
}

// makeJoiner returns a function that gives its text from its second call on.
func makeJoiner(r *run, a args) any {
	b := a.bind(r, "joiner", 0, "sep")
	used := false
	return &function{"joiner", func(r *run, a args) any {
		a.bind(r, "joiner", 0)
		if !used {
			used = true
			return ""
		}
		if b[0] == missing {
			return ", "
		}
		return b[0]
	}}
}
