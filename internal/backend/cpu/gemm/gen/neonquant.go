package main

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend/cpu/neon"
	"github.com/biolora/biolora/internal/quant"
)

// Registers of what decodes: 16 to 23 are scratch.
const (
	planesNEON = 24 // four: the code book of nf4, byte by byte
	lowNEON    = 28 // of each byte the low half
	codesNEON  = 29
	scaleNEON  = 30
	shiftNEON  = 31
)

func (a *assembler) unpackArgumentsNEON() {
	for i, arg := range []string{"src+0", "ld+8", "scales+16", "lds+24", "at+32", "dst+40", "stride+48", "lanes+56", "k+64"} {
		a.op("MOVD %s(FP), R%d", arg, i)
	}
}

// bookNEON loads what values of nf4 are looked up with.
func (a *assembler) bookNEON(q quantised) {
	if q.bits != 4 {
		return
	}
	a.op("MOVD $nf4Planes<>(SB), R16")
	a.op("FLDPQ (R16), (F%d, F%d)", planesNEON, planesNEON+1)
	a.op("FLDPQ 32(R16), (F%d, F%d)", planesNEON+2, planesNEON+3)
	a.op("VMOVI $15, V%d.B16", lowNEON)
}

// shiftCodesNEON sets how far the codes of nf4 are to be shifted: 0 in the first half of a block, 4 to the right in the
// second. R4 is the place in the block.
func (a *assembler) shiftCodesNEON(q quantised) {
	if q.bits != 4 {
		return
	}
	a.op("LSR $5, R4, R16")
	a.op("LSL $2, R16")
	a.op("NEG R16, R16")
	a.op("VDUP R16, V%d.B16", shiftNEON)
}

// valuesNEON reads 16 codes at mem and writes their values, float32, to four registers from v on; the scale is at scale.
func (a *assembler) valuesNEON(q quantised, mem, scale string, v int) {
	a.op("FMOVQ (%s), F%d", mem, codesNEON)
	a.op("VLD1R (%s), [V%d.S4]", scale, scaleNEON)
	if q.bits == 4 {
		a.op("%s", neon.USHL.On(shiftNEON, codesNEON, codesNEON))
		a.op("VAND V%d.B16, V%d.B16, V%d.B16", lowNEON, codesNEON, codesNEON)
		for i := range 4 {
			a.op("VTBL V%d.B16, [V%d.B16], V%d.B16", codesNEON, planesNEON+i, 16+i)
		}
		for i := range 2 { // bytes to words, words to dwords
			a.op("VZIP1 V%d.B16, V%d.B16, V%d.B16", 17+2*i, 16+2*i, 20+2*i)
			a.op("VZIP2 V%d.B16, V%d.B16, V%d.B16", 17+2*i, 16+2*i, 21+2*i)
		}
		for i := range 2 {
			a.op("VZIP1 V%d.H8, V%d.H8, V%d.H8", 22+i, 20+i, v+2*i)
			a.op("VZIP2 V%d.H8, V%d.H8, V%d.H8", 22+i, 20+i, v+2*i+1)
		}
	} else {
		a.op("%s", neon.SXTLB.On(codesNEON, 16))
		a.op("%s", neon.SXTL2B.On(codesNEON, 17))
		for i := range 2 {
			a.op("%s", neon.SXTL.On(16+i, v+2*i))
			a.op("%s", neon.SXTL2.On(16+i, v+2*i+1))
		}
		for i := range 4 {
			a.op("%s", neon.SCVTF.On(v+i, v+i))
		}
	}
	for i := range 4 {
		a.op("%s", neon.FMUL.On(scaleNEON, v+i, v+i))
	}
}

// advanceNEON moves src and scales, R0 and R2, on by 16 places of a row, and R4 with them.
func (a *assembler) advanceNEON(q quantised) {
	a.op("ADD $16, R0")
	a.op("ADD $16, R4")
	if q.bits == 4 { // the second half of a block is in the same bytes
		a.op("CMP $32, R4")
		a.op("BNE halves")
		a.op("SUB $32, R0")
		a.label("halves")
	}
	a.op("CMP $64, R4")
	a.op("BNE block")
	a.op("MOVD $0, R4")
	a.op("ADD $4, R2")
	a.label("block")
}

// unpackRowsNEON: 4 rows to float32 steps. The rows that there are not read the last one again. The same places of the
// next panel's rows are fetched.
func (a *assembler) unpackRowsNEON(q quantised) {
	a.begin(fmt.Sprintf("packs k places, a multiple of 16, of 4 rows of %s as float32.", q.name), "transposeNEON"+q.name, unpackParams, 72)
	a.unpackArgumentsNEON()
	a.bookNEON(q)
	a.op("LSL $4, R1, R9") // 16 rows
	a.label("groups")
	a.shiftCodesNEON(q)
	a.op("MOVD R0, R10")
	a.op("MOVD R2, R11")
	a.op("MOVD R7, R12")
	for r := range 4 {
		a.op("ADD R9, R10, R13")
		a.op("PRFM (R13), PLDL2KEEP")
		a.valuesNEON(q, "R10", "R11", 4*r)
		if r < 3 {
			a.op("SUBS $1, R12")
			a.op("ADD R1, R10, R13")
			a.op("ADD R3, R11, R14")
			a.op("CSEL GT, R13, R10, R10")
			a.op("CSEL GT, R14, R11, R11")
		}
	}
	for i := range 4 {
		a.transpose4(i, 4+i, 8+i, 12+i, 16)
	}
	for step := range 16 {
		a.op("FMOVQ F%d, (R5)", step%4*4+step/4)
		a.op("ADD R6, R5")
	}
	a.advanceNEON(q)
	a.op("SUBS $16, R8")
	a.op("BGT groups")
	a.op("RET")
}

// unpackAcrossNEON: 16 neighbouring lanes to float32 steps.
func (a *assembler) unpackAcrossNEON(q quantised) {
	a.begin(fmt.Sprintf("packs k rows of 16 columns of %s as float32.", q.name), "acrossNEON"+q.name, unpackParams, 72)
	a.unpackArgumentsNEON()
	a.bookNEON(q)
	a.shiftCodesNEON(q)
	a.label("places")
	a.op("PRFM %d(R0), PLDL2KEEP", 4*colsNEON*q.bits/8)
	a.valuesNEON(q, "R0", "R2", 0)
	a.op("FSTPQ (F0, F1), (R5)")
	a.op("FSTPQ (F2, F3), 32(R5)")
	a.op("ADD R1, R0")
	a.op("ADD R3, R2")
	a.op("ADD R6, R5")
	a.op("SUBS $1, R8")
	a.op("BNE places")
	a.op("RET")
}

// dotNEON multiplies 16 rows, four at a time: 8 places of each, or 16 of codes.
func (a *assembler) dotNEON(s source) {
	places, registers := 8, 2
	if s.quantised() {
		places, registers = 16, 4
	}
	a.begin(fmt.Sprintf("adds the products of k places, a multiple of %d, of 16 rows of %s with one row of x, or %d, F32.", places, s.name, together),
		"dotNEON"+s.name, dotParams, 80)
	for i, arg := range []string{"src+0", "ld+8", "scales+16", "lds+24", "at+32", "fetch+40", "x+48", "rows+56", "k+64"} {
		a.op("MOVD %s(FP), R%d", arg, i)
	}
	a.bookNEON(s.quant)
	a.label("groups")
	a.shiftCodesNEON(s.quant)
	a.op("MOVD R0, R10")
	a.op("MOVD R2, R11")
	a.op("MOVD sums+72(FP), R12")
	a.op("MOVD $4, R14")
	a.label("rows")
	for r := range 4 {
		a.op("ADD R5, R10, R13")
		a.op("PRFM (R13), PLDL2KEEP")
		switch {
		case s.quantised():
			a.valuesNEON(s.quant, "R10", "R11", 4*r)
			a.op("ADD R3, R11")
		case s.plain == f32:
			a.op("FLDPQ (R10), (F%d, F%d)", 2*r, 2*r+1)
		default:
			a.op("FMOVQ (R10), F31")
			a.widenNEON(s.plain, 31, 2*r, 2*r+1)
		}
		a.op("ADD R1, R10")
	}
	for i := range registers {
		a.transpose4(i, registers+i, 2*registers+i, 3*registers+i, 16)
	}
	weight := func(step int) int { return step%4*registers + step/4 }
	const x, sum = 16, 20
	a.op("CMP $1, R7")
	a.op("BNE several")
	a.op("FMOVQ (R12), F%d", sum)
	for i := 0; i < places/4; i += 2 {
		a.op("FLDPQ %d(R6), (F%d, F%d)", 16*i, x+i, x+i+1)
	}
	for step := range places {
		a.op("%s", neon.FMLALane(x+step/4, step%4, weight(step), sum))
	}
	a.op("FMOVQ F%d, (R12)", sum)
	a.op("B summed")
	a.label("several")
	for r := range together {
		a.op("FMOVQ %d(R12), F%d", 4*colsNEON*r, sum+r)
	}
	for step := range places {
		a.op("FMOVQ %d(R6), F%d", 16*step, x+step%4)
		for r := range together {
			a.op("%s", neon.FMLALane(x+step%4, r, weight(step), sum+r))
		}
	}
	for r := range together {
		a.op("FMOVQ F%d, %d(R12)", sum+r, 4*colsNEON*r)
	}
	a.label("summed")
	a.op("ADD $16, R12")
	a.op("SUBS $1, R14")
	a.op("BNE rows")
	a.op("MOVD $%d, R13", 4*places)
	a.op("MOVD $%d, R14", 4*places*together)
	a.op("CMP $1, R7")
	a.op("CSEL EQ, R13, R14, R13")
	a.op("ADD R13, R6")
	if s.quantised() {
		a.advanceNEON(s.quant)
	} else {
		a.op("ADD $%d, R0", places*s.plain.size)
	}
	a.op("SUBS $%d, R8", places)
	a.op("BGT groups")
	a.op("RET")
}

// planes writes the code book of nf4 byte by byte: the lowest of all values first.
func (a *assembler) planes() {
	fmt.Fprintln(&a.code)
	for plane := range 4 {
		for i, v := range quant.Values {
			fmt.Fprintf(&a.code, "DATA nf4Planes<>+%d(SB)/1, $0x%02x\n", 16*plane+i, byte(math.Float32bits(v)>>(8*plane)))
		}
	}
	fmt.Fprintf(&a.code, "GLOBL nf4Planes<>(SB), RODATA|NOPTR, $64\n")
}
