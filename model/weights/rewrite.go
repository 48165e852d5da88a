package weights

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
)

// Change gives a tensor new values.
type Change struct {
	Name string
	// Like names the tensor whose format, shape and file the tensor gets if the checkpoint does not have it yet. It is
	// empty for tensors that the checkpoint must have.
	Like string
	// Rows fills dst with the new rows [from, to). It is called for ascending rows of one tensor at a time.
	Rows func(dst []float32, from, to int) error
}

// Outputs returns the names of the files that Rewrite writes: those of the shards and, where there is one, the index.
func (c *Checkpoint) Outputs() []string {
	var names []string
	for _, path := range c.Files() {
		names = append(names, filepath.Base(path))
	}
	if c.index != nil {
		names = append(names, IndexFile)
	}
	return names
}

// Rewrite writes the checkpoint with changes into the directory out, which must exist and be another one: shard by
// shard under the same names, each tensor in its own format, rounded to nearest even, then the index. Each file is
// whole or not there. What is not changed is copied, but of tensors that lie in two shards only the one that counts. A value that is not finite, be it new or copied, or that the
// format cannot hold, is an error that names tensor and element. Cancelling ctx ends it between two blocks of rows.
// Should the checkpoint have changed meanwhile, that is the error, and what was written is worth nothing.
func (c *Checkpoint) Rewrite(ctx context.Context, out string, changes []Change) error {
	if err := differentDirs(c.dir, out); err != nil {
		return err
	}
	p, err := c.plan(changes)
	if err != nil {
		return err
	}
	for _, s := range c.shards {
		path := filepath.Join(out, filepath.Base(s.Path()))
		if err := safetensors.WriteFile(path, p.sources(ctx, s), s.Metadata()); err != nil {
			return err
		}
	}
	if err := c.Unchanged(); err != nil {
		return err
	}
	if c.index == nil {
		return nil
	}
	return p.writeIndex(filepath.Join(out, IndexFile))
}

func differentDirs(dir, out string) error {
	a, err := os.Stat(dir)
	if err != nil {
		return err
	}
	b, err := os.Stat(out)
	if err != nil {
		return err
	}
	if os.SameFile(a, b) {
		return fmt.Errorf("%s: cannot be written into itself", out)
	}
	return nil
}

// plan is a list of changes that was checked against its checkpoint.
type plan struct {
	c       *Checkpoint
	changes map[string]Change
	added   map[string][]Change // by the name they are like
}

func (c *Checkpoint) plan(changes []Change) (*plan, error) {
	p := &plan{c: c, changes: map[string]Change{}, added: map[string][]Change{}}
	var errs []error
	for _, ch := range changes {
		if _, twice := p.changes[ch.Name]; twice {
			errs = append(errs, fmt.Errorf("tensor %s: changed twice", ch.Name))
			continue
		}
		p.changes[ch.Name] = ch
		t, ok := c.Tensor(ch.Name)
		if !ok && ch.Like != "" {
			t, ok = c.Tensor(ch.Like)
			p.added[ch.Like] = append(p.added[ch.Like], ch)
		}
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: there is no tensor %s to change", c.dir, ch.Name))
		case !t.DType.Float():
			errs = append(errs, t.errorf("%s cannot hold new values", t.Type))
		}
	}
	return p, errors.Join(errs...)
}

// sources lists the tensors of a new shard, added ones after those they are like.
func (p *plan) sources(ctx context.Context, s *safetensors.File) []safetensors.Source {
	var list []safetensors.Source
	for t := range s.All() {
		old, _ := p.c.Tensor(t.Name)
		if old.File != s.Path() {
			continue // another shard's counts
		}
		list = append(list, p.source(ctx, old))
		for _, a := range p.added[t.Name] {
			like := old
			like.Name = a.Name
			list = append(list, p.source(ctx, like))
		}
	}
	return list
}

// source writes the new values of t where it has any, else its old ones.
func (p *plan) source(ctx context.Context, t Tensor) safetensors.Source {
	write := func(w io.Writer) error { return t.copy(ctx, w) }
	if ch, ok := p.changes[t.Name]; ok {
		write = func(w io.Writer) error { return t.replace(ctx, w, ch.Rows) }
	}
	return safetensors.Source{Name: t.Name, DType: t.DType, Type: t.Type, Shape: t.Shape, Write: write}
}

const blockBytes = 1 << 20 // of a tensor, converted or copied at once

// copy writes the data as it is.
func (t Tensor) copy(ctx context.Context, w io.Writer) error {
	if err := t.CheckFinite(); err != nil {
		return err
	}
	for data := t.Data; len(data) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(blockBytes, len(data))
		err := mmap.Guard(func() error {
			_, err := w.Write(data[:n])
			return err
		})
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// replace writes the values that rows gives.
func (t Tensor) replace(ctx context.Context, w io.Writer, rows func(dst []float32, from, to int) error) error {
	total, cols := t.Size()
	if total == 0 || cols == 0 {
		return nil
	}
	size := t.DType.Size()
	step := max(1, blockBytes/(cols*size))
	values := make([]float32, min(step, total)*cols)
	data := make([]byte, len(values)*size)
	for from := 0; from < total; from += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := min(from+step, total)
		v := values[:(to-from)*cols]
		b := data[:len(v)*size]
		if err := rows(v, from, to); err != nil {
			return err
		}
		encode(b, t.DType, v)
		if i := firstNotFinite(t.DType, b); i >= 0 {
			return t.refuse(from*cols+i, v[i])
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// refuse tells a value that is not finite from one that is too large for the format.
func (t Tensor) refuse(i int, v float32) error {
	if v-v != 0 {
		return t.notFinite(i, v)
	}
	return t.errorf("element %d%s: %v does not fit %s", i, position(i, t.Shape), v, t.Type)
}

// writeIndex writes the old index with the added tensors and their size.
func (p *plan) writeIndex(path string) error {
	index := strictjson.NewObject()
	var bytes int64
	for _, key := range p.c.index.Keys {
		v, _ := p.c.index.Get(key)
		if o, ok := v.(*strictjson.Object); ok && key == "weight_map" {
			v, bytes = p.weightMap(o)
		}
		index.Set(key, v)
	}
	if v, ok := index.Get("metadata"); ok && bytes > 0 {
		index.Set("metadata", largerBy(v, bytes))
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(strictjson.Format(index))
		return err
	})
}

// weightMap returns old with the added tensors, and the bytes of these.
func (p *plan) weightMap(old *strictjson.Object) (*strictjson.Object, int64) {
	m := strictjson.NewObject()
	var bytes int64
	for _, name := range old.Keys {
		file, _ := old.Get(name)
		m.Set(name, file)
		for _, a := range p.added[name] {
			m.Set(a.Name, file)
			t, _ := p.c.Tensor(name)
			bytes += int64(len(t.Data))
		}
	}
	return m, bytes
}

// largerBy returns the index's metadata with bytes more in total_size.
func largerBy(metadata any, bytes int64) any {
	old, ok := metadata.(*strictjson.Object)
	if !ok {
		return metadata
	}
	m := strictjson.NewObject()
	for _, key := range old.Keys {
		v, _ := old.Get(key)
		if n, ok := v.(json.Number); ok && key == "total_size" {
			if size, ok := new(big.Float).SetString(n.String()); ok {
				v = json.Number(size.Add(size, new(big.Float).SetInt64(bytes)).Text('f', 0))
			}
		}
		m.Set(key, v)
	}
	return m
}
