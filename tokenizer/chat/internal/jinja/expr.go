package jinja

import "fmt"

type expr interface {
	eval(r *run, s *scope) any
}

type constant struct{ v any }

func (c constant) eval(*run, *scope) any { return c.v }

type nameExpr struct {
	name string
	line int
}

func (e *nameExpr) eval(r *run, s *scope) any { return r.lookup(s, e.name) }

// lookup finds a variable: of the bodies around, of the rendering, of the language.
func (r *run) lookup(s *scope, name string) any {
	r.step(1)
	if v, ok := s.get(name); ok {
		return v
	}
	if v, ok := r.vars[name]; ok {
		return v
	}
	if v, ok := globals[name]; ok {
		return v
	}
	return &undefined{name: name}
}

type condExpr struct {
	test, then, orElse expr
	line               int
}

func (e *condExpr) eval(r *run, s *scope) any {
	if r.truth(e.test.eval(r, s)) {
		return e.then.eval(r, s)
	}
	if e.orElse == nil {
		return &undefined{hint: fmt.Sprintf(
			"the inline if-expression on line %d evaluated to false and no else section was defined.", e.line)}
	}
	return e.orElse.eval(r, s)
}

type boolExpr struct {
	l, r expr
	or   bool
}

func (e *boolExpr) eval(r *run, s *scope) any {
	v := e.l.eval(r, s)
	if r.truth(v) == e.or {
		return v
	}
	return e.r.eval(r, s)
}

type notExpr struct{ of expr }

func (e *notExpr) eval(r *run, s *scope) any { return !r.truth(e.of.eval(r, s)) }

type compareExpr struct {
	first expr
	ops   []string
	rest  []expr
	line  int
}

func (e *compareExpr) eval(r *run, s *scope) any {
	left := e.first.eval(r, s)
	for i, op := range e.ops {
		right := e.rest[i].eval(r, s)
		r.line = e.line
		if !r.compare(op, left, right) {
			return false
		}
		left = right
	}
	return true
}

type binaryExpr struct {
	op   string
	l, r expr
	line int
}

func (e *binaryExpr) eval(r *run, s *scope) any {
	a, b := e.l.eval(r, s), e.r.eval(r, s)
	r.line = e.line
	r.step(1)
	return r.binary(e.op, a, b)
}

type signExpr struct {
	op   string
	of   expr
	line int
}

func (e *signExpr) eval(r *run, s *scope) any {
	v := e.of.eval(r, s)
	r.line = e.line
	return r.sign(e.op, v)
}

type concatExpr struct {
	items []expr
	line  int
}

func (e *concatExpr) eval(r *run, s *scope) any {
	t := &text{r: r}
	for _, item := range e.items {
		v := item.eval(r, s)
		r.line = e.line
		t.add(r.str(v))
	}
	return string(t.b)
}

type tupleExpr struct {
	items []expr
	line  int
}

func (e *tupleExpr) eval(r *run, s *scope) any { return &tuple{items: r.evalAll(s, e.items)} }

type listExpr struct {
	items []expr
	line  int
}

func (e *listExpr) eval(r *run, s *scope) any { return &List{r.evalAll(s, e.items)} }

func (r *run) evalAll(s *scope, items []expr) []any {
	r.alloc(32*len(items) + 48)
	all := make([]any, len(items))
	for i, item := range items {
		all[i] = item.eval(r, s)
	}
	return all
}

type dictExpr struct {
	keys, values []expr
	line         int
}

func (e *dictExpr) eval(r *run, s *scope) any {
	d := NewDict()
	for i := range e.keys {
		k, v := e.keys[i].eval(r, s), e.values[i].eval(r, s)
		r.line = e.line
		r.put(d, k, v)
	}
	return d
}

type attrExpr struct {
	of   expr
	name string
	line int
}

func (e *attrExpr) eval(r *run, s *scope) any {
	v := e.of.eval(r, s)
	r.line = e.line
	r.step(1)
	return r.getAttr(v, e.name)
}

type itemExpr struct {
	of, index expr
	line      int
}

func (e *itemExpr) eval(r *run, s *scope) any {
	v, i := e.of.eval(r, s), e.index.eval(r, s)
	r.line = e.line
	r.step(1)
	return r.getItem(v, i)
}

type sliceExpr struct {
	of     expr
	bounds [3]expr
	line   int
}

func (e *sliceExpr) eval(r *run, s *scope) any {
	v := e.of.eval(r, s)
	var b [3]any
	for i, bound := range e.bounds {
		if bound != nil {
			b[i] = bound.eval(r, s)
		}
	}
	r.line = e.line
	return r.slice(v, b)
}

// argList are the arguments of a call as they are written.
type argList struct {
	pos              []expr
	names            []string
	named            []expr
	dynPos, dynNamed expr
}

func (a *argList) eval(r *run, s *scope) (out args) {
	if len(a.pos) > 0 {
		out.pos = r.evalAll(s, a.pos)
	}
	if a.dynPos != nil {
		out.pos = append(out.pos, r.elements(a.dynPos.eval(r, s), -1)...)
	}
	for i, e := range a.named {
		out.names, out.named = append(out.names, a.names[i]), append(out.named, e.eval(r, s))
	}
	if a.dynNamed == nil {
		return out
	}
	d, ok := a.dynNamed.eval(r, s).(*Dict)
	if !ok {
		r.fail("argument after ** must be a mapping")
	}
	if len(out.names)+len(d.entries) > maxNamed {
		r.fail("a call with more than %d named arguments", maxNamed)
	}
	for _, e := range d.entries {
		name, ok := plain(e.key)
		if !ok {
			r.fail("keywords must be strings")
		}
		if _, twice := out.take(name); twice {
			r.fail("got multiple values for keyword argument '%s'", name)
		}
		out.names, out.named = append(out.names, name), append(out.named, e.value)
	}
	return out
}

type callExpr struct {
	fn   expr
	args argList
	line int
}

func (e *callExpr) eval(r *run, s *scope) any {
	f := e.fn.eval(r, s)
	a := e.args.eval(r, s)
	r.line = e.line
	r.step(1)
	return r.invoke(f, a)
}

// invoke calls a value.
func (r *run) invoke(f any, a args) any {
	switch f := f.(type) {
	case *function:
		return f.call(r, a)
	case *macro:
		return f.call(r, a)
	case *loop:
		if f.recurse == nil {
			r.fail("the loop must have the 'recursive' marker to be called recursively")
		}
		return f.recurse(a.bind(r, "loop", 1, "iterable")[0])
	case *undefined:
		r.undefined(f)
	}
	r.fail("'%s' object is not callable", typeName(f))
	return nil
}

type filterExpr struct {
	of   expr
	name string
	args argList
	call filterFunc
	line int
}

func (e *filterExpr) eval(r *run, s *scope) any {
	v := e.of.eval(r, s)
	a := e.args.eval(r, s)
	r.line = e.line
	r.step(1)
	if e.call == nil {
		r.fail("%s", unknown("filter", e.name))
	}
	return e.call(r, v, a)
}

type testExpr struct {
	of   expr
	name string
	args argList
	call testFunc
	line int
}

func (e *testExpr) eval(r *run, s *scope) any {
	v := e.of.eval(r, s)
	a := e.args.eval(r, s)
	r.line = e.line
	r.step(1)
	if e.call == nil {
		r.fail("%s", unknown("test", e.name))
	}
	return e.call(r, v, a)
}

// args are the arguments of a call.
type args struct {
	pos   []any
	names []string
	named []any
}

// take removes a named argument.
func (a *args) take(name string) (any, bool) {
	for i, n := range a.names {
		if n == name {
			v := a.named[i]
			a.names = append(a.names[:i:i], a.names[i+1:]...)
			a.named = append(a.named[:i:i], a.named[i+1:]...)
			return v, true
		}
	}
	return nil, false
}

// missing is an argument that is not given.
type missingArg struct{}

var missing = missingArg{}

// bind gives the arguments in the order of names, of which the first required ones must be there; missing stands for
// others that are not.
func (a args) bind(r *run, what string, required int, names ...string) []any {
	if len(a.pos) > len(names) {
		r.fail("%s() takes at most %d arguments, got %d", what, len(names), len(a.pos))
	}
	out := make([]any, len(names))
	for i, name := range names {
		v, ok := a.take(name)
		switch {
		case ok && i < len(a.pos):
			r.fail("%s() got multiple values for argument '%s'", what, name)
		case ok:
			out[i] = v
		case i < len(a.pos):
			out[i] = a.pos[i]
		case i < required:
			r.fail("%s() is missing the argument '%s'", what, name)
		default:
			out[i] = missing
		}
	}
	if len(a.names) > 0 {
		r.fail("%s() got an unexpected keyword argument '%s'", what, a.names[0])
	}
	return out
}

// positional fails where a function of Python's that has no names for its arguments is given some.
func (a args) positional(r *run, what string) {
	if len(a.names) > 0 {
		r.fail("%s() takes no keyword arguments", what)
	}
}
