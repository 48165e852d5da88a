//go:build !amd64 && !arm64

package gemm

func has(s set) bool { return s == plain }

func amd() bool { return false }

func refused(set) error { return nil }

func kernelsOf(set) *kernels { return &goKernels }
