package main

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend/cpu/neon"
)

// The NEON kernels. A tile is 6 rows x 16 columns: 24 accumulators, four registers of a step's columns and four of rows,
// which hold the tile's dwords of several steps. A round of four steps is 96 fused multiply-adds by a lane of a register,
// which spares the copies, 11 loads of two registers each, and the end of the loop: 1.16 instructions for each. 24 chains
// are enough for four pipes of four cycles, the most that there are. 8 x 12 has as many chains and 10 loads, but reads
// more of the rows, which lie in the second-level cache; and blocks of a quantised weight are no multiple of 12.
const (
	rowsNEON, colsNEON = 6, 16
	columnNEON         = 4 * rowsNEON // the first register of a step's columns
	rowNEON            = columnNEON + colsNEON/4
)

func nameNEON(rows int) string { return fmt.Sprintf("multiplyNEON_%dx%d", rows, colsNEON) }

// generateNEON returns the assembly for arm64 and its declarations.
func generateNEON() (code, decl []byte, err error) {
	a := &assembler{}
	for rows := 1; rows <= rowsNEON; rows++ {
		a.multiplyNEON(rows)
	}
	for _, d := range dtypes {
		a.transposeNEON(d)
		for _, n := range lanesNEON(d) {
			a.acrossNEON(d, n)
		}
	}
	for _, q := range quantisedFormats {
		a.unpackRowsNEON(q)
		a.unpackAcrossNEON(q)
	}
	for _, s := range sources() {
		a.dotNEON(s)
	}
	a.roundNEON()
	a.planes()
	a.list("multiplyNEON", rowsNEON, nameNEON)
	return a.files()
}

// constantNEON sets all lanes of v to bits.
func (a *assembler) constantNEON(bits string, v int) {
	a.op("MOVW $%s, R16", bits)
	a.op("VDUP R16, V%d.S4", v)
}

// multiplyNEON writes the kernel for tiles of rows x 16. The frame holds the tile where not all columns are wanted.
func (a *assembler) multiplyNEON(rows int) {
	const line = 4 * colsNEON
	a.beginFrame(fmt.Sprintf("%d rows x %d columns, F32.", rows, colsNEON), nameNEON(rows), "t *tileProduct", rows*line+8, 8)
	a.op("MOVD t+0(FP), R0")
	for i, field := range []string{"a", "b", "c", "ldc", "steps", "add", "ldadd", "cols"} {
		a.op("MOVD tileProduct_%s(R0), R%d", field, 1+i)
	}
	a.op("LSL $2, R4")
	a.op("LSL $2, R7")
	a.op("MOVD R3, R9")
	for r := range rows {
		a.op("PRFM (R9), PLDL1KEEP")
		if r < rows-1 {
			a.op("ADD R4, R9")
		}
	}
	for i := range 4 * rows {
		a.op("VEOR V%d.B16, V%d.B16, V%d.B16", i, i, i)
	}
	columns := func(u int) {
		a.op("FLDPQ %d(R2), (F%d, F%d)", u*line, columnNEON, columnNEON+1)
		a.op("FLDPQ %d(R2), (F%d, F%d)", u*line+32, columnNEON+2, columnNEON+3)
	}
	a.op("LSR $2, R5, R9")
	a.op("AND $%d, R5", unroll-1)
	a.op("CBZ R9, rest")
	a.op("PCALIGN $32")
	a.label("rounds")
	for u := range unroll {
		columns(u)
		for r := range rows {
			at := u*rows + r // of the round's dwords
			v := rowNEON + at/4%4
			if at%8 == 0 && at/4+1 < rows {
				a.op("FLDPQ %d(R1), (F%d, F%d)", 4*at, v, v+1)
			} else if at%8 == 0 {
				a.op("FMOVQ %d(R1), F%d", 4*at, v)
			}
			for q := range 4 {
				a.op("%s", neon.FMLALane(v, at%4, columnNEON+q, 4*r+q))
			}
		}
	}
	a.op("ADD $%d, R2", unroll*line)
	a.op("ADD $%d, R1", unroll*4*rows)
	a.op("SUBS $1, R9")
	a.op("BNE rounds")
	a.label("rest")
	a.op("CBZ R5, finish")
	a.label("steps")
	columns(0)
	a.op("ADD $%d, R2", line)
	for r := range rows {
		v := rowNEON + r%4
		a.op("VLD1R.P 4(R1), [V%d.S4]", v)
		for q := range 4 {
			a.op("VFMLA V%d.S4, V%d.S4, V%d.S4", columnNEON+q, v, 4*r+q)
		}
	}
	a.op("SUBS $1, R5")
	a.op("BNE steps")
	a.label("finish")
	a.finishNEON(rows)
}

// finishNEON scales the rows by alpha, adds what is to be added and stores them.
func (a *assembler) finishNEON(rows int) {
	const alpha = rowNEON
	a.op("MOVW tileProduct_alpha(R0), R9")
	a.op("VDUP R9, V%d.S4", alpha)
	store := func(v int) {
		a.op("FSTPQ (F%d, F%d), (R3)", v, v+1)
		a.op("FSTPQ (F%d, F%d), 32(R3)", v+2, v+3)
		a.op("ADD R4, R3")
	}
	a.op("CMP $%d, R8", colsNEON)
	a.op("BNE part")
	a.op("CBZ R6, scaled")
	for r := range rows {
		a.op("FLDPQ (R6), (F%d, F%d)", columnNEON, columnNEON+1)
		a.op("FLDPQ 32(R6), (F%d, F%d)", columnNEON+2, columnNEON+3)
		a.op("ADD R7, R6")
		for q := range 4 {
			a.op("VFMLA V%d.S4, V%d.S4, V%d.S4", alpha, 4*r+q, columnNEON+q)
		}
		store(columnNEON)
	}
	a.op("RET")
	a.label("scaled")
	for r := range rows {
		for q := range 4 {
			a.op("%s", neon.FMUL.On(alpha, 4*r+q, 4*r+q))
		}
		store(4 * r)
	}
	a.op("RET")
	a.label("part") // element by element, with the same arithmetic
	a.op("MOVD $tile-%d(SP), R9", rows*4*colsNEON)
	for i := 0; i < 4*rows; i += 2 {
		a.op("FSTPQ (F%d, F%d), %d(R9)", i, i+1, 16*i)
	}
	a.op("MOVD $%d, R10", rows)
	a.label("row")
	a.op("MOVD R9, R11")
	a.op("MOVD R3, R12")
	a.op("MOVD R6, R13")
	a.op("MOVD R8, R14")
	a.label("element")
	a.op("FMOVS.P 4(R11), F0")
	a.op("CBZ R6, alone")
	a.op("FMOVS.P 4(R13), F1")
	a.op("FMADDS F%d, F1, F0, F0", alpha)
	a.op("B put")
	a.label("alone")
	a.op("FMULS F%d, F0, F0", alpha)
	a.label("put")
	a.op("FMOVS.P F0, 4(R12)")
	a.op("SUBS $1, R14")
	a.op("BNE element")
	a.op("ADD $%d, R9", 4*colsNEON)
	a.op("ADD R4, R3")
	a.op("CBZ R6, next")
	a.op("ADD R7, R6")
	a.label("next")
	a.op("SUBS $1, R10")
	a.op("BNE row")
	a.op("RET")
}

func (a *assembler) packArgumentsNEON() {
	for i, arg := range []string{"src+0", "ld+8", "dst+16", "stride+24", "lanes+32"} {
		a.op("MOVD %s(FP), R%d", arg, i)
	}
	a.op("MOVD k+48(FP), R6")
}

// widenNEON converts eight numbers of 16 bits in v to float32 in low and high.
func (a *assembler) widenNEON(d dtype, v, low, high int) {
	if d == f16 {
		a.op("%s", neon.FCVTLH.On(v, low))
		a.op("%s", neon.FCVTL2H.On(v, high))
		return
	}
	a.op("%s", neon.SHLL.On(v, low))
	a.op("%s", neon.SHLL2.On(v, high))
}

// transposeNEON: 8 rows to float32 steps. It stores 8 lanes whatever width is: the next step overwrites the rest. It
// fetches the same places of the next panel's rows.
func (a *assembler) transposeNEON(d dtype) {
	a.begin(fmt.Sprintf("packs k places, a multiple of 8, of 8 rows of %s as float32.", d.name), "transposeNEON"+d.name, packParams, 56)
	a.packArgumentsNEON()
	a.op("LSL $4, R1, R9") // 16 rows
	a.label("groups")
	a.op("MOVD R0, R7")
	a.op("MOVD R4, R8")
	for r := range 8 {
		a.op("ADD R9, R7, R10")
		a.op("PRFM (R10), PLDL2KEEP")
		if d == f32 {
			a.op("FLDPQ (R7), (F%d, F%d)", 2*r, 2*r+1)
		} else {
			a.op("FMOVQ (R7), F31")
			a.widenNEON(d, 31, 2*r, 2*r+1)
		}
		if r < 7 { // the rows that there are not read the last one again
			a.op("SUBS $1, R8")
			a.op("ADD R1, R7, R10")
			a.op("CSEL GT, R10, R7, R7")
		}
	}
	for first := range 2 {
		for _, row := range []int{0, 8} {
			a.transpose4(first+row, first+row+2, first+row+4, first+row+6, 16)
		}
	}
	for step := range 8 {
		v := step%4*2 + step/4
		a.op("FSTPQ (F%d, F%d), (R2)", v, v+8)
		a.op("ADD R3, R2")
	}
	a.op("ADD $%d, R0", 8*d.size)
	a.op("SUBS $8, R6")
	a.op("BGT groups")
	a.op("RET")
}

// transpose4 transposes the 4x4 dwords of four registers, in place; it uses four registers from t on.
func (a *assembler) transpose4(r0, r1, r2, r3, t int) {
	for i, pair := range [][2]int{{r0, r1}, {r2, r3}} {
		a.op("VTRN1 V%d.S4, V%d.S4, V%d.S4", pair[1], pair[0], t+2*i)
		a.op("VTRN2 V%d.S4, V%d.S4, V%d.S4", pair[1], pair[0], t+2*i+1)
	}
	a.op("VTRN1 V%d.D2, V%d.D2, V%d.D2", t+2, t, r0)
	a.op("VTRN1 V%d.D2, V%d.D2, V%d.D2", t+3, t+1, r1)
	a.op("VTRN2 V%d.D2, V%d.D2, V%d.D2", t+2, t, r2)
	a.op("VTRN2 V%d.D2, V%d.D2, V%d.D2", t+3, t+1, r3)
}

// lanesNEON are the numbers of neighbouring lanes that there are packers for.
func lanesNEON(d dtype) []int {
	if d == f32 {
		return []int{16, 8, 4, 2, 1}
	}
	return []int{16, 8, 4}
}

// acrossNEON: neighbouring lanes to float32 steps.
func (a *assembler) acrossNEON(d dtype, lanes int) {
	a.begin(fmt.Sprintf("packs k rows of %d columns of %s as float32.", lanes, d.name), fmt.Sprintf("acrossNEON%sx%d", d.name, lanes), packParams, 56)
	a.packArgumentsNEON()
	a.label("places")
	load := map[int]string{32: "FLDPQ %d(R0), (F%d, F%d)", 16: "FMOVQ %d(R0), F%d", 8: "FMOVD %d(R0), F%d", 4: "FMOVS %d(R0), F%d"}
	bytes := lanes * d.size
	read := 0 // the first register that holds them as they are
	if d != f32 {
		read = 4
	}
	switch {
	case bytes < 32:
		a.op(load[bytes], 0, read)
	default:
		for at := 0; at < bytes; at += 32 {
			a.op(load[32], at, read+at/16, read+at/16+1)
		}
	}
	if lanes == colsNEON {
		a.op("PRFM %d(R0), PLDL2KEEP", 4*colsNEON*d.size) // four panels further
	}
	if d != f32 {
		for i := 0; i < lanes; i += 8 {
			a.widenNEON(d, read+i/8, i/4, i/4+1)
		}
	}
	switch {
	case lanes < 8:
		store := map[int]string{4: "FMOVQ", 2: "FMOVD", 1: "FMOVS"}
		a.op("%s F0, (R2)", store[lanes])
	default:
		for i := 0; i < lanes; i += 8 {
			a.op("FSTPQ (F%d, F%d), %d(R2)", i/4, i/4+1, 4*i)
		}
	}
	a.op("ADD R1, R0")
	a.op("ADD R3, R2")
	a.op("SUBS $1, R6")
	a.op("BNE places")
	a.op("RET")
}

// roundNEON adds half of the last place that stays, less one if that place is even, and cuts the rest off.
func (a *assembler) roundNEON() {
	a.begin(roundComment, "roundNEON", "p unsafe.Pointer, n int", 16)
	a.op("MOVD p+0(FP), R0")
	a.op("MOVD n+8(FP), R1")
	const half, one, upper, quiet = 16, 17, 18, 19
	for i, bits := range []string{"0x7fff", "1", "0xffff0000", "0x400000"} {
		a.constantNEON(bits, half+i)
	}
	a.label("next")
	a.op("FLDPQ (R0), (F0, F1)")
	a.op("FLDPQ 32(R0), (F2, F3)")
	for x := range 4 {
		t, number := 4+x, 8+x
		a.op("VUSHR $16, V%d.S4, V%d.S4", x, t)
		a.op("VAND V%d.B16, V%d.B16, V%d.B16", one, t, t)
		a.op("VADD V%d.S4, V%d.S4, V%d.S4", half, t, t)
		a.op("VADD V%d.S4, V%d.S4, V%d.S4", x, t, t)
		a.op("%s", neon.FCMEQ.On(x, x, number)) // not a NaN
		a.op("VORR V%d.B16, V%d.B16, V%d.B16", quiet, x, x)
		a.op("VBIF V%d.B16, V%d.B16, V%d.B16", number, x, t)
		a.op("VAND V%d.B16, V%d.B16, V%d.B16", upper, t, t)
	}
	a.op("FSTPQ.P (F4, F5), 32(R0)")
	a.op("FSTPQ.P (F6, F7), 32(R0)")
	a.op("SUBS $16, R1")
	a.op("BGT next")
	a.op("RET")
}
