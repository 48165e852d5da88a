// Package neon writes the arm64 vector instructions that Go's assembler does not know, among them all float arithmetic but
// VFMLA and VFMLS, as words, for the generators of packages gemm and vec. Operands are in the order of Go's assembler: the
// destination is last, and of two sources the first is the one that is subtracted or divided by.
//
// The encodings are those of the Arm Architecture Reference Manual (DDI 0487), C7.2.
package neon

import "fmt"

// Two is an instruction with one source, Three one with two. Names end in the arrangement of the source's lanes.
type (
	Two   struct{ op }
	Three struct{ op }
	op    struct {
		name string
		bits uint32
	}
)

// Instructions of one source. Those whose names have a 2 take the upper half of the source, and write all of the
// destination, but BFCVTN2, which writes its upper half.
var (
	FSQRT    = Two{op{"FSQRT.S4", 0x6ea1f800}}
	FNEG     = Two{op{"FNEG.S4", 0x6ea0f800}}
	FRINTN   = Two{op{"FRINTN.S4", 0x4e218800}}  // to the nearest integer, to even
	FCVTNS   = Two{op{"FCVTNS.S4", 0x4e21a800}}  // the same, to int32
	SCVTF    = Two{op{"SCVTF.S4", 0x4e21d800}}   // from int32
	FCVTLH   = Two{op{"FCVTL.H4", 0x0e217800}}   // half to single
	FCVTL2H  = Two{op{"FCVTL2.H8", 0x4e217800}}  // the upper four
	FCVTL    = Two{op{"FCVTL.S2", 0x0e617800}}   // single to double
	FCVTL2   = Two{op{"FCVTL2.S4", 0x4e617800}}  // the upper two
	SHLL     = Two{op{"SHLL.H4", 0x2e613800}}    // 16 bits to 32, in their upper half: bfloat16 to single
	SHLL2    = Two{op{"SHLL2.H8", 0x6e613800}}   // the upper four
	SXTLB    = Two{op{"SXTL.B8", 0x0f08a400}}    // int8 to int16
	SXTL2B   = Two{op{"SXTL2.B16", 0x4f08a400}}  // the upper eight
	SXTL     = Two{op{"SXTL.H4", 0x0f10a400}}    // int16 to int32
	SXTL2    = Two{op{"SXTL2.H8", 0x4f10a400}}   // the upper four
	HALVE    = Two{op{"SSHR $1.S4", 0x4f3f0400}} // int32, rounded down
	NEGATIVE = Two{op{"CMLT $0.S4", 0x4ea0a800}} // all ones where the sign is set
)

// Instructions of two sources.
var (
	FADD  = Three{op{"FADD.S4", 0x4e20d400}}
	FSUB  = Three{op{"FSUB.S4", 0x4ea0d400}}
	FMUL  = Three{op{"FMUL.S4", 0x6e20dc00}}
	FDIV  = Three{op{"FDIV.S4", 0x6e20fc00}}
	FMAX  = Three{op{"FMAX.S4", 0x4e20f400}} // a NaN where either is one
	FMIN  = Three{op{"FMIN.S4", 0x4ea0f400}}
	FCMEQ = Three{op{"FCMEQ.S4", 0x4e20e400}}
	FCMGT = Three{op{"FCMGT.S4", 0x6ea0e400}} // the second source is greater
	FADDP = Three{op{"FADDP.S4", 0x6e20d400}} // neighbours, those of the second source first
	FADDD = Three{op{"FADD.D2", 0x4e60d400}}
	FMULD = Three{op{"FMUL.D2", 0x6e60dc00}}
	USHL  = Three{op{"USHL.B16", 0x6e204400}} // bytes of the second source to the left, or to the right by negative ones
)

// On encodes the instruction for vector registers, with a comment that names it.
func (o Two) On(n, d int) string {
	return fmt.Sprintf("WORD $0x%08x // %s V%d, V%d", o.bits|reg(n)<<5|reg(d), o.name, n, d)
}

// On encodes the instruction for vector registers, with a comment that names it.
func (o Three) On(m, n, d int) string {
	return fmt.Sprintf("WORD $0x%08x // %s V%d, V%d, V%d", o.bits|reg(m)<<16|reg(n)<<5|reg(d), o.name, m, n, d)
}

// FMLALane adds to d the products of n's float32 and lane lane of m, fused.
func FMLALane(m, lane, n, d int) string {
	bits := 0x4f801000 | uint32(lane&1)<<21 | uint32(lane>>1&1)<<11 | reg(m)<<16 | reg(n)<<5 | reg(d)
	return fmt.Sprintf("WORD $0x%08x // FMLA V%d.S[%d], V%d.S4, V%d.S4", bits, m, lane, n, d)
}

// Load reads v at the sum of two registers, and Store writes it there. Go's assembler knows the form for all sizes but this.
func Load(base, index, v int) string {
	return fmt.Sprintf("WORD $0x%08x // FMOVQ (R%d)(R%d), F%d", 0x3ce06800|reg(index)<<16|reg(base)<<5|reg(v), base, index, v)
}

// Store writes v at the sum of two registers.
func Store(v, base, index int) string {
	return fmt.Sprintf("WORD $0x%08x // FMOVQ F%d, (R%d)(R%d)", 0x3ca06800|reg(index)<<16|reg(base)<<5|reg(v), v, base, index)
}

func reg(r int) uint32 {
	if r < 0 || r > 31 {
		panic(fmt.Sprintf("neon: register %d", r))
	}
	return uint32(r)
}
