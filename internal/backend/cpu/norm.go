package cpu

import (
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
)

// RMSNorm writes y = g * x * rstd (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019).
func (be *Backend) RMSNorm(y, rstd, x backend.Buffer, g backend.Vector, eps float32) {
	t := &be.norm
	*t = normTask{unit: be.unit, y: mat(y), rstd: mat(rstd), x: mat(x), gain: g.(vector), eps: float64(eps)}
	mustEqual("columns of the norm's output", t.y.cols, t.x.cols)
	mustEqual("elements of the norm's gain", len(t.gain), t.x.cols)
	mustEqual("columns of rstd", t.rstd.cols, 1)
	t.y.Resize(t.x.rows)
	t.rstd.Resize(t.x.rows)
	be.rows(t.x.rows, t)
}

type normTask struct {
	unit       *vec.Unit
	y, rstd, x *Buffer
	gain       vector
	eps        float64
}

func (t *normTask) Piece(_, i int) {
	from, to := blockOf(i, t.x.rows)
	for r := from; r < to; r++ {
		x := t.x.row(r)
		rstd := float32(1 / math.Sqrt(t.unit.Dot(x, x)/float64(len(x))+t.eps))
		t.rstd.v[r] = rstd
		t.unit.Norm(t.y.row(r), x, t.gain, rstd)
	}
}

// RMSNormBackward writes dx = add + rstd * (g*dy - x * rstd²/d * sum(g*dy*x)).
func (be *Backend) RMSNormBackward(dx, x, rstd, dy, add backend.Buffer, g backend.Vector) {
	t := &be.normBack
	*t = normBackTask{unit: be.unit, dx: mat(dx), x: mat(x), rstd: mat(rstd), dy: mat(dy), add: mat(add), gain: g.(vector)}
	mustEqual("columns of the norm's gradient", t.dy.cols, t.x.cols)
	mustEqual("columns of the norm's dx", t.dx.cols, t.x.cols)
	mustEqual("rows of the norm's gradient", t.dy.rows, t.x.rows)
	mustEqual("rows of rstd", t.rstd.rows, t.x.rows)
	if t.add != nil {
		mustEqual("columns added to the norm's dx", t.add.cols, t.x.cols)
		mustEqual("rows added to the norm's dx", t.add.rows, t.x.rows)
	}
	t.dx.Resize(t.x.rows)
	be.rows(t.x.rows, t)
}

type normBackTask struct {
	unit                 *vec.Unit
	dx, x, rstd, dy, add *Buffer
	gain                 vector
}

func (t *normBackTask) Piece(_, i int) {
	from, to := blockOf(i, t.x.rows)
	for r := from; r < to; r++ {
		dx, x, dy := t.dx.row(r), t.x.row(r), t.dy.row(r)
		rstd := float64(t.rstd.v[r])
		c := float32(t.unit.Dot3(dy, t.gain, x) * rstd * rstd / float64(len(x)))
		t.unit.NormBackward(dx, dy, t.gain, x, t.rstd.v[r], c)
		if t.add != nil {
			t.unit.Add(dx, t.add.row(r))
		}
	}
}
