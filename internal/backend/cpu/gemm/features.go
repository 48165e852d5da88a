package gemm

import (
	"fmt"
	"slices"
	"strings"
)

// Compute is what products with weights multiply.
type Compute uint8

// F32 multiplies float32. BF16 rounds both operands to bfloat16. Both accumulate in float32.
const (
	F32 Compute = iota
	BF16
)

// String returns "f32" or "bf16".
func (c Compute) String() string {
	if c == BF16 {
		return "bf16"
	}
	return "f32"
}

// Features are the instructions to use. The zero value is plain Go.
type Features struct {
	set      set
	fastBF16 bool
}

// set is a set of instructions that has kernels of its own.
type set uint8

const (
	plain set = iota
	avx2
	avx512f
	avx512BF16
	amx
	neon
)

var setNames = [...]string{plain: "go", avx2: "avx2", avx512f: "avx512f", avx512BF16: "avx512_bf16", amx: "amx", neon: "neon"}

// String returns the name that Parse understands.
func (f Features) String() string { return setNames[f.set] }

// FastBF16 reports whether f multiplies bfloat16 faster than float32: AMX, or AVX512_BF16 on AMD. On Intel VDPBF16PS has
// half the rate of float32 FMA.
func (f Features) FastBF16() bool { return f.fastBF16 }

// Detect returns the best that this CPU has.
func Detect() Features {
	f := Features{set: plain}
	for s := avx2; s <= neon; s++ {
		if has(s) && (s != avx512BF16 || amd()) {
			f.set = s
		}
	}
	f.fastBF16 = f.set == avx512BF16 || f.set == amx
	return f
}

// Parse returns the features called name. It fails for a name it does not know and for instructions that this CPU lacks,
// naming those it has.
func Parse(name string) (Features, error) {
	for s, n := range setNames {
		if n != name {
			continue
		}
		f := Features{set: set(s)}
		if !has(f.set) {
			if why := refused(f.set); why != nil {
				return Features{}, fmt.Errorf("this CPU has %s, but the system does not let it be used: %w", name, why)
			}
			return Features{}, fmt.Errorf("this CPU has no %s, it has %s", name, strings.Join(available(), ", "))
		}
		f.fastBF16 = f.set == avx512BF16 && amd() || f.set == amx
		return f, nil
	}
	return Features{}, fmt.Errorf("CPU features %q are unknown, want one of %s", name, strings.Join(available(), ", "))
}

// Names are the features that Parse knows, whether this CPU has them or not.
func Names() []string { return slices.Clone(setNames[:]) }

func available() (names []string) {
	for s, n := range setNames {
		if has(set(s)) {
			names = append(names, n)
		}
	}
	return names
}
