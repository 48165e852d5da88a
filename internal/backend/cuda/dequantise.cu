#include "weight.h"

struct ConvertArgs {
	void *to;
	const void *from;
	i32 rows, cols, ld_to, ld_from;
	i32 from_kind, half; // to is bf16, or f32
};

// A matrix of 16-bit floats or f32 in bf16 or f32: 8 columns a thread.
KERNEL(convert, ConvertArgs, 256) {
	i32 wide = (a.cols + 7) / 8;
	i64 i = (i64)BLOCK_X * THREADS + THREAD, row = i / wide;
	i32 col = (i32)(i % wide) * 8;
	if (row >= a.rows) return;
	float v[8];
	i64 at = row * a.ld_from + col;
	load8_of(v, a.from_kind, (const char *)a.from + (a.from_kind == WEIGHT_F32 ? 4 * at : 2 * at), a.cols - col);
	store8(element(a.to, a.half != 0, row * a.ld_to + col), v, a.half != 0, a.cols - col);
}

struct DequantiseArgs {
	Weight w;
	void *to;
	i32 ld, half;
};

// Eight elements from element e of the matrix on, which has n.
DEVICE void put_run(const DequantiseArgs &a, i64 e, i64 n, const float v[8]) {
	bool half = a.half != 0;
	if (a.w.cols % 8 == 0) { // rows lie one after another, and a run is within one
		if (e < n) store8(element(a.to, half, e), v, half, 8);
		return;
	}
	for (i32 k = 0; k < 8; k++)
		if (e + k < n) store8(element(a.to, half, (e + k) / a.w.cols * a.ld + (e + k) % a.w.cols), v + k, half, 1);
}

// Sixteen elements, the i-th of the matrix's in fours a block: two runs of 8. tables is nf4's in shared memory. A run of
// nf4 begins at 8 * (i % 4) of its block and the other 32 later: byte j has element j in its low half, 32 + j in its high.
template <bool NF4> DEVICE void decode(float v[8], float second[8], const Weight &w, const float *tables, i64 i) {
	float scale = weight_scale(w, tables + 16, i / 4);
	if (NF4) {
		u64 codes = ((const u64 *)w.data)[i];
		UNROLL
		for (i32 k = 0; k < 8; k++) {
			v[k] = tables[codes >> 8 * k & 15] * scale;
			second[k] = tables[codes >> (8 * k + 4) & 15] * scale;
		}
		return;
	}
	Word4 codes = ((const Word4 *)w.data)[i];
	u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
	UNROLL
	for (i32 k = 0; k < 8; k++) {
		v[k] = (float)(signed char)(words[k / 4] >> k % 4 * 8) * scale;
		second[k] = (float)(signed char)(words[2 + k / 4] >> k % 4 * 8) * scale;
	}
}

// Where the runs of decode begin, and the second one after the first.
template <bool NF4> DEVICE i64 first_run(i64 i) { return i / 4 * 64 + i % 4 * (NF4 ? 8 : 16); }
template <bool NF4> DEVICE i32 second_run() { return NF4 ? 32 : 8; }

// nf4's tables in shared memory.
DEVICE void load_tables(float *tables, const Weight &w) {
	for (i32 i = THREAD; i < 272; i += THREADS) tables[i] = w.tables[i];
	SYNC();
}

// Blocks of 64 codes to bf16 or f32, 16 elements a thread. A block of threads takes 256 of them, so that the tables are
// read seldom.
template <bool NF4> DEVICE void dequantise(const DequantiseArgs &a) {
	SHARED(float, tables, 272);
	if (NF4) load_tables(tables, a.w);
	i64 n = (i64)a.w.rows * a.w.cols;
	for (i32 turn = 0; turn < 4; turn++) {
		i64 i = ((i64)BLOCK_X * 4 + turn) * THREADS + THREAD, e = first_run<NF4>(i);
		if (i / 4 * 64 >= n) return;
		float v[8], second[8];
		decode<NF4>(v, second, a.w, tables, i);
		put_run(a, e, n, v);
		put_run(a, e + second_run<NF4>(), n, second);
	}
}

KERNEL(dequantise_nf4, DequantiseArgs, 256) { dequantise<true>(a); }
KERNEL(dequantise_int8, DequantiseArgs, 256) { dequantise<false>(a); }

struct CodesArgs {
	Weight w;
	const void *x, *c;
	void *y;
	i32 rows, ld_x, ld_c, ld_y, half; // half: of c and y
	float beta;
};

// y = x W^T + beta c for up to 8 rows of x, decoding: W is read as codes, once, and never written widened, which would
// move several times as many bytes. A warp takes 2 rows of W; x stays in the cache. Rows of W are whole blocks. Values
// are rounded to bf16 where x is, as they are when more rows come.
template <bool NF4, bool HALF> DEVICE void product_codes(const CodesArgs &a) {
	SHARED(float, tables, 272);
	if (NF4) load_tables(tables, a.w);
	i32 col = (BLOCK_X * (THREADS / 32) + THREAD / 32) * 2, second = col + 1 < a.w.rows ? 1 : 0;
	if (col >= a.w.rows) return;
	float sums[8][2] = {};
	for (i32 i = THREAD % 32; i < a.w.cols / 16; i += 32) {
		float w[2][2][8], x[2][8];
		UNROLL
		for (i32 j = 0; j < 2; j++) {
			decode<NF4>(w[j][0], w[j][1], a.w, tables, (i64)(col + j * second) * (a.w.cols / 16) + i);
			UNROLL
			for (i32 e = 0; e < 16 && HALF; e += 2) {
				u32 pair = pack_bf16(w[j][e / 8][e % 8], w[j][e / 8][e % 8 + 1]);
				w[j][e / 8][e % 8] = low_bf16(pair), w[j][e / 8][e % 8 + 1] = high_bf16(pair);
			}
		}
		UNROLL
		for (i32 r = 0; r < 8; r++) {
			if (r >= a.rows) break;
			i64 at = (i64)r * a.ld_x + first_run<NF4>(i);
			load8(x[0], element(a.x, HALF, at), HALF, 8);
			load8(x[1], element(a.x, HALF, at + second_run<NF4>()), HALF, 8);
			UNROLL
			for (i32 j = 0; j < 2; j++)
				UNROLL
				for (i32 e = 0; e < 16; e++) sums[r][j] = fma(x[e / 8][e % 8], w[j][e / 8][e % 8], sums[r][j]);
		}
	}
	UNROLL
	for (i32 r = 0; r < 8; r++) {
		if (r >= a.rows) break;
		float v[8] = {warp_sum(sums[r][0]), warp_sum(sums[r][1])};
		if (THREAD % 32 == 0) put8({a.y, a.c, a.ld_y, a.ld_c, a.half != 0, 1, a.beta}, r, col, 1 + second, v);
	}
}

KERNEL(product_nf4_bf16, CodesArgs, 256) { product_codes<true, true>(a); }
KERNEL(product_nf4_f32, CodesArgs, 256) { product_codes<true, false>(a); }
KERNEL(product_int8_bf16, CodesArgs, 256) { product_codes<false, true>(a); }
KERNEL(product_int8_f32, CodesArgs, 256) { product_codes<false, false>(a); }
