package driver

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The values that are used are those of all headers of testdata/cublaslt.txt, and the table has no others.
func TestLtValues(t *testing.T) {
	want := map[string]int{
		"CUDA_R_32F": ltReal32, "CUDA_R_16BF": ltReal16B,
		"CUBLAS_COMPUTE_32F": ltCompute32, "CUBLAS_COMPUTE_32F_PEDANTIC": ltCompute32Pedantic, "CUBLAS_OP_T": ltOpT,
		"CUBLASLT_MATMUL_DESC_TRANSA": ltDescTransA, "CUBLASLT_MATMUL_DESC_TRANSB": ltDescTransB,
		"CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": ltPrefWorkspace, "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK": ltPrefReductionMask,
		"CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES": ltPrefAlignA, "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES": ltPrefAlignB,
		"CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES": ltPrefAlignC, "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES": ltPrefAlignD,
		"CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE": ltReductionInWorkspace,
	}
	for code, name := range ltStatus {
		want[name] = int(code)
	}
	table, err := os.ReadFile("testdata/cublaslt.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		value, known := want[f[0]]
		delete(want, f[0])
		if f[0] == "VERSION" {
			continue
		}
		for _, v := range f[1:] {
			if !known || v != strconv.Itoa(value) {
				t.Errorf("%s is %s in a header, %d here (known: %v)", f[0], v, value, known)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the table: %v", want)
	}
}

func TestLtError(t *testing.T) {
	e := error(&ltError{"cublasLtMatmul", ltNotSupported})
	if e.Error() != "cublasLtMatmul: CUBLAS_STATUS_NOT_SUPPORTED (15)" || !errors.Is(e, ErrUnsupported) {
		t.Error(e)
	}
	e = &ltError{"cublasLtMatmul", 99}
	if e.Error() != "cublasLtMatmul: status 99" || errors.Is(e, ErrUnsupported) {
		t.Error(e)
	}
}
