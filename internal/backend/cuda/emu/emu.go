// Package emu builds a CUDA driver whose device is the CPU: the kernels' own source, compiled by a C++ compiler, each
// thread a fiber (cpp/emu.h), a driver around them (cpp/driver.cc) that checks what it is given and runs streams in orders
// that events allow, and a cublasLt (cpp/cublaslt.cc). It is for tests; Open gives them its settings.
package emu

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
)

// ErrNoCompiler: there is no C++ compiler.
var ErrNoCompiler = errors.New("no C++ compiler (g++ or clang++)")

var built struct {
	sync.Once
	builder *builder
	path    string
	err     error
}

// Driver compiles the driver with all kernels, once a process, and returns its path, which driver.Open takes. The file
// lies in the system's directory for temporary files; remove it with Remove.
func Driver() (path string, err error) {
	built.Do(func() {
		if built.builder, built.err = newBuilder(); built.err == nil {
			built.path = filepath.Join(built.builder.out, "libcuda-emulated.so")
			built.err = built.builder.link(built.path, built.builder.objects)
		}
	})
	return built.path, built.err
}

// Remove removes what Driver and Variant made. An open driver goes on working.
func Remove() {
	if built.builder != nil {
		os.RemoveAll(built.builder.out)
	}
}

// Variant is Driver with another text in place of one of the kernels' files, e.g. "norm.cu".
func Variant(file, text string) (path string, err error) {
	if _, err := Driver(); err != nil {
		return "", err
	}
	return built.builder.variant(file, text)
}
