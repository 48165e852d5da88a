// Package emu builds a CUDA driver whose device is the CPU: the kernels' own source, compiled by a C++ compiler, each
// thread a fiber (cpp/emu.h), and a driver around them (cpp/driver.cc) that checks what it is given. It is for tests.
package emu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// ErrNoCompiler: there is no C++ compiler.
var ErrNoCompiler = errors.New("no C++ compiler (g++ or clang++)")

var built struct {
	sync.Once
	path string
	err  error
}

// Driver compiles the driver with all kernels, once a process, and returns its path, which driver.Open takes. The file
// lies in the system's directory for temporary files; remove it with Remove.
func Driver() (path string, err error) {
	built.Do(func() { built.path, built.err = build() })
	return built.path, built.err
}

// Remove removes what Driver made. An open driver goes on working.
func Remove() {
	if built.path != "" {
		os.RemoveAll(filepath.Dir(built.path))
	}
}

func build() (string, error) {
	compiler := ""
	for _, name := range []string{"g++", "clang++"} {
		if p, err := exec.LookPath(name); err == nil {
			compiler = p
			break
		}
	}
	if compiler == "" {
		return "", ErrNoCompiler
	}
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Dir(here)
	kernels, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*.cu"))
	if err != nil || len(kernels) == 0 {
		return "", fmt.Errorf("no kernels beside %s: %v", dir, err)
	}
	out, err := os.MkdirTemp("", "biolora-emu")
	if err != nil {
		return "", err
	}
	lib := filepath.Join(out, "libcuda-emulated.so")
	args := []string{"-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-DCU_EMU", "-shared", "-fPIC", "-o", lib, "-x", "c++"}
	args = append(args, kernels...)
	args = append(args, filepath.Join(dir, "cpp", "emu.cc"), filepath.Join(dir, "cpp", "driver.cc"))
	if text, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		os.RemoveAll(out)
		return "", fmt.Errorf("%s: %w\n%s", compiler, err, text)
	}
	return lib, nil
}
