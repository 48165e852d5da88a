#include "eight.h"

// The operations on lists of parameters. A block takes a piece of one parameter: piece elements, or what is left.

// A parameter on the card; shadow may be nothing.
struct Tensor {
	float *value, *grad, *m, *v;
	bf16 *shadow;
	i64 n; // elements, a multiple of 8
};

// The piece's parameter and its first element there.
struct Piece {
	i32 tensor, index;
};

static const i32 piece = 8192;

struct GradientArgs {
	const Tensor *tensors;
	const Piece *pieces;
	double *sums;
	float factor;
};

DEVICE i64 first_of(Piece p) { return (i64)p.index * piece + THREAD * 8; }
DEVICE i64 end_of(Piece p, const Tensor &t) {
	i64 end = (i64)(p.index + 1) * piece;
	return end < t.n ? end : t.n;
}

// grad = 0.
KERNEL(zero_gradients, GradientArgs, 256) {
	Piece p = a.pieces[BLOCK_X];
	Tensor t = a.tensors[p.tensor];
	const float zeros[8] = {0, 0, 0, 0, 0, 0, 0, 0};
	for (i64 i = first_of(p), end = end_of(p, t); i < end; i += THREADS * 8) store8(t.grad + i, zeros, false, 8);
}

// grad *= factor.
KERNEL(scale_gradients, GradientArgs, 256) {
	Piece p = a.pieces[BLOCK_X];
	Tensor t = a.tensors[p.tensor];
	for (i64 i = first_of(p), end = end_of(p, t); i < end; i += THREADS * 8) {
		float g[8];
		load8(g, t.grad + i, false, 8);
		UNROLL
		for (i32 e = 0; e < 8; e++) g[e] *= a.factor;
		store8(t.grad + i, g, false, 8);
	}
}

// The sum of what 256 threads have, in thread 0, in the same order each time; part has a place for each.
DEVICE double block_sum_double(double v, double *part) {
	part[THREAD] = v;
	for (i32 half = THREADS / 2; half > 0; half /= 2) {
		SYNC();
		if (THREAD < half) part[THREAD] += part[THREAD + half];
	}
	return part[0];
}

// The sum of squares of each piece.
KERNEL(square_pieces, GradientArgs, 256) {
	SHARED(double, part, 256);
	Piece p = a.pieces[BLOCK_X];
	Tensor t = a.tensors[p.tensor];
	double sum = 0;
	for (i64 i = first_of(p), end = end_of(p, t); i < end; i += THREADS * 8) {
		float g[8];
		load8(g, t.grad + i, false, 8);
		UNROLL
		for (i32 e = 0; e < 8; e++) sum = fma((double)g[e], (double)g[e], sum);
	}
	sum = block_sum_double(sum, part);
	if (THREAD == 0) a.sums[BLOCK_X] = sum;
}

struct SumDoublesArgs {
	double *to;
	const double *from;
	i32 n, add;
};

// The sum of n doubles, added to what is there if add; one block of 256 threads.
KERNEL(sum_doubles, SumDoublesArgs, 256) {
	SHARED(double, part, 256);
	double sum = 0;
	for (i32 i = THREAD; i < a.n; i += THREADS) sum += a.from[i];
	sum = block_sum_double(sum, part);
	if (THREAD == 0) *a.to = a.add ? *a.to + sum : sum;
}

struct AdamWArgs {
	const Tensor *tensors;
	const Piece *pieces;
	float decay, beta1, take1, beta2, take2, rate, correct, eps;
};

// One step in the arithmetic of torch.optim.AdamW, each product and sum rounded: the bits are the CPU backend's.
KERNEL(adamw, AdamWArgs, 256) {
	Piece p = a.pieces[BLOCK_X];
	Tensor t = a.tensors[p.tensor];
	for (i64 i = first_of(p), end = end_of(p, t); i < end; i += THREADS * 8) {
		float w[8], g[8], m[8], v[8];
		load8(w, t.value + i, false, 8);
		load8(g, t.grad + i, false, 8);
		load8(m, t.m + i, false, 8);
		load8(v, t.v + i, false, 8);
		UNROLL
		for (i32 e = 0; e < 8; e++) {
			// torch.lerp is exact at either end
			m[e] = a.take1 < 0.5f ? m[e] + a.take1 * (g[e] - m[e]) : g[e] - (g[e] - m[e]) * a.beta1;
			v[e] = v[e] * a.beta2 + a.take2 * g[e] * g[e];
			float root = div_rn(sqrt_rn(v[e]), a.correct) + a.eps;
			w[e] = w[e] * a.decay - div_rn(a.rate * m[e], root);
		}
		store8(t.value + i, w, false, 8);
		store8(t.m + i, m, false, 8);
		store8(t.v + i, v, false, 8);
		if (t.shadow) store8(t.shadow + i, w, true, 8);
	}
}
