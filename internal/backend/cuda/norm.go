package cuda

import (
	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// vector is a frozen vector on the card.
type vector struct {
	n   int
	mem memory
}

func (v *vector) Len() int { return v.n }

// NewVector copies v to the card.
func (be *Backend) NewVector(v []float32) backend.Vector {
	defer be.enter()()
	x := &vector{n: len(v)}
	be.grow(&x.mem, int64(4*len(v)))
	be.upload(x.mem.at, bytesOf(v))
	return x
}

var (
	rmsNormKernel         = declare("rms_norm")
	rmsNormBackwardKernel = declare("rms_norm_backward")
)

type rmsNormArgs struct {
	y, rstd, x, gain             driver.Ptr
	cols, ldY, ldX, ldRstd, half int32
	eps                          float32
}

type rmsNormBackwardArgs struct {
	dx, x, rstd, dy, add, gain                 driver.Ptr
	cols, ldDX, ldX, ldRstd, ldDY, ldAdd, half int32
}

// rowThreads is how many threads a block of a row has: each keeps two runs of eight columns (norm.cu).
func rowThreads(cols int) uint32 { return uint32(min(512, max(32, blocks(blocks(cols, 16), 32)*32))) }

// RMSNorm writes y = g * x * rstd (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019).
func (be *Backend) RMSNorm(y, rstd, x backend.Buffer, g backend.Vector, eps float32) {
	defer be.enter()()
	by, br, bx, gain := mat(y), mat(rstd), mat(x), g.(*vector)
	mustEqual("columns of the norm's output", by.cols, bx.cols)
	mustEqual("elements of the norm's gain", gain.n, bx.cols)
	mustEqual("columns of rstd", br.cols, 1)
	by.Resize(bx.rows)
	br.Resize(bx.rows)
	if bx.rows == 0 {
		return
	}
	launch(be, rmsNormKernel, grid(bx.rows, rowThreads(bx.cols), 0), rmsNormArgs{by.mem.at, br.mem.at, bx.mem.at, gain.mem.at,
		int32(bx.cols), int32(by.ld), int32(bx.ld), int32(br.ld), flag(by.half), eps})
}

// RMSNormBackward writes dx = add + rstd * (g*dy - x * rstd²/d * sum(g*dy*x)).
func (be *Backend) RMSNormBackward(dx, x, rstd, dy, add backend.Buffer, g backend.Vector) {
	defer be.enter()()
	bdx, bx, br, bdy, badd, gain := mat(dx), mat(x), mat(rstd), mat(dy), mat(add), g.(*vector)
	mustEqual("columns of the norm's gradient", bdy.cols, bx.cols)
	mustEqual("columns of the norm's dx", bdx.cols, bx.cols)
	mustEqual("rows of the norm's gradient", bdy.rows, bx.rows)
	mustEqual("rows of rstd", br.rows, bx.rows)
	bdx.Resize(bx.rows)
	args := rmsNormBackwardArgs{bdx.mem.at, bx.mem.at, br.mem.at, bdy.mem.at, 0, gain.mem.at,
		int32(bx.cols), int32(bdx.ld), int32(bx.ld), int32(br.ld), int32(bdy.ld), 0, flag(bdy.half)}
	if badd != nil {
		mustEqual("columns added to the norm's dx", badd.cols, bx.cols)
		mustEqual("rows added to the norm's dx", badd.rows, bx.rows)
		args.add, args.ldAdd = badd.mem.at, int32(badd.ld)
	}
	if bx.rows > 0 {
		launch(be, rmsNormBackwardKernel, grid(bx.rows, rowThreads(bx.cols), 0), args)
	}
}
