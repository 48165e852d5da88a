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
	default:
		return s == plain
	}
}

func amx() bool { return cpu.X86.HasAMXTile && cpu.X86.HasAMXBF16 }

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
