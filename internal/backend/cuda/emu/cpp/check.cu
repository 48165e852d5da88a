// Kernels that the tests of the emulated driver launch; they do what kernels must not do.
#include "cu.h"

struct CheckArgs {
	float *to;
	const float *from;
	i32 n;
	float f;
};

// to[i] = from[i] * f, for i < n.
KERNEL(check_scale, CheckArgs, 256) {
	i32 i = BLOCK_X * THREADS + THREAD;
	if (i < a.n) a.to[i] = a.from[i] * a.f;
}

// The second half of a block waits for a barrier that the first does not come to.
KERNEL(check_barrier, CheckArgs, 256) {
	if (THREAD >= THREADS / 2) SYNC();
}

// Writes n floats of dynamic shared memory.
KERNEL(check_shared, CheckArgs, 256) {
	float *s = (float *)shared_memory();
	for (i32 i = THREAD; i < a.n; i += THREADS) s[i] = a.f;
}

// Thread i reads what thread i + 1 wrote, without a barrier: to[i] = f, but for the last.
KERNEL(check_race, CheckArgs, 256) {
	float *s = (float *)shared_memory();
	s[THREAD] = a.f;
	a.to[THREAD] = s[(THREAD + 1) % THREADS];
}

// Thread i writes four floats, the first n floats after to.
KERNEL(check_aligned, CheckArgs, 256) { ((Float4 *)(a.to + a.n))[THREAD] = {a.f, a.f, a.f, a.f}; }
