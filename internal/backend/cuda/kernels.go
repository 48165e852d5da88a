package cuda

import (
	"bytes"
	"embed"
	"fmt"
	"sync"

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

// kernelFiles are the embedded modules, by the kernels in them: each kernel's file, in the order of kernelNames.
var kernelFiles = sync.OnceValues(func() ([]string, error) {
	entries, err := modules.ReadDir(".")
	if err != nil {
		return nil, err
	}
	home := map[string]string{}
	for _, e := range entries {
		ptx, err := modules.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		for _, part := range bytes.Split(ptx, []byte(".entry "))[1:] {
			name, _, _ := bytes.Cut(part, []byte("("))
			home[string(name)] = e.Name()
		}
	}
	files := make([]string, len(kernelNames))
	for k, name := range kernelNames {
		if files[k] = home[name]; files[k] == "" {
			return nil, fmt.Errorf("no module has kernel %s", name)
		}
	}
	return files, nil
})

// load compiles a first module for the card, which tells whether it can. The others are compiled when a kernel of theirs
// is needed first: all take seconds, and a run needs half of them. The driver keeps what it compiled for the next time.
func (be *Backend) load() (err error) {
	if be.files, err = kernelFiles(); err != nil {
		return err
	}
	be.kernels = make([]driver.Function, len(kernelNames))
	_, err = be.function(rmsNormKernel)
	return err
}

// function is kernel k on the card.
func (be *Backend) function(k kernel) (driver.Function, error) {
	if f := be.kernels[k]; f != 0 {
		return f, nil
	}
	if err := be.loadModule(be.files[k]); err != nil {
		return 0, fmt.Errorf("%s: %w", be.files[k], err)
	}
	return be.kernels[k], nil
}

// loadModule compiles an embedded file and finds its kernels.
func (be *Backend) loadModule(file string) error {
	ptx, err := modules.ReadFile(file)
	if err != nil {
		return err
	}
	m, err := be.ctx.Load(ptx)
	if err != nil {
		return err
	}
	be.modules = append(be.modules, m)
	for k, name := range kernelNames {
		if be.files[k] != file {
			continue
		}
		if be.kernels[k], err = be.ctx.Function(m, name); err != nil {
			return fmt.Errorf("kernel %s: %w", name, err)
		}
	}
	return nil
}
