// Package vec does the arithmetic of rows that is not a matrix product: exponentials, sums, norms, activations,
// rotations and the optimiser's step, on slices of float32.
//
// The kernels are assembly for AVX-512, AVX2 and NEON, written by a generator, and plain Go elsewhere. They read and write
// nothing beyond the slices they are given.
//
// # Numbers
//
// An element's result depends on the elements at its place alone. Sums are float64, in lanes that are added in an order
// that depends on the slices' length and the instructions alone. Max, SoftmaxBackward, Scale, Add, Mul, MulAdd, Norm,
// Rotate and AdamW have the same bits with all instructions; the others do not.
//
// The vector exponential is within 0.88 ulp of the true one, below the normal range too (denormals are results, not
// flushed); 0 gives exactly 1, -Inf gives 0, overflow +Inf, and a NaN stays one. In plain Go it is within 0.52 ulp.
package vec

//go:generate go run ./gen
