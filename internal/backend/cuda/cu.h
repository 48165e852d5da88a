// What the kernels are written with, for two targets: clang's CUDA front end, which makes PTX of them without a CUDA
// toolkit, and a C++ compiler, which makes functions of them that emu/cpp/emu.h runs on the CPU, a fiber a thread.
//
// A kernel takes one struct by value, which Go mirrors field by field:
//
//	struct ScaleArgs { float *x; i32 n; float f; };
//	KERNEL(scale, ScaleArgs, 256) { i32 i = BLOCK_X * THREADS + THREAD; if (i < a.n) a.x[i] *= a.f; }
//
// The last number is the most threads a block has; KERNEL_BLOCKS names the blocks too that a multiprocessor shall run at
// once, which bounds their registers. Blocks are one-dimensional, grids have up to three dimensions.
// Dynamic shared memory is shared_memory(), as many bytes as the launch asks for. Every thread of a warp must come to a
// warp's operations (shuffles, mma, ldmatrix, SYNC_WARP), every thread of a block to SYNC.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

// A bf16 number, by its bits.
struct bf16 {
	u16 bits;
};

// 16 bytes that are loaded and stored at once; they lie at a multiple of 16.
struct alignas(16) Float4 {
	float x, y, z, w;
};
struct alignas(16) Word4 {
	u32 x, y, z, w;
};

#ifdef CU_FIELDS // what emu/fields.go reads

#define KERNEL(name, Args, threads) CU_KERNEL name Args threads
#define KERNEL_BLOCKS(name, Args, threads, blocks) KERNEL(name, Args, threads)

#else
#ifndef CU_EMU

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define DEVICE __device__ inline __attribute__((always_inline))
#define KERNEL(name, Args, threads) \
	extern "C" __global__ __attribute__((launch_bounds(threads))) void name(const Args a)
#define KERNEL_BLOCKS(name, Args, threads, blocks) \
	extern "C" __global__ __attribute__((launch_bounds(threads, blocks))) void name(const Args a)
#define THREAD ((i32)__nvvm_read_ptx_sreg_tid_x())
#define THREADS ((i32)__nvvm_read_ptx_sreg_ntid_x())
#define BLOCK_X ((i32)__nvvm_read_ptx_sreg_ctaid_x())
#define BLOCK_Y ((i32)__nvvm_read_ptx_sreg_ctaid_y())
#define BLOCK_Z ((i32)__nvvm_read_ptx_sreg_ctaid_z())
#define BLOCKS_X ((i32)__nvvm_read_ptx_sreg_nctaid_x())
#define BLOCKS_Y ((i32)__nvvm_read_ptx_sreg_nctaid_y())
#define BLOCKS_Z ((i32)__nvvm_read_ptx_sreg_nctaid_z())
#define SYNC() __syncthreads()
#define SYNC_WARP() __nvvm_bar_warp_sync(0xffffffffu)
#define UNROLL _Pragma("unroll")
// SHARED declares a static array of a block: SHARED(float, part, 32);
#define SHARED(type, name, n) static __shared__ type name[n]

extern __shared__ __attribute__((aligned(128))) char dynamic_shared[];
DEVICE char *shared_memory() { return dynamic_shared; }

DEVICE u32 shuffle_xor(u32 v, i32 mask) { return (u32)__nvvm_shfl_sync_bfly_i32(0xffffffffu, (i32)v, mask, 31); }
DEVICE u32 shuffle(u32 v, i32 lane) { return (u32)__nvvm_shfl_sync_idx_i32(0xffffffffu, (i32)v, lane, 31); }
DEVICE float as_float(u32 v) { return __builtin_bit_cast(float, v); }
DEVICE u32 as_u32(float v) { return __builtin_bit_cast(u32, v); }

// v, by a way that the compiler does not see through: what is computed of it is not computed before a loop and kept.
DEVICE i32 opaque(i32 v) {
	asm volatile("" : "+r"(v));
	return v;
}

// Correctly rounded, as on the CPU.
DEVICE float fma(float a, float b, float c) { return __nvvm_fma_rn_f(a, b, c); }
DEVICE float sqrt_rn(float x) { return __nvvm_sqrt_rn_f(x); }
DEVICE float div_rn(float a, float b) { return __nvvm_div_rn_f(a, b); }
DEVICE double fma(double a, double b, double c) { return __nvvm_fma_rn_d(a, b, c); }
DEVICE double sqrt_rn(double x) { return __nvvm_sqrt_rn_d(x); }
DEVICE double div_rn(double a, double b) { return __nvvm_div_rn_d(a, b); }
// 2^x and log2 x, both within 2 units in the last place where the result is normal.
DEVICE float exp2_approx(float x) { return __nvvm_ex2_approx_f(x); }
DEVICE float log2_approx(float x) { return __nvvm_lg2_approx_f(x); }

// An IEEE half, by its bits.
DEVICE float half_to_float(u16 h) {
	float f;
	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
	return f;
}

// Two floats to bf16, rounded to nearest even; low is the lower half.
DEVICE u32 pack_bf16(float low, float high) {
	u32 r;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
}

// d += a b: [16, 16] x [16, 8] -> [16, 8], operands bf16, sums f32, spread over a warp (PTX ISA, mma.m16n8k16).
DEVICE void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
	             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE u32 shared_address(const void *p) { return (u32)(u64)(__attribute__((address_space(3))) const void *)p; }

// Four 8 x 8 matrices of 16-bit elements from shared memory; lane i gives the address of row i%8 of matrix i/8.
DEVICE void load_matrix_x4(u32 r[4], const void *row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
// The same, each transposed.
DEVICE void load_matrix_x4_trans(u32 r[4], const void *row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// 16 bytes from global to shared memory, later; zeros where valid is false, and nothing is read then. Both addresses
// are multiples of 16.
DEVICE void copy_async_16(void *shared, const void *global, bool valid) {
	u32 n = valid ? 16 : 0;
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(n) : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the n latest groups are under way.
template <int n> DEVICE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory"); }

#else
#include "emu/cpp/emu.h"
#endif

DEVICE float shuffle_xor(float v, i32 mask) { return as_float(shuffle_xor(as_u32(v), mask)); }
DEVICE float shuffle(float v, i32 lane) { return as_float(shuffle(as_u32(v), lane)); }

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return as_float((u32)x.bits << 16); }
DEVICE float low_bf16(u32 pair) { return as_float(pair << 16); }
DEVICE float high_bf16(u32 pair) { return as_float(pair & 0xffff0000u); }
DEVICE void put(float &to, float v) { to = v; }
DEVICE void put(bf16 &to, float v) { to.bits = (u16)pack_bf16(v, 0.0f); }

// The sum, or the largest, of all lanes of a warp, in every lane; in the same order for each.
DEVICE float warp_sum(float v) {
	UNROLL
	for (i32 mask = 16; mask > 0; mask >>= 1) v += shuffle_xor(v, mask);
	return v;
}
DEVICE float warp_max(float v) {
	UNROLL
	for (i32 mask = 16; mask > 0; mask >>= 1) {
		float o = shuffle_xor(v, mask);
		v = o > v ? o : v;
	}
	return v;
}

// The sum over a block of whole warps, in every thread; part has a place for each warp. It synchronises, before and after.
DEVICE float block_sum(float v, float *part) {
	v = warp_sum(v);
	SYNC();
	if (THREAD % 32 == 0) part[THREAD / 32] = v;
	SYNC();
	float sum = 0;
	for (i32 i = 0; i < THREADS / 32; i++) sum += part[i];
	return sum;
}
DEVICE float block_max(float v, float *part) {
	v = warp_max(v);
	SYNC();
	if (THREAD % 32 == 0) part[THREAD / 32] = v;
	SYNC();
	float top = part[0];
	for (i32 i = 1; i < THREADS / 32; i++) top = part[i] > top ? part[i] : top;
	return top;
}

#endif // CU_FIELDS
