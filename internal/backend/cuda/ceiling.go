package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// Ceiling is the most that a card could reach.
type Ceiling struct {
	Products float64 // FLOP/s of square products, as the backend computes them
	Memory   float64 // bytes/s read and written, by copies within the card's memory
}

// Sizes of a measurement: each begins small and doubles until it takes long enough to be measured.
const (
	ceilingLeast    = 5   // milliseconds
	ceilingFirst    = 128 // rows of a product
	ceilingMost     = 8 << 10
	ceilingCopy     = 1 << 20
	ceilingMostCopy = 1 << 30
	ceilingTimes    = 5 // of which the fastest counts
)

// Ceiling measures what the card reaches, in about a second. Its memory is given back.
func (be *Backend) Ceiling() (c Ceiling, err error) {
	defer be.enter()()
	defer func() {
		if r := recover(); r != nil {
			failed, ok := r.(error)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("measuring the card: %w", failed)
		}
	}()
	var mem memory
	defer be.release(&mem)
	for n := ceilingCopy; ; n *= 2 {
		be.grow(&mem, int64(2*n))
		be.zero(mem.at, mem.bytes)
		ms := be.fastest(func() { check(be.ctx.Copy(mem.at, mem.at+driver.Ptr(n), int64(n), be.stream)) })
		c.Memory = 2 * float64(n) / ms * 1e3
		if ms >= ceilingLeast || n == ceilingMostCopy {
			break
		}
	}
	for n := ceilingFirst; ; n *= 2 {
		size := int64(n) * int64(n) * elementBytes(be.half)
		be.grow(&mem, 3*size)
		be.noise(&mem, 2*size)
		a, b := operand{at: mem.at, ld: n, half: be.half}, operand{at: mem.at + driver.Ptr(size), ld: n, half: be.half, trans: true}
		d := result{mem.at + driver.Ptr(2*size), n, be.half}
		ms := be.fastest(func() { be.product(n, n, n, 1, a, b, 0, d, d) }) // [n, n] x [n, n] -> [n, n]
		c.Products = 2 * float64(n) * float64(n) * float64(n) / ms * 1e3
		if ms >= ceilingLeast || n == ceilingMost {
			return c, nil
		}
	}
}

// noise fills n bytes of mem with random numbers: on zeros a card computes at a higher clock.
func (be *Backend) noise(mem *memory, n int64) {
	rng := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, min(n, ceilingCopy))
	for i := 0; i+4 <= len(block); i += 4 {
		v := math.Float32bits(float32(rng.NormFloat64()))
		if be.half { // two of them
			v = v&0xffff0000 | math.Float32bits(float32(rng.NormFloat64()))>>16
		}
		binary.NativeEndian.PutUint32(block[i:], v)
	}
	be.upload(mem.at, block)
	for at := int64(len(block)); at < n; {
		more := min(at, n-at)
		check(be.ctx.Copy(mem.at+driver.Ptr(at), mem.at, more, be.stream))
		at += more
	}
}

// fastest is the milliseconds that the fastest of a few runs of f takes, after one that does not count. Beside what is
// measured, what the host needs to begin it is nothing.
func (be *Backend) fastest(f func()) (ms float64) {
	for i := range ceilingTimes + 1 {
		be.wait()
		began := time.Now()
		f()
		be.wait()
		if took := float64(time.Since(began)) / 1e6; i == 1 || i > 1 && took < ms {
			ms = took
		}
	}
	return max(ms, 1e-3)
}
