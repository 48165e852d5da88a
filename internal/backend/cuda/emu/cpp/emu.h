// Runs kernels on the CPU, one block after another, each thread a fiber that runs until a barrier.
//
// What it finds: addresses beyond shared memory, or not aligned to what is read or written there, barriers that not all threads reach, shared memory read before it is
// written (it begins as NaN), asynchronous copies that nobody waited for (they happen at the wait) or that overwrite what is
// still read (in order 1 they happen at once), and, by running the threads between barriers in other orders (order()),
// threads that rely on an order no barrier gives.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define DEVICE static inline
#define UNROLL
#define KERNEL(name, Args, threads)                                                                          \
	static void name##_body(const Args &a);                                                                  \
	static emu::Kernel name##_kernel(#name, sizeof(Args), threads, [](const void *p) { name##_body(*(const Args *)p); }); \
	static void name##_body(const Args &a)
#define KERNEL_BLOCKS(name, Args, threads, blocks) KERNEL(name, Args, threads)
#define SHARED(type, name, n) static type name[n]

namespace emu {

// A kernel, in a list of all.
struct Kernel {
	const char *name;
	size_t size; // of its arguments
	int threads; // at most
	void (*run)(const void *args);
	Kernel *next;
	Kernel(const char *name, size_t size, int threads, void (*run)(const void *));
};
const Kernel *find(const char *name);

// Where a kernel's arguments have pointers. Package emu writes one for each kernel beside its source.
struct Pointers {
	const char *kernel;
	std::vector<int> offsets;
	Pointers *next;
	Pointers(const char *kernel, std::vector<int> offsets);
};
const std::vector<int> &pointers(const Kernel *k);

enum Wait { Running, Block, Warp, Done };

struct State {
	int thread, threads;       // which of a block runs, of how many
	int block[3], blocks[3];   // of the grid
	char *shared;              // dynamic shared memory, the end of which is the end of what may be read
	unsigned slot[1024][8];    // what lanes of a warp show each other
};
extern State now;

void yield(Wait w);
void copy_later(void *to, const void *from, bool valid);
void commit();
void wait_copies(int groups);

// Runs a grid. It fails with a message for a kernel whose threads wait for each other for ever, or touch memory that is
// not there.
std::string launch(const Kernel *k, const unsigned grid[3], unsigned threads, size_t shared, const void *args);

// Says what lies at an address.
extern std::string (*explain)(u64 address);

// How threads between barriers take turns: 0 ascending, all warps as far as each other; 1 descending, each warp as far as
// barriers let it; else so too, shuffled by that seed.
void order(unsigned long long o);

} // namespace emu

#define THREAD (emu::now.thread)
#define THREADS (emu::now.threads)
#define BLOCK_X (emu::now.block[0])
#define BLOCK_Y (emu::now.block[1])
#define BLOCK_Z (emu::now.block[2])
#define BLOCKS_X (emu::now.blocks[0])
#define BLOCKS_Y (emu::now.blocks[1])
#define BLOCKS_Z (emu::now.blocks[2])
#define SYNC() emu::yield(emu::Block)
#define SYNC_WARP() emu::yield(emu::Warp)

DEVICE i32 opaque(i32 v) { return v; }
DEVICE char *shared_memory() { return emu::now.shared; }

DEVICE u32 shuffle(u32 v, i32 lane) {
	emu::now.slot[THREAD][0] = v;
	SYNC_WARP();
	u32 r = emu::now.slot[(THREAD & ~31) + (lane & 31)][0];
	SYNC_WARP();
	return r;
}
DEVICE u32 shuffle_xor(u32 v, i32 mask) { return shuffle(v, (THREAD & 31) ^ mask); }
DEVICE float as_float(u32 v) {
	float f;
	memcpy(&f, &v, 4);
	return f;
}
DEVICE u32 as_u32(float v) {
	u32 u;
	memcpy(&u, &v, 4);
	return u;
}

DEVICE float sqrt_rn(float x) { return std::sqrt(x); }
DEVICE float div_rn(float a, float b) { return a / b; }
DEVICE double sqrt_rn(double x) { return std::sqrt(x); }
DEVICE double div_rn(double a, double b) { return a / b; }
DEVICE float exp2_approx(float x) { return std::exp2(x); }
DEVICE float log2_approx(float x) { return std::log2(x); }
using std::fma;

DEVICE float half_to_float(u16 h) {
	int exponent = h >> 10 & 31, fraction = h & 1023;
	float v = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? std::ldexp(1024.f + fraction, exponent - 25) : std::ldexp((float)fraction, -24);
	return h & 0x8000 ? -v : v;
}

DEVICE u32 round_bf16(float v) {
	u32 u = as_u32(v);
	if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff; // as cvt.rn gives for NaN
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
DEVICE u32 pack_bf16(float low, float high) { return round_bf16(high) << 16 | round_bf16(low); }

// Element (row, column) of a and b as PTX's tables of mma.m16n8k16 place them.
DEVICE void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
	int warp = THREAD & ~31, lane = THREAD & 31;
	for (int i = 0; i < 4; i++) emu::now.slot[THREAD][i] = a[i];
	emu::now.slot[THREAD][4] = b[0];
	emu::now.slot[THREAD][5] = b[1];
	SYNC_WARP();
	auto half = [](u32 w, int high) { return as_float(high ? w & 0xffff0000u : w << 16); };
	auto at_a = [&](int r, int k) { return half(emu::now.slot[warp + (r & 7) * 4 + (k & 7) / 2][(r >> 3) + 2 * (k >> 3)], k & 1); };
	auto at_b = [&](int k, int n) { return half(emu::now.slot[warp + n * 4 + (k & 7) / 2][4 + (k >> 3)], k & 1); };
	for (int i = 0; i < 4; i++) {
		int r = (lane >> 2) + 8 * (i >> 1), n = (lane & 3) * 2 + (i & 1);
		float s = 0;
		for (int k = 0; k < 16; k++) s += at_a(r, k) * at_b(k, n);
		d[i] += s;
	}
	SYNC_WARP();
}

DEVICE void load_matrix(u32 r[4], const void *row, bool trans) {
	u64 address = (u64)row;
	if (address % 16) {
		fprintf(stderr, "emu: a row of ldmatrix begins at %p, not a multiple of 16\n", row);
		abort();
	}
	emu::now.slot[THREAD][0] = (u32)address;
	emu::now.slot[THREAD][1] = (u32)(address >> 32);
	SYNC_WARP();
	int warp = THREAD & ~31, lane = THREAD & 31;
	auto at = [&](int matrix, int i, int j) {
		const u32 *s = emu::now.slot[warp + 8 * matrix + i];
		return (u32)((const u16 *)((u64)s[1] << 32 | s[0]))[j];
	};
	for (int m = 0; m < 4; m++) {
		int i = lane / 4, j = 2 * (lane % 4);
		r[m] = trans ? at(m, j, i) | at(m, j + 1, i) << 16 : at(m, i, j) | at(m, i, j + 1) << 16;
	}
	SYNC_WARP();
}
DEVICE void load_matrix_x4(u32 r[4], const void *row) { load_matrix(r, row, false); }
DEVICE void load_matrix_x4_trans(u32 r[4], const void *row) { load_matrix(r, row, true); }

DEVICE void copy_async_16(void *shared, const void *global, bool valid) { emu::copy_later(shared, global, valid); }
DEVICE void copy_async_commit() { emu::commit(); }
template <int n> static inline void copy_async_wait() { emu::wait_copies(n); }
