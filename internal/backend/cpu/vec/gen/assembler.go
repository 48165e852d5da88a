package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/biolora/biolora/internal/backend/cpu/neon"
)

// isa is a set of instructions. All use vector registers 0 to 12 for numbers; 13 and 14 are the limits of exp, and
// with AVX2 15 is the mask of the tail, which K1 is with AVX-512. With NEON 15 is scratch, and what is above holds
// constants. Kernels name AVX's instructions.
type isa struct {
	name, suffix string
	bytes        int // of a register
}

const (
	lowest  = 13
	highest = 14
	mask    = 15
)

func (s isa) wide() bool { return s.bytes == 64 }

func (s isa) neon() bool { return s.bytes == 16 }

func (s isa) lanes() int { return s.bytes / 4 }

// assembler collects functions and their declarations.
type assembler struct {
	code, decl bytes.Buffer
	isa        isa
	tail       bool              // the code handles the last lanes, fewer than a register has
	args       map[string]string // the places of the function's arguments
	streams    map[string]string // the registers of its slices
	names      []string          // of the functions of isa
	prologue   int               // where, in code, the function's constants are to be loaded, with NEON
	held       []string          // those constants
}

// op writes an instruction.
func (a *assembler) op(f string, args ...any) { fmt.Fprintf(&a.code, "\t"+f+"\n", args...) }

// vec writes an instruction on vector registers. The last is the destination.
func (a *assembler) vec(op string, regs ...int) {
	if a.isa.neon() {
		a.translate(op, regs...)
		return
	}
	a.op("%s %s", op, strings.Join(a.all(regs), ", "))
}

// with writes an instruction whose first operand is a constant.
func (a *assembler) with(op, constant string, regs ...int) {
	if a.isa.neon() {
		a.translate(op, append([]int{a.hold(constant)}, regs...)...)
		return
	}
	if a.isa.wide() {
		op += ".BCST"
	}
	a.op("%s %s<>(SB), %s", op, constant, strings.Join(a.all(regs), ", "))
}

func (a *assembler) all(regs []int) (names []string) {
	for _, r := range regs {
		names = append(names, a.v(r))
	}
	return names
}

// v is the name of a vector register, half of its lower half.
func (a *assembler) v(r int) string {
	if a.isa.wide() {
		return fmt.Sprintf("Z%d", r)
	}
	return fmt.Sprintf("Y%d", r)
}

func (a *assembler) half(r int) string {
	if a.isa.wide() {
		return fmt.Sprintf("Y%d", r)
	}
	return fmt.Sprintf("X%d", r)
}

func (a *assembler) label(l string) { fmt.Fprintf(&a.code, "%s:\n", l) }

type param struct{ name, typ string }

// begin opens a function and loads the pointers of its slices. Nothing spills: frames are empty.
func (a *assembler) begin(comment, name string, params []param, results ...param) {
	a.args, a.streams = map[string]string{}, map[string]string{}
	a.names = append(a.names, name)
	name += a.isa.suffix
	size := a.place(params, 0)
	if len(results) > 0 {
		size = a.place(results, (size+7)&^7)
	}
	signature := fmt.Sprintf("func %s(%s)%s", name, list(params), resultList(results))
	fmt.Fprintf(&a.code, "\n// %s\nTEXT ·%s(SB), NOSPLIT, $0-%d\n", signature, name, size)
	fmt.Fprintf(&a.decl, "\n// %s %s\n//\n//go:noescape\n%s\n", name, comment, signature)
	free := []string{"SI", "DI", "DX", "BX", "R8"}
	if a.isa.neon() {
		free = []string{"R0", "R1", "R2", "R3", "R4"}
	}
	for _, p := range params {
		if p.typ != "[]float32" {
			continue
		}
		if len(a.streams) == 0 {
			a.move(a.args[p.name+"_len"], a.count())
		}
		a.streams[p.name] = free[len(a.streams)]
		a.move(a.args[p.name+"_base"], a.streams[p.name])
	}
	a.prologue, a.held = a.code.Len(), nil
}

// count is the register that holds the number of elements that are left.
func (a *assembler) count() string {
	if a.isa.neon() {
		return "R6"
	}
	return "CX"
}

// move loads an integer.
func (a *assembler) move(from, to string) {
	if a.isa.neon() {
		a.op("MOVD %s, %s", from, to)
		return
	}
	a.op("MOVQ %s, %s", from, to)
}

// element sets register dst to the address of element index of the float32 at base.
func (a *assembler) element(base, index, dst string) {
	if a.isa.neon() {
		a.op("ADD %s<<2, %s, %s", index, base, dst)
		return
	}
	a.op("LEAQ (%s)(%s*4), %s", base, index, dst)
}

// again counts register down and goes to label until it is 0.
func (a *assembler) again(register, label string) {
	if a.isa.neon() {
		a.op("SUBS $1, %s", register)
		a.op("BNE %s", label)
		return
	}
	a.op("DECQ %s", register)
	a.op("JNZ %s", label)
}

// place finds where parameters lie from offset on, and returns where they end.
func (a *assembler) place(params []param, offset int) int {
	at := func(name string) string { return fmt.Sprintf("%s+%d(FP)", name, offset) }
	for _, p := range params {
		switch p.typ {
		case "float32", "uint32":
			a.args[p.name] = at(p.name)
			offset += 4
			continue
		}
		offset = (offset + 7) &^ 7
		a.args[p.name] = at(p.name)
		if p.typ == "[]float32" {
			a.args[p.name+"_base"] = at(p.name + "_base")
			offset += 8
			a.args[p.name+"_len"] = at(p.name + "_len")
			offset += 8
		}
		offset += 8
	}
	return offset
}

func list(params []param) string {
	var s []string
	for i, p := range params {
		if i+1 < len(params) && params[i+1].typ == p.typ {
			s = append(s, p.name)
			continue
		}
		s = append(s, p.name+" "+p.typ)
	}
	return strings.Join(s, ", ")
}

func resultList(results []param) string {
	if len(results) == 0 {
		return ""
	}
	return " (" + list(results) + ")"
}

func (a *assembler) end() {
	if a.isa.neon() {
		a.endNEON()
		return
	}
	a.op("VZEROUPPER")
	a.op("RET")
}

// loop runs body for each register's worth of the CX elements of the slices, then, with tail set, for what is left.
// AX is the offset in bytes. With NEON they are R6 and R7.
func (a *assembler) loop(body func()) {
	if a.isa.neon() {
		a.loopNEON(body)
		return
	}
	a.op("XORL AX, AX")
	a.op("SUBQ $%d, CX", a.isa.lanes())
	a.op("JLT tail")
	a.op("PCALIGN $32")
	a.label("vectors")
	body()
	a.op("ADDQ $%d, AX", a.isa.bytes)
	a.op("SUBQ $%d, CX", a.isa.lanes())
	a.op("JGE vectors")
	a.label("tail")
	a.op("ADDQ $%d, CX", a.isa.lanes())
	a.op("JEQ done")
	if a.isa.wide() {
		a.op("MOVL $1, R11")
		a.op("SHLL CX, R11")
		a.op("DECL R11")
		a.op("KMOVW R11, K1")
	} else {
		a.op("VMOVD CX, X%d", mask)
		a.op("VPBROADCASTD X%d, Y%d", mask, mask)
		a.op("VPCMPGTD lanes<>(SB), Y%d, Y%d", mask, mask)
	}
	a.tail = true
	body()
	a.tail = false
	a.label("done")
}

func (a *assembler) mem(stream string) string { return fmt.Sprintf("(%s)(AX*1)", a.streams[stream]) }

// load reads a register of a stream. Lanes beyond the tail are zero.
func (a *assembler) load(stream string, r int) {
	switch {
	case a.isa.neon():
		a.loadNEON(stream, r)
	case !a.tail:
		a.op("VMOVUPS %s, %s", a.mem(stream), a.v(r))
	case a.isa.wide():
		a.op("VMOVUPS.Z %s, K1, Z%d", a.mem(stream), r)
	default:
		a.op("VMASKMOVPS %s, Y%d, Y%d", a.mem(stream), mask, r)
	}
}

func (a *assembler) store(r int, stream string) {
	switch {
	case a.isa.neon():
		a.storeNEON(r, stream)
	case !a.tail:
		a.op("VMOVUPS %s, %s", a.v(r), a.mem(stream))
	case a.isa.wide():
		a.op("VMOVUPS Z%d, K1, %s", r, a.mem(stream))
	default:
		a.op("VMASKMOVPS Y%d, Y%d, %s", r, mask, a.mem(stream))
	}
}

// keep clears the lanes beyond the tail.
func (a *assembler) keep(r int) {
	switch {
	case !a.tail:
	case a.isa.neon(): // what a scalar is moved to has zeros behind it
		a.op("FMOVS F%d, F%d", r, r)
	case a.isa.wide():
		a.op("VMOVAPS.Z Z%d, K1, Z%d", r, r)
	default:
		a.op("VANDPS Y%d, Y%d, Y%d", mask, r, r)
	}
}

// fill sets the lanes beyond the tail to those of from.
func (a *assembler) fill(from, r int) {
	switch {
	case !a.tail:
	case a.isa.neon():
		a.vec("VMOVAPS", from, scratch)
		a.op("VMOV V%d.S[0], V%d.S[0]", r, scratch)
		a.vec("VMOVAPS", scratch, r)
	case a.isa.wide():
		a.op("VBLENDMPS Z%d, Z%d, K1, Z%d", r, from, r)
	default:
		a.op("VBLENDVPS Y%d, Y%d, Y%d, Y%d", mask, r, from, r)
	}
}

// spread sets all lanes of r to an argument, and constant to a constant.
func (a *assembler) spread(arg string, r int) { a.broadcast(a.args[arg], r) }

// broadcast sets all lanes of r to the dword at mem.
func (a *assembler) broadcast(mem string, r int) {
	if a.isa.neon() {
		a.op("MOVW %s, R11", mem)
		a.op("VDUP R11, V%d.S4", r)
		return
	}
	a.op("VBROADCASTSS %s, %s", mem, a.v(r))
}

func (a *assembler) constant(name string, r int) {
	if a.isa.neon() {
		a.vec("VMOVAPS", a.hold(name), r)
		return
	}
	a.op("VBROADCASTSS %s<>(SB), %s", name, a.v(r))
}

func (a *assembler) zero(regs ...int) {
	for _, r := range regs {
		if a.isa.neon() {
			a.vec("VXORPS", r, r, r)
			continue
		}
		a.op("VXORPS X%d, X%d, X%d", r, r, r)
	}
}

// widen converts r to float64: its lower half to low, the upper to high.
func (a *assembler) widen(r, low, high int) {
	if a.isa.neon() {
		a.vec("VCVTPS2PD", r, low)
		a.op("%s", neon.FCVTL2.On(r, high))
		return
	}
	if a.isa.wide() {
		a.op("VEXTRACTF64X4 $1, Z%d, Y%d", r, high)
	} else {
		a.op("VEXTRACTF128 $1, Y%d, X%d", r, high)
	}
	a.op("VCVTPS2PD %s, %s", a.half(r), a.v(low))
	a.op("VCVTPS2PD %s, %s", a.half(high), a.v(high))
}

// fold combines the lanes of r in pairs of halves, down to one of the given size in bytes, through register t.
func (a *assembler) fold(op string, size, r, t int) {
	if a.isa.neon() {
		a.foldNEON(op, size, r, t)
		return
	}
	if a.isa.wide() {
		a.op("VEXTRACTF64X4 $1, Z%d, Y%d", r, t)
		a.op("%s Y%d, Y%d, Y%d", op, t, r, r)
	}
	a.op("VEXTRACTF128 $1, Y%d, X%d", r, t)
	a.op("%s X%d, X%d, X%d", op, t, r, r)
	a.op("VPERMILPD $1, X%d, X%d", r, t)
	a.op("%s X%d, X%d, X%d", op, t, r, r)
	if size == 4 {
		a.op("VPSRLQ $32, X%d, X%d", r, t)
		a.op("%s X%d, X%d, X%d", op, t, r, r)
	}
}

// total returns the sum of the float64 lanes of low and high.
func (a *assembler) total(low, high int, result string) {
	a.vec("VADDPD", high, low, low)
	a.fold("VADDPD", 8, low, high)
	a.result(8, low, result)
}

// result stores the lowest lane, of size bytes.
func (a *assembler) result(size, r int, name string) {
	switch {
	case a.isa.neon() && size == 8:
		a.op("FMOVD F%d, %s", r, a.args[name])
	case a.isa.neon():
		a.op("FMOVS F%d, %s", r, a.args[name])
	case size == 8:
		a.op("VMOVSD X%d, %s", r, a.args[name])
	default:
		a.op("VMOVSS X%d, %s", r, a.args[name])
	}
}

// unit declares the kernels of isa.
func (a *assembler) unit() {
	fmt.Fprintf(&a.decl, "\nvar %s = Unit{name: %q", a.isa.name, a.isa.name)
	for _, n := range a.names {
		fmt.Fprintf(&a.decl, ", %s: %s%s", n, n, a.isa.suffix)
	}
	fmt.Fprintf(&a.decl, "}\n")
	a.names = nil
}

// constants are repeated over a register of AVX2; AVX-512 spreads the first.
func (a *assembler) constants() {
	put := func(name string, value func(lane int) uint32) {
		fmt.Fprintln(&a.code)
		for lane := range 8 {
			fmt.Fprintf(&a.code, "DATA %s<>+%d(SB)/4, $0x%08x\n", name, 4*lane, value(lane))
		}
		fmt.Fprintf(&a.code, "GLOBL %s<>(SB), RODATA|NOPTR, $32\n", name)
	}
	for _, c := range numbers {
		put(c.name, func(int) uint32 { return c.bits })
	}
	put("lanes", func(lane int) uint32 { return uint32(lane) })
}
