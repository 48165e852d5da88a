// Package op is the decoder's operations as operations of gorgonia, each in a file with its derivative and a
// finite-difference test beside it. They say what depends on what and call the backend; what a layer's weights are
// they learn from a Slot when they run, so that one graph serves all layers.
package op

import (
	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
)

// Env is what the operations of a decoder share: the device, and the micro-batch they run on.
type Env struct {
	Backend backend.Backend
	Batch   *backend.Batch
	Sum     backend.Sum // where the losses go
	Blocks  *exec.Arena // where the blocks' graphs have their registers; nil: each in its own
	Turn    int         // which of the micro-batches that pass through the layers together Batch is
	// Weights is told which layer is going to work; when it returns, the layer's weights are in memory. nil: nobody
	// needs to know.
	Weights func(layer int) error
}

// Dims are the sizes of a decoder block.
type Dims struct {
	Hidden, Intermediate int
	Eps                  float32
	Attention            backend.Attention
}

// Layer is the weights of one block.
type Layer struct {
	Index     int
	InputNorm backend.Vector
	PostNorm  backend.Vector
	QKV       []*backend.Linear // q, k, v
	O         []*backend.Linear // one
	Gate, Up  *backend.Linear
	Down      []*backend.Linear // one
	Cache     backend.Cache     // while generating
}

// Linears returns the projections in the order of the layer.
func (l *Layer) Linears() []*backend.Linear {
	return append(append(append([]*backend.Linear{}, l.QKV...), l.O[0], l.Gate, l.Up), l.Down...)
}

// Slot is where the operations of a block find the layer they run for.
type Slot struct{ *Layer }

// trains reports whether any of ls leaves a gradient.
func trains(ls []*backend.Linear) bool {
	for _, l := range ls {
		if l.Trains() {
			return true
		}
	}
	return false
}

// ranks is the sum of the ranks of ls.
func ranks(ls []*backend.Linear) (n int) {
	for _, l := range ls {
		n += l.R()
	}
	return n
}

func act(cols int) exec.Spec      { return exec.Spec{Kind: backend.Activation, Cols: cols} }
func residual(cols int) exec.Spec { return exec.Spec{Kind: backend.Residual, Cols: cols} }
func stat(cols int) exec.Spec     { return exec.Spec{Kind: backend.Stat, Cols: cols} }

// buf returns buffer i of v, nil where it has none.
func buf(v *exec.Value, i int) backend.Buffer {
	if i >= len(v.Bufs) {
		return nil
	}
	return v.Bufs[i]
}

func apply(op gorgonia.Op, in ...*gorgonia.Node) (*gorgonia.Node, error) {
	return gorgonia.ApplyOp(op, in...)
}

// firstOnly differentiates with respect to the first of n inputs.
func firstOnly(n int) []bool {
	wrt := make([]bool, n)
	wrt[0] = true
	return wrt
}
