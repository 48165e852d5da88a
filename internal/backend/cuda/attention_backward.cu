// The backward pass of attention on the tensor cores. With p = softmax(s), dp = dy vT and delta = sum(p dp) of each row:
// ds = scale p (dp - delta), dq = ds k, dk = dsT q, dv = pT dy.
//
// The rows of dq are summed over keys, those of dk and dv over queries: two kernels, each of which computes scores anew
// and adds in a fixed order, without atomics. delta = dy . y too, but y is not given, and to compute it again costs as
// much (two products, s and p v) as sum(p dp) does (s and dp), which has no output to add up and moreover cancels exactly
// where it must: it is summed relative to the dp of the row's own key, so that a row that sees one key, or keys that
// have the same dp, has ds = 0 to the last bit. So the kernel of queries goes through its keys twice: 2 + 3 products, and
// 4 for the keys. delta of [T, heads] goes from the one to the other.
#include "flash.h"

// Where the rows of a tile of gradients go: packed rows of queries, or keys (or values) of head `head` of dqkv.
struct AtQueries {
	const QueryTile &t;
	i32 head;
};
struct AtKeys {
	const KeyTile &t;
	i32 head;
};
DEVICE i32 row_of(const AtQueries &at, i32 p) { return at.t.row + p / at.t.heads; }
DEVICE i32 row_of(const AtKeys &at, i32 r) { return at.t.row + r; }
DEVICE i64 offset_of(const AttentionArgs &a, const AtQueries &at, i32 p) { return packed_at(at.t, p, a.ld_dqkv, at.head, a.dim); }
DEVICE i64 offset_of(const AttentionArgs &a, const AtKeys &at, i32 r) { return (i64)(at.t.row + r) * a.ld_dqkv + at.head * a.dim; }

// Writes the warp's 16 rows of gradients o * scale, those of the first n of the tile, through stage; turned back by their
// row's angles where rotate.
template <int D, class At>
DEVICE void write_gradients(const AttentionArgs &a, float *stage, const float o[D / 8][4], float scale, bool rotate, i32 n, const At &at) {
	put_staged<D>(stage, o, scale);
	for (i32 i = LANE; i < 16 * (D / 8); i += 32) {
		i32 r = WARP * 16 + i / (D / 8), c = i % (D / 8);
		if (r >= n || 8 * c >= a.dim) continue;
		i64 angles = (i64)row_of(at, r) * (a.dim / 2);
		Word4 w = staged_piece<D>(stage, r, c, a.dim, rotate ? a.cos + angles : 0, a.sin + angles);
		*(Word4 *)((bf16 *)a.dqkv + offset_of(a, at, r) + 8 * c) = w;
	}
	SYNC_WARP();
}

// Takes the dp of each row's own key, if it is in the tile.
DEVICE void find_own(float own[2], const float dp[8][4], const KeyTile &t, const i32 position[2]) {
	UNROLL
	for (i32 i = 0; i < 2; i++) {
		i32 column = position[i] - t.position;
		float mine = 0;
		UNROLL
		for (i32 j = 0; j < 8; j++)
			UNROLL
			for (i32 e = 2 * i; e < 2 * i + 2; e++) mine = column_of(j, e) == column ? dp[j][e] : mine;
		mine = row_sum(mine); // one lane of the row has it
		own[i] = column >= 0 && column < t.n ? mine : own[i];
	}
}

// sum += p, delta += p (dp - own)
DEVICE void add_delta(float sum[2], float delta[2], const float own[2], const float p[4][4], const float dp[4][4]) {
	UNROLL
	for (i32 j = 0; j < 4; j++)
		UNROLL
		for (i32 e = 0; e < 4; e++) {
			sum[e >> 1] += p[j][e];
			delta[e >> 1] = fma(p[j][e], dp[j][e] - own[e >> 1], delta[e >> 1]);
		}
}

// delta and dq of a tile of 64 packed queries and one key head. As in the forward pass values and keys come in turns, each
// while the other's product is computed.
template <int D> DEVICE void flash_backward_queries(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads;
	const QueryTile t = a.queries[BLOCK_X / a.kv_heads];
	const i32 head = first_head(a, t, kv), rows = t.n * t.heads;
	const bool active = WARP * 16 < rows;
	bf16 *q = (bf16 *)shared_memory(), *dy = q + FLASH_ROWS * D, *k = dy + FLASH_ROWS * D, *v = k + FLASH_ROWS * D;
	const float scale = a.scale * LOG2_E;

	KeyTile kt = a.keys[a.seen[t.first]];
	const KeyRows<bf16> first = key_rows<bf16>(a, kt, kv);
	load_packed<D, FLASH_ROWS>(dy, (const bf16 *)a.dy, a.ld_dy, t, 0, head, a.dim);
	load_rows<D, FLASH_ROWS>(v, first.v, first.ld_v, kt.n, a.dim);
	copy_async_commit();
	load_packed<D, FLASH_ROWS>(q, (const bf16 *)a.rotated, a.ld_rotated, t, 0, head, a.dim);
	load_rows<D, FLASH_ROWS>(k, first.k, first.ld_k, kt.n, a.dim);
	copy_async_commit();

	float dq[D / 8][4] = {}, own[2] = {0, 0}, sum[2] = {0, 0}, delta[2] = {0, 0}, lse[2];
	i32 position[2];
	UNROLL
	for (i32 i = 0; i < 2; i++) {
		i32 p = WARP * 16 + (LANE >> 2) + 8 * i;
		position[i] = t.position + p / t.heads;
		lse[i] = p < rows ? a.lse[packed_at(t, p, a.ld_lse, head, 1)] * LOG2_E : 0;
	}
	for (i32 n = 0; n < 2 * t.count; n++) {
		// Where all keys are in one tile it stays for the second time.
		const bool more = n + 1 < 2 * t.count && t.count > 1;
		const KeyTile next = a.keys[a.seen[t.first + (n + 1) % t.count]];
		float dp[8][4];
		copy_async_wait<1>();
		SYNC();
		if (active) scores<D, 8>(dp, dy + WARP * 16 * D, v);
		SYNC();
		if (more) {
			const KeyRows<bf16> from = key_rows<bf16>(a, next, kv);
			load_rows<D, FLASH_ROWS>(v, from.v, from.ld_v, next.n, a.dim);
		}
		copy_async_commit();
		copy_async_wait<1>();
		SYNC();
		// The latest keys come first, a row's own among them.
		if (active && n < t.count && kt.position + kt.n > t.position) find_own(own, dp, kt, position);
		if (active) {
			UNROLL
			for (i32 h = 0; h < 2; h++) { // half of the keys: registers are scarce
				float p[4][4], (*g)[4] = dp + 4 * h;
				scores<D, 4>(p, q + WARP * 16 * D, k + 32 * h * D);
				UNROLL
				for (i32 i = 0; i < 2; i++) {
					Visible see = visible(a, kt, position[i]);
					UNROLL
					for (i32 j = 0; j < 4; j++)
						UNROLL
						for (i32 e = 2 * i; e < 2 * i + 2; e++)
							p[j][e] = sees(see, column_of(4 * h + j, e)) ? exp2_approx(fma(p[j][e], scale, -lse[i])) : 0;
				}
				if (n < t.count)
					add_delta(sum, delta, own, p, g);
				else {
					UNROLL
					for (i32 j = 0; j < 4; j++)
						UNROLL
						for (i32 e = 0; e < 4; e++) p[j][e] *= g[j][e] - delta[e >> 1];
					// [16, 32] x [32, D] -> [16, D]
					weigh<D, 4>(dq, p, k + 32 * h * D);
				}
			}
		}
		if (active && n == t.count - 1) {
			UNROLL
			for (i32 i = 0; i < 2; i++) {
				delta[i] = own[i] + div_rn(row_sum(delta[i]), row_sum(sum[i]));
				i32 p = WARP * 16 + (LANE >> 2) + 8 * i;
				if (p < rows && !(LANE & 3)) a.delta[packed_at(t, p, a.heads, head, 1)] = delta[i];
			}
		}
		SYNC();
		if (more) {
			const KeyRows<bf16> from = key_rows<bf16>(a, next, kv);
			load_rows<D, FLASH_ROWS>(k, from.k, from.ld_k, next.n, a.dim);
		}
		copy_async_commit();
		kt = next;
	}
	copy_async_wait<0>();
	SYNC();
	AtQueries at = {t, head};
	if (active) write_gradients<D>(a, (float *)k, dq, a.scale, true, rows, at); // [64, D] f32 where k and v were
}

KERNEL_BLOCKS(flash_backward_queries_64, AttentionArgs, FLASH_THREADS, 2) { flash_backward_queries<64>(a); }
KERNEL_BLOCKS(flash_backward_queries_128, AttentionArgs, FLASH_THREADS, 2) { flash_backward_queries<128>(a); }

// What the kernel of keys needs of a packed row.
struct QueryStat {
	float lse, delta;
	i32 position; // -1 where there is no row: it sees no key
};

#define HALF_ROWS 32 // packed rows that the kernel of keys multiplies at once; two halves take turns in shared memory

DEVICE QueryStat query_stat(const AttentionArgs &a, const QueryTile &t, i32 p, i32 head) {
	QueryStat s = {0, 0, -1};
	if (p >= t.n * t.heads) return s;
	s.lse = a.lse[packed_at(t, p, a.ld_lse, head, 1)] * LOG2_E;
	s.delta = a.delta[packed_at(t, p, a.heads, head, 1)];
	s.position = t.position + p / t.heads;
	return s;
}

// dk and dv of a tile of 64 keys and one key head, over all tiles of queries that see it: those of the head's group are
// packed into the same tile. Scores are computed transposed, keys x queries, so that their registers are the left operand
// of the next product.
template <int D> DEVICE void flash_backward_keys(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads;
	const KeyTile kt = a.keys[BLOCK_X / a.kv_heads];
	const bool active = WARP * 16 < kt.n;
	bf16 *k = (bf16 *)shared_memory(), *v = k + FLASH_ROWS * D, *queries = v + FLASH_ROWS * D; // then 2 x (q, dy) of 32 rows
	QueryStat *stats = (QueryStat *)(queries + 4 * HALF_ROWS * D);                             // 2 x 32
	const float scale = a.scale * LOG2_E;

	const KeyRows<bf16> from = key_rows<bf16>(a, kt, kv);
	load_rows<D, FLASH_ROWS>(k, from.k, from.ld_k, kt.n, a.dim);
	load_rows<D, FLASH_ROWS>(v, from.v, from.ld_v, kt.n, a.dim);
	float dk[D / 8][4] = {}, dv[D / 8][4] = {};
	const i32 units = 2 * kt.count;
	QueryStat stat = {0, 0, -1};
	for (i32 u = -1; u < units; u++) {
		// The next half is on its way while this one is multiplied.
		const i32 next = u + 1;
		if (next < units) {
			const QueryTile t = a.queries[a.seers[kt.first + (next >> 1)]];
			const i32 head = first_head(a, t, kv), row = (next & 1) * HALF_ROWS;
			bf16 *q = queries + (next & 1) * 2 * HALF_ROWS * D;
			load_packed<D, HALF_ROWS>(q, (const bf16 *)a.rotated, a.ld_rotated, t, row, head, a.dim);
			load_packed<D, HALF_ROWS>(q + HALF_ROWS * D, (const bf16 *)a.dy, a.ld_dy, t, row, head, a.dim);
			if (WARP == 0) stat = query_stat(a, t, row + LANE, head);
		}
		copy_async_commit();
		if (u >= 0) {
			copy_async_wait<1>();
			SYNC();
			const bf16 *q = queries + (u & 1) * 2 * HALF_ROWS * D, *dy = q + HALF_ROWS * D;
			const QueryStat *of = stats + (u & 1) * HALF_ROWS;
			if (active) {
				float s[4][4], dp[4][4];
				scores<D, 4>(s, k + WARP * 16 * D, q);   // [16 keys, D] x [D, 32 queries]
				scores<D, 4>(dp, v + WARP * 16 * D, dy);
				UNROLL
				for (i32 j = 0; j < 4; j++)
					UNROLL
					for (i32 e = 0; e < 4; e++) {
						const QueryStat query = of[column_of(j, e)];
						i32 position = kt.position + WARP * 16 + (LANE >> 2) + 8 * (e >> 1);
						bool seen = position <= query.position && (!a.window || position > query.position - a.window);
						s[j][e] = seen ? exp2_approx(fma(s[j][e], scale, -query.lse)) : 0;
						dp[j][e] = s[j][e] * (dp[j][e] - query.delta);
					}
				weigh<D, 4>(dv, s, dy); // [16 keys, 32 queries] x [32 queries, D]
				weigh<D, 4>(dk, dp, q);
			}
		}
		if (WARP == 0 && next < units) stats[(next & 1) * HALF_ROWS + LANE] = stat;
		SYNC();
	}
	copy_async_wait<0>();
	SYNC();
	if (!active) return;
	AtKeys keys = {kt, a.heads + kv}, values = {kt, a.heads + a.kv_heads + kv};
	write_gradients<D>(a, (float *)queries, dv, 1, false, kt.n, values); // [64, D] f32 where the queries were
	write_gradients<D>(a, (float *)queries, dk, a.scale, true, kt.n, keys);
}

KERNEL_BLOCKS(flash_backward_keys_64, AttentionArgs, FLASH_THREADS, 2) { flash_backward_keys<64>(a); }
KERNEL_BLOCKS(flash_backward_keys_128, AttentionArgs, FLASH_THREADS, 2) { flash_backward_keys<128>(a); }
