package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// values returns the float32 matrix that m stands for.
func values(t *testing.T, m backend.Matrix) backend.Matrix {
	t.Helper()
	q, err := quant.Open(m.Quant, m.Rows, m.Cols, m.Data)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, m.Rows*m.Cols)
	if err := q.Elements(v, 0); err != nil {
		t.Fatal(err)
	}
	var data []byte
	for _, x := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	return backend.Matrix{Name: "values", DType: numeric.F32, Rows: m.Rows, Cols: m.Cols, Data: data}
}

// TestQuantisedBits: a linear on a quantised weight is, to the bit, the linear on its values in f32, in both directions;
// and so is an embedding.
func TestQuantisedBits(t *testing.T) {
	for _, p := range paths() {
		t.Run(p.String(), func(t *testing.T) {
			be := p.open(t, 2)
			for _, f := range []quant.Format{quant.NF4, quant.Int8} {
				for _, s := range [][2]int{{96, 192}, {130, 320}, {30, 40}} {
					testQuantisedBits(t, be, f, s[0], s[1])
				}
			}
		})
	}
}

func testQuantisedBits(t *testing.T, be *Backend, f quant.Format, out, in int) {
	w := newWorld(be, false)
	const n = 19
	b := w.Rows(n)
	b.Dropout = nil
	m := backendtest.Quantise(f, out, in, w.Values(out*in, 0.05))
	x, dy := w.Filled(activation, n, in, 1), w.Filled(activation, n, out, 1)
	tokens := &backend.Batch{Tokens: []int32{0, int32(out - 1), 7}}
	var results [2][3][]float32
	for i, m := range []backend.Matrix{m, values(t, m)} {
		weight, err := be.NewWeight(m)
		if err != nil {
			t.Fatal(err)
		}
		ls := []*backend.Linear{{Name: m.Name, In: in, Out: out, Weight: weight}}
		y, dx, e := w.Buffer(activation, out), w.Buffer(activation, in), w.Buffer(residual, in)
		be.Linear(y, nil, x, nil, ls, b)
		be.LinearBackward(dx, nil, nil, dy, ls, b)
		be.Embed(e, &backend.Embedding{Vocab: out, Dim: in, Weight: weight}, tokens)
		results[i] = [3][]float32{read(y), read(dx), read(e)}
	}
	for i, what := range []string{"y", "dx", "embedding"} {
		wantSame(t, fmt.Sprintf("%v [%d, %d]: %s", f, out, in, what), results[0][i], results[1][i])
	}
}
