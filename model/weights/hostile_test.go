package weights

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/numeric"
)

// checkError opens path, which must end in the error want, in which DIR stands for dir.
func checkError(t *testing.T, path, dir, want string) {
	t.Helper()
	c, err := Open(path)
	if err == nil {
		_, _, err = c.Config()
		c.Close()
	}
	want = strings.ReplaceAll(want, "DIR", dir)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Names in an index are refused; what lies under a name may be a link to a regular file anywhere, as in Hugging Face's
// cache, and nothing else.
func TestLinks(t *testing.T) {
	cache := t.TempDir() // of Hugging Face: snapshots/COMMIT/NAME -> ../../blobs/HASH
	blobs, snapshot := filepath.Join(cache, "blobs"), filepath.Join(cache, "snapshots", "0123")
	for _, dir := range []string{blobs, snapshot} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{IndexFile, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
		if err := os.Rename(filepath.Join(sharded(t), name), filepath.Join(blobs, fmt.Sprint("hash", i))); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..", "..", "blobs", fmt.Sprint("hash", i)), filepath.Join(snapshot, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got := open(t, snapshot).Names(); len(got) != 4 {
		t.Errorf("tensors %q", got)
	}

	link := func(t *testing.T, to, name string) string {
		dir := t.TempDir()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, name := range []string{SingleFile, IndexFile, PickleFile, PickleIndex, "consolidated.00.pth", "x.gguf"} {
		t.Run(name, func(t *testing.T) {
			dir := link(t, "../gone", name)
			writeFile(t, dir, ParamsFile, testParams)
			checkError(t, dir, dir, "DIR/"+name+" is a symbolic link to ../gone, which is not there: file does not exist")

			dir = link(t, name, name) // to itself
			writeFile(t, dir, ParamsFile, testParams)
			_, err := Open(dir)
			if !errors.Is(err, syscall.ELOOP) || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
				t.Errorf("a loop: %v", err)
			}
			dir = link(t, "/dev/zero", name)
			writeFile(t, dir, ParamsFile, testParams)
			checkError(t, dir, dir, "DIR/"+name+": not a regular file")

			dir = t.TempDir()
			writeFile(t, dir, ParamsFile, testParams)
			if err := syscall.Mkfifo(filepath.Join(dir, name), 0o666); err != nil {
				t.Fatal(err)
			}
			checkError(t, dir, dir, "DIR/"+name+": not a regular file")
		})
	}
	for _, name := range []string{SingleFile, IndexFile, PickleFile, PickleIndex} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		checkError(t, dir, dir, "DIR/"+name+": not a regular file")
	}
	dir := sharded(t)
	if err := errors.Join(os.Remove(filepath.Join(dir, "model-00002-of-00002.safetensors")),
		os.Symlink("blob", filepath.Join(dir, "model-00002-of-00002.safetensors"))); err != nil {
		t.Fatal(err)
	}
	checkError(t, dir, dir, "DIR/model-00002-of-00002.safetensors is a symbolic link to blob, which is not there: file does not exist")
	dir = link(t, "gone", "model")
	checkError(t, filepath.Join(dir, "model"), dir, "DIR/model is a symbolic link to gone, which is not there: file does not exist")
}

// A path to a part of a checkpoint says what to name instead.
func TestPathsToFiles(t *testing.T) {
	dir := sharded(t)
	const want = "DIR/%s is a file: name the directory of the checkpoint, or a .gguf file"
	for _, name := range []string{"model-00001-of-00002.safetensors", IndexFile} {
		checkError(t, filepath.Join(dir, name), dir, fmt.Sprintf(want, name))
	}
	dir = copyForm(t, "meta-2")
	checkError(t, filepath.Join(dir, "consolidated.01.pth"), dir, fmt.Sprintf(want, "consolidated.01.pth"))
	checkError(t, os.DevNull, dir, "/dev/null is neither a directory nor a regular file")
	// What is GGUF counts as such whatever its name is.
	dir = copyForm(t, "gguf-f16")
	if err := os.Rename(filepath.Join(dir, "tiny-f16.gguf"), filepath.Join(dir, "sha256-1234")); err != nil {
		t.Fatal(err)
	}
	if c := open(t, filepath.Join(dir, "sha256-1234")); c.Format() != GGUF || c.Dir() != dir {
		t.Errorf("%s in %s", c.Format(), c.Dir())
	}
}

func TestPickleIndexErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"weight_map": {"a": "../a.bin"}}`:                            `weight_map: "a": "../a.bin" is not a plain file name`,
		`{"weight_map": {"a": "/etc/a.bin", "b": "C:\\a.bin"}}`:        "weight_map: \"a\": \"/etc/a.bin\" is not a plain file name\nweight_map: \"b\": \"C:\\\\a.bin\" is not a plain file name",
		`{"weight_map": {"a": "a.safetensors"}}`:                       `weight_map: "a": "a.safetensors" is not a .bin file`,
		`{"weight_map": {"a\u001b[2J": "\u001b]0;x.bin/.."}}`:          `weight_map: "a\x1b[2J": "\x1b]0;x.bin/.." is not a plain file name`,
		`{"weight_map": {"` + strings.Repeat("a", 9000) + `": "b/x"}}`: `weight_map: "` + strings.Repeat("a", 120) + `...": "b/x" is not a plain file name`,
		`{"weight_map": {"a": "x\u0000.bin"}}`:                         `weight_map: "a": "x\x00.bin" is not a plain file name`,
		strings.Repeat(`{"weight_map": `, 70):                          "line 1, byte 960: nested deeper than 64",
	} {
		dir := t.TempDir()
		writeFile(t, dir, PickleIndex, text)
		checkError(t, dir, dir, "DIR/"+PickleIndex+": "+want)
	}
	// Many problems are told in some lines.
	dir := t.TempDir()
	var b strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&b, `%c"t%d": "f%d.bin"`, ",{"[min(1, max(0, 1-i))], i, i)
	}
	writeFile(t, dir, PickleIndex, `{"weight_map": `+b.String()+`}}`)
	checkError(t, dir, dir, "DIR/"+PickleIndex+": weight_map: 20000 files, at most 10000 are plausible")
	b.Reset()
	for i := range 100 {
		fmt.Fprintf(&b, `%c"t%d": "../f%d.bin"`, ",{"[min(1, max(0, 1-i))], i, i)
	}
	writeFile(t, dir, PickleIndex, `{"weight_map": `+b.String()+`}}`)
	_, err := Open(dir)
	if err == nil || strings.Count(err.Error(), "\n") != 20 || !strings.HasSuffix(err.Error(), "\nand 80 more problems") {
		t.Error(err)
	}
	writeFile(t, dir, PickleIndex, strings.Repeat(" ", maxIndex+1))
	checkError(t, dir, dir, fmt.Sprintf("DIR/%s: %d bytes, at most %d are plausible", PickleIndex, maxIndex+1, maxIndex))
}

// testParams goes with the tensors of writeMeta.
const testParams = `{"dim": 4, "n_layers": 1, "n_heads": 2, "norm_eps": 1e-5, "vocab_size": -1}`

// metaTensors are those of a decoder of dim 4 with two heads, an inner layer of 6 and 5 words.
func metaTensors() map[string][]int {
	return map[string][]int{
		"tok_embeddings.weight": {5, 4}, "norm.weight": {4}, "output.weight": {5, 4}, "rope.freqs": {1},
		"layers.0.attention.wq.weight": {4, 4}, "layers.0.attention.wk.weight": {4, 4}, "layers.0.attention.wv.weight": {4, 4},
		"layers.0.attention.wo.weight": {4, 4}, "layers.0.feed_forward.w1.weight": {6, 4}, "layers.0.feed_forward.w2.weight": {4, 6},
		"layers.0.feed_forward.w3.weight": {6, 4}, "layers.0.attention_norm.weight": {4}, "layers.0.ffn_norm.weight": {4},
	}
}

// writeMeta writes tensors of zeros as one of PyTorch's files.
func writeMeta(t *testing.T, dir, file string, tensors map[string][]int, fill byte) {
	t.Helper()
	var program, data bytes.Buffer
	n := 0
	program.WriteString("(d")
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for k := range tensors {
			if !yield(k) {
				return
			}
		}
	}) {
		shape := tensors[name]
		size, strides := 1, make([]int, len(shape))
		for i := len(shape) - 1; i >= 0; i-- {
			strides[i] = size
			size *= shape[i]
		}
		fmt.Fprintf(&program, "S'%s'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQI%d\n(%st(%stI00\nNtRs",
			name, 100_000, n, numbers(shape), numbers(strides))
		n += size
	}
	program.WriteString(".")
	data.Write(bytes.Repeat([]byte{fill}, 400_000))
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range map[string][]byte{"x/data.pkl": program.Bytes(), "x/data/0": data.Bytes()} {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = f.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

func numbers(list []int) (s string) {
	for _, n := range list {
		s += fmt.Sprintf("I%d\n", n)
	}
	return s
}

func TestMetaErrors(t *testing.T) {
	with := func(name string, shape ...int) map[string][]int {
		ts := metaTensors()
		delete(ts, name)
		if shape != nil {
			ts[name] = shape
		}
		return ts
	}
	half := map[string][]int{ // a shard of two
		"tok_embeddings.weight": {5, 2}, "norm.weight": {4}, "output.weight": {3, 4}, "layers.0.feed_forward.w1.weight": {3, 4},
	}
	without := func(name string) map[string][]int {
		ts := map[string][]int{}
		for k, v := range half {
			if k != name {
				ts[k] = v
			}
		}
		return ts
	}
	halfWith := func(name string, shape ...int) map[string][]int {
		ts := without(name)
		ts[name] = shape
		return ts
	}
	params := func(text string) string { return strings.Replace(testParams, `{`, "{"+text+", ", 1) }
	type files map[string]map[string][]int
	for name, c := range map[string]struct {
		params string
		files  files
		want   string
	}{
		"no params": {"", files{"consolidated.00.pth": metaTensors()},
			"DIR/params.json is missing, without which Meta's files cannot be read: file does not exist"},
		"a hole": {testParams, files{"consolidated.00.pth": half, "consolidated.02.pth": half},
			"DIR: shard 1 of Meta's checkpoint is missing, though there is consolidated.02.pth"},
		"no first shard": {testParams, files{"consolidated.01.pth": half},
			"DIR: shard 0 of Meta's checkpoint is missing, though there is consolidated.01.pth"},
		"no last shard": {testParams, files{"consolidated.00.pth": halfWith("layers.0.attention.wq.weight", 2, 4)},
			"DIR: DIR/consolidated.00.pth has 2 of the 4 rows of layers.0.attention.wq.weight: there must be 2 files like it, and there are 1"},
		"one shard twice": {testParams, files{"consolidated.00.pth": half, "consolidated.0.pth": half},
			"DIR: consolidated.0.pth and consolidated.00.pth are the same shard"},
		"not JSON":      {"{", nil, "DIR/params.json: line 1, byte 1: want a string, but the text ends"},
		"a list":        {"[]", nil, "DIR/params.json: want a JSON object, got an array"},
		"a key twice":   {params(`"dim": 8`), nil, `DIR/params.json: line 1, byte 11: key "dim" is there twice`},
		"nothing in it": {"{}", nil, "DIR/params.json: dim: is missing, want a whole number from 1 on\nDIR/params.json: n_layers: is missing, want a whole number from 1 on\nDIR/params.json: n_heads: is missing, want a whole number from 1 on"},
		"wrong numbers": {`{"dim": 4.5, "n_layers": -1, "n_heads": "2", "n_kv_heads": 1e99, "vocab_size": [], "norm_eps": 0, "rope_theta": -1, "use_scaled_rope": 1}`, nil,
			"DIR/params.json: dim: want a whole number from 1 to 2147483647, got the number 4.5\n" +
				"DIR/params.json: n_layers: want a whole number from 1 to 2147483647, got the number -1\n" +
				"DIR/params.json: n_heads: want a whole number from 1 to 2147483647, got \"2\"\n" +
				"DIR/params.json: n_kv_heads: want a whole number from 1 to 2147483647, got the number 1e99\n" +
				"DIR/params.json: norm_eps: want a number above 0, got the number 0\n" +
				"DIR/params.json: rope_theta: want a number above 0, got the number -1\n" +
				"DIR/params.json: use_scaled_rope: want true or false, got the number 1\n" +
				"DIR/params.json: vocab_size: want a whole number from 1 to 2147483647, got an array"},
		"odd heads":       {`{"dim": 9, "n_layers": 1, "n_heads": 2, "n_kv_heads": 3}`, nil, "DIR/params.json: dim: 9 is not a multiple of n_heads 2\nDIR/params.json: n_kv_heads: want a divisor of n_heads 2, got 3"},
		"odd head":        {params(`"head_dim": 3`), nil, "DIR/params.json: head_dim: want an even number, got 3"},
		"experts":         {params(`"moe": {"num_experts": 8}`), nil, "DIR/params.json: moe: is not supported: it describes more than a LLaMA decoder"},
		"quantised":       {params(`"quantization_args": {"group_size": 32}, "lora_args": {"rank": 16}`), nil, "DIR/params.json: quantization_args: is not supported: it describes more than a LLaMA decoder\nDIR/params.json: lora_args: is not supported: it describes more than a LLaMA decoder"},
		"other vocab":     {strings.Replace(testParams, "-1", "6", 1), nil, "DIR/params.json: vocab_size is 6, tok_embeddings.weight has 5 rows"},
		"other dim":       {strings.Replace(testParams, `"dim": 4`, `"dim": 8`, 1), nil, "DIR/consolidated.00.pth: tensor layers.0.attention.wk.weight: F32 [4 4], want 8 rows: 2 heads of 4, an even number\nDIR/consolidated.00.pth: tensor layers.0.attention.wq.weight: F32 [4 4], want 8 rows: 2 heads of 4, an even number"},
		"other formula":   {params(`"multiple_of": 8`), nil, "DIR/params.json: its numbers give an inner layer of 16, layers.0.feed_forward.w1.weight has 6 rows"},
		"other inner":     {params(`"hidden_dim": 7`), nil, "DIR/params.json: its numbers give an inner layer of 7, layers.0.feed_forward.w1.weight has 6 rows"},
		"huge inner":      {params(`"multiple_of": 2147483647, "ffn_dim_multiplier": 1e300`), nil, "DIR/params.json: its numbers give an inner layer of 1101659110911, layers.0.feed_forward.w1.weight has 6 rows"},
		"no embedding":    {testParams, files{"consolidated.00.pth": with("tok_embeddings.weight")}, "DIR: there is no matrix tok_embeddings.weight, which tells the size of the vocabulary"},
		"embedding 1-D":   {testParams, files{"consolidated.00.pth": with("tok_embeddings.weight", 20)}, "DIR: there is no matrix tok_embeddings.weight, which tells the size of the vocabulary"},
		"embedding wide":  {testParams, files{"consolidated.00.pth": with("tok_embeddings.weight", 5, 5)}, "DIR/params.json: dim is 4, tok_embeddings.weight is [5 5]"},
		"head":            {testParams, files{"consolidated.00.pth": with("output.weight", 7, 4)}, "DIR: output.weight has 7 rows, tok_embeddings.weight 5"},
		"no inner":        {testParams, files{"consolidated.00.pth": with("layers.0.feed_forward.w1.weight")}, "DIR: there is no matrix layers.0.feed_forward.w1.weight, which tells the width of the inner layer"},
		"both names":      {testParams, files{"consolidated.00.pth": with("lm_head.weight", 5, 4)}, "DIR/consolidated.00.pth: tensor lm_head.weight is in DIR/consolidated.00.pth too"},
		"missing part":    {testParams, files{"consolidated.00.pth": half, "consolidated.01.pth": without("output.weight")}, "DIR/consolidated.01.pth does not hold tensor output.weight, of which DIR/consolidated.00.pth has a part"},
		"extra part":      {testParams, files{"consolidated.00.pth": without("output.weight"), "consolidated.01.pth": half}, "DIR/consolidated.00.pth does not hold tensor output.weight, of which DIR/consolidated.01.pth has a part"},
		"unequal parts":   {testParams, files{"consolidated.00.pth": half, "consolidated.01.pth": halfWith("output.weight", 2, 4)}, "tensor output.weight is F32 [3 4] in DIR/consolidated.00.pth, and F32 [2 4] in DIR/consolidated.01.pth"},
		"odd columns":     {testParams, files{"consolidated.00.pth": halfWith("tok_embeddings.weight", 5, 3), "consolidated.01.pth": halfWith("tok_embeddings.weight", 5, 3)}, "DIR/consolidated.00.pth: tensor tok_embeddings.weight: F32 [5 3] in each of 2 shards cannot be joined: params.json says dim 4"},
		"odd rows":        {testParams, files{"consolidated.00.pth": halfWith("output.weight", 3, 5), "consolidated.01.pth": halfWith("output.weight", 3, 5)}, "DIR/consolidated.00.pth: tensor output.weight: F32 [3 5] in each of 2 shards cannot be joined: params.json says dim 4"},
		"cube":            {testParams, files{"consolidated.00.pth": halfWith("output.weight", 3, 2, 2), "consolidated.01.pth": halfWith("output.weight", 3, 2, 2)}, "DIR/consolidated.00.pth: tensor output.weight: shape [3 2 2] in each of 2 shards, want a matrix"},
		"nothing to join": {testParams, files{"consolidated.00.pth": halfWith("output.weight", 0, 4), "consolidated.01.pth": halfWith("output.weight", 0, 4)}, "DIR/consolidated.00.pth: tensor output.weight: F32 [0 4] in each of 2 shards cannot be joined: params.json says dim 4"},
		"unknown part":    {testParams, files{"consolidated.00.pth": halfWith("adapter", 4), "consolidated.01.pth": halfWith("adapter", 4)}, "DIR/consolidated.00.pth: tensor adapter is none that Meta's checkpoints have: how its 2 parts go together is not known"},
		"long norm":       {testParams, files{"consolidated.00.pth": halfWith("norm.weight", 5), "consolidated.01.pth": halfWith("norm.weight", 5)}, "DIR/consolidated.00.pth: tensor norm.weight: shape [5], want [4]: params.json says dim 4"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.params != "" {
				writeFile(t, dir, ParamsFile, c.params)
			}
			if c.files == nil {
				c.files = files{"consolidated.00.pth": metaTensors()}
			}
			for file, tensors := range c.files {
				writeMeta(t, dir, file, tensors, 0)
			}
			checkError(t, dir, dir, c.want)
		})
	}
	t.Run("norms differ", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir, ParamsFile, testParams)
		writeMeta(t, dir, "consolidated.00.pth", half, 0)
		writeMeta(t, dir, "consolidated.01.pth", half, 1)
		checkError(t, dir, dir, "tensor norm.weight must be the same in all shards, and differs in DIR/consolidated.00.pth and DIR/consolidated.01.pth")
	})
	t.Run("unknown keys", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir, ParamsFile, params(`"max_batch_size": 4, "comment\u001b": "x", "moe": null`))
		writeMeta(t, dir, "consolidated.00.pth", metaTensors(), 0)
		want := []string{filepath.Join(dir, ParamsFile) + `: unknown keys, ignored: max_batch_size, comment\x1b`}
		if got := open(t, dir).Warnings(); !slices.Equal(got, want) {
			t.Errorf("warnings %q, want %q", got, want)
		}
	})
	t.Run("config.json has a say", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir, ParamsFile, testParams)
		writeFile(t, dir, ConfigFile, `{"a": 1}`)
		writeMeta(t, dir, "consolidated.00.pth", metaTensors(), 0)
		if o, path, err := open(t, dir).Config(); err != nil || path != filepath.Join(dir, ConfigFile) || !slices.Equal(o.Keys, []string{"a"}) {
			t.Errorf("%v of %s, %v", o, path, err)
		}
	})
}

// ggufModel is what a small model needs.
func ggufModel() ([]gguf.KeyValue, []gguf.Source) {
	kv := []gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"}, {Key: "llama.block_count", Value: uint32(1)},
		{Key: "llama.context_length", Value: uint32(64)}, {Key: "llama.embedding_length", Value: uint32(8)},
		{Key: "llama.feed_forward_length", Value: uint32(6)}, {Key: "llama.attention.head_count", Value: uint32(2)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)}, {Key: "llama.rope.freq_base", Value: float32(500000)},
	}
	var ts []gguf.Source
	for name, shape := range map[string][]int{"token_embd.weight": {5, 8}, "blk.0.attn_q.weight": {8, 8}, "blk.0.attn_k.weight": {8, 8}, "output_norm.weight": {8}} {
		n := 4
		for _, d := range shape {
			n *= d
		}
		ts = append(ts, gguf.Source{Name: name, Type: gguf.F32, Shape: shape, Data: make([]byte, n)})
	}
	return kv, ts
}

func f32Source(name string, values ...float32) gguf.Source {
	return gguf.Source{Name: name, Type: gguf.F32, Shape: []int{len(values)}, Data: slices.Clone(raw(values))}
}

func TestGGUFErrors(t *testing.T) {
	const path = "DIR/x.gguf: "
	type kv = gguf.KeyValue
	for name, c := range map[string]struct {
		drop string // a key
		set  []kv
		add  []gguf.Source
		gone string // a tensor
		want string
	}{
		"another architecture": {set: []kv{{Key: "general.architecture", Value: "qwen2"}}, want: `general.architecture is "qwen2", only "llama" is supported`},
		"hostile architecture": {set: []kv{{Key: "general.architecture", Value: "\x1b[2J"}}, want: `general.architecture is "\x1b[2J", only "llama" is supported`},
		"no architecture":      {drop: "general.architecture", want: "general.architecture is missing"},
		"an adapter":           {set: []kv{{Key: "general.type", Value: "adapter"}}, want: `general.type is "adapter", want "model"`},
		"no sizes":             {drop: "llama.embedding_length", want: "llama.embedding_length is missing"},
		"no epsilon":           {drop: "llama.attention.layer_norm_rms_epsilon", want: "llama.attention.layer_norm_rms_epsilon is missing"},
		"no layers":            {set: []kv{{Key: "llama.block_count", Value: uint32(0)}}, want: "llama.block_count: want a whole number from 1 to 2147483647, got 0"},
		"endless layers":       {set: []kv{{Key: "llama.block_count", Value: uint64(1) << 63}}, want: "llama.block_count: want a whole number from 1 to 2147483647, got 9223372036854775808"},
		"experts":              {set: []kv{{Key: "llama.expert_count", Value: uint32(8)}}, want: "llama.expert_count is 8: a mixture of experts is not supported"},
		"odd heads":            {set: []kv{{Key: "llama.attention.key_length", Value: uint32(3)}}, want: "heads of 3: want an even number"},
		"unequal heads":        {set: []kv{{Key: "llama.attention.value_length", Value: uint32(8)}}, want: "llama.attention.value_length is 8, key_length 4: they must be equal"},
		"partial rotation":     {set: []kv{{Key: "llama.rope.dimension_count", Value: uint32(2)}}, want: "llama.rope.dimension_count is 2, a head has 4: only whole heads are rotated"},
		"other vocabulary":     {set: []kv{{Key: "llama.vocab_size", Value: uint32(6)}}, want: "llama.vocab_size is 6, token_embd.weight has 5 rows"},
		"no embedding":         {gone: "token_embd.weight", want: "there is no matrix token_embd.weight: a file of metadata or of a vocabulary alone is no model"},
		"long rope":            {set: []kv{{Key: "llama.rope.scaling.type", Value: "longrope"}}, want: `llama.rope.scaling.type is "longrope", want "none", "linear" or "yarn"`},
		"scale":                {set: []kv{{Key: "llama.attention.scale", Value: float32(0.25)}}, want: "llama.attention.scale is 0.25, only 0.5 is supported"},
		"soft cap":             {set: []kv{{Key: "llama.final_logit_softcapping", Value: float32(30)}}, want: "llama.final_logit_softcapping is 30, only 0 is supported"},
		"not causal":           {set: []kv{{Key: "llama.attention.causal", Value: false}}, want: "llama.attention.causal is false, only true is supported"},
		"short factors":        {add: []gguf.Source{f32Source("rope_freqs.weight", 1, 2, 3)}, want: "rope_freqs.weight has shape [3], want [2]: a factor for each pair of a head"},
		"other factors":        {add: []gguf.Source{f32Source("rope_freqs.weight", 1, 2)}, want: "rope_freqs.weight: factor 1 is 2, Llama 3.1's scaling by 2 has 1.5609"},
		"factors of NaN":       {add: []gguf.Source{f32Source("rope_freqs.weight", 1, float32(inf()-inf()))}, want: "rope_freqs.weight: factor 1 is NaN, Llama 3.1's scaling by NaN has NaN there"},
		"attention factor":     {set: []kv{{Key: "llama.rope.scaling.attn_factor", Value: float32(2)}}, want: `llama.rope.scaling.attn_factor is 2, only with the type "yarn" may it not be 1`},
		"factors and type": {set: []kv{{Key: "llama.rope.scaling.type", Value: "linear"}, {Key: "llama.rope.scaling.factor", Value: float32(2)}},
			add: []gguf.Source{f32Source("rope_freqs.weight", 1, 2)}, want: "rope_freqs.weight beside llama.rope.scaling.type: only one of them is supported"},
		"heads":       {set: []kv{{Key: "llama.attention.head_count", Value: uint32(4)}, {Key: "llama.attention.head_count_kv", Value: uint32(2)}, {Key: "llama.attention.key_length", Value: uint32(4)}}, want: "tensor blk.0.attn_q.weight: F32 [8 8], want 16 rows: 4 heads of 4, an even number"},
		"split":       {set: []kv{{Key: "split.count", Value: uint16(2)}, {Key: "split.no", Value: uint16(0)}}, want: "split.count is 2, want 1 by the name of the file"},
		"taken name":  {add: []gguf.Source{f32Source("model.norm.weight", 1)}, want: "tensor model.norm.weight is in DIR/x.gguf too"},
		"key's type":  {set: []kv{{Key: "llama.embedding_length", Value: "8"}}, want: `key "llama.embedding_length": byte 345: want an integer, got string`},
		"per layer":   {set: []kv{{Key: "llama.attention.head_count_kv", Value: []uint32{2}}}, want: `key "llama.attention.head_count_kv": byte 402: want an integer, got []uint32`},
		"infinite":    {set: []kv{{Key: "llama.rope.freq_base", Value: float32(inf())}}, want: "llama.rope.freq_base: want a number above 0, got +Inf"},
		"wide tensor": {set: []kv{{Key: "llama.attention.head_count_kv", Value: uint32(1)}}, want: "tensor blk.0.attn_k.weight: F32 [8 8], want 4 rows: 1 heads of 4, an even number"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			meta, tensors := ggufModel()
			drop := append([]kv{{Key: c.drop}}, c.set...)
			meta = slices.DeleteFunc(meta, func(a kv) bool {
				return slices.ContainsFunc(drop, func(b kv) bool { return a.Key == b.Key })
			})
			tensors = slices.DeleteFunc(tensors, func(s gguf.Source) bool { return s.Name == c.gone })
			slices.SortFunc(tensors, func(a, b gguf.Source) int { return strings.Compare(b.Name, a.Name) })
			if err := gguf.WriteFile(filepath.Join(dir, "x.gguf"), append(meta, c.set...), append(tensors, c.add...)); err != nil {
				t.Fatal(err)
			}
			ck, err := Open(dir)
			if err == nil {
				_, _, err = ck.Config()
				ck.Close()
			}
			want := strings.ReplaceAll(path+c.want, "DIR", dir)
			if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func inf() float64 { return 1 / zero }

var zero float64

// A file with something else in it can still be listed; only its configuration is an error.
func TestOtherArchitectureIsListed(t *testing.T) {
	dir := t.TempDir()
	meta, tensors := ggufModel()
	meta[0].Value = "gemma2"
	if err := gguf.WriteFile(filepath.Join(dir, "x.gguf"), meta, tensors); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	if _, ok := c.Tensor("blk.0.attn_q.weight"); !ok || len(c.Names()) != 4 || c.Bytes() != 4*(40+64+64+8) {
		t.Errorf("tensors %q of %d bytes", c.Names(), c.Bytes())
	}
}

// A format that cannot be unpacked is listed too, and nothing can be read of it.
func TestUnreadableBlocks(t *testing.T) {
	dir := t.TempDir()
	meta, tensors := ggufModel()
	tensors = append(tensors, gguf.Source{Name: "blk.0.ffn_down.weight", Type: gguf.IQ2XXS, Shape: []int{1, 256}, Data: make([]byte, 66)},
		gguf.Source{Name: "blk.1.attn_q.weight", Type: gguf.IQ2XXS, Shape: []int{8, 256}, Data: make([]byte, 8*66)})
	if err := gguf.WriteFile(filepath.Join(dir, "x.gguf"), meta, tensors); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	x, ok := c.Tensor("model.layers.0.mlp.down_proj.weight")
	if !ok || x.DType != numeric.Invalid || x.Type != "IQ2_XXS" || x.Bytes() != 66 || x.Data != nil {
		t.Errorf("%+v", x)
	}
	if q, ok := c.Tensor("model.layers.1.self_attn.q_proj.weight"); !ok || q.DType != numeric.Invalid || q.Type != "IQ2_XXS" { // its rows would be turned
		t.Errorf("%+v", q)
	}
	want := filepath.Join(dir, "x.gguf") + ": tensor model.layers.0.mlp.down_proj.weight: IQ2_XXS cannot be read as floating point"
	if err := x.Elements(make([]float32, 1), 0); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	want = filepath.Join(dir, "x.gguf") + ": tensor model.layers.0.mlp.down_proj.weight: IQ2_XXS cannot be read\n" +
		filepath.Join(dir, "x.gguf") + ": tensor model.layers.1.self_attn.q_proj.weight: IQ2_XXS cannot be read"
	if _, err := c.Rewrite(nil, numeric.Invalid); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A model in several files is opened by the first one, or by their directory.
func TestSplitGGUF(t *testing.T) {
	split := func(t *testing.T, change func(i int, meta []gguf.KeyValue) []gguf.KeyValue) string {
		dir := t.TempDir()
		meta, tensors := ggufModel()
		for i := range 2 {
			kv := []gguf.KeyValue{{Key: "split.no", Value: uint16(i)}, {Key: "split.count", Value: uint16(2)}, {Key: "split.tensors.count", Value: int32(4)}}
			if i == 0 {
				kv = append(meta, kv...)
			}
			if change != nil {
				kv = change(i, kv)
			}
			if err := gguf.WriteFile(filepath.Join(dir, fmt.Sprintf("x-%05d-of-00002.gguf", i+1)), kv, tensors[2*i:2*i+2]); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	dir := split(t, nil)
	for _, path := range []string{dir, filepath.Join(dir, "x-00001-of-00002.gguf")} {
		if c := open(t, path); len(c.Names()) != 4 || len(c.Files()) != 2 {
			t.Errorf("tensors %q of %q", c.Names(), c.Files())
		}
	}
	checkError(t, filepath.Join(dir, "x-00002-of-00002.gguf"), dir, "DIR: x-00002-of-00002.gguf is one of 2 files of a model: name the first, x-00001-of-00002.gguf")
	writeFile(t, dir, "y.gguf", "")
	checkError(t, dir, dir, "DIR: 2 .gguf files (x-00001-of-00002.gguf, y.gguf): name the one that is meant")
	if err := errors.Join(os.Remove(filepath.Join(dir, "y.gguf")), os.Remove(filepath.Join(dir, "x-00002-of-00002.gguf"))); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, "x-00002-of-00002.gguf")) {
		t.Error(err)
	}
	dir = split(t, func(i int, kv []gguf.KeyValue) []gguf.KeyValue {
		for j := range kv {
			if kv[j].Key == "split.no" {
				kv[j].Value = uint16(0)
			}
		}
		return kv
	})
	checkError(t, dir, dir, "DIR/x-00002-of-00002.gguf: split.no is 0, want 1 by the name of the file")
	dir = split(t, func(i int, kv []gguf.KeyValue) []gguf.KeyValue {
		kv[len(kv)-1].Value = int32(5)
		return kv
	})
	checkError(t, dir, dir, "DIR/x-00001-of-00002.gguf: split.tensors.count is 5, the 2 files have 4")
	dir = t.TempDir()
	writeFile(t, dir, "x-00001-of-99999.gguf", "")
	checkError(t, dir, dir, "DIR: x-00001-of-99999.gguf: 99999 files, from 1 to 10000 are plausible")
}

// A shard that lies about its tensors.
func TestShardsThatLie(t *testing.T) {
	dir := t.TempDir()
	writeShard(t, dir, "a.safetensors", source("x", numeric.F32, nil, 1))
	head := `{"y":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`
	data := append([]byte{byte(len(head)), 0, 0, 0, 0, 0, 0, 0}, head...)
	if err := os.WriteFile(filepath.Join(dir, "b.safetensors"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, IndexFile, `{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}`)
	checkError(t, dir, dir, `DIR/b.safetensors: tensor "y": shape [4611686018427387904 4] is too large`)
}
