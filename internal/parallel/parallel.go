// Package parallel runs independent pieces of work on a fixed set of goroutines.
package parallel

import (
	"sync"
	"sync/atomic"

	"github.com/biolora/biolora/internal/mmap"
)

// Task is work that falls into pieces. Pieces must not depend on one another: which goroutine runs which, and
// when, is not defined. Results stay the same for any number of goroutines as long as each piece writes memory
// of its own.
type Task interface {
	// Piece does piece i on worker w, 0 <= w < Pool.Workers(): scratch memory may be kept for each worker.
	Piece(w, i int)
}

// Pool is a set of workers that wait between tasks. Run allocates nothing. A Pool runs one task at a time.
type Pool struct {
	helpers []*helper // all workers but the caller of Run
	mu      sync.Mutex
	closed  bool

	task  Task
	n     int64
	next  atomic.Int64
	fault atomic.Pointer[any]
}

// helper is a worker with a goroutine of its own. Where the machine is busy it may wake late: by then the others
// have done its share, and Run has taken its call back instead of waiting for it.
type helper struct {
	wake  chan struct{}
	state atomic.Int32
	done  chan struct{} // one for each task the helper took part in
}

// The states of a helper.
const (
	idle int32 = iota
	called
	working
)

// New starts a pool of the given number of workers, the caller of Run being one of them.
func New(workers int) *Pool {
	p := &Pool{}
	for w := 1; w < workers; w++ {
		h := &helper{wake: make(chan struct{}, 1), done: make(chan struct{}, 1)}
		p.helpers = append(p.helpers, h)
		go func() {
			mmap.PanicOnFault() // pieces read mapped files
			for range h.wake {
				if !h.state.CompareAndSwap(called, working) {
					continue // too late
				}
				p.work(w)
				h.state.Store(idle)
				h.done <- struct{}{}
			}
		}()
	}
	return p
}

// Workers returns the number of workers, the caller of Run included.
func (p *Pool) Workers() int { return len(p.helpers) + 1 }

// Close ends the workers. Run must not be called any more.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, h := range p.helpers {
		close(h.wake)
	}
}

// Run does pieces 0..n-1 of t and returns when all are done. A panic in a piece is raised again here; so is a fault in
// a mapped file (package mmap), for which the caller must be under mmap.Guard or the like itself.
func (p *Pool) Run(n int, t Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n <= 0 {
		return
	}
	if n == 1 || len(p.helpers) == 0 {
		for i := range n {
			t.Piece(0, i)
		}
		return
	}
	p.task, p.n = t, int64(n)
	p.next.Store(0)
	helpers := p.helpers[:min(len(p.helpers), n-1)]
	for _, h := range helpers {
		h.state.Store(called)
		select {
		case h.wake <- struct{}{}:
		default: // it has not yet seen an earlier call, and will find this one
		}
	}
	p.work(0)
	for _, h := range helpers {
		if !h.state.CompareAndSwap(called, idle) {
			<-h.done
		}
	}
	p.task = nil
	if f := p.fault.Swap(nil); f != nil {
		panic(*f)
	}
}

func (p *Pool) work(w int) {
	defer func() {
		if r := recover(); r != nil {
			fault := r // r itself must not escape, or every run would allocate it
			p.fault.CompareAndSwap(nil, &fault)
			p.next.Store(p.n)
		}
	}()
	for {
		i := p.next.Add(1) - 1
		if i >= p.n {
			return
		}
		p.task.Piece(w, int(i))
	}
}
