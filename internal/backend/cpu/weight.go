package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// weight is a frozen matrix whose bytes stay where they are.
type weight struct{ gemm.Weight }

// Shape is [rows, cols].
func (w *weight) Shape() (rows, cols int) { return w.Rows, w.Cols }

// NewWeight takes an F32, F16, BF16 or quantised matrix as it lies in memory. Products multiply with a quantised
// matrix's values, rounded as those of F32 are.
func (be *Backend) NewWeight(m backend.Matrix) (backend.Weight, error) {
	if m.Quant != quant.None {
		return newQuantised(m)
	}
	switch m.DType {
	case numeric.F32, numeric.F16, numeric.BF16:
	default:
		return nil, fmt.Errorf("%s: cannot compute with %s, want F32, F16 or BF16", m.Name, m.DType)
	}
	if m.Rows <= 0 || m.Cols <= 0 {
		return nil, fmt.Errorf("%s: a matrix [%d, %d], want at least one row and column", m.Name, m.Rows, m.Cols)
	}
	size := m.DType.Size()
	if m.Rows > math.MaxInt/size/m.Cols || len(m.Data) != m.Rows*m.Cols*size {
		return nil, fmt.Errorf("%s: %d bytes for a %s matrix [%d, %d] of %d-byte elements", m.Name, len(m.Data), m.DType, m.Rows, m.Cols, size)
	}
	return &weight{gemm.Weight{DType: m.DType, Rows: m.Rows, Cols: m.Cols, Data: m.Data}}, nil
}

func newQuantised(m backend.Matrix) (backend.Weight, error) {
	if m.DType != numeric.Invalid {
		return nil, fmt.Errorf("%s: a matrix in %s that has elements of %s as well", m.Name, m.Quant, m.DType)
	}
	q, err := quant.Open(m.Quant, m.Rows, m.Cols, m.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	return &weight{gemm.Weight{Rows: m.Rows, Cols: m.Cols, Quant: q}}, nil
}

// decode writes row i as f32.
func decode(dst []float32, w *gemm.Weight, i int) {
	if w.Quant != nil {
		if err := w.Quant.Elements(dst, i*w.Cols); err != nil {
			panic(fmt.Sprintf("cpu: row %d: %v", i, err))
		}
		return
	}
	size := w.DType.Size()
	data := w.Data[i*w.Cols*size : (i+1)*w.Cols*size]
	switch w.DType {
	case numeric.F32:
		for j := range dst {
			dst[j] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*j:]))
		}
	case numeric.F16:
		for j := range dst {
			dst[j] = numeric.F16ToF32(binary.LittleEndian.Uint16(data[2*j:]))
		}
	case numeric.BF16:
		for j := range dst {
			dst[j] = numeric.BF16ToF32(binary.LittleEndian.Uint16(data[2*j:]))
		}
	}
}

// vector is a frozen vector.
type vector []float32

// Len is the number of elements.
func (v vector) Len() int { return len(v) }

// NewVector copies v.
func (be *Backend) NewVector(v []float32) backend.Vector { return vector(slices.Clone(v)) }

// Param is a trainable matrix: value, gradient and moments, each dense and row-major.
type Param struct {
	rows, cols        int
	value, grad, m, v []float32
	matrix            gemm.Weight // the value, for products
}

// NewParam makes a matrix of zeros. Its moments come with the first step of AdamW.
func (be *Backend) NewParam(rows, cols int) backend.Param {
	n := rows * cols
	p := &Param{rows: rows, cols: cols, value: floats(n), grad: floats(n)}
	p.matrix = gemm.Weight{DType: numeric.F32, Rows: rows, Cols: cols, Data: bytesOf(p.value)}
	return p
}

// bytesOf returns the memory of v.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// Shape is [rows, cols].
func (p *Param) Shape() (rows, cols int) { return p.rows, p.cols }

// Bytes is the memory held.
func (p *Param) Bytes() int64 {
	return 4 * int64(len(p.value)+len(p.grad)+len(p.m)+len(p.v))
}

// Read copies the value out.
func (p *Param) Read(dst []float32) { copyAll(dst, p.value) }

// ReadFrom copies a part of the value out.
func (p *Param) ReadFrom(dst []float32, from int) { copyAll(dst, p.value[from:][:len(dst)]) }

// Write copies the value in.
func (p *Param) Write(src []float32) { copyAll(p.value, src) }

// ReadGrad copies the gradient sum out.
func (p *Param) ReadGrad(dst []float32) { copyAll(dst, p.grad) }

// WriteGrad sets the gradient sum.
func (p *Param) WriteGrad(src []float32) { copyAll(p.grad, src) }

// ReadMoments copies AdamW's moments out, zeros before the first step.
func (p *Param) ReadMoments(m, v []float32) {
	if p.m == nil {
		mustEqual("values of m", len(m), len(p.value))
		mustEqual("values of v", len(v), len(p.value))
		clear(m)
		clear(v)
		return
	}
	copyAll(m, p.m)
	copyAll(v, p.v)
}

// WriteMoments sets AdamW's moments.
func (p *Param) WriteMoments(m, v []float32) {
	p.needMoments()
	copyAll(p.m, m)
	copyAll(p.v, v)
}

// ClearMoments sets AdamW's moments to zeros, where there are any.
func (p *Param) ClearMoments() {
	clear(p.m)
	clear(p.v)
}

func (p *Param) needMoments() {
	if p.m == nil {
		p.m, p.v = floats(len(p.value)), floats(len(p.value))
	}
}

func copyAll(dst, src []float32) {
	mustEqual("values of a parameter", len(dst), len(src))
	copy(dst, src)
}

func param(p backend.Param) *Param { return p.(*Param) }

// matrixOf returns what products multiply with: the trained value, or the frozen weight.
func matrixOf(train backend.Param, w backend.Weight) *gemm.Weight {
	if train != nil {
		return &param(train).matrix
	}
	return &w.(*weight).Weight
}
