package main

import "fmt"

// Go's assembler does not know the instructions of AVX512_BF16: they are written as bytes.

// evex encodes a 512-bit instruction of map 0F38 on registers (Intel SDM, volume 2A, 2.7). prefix: 2 is F3, 3 is F2.
func evex(op byte, prefix, dst, src1, src2 int) string {
	inverted := func(r, bit, to int) byte { return byte(^r >> bit & 1 << to) }
	p0 := 2 | inverted(dst, 3, 7) | inverted(src2, 4, 6) | inverted(src2, 3, 5) | inverted(dst, 4, 4)
	p1 := byte(^src1&15)<<3 | 4 | byte(prefix)
	p2 := 0x40 | inverted(src1, 4, 3)
	modrm := byte(0xc0 | dst&7<<3 | src2&7)
	return fmt.Sprintf("LONG $0x%02x%02x%02x62; WORD $0x%02x%02x", p2, p1, p0, modrm, op)
}

// dotPairs adds the products of the pairs of two registers to dst.
func (a *assembler) dotPairs(src2, src1, dst int) {
	a.op("%s // VDPBF16PS Z%d, Z%d, Z%d", evex(0x52, 2, dst, src1, src2), src2, src1, dst)
}

// roundPairs rounds the float32 of low and high to the 32 bfloat16 of dst.
func (a *assembler) roundPairs(low, high, dst int) {
	a.op("%s // VCVTNE2PS2BF16 Z%d, Z%d, Z%d", evex(0x72, 3, dst, high, low), low, high, dst)
}
