package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

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

// fastest is the milliseconds of the fastest of a few runs of f on the card, after one that does not count.
func (be *Backend) fastest(f func()) (ms float64) {
	from, err := be.ctx.NewEvent(true)
	check(err)
	to, err := be.ctx.NewEvent(true)
	check(err)
	defer func() { check(errors.Join(be.ctx.CloseEvent(from), be.ctx.CloseEvent(to))) }()
	f()
	for i := range ceilingTimes {
		check(be.ctx.Record(from, be.stream))
		f()
		check(be.ctx.Record(to, be.stream))
		check(be.ctx.WaitHost(to))
		took, err := be.ctx.Elapsed(from, to)
		check(err)
		if v := max(float64(took), 1e-3); i == 0 || v < ms {
			ms = v
		}
	}
	return ms
}
