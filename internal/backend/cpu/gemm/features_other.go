//go:build !amd64 && !arm64

package gemm

func has(s set) bool { return s == plain }

func amd() bool { return false }

func amx() bool { return false }

func kernelsOf(set) *kernels { return &goKernels }
