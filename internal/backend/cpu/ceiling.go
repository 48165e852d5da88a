package cpu

import "time"

// Ceiling is the most that a machine could reach.
type Ceiling struct {
	Products float64 // FLOP/s of products with weights: the kernel alone, on operands in cache
	Reading  float64 // bytes/s of memory that no cache holds
}

const (
	ceilingRound = 100 * time.Millisecond
	readingBytes = 384 << 20
	pageBytes    = 4096
)

// Ceiling measures what all threads together could reach, in about a second.
func (be *Backend) Ceiling() Ceiling {
	data := make([]byte, readingBytes)
	for i := 0; i < len(data); i += pageBytes { // pages that nobody wrote to are all one
		data[i] = 1
	}
	return Ceiling{Products: be.engine.Ceiling(be.compute, ceilingRound), Reading: be.engine.Reading(data)}
}
