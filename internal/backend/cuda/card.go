package cuda

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
)

// Room is whose the card's memory is, in bytes.
type Room struct {
	Total int64
	Free  int64 // that nobody has
	Held  int64 // by this backend; what is left are other programs, and what the driver itself needs
}

// Others is what other programs and the driver hold.
func (r Room) Others() int64 { return max(0, r.Total-r.Free-r.Held) }

// Room says what of the card's memory is whose.
func (be *Backend) Room() (r Room, err error) {
	defer be.enter()()
	r.Held = be.heap.held
	r.Free, r.Total, err = be.ctx.Memory()
	if err != nil {
		return r, fmt.Errorf("cuda: %w", err)
	}
	return r, nil
}

// Weights is what those of NewWeight take on the card, and what of it is still to be copied there.
func (be *Backend) Weights() (bytes, waiting int64) {
	for _, w := range be.weights.waiting {
		waiting += aligned(w.bytes())
	}
	return be.weights.bytes + waiting, waiting
}

// Note says what is worth knowing about the arithmetic on this machine; mostly nothing.
func (be *Backend) Note() string {
	if by, missing := be.Products(); missing != nil {
		return fmt.Sprintf("products by %s, which are slower than cublasLt: %v", by, missing)
	}
	return ""
}

// ParamBytes is what a parameter takes with its gradient and what products read of it, but without moments.
func (be *Backend) ParamBytes(rows, cols int) int64 {
	n := int64(rows) * int64(leading(cols))
	bytes := 2 * aligned(4*n)
	if be.half {
		bytes += aligned(2 * n)
	}
	return bytes
}

// CacheBytes is what keys and values of a position take in a cache.
func (be *Backend) CacheBytes(a *backend.Attention) int64 {
	return 2 * int64(a.KVHeads) * int64(a.HeadDim) * elementBytes(be.half)
}

// Wait waits until the card has done all that it was given.
func (be *Backend) Wait() {
	defer be.enter()()
	be.wait()
}
