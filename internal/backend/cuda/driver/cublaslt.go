package driver

import (
	"errors"
	"fmt"
)

// ErrUnsupported: cublasLt has no algorithm for a product.
var ErrUnsupported = errors.New("cublasLt has no algorithm for it")

// Product is D = alpha op(A) op(B) + beta C in cublasLt's order: matrices are column-major, op(A) is [M, K], op(B)
// [K, N], C and D [M, N]. Sums are f32.
type Product struct {
	M, N, K                int
	LdA, LdB, LdC, LdD     int // elements from a column to the next
	TransA, TransB         bool
	Half                   bool // A and B are bf16, else f32, which then is multiplied as f32 (no TF32)
	HalfOut                bool // C and D are bf16, else f32
	AlignA, AlignB, AlignC uint32
	AlignD                 uint32 // powers of two, at most 256, that divide the addresses
}

// ltError is a status of cublasLt.
type ltError struct {
	call string
	code int32
}

// The statuses and values below are those of cublasLt.h and cublas_api.h of 11.11, 12.1 and 13.4, which agree;
// testdata/cublaslt.txt has them as the headers of the three do.
const (
	ltNotInitialized = 1
	ltAllocFailed    = 3
	ltInvalidValue   = 7
	ltArchMismatch   = 8
	ltExecution      = 13
	ltInternal       = 14
	ltNotSupported   = 15

	ltReal32  = 0
	ltReal16B = 14

	ltCompute32         = 68
	ltCompute32Pedantic = 69 // nothing but f32, whatever the environment's NVIDIA_TF32_OVERRIDE says
	ltOpT               = 1
	ltDescTransA        = 3
	ltDescTransB        = 4

	ltPrefWorkspace     = 1
	ltPrefReductionMask = 3
	ltPrefAlignA        = 5
	ltPrefAlignB        = 6
	ltPrefAlignC        = 7
	ltPrefAlignD        = 8
	// A product that is split along K leaves its parts in the workspace, in f32, and a kernel adds them in order. The
	// other schemes round the parts to the type of D, or add them as the blocks come.
	ltReductionInWorkspace = 2
)

var ltStatus = map[int32]string{
	ltNotInitialized: "CUBLAS_STATUS_NOT_INITIALIZED", ltAllocFailed: "CUBLAS_STATUS_ALLOC_FAILED",
	ltInvalidValue: "CUBLAS_STATUS_INVALID_VALUE", ltArchMismatch: "CUBLAS_STATUS_ARCH_MISMATCH",
	ltExecution: "CUBLAS_STATUS_EXECUTION_FAILED", ltInternal: "CUBLAS_STATUS_INTERNAL_ERROR",
	ltNotSupported: "CUBLAS_STATUS_NOT_SUPPORTED",
}

func (e *ltError) Error() string {
	if name := ltStatus[e.code]; name != "" {
		return fmt.Sprintf("%s: %s (%d)", e.call, name, e.code)
	}
	return fmt.Sprintf("%s: status %d", e.call, e.code)
}

// Is tells a product that cublasLt does not know.
func (e *ltError) Is(target error) bool {
	return target == ErrUnsupported && (e.code == ltNotSupported || e.code == ltArchMismatch)
}
