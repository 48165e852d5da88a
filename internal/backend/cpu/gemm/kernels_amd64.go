package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
)

var (
	avx2Kernels       = kernels{name: "avx2", rows: 6, cols: 16, pack: packAVX2, multiply: multiplyAVX2}
	avx512fKernels    = kernels{name: "avx512f", rows: 14, cols: 32, pack: packAVX512, multiply: multiplyAVX512}
	avx512BF16Kernels = kernels{name: "avx512_bf16", rows: 14, cols: 32, pairs: true, pack: packAVX512, multiply: multiplyAVX512}
)

func kernelsOf(s set) *kernels {
	return [...]*kernels{plain: &goKernels, avx2: &avx2Kernels, avx512f: &avx512fKernels, avx512BF16: &avx512BF16Kernels}[s]
}

func multiplyAVX512(t *tileProduct, f format) {
	switch {
	case f == pairsBF16:
		multiply512BF16x32[t.rows](t)
	case t.cols > 16:
		multiply512F32x32[t.rows](t)
	default:
		multiply512F32x16[t.rows](t)
	}
}

func multiplyAVX2(t *tileProduct, _ format) { multiply2[t.rows](t) }

// packer is what the assembly packs with: k places of lanes lanes of src, whose rows (lanes or places) are ld bytes
// apart, to steps that are stride bytes apart and of which width lanes are written.
type packer func(src unsafe.Pointer, ld int, dst unsafe.Pointer, stride, lanes, width, k int)

var (
	transpose512 = byType(transpose512F32, transpose512F16, transpose512BF16)
	pairs512     = byType(transposePairs512F32, transposePairs512F16, transposePairs512BF16)
	across512x16 = byType(across512F32x16, across512F16x16, across512BF16x16)
	across512x32 = byType(across512F32x32, across512F16x32, across512BF16x32)
	pairsOf512   = byType(acrossPairs512F32, acrossPairs512F16, acrossPairs512BF16)
	transpose2   = byType(transpose2F32, transpose2F16, transpose2BF16)
	across2      = byType(across2F32, across2F16, across2BF16)
)

func byType(f32, f16, bf16 packer) [numeric.BF16 + 1]packer {
	return [...]packer{numeric.F32: f32, numeric.F16: f16, numeric.BF16: bf16}
}

func packAVX512(dst unsafe.Pointer, width int, src operand, lanes, k int, f format) {
	size := src.dtype.Size()
	switch {
	case src.place == 1:
		pack := transpose512[src.dtype]
		if f == pairsBF16 {
			pack = pairs512[src.dtype]
		}
		for l := 0; l < lanes; l += 16 {
			pack(src.at(l, 0).p, src.lane*size, unsafe.Add(dst, 4*l), 4*width, min(16, lanes-l), min(16, width-l), k)
		}
	case src.lane == 1 && f == pairsBF16 && width == 32:
		pairsOf512[src.dtype](src.p, src.place*size, dst, 4*width, lanes, width, k)
	case src.lane == 1 && f != pairsBF16 && lanes > 16:
		across512x32[src.dtype](src.p, src.place*size, dst, 4*width, lanes, width, k)
	case src.lane == 1 && f != pairsBF16:
		across512x16[src.dtype](src.p, src.place*size, dst, 4*width, lanes, min(16, width), k)
	default:
		packGo(dst, width, src, lanes, k, f)
		return
	}
	if f == roundedF32 && src.dtype != numeric.BF16 {
		round512(dst, roundUp(k, stepAlign)*width)
	}
}

func packAVX2(dst unsafe.Pointer, width int, src operand, lanes, k int, f format) {
	size := src.dtype.Size()
	switch {
	case src.place == 1:
		whole := k &^ 7
		for l := 0; l < lanes && whole > 0; l += 8 {
			transpose2[src.dtype](src.at(l, 0).p, src.lane*size, unsafe.Add(dst, 4*l), 4*width, min(8, lanes-l), 0, whole)
		}
		if k > whole {
			packGo(unsafe.Add(dst, 4*whole*width), width, src.at(0, whole), lanes, k-whole, plainF32)
		}
	case src.lane == 1 && (src.dtype == numeric.F32 || lanes&7 == 0):
		for l := 0; l < lanes; l += 8 {
			across2[src.dtype](src.at(l, 0).p, src.place*size, unsafe.Add(dst, 4*l), 4*width, min(8, lanes-l), 0, k)
		}
	default:
		packGo(dst, width, src, lanes, k, f)
		return
	}
	if f == roundedF32 && src.dtype != numeric.BF16 {
		round2(dst, roundUp(k, stepAlign)*width)
	}
}
