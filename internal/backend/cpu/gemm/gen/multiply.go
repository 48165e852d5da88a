package main

import "fmt"

func kind(pairs bool) string {
	if pairs {
		return "BF16"
	}
	return "F32"
}

func name512(pairs bool, rows, cols int) string {
	return fmt.Sprintf("multiply512%s_%dx%d", kind(pairs), rows, cols)
}

func name2(rows int) string { return fmt.Sprintf("multiply2_%dx%d", rows, cols2) }

const unroll = 4 // steps of a round of the main loop

// loop runs step for each step: rounds of unroll steps, then one by one. If fetch, each round fetches two cache lines to
// the second-level cache, of what is needed next. It leaves CX zero.
func (a *assembler) loop(rowBytes, panelBytes int, fetch bool, step func(u int)) {
	a.op("MOVQ CX, R9")
	a.op("ANDQ $%d, CX", unroll-1)
	a.op("SHRQ $2, R9")
	a.op("JZ rest")
	a.op("PCALIGN $64")
	a.label("rounds")
	if fetch {
		a.op("PREFETCHT1 (R10)")
		a.op("ADDQ $64, R10")
		a.op("PREFETCHT1 (R11)")
		a.op("ADDQ R12, R11")
	}
	for u := range unroll {
		step(u)
	}
	a.op("ADDQ $%d, BX", unroll*panelBytes)
	a.op("ADDQ $%d, AX", unroll*rowBytes)
	a.op("DECQ R9")
	a.op("JNZ rounds")
	a.label("rest")
	a.op("TESTQ CX, CX")
	a.op("JZ finish")
	a.label("steps")
	step(0)
	a.op("ADDQ $%d, BX", panelBytes)
	a.op("ADDQ $%d, AX", rowBytes)
	a.op("DECQ CX")
	a.op("JNZ steps")
	a.label("finish")
}

// arguments loads what the kernels need, and begins to fetch the rows of c: they are there when the sums are.
func (a *assembler) arguments(rows, cols int, fetch bool) {
	a.op("MOVQ t+0(FP), R13")
	a.op("MOVQ tileProduct_a(R13), AX")
	a.op("MOVQ tileProduct_b(R13), BX")
	a.op("MOVQ tileProduct_c(R13), DI")
	a.op("MOVQ tileProduct_ldc(R13), DX")
	a.op("MOVQ tileProduct_steps(R13), CX")
	if fetch {
		a.op("MOVQ tileProduct_nextTile(R13), R10")
		a.op("MOVQ tileProduct_nextRows(R13), R11")
		a.op("MOVQ tileProduct_rowBytes(R13), R12")
	}
	a.op("SHLQ $2, DX")
	a.op("MOVQ DI, SI")
	for r := range rows {
		for line := 0; line < cols*4; line += 64 {
			a.op("PREFETCHT0 %d(SI)", line)
		}
		if r < rows-1 {
			a.op("ADDQ DX, SI")
		}
	}
}

// multiply512 writes the AVX-512 kernel for tiles of rows x cols.
func (a *assembler) multiply512(pairs bool, rows, cols int) {
	a.begin(fmt.Sprintf("%d rows x %d columns, %s.", rows, cols, kind(pairs)), name512(pairs, rows, cols), "t *tileProduct", 8)
	fetch := cols == cols512 // low-rank factors are in the caches
	a.arguments(rows, cols, fetch)
	halves := cols / 16
	for r := range rows * halves {
		a.op("VPXORQ Z%d, Z%d, Z%d", r, r, r)
	}
	a.loop(rows*4, cols512*4, fetch, func(u int) {
		for h := range halves {
			a.op("VMOVUPS %d(BX), Z%d", u*cols512*4+64*h, 28+h)
		}
		for r := range rows {
			x := 30 + r&1
			a.op("VBROADCASTSS %d(AX), Z%d", (u*rows+r)*4, x)
			for h := range halves {
				if pairs {
					a.dotPairs(28+h, x, r*halves+h)
				} else {
					a.op("VFMADD231PS Z%d, Z%d, Z%d", 28+h, x, r*halves+h)
				}
			}
		}
	})
	a.op("MOVQ tileProduct_cols(R13), CX")
	a.op("MOVQ $1, R8")
	a.op("SHLQ CX, R8")
	a.op("DECQ R8")
	a.op("KMOVW R8, K1")
	a.op("SHRQ $16, R8")
	a.op("KMOVW R8, K2")
	a.finish(rows, "Z28", func(r int) {
		for h := range halves {
			a.op("VMOVUPS.Z %d(SI), K%d, Z%d", 64*h, 1+h, 29+h)
			a.op("VFMADD213PS Z%d, Z28, Z%d", 29+h, r*halves+h)
		}
	}, func(r int) {
		for h := range halves {
			a.op("VMULPS Z28, Z%d, Z%d", r*halves+h, r*halves+h)
		}
	}, func(r int) {
		for h := range halves {
			a.op("VMOVUPS Z%d, K%d, %d(DI)", r*halves+h, 1+h, 64*h)
		}
	}, nil)
}

// finish scales the rows by alpha, adds what is to be added and stores them: with whole, if it is given, where all
// columns are wanted.
func (a *assembler) finish(rows int, alpha string, add, scale, store, whole func(r int)) {
	a.op("VBROADCASTSS tileProduct_alpha(R13), %s", alpha)
	a.op("MOVQ tileProduct_add(R13), SI")
	a.op("TESTQ SI, SI")
	a.op("JZ scaled")
	a.op("MOVQ tileProduct_ldadd(R13), R9")
	a.op("SHLQ $2, R9")
	each := func(f func(r int), advance string) {
		for r := range rows {
			f(r)
			if r < rows-1 {
				a.op(advance)
			}
		}
	}
	each(add, "ADDQ R9, SI")
	a.op("JMP store")
	a.label("scaled")
	for r := range rows {
		scale(r)
	}
	a.label("store")
	if whole != nil {
		a.op("CMPQ tileProduct_cols(R13), $%d", cols2)
		a.op("JNE part")
		each(whole, "ADDQ DX, DI")
		a.end()
		a.label("part")
	}
	each(store, "ADDQ DX, DI")
	a.end()
}

// multiply2 writes the AVX2 kernel for tiles of rows x 16.
func (a *assembler) multiply2(rows int) {
	a.begin(fmt.Sprintf("%d rows x %d columns, F32.", rows, cols2), name2(rows), "t *tileProduct", 8)
	a.arguments(rows, cols2, true)
	for r := range 2 * rows {
		a.op("VXORPS Y%d, Y%d, Y%d", r, r, r)
	}
	a.loop(rows*4, cols2*4, true, func(u int) {
		a.op("VMOVUPS %d(BX), Y12", u*cols2*4)
		a.op("VMOVUPS %d(BX), Y13", u*cols2*4+32)
		for r := range rows {
			x := 14 + r&1
			a.op("VBROADCASTSS %d(AX), Y%d", (u*rows+r)*4, x)
			a.op("VFMADD231PS Y12, Y%d, Y%d", x, 2*r)
			a.op("VFMADD231PS Y13, Y%d, Y%d", x, 2*r+1)
		}
	})
	a.op("VPBROADCASTD tileProduct_cols(R13), Y12")
	a.op("VPSUBD lanes<>(SB), Y12, Y12")
	a.op("VPCMPEQD Y13, Y13, Y13")
	a.op("VPSLLD $3, Y13, Y13") // -8
	a.op("VPADDD Y13, Y12, Y13")
	a.op("VPXOR Y15, Y15, Y15")
	a.op("VPCMPGTD Y15, Y12, Y12") // lane < cols
	a.op("VPCMPGTD Y15, Y13, Y13") // lane + 8 < cols
	a.finish(rows, "Y14", func(r int) {
		for h := range 2 {
			a.op("VMASKMOVPS %d(SI), Y%d, Y15", 32*h, 12+h)
			a.op("VFMADD213PS Y15, Y14, Y%d", 2*r+h)
		}
	}, func(r int) {
		for h := range 2 {
			a.op("VMULPS Y14, Y%d, Y%d", 2*r+h, 2*r+h)
		}
	}, func(r int) {
		for h := range 2 {
			a.op("VMASKMOVPS Y%d, Y%d, %d(DI)", 2*r+h, 12+h, 32*h)
		}
	}, func(r int) { // a masked store takes AMD a dozen cycles
		a.op("VMOVUPS Y%d, (DI)", 2*r)
		a.op("VMOVUPS Y%d, 32(DI)", 2*r+1)
	})
}
