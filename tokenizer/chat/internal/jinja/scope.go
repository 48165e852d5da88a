package jinja

// frame is what Jinja's compiler knows of the names in a body with variables of its own. One rule of it shows: a name
// that a body first of all assigns to, unconditionally, and that no body around it mentions, is the body's own from its
// beginning. What reads it before the assignment, in a loop or macro within, finds nothing, whatever the variables of the
// rendering have under that name.
type frame struct {
	outer    *frame
	names    map[string]bool // true for those that are first assigned to
	branches int             // ifs around what is read
	own      []string        // decided once all is read
}

// mentions notes that a name is read, or is an argument.
func (f *frame) mentions(name string) {
	if !f.knows(name) {
		f.names[name] = false
	}
}

// assigns notes that a name is assigned to.
func (f *frame) assigns(name string) {
	if _, ok := f.names[name]; !ok {
		f.names[name] = f.branches == 0
	}
}

// knows reports whether the body or one around it mentions a name.
func (f *frame) knows(name string) bool {
	for ; f != nil; f = f.outer {
		if _, ok := f.names[name]; ok {
			return true
		}
	}
	return false
}

func (f *frame) decide() {
	for name, first := range f.names {
		if first && !f.outer.knows(name) {
			f.own = append(f.own, name)
		}
	}
	f.names = nil
}

// newFrame returns the frame of a body within the one that is read.
func (p *parser) newFrame() *frame {
	f := &frame{outer: p.frame, names: map[string]bool{}}
	p.frames = append(p.frames, f)
	return f
}

// within reads something as part of a body.
func (p *parser) within(f *frame, read func()) {
	outer := p.frame
	p.frame = f
	defer func() { p.frame = outer }()
	read()
}

// store notes what a target assigns.
func (p *parser) store(target expr) {
	switch t := target.(type) {
	case *nameExpr:
		p.frame.assigns(t.name)
	case *attrTarget:
		p.frame.mentions(t.name)
	case *tupleExpr:
		for _, item := range t.items {
			p.store(item)
		}
	}
}

// scope holds the variables of a body while it runs.
type scope struct {
	outer  *scope
	frame  *frame
	names  []string
	values []any
	index  map[string]int // once there are many
}

const namesIndexedFrom = 17

func newScope(outer *scope, f *frame) *scope {
	s := &scope{outer: outer, frame: f}
	s.reset()
	return s
}

// reset forgets all variables.
func (s *scope) reset() {
	s.names, s.values = s.names[:0], s.values[:0]
	clear(s.index)
	for _, name := range s.frame.own {
		s.set(name, &undefined{name: name})
	}
}

func (s *scope) get(name string) (any, bool) {
	for ; s != nil; s = s.outer {
		if i := s.find(name); i >= 0 {
			return s.values[i], true
		}
	}
	return nil, false
}

// find returns the place of a name in this scope, or -1.
func (s *scope) find(name string) int {
	if s.index != nil {
		if i, ok := s.index[name]; ok {
			return i
		}
		return -1
	}
	for i, n := range s.names {
		if n == name {
			return i
		}
	}
	return -1
}

func (s *scope) set(name string, v any) {
	if i := s.find(name); i >= 0 {
		s.values[i] = v
		return
	}
	s.names, s.values = append(s.names, name), append(s.values, v)
	switch {
	case s.index != nil:
		s.index[name] = len(s.names) - 1
	case len(s.names) == namesIndexedFrom:
		s.index = make(map[string]int, 2*namesIndexedFrom)
		for i, n := range s.names {
			s.index[n] = i
		}
	}
}
