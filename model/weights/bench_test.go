package weights

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// sparse leaves holes in a file where zeros are written.
type sparse struct{ *os.File }

var zeros = make([]byte, 1<<20)

func (s sparse) Write(p []byte) (int, error) {
	if len(p) >= 4096 && bytes.Equal(p, zeros[:min(len(p), len(zeros))]) {
		_, err := s.Seek(int64(len(p)), io.SeekCurrent)
		return len(p), err
	}
	return s.File.Write(p)
}

// hole writes n zeros.
func hole(w io.Writer, n int64) error {
	for n > 0 {
		k, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// sevenB lists the tensors of a LLaMA of 7 billion parameters, with Meta's names: 13.5 GB as 16 bits.
func sevenB() (names []string, shapes [][]int) {
	add := func(name string, shape ...int) { names, shapes = append(names, name), append(shapes, shape) }
	add("tok_embeddings.weight", 32000, 4096)
	for i := range 32 {
		for _, m := range []string{"wq", "wk", "wv", "wo"} {
			add(fmt.Sprintf("layers.%d.attention.%s.weight", i, m), 4096, 4096)
		}
		add(fmt.Sprintf("layers.%d.feed_forward.w1.weight", i), 11008, 4096)
		add(fmt.Sprintf("layers.%d.feed_forward.w2.weight", i), 4096, 11008)
		add(fmt.Sprintf("layers.%d.feed_forward.w3.weight", i), 11008, 4096)
		add(fmt.Sprintf("layers.%d.attention_norm.weight", i), 4096)
		add(fmt.Sprintf("layers.%d.ffn_norm.weight", i), 4096)
	}
	add("norm.weight", 4096)
	add("output.weight", 32000, 4096)
	return names, shapes
}

// product is the number of elements.
func product(shape []int) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= int64(d)
	}
	return n
}

// writePickle writes tensors of 16 bits as PyTorch does, a storage each.
func writePickle(w io.Writer, names []string, shapes [][]int) error {
	var program strings.Builder
	program.WriteString("(d")
	for i, name := range names {
		strides := []int{1}
		if len(shapes[i]) == 2 {
			strides = []int{shapes[i][1], 1}
		}
		fmt.Fprintf(&program, "S'%s'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nHalfStorage\nS'%d'\nS'cpu'\nI%d\ntQI0\n(%st(%stI00\nNtRs",
			name, i, product(shapes[i]), numbers(shapes[i]), numbers(strides))
	}
	program.WriteString(".")
	z := zip.NewWriter(w)
	f, err := z.CreateHeader(&zip.FileHeader{Name: "archive/data.pkl", Method: zip.Store})
	if err == nil {
		_, err = io.WriteString(f, program.String())
	}
	if err != nil {
		return err
	}
	for i := range names {
		n := 2 * product(shapes[i])
		f, err := z.CreateRaw(&zip.FileHeader{Name: fmt.Sprintf("archive/data/%d", i), Method: zip.Store, CompressedSize64: uint64(n), UncompressedSize64: uint64(n)})
		if err == nil {
			err = hole(f, n)
		}
		if err != nil {
			return err
		}
	}
	return z.Close()
}

// BenchmarkOpen opens 13.5 GB in each form: files with holes in place of the weights.
func BenchmarkOpen(b *testing.B) {
	names, shapes := sevenB()
	hf := make([]string, len(names))
	for i, n := range names {
		hf[i], _ = metaName(n)
	}
	for form, write := range map[string]func(dir string, create func(name string) io.Writer) error{
		"safetensors": func(_ string, create func(string) io.Writer) error {
			var list []safetensors.Source
			for i := range hf {
				list = append(list, safetensors.Source{Name: hf[i], DType: numeric.F16, Shape: shapes[i],
					Write: func(w io.Writer) error { return hole(w, 2*product(shapes[i])) }})
			}
			return safetensors.Write(create(SingleFile), list, nil)
		},
		"bin": func(_ string, create func(string) io.Writer) error {
			return writePickle(create(PickleFile), hf, shapes)
		},
		"pth": func(dir string, create func(string) io.Writer) error {
			const params = `{"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06, "vocab_size": -1}`
			if err := os.WriteFile(filepath.Join(dir, ParamsFile), []byte(params), 0o666); err != nil {
				return err
			}
			return writePickle(create("consolidated.00.pth"), names, shapes)
		},
		"gguf": func(_ string, create func(string) io.Writer) error {
			kv, _ := ggufModel()
			kv[1].Value, kv[3].Value, kv[4].Value, kv[5].Value = uint32(32), uint32(4096), uint32(11008), uint32(32)
			kv = append(kv, gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: make([]string, 32000)})
			var list []gguf.Source
			for i, n := range names {
				list = append(list, gguf.Source{Name: llamaCpp(n), Type: gguf.F16, Shape: shapes[i],
					Write: func(w io.Writer) error { return hole(w, 2*product(shapes[i])) }})
			}
			return gguf.Write(create("x.gguf"), kv, list)
		},
	} {
		b.Run(form, func(b *testing.B) {
			dir := b.TempDir()
			var f *os.File
			err := write(dir, func(name string) io.Writer {
				var err error
				if f, err = os.Create(filepath.Join(dir, name)); err != nil {
					b.Fatal(err)
				}
				return sparse{f}
			})
			if err != nil {
				b.Fatal(err)
			}
			size, err := f.Seek(0, io.SeekCurrent)
			if err := errors.Join(err, f.Truncate(size), f.Close()); err != nil { // the last hole
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				c, err := Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				if c.Bytes() < 13e9 || len(c.Names()) != len(names) {
					b.Fatalf("%d tensors of %d bytes", len(c.Names()), c.Bytes())
				}
				c.Close()
			}
		})
	}
}

// llamaCpp turns Meta's names into llama.cpp's.
func llamaCpp(name string) string {
	return strings.NewReplacer("tok_embeddings", "token_embd", "layers.", "blk.", "attention.wq", "attn_q", "attention.wk", "attn_k",
		"attention.wv", "attn_v", "attention.wo", "attn_output", "feed_forward.w1", "ffn_gate", "feed_forward.w2", "ffn_down",
		"feed_forward.w3", "ffn_up", "attention_norm", "attn_norm", "norm.weight", "output_norm.weight").Replace(
		strings.Replace(strings.Replace(name, "attention_norm.weight", "attn_norm", 1), "ffn_norm.weight", "ffn_norm", 1))
}

// layouts are the ways in which 16 Mi elements [4096, 4096] may lie in a file.
func layouts() map[string]Tensor {
	const n = 4096
	random := rand.NewChaCha8([32]byte{1})
	blocks := func(t gguf.Type) Tensor {
		elements, size := t.Block()
		data := make([]byte, n*n/elements*size)
		random.Read(data)
		for i := 0; i < len(data); i += size { // scales that are not NaN
			for _, at := range []int{1, 3, size - 1} {
				data[i+at] &= 0x3b
			}
		}
		return Tensor{DType: numeric.F32, Type: t.String(), Shape: []int{n, n}, layout: &quantised{t, data}, blocks: true}
	}
	data := make([]byte, 4*n*n)
	for i := range n * n {
		data[2*i+1], data[2*i] = 0x3c, byte(i)
	}
	plain := Tensor{DType: numeric.BF16, Shape: []int{n, n}, Data: data[:2*n*n]}
	turned, _ := turn(plain, 32, 128)
	columns := plain
	columns.Data, columns.layout = nil, &joined{parts: []layout{
		newStrided(data[:n*n], 2, []int{n, n / 2}, []int{n / 2, 1}), newStrided(data[n*n:2*n*n], 2, []int{n, n / 2}, []int{n / 2, 1})}, width: n / 2, size: 2}
	transposed := plain
	transposed.Data, transposed.layout = nil, newStrided(data[:2*n*n], 2, []int{n, n}, []int{1, n})
	wide := Tensor{DType: numeric.F64, Type: "F64", Shape: []int{n, n / 2}, Data: data}
	return map[string]Tensor{"bf16": plain, "turned": turned, "columns": columns, "transposed": transposed, "f64": wide,
		"q8_0": blocks(gguf.Q8_0), "q4_0": blocks(gguf.Q4_0), "q4_K": blocks(gguf.Q4_K), "q6_K": blocks(gguf.Q6_K)}
}

// BenchmarkElements reads a matrix as float32, on one core. The rate is that of what comes out.
func BenchmarkElements(b *testing.B) {
	for name, t := range layouts() {
		b.Run(name, func(b *testing.B) {
			v := make([]float32, t.Len())
			b.SetBytes(int64(4 * len(v)))
			for b.Loop() {
				if err := t.Elements(v, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConvert makes what Prepare makes of a matrix, on all cores, without writing it. The rate is that of what
// comes out.
func BenchmarkConvert(b *testing.B) {
	for name, t := range layouts() {
		to := t.DType
		if t.blocks {
			to = numeric.BF16
		}
		if to == numeric.F64 {
			to = numeric.F32
		}
		if name == "bf16" {
			continue // is used in place
		}
		b.Run(fmt.Sprintf("%s to %v", name, to), func(b *testing.B) {
			b.SetBytes(int64(t.Len() * to.Size()))
			for b.Loop() {
				if err := t.stream(context.Background(), to, func([]byte, int) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCache makes and finds a file of 256 MiB of converted tensors.
func BenchmarkCache(b *testing.B) {
	t := layouts()["q4_K"]
	dir := b.TempDir()
	file := filepath.Join(dir, "x")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		b.Fatal(err)
	}
	fresh := func() *Checkpoint {
		c := &Checkpoint{dir: dir, files: []string{file}, byName: map[string]int{}, format: GGUF}
		for i := range 8 {
			x := t
			x.Name = fmt.Sprint(i)
			if err := c.add(x); err != nil {
				b.Fatal(err)
			}
		}
		return c
	}
	run := func(b *testing.B, o PrepareOptions) {
		c := fresh()
		if err := c.Prepare(context.Background(), o); err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	o := PrepareOptions{DType: numeric.BF16}
	b.Run("make", func(b *testing.B) {
		b.SetBytes(8 * 32 << 20)
		for b.Loop() {
			os.RemoveAll(filepath.Join(dir, cacheFolder))
			run(b, o)
		}
	})
	b.Run("find", func(b *testing.B) {
		b.SetBytes(8 * 32 << 20)
		for b.Loop() {
			run(b, o)
		}
	})
}
