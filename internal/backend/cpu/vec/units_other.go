//go:build !amd64 && !arm64

package vec

// units are the kernels by the names of features; nil where the CPU lacks the instructions.
var units = map[string]*Unit{"go": &plain, "avx2": nil, "avx512f": nil, "avx512_bf16": nil, "amx": nil, "neon": nil}
