// Products of attention on the tensor cores. Tiles lie in shared memory as rows of D bf16 (D = 64 or 128; heads of fewer
// columns are filled up with zeros), in pieces of 16 bytes whose place in the row is turned by the row (xor of its last
// three bits), so that the eight rows of a matrix that ldmatrix reads lie in different banks.
//
// A block has four warps; each has 16 rows of its own.
#pragma once
#include "attention.h"

#define FLASH_ROWS 64 // rows of a tile
#define FLASH_THREADS 128
#define LANE (THREAD & 31)
#define WARP (THREAD >> 5)

template <int D> DEVICE bf16 *piece(bf16 *tile, i32 row, i32 c) { return tile + row * D + ((c ^ (row & 7)) << 3); }
template <int D> DEVICE const bf16 *piece(const bf16 *tile, i32 row, i32 c) { return piece<D>((bf16 *)tile, row, c); }

// Copies n rows to a tile of `rows`, zeros behind them and behind column dim.
template <int D, int rows> DEVICE void load_rows(bf16 *tile, const bf16 *from, i32 ld, i32 n, i32 dim) {
	const i32 step = FLASH_THREADS / (D / 8), c = THREAD % (D / 8);
	i32 r = THREAD / (D / 8);
	const bf16 *at = from + (i64)r * ld + 8 * c;
	UNROLL
	for (i32 i = 0; i < rows / step; i++, r += step, at += (i64)step * ld) {
		bool valid = r < n && 8 * c < dim;
		copy_async_16(piece<D>(tile, r, c), valid ? at : from, valid);
	}
}

// The same for packed rows first..first+rows-1 of a tile of queries.
template <int D, int rows>
DEVICE void load_packed(bf16 *tile, const bf16 *from, i32 ld, const QueryTile &t, i32 first, i32 head, i32 dim) {
	UNROLL
	for (i32 i = 0; i < rows * D / 8 / FLASH_THREADS; i++) {
		i32 r = (i * FLASH_THREADS + THREAD) / (D / 8), c = THREAD % (D / 8);
		bool valid = first + r < t.n * t.heads && 8 * c < dim;
		copy_async_16(piece<D>(tile, r, c), valid ? from + packed_at(t, first + r, ld, head, dim) + 8 * c : from, valid);
	}
}

// s = a bT: [16, D] x [D, 8 N] -> [16, 8 N]; a: the warp's rows, b: a tile. The lane is opaque here and below: else all
// addresses are computed before the loop over the tiles, and there are no registers to keep them in.
template <int D, int N> DEVICE void scores(float s[N][4], const bf16 *a, const bf16 *b) {
	UNROLL
	for (i32 j = 0; j < N; j++)
		UNROLL
		for (i32 e = 0; e < 4; e++) s[j][e] = 0;
	const i32 lane = opaque(LANE);
	UNROLL
	for (i32 k = 0; k < D / 16; k++) {
		u32 x[4];
		load_matrix_x4(x, piece<D>(a, lane & 15, 2 * k + (lane >> 4)));
		UNROLL
		for (i32 j = 0; j < N; j += 2) {
			u32 y[4];
			load_matrix_x4(y, piece<D>(b, 8 * j + (lane & 7) + (lane >> 4) * 8, 2 * k + (lane >> 3 & 1)));
			mma_bf16(s[j], x, y);
			mma_bf16(s[j + 1], x, y + 2);
		}
	}
}

// o += p b: [16, 8 N] x [8 N, D] -> [16, D]; p lies as scores leaves it, and is rounded to bf16.
template <int D, int N> DEVICE void weigh(float o[D / 8][4], const float p[N][4], const bf16 *b) {
	const i32 lane = opaque(LANE);
	UNROLL
	for (i32 k = 0; k < N; k += 2) {
		u32 x[4] = {pack_bf16(p[k][0], p[k][1]), pack_bf16(p[k][2], p[k][3]), pack_bf16(p[k + 1][0], p[k + 1][1]),
		            pack_bf16(p[k + 1][2], p[k + 1][3])};
		UNROLL
		for (i32 j = 0; j < D / 8; j += 2) {
			u32 y[4];
			load_matrix_x4_trans(y, piece<D>(b, 8 * k + (lane & 15), j + (lane >> 4)));
			mma_bf16(o[j], x, y);
			mma_bf16(o[j + 1], x, y + 2);
		}
	}
}

// A lane holds columns 8 j + 2 (lane % 4) + {0, 1} of rows lane / 4 (elements 0 and 1) and lane / 4 + 8 (2 and 3).
DEVICE i32 column_of(i32 j, i32 e) { return 8 * j + 2 * (LANE & 3) + (e & 1); }

// The sum, or the largest, over the four lanes that have a row.
DEVICE float row_sum(float v) {
	v += shuffle_xor(v, 1);
	return v + shuffle_xor(v, 2);
}
DEVICE float row_max(float v) {
	float o = shuffle_xor(v, 1);
	v = o > v ? o : v;
	o = shuffle_xor(v, 2);
	return o > v ? o : v;
}

// A tile of gradients in f32 on its way out: the warp writes its 16 rows, and reads whole rows then. Where a column lies
// is turned by the row as in a tile of bf16.
template <int D> DEVICE float *staged(float *stage, i32 row, i32 col) {
	return stage + row * D + (((col >> 3) ^ (row & 7)) << 3) + (col & 7);
}
template <int D> DEVICE void put_staged(float *stage, const float o[D / 8][4], float scale) {
	UNROLL
	for (i32 j = 0; j < D / 8; j++) {
		UNROLL
		for (i32 e = 0; e < 4; e++) *staged<D>(stage, WARP * 16 + (LANE >> 2) + 8 * (e >> 1), column_of(j, e)) = o[j][e] * scale;
	}
	SYNC_WARP();
}
// Columns 8 c..8 c+7 of a staged row as bf16, turned back where cos is given.
template <int D> DEVICE Word4 staged_piece(float *stage, i32 row, i32 c, i32 dim, const float *cos, const float *sin) {
	float v[8];
	UNROLL
	for (i32 e = 0; e < 8; e++) {
		i32 col = 8 * c + e;
		v[e] = *staged<D>(stage, row, col);
		if (cos) v[e] = turned_back(v[e], *staged<D>(stage, row, partner(col, dim)), col, dim, cos, sin);
	}
	return {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
}
