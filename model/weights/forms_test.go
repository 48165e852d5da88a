package weights

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
)

// forms are the folders of testdata/weights that hold one model, how Format calls them, and how many of the tensors
// cannot be used in place.
var forms = map[string]struct {
	format    string
	converted int
}{
	"base": {Safetensors, 0}, "sharded": {Safetensors, 0},
	"zip": {Pickle, 0}, "legacy": {Pickle, 0}, "sharded-bin": {Pickle, 0}, "module": {Pickle, 0},
	"strided": {Pickle, 14}, "f64": {Pickle, 21},
	"meta": {Meta, 4}, "meta-2": {Meta, 16}, "meta-2-scaled": {Meta, 16}, "mistral": {Meta, 4},
	"gguf-f32": {GGUF, 4}, "gguf-f16": {GGUF, 4}, "gguf-bf16": {GGUF, 4},
}

func formPath(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(golden.Root(t), "testdata", "weights", name)
}

// The same model in every form that PyTorch, Transformers and the Python package gguf write has the same tensors, bit for
// bit, before and after Prepare.
func TestForms(t *testing.T) {
	base := open(t, formPath(t, "base"))
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			c := open(t, formPath(t, name))
			if c.Format() != form.format || len(c.Files()) == 0 || c.Dir() != formPath(t, name) {
				t.Errorf("%s of %q in %s", c.Format(), c.Files(), c.Dir())
			}
			if got, want := slices.Sorted(slices.Values(c.Names())), slices.Sorted(slices.Values(base.Names())); !slices.Equal(got, want) {
				t.Fatalf("tensors %q\nwant %q", got, want)
			}
			converted := 0
			for x := range c.All() {
				if x.Data == nil || x.DType == numeric.F64 {
					converted++
				}
				if n := int64(x.Len() * x.DType.Size()); x.Bytes() != n && x.Bytes() != 2*n && len(c.Files()) == 1 {
					t.Errorf("%s takes %d bytes, want %d", x.Name, x.Bytes(), n)
				}
				checkSame(t, base, c, x.Name)
			}
			if converted != form.converted {
				t.Errorf("%d tensors cannot be used in place, want %d", converted, form.converted)
			}
			before := map[string]numeric.DType{}
			for x := range c.All() {
				before[x.Name] = x.DType
			}
			for range 2 {
				if err := c.Prepare(context.Background(), PrepareOptions{DType: numeric.BF16, CacheDir: "/nonexistent"}); err != nil {
					t.Fatal(err)
				}
			}
			for x := range c.All() {
				want := before[x.Name]
				if want == numeric.F64 {
					want = numeric.F32
				}
				if x.DType != want || len(x.Data) != x.Len()*x.DType.Size() {
					t.Errorf("%s is %v with %d bytes", x.Name, x.DType, len(x.Data))
				}
				checkSame(t, base, c, x.Name)
			}
			if cacheOf(c) != "" {
				t.Errorf("a cache of %s for a few kB", cacheOf(c))
			}
		})
	}
}

// checkSame compares a tensor of two checkpoints: all of it at once, by rows, and by odd pieces.
func checkSame(t *testing.T, base, c *Checkpoint, name string) {
	t.Helper()
	x, _ := c.Tensor(name)
	b, _ := base.Tensor(name)
	want, got := values(t, base, name), values(t, c, name)
	if !slices.Equal(x.Shape, b.Shape) || !slices.Equal(got, want) {
		t.Fatalf("%s is %v %v\nwant %v %v", name, x.Shape, got, b.Shape, want)
	}
	rows, cols := x.Size()
	clear(got)
	for i := range rows {
		if err := x.Rows(got[i*cols:][:cols], i, i+1); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s differs row by row", name)
	}
	for from := 0; from < len(want); from += 7 {
		piece := make([]float32, min(11, len(want)-from))
		if err := x.Elements(piece, from); err != nil || !slices.Equal(piece, want[from:][:len(piece)]) {
			t.Fatalf("%s: elements from %d are %v, %v, want %v", name, from, piece, err, want[from:][:len(piece)])
		}
	}
	if err := x.CheckFinite(); err != nil {
		t.Error(err)
	}
}

// Quantised tensors are what the Python package gguf makes of them, with the rows of queries and keys in their places.
func TestQuantised(t *testing.T) {
	var want map[string]string
	data, err := os.ReadFile(formPath(t, "hashes.json"))
	if err == nil {
		err = json.Unmarshal(data, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(formPath(t, "quantised"), "tiny.gguf")
	for _, path := range []string{formPath(t, "quantised"), file} {
		c := open(t, path)
		if len(want) != len(c.Names()) || c.Path() != path || c.Dir() != formPath(t, "quantised") {
			t.Errorf("%d tensors, want %d, of %s in %s", len(c.Names()), len(want), c.Path(), c.Dir())
		}
		for _, prepared := range []bool{false, true} {
			for name, hash := range want {
				if x, _ := c.Tensor(name); prepared != (x.Data != nil) && len(x.Shape) > 1 {
					t.Errorf("%s: prepared %v, in place %v", name, prepared, x.Data != nil)
				}
				sum := sha256.Sum256(raw(values(t, c, name)))
				if hex.EncodeToString(sum[:]) != hash {
					t.Errorf("%s is not what gguf makes of it (prepared: %v)", name, prepared)
				}
			}
			if err := c.Prepare(context.Background(), PrepareOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// As BF16 all matrices but the embedding are rounded; the others are exact.
func TestQuantisedAsBF16(t *testing.T) {
	exact, c := open(t, formPath(t, "quantised")), open(t, formPath(t, "quantised"))
	if err := c.Prepare(context.Background(), PrepareOptions{DType: numeric.BF16}); err != nil {
		t.Fatal(err)
	}
	rounded := 0
	for x := range c.All() {
		want := values(t, exact, x.Name)
		if len(x.Shape) == 2 && x.Name != embedName {
			rounded++
			if x.DType != numeric.BF16 {
				t.Errorf("%s is %v", x.Name, x.DType)
			}
			for i, v := range want {
				want[i] = numeric.BF16ToF32(numeric.F32ToBF16(v))
			}
		} else if x.DType != numeric.F32 {
			t.Errorf("%s is %v", x.Name, x.DType)
		}
		if !slices.Equal(values(t, c, x.Name), want) {
			t.Errorf("%s is not rounded to nearest", x.Name)
		}
	}
	if rounded != 22 {
		t.Errorf("%d matrices are rounded", rounded)
	}
	err := open(t, formPath(t, "quantised")).Prepare(context.Background(), PrepareOptions{DType: numeric.F16})
	if err == nil || err.Error() != "tensors can be prepared as F32 or BF16, not as F16" {
		t.Error(err)
	}
}

// Only what is wanted is converted.
func TestPrepareNames(t *testing.T) {
	c := open(t, formPath(t, "quantised"))
	o := PrepareOptions{Names: []string{headName, "model.layers.1.mlp.down_proj.weight", "nothing"}}
	if n, err := c.Unprepared(o); n != 4*(24*32+32*256) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := c.Prepare(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	for x := range c.All() {
		if (x.Data != nil) != (slices.Contains(o.Names, x.Name) || len(x.Shape) == 1) {
			t.Errorf("%s: in place %v", x.Name, x.Data != nil)
		}
	}
}

// What is made of params.json and of a GGUF file's metadata.
func TestMadeConfig(t *testing.T) {
	for name, want := range map[string]string{
		"meta": `{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":20,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
			"num_attention_heads":4,"num_key_value_heads":2,"head_dim":4,"hidden_act":"silu","rms_norm_eps":1e-05,"rope_theta":10000.0,
			"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":[2],"torch_dtype":"bfloat16"}`,
		"meta-2-scaled": `{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":20,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
			"num_attention_heads":4,"num_key_value_heads":2,"head_dim":4,"hidden_act":"silu","rms_norm_eps":1e-05,"rope_theta":500000.0,"max_position_embeddings":131072,
			"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192},
			"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":[2],"torch_dtype":"bfloat16"}`,
		"mistral": `{"architectures":["MistralForCausalLM"],"model_type":"mistral","vocab_size":20,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
			"num_attention_heads":4,"num_key_value_heads":2,"head_dim":4,"hidden_act":"silu","rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":null,
			"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":[2],"torch_dtype":"bfloat16"}`,
		"gguf-f16": `{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":20,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
			"num_attention_heads":4,"num_key_value_heads":2,"head_dim":4,"hidden_act":"silu","max_position_embeddings":64,"rms_norm_eps":1e-05,
			"tie_word_embeddings":false,"torch_dtype":"float16","rope_theta":10000,"attention_bias":false,"mlp_bias":false,"bos_token_id":1,"eos_token_id":[2]}`,
		"quantised": `{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":24,"hidden_size":32,"intermediate_size":256,"num_hidden_layers":3,
			"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"hidden_act":"silu","max_position_embeddings":131072,"rms_norm_eps":1e-05,
			"tie_word_embeddings":false,"rope_theta":500000,
			"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192},
			"attention_bias":false,"mlp_bias":false,"bos_token_id":1,"eos_token_id":[2,3]}`,
	} {
		o, err := strictjson.ParseObject([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		c := open(t, formPath(t, name))
		got, path, err := c.Config()
		if err != nil || filepath.Dir(path) != c.Dir() {
			t.Fatal(path, err)
		}
		if a, b := strictjson.Format(got), strictjson.Format(o); string(a) != string(b) {
			t.Errorf("%s: %s\nwant %s", name, a, b)
		}
		if len(c.Warnings()) != 0 {
			t.Errorf("%s: warnings %q", name, c.Warnings())
		}
	}
	o, path, err := open(t, formPath(t, "zip")).Config()
	if err != nil || path != filepath.Join(formPath(t, "zip"), ConfigFile) {
		t.Error(path, err)
	} else if v, _ := o.Get("hidden_size"); v != json.Number("16") {
		t.Errorf("hidden_size %v", v)
	}
}
