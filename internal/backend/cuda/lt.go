package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// operand is a factor of a product: op(x) row-major, bf16 or f32.
type operand struct {
	at    driver.Ptr
	ld    int  // elements from a row, as it lies in memory, to the next
	half  bool // bf16
	trans bool // op(x) is the transpose of what lies in memory
}

// result is what a product writes or adds to: [m, n] row-major, bf16 or f32.
type result struct {
	at   driver.Ptr
	ld   int
	half bool
}

// NoCublasLt as Options.CublasLt computes all products with this package's kernels.
const NoCublasLt = "none"

// ltWorkspace is what NVIDIA advises for Hopper; an algorithm that wants more is not taken.
const ltWorkspace = 32 << 20

// ltPlans is how many plans are kept. A batch of another number of rows needs plans of its own, about ten.
const ltPlans = 8 << 10

// ltProducts is what cublasLt is asked for.
type ltProducts struct {
	lib       *driver.Lt
	missing   error // why lib is nil
	plans     map[driver.Product]*driver.Plan
	workspace memory
}

func init() {
	scratches = append(scratches, scratch{
		memory: func(be *Backend) *memory { return &be.lt.workspace },
		bytes: func(be *Backend, _ backend.Need) int64 {
			if be.lt.lib == nil {
				return 0
			}
			return ltWorkspace
		},
	})
}

// openLt opens cublasLt, which may be missing: then products are this package's.
func (be *Backend) openLt(path string) {
	path = cmp.Or(path, os.Getenv("BIOLORA_CUBLASLT"))
	if path == NoCublasLt {
		be.lt.missing = errors.New("cublasLt is turned off")
		return
	}
	be.lt.lib, be.lt.missing = be.ctx.OpenLt(path)
	be.lt.plans = map[driver.Product]*driver.Plan{}
}

// Products says what computes products, and why it is not cublasLt where it is not.
func (be *Backend) Products() (by string, missing error) {
	if be.lt.lib == nil {
		return "own kernels", be.lt.missing
	}
	v := be.lt.lib.Version()
	return fmt.Sprintf("cublasLt %d.%d.%d", v/10000, v/100%100, v%100), nil
}

func (be *Backend) closeLt() (errs []error) {
	if be.lt.lib == nil {
		return nil
	}
	return append(errs, be.dropPlans(), be.lt.lib.Close())
}

func (be *Backend) dropPlans() error {
	var errs []error
	for _, p := range be.lt.plans {
		if p != nil {
			errs = append(errs, be.lt.lib.ClosePlan(p))
		}
	}
	clear(be.lt.plans)
	return errors.Join(errs...)
}

// cublas starts d = alpha op(a) op(b) + beta c, [m, k] x [k, n] -> [m, n], by cublasLt. It reports false, and has done
// nothing, where cublasLt is missing or does not know this product. With beta 0 c is not read.
func (be *Backend) cublas(m, n, k int, alpha float32, a, b operand, beta float32, c, d result) bool {
	if beta == 0 {
		c = d
	}
	if be.lt.lib == nil || m == 0 || n == 0 || k == 0 || a.half != b.half || c.half != d.half || d.half && !a.half {
		return false
	}
	// Row-major is column-major transposed: dᵀ = op(b)ᵀ op(a)ᵀ, [n, k] x [k, m].
	p := driver.Product{M: n, N: m, K: k, LdA: b.ld, LdB: a.ld, LdC: c.ld, LdD: d.ld, TransA: b.trans, TransB: a.trans,
		Half: a.half, HalfOut: d.half, AlignA: alignment(b.at), AlignB: alignment(a.at), AlignC: alignment(c.at), AlignD: alignment(d.at)}
	plan := be.ltPlan(p)
	if plan == nil {
		return false
	}
	be.grow(&be.lt.workspace, ltWorkspace)
	check(be.lt.lib.Run(plan, alpha, b.at, a.at, beta, c.at, d.at, be.lt.workspace.at, ltWorkspace, be.stream))
	return true
}

// ltPlan is how cublasLt computes p; nil: it does not.
func (be *Backend) ltPlan(p driver.Product) *driver.Plan {
	plan, asked := be.lt.plans[p]
	if asked {
		return plan
	}
	if len(be.lt.plans) >= ltPlans {
		check(be.dropPlans())
	}
	plan, err := be.lt.lib.Plan(p, ltWorkspace)
	if err != nil && !errors.Is(err, driver.ErrUnsupported) {
		panic(fmt.Errorf("cuda: product [%d, %d] x [%d, %d]: %w", p.N, p.K, p.K, p.M, err))
	}
	be.lt.plans[p] = plan
	return plan
}

// alignment is the largest power of two, at most 256, that divides an address.
func alignment(p driver.Ptr) uint32 {
	if p == 0 {
		return 256
	}
	return uint32(min(p&-p, 256))
}
