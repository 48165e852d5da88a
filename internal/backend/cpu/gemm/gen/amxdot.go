package main

import "fmt"

// dotTiles writes the kernel for few rows that has the bits of the tile products: of a k step the earlier and the later
// places of the pairs are summed apart, each from zero, then together, then to the sums. x has pairs of bfloat16.
func (a *assembler) dotTiles(s source) {
	const places, steps = 32, 16
	a.beginDot(s, "dotTiles"+s.name,
		fmt.Sprintf("adds the products of k places, a multiple of %d, of 32 rows of %s with one row of x, or %d, as TDPBF16PS does.", places, s.name, together))
	a.op("KXNORW K1, K1, K1")
	for h := range 2 {
		if s.quant.bits == 4 {
			a.op("VMOVUPS nf4Values<>(SB), Z30")
			a.shift(s.quant, "X31")
		}
		a.eachRow(s, h == 0, 16, func(r int, row, scale string) { a.loadDot512(s, true, r, row, scale) })
		a.transpose16()
		a.op("MOVL $0xffff0000, BX")
		a.op("VPBROADCASTD BX, Z31")
		a.op("MOVQ sums+72(FP), R9")
		a.op("CMPQ R8, $1")
		a.op("JNE several%d", h)
		a.multiplyPairs(1, steps, 64*h)
		a.op("JMP summed%d", h)
		a.label(fmt.Sprintf("several%d", h))
		a.multiplyPairs(together, steps, 64*h)
		a.label(fmt.Sprintf("summed%d", h))
	}
	a.nextPlaces(s, places, steps)
}

// multiplyPairs multiplies the pairs of registers 0... by rows of x, at (DI), and adds to their sums, at byte at of (R9).
func (a *assembler) multiplyPairs(rows, steps, at int) {
	const low, high, early, late = 16, 17, 18, 22 // of the weight; sums of the earlier and the later places
	for r := range rows {
		a.op("VPXORQ Z%d, Z%d, Z%d", early+r, early+r, early+r)
		a.op("VPXORQ Z%d, Z%d, Z%d", late+r, late+r, late+r)
	}
	for s := range steps {
		a.op("VPSLLD $16, Z%d, Z%d", s, low)
		a.op("VPANDD Z31, Z%d, Z%d", s, high)
		for r := range rows {
			x := 26 + 2*(r%2)
			a.op("VPBROADCASTD %d(DI), Z%d", 4*(s*rows+r), x)
			a.op("VPANDD Z31, Z%d, Z%d", x, x+1)
			a.op("VPSLLD $16, Z%d, Z%d", x, x)
			a.op("VFMADD231PS Z%d, Z%d, Z%d", x, low, early+r)
			a.op("VFMADD231PS Z%d, Z%d, Z%d", x+1, high, late+r)
		}
	}
	for r := range rows {
		a.op("VADDPS Z%d, Z%d, Z%d", late+r, early+r, early+r)
		a.op("VADDPS %d(R9), Z%d, Z%d", at+128*r, early+r, early+r)
		a.op("VMOVUPS Z%d, %d(R9)", early+r, at+128*r)
	}
}
