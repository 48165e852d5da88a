// A tile of a product, [BM, k] x [k, BN] -> [BM, BN], by a block of 256 threads: bf16 on tensor cores, f32 by FMA. A
// factor lies in memory row-major or transposed; it may begin anywhere and end anywhere. Sums go along k in one order.
#pragma once
#include "eight.h"

enum { TILE_THREADS = 256, TILE_K = 32, TILE_STAGES = 3 };

// Shape is a tile of bf16: how it is cut among 8 warps, each of which has MI x NI pieces of 16 x 8. It takes
// TILE_STAGES * STAGE bytes of shared memory, which tile_store uses too: P rows at a time.
template <i32 ROWS, i32 COLS, i32 WARPS_M> struct Shape {
	enum {
		BM = ROWS,
		BN = COLS,
		WARPS_N = 8 / WARPS_M,
		WM = BM / WARPS_M,
		WN = BN / WARPS_N,
		MI = WM / 16,
		NI = WN / 8,
		STAGE = (BM + BN) * TILE_K * 2,
		P = BM * BN <= 8192 ? BM : 64,
	};
	static_assert(WM % 16 == 0 && WN % 16 == 0 && P % WM == 0, "pieces are read in pairs, rows of a warp stored together");
	static_assert(P * (BN + 8) * 4 <= TILE_STAGES * STAGE, "tile_store");
};

// A panel is BM (or BN) x 32 elements in shared memory, in chunks of 16 bytes: rows of 4 chunks where k runs along the
// row in memory (ALONG), else 32 rows. The order of a row's chunks depends on the row such that the 8 rows that
// ldmatrix reads at once lie in different banks.
template <i32 OUTER, bool ALONG> DEVICE char *chunk_at(char *panel, i32 row, i32 chunk) {
	const i32 chunks = ALONG ? 4 : OUTER / 8;
	return panel + 16 * (row * chunks + (chunk ^ (chunks >= 8 ? row & 7 : row >> 1 & 3)));
}

// Starts copying a panel: rows (columns) from outer0 on of outers, and k from k0 on of k1; zeros beyond them.
template <i32 OUTER, bool ALONG>
DEVICE void fetch_panel(char *panel, const bf16 *from, i32 ld, i32 outer0, i32 outers, i32 k0, i32 k1) {
	const i32 chunks = ALONG ? 4 : OUTER / 8;
	bool aligned = (u64)from % 16 == 0 && ld % 8 == 0;
	UNROLL
	for (i32 i = THREAD; i < OUTER * 4; i += TILE_THREADS) {
		i32 row = (ALONG ? outer0 : k0) + i / chunks, col = (ALONG ? k0 : outer0) + i % chunks * 8;
		i32 left = row < (ALONG ? outers : k1) ? (ALONG ? k1 : outers) - col : 0;
		char *to = chunk_at<OUTER, ALONG>(panel, i / chunks, i % chunks);
		if (left <= 0) {
			copy_async_16(to, from, false);
			continue;
		}
		const bf16 *at = from + (i64)row * ld + col;
		if (left >= 8 && aligned) {
			copy_async_16(to, at, true);
			continue;
		}
		u32 w[4] = {0, 0, 0, 0};
		UNROLL
		for (i32 e = 0; e < 8; e++)
			if (e < left) w[e / 2] |= (u32)at[e].bits << e % 2 * 16;
		*(Word4 *)to = {w[0], w[1], w[2], w[3]};
	}
}

// acc += the tile at (m0, n0) of op(a) op(b), summed over k0 <= k < k1. a is [m, k], or [k, m] in memory where TA; b is
// [k, n], or [n, k] where TB. It begins with a barrier: shared memory may be in use.
template <class S, bool TA, bool TB>
DEVICE void tile_product(float acc[S::MI][S::NI][4], char *shared, const bf16 *a, i32 lda, i32 m0, i32 m, const bf16 *b, i32 ldb, i32 n0, i32 n,
                         i32 k0, i32 k1) {
	i32 lane = THREAD % 32, warp = THREAD / 32, wm = warp / S::WARPS_N * S::WM, wn = warp % S::WARPS_N * S::WN;
	i32 steps = (k1 - k0 + TILE_K - 1) / TILE_K;
	auto fetch = [&](i32 step) {
		char *stage = shared + step % TILE_STAGES * S::STAGE;
		if (step < steps) {
			fetch_panel<S::BM, !TA>(stage, a, lda, m0, m, k0 + step * TILE_K, k1);
			fetch_panel<S::BN, TB>(stage + S::BM * TILE_K * 2, b, ldb, n0, n, k0 + step * TILE_K, k1);
		}
		copy_async_commit();
	};
	SYNC();
	UNROLL
	for (i32 s = 0; s < TILE_STAGES - 1; s++) fetch(s);
	for (i32 step = 0; step < steps; step++) {
		copy_async_wait<TILE_STAGES - 2>();
		SYNC(); // this step's panels are there, and nobody reads those of the step before
		fetch(step + TILE_STAGES - 1);
		char *pa = shared + step % TILE_STAGES * S::STAGE, *pb = pa + S::BM * TILE_K * 2;
		UNROLL
		for (i32 kk = 0; kk < TILE_K; kk += 16) {
			u32 fa[S::MI][4], fb[S::NI / 2][4];
			i32 low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
			UNROLL
			for (i32 i = 0; i < S::MI; i++) {
				i32 r = wm + 16 * i + second;
				if (TA) load_matrix_x4_trans(fa[i], chunk_at<S::BM, false>(pa, kk + low + third, r / 8));
				else load_matrix_x4(fa[i], chunk_at<S::BM, true>(pa, r + low, (kk + third) / 8));
			}
			UNROLL
			for (i32 j = 0; j < S::NI / 2; j++) {
				i32 c = wn + 16 * j + third;
				if (TB) load_matrix_x4(fb[j], chunk_at<S::BN, true>(pb, c + low, (kk + second) / 8));
				else load_matrix_x4_trans(fb[j], chunk_at<S::BN, false>(pb, kk + low + second, c / 8));
			}
			UNROLL
			for (i32 i = 0; i < S::MI; i++)
				UNROLL
				for (i32 j = 0; j < S::NI; j++) mma_bf16(acc[i][j], fa[i], fb[j / 2] + j % 2 * 2);
		}
	}
}

// Writes the tile at (m0, n0) of [m, n]: through shared memory, so that neighbours write 16 bytes each of a row.
template <class S> DEVICE void tile_store(const float acc[S::MI][S::NI][4], char *shared, i32 m0, i32 m, i32 n0, i32 n, const Output &o) {
	const i32 ld = S::BN + 8; // 8 banks from a row to the next
	float *stage = (float *)shared;
	i32 lane = THREAD % 32, warp = THREAD / 32, wm = warp / S::WARPS_N * S::WM, wn = warp % S::WARPS_N * S::WN;
	UNROLL
	for (i32 first = 0; first < S::BM; first += S::P) {
		SYNC(); // the panels, or the rows before, are read
		if (wm / S::P * S::P == first) {
			UNROLL
			for (i32 i = 0; i < S::MI; i++)
				UNROLL
				for (i32 j = 0; j < S::NI; j++) {
					float *at = stage + (wm - first + 16 * i + lane / 4) * ld + wn + 8 * j + lane % 4 * 2;
					at[0] = acc[i][j][0], at[1] = acc[i][j][1];
					at[8 * ld] = acc[i][j][2], at[8 * ld + 1] = acc[i][j][3];
				}
		}
		SYNC();
		for (i32 i = THREAD; i < S::P * S::BN / 8; i += TILE_THREADS) {
			i32 row = i / (S::BN / 8), col = i % (S::BN / 8) * 8;
			if (m0 + first + row >= m || n0 + col >= n) continue;
			float v[8];
			load8(v, stage + row * ld + col, false, 8);
			put8(o, m0 + first + row, n0 + col, n - n0 - col, v);
		}
	}
}

// Tiles of f32: 64 x 64, 16 of k at a time, 4 x 4 a thread, twice in shared memory.
enum { FMA_TILE = 64, FMA_K = 16, FMA_LD = FMA_TILE + 4, FMA_STAGE = 2 * FMA_K * FMA_LD, FMA_SHARED = 2 * FMA_STAGE * 4 };

// A thread's 4 of a panel [16, 64].
template <bool ALONG> DEVICE void fetch4(float v[4], const float *from, i32 ld, i32 outer0, i32 outers, i32 k0, i32 k1) {
	i32 row = ALONG ? outer0 + THREAD / 4 : k0 + THREAD / 16, col = ALONG ? k0 + THREAD % 4 * 4 : outer0 + THREAD % 16 * 4;
	i32 left = row < (ALONG ? outers : k1) ? (ALONG ? k1 : outers) - col : 0;
	const float *at = from + (i64)row * ld + col;
	if (left >= 4 && (u64)at % 16 == 0) {
		Float4 f = *(const Float4 *)at;
		v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
		return;
	}
	UNROLL
	for (i32 e = 0; e < 4; e++) v[e] = e < left ? at[e] : 0.0f;
}

template <bool ALONG> DEVICE void keep4(float *panel, const float v[4]) {
	UNROLL
	for (i32 e = 0; e < 4; e++) panel[ALONG ? (THREAD % 4 * 4 + e) * FMA_LD + THREAD / 4 : THREAD / 16 * FMA_LD + THREAD % 16 * 4 + e] = v[e];
}

// As the bf16 one. A thread has rows THREAD / 16 * 4 .. + 3 and columns THREAD % 16 * 4 .. + 3 of the tile.
template <bool TA, bool TB>
DEVICE void tile_product(float acc[4][4], char *shared, const float *a, i32 lda, i32 m0, i32 m, const float *b, i32 ldb, i32 n0, i32 n, i32 k0, i32 k1) {
	float va[4], vb[4];
	float *stage = (float *)shared;
	SYNC();
	if (k0 < k1) {
		fetch4<!TA>(va, a, lda, m0, m, k0, k1);
		fetch4<TB>(vb, b, ldb, n0, n, k0, k1);
	}
	for (i32 at = k0; at < k1; at += FMA_K) {
		float *pa = stage + (at - k0) / FMA_K % 2 * FMA_STAGE, *pb = pa + FMA_K * FMA_LD;
		keep4<!TA>(pa, va);
		keep4<TB>(pb, vb);
		SYNC(); // and who is here has read the panels of the step before
		if (at + FMA_K < k1) {
			fetch4<!TA>(va, a, lda, m0, m, at + FMA_K, k1);
			fetch4<TB>(vb, b, ldb, n0, n, at + FMA_K, k1);
		}
		UNROLL
		for (i32 k = 0; k < FMA_K; k++) {
			Float4 x = *(Float4 *)(pa + k * FMA_LD + THREAD / 16 * 4), y = *(Float4 *)(pb + k * FMA_LD + THREAD % 16 * 4);
			float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
			UNROLL
			for (i32 i = 0; i < 4; i++)
				UNROLL
				for (i32 j = 0; j < 4; j++) acc[i][j] = fma(xs[i], ys[j], acc[i][j]);
		}
	}
}

DEVICE void tile_store(const float acc[4][4], i32 m0, i32 m, i32 n0, i32 n, const Output &o) {
	i32 col = n0 + THREAD % 16 * 4;
	UNROLL
	for (i32 i = 0; i < 4; i++) {
		i32 row = m0 + THREAD / 16 * 4 + i;
		float *d = (float *)o.d + (i64)row * o.ldd + col;
		const float *c = (const float *)o.c + (i64)row * o.ldc + col;
		UNROLL
		for (i32 j = 0; j < 4; j++)
			if (row < m && col + j < n) d[j] = o.beta != 0 ? fma(o.beta, c[j], acc[i][j] * o.alpha) : acc[i][j] * o.alpha;
	}
}
