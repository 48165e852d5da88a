#include "philox.h"
#include "tile.h"

struct StartArgs {
	void *y;
	const float *add, *bias;
	i32 rows, cols, ld_y, ld_add, half;
};

// y = bias + add, of what there is of them: 8 columns a thread.
KERNEL(linear_start, StartArgs, 256) {
	i32 wide = (a.cols + 7) / 8;
	i64 i = (i64)BLOCK_X * THREADS + THREAD, row = i / wide;
	i32 col = (i32)(i % wide) * 8, left = a.cols - col;
	if (row >= a.rows) return;
	float v[8] = {}, w[8];
	if (a.bias) load8(v, a.bias + col, false, left);
	if (a.add) {
		load8(w, a.add + row * a.ld_add + col, false, left);
		UNROLL
		for (i32 e = 0; e < 8; e++) v[e] += w[e];
	}
	store8(element(a.y, a.half != 0, row * a.ld_y + col), v, a.half != 0, left);
}

struct DropArgs {
	Dropout drop;
	void *y;
	const void *x;
	u32 site, limit;
	i32 rows, cols, ld, half;
};

// y = x, but 0 where it is dropped; the factor for what stays is the product's. 8 columns a thread.
KERNEL(drop, DropArgs, 256) {
	i32 wide = (a.cols + 7) / 8;
	i64 i = (i64)BLOCK_X * THREADS + THREAD, at = i / wide;
	i32 col = (i32)(i % wide) * 8, left = a.cols - col, row = (i32)at;
	bool half = a.half != 0;
	if (at >= a.rows) return;
	float v[8];
	load8(v, element(a.x, half, at * a.ld + col), half, left);
	UNROLL
	for (i32 g = 0; g < 2; g++) {
		u32 r[4];
		philox(r, a.drop, dropout_counter(a.drop, a.site), col / 4 + g, batch_row(a.drop, row));
		UNROLL
		for (i32 e = 0; e < 4; e++)
			if (r[e] < a.limit) v[4 * g + e] = 0;
	}
	store8(element(a.y, half, at * a.ld + col), v, half, left);
}

struct BranchArgs {
	Dropout drop;
	const void *dh[4], *a[4]; // [rows, rank] and [rank, cols]
	void *dx;
	u32 site[4], limit[4];
	float keep[4];
	i32 rank[4], ld_a[4];
	i32 count, rows, cols, ld_dh, ld_dx, half;
	float beta;
};

typedef Shape<64, 64, 4> Branch;

DEVICE Output branch_output(const BranchArgs &a) { return {a.dx, a.dx, a.ld_dx, a.ld_dx, a.half != 0, 1, a.beta}; }

// dx = the sum over the branches of mask * (dh A), rounded once; a branch with limit 0 has no mask. With beta 1 it is
// added. It writes [rows, cols] and reads little else, so that products of rank columns and additions of their own would
// take several times as long.
KERNEL_BLOCKS(linear_branches_bf16, BranchArgs, TILE_THREADS, 2) {
	typedef Branch S;
	float total[S::MI][S::NI][4] = {};
	i32 m0 = BLOCK_Y * S::BM, n0 = BLOCK_X * S::BN;
	i32 lane = THREAD % 32, warp = THREAD / 32, wm = warp / S::WARPS_N * S::WM, wn = warp % S::WARPS_N * S::WN;
	for (i32 b = 0; b < a.count; b++) {
		float acc[S::MI][S::NI][4] = {};
		tile_product<S, false, false>(acc, shared_memory(), (const bf16 *)a.dh[b], a.ld_dh, m0, a.rows, (const bf16 *)a.a[b], a.ld_a[b], n0, a.cols, 0,
		                              a.rank[b]);
		u32 limit = a.limit[b];
		float keep = limit ? a.keep[b] : 1;
		u32 counter = dropout_counter(a.drop, a.site[b]);
		// A thread has two neighbours of row lane / 4 and of the row 8 below, and its neighbour the other two that the same
		// words are for: each computes those of one row and shows the other two words.
		bool odd = lane % 2;
		UNROLL
		for (i32 i = 0; i < S::MI; i++) {
			i32 row = m0 + wm + 16 * i + lane / 4 + (odd ? 8 : 0);
			row = row < a.rows ? row : a.rows - 1;
			UNROLL
			for (i32 j = 0; j < S::NI; j++) {
				bool drop[4] = {};
				if (limit) {
					u32 r[4];
					philox(r, a.drop, counter, (n0 + wn + 8 * j + lane % 4 * 2) / 4, batch_row(a.drop, row));
					u32 p = shuffle_xor(odd ? r[0] : r[2], 1), q = shuffle_xor(odd ? r[1] : r[3], 1);
					drop[0] = (odd ? p : r[0]) < limit, drop[1] = (odd ? q : r[1]) < limit;
					drop[2] = (odd ? r[2] : p) < limit, drop[3] = (odd ? r[3] : q) < limit;
				}
				UNROLL
				for (i32 e = 0; e < 4; e++)
					if (!drop[e]) total[i][j][e] = fma(keep, acc[i][j][e], total[i][j][e]);
			}
		}
	}
	tile_store<S>(total, shared_memory(), m0, a.rows, n0, a.cols, branch_output(a));
}

KERNEL_BLOCKS(linear_branches_f32, BranchArgs, TILE_THREADS, 2) {
	float total[4][4] = {};
	i32 m0 = BLOCK_Y * FMA_TILE, n0 = BLOCK_X * FMA_TILE;
	for (i32 b = 0; b < a.count; b++) {
		float acc[4][4] = {};
		tile_product<false, false>(acc, shared_memory(), (const float *)a.dh[b], a.ld_dh, m0, a.rows, (const float *)a.a[b], a.ld_a[b], n0, a.cols, 0, a.rank[b]);
		UNROLL
		for (i32 i = 0; i < 4; i++) {
			i32 row = m0 + THREAD / 16 * 4 + i;
			u32 r[4] = {1, 1, 1, 1};
			if (a.limit[b] && row < a.rows)
				philox(r, a.drop, dropout_counter(a.drop, a.site[b]), n0 / 4 + THREAD % 16, batch_row(a.drop, row));
			float keep = a.limit[b] ? a.keep[b] : 1;
			UNROLL
			for (i32 j = 0; j < 4; j++)
				if (r[j] >= a.limit[b]) total[i][j] = fma(keep, acc[i][j], total[i][j]);
		}
	}
	tile_store(total, m0, a.rows, n0, a.cols, branch_output(a));
}
