package cpu

import (
	"math"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
)

const (
	lineFloats = 16   // f32 in a cache line
	pageFloats = 1024 // f32 in a page: rows that many apart fall into the same cache sets
	rowStep    = 32   // memory grows by so many rows
)

var nan = float32(math.NaN())

// Buffer is a row-major f32 matrix whose rows lie ld apart.
type Buffer struct {
	kind           backend.Kind
	rows, cols, ld int
	v              []float32
	poison         bool // Resize fills with NaN: tests see what an operation forgets to write
}

// NewBuffer makes a buffer without rows.
func (be *Backend) NewBuffer(k backend.Kind, cols int) backend.Buffer {
	b := &Buffer{kind: k}
	b.shape(0, cols)
	return b
}

// BufferBytes is the memory of a buffer of so many rows.
func (be *Backend) BufferBytes(k backend.Kind, cols, rows int) int64 {
	return 4 * int64(wholeSteps(rows)) * int64(leading(k, cols))
}

// wholeSteps rounds up what memory grows by.
func wholeSteps(rows int) int { return (rows + rowStep - 1) / rowStep * rowStep }

// Kind is what the buffer was made for.
func (b *Buffer) Kind() backend.Kind { return b.kind }

// Rows is the number of rows.
func (b *Buffer) Rows() int { return b.rows }

// Cols is the number of columns.
func (b *Buffer) Cols() int { return b.cols }

// Bytes is the memory held.
func (b *Buffer) Bytes() int64 { return 4 * int64(cap(b.v)) }

// Resize sets the number of rows; the contents are undefined afterwards.
func (b *Buffer) Resize(rows int) {
	b.rows = rows
	if n := rows * b.ld; n <= cap(b.v) {
		b.v = b.v[:n]
	} else {
		b.v = floats(wholeSteps(rows) * b.ld)[:n]
	}
	if b.poison {
		for i := range b.v {
			b.v[i] = nan
		}
	}
}

// shape makes the buffer [rows, cols]: scratch serves operations of different widths. Where it must grow again it grows
// by a quarter more, since decoding asks for a little more with every token.
func (b *Buffer) shape(rows, cols int) {
	b.cols, b.ld = cols, leading(b.kind, cols)
	if n := rows * b.ld; n > cap(b.v) && cap(b.v) > 0 {
		b.v = floats(n + n/4)
	}
	b.Resize(rows)
}

// leading returns the distance of rows: whole cache lines, but not whole pages. Small matrices stay dense.
func leading(k backend.Kind, cols int) int {
	if k == backend.Stat {
		return cols
	}
	ld := (cols + lineFloats - 1) / lineFloats * lineFloats
	if ld%pageFloats == 0 {
		ld += lineFloats
	}
	return ld
}

// floats allocates n zeros that begin at a cache line, on huge pages where they are many and the system has some.
func floats(n int) []float32 {
	s := make([]float32, n+lineFloats-1)
	gemm.AdviseHuge(s)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(s)))%(4*lineFloats)) / 4
	return s[skip : skip+n : skip+n]
}

func (b *Buffer) row(t int) []float32 { return b.v[t*b.ld : t*b.ld+b.cols] }

// view makes b rows from..to-1 of x.
func (b *Buffer) view(x *Buffer, from, to int) {
	*b = Buffer{kind: x.kind, rows: to - from, cols: x.cols, ld: x.ld, v: x.v[from*x.ld : to*x.ld], poison: x.poison}
}

// Read copies the matrix out.
func (b *Buffer) Read(dst []float32) {
	mustEqual("values read from a buffer", len(dst), b.rows*b.cols)
	for t := range b.rows {
		copy(dst[t*b.cols:], b.row(t))
	}
}

// Write copies the matrix in.
func (b *Buffer) Write(src []float32) {
	mustEqual("values written to a buffer", len(src), b.rows*b.cols)
	for t := range b.rows {
		copy(b.row(t), src[t*b.cols:])
	}
}

// mat returns the buffer behind the interface; nil stays nil.
func mat(b backend.Buffer) *Buffer {
	if b == nil {
		return nil
	}
	return b.(*Buffer)
}
