package weights

import (
	"context"
	"fmt"
	"io"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// PrepareOptions say how tensors are made usable in place.
type PrepareOptions struct {
	// CacheDir is where the file with converted tensors goes. "": the directory .biolora beside the checkpoint, or the
	// user's cache directory where that cannot be written to.
	CacheDir string
	// DType is what matrices become that are stored in blocks of fewer bits: F32 (also numeric.Invalid), which is exact,
	// or BF16, for products that round to it anyway. What is looked up row by row (the embedding) or is no matrix
	// becomes F32.
	DType numeric.DType
	// Names are the tensors that are wanted; nil: all. The others stay as they are.
	Names []string
	// Progress is told how many bytes of how many are converted. It may be nil.
	Progress func(done, total int64)
}

// MemoryLimit is how many bytes of converted tensors are kept in memory, without a file.
const MemoryLimit = 64 << 20

var memoryLimit int64 = MemoryLimit // tests lower it

// job is a tensor to be converted.
type job struct {
	Tensor
	index int // in the checkpoint's list
	to    numeric.DType
}

func (j *job) bytes() int64 { return int64(j.Len()) * int64(j.to.Size()) }

// Prepare makes floating-point tensors usable in place as F32, F16 or BF16: afterwards Data of each is set. Those
// that lie so in the checkpoint stay there. The others are converted on all CPUs: up to 64 MiB into memory; more of
// them into one file, which is mapped, kept, and found again the next time. The file is made anew where the checkpoint
// is not the one that it was made of, or where it is damaged; it replaces older ones of the same checkpoint. What
// Elements gives changes only where DType is BF16: it is rounded then. F64 is rounded to F32; what does not fit is an
// error. To call it again does nothing.
func (c *Checkpoint) Prepare(ctx context.Context, o PrepareOptions) error {
	jobs, err := c.jobs(o)
	if err != nil || len(jobs) == 0 {
		return err
	}
	p := &progress{tell: o.Progress}
	for i := range jobs {
		p.total += jobs[i].bytes()
	}
	if p.total <= memoryLimit {
		return c.intoMemory(ctx, jobs, p)
	}
	return c.intoCache(ctx, jobs, o, p)
}

// Unprepared is how many bytes Prepare has to make with these options.
func (c *Checkpoint) Unprepared(o PrepareOptions) (int64, error) {
	jobs, err := c.jobs(o)
	var n int64
	for i := range jobs {
		n += jobs[i].bytes()
	}
	return n, err
}

// jobs lists what has to be converted, and to what.
func (c *Checkpoint) jobs(o PrepareOptions) ([]job, error) {
	blocks := o.DType
	switch blocks {
	case numeric.Invalid:
		blocks = numeric.F32
	case numeric.F32, numeric.BF16:
	default:
		return nil, fmt.Errorf("tensors can be prepared as F32 or BF16, not as %v", blocks)
	}
	wanted := map[string]bool{}
	for _, name := range o.Names {
		wanted[name] = true
	}
	var list []job
	for i, t := range c.tensors {
		j := job{t, i, t.DType}
		switch {
		case !t.DType.Float(), o.Names != nil && !wanted[t.Name]:
			continue
		case t.DType == numeric.F64:
			j.to = numeric.F32
		case t.layout == nil:
			continue
		case t.blocks && len(t.Shape) == 2 && t.Name != embedName:
			j.to = blocks
		}
		list = append(list, j)
	}
	return list, nil
}

// progress adds up what is done.
type progress struct {
	done, total int64
	tell        func(done, total int64)
}

func (p *progress) add(n int) {
	p.done += int64(n)
	if p.tell != nil {
		p.tell(p.done, p.total)
	}
}

// intoMemory converts jobs whose values together are not many.
func (c *Checkpoint) intoMemory(ctx context.Context, jobs []job, p *progress) error {
	data := make([][]byte, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		data[i] = make([]byte, 0, j.bytes())
		err := j.stream(ctx, j.to, func(b []byte, _ int) error {
			data[i] = append(data[i], b...)
			p.add(len(b))
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := range jobs {
		c.settle(&jobs[i], data[i])
	}
	return c.Unchanged()
}

// settle gives a tensor its converted values.
func (c *Checkpoint) settle(j *job, data []byte) {
	t := &c.tensors[j.index]
	t.DType, t.Data, t.layout, t.blocks = j.to, data, nil, false
}

// intoCache finds the file of converted tensors, or makes it.
func (c *Checkpoint) intoCache(ctx context.Context, jobs []job, o PrepareOptions, p *progress) error {
	key, err := c.cacheKey(jobs)
	if err != nil {
		return err
	}
	sources := make([]safetensors.Source, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		sources[i] = safetensors.Source{Name: j.Name, DType: j.to, Shape: j.Shape, Write: func(w io.Writer) error {
			return j.stream(ctx, j.to, func(b []byte, _ int) error {
				p.add(len(b))
				_, err := w.Write(b)
				return err
			})
		}}
	}
	cached, err := c.places(o.CacheDir, jobs).open(ctx, key, sources, c.Unchanged)
	if err != nil {
		return err
	}
	for i := range jobs {
		t, _ := cached.Tensor(jobs[i].Name)
		c.settle(&jobs[i], t.Data)
	}
	c.cache = cached.Path()
	c.open = append(c.open, cached)
	return nil
}

// purpose names what the tensors are prepared for, where it makes a difference.
func purpose(jobs []job) string {
	for i := range jobs {
		if j := &jobs[i]; j.blocks && j.to == numeric.BF16 {
			return "bf16"
		}
	}
	return "exact"
}
