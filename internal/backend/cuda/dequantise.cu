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

// Blocks of 64 codes to bf16 or f32, 16 elements a thread: two runs of 8. A block of threads takes 256 of them, so that
// the tables, which it keeps in shared memory, are read seldom.
template <bool NF4> DEVICE void dequantise(const DequantiseArgs &a) {
	SHARED(float, tables, 272);
	i64 n = (i64)a.w.rows * a.w.cols;
	if (NF4) {
		for (i32 i = THREAD; i < 272; i += THREADS) tables[i] = a.w.tables[i];
		SYNC();
	}
	for (i32 turn = 0; turn < 4; turn++) {
		i64 i = ((i64)BLOCK_X * 4 + turn) * THREADS + THREAD, block = i / 4;
		i32 part = (i32)(i % 4);
		if (block * 64 >= n) return;
		float scale = weight_scale(a.w, tables + 16, block), v[8], second[8];
		if (NF4) { // byte j has element j in its low half and 32 + j in its high one
			u64 codes = ((const u64 *)a.w.data)[i];
			UNROLL
			for (i32 k = 0; k < 8; k++) {
				v[k] = tables[codes >> 8 * k & 15] * scale;
				second[k] = tables[codes >> (8 * k + 4) & 15] * scale;
			}
			put_run(a, block * 64 + 8 * part, n, v);
			put_run(a, block * 64 + 32 + 8 * part, n, second);
			continue;
		}
		Word4 codes = ((const Word4 *)a.w.data)[i];
		u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
		UNROLL
		for (i32 k = 0; k < 8; k++) {
			v[k] = (float)(signed char)(words[k / 4] >> k % 4 * 8) * scale;
			second[k] = (float)(signed char)(words[2 + k / 4] >> k % 4 * 8) * scale;
		}
		put_run(a, block * 64 + 16 * part, n, v);
		put_run(a, block * 64 + 16 * part + 8, n, second);
	}
}

KERNEL(dequantise_nf4, DequantiseArgs, 256) { dequantise<true>(a); }
KERNEL(dequantise_int8, DequantiseArgs, 256) { dequantise<false>(a); }
