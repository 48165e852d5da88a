// Package gemm multiplies matrices on the CPU: activations by frozen weights in both directions, and small float32
// matrices by one another.
//
// All products run through one scheme (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
// ACM TOMS 34(3), 2008). The reduction is cut into blocks of blockSteps steps. Rows of the left operand are packed into
// tiles, columns of the right operand into panels, both step by step; a kernel multiplies one tile by one panel in
// registers. Panels wait in the second-level cache, a group of them for all rows, while tiles stream past them. A step is one place of the reduction in float32, and a pair of places as two bfloat16 in one dword where
// the CPU multiplies such pairs. Weights stay as they lie in the checkpoint, row-major [out, in]: panels are made on
// the fly, of 32 rows for y = x Wᵀ and of 32 columns for dx = dy W, so one copy (a mapped file) serves both directions
// and is never read beyond its end.
//
// Up to maxFewRows rows, as in decoding, there are no panels: the weight is multiplied row by row as it is read, so that
// memory alone is waited for.
//
// A weight may be quantised (package quant): panels are then made of its codes and scales, and hold what its values in
// float32 would give, to the bit. Assembly does so where rows are whole blocks, which they are in all models of the
// field; other rows are decoded ahead, as they are on CPUs without assembly.
//
// # Numbers
//
// An element of a product is a sum over blocks, in order; each block is a sum over its steps, in order, from zero, in
// float32. Where blocks begin depends on the length of the reduction and the step alone. A row of the result therefore
// has the same bits whatever other rows are in the matrix, unless they are few, and whatever the number of threads;
// avx512f, avx2 and neon agree to the bit, too, because each does one fused multiply-add a step.
//
// Up to maxFewRows rows times a weight, forward, or times a float32 matrix whose columns lie in one piece, are summed in
// another order, where the reduction is a multiple of dotPlaces long:
// in 16 lanes, see dotKernel. All of the above holds among them. Between them and more rows the bits differ, as float32
// sums of the same products do; what is multiplied is the same. The order of the panels in these products, tried with the
// transposition in registers, reads nf4 at half the speed and bf16 at 0.8 of it: columns of a row-major weight are many
// places in memory, and their transposition is most of the work.
//
// With [BF16] both operands are rounded to bfloat16, to nearest even, and products are summed in float32. On CPUs
// without VDPBF16PS, arm64's among them, and where it is slower than float32 (Intel), the rounded operands go through the float32 kernels.
// VDPBF16PS and its conversions treat denormals as zero, and so does bf16 on the avx512_bf16 path: bfloat16 has the
// exponents of float32, so only magnitudes below 1.2e-38 are concerned.
//
// # Tiles
//
// On CPUs with AMX (set amx; Linux must let the process use the tile registers) products in bf16 run on tiles, all others
// through the kernels of avx512f. Panels are those of avx512_bf16, made for all rows of a product at once in an L3-sized
// slab, from long runs of the weight; activations are packed row by row into tiles, in one layout for both directions. A
// kernel multiplies 32 rows by a panel of 32 columns, which stays in the first-level cache; the 2x2 tiles begin with zeros
// in each block of the reduction, and vector instructions add and store a finished block beside the products of the next.
//
// Sums have an order of their own there. A block of the reduction is at most 512 places, in k steps of 32. TDPBF16PS sums
// a k step's even places in order from zero, and so its odd places, one fused multiply-add each; then it adds the two, and
// that to the sum of the k steps before. Blocks are added in order, to what is to be added. Denormals are zeros, as operands and as
// results. Few rows are those of avx512_bf16. Small products of float32 run on tiles as well after [Engine.RoundGemm].
//
// # Measurements
//
// The figures behind sizes and choices come from amd64. The kernels for arm64 have run under an emulator only, which says
// nothing of their speed: what is known is the number of instructions.
//
// The sizes of amx come from a prototype on a Xeon 6 (2 cores, 48 KiB and 2 MiB of cache each, weights not in a cache, bf16
// results): 49-61 % of the ceiling of BenchmarkCeiling at 1024 and 2048 rows, both directions, and 20 % more time for
// float32 results, which it did not store beside the products. The kernels here do, read panels with a stride of 128 bytes
// instead of 64, and add float32 results; they have run in an emulator of the instructions (Bochs) alone. Not measured:
// their speed, and the size from which results go past the caches.
package gemm

//go:generate go run ./gen
