package jinja

// flow is how a statement ends.
type flow uint8

const (
	flowNext flow = iota
	flowBreak
	flowContinue
)

type stmt interface {
	exec(r *run, s *scope) flow
}

// body runs statements.
func (r *run) body(s *scope, body []stmt) flow {
	for _, st := range body {
		r.step(1)
		if f := st.exec(r, s); f != flowNext {
			return f
		}
	}
	return flowNext
}

type data string

func (d data) exec(r *run, _ *scope) flow {
	r.write(string(d))
	return flowNext
}

// block is statements without variables of their own.
type block []stmt

func (b block) exec(r *run, s *scope) flow { return r.body(s, b) }

type output struct {
	value expr
	line  int
}

func (o *output) exec(r *run, s *scope) flow {
	v := o.value.eval(r, s)
	r.line = o.line
	r.write(r.str(v))
	return flowNext
}

type leave struct{ how flow }

func (l leave) exec(*run, *scope) flow { return l.how }

type ifElse struct {
	tests  []expr
	bodies [][]stmt
	orElse []stmt
}

func (i *ifElse) exec(r *run, s *scope) flow {
	for n, test := range i.tests {
		if r.truth(test.eval(r, s)) {
			return r.body(s, i.bodies[n])
		}
	}
	return r.body(s, i.orElse)
}

type assign struct {
	target, value expr
	line          int
}

func (a *assign) exec(r *run, s *scope) flow {
	v := a.value.eval(r, s)
	r.line = a.line
	r.assign(s, a.target, v)
	return flowNext
}

// attrTarget is an attribute of a namespace that is assigned to.
type attrTarget struct {
	name, attr string
	line       int
}

func (t *attrTarget) eval(*run, *scope) any { return nil } // never read

// assign gives a target a value, or the targets of a tuple the elements of the value.
func (r *run) assign(s *scope, target expr, v any) {
	switch t := target.(type) {
	case *nameExpr:
		s.set(t.name, v)
	case *attrTarget:
		ns, ok := r.lookup(s, t.name).(*namespace)
		if !ok {
			r.fail("cannot assign attribute on non-namespace object")
		}
		r.setAttr(ns, t.attr, v)
	case *tupleExpr:
		items := r.elements(v, len(t.items)+1)
		if len(items) < len(t.items) {
			r.fail("not enough values to unpack (expected %d, got %d)", len(t.items), len(items))
		}
		if len(items) > len(t.items) {
			r.fail("too many values to unpack (expected %d)", len(t.items))
		}
		for i, target := range t.items {
			r.assign(s, target, items[i])
		}
	}
}

// captured is the text of a block whose filters are evaluated.
type captured struct{}

const capturedName = "{captured}" // no name of the language

func (captured) eval(_ *run, s *scope) any {
	v, _ := s.get(capturedName)
	return v
}

// captureBody runs a body with variables of its own and applies filters to what it writes; a body that leaves the loop
// around it writes nothing.
func (r *run) captureBody(s *scope, body []stmt, f *frame, filters expr) (any, flow) {
	how := flowNext
	text := r.capture(func() { how = r.body(newScope(s, f), body) })
	if how != flowNext {
		return nil, how
	}
	return filters.eval(r, &scope{outer: s, frame: f, names: []string{capturedName}, values: []any{text}}), flowNext
}

type setBlock struct {
	target, value expr
	body          []stmt
	frame         *frame
	line          int
}

func (b *setBlock) exec(r *run, s *scope) flow {
	v, how := r.captureBody(s, b.body, b.frame, b.value)
	if how != flowNext {
		return how
	}
	r.line = b.line
	r.assign(s, b.target, v)
	return flowNext
}

type filterBlock struct {
	value expr
	body  []stmt
	frame *frame
	line  int
}

func (b *filterBlock) exec(r *run, s *scope) flow {
	v, how := r.captureBody(s, b.body, b.frame, b.value)
	if how != flowNext {
		return how
	}
	r.line = b.line
	r.write(r.str(v))
	return flowNext
}

type with struct {
	targets, values []expr
	body            []stmt
	frame           *frame
}

func (w *with) exec(r *run, s *scope) flow {
	inner := newScope(s, w.frame)
	for i, value := range w.values { // all in the outer variables
		r.assign(inner, w.targets[i], value.eval(r, s))
	}
	return r.body(inner, w.body)
}

// generation is a block whose text the model wrote.
type generation struct {
	body  []stmt
	frame *frame
}

func (g *generation) exec(r *run, s *scope) flow {
	start := len(r.root.b)
	direct := r.out == &r.root
	r.body(newScope(s, g.frame), g.body)
	if !direct {
		r.captured = true
	} else {
		r.generated = append(r.generated, [2]int{start, len(r.root.b)})
	}
	return flowNext
}

type forLoop struct {
	target       expr
	iter, test   expr
	body, orElse []stmt
	recursive    bool
	line         int

	frame, testFrame, elseFrame *frame
}

func (f *forLoop) exec(r *run, s *scope) flow {
	v := f.iter.eval(r, s)
	r.line = f.line
	return f.loop(r, s, v, 0)
}

// loop runs the body for each element. The flow is what an else does to a loop around this one.
func (f *forLoop) loop(r *run, s *scope, over any, depth int) flow {
	l := &loop{r: r, over: over, next: r.iterate(over), index: -1, depth: depth, nesting: r.over(over)}
	if f.test != nil {
		l.over, l.next = nil, f.filter(r, s, l.next)
	}
	if f.recursive {
		l.recurse = func(over any) any {
			return r.call("loop", func() any { return r.capture(func() { f.loop(r, s, over, l.depth+1) }) })
		}
	}
	inner := newScope(s, f.frame)
	message := r.message
	defer func() { r.message = message }()
	ended := false // one of the bodies came to its end
	for l.advance() {
		r.step(1)
		inner.reset()
		r.line = f.line
		r.assign(inner, f.target, l.current)
		inner.set("loop", l)
		r.enter(l.current, message)
		how := r.body(inner, f.body)
		if how == flowBreak {
			break
		}
		ended = ended || how == flowNext
	}
	r.message = message
	if !ended { // Jinja's else also follows bodies that were all left by break or continue
		return r.body(newScope(s, f.elseFrame), f.orElse)
	}
	return flowNext
}

// enter notes whose turn of a loop begins.
func (r *run) enter(v any, outer int) {
	r.message = outer
	if d, ok := v.(*Dict); ok {
		if i, ok := r.messages[d]; ok {
			r.message = i
		}
	}
}

// filter leaves the elements out that the loop's condition does not want.
func (f *forLoop) filter(r *run, s *scope, next func() (any, bool)) func() (any, bool) {
	inner := newScope(s, f.testFrame)
	return func() (any, bool) {
		for {
			v, ok := next()
			if !ok {
				return nil, false
			}
			r.step(1)
			inner.reset()
			r.assign(inner, f.target, v)
			if r.truth(f.test.eval(r, inner)) {
				return v, true
			}
		}
	}
}

// loop is the variable of that name.
type loop struct {
	r       *run
	over    any                // what may have a length
	next    func() (any, bool) // its elements
	index   int                // from 0
	depth   int                // of a recursive loop, from 0
	nesting int                // generators and loops that it reads through
	recurse func(over any) any

	before, current, after any
	peeked                 bool // after is the next element
	ended                  bool
	known                  bool // length is
	length                 int
	changed                *tuple // what it was last called with
}

func (l *loop) advance() bool {
	v, ok := l.peek()
	if !ok {
		return false
	}
	l.peeked, l.after = false, nil
	l.index++
	l.before, l.current = l.current, v
	return true
}

// peek returns the next element without going there.
func (l *loop) peek() (any, bool) {
	if l.peeked {
		return l.after, true
	}
	if l.ended {
		return nil, false
	}
	v, ok := l.next()
	l.after, l.peeked, l.ended = v, ok, !ok
	return v, ok
}

// len is how many elements there are; what has no length is read to its end.
func (l *loop) len() int {
	if l.known {
		return l.length
	}
	l.known = true
	if n, ok := l.r.length(l.over); ok {
		l.length = n
		return n
	}
	n := l.index + 1
	var rest []any
	if l.peeked {
		n++
	}
	for !l.ended {
		v, ok := l.next()
		if !ok {
			break
		}
		l.r.alloc(16)
		rest = append(rest, v)
	}
	if !l.ended {
		l.next = (&List{rest}).iterate()
	}
	l.length = n + len(rest)
	return l.length
}

type param struct {
	name string
	def  expr
}

type macroDef struct {
	name   string
	params []param
	body   []stmt
	reads  [len(specialNames)]bool
	frame  *frame
	line   int
}

func (m *macroDef) exec(r *run, s *scope) flow {
	s.set(m.name, &macro{m, s, m.name})
	return flowNext
}

// macro is a macro with the variables around it.
type macro struct {
	def   *macroDef
	scope *scope
	name  string // "" of a call block
}

// call binds the arguments as Jinja does and returns what the body writes.
func (m *macro) call(r *run, a args) any {
	inner := newScope(m.scope, m.def.frame)
	n := len(m.def.params)
	explicit := false
	for i, p := range m.def.params {
		explicit = explicit || p.name == "caller"
		v, ok := any(nil), i < len(a.pos)
		if ok {
			v = a.pos[i]
		} else {
			v, ok = a.take(p.name)
		}
		if !ok && p.def != nil {
			v = p.def.eval(r, inner)
		} else if !ok {
			v = &undefined{hint: "parameter '" + p.name + "' was not provided", name: p.name}
		}
		inner.set(p.name, v)
	}
	if m.def.reads[0] && !explicit {
		v, ok := a.take("caller")
		if !ok || v == nil {
			v = &undefined{hint: "No caller defined", name: "caller"}
		}
		inner.set("caller", v)
	}
	if m.def.reads[1] {
		d := NewDict()
		for i, name := range a.names {
			d.Set(name, a.named[i])
		}
		inner.set("kwargs", d)
	} else if len(a.names) > 0 {
		r.fail("macro '%s' takes no keyword argument '%s'", m.name, a.names[0])
	}
	if m.def.reads[2] {
		inner.set("varargs", &tuple{items: a.pos[min(n, len(a.pos)):]})
	} else if len(a.pos) > n {
		r.fail("macro '%s' takes not more than %d argument(s)", m.name, n)
	}
	return r.call("macro '"+m.name+"'", func() any {
		return r.capture(func() { r.body(inner, m.def.body) })
	})
}

type callBlock struct {
	call   *callExpr
	caller *macroDef
	line   int
}

func (c *callBlock) exec(r *run, s *scope) flow {
	f := c.call.fn.eval(r, s)
	a := c.call.args.eval(r, s)
	a.names, a.named = append(a.names, "caller"), append(a.named, &macro{c.caller, s, ""})
	r.line = c.line
	r.write(r.str(r.invoke(f, a)))
	return flowNext
}
