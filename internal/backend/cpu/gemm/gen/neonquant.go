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

// dotNEON keeps the 16 lanes of a sum in four registers. With one row of x two rows of the weight are multiplied
// together, with several one row and two rows of x: 8 chains of sums.
func (a *assembler) dotNEON(s source) {
	a.begin(fmt.Sprintf("multiplies n rows, a multiple of 4, of k places, a multiple of %d, of %s with one row of x, or %d, F32.",
		dotPlaces, s.name, together), "dotNEON"+s.name, dotParams, dotParamsSize)
	for i, arg := range []string{"src+0", "ld+8", "scales+16", "lds+24", "x+32", "ldx+40", "rows+48", "n+56", "k+64", "sums+72"} {
		a.op("MOVD %s(FP), R%d", arg, i)
	}
	a.bookNEON(s.quant)
	a.op("CMP $1, R6")
	a.op("BNE several")
	a.dotRowsNEON(s, "one", 1, 2)
	a.op("RET")
	a.label("several")
	a.op("MOVD R0, R19")
	a.op("MOVD R2, R20")
	a.op("MOVD R7, R21")
	a.op("MOVD R9, R22")
	a.dotRowsNEON(s, "first", 2, 1)
	a.op("MOVD R19, R0")
	a.op("MOVD R20, R2")
	a.op("MOVD R21, R7")
	a.op("ADD $%d, R22, R9", 2*4*colsNEON)
	a.op("ADD R5<<1, R4")
	a.dotRowsNEON(s, "second", 2, 1)
	a.op("RET")
}

// dotRowsNEON multiplies the R7 rows of the weight by rows rows of x, group rows of the weight together.
func (a *assembler) dotRowsNEON(s source, label string, rows, group int) {
	const w, x = 8, 12
	a.label(label + "Group")
	for i := range 4 * rows * group {
		a.op("VEOR V%d.B16, V%d.B16, V%d.B16", i, i, i)
	}
	a.op("MOVD R0, R10")       // codes
	a.op("ADD R1<<2, R0, R11") // what is fetched
	a.op("MOVD R2, R12")       // scales
	a.op("MOVD R4, R13")       // x
	a.op("MOVD R8, R14")
	a.label(label)
	for g := range group {
		code, fetch, scale := "R10", "R11", "R12"
		if g > 0 {
			code, scale = "R15", "R17"
			a.op("ADD R1, R10, R15")
			a.op("ADD R1, R11, R23")
			a.op("ADD R3, R12, R17")
			fetch = "R23"
		}
		for line := 0; line < s.bytes(dotPlaces); line += 64 {
			a.op("PRFM %d(%s), PLDL1KEEP", line, fetch)
		}
		for v := range dotPlaces / 16 {
			a.sixteenNEON(s, v, code, scale, w)
			for r := range rows {
				from := "R13"
				if r > 0 {
					a.op("ADD R5, R13, R24")
					from = "R24"
				}
				a.op("FLDPQ %d(%s), (F%d, F%d)", 64*v, from, x, x+1)
				a.op("FLDPQ %d(%s), (F%d, F%d)", 64*v+32, from, x+2, x+3)
				for q := range 4 {
					a.op("VFMLA V%d.S4, V%d.S4, V%d.S4", w+q, x+q, 4*(r*group+g)+q)
				}
			}
		}
	}
	a.op("ADD $%d, R10", s.bytes(dotPlaces))
	a.op("ADD $%d, R11", s.bytes(dotPlaces))
	if s.quantised() {
		a.op("ADD $4, R12")
	}
	a.op("ADD $%d, R13", 4*dotPlaces)
	a.op("SUBS $%d, R14", dotPlaces)
	a.op("BGT %s", label)
	for r := range rows {
		for g := range group {
			v := 4 * (r*group + g)
			for _, sum := range [][3]int{{v, v + 2, v}, {v + 1, v + 3, v + 1}, {v, v + 1, v}} { // 16 lanes to 8, to 4
				a.op("%s", neon.FADD.On(sum[1], sum[0], sum[2]))
			}
			a.op("%s", neon.FADDP.On(v, v, v))
			a.op("%s", neon.FADDP.On(v, v, v))
			a.op("FMOVS F%d, %d(R9)", v, 4*(r*colsNEON+g))
		}
	}
	a.op("ADD $%d, R9", 4*group)
	for range group {
		a.op("ADD R1, R0")
		a.op("ADD R3, R2")
	}
	a.op("SUBS $%d, R7", group)
	a.op("BGT %sGroup", label)
}

// sixteenNEON reads 16 places, the v-th of a block, to four registers from w on.
func (a *assembler) sixteenNEON(s source, v int, code, scale string, w int) {
	at := "R16"
	switch {
	case s.quant.bits == 4:
		a.op("VMOVI $%d, V%d.B16", []int{0, 252}[v/2], shiftNEON) // the upper halves of the bytes hold the later places
		a.op("ADD $%d, %s, R16", 16*(v%2), code)
		a.valuesNEON(s.quant, at, scale, w)
	case s.quantised():
		a.op("ADD $%d, %s, R16", 16*v, code)
		a.valuesNEON(s.quant, at, scale, w)
	case s.plain == f32:
		a.op("FLDPQ %d(%s), (F%d, F%d)", 64*v, code, w, w+1)
		a.op("FLDPQ %d(%s), (F%d, F%d)", 64*v+32, code, w+2, w+3)
	default:
		a.op("FLDPQ %d(%s), (F16, F17)", 32*v, code)
		a.widenNEON(s.plain, 16, w, w+1)
		a.widenNEON(s.plain, 17, w+2, w+3)
	}
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
