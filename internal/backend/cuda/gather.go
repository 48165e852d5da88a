package cuda

import (
	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

var (
	gatherKernel  = declare("gather")
	scatterKernel = declare("scatter")
)

type gatherArgs struct {
	y, x, rows           driver.Ptr
	cols, ldY, ldX, half int32
}

type scatterArgs struct {
	dx, dy, place          driver.Ptr
	cols, ldDX, ldDY, half int32
}

// copyThreads is how many threads a block has that copies a row: eight columns each.
func copyThreads(cols int) uint32 { return uint32(min(256, max(32, blocks(cols, 256)*32))) }

// Gather writes y[i] = x[b.Rows[i]].
func (be *Backend) Gather(y, x backend.Buffer, b *backend.Batch) {
	defer be.enter()()
	by, bx := mat(y), mat(x)
	mustEqual("columns gathered", by.cols, bx.cols)
	checkRows(b.Rows, bx.rows)
	by.Resize(len(b.Rows))
	if by.rows > 0 {
		launch(be, gatherKernel, grid(by.rows, copyThreads(by.cols), 0), gatherArgs{by.mem.at, bx.mem.at, be.batch(b).selected,
			int32(by.cols), int32(by.ld), int32(bx.ld), flag(by.half)})
	}
}

// GatherBackward writes dy's rows to their places in dx, and zeros elsewhere.
func (be *Backend) GatherBackward(dx, dy backend.Buffer, b *backend.Batch) {
	defer be.enter()()
	bdx, bdy := mat(dx), mat(dy)
	mustEqual("columns scattered", bdx.cols, bdy.cols)
	mustEqual("rows scattered", bdy.rows, len(b.Rows))
	checkRows(b.Rows, len(b.Tokens))
	bdx.Resize(len(b.Tokens))
	if bdx.rows > 0 {
		launch(be, scatterKernel, grid(bdx.rows, copyThreads(bdx.cols), 0), scatterArgs{bdx.mem.at, bdy.mem.at, be.batch(b).place,
			int32(bdx.cols), int32(bdx.ld), int32(bdy.ld), flag(bdy.half)})
	}
}
