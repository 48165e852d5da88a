package cuda

import (
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// keeper holds copies of parameters in the host's memory, so that what was learnt is there when the card is lost. There
// are two that take turns: while one is being written, the other is whole.
type keeper struct {
	stream driver.Stream
	ready  driver.Event // the values are what is to be copied
	copies [2]keptCopy
	turn   int
	taken  int  // how many were begun
	busy   bool // the last one is not known to be whole
}

// keptCopy is one copy of all parameters.
type keptCopy struct {
	host   []byte // page-locked, so that the card copies by itself
	done   driver.Event
	params []keptParam
	taken  int // its number, from 1; 0 while it is not whole
}

type keptParam struct{ at, rows, cols, ld int }

// Keep begins to copy the values of ps to the host, behind what the card has to do, and does not wait for it. Overwrite
// must come before they change.
func (be *Backend) Keep(ps []backend.Param) {
	defer be.enter()()
	be.overwrite()
	k := &be.keeper
	k.turn ^= 1
	c := &k.copies[k.turn]
	c.taken, c.params = 0, c.params[:0]
	total := 0
	for _, p := range ps {
		q := p.(*param)
		c.params = append(c.params, keptParam{total, q.rows, q.cols, q.ld})
		total += int(q.bytes())
	}
	if total == 0 {
		return
	}
	be.keepRoom(c, total)
	check(be.ctx.Record(k.ready, be.stream))
	check(be.ctx.Wait(k.stream, k.ready))
	for i, p := range ps {
		q := p.(*param)
		if n := int(q.bytes()); n > 0 {
			check(be.ctx.CopyToHost(c.host[c.params[i].at:][:n], q.value.at, k.stream))
		}
	}
	check(be.ctx.Record(c.done, k.stream))
	k.taken++
	k.busy = true
}

// keepRoom makes the stream, the events and the memory of a copy.
func (be *Backend) keepRoom(c *keptCopy, bytes int) {
	k := &be.keeper
	var err error
	if k.stream == 0 {
		k.stream, err = be.ctx.NewStream()
		check(err)
		k.ready, err = be.ctx.NewEvent(false)
		check(err)
	}
	if c.done == 0 {
		c.done, err = be.ctx.NewEvent(false)
		check(err)
	}
	if len(c.host) >= bytes {
		return
	}
	if c.host != nil {
		check(be.ctx.FreeHost(c.host))
		c.host = nil
	}
	c.host, err = be.ctx.AllocHost(bytes)
	check(err)
}

// Overwrite lets the values change that Keep copies: it waits for the copy, which mostly is whole by then.
func (be *Backend) Overwrite() {
	defer be.enter()()
	be.overwrite()
}

func (be *Backend) overwrite() {
	k := &be.keeper
	if !k.busy {
		return
	}
	check(be.ctx.WaitHost(k.copies[k.turn].done))
	be.whole()
}

// Harvest notes whether the last copy is whole by now. It does not wait.
func (be *Backend) Harvest() {
	if k := &be.keeper; k.busy {
		defer be.enter()()
		passed, err := be.ctx.Passed(k.copies[k.turn].done)
		check(err)
		if passed {
			be.whole()
		}
	}
}

func (be *Backend) whole() {
	k := &be.keeper
	k.busy, k.copies[k.turn].taken = false, k.taken
}

// Kept copies the values of the i-th of the parameters, as the last copy has them that is whole, to dst, from element
// from on; taken tells how many calls of Keep there had been then, 0: there is none. The card is not asked.
func (be *Backend) Kept(i int, dst []float32, from int) (taken int) {
	c := &be.keeper.copies[0]
	if other := &be.keeper.copies[1]; other.taken > c.taken {
		c = other
	}
	if c.taken == 0 || i >= len(c.params) {
		return 0
	}
	p := c.params[i]
	if len(dst) == 0 {
		return c.taken
	}
	mustEqual("values up to the end of what is read of a kept parameter", max(from+len(dst), p.rows*p.cols), p.rows*p.cols)
	values := unsafe.Slice((*float32)(unsafe.Pointer(&c.host[p.at])), p.rows*p.ld)
	for k := range dst {
		at := from + k
		dst[k] = values[at/p.cols*p.ld+at%p.cols]
	}
	return c.taken
}

func (be *Backend) closeKeeper() (errs []error) {
	k := &be.keeper
	for i := range k.copies {
		c := &k.copies[i]
		if c.done != 0 {
			errs = append(errs, be.ctx.WaitHost(c.done), be.ctx.CloseEvent(c.done))
		}
		if c.host != nil {
			errs = append(errs, be.ctx.FreeHost(c.host))
		}
	}
	if k.stream != 0 {
		errs = append(errs, be.ctx.CloseEvent(k.ready), be.ctx.CloseStream(k.stream))
	}
	*k = keeper{}
	return errs
}
