package cuda

import (
	"fmt"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/numeric"
)

// Buffer is a matrix on the card, row-major, bf16 or f32. A row begins at a multiple of 16 bytes: cublasLt and the
// kernels read vectors.
type Buffer struct {
	be         *Backend
	kind       backend.Kind
	half       bool // bf16
	rows, cols int
	ld         int // elements from a row to the next
	mem        memory
}

// NewBuffer makes an empty matrix: activations are of what is computed with, the others f32.
func (be *Backend) NewBuffer(k backend.Kind, cols int) backend.Buffer {
	return be.newBuffer(k, k == backend.Activation && be.half, cols)
}

func (be *Backend) newBuffer(k backend.Kind, half bool, cols int) *Buffer {
	return &Buffer{be: be, kind: k, half: half, cols: cols, ld: leading(cols)}
}

// leading is the columns that a row of cols takes.
func leading(cols int) int { return (cols + 7) / 8 * 8 }

func elementBytes(half bool) int64 {
	if half {
		return 2
	}
	return 4
}

// BufferBytes is what Bytes of a new buffer is after Resize(rows).
func (be *Backend) BufferBytes(k backend.Kind, cols, rows int) int64 {
	n := int64(rows) * int64(leading(cols)) * elementBytes(k == backend.Activation && be.half)
	return (n + 255) / 256 * 256
}

func (b *Buffer) Kind() backend.Kind { return b.kind }
func (b *Buffer) Rows() int          { return b.rows }
func (b *Buffer) Cols() int          { return b.cols }
func (b *Buffer) Bytes() int64       { return b.mem.bytes }

// Resize sets the number of rows.
func (b *Buffer) Resize(rows int) {
	b.rows = rows
	n := int64(rows) * int64(b.ld) * elementBytes(b.half)
	switch {
	case n > b.mem.bytes:
		defer b.be.enter()()
		b.be.grow(&b.mem, n)
	case b.be.poison && n > 0:
		defer b.be.enter()()
		check(b.be.ctx.Set(b.mem.at, 0xff, n, b.be.stream))
	}
}

// at is the address of column col of the first row.
func (b *Buffer) at(col int) driver.Ptr {
	return b.mem.at + driver.Ptr(int64(col)*elementBytes(b.half))
}

// Read copies the matrix out.
func (b *Buffer) Read(dst []float32) {
	mustEqual("values to read", len(dst), b.rows*b.cols)
	defer b.be.enter()()
	size := int(elementBytes(b.half))
	raw := make([]byte, b.rows*b.ld*size)
	b.be.fetch(raw, b.mem.at)
	for i := range b.rows {
		row := raw[i*b.ld*size:]
		for j := range b.cols {
			if b.half {
				dst[i*b.cols+j] = numeric.BF16ToF32(*(*uint16)(unsafe.Pointer(&row[2*j])))
			} else {
				dst[i*b.cols+j] = *(*float32)(unsafe.Pointer(&row[4*j]))
			}
		}
	}
}

// Write copies a matrix in; a bf16 one is rounded.
func (b *Buffer) Write(src []float32) {
	mustEqual("values to write", len(src), b.rows*b.cols)
	defer b.be.enter()()
	size := int(elementBytes(b.half))
	raw := make([]byte, b.rows*b.ld*size)
	for i := range b.rows {
		row := raw[i*b.ld*size:]
		for j := range b.cols {
			if b.half {
				*(*uint16)(unsafe.Pointer(&row[2*j])) = numeric.F32ToBF16(src[i*b.cols+j])
			} else {
				*(*float32)(unsafe.Pointer(&row[4*j])) = src[i*b.cols+j]
			}
		}
	}
	b.be.upload(b.mem.at, raw)
}

// mat is the buffer behind the interface; nil stays nil.
func mat(b backend.Buffer) *Buffer {
	if b == nil {
		return nil
	}
	return b.(*Buffer)
}

func mustEqual(what string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("cuda: %s: %d, want %d", what, got, want))
	}
}
