//go:build unix

package model_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
)

// wide is a checkpoint in which every matrix has several pages.
func wide(t *testing.T, d numeric.DType) string {
	const vocab, hidden, inner = 256, 64, 160
	r := rand.New(rand.NewPCG(1, 2))
	var ts []safetensors.Source
	add := func(name string, mean, std float64, shape ...int) {
		n := 1
		for _, s := range shape {
			n *= s
		}
		var data []byte
		for range n {
			switch v := float32(mean + std*r.NormFloat64()); d {
			case numeric.F32:
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
			case numeric.BF16:
				data = binary.LittleEndian.AppendUint16(data, numeric.F32ToBF16(v))
			case numeric.F16:
				data = binary.LittleEndian.AppendUint16(data, numeric.F32ToF16(v))
			}
		}
		ts = append(ts, safetensors.Source{Name: name, DType: d, Shape: shape, Data: data})
	}
	add("model.norm.weight", 1, 0.1, hidden)
	for i := range 2 {
		p := fmt.Sprintf("model.layers.%d.", i)
		add(p+"input_layernorm.weight", 1, 0.1, hidden)
		add(p+"post_attention_layernorm.weight", 1, 0.1, hidden)
	}
	add("model.embed_tokens.weight", 0, 0.5, vocab, hidden)
	for i := range 2 {
		p := fmt.Sprintf("model.layers.%d.", i)
		for _, m := range []string{"q", "k", "v", "o"} {
			add(p+"self_attn."+m+"_proj.weight", 0, 0.1, hidden, hidden)
		}
		add(p+"mlp.gate_proj.weight", 0, 0.1, inner, hidden)
		add(p+"mlp.up_proj.weight", 0, 0.1, inner, hidden)
		add(p+"mlp.down_proj.weight", 0, 0.1, hidden, inner)
	}
	add("lm_head.weight", 0, 0.1, vocab, hidden)
	return writeModel(t, tinyConfig(map[string]any{"vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
		"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}), ts)
}

// A checkpoint that is cut short, page by page from its end, is an error wherever the first missing byte is touched: by
// the embedding, by the packing of every product in each instruction set and format, on any thread.
func TestFileCutShort(t *testing.T) {
	for _, d := range []numeric.DType{numeric.F32, numeric.BF16, numeric.F16} {
		for _, compute := range []string{"f32", "bf16"} {
			for i, features := range []string{"amx", "avx512_bf16", "avx512f", "avx2", "neon", "go"} {
				o := model.Options{Compute: compute, CPUFeatures: features, Threads: 1 + 2*(i%2)}
				t.Run(fmt.Sprintf("%v/%s/%s", d, compute, features), func(t *testing.T) { cutShort(t, wide(t, d), o) })
			}
		}
	}
}

func cutShort(t *testing.T, dir string, o model.Options) {
	m, err := model.Open(dir, o)
	if err != nil {
		if strings.Contains(err.Error(), "this CPU has no ") {
			return // another machine's
		}
		t.Fatal(err)
	}
	defer m.Close()
	adapt(t, m, 0, "q_proj", "down_proj")
	b := &model.Batch{}
	r := rand.New(rand.NewPCG(5, 6))
	for range 3 {
		ids, from := sample(r, 12, 5)
		appendSample(b, ids, from)
	}
	ctx := context.Background()
	path := filepath.Join(dir, "model.safetensors")
	if _, err := m.Loss(ctx, b); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	whole := info.Size()
	want := fmt.Sprintf("the file was cut short while it was in use, from %d bytes to ", whole)
	for size := (whole - 1) / page * page; size >= 0; size -= 3 * page {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		_, lossErr := m.Loss(ctx, b)
		_, generateErr := m.Generate(ctx, [][]int32{{1, 2, 3}}, model.GenerateOptions{MaxNewTokens: 2})
		for what, err := range map[string]error{"Loss": lossErr, "Backward": m.Backward(ctx, b), "Generate": generateErr} {
			if err == nil || !strings.Contains(err.Error(), path+": byte ") || !strings.HasSuffix(err.Error(), want+fmt.Sprint(size)) {
				t.Fatalf("%s: got %v\nwant %s%d", what, err, want, size)
			}
		}
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.CheckFinite(); err == nil || !strings.HasSuffix(err.Error(), want+"0") {
		t.Errorf("CheckFinite: %v", err)
	}
	if _, err := m.TrainFull(model.EmbedTokens); err == nil || !strings.HasSuffix(err.Error(), want+"0") {
		t.Errorf("TrainFull: %v", err)
	}
	// The file comes back, with zeros in it.
	if err := os.Truncate(path, whole); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Loss(ctx, b); err == nil || !strings.HasPrefix(err.Error(), path+" changed while it was in use: ") {
		t.Errorf("a file that was written to: %v", err)
	}
}

// What is written into a checkpoint that is in use is not used; another file of its name does not matter.
func TestFileChanged(t *testing.T) {
	dir := wide(t, numeric.F32)
	m, err := model.Open(dir, model.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	adapt(t, m, 0, "q_proj")
	b := &model.Batch{}
	appendSample(b, []int32{1, 2, 3, 4}, 2)
	ctx := context.Background()
	before, err := m.Loss(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := path + ".old"
	if err := os.Link(path, old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", make([]byte, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if after, err := m.Loss(ctx, b); err != nil || after != before {
		t.Errorf("with another file under its name: %v, %v, want %v", after, err, before)
	}
	f, err := os.OpenFile(old, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, int64(len(data)-4)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	_, lossErr := m.Loss(ctx, b)
	_, logitsErr := m.Logits(ctx, b, []int32{0})
	_, generateErr := m.Generate(ctx, [][]int32{{1}}, model.GenerateOptions{MaxNewTokens: 1})
	for what, err := range map[string]error{"Loss": lossErr, "Logits": logitsErr, "Generate": generateErr, "Backward": m.Backward(ctx, b)} {
		if err == nil || !strings.HasPrefix(err.Error(), path+" changed while it was in use: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
