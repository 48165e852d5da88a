package main

import (
	"fmt"
	"strings"
)

// Go's assembler does not know the tile instructions of AMX: they are written as bytes (Intel SDM, volume 2).

// registers have the numbers of the general registers.
var registers = map[string]int{"AX": 0, "CX": 1, "DX": 2, "BX": 3, "SI": 6, "DI": 7, "R8": 8, "R9": 9, "R10": 10, "R11": 11}

// The prefixes that tell the tile instructions of an opcode apart.
const (
	prefixNone, prefix66, prefixF3, prefixF2 = 0, 1, 2, 3
)

// vex encodes the prefix and opcode of a 128-bit instruction of map 0F38. x and b are the upper bits of the index and the
// base register, v is a second source.
func vex(op byte, prefix, x, b, v int) []byte {
	return []byte{0xc4, 0x82 | byte(1-x)<<6 | byte(1-b)<<5, byte(^v&15)<<3 | byte(prefix), op}
}

// instruction writes b as directives.
func instruction(b []byte) (s string) {
	for len(b) >= 4 {
		s += fmt.Sprintf("LONG $0x%02x%02x%02x%02x; ", b[3], b[2], b[1], b[0])
		b = b[4:]
	}
	for _, v := range b {
		s += fmt.Sprintf("BYTE $0x%02x; ", v)
	}
	return s[:len(s)-2]
}

// tileMemory encodes an instruction on tile t and the 16 rows at disp(base), index<<scale bytes apart. base is no register
// that needs a displacement.
func tileMemory(prefix, t int, base string, disp int, index string, scale int) []byte {
	b, x := registers[base], registers[index]
	code := vex(0x4b, prefix, x>>3, b>>3, 0)
	sib := byte(scale<<6 | x&7<<3 | b&7)
	switch {
	case disp == 0:
		return append(code, byte(t<<3|4), sib)
	case disp < 128:
		return append(code, byte(0x40|t<<3|4), sib, byte(disp))
	default:
		return append(code, byte(0x80|t<<3|4), sib, byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
	}
}

func (a *assembler) tile(name string, prefix, t int, base string, disp int, index string, scale int) {
	a.op("%s // %s %d(%s)(%s*%d), T%d", instruction(tileMemory(prefix, t, base, disp, index, scale)), name, disp, base, index, 1<<scale, t)
}

// tileLoad loads a tile; far has it pass the first-level cache by.
func (a *assembler) tileLoad(far bool, t int, base string, disp, scale int) {
	if far {
		a.tile("TILELOADDT1", prefix66, t, base, disp, "R9", scale)
		return
	}
	a.tile("TILELOADD", prefixF2, t, base, disp, "R9", scale)
}

func (a *assembler) tileStore(t int, base string, disp, scale int) {
	a.tile("TILESTORED", prefixF3, t, base, disp, "R9", scale)
}

func (a *assembler) tileZero(t int) {
	a.op("%s // TILEZERO T%d", instruction(append(vex(0x49, prefixF2, 0, 0, 0), byte(0xc0|t<<3))), t)
}

// tileConfigure loads the configuration at (CX).
func (a *assembler) tileConfigure() {
	a.op("LEAQ tileConfiguration<>(SB), CX")
	a.op("%s // LDTILECFG (CX)", instruction(append(vex(0x49, prefixNone, 0, 0, 0), 0x01)))
}

func (a *assembler) tileRelease() {
	a.op("%s // TILERELEASE", instruction(append(vex(0x49, prefixNone, 0, 0, 0), 0xc0)))
}

// tileDot adds the products of tiles x and y to tile sum.
func (a *assembler) tileDot(y, x, sum int) {
	a.op("%s // TDPBF16PS T%d, T%d, T%d", instruction(append(vex(0x5c, prefixF3, 0, 0, y), byte(0xc0|sum<<3|x))), y, x, sum)
}

// generateAMX returns the assembly of the tile products and its declarations.
func generateAMX() (code, decl []byte, err error) {
	a := &assembler{}
	for f := range tileModes {
		if f.valid() {
			a.multiplyTiles(f)
		}
	}
	a.finishTiles()
	a.tilesOfRows()
	a.tilesOfColumns()
	a.tileCeiling()
	a.begin("waits until what was stored past the caches can be seen.", "storeFence", "", 0)
	a.op("SFENCE")
	a.op("RET")
	a.tileConstants()
	fmt.Fprintf(&a.decl, "\nvar tileMultipliers = [tileModes]func(t *tileCall){\n")
	for f := range tileModes {
		if f.valid() {
			fmt.Fprintf(&a.decl, "\t%s: %s,\n", f.flags(), f.name())
		}
	}
	fmt.Fprintf(&a.decl, "}\n")
	return a.files()
}

// tileMode is package gemm's tileFlags.
type tileMode uint8

const (
	addSums tileMode = 1 << iota
	addAdd
	toResult
	pastCaches
	tileModes
)

func (f tileMode) has(g tileMode) bool { return f&g != 0 }

// valid reports whether there is such a kernel. What was read just now is not stored past the caches.
func (f tileMode) valid() bool {
	return f&(addSums|addAdd) != addSums|addAdd && (!f.has(pastCaches) || f.has(toResult) && !f.has(addAdd))
}

func (f tileMode) name() string {
	name := "multiplyTiles"
	for _, part := range []struct {
		f    tileMode
		name string
	}{{addSums, "Sums"}, {addAdd, "Add"}, {toResult, "Result"}, {pastCaches, "Past"}} {
		if f.has(part.f) {
			name += part.name
		}
	}
	return name
}

// flags is f as package gemm writes it.
func (f tileMode) flags() string {
	s := "0"
	for i, name := range []string{"addSums", "addAdd", "toResult", "pastCaches"} {
		if f.has(1 << i) {
			s += " | " + name
		}
	}
	return strings.TrimPrefix(s, "0 | ")
}

// multiplyTiles writes a kernel: blocks of 32 rows, streamed from the second-level cache, times one panel, which stays in the
// first. The 2x2 tiles of a block begin with zeros. A finished block is stored to a scratch in the first-level cache, and
// vector instructions deal with it beside the products of the next block, two rows a k step.
//
// SI tiles, BX panel, CX k steps left, DX blocks left, R9 64, R10 and R13 what is fetched; DI sums, R14 out, R15 add, R8
// from add to the next block's; R11 the next row of the scratch, 0 before there is one, R12 its end.
func (a *assembler) multiplyTiles(f tileMode) {
	a.begin("multiplies tiles by a panel; its name says what becomes of the product.", f.name(), "t *tileCall", 8)
	a.op("MOVQ t+0(FP), AX")
	a.tileConfigure()
	a.op("MOVQ tileCall_a(AX), SI")
	a.op("MOVQ tileCall_blocks(AX), DX")
	a.op("MOVQ tileCall_nextB(AX), R10")
	a.op("MOVQ tileCall_nextA(AX), R13")
	a.op("MOVQ tileCall_scratch(AX), R12")
	a.op("ADDQ $4096, R12")
	a.op("MOVQ $64, R9")
	a.op("XORL R11, R11")
	if f.sums() {
		a.op("MOVQ tileCall_sums(AX), DI")
	}
	a.op("VBROADCASTSS tileCall_alpha(AX), Z31")
	if f.has(toResult) {
		a.op("MOVQ tileCall_out(AX), R14")
	}
	if f.has(addAdd) {
		a.op("MOVQ tileCall_add(AX), R15")
		a.op("MOVQ tileCall_addAhead(AX), R8")
	}
	a.label("block")
	a.op("MOVQ tileCall_b(AX), BX")
	a.op("MOVQ tileCall_ksteps(AX), CX")
	for t := range 4 {
		a.tileZero(t)
	}
	a.op("TESTQ R11, R11")
	a.op("JZ alone")
	a.label("both")
	a.tileStep(f, true)
	a.op("CMPQ R11, R12")
	a.op("JE rest")
	a.op("DECQ CX")
	a.op("JNZ both")
	a.label("short") // fewer k steps than pairs of rows
	a.tileRow(f, 0)
	a.tileRow(f, 1)
	a.op("CMPQ R11, R12")
	a.op("JNE short")
	a.op("JMP store")
	a.label("rest")
	a.op("DECQ CX")
	a.op("JZ store")
	a.label("alone")
	a.tileStep(f, false)
	a.op("DECQ CX")
	a.op("JNZ alone")
	a.label("store")
	a.op("MOVQ tileCall_scratch(AX), R11")
	for t := range 4 {
		a.tileStore(t, "R11", t/2*2048+t%2*64, 1)
	}
	a.op("DECQ DX")
	a.op("JNZ block")
	a.tileRelease()
	a.label("last")
	a.tileRow(f, 0)
	a.tileRow(f, 1)
	a.op("CMPQ R11, R12")
	a.op("JNE last")
	a.end()
}

// sums reports whether the kernel touches the sums.
func (f tileMode) sums() bool { return f.has(addSums) || !f.has(toResult) }

// tileStep writes a k step, with two rows of the block before it among its products, or without.
func (a *assembler) tileStep(f tileMode, rows bool) {
	fetchSums := func(line int) {
		if rows && f.sums() {
			a.op("PREFETCHT0 %d(DI)", 4096+64*line)
			a.op("PREFETCHT0 %d(DI)", 4096+64*line+64)
		}
	}
	a.tileLoad(false, 6, "BX", 0, 1)
	a.tileLoad(true, 4, "SI", 0, 0)
	a.tileDot(6, 4, 0)
	fetchSums(0)
	a.op("PREFETCHT1 (R10)")
	a.op("PREFETCHT1 64(R10)")
	a.op("ADDQ $128, R10")
	a.op("PREFETCHT1 (R13)")
	a.op("PREFETCHT1 64(R13)")
	a.op("ADDQ tileCall_nextAStep(AX), R13")
	a.tileLoad(false, 7, "BX", 64, 1)
	a.tileDot(7, 4, 1)
	fetchSums(2)
	if rows {
		a.tileRow(f, 0)
	}
	a.tileLoad(true, 5, "SI", 1024, 0)
	a.tileDot(6, 5, 2)
	if rows {
		a.tileRow(f, 1)
	}
	a.tileDot(7, 5, 3)
	a.op("ADDQ $2048, SI")
	a.op("ADDQ $2048, BX")
}

// tileRow deals with row i, 0 or 1, of two of a finished block.
func (a *assembler) tileRow(f tileMode, i int) {
	for h := range 2 {
		at := 128*i + 64*h
		a.op("VMOVUPS %d(R11), Z%d", at, h)
		switch {
		case f.has(addSums):
			a.op("VFMADD213PS %d(DI), Z31, Z%d", at, h)
		case f.has(addAdd):
			a.op("VFMADD213PS %d(R15), Z31, Z%d", 64*h, h)
		default:
			a.op("VMULPS Z31, Z%d, Z%d", h, h)
		}
		switch {
		case f.has(pastCaches):
			a.op("VMOVNTPS Z%d, %d(R14)", h, 64*h)
		case f.has(toResult):
			a.op("VMOVUPS Z%d, %d(R14)", h, 64*h)
		default:
			a.op("VMOVUPS Z%d, %d(DI)", h, at)
		}
	}
	if f.has(toResult) {
		a.op("ADDQ tileCall_ldout(AX), R14")
	}
	if f.has(addAdd) {
		a.op("PREFETCHT0 (R15)(R8*1)")
		a.op("PREFETCHT0 64(R15)(R8*1)")
		a.op("ADDQ tileCall_ldadd(AX), R15")
	}
	if i == 1 {
		a.op("ADDQ $256, R11")
		if f.sums() {
			a.op("ADDQ $256, DI")
		}
	}
}

// finishTiles writes rows x cols results of one block of sums.
func (a *assembler) finishTiles() {
	a.begin("out = alpha * sums (+ add), of rows x cols of a block.", "finishTiles", "t *tileCall", 8)
	a.op("MOVQ t+0(FP), AX")
	a.op("MOVQ tileCall_cols(AX), CX")
	a.ones("DX")
	a.halves("DX", "K1", "K2")
	a.op("MOVQ tileCall_sums(AX), SI")
	a.op("MOVQ tileCall_out(AX), DI")
	a.op("MOVQ tileCall_add(AX), R8")
	a.op("MOVQ tileCall_rows(AX), CX")
	a.op("VBROADCASTSS tileCall_alpha(AX), Z31")
	a.label("row")
	a.op("VMOVUPS (SI), Z0")
	a.op("VMOVUPS 64(SI), Z1")
	a.op("TESTQ R8, R8")
	a.op("JZ scaled")
	for h := range 2 {
		a.op("VMOVUPS.Z %d(R8), K%d, Z%d", 64*h, 1+h, 2+h)
		a.op("VFMADD213PS Z%d, Z31, Z%d", 2+h, h)
	}
	a.op("ADDQ tileCall_ldadd(AX), R8")
	a.op("JMP store")
	a.label("scaled")
	a.op("VMULPS Z31, Z0, Z0")
	a.op("VMULPS Z31, Z1, Z1")
	a.label("store")
	a.op("VMOVUPS Z0, K1, (DI)")
	a.op("VMOVUPS Z1, K2, 64(DI)")
	a.op("ADDQ tileCall_ldout(AX), DI")
	a.op("ADDQ $128, SI")
	a.op("DECQ CX")
	a.op("JNZ row")
	a.end()
}

const tilePackParams = "src unsafe.Pointer, ld int, dst unsafe.Pointer, rows, k int"

func (a *assembler) tilePackArguments() {
	a.op("MOVQ src+0(FP), SI")
	a.op("MOVQ ld+8(FP), DX")
	a.op("MOVQ dst+16(FP), DI")
	a.op("MOVQ rows+24(FP), CX")
	a.op("MOVQ k+32(FP), R9")
}

// nextTiles moves on by a k step and closes the loop.
func (a *assembler) nextTiles() {
	a.op("ADDQ $2048, DI")
	a.op("SUBQ $32, R9")
	a.op("JG steps")
	a.end()
}

// tilesOfRows writes the packer of rows as they lie. Rows that there are not repeat the last one.
func (a *assembler) tilesOfRows() {
	a.begin("packs up to 16 rows of k F32, ld bytes apart, to tiles.", "tilesOfRows", tilePackParams, 40)
	a.tilePackArguments()
	a.op("MOVQ CX, BX")
	a.label("steps")
	a.op("MOVQ $-1, AX")
	a.op("CMPQ R9, $32")
	a.op("JGE whole")
	a.op("MOVQ R9, CX")
	a.ones("AX")
	a.label("whole")
	a.halves("AX", "K1", "K2")
	a.op("MOVQ SI, R10")
	a.op("MOVQ BX, R11")
	for r := range 16 {
		z := 3 * (r % 4)
		a.load512(f32, "(R10)", "K1", z)
		a.load512(f32, "64(R10)", "K2", z+1)
		a.roundPairs(z, z+1, z+2)
		a.op("VMOVDQU64 Z%d, %d(DI)", z+2, 64*r)
		if r < 15 {
			a.op("DECQ R11")
			a.op("LEAQ (R10)(DX*1), R12")
			a.op("CMOVQGT R12, R10")
		}
	}
	a.op("ADDQ $128, SI")
	a.nextTiles()
}

// tilesOfColumns writes the packer of neighbouring rows: two places become pairs, which are transposed.
func (a *assembler) tilesOfColumns() {
	a.begin("packs up to 16 rows, neighbours in memory, of k F32, ld bytes apart, to tiles.", "tilesOfColumns", tilePackParams, 40)
	a.tilePackArguments()
	a.ones("BX")
	a.op("XORL R12, R12")
	a.label("steps")
	a.op("VMOVDQU64 interleaveWords<>(SB), Z31")
	a.op("MOVQ BX, AX")
	a.op("MOVQ R9, R11")
	for place := range 32 {
		a.op("SUBQ $1, R11")
		a.op("CMOVQLT R12, AX") // beyond the last place there are zeros
		a.op("KMOVW AX, K1")
		a.load512(f32, "(SI)", "K1", 16+place%2)
		a.op("ADDQ DX, SI")
		if place%2 == 1 {
			a.roundPairs(16, 17, 18)
			a.op("VPERMW Z18, Z31, Z%d", place/2)
		}
	}
	a.transpose16()
	for r := range 16 {
		a.op("VMOVDQU64 Z%d, %d(DI)", r, 64*r)
	}
	a.nextTiles()
}

// tileCeiling writes what benchmarks compare with: products whose operands are in the first-level cache.
func (a *assembler) tileCeiling() {
	a.begin("does n rounds of 32 tile products on the 32 KiB at p.", "tileCeiling", "p unsafe.Pointer, n int", 16)
	a.tileConfigure()
	a.op("MOVQ p+0(FP), SI")
	a.op("MOVQ n+8(FP), CX")
	a.op("MOVQ $64, R9")
	a.label("rounds")
	for t := range 4 {
		a.tileZero(t)
	}
	for k := range 8 {
		a.tileLoad(false, 6, "SI", 16384+2048*k, 1)
		a.tileLoad(false, 4, "SI", 2048*k, 0)
		a.tileDot(6, 4, 0)
		a.tileLoad(false, 7, "SI", 16384+2048*k+64, 1)
		a.tileDot(7, 4, 1)
		a.tileLoad(false, 5, "SI", 2048*k+1024, 0)
		a.tileDot(6, 5, 2)
		a.tileDot(7, 5, 3)
	}
	a.op("DECQ CX")
	a.op("JNZ rounds")
	a.tileRelease()
	a.op("RET")
}

// tileConstants writes the configuration, palette 1 with eight tiles of 16 rows of 64 bytes, and the shuffle that
// interleaves two runs of 16 words.
func (a *assembler) tileConstants() {
	fmt.Fprintln(&a.code, "\nDATA tileConfiguration<>+0(SB)/8, $1\nDATA tileConfiguration<>+8(SB)/8, $0")
	for i := range 4 {
		v := "0x0040004000400040"
		if i > 1 {
			v = "0"
		}
		fmt.Fprintf(&a.code, "DATA tileConfiguration<>+%d(SB)/8, $%s\n", 16+8*i, v)
	}
	fmt.Fprintln(&a.code, "DATA tileConfiguration<>+48(SB)/8, $0x1010101010101010\nDATA tileConfiguration<>+56(SB)/8, $0")
	fmt.Fprint(&a.code, "GLOBL tileConfiguration<>(SB), RODATA|NOPTR, $64\n\n")
	for i := range 16 {
		fmt.Fprintf(&a.code, "DATA interleaveWords<>+%d(SB)/4, $0x%04x%04x\n", 4*i, 16+i, i)
	}
	fmt.Fprint(&a.code, "GLOBL interleaveWords<>(SB), RODATA|NOPTR, $64\n\n")
	a.codeBook()
}
