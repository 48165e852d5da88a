package cuda

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// cache keeps a row [KVHeads*HeadDim rotated keys | values] for each position of a slot, bf16 or f32 as activations are.
type cache struct {
	be    *Backend
	ld    int // elements from a row to the next
	slots []slot

	table   memory // the slots' addresses, on the card
	changed bool   // since the table was copied there
	at      []uint64
}

type slot struct {
	mem memory // grows by doubling
	n   int    // positions held
}

// NewCache makes a cache without positions.
func (be *Backend) NewCache(a *backend.Attention) backend.Cache {
	return &cache{be: be, ld: leading(2 * a.KVHeads * a.HeadDim)}
}

// minSlot is the number of positions a slot has room for at first.
const minSlot = 64

// rowBytes is what a position takes.
func (c *cache) rowBytes() int64 { return int64(c.ld) * elementBytes(c.be.half) }

// room returns slot i with room for n positions; those it holds stay.
func (c *cache) room(i, n int) *slot {
	if i < 0 {
		panic(fmt.Sprintf("cuda: cache slot %d", i))
	}
	for len(c.slots) <= i {
		c.slots = append(c.slots, slot{})
	}
	s := &c.slots[i]
	want := int64(n) * c.rowBytes()
	if want <= s.mem.bytes {
		return s
	}
	var grown memory
	c.be.grow(&grown, max(want, 2*s.mem.bytes, minSlot*c.rowBytes()))
	if s.n > 0 {
		check(c.be.ctx.Copy(grown.at, s.mem.at, int64(s.n)*c.rowBytes(), c.be.stream))
	}
	c.be.release(&s.mem)
	s.mem, c.changed = grown, true
	return s
}

// held returns slot i, which must hold n positions.
func (c *cache) held(i, n int) *slot {
	s := c.room(i, 0)
	if n < 0 || n > s.n {
		panic(fmt.Sprintf("cuda: %d positions of cache slot %d wanted, it holds %d", n, i, s.n))
	}
	return s
}

// Truncate forgets all but the first n positions of a slot.
func (c *cache) Truncate(i, n int) { c.held(i, n).n = n }

// Copy makes dst hold the first n positions of src.
func (c *cache) Copy(dst, src, n int) {
	defer c.be.enter()()
	c.held(src, n)
	c.room(dst, n)
	from, to := &c.slots[src], &c.slots[dst]
	if dst != src && n > 0 {
		check(c.be.ctx.Copy(to.mem.at, from.mem.at, int64(n)*c.rowBytes(), c.be.stream))
	}
	to.n = n
}

// Bytes is the memory held on the card.
func (c *cache) Bytes() int64 {
	n := c.table.bytes
	for i := range c.slots {
		n += c.slots[i].mem.bytes
	}
	return n
}

// extend makes room for the rows of the batch's segments, which are held from now on.
func (c *cache) extend(segments []backend.Segment) {
	for i := range segments {
		s := &segments[i]
		if s.Past > 0 {
			c.held(int(s.Slot), int(s.Past))
		}
		if s.Slot >= 0 && s.Len > 0 {
			n := int(s.Past + s.Len)
			c.room(int(s.Slot), n).n = n
		}
	}
}

// addresses returns the table of the slots' memory, 0 where there are none.
func (c *cache) addresses() driver.Ptr {
	if c.changed {
		c.at = c.at[:0]
		for i := range c.slots {
			c.at = append(c.at, uint64(c.slots[i].mem.at))
		}
		if len(c.at) > 0 {
			c.be.grow(&c.table, int64(8*max(len(c.at), 32)))
			c.be.upload(c.table.at, bytesOf(c.at))
		}
		c.changed = false
	}
	return c.table.at
}
