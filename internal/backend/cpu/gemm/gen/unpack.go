package main

import "fmt"

// Kernels that pack panels of quantised matrices. Places and lanes come in runs that begin and end with whole parts of a
// block, as they do where rows are a multiple of the block: there is no tail along a row.

const unpackParams = "src unsafe.Pointer, ld int, scales unsafe.Pointer, lds, at int, dst unsafe.Pointer, stride, lanes, k int"

// quantised is a format of codes. The names are those of package gemm's functions.
type quantised struct {
	name string
	bits int
}

var quantisedFormats = []quantised{{"NF4", 4}, {"Int8", 8}}

func (a *assembler) unpackArguments() {
	a.op("MOVQ src+0(FP), SI")
	a.op("MOVQ ld+8(FP), DX")
	a.op("MOVQ lds+24(FP), CX")
	a.op("MOVQ at+32(FP), R14")
	a.op("MOVQ dst+40(FP), DI")
	a.op("MOVQ stride+48(FP), R8")
	a.op("MOVQ k+64(FP), R9")
}

// shift sets X31 (X15 with AVX2) to how far the codes of nf4 are to be shifted: 0 in the first half of a block, 4 in the
// second.
func (a *assembler) shift(q quantised, register string) {
	if q.bits != 4 {
		return
	}
	a.op("MOVQ R14, R12")
	a.op("SHRQ $5, R12")
	a.op("SHLQ $2, R12")
	a.op("VMOVQ R12, %s", register)
}

// advance moves src and scales on by places of a row, and at with them.
func (a *assembler) advance(q quantised, places int) {
	a.op("ADDQ $%d, SI", places)
	a.op("ADDQ $%d, R14", places)
	if q.bits == 4 { // the second half of a block is in the same bytes
		a.op("CMPQ R14, $32")
		a.op("JNE halves")
		a.op("SUBQ $32, SI")
		a.label("halves")
	}
	a.op("CMPQ R14, $64")
	a.op("JNE block")
	a.op("XORL R14, R14")
	a.op("ADDQ $4, scales+16(FP)")
	a.label("block")
}

// rows runs row for n rows: its codes are at (R10), its scale at (AX). The rows that there are not read the last one
// again. The same places of the next panel's rows are fetched.
func (a *assembler) rows(n int, row func(r int)) {
	a.op("MOVQ SI, R10")
	a.op("MOVQ scales+16(FP), AX")
	a.op("MOVQ lanes+56(FP), R11")
	for r := range n {
		a.op("PREFETCHT1 (R10)(R13*1)")
		row(r)
		if r < n-1 {
			a.op("LEAQ (AX)(CX*1), BX")
			a.op("LEAQ (R10)(DX*1), R12")
			a.op("DECQ R11")
			a.op("CMOVQGT R12, R10")
			a.op("CMOVQGT BX, AX")
		}
	}
}

// values512 reads 16 codes at mem and writes their values, float32, to z. nf4's are in Z30, X31 says how far to shift.
func (a *assembler) values512(q quantised, mem, scale string, z int) {
	if q.bits == 4 {
		a.op("VPMOVZXBD %s, Z%d", mem, z)
		a.op("VPSRLD X31, Z%d, Z%d", z, z)
		a.op("VPERMPS Z30, Z%d, Z%d", z, z)
	} else {
		a.op("VPMOVSXBD %s, Z%d", mem, z)
		a.op("VCVTDQ2PS Z%d, Z%d", z, z)
	}
	a.op("VMULPS.BCST %s, Z%d, Z%d", scale, z, z)
}

// pairs512 reads 32 codes at mem and writes their values, bfloat16, to z; it uses two registers from t on. nf4's values
// are scaled and rounded all sixteen, twice side by side: the code's upper bits choose the copy.
func (a *assembler) pairs512(q quantised, mem, scale string, t, z int) {
	if q.bits == 4 {
		a.op("VPMOVZXBW %s, Z%d", mem, t)
		a.op("VMULPS.BCST %s, Z30, Z%d", scale, t+1)
		a.op("VPSRLW X31, Z%d, Z%d", t, t)
		a.roundPairs(t+1, t+1, t+1)
		a.op("VPERMW Z%d, Z%d, Z%d", t+1, t, z)
		return
	}
	a.values512(q, mem, scale, t)
	a.values512(q, "16"+mem, scale, t+1)
	a.roundPairs(t, t+1, z)
}

func (a *assembler) beginUnpack(name, what string) {
	a.begin(what, name, unpackParams, 72)
	a.unpackArguments()
}

// unpackRows512: 16 rows to steps of pairs or of float32.
func (a *assembler) unpackRows512(q quantised, pairs bool) {
	places, what := 16, "float32"
	if pairs {
		places, what = 32, "pairs of bfloat16"
	}
	a.beginUnpack("transpose"+unpackName512(q, pairs), fmt.Sprintf("packs k places, a multiple of %d, of 16 rows of %s as %s.", places, q.name, what))
	a.op("MOVQ DX, R13")
	a.op("IMULQ $%d, R13", cols512)
	a.label("groups")
	if q.bits == 4 {
		a.op("VMOVUPS nf4Values<>(SB), Z30")
	}
	a.shift(q, "X31")
	a.rows(16, func(r int) {
		if pairs {
			a.pairs512(q, "(R10)", "(AX)", 16+r%4*2, r)
		} else {
			a.values512(q, "(R10)", "(AX)", r)
		}
	})
	a.transpose16()
	for r := range 16 {
		a.op("VMOVUPS Z%d, (DI)", r)
		a.op("ADDQ R8, DI")
	}
	a.advance(q, places)
	a.op("SUBQ $%d, R9", places)
	a.op("JG groups")
	a.end()
}

func unpackName512(q quantised, pairs bool) string {
	if pairs {
		return "Pairs512" + q.name
	}
	return "512" + q.name
}

// nextRow moves on by a row.
func (a *assembler) nextRow() {
	a.op("ADDQ DX, SI")
	a.op("ADDQ CX, AX")
}

// unpackAcross512: 32 neighbouring lanes to float32 steps.
func (a *assembler) unpackAcross512(q quantised) {
	a.beginUnpack("across512"+q.name, fmt.Sprintf("packs k rows of 32 columns of %s as float32.", q.name))
	a.op("MOVQ scales+16(FP), AX")
	if q.bits == 4 {
		a.op("VMOVUPS nf4Values<>(SB), Z30")
	}
	a.shift(q, "X31")
	a.nextSlice()
	a.label("places")
	a.op("PREFETCHT1 (SI)(R11*1)")
	for h := range 2 {
		a.values512(q, fmt.Sprintf("%d(SI)", 16*h), "(AX)", h)
		a.op("VMOVUPS Z%d, %d(DI)", h, 64*h)
	}
	a.nextRow()
	a.op("ADDQ R8, DI")
	a.op("DECQ R9")
	a.op("JNZ places")
	a.end()
}

// unpackAcrossPairs512: 32 neighbouring lanes to steps of pairs.
func (a *assembler) unpackAcrossPairs512(q quantised) {
	a.beginUnpack("acrossPairs512"+q.name, fmt.Sprintf("packs k rows of 32 columns of %s as pairs of bfloat16.", q.name))
	a.op("MOVQ scales+16(FP), AX")
	if q.bits == 4 {
		a.op("VMOVUPS nf4Values<>(SB), Z30")
	}
	a.shift(q, "X31")
	a.op("VMOVDQU64 interleaveLow<>(SB), Z28")
	a.op("VMOVDQU64 interleaveHigh<>(SB), Z29")
	row := func(z int) {
		a.op("PREFETCHT1 (SI)(R11*1)")
		a.pairs512(q, "(SI)", "(AX)", 4+2*z, z)
		a.nextRow()
	}
	store := func() {
		a.op("VMOVDQA64 Z28, Z2")
		a.op("VMOVDQA64 Z29, Z3")
		a.op("VPERMI2W Z1, Z0, Z2")
		a.op("VPERMI2W Z1, Z0, Z3")
		a.op("VMOVDQU64 Z2, (DI)")
		a.op("VMOVDQU64 Z3, 64(DI)")
	}
	a.nextSlice()
	a.op("MOVQ R9, R10")
	a.op("SHRQ $1, R10")
	a.op("JZ odd")
	a.label("pairs")
	row(0)
	row(1)
	store()
	a.op("ADDQ R8, DI")
	a.op("DECQ R10")
	a.op("JNZ pairs")
	a.label("odd")
	a.op("TESTQ $1, R9")
	a.op("JZ done")
	row(0)
	a.op("VPXORQ Z1, Z1, Z1")
	store()
	a.label("done")
	a.end()
}

// values2 reads 8 codes at mem and writes their values, not yet scaled, to y; it uses Y12 and Y13. X15 says how far to
// shift nf4's. Bit 3 of a code chooses one half of the code book.
func (a *assembler) values2(q quantised, mem string, y int) {
	if q.bits == 4 {
		a.op("VPMOVZXBD %s, Y%d", mem, y)
		a.op("VPSRLD X15, Y%d, Y%d", y, y)
		a.op("VPERMPS nf4Values<>(SB), Y%d, Y12", y)
		a.op("VPERMPS nf4Values<>+32(SB), Y%d, Y13", y)
		a.op("VPSLLD $28, Y%d, Y%d", y, y)
		a.op("VBLENDVPS Y%d, Y13, Y12, Y%d", y, y)
	} else {
		a.op("VPMOVSXBD %s, Y%d", mem, y)
		a.op("VCVTDQ2PS Y%d, Y%d", y, y)
	}
}

// unpackRows2: 8 rows to float32 steps.
func (a *assembler) unpackRows2(q quantised) {
	a.beginUnpack("transpose2"+q.name, fmt.Sprintf("packs k places, a multiple of 8, of 8 rows of %s as float32.", q.name))
	a.op("MOVQ DX, R13")
	a.op("IMULQ $%d, R13", cols2)
	a.label("groups")
	a.shift(q, "X15")
	a.rows(8, func(r int) {
		a.values2(q, "(R10)", r)
		a.op("VBROADCASTSS (AX), Y14")
		a.op("VMULPS Y14, Y%d, Y%d", r, r)
	})
	a.transpose8()
	a.storeSteps2()
	a.advance(q, 8)
	a.op("SUBQ $8, R9")
	a.op("JG groups")
	a.end()
}

// unpackAcross2: 16 neighbouring lanes to float32 steps.
func (a *assembler) unpackAcross2(q quantised) {
	a.beginUnpack("across2"+q.name, fmt.Sprintf("packs k rows of 16 columns of %s as float32.", q.name))
	a.op("MOVQ scales+16(FP), AX")
	a.shift(q, "X15")
	a.nextSlice()
	a.label("places")
	a.op("PREFETCHT1 (SI)(R11*1)")
	a.op("VBROADCASTSS (AX), Y14")
	for h := range 2 {
		a.values2(q, fmt.Sprintf("%d(SI)", 8*h), h)
		a.op("VMULPS Y14, Y%d, Y%d", h, h)
		a.op("VMOVUPS Y%d, %d(DI)", h, 32*h)
	}
	a.nextRow()
	a.op("ADDQ R8, DI")
	a.op("DECQ R9")
	a.op("JNZ places")
	a.end()
}

// nestedScales decodes nf4's scales: of each of rows rows n blocks, from the given one on. A scale is a value of the code
// book times its 256 blocks' factor, rounded, plus offset.
func (a *assembler) nestedScales() {
	a.begin("decodes the scales of n blocks of each row; rows are perRow blocks apart.", "nestedScales",
		"dst unsafe.Pointer, n, rows int, codes unsafe.Pointer, first, perRow int, factors, values unsafe.Pointer, offset float32", 68)
	a.op("MOVQ dst+0(FP), DI")
	a.op("MOVQ rows+16(FP), R9")
	a.op("MOVQ codes+24(FP), SI")
	a.op("MOVQ first+32(FP), DX")
	a.op("MOVQ factors+48(FP), R10")
	a.op("MOVQ values+56(FP), R11")
	a.op("VBROADCASTSS offset+64(FP), X1")
	a.label("rows")
	a.op("MOVQ n+8(FP), CX")
	a.op("MOVQ DX, R8")
	a.label("blocks")
	a.op("MOVQ R8, BX")
	a.op("SHRQ $8, BX")
	a.op("CMPQ CX, $4")
	a.op("JL one")
	a.op("MOVBLZX R8, AX")
	a.op("CMPL AX, $252") // four that share a factor
	a.op("JGT one")
	for i, r := range []string{"AX", "R12", "R13", "R14"} {
		a.op("MOVBLZX %d(SI)(R8*1), %s", i, r)
	}
	a.op("VMOVSS (R11)(AX*4), X0")
	for i, r := range []string{"R12", "R13", "R14"} {
		a.op("VINSERTPS $%d, (R11)(%s*4), X0, X0", 16*(i+1), r)
	}
	a.op("VBROADCASTSS (R10)(BX*4), X2")
	a.op("VMULPS X2, X0, X0")
	a.op("VADDPS X1, X0, X0")
	a.op("VMOVUPS X0, (DI)")
	a.op("ADDQ $4, R8")
	a.op("ADDQ $16, DI")
	a.op("SUBQ $4, CX")
	a.op("JNZ blocks")
	a.op("JMP next")
	a.label("one")
	a.op("MOVBLZX (SI)(R8*1), AX")
	a.op("VMOVSS (R11)(AX*4), X0")
	a.op("VMULSS (R10)(BX*4), X0, X0")
	a.op("VADDSS X1, X0, X0")
	a.op("VMOVSS X0, (DI)")
	a.op("INCQ R8")
	a.op("ADDQ $4, DI")
	a.op("DECQ CX")
	a.op("JNZ blocks")
	a.label("next")
	a.op("ADDQ perRow+40(FP), DX")
	a.op("DECQ R9")
	a.op("JNZ rows")
	a.op("RET")
}
