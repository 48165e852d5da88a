#!/bin/sh
# Writes cublaslt.txt: the values that cublaslt.go uses as the headers of cuBLAS name them, a column a folder of headers
# (cublasLt.h, cublas_api.h, library_types.h), e.g. of PyPI's nvidia-cublas-cu11, nvidia-cublas-cu12 and nvidia-cublas.
#	sh cublaslt.sh DIR... >cublaslt.txt
set -eu
names="CUDA_R_32F CUDA_R_16BF CUBLAS_COMPUTE_32F CUBLAS_COMPUTE_32F_PEDANTIC CUBLAS_OP_T
CUBLASLT_MATMUL_DESC_TRANSA CUBLASLT_MATMUL_DESC_TRANSB
CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES
CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE CUBLAS_STATUS_NOT_INITIALIZED CUBLAS_STATUS_ALLOC_FAILED CUBLAS_STATUS_INVALID_VALUE
CUBLAS_STATUS_ARCH_MISMATCH CUBLAS_STATUS_EXECUTION_FAILED CUBLAS_STATUS_INTERNAL_ERROR CUBLAS_STATUS_NOT_SUPPORTED"
for name in VERSION $names; do
	line=$name
	for dir; do
		if [ "$name" = VERSION ]; then
			value=$(sed -n 's/^#define CUBLAS_VER_M[AI][JN]OR *\([0-9]*\).*/\1/p' "$dir/cublas_api.h" | paste -sd.)
		else
			value=$(cat "$dir"/*.h | sed -n "s/^ *$name *= *\([0-9]*\).*/\1/p" | head -n 1)
		fi
		line="$line ${value:?$name is not in $dir}"
	done
	echo "$line"
done
