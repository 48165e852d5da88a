package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

var (
	avx2Kernels = kernels{name: "avx2", rows: 6, cols: 16, pack: packAVX2, multiply: multiplyAVX2,
		unpack: unpackAVX2, scales: scalesAVX, dot: dotAVX2}
	avx512fKernels = kernels{name: "avx512f", rows: 14, cols: 32, pack: packAVX512, multiply: multiplyAVX512,
		unpack: unpackAVX512, scales: scalesAVX, dot: dotAVX512}
	avx512BF16Kernels = kernels{name: "avx512_bf16", rows: 14, cols: 32, pairs: true, pack: packAVX512, multiply: multiplyAVX512,
		unpack: unpackAVX512, scales: scalesAVX, dot: dotAVX512}
)

func kernelsOf(s set) *kernels {
	return [...]*kernels{plain: &goKernels, avx2: &avx2Kernels, avx512f: &avx512fKernels, avx512BF16: &avx512BF16Kernels, amx: &amxKernels}[s]
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

var (
	unpackRows512   = byFormat(transpose512NF4, transpose512Int8)
	unpackPairs512  = byFormat(transposePairs512NF4, transposePairs512Int8)
	unpackAcross512 = byFormat(across512NF4, across512Int8)
	unpackPairsOf   = byFormat(acrossPairs512NF4, acrossPairs512Int8)
	unpackRows2     = byFormat(transpose2NF4, transpose2Int8)
	unpackAcross2   = byFormat(across2NF4, across2Int8)
)

func byFormat(nf4, int8 unpacker) [quant.Int8 + 1]unpacker {
	return [...]unpacker{quant.NF4: nf4, quant.Int8: int8}
}

func unpackAVX512(dst unsafe.Pointer, c codes, forward bool, lanes, k int, f format) {
	across, rows := unpackAcross512[c.m.Format], unpackRows512[c.m.Format]
	if f == pairsBF16 {
		across, rows = unpackPairsOf[c.m.Format], unpackPairs512[c.m.Format]
	}
	if forward {
		for l := 0; l < lanes; l += 16 {
			c.unpack(rows, unsafe.Add(dst, 4*l), 32, l, min(16, lanes-l), k)
		}
	} else {
		c.unpack(across, dst, 32, 0, lanes, k)
	}
	if f == roundedF32 {
		round512(dst, roundUp(k, stepAlign)*32)
	}
}

func unpackAVX2(dst unsafe.Pointer, c codes, forward bool, lanes, k int, f format) {
	if forward {
		for l := 0; l < lanes; l += 8 {
			c.unpack(unpackRows2[c.m.Format], unsafe.Add(dst, 4*l), 16, l, min(8, lanes-l), k)
		}
	} else {
		c.unpack(unpackAcross2[c.m.Format], dst, 16, 0, lanes, k)
	}
	if f == roundedF32 {
		round2(dst, roundUp(k, stepAlign)*16)
	}
}

func scalesAVX(dst unsafe.Pointer, n, rows int, m *quant.Matrix, first, perRow int) {
	nestedScales(dst, n, rows, unsafe.Pointer(&m.Scales[0]), first, perRow,
		unsafe.Pointer(&m.Factors[0]), unsafe.Pointer(&quant.ScaleValues), m.Offset)
}

// dots are kernels by type or format.
type dots struct {
	plain [numeric.BF16 + 1]dotKernel
	quant [quant.Int8 + 1]dotKernel
}

var (
	dotF32 = dots{
		[...]dotKernel{numeric.F32: dot512F32F32, numeric.F16: dot512F32F16, numeric.BF16: dot512F32BF16},
		[...]dotKernel{quant.NF4: dot512F32NF4, quant.Int8: dot512F32Int8},
	}
	dotPairs = dots{
		[...]dotKernel{numeric.F32: dot512BF16F32, numeric.F16: dot512BF16F16, numeric.BF16: dot512BF16BF16},
		[...]dotKernel{quant.NF4: dot512BF16NF4, quant.Int8: dot512BF16Int8},
	}
	dot2 = dots{
		[...]dotKernel{numeric.F32: dot2F32, numeric.F16: dot2F16, numeric.BF16: dot2BF16},
		[...]dotKernel{quant.NF4: dot2NF4, quant.Int8: dot2Int8},
	}
)

func (d *dots) of(t numeric.DType, q quant.Format) dotKernel {
	if q != quant.None {
		return d.quant[q]
	}
	return d.plain[t]
}

func dotAVX512(d numeric.DType, q quant.Format, f format) dotKernel {
	switch {
	case f == pairsBF16:
		return dotPairs.of(d, q)
	case f == roundedF32 && d != numeric.BF16: // nothing rounds what is not stored
		return nil
	default:
		return dotF32.of(d, q)
	}
}

func dotAVX2(d numeric.DType, q quant.Format, f format) dotKernel {
	if f == roundedF32 && d != numeric.BF16 {
		return nil
	}
	return dot2.of(d, q)
}
