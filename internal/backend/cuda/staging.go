package cuda

import (
	"unsafe"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/parallel"
)

// staging is memory of the host that the card copies from and to by itself.
type staging struct {
	ring    ring
	weights weightStaging
}

const (
	ringBytes   = 16 << 20
	ringPieces  = 64
	weightBytes = 16 << 20 // of a half
)

// ring is used piece after piece, from the start again after the end. A piece is used again when the stream is past its
// copy: the host waits only where it is a whole ring ahead of the card.
type ring struct {
	memory []byte
	pieces [ringPieces]stagedPiece // those under way, the oldest first, begin at pieces[first%ringPieces]
	first  int
	n      int
	next   int // byte after the newest
}

type stagedPiece struct {
	from, to int
	done     driver.Event // made when it is first needed
}

// stage returns n bytes of the ring, at most half of it. What the stream does with them must be given to it before staged.
func (be *Backend) stage(n int) []byte {
	r := &be.staging.ring
	if r.memory == nil {
		var err error
		r.memory, err = be.ctx.AllocHost(ringBytes)
		check(err)
	}
	n = min(n, ringBytes/2)
	if r.next+n > ringBytes {
		r.next = 0
	}
	for r.n == ringPieces || r.taken(r.next, r.next+n) {
		check(be.ctx.WaitHost(r.pieces[r.first%ringPieces].done))
		r.first++
		r.n--
	}
	return r.memory[r.next : r.next+n]
}

// taken reports whether a piece that is under way has some of these bytes.
func (r *ring) taken(from, to int) bool {
	for i := range r.n {
		if p := &r.pieces[(r.first+i)%ringPieces]; p.from < to && from < p.to {
			return true
		}
	}
	return false
}

// staged says that the stream has what it is to do with the n bytes that stage gave.
func (be *Backend) staged(n int) {
	r := &be.staging.ring
	p := &r.pieces[(r.first+r.n)%ringPieces]
	if p.done == 0 {
		var err error
		p.done, err = be.ctx.NewEvent(false)
		check(err)
	}
	p.from, p.to = r.next, r.next+n
	check(be.ctx.Record(p.done, be.stream))
	r.n++
	r.next += (n + 63) / 64 * 64
}

// empty says that the stream is past all pieces: no event need be waited for.
func (r *ring) empty() { r.first, r.n = r.first+r.n, 0 }

// upload copies src to the card, in the order of the stream. src may change when it returns.
func (be *Backend) upload(dst driver.Ptr, src []byte) {
	for len(src) > 0 {
		h := be.stage(len(src))
		n := copy(h, src)
		check(be.ctx.CopyToDevice(dst, h, be.stream))
		be.staged(n)
		dst, src = dst+driver.Ptr(n), src[n:]
	}
}

// fetch copies from the card to dst and waits for it.
func (be *Backend) fetch(dst []byte, src driver.Ptr) {
	for len(dst) > 0 {
		h := be.stage(len(dst))
		check(be.ctx.CopyToHost(h, src, be.stream))
		be.staged(len(h))
		be.wait()
		n := copy(dst, h)
		dst, src = dst[n:], src+driver.Ptr(n)
	}
}

// weightStaging are two halves that take turns: while the card copies one, in a stream of its own, workers fill the
// other. Reading a mapped file costs a fault every few pages, about 3 GB/s a core where the system has it in memory; four
// workers keep up with PCIe, or wait for the disk together.
type weightStaging struct {
	stream driver.Stream
	halves [2][]byte
	copied [2]driver.Event // after the copy of each
	ready  driver.Event    // of the other stream, for the one that waits for it
	turn   int
	pool   *parallel.Pool
}

const (
	weightWorkers = 4
	weightPiece   = 1 << 20 // of a worker
)

// uploadWeight copies src, which may be part of a mapped file, to memory of the card that nothing has used yet. It
// returns when src has been read; what is given to the compute stream from then on sees it. An error names the file of
// bytes that are gone.
func (be *Backend) uploadWeight(dst driver.Ptr, src []byte) error {
	be.openWeightStaging()
	w := &be.staging.weights
	// The memory may have been filled, or freed and given out again, by what the compute stream has yet to do.
	check(be.ctx.Record(w.ready, be.stream))
	check(be.ctx.Wait(w.stream, w.ready))
	for len(src) > 0 {
		n := min(len(src), weightBytes)
		w.turn ^= 1
		check(be.ctx.WaitHost(w.copied[w.turn]))
		h := w.halves[w.turn][:n]
		f := filling{h, src[:n]}
		if err := mmap.Guard(func() error { w.pool.Run((n+weightPiece-1)/weightPiece, &f); return nil }); err != nil {
			return err
		}
		check(be.ctx.CopyToDevice(dst, h, w.stream))
		check(be.ctx.Record(w.copied[w.turn], w.stream))
		dst, src = dst+driver.Ptr(n), src[n:]
	}
	check(be.ctx.Record(w.ready, w.stream))
	check(be.ctx.Wait(be.stream, w.ready))
	return nil
}

// filling copies src to dst, piece by piece.
type filling struct{ dst, src []byte }

func (f *filling) Piece(_, i int) {
	from := i * weightPiece
	to := min(from+weightPiece, len(f.src))
	copy(f.dst[from:to], f.src[from:to])
}

func (be *Backend) openWeightStaging() {
	w := &be.staging.weights
	if w.pool != nil {
		return
	}
	var err error
	w.stream, err = be.ctx.NewStream()
	check(err)
	w.ready, err = be.ctx.NewEvent(false)
	check(err)
	for i := range w.halves {
		w.halves[i], err = be.ctx.AllocHost(weightBytes)
		check(err)
		w.copied[i], err = be.ctx.NewEvent(false)
		check(err)
		check(be.ctx.Record(w.copied[i], w.stream))
	}
	w.pool = parallel.New(weightWorkers)
}

func (be *Backend) closeStaging() (errs []error) {
	r, w := &be.staging.ring, &be.staging.weights
	if w.stream != 0 {
		errs = append(errs, be.ctx.Synchronize(w.stream), be.ctx.CloseStream(w.stream))
	}
	be.closeStagingWorkers()
	events := []driver.Event{w.ready, w.copied[0], w.copied[1]}
	for _, p := range r.pieces {
		events = append(events, p.done)
	}
	for _, e := range events {
		if e != 0 {
			errs = append(errs, be.ctx.CloseEvent(e))
		}
	}
	for _, h := range [][]byte{r.memory, w.halves[0], w.halves[1]} {
		if h != nil {
			errs = append(errs, be.ctx.FreeHost(h))
		}
	}
	return errs
}

func (be *Backend) closeStagingWorkers() {
	if be.staging.weights.pool != nil {
		be.staging.weights.pool.Close()
	}
}

// bytesOf is the memory of v.
func bytesOf[T float32 | float64 | int32 | uint32 | uint64 | tensor | piece](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}
