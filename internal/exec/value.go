package exec

import (
	"fmt"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/biolora/biolora/internal/backend"
)

// Spec describes a buffer that an operation writes.
type Spec struct {
	Kind backend.Kind
	Cols int
}

// Value is what flows along an edge of a graph: a matrix, and beside it what else the operation leaves for its
// backward pass. To gorgonia it is a matrix of float32 whose contents are out of reach: printing it is safe
// wherever the memory lies.
type Value struct {
	Bufs []backend.Buffer // the matrix first; may be empty
}

var _ gorgonia.Value = (*Value)(nil)

// NewValue makes a value with buffers of its own.
func NewValue(be backend.Backend, specs []Spec) *Value {
	v := &Value{Bufs: make([]backend.Buffer, len(specs))}
	for i, s := range specs {
		v.Bufs[i] = be.NewBuffer(s.Kind, s.Cols)
	}
	return v
}

// Main returns the matrix, nil if there is none.
func (v *Value) Main() backend.Buffer {
	if len(v.Bufs) == 0 {
		return nil
	}
	return v.Bufs[0]
}

// Shape is what the graph was told, [1, columns]: rows are a run-time number that gorgonia does not know.
func (v *Value) Shape() tensor.Shape {
	if v.Main() == nil {
		return tensor.Shape{1, 1}
	}
	return tensor.Shape{1, v.Main().Cols()}
}

// Size is the number of elements of Shape.
func (v *Value) Size() int { return v.Shape().TotalSize() }

// Data returns the value itself: the elements are read with Buffer.Read.
func (v *Value) Data() any { return v }

// Dtype is float32.
func (v *Value) Dtype() tensor.Dtype { return tensor.Float32 }

// Type is the type of every node.
func (v *Value) Type() hm.Type { return matrixType }

// Uintptr is 0: there is no host memory to point to.
func (v *Value) Uintptr() uintptr { return 0 }

// MemSize is the bytes of all buffers.
func (v *Value) MemSize() uintptr { return uintptr(v.Bytes()) }

// Bytes is the memory of all buffers.
func (v *Value) Bytes() (n int64) {
	for _, b := range v.Bufs {
		if b != nil {
			n += b.Bytes()
		}
	}
	return n
}

// Format prints the size of the matrix only.
func (v *Value) Format(s fmt.State, _ rune) {
	if v.Main() == nil {
		fmt.Fprint(s, "no matrix")
		return
	}
	fmt.Fprintf(s, "matrix [%d, %d]", v.Main().Rows(), v.Main().Cols())
}

var matrixType = gorgonia.TensorType{Dims: 2, Of: tensor.Float32}

// Input adds an input node of the given columns to g. Rows are a run-time number; the graph is told 1.
func Input(g *gorgonia.ExprGraph, name string, cols int) *gorgonia.Node {
	return gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(1, max(1, cols)), gorgonia.WithName(name))
}
