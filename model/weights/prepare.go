package weights

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
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
	// Quant is what the matrices called Quantised become, whatever they are stored as; quant.None: nothing.
	Quant     quant.Format
	Quantised []string
	// Verify compares a file that is found with all that it would be made of, which takes as long as making it. Without
	// it the checkpoint's files are told by their sizes, times and samples, and the found file by samples of its tensors.
	Verify bool
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
	quant quant.Format // quant.None: elements of to
	size  int64        // bytes of what is made
}

// kind says what is made, to the version.
func (j *job) kind() string {
	if j.quant != quant.None {
		return j.quant.ID()
	}
	return j.to.String()
}

// Prepare makes floating-point tensors usable in place as F32, F16 or BF16: afterwards Data of each is set, or Codes of
// those that Quantised names. What lies so in the checkpoint stays there. The others are converted on all CPUs: up to
// 64 MiB into memory; more of them into a file, which is mapped, kept, and found again the next time. What is quantised
// has a file of its own. A file is made anew where the checkpoint is not the one that it was made of, or where it is
// damaged; it replaces older ones of the same checkpoint. While it is made, no more of the checkpoint than a tensor is in memory. What Elements gives changes
// only where DType is BF16, to which it is rounded, and where a matrix is quantised. F64 is rounded to F32; what does
// not fit is an error, and so is what is not finite in a matrix to be quantised. To call it again does nothing.
func (c *Checkpoint) Prepare(ctx context.Context, o PrepareOptions) error {
	jobs, err := c.jobs(o)
	if err != nil || len(jobs) == 0 {
		return err
	}
	p := &progress{tell: o.Progress}
	for i := range jobs {
		p.total += jobs[i].size
	}
	for _, group := range byFile(jobs) {
		if err := c.prepare(ctx, group, o, p); err != nil {
			return err
		}
	}
	return nil
}

// byFile puts what is quantised apart from what is converted: each has a file of its own, so that one does not depend on
// the options of the other.
func byFile(jobs []job) [][]job {
	var quantised, converted []job
	for _, j := range jobs {
		if j.quant != quant.None {
			quantised = append(quantised, j)
		} else {
			converted = append(converted, j)
		}
	}
	return slices.DeleteFunc([][]job{converted, quantised}, func(g []job) bool { return len(g) == 0 })
}

func (c *Checkpoint) prepare(ctx context.Context, jobs []job, o PrepareOptions, p *progress) error {
	var size int64
	for i := range jobs {
		size += jobs[i].size
	}
	if size <= memoryLimit || len(c.files) == 0 {
		c.held += size
		return c.intoMemory(ctx, jobs, p)
	}
	return c.intoCache(ctx, jobs, o, p)
}

// Unprepared is how many bytes Prepare has to make with these options.
func (c *Checkpoint) Unprepared(o PrepareOptions) (int64, error) {
	jobs, err := c.jobs(o)
	var n int64
	for i := range jobs {
		n += jobs[i].size
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
	quantised, errs := c.toQuantise(o)
	var list []job
	for i, t := range c.tensors {
		j := job{Tensor: t, index: i, to: t.DType}
		switch {
		case t.Quant != quant.None:
			continue
		case quantised[t.Name]:
			errs = append(errs, j.quantise(o.Quant))
			list = append(list, j)
			continue
		case !t.DType.Float(), o.Names != nil && !wanted[t.Name]:
			continue
		case t.DType == numeric.F64:
			j.to = numeric.F32
		case t.layout == nil:
			continue
		case t.blocks && len(t.Shape) == 2 && t.Name != embedName:
			j.to = blocks
		}
		j.size = int64(j.Len()) * int64(j.to.Size())
		list = append(list, j)
	}
	if err := join(errs); err != nil {
		return nil, err
	}
	return list, nil
}

// toQuantise is the set of what is to be quantised.
func (c *Checkpoint) toQuantise(o PrepareOptions) (names map[string]bool, errs []error) {
	if o.Quant == quant.None {
		return nil, nil
	}
	names = map[string]bool{}
	for _, name := range o.Quantised {
		names[name] = true
		if _, ok := c.byName[name]; !ok {
			errs = append(errs, fmt.Errorf("%s: there is no tensor %s to quantise", c.path, printable(name)))
		}
	}
	return names, errs
}

// quantise makes j a job to encode its matrix.
func (j *job) quantise(f quant.Format) error {
	if !j.DType.Float() || len(j.Shape) != 2 {
		return j.errorf("%s %v cannot be quantised, want a matrix of floating point", j.Type, j.Shape)
	}
	size, err := f.Size(j.Shape[0], j.Shape[1])
	if err != nil {
		return j.errorf("%w", err)
	}
	j.quant, j.to, j.size = f, numeric.F32, int64(size)
	return nil
}

// source is what j makes, as a tensor of a file.
func (j *job) source(ctx context.Context, p *progress) safetensors.Source {
	s := safetensors.Source{Name: j.Name, DType: j.to, Shape: j.Shape, Write: func(w io.Writer) error { return j.write(ctx, w, p) }}
	if j.quant != quant.None {
		s.DType, s.Shape = numeric.U8, []int{int(j.size)}
	}
	return s
}

// write makes what the job is to make, and lets go of the pages that it was made of.
func (j *job) write(ctx context.Context, w io.Writer, p *progress) error {
	defer func() {
		for _, data := range layoutOf(j.Tensor).mapped() {
			mmap.Release(data)
		}
	}()
	if j.quant != quant.None {
		return j.encode(ctx, w, p)
	}
	return j.stream(ctx, j.to, func(b []byte, _ int) error {
		p.add(len(b))
		_, err := w.Write(b)
		return err
	})
}

// encode quantises the matrix.
func (j *job) encode(ctx context.Context, w io.Writer, p *progress) error {
	out := &counted{w: w, p: p}
	err := quant.Encode(ctx, out, j.quant, j.Shape[0], j.Shape[1], runtime.GOMAXPROCS(0), func(dst []float32, from, to int) error {
		if err := j.Rows(dst, from, to); err != nil {
			return unreadable{err}
		}
		return nil
	})
	var u unreadable
	switch {
	case errors.As(err, &u):
		return u.error
	case out.err != nil:
		return out.err
	case err == nil, ctx.Err() != nil:
		return err
	}
	return j.errorf("%w", err)
}

// unreadable is an error of reading a tensor, which names it.
type unreadable struct{ error }

// counted tells a progress what is written, and keeps the error of it.
type counted struct {
	w   io.Writer
	p   *progress
	err error
}

func (c *counted) Write(b []byte) (n int, err error) {
	n, c.err = c.w.Write(b)
	c.p.add(n)
	return n, c.err
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
		b := bytes.NewBuffer(make([]byte, 0, jobs[i].size))
		if err := jobs[i].write(ctx, b, p); err != nil {
			return err
		}
		data[i] = b.Bytes()
	}
	for i := range jobs {
		if err := c.settle(&jobs[i], data[i], ""); err != nil {
			return err
		}
	}
	return c.Unchanged()
}

// settle gives a tensor its converted values, which lie in the file called cache, or in memory.
func (c *Checkpoint) settle(j *job, data []byte, cache string) error {
	t := &c.tensors[j.index]
	if len(c.files) == 0 {
		c.held -= int64(len(t.Data)) // it was in memory itself
	}
	if j.quant == quant.None {
		t.DType, t.Data, t.layout, t.blocks = j.to, data, nil, false
		return nil
	}
	m, err := quant.Open(j.quant, j.Shape[0], j.Shape[1], data)
	if err != nil {
		return j.errorf("%w", err)
	}
	t.DType, t.Data, t.layout, t.blocks = j.to, nil, &coded{m, cache}, true
	t.Quant, t.Codes = j.quant, data
	return nil
}

// intoCache finds the file of tensors that all are quantised or all are not, or makes it.
func (c *Checkpoint) intoCache(ctx context.Context, jobs []job, o PrepareOptions, p *progress) error {
	key, err := c.cacheKey(jobs)
	if err != nil {
		return err
	}
	sources := make([]safetensors.Source, len(jobs))
	for i := range jobs {
		sources[i] = jobs[i].source(ctx, p)
	}
	cached, err := c.findCache(ctx, key, jobs, sources, o, p)
	if err != nil {
		return err
	}
	c.caches = append(c.caches, cached.Path())
	c.open = append(c.open, cached)
	for i := range jobs {
		t, _ := cached.Tensor(jobs[i].Name)
		if err := c.settle(&jobs[i], t.Data, cached.Path()); err != nil {
			return err
		}
	}
	return nil
}

// findCache opens the file of what sources write, or makes it.
func (c *Checkpoint) findCache(ctx context.Context, key string, jobs []job, sources []safetensors.Source, o PrepareOptions, p *progress) (*safetensors.File, error) {
	s, done := c.places(o.CacheDir, jobs), p.done
	found := s.find(key, sources)
	if found == nil {
		return s.make(ctx, key, c.holds(jobs), sources, c.Unchanged)
	}
	if !o.Verify {
		return found, nil
	}
	err := verify(found, sources)
	if err == nil {
		c.verified++
		return found, nil
	}
	if err = errors.Join(err, found.Close()); !errors.Is(err, errDiffers) {
		return nil, err
	}
	c.warnings = append(c.warnings, fmt.Sprintf("%s is not what the checkpoint gives, and was made anew: %v", found.Path(), err))
	p.done = done
	return s.make(ctx, key, c.holds(jobs), sources, c.Unchanged)
}

// holds says what the file of converted tensors is.
func (c *Checkpoint) holds(jobs []job) string {
	what := "converted for arithmetic"
	if f := jobs[0].quant; f != quant.None {
		what = "quantised to " + f.String()
	}
	var names []string
	for _, f := range c.files {
		names = append(names, filepath.Base(f))
	}
	return fmt.Sprintf("tensors of %s, %s", list(names), what)
}

// purpose names what the tensors are prepared for, where it makes a difference.
func purpose(jobs []job) string {
	if f := jobs[0].quant; f != quant.None {
		return f.String()
	}
	for i := range jobs {
		if j := &jobs[i]; j.blocks && j.to == numeric.BF16 {
			return "bf16"
		}
	}
	return "exact"
}
