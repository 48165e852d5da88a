//go:build linux && (amd64 || arm64) && !nocuda

package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The functions of cublasLt that are used, in the order of ltSymbols.
const (
	ltGetVersion = iota
	ltCreate
	ltDestroy
	ltDescCreate
	ltDescDestroy
	ltDescSet
	ltLayoutCreate
	ltLayoutDestroy
	ltPrefCreate
	ltPrefDestroy
	ltPrefSet
	ltHeuristic
	ltMatmul
	ltFunctions
)

var ltSymbols = [ltFunctions]string{
	"cublasLtGetVersion", "cublasLtCreate", "cublasLtDestroy", "cublasLtMatmulDescCreate", "cublasLtMatmulDescDestroy",
	"cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutDestroy", "cublasLtMatmulPreferenceCreate",
	"cublasLtMatmulPreferenceDestroy", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul",
}

// ltNames are looked for where the loader looks (LD_LIBRARY_PATH, the system's directories), the newest first: one that
// is too new for the driver fails when it is opened, and the next is tried.
var ltNames = []string{"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"}

// ltToolkit is where NVIDIA's toolkit puts them, which the loader mostly is not told of.
const ltToolkit = "/usr/local/cuda/lib64"

// ltCandidates are the files to try, in order.
func ltCandidates(toolkit string) []string {
	names := slices.Clone(ltNames)
	for _, name := range ltNames {
		path := filepath.Join(toolkit, name)
		if _, err := os.Stat(path); err == nil {
			names = append(names, path)
		}
	}
	return names
}

// Lt is cublasLt, open in a context.
type Lt struct {
	path        string
	at          [ltFunctions]uintptr
	handle      uintptr
	version     int
	alpha, beta float32 // of the product that is started; on the heap, so that they do not move
	words       [16]uintptr
}

// OpenLt opens cublasLt at path, or the machine's (""). The context must be current.
func (c *Context) OpenLt(path string) (*Lt, error) {
	candidates := ltCandidates(ltToolkit)
	if path != "" {
		candidates = []string{path}
	}
	var errs []error
	for _, name := range candidates {
		handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l := &Lt{path: name}
		if err = l.open(handle); err == nil {
			return l, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return nil, fmt.Errorf("no cublasLt: %w", errors.Join(errs...))
}

func (l *Lt) open(library uintptr) (err error) {
	for i, name := range ltSymbols {
		if l.at[i], err = purego.Dlsym(library, name); err != nil {
			return fmt.Errorf("it has no %s", name)
		}
	}
	version, _, _ := purego.SyscallN(l.at[ltGetVersion])
	l.version = int(version)
	return l.call(ltCreate, uintptr(unsafe.Pointer(&l.handle)))
}

// Close ends it; the plans must have been closed.
func (l *Lt) Close() error { return l.call(ltDestroy, l.handle) }

// Version is as cublasLt tells it, 120103 for 12.1.3.
func (l *Lt) Version() int { return l.version }

//go:uintptrescapes
func (l *Lt) call(f int, args ...uintptr) error {
	if r, _, _ := purego.SyscallN(l.at[f], args...); int32(r) != 0 {
		return &ltError{ltSymbols[f], int32(r)}
	}
	return nil
}

// Plan is how cublasLt computes a product.
type Plan struct {
	result  ltResult
	desc    uintptr
	layouts [4]uintptr // of A, B, C, D
}

// ltResult is cublasLtMatmulHeuristicResult_t.
type ltResult struct {
	algo      [8]uint64
	workspace uint64
	status    int32
	waves     float32
	_         [4]int32
}

// Plan asks cublasLt how to compute p with at most workspace bytes of memory. An error that is ErrUnsupported says that
// it does not know.
func (l *Lt) Plan(p Product, workspace int64) (plan *Plan, err error) {
	plan = &Plan{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.ClosePlan(plan))
			plan = nil
		}
	}()
	if err := l.describe(plan, p); err != nil {
		return plan, err
	}
	pref, err := l.preference(p, workspace)
	if err != nil {
		return plan, err
	}
	var found int32
	y := &plan.layouts
	err = l.call(ltHeuristic, l.handle, plan.desc, y[0], y[1], y[2], y[3], pref, 1, uintptr(unsafe.Pointer(&plan.result)), uintptr(unsafe.Pointer(&found)))
	runtime.KeepAlive(plan)
	err = errors.Join(err, l.call(ltPrefDestroy, pref))
	switch {
	case err != nil:
		return plan, err
	case found == 0:
		return plan, ErrUnsupported
	case plan.result.status != 0:
		return plan, &ltError{ltSymbols[ltHeuristic], plan.result.status}
	case plan.result.workspace > uint64(workspace):
		return plan, fmt.Errorf("%w within %d bytes of workspace, it wants %d", ErrUnsupported, workspace, plan.result.workspace)
	}
	return plan, nil
}

// describe makes the descriptors of a plan.
func (l *Lt) describe(plan *Plan, p Product) error {
	compute := uintptr(ltCompute32)
	if !p.Half {
		compute = ltCompute32Pedantic
	}
	if err := l.call(ltDescCreate, uintptr(unsafe.Pointer(&plan.desc)), compute, ltReal32); err != nil {
		return err
	}
	for _, t := range []struct {
		on        bool
		attribute uintptr
	}{{p.TransA, ltDescTransA}, {p.TransB, ltDescTransB}} {
		op := int32(ltOpT)
		if !t.on {
			continue
		}
		if err := l.call(ltDescSet, plan.desc, t.attribute, uintptr(unsafe.Pointer(&op)), unsafe.Sizeof(op)); err != nil {
			return err
		}
	}
	for i, m := range []struct {
		half, trans    bool
		rows, cols, ld int
	}{
		{p.Half, p.TransA, p.M, p.K, p.LdA},
		{p.Half, p.TransB, p.K, p.N, p.LdB},
		{p.HalfOut, false, p.M, p.N, p.LdC},
		{p.HalfOut, false, p.M, p.N, p.LdD},
	} {
		dtype := uintptr(ltReal32)
		if m.half {
			dtype = ltReal16B
		}
		if m.trans {
			m.rows, m.cols = m.cols, m.rows
		}
		if err := l.call(ltLayoutCreate, uintptr(unsafe.Pointer(&plan.layouts[i])), dtype, uintptr(m.rows), uintptr(m.cols), uintptr(m.ld)); err != nil {
			return err
		}
	}
	return nil
}

// preference is what the algorithm must keep to.
func (l *Lt) preference(p Product, workspace int64) (pref uintptr, err error) {
	var made uintptr
	if err := l.call(ltPrefCreate, uintptr(unsafe.Pointer(&made))); err != nil {
		return 0, err
	}
	bytes := uint64(workspace)
	err = l.call(ltPrefSet, made, ltPrefWorkspace, uintptr(unsafe.Pointer(&bytes)), unsafe.Sizeof(bytes))
	for _, a := range []struct {
		attribute uintptr
		value     uint32
	}{
		{ltPrefReductionMask, ltReductionInWorkspace},
		{ltPrefAlignA, p.AlignA}, {ltPrefAlignB, p.AlignB}, {ltPrefAlignC, p.AlignC}, {ltPrefAlignD, p.AlignD},
	} {
		if err == nil {
			err = l.call(ltPrefSet, made, a.attribute, uintptr(unsafe.Pointer(&a.value)), unsafe.Sizeof(a.value))
		}
	}
	if err != nil {
		return 0, errors.Join(err, l.call(ltPrefDestroy, made))
	}
	return made, nil
}

// ClosePlan ends a plan. Products that have been started go on.
func (l *Lt) ClosePlan(plan *Plan) error {
	var errs []error
	for _, y := range plan.layouts {
		if y != 0 {
			errs = append(errs, l.call(ltLayoutDestroy, y))
		}
	}
	if plan.desc != 0 {
		errs = append(errs, l.call(ltDescDestroy, plan.desc))
	}
	return errors.Join(errs...)
}

// Run starts a product. workspace has as many bytes as Plan was given.
func (l *Lt) Run(plan *Plan, alpha float32, a, b Ptr, beta float32, c, d Ptr, workspace Ptr, bytes int64, s Stream) error {
	l.alpha, l.beta = alpha, beta
	y := &plan.layouts
	l.words = [16]uintptr{l.handle, plan.desc, uintptr(unsafe.Pointer(&l.alpha)), uintptr(a), y[0], uintptr(b), y[1],
		uintptr(unsafe.Pointer(&l.beta)), uintptr(c), y[2], uintptr(d), y[3], uintptr(unsafe.Pointer(&plan.result.algo)),
		uintptr(workspace), uintptr(bytes), uintptr(s)}
	r, _, _ := purego.SyscallN(l.at[ltMatmul], l.words[:]...) // a slice that is there already needs no allocation
	runtime.KeepAlive(plan)
	if int32(r) != 0 {
		return &ltError{ltSymbols[ltMatmul], int32(r)}
	}
	return nil
}
