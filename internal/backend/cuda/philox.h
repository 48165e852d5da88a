// Dropout's random numbers: Philox4x32-10, as package backend has it, to the bit.
#pragma once
#include "cu.h"

// What dropout's masks are made of: the same for all linears of an operation but for what Dropped has.
struct Dropout {
	const i32 *positions; // of the batch's rows
	const u32 *samples;
	const i32 *selected; // the batch's row of each row, or null: itself
	u32 key0, key1, epoch;
};

DEVICE u32 dropout_counter(const Dropout &d, u32 site) { return d.epoch << 12 ^ site; }

DEVICE i32 batch_row(const Dropout &d, i32 row) { return d.selected ? d.selected[row] : row; }

// Four words for columns 4 * group .. + 3 of a batch's row.
DEVICE void philox(u32 r[4], const Dropout &d, u32 counter, u32 group, i32 row) {
	u32 c0 = group, c1 = (u32)d.positions[row], c2 = d.samples[row], c3 = counter, k0 = d.key0, k1 = d.key1;
	UNROLL
	for (i32 i = 0; i < 10; i++) {
		u64 p = (u64)0xD2511F53u * c0, q = (u64)0xCD9E8D57u * c2;
		c0 = (u32)(q >> 32) ^ c1 ^ k0, c1 = (u32)q;
		c2 = (u32)(p >> 32) ^ c3 ^ k1, c3 = (u32)p;
		k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
	}
	r[0] = c0, r[1] = c1, r[2] = c2, r[3] = c3;
}
