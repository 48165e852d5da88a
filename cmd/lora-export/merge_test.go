package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// The sizes of the test model.
const (
	vocab, hidden, inner, rank = 11, 8, 12, 2
	qProj, headName, embedName = "model.layers.0.self_attn.q_proj", "lm_head", "model.embed_tokens"
)

// base is a test model. Tensors without a file in shards lie in model.safetensors.
type base struct {
	dtype  numeric.DType
	tied   string // empty: not tied; else the name under which the one matrix is stored
	shards bool
	extra  map[string]string // more files
}

var random = rand.New(rand.NewPCG(1, 2))

func values(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(random.NormFloat64())
	}
	return v
}

func encode(d numeric.DType, v []float32) []byte {
	var b []byte
	for _, x := range v {
		switch d {
		case numeric.F32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		case numeric.F16:
			b = binary.LittleEndian.AppendUint16(b, numeric.F32ToF16(x))
		case numeric.BF16:
			b = binary.LittleEndian.AppendUint16(b, numeric.F32ToBF16(x))
		}
	}
	return b
}

func source(d numeric.DType, name string, v []float32, shape ...int) safetensors.Source {
	return safetensors.Source{Name: name, DType: d, Shape: shape, Data: encode(d, v)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes the checkpoint in a new directory.
func (b base) write(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "model")
	must(t, os.Mkdir(dir, 0o777))
	random := func(name string, shape ...int) safetensors.Source {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return source(b.dtype, name+".weight", values(n), shape...)
	}
	l := func(name string) string { return "model.layers.0." + name }
	first := []safetensors.Source{
		random(l("input_layernorm"), hidden), random(l("post_attention_layernorm"), hidden),
		random(l("self_attn.q_proj"), hidden, hidden), random(l("self_attn.k_proj"), hidden/2, hidden),
		random(l("self_attn.v_proj"), hidden/2, hidden), random(l("self_attn.o_proj"), hidden, hidden),
		random(l("mlp.gate_proj"), inner, hidden), random(l("mlp.up_proj"), inner, hidden), random(l("mlp.down_proj"), hidden, inner),
	}
	second := []safetensors.Source{random("model.norm", hidden)}
	for _, name := range []string{embedName, headName} {
		if b.tied == "" || b.tied == name {
			second = append(second, random(name, vocab, hidden))
		}
	}
	meta := map[string]string{"format": "pt"}
	if b.shards {
		must(t, safetensors.WriteFile(filepath.Join(dir, "model-00001-of-00002.safetensors"), first, meta))
		must(t, safetensors.WriteFile(filepath.Join(dir, "model-00002-of-00002.safetensors"), second, meta))
		files := map[string]string{}
		for i, list := range [][]safetensors.Source{first, second} {
			for _, s := range list {
				files[s.Name] = fmt.Sprintf("model-0000%d-of-00002.safetensors", i+1)
			}
		}
		text, err := json.Marshal(map[string]any{"metadata": map[string]int{"total_size": 1000}, "weight_map": files})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, weights.IndexFile), text, 0o666))
	} else {
		must(t, safetensors.WriteFile(filepath.Join(dir, weights.SingleFile), append(first, second...), meta))
	}
	files := map[string]string{
		"config.json": fmt.Sprintf(`{"model_type": "llama", "vocab_size": %d, "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 1,
			"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16, "tie_word_embeddings": %v, "rms_norm_eps": 1e-05}`,
			vocab, hidden, inner, b.tied != ""),
		"tokenizer.json": "{}", "LICENSE.txt": "free", "tf_model.h5": "old", "notes.txt": "mine",
	}
	maps.Copy(files, b.extra)
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
	}
	return dir
}

// adapter is a test adapter: its targets get random branches, what it saves random matrices.
type adapter struct {
	config string // more keys
	branch map[string][2]int
	whole  map[string][]float32
}

func (a adapter) write(t *testing.T) string {
	dir := t.TempDir()
	var list []safetensors.Source
	const prefix = "base_model.model."
	for _, name := range slices.Sorted(maps.Keys(a.branch)) {
		out, in := a.branch[name][0], a.branch[name][1]
		list = append(list, source(numeric.F32, prefix+name+".lora_A.weight", values(rank*in), rank, in),
			source(numeric.F32, prefix+name+".lora_B.weight", values(out*rank), out, rank))
	}
	for name, v := range a.whole {
		list = append(list, source(numeric.F32, prefix+name+".weight", v, vocab, hidden))
	}
	must(t, safetensors.WriteFile(filepath.Join(dir, "adapter_model.safetensors"), list, nil))
	text := fmt.Sprintf(`{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": %d, "lora_alpha": 3%s}`, rank, a.config)
	must(t, os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(text), 0o666))
	return dir
}

func qAdapter() adapter {
	return adapter{`, "target_modules": ["q_proj"]`, map[string][2]int{qProj: {hidden, hidden}}, nil}
}

// run carries out a command line and returns its exit code and what it printed.
func run(args ...string) (int, string, string) {
	var stdout, stderr bytes.Buffer
	code := program.Run(context.Background(), &commandLine{}, args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func mergeArgs(model, adapter, out string, more ...string) []string {
	return append([]string{"merge", "--model", model, "--adapter", adapter, "--out", out}, more...)
}

func mustMerge(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := run(args...)
	if code != cli.Done || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	return stdout
}

func openWeights(t *testing.T, dir string) *weights.Checkpoint {
	t.Helper()
	c, err := weights.Open(dir)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func matrix(t *testing.T, c *weights.Checkpoint, module string) []float32 {
	t.Helper()
	x, ok := c.Tensor(module + ".weight")
	if !ok {
		t.Fatalf("%s: no tensor %s", c.Dir(), module)
	}
	v := make([]float32, x.Len())
	must(t, x.Elements(v, 0))
	return v
}

// expect is W + alpha/r B A in float64, rounded to the format d.
func expect(t *testing.T, d numeric.DType, w []float32, adapterDir, module string, in int) []float32 {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(adapterDir, "adapter_model.safetensors"))
	must(t, err)
	defer f.Close()
	read := func(name string) []float32 {
		x, ok := f.Tensor("base_model.model." + module + name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		v := make([]float32, len(x.Data)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(x.Data[4*i:]))
		}
		return v
	}
	a, b := read(".lora_A.weight"), read(".lora_B.weight")
	sum := make([]float32, len(w))
	for i := range w {
		s := float64(w[i])
		for k := range rank {
			s += 1.5 * float64(b[i/in*rank+k]) * float64(a[k*in+i%in])
		}
		sum[i] = float32(s)
	}
	return round(d, sum)
}

func round(d numeric.DType, v []float32) []float32 {
	out := make([]float32, len(v))
	t := weights.Tensor{DType: d, Shape: []int{len(v)}, Data: encode(d, v)}
	if err := t.Elements(out, 0); err != nil {
		panic(err)
	}
	return out
}

// close compares within the rounding of the format.
func checkClose(t *testing.T, what string, got, want []float32, d numeric.DType) {
	t.Helper()
	ulp := map[numeric.DType]float64{numeric.F32: 1e-6, numeric.F16: 1e-3, numeric.BF16: 8e-3}[d]
	off := 0
	for i := range want {
		diff := math.Abs(float64(got[i]) - float64(want[i]))
		if diff > ulp*math.Abs(float64(want[i]))+1e-6 {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
		if diff != 0 {
			off++
		}
	}
	if d != numeric.F32 && off > len(want)/10 {
		t.Errorf("%s: %d of %d elements are not rounded to nearest", what, off, len(want))
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestMerge(t *testing.T) {
	for _, d := range []numeric.DType{numeric.F32, numeric.F16, numeric.BF16} {
		for _, shards := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v %v", d, shards), func(t *testing.T) {
				dir, ad := base{dtype: d, shards: shards}.write(t), adapter{
					`, "target_modules": ["q_proj", "down_proj", "lm_head"]`,
					map[string][2]int{qProj: {hidden, hidden}, "model.layers.0.mlp.down_proj": {hidden, inner}, headName: {vocab, hidden}}, nil}.write(t)
				out := filepath.Join(t.TempDir(), "a", "b")
				mustMerge(t, mergeArgs(dir, ad, out)...)
				before, after := openWeights(t, dir), openWeights(t, out)
				if !slices.Equal(before.Names(), after.Names()) {
					t.Errorf("tensors %q, want %q", after.Names(), before.Names())
				}
				for x := range before.All() {
					y, _ := after.Tensor(x.Name)
					if x.DType != y.DType || !slices.Equal(x.Shape, y.Shape) || filepath.Base(x.File) != filepath.Base(y.File) {
						t.Errorf("%s became %v %v in %s", x.Name, y.DType, y.Shape, y.File)
					}
					module := strings.TrimSuffix(x.Name, ".weight")
					switch module {
					case qProj, "model.layers.0.mlp.down_proj", headName:
						checkClose(t, module, matrix(t, after, module), expect(t, d, matrix(t, before, module), ad, module, x.Shape[1]), d)
					default:
						if !bytes.Equal(x.Data, y.Data) {
							t.Errorf("%s changed", x.Name)
						}
					}
				}
				want := []string{manifestName, "LICENSE.txt", "config.json"}
				if shards {
					want = append(want, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", weights.IndexFile)
				} else {
					want = append(want, weights.SingleFile)
				}
				if want = append(want, "tokenizer.json"); !slices.Equal(list(t, out), want) {
					t.Errorf("wrote %q, want %q", list(t, out), want)
				}
				for _, name := range []string{"config.json", "LICENSE.txt"} {
					a, _ := os.ReadFile(filepath.Join(dir, name))
					b, _ := os.ReadFile(filepath.Join(out, name))
					if !bytes.Equal(a, b) {
						t.Errorf("%s changed", name)
					}
				}
			})
		}
	}
}

// What was trained of a tied model's one matrix decides whether it stays one.
func TestMergeTied(t *testing.T) {
	one, two := values(vocab*hidden), values(vocab*hidden)
	save := func(names string, whole map[string][]float32) adapter {
		a := qAdapter()
		a.config += `, "modules_to_save": [` + names + `]`
		a.whole = whole
		return a
	}
	head := adapter{`, "target_modules": ["lm_head"]`, map[string][2]int{headName: {vocab, hidden}}, nil}
	both := save(`"embed_tokens", "lm_head"`, map[string][]float32{embedName: one, headName: two})
	same := save(`"embed_tokens", "lm_head"`, map[string][]float32{embedName: one, headName: one})
	for _, store := range []string{embedName, headName} {
		for name, c := range map[string]struct {
			adapter     adapter
			untied      bool
			embed, head []float32 // nil: the base's
		}{
			"neither":     {qAdapter(), false, nil, nil},
			"embed":       {save(`"embed_tokens"`, map[string][]float32{embedName: one}), true, one, nil},
			"head":        {save(`"lm_head"`, map[string][]float32{headName: one}), true, nil, one},
			"both":        {both, true, one, two},
			"the same":    {same, false, one, one},
			"head branch": {head, true, nil, nil},
		} {
			t.Run(store+" "+name, func(t *testing.T) {
				dir, ad, out := base{dtype: numeric.BF16, tied: store, shards: true}.write(t), c.adapter.write(t), t.TempDir()
				stdout := mustMerge(t, mergeArgs(dir, ad, out)...)
				if strings.Contains(stdout, "two matrices now") != c.untied {
					t.Errorf("printed %q", stdout)
				}
				cfg, _, err := model.ReadConfig(out)
				must(t, err)
				if cfg.TieWordEmbeddings == c.untied {
					t.Errorf("tie_word_embeddings is %v", cfg.TieWordEmbeddings)
				}
				before, after := openWeights(t, dir), openWeights(t, out)
				old := matrix(t, before, store)
				want := map[string][]float32{embedName: c.embed, headName: c.head}
				for _, module := range []string{embedName, headName} {
					if !c.untied && module != store {
						if _, ok := after.Tensor(module + ".weight"); ok {
							t.Errorf("%s is stored, though the model is tied", module)
						}
						continue
					}
					w := old
					switch {
					case want[module] != nil:
						w = round(numeric.BF16, want[module])
					case name == "head branch" && module == headName:
						checkClose(t, module, matrix(t, after, module), expect(t, numeric.BF16, old, ad, module, hidden), numeric.BF16)
						continue
					}
					if !slices.Equal(matrix(t, after, module), w) {
						t.Errorf("%s is not what it should be", module)
					}
				}
				m, err := model.Open(out, model.Options{})
				must(t, err)
				if len(m.Warnings()) != 0 {
					t.Errorf("warnings %q", m.Warnings())
				}
				must(t, m.Close())
			})
		}
	}
}

func TestOverwrite(t *testing.T) {
	sharded, single, ad := base{dtype: numeric.F32, shards: true}.write(t), base{dtype: numeric.F32}.write(t), qAdapter().write(t)
	out := filepath.Join(t.TempDir(), "out")
	mustMerge(t, mergeArgs(sharded, ad, out)...)
	must(t, os.WriteFile(filepath.Join(out, "mine.txt"), []byte("mine"), 0o666))
	if code, _, stderr := run(mergeArgs(single, ad, out)...); code != cli.Failed || !strings.Contains(stderr, "is not empty") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	// The shards of the first run have no successor and go; what is not ours stays.
	mustMerge(t, mergeArgs(single, ad, out, "--overwrite")...)
	want := []string{manifestName, "LICENSE.txt", "config.json", "mine.txt", "model.safetensors", "tokenizer.json"}
	if got := list(t, out); !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
	// A file that somebody else put there is not replaced, whatever the manifest says of paths elsewhere.
	must(t, os.Remove(filepath.Join(out, manifestName)))
	code, _, stderr := run(mergeArgs(single, ad, out, "--overwrite")...)
	if code != cli.Failed || strings.Count(stderr, "is in the way") != 4 || !strings.Contains(stderr, filepath.Join(out, "config.json")) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	text := manifestHead + "config.json\n../model/config.json\nmine.txt\n"
	must(t, os.WriteFile(filepath.Join(out, manifestName), []byte(text), 0o666))
	owned, err := (&output{path: out}).owned()
	if err != nil || !slices.Equal(owned, []string{manifestName, "config.json"}) {
		t.Errorf("owned %q, %v", owned, err)
	}
}

// Whatever goes wrong, nothing is left behind and nothing is changed.
func TestMergeErrors(t *testing.T) {
	good, goodAdapter := base{dtype: numeric.F32}.write(t), qAdapter().write(t)
	broken := func(change func(dir string)) string {
		dir := base{dtype: numeric.F32}.write(t)
		change(dir)
		return dir
	}
	nan := broken(func(dir string) {
		path := filepath.Join(dir, weights.SingleFile)
		data, err := os.ReadFile(path)
		must(t, err)
		copy(data[len(data)-4:], []byte{0, 0, 0xc0, 0x7f})
		must(t, os.WriteFile(path, data, 0o666))
	})
	for name, c := range map[string]struct {
		model, adapter string
		want           string
	}{
		"no model":           {filepath.Join(good, "x"), goodAdapter, "no such file or directory"},
		"no adapter":         {good, good, "adapter_config.json: no such file"},
		"no weights":         {broken(func(dir string) { os.Remove(filepath.Join(dir, weights.SingleFile)) }), goodAdapter, "no weights: neither model.safetensors nor"},
		"missing tensors":    {broken(func(dir string) { must(t, safetensors.WriteFile(filepath.Join(dir, weights.SingleFile), nil, nil)) }), goodAdapter, "tensor model.norm.weight is missing"},
		"other shape":        {good, adapter{`, "target_modules": ["q_proj"]`, map[string][2]int{qProj: {hidden, hidden + 2}}, nil}.write(t), "has shape [2, 10], want [2, 8]"},
		"other module":       {good, adapter{`, "target_modules": ["q_proj"]`, map[string][2]int{"model.layers.7.self_attn.q_proj": {hidden, hidden}}, nil}.write(t), "model.layers.7.self_attn.q_proj"},
		"too large for F16":  {base{dtype: numeric.F16}.write(t), func() string { a := qAdapter(); a.config += `, "alpha_pattern": {"q_proj": 1e7}`; return a.write(t) }(), "does not fit F16"},
		"NaN in the weights": {nan, goodAdapter, "lm_head.weight: element 87 ([10 7] of [11 8]) is NaN"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			out := filepath.Join(parent, "out")
			code, stdout, stderr := run(mergeArgs(c.model, c.adapter, out)...)
			if code != cli.Failed || !strings.Contains(stderr, c.want) || stdout != "" {
				t.Errorf("exit code %d: %s%s\nwant %s", code, stdout, stderr, c.want)
			}
			if left := list(t, parent); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
	t.Run("an earlier result stays", func(t *testing.T) {
		out := t.TempDir()
		mustMerge(t, mergeArgs(good, goodAdapter, out)...)
		before, err := os.ReadFile(filepath.Join(out, weights.SingleFile))
		must(t, err)
		names := list(t, out)
		if code, _, _ := run(mergeArgs(nan, goodAdapter, out, "--overwrite")...); code != cli.Failed {
			t.Errorf("exit code %d", code)
		}
		after, err := os.ReadFile(filepath.Join(out, weights.SingleFile))
		if err != nil || !bytes.Equal(before, after) || !slices.Equal(list(t, out), names) {
			t.Errorf("the earlier result changed: %v, %q", err, list(t, out))
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		parent := t.TempDir()
		var stderr bytes.Buffer
		code := program.Run(ctx, &commandLine{}, mergeArgs(good, goodAdapter, filepath.Join(parent, "out")), strings.NewReader(""), &stderr, &stderr)
		if code != cli.Interrupted || len(list(t, parent)) != 0 {
			t.Errorf("exit code %d: %s", code, &stderr)
		}
	})
	t.Run("into itself", func(t *testing.T) {
		for _, out := range []string{good, goodAdapter} {
			code, _, stderr := run(mergeArgs(good, goodAdapter, out+"/.", "--overwrite")...)
			if code != cli.Failed || !strings.Contains(stderr, "is read from: name another --out") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		}
	})
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"unmerge"}, {"merge"}, {"merge", "--model", "a", "--adapter", "b"}, {"merge", "--nonsense"}} {
		if code, stdout, stderr := run(args...); code != cli.Usage || stdout != "" || !strings.Contains(stderr, "--help") {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"--help"}, {"merge", "--help"}} {
		if code, stdout, stderr := run(args...); code != cli.Done || stderr != "" || !strings.Contains(stdout, "Usage: lora-export") {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 660840: "661 kB", 13_476_000_000: "13.5 GB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// PEFT's merge_and_unload of the reference case.
func TestMergeAgainstPEFT(t *testing.T) {
	dir := filepath.Join(sharedFolder(t), "goldens", "mha-qv")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs", dir)
	}
	out := t.TempDir()
	mustMerge(t, mergeArgs(filepath.Join(dir, "model"), filepath.Join(dir, "adapter_init"), out)...)
	got := openWeights(t, out)
	want, err := safetensors.Open(filepath.Join(dir, "merged.safetensors"))
	must(t, err)
	defer want.Close()
	n := 0
	for x := range want.All() {
		name, ok := strings.CutPrefix(x.Name, "weight/")
		if !ok {
			continue
		}
		n++
		v := make([]float32, len(x.Data)/4)
		must(t, weights.Tensor{DType: x.DType, Shape: x.Shape, Data: x.Data}.Elements(v, 0))
		for i, g := range matrix(t, got, strings.TrimSuffix(name, ".weight")) {
			if d := math.Abs(float64(g) - float64(v[i])); d > 1e-7 {
				t.Fatalf("%s: element %d is %v, want %v", name, i, g, v[i])
			}
		}
	}
	if n != 4 {
		t.Errorf("compared %d matrices, want 4", n)
	}
}

// sharedFolder finds the folder of larger reference data beside the repository.
func sharedFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	must(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			shared := filepath.Join(dir, "..", "shared")
			if _, err := os.Stat(shared); err != nil {
				t.Skip("needs the reference data in ../shared")
			}
			return shared
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}
