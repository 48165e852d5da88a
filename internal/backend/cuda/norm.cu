#include "eight.h"

// A block has a row, a thread eight neighbours of it at a time. What a thread reads first it keeps for the second pass:
// with two runs of each of up to 512 threads that is all of a row of 8,192; the rest of longer ones is read again.
static const i32 kept = 2;

// The first column of a thread's i-th run.
DEVICE i32 run_of(i32 i) { return (i * THREADS + THREAD) * 8; }

struct RMSNormArgs {
	void *y;
	float *rstd;
	const float *x, *gain;
	i32 cols, ld_y, ld_x, ld_rstd, half;
	float eps;
};

DEVICE float add_squares(const float x[8], float sum) {
	UNROLL
	for (i32 e = 0; e < 8; e++) sum = fma(x[e], x[e], sum);
	return sum;
}

DEVICE void norm_run(void *y, const float x[8], const float *gain, float rstd, bool half, i32 left) {
	float g[8];
	load8(g, gain, false, left);
	UNROLL
	for (i32 e = 0; e < 8; e++) g[e] *= x[e] * rstd;
	store8(y, g, half, left);
}

// y = gain * x * rstd with rstd = 1 / sqrt(mean(x^2) + eps).
KERNEL(rms_norm, RMSNormArgs, 512) {
	SHARED(float, part, 32);
	const float *x = a.x + (i64)BLOCK_X * a.ld_x;
	void *y = element(a.y, a.half, (i64)BLOCK_X * a.ld_y);
	float mine[kept][8], squares = 0;
	UNROLL
	for (i32 i = 0; i < kept; i++) {
		load8(mine[i], x + run_of(i), false, a.cols - run_of(i));
		squares = add_squares(mine[i], squares);
	}
	for (i32 i = kept; run_of(i) < a.cols; i++) {
		float v[8];
		load8(v, x + run_of(i), false, a.cols - run_of(i));
		squares = add_squares(v, squares);
	}
	float rstd = div_rn(1.0f, sqrt_rn(div_rn(block_sum(squares, part), (float)a.cols) + a.eps));
	if (THREAD == 0) a.rstd[(i64)BLOCK_X * a.ld_rstd] = rstd;
	UNROLL
	for (i32 i = 0; i < kept; i++) {
		i32 c = run_of(i);
		norm_run(element(y, a.half, c), mine[i], a.gain + c, rstd, a.half, a.cols - c);
	}
	for (i32 i = kept; run_of(i) < a.cols; i++) {
		i32 c = run_of(i);
		float v[8];
		load8(v, x + c, false, a.cols - c);
		norm_run(element(y, a.half, c), v, a.gain + c, rstd, a.half, a.cols - c);
	}
}

struct RMSNormBackwardArgs {
	float *dx;
	const float *x, *rstd;
	const void *dy;
	const float *add, *gain;
	i32 cols, ld_dx, ld_x, ld_rstd, ld_dy, ld_add, half;
};

// g = gain * dy.
DEVICE void gained(float g[8], const void *dy, const float *gain, bool half, i32 left) {
	float d[8];
	load8(d, dy, half, left);
	load8(g, gain, false, left);
	UNROLL
	for (i32 e = 0; e < 8; e++) g[e] *= d[e];
}

DEVICE float add_products(const float x[8], const float y[8], float sum) {
	UNROLL
	for (i32 e = 0; e < 8; e++) sum = fma(x[e], y[e], sum);
	return sum;
}

// dx = add + rstd * (g - x * c), for a run.
DEVICE void backward_run(float *dx, float g[8], const float x[8], const float *add, float rstd, float c, i32 left) {
	UNROLL
	for (i32 e = 0; e < 8; e++) g[e] = rstd * fma(-c, x[e], g[e]);
	if (add) {
		float s[8];
		load8(s, add, false, left);
		UNROLL
		for (i32 e = 0; e < 8; e++) g[e] += s[e];
	}
	store8(dx, g, false, left);
}

// dx = add + rstd * (g - x * c) with g = gain * dy and c = rstd^2 * mean(g * x); add may be nothing.
KERNEL(rms_norm_backward, RMSNormBackwardArgs, 512) {
	SHARED(float, part, 32);
	const float *x = a.x + (i64)BLOCK_X * a.ld_x;
	const float *add = a.add ? a.add + (i64)BLOCK_X * a.ld_add : nullptr;
	const void *dy = element(a.dy, a.half, (i64)BLOCK_X * a.ld_dy);
	float *dx = a.dx + (i64)BLOCK_X * a.ld_dx;
	float xs[kept][8], gs[kept][8], dot = 0;
	UNROLL
	for (i32 i = 0; i < kept; i++) {
		i32 c = run_of(i);
		load8(xs[i], x + c, false, a.cols - c);
		gained(gs[i], element(dy, a.half, c), a.gain + c, a.half, a.cols - c);
		dot = add_products(xs[i], gs[i], dot);
	}
	for (i32 i = kept; run_of(i) < a.cols; i++) {
		i32 c = run_of(i);
		float v[8], g[8];
		load8(v, x + c, false, a.cols - c);
		gained(g, element(dy, a.half, c), a.gain + c, a.half, a.cols - c);
		dot = add_products(v, g, dot);
	}
	float rstd = a.rstd[(i64)BLOCK_X * a.ld_rstd];
	float c = div_rn(block_sum(dot, part) * rstd * rstd, (float)a.cols);
	UNROLL
	for (i32 i = 0; i < kept; i++) {
		i32 at = run_of(i);
		backward_run(dx + at, gs[i], xs[i], add ? add + at : nullptr, rstd, c, a.cols - at);
	}
	for (i32 i = kept; run_of(i) < a.cols; i++) {
		i32 at = run_of(i);
		float v[8], g[8];
		load8(v, x + at, false, a.cols - at);
		gained(g, element(dy, a.half, at), a.gain + at, a.half, a.cols - at);
		backward_run(dx + at, g, v, add ? add + at : nullptr, rstd, c, a.cols - at);
	}
}
