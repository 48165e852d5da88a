package weights

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
)

// constant is a Change that fills a tensor of cols columns with v.
func constant(v float32) func([]float32, int, int) error {
	return func(dst []float32, from, to int) error {
		for i := range dst {
			dst[i] = v
		}
		return nil
	}
}

// rewrite plans and writes a copy.
func rewrite(ctx context.Context, c *Checkpoint, out string, changes []Change) error {
	r, err := c.Rewrite(changes, numeric.Invalid)
	if err != nil {
		return err
	}
	return r.Write(ctx, out)
}

func TestRewrite(t *testing.T) {
	dir, out := sharded(t), t.TempDir()
	c := open(t, dir)
	var calls [][2]int
	err := rewrite(context.Background(), c, out, []Change{
		{Name: "w", Rows: func(dst []float32, from, to int) error {
			calls = append(calls, [2]int{from, to})
			copy(dst, []float32{1 + math.Float32frombits(0x3a000000), 1 + 3*math.Float32frombits(0x3a000000), -7, 0})
			return nil
		}},
		{Name: "head", Like: "embed", Rows: constant(2)},
		{Name: "norm", Like: "embed", Rows: constant(3)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(calls, [][2]int{{0, 2}}) {
		t.Errorf("rows were asked for as %v", calls)
	}
	n := open(t, out)
	if got, want := n.Names(), []string{"embed", "head", "norm", "w", "ids"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	// 1 + 2^-11 lies between 1 and 1 + 2^-10 in F16 and goes to the even one, 1 + 3 * 2^-11 to 1 + 2^-9.
	for name, want := range map[string][]float32{
		"embed": {1, 2, 3, 4, 5, 6}, "head": {2, 2, 2, 2, 2, 2}, "norm": {3, 3}, "w": {1, 1 + math.Float32frombits(0x3b000000), -7, 0},
	} {
		if got := values(t, n, name); !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
		before, ok := c.Tensor(name)
		if after, _ := n.Tensor(name); ok && (after.DType != before.DType || !slices.Equal(after.Shape, before.Shape)) {
			t.Errorf("%s became %v %v", name, after.DType, after.Shape)
		}
	}
	index, err := os.ReadFile(filepath.Join(out, IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "metadata": {
    "total_parameters": 13,
    "total_size": 48
  },
  "weight_map": {
    "embed": "model-00001-of-00002.safetensors",
    "head": "model-00001-of-00002.safetensors",
    "ids": "model-00002-of-00002.safetensors",
    "norm": "model-00001-of-00002.safetensors",
    "w": "model-00002-of-00002.safetensors"
  }
}
`
	if string(index) != want {
		t.Errorf("index\n%s\nwant\n%s", index, want)
	}
	var names []string
	entries, _ := os.ReadDir(out)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	r, err := c.Rewrite([]Change{{Name: "head", Like: "embed", Rows: constant(2)}}, numeric.Invalid)
	if err != nil {
		t.Fatal(err)
	}
	outputs := r.Files()
	slices.Sort(outputs)
	if !slices.Equal(names, outputs) {
		t.Errorf("wrote %q, Files says %q", names, outputs)
	}
}

func TestRewriteUnchangedIsTheSame(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	writeShard(t, dir, SingleFile, source("a", numeric.F64, []int{2}, 1, 2), source("b", numeric.F16, []int{0, 3}))
	if err := rewrite(context.Background(), open(t, dir), out, nil); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(filepath.Join(dir, SingleFile))
	if got, err := os.ReadFile(filepath.Join(out, SingleFile)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if entries, _ := os.ReadDir(out); len(entries) != 1 {
		t.Errorf("wrote %v", entries)
	}
}

// A tensor of several blocks comes in ascending rows that cover it once.
func TestRewriteInBlocks(t *testing.T) {
	const rows, cols = 1000, 1000
	dir, out := t.TempDir(), t.TempDir()
	writeShard(t, dir, SingleFile, source("a", numeric.BF16, []int{rows, cols}, make([]float32, rows*cols)...))
	c := open(t, dir)
	next := 0
	change := Change{Name: "a", Rows: func(dst []float32, from, to int) error {
		if from != next || len(dst) != (to-from)*cols {
			t.Errorf("rows [%d, %d) into %d, want them from %d", from, to, len(dst), next)
		}
		next = to
		for i := range dst {
			dst[i] = float32((from + i/cols) % 256)
		}
		return nil
	}}
	if err := rewrite(context.Background(), c, out, []Change{change}); err != nil {
		t.Fatal(err)
	}
	got := values(t, open(t, out), "a")
	for i, v := range got {
		if v != float32(i/cols%256) {
			t.Fatalf("element %d is %v", i, v)
		}
	}
	// The first block is written, then the context ends.
	ctx, cancel := context.WithCancel(context.Background())
	change.Rows = func([]float32, int, int) error { cancel(); return nil }
	out = t.TempDir()
	if err := rewrite(ctx, c, out, []Change{change}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(out); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRewriteErrors(t *testing.T) {
	dir := sharded(t)
	c := open(t, dir)
	boom := errors.New("boom")
	nan := constant(float32(math.NaN()))
	first, second := filepath.Join(dir, "model-00001-of-00002.safetensors"), filepath.Join(dir, "model-00002-of-00002.safetensors")
	for _, e := range []struct {
		changes []Change
		want    string
	}{
		{[]Change{{Name: "x", Rows: nan}, {Name: "y", Like: "z", Rows: nan}, {Name: "ids", Rows: nan}, {Name: "w", Rows: nan}, {Name: "w", Rows: nan}},
			dir + ": there is no tensor x to change\n" + dir + ": there is no tensor y to change\n" + second + ": tensor ids: I64 cannot hold new values\ntensor w: changed twice"},
		{[]Change{{Name: "w", Rows: nan}}, second + ": tensor w: element 0 ([0 0] of [2 2]) is NaN"},
		{[]Change{{Name: "w", Rows: constant(65520)}}, second + ": tensor w: element 0 ([0 0] of [2 2]): 65520 does not fit F16"},
		{[]Change{{Name: "embed", Rows: constant(math.MaxFloat32)}}, first + ": tensor embed: element 0 ([0 0] of [3 2]): 3.4028235e+38 does not fit BF16"},
		{[]Change{{Name: "head", Like: "norm", Rows: constant(float32(math.Inf(1)))}}, first + ": tensor head: element 0 is +Inf"},
		{[]Change{{Name: "w", Rows: func([]float32, int, int) error { return boom }}}, "boom"},
	} {
		out := t.TempDir()
		err := rewrite(context.Background(), c, out, e.changes)
		if err == nil || !strings.HasSuffix(err.Error(), e.want) {
			t.Errorf("got  %v\nwant %s", err, e.want)
		}
	}
	if err := rewrite(context.Background(), c, filepath.Join(dir, "."), nil); err == nil || err.Error() != dir+": cannot be written into itself" {
		t.Error(err)
	}
	if err := rewrite(context.Background(), c, filepath.Join(dir, "x"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	bad := t.TempDir()
	writeShard(t, bad, SingleFile, source("a", numeric.F32, []int{2}, 1, float32(math.Inf(1))))
	want := filepath.Join(bad, SingleFile) + ": tensor a: element 1 is +Inf"
	if err := rewrite(context.Background(), open(t, bad), t.TempDir(), nil); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// What is not in Hugging Face's form is cut into files of a limited size, with an index that tells what is where.
func TestRewriteIntoShards(t *testing.T) {
	c := open(t, formPath(t, "quantised"))
	r, err := c.Rewrite([]Change{{Name: "extra", Like: headName, Rows: constant(2)}}, numeric.Invalid)
	if err != nil {
		t.Fatal(err)
	}
	list := r.files[0].tensors
	if len(r.files) != 1 || r.index || r.files[0].name != SingleFile {
		t.Errorf("%q", r.Files())
	}
	r.files = nil
	r.newFiles(list, 20_000)
	names := r.Files()
	if len(names) < 5 || names[0] != fmt.Sprintf("model-00001-of-%05d.safetensors", len(names)-1) || names[len(names)-1] != IndexFile {
		t.Errorf("%q", names)
	}
	out := t.TempDir()
	if err := r.Write(context.Background(), out); err != nil {
		t.Fatal(err)
	}
	n := open(t, out)
	if len(n.Names()) != len(c.Names())+1 || n.Bytes() != r.Bytes() || len(n.Files()) != len(names)-1 {
		t.Errorf("%d tensors of %d bytes, want %d of %d", len(n.Names()), n.Bytes(), len(c.Names())+1, r.Bytes())
	}
	for _, f := range n.shards {
		var size int64
		for x := range f.All() {
			size += int64(len(x.Data))
		}
		if size > 20_000 && f.Len() > 1 || f.Metadata()["format"] != "pt" {
			t.Errorf("%s has %d bytes of tensors and metadata %q", f.Path(), size, f.Metadata())
		}
	}
	for x := range c.All() {
		want := values(t, c, x.Name)
		if y, _ := n.Tensor(x.Name); y.DType == numeric.BF16 {
			for i, v := range want {
				want[i] = numeric.BF16ToF32(numeric.F32ToBF16(v))
			}
		}
		if !slices.Equal(values(t, n, x.Name), want) {
			t.Errorf("%s changed", x.Name)
		}
	}
	v, _ := n.index.Get("metadata")
	if size, _ := v.(*strictjson.Object).Get("total_size"); size != json.Number(fmt.Sprint(r.Bytes())) {
		t.Errorf("total_size %v, want %d", size, r.Bytes())
	}
}

// Another format for all: files keep their names, the index tells the new size.
func TestRewriteToAnotherFormat(t *testing.T) {
	dir, out := sharded(t), t.TempDir()
	c := open(t, dir)
	r, err := c.Rewrite(nil, numeric.F32)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(context.Background(), out); err != nil {
		t.Fatal(err)
	}
	n := open(t, out)
	if !slices.Equal(n.Names(), c.Names()) || n.Bytes() != 4*(6+2+4)+8 {
		t.Errorf("%q of %d bytes", n.Names(), n.Bytes())
	}
	for _, name := range []string{"embed", "norm", "w"} {
		if x, _ := n.Tensor(name); x.DType != numeric.F32 || !slices.Equal(values(t, n, name), values(t, c, name)) {
			t.Errorf("%s is %v %v", name, x.DType, values(t, n, name))
		}
	}
	v, _ := n.index.Get("metadata")
	if size, _ := v.(*strictjson.Object).Get("total_size"); size != json.Number("56") {
		t.Errorf("total_size %v, want 56", size)
	}
	if _, err := c.Rewrite(nil, numeric.I8); err == nil || err.Error() != "I8 is not floating point" {
		t.Error(err)
	}
	big := t.TempDir()
	writeShard(t, big, SingleFile, source("a", numeric.F32, []int{2}, 1, 65520))
	if r, err = open(t, big).Rewrite(nil, numeric.F16); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(big, SingleFile) + ": tensor a: element 1: 65520 does not fit F16"
	if err := r.Write(context.Background(), t.TempDir()); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
