// What the kernels of attention share: how the work is cut, and where rows lie. attention.go makes the tiles.
//
// Query heads that share a key head are packed into one tile of queries, so that keys and values are read once for them
// all: packed row p of a tile is row p / heads of the tile and head p % heads.
#pragma once
#include "cu.h"

// Query rows row..row+n-1 of the batch at consecutive positions, with `heads` heads from `head` on of those that share a
// key head. It sees the key tiles seen[first..first+count-1], the latest positions first. part >= 0: it is a piece of its
// keys only, and what it gives goes to these packed rows of the partial results. (In attention_combine: the pieces of a
// tile, count of them, whose partial results begin at first.)
struct QueryTile {
	i32 row, n, position, head, heads, first, count, part;
};

// n keys at consecutive positions: rows of the batch (slot < 0) or of a slot of the cache. It is seen by the query tiles
// seers[first..first+count-1].
struct KeyTile {
	i32 row, slot, position, n, first, count;
};

struct AttentionArgs {
	void *y;                   // [T, heads * dim]
	float *lse;                // [T, heads], written by the forward pass, read by the backward pass
	const void *rotated, *qkv; // [T, (heads + kv_heads) * dim] rotated queries and keys; the values are the last of qkv
	const void *dy;
	void *dqkv;
	float *delta; // [T, heads], dy . y of each row and head
	const float *cos, *sin; // [T, dim / 2]
	const QueryTile *queries;
	const KeyTile *keys;
	const i32 *seen, *seers;
	void *const *slots; // of the cache, rows [kv_heads * dim keys | values]
	float *part, *part_lse; // [packed rows, kv_heads, dim] and [packed rows, kv_heads], in powers of 2
	i32 heads, kv_heads, dim, ld_y, ld_lse, ld_rotated, ld_qkv, ld_dy, ld_dqkv, ld_cache, window;
	float scale;
};

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#define MINUS_INFINITY (-__builtin_inff())

// The first query head of a tile.
DEVICE i32 first_head(const AttentionArgs &a, const QueryTile &t, i32 kv) { return kv * (a.heads / a.kv_heads) + t.head; }

// Where packed row p of a matrix of `dim` columns a head begins.
DEVICE i64 packed_at(const QueryTile &t, i32 p, i32 ld, i32 head, i32 dim) {
	i32 r = p / t.heads;
	return (i64)(t.row + r) * ld + (head + p - r * t.heads) * dim;
}

// The keys and the values of a tile for one key head.
template <class A> struct KeyRows {
	const A *k, *v;
	i32 ld_k, ld_v;
};
template <class A> DEVICE KeyRows<A> key_rows(const AttentionArgs &a, const KeyTile &t, i32 kv) {
	KeyRows<A> r;
	if (t.slot >= 0) {
		r.k = (const A *)a.slots[t.slot] + (i64)t.row * a.ld_cache + kv * a.dim;
		r.v = r.k + a.kv_heads * a.dim;
		r.ld_k = r.ld_v = a.ld_cache;
		return r;
	}
	r.k = (const A *)a.rotated + (i64)t.row * a.ld_rotated + (a.heads + kv) * a.dim;
	r.v = (const A *)a.qkv + (i64)t.row * a.ld_qkv + (a.heads + a.kv_heads + kv) * a.dim;
	r.ld_k = a.ld_rotated;
	r.ld_v = a.ld_qkv;
	return r;
}

// The keys from..to-1 of a tile are those that a query sees.
struct Visible {
	i32 from, to;
};
DEVICE Visible visible(const AttentionArgs &a, const KeyTile &t, i32 position) {
	Visible v;
	v.from = a.window ? position - a.window + 1 - t.position : 0;
	v.to = position + 1 - t.position;
	if (v.to > t.n) v.to = t.n;
	return v;
}
DEVICE bool sees(const Visible &v, i32 key) { return key >= v.from && key < v.to; }

// The column that makes a pair with col.
DEVICE i32 partner(i32 col, i32 dim) { return col < dim / 2 ? col + dim / 2 : col - dim / 2; }

// Turns a gradient back: its column col is x, the partner's y.
DEVICE float turned_back(float x, float y, i32 col, i32 dim, const float *cos, const float *sin) {
	i32 half = dim / 2;
	return col < half ? x * cos[col] + y * sin[col] : x * cos[col - half] - y * sin[col - half];
}
