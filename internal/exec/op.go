package exec

import (
	"fmt"
	"hash"
	"sync/atomic"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/biolora/biolora/internal/backend"
)

// Op is a gorgonia operation that writes into buffers it is given. Its Do, for gorgonia's own machines, is
// exec.Do.
type Op interface {
	gorgonia.Op
	// Outputs describes the buffers of the output value, the matrix first.
	Outputs() []Spec
	// Run computes out from in. A buffer of out is nil where nobody reads it and the operation said that it can do
	// without (see Optional).
	Run(out *Value, in []*Value) error
	// own is where Base keeps the value that Do writes to.
	own() *Value
}

// Reader is an operation that does not read all buffers of its inputs; what nobody reads later is not kept.
type Reader interface {
	// Reads reports whether buffer buf of input in is read.
	Reads(in, buf int) bool
}

// Cheap is an operation whose matrix is cheaper to compute again than to keep: one pass over memory that is kept
// anyway, no product. Where the backward pass reads it, it is computed again just before.
type Cheap interface {
	// Again writes the matrix to out, to the bit what Run wrote. It reads no input, or buffer of out's others, but
	// those that AgainReads names; what it writes to the others of out is what they hold.
	Again(out *Value, in []*Value) error
	// AgainReads reports whether Again reads buffer buf of input in; in -1 is the output.
	AgainReads(in, buf int) bool
}

// Effector is an operation that does more than to write its output: it adds to gradients.
type Effector interface {
	Effects() bool
}

// Optional is an operation that can do without its matrix: Run is then given a nil buffer.
type Optional interface {
	OutputOptional() bool
}

// Trainer is an operation that holds something to be trained: Backprop goes through it even where no input of
// the graph wants a gradient.
type Trainer interface {
	Trains() bool
}

// Adder is a differentiable operation whose backward operation can add to the gradient that its input has from
// elsewhere, in the same pass over memory.
type Adder interface {
	// SymDiffAdd is SymDiff for an operation of one differentiable input, whose other gradient is add.
	SymDiffAdd(in gorgonia.Nodes, out, grad, add *gorgonia.Node) (*gorgonia.Node, error)
}

// Picker is an operation whose output is buffer Pick() of its only input, shared, not copied.
type Picker interface {
	Pick() int
}

var nextID atomic.Uint64

// Base is what every operation embeds: all of gorgonia.Op but Do. Each instance has an identity of its own, since
// gorgonia merges operations of equal hash and inputs even where their weights differ.
type Base struct {
	id    uint64
	name  string
	arity int
	specs []Spec
	be    backend.Backend
	out   *Value
}

// NewBase describes an operation of arity inputs whose output has the given buffers.
func NewBase(be backend.Backend, name string, arity int, specs ...Spec) Base {
	return Base{id: nextID.Add(1), name: name, arity: arity, specs: specs, be: be}
}

func (b *Base) Outputs() []Spec      { return b.specs }
func (b *Base) Arity() int           { return b.arity }
func (b *Base) ReturnsPtr() bool     { return true }
func (b *Base) CallsExtern() bool    { return false }
func (b *Base) OverwritesInput() int { return -1 }
func (b *Base) String() string       { return b.name }

// Type is matrix -> ... -> matrix.
func (b *Base) Type() hm.Type {
	ts := make([]hm.Type, b.arity+1)
	for i := range ts {
		ts[i] = matrixType
	}
	return hm.NewFnType(ts...)
}

// InferShape is one row (a run-time number) of the matrix's columns.
func (b *Base) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	if len(b.specs) == 0 {
		return tensor.Shape{1, 1}, nil
	}
	return tensor.Shape{1, b.specs[0].Cols}, nil
}

func (b *Base) WriteHash(h hash.Hash) { fmt.Fprintf(h, "%s#%d", b.name, b.id) }

// Hashcode mixes the identity so that the 32 bits that gorgonia compares differ between any two operations of a
// program: multiplication by an odd number is a bijection of 32 bits.
func (b *Base) Hashcode() uint32 { return uint32(b.id) * 0x9E3779B1 }

func (b *Base) own() *Value {
	if b.out == nil {
		b.out = NewValue(b.be, b.specs)
	}
	return b.out
}

// Do is the Do of every operation: it runs o into a value that o keeps.
func Do(o Op, inputs []gorgonia.Value) (gorgonia.Value, error) {
	in := make([]*Value, len(inputs))
	for i, v := range inputs {
		ev, ok := v.(*Value)
		if !ok {
			return nil, fmt.Errorf("%v: input %d is a %T", o, i, v)
		}
		in[i] = ev
	}
	if p, ok := o.(Picker); ok {
		return &Value{Bufs: in[0].Bufs[p.Pick() : p.Pick()+1]}, nil
	}
	out := o.own()
	return out, o.Run(out, in)
}

// Pick is the operation that makes buffer i of a value a matrix of its own.
type Pick struct {
	Base
	i int
}

// NewPick picks buffer i, which has the given spec.
func NewPick(be backend.Backend, i int, s Spec) *Pick {
	return &Pick{NewBase(be, fmt.Sprintf("pick %d", i), 1, s), i}
}

func (p *Pick) Pick() int                                       { return p.i }
func (p *Pick) Reads(_, buf int) bool                           { return buf == p.i }
func (p *Pick) Do(in ...gorgonia.Value) (gorgonia.Value, error) { return Do(p, in) }
func (p *Pick) Run(*Value, []*Value) error                      { return nil }

// hashes reports two operations of g that gorgonia's compiler could not tell apart.
func hashes(ns gorgonia.Nodes) error {
	seen := map[uint32]*gorgonia.Node{}
	for _, n := range ns {
		if n.Op() == nil {
			continue
		}
		h := n.Op().Hashcode()
		if other := seen[h]; other != nil && other.Op() != n.Op() {
			return fmt.Errorf("operations %v and %v share the hash %#x", other.Op(), n.Op(), h)
		}
		seen[h] = n
	}
	return nil
}
