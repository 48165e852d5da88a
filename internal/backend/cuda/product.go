package cuda

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// product computes d = alpha op(a) op(b) + beta c, [m, k] x [k, n] -> [m, n], all row-major, with sums in f32. a and b
// are both bf16 or both f32; so are c and d, and f32 where a is. c may be d; with beta 0 it is not read.
func (be *Backend) product(m, n, k int, alpha float32, a, b operand, beta float32, c, d result) {
	if m == 0 || n == 0 {
		return
	}
	if beta == 0 {
		c = d
	}
	if a.half != b.half || c.half != d.half || d.half && !a.half {
		panic(fmt.Sprintf("cuda: a product [%d, %d] x [%d, %d] of bf16 %t and %t to bf16 %t with bf16 %t", m, k, k, n, a.half, b.half, d.half, c.half))
	}
	if !be.cublas(m, n, k, alpha, a, b, beta, c, d) {
		be.ownProduct(m, n, k, alpha, a, b, beta, c, d)
	}
}

// tiling is a kernel's variants by transposition and the tile that its blocks of 256 threads compute.
type tiling struct {
	rows, cols int
	shared     uint32
	kernels    [4]kernel
}

func declareTiling(name string, rows, cols int, shared uint32) *tiling {
	t := &tiling{rows: rows, cols: cols, shared: shared}
	for i, trans := range []string{"nn", "nt", "tn", "tt"} {
		t.kernels[i] = declare("product_" + name + "_" + trans)
	}
	return t
}

// Three stages of panels [rows, 32] and [32, cols] in bf16; in f32 two of [64, 16], padded by 4 (tile.h).
var (
	largeTiling  = declareTiling("large", 128, 128, 3*(128+128)*64)
	narrowTiling = declareTiling("narrow", 128, 32, 3*(128+32)*64)
	flatTiling   = declareTiling("flat", 32, 128, 3*(32+128)*64)
	f32Tiling    = declareTiling("f32", 64, 64, 4*16*68*4)

	productSumKernel  = declare("product_sum")
	productRowKernel  = declareTyped("product_row")
	productRowsKernel = declareTyped("product_rows")
)

type productArgs struct {
	a, b, c, d                  driver.Ptr
	m, n, k, lda, ldb, ldc, ldd int32
	slice, half                 int32
	alpha, beta                 float32
}

type productSumArgs struct {
	parts, c, d                driver.Ptr
	m, n, ld, slices, ldc, ldd int32
	half                       int32
	alpha, beta                float32
}

// parts has the sums of slices of k until they are added.
type products struct{ parts memory }

// partsBytes bounds them.
const partsBytes = 16 << 20

func init() {
	scratches = append(scratches, scratch{
		func(be *Backend) *memory { return &be.products.parts },
		func(be *Backend, _ backend.Need) int64 { return partsBytes },
	})
}

func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// ownProduct is product by this package's kernels. Which ones and how k is cut depends on the shape alone.
func (be *Backend) ownProduct(m, n, k int, alpha float32, a, b operand, beta float32, c, d result) {
	args := productArgs{a.at, b.at, c.at, d.at, int32(m), int32(n), int32(k), int32(a.ld), int32(b.ld), int32(c.ld), int32(d.ld),
		int32(k), flag(d.half), alpha, beta}
	if m <= 8 && !a.trans && b.trans && k%8 == 0 && vectors(a) && vectors(b) {
		rows := productRowsKernel
		if m == 1 {
			rows = productRowKernel
		}
		launch(be, rows.of(a.half), grid(blocks(n, 16), 256, 0), args) // 8 warps with 2 columns each
		return
	}
	t := tilingOf(m, n, a.half)
	slices := slicesOf(m, n, k, t)
	if slices > 1 {
		be.grow(&be.products.parts, partsBytes)
		args.slice = int32(sliceOf(k, slices))
		args.d, args.ldd, args.half, args.alpha, args.beta = be.products.parts.at, int32(leading(n)), 0, 1, 0
	}
	trans := 0
	if a.trans {
		trans = 2
	}
	if b.trans {
		trans++
	}
	launch(be, t.kernels[trans], grid3(blocks(m, t.rows)*blocks(n, t.cols), 1, slices, 256, t.shared), args)
	if slices > 1 {
		launch(be, productSumKernel, grid(blocks(m*blocks(n, 8), 256), 256, 0), productSumArgs{be.products.parts.at, c.at, d.at,
			int32(m), int32(n), int32(leading(n)), int32(slices), int32(c.ld), int32(d.ld), flag(d.half), alpha, beta})
	}
}

// vectors reports whether each row of a begins at a multiple of 16 bytes.
func vectors(a operand) bool { return a.at%16 == 0 && a.ld%8 == 0 }

// tilingOf chooses a tile that wastes little on few rows or columns.
func tilingOf(m, n int, half bool) *tiling {
	switch {
	case !half:
		return f32Tiling
	case n <= 64:
		return narrowTiling
	case m <= 64:
		return flatTiling
	}
	return largeTiling
}

// busy is the number of blocks that keep a card busy: two on each of an H100's 132 processors.
const busy = 264

// slicesOf is into how many parts k is cut so that a product of few tiles has enough blocks: none shorter than 256, and
// all sums within partsBytes.
func slicesOf(m, n, k int, t *tiling) int {
	tiles := blocks(m, t.rows) * blocks(n, t.cols)
	slices := min(busy/tiles, k/256, partsBytes/(4*m*leading(n)))
	if slices < 2 {
		return 1
	}
	return blocks(k, sliceOf(k, slices))
}

// sliceOf is the length of one of so many parts of k, in whole steps of the kernels.
func sliceOf(k, slices int) int { return blocks(blocks(k, slices), 32) * 32 }
