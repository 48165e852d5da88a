#include "cu.h"

struct RoundArgs {
	bf16 *to;
	const float *from;
	i64 n;
};

// n floats, a multiple of 8, to bf16: 8 a thread, so that it stores 16 bytes.
KERNEL(round_bf16, RoundArgs, 256) {
	i64 i = ((i64)BLOCK_X * THREADS + THREAD) * 8;
	if (i >= a.n) return;
	Float4 p = *(const Float4 *)(a.from + i), q = *(const Float4 *)(a.from + i + 4);
	*(Word4 *)(a.to + i) = {pack_bf16(p.x, p.y), pack_bf16(p.z, p.w), pack_bf16(q.x, q.y), pack_bf16(q.z, q.w)};
}
