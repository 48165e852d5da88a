package main

import "fmt"

// Kernels for few rows of the left operand: they multiply what they have transposed at once, instead of storing panels.
// Each adds to its sums step by step in the order of the other kernels, so the bits are theirs.

const dotParams = "src unsafe.Pointer, ld int, scales unsafe.Pointer, lds, at, fetch int, x unsafe.Pointer, rows, k int, sums unsafe.Pointer"

// together is how many rows of x are multiplied, unless there is one alone: as many chains of sums are under way.
const together = 4

// source is a format that the dot kernels read.
type source struct {
	name  string
	plain dtype     // where it is not quantised
	quant quantised // bits is 0 where it is not
}

func sources() (all []source) {
	for _, d := range dtypes {
		all = append(all, source{name: d.name, plain: d})
	}
	for _, q := range quantisedFormats {
		all = append(all, source{name: q.name, quant: q})
	}
	return all
}

func (s source) quantised() bool { return s.quant.bits > 0 }

func (a *assembler) beginDot(s source, name, what string) {
	a.begin(what, name, dotParams, 80)
	a.op("MOVQ src+0(FP), SI")
	a.op("MOVQ ld+8(FP), DX")
	a.op("LEAQ (DX)(DX*2), R13")
	if s.quantised() {
		a.op("MOVQ lds+24(FP), CX")
		a.op("LEAQ (CX)(CX*2), R11")
		a.op("MOVQ at+32(FP), R14")
	}
	a.op("MOVQ x+48(FP), DI")
	a.op("MOVQ rows+56(FP), R8")
	a.label("groups")
}

// eachRow runs load for n rows, the first ones or those that follow: codes or elements are at row, the scale is at scale.
// What lies fetch bytes further is fetched.
func (a *assembler) eachRow(s source, first bool, n int, load func(r int, row, scale string)) {
	if first {
		a.op("MOVQ SI, R10")
		if s.quantised() {
			a.op("MOVQ scales+16(FP), AX")
		}
	}
	a.op("MOVQ fetch+40(FP), BX")
	a.op("ADDQ R10, BX")
	for r := range n {
		row := []string{"(%s)", "(%s)(DX*1)", "(%s)(DX*2)", "(%s)(R13*1)"}[r%4]
		a.op("PREFETCHT1 "+row, "BX")
		load(r, fmt.Sprintf(row, "R10"), []string{"(AX)", "(AX)(CX*1)", "(AX)(CX*2)", "(AX)(R11*1)"}[r%4])
		if r%4 == 3 {
			a.op("LEAQ (R10)(DX*4), R10")
			a.op("LEAQ (BX)(DX*4), BX")
			if s.quantised() {
				a.op("LEAQ (AX)(CX*4), AX")
			}
		}
	}
}

// eachSum multiplies steps steps, from step first of x on, and adds to sums, which are in registers from sum on while it
// does so; they lie width bytes apart, from byte at on. multiply gets where x is relative to BX.
func (a *assembler) eachSum(label, register string, sum, at, width, first, steps int, multiply func(step, disp, sum int)) {
	rows := func(n int) {
		for r := range n {
			a.op("VMOVUPS %d(R9), %s%d", at+width*r, register, sum+r)
		}
		for s := range steps {
			for r := range n {
				multiply(s, 4*(s*n+r), sum+r)
			}
		}
		for r := range n {
			a.op("VMOVUPS %s%d, %d(R9)", register, sum+r, at+width*r)
		}
	}
	a.op("MOVQ sums+72(FP), R9")
	a.op("CMPQ R8, $1")
	a.op("JNE several%s", label)
	a.op("LEAQ %d(DI), BX", 4*first)
	rows(1)
	a.op("JMP summed%s", label)
	a.label("several" + label)
	a.op("LEAQ %d(DI), BX", 4*first*together)
	rows(together)
	a.label("summed" + label)
}

// nextPlaces moves on by places, which are steps steps of x, and closes the loop.
func (a *assembler) nextPlaces(s source, places, steps int) {
	a.op("MOVQ $%d, R12", 4*steps)
	a.op("MOVQ $%d, BX", 4*steps*together)
	a.op("CMPQ R8, $1")
	a.op("CMOVQNE BX, R12")
	a.op("ADDQ R12, DI")
	if s.quantised() {
		a.advance(s.quant, places)
	} else {
		a.op("ADDQ $%d, SI", places*s.plain.size)
	}
	a.op("SUBQ $%d, k+64(FP)", places)
	a.op("JG groups")
	a.end()
}

// dot512 multiplies 32 rows, 16 at a time.
func (a *assembler) dot512(s source, pairs bool) {
	places := 16
	if pairs || s.plain == bf16 { // a dword holds two places
		places = 32
	}
	a.beginDot(s, fmt.Sprintf("dot512%s%s", kind(pairs), s.name),
		fmt.Sprintf("adds the products of k places, a multiple of %d, of 32 rows of %s with one row of x, or %d, %s.", places, s.name, together, kind(pairs)))
	a.op("KXNORW K1, K1, K1")
	for h := range 2 {
		if s.quant.bits == 4 {
			a.op("VMOVUPS nf4Values<>(SB), Z30")
			a.shift(s.quant, "X31")
		}
		a.eachRow(s, h == 0, 16, func(r int, row, scale string) { a.loadDot512(s, pairs, r, row, scale) })
		a.transpose16()
		if !pairs && s.plain == bf16 {
			a.widenAndMultiply512(h)
			continue
		}
		a.eachSum(fmt.Sprint(h), "Z", 16, 64*h, 128, 0, 16, func(step, disp, sum int) {
			if pairs {
				a.dotPairsOf(step, disp, sum)
			} else {
				a.op("VFMADD231PS.BCST %d(BX), Z%d, Z%d", disp, step, sum)
			}
		})
	}
	steps := 16
	if !pairs {
		steps = places
	}
	a.nextPlaces(s, places, steps)
}

// widenAndMultiply512 multiplies 16 dwords of two bfloat16 as float32, 8 dwords at a time.
func (a *assembler) widenAndMultiply512(half int) {
	a.op("MOVL $0xffff0000, BX")
	a.op("VPBROADCASTD BX, Z31")
	for first := 0; first < 16; first += 8 {
		for i := range 8 {
			a.op("VPSLLD $16, Z%d, Z%d", first+i, 16+i)
			a.op("VPANDD Z31, Z%d, Z%d", first+i, first+i)
		}
		a.eachSum(fmt.Sprintf("%d_%d", half, first), "Z", 24, 64*half, 128, 2*first, 16, func(step, disp, sum int) {
			z := 16 + step/2
			if step%2 == 1 {
				z = first + step/2
			}
			a.op("VFMADD231PS.BCST %d(BX), Z%d, Z%d", disp, z, sum)
		})
	}
}

// loadDot512 reads a row's places to register r, as the transposition wants them.
func (a *assembler) loadDot512(s source, pairs bool, r int, row, scale string) {
	switch {
	case s.quantised() && pairs:
		a.pairs512(s.quant, row, scale, 16+r%4*2, r)
	case s.quantised():
		a.values512(s.quant, row, scale, r)
	case s.plain == bf16:
		a.op("VMOVDQU64 %s, Z%d", row, r)
	case pairs:
		a.load512(s.plain, row, "K1", 30)
		a.load512(s.plain, fmt.Sprintf("%d%s", 16*s.plain.size, row), "K1", 31)
		a.roundPairs(30, 31, r)
	default:
		a.load512(s.plain, row, "K1", r)
	}
}

// dot2 multiplies 16 rows, 8 at a time.
func (a *assembler) dot2(s source) {
	a.beginDot(s, "dot2"+s.name, fmt.Sprintf("adds the products of k places, a multiple of 8, of 16 rows of %s with one row of x, or %d, F32.", s.name, together))
	for h := range 2 {
		a.shift(s.quant, "X15")
		a.eachRow(s, h == 0, 8, func(r int, row, scale string) {
			if !s.quantised() {
				a.load2(s.plain, row, r)
				return
			}
			a.values2(s.quant, row, r)
			a.op("VBROADCASTSS %s, Y14", scale)
			a.op("VMULPS Y14, Y%d, Y%d", r, r)
		})
		a.transpose8()
		a.eachSum(fmt.Sprint(h), "Y", 0, 32*h, 64, 0, 8, func(step, disp, sum int) {
			a.op("VBROADCASTSS %d(BX), Y%d", disp, 4+sum)
			a.op("VFMADD231PS Y%d, Y%d, Y%d", 8+step, 4+sum, sum)
		})
	}
	a.nextPlaces(s, 8, 8)
}
