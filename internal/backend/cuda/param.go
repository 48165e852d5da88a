package cuda

import (
	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// param is a trainable matrix: value, gradient sum and moments in f32, row-major, each row ld elements apart as a
// buffer's. What lies between the columns and ld is 0 in all of them, so that the optimiser takes them as flat.
type param struct {
	be             *Backend
	rows, cols, ld int
	value, grad    memory
	m, v           memory // AdamW's moments; nothing before the first step
	shadow         memory // the value in bf16, where products have asked for it
	stale          bool   // the value has changed since the shadow was made
}

// NewParam makes a matrix of zeros.
func (be *Backend) NewParam(rows, cols int) backend.Param {
	defer be.enter()()
	p := &param{be: be, rows: rows, cols: cols, ld: leading(cols), stale: true}
	be.growZeros(&p.value, p.bytes())
	be.growZeros(&p.grad, p.bytes())
	return p
}

// growZeros makes m hold n bytes, all 0, unless it does so already.
func (be *Backend) growZeros(m *memory, n int64) {
	if n <= m.bytes {
		return
	}
	be.grow(m, n)
	be.zero(m.at, m.bytes)
}

// zero clears n bytes.
func (be *Backend) zero(at driver.Ptr, n int64) {
	if n > 0 {
		check(be.ctx.Set(at, 0, n, be.stream))
	}
}

// elements is the number of elements of the value, those between the rows too.
func (p *param) elements() int64 { return int64(p.rows) * int64(p.ld) }

func (p *param) bytes() int64 { return 4 * p.elements() }

// Shape is [rows, cols].
func (p *param) Shape() (rows, cols int) { return p.rows, p.cols }

// Bytes is the memory held.
func (p *param) Bytes() int64 {
	return p.value.bytes + p.grad.bytes + p.m.bytes + p.v.bytes + p.shadow.bytes
}

// Read copies the value out.
func (p *param) Read(dst []float32) {
	mustEqual("values of a parameter to read", len(dst), p.rows*p.cols)
	p.read(dst, p.value, 0)
}

// ReadFrom copies a part of the value out.
func (p *param) ReadFrom(dst []float32, from int) { p.read(dst, p.value, from) }

// ReadGrad copies the gradient sum out.
func (p *param) ReadGrad(dst []float32) {
	mustEqual("values of a gradient to read", len(dst), p.rows*p.cols)
	p.read(dst, p.grad, 0)
}

// Write copies the value in.
func (p *param) Write(src []float32) {
	p.write(p.value, src)
	p.stale = true
}

// WriteGrad sets the gradient sum.
func (p *param) WriteGrad(src []float32) { p.write(p.grad, src) }

// ReadMoments copies AdamW's moments out, zeros before the first step.
func (p *param) ReadMoments(m, v []float32) {
	mustEqual("values of m to read", len(m), p.rows*p.cols)
	mustEqual("values of v to read", len(v), p.rows*p.cols)
	if p.m.bytes == 0 {
		clear(m)
		clear(v)
		return
	}
	p.read(m, p.m, 0)
	p.read(v, p.v, 0)
}

// WriteMoments sets AdamW's moments.
func (p *param) WriteMoments(m, v []float32) {
	p.needMoments()
	p.write(p.m, m)
	p.write(p.v, v)
}

// ClearMoments sets AdamW's moments to zeros, where there are any.
func (p *param) ClearMoments() {
	defer p.be.enter()()
	p.be.zero(p.m.at, p.m.bytes)
	p.be.zero(p.v.at, p.v.bytes)
}

func (p *param) needMoments() {
	if p.m.bytes > 0 || p.bytes() == 0 {
		return
	}
	defer p.be.enter()()
	p.be.growZeros(&p.m, p.bytes())
	p.be.growZeros(&p.v, p.bytes())
	p.be.optimiser.moved = true
}

// read copies elements from..from+len(dst), as the matrix counts them, out of mem.
func (p *param) read(dst []float32, mem memory, from int) {
	if len(dst) == 0 {
		return
	}
	if from < 0 || from+len(dst) > p.rows*p.cols {
		mustEqual("values up to the end of what is read of a parameter", from+len(dst), p.rows*p.cols)
	}
	defer p.be.enter()()
	if p.ld == p.cols {
		p.be.fetch(bytesOf(dst), mem.at+driver.Ptr(4*from))
		return
	}
	first, last := from/p.cols, (from+len(dst)-1)/p.cols
	raw := make([]float32, (last-first+1)*p.ld)
	p.be.fetch(bytesOf(raw), mem.at+driver.Ptr(4*first*p.ld))
	for i := range dst {
		at := from + i
		dst[i] = raw[(at/p.cols-first)*p.ld+at%p.cols]
	}
}

// write sets the matrix in mem.
func (p *param) write(mem memory, src []float32) {
	mustEqual("values of a parameter to write", len(src), p.rows*p.cols)
	defer p.be.enter()()
	if p.ld != p.cols {
		raw := make([]float32, p.elements())
		for i := range p.rows {
			copy(raw[i*p.ld:], src[i*p.cols:(i+1)*p.cols])
		}
		src = raw
	}
	p.be.upload(mem.at, bytesOf(src))
}

var roundKernel = declare("round_bf16")

type roundArgs struct {
	to, from driver.Ptr
	n        int64 // elements, a multiple of 8
}

// half is the value [rows, ld] in bf16, as of now. AdamW keeps it up to date once it has been asked for.
func (p *param) half() driver.Ptr {
	if p.shadow.bytes == 0 {
		p.be.grow(&p.shadow, 2*p.elements())
		p.be.optimiser.moved = true
		p.stale = true
	}
	if p.stale && p.elements() > 0 {
		launch(p.be, roundKernel, grid(blocks(p.elements(), roundChunk), 256, 0), roundArgs{p.shadow.at, p.value.at, p.elements()})
	}
	p.stale = false
	return p.shadow.at
}

// roundChunk is the number of elements that a block of round_bf16 takes.
const roundChunk = 2048

// blocks is how many pieces of size n has.
func blocks[T int | int64](n, size T) int { return int((n + size - 1) / size) }
