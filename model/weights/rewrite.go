package weights

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
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

// shardBytes is where Rewrite begins a new file, as Hugging Face's save_pretrained does.
const shardBytes = 5_000_000_000

// Rewrite is a changed copy of a checkpoint, not yet written. Its form is Hugging Face's safetensors, whatever that of
// the checkpoint: files of at most 5 GB and an index if there are several; those of a checkpoint that has this form
// already keep their names and what they hold.
type Rewrite struct {
	c       *Checkpoint
	files   []outFile
	index   bool
	weights int64 // bytes
}

// outFile is one file of weights.
type outFile struct {
	name     string
	metadata map[string]string
	tensors  []outTensor
	bytes    int64
}

// outTensor is a tensor as it will be written.
type outTensor struct {
	Tensor        // under its new name
	dtype  string // the format's name
	to     numeric.DType
	rows   func(dst []float32, from, to int) error // nil: the old values
}

func (o *outTensor) size() int64 {
	if o.to == numeric.Invalid {
		return o.stored
	}
	return int64(o.Len()) * int64(o.to.Size())
}

// Rewrite plans a copy with changes. Each tensor keeps its format, unless to names one for all that are floating point
// (numeric.Invalid does not); values that are stored in blocks of fewer bits become BF16 then. Matrices that Prepare has
// quantised are written as what their codes stand for, in the format that they had. All that is wrong with the changes is
// returned at once.
func (c *Checkpoint) Rewrite(changes []Change, to numeric.DType) (*Rewrite, error) {
	if to != numeric.Invalid && !to.Float() {
		return nil, fmt.Errorf("%v is not floating point", to)
	}
	r := &Rewrite{c: c}
	list, err := c.changed(changes, to)
	if err != nil {
		return nil, err
	}
	if c.format == Safetensors && len(c.shards) > 0 {
		r.keepFiles(list)
	} else {
		r.newFiles(list, shardBytes)
	}
	for i := range r.files {
		for j := range r.files[i].tensors {
			r.files[i].bytes += r.files[i].tensors[j].size()
		}
		r.weights += r.files[i].bytes
	}
	return r, nil
}

// changed lists all tensors with their new values, added ones after those they are like.
func (c *Checkpoint) changed(changes []Change, to numeric.DType) ([]outTensor, error) {
	byName, added := map[string]Change{}, map[string][]Change{}
	var errs []error
	for _, ch := range changes {
		if _, twice := byName[ch.Name]; twice {
			errs = append(errs, fmt.Errorf("tensor %s: changed twice", ch.Name))
			continue
		}
		byName[ch.Name] = ch
		t, ok := c.Tensor(ch.Name)
		if !ok && ch.Like != "" {
			t, ok = c.Tensor(ch.Like)
			added[ch.Like] = append(added[ch.Like], ch)
		}
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: there is no tensor %s to change", c.path, ch.Name))
		case !t.DType.Float():
			errs = append(errs, t.errorf("%s cannot hold new values", t.Type))
		}
	}
	var list []outTensor
	for t := range c.All() {
		list = append(list, t.output(t.Name, to, byName[t.Name].Rows))
		for _, a := range added[t.Name] {
			list = append(list, t.output(a.Name, to, a.Rows))
		}
	}
	for i := range list {
		if t := &list[i]; t.to == numeric.Invalid && t.Data == nil && t.Len() > 0 {
			errs = append(errs, t.errorf("%s cannot be read", t.Type))
		}
	}
	return list, errors.Join(errs...)
}

// output says how t is written.
func (t Tensor) output(name string, to numeric.DType, rows func([]float32, int, int) error) outTensor {
	o := outTensor{Tensor: t, dtype: t.Type, to: t.DType, rows: rows}
	o.Name = name
	switch {
	case !t.DType.Float():
		return o
	case to != numeric.Invalid:
		o.to = to
	case t.Quant != quant.None:
		if o.to, _ = numeric.Parse(t.Type); !o.to.Float() { // what it was before
			o.to = numeric.BF16
		}
	case t.blocks:
		o.to = numeric.BF16
	}
	o.dtype = o.to.String()
	return o
}

// keepFiles gives each tensor the file it came from.
func (r *Rewrite) keepFiles(list []outTensor) {
	for _, s := range r.c.shards {
		f := outFile{name: filepath.Base(s.Path()), metadata: s.Metadata()}
		for _, t := range list {
			if t.File == s.Path() {
				f.tensors = append(f.tensors, t)
			}
		}
		r.files = append(r.files, f)
	}
	r.index = r.c.index != nil
}

// newFiles fills one file after another.
func (r *Rewrite) newFiles(list []outTensor, most int64) {
	var bytes int64
	for _, t := range list {
		if n := t.size(); len(r.files) == 0 || bytes+n > most && bytes > 0 {
			r.files = append(r.files, outFile{metadata: map[string]string{"format": "pt"}})
			bytes = 0
		}
		bytes += t.size()
		f := &r.files[len(r.files)-1]
		f.tensors = append(f.tensors, t)
	}
	if len(r.files) == 1 {
		r.files[0].name = SingleFile
		return
	}
	for i := range r.files {
		r.files[i].name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(r.files))
	}
	r.index = true
}

// Files returns the names of the files that Write writes: those with weights, and the index where there is one.
func (r *Rewrite) Files() []string {
	var names []string
	for _, f := range r.files {
		names = append(names, f.name)
	}
	if r.index {
		names = append(names, IndexFile)
	}
	return names
}

// Bytes is the size of all tensors in the files.
func (r *Rewrite) Bytes() int64 { return r.weights }

// Write writes the copy into the directory out, which must exist and be another one, file by file, then the index.
// Each file is whole or not there. New values are rounded to nearest even. A value that is not finite, be it new or
// copied, or that the format cannot hold, is an error that names tensor and element. Cancelling ctx ends it between two
// blocks of rows. Should the checkpoint have changed meanwhile, that is the error, and what was written is worth
// nothing.
func (r *Rewrite) Write(ctx context.Context, out string) error {
	if err := differentDirs(r.c.dir, out); err != nil {
		return err
	}
	for _, f := range r.files {
		var sources []safetensors.Source
		for _, t := range f.tensors {
			sources = append(sources, safetensors.Source{Name: t.Name, DType: t.to, Type: t.dtype, Shape: t.Shape,
				Write: func(w io.Writer) error { return t.write(ctx, w) }})
		}
		if err := safetensors.WriteFile(filepath.Join(out, f.name), sources, f.metadata); err != nil {
			return err
		}
	}
	if err := r.c.Unchanged(); err != nil {
		return err
	}
	if !r.index {
		return nil
	}
	return atomicfile.Write(filepath.Join(out, IndexFile), func(w io.Writer) error {
		_, err := w.Write(strictjson.Format(r.makeIndex()))
		return err
	})
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

const blockBytes = 1 << 20 // of a tensor, converted or copied at once

// write writes the tensor's new values, or its old ones.
func (o *outTensor) write(ctx context.Context, w io.Writer) error {
	if o.rows != nil {
		return o.replace(ctx, w)
	}
	if o.layout == nil && o.to == o.DType {
		if err := o.CheckFinite(); err != nil {
			return err
		}
		return writeData(ctx, w, o.Data)
	}
	return o.stream(ctx, o.to, func(data []byte, from int) error {
		if i := firstNotFinite(o.to, data); i >= 0 {
			v := make([]float32, 1)
			if err := o.Elements(v, from+i); err != nil {
				return err
			}
			return o.refuse(from+i, v[0])
		}
		_, err := w.Write(data)
		return err
	})
}

func writeData(ctx context.Context, w io.Writer, data []byte) error {
	for len(data) > 0 {
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

// replace writes the values that o.rows gives.
func (o *outTensor) replace(ctx context.Context, w io.Writer) error {
	total, cols := o.Size()
	if total == 0 || cols == 0 {
		return nil
	}
	size := o.to.Size()
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
		if err := o.rows(v, from, to); err != nil {
			return err
		}
		encode(b, o.to, v)
		if i := firstNotFinite(o.to, b); i >= 0 {
			return o.refuse(from*cols+i, v[i])
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// refuse tells a value that is not finite from one that is too large for the format.
func (o *outTensor) refuse(i int, v float32) error {
	if v-v != 0 {
		return o.notFinite(i, v)
	}
	return o.errorf("element %d%s: %v does not fit %v", i, position(i, o.Shape), v, o.to)
}

// makeIndex is the old index with the tensors and the size that there are now, or a new one.
func (r *Rewrite) makeIndex() *strictjson.Object {
	files := map[string]string{}
	var names []string
	for _, f := range r.files {
		for _, t := range f.tensors {
			files[t.Name] = f.name
			names = append(names, t.Name)
		}
	}
	old := r.c.index
	if old == nil {
		slices.Sort(names)
		metadata, m := strictjson.NewObject(), strictjson.NewObject()
		metadata.Set("total_size", json.Number(fmt.Sprint(r.weights)))
		for _, name := range names {
			m.Set(name, files[name])
		}
		index := strictjson.NewObject()
		index.Set("metadata", metadata)
		index.Set("weight_map", m)
		return index
	}
	index := strictjson.NewObject()
	for _, key := range old.Keys {
		v, _ := old.Get(key)
		switch o, ok := v.(*strictjson.Object); {
		case ok && key == "weight_map":
			v = r.weightMap(o)
		case ok && key == "metadata":
			v = largerBy(o, r.weights-r.c.Bytes())
		}
		index.Set(key, v)
	}
	return index
}

// weightMap returns old with the added tensors, each after the one it is like.
func (r *Rewrite) weightMap(old *strictjson.Object) *strictjson.Object {
	added := map[string][]string{}
	for _, f := range r.files {
		like := ""
		for _, t := range f.tensors {
			if _, ok := r.c.Tensor(t.Name); ok {
				like = t.Name
				continue
			}
			added[like] = append(added[like], t.Name)
		}
	}
	m := strictjson.NewObject()
	for _, name := range old.Keys {
		file, _ := old.Get(name)
		m.Set(name, file)
		for _, a := range added[name] {
			m.Set(a, file)
		}
	}
	return m
}

// largerBy returns the index's metadata with bytes more, or fewer, in total_size.
func largerBy(old *strictjson.Object, bytes int64) *strictjson.Object {
	m := strictjson.NewObject()
	for _, key := range old.Keys {
		v, _ := old.Get(key)
		if n, ok := v.(json.Number); ok && key == "total_size" && bytes != 0 {
			const most = 1 << 53 // whole numbers up to here are exact, also where the file has 1.3e10
			if size, err := n.Float64(); err == nil && size == math.Trunc(size) && math.Abs(size) < most {
				v = json.Number(strconv.FormatInt(int64(size)+bytes, 10))
			}
		}
		m.Set(key, v)
	}
	return m
}
