// A frozen matrix as it lies on the card: plain elements, or blocks of 64 codes with a scale each (package quant).
#pragma once
#include "eight.h"

enum { WEIGHT_F32, WEIGHT_BF16, WEIGHT_F16, WEIGHT_NF4, WEIGHT_INT8 };

struct Weight {
	const void *data;     // the elements, rows of ld; or the codes
	const void *scales;   // nf4: a byte a block; int8: a float
	const float *factors; // nf4: for 256 scales each
	const float *tables;  // nf4: what its 16 codes stand for, then what its scales' 256 do
	i32 kind, rows, cols, ld;
	float offset; // nf4: added to each scale
};

// Eight elements of 16-bit floats or f32 from at on.
DEVICE void load8_of(float v[8], i32 kind, const void *at, i32 left) {
	if (kind != WEIGHT_F16) {
		load8(v, at, kind == WEIGHT_BF16, left);
		return;
	}
	u32 w[4] = {0, 0, 0, 0};
	if (left >= 8 && (u64)at % 16 == 0) {
		Word4 x = *(const Word4 *)at;
		w[0] = x.x, w[1] = x.y, w[2] = x.z, w[3] = x.w;
	} else {
		UNROLL
		for (i32 e = 0; e < 8; e++)
			if (e < left) w[e / 2] |= (u32)((const u16 *)at)[e] << e % 2 * 16;
	}
	UNROLL
	for (i32 e = 0; e < 8; e++) v[e] = half_to_float((u16)(w[e / 2] >> e % 2 * 16));
}

// The scale of a block, with nf4's table of scales at values.
DEVICE float weight_scale(const Weight &w, const float *values, i64 block) {
	if (w.kind == WEIGHT_INT8) return ((const float *)w.scales)[block];
	return values[((const u8 *)w.scales)[block]] * w.factors[block / 256] + w.offset;
}

// Element (row, col), as quant.Matrix.Elements decodes it.
DEVICE float weight_element(const Weight &w, i64 row, i32 col) {
	i64 i = row * (w.kind < WEIGHT_NF4 ? w.ld : w.cols) + col;
	switch (w.kind) {
	case WEIGHT_F32: return ((const float *)w.data)[i];
	case WEIGHT_BF16: return to_float(((const bf16 *)w.data)[i]);
	case WEIGHT_F16: return half_to_float(((const u16 *)w.data)[i]);
	}
	float scale = weight_scale(w, w.tables + 16, i / 64);
	i32 at = (i32)(i % 64);
	if (w.kind == WEIGHT_INT8) return (float)((const signed char *)w.data)[i] * scale;
	return w.tables[((const u8 *)w.data)[i / 64 * 32 + at % 32] >> at / 32 * 4 & 15] * scale;
}
