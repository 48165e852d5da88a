// Attention for compute f32, and in bf16 for heads that the tensor cores' kernels do not take (columns that are no
// multiple of 8, or more than 128): up to 256 columns, f32 arithmetic on f32 tiles in shared memory. The tiles are those of
// the other kernels, 32 x 32.
#include "attention.h"

#define TILE 32
#define GENERAL_THREADS 128
#define WARP_ROWS 8 // rows of a tile that a warp has
#define PARTS 8     // a lane has columns lane, lane + 32, ... of a row
#define LANE (THREAD & 31)
#define FIRST (THREAD / 32 * WARP_ROWS) // the warp's first row

// A row takes an odd number of words, so that lanes which read a column of 32 rows meet 32 banks.
DEVICE i32 stride_of(i32 dim) { return dim + 1; }

// Copies n rows, zeros behind them.
template <class A> DEVICE void general_rows(float *tile, const A *from, i32 ld, i32 n, i32 dim) {
	for (i32 r = THREAD / 32; r < TILE; r += GENERAL_THREADS / 32)
		for (i32 c = LANE; c < dim; c += 32) tile[r * stride_of(dim) + c] = r < n ? to_float(from[(i64)r * ld + c]) : 0;
}
template <class A> DEVICE void general_packed(float *tile, const A *from, i32 ld, const QueryTile &t, i32 head, i32 dim) {
	for (i32 r = THREAD / 32; r < TILE; r += GENERAL_THREADS / 32) {
		bool valid = r < t.n * t.heads;
		i64 at = valid ? packed_at(t, r, ld, head, dim) : 0;
		for (i32 c = LANE; c < dim; c += 32) tile[r * stride_of(dim) + c] = valid ? to_float(from[at + c]) : 0;
	}
}

// s[i] = row FIRST + i of a times row LANE of b.
DEVICE void general_scores(float s[WARP_ROWS], const float *a, const float *b, i32 dim) {
	const i32 stride = stride_of(dim);
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) s[i] = 0;
	for (i32 c = 0; c < dim; c++) {
		float y = b[LANE * stride + c];
		UNROLL
		for (i32 i = 0; i < WARP_ROWS; i++) s[i] = fma(a[(FIRST + i) * stride + c], y, s[i]);
	}
}

// o[i] += row FIRST + i of p, [32, 32], times b.
DEVICE void general_weigh(float o[WARP_ROWS][PARTS], const float *p, const float *b, i32 dim) {
	const i32 stride = stride_of(dim);
	for (i32 k = 0; k < TILE; k++) {
		float x[WARP_ROWS];
		UNROLL
		for (i32 i = 0; i < WARP_ROWS; i++) x[i] = p[(FIRST + i) * TILE + k];
		UNROLL
		for (i32 j = 0; j < PARTS; j++) {
			i32 c = LANE + 32 * j;
			if (c >= dim) break;
			float y = b[k * stride + c];
			UNROLL
			for (i32 i = 0; i < WARP_ROWS; i++) o[i][j] = fma(x[i], y, o[i][j]);
		}
	}
}

// Leaves the warp's rows of p for its lanes to read.
DEVICE void general_put(float *p, const float s[WARP_ROWS]) {
	SYNC_WARP();
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) p[(FIRST + i) * TILE + LANE] = s[i];
	SYNC_WARP();
}

template <class A> DEVICE void general_forward(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads, size = TILE * stride_of(a.dim);
	const QueryTile t = a.queries[BLOCK_X / a.kv_heads];
	const i32 head = first_head(a, t, kv), rows = t.n * t.heads;
	float *q = (float *)shared_memory(), *k = q + size, *v = k + size, *p = v + size;
	const float scale = a.scale * LOG2_E;
	general_packed(q, (const A *)a.rotated, a.ld_rotated, t, head, a.dim);
	float o[WARP_ROWS][PARTS] = {}, top[WARP_ROWS], sum[WARP_ROWS] = {};
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) top[i] = MINUS_INFINITY;
	for (i32 n = 0; n < t.count; n++) {
		const KeyTile kt = a.keys[a.seen[t.first + n]];
		const KeyRows<A> from = key_rows<A>(a, kt, kv);
		SYNC();
		general_rows(k, from.k, from.ld_k, kt.n, a.dim);
		general_rows(v, from.v, from.ld_v, kt.n, a.dim);
		SYNC();
		if (FIRST >= rows) continue;
		float s[WARP_ROWS];
		general_scores(s, q, k, a.dim);
		UNROLL
		for (i32 i = 0; i < WARP_ROWS; i++) {
			s[i] = sees(visible(a, kt, t.position + (FIRST + i) / t.heads), LANE) ? s[i] * scale : MINUS_INFINITY;
			float most = warp_max(s[i]);
			most = top[i] > most ? top[i] : most;
			float base = most == MINUS_INFINITY ? 0 : most, shrink = exp2_approx(top[i] - base);
			top[i] = most;
			s[i] = exp2_approx(s[i] - base);
			sum[i] = sum[i] * shrink + s[i];
			UNROLL
			for (i32 j = 0; j < PARTS; j++) o[i][j] *= shrink;
		}
		general_put(p, s);
		general_weigh(o, p, v, a.dim); // [32, 32] x [32, dim] -> [32, dim]
	}
	if (FIRST >= rows) return;
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) {
		i32 row = FIRST + i;
		float total = warp_sum(sum[i]), inverse = total == 0 ? 0 : div_rn(1.0f, total);
		float lse = total == 0 ? MINUS_INFINITY : top[i] + log2_approx(total);
		if (row >= rows) continue;
		i64 part = t.part < 0 ? 0 : (i64)(t.part + row) * a.kv_heads + kv;
		if (LANE == 0 && t.part >= 0) a.part_lse[part] = lse;
		if (LANE == 0 && t.part < 0) a.lse[packed_at(t, row, a.ld_lse, head, 1)] = lse * LN_2;
		UNROLL
		for (i32 j = 0; j < PARTS; j++) {
			i32 c = LANE + 32 * j;
			if (c >= a.dim) break;
			if (t.part >= 0)
				a.part[part * a.dim + c] = o[i][j] * inverse;
			else
				put(((A *)a.y)[packed_at(t, row, a.ld_y, head, a.dim) + c], o[i][j] * inverse);
		}
	}
}

KERNEL(general_forward_bf16, AttentionArgs, GENERAL_THREADS) { general_forward<bf16>(a); }
KERNEL(general_forward_f32, AttentionArgs, GENERAL_THREADS) { general_forward<float>(a); }

// Writes one row of gradients o * scale to row `row` of the batch, turned back where rotate, through stage.
template <class A>
DEVICE void general_write(const AttentionArgs &a, float *stage, const float o[PARTS], float scale, bool rotate, i32 row, i32 head) {
	const float *cos = a.cos + (i64)row * (a.dim / 2), *sin = a.sin + (i64)row * (a.dim / 2);
	A *to = (A *)a.dqkv + (i64)row * a.ld_dqkv + head * a.dim;
	SYNC_WARP();
	UNROLL
	for (i32 j = 0; j < PARTS; j++) {
		if (LANE + 32 * j >= a.dim) break;
		stage[LANE + 32 * j] = o[j] * scale;
	}
	SYNC_WARP();
	for (i32 c = LANE; c < a.dim; c += 32) put(to[c], rotate ? turned_back(stage[c], stage[partner(c, a.dim)], c, a.dim, cos, sin) : stage[c]);
}

// delta and dq; see attention_backward.cu.
template <class A> DEVICE void general_backward_queries(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads, size = TILE * stride_of(a.dim);
	const QueryTile t = a.queries[BLOCK_X / a.kv_heads];
	const i32 head = first_head(a, t, kv), rows = t.n * t.heads;
	float *q = (float *)shared_memory(), *dy = q + size, *k = dy + size, *v = k + size, *p = v + size;
	const float scale = a.scale * LOG2_E;
	general_packed(q, (const A *)a.rotated, a.ld_rotated, t, head, a.dim);
	general_packed(dy, (const A *)a.dy, a.ld_dy, t, head, a.dim);
	float dq[WARP_ROWS][PARTS] = {}, own[WARP_ROWS] = {}, sum[WARP_ROWS] = {}, delta[WARP_ROWS] = {}, lse[WARP_ROWS];
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) lse[i] = FIRST + i < rows ? a.lse[packed_at(t, FIRST + i, a.ld_lse, head, 1)] * LOG2_E : 0;
	for (i32 n = 0; n < 2 * t.count; n++) {
		const KeyTile kt = a.keys[a.seen[t.first + n % t.count]];
		const KeyRows<A> from = key_rows<A>(a, kt, kv);
		SYNC();
		general_rows(k, from.k, from.ld_k, kt.n, a.dim);
		general_rows(v, from.v, from.ld_v, kt.n, a.dim);
		SYNC();
		if (FIRST >= rows) continue;
		float s[WARP_ROWS], dp[WARP_ROWS];
		general_scores(s, q, k, a.dim);
		general_scores(dp, dy, v, a.dim);
		UNROLL
		for (i32 i = 0; i < WARP_ROWS; i++) {
			i32 position = t.position + (FIRST + i) / t.heads, column = position - kt.position;
			s[i] = sees(visible(a, kt, position), LANE) ? exp2_approx(fma(s[i], scale, -lse[i])) : 0;
			if (n < t.count) {
				if (column >= 0 && column < kt.n) own[i] = shuffle(dp[i], column);
				sum[i] += s[i];
				delta[i] = fma(s[i], dp[i] - own[i], delta[i]);
			}
			s[i] *= dp[i] - delta[i];
		}
		if (n < t.count - 1) continue;
		if (n == t.count - 1) {
			UNROLL
			for (i32 i = 0; i < WARP_ROWS; i++) {
				delta[i] = own[i] + div_rn(warp_sum(delta[i]), warp_sum(sum[i]));
				if (LANE == 0 && FIRST + i < rows) a.delta[packed_at(t, FIRST + i, a.heads, head, 1)] = delta[i];
			}
			continue;
		}
		general_put(p, s);
		general_weigh(dq, p, k, a.dim); // [32, 32] x [32, dim] -> [32, dim]
	}
	SYNC();
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) {
		i32 row = FIRST + i;
		if (row < rows) general_write<A>(a, q + row * stride_of(a.dim), dq[i], a.scale, true, t.row + row / t.heads, head + row % t.heads);
	}
}

KERNEL(general_backward_queries_bf16, AttentionArgs, GENERAL_THREADS) { general_backward_queries<bf16>(a); }
KERNEL(general_backward_queries_f32, AttentionArgs, GENERAL_THREADS) { general_backward_queries<float>(a); }

// dk and dv: rows are keys, lanes are packed queries.
template <class A> DEVICE void general_backward_keys(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads, size = TILE * stride_of(a.dim);
	const KeyTile kt = a.keys[BLOCK_X / a.kv_heads];
	float *q = (float *)shared_memory(), *dy = q + size, *k = dy + size, *v = k + size, *p = v + size, *ds = p + TILE * TILE;
	const float scale = a.scale * LOG2_E;
	const KeyRows<A> from = key_rows<A>(a, kt, kv);
	general_rows(k, from.k, from.ld_k, kt.n, a.dim);
	general_rows(v, from.v, from.ld_v, kt.n, a.dim);
	float dk[WARP_ROWS][PARTS] = {}, dv[WARP_ROWS][PARTS] = {};
	for (i32 n = 0; n < kt.count; n++) {
		const QueryTile t = a.queries[a.seers[kt.first + n]];
		const i32 head = first_head(a, t, kv), rows = t.n * t.heads;
		SYNC();
		general_packed(q, (const A *)a.rotated, a.ld_rotated, t, head, a.dim);
		general_packed(dy, (const A *)a.dy, a.ld_dy, t, head, a.dim);
		SYNC();
		if (FIRST >= kt.n) continue;
		float s[WARP_ROWS], dp[WARP_ROWS], lse = 0, delta = 0;
		i32 position = -1; // of a row that is not there: it sees nothing
		if (LANE < rows) {
			lse = a.lse[packed_at(t, LANE, a.ld_lse, head, 1)] * LOG2_E;
			delta = a.delta[packed_at(t, LANE, a.heads, head, 1)];
			position = t.position + LANE / t.heads;
		}
		general_scores(s, k, q, a.dim);
		general_scores(dp, v, dy, a.dim);
		UNROLL
		for (i32 i = 0; i < WARP_ROWS; i++) {
			s[i] = position >= 0 && sees(visible(a, kt, position), FIRST + i) ? exp2_approx(fma(s[i], scale, -lse)) : 0;
			dp[i] = s[i] * (dp[i] - delta);
		}
		general_put(p, s);
		general_put(ds, dp);
		general_weigh(dv, p, dy, a.dim); // [32 keys, 32 queries] x [32 queries, dim]
		general_weigh(dk, ds, q, a.dim);
	}
	SYNC();
	UNROLL
	for (i32 i = 0; i < WARP_ROWS; i++) {
		i32 row = FIRST + i;
		if (row >= kt.n) break;
		float *stage = q + row * stride_of(a.dim);
		general_write<A>(a, stage, dv[i], 1, false, kt.row + row, a.heads + a.kv_heads + kv);
		general_write<A>(a, stage, dk[i], a.scale, true, kt.row + row, a.heads + kv);
	}
}

KERNEL(general_backward_keys_bf16, AttentionArgs, GENERAL_THREADS) { general_backward_keys<bf16>(a); }
KERNEL(general_backward_keys_f32, AttentionArgs, GENERAL_THREADS) { general_backward_keys<float>(a); }
