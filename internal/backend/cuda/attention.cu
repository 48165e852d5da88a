#include "eight.h"
#include "flash.h"

struct RopeArgs {
	void *rotated;
	const void *qkv;
	const float *cos, *sin;
	const i32 *places;  // of each row: slot (or -1) and position in it; null: no row goes to the cache
	void *const *slots;
	i32 heads, kv_heads, dim, ld_rotated, ld_qkv, ld_cache;
};

// A block a row: rotated queries and keys go to scratch. Keys and values of a row that has a place in the cache go there.
// A thread takes eight pairs (i, i + half) of a head.
template <class A> DEVICE void rope(const RopeArgs &a) {
	const bool is_half = sizeof(A) == 2;
	const i32 row = BLOCK_X, half = a.dim / 2, per_head = (half + 7) / 8;
	const float *cos = a.cos + (i64)row * half, *sin = a.sin + (i64)row * half;
	A *cached = 0;
	if (a.places && a.places[2 * row] >= 0) cached = (A *)a.slots[a.places[2 * row]] + (i64)a.places[2 * row + 1] * a.ld_cache;
	const i32 heads = a.heads + (cached ? 2 : 1) * a.kv_heads; // values stay where they are unless they are cached
	for (i32 n = THREAD; n < heads * per_head; n += THREADS) {
		i32 h = n / per_head, i = 8 * (n - h * per_head), left = half - i;
		const A *from = (const A *)a.qkv + (i64)row * a.ld_qkv + h * a.dim + i;
		A *to = (A *)a.rotated + (i64)row * a.ld_rotated + h * a.dim + i;
		if (cached && h >= a.heads) to = cached + (h - a.heads) * a.dim + i;
		float x[8], y[8], c[8], s[8], u[8], v[8];
		load8(x, from, is_half, left);
		load8(y, from + half, is_half, left);
		if (h < a.heads + a.kv_heads) {
			load8(c, cos + i, false, left);
			load8(s, sin + i, false, left);
			UNROLL
			for (i32 e = 0; e < 8; e++) u[e] = x[e] * c[e] - y[e] * s[e], v[e] = y[e] * c[e] + x[e] * s[e];
		} else {
			UNROLL
			for (i32 e = 0; e < 8; e++) u[e] = x[e], v[e] = y[e];
		}
		store8(to, u, is_half, left);
		store8(to + half, v, is_half, left);
	}
}

KERNEL(rope_bf16, RopeArgs, 256) { rope<bf16>(a); }
KERNEL(rope_f32, RopeArgs, 256) { rope<float>(a); }

// Writes the warp's rows of o / sum, through its own rows of the tile of queries: 16 bytes a lane.
template <int D> DEVICE void write_rows(const AttentionArgs &a, const QueryTile &t, i32 head, bf16 *q, float o[D / 8][4], const float inverse[2]) {
	SYNC_WARP();
	UNROLL
	for (i32 j = 0; j < D / 8; j++) {
		UNROLL
		for (i32 i = 0; i < 2; i++)
			*(u32 *)(piece<D>(q, WARP * 16 + (LANE >> 2) + 8 * i, j) + 2 * (LANE & 3)) = pack_bf16(o[j][2 * i] * inverse[i], o[j][2 * i + 1] * inverse[i]);
	}
	SYNC_WARP();
	for (i32 n = LANE; n < 16 * (D / 8); n += 32) {
		i32 p = WARP * 16 + n / (D / 8), c = n % (D / 8);
		if (p < t.n * t.heads && 8 * c < a.dim) *(Word4 *)((bf16 *)a.y + packed_at(t, p, a.ld_y, head, a.dim) + 8 * c) = *(const Word4 *)piece<D>(q, p, c);
	}
}

// softmax(scale q kT) v of a tile of 64 packed queries and one key head, with the running maximum and sum of Milakov and
// Gimelshein (2018) as in FlashAttention-2 (Dao, 2023). The next keys are on their way while the values are multiplied,
// the next values while the scores are, so that one buffer of each is enough: 48 KiB with D = 128.
template <int D> DEVICE void flash_forward(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads;
	const QueryTile t = a.queries[BLOCK_X / a.kv_heads];
	const i32 head = first_head(a, t, kv), rows = t.n * t.heads;
	const bool active = WARP * 16 < rows; // a decoded token has few rows: the other warps only copy
	bf16 *q = (bf16 *)shared_memory(), *k = q + FLASH_ROWS * D, *v = k + FLASH_ROWS * D;
	const float scale = a.scale * LOG2_E;

	KeyTile kt = a.keys[a.seen[t.first]];
	const KeyRows<bf16> from = key_rows<bf16>(a, kt, kv);
	load_packed<D, FLASH_ROWS>(q, (const bf16 *)a.rotated, a.ld_rotated, t, 0, head, a.dim);
	load_rows<D, FLASH_ROWS>(k, from.k, from.ld_k, kt.n, a.dim);
	copy_async_commit();
	load_rows<D, FLASH_ROWS>(v, from.v, from.ld_v, kt.n, a.dim);
	copy_async_commit();

	float o[D / 8][4] = {}, top[2] = {MINUS_INFINITY, MINUS_INFINITY}, sum[2] = {0, 0};
	i32 position[2];
	UNROLL
	for (i32 i = 0; i < 2; i++) position[i] = t.position + (WARP * 16 + (LANE >> 2) + 8 * i) / t.heads;
	for (i32 n = 0; n < t.count; n++) {
		const bool more = n + 1 < t.count;
		const KeyTile next = a.keys[a.seen[t.first + (more ? n + 1 : n)]];
		float s[8][4];
		copy_async_wait<1>();
		SYNC();
		if (active) scores<D, 8>(s, q + WARP * 16 * D, k);
		SYNC();
		if (more) {
			const KeyRows<bf16> from = key_rows<bf16>(a, next, kv);
			load_rows<D, FLASH_ROWS>(k, from.k, from.ld_k, next.n, a.dim);
		}
		copy_async_commit();
		if (active) {
			UNROLL
			for (i32 i = 0; i < 2; i++) {
				Visible see = visible(a, kt, position[i]);
				float most = top[i];
				UNROLL
				for (i32 j = 0; j < 8; j++)
					UNROLL
					for (i32 e = 2 * i; e < 2 * i + 2; e++) {
						s[j][e] = sees(see, column_of(j, e)) ? s[j][e] * scale : MINUS_INFINITY;
						most = s[j][e] > most ? s[j][e] : most;
					}
				most = row_max(most);
				float base = most == MINUS_INFINITY ? 0 : most, shrink = exp2_approx(top[i] - base), part = 0;
				top[i] = most;
				UNROLL
				for (i32 j = 0; j < 8; j++)
					UNROLL
					for (i32 e = 2 * i; e < 2 * i + 2; e++) {
						s[j][e] = exp2_approx(s[j][e] - base);
						part += s[j][e];
					}
				sum[i] = sum[i] * shrink + part;
				UNROLL
				for (i32 j = 0; j < D / 8; j++) o[j][2 * i] *= shrink, o[j][2 * i + 1] *= shrink;
			}
		}
		copy_async_wait<1>();
		SYNC();
		if (active) weigh<D, 8>(o, s, v);
		SYNC();
		if (more) {
			const KeyRows<bf16> from = key_rows<bf16>(a, next, kv);
			load_rows<D, FLASH_ROWS>(v, from.v, from.ld_v, next.n, a.dim);
		}
		copy_async_commit();
		kt = next;
	}
	copy_async_wait<0>();
	if (!active) return;
	float inverse[2];
	UNROLL
	for (i32 i = 0; i < 2; i++) {
		sum[i] = row_sum(sum[i]);
		inverse[i] = sum[i] == 0 ? 0 : div_rn(1.0f, sum[i]); // a piece of the keys may have none that the row sees
		i32 p = WARP * 16 + (LANE >> 2) + 8 * i;
		if (p >= rows || (LANE & 3)) continue;
		float lse = sum[i] == 0 ? MINUS_INFINITY : top[i] + log2_approx(sum[i]);
		if (t.part >= 0)
			a.part_lse[(i64)(t.part + p) * a.kv_heads + kv] = lse;
		else
			a.lse[packed_at(t, p, a.ld_lse, head, 1)] = lse * LN_2;
	}
	if (t.part < 0) return write_rows<D>(a, t, head, q, o, inverse);
	UNROLL
	for (i32 j = 0; j < D / 8; j++) {
		UNROLL
		for (i32 e = 0; e < 4; e++) {
			i32 p = WARP * 16 + (LANE >> 2) + 8 * (e >> 1), c = column_of(j, e);
			if (p < rows && c < a.dim) a.part[((i64)(t.part + p) * a.kv_heads + kv) * a.dim + c] = o[j][e] * inverse[e >> 1];
		}
	}
}

KERNEL_BLOCKS(flash_forward_64, AttentionArgs, FLASH_THREADS, 3) { flash_forward<64>(a); }
KERNEL_BLOCKS(flash_forward_128, AttentionArgs, FLASH_THREADS, 2) { flash_forward<128>(a); }

// Puts the pieces of a tile together, a warp a packed row: pieces weigh as much as the sums of their exponentials.
template <class A> DEVICE void attention_combine(const AttentionArgs &a) {
	const i32 kv = BLOCK_X % a.kv_heads;
	const QueryTile t = a.queries[BLOCK_X / a.kv_heads];
	const i32 head = first_head(a, t, kv), rows = t.n * t.heads;
	for (i32 p = WARP; p < rows; p += THREADS / 32) {
		float top = MINUS_INFINITY, sum = 0;
		for (i32 i = 0; i < t.count; i++) {
			float lse = a.part_lse[(i64)(t.first + i * rows + p) * a.kv_heads + kv];
			top = lse > top ? lse : top;
		}
		if (top == MINUS_INFINITY) top = 0; // only a NaN
		for (i32 i = 0; i < t.count; i++) sum += exp2_approx(a.part_lse[(i64)(t.first + i * rows + p) * a.kv_heads + kv] - top);
		if (LANE == 0) a.lse[packed_at(t, p, a.ld_lse, head, 1)] = (top + log2_approx(sum)) * LN_2;
		for (i32 c = LANE; c < a.dim; c += 32) {
			float o = 0;
			for (i32 i = 0; i < t.count; i++) {
				i64 at = (i64)(t.first + i * rows + p) * a.kv_heads + kv;
				o = fma(exp2_approx(a.part_lse[at] - top), a.part[at * a.dim + c], o);
			}
			put(((A *)a.y)[packed_at(t, p, a.ld_y, head, a.dim) + c], div_rn(o, sum));
		}
	}
}

KERNEL(attention_combine_bf16, AttentionArgs, 256) { attention_combine<bf16>(a); }
KERNEL(attention_combine_f32, AttentionArgs, 256) { attention_combine<float>(a); }
