#include "eight.h"

// Rows by their indices: a block has a row, a thread eight neighbours of it at a time.

struct GatherArgs {
	void *y;
	const float *x;
	const i32 *rows;
	i32 cols, ld_y, ld_x, half;
};

// y[i] = x[rows[i]].
KERNEL(gather, GatherArgs, 256) {
	const float *x = a.x + (i64)a.rows[BLOCK_X] * a.ld_x;
	void *y = element(a.y, a.half, (i64)BLOCK_X * a.ld_y);
	for (i32 c = THREAD * 8; c < a.cols; c += THREADS * 8) {
		float v[8];
		load8(v, x + c, false, a.cols - c);
		store8(element(y, a.half, c), v, a.half, a.cols - c);
	}
}

struct ScatterArgs {
	float *dx;
	const void *dy;
	const i32 *place;
	i32 cols, ld_dx, ld_dy, half;
};

// dx[t] = dy[place[t]], or zeros where place[t] is -1.
KERNEL(scatter, ScatterArgs, 256) {
	i32 from = a.place ? a.place[BLOCK_X] : -1;
	float *dx = a.dx + (i64)BLOCK_X * a.ld_dx;
	const void *dy = element(a.dy, a.half, (i64)from * a.ld_dy);
	for (i32 c = THREAD * 8; c < a.cols; c += THREADS * 8) {
		float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		if (from >= 0) load8(v, element(dy, a.half, c), a.half, a.cols - c);
		store8(dx + c, v, false, a.cols - c);
	}
}

struct ScatterAddArgs {
	float *to;
	const float *dx;
	const i32 *tokens, *starts, *rows;
	i32 cols, ld_to, ld_dx;
};

// to[tokens[i]] += dx[r] for the rows r of token i, in their order. A block has 1024 columns of a token.
KERNEL(scatter_add, ScatterAddArgs, 128) {
	i32 c = (BLOCK_Y * THREADS + THREAD) * 8;
	if (c >= a.cols) return;
	float *to = a.to + (i64)a.tokens[BLOCK_X] * a.ld_to + c;
	float sum[8];
	load8(sum, to, false, a.cols - c);
	for (i32 i = a.starts[BLOCK_X]; i < a.starts[BLOCK_X + 1]; i++) {
		float v[8];
		load8(v, a.dx + (i64)a.rows[i] * a.ld_dx + c, false, a.cols - c);
		UNROLL
		for (i32 e = 0; e < 8; e++) sum[e] += v[e];
	}
	store8(to, sum, false, a.cols - c);
}
