package main

import "fmt"

const packParams = "src unsafe.Pointer, ld int, dst unsafe.Pointer, stride, lanes, width, k int"

func (a *assembler) packArguments() {
	a.op("MOVQ src+0(FP), SI")
	a.op("MOVQ ld+8(FP), DX")
	a.op("MOVQ dst+16(FP), DI")
	a.op("MOVQ stride+24(FP), R8")
	a.op("MOVQ lanes+32(FP), BX")
	a.op("MOVQ width+40(FP), CX")
	a.op("MOVQ k+48(FP), R9")
}

// ones sets register to 2^n - 1; n is in CX and less than 64.
func (a *assembler) ones(register string) {
	a.op("MOVQ $1, %s", register)
	a.op("SHLQ CX, %s", register)
	a.op("DECQ %s", register)
}

// halves splits the 32 bits of register into two masks.
func (a *assembler) halves(register, low, high string) {
	a.op("KMOVW %s, %s", register, low)
	a.op("SHRQ $16, %s", register)
	a.op("KMOVW %s, %s", register, high)
}

// transposeRows512 writes a packer of 16 rows: load reads places places of a row at (R10) to a register, by the masks
// that masks makes of AX; store writes the transposed registers. It fetches the same places of the next panel's rows:
// without that, packing waits for memory.
func (a *assembler) transposeRows512(d dtype, places int, masks func(), load func(z int), store func()) {
	a.packArguments()
	a.op("MOVQ DX, R13")
	a.op("IMULQ $%d, R13", cols512)
	a.ones("AX")
	a.op("KMOVW AX, K3")
	a.label("groups")
	a.op("MOVQ $-1, AX")
	a.op("CMPQ R9, $%d", places)
	a.op("JGE whole")
	a.op("MOVQ R9, CX")
	a.ones("AX")
	a.label("whole")
	masks()
	a.op("MOVQ SI, R10")
	a.op("MOVQ BX, R11")
	for r := range 16 {
		a.op("PREFETCHT1 (R10)(R13*1)")
		load(r)
		if r < 15 { // the rows that there are not read the last one again
			a.op("DECQ R11")
			a.op("LEAQ (R10)(DX*1), R12")
			a.op("CMOVQGT R12, R10")
		}
	}
	a.transpose16()
	store()
	a.op("ADDQ $%d, SI", places*d.size)
	a.op("SUBQ $%d, R9", places)
	a.op("JG groups")
	a.label("done")
	a.end()
}

func (a *assembler) storeStep512(z int) {
	a.op("VMOVUPS Z%d, K3, (DI)", z)
	a.op("ADDQ R8, DI")
}

// transpose512: 16 rows to float32 steps.
func (a *assembler) transpose512(d dtype) {
	a.begin(fmt.Sprintf("packs k places of 16 rows of %s as float32.", d.name), "transpose512"+d.name, packParams, 56)
	if d != bf16 {
		a.transposeRows512(d, 16, func() { a.op("KMOVW AX, K1") },
			func(z int) { a.load512(d, "(R10)", "K1", z) },
			func() {
				for r := range 16 {
					a.storeStep512(r)
				}
			})
		return
	}
	// A dword holds two places: the transposed dwords widen to two steps each.
	a.transposeRows512(d, 32, func() { a.op("KMOVD AX, K1") },
		func(z int) { a.op("VMOVDQU16.Z (R10), K1, Z%d", z) },
		func() {
			a.op("MOVL $0xffff0000, AX")
			a.op("VPBROADCASTD AX, Z31")
			for r := range 16 {
				if r == 8 { // buffers end at a multiple of 16 steps
					a.op("CMPQ R9, $16")
					a.op("JLE done")
				}
				a.op("VPSLLD $16, Z%d, Z%d", r, 16+r%8)
				a.op("VPANDD Z31, Z%d, Z%d", r, r)
				a.storeStep512(16 + r%8)
				a.storeStep512(r)
			}
		})
}

// transposePairs512: 16 rows to steps of pairs.
func (a *assembler) transposePairs512(d dtype) {
	a.begin(fmt.Sprintf("packs k places of 16 rows of %s as pairs of bfloat16.", d.name), "transposePairs512"+d.name, packParams, 56)
	masks := func() { a.halves("AX", "K1", "K2") }
	load := func(z int) {
		a.load512(d, "(R10)", "K1", 30)
		a.load512(d, fmt.Sprintf("%d(R10)", 16*d.size), "K2", 31)
		a.roundPairs(30, 31, z)
	}
	if d == bf16 {
		masks = func() { a.op("KMOVD AX, K1") }
		load = func(z int) { a.op("VMOVDQU16.Z (R10), K1, Z%d", z) }
	}
	a.transposeRows512(d, 32, masks, load, func() {
		for r := range 16 {
			a.storeStep512(r)
		}
	})
}

// transpose16 transposes the 16x16 dwords of Z0...Z15; it uses all registers.
func (a *assembler) transpose16() {
	for i := range 8 {
		a.op("VPUNPCKLDQ Z%d, Z%d, Z%d", 2*i+1, 2*i, 16+2*i)
		a.op("VPUNPCKHDQ Z%d, Z%d, Z%d", 2*i+1, 2*i, 17+2*i)
	}
	for q := range 4 {
		t := 16 + 4*q
		a.op("VPUNPCKLQDQ Z%d, Z%d, Z%d", t+2, t, 4*q)
		a.op("VPUNPCKHQDQ Z%d, Z%d, Z%d", t+2, t, 4*q+1)
		a.op("VPUNPCKLQDQ Z%d, Z%d, Z%d", t+3, t+1, 4*q+2)
		a.op("VPUNPCKHQDQ Z%d, Z%d, Z%d", t+3, t+1, 4*q+3)
	}
	for j := range 4 {
		a.op("VSHUFI32X4 $0x88, Z%d, Z%d, Z%d", 4+j, j, 16+j)
		a.op("VSHUFI32X4 $0x88, Z%d, Z%d, Z%d", 12+j, 8+j, 20+j)
		a.op("VSHUFI32X4 $0xdd, Z%d, Z%d, Z%d", 4+j, j, 24+j)
		a.op("VSHUFI32X4 $0xdd, Z%d, Z%d, Z%d", 12+j, 8+j, 28+j)
	}
	for j := range 4 {
		a.op("VSHUFI32X4 $0x88, Z%d, Z%d, Z%d", 20+j, 16+j, j)
		a.op("VSHUFI32X4 $0xdd, Z%d, Z%d, Z%d", 20+j, 16+j, 8+j)
		a.op("VSHUFI32X4 $0x88, Z%d, Z%d, Z%d", 28+j, 24+j, 4+j)
		a.op("VSHUFI32X4 $0xdd, Z%d, Z%d, Z%d", 28+j, 24+j, 12+j)
	}
}

// nextSlice sets R11 to how far the rows are that are packed next, slicePlaces further down: packers of panels fetch
// them. DX is the distance of rows.
func (a *assembler) nextSlice() {
	a.op("MOVQ DX, R11")
	a.op("SHLQ $5, R11")
}

// nextLanes is nextSlice where the width, in CX, may be that of a tile: tiles lie side by side, what is fetched for them
// is further right in the same row.
func (a *assembler) nextLanes(panel int) {
	a.nextSlice()
	a.op("MOVQ $512, R12")
	a.op("CMPQ CX, $%d", panel)
	a.op("CMOVQNE R12, R11")
}

// across512: neighbouring lanes, of 16 or up to 32, to float32 steps.
func (a *assembler) across512(d dtype, lanes int) {
	a.begin(fmt.Sprintf("packs k rows of up to %d columns of %s as float32.", lanes, d.name),
		fmt.Sprintf("across512%sx%d", d.name, lanes), packParams, 56)
	a.packArguments()
	a.nextLanes(cols512)
	a.ones("AX")
	a.halves("AX", "K3", "K4")
	a.op("MOVQ BX, CX")
	a.ones("AX")
	a.halves("AX", "K1", "K2")
	a.label("places")
	for h := range lanes / 16 {
		a.load512(d, fmt.Sprintf("%d(SI)", 16*d.size*h), fmt.Sprintf("K%d", 1+h), h)
		a.op("PREFETCHT1 %d(SI)(R11*1)", 64*h)
		a.op("VMOVUPS Z%d, K%d, %d(DI)", h, 3+h, 64*h)
	}
	a.op("ADDQ DX, SI")
	a.op("ADDQ R8, DI")
	a.op("DECQ R9")
	a.op("JNZ places")
	a.end()
}

// acrossPairs512: up to 32 neighbouring lanes to steps of pairs.
func (a *assembler) acrossPairs512(d dtype) {
	a.begin(fmt.Sprintf("packs k rows of up to 32 columns of %s as pairs of bfloat16.", d.name), "acrossPairs512"+d.name, packParams, 56)
	a.packArguments()
	a.nextLanes(cols512)
	a.op("MOVQ BX, CX")
	a.ones("AX")
	if d == bf16 {
		a.op("KMOVD AX, K1")
	} else {
		a.halves("AX", "K1", "K2")
	}
	a.op("VMOVDQU64 interleaveLow<>(SB), Z30")
	a.op("VMOVDQU64 interleaveHigh<>(SB), Z31")
	row := func(z int) {
		for line := 0; line < cols512*d.size; line += 64 {
			a.op("PREFETCHT1 %d(SI)(R11*1)", line)
		}
		if d == bf16 {
			a.op("VMOVDQU16.Z (SI), K1, Z%d", z)
			return
		}
		a.load512(d, "(SI)", "K1", 28)
		a.load512(d, fmt.Sprintf("%d(SI)", 16*d.size), "K2", 29)
		a.roundPairs(28, 29, z)
	}
	store := func() {
		a.op("VMOVDQA64 Z30, Z2")
		a.op("VMOVDQA64 Z31, Z3")
		a.op("VPERMI2W Z1, Z0, Z2")
		a.op("VPERMI2W Z1, Z0, Z3")
		a.op("VMOVDQU64 Z2, (DI)")
		a.op("VMOVDQU64 Z3, 64(DI)")
	}
	a.op("MOVQ R9, R10")
	a.op("SHRQ $1, R10")
	a.op("JZ odd")
	a.label("pairs")
	row(0)
	a.op("ADDQ DX, SI")
	row(1)
	a.op("ADDQ DX, SI")
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

// load2 reads 8 numbers at mem as float32.
func (a *assembler) load2(d dtype, mem string, y int) {
	switch d {
	case f32:
		a.op("VMOVUPS %s, Y%d", mem, y)
	case f16:
		a.op("VCVTPH2PS %s, Y%d", mem, y)
	default:
		a.op("VPMOVZXWD %s, Y%d", mem, y)
		a.op("VPSLLD $16, Y%d, Y%d", y, y)
	}
}

// transpose2: 8 rows to float32 steps. It stores 8 lanes whatever width is: the next step overwrites the rest.
func (a *assembler) transpose2(d dtype) {
	a.begin(fmt.Sprintf("packs k places, a multiple of 8, of 8 rows of %s as float32.", d.name), "transpose2"+d.name, packParams, 56)
	a.packArguments()
	a.op("MOVQ DX, R13")
	a.op("IMULQ $%d, R13", cols2)
	a.label("groups")
	a.op("MOVQ SI, R10")
	a.op("MOVQ BX, R11")
	for r := range 8 {
		a.op("PREFETCHT1 (R10)(R13*1)")
		a.load2(d, "(R10)", r)
		if r < 7 {
			a.op("DECQ R11")
			a.op("LEAQ (R10)(DX*1), R12")
			a.op("CMOVQGT R12, R10")
		}
	}
	a.transpose8()
	a.storeSteps2()
	a.op("ADDQ $%d, SI", 8*d.size)
	a.op("SUBQ $8, R9")
	a.op("JG groups")
	a.end()
}

// transpose8 transposes the 8x8 dwords of Y0...Y7 to Y8...Y15.
func (a *assembler) transpose8() {
	for i := range 4 {
		a.op("VUNPCKLPS Y%d, Y%d, Y%d", 2*i+1, 2*i, 8+2*i)
		a.op("VUNPCKHPS Y%d, Y%d, Y%d", 2*i+1, 2*i, 9+2*i)
	}
	for q := range 2 {
		t := 8 + 4*q
		a.op("VUNPCKLPD Y%d, Y%d, Y%d", t+2, t, 4*q)
		a.op("VUNPCKHPD Y%d, Y%d, Y%d", t+2, t, 4*q+1)
		a.op("VUNPCKLPD Y%d, Y%d, Y%d", t+3, t+1, 4*q+2)
		a.op("VUNPCKHPD Y%d, Y%d, Y%d", t+3, t+1, 4*q+3)
	}
	for j := range 4 {
		a.op("VPERM2F128 $0x20, Y%d, Y%d, Y%d", 4+j, j, 8+j)
		a.op("VPERM2F128 $0x31, Y%d, Y%d, Y%d", 4+j, j, 12+j)
	}
}

func (a *assembler) storeSteps2() {
	for r := range 8 {
		a.op("VMOVUPS Y%d, (DI)", 8+r)
		a.op("ADDQ R8, DI")
	}
}

// across2: 8 neighbouring lanes to float32 steps; fewer only of F32. It stores 8 lanes like transpose2.
func (a *assembler) across2(d dtype) {
	a.begin(fmt.Sprintf("packs k rows of 8 columns of %s as float32.", d.name), "across2"+d.name, packParams, 56)
	a.packArguments()
	a.nextLanes(cols2)
	if d == f32 {
		a.op("VMOVQ BX, X1")
		a.op("VPBROADCASTD X1, Y1")
		a.op("VPCMPGTD lanes<>(SB), Y1, Y1")
	}
	a.label("places")
	if d == f32 {
		a.op("VMASKMOVPS (SI), Y1, Y0")
	} else {
		a.load2(d, "(SI)", 0)
	}
	a.op("PREFETCHT1 (SI)(R11*1)")
	a.op("VMOVUPS Y0, (DI)")
	a.op("ADDQ DX, SI")
	a.op("ADDQ R8, DI")
	a.op("DECQ R9")
	a.op("JNZ places")
	a.end()
}

const roundComment = "rounds n float32, a multiple of 16, to bfloat16 numbers: to nearest even; a NaN stays one."

// round512 adds half of the last place that stays, less one if that place is even, and cuts the rest off.
func (a *assembler) round512() {
	a.begin(roundComment, "round512", "p unsafe.Pointer, n int", 16)
	a.op("MOVQ p+0(FP), DI")
	a.op("MOVQ n+8(FP), CX")
	for i, c := range []string{"0x7fff", "1", "0xffff0000", "0x400000"} {
		a.op("MOVL $%s, AX", c)
		a.op("VPBROADCASTD AX, Z%d", 4+i)
	}
	a.label("next")
	a.op("VMOVUPS (DI), Z0")
	a.op("VPSRLD $16, Z0, Z1")
	a.op("VPANDD Z5, Z1, Z1")
	a.op("VPADDD Z4, Z1, Z1")
	a.op("VPADDD Z0, Z1, Z1")
	a.op("VCMPPS $3, Z0, Z0, K1") // unordered: NaN
	a.op("VPORD Z7, Z0, K1, Z1")
	a.op("VPANDD Z6, Z1, Z1")
	a.op("VMOVUPS Z1, (DI)")
	a.op("ADDQ $64, DI")
	a.op("SUBQ $16, CX")
	a.op("JG next")
	a.end()
}

func (a *assembler) round2() {
	a.begin(roundComment, "round2", "p unsafe.Pointer, n int", 16)
	a.op("MOVQ p+0(FP), DI")
	a.op("MOVQ n+8(FP), CX")
	for i, c := range []string{"0x7fff", "1", "0xffff0000", "0x400000"} {
		a.op("MOVL $%s, AX", c)
		a.op("MOVQ AX, X%d", 4+i)
		a.op("VPBROADCASTD X%d, Y%d", 4+i, 4+i)
	}
	a.label("next")
	a.op("VMOVUPS (DI), Y0")
	a.op("VPSRLD $16, Y0, Y1")
	a.op("VPAND Y5, Y1, Y1")
	a.op("VPADDD Y4, Y1, Y1")
	a.op("VPADDD Y0, Y1, Y1")
	a.op("VCMPPS $3, Y0, Y0, Y2")
	a.op("VPOR Y7, Y0, Y3")
	a.op("VBLENDVPS Y2, Y3, Y1, Y1")
	a.op("VPAND Y6, Y1, Y1")
	a.op("VMOVUPS Y1, (DI)")
	a.op("ADDQ $32, DI")
	a.op("SUBQ $8, CX")
	a.op("JG next")
	a.end()
}
