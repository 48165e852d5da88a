package cpu

import (
	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
	"github.com/biolora/biolora/internal/backend/profile"
)

// GateUp writes gu = [gate(x) | up(x)] and, unless y is nil, y = silu(g) * u (Shazeer, "GLU Variants Improve
// Transformer", 2020).
func (be *Backend) GateUp(y, gu, h, x backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	mustEqual("columns of up", up.Out, gate.Out)
	be.pair = [2]*backend.Linear{gate, up}
	be.linear(mat(gu), mat(h), mat(x), nil, be.pair[:], b, nil)
	if y != nil {
		be.SwiGLU(y, gu)
	}
}

// SwiGLU writes y = silu(g) * u of gu = [g | u].
func (be *Backend) SwiGLU(y, gu backend.Buffer) {
	defer be.watch.Leave(be.watch.Enter(profile.Elementwise))
	t := &be.swiglu
	*t = swigluTask{unit: be.unit, y: mat(y), gu: mat(gu)}
	mustEqual("columns of gate and up", t.gu.cols, 2*t.y.cols)
	t.y.Resize(t.gu.rows)
	be.rows(t.gu.rows, t)
}

type swigluTask struct {
	unit  *vec.Unit
	y, gu *Buffer
}

func (t *swigluTask) Piece(_, i int) {
	from, to := blockOf(i, t.gu.rows)
	for r := from; r < to; r++ {
		y, gu := t.y.row(r), t.gu.row(r)
		t.unit.SwiGLU(y, gu, gu[len(y):])
	}
}

// GateUpBackward passes dy through swiglu and then through gate and up.
func (be *Backend) GateUpBackward(dx, x, gu, h, dy backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	t := &be.swigluBack
	*t = swigluBackTask{unit: be.unit, d: be.dgu, gu: mat(gu), dy: mat(dy)}
	mustEqual("columns of gate and up", t.gu.cols, gate.Out+up.Out)
	mustEqual("columns of swiglu's gradient", t.dy.cols, gate.Out)
	mustEqual("rows of swiglu's gradient", t.dy.rows, t.gu.rows)
	be.dgu.shape(t.gu.rows, t.gu.cols)
	before := be.watch.Enter(profile.Elementwise)
	be.rows(t.gu.rows, t)
	be.watch.Leave(before)
	be.pair = [2]*backend.Linear{gate, up}
	be.linearBackward(mat(dx), mat(x), mat(h), be.dgu, be.pair[:], b, nil)
}

type swigluBackTask struct {
	unit      *vec.Unit
	d, gu, dy *Buffer
}

func (t *swigluBackTask) Piece(_, i int) {
	from, to := blockOf(i, t.gu.rows)
	for r := from; r < to; r++ {
		dy, gu, d := t.dy.row(r), t.gu.row(r), t.d.row(r)
		n := len(dy)
		t.unit.SwiGLUBackward(d[:n], d[n:], dy, gu, gu[n:])
	}
}
