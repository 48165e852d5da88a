package cuda

import (
	"embed"
	"fmt"
	"strings"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

//go:generate sh generate.sh

//go:embed gen_*.ptx
var modules embed.FS

// kernel is a kernel of the embedded PTX.
type kernel int

// kernelNames are the kernels' names in PTX.
var kernelNames []string

// declare names a kernel that the backend finds when it opens: var scaleKernel = declare("scale").
func declare(name string) kernel {
	kernelNames = append(kernelNames, name)
	return kernel(len(kernelNames) - 1)
}

// typed are a kernel's variants by what an activation is.
type typed struct{ f32, bf16 kernel }

// declareTyped names NAME_f32 and NAME_bf16.
func declareTyped(name string) typed { return typed{declare(name + "_f32"), declare(name + "_bf16")} }

func (t typed) of(half bool) kernel {
	if half {
		return t.bf16
	}
	return t.f32
}

// load compiles the modules for the card and finds the kernels. The driver keeps what it compiled for the next time.
func (be *Backend) load() error {
	be.kernels = make([]driver.Function, len(kernelNames))
	files, err := modules.ReadDir(".")
	if err != nil {
		return err
	}
	for _, f := range files {
		ptx, err := modules.ReadFile(f.Name())
		if err != nil {
			return err
		}
		if err := be.loadModule(ptx); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	for k, f := range be.kernels {
		if f == 0 {
			return fmt.Errorf("no module has kernel %s", kernelNames[k])
		}
	}
	return nil
}

func (be *Backend) loadModule(ptx []byte) error {
	m, err := be.ctx.Load(ptx)
	if err != nil {
		return err
	}
	be.modules = append(be.modules, m)
	for k, name := range kernelNames {
		if !strings.Contains(string(ptx), ".entry "+name+"(") {
			continue
		}
		if be.kernels[k], err = be.ctx.Function(m, name); err != nil {
			return fmt.Errorf("kernel %s: %w", name, err)
		}
	}
	return nil
}
