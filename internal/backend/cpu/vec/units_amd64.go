package vec

import "golang.org/x/sys/cpu"

// units are the kernels by the names of features; nil where the CPU lacks the instructions.
var units = func() map[string]*Unit {
	m := map[string]*Unit{"go": &plain, "avx2": nil, "avx512f": nil, "avx512_bf16": nil, "amx": nil, "neon": nil}
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA {
		return m
	}
	m["avx2"] = &avx2
	if x.HasAVX512F && x.HasAVX512DQ {
		m["avx512f"], m["avx512_bf16"], m["amx"] = &avx512, &avx512, &avx512
	}
	return m
}()
