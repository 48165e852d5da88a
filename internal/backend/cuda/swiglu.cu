#include "eight.h"

struct SwiGLUArgs {
	void *y;        // [rows, cols]
	const void *gu; // [rows, 2 cols]: gate, up
	i32 rows, cols, ld_y, ld_gu;
};

// 1 / (1 + e^-x)
DEVICE float sigmoid(float x) { return div_rn(1.0f, 1.0f + exp2_approx(-1.44269504f * x)); }

// y = silu(g) * u: 8 columns a thread.
template <bool HALF> DEVICE void swiglu(const SwiGLUArgs &a) {
	i32 wide = (a.cols + 7) / 8;
	i64 i = (i64)BLOCK_X * THREADS + THREAD, row = i / wide;
	i32 col = (i32)(i % wide) * 8, left = a.cols - col;
	if (row >= a.rows) return;
	float g[8], u[8];
	load8(g, element(a.gu, HALF, row * a.ld_gu + col), HALF, left);
	load8(u, element(a.gu, HALF, row * a.ld_gu + a.cols + col), HALF, left);
	UNROLL
	for (i32 e = 0; e < 8; e++) g[e] = g[e] * sigmoid(g[e]) * u[e];
	store8(element(a.y, HALF, row * a.ld_y + col), g, HALF, left);
}

KERNEL(swiglu_bf16, SwiGLUArgs, 256) { swiglu<true>(a); }
KERNEL(swiglu_f32, SwiGLUArgs, 256) { swiglu<false>(a); }

struct SwiGLUBackwardArgs {
	void *d;            // [rows, 2 cols]: the gradients of gate and up
	const void *gu, *dy; // [rows, 2 cols], [rows, cols]
	i32 rows, cols, ld_d, ld_gu, ld_dy;
};

template <bool HALF> DEVICE void swiglu_backward(const SwiGLUBackwardArgs &a) {
	i32 wide = (a.cols + 7) / 8;
	i64 i = (i64)BLOCK_X * THREADS + THREAD, row = i / wide;
	i32 col = (i32)(i % wide) * 8, left = a.cols - col;
	if (row >= a.rows) return;
	float g[8], u[8], v[8];
	load8(g, element(a.gu, HALF, row * a.ld_gu + col), HALF, left);
	load8(u, element(a.gu, HALF, row * a.ld_gu + a.cols + col), HALF, left);
	load8(v, element(a.dy, HALF, row * a.ld_dy + col), HALF, left);
	UNROLL
	for (i32 e = 0; e < 8; e++) {
		float s = sigmoid(g[e]), x = g[e];
		g[e] = v[e] * u[e] * s * (1 + x * (1 - s));
		u[e] = v[e] * x * s;
	}
	store8(element(a.d, HALF, row * a.ld_d + col), g, HALF, left);
	store8(element(a.d, HALF, row * a.ld_d + a.cols + col), u, HALF, left);
}

KERNEL(swiglu_backward_bf16, SwiGLUBackwardArgs, 256) { swiglu_backward<true>(a); }
KERNEL(swiglu_backward_f32, SwiGLUBackwardArgs, 256) { swiglu_backward<false>(a); }
