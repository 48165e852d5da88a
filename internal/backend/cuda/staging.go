package cuda

import (
	"unsafe"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// staging is memory of the host that the card copies from and to by itself, in two halves that take turns: while the
// card copies one, the other is filled.
type staging struct {
	halves [2][]byte
	done   [2]driver.Event // after the copy of each
	turn   int
}

const stagingBytes = 8 << 20 // of a half

// nextHalf returns the next half when the card is done with it.
func (be *Backend) nextHalf() []byte {
	s := &be.staging
	s.turn ^= 1
	var err error
	if s.halves[s.turn] == nil {
		s.halves[s.turn], err = be.ctx.AllocHost(stagingBytes)
		check(err)
		s.done[s.turn], err = be.ctx.NewEvent(false)
		check(err)
	} else {
		check(be.ctx.WaitHost(s.done[s.turn]))
	}
	return s.halves[s.turn]
}

// upload copies src to the card, in the order of the stream. src may change when it returns.
func (be *Backend) upload(dst driver.Ptr, src []byte) {
	for len(src) > 0 {
		h := be.nextHalf()
		n := copy(h, src)
		check(be.ctx.CopyToDevice(dst, h[:n], be.stream))
		check(be.ctx.Record(be.staging.done[be.staging.turn], be.stream))
		dst, src = dst+driver.Ptr(n), src[n:]
	}
}

// fetch copies from the card to dst and waits for it.
func (be *Backend) fetch(dst []byte, src driver.Ptr) {
	for len(dst) > 0 {
		h := be.nextHalf()
		n := min(len(dst), len(h))
		check(be.ctx.CopyToHost(h[:n], src, be.stream))
		check(be.ctx.Record(be.staging.done[be.staging.turn], be.stream))
		be.wait()
		copy(dst, h[:n])
		dst, src = dst[n:], src+driver.Ptr(n)
	}
}

func (be *Backend) closeStaging() (errs []error) {
	for i, h := range be.staging.halves {
		if h != nil {
			errs = append(errs, be.ctx.FreeHost(h), be.ctx.CloseEvent(be.staging.done[i]))
		}
	}
	return errs
}

// bytesOf is the memory of v.
func bytesOf[T float32 | float64 | int32 | uint32 | uint64 | tensor | piece](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}
