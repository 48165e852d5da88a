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

var rmsNormKernel = declareTyped("rms_norm")

type rmsNormArgs struct {
	y, rstd, x, gain       driver.Ptr
	cols, ldY, ldX, ldRstd int32
	eps                    float32
}

// RMSNorm writes y = g * x * rstd.
func (be *Backend) RMSNorm(y, rstd, x backend.Buffer, g backend.Vector, eps float32) {
	defer be.enter()()
	by, br, bx, gain := mat(y), mat(rstd), mat(x), g.(*vector)
	by.Resize(bx.rows)
	br.Resize(bx.rows)
	if bx.rows == 0 {
		return
	}
	launch(be, rmsNormKernel.of(by.half), grid(bx.rows, 256, 0), rmsNormArgs{by.mem.at, br.mem.at, bx.mem.at, gain.mem.at,
		int32(bx.cols), int32(by.ld), int32(bx.ld), int32(br.ld), eps})
}
