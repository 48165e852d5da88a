#include "tile.h"

struct ProductArgs {
	const void *a, *b, *c;
	void *d;
	i32 m, n, k, lda, ldb, ldc, ldd;
	i32 slice; // of k, for each block of grid z; each writes its sums [m, ldd] in f32 one after another
	i32 half;  // c and d are bf16
	float alpha, beta;
};

DEVICE Output output(const ProductArgs &a) { return {a.d, a.c, a.ldd, a.ldc, a.half != 0, a.alpha, a.beta}; }

// The output of a block's slice.
DEVICE Output output_of_slice(const ProductArgs &a) {
	Output o = output(a);
	if (BLOCKS_Z > 1) o.d = (float *)a.d + (i64)BLOCK_Z * a.m * a.ldd;
	return o;
}

// Where a block's tile is. Blocks that run together form squares of tiles rather than rows, which read fewer panels.
DEVICE void tile_of(i32 m, i32 n, i32 bm, i32 bn, i32 &m0, i32 &n0) {
	const i32 tall = 8;
	i32 rows = (m + bm - 1) / bm, cols = (n + bn - 1) / bn;
	i32 band = BLOCK_X / (tall * cols), in = BLOCK_X % (tall * cols);
	i32 height = rows - band * tall < tall ? rows - band * tall : tall;
	m0 = (band * tall + in % height) * bm;
	n0 = in / height * bn;
}

template <class S, bool TA, bool TB> DEVICE void product_bf16(const ProductArgs &a) {
	float acc[S::MI][S::NI][4] = {};
	i32 m0, n0, k0 = BLOCK_Z * a.slice, k1 = k0 + a.slice < a.k ? k0 + a.slice : a.k;
	tile_of(a.m, a.n, S::BM, S::BN, m0, n0);
	tile_product<S, TA, TB>(acc, shared_memory(), (const bf16 *)a.a, a.lda, m0, a.m, (const bf16 *)a.b, a.ldb, n0, a.n, k0, k1);
	tile_store<S>(acc, shared_memory(), m0, a.m, n0, a.n, output_of_slice(a));
}

template <bool TA, bool TB> DEVICE void product_f32(const ProductArgs &a) {
	float acc[4][4] = {};
	i32 m0, n0, k0 = BLOCK_Z * a.slice, k1 = k0 + a.slice < a.k ? k0 + a.slice : a.k;
	tile_of(a.m, a.n, FMA_TILE, FMA_TILE, m0, n0);
	tile_product<TA, TB>(acc, shared_memory(), (const float *)a.a, a.lda, m0, a.m, (const float *)a.b, a.ldb, n0, a.n, k0, k1);
	tile_store(acc, m0, a.m, n0, a.n, output_of_slice(a));
}

typedef Shape<128, 128, 2> Large;
typedef Shape<128, 32, 8> Narrow; // few columns: a rank
typedef Shape<32, 128, 1> Flat;   // few rows

#define PRODUCT(name, S) \
	KERNEL_BLOCKS(product_##name##_nn, ProductArgs, TILE_THREADS, 2) { product_bf16<S, false, false>(a); } \
	KERNEL_BLOCKS(product_##name##_nt, ProductArgs, TILE_THREADS, 2) { product_bf16<S, false, true>(a); } \
	KERNEL_BLOCKS(product_##name##_tn, ProductArgs, TILE_THREADS, 2) { product_bf16<S, true, false>(a); } \
	KERNEL_BLOCKS(product_##name##_tt, ProductArgs, TILE_THREADS, 2) { product_bf16<S, true, true>(a); }
PRODUCT(large, Large)
PRODUCT(narrow, Narrow)
PRODUCT(flat, Flat)

KERNEL_BLOCKS(product_f32_nn, ProductArgs, TILE_THREADS, 2) { product_f32<false, false>(a); }
KERNEL_BLOCKS(product_f32_nt, ProductArgs, TILE_THREADS, 2) { product_f32<false, true>(a); }
KERNEL_BLOCKS(product_f32_tn, ProductArgs, TILE_THREADS, 2) { product_f32<true, false>(a); }
KERNEL_BLOCKS(product_f32_tt, ProductArgs, TILE_THREADS, 2) { product_f32<true, true>(a); }

struct ProductSumArgs {
	const float *parts; // [slices, m, ld]
	const void *c;
	void *d;
	i32 m, n, ld, slices, ldc, ldd;
	i32 half;
	float alpha, beta;
};

// Adds the slices' sums in order: 8 columns a thread.
KERNEL(product_sum, ProductSumArgs, 256) {
	i32 wide = (a.n + 7) / 8;
	i64 i = (i64)BLOCK_X * THREADS + THREAD, row = i / wide;
	i32 col = (i32)(i % wide) * 8;
	if (row >= a.m) return;
	float sum[8] = {}, v[8];
	for (i32 s = 0; s < a.slices; s++) {
		load8(v, a.parts + ((i64)s * a.m + row) * a.ld + col, false, 8);
		UNROLL
		for (i32 e = 0; e < 8; e++) sum[e] += v[e];
	}
	put8({a.d, a.c, a.ldd, a.ldc, a.half != 0, a.alpha, a.beta}, row, col, a.n - col, sum);
}

// op(b) is the transpose of what lies there, and there are up to 8 rows of a, one where ONE: decoding. Memory's speed is
// the limit, so b is read once, 16 bytes a lane: a warp takes 2 rows of b, that is 2 columns of d, and all rows of a,
// which stay in the cache. Rows begin at multiples of 16 bytes, and k is a multiple of 8.
template <class T, bool ONE> DEVICE void product_rows(const ProductArgs &a) {
	const bool half = sizeof(T) == 2;
	const i32 rows = ONE ? 1 : 8;
	i32 col = (BLOCK_X * (THREADS / 32) + THREAD / 32) * 2, second = col + 1 < a.n ? 1 : 0;
	if (col >= a.n) return;
	const T *b = (const T *)a.b + (i64)col * a.ldb;
	float sums[rows][2] = {};
	for (i32 k = THREAD % 32 * 8; k < a.k; k += 256) {
		float x[8], p[8], q[8];
		load8(p, b + k, half, 8);
		load8(q, b + (i64)second * a.ldb + k, half, 8);
		UNROLL
		for (i32 r = 0; r < rows; r++) {
			if (r >= a.m) break;
			load8(x, (const T *)a.a + (i64)r * a.lda + k, half, 8);
			UNROLL
			for (i32 e = 0; e < 8; e++) sums[r][0] = fma(x[e], p[e], sums[r][0]), sums[r][1] = fma(x[e], q[e], sums[r][1]);
		}
	}
	Output o = output(a);
	UNROLL
	for (i32 r = 0; r < rows; r++) {
		if (r >= a.m) break;
		float v[8] = {warp_sum(sums[r][0]), warp_sum(sums[r][1])};
		if (THREAD % 32 == 0) put8(o, r, col, 1 + second, v);
	}
}

KERNEL(product_row_bf16, ProductArgs, 256) { product_rows<bf16, true>(a); }
KERNEL(product_row_f32, ProductArgs, 256) { product_rows<float, true>(a); }
KERNEL(product_rows_bf16, ProductArgs, 256) { product_rows<bf16, false>(a); }
KERNEL(product_rows_f32, ProductArgs, 256) { product_rows<float, false>(a); }
