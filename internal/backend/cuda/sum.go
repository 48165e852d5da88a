package cuda

import (
	"runtime"
	"sync"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// sums are numbers that the card adds up and the host asks for: float64, in one block, so that one copy and one wait
// bring all of them.
type sums struct {
	mem   memory
	host  []byte // of the host, which the card copies to; there are as many slots as it has room for
	known bool   // host has what the card has
	next  int    // the first slot that has never been used

	sync.Mutex       // of free, which the garbage collector's goroutine adds to
	free       []int // slots of sums that nobody holds any more
}

const (
	normSlot  = 0 // of SumSquares
	firstSlot = 1
	fewSlots  = 64
)

// sum is a slot.
type sum struct {
	be   *Backend
	slot int
}

// NewSum makes an accumulator, 0. Its slot is used again when nobody holds it any more.
func (be *Backend) NewSum() backend.Sum {
	defer be.enter()()
	s := &sum{be, be.takeSlot()}
	runtime.AddCleanup(s, be.sums.giveBack, s.slot)
	be.clearSlot(s.slot)
	return s
}

func (s *sums) giveBack(slot int) {
	s.Lock()
	defer s.Unlock()
	s.free = append(s.free, slot)
}

func (be *Backend) takeSlot() int {
	be.needSlots(firstSlot)
	s := &be.sums
	s.Lock()
	defer s.Unlock()
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot
	}
	slot := max(s.next, firstSlot)
	be.needSlots(slot + 1)
	s.next = slot + 1
	return slot
}

// needSlots makes room for n slots and keeps what they have.
func (be *Backend) needSlots(n int) {
	s := &be.sums
	if 8*n <= len(s.host) {
		return
	}
	room := max(fewSlots, 2*len(s.host)/8)
	host, err := be.ctx.AllocHost(8 * room)
	check(err)
	old, before := s.mem, s.host
	s.mem, s.host, s.known = memory{}, host, false
	be.grow(&s.mem, int64(8*room))
	be.zero(s.mem.at, s.mem.bytes)
	if old.bytes > 0 {
		check(be.ctx.Copy(s.mem.at, old.at, int64(len(before)), be.stream))
		be.release(&old)
		check(be.ctx.FreeHost(before))
	}
}

func (be *Backend) slot(i int) driver.Ptr {
	be.needSlots(i + 1)
	return be.sums.mem.at + driver.Ptr(8*i)
}

func (be *Backend) clearSlot(i int) {
	be.zero(be.slot(i), 8)
	*be.hostSlot(i) = 0
}

func (be *Backend) hostSlot(i int) *float64 { return (*float64)(unsafe.Pointer(&be.sums.host[8*i])) }

// readSlot returns what the card has in a slot; it waits for the card only if it has added to one since the last time.
func (be *Backend) readSlot(i int) float64 {
	s := &be.sums
	if !s.known {
		check(be.ctx.CopyToHost(s.host, s.mem.at, be.stream))
		be.wait()
		s.known = true
	}
	return *be.hostSlot(i)
}

func (be *Backend) closeSums() (errs []error) {
	if be.sums.host != nil {
		errs = append(errs, be.ctx.FreeHost(be.sums.host))
	}
	return errs
}

// Read returns the sum. It waits for the card if that has added to any sum since the last time.
func (s *sum) Read() float64 {
	defer s.be.enter()()
	return s.be.readSlot(s.slot)
}

// Zero clears the sum.
func (s *sum) Zero() {
	defer s.be.enter()()
	s.be.clearSlot(s.slot)
}
