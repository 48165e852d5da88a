#include "eight.h"

struct CrossEntropyArgs {
	float *logits;                             // [rows, ld]; the gradient afterwards
	const i32 *starts;                         // of each row's targets in the others
	const i32 *labels, *counts, *order;        // order: where the target's loss goes
	float *shown;                              // the logit of each target
	double *losses;
	i32 cols, ld, backward, half;
};

static const float log2e = 1.44269504f;
#define LOWEST as_float(0xff800000u) // minus infinity

// ln x of a positive normal x within 1e-15, by the series of atanh; x itself where it is no number or infinite.
DEVICE double log_of(float x) {
	u32 bits = as_u32(x);
	if (bits >= 0x7f800000u) return (double)x;
	i32 e = (i32)(bits >> 23) - 127;
	double m = (double)as_float((bits & 0x7fffffu) | 0x3f800000u); // 1 <= m < 2
	if (m > 1.4142135623730951) m *= 0.5, e++;
	double s = div_rn(m - 1, m + 1), q = s * s, sum = 0; // |s| <= 0.172
	UNROLL
	for (i32 k = 23; k > 0; k -= 2) sum = fma(sum, q, div_rn(1.0, (double)k));
	return fma((double)e, 0.6931471805599453, 2 * s * sum);
}

// Takes eight logits into a largest and a sum of e^(z - largest). A NaN stays in the sum.
DEVICE void add_exponentials(const float z[8], float &top, float &sum) {
	float t = top;
	UNROLL
	for (i32 e = 0; e < 8; e++) t = z[e] > t ? z[e] : t;
	if (t > top) sum *= exp2_approx((top - t) * log2e);
	top = t;
	UNROLL
	for (i32 e = 0; e < 8; e++) sum += z[e] == LOWEST ? 0.0f : exp2_approx((z[e] - top) * log2e);
}

DEVICE void load_logits(float z[8], const float *row, i32 c, i32 cols) {
	load8(z, row + c, false, cols - c);
	UNROLL
	for (i32 e = 0; e < 8; e++)
		if (c + e >= cols) z[e] = LOWEST;
}

// A block has a row of logits, which it reads once for the losses of the row's targets, count * (log(sum of e^z) -
// z[label]), and once more for their gradient (sum of counts) * softmax(z) - count at each label, which takes the logits'
// place: as f32, or as bf16 with twice the leading dimension. The bf16 of a stretch of columns lie where the block has
// read all logits already.
KERNEL(cross_entropy, CrossEntropyArgs, 512) {
	SHARED(float, part, 32);
	float *row = a.logits + (i64)BLOCK_X * a.ld;
	float top = LOWEST, sum = 0;
	for (i32 c = THREAD * 8; c < a.cols; c += THREADS * 8) {
		float z[8];
		load_logits(z, row, c, a.cols);
		add_exponentials(z, top, sum);
	}
	float own = top;
	top = block_max(own, part);
	sum = block_sum(own == LOWEST && sum == 0.0f ? 0.0f : sum * exp2_approx((own - top) * log2e), part);
	i32 first = a.starts[BLOCK_X], end = a.starts[BLOCK_X + 1];
	double lse = log_of(sum); // of z - top
	for (i32 i = first + THREAD; i < end; i += THREADS) {
		float z = row[a.labels[i]];
		a.shown[i] = z;
		a.losses[a.order[i]] = (double)a.counts[i] * (lse + ((double)top - (double)z));
	}
	if (!a.backward) return;
	i32 count = 0;
	for (i32 i = first; i < end; i++) count += a.counts[i];
	float scale = div_rn((float)count, sum);
	bool half = a.half != 0;
	for (i32 from = 0; from < a.cols; from += THREADS * 8) {
		i32 c = from + THREAD * 8;
		float z[8];
		if (c < a.cols) load_logits(z, row, c, a.cols);
		SYNC();
		if (c >= a.cols) continue;
		UNROLL
		for (i32 e = 0; e < 8; e++) z[e] = exp2_approx((z[e] - top) * log2e) * scale;
		store8(element(row, half, c), z, half, a.cols - c);
	}
	SYNC();
	for (i32 i = first + THREAD; i < end; i += THREADS) {
		i32 label = a.labels[i], all = 0; // of all targets with this label, each of which writes the same
		for (i32 j = first; j < end; j++) all += a.labels[j] == label ? a.counts[j] : 0;
		float d = exp2_approx((a.shown[i] - top) * log2e) * scale - (float)all;
		if (half) put(((bf16 *)row)[label], d);
		else row[label] = d;
	}
}
