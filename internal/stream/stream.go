// Package stream brings the weights of a model that does not fit into memory from the disk before they are used, and
// lets go of those that are used last.
//
// The weights are parts, such as a decoder's layers, of byte ranges in mapped files. Begin says in what order a pass
// uses them, Use that one is used from now until the next Use, and waits until it is in memory; meanwhile a goroutine
// reads ahead, as far as the budget allows. On Linux what is dropped leaves the system's cache of files as well, and
// a part in memory is mapped, so that touching it takes no page fault. Other systems are told what will be needed and
// decide themselves what to keep.
package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/biolora/biolora/internal/mmap"
)

// Part is the bytes that are read and dropped together. What is no part of a mapped file is there anyway.
type Part struct {
	Ranges [][]byte
	Pinned bool // never dropped once it is read
}

// Size is the bytes of the part.
func (p *Part) Size() (n int64) {
	for _, r := range p.Ranges {
		n += int64(len(r))
	}
	return n
}

// Stats is what a Stream has done so far.
type Stats struct {
	Read    int64         // bytes that were brought into memory, some of them perhaps by others before
	Reading time.Duration // while it read
	Waiting time.Duration // while Use waited
}

// Stream keeps parts in memory. Begin, Use and Close are one goroutine's, Stats anyone's.
type Stream struct {
	parts []Part

	mu      sync.Mutex
	policy  *policy
	ready   []bool // in memory
	changed chan struct{}
	err     error // ends the reading
	stats   Stats

	wake    chan struct{}
	closing atomic.Bool
	done    chan struct{}
}

// New starts to read parts, of which at most budget bytes are in memory at a time; but the one in use is always.
func New(parts []Part, budget int64) *Stream {
	s := &Stream{ready: make([]bool, len(parts)), changed: make(chan struct{}),
		wake: make(chan struct{}, 1), done: make(chan struct{})}
	sizes, pinned := make([]int64, len(parts)), make([]bool, len(parts))
	for i, p := range parts {
		sizes[i], pinned[i] = p.Size(), p.Pinned
		s.parts = append(s.parts, Part{mmap.Merge(p.Ranges), p.Pinned})
	}
	s.policy = newPolicy(sizes, pinned, budget)
	go s.run()
	return s
}

// Begin starts a pass that uses parts in this order. The slice must not change until the next Begin.
func (s *Stream) Begin(order []int) {
	s.mu.Lock()
	s.policy.begin(order)
	s.mu.Unlock()
	s.rouse()
}

// Use waits until part i is in memory, where it stays until another part is used. The error is that of reading any
// part, which names the file, or of ctx.
func (s *Stream) Use(ctx context.Context, i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	another, ok := s.policy.use(i)
	if !ok {
		return fmt.Errorf("part %d of the weights is not in the order of the pass", i)
	}
	if another {
		s.rouse()
	}
	if s.ready[i] && s.err == nil {
		return nil
	}
	began := time.Now()
	defer func() { s.stats.Waiting += time.Since(began) }()
	for !s.ready[i] && s.err == nil {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.err
}

// Stats returns what was done so far.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close ends the reading. What is in memory stays there. The parts' files must be open until it returns.
func (s *Stream) Close() error {
	s.closing.Store(true)
	s.rouse()
	<-s.done
	return nil
}

// rouse tells the reader that there may be something to do.
func (s *Stream) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// run reads until Close, or until something cannot be read.
func (s *Stream) run() {
	defer close(s.done)
	var drop []int
	for !s.closing.Load() {
		var part int
		var ok bool
		s.mu.Lock()
		part, drop, ok = s.policy.step(drop[:0])
		for _, i := range drop {
			s.ready[i] = false
		}
		s.mu.Unlock()
		if !ok {
			<-s.wake
			continue
		}
		for _, i := range drop {
			for _, r := range s.parts[i].Ranges {
				mmap.Drop(r)
			}
		}
		began := time.Now()
		err := s.read(s.parts[part].Ranges)
		s.mu.Lock()
		s.ready[part], s.err = err == nil, err
		s.stats.Read += s.policy.sizes[part]
		s.stats.Reading += time.Since(began)
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Two goroutines that have the kernel fill and map pieces of 8 MiB read as fast as any other way that was measured
// (reading into a buffer, with and without O_DIRECT, asking for pages ahead), at the least processor time.
const (
	readers = 2
	piece   = 8 << 20
)

var errClosed = errors.New("the reading of weights was ended")

// read brings ranges into memory.
func (s *Stream) read(ranges [][]byte) error {
	var pieces [][]byte
	for _, r := range ranges {
		for ; len(r) > piece; r = r[piece:] {
			pieces = append(pieces, r[:piece])
		}
		pieces = append(pieces, r)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, readers)
	for w := range readers {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(pieces) {
					return
				}
				if s.closing.Load() {
					errs[w] = errClosed
					return
				}
				errs[w] = mmap.Populate(pieces[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
