package weights

import (
	"context"
	"runtime"
	"sync"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
)

// convert puts the n elements from the given one on into dst, in the format to: the tensor's own, or any that is
// floating point. Several goroutines may call it at once.
func (t Tensor) convert(dst []byte, to numeric.DType, from, n int) error {
	if to == t.DType {
		return mmap.Guard(func() error { return layoutOf(t).fill(dst, from) })
	}
	var values [4096]float32 // a piece that stays in the processor's cache
	for n > 0 {
		v := values[:min(len(values), n)]
		if err := t.Elements(v, from); err != nil {
			return err
		}
		encode(dst, to, v)
		dst, from, n = dst[len(v)*to.Size():], from+len(v), n-len(v)
	}
	return nil
}

// stream gives use the tensor's elements in the format to, some at a time and in order. Others are converted meanwhile,
// on all CPUs. The bytes are use's until it returns.
func (t Tensor) stream(ctx context.Context, to numeric.DType, use func(data []byte, from int) error) error {
	total, size := t.Len(), to.Size()
	step := t.step(blockBytes / size)
	pieces := (total + step - 1) / step
	return inOrder(ctx, pieces, step*size,
		func(buf []byte, i int) ([]byte, error) {
			n := min(step, total-i*step)
			buf = buf[:n*size]
			return buf, t.convert(buf, to, i*step, n)
		},
		func(data []byte, i int) error { return use(data, i*step) })
}

// step is about as many elements as asked for, but whole rows where these are not too long.
func (t Tensor) step(n int) int {
	if _, cols := t.Size(); cols > 0 && cols < n {
		return n - n%cols
	}
	return max(1, n)
}

// piece is what a goroutine of inOrder made.
type piece struct {
	data []byte
	err  error
}

// inOrder calls do for 0..n-1 on as many goroutines as there are CPUs, each with a buffer of the given size, and use
// with what they return, one after another in the order of the numbers. The first error ends it.
func inOrder(ctx context.Context, n, size int, do func(buf []byte, i int) ([]byte, error), use func(data []byte, i int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	// Worker w makes pieces w, w + workers, ...: while one is in use it is at work on the next.
	made, free := make([]chan piece, workers), make([]chan []byte, workers)
	for w := range workers {
		made[w], free[w] = make(chan piece, 2), make(chan []byte, 2)
		free[w] <- nil
		free[w] <- nil
		wg.Go(func() {
			for i := w; i < n; i += workers {
				var buf []byte
				select {
				case buf = <-free[w]:
				case <-ctx.Done():
					return
				}
				if buf == nil {
					buf = make([]byte, size)
				}
				data, err := do(buf, i)
				made[w] <- piece{data, err} // never waits: there are two buffers and two places
			}
		})
	}
	for i := range n {
		var p piece
		select {
		case p = <-made[i%workers]:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err != nil {
			return p.err
		}
		if err := use(p.data, i); err != nil {
			return err
		}
		free[i%workers] <- p.data[:cap(p.data)]
	}
	return nil
}
