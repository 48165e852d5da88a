package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// amxKernels are avx512f's but for bf16, which is multiplied on tiles: on Intel VDPBF16PS is the slower way.
var amxKernels = func() kernels {
	k := avx512fKernels
	k.name = "amx"
	k.dot = dotAMX
	k.tiles = &tileKernels{pack: packTiles512, finish: finishTiles, fence: storeFence, ceiling: tileCeiling,
		multiply: func(t *tileCall, f tileFlags) { tileMultipliers[f](t) }}
	return k
}()

// dotAMX returns avx512_bf16's kernels for bf16: few rows wait for memory, not for the slower instruction, which all CPUs
// with AMX have.
func dotAMX(d numeric.DType, q quant.Format, f format) dotKernel {
	if f == tilesBF16 {
		return dotPairs.of(d, q)
	}
	return dotAVX512(d, q, f)
}

func packTiles512(dst unsafe.Pointer, src operand, rows, k int) {
	switch {
	case src.place == 1:
		tilesOfRows(src.p, 4*src.lane, dst, rows, k)
	case src.lane == 1:
		tilesOfColumns(src.p, 4*src.place, dst, rows, k)
	default:
		packTilesGo(dst, src, rows, k)
	}
}
