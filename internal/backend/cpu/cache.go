package cpu

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
)

// cache keeps a row [KVHeads*HeadDim rotated keys | values] for each position of a slot.
type cache struct {
	cols  int
	slots []slot
}

type slot struct {
	v []float32 // grows by doubling
	n int       // positions held
}

// NewCache makes a cache without positions.
func (be *Backend) NewCache(a *backend.Attention) backend.Cache {
	return &cache{cols: 2 * a.KVHeads * a.HeadDim}
}

// minSlot is the number of positions a slot has room for at first.
const minSlot = 64

// at returns slot i with room for n positions; those it holds stay.
func (c *cache) at(i, n int) *slot {
	if i < 0 {
		panic(fmt.Sprintf("cpu: cache slot %d", i))
	}
	for len(c.slots) <= i {
		c.slots = append(c.slots, slot{})
	}
	s := &c.slots[i]
	if want := n * c.cols; want > len(s.v) {
		grown := floats(max(want, 2*len(s.v), minSlot*c.cols))
		copy(grown, s.v[:s.n*c.cols])
		s.v = grown
	}
	return s
}

// Reserve gives slot i room for n positions, and for no more where it has none yet.
func (c *cache) Reserve(i, n int) {
	if s := c.at(i, 0); len(s.v) < n*c.cols {
		grown := floats(n * c.cols)
		copy(grown, s.v[:s.n*c.cols])
		s.v = grown
	}
}

// held returns slot i, which must hold n positions.
func (c *cache) held(i, n int) *slot {
	s := c.at(i, 0)
	if n < 0 || n > s.n {
		panic(fmt.Sprintf("cpu: %d positions of cache slot %d wanted, it holds %d", n, i, s.n))
	}
	return s
}

// Truncate forgets all but the first n positions of a slot.
func (c *cache) Truncate(i, n int) { c.held(i, n).n = n }

// Copy makes dst hold the first n positions of src.
func (c *cache) Copy(dst, src, n int) {
	c.at(dst, n)
	from, to := c.held(src, n), c.at(dst, n)
	if dst != src {
		copy(to.v, from.v[:n*c.cols])
	}
	to.n = n
}

// Bytes is the memory held.
func (c *cache) Bytes() (n int64) {
	for i := range c.slots {
		n += 4 * int64(len(c.slots[i].v))
	}
	return n
}
