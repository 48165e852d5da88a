// Package parallel runs independent pieces of work on a fixed set of goroutines.
package parallel

import (
	"sync"
	"sync/atomic"
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
	workers int
	start   []chan struct{}
	done    sync.WaitGroup
	mu      sync.Mutex
	closed  bool

	task  Task
	n     int64
	next  atomic.Int64
	fault atomic.Pointer[any]
}

// New starts a pool of the given number of workers, the caller of Run being one of them.
func New(workers int) *Pool {
	p := &Pool{workers: max(1, workers)}
	for w := 1; w < p.workers; w++ {
		c := make(chan struct{}, 1)
		p.start = append(p.start, c)
		go func() {
			for range c {
				p.work(w)
				p.done.Done()
			}
		}()
	}
	return p
}

// Workers returns the number of workers, the caller of Run included.
func (p *Pool) Workers() int { return p.workers }

// Close ends the workers. Run must not be called any more.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, c := range p.start {
		close(c)
	}
}

// Run does pieces 0..n-1 of t and returns when all are done. A panic in a piece is raised again here.
func (p *Pool) Run(n int, t Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n <= 0 {
		return
	}
	if n == 1 || p.workers == 1 {
		for i := range n {
			t.Piece(0, i)
		}
		return
	}
	p.task, p.n = t, int64(n)
	p.next.Store(0)
	helpers := min(len(p.start), n-1)
	p.done.Add(helpers)
	for _, c := range p.start[:helpers] {
		c <- struct{}{}
	}
	p.work(0)
	p.done.Wait()
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
