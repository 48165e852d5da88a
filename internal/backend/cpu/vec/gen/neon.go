package main

import (
	"bytes"
	"fmt"

	"github.com/biolora/biolora/internal/backend/cpu/neon"
)

// scratch is a register that no kernel uses for numbers.
const scratch = 15

// translate writes what AVX's instruction does on whole registers.
func (a *assembler) translate(name string, regs ...int) {
	three := map[string]neon.Three{
		"VADDPS": neon.FADD, "VSUBPS": neon.FSUB, "VMULPS": neon.FMUL, "VDIVPS": neon.FDIV,
		"VMAXPS": neon.FMAX, "VMINPS": neon.FMIN, "VADDPD": neon.FADDD, "VMULPD": neon.FMULD,
	}
	two := map[string]neon.Two{
		"VSQRTPS": neon.FSQRT, "VCVTPS2DQ": neon.FCVTNS, "VCVTDQ2PS": neon.SCVTF, "VCVTPS2PD": neon.FCVTL,
	}
	known := map[string]string{ // to Go's assembler
		"VXORPS": "VEOR V%d.B16, V%d.B16, V%d.B16", "VORPS": "VORR V%d.B16, V%d.B16, V%d.B16", "VMOVAPS": "VMOV V%d.B16, V%d.B16",
		"VPADDD": "VADD V%d.S4, V%d.S4, V%d.S4", "VPSUBD": "VSUB V%d.S4, V%d.S4, V%d.S4",
		"VFMADD231PS": "VFMLA V%d.S4, V%d.S4, V%d.S4", "VFNMADD231PS": "VFMLS V%d.S4, V%d.S4, V%d.S4",
		"VFMADD231PD": "VFMLA V%d.D2, V%d.D2, V%d.D2",
	}
	if name == "VFMSUB231PS" { // a fused product and sum rounds alike when what is added changes its sign
		a.op("%s", neon.FNEG.On(regs[2], regs[2]))
		name = "VFMADD231PS"
	}
	if o, ok := three[name]; ok {
		a.op("%s", o.On(regs[0], regs[1], regs[2]))
	} else if o, ok := two[name]; ok {
		a.op("%s", o.On(regs[0], regs[1]))
	} else if o, ok := known[name]; ok {
		args := make([]any, len(regs))
		for i, r := range regs {
			args[i] = r
		}
		a.op(o, args...)
	} else {
		panic("gen: no NEON for " + name)
	}
}

// hold returns the register of a constant, which the function loads before anything else.
func (a *assembler) hold(name string) int {
	at := len(a.held)
	for i, h := range a.held {
		if h == name {
			at = i
		}
	}
	if at == len(a.held) {
		a.held = append(a.held, name)
	}
	if at > 31-scratch-1 {
		panic("gen: too many constants")
	}
	return 31 - at
}

// endNEON returns, and puts the loads of constants to where they belong.
func (a *assembler) endNEON() {
	a.op("RET")
	body := bytes.Clone(a.code.Bytes()[a.prologue:])
	a.code.Truncate(a.prologue)
	for i, h := range a.held {
		for _, c := range numbers {
			if c.name == h {
				a.op("MOVW $0x%08x, R11 // %s", c.bits, h)
				a.op("VDUP R11, V%d.S4", 31-i)
			}
		}
	}
	a.code.Write(body)
}

// loopNEON takes the elements that do not fill a register one by one.
func (a *assembler) loopNEON(body func()) {
	a.op("MOVD $0, R7")
	a.op("SUBS $4, R6")
	a.op("BLT tail")
	a.op("PCALIGN $16")
	a.label("vectors")
	body()
	a.op("ADD $16, R7")
	a.op("SUBS $4, R6")
	a.op("BGE vectors")
	a.label("tail")
	a.op("ADDS $4, R6")
	a.op("BEQ done")
	a.label("rest")
	a.tail = true
	body()
	a.tail = false
	a.op("ADD $4, R7")
	a.again("R6", "rest")
	a.label("done")
}

var registers = map[string]int{"R0": 0, "R1": 1, "R2": 2, "R3": 3, "R4": 4, "R9": 9, "R10": 10}

func (a *assembler) loadNEON(stream string, r int) {
	if a.tail {
		a.op("FMOVS (%s)(R7), F%d", a.streams[stream], r)
		return
	}
	a.op("%s", neon.Load(registers[a.streams[stream]], 7, r))
}

func (a *assembler) storeNEON(r int, stream string) {
	if a.tail {
		a.op("FMOVS F%d, (%s)(R7)", r, a.streams[stream])
		return
	}
	a.op("%s", neon.Store(r, registers[a.streams[stream]], 7))
}

func (a *assembler) foldNEON(op string, size, r, t int) {
	for _, by := range []int{8, 4} {
		if by >= size {
			a.op("VEXT $%d, V%d.B16, V%d.B16, V%d.B16", by, r, r, t)
			a.vec(op, t, r, r)
		}
	}
}

func (a *assembler) raiseNEON(x, top int) {
	a.op("%s", neon.FCMGT.On(top, x, scratch))
	a.op("VBIT V%d.B16, V%d.B16, V%d.B16", scratch, x, top)
}

func (a *assembler) negativeNEON(g, yes, no, r int) {
	a.op("%s", neon.NEGATIVE.On(g, r))
	a.op("VBSL V%d.B16, V%d.B16, V%d.B16", no, yes, r)
}

// hornerNEON goes to and fro between p and scratch; constants are even in number.
func (a *assembler) hornerNEON(x, p int, constants []string) {
	if len(constants)%2 != 0 {
		panic(fmt.Sprintf("gen: %d constants", len(constants)))
	}
	sum, next := p, scratch
	for _, c := range constants {
		a.constant(c, next)
		a.vec("VFMADD231PS", x, sum, next)
		sum, next = next, sum
	}
}

func (a *assembler) shiftNEON(op string, by, from, to int) {
	if op == "VPSLLD" {
		a.op("VSHL $%d, V%d.S4, V%d.S4", by, from, to)
		return
	}
	if op != "VPSRAD" || by != 1 {
		panic(fmt.Sprintf("gen: no NEON for %s $%d", op, by))
	}
	a.op("%s", neon.HALVE.On(from, to))
}
