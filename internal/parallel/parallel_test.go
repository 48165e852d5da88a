package parallel

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/biolora/biolora/internal/mmap"
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

// reading sums a part of a file.
type reading struct {
	data []byte
	sums []int
}

func (r *reading) Piece(_, i int) {
	n := len(r.data) / len(r.sums)
	for _, b := range r.data[i*n : (i+1)*n] {
		r.sums[i] += int(b)
	}
}

// A file that is cut short under the pieces is a panic that the caller's guard explains, whichever worker meets it.
func TestFileCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	const size = 1 << 20
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := mmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p := New(4)
	defer p.Close()
	run := func() error {
		return mmap.Guard(func() error { p.Run(64, &reading{m.Data, make([]int, 64)}); return nil })
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size/2); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := run(); err == nil || !strings.HasPrefix(err.Error(), path+": byte ") || !strings.Contains(err.Error(), " is gone: the file was cut short while it was in use, from 1048576 bytes to 524288") {
			t.Fatal(err)
		}
	}
	p.Run(4, &reading{m.Data[:size/2], make([]int, 4)}) // the pool lives on
}
