package gemm

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
	"unsafe"
)

const (
	ceilingSteps  = 128 // whose tile and panel fit the first-level cache together
	ceilingRounds = 64  // of products of tiles in a call, which takes some 10 us
)

// alone returns a call of the tile kernel on operands of its own, and the operations of a call: 2 for each
// multiplication.
func (ker *kernels) alone(f format) (call func(), flop float64) {
	if f == tilesBF16 {
		p := anyLanes(32 * tileBytes / 4)
		return func() { ker.tiles.ceiling(p, ceilingRounds) }, ceilingRounds * 32 * 2 * tileRows * tileRows * tilePlaces
	}
	t := &tileProduct{rows: ker.rows, cols: ker.cols, steps: ceilingSteps, alpha: 1, ldc: ker.cols}
	t.a, t.b = anyLanes(ceilingSteps*ker.rows), anyLanes(ceilingSteps*ker.cols)
	t.nextTile, t.nextRows = uintptr(t.a), uintptr(t.a)
	t.c = unsafe.Pointer(&grow(nil, ker.rows*ker.cols)[0])
	return func() { ker.multiply(t, f) }, 2 * float64(ker.rows*ker.cols*ceilingSteps*f.places())
}

// anyLanes returns n float32 that are pairs of bfloat16, too. They are random: some CPUs multiply zeros faster.
func anyLanes(n int) unsafe.Pointer {
	lanes := grow(nil, n)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range lanes {
		lanes[i] = 0x3f003f00 | rng.Uint32()&0x807f807f // ±0.5...1
	}
	return unsafe.Pointer(&lanes[0])
}

// Ceiling is what products in c could reach on all workers together, in FLOP/s: the tile kernel alone, on operands in
// the first-level cache, on as many goroutines at the same time; the best of some rounds of that length. No packing and
// no memory is in it.
func (e *Engine) Ceiling(c Compute, round time.Duration) (best float64) {
	for range ceilingRepeats {
		best = max(best, parallelSum(e.pool.Workers(), func() float64 { return e.ker.rate(e.ker.format(c), round) }))
	}
	return best
}

const ceilingRepeats = 5

// rate runs the tile kernel for about that long, and returns its FLOP/s.
func (ker *kernels) rate(f format, long time.Duration) float64 {
	call, flop := ker.alone(f)
	call()
	n, began := 0, time.Now()
	for took := time.Duration(0); ; took = time.Since(began) {
		if took >= long {
			return float64(n) * flop / took.Seconds()
		}
		call()
		n++
	}
}

// parallelSum runs f on n goroutines and returns the sum of what they return.
func parallelSum(n int, f func() float64) (sum float64) {
	results := make(chan float64)
	for range n {
		go func() { results <- f() }()
	}
	for range n {
		sum += <-results
	}
	return sum
}

// Reading is how fast all workers together read data, which should be larger than any cache, in bytes a second: the best
// of some passes.
func (e *Engine) Reading(data []byte) (best float64) {
	t := e.reading(data)
	for range ceilingRepeats {
		began := time.Now()
		e.pool.Run(len(data)/readBytes, t)
		best = max(best, float64(len(data)/readBytes*readBytes)/time.Since(began).Seconds())
	}
	return best
}

const readBytes = 1 << 20

// readTask reads memory.
type readTask struct {
	data []byte
	sink []uint64 // of each worker, a cache line apart
}

func (e *Engine) reading(data []byte) *readTask {
	return &readTask{data, make([]uint64, 8*e.pool.Workers())}
}

func (t *readTask) Piece(w, i int) {
	var a, b, c, d uint64
	for p := t.data[i*readBytes:][:readBytes]; len(p) >= 64; p = p[64:] { // a cache line
		a += binary.NativeEndian.Uint64(p)
		b += binary.NativeEndian.Uint64(p[16:])
		c += binary.NativeEndian.Uint64(p[32:])
		d += binary.NativeEndian.Uint64(p[48:])
	}
	t.sink[8*w] += a + b + c + d
}
