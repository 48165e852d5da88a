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

// What was compiled in this process: a driver with all kernels, and one with none but those of check.cu.
var whole, bare drivers

type drivers struct {
	sync.Once
	builder *builder
	path    string
	err     error
}

func (d *drivers) driver(kernels string) (path string, err error) {
	d.Do(func() {
		if d.builder, d.err = newBuilder(kernels); d.err == nil {
			d.path = filepath.Join(d.builder.out, "libcuda-emulated.so")
			d.err = d.builder.link(d.path, d.builder.objects)
		}
	})
	return d.path, d.err
}

// Driver compiles the driver with all kernels, once a process, and returns its path, which driver.Open takes. The file
// lies in the system's directory for temporary files; remove it with Remove. Objects are kept in the user's cache directory
// (biolora/emu) from process to process.
func Driver() (path string, err error) { return whole.driver("*.cu") }

// Bare is Driver with the kernels of cpp/check.cu alone.
func Bare() (path string, err error) { return bare.driver("") }

// Remove removes what Driver, Bare and Variant made. An open driver goes on working.
func Remove() {
	for _, d := range []*drivers{&whole, &bare} {
		if d.builder != nil {
			os.RemoveAll(d.builder.out)
		}
	}
}

// Variant is Driver with another text in place of one of the kernels' files, e.g. "norm.cu".
func Variant(file, text string) (path string, err error) {
	if _, err := Driver(); err != nil {
		return "", err
	}
	return whole.builder.variant(file, text)
}
