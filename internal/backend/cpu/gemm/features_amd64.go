package gemm

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

func has(s set) bool {
	x := &cpu.X86
	vex := x.HasAVX2 && x.HasFMA && x.HasF16C
	evex := vex && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL
	switch s {
	case avx2:
		return vex
	case avx512f:
		return evex
	case avx512BF16:
		return evex && x.HasAVX512BF16
	case amx:
		return evex && hasTiles() && tilePermission() == nil
	default:
		return s == plain
	}
}

// hasTiles reports whether the CPU has the instructions of the products on tiles; their packing takes AVX512_BF16.
func hasTiles() bool {
	x := &cpu.X86
	return x.HasAMXTile && x.HasAMXBF16 && x.HasAVX512BF16
}

// refused returns why what the CPU has must not be used; nil where it has it not.
func refused(s set) error {
	if s != amx || !hasTiles() {
		return nil
	}
	return tilePermission()
}

// amd reports whether the CPU calls itself AuthenticAMD, or HygonGenuine, which is Zen as well.
func amd() bool {
	b, d, c := cpuVendor()
	name := binary.LittleEndian.AppendUint32(nil, b)
	name = binary.LittleEndian.AppendUint32(name, d)
	name = binary.LittleEndian.AppendUint32(name, c)
	return string(name) == "AuthenticAMD" || string(name) == "HygonGenuine"
}

// cpuVendor returns the registers that hold the vendor's name, of CPUID leaf 0.
func cpuVendor() (b, d, c uint32)
