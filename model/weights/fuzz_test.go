package weights

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
)

// Whatever params.json says, it is refused with the file's name, or its sizes are such that nothing overflows.
func FuzzParams(f *testing.F) {
	for _, form := range []string{"meta", "meta-2-scaled", "mistral"} {
		data, err := os.ReadFile(filepath.Join(formPath(f, form), ParamsFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(testParams))
	f.Add([]byte(`{"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-05, "vocab_size": -1}`))
	f.Add([]byte(`{"dim": 1e9, "n_layers": 2147483647, "n_heads": 1, "multiple_of": 2147483647, "ffn_dim_multiplier": 1e308, "sliding_window": 1, "x": {}, "y": 1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := strictjson.ParseObject(data)
		if err != nil {
			return
		}
		p, err := parseParams(o, "params.json")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "params.json: ") {
				t.Fatalf("the file is not named: %v", err)
			}
			return
		}
		if p.heads*p.headDim <= 0 || p.headDim%2 != 0 || p.heads%p.kvHeads != 0 || (p.multipleOf > 0 || p.hiddenDim > 0) && p.ffn() <= 0 {
			t.Fatalf("%+v", p)
		}
		c := &Checkpoint{dir: "dir", byName: map[string]int{}}
		if err := p.fit(c); err == nil {
			t.Fatal("it fits a checkpoint without tensors")
		}
		for _, x := range []Tensor{{Name: embedName, DType: numeric.F32, Shape: []int{max(1, p.vocab), p.dim}}, {Name: "model.layers.0.mlp.gate_proj.weight", DType: numeric.F32, Shape: []int{7, p.dim}}} {
			if err := c.add(x); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.fit(c); err != nil && !strings.Contains(err.Error(), "its numbers give an inner layer of ") {
			t.Fatal(err)
		}
		made := strictjson.Format(p.config(c))
		if again, err := strictjson.ParseObject(made); err != nil || len(again.Keys) < 15 {
			t.Fatalf("%s: %v", made, err)
		}
	})
}

// A name of Meta's or llama.cpp's becomes one of Hugging Face's, or stays; no two become the same.
func FuzzMeta(f *testing.F) {
	for name := range metaTensors() {
		f.Add(name, "layers.00.attention.wq.weight")
	}
	for _, name := range []string{"blk.0.attn_q.weight", "blk.12.ffn_down.bias", "blk.0.attn_norm.bias", "token_embd.weight", "blk.+1.attn_q.weight", "blk..attn_q.weight"} {
		f.Add(name, "blk.1.attn_q.bias.weight")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, rename := range []func(string) (string, role){metaName, ggufName} {
			x, r := rename(a)
			y, _ := rename(b)
			if known := strings.HasPrefix(x, "model.") || x == headName; r != other && r != dropped && !known || (r == other || r == dropped) && x != a {
				t.Fatalf("%q becomes %q with role %d", a, x, r)
			}
			if a != b && x == y && x != a && y != b {
				t.Fatalf("%q and %q become %q", a, b, x)
			}
		}
		set, err := metaFiles([]string{a, b})
		if err == nil && len(set.parts) > 2 {
			t.Fatalf("%q of two files", set.parts)
		}
		if name, err := ggufFile([]string{a, b}); err == nil && name != "" && name != a && name != b {
			t.Fatalf("%q of %q and %q", name, a, b)
		} else if name != "" {
			files, err := ggufFiles(name)
			if err == nil && (len(files) == 0 || files[0] != name || len(files) > maxShards) {
				t.Fatalf("%q consists of %q", name, files)
			}
		}
	})
}

// Metadata is refused with the file's name, or becomes a configuration with sane heads.
func FuzzGGUFConfig(f *testing.F) {
	meta, tensors := ggufModel()
	scaled := append(slices.Clone(meta), gguf.KeyValue{Key: "llama.rope.scaling.type", Value: "yarn"},
		gguf.KeyValue{Key: "llama.rope.scaling.factor", Value: float32(4)}, gguf.KeyValue{Key: "tokenizer.ggml.eos_token_id", Value: uint32(2)},
		gguf.KeyValue{Key: "llama.attention.sliding_window", Value: uint32(2)}, gguf.KeyValue{Key: "llama.odd", Value: "x"})
	for _, kv := range [][]gguf.KeyValue{meta, scaled} {
		var b bytes.Buffer
		blocks := append(slices.Clone(tensors), gguf.Source{Name: "blk.0.ffn_down.weight", Type: gguf.Q8_0, Shape: []int{1, 32}, Data: make([]byte, 34)})
		if err := gguf.Write(&b, kv, blocks); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := gguf.Parse(data, "x.gguf")
		if err != nil {
			return
		}
		c := &Checkpoint{path: "x.gguf", dir: ".", byName: map[string]int{}, format: GGUF}
		if err := c.addGGUF([]*gguf.File{file}); err != nil {
			if !strings.HasPrefix(err.Error(), "x.gguf: ") {
				t.Fatalf("the file is not named: %v", err)
			}
			return
		}
		o, path, err := c.Config()
		if path != "x.gguf" || err != nil && !strings.HasPrefix(err.Error(), "x.gguf: ") {
			t.Fatalf("the file is not named: %s, %v", path, err)
		}
		if err == nil {
			if made := strictjson.Format(o); len(made) > 1<<16 {
				t.Fatalf("%d bytes of configuration", len(made))
			}
		}
		for x := range c.All() {
			if !x.DType.Float() {
				continue
			}
			v := make([]float32, x.Len())
			if err := x.Elements(v, 0); err != nil && x.DType != numeric.F64 {
				t.Fatal(err)
			}
		}
	})
}
