#include "cu.h"

struct RMSNormArgs {
	void *y;
	float *rstd;
	const float *x, *gain;
	i32 cols, ld_y, ld_x, ld_rstd;
	float eps;
};

// A block a row: y = gain * x * rstd with rstd = 1 / sqrt(mean(x^2) + eps).
template <class A> DEVICE void rms_norm(const RMSNormArgs &a) {
	SHARED(float, part, 32);
	const float *x = a.x + (i64)BLOCK_X * a.ld_x;
	A *y = (A *)a.y + (i64)BLOCK_X * a.ld_y;
	float squares = 0;
	for (i32 i = THREAD; i < a.cols; i += THREADS) squares = fma(x[i], x[i], squares);
	float rstd = div_rn(1.0f, sqrt_rn(div_rn(block_sum(squares, part), (float)a.cols) + a.eps));
	if (THREAD == 0) a.rstd[(i64)BLOCK_X * a.ld_rstd] = rstd;
	for (i32 i = THREAD; i < a.cols; i += THREADS) put(y[i], x[i] * rstd * a.gain[i]);
}

KERNEL(rms_norm_bf16, RMSNormArgs, 1024) { rms_norm<bf16>(a); }
KERNEL(rms_norm_f32, RMSNormArgs, 1024) { rms_norm<float>(a); }
