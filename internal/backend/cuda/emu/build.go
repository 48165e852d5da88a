package emu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// builder compiles C++ files to objects, each once, and links them to drivers.
type builder struct {
	compiler string
	kernels  string // the directory of the .cu files
	out      string // where objects and drivers go
	variants atomic.Int32

	objects map[string]string // of the kernels' and the driver's files, by base name
}

// newBuilder compiles the kernels of files that match a pattern and the driver, a processor each.
func newBuilder(pattern string) (*builder, error) {
	b := &builder{objects: map[string]string{}}
	for _, name := range []string{"g++", "clang++"} {
		if p, err := exec.LookPath(name); err == nil {
			b.compiler = p
			break
		}
	}
	if b.compiler == "" {
		return nil, ErrNoCompiler
	}
	_, here, _, _ := runtime.Caller(0)
	b.kernels = filepath.Dir(filepath.Dir(here))
	var sources []string
	if pattern != "" {
		var err error
		if sources, err = filepath.Glob(filepath.Join(b.kernels, pattern)); err != nil || len(sources) == 0 {
			return nil, fmt.Errorf("no kernels in %s: %v", b.kernels, err)
		}
	}
	more, err := filepath.Glob(filepath.Join(b.kernels, "emu", "cpp", "*.c[cu]"))
	if err != nil {
		return nil, err
	}
	if b.out, err = os.MkdirTemp("", "biolora-emu"); err != nil {
		return nil, err
	}
	if err := b.compileAll(append(sources, more...)); err != nil {
		os.RemoveAll(b.out)
		return nil, err
	}
	return b, nil
}

func (b *builder) compileAll(sources []string) error {
	errs := make([]error, len(sources))
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, source := range sources {
		object := filepath.Join(b.out, filepath.Base(source)+".o")
		b.objects[filepath.Base(source)] = object
		wg.Go(func() {
			free <- struct{}{}
			level := "-O2"
			if filepath.Base(source) == "cublaslt.cc" {
				level = "-O3" // its products are loops for vectors
			}
			errs[i] = b.compile(object, source, level)
			<-free
		})
	}
	wg.Wait()
	for _, err := range errs { // one file's messages are enough
		if err != nil {
			return err
		}
	}
	return nil
}

// compile compiles a file, and with kernels the table of where their arguments have pointers.
func (b *builder) compile(object, source, level string) error {
	if strings.HasSuffix(source, ".cu") {
		tables, err := b.pointerTables(source)
		if err != nil {
			return err
		}
		unit := object + ".cc"
		if err := os.WriteFile(unit, fmt.Appendf(nil, "#include %q\n%s", source, tables), 0o600); err != nil {
			return err
		}
		source = unit
	}
	return b.run("-std=c++17", level, "-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique", "-fvisibility=hidden", "-U_FORTIFY_SOURCE",
		"-fPIC", "-DCU_EMU", "-iquote", b.kernels, "-c", "-o", object, "-x", "c++", source)
}

// link makes a driver. It keeps to its own symbols where several are open in a process.
func (b *builder) link(lib string, objects map[string]string) error {
	args := []string{"-shared", "-Wl,-Bsymbolic", "-o", lib}
	for _, o := range objects {
		args = append(args, o)
	}
	return b.run(args...)
}

func (b *builder) run(args ...string) error {
	_, err := b.output(args...)
	return err
}

// output is what the compiler writes.
func (b *builder) output(args ...string) (string, error) {
	var out, text strings.Builder
	c := exec.Command(b.compiler, args...)
	c.Stdout, c.Stderr = &out, &text
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{b.compiler}, args...), " "), err, text.String())
	}
	return out.String(), nil
}

// variant links a driver in which text stands for the kernels' file of that name.
func (b *builder) variant(name, text string) (string, error) {
	if b.objects[name] == "" {
		return "", fmt.Errorf("there is no %s", name)
	}
	base := filepath.Join(b.out, fmt.Sprintf("variant%d-", b.variants.Add(1)))
	source, object, lib := base+name, base+name+".o", base+"libcuda.so"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		return "", err
	}
	if err := b.compile(object, source, "-O1"); err != nil {
		return "", err
	}
	defer os.Remove(object)
	objects := map[string]string{}
	for k, v := range b.objects {
		objects[k] = v
	}
	objects[name] = object
	return lib, b.link(lib, objects)
}
