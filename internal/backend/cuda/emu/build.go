package emu

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// builder compiles C++ files to objects, each once, and links them to drivers.
type builder struct {
	compiler string
	kernels  string // the directory of the .cu files
	out      string // where objects and drivers go
	variants atomic.Int32

	objects map[string]string // of the kernels' and the driver's files, by base name
}

// newBuilder has the kernels of files that match a pattern and the driver as objects.
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
	if err := b.objectsOf(append(sources, more...)); err != nil {
		os.RemoveAll(b.out)
		return nil, err
	}
	return b, nil
}

// objectsOf compiles the sources, or takes what an earlier process compiled of the same text: six packages' tests want it.
func (b *builder) objectsOf(sources []string) error {
	kept, err := b.keptDir(sources)
	if err != nil {
		return err
	}
	for _, source := range sources {
		b.objects[filepath.Base(source)] = filepath.Join(kept, filepath.Base(source)+".o")
	}
	if _, err := os.Stat(kept); err == nil {
		return nil
	}
	made, err := b.newDir(filepath.Dir(kept))
	if err != nil {
		return err
	}
	if err := b.compileAll(made, sources); err != nil {
		os.RemoveAll(made)
		return err
	}
	err = os.Rename(made, kept)
	if _, there := os.Stat(kept); there == nil { // also where another process was first
		if err != nil {
			os.RemoveAll(made)
		}
		return nil
	}
	return err
}

// newDir makes a directory for objects beside those that are kept, of which it removes what is a week old.
func (b *builder) newDir(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	old, err := os.ReadDir(parent)
	if err != nil {
		return "", err
	}
	for _, e := range old {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > 7*24*time.Hour {
			os.RemoveAll(filepath.Join(parent, e.Name()))
		}
	}
	return os.MkdirTemp(parent, "new-")
}

// keptDir is where the objects of the sources, as they are now, lie between processes.
func (b *builder) keptDir(sources []string) (string, error) {
	version, err := b.output("--version")
	if err != nil {
		return "", err
	}
	headers, err := filepath.Glob(filepath.Join(b.kernels, "*.h"))
	if err != nil {
		return "", err
	}
	more, err := filepath.Glob(filepath.Join(b.kernels, "emu", "cpp", "*.h"))
	if err != nil {
		return "", err
	}
	_, here, _, _ := runtime.Caller(0) // how they are compiled
	h := sha256.New()
	fmt.Fprintln(h, version, b.kernels)
	for _, path := range slices.Concat([]string{here, filepath.Join(filepath.Dir(here), "fields.go")}, sources, headers, more) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", path, len(text), text)
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		err = os.MkdirAll(cache, 0o700)
	}
	if err != nil {
		cache = b.out // it is for this process alone then
	}
	return filepath.Join(cache, "biolora", "emu", hex.EncodeToString(h.Sum(nil)[:12])), nil
}

// compileAll compiles the sources to objects in dir, a processor each.
func (b *builder) compileAll(dir string, sources []string) error {
	errs := make([]error, len(sources))
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, source := range sources {
		object := filepath.Join(dir, filepath.Base(source)+".o")
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

// compile compiles a file, and with kernels the table of where their arguments have pointers. Kernels trap where an
// access is not aligned, which a processor may do and a card does not.
func (b *builder) compile(object, source, level string) error {
	var more []string
	if strings.HasSuffix(source, ".cu") {
		more = []string{"-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"}
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
	return b.run(append(more, "-std=c++17", level, "-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique", "-fvisibility=hidden", "-U_FORTIFY_SOURCE",
		"-fPIC", "-DCU_EMU", "-iquote", b.kernels, "-c", "-o", object, "-x", "c++", source)...)
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
