package main

import "math"

// numbers are the constants of the kernels.
var numbers = []struct {
	name string
	bits uint32
}{
	{"one", math.Float32bits(1)},
	{"sign", 1 << 31},
	{"bias", 127},
	{"negInfinity", 0xff800000},
	{"expLowest", math.Float32bits(-104)}, // e^x rounds to 0 there
	{"expHighest", math.Float32bits(89)},  // and to +Inf here
	{"log2e", math.Float32bits(math.Log2E)},
	{"ln2", math.Float32bits(math.Ln2)},
	{"ln2Rest", math.Float32bits(float32(math.Ln2 - float64(float32(math.Ln2))))},
	// e^r = 1 + r + c2 r² + ... + c6 r^6 for |r| <= ln(2)/2: the least relative error, 3e-9, found coefficient by
	// coefficient, each rounded before the next.
	{"c2", 0x3efffffe},
	{"c3", 0x3e2aaa49},
	{"c4", 0x3d2aac58},
	{"c5", 0x3c091cc4},
	{"c6", 0x3ab52672},
}

// limits loads what exp needs.
func (a *assembler) limits() {
	a.constant("expLowest", lowest)
	a.constant("expHighest", highest)
}

// exp replaces x by e^x: e^x = 2^n e^r with n the integer nearest to x/ln(2). t1 to t3 are scratch. A maximum or
// minimum is its last source where one is a NaN: x.
func (a *assembler) exp(x, t1, t2, t3 int) {
	n, p := t1, t2
	a.vec("VMAXPS", x, lowest, x)
	a.vec("VMINPS", x, highest, x)
	a.with("VMULPS", "log2e", x, n)
	if a.isa.wide() {
		a.op("VRNDSCALEPS $8, Z%d, Z%d", n, n)
	} else {
		a.vec("VCVTPS2DQ", n, t3)
		a.vec("VCVTDQ2PS", t3, n)
	}
	a.with("VFNMADD231PS", "ln2", n, x) // exact
	a.with("VFNMADD231PS", "ln2Rest", n, x)
	a.constant("c6", p)
	a.horner(x, p, "c5", "c4", "c3", "c2", "one", "one")
	if a.isa.wide() {
		a.vec("VSCALEFPS", n, p, x)
		return
	}
	// n reaches from -150 to 128: 2^n in two factors that are normal numbers.
	a.shift("VPSRAD", 1, t3, n)
	a.vec("VPSUBD", n, t3, t3)
	for _, r := range []int{n, t3} {
		a.with("VPADDD", "bias", r, r)
		a.shift("VPSLLD", 23, r, r)
	}
	a.vec("VMULPS", n, p, p)
	a.vec("VMULPS", t3, p, x)
}

// horner does p = p*x + c for each constant.
func (a *assembler) horner(x, p int, constants ...string) {
	if a.isa.neon() {
		a.hornerNEON(x, p, constants)
		return
	}
	for _, c := range constants {
		a.with("VFMADD213PS", c, x, p)
	}
}

// shift shifts dwords with AVX2 and NEON.
func (a *assembler) shift(op string, by, from, to int) {
	if a.isa.neon() {
		a.shiftNEON(op, by, from, to)
		return
	}
	a.op("%s $%d, Y%d, Y%d", op, by, from, to)
}
