// Eight neighbours of a row at once: 16 bytes of bf16, 32 of f32. Where fewer are left or the address is no multiple of
// 16, they are taken one by one.
#pragma once
#include "cu.h"

// The first left of v from at, zeros for the rest.
DEVICE void load8(float v[8], const void *at, bool half, i32 left) {
	if (left >= 8 && (u64)at % 16 == 0) {
		if (half) {
			Word4 w = *(const Word4 *)at;
			v[0] = low_bf16(w.x), v[1] = high_bf16(w.x), v[2] = low_bf16(w.y), v[3] = high_bf16(w.y);
			v[4] = low_bf16(w.z), v[5] = high_bf16(w.z), v[6] = low_bf16(w.w), v[7] = high_bf16(w.w);
			return;
		}
		Float4 p = ((const Float4 *)at)[0], q = ((const Float4 *)at)[1];
		v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w, v[4] = q.x, v[5] = q.y, v[6] = q.z, v[7] = q.w;
		return;
	}
	UNROLL
	for (i32 e = 0; e < 8; e++) v[e] = e >= left ? 0.0f : half ? to_float(((const bf16 *)at)[e]) : ((const float *)at)[e];
}

// The first left of v to at.
DEVICE void store8(void *at, const float v[8], bool half, i32 left) {
	if (left >= 8 && (u64)at % 16 == 0) {
		if (half) {
			*(Word4 *)at = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
			return;
		}
		((Float4 *)at)[0] = {v[0], v[1], v[2], v[3]};
		((Float4 *)at)[1] = {v[4], v[5], v[6], v[7]};
		return;
	}
	UNROLL
	for (i32 e = 0; e < 8; e++) {
		if (e >= left) break;
		if (half) put(((bf16 *)at)[e], v[e]);
		else ((float *)at)[e] = v[e];
	}
}

// Element i of a matrix in bf16 or f32.
DEVICE const void *element(const void *at, bool half, i64 i) { return (const char *)at + (half ? 2 * i : 4 * i); }
DEVICE void *element(void *at, bool half, i64 i) { return (char *)at + (half ? 2 * i : 4 * i); }

// What is done with a product: d = alpha * product + beta * c, each bf16 or f32. With beta 0 c is not read.
struct Output {
	void *d;
	const void *c;
	i32 ldd, ldc;
	bool half;
	float alpha, beta;
};

DEVICE void put8(const Output &o, i64 row, i32 col, i32 left, float v[8]) {
	float c[8];
	if (o.beta != 0) load8(c, element(o.c, o.half, row * o.ldc + col), o.half, left);
	UNROLL
	for (i32 e = 0; e < 8; e++) {
		v[e] *= o.alpha;
		if (o.beta != 0) v[e] = fma(o.beta, c[e], v[e]);
	}
	store8(element(o.d, o.half, row * o.ldd + col), v, o.half, left);
}
