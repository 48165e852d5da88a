package cuda

import (
	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

var (
	swigluKernel         = declareTyped("swiglu")
	swigluBackwardKernel = declareTyped("swiglu_backward")
)

// GateUp writes gu = [gate(x) | up(x)] and, unless y is nil, y = silu(g) * u (Shazeer, "GLU Variants Improve
// Transformer", 2020).
func (be *Backend) GateUp(y, gu, h, x backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	defer be.enter()()
	mustEqual("columns of up", up.Out, gate.Out)
	ls := be.both(gate, up)
	be.linear(mat(gu), mat(h), mat(x), nil, ls, be.dropping(ls, b))
	if y != nil {
		be.SwiGLU(y, gu)
	}
}

// both is the two linears as a list, which is the backend's.
func (be *Backend) both(gate, up *backend.Linear) []*backend.Linear {
	be.linears.pair = [2]*backend.Linear{gate, up}
	return be.linears.pair[:]
}

type swigluArgs struct {
	y, gu                 driver.Ptr
	rows, cols, ldY, ldGu int32
}

// SwiGLU writes y = silu(g) * u of gu = [g | u].
func (be *Backend) SwiGLU(y, gu backend.Buffer) {
	defer be.enter()()
	to, from := mat(y), mat(gu)
	mustEqual("columns of gate and up", from.cols, 2*to.cols)
	to.Resize(from.rows)
	if from.rows == 0 {
		return
	}
	launch(be, swigluKernel.of(from.half), grid(blocks(to.rows*blocks(to.cols, 8), 256), 256, 0),
		swigluArgs{to.at(0), from.at(0), int32(to.rows), int32(to.cols), int32(to.ld), int32(from.ld)})
}

type swigluBackwardArgs struct {
	d, gu, dy                   driver.Ptr
	rows, cols, ldD, ldGu, ldDy int32
}

// GateUpBackward passes dy through swiglu and then through gate and up.
func (be *Backend) GateUpBackward(dx, x, gu, h, dy backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	defer be.enter()()
	from, grad := mat(gu), mat(dy)
	mustEqual("columns of gate and up", from.cols, gate.Out+up.Out)
	mustEqual("columns of swiglu's gradient", grad.cols, gate.Out)
	mustEqual("rows of swiglu's gradient", grad.rows, from.rows)
	d := be.gateUpGradient(from.rows, from.cols)
	if from.rows > 0 {
		launch(be, swigluBackwardKernel.of(from.half), grid(blocks(grad.rows*blocks(grad.cols, 8), 256), 256, 0),
			swigluBackwardArgs{d: d.at(0), gu: from.at(0), dy: grad.at(0), rows: int32(grad.rows), cols: int32(grad.cols),
				ldD: int32(d.ld), ldGu: int32(from.ld), ldDy: int32(grad.ld)})
	}
	ls := be.both(gate, up)
	be.linearBackward(mat(dx), mat(x), mat(h), d, ls, be.dropping(ls, b))
}

// gateUpGradient is the scratch matrix [rows, cols] for it.
func (be *Backend) gateUpGradient(rows, cols int) *Buffer {
	s := &be.linears
	ld := leading(cols)
	be.grow(&s.dgu, int64(rows)*int64(ld)*elementBytes(be.half))
	s.d = Buffer{be: be, kind: backend.Activation, half: be.half, rows: rows, cols: cols, ld: ld, mem: s.dgu}
	return &s.d
}
