// Package jinja runs the part of the Jinja2 language that chat templates are written in, with Python's values and the
// immutable sandbox in which Transformers runs it: nothing is read, nothing of the host is reached, and a template from
// a stranger ends within stated limits of time, depth and memory.
//
// The reference is Jinja2 3.1.6 with trim_blocks, lstrip_blocks and loop controls, autoescape off, and what Transformers
// 5 adds (tojson, raise_exception, strftime_now, the generation block). What a template of it may use that is not here
// is refused by name.
package jinja

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// MaxSource is the largest template in bytes; the largest in use have about 30,000.
const MaxSource = 1 << 20

// The limits of one rendering. In is the size of what it is given: source and variables.
const (
	textLimit  = 16 << 20 // bytes of the output or of any string, plus textFactor times In
	textFactor = 4
	allocTimes = 8       // bytes of all values made in one rendering, as a multiple of the limit of a text
	stepLimit  = 2 << 20 // evaluations, plus stepFactor times In
	stepFactor = 8
	callDepth  = 200     // macros within macros
	valueDepth = 500     // lists within lists, generators over generators
	maxNamed   = 1000    // named arguments of a call, and those a macro takes
	bigBits    = 1 << 17 // of an integer
	maxDigits  = 4300    // of an integer that is written or read, as in Python
	maxRange   = 100_000 // elements of range(), as in Jinja's sandbox
)

// Error is what is wrong in a template, or with a rendering of it.
type Error struct {
	Line int // of the template, from 1
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// Errors are all syntax errors of a template, in its order.
type Errors []*Error

func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Raised is what a template refuses by raise_exception.
type Raised struct {
	Line    int
	Message string
}

func (e *Raised) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// Template is a parsed template. It may be used by several goroutines at once.
type Template struct {
	body   []stmt
	frame  *frame
	size   int
	blocks bool
}

// Generation reports whether the template has generation blocks.
func (t *Template) Generation() bool { return t.blocks }

// Input is what a template is rendered with.
type Input struct {
	Variables map[string]any // values as FromJSON and FromGo return them
	Size      int            // bytes of the variables; the limits grow with it
	Now       time.Time      // what strftime_now tells
	Messages  []*Dict        // those whose loops Output.Parts tells
}

// Output is a rendering.
type Output struct {
	Text string
	// Parts tell whose text is written where: each begins at a byte and ends where the next one begins.
	Parts []Part
	// Generated are the ranges of bytes that generation blocks wrote.
	Generated [][2]int
	// Captured tells that a generation block wrote into a macro or a variable, whose place in Text is not known.
	Captured bool
}

// Part is the beginning of a text written within a loop over messages.
type Part struct {
	Start   int
	Message int // index in Input.Messages, -1 outside of loops over them
}

// Render runs the template. An error is an *Error, a *Raised, or ctx's.
func (t *Template) Render(ctx context.Context, in Input) (out Output, err error) {
	size := in.Size + t.size
	r := &run{
		ctx: ctx, vars: in.Variables, now: in.Now, line: 1, message: -1,
		maxText: textLimit + textFactor*size, maxSteps: stepLimit + stepFactor*size,
	}
	r.steps = r.maxSteps
	r.allocs = allocTimes * r.maxText
	r.root.r = r
	r.out = &r.root
	if len(in.Messages) > 0 {
		r.messages = make(map[*Dict]int, len(in.Messages))
		for i, m := range in.Messages {
			r.messages[m] = i
		}
	}
	defer func() {
		if p := recover(); p != nil {
			out, err = Output{}, asError(p, r.line)
		}
	}()
	r.check()
	r.body(newScope(nil, t.frame), t.body)
	return Output{string(r.root.b), r.parts, r.generated, r.captured}, nil
}

// asError is the error that a panic carries; a fault of this package is one as well, so that none crosses its border.
func asError(p any, line int) error {
	switch p := p.(type) {
	case *Error:
		return p
	case *Raised:
		return p
	case cancelled:
		return p.err
	case runtime.Error:
		return &Error{line, "internal error: " + p.Error()}
	}
	return &Error{line, fmt.Sprint("internal error: ", p)}
}

type cancelled struct{ err error }

// run is the state of one rendering.
type run struct {
	ctx      context.Context
	vars     map[string]any
	now      time.Time
	line     int // of what is evaluated
	steps    int // left
	allocs   int // bytes left
	maxSteps int
	maxText  int
	calls    int // macros that are open
	root     text
	out      *text // where output goes: root or what is captured

	messages  map[*Dict]int
	message   int // whose loop is running
	parts     []Part
	generated [][2]int
	captured  bool
}

// fail ends the rendering.
func (r *run) fail(format string, args ...any) {
	panic(&Error{r.line, fmt.Sprintf(format, args...)})
}

// step takes n from the budget of steps.
func (r *run) step(n int) {
	before := r.steps
	r.steps -= n
	if r.steps < 0 {
		r.fail("the template does not come to an end: it is stopped after %d steps", r.maxSteps)
	}
	if before>>10 != r.steps>>10 {
		r.check()
	}
}

func (r *run) check() {
	if err := r.ctx.Err(); err != nil {
		panic(cancelled{err})
	}
}

// alloc takes n bytes from the budget of memory, before they are made.
func (r *run) alloc(n int) {
	if n < 0 || n > r.allocs {
		r.fail("the template makes too many values: more than %d bytes in one rendering", allocTimes*r.maxText)
	}
	r.allocs -= n
}

// allocText is alloc for a string of n bytes.
func (r *run) allocText(n int) {
	if n < 0 || n > r.maxText {
		r.fail("the template makes a text of %d bytes, more than the limit of %d", n, r.maxText)
	}
	r.alloc(n)
	r.step(n >> 8)
}

// text is a string that is being made.
type text struct {
	r *run
	b []byte
}

func (t *text) add(s string) {
	if len(s) > t.r.maxText-len(t.b) {
		t.r.fail("the template makes a text of more than %d bytes", t.r.maxText)
	}
	t.r.alloc(len(s))
	t.b = append(t.b, s...)
}

func (t *text) addByte(c byte) {
	if len(t.b) >= t.r.maxText {
		t.r.fail("the template makes a text of more than %d bytes", t.r.maxText)
	}
	t.r.alloc(1)
	t.b = append(t.b, c)
}

// pad adds s n times.
func (t *text) pad(s string, n int) {
	if n <= 0 || s == "" {
		return
	}
	if n > (t.r.maxText-len(t.b))/len(s) {
		t.r.fail("the template makes a text of more than %d bytes", t.r.maxText)
	}
	t.r.alloc(n * len(s))
	for range n {
		t.b = append(t.b, s...)
	}
}

// write puts output out.
func (r *run) write(s string) {
	if s == "" {
		return
	}
	if r.out == &r.root && (len(r.parts) == 0 || r.parts[len(r.parts)-1].Message != r.message) {
		r.parts = append(r.parts, Part{len(r.root.b), r.message})
	}
	r.out.add(s)
}

// capture returns what f writes.
func (r *run) capture(f func()) string {
	t := &text{r: r}
	outer := r.out
	r.out = t
	f()
	r.out = outer
	return string(t.b)
}

// call runs f one macro deeper.
func (r *run) call(what string, f func() any) any {
	if r.calls++; r.calls > callDepth {
		r.fail("%s: calls are nested deeper than %d", what, callDepth)
	}
	v := f()
	r.calls--
	return v
}
