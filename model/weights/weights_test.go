package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
)

// f32 makes a tensor of values in the given format.
func source(name string, d numeric.DType, shape []int, values ...float32) safetensors.Source {
	data := make([]byte, len(values)*d.Size())
	encode(data, d, values)
	return safetensors.Source{Name: name, DType: d, Shape: shape, Data: data}
}

func writeShard(t *testing.T, dir, file string, tensors ...safetensors.Source) {
	t.Helper()
	if err := safetensors.WriteFile(filepath.Join(dir, file), tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, dir, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sharded makes a checkpoint of two shards.
func sharded(t *testing.T) string {
	dir := t.TempDir()
	writeShard(t, dir, "model-00001-of-00002.safetensors",
		source("embed", numeric.BF16, []int{3, 2}, 1, 2, 3, 4, 5, 6),
		source("norm", numeric.F32, []int{2}, 0.1, 0.2))
	writeShard(t, dir, "model-00002-of-00002.safetensors",
		source("w", numeric.F16, []int{2, 2}, 1, 2, 3, 4),
		safetensors.Source{Name: "ids", DType: numeric.I64, Shape: []int{1}, Data: make([]byte, 8)})
	writeFile(t, dir, IndexFile, `{
  "metadata": {"total_parameters": 13, "total_size": 36},
  "weight_map": {
    "embed": "model-00001-of-00002.safetensors",
    "ids": "model-00002-of-00002.safetensors",
    "norm": "model-00001-of-00002.safetensors",
    "w": "model-00002-of-00002.safetensors"
  }
}`)
	return dir
}

func open(t *testing.T, dir string) *Checkpoint {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func values(t *testing.T, c *Checkpoint, name string) []float32 {
	t.Helper()
	x, ok := c.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	v := make([]float32, x.Len())
	if err := x.Elements(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSharded(t *testing.T) {
	dir := sharded(t)
	c := open(t, dir)
	if got, want := c.Names(), []string{"embed", "norm", "w", "ids"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	first, second := filepath.Join(dir, "model-00001-of-00002.safetensors"), filepath.Join(dir, "model-00002-of-00002.safetensors")
	if got, want := c.Files(), []string{first, second}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	w, ok := c.Tensor("w")
	if !ok || w.DType != numeric.F16 || w.Type != "F16" || !slices.Equal(w.Shape, []int{2, 2}) || w.File != second || len(w.Data) != 8 {
		t.Errorf("w is %+v", w)
	}
	if _, ok := c.Tensor("W"); ok {
		t.Error("names differ by case")
	}
	if got, want := values(t, c, "embed"), []float32{1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("embed is %v, want %v", got, want)
	}
	if got := c.Bytes(); got != 36 {
		t.Errorf("%d bytes, want 36", got)
	}
	if c.Dir() != dir {
		t.Errorf("directory %q, want %q", c.Dir(), dir)
	}
	n := 0
	for range c.All() {
		n++
	}
	if n != 4 {
		t.Errorf("%d tensors, want 4", n)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
}

func TestSingleFileRules(t *testing.T) {
	dir := sharded(t)
	writeShard(t, dir, SingleFile, source("a", numeric.F32, nil, 7))
	c := open(t, dir)
	if got := c.Names(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("names %q", got)
	}
	if got := values(t, c, "a"); !slices.Equal(got, []float32{7}) {
		t.Errorf("a is %v", got)
	}
}

// A tensor that the index leaves out counts; of two with one name the index picks one.
func TestTensorsBesideTheIndex(t *testing.T) {
	dir := t.TempDir()
	writeShard(t, dir, "a.safetensors", source("x", numeric.F32, nil, 1), source("extra", numeric.F32, nil, 2))
	writeShard(t, dir, "b.safetensors", source("x", numeric.F32, nil, 3), source("y", numeric.F32, nil, 4))
	writeFile(t, dir, IndexFile, `{"weight_map": {"x": "b.safetensors", "y": "b.safetensors", "extra": "a.safetensors"}}`)
	c := open(t, dir)
	if got, want := c.Names(), []string{"extra", "x", "y"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := values(t, c, "x"); got[0] != 3 {
		t.Errorf("x is %v, want that of b", got)
	}
	writeFile(t, dir, IndexFile, `{"weight_map": {"y": "b.safetensors", "extra": "a.safetensors"}}`)
	a, b := filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.safetensors")
	want := b + ": tensor x is in " + a + " too, and " + IndexFile + " does not say which counts"
	if _, err := Open(dir); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestOpenErrors(t *testing.T) {
	const good = "a.safetensors"
	const noWeightsText = "%s: no weights: neither model.safetensors nor pytorch_model.bin, each in one file or with an index, nor Meta's consolidated files, nor a .gguf file: file does not exist"
	type files map[string]string
	for name, c := range map[string]struct {
		files files
		want  string // %s: the directory
	}{
		"nothing":            {files{"config.json": "{}"}, noWeightsText},
		"other formats":      {files{"tf_model.h5": "", "model-00001-of-00002.safetensors": "", "flax_model.msgpack": "", "x.ckpt": ""}, noWeightsText + "; found flax_model.msgpack, model-00001-of-00002.safetensors, tf_model.h5 and 1 more, which is not read under such a name"},
		"half a download":    {files{"model.safetensors.incomplete": ""}, noWeightsText + "; found model.safetensors.incomplete: a download that has not ended"},
		"adapter":            {files{"adapter_model.safetensors": ""}, noWeightsText + "; found adapter_model.safetensors, which is not read under such a name"},
		"truncated":          {files{SingleFile: "abc"}, "%s/model.safetensors: not a safetensors file: 3 bytes, want at least 8"},
		"bad index":          {files{IndexFile: "{\n\"weight_map\": x}"}, "%s/model.safetensors.index.json: line 2, byte 16: want a value, got 'x'"},
		"key twice":          {files{IndexFile: `{"weight_map": {"a": "a", "a": "b"}}`}, `%s/model.safetensors.index.json: line 1, byte 26: key "a" is there twice`},
		"no map":             {files{IndexFile: `{"metadata": {}}`}, "%s/model.safetensors.index.json: weight_map is missing"},
		"map is a list":      {files{IndexFile: `{"weight_map": []}`}, "%s/model.safetensors.index.json: weight_map: want an object, got an array"},
		"empty map":          {files{IndexFile: `{"weight_map": {}}`}, "%s/model.safetensors.index.json: weight_map is empty"},
		"file is null":       {files{IndexFile: `{"weight_map": {"a": null, "b": 1}}`}, "%[1]s/model.safetensors.index.json: weight_map: \"a\": want a file name, got null\nweight_map: \"b\": want a file name, got the number 1"},
		"outside":            {files{IndexFile: `{"weight_map": {"a": "../a.safetensors", "b": "../a.safetensors"}}`}, `%s/model.safetensors.index.json: weight_map: "a": "../a.safetensors" is not a plain file name`},
		"absolute":           {files{IndexFile: `{"weight_map": {"a": "/a.safetensors"}}`}, `%s/model.safetensors.index.json: weight_map: "a": "/a.safetensors" is not a plain file name`},
		"backslash":          {files{IndexFile: `{"weight_map": {"a": "b\\a.safetensors"}}`}, `%s/model.safetensors.index.json: weight_map: "a": "b\\a.safetensors" is not a plain file name`},
		"empty name":         {files{IndexFile: `{"weight_map": {"a": ""}}`}, `%s/model.safetensors.index.json: weight_map: "a": "" is not a plain file name`},
		"pickled shard":      {files{IndexFile: `{"weight_map": {"a": "a.bin"}}`}, `%s/model.safetensors.index.json: weight_map: "a": "a.bin" is not a .safetensors file`},
		"missing shards":     {files{IndexFile: `{"weight_map": {"1": "b.safetensors", "2": "b.safetensors", "3": "c.safetensors", "4": "b.safetensors", "5": "b.safetensors", "6": "b.safetensors"}}`}, "%[1]s/b.safetensors is missing; model.safetensors.index.json says that it holds 1, 2, 4 and 2 more\n%[1]s/c.safetensors is missing; model.safetensors.index.json says that it holds 3"},
		"missing tensor":     {files{IndexFile: `{"weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}`}, "%[1]s/a.safetensors does not hold y, though model.safetensors.index.json says so"},
		"one shard is wrong": {files{IndexFile: `{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}`, "b.safetensors": ""}, "%[1]s/b.safetensors: not a safetensors file: 0 bytes, want at least 8"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if strings.Contains(c.files[IndexFile], good) {
				writeShard(t, dir, good, source("x", numeric.F32, nil, 1))
			}
			for file, text := range c.files {
				writeFile(t, dir, file, text)
			}
			want := strings.NewReplacer("%[1]s", dir, "%s", dir).Replace(c.want)
			got, err := Open(dir)
			if err == nil || err.Error() != want || got != nil {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRows(t *testing.T) {
	want := []float32{1.5, -2, 0, 65504, 0.25, -0.0078125}
	for _, d := range []numeric.DType{numeric.F32, numeric.F16, numeric.BF16, numeric.F64} {
		v := slices.Clone(want)
		if d == numeric.BF16 {
			v[3] = 65536 // 65504 has too many bits
		}
		s := source("a", d, []int{3, 1, 2}, v...)
		// An odd address, as a header of odd length makes it.
		data := append([]byte{0}, s.Data...)[1:]
		a := Tensor{Name: "a", DType: d, Type: d.String(), Shape: s.Shape, Data: data, File: "f"}
		for from := 0; from <= 3; from++ {
			for to := from; to <= 3; to++ {
				got := make([]float32, 2*(to-from))
				if err := a.Rows(got, from, to); err != nil || !slices.Equal(got, v[2*from:2*to]) {
					t.Errorf("%v: rows [%d, %d) are %v, %v, want %v", d, from, to, got, err, v[2*from:2*to])
				}
			}
		}
		got := make([]float32, 3)
		if err := a.Elements(got, 2); err != nil || !slices.Equal(got, v[2:5]) {
			t.Errorf("%v: elements are %v, %v", d, got, err)
		}
		for msg, err := range map[string]error{
			"f: tensor a: rows [2, 4) are asked for, there are 3":           a.Rows(make([]float32, 4), 2, 4),
			"f: tensor a: rows [-1, 1) are asked for, there are 3":          a.Rows(make([]float32, 4), -1, 1),
			"f: tensor a: rows [2, 1) are asked for, there are 3":           a.Rows(nil, 2, 1),
			"f: tensor a: rows [0, 1) have 2 elements, there is room for 3": a.Rows(make([]float32, 3), 0, 1),
			"f: tensor a: elements [5, 7) are asked for, there are 6":       a.Elements(make([]float32, 2), 5),
			"f: tensor a: elements [-1, 1) are asked for, there are 6":      a.Elements(make([]float32, 2), -1),
		} {
			if err == nil || err.Error() != msg {
				t.Errorf("%v: got %v, want %s", d, err, msg)
			}
		}
	}
	ids := Tensor{Name: "a", Type: "F8_E4M3", Shape: []int{1}, Data: []byte{1}, File: "f"}
	if err := ids.Rows(make([]float32, 1), 0, 1); err == nil || err.Error() != "f: tensor a: F8_E4M3 cannot be read as floating point" {
		t.Error(err)
	}
}

func TestF64RoundsToNearest(t *testing.T) {
	data := binary.LittleEndian.AppendUint64(nil, math.Float64bits(1+3*math.Exp2(-24)))
	a := Tensor{DType: numeric.F64, Data: data}
	v := make([]float32, 1)
	if err := a.Elements(v, 0); err != nil || v[0] != 1+math.Float32frombits(0x34800000) {
		t.Errorf("%v, %v", v, err)
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		shape      []int
		rows, cols int
	}{{nil, 1, 1}, {[]int{5}, 5, 1}, {[]int{5, 3}, 5, 3}, {[]int{5, 3, 2}, 5, 6}, {[]int{0, 3}, 0, 3}, {[]int{3, 0}, 3, 0}} {
		a := Tensor{Shape: c.shape}
		if rows, cols := a.Size(); rows != c.rows || cols != c.cols || a.Len() != rows*cols {
			t.Errorf("%v: %d, %d", c.shape, rows, cols)
		}
	}
}

func TestCheckFinite(t *testing.T) {
	inf := float32(math.Inf(-1))
	nan := float32(math.NaN())
	for _, d := range []numeric.DType{numeric.F32, numeric.F16, numeric.BF16, numeric.F64} {
		for want, v := range map[string][]float32{
			"": {1, -65504, 0, 6e-8},
			"f: tensor a: element 2 ([1 0] of [2 2]) is -Inf": {1, 2, inf, nan},
			"f: tensor a: element 3 ([1 1] of [2 2]) is NaN":  {1, 2, 3, nan},
		} {
			s := source("a", d, []int{2, 2}, v...)
			err := Tensor{Name: "a", DType: d, Shape: s.Shape, Data: s.Data, File: "f"}.CheckFinite()
			if (err == nil) != (want == "") || err != nil && err.Error() != want {
				t.Errorf("%v: got %v, want %q", d, err, want)
			}
		}
	}
	if err := (Tensor{DType: numeric.I16, Shape: []int{1}, Data: []byte{0xff, 0xff}}).CheckFinite(); err != nil {
		t.Error(err)
	}
}

// Reading an index never panics, and names only files beside it.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map": {"a": "../x.safetensors", "b": "/etc/x.safetensors", "c": "..\\x.safetensors", "d": ".safetensors"}}`))
	f.Add([]byte(`{"weight_map": {"a": 1}}`))
	f.Add([]byte(`{"weight_map": []}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want map[string][]string
		var err error
		hostile.Bounded(t, len(data), 500, func() {
			var o *strictjson.Object
			if o, err = strictjson.ParseObject(data); err == nil {
				want, err = parseIndex(o, ".safetensors")
			}
		})
		if err != nil {
			return
		}
		n := 0
		for file, names := range want {
			n += len(names)
			if filepath.Base(file) != file || !filepath.IsLocal(file) {
				t.Fatalf("the index may name %q", file)
			}
		}
		var plain struct {
			Map map[string]string `json:"weight_map"`
		}
		if err := json.Unmarshal(data, &plain); err != nil && n != 0 {
			t.Fatal(err)
		}
		if got := owners(want); len(got) != n || n == 0 {
			t.Fatalf("%d tensors of %d", len(got), n)
		} else if len(plain.Map) == n && !reflect.DeepEqual(got, plain.Map) {
			t.Fatalf("%v, want %v", got, plain.Map)
		}
	})
}

func BenchmarkRows(b *testing.B) {
	for _, d := range []numeric.DType{numeric.F32, numeric.BF16, numeric.F16} {
		b.Run(d.String(), func(b *testing.B) {
			a := Tensor{DType: d, Shape: []int{1 << 10, 1 << 10}, Data: make([]byte, d.Size()<<20)}
			v := make([]float32, 1<<20)
			b.SetBytes(int64(len(a.Data)))
			for range b.N {
				if err := a.Rows(v, 0, 1<<10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
