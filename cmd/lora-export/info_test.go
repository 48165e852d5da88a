package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
)

// asCommand makes the test's binary the command itself.
const asCommand = "LORA_EXPORT_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// told is what info tells of a path, which it must be able to read.
func told(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := run(append([]string{"info"}, args...)...)
	if code != cli.Done || stderr != "" {
		t.Fatalf("info %v: exit status %d, %q", args, code, stderr)
	}
	return stdout
}

func described(t *testing.T, path string) (d description) {
	t.Helper()
	if err := json.Unmarshal([]byte(told(t, "--json", "--tensors", path)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func ownFile(t *testing.T, elem ...string) string {
	return filepath.Join(append([]string{golden.Root(t), "testdata"}, elem...)...)
}

func TestInfoText(t *testing.T) {
	dir := base{dtype: numeric.BF16, shards: true, extra: map[string]string{
		"tokenizer.json": readText(t, ownFile(t, "tokenizer", "sp.json")),
	}}.write(t)
	got := told(t, dir)
	size := func(names ...string) (n int64) {
		for _, name := range names {
			st, err := os.Stat(filepath.Join(dir, name))
			must(t, err)
			n += st.Size()
		}
		return n
	}
	want := fmt.Sprintf(`checkpoint    %s, safetensors
architecture  llama
parameters    680
layers        1, hidden 8, intermediate 12
attention     2 heads on 1 key-value heads of 4
context       16, rope theta 10000
vocabulary    11
tokenizer     tokenizer.json, %d tokens, BOS <s> (1), EOS none, no chat template
on disk       %.3g kB in 2 files
in memory     1.36 kB, as it lies on the disk
tensors       12 BF16 (680 values, 1.36 kB)
note          the tokenizer has %[2]d tokens, the model 11
supported     yes

`, dir, vocabularyOf(t, "sp.json"), float64(size("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"))/1000)
	head, list, _ := strings.Cut(got, "\n\n")
	if diff := cmp.Diff(want, head+"\n\n"); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{"model.layers.0.self_attn.k_proj.weight                     BF16   4 x 8", "model.norm.weight                                          BF16   8"} {
		if !strings.Contains(list, line) {
			t.Errorf("the list of tensors lacks %q:\n%s", line, list)
		}
	}
}

func vocabularyOf(t *testing.T, name string) int {
	d := described(t, ownFile(t, "tokenizer", name))
	if d.Kind != kindTokenizer || d.Tokenizer == nil {
		t.Fatalf("%s is told as %+v", name, d)
	}
	return d.Tokenizer.Size
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

// One model in every form is told as one model.
func TestInfoEveryForm(t *testing.T) {
	want := described(t, ownFile(t, "weights", "base"))
	for form, format := range map[string]string{
		"sharded": "safetensors", "legacy": "pickle", "sharded-bin": "pickle", "f64": "pickle", "strided": "pickle", "meta": "meta", "meta-2": "meta",
		"gguf-f32/tiny-f32.gguf": "gguf", "gguf-f16": "gguf", "gguf-bf16": "gguf",
	} {
		t.Run(form, func(t *testing.T) {
			got := described(t, ownFile(t, "weights", filepath.FromSlash(form)))
			if got.Kind != kindCheckpoint || got.Format != format || !got.Usable || len(got.Unsupported) != 0 || got.Model == nil {
				t.Fatalf("%+v, model %+v", got, got.Model)
			}
			g, w := got.Model, want.Model
			if g.Parameters != w.Parameters || g.Layers != w.Layers || g.Hidden != w.Hidden || g.Intermediate != w.Intermediate ||
				g.Heads != w.Heads || g.KVHeads != w.KVHeads || g.HeadDim != w.HeadDim || g.Vocabulary != w.Vocabulary {
				t.Errorf("model %+v, want %+v", g, w)
			}
			if got.Tensors.Count < want.Tensors.Count-1 || got.Bytes < got.Tensors.Bytes {
				t.Errorf("%d tensors, %d of %d bytes", got.Tensors.Count, got.Tensors.Bytes, got.Bytes)
			}
			if converted := got.Tensors.ConvertedF32 > 0; converted != slices.Contains([]string{"f64", "strided", "meta", "meta-2", "gguf-f32/tiny-f32.gguf", "gguf-f16", "gguf-bf16"}, form) {
				t.Errorf("%d bytes are converted", got.Tensors.ConvertedF32)
			}
		})
	}
	if q := described(t, ownFile(t, "weights", "quantised")); !q.Usable || q.Tensors.ConvertedBF16 >= q.Tensors.ConvertedF32 || len(q.Tensors.Formats) < 3 {
		t.Errorf("quantised: %+v", q.Tensors)
	}
}

// The keys of JSON are a promise.
func TestInfoJSONKeys(t *testing.T) {
	keysOf := func(path string) []string {
		var o map[string]any
		must(t, json.Unmarshal([]byte(told(t, "--json", path)), &o))
		return slices.Sorted(maps.Keys(o))
	}
	common := []string{"bytes", "files", "format", "kind", "path", "tensors", "unsupported", "usable", "warnings"}
	with := func(more ...string) []string { return slices.Sorted(slices.Values(slices.Concat(common, more))) }
	if diff := cmp.Diff(with("model", "tokenizer"), keysOf(ownFile(t, "demo", "model"))); diff != "" {
		t.Errorf("checkpoint: %s", diff)
	}
	if diff := cmp.Diff(with("adapter"), keysOf(qAdapter().write(t))); diff != "" {
		t.Errorf("adapter: %s", diff)
	}
	if diff := cmp.Diff(with("metadata"), keysOf(ownFile(t, "demo", "model", "model.safetensors"))); diff != "" {
		t.Errorf("file: %s", diff)
	}
	var o struct{ Tensors map[string]any }
	must(t, json.Unmarshal([]byte(told(t, "--json", ownFile(t, "demo", "model"))), &o))
	if o.Tensors["list"] != nil || o.Tensors["groups"] == nil {
		t.Error("all tensors are listed though only groups are asked for")
	}
}

func TestInfoTensors(t *testing.T) {
	dir := base{dtype: numeric.F32, extra: map[string]string{"tokenizer.json": readText(t, ownFile(t, "tokenizer", "sp.json"))}}.write(t)
	groups, all := told(t, dir), told(t, "--tensors", dir)
	if strings.Count(all, "\n") < strings.Count(groups, "\n") || !strings.Contains(all, "model.layers.0.mlp.up_proj.weight") {
		t.Errorf("groups:\n%s\nall:\n%s", groups, all)
	}
	demo := told(t, ownFile(t, "demo", "model"))
	if !strings.Contains(demo, "model.layers.{0-3}.mlp.up_proj.weight") || strings.Contains(demo, "model.layers.0.") {
		t.Errorf("no groups:\n%s", demo)
	}
}

// Groups are bounded, however many tensors there are.
func TestManyTensors(t *testing.T) {
	ts := newTensors(false)
	const many = maxKept + 50
	for i := range many {
		ts.add(tensor{Name: fmt.Sprintf("t%d.weight", i), Format: "F32", Shape: []int{2}, Bytes: 8})
	}
	ts.finish()
	if ts.Count != many || ts.Elements != 2*many || len(ts.Groups) != maxKept || ts.GroupsLeftOut != 50 || ts.List != nil {
		t.Errorf("%d tensors, %d elements, %d groups and %d left out", ts.Count, ts.Elements, len(ts.Groups), ts.GroupsLeftOut)
	}
}

func TestRanges(t *testing.T) {
	for want, numbers := range map[string][]int{"{0-3}": {3, 0, 1, 2}, "{1,3}": {3, 1}, "{0-1,5,7-8}": {8, 7, 5, 0, 1}, "{0,2,4,6,8,10,12,14,...}": {0, 2, 4, 6, 8, 10, 12, 14, 16, 18}} {
		if got := ranges(numbers); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// What can be read but not trained on is told with all its reasons.
func TestInfoUnsupported(t *testing.T) {
	config := func(over string) map[string]string {
		return map[string]string{"config.json": fmt.Sprintf(`{"model_type": "llama", "vocab_size": %d, "hidden_size": %d, "intermediate_size": %d,
			"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16%s}`, vocab, hidden, inner, over)}
	}
	for _, c := range []struct {
		name  string
		extra map[string]string
		want  []string
	}{
		{"another architecture", map[string]string{"config.json": `{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 28}`},
			[]string{"architecture  Qwen3ForCausalLM (qwen3)", "layers        28", `model_type: want "llama" or "mistral", got "qwen3"`}},
		{"another activation and rope", config(`, "hidden_act": "gelu", "rope_scaling": {"rope_type": "longrope"}`),
			[]string{`hidden_act: want "silu", got "gelu"`, "rope_type: want default, linear"}},
		{"more layers than tensors", config(`, "num_hidden_layers": 2`), []string{"duplicate"}},
		{"other shapes", config(`, "head_dim": 6`), []string{"self_attn.q_proj.weight has shape [8 8]", "asks for [12 8]", "self_attn.o_proj.weight"}},
		{"biases that are not there", config(`, "attention_bias": true`), []string{"self_attn.q_proj.bias is missing, want shape [8]"}},
		{"a broken tokenizer", map[string]string{"tokenizer.json": `{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}`}, []string{`"Unigram" is not supported`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.extra["tokenizer.json"] == "" {
				c.extra["tokenizer.json"] = readText(t, ownFile(t, "tokenizer", "sp.json"))
			}
			dir := base{dtype: numeric.F32, extra: c.extra}.write(t)
			if c.want[0] == "duplicate" { // a file that cannot be read at all, as opposed to one that is not supported
				code, stdout, stderr := run("info", dir)
				if code != cli.Failed || !strings.Contains(stderr, `key "num_hidden_layers" is there twice`) || !strings.Contains(stdout, "supported     no") {
					t.Errorf("%d, %q, %q", code, stdout, stderr)
				}
				return
			}
			got := told(t, dir)
			for _, w := range append(c.want, "supported     no") {
				if !strings.Contains(got, w) {
					t.Errorf("it lacks %q:\n%s", w, got)
				}
			}
			if d := described(t, dir); d.Usable || len(d.Unsupported) == 0 {
				t.Errorf("usable: %+v", d)
			}
		})
	}
}

func TestInfoAdapter(t *testing.T) {
	dir := adapter{`, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "base_model_name_or_path": "some/base", "lora_dropout": 0.05`,
		map[string][2]int{qProj: {hidden, hidden}}, map[string][]float32{"lm_head": values(vocab * hidden)}}.write(t)
	d := described(t, dir)
	want := &adapterInfo{Base: "some/base", R: rank, Alpha: 3, Dropout: 0.05, Targets: "q_proj", ModulesToSave: []string{"lm_head"},
		Parameters: 2*rank*hidden + vocab*hidden, Modules: map[string]int{"q_proj": 1}, Whole: []string{"lm_head"}, Ranks: []int{rank},
		Complete: true, Incomplete: []string{}}
	if diff := cmp.Diff(want, d.Adapter); diff != "" || !d.Usable || d.Kind != kindAdapter {
		t.Errorf("usable %v: %s", d.Usable, diff)
	}
	text := told(t, dir)
	for _, w := range []string{"adapter       " + dir, "rank 2, alpha 3, dropout 0.05", "targets       q_proj", "base          some/base", "1 q_proj, lm_head whole, each with both matrices", "120 trained", "3 F32"} {
		if !strings.Contains(text, w) {
			t.Errorf("it lacks %q:\n%s", w, text)
		}
	}
}

func TestInfoOddAdapters(t *testing.T) {
	const key = "base_model.model." + qProj
	f32 := func(name string, shape ...int) safetensors.Source {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return source(numeric.F32, name, values(n), shape...)
	}
	a, b := f32(key+".lora_A.weight", 2, 8), f32(key+".lora_B.weight", 8, 2)
	for _, c := range []struct {
		name, config string
		tensors      []safetensors.Source
		want         []string
	}{
		{"half a pair", `"r": 2`, []safetensors.Source{a}, []string{"1 modules lack lora_A or lora_B: " + qProj, "1 of them without one of the matrices"}},
		{"two ranks", `"r": 2`, []safetensors.Source{a, f32(key+".lora_B.weight", 8, 3)}, []string{"1 modules have matrices of two ranks: " + qProj + ": lora_A is [2 8], lora_B [8 3]"}},
		{"DoRA", `"r": 2, "use_dora": true`, []safetensors.Source{a, b, f32(key+".lora_magnitude_vector", 8)}, []string{"use_dora is true: not supported", "1 tensors are not those of a LoRA branch", "rank 2"}},
		{"another method", `"peft_type": "IA3", "r": 2`, []safetensors.Source{a, b}, []string{"peft_type"}},
		{"nothing in it", `"r": 2`, nil, []string{"there is no tensor of a low-rank branch"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, safetensors.WriteFile(filepath.Join(dir, "adapter_model.safetensors"), c.tensors, nil))
			if !strings.Contains(c.config, "peft_type") {
				c.config = `"peft_type": "LORA", ` + c.config
			}
			must(t, os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte("{"+c.config+`, "target_modules": ["q_proj"]}`), 0o666))
			got := told(t, dir)
			for _, w := range append(c.want, "supported     no") {
				if !strings.Contains(got, w) {
					t.Errorf("it lacks %q:\n%s", w, got)
				}
			}
		})
	}
	bin := ownFile(t, "golden", "adapter-bin", "adapter_init")
	if d := described(t, bin); !d.Usable || d.Format != "pickle" || !d.Adapter.Complete {
		t.Errorf("adapter_model.bin: %+v, %+v", d, d.Adapter)
	}
}

// A GGUF file with blocks that cannot be unpacked, or of another architecture, is listed all the same.
func TestInfoGGUF(t *testing.T) {
	write := func(name string, metadata []gguf.KeyValue, tensors []gguf.Source) string {
		path := filepath.Join(t.TempDir(), name)
		must(t, gguf.WriteFile(path, metadata, tensors))
		return path
	}
	_, bytes := gguf.IQ4XS.Block()
	odd := write("odd.gguf", []gguf.KeyValue{{Key: "general.architecture", Value: "gemma2"}, {Key: "gemma2.block_count", Value: uint32(3)}},
		[]gguf.Source{{Name: "token_embd.weight", Type: gguf.IQ4XS, Shape: []int{2, 256}, Data: make([]byte, 2*bytes)}})
	d := described(t, odd)
	if d.Usable || d.Kind != kindCheckpoint || d.Tensors.Formats["IQ4_XS"].Elements != 512 || d.Model.ModelType != "gemma2" ||
		d.Metadata["gemma2.block_count"] != "3" || !strings.Contains(strings.Join(d.Unsupported, "\n"), "gemma2") {
		t.Errorf("%+v, %+v, %+v", d, d.Tensors, d.Model)
	}
	ad := write("adapter.gguf", []gguf.KeyValue{{Key: "general.type", Value: "adapter"}, {Key: "general.architecture", Value: "llama"}},
		[]gguf.Source{{Name: "blk.0.attn_q.weight.lora_a", Type: gguf.F32, Shape: []int{2, 4}, Data: make([]byte, 32)}})
	if d := described(t, ad); d.Kind != kindAdapter || d.Usable || !strings.Contains(d.Unsupported[0], "adapters are read as PEFT directories") {
		t.Errorf("%+v", d)
	}
	vocabulary := described(t, golden.Shared(t, "tokenizers", "llama.cpp", "ggml-vocab-llama-spm.gguf"))
	if vocabulary.Kind != kindTokenizer || vocabulary.Tokenizer.Size != 32000 || vocabulary.Metadata["tokenizer.ggml.tokens"] != "[]string of 32000" {
		t.Errorf("%+v", vocabulary)
	}
}

func TestInfoErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o666))
		return path
	}
	empty := t.TempDir()
	broken := base{dtype: numeric.F32}.write(t)
	must(t, os.WriteFile(filepath.Join(broken, "model.safetensors"), []byte("nonsense"), 0o666))
	badConfig := base{dtype: numeric.F32, extra: map[string]string{"config.json": "{"}}.write(t)
	badTokenizer := base{dtype: numeric.F32, extra: map[string]string{"tokenizer.json": "{"}}.write(t)
	badAdapter := t.TempDir()
	must(t, os.WriteFile(filepath.Join(badAdapter, "adapter_config.json"), []byte(`{"r": `), 0o666))
	for _, c := range []struct{ path, want string }{
		{"no/such/path", "no/such/path: no such file"},
		{empty, "no checkpoint (config.json, weights), adapter (adapter_config.json) or tokenizer is in this directory"},
		{broken, filepath.Join(broken, "model.safetensors")},
		{badConfig, filepath.Join(badConfig, "config.json") + ": line 1"},
		{badTokenizer, filepath.Join(badTokenizer, "tokenizer.json") + ":1 (byte 1): not JSON"},
		{badAdapter, filepath.Join(badAdapter, "adapter_config.json") + ": line 1"},
		{file("model.safetensors", "\x08\x00\x00\x00\x00\x00\x00\x00{}"), "model.safetensors"},
		{file("empty.bin", ""), "empty.bin: the file is empty"},
		{file("evil.bin", "\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."), "evil.bin"},
		{file("x.gguf", "GGUF\x03\x00\x00\x00"), "x.gguf"},
		{file("notes.txt", "hello there, this is no model"), "notes.txt is no file of weights, of a configuration or of a tokenizer that is known here"},
		{file("tokenizer.json", "{}"), "tokenizer.json"},
		{file("adapter_config.json", "{}"), "adapter_config.json is one file of an adapter: name its directory"},
		{file("params.json", "{}"), "params.json is one file of a checkpoint: name its directory"},
		{file("model.safetensors.index.json", "{}"), "model.safetensors.index.json is one file of a checkpoint: name its directory"},
		{"/dev/null", "/dev/null is neither a directory nor a regular file"},
	} {
		code, _, stderr := run("info", c.path)
		if code != cli.Failed || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("info %s: exit status %d, %q; want %q", c.path, code, stderr, c.want)
		}
	}
	if code, _, stderr := run("info"); code != cli.Usage || !strings.Contains(stderr, "expected") {
		t.Errorf("without a path: %d, %q", code, stderr)
	}
	if code, _, stderr := run("inof", dir); code != cli.Usage || !strings.Contains(stderr, `did you mean "info"?`) {
		t.Errorf("inof: %d, %q", code, stderr)
	}
}

func TestInfoConfigFile(t *testing.T) {
	d := described(t, ownFile(t, "demo", "model", "config.json"))
	if want := described(t, ownFile(t, "demo", "model")); d.Kind != kindConfig || d.Model.Parameters != want.Model.Parameters || d.Model.Parameters == 0 {
		t.Errorf("%+v", d.Model)
	}
}

// A checkpoint of 13 GB that is hardly there on the disk: nothing of its weights is read.
func TestInfoReadsHeadersOnly(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
		"intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 4096}`), 0o666))
	cfg, _, err := model.ReadConfig(dir)
	must(t, err)
	header := map[string]any{}
	at := int64(0)
	for _, s := range cfg.Stored(nil) {
		n := int64(2 * product(s.Shape))
		header[s.Name] = map[string]any{"dtype": "BF16", "shape": s.Shape, "data_offsets": []int64{at, at + n}}
		at += n
	}
	text, err := json.Marshal(header)
	must(t, err)
	path := filepath.Join(dir, "model.safetensors")
	must(t, os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), 0o666))
	if err := os.Truncate(path, 8+int64(len(text))+at); err != nil {
		t.Skipf("no room for a sparse file: %v", err)
	}
	d := described(t, dir)
	if !d.Usable || d.Model.Parameters != 6738415616 || d.Tensors.Bytes != 2*6738415616 || math.Abs(float64(d.Bytes)/float64(at)-1) > 1e-4 {
		t.Errorf("%+v, %+v", d.Model, d.Tensors)
	}
}

// Names in a file do not steer the terminal.
func TestInfoIsPlainText(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	must(t, safetensors.WriteFile(path, []safetensors.Source{source(numeric.F32, "a\x1b[2J\nb\x00.0", values(1), 1), source(numeric.F32, "a\x1b[2J\nb\x00.1", values(1), 1)},
		map[string]string{"k\n\x1b": "v\x1b[1m\n"}))
	got := told(t, path)
	if strings.ContainsAny(got, "\x1b\x00") || !strings.Contains(got, `a\x1b[2J\nb\x00`) || !strings.Contains(got, `k\n\x1b = v\x1b[1m\n`) {
		t.Errorf("got %q", got)
	}
}

func TestInfoInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out strings.Builder
	if code := program.Run(ctx, &commandLine{}, []string{"info", ownFile(t, "demo", "model")}, nil, &out, &out); code != cli.Interrupted && code != cli.Done {
		t.Errorf("exit status %d", code)
	}
}

func TestInfoFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full here: %v", err)
	}
	defer full.Close()
	exe, err := os.Executable()
	must(t, err)
	for _, args := range [][]string{{"info", ownFile(t, "demo", "model")}, {"info", "--json", ownFile(t, "demo", "model")}} {
		c := exec.CommandContext(t.Context(), exe, args...)
		c.Env = append(os.Environ(), asCommand+"=1")
		c.Stdout = full
		var stderr strings.Builder
		c.Stderr = &stderr
		if err := c.Run(); c.ProcessState.ExitCode() != cli.Failed || !strings.Contains(stderr.String(), "standard output: ") {
			t.Errorf("%v: %v, %q", args, err, stderr.String())
		}
	}
}
