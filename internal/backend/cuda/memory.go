package cuda

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// memory is a piece of the card's memory that grows and never shrinks. What holds it need not free it: that happens when
// it is grown, when the collector finds that nobody has it any more, or when the backend is closed.
type memory struct {
	at    driver.Ptr
	bytes int64
	owner *owner
}

// owner is reachable as long as a piece of memory is.
type owner struct {
	at    driver.Ptr
	clean runtime.Cleanup
}

// heap is what is allocated on the card.
type heap struct {
	blocks map[driver.Ptr]int64
	held   int64

	mu      sync.Mutex
	dropped []driver.Ptr // that nobody has any more; the collector's goroutine adds to it
}

func (h *heap) drop(at driver.Ptr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = append(h.dropped, at)
}

// grow makes m hold n bytes; what it held is lost if it has to grow.
func (be *Backend) grow(m *memory, n int64) {
	if n <= m.bytes {
		return
	}
	be.release(m)
	be.collect()
	n = (n + 255) / 256 * 256
	at, err := be.ctx.Alloc(n)
	for pause := time.Millisecond; errors.Is(err, driver.ErrOutOfMemory) && pause < time.Second; pause *= 8 {
		// Buffers that nobody has any more may hold what is wanted.
		runtime.GC()
		time.Sleep(pause) // cleanups have goroutines of their own
		be.collect()
		at, err = be.ctx.Alloc(n)
	}
	check(err)
	if be.heap.blocks == nil {
		be.heap.blocks = map[driver.Ptr]int64{}
	}
	be.heap.blocks[at] = n
	be.heap.held += n
	o := &owner{at: at}
	o.clean = runtime.AddCleanup(o, be.heap.drop, at)
	*m = memory{at, n, o}
	if be.poison {
		check(be.ctx.Set(at, 0xff, n, be.stream))
	}
}

// release frees m when the card is past all that uses it.
func (be *Backend) release(m *memory) {
	if m.bytes == 0 {
		return
	}
	be.wait()
	m.owner.clean.Stop()
	be.free(m.at)
	*m = memory{}
}

func (be *Backend) free(at driver.Ptr) {
	check(be.ctx.Free(at))
	be.heap.held -= be.heap.blocks[at]
	delete(be.heap.blocks, at)
}

// collect frees what nobody has any more.
func (be *Backend) collect() {
	be.heap.mu.Lock()
	dropped := be.heap.dropped
	be.heap.dropped = nil
	be.heap.mu.Unlock()
	if len(dropped) == 0 {
		return
	}
	be.wait()
	for _, at := range dropped {
		be.free(at)
	}
}

// freeAll frees everything, at the end.
func (be *Backend) freeAll() (errs []error) {
	for at := range be.heap.blocks {
		errs = append(errs, be.ctx.Free(at))
	}
	clear(be.heap.blocks)
	be.heap.held = 0
	return errs
}
