package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// neonKernels do with FMLA what the AVX kernels do with VFMADD231PS, in the same order.
var neonKernels = kernels{name: "neon", rows: 6, cols: 16, pack: packNEON, unpack: unpackNEON, scales: scalesGo, dot: dotNEON,
	multiply: func(t *tileProduct, _ format) { multiplyNEON[t.rows](t) }}

func kernelsOf(s set) *kernels {
	if s == neon {
		return &neonKernels
	}
	return &goKernels
}

type packers [numeric.BF16 + 1]packer

var transposeNEON = packers{numeric.F32: transposeNEONF32, numeric.F16: transposeNEONF16, numeric.BF16: transposeNEONBF16}

// acrossNEON are the packers of neighbouring lanes, the most lanes first.
var acrossNEON = []struct {
	lanes int
	by    packers
}{
	{16, packers{numeric.F32: acrossNEONF32x16, numeric.F16: acrossNEONF16x16, numeric.BF16: acrossNEONBF16x16}},
	{8, packers{numeric.F32: acrossNEONF32x8, numeric.F16: acrossNEONF16x8, numeric.BF16: acrossNEONBF16x8}},
	{4, packers{numeric.F32: acrossNEONF32x4, numeric.F16: acrossNEONF16x4, numeric.BF16: acrossNEONBF16x4}},
	{2, packers{numeric.F32: acrossNEONF32x2}},
	{1, packers{numeric.F32: acrossNEONF32x1}},
}

func packNEON(dst unsafe.Pointer, width int, src operand, lanes, k int, f format) {
	size := src.dtype.Size()
	switch {
	case src.place == 1:
		whole := k &^ 7
		for l := 0; l < lanes && whole > 0; l += 8 {
			transposeNEON[src.dtype](src.at(l, 0).p, src.lane*size, unsafe.Add(dst, 4*l), 4*width, min(8, lanes-l), 0, whole)
		}
		if k > whole {
			packGo(unsafe.Add(dst, 4*whole*width), width, src.at(0, whole), lanes, k-whole, plainF32)
		}
	case src.lane == 1 && (src.dtype == numeric.F32 || lanes%4 == 0):
		l := 0
		for _, across := range acrossNEON {
			for ; lanes-l >= across.lanes; l += across.lanes {
				across.by[src.dtype](src.at(l, 0).p, src.place*size, unsafe.Add(dst, 4*l), 4*width, 0, 0, k)
			}
		}
	default:
		packGo(dst, width, src, lanes, k, f)
		return
	}
	if f == roundedF32 && src.dtype != numeric.BF16 {
		roundNEON(dst, roundUp(k, stepAlign)*width)
	}
}

var (
	unpackRowsNEON   = [...]unpacker{quant.NF4: transposeNEONNF4, quant.Int8: transposeNEONInt8}
	unpackAcrossNEON = [...]unpacker{quant.NF4: acrossNEONNF4, quant.Int8: acrossNEONInt8}
)

func unpackNEON(dst unsafe.Pointer, c codes, forward bool, lanes, k int, f format) {
	if forward {
		for l := 0; l < lanes; l += 4 {
			c.unpack(unpackRowsNEON[c.m.Format], unsafe.Add(dst, 4*l), 16, l, min(4, lanes-l), k)
		}
	} else {
		c.unpack(unpackAcrossNEON[c.m.Format], dst, 16, 0, lanes, k)
	}
	if f == roundedF32 {
		roundNEON(dst, roundUp(k, stepAlign)*16)
	}
}

// scalesGo decodes one scale for 64 codes: plain Go does.
func scalesGo(dst unsafe.Pointer, n, rows int, m *quant.Matrix, first, perRow int) {
	scales := unsafe.Slice((*float32)(dst), n*rows)
	for r := range rows {
		for i := range n {
			scales[r*n+i] = m.Scale(first + r*perRow + i)
		}
	}
}

var (
	dotsNEON      = [...]dotKernel{numeric.F32: dotNEONF32, numeric.F16: dotNEONF16, numeric.BF16: dotNEONBF16}
	quantDotsNEON = [...]dotKernel{quant.NF4: dotNEONNF4, quant.Int8: dotNEONInt8}
)

func dotNEON(d numeric.DType, q quant.Format, f format) dotKernel {
	switch {
	case f == roundedF32 && d != numeric.BF16: // nothing rounds what is not stored
		return nil
	case q != quant.None:
		return quantDotsNEON[q]
	default:
		return dotsNEON[d]
	}
}
