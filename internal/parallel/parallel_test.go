package parallel

import (
	"sync/atomic"
	"testing"
)

type counting struct {
	seen  []atomic.Int32
	panic int
}

func (c *counting) Piece(_, i int) {
	if i == c.panic {
		panic("piece")
	}
	c.seen[i].Add(1)
}

func TestEveryPieceOnce(t *testing.T) {
	for _, workers := range []int{0, 1, 2, 7} {
		p := New(workers)
		for _, n := range []int{0, 1, 2, 100} {
			c := &counting{seen: make([]atomic.Int32, n), panic: -1}
			p.Run(n, c)
			for i := range c.seen {
				if got := c.seen[i].Load(); got != 1 {
					t.Fatalf("%d workers, %d pieces: piece %d ran %d times", workers, n, i, got)
				}
			}
		}
		p.Close()
		p.Close()
	}
}

func TestPanicComesBack(t *testing.T) {
	p := New(3)
	defer p.Close()
	c := &counting{seen: make([]atomic.Int32, 50), panic: 20}
	func() {
		defer func() {
			if r := recover(); r != "piece" {
				t.Errorf("recovered %v", r)
			}
		}()
		p.Run(50, c)
	}()
	c.panic = -1
	p.Run(50, c) // the pool lives on
}

func TestRunAllocatesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	p := New(2)
	defer p.Close()
	c := &counting{seen: make([]atomic.Int32, 64), panic: -1}
	if n := testing.AllocsPerRun(100, func() { p.Run(64, c) }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}
