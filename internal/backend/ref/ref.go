// Package ref is the plain float64 backend: every operation as its formula says, any shape, one thread. It is what
// the other backends and the finite differences of the operations are tested against.
package ref

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// Backend is the oracle.
type Backend struct{}

var _ backend.Backend = (*Backend)(nil)

// New makes the oracle.
func New() *Backend { return &Backend{} }

// Name says that this is the oracle.
func (*Backend) Name() string { return "ref float64" }

// Close does nothing.
func (*Backend) Close() error { return nil }

// Reserve does nothing: the operations allocate as they go.
func (*Backend) Reserve(backend.Need) {}

// ScratchBytes is not counted.
func (*Backend) ScratchBytes(backend.Need) int64 { return 0 }

// ScratchHeld is not counted either.
func (*Backend) ScratchHeld() int64 { return 0 }

// Matrix is a float64 matrix, row-major: a buffer, a weight or a parameter's value.
type Matrix struct {
	kind       backend.Kind
	rows, cols int
	V          []float64
}

func (m *Matrix) Kind() backend.Kind      { return m.kind }
func (m *Matrix) Rows() int               { return m.rows }
func (m *Matrix) Cols() int               { return m.cols }
func (m *Matrix) Shape() (rows, cols int) { return m.rows, m.cols }
func (m *Matrix) Len() int                { return m.cols }
func (m *Matrix) Bytes() int64            { return int64(8 * cap(m.V)) }
func (m *Matrix) row(i int) []float64     { return m.V[i*m.cols : (i+1)*m.cols] }

// Resize keeps the memory where it suffices.
func (m *Matrix) Resize(rows int) {
	m.rows = rows
	n := rows * m.cols
	if cap(m.V) < n {
		m.V = make([]float64, n)
	}
	m.V = m.V[:n]
	for i := range m.V { // what an operation forgets to write must show
		m.V[i] = math.NaN()
	}
}

// Read copies the matrix out, rounded to float32.
func (m *Matrix) Read(dst []float32) {
	mustLen(len(dst), len(m.V))
	for i, v := range m.V {
		dst[i] = float32(v)
	}
}

// Write copies a float32 matrix in.
func (m *Matrix) Write(src []float32) {
	mustLen(len(src), len(m.V))
	for i, v := range src {
		m.V[i] = float64(v)
	}
}

func mustLen(got, want int) {
	if got != want {
		panic(fmt.Sprintf("ref: %d values given, the matrix has %d", got, want))
	}
}

func (*Backend) NewBuffer(k backend.Kind, cols int) backend.Buffer {
	return &Matrix{kind: k, cols: cols}
}

// BufferBytes is the memory of the matrix's elements.
func (*Backend) BufferBytes(_ backend.Kind, cols, rows int) int64 {
	return 8 * int64(rows) * int64(cols)
}

// NewWeight widens the matrix to float64.
func (*Backend) NewWeight(m backend.Matrix) (backend.Weight, error) {
	if m.Quant != quant.None {
		return newQuantised(m)
	}
	if want := m.Rows * m.Cols * m.DType.Size(); want != len(m.Data) || want == 0 {
		return nil, fmt.Errorf("%s: %d bytes for a %s matrix [%d, %d] of %d bytes", m.Name, len(m.Data), m.DType, m.Rows, m.Cols, want)
	}
	w := &Matrix{rows: m.Rows, cols: m.Cols, V: make([]float64, m.Rows*m.Cols)}
	for i := range w.V {
		switch m.DType {
		case numeric.F32:
			w.V[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(m.Data[4*i:])))
		case numeric.F16:
			w.V[i] = float64(numeric.F16ToF32(binary.LittleEndian.Uint16(m.Data[2*i:])))
		case numeric.BF16:
			w.V[i] = float64(numeric.BF16ToF32(binary.LittleEndian.Uint16(m.Data[2*i:])))
		default:
			return nil, fmt.Errorf("%s: cannot compute with %s", m.Name, m.DType)
		}
	}
	return w, nil
}

// newQuantised takes the float32 that the codes stand for.
func newQuantised(m backend.Matrix) (backend.Weight, error) {
	q, err := quant.Open(m.Quant, m.Rows, m.Cols, m.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	v := make([]float32, m.Rows*m.Cols)
	if err := q.Elements(v, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	w := &Matrix{rows: m.Rows, cols: m.Cols, V: make([]float64, len(v))}
	w.Write(v)
	return w, nil
}

func (*Backend) NewVector(v []float32) backend.Vector {
	m := &Matrix{rows: 1, cols: len(v), V: make([]float64, len(v))}
	m.Write(v)
	return m
}

// Param is a trainable matrix in float64, so that finite differences can be taken of it.
type Param struct {
	Matrix
	Grad []float64
	m, v []float64
}

func (*Backend) NewParam(rows, cols int) backend.Param {
	n := rows * cols
	return &Param{Matrix: Matrix{rows: rows, cols: cols, V: make([]float64, n)}, Grad: make([]float64, n),
		m: make([]float64, n), v: make([]float64, n)}
}

// ReadFrom copies a part of the value out.
func (p *Param) ReadFrom(dst []float32, from int) { copy32(dst, p.V[from:][:len(dst)]) }

// ReadGrad copies the gradient sum out.
func (p *Param) ReadGrad(dst []float32) { copy32(dst, p.Grad) }

// WriteGrad sets the gradient sum.
func (p *Param) WriteGrad(src []float32) {
	mustLen(len(src), len(p.Grad))
	for i, g := range src {
		p.Grad[i] = float64(g)
	}
}

// ClearMoments sets AdamW's moments to zeros.
func (p *Param) ClearMoments() {
	clear(p.m)
	clear(p.v)
}

// ReadMoments copies AdamW's moments out.
func (p *Param) ReadMoments(m, v []float32) { copy32(m, p.m); copy32(v, p.v) }

// WriteMoments sets AdamW's moments.
func (p *Param) WriteMoments(m, v []float32) {
	for i := range m {
		p.m[i], p.v[i] = float64(m[i]), float64(v[i])
	}
}

func copy32(dst []float32, src []float64) {
	mustLen(len(dst), len(src))
	for i, v := range src {
		dst[i] = float32(v)
	}
}

func mat(b backend.Buffer) *Matrix { return b.(*Matrix) }

// linearWeight returns the values [Out, In] that a linear multiplies with.
func linearWeight(l *backend.Linear) *Matrix {
	if l.Train != nil {
		return &l.Train.(*Param).Matrix
	}
	return l.Weight.(*Matrix)
}

func (*Backend) ZeroGrad(ps []backend.Param) {
	for _, p := range ps {
		clear(p.(*Param).Grad)
	}
}

func (*Backend) ScaleGrad(ps []backend.Param, f float64) {
	for _, p := range ps {
		for i := range p.(*Param).Grad {
			p.(*Param).Grad[i] *= f
		}
	}
}

func (*Backend) SumSquares(ps []backend.Param) float64 {
	var s float64
	for _, p := range ps {
		for _, g := range p.(*Param).Grad {
			s += g * g
		}
	}
	return s
}

func (*Backend) AdamW(ps []backend.Param, o backend.AdamW) {
	c1 := 1 - math.Pow(o.Beta1, float64(o.Step))
	c2 := math.Sqrt(1 - math.Pow(o.Beta2, float64(o.Step)))
	for _, q := range ps {
		p := q.(*Param)
		for i, g := range p.Grad {
			p.V[i] *= 1 - o.LR*o.WeightDecay
			p.m[i] += (1 - o.Beta1) * (g - p.m[i])
			p.v[i] = o.Beta2*p.v[i] + (1-o.Beta2)*g*g
			p.V[i] -= o.LR / c1 * p.m[i] / (math.Sqrt(p.v[i])/c2 + o.Eps)
		}
	}
}

// sum is a float64.
type sum float64

func (*Backend) NewSum() backend.Sum { return new(sum) }

func (s *sum) Read() float64 { return float64(*s) }
func (s *sum) Zero()         { *s = 0 }
