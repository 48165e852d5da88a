package main

import "fmt"

// Kernels for few rows of the left operand: they read the rows of a weight as they lie, a few at a time, and multiply
// place by place. A sum is kept in 16 lanes, one register of 16, two of 8 or four of 4, until the reduction is at its end.
// While a group of rows is read the next one is fetched, all its rows at once: without that, and with what lies further in
// the same rows instead, nf4 is read at half the speed.

const (
	dotParams     = "src unsafe.Pointer, ld int, scales unsafe.Pointer, lds int, x unsafe.Pointer, ldx, rows, n, k int, sums unsafe.Pointer"
	dotParamsSize = 80

	// together is how many rows of x are multiplied, unless there is one alone.
	together = 4
	// dotPlaces is how many places are multiplied between one look at the loop and the next: a block of codes.
	dotPlaces = 64
)

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

// bytes is how many bytes places places take.
func (s source) bytes(places int) int {
	if s.quantised() {
		return places * s.quant.bits / 8
	}
	return places * s.plain.size
}

// dot is a kernel for amd64 under construction.
type dot struct {
	*assembler
	source
	width int // bytes of a register
	pairs bool
	rows  int // of x
	group int // rows of the weight that are multiplied together
}

// dot512 keeps 16 sums in Z0...Z15; Z16 to Z23 are for x.
func (a *assembler) dot512(s source, pairs bool) {
	a.dot(fmt.Sprintf("dot512%s%s", kind(pairs), s.name), []*dot{
		{a, s, 64, pairs, 1, 4},
		{a, s, 64, pairs, together, 4},
	})
}

// dot2 keeps 4 sums in Y0...Y7.
func (a *assembler) dot2(s source) {
	a.dot("dot2"+s.name, []*dot{
		{a, s, 32, false, 1, 4},
		{a, s, 32, false, together, 1},
	})
}

// dot writes a kernel: a loop for one row of x and one for several.
func (a *assembler) dot(name string, kernels []*dot) {
	d := kernels[0]
	a.begin(fmt.Sprintf("multiplies n rows, a multiple of 4, of k places, a multiple of %d, of %s with one row of x, or %d, %s.",
		dotPlaces, d.name, together, kind(d.pairs)), name, dotParams, dotParamsSize)
	a.op("MOVQ ld+8(FP), DX")
	a.op("LEAQ (DX)(DX*2), R13")
	a.op("MOVQ lds+24(FP), CX")
	a.op("LEAQ (CX)(CX*2), R11")
	a.op("MOVQ ldx+40(FP), BX")
	a.op("LEAQ (BX)(BX*2), R9")
	a.op("MOVQ sums+72(FP), R10")
	d.constants()
	a.op("CMPQ rows+48(FP), $1")
	a.op("JNE several")
	kernels[0].write("one")
	a.label("several")
	kernels[1].write("more")
}

// constants loads what nf4 is looked up with: Z30, or Y8 and Y9.
func (d *dot) constants() {
	switch {
	case d.width == 64:
		d.op("KXNORW K1, K1, K1")
		if d.quant.bits == 4 {
			d.op("VMOVUPS nf4Values<>(SB), Z30")
		}
	case d.quant.bits == 4:
		d.op("VMOVUPS nf4Values<>(SB), Y8")
		d.op("VMOVUPS nf4Values<>+32(SB), Y9")
	}
}

// write writes the loop over groups of rows of the weight.
func (d *dot) write(label string) {
	d.label(label + "Group")
	d.op("MOVQ src+0(FP), SI")
	d.op("LEAQ (SI)(DX*4), R14")
	d.op("MOVQ scales+16(FP), AX")
	d.op("MOVQ x+32(FP), DI")
	d.op("MOVQ k+64(FP), R12")
	for i := range d.rows * d.group * d.registers() {
		d.op("VXORPS X%d, X%d, X%d", i, i, i)
	}
	d.label(label)
	if d.pairs {
		d.eachX(func(r, v int, mem string) { d.op("VMOVDQU64 %s, Z%d", mem, 16+2*r+v) })
	}
	for g := range d.group {
		row := address("SI", "DX", "R13", g)
		for line := 0; line < d.bytes(dotPlaces); line += 64 {
			d.op("PREFETCHT0 %s%s", offset(line), address("R14", "DX", "R13", g))
		}
		d.multiplyRow(g, row, address("AX", "CX", "R11", g))
	}
	d.op("ADDQ $%d, SI", d.bytes(dotPlaces))
	d.op("ADDQ $%d, R14", d.bytes(dotPlaces))
	if d.quantised() {
		d.op("ADDQ $4, AX")
	}
	d.op("ADDQ $%d, DI", dotPlaces*d.xSize())
	d.op("SUBQ $%d, R12", dotPlaces)
	d.op("JG %s", label)
	for r := range d.rows {
		for g := range d.group {
			d.sum((r*d.group+g)*d.registers(), fmt.Sprintf("%d(R10)", 4*(r*d.columns()+g)))
		}
	}
	d.op("ADDQ $%d, R10", 4*d.group)
	d.next("src+0(FP)", "DX")
	d.next("scales+16(FP)", "CX")
	d.op("SUBQ $%d, n+56(FP)", d.group)
	d.op("JG %sGroup", label)
	d.end()
}

// next moves a pointer on by a group of rows, by bytes apart.
func (d *dot) next(pointer, by string) {
	d.op("MOVQ %s, R12", by)
	d.op("IMULQ $%d, R12", d.group)
	d.op("ADDQ R12, %s", pointer)
}

// address is row i behind base.
func address(base, stride, thrice string, i int) string {
	return []string{"(" + base + ")", "(" + base + ")(" + stride + "*1)", "(" + base + ")(" + stride + "*2)", "(" + base + ")(" + thrice + "*1)"}[i]
}

// registers is how many hold the lanes of a sum.
func (d *dot) registers() int { return 64 / d.width }

// columns is how many sums a row of x has.
func (d *dot) columns() int {
	if d.width == 64 {
		return cols512
	}
	return cols2
}

// xSize is the bytes of a place of x.
func (d *dot) xSize() int {
	if d.pairs {
		return 2
	}
	return 4
}

// eachX runs f for the registers of each row of x.
func (d *dot) eachX(f func(r, v int, mem string)) {
	for r := range d.rows {
		for v := range dotPlaces * d.xSize() / d.width {
			f(r, v, offset(v*d.width)+address("DI", "BX", "R9", r))
		}
	}
}

func offset(bytes int) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprint(bytes)
}

// multiplyRow adds the products of row g of the weight.
func (d *dot) multiplyRow(g int, row, scale string) {
	switch {
	case d.pairs:
		d.pairsRow(g, row, scale)
	case d.width == 64:
		d.row512(g, row, scale)
	default:
		d.row2(g, row, scale)
	}
}

// pairsRow decodes 64 places to Z24 and Z25, and multiplies.
func (d *dot) pairsRow(g int, row, scale string) {
	const w = 24
	switch {
	case d.quant.bits == 4: // bit 4 of a code chooses one of two copies of the values, scaled and rounded
		d.op("VPMOVZXBW %s, Z%d", row, w)
		d.op("VMULPS.BCST %s, Z30, Z26", scale)
		d.roundPairs(26, 26, 26)
		d.op("VPSRLW $4, Z%d, Z%d", w, w+1)
		d.op("VPERMW Z26, Z%d, Z%d", w, w)
		d.op("VPERMW Z26, Z%d, Z%d", w+1, w+1)
	case d.plain == bf16:
		d.op("VMOVDQU64 %s, Z%d", row, w)
		d.op("VMOVDQU64 64%s, Z%d", row, w+1)
	default:
		for v := range 2 {
			for h := range 2 {
				at := offset(d.bytes(32*v+16*h)) + row
				if d.quantised() {
					d.values512(d.quant, at, scale, 26+h)
				} else {
					d.load512(d.plain, at, "K1", 26+h)
				}
			}
			d.roundPairs(26, 27, w+v)
		}
	}
	for v := range 2 {
		for r := range d.rows {
			d.dotPairs(w+v, 16+2*r+v, r*d.group+g)
		}
	}
}

// row512 decodes 64 places to Z24...Z27, and multiplies.
func (d *dot) row512(g int, row, scale string) {
	const w = 24
	if d.quant.bits == 4 {
		d.op("VMULPS.BCST %s, Z30, Z28", scale)
		for v := range 2 {
			d.op("VPMOVZXBD %s, Z%d", offset(16*v)+row, w+v)
			d.op("VPSRLD $4, Z%d, Z%d", w+v, w+2+v)
		}
		for v := range 4 {
			d.op("VPERMPS Z28, Z%d, Z%d", w+v, w+v)
		}
	} else {
		for v := range 4 {
			at := offset(d.bytes(16*v)) + row
			if d.quantised() {
				d.values512(d.quant, at, scale, w+v)
			} else {
				d.load512(d.plain, at, "K1", w+v)
			}
		}
	}
	d.eachX(func(r, v int, mem string) { d.op("VFMADD231PS %s, Z%d, Z%d", mem, w+v, r*d.group+g) })
}

// row2 decodes and multiplies 8 places at a time.
func (d *dot) row2(g int, row, scale string) {
	if d.quantised() {
		d.op("VBROADCASTSS %s, Y10", scale)
	}
	for v := range dotPlaces / 8 {
		switch {
		case d.quant.bits == 4:
			d.op("VPMOVZXBD %s, Y11", offset(8*(v%4))+row)
			if v >= 4 {
				d.op("VPSRLD $4, Y11, Y11")
			}
			d.lookUp2()
		case d.quantised():
			d.op("VPMOVSXBD %s, Y14", offset(8*v)+row)
			d.op("VCVTDQ2PS Y14, Y14")
			d.op("VMULPS Y10, Y14, Y14")
		default:
			d.load2(d.plain, offset(d.bytes(8*v))+row, 14)
		}
		for r := range d.rows {
			d.op("VFMADD231PS %s, Y14, Y%d", offset(32*v)+address("DI", "BX", "R9", r), (r*d.group+g)*2+v%2)
		}
	}
}

// lookUp2 writes the values of the codes in the low halves of Y11's bytes to Y14, scaled by Y10. Bit 3 of a code chooses
// one half of the code book, Y8 or Y9.
func (d *dot) lookUp2() {
	d.op("VPERMPS Y8, Y11, Y12")
	d.op("VPERMPS Y9, Y11, Y13")
	d.op("VPSLLD $28, Y11, Y14")
	d.op("VBLENDVPS Y14, Y13, Y12, Y14")
	d.op("VMULPS Y10, Y14, Y14")
}

// sum adds up the 16 lanes of the registers from v on, the upper half to the lower one again and again, and stores the
// sum.
func (d *dot) sum(v int, mem string) {
	if d.width == 64 {
		d.op("VEXTRACTF64X4 $1, Z%d, Y31", v)
		d.op("VADDPS Y31, Y%d, Y%d", v, v)
		d.op("VEXTRACTF32X4 $1, Y%d, X31", v)
		d.op("VADDPS X31, X%d, X%d", v, v)
	} else {
		d.op("VADDPS Y%d, Y%d, Y%d", v+1, v, v)
		d.op("VEXTRACTF128 $1, Y%d, X15", v)
		d.op("VADDPS X15, X%d, X%d", v, v)
	}
	d.op("VHADDPS X%d, X%d, X%d", v, v, v)
	d.op("VHADDPS X%d, X%d, X%d", v, v, v)
	d.op("VMOVSS X%d, %s", v, mem)
}
