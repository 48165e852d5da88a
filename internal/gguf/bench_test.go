package gguf

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// BenchmarkDequantize counts bytes of float32 that are made, on one core.
func BenchmarkDequantize(b *testing.B) {
	const n = 1 << 14 // fits into the caches: what is measured is the decoding
	rng := rand.NewChaCha8([32]byte{1})
	for t := range Type(len(types)) {
		if !t.Readable() {
			continue
		}
		b.Run(t.String(), func(b *testing.B) {
			elements, bytes := t.Block()
			src, dst := make([]byte, n/elements*bytes), make([]float32, n)
			_, _ = rng.Read(src)
			for i := range src {
				src[i] &= 0xbf // no exponent of all ones: NaNs and infinities are not what weights are made of
			}
			b.SetBytes(4 * n)
			for b.Loop() {
				if err := Dequantize(dst, t, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens a file with the metadata of a vocabulary of 128,000 tokens and 280,000 merges, and reads both.
func BenchmarkOpen(b *testing.B) {
	names := make([]string, 280_000)
	for i := range names {
		names[i] = fmt.Sprintf("Ġtoken %d", i)
	}
	path := filepath.Join(b.TempDir(), "x.gguf")
	err := WriteFile(path, []KeyValue{
		{"tokenizer.ggml.tokens", names[:128_000]}, {"tokenizer.ggml.merges", names},
		{"tokenizer.ggml.token_type", make([]int32, 128_000)},
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, read := range []bool{false, true} {
		b.Run(fmt.Sprintf("read=%v", read), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				if read {
					tokens, err := f.Strings("tokenizer.ggml.tokens")
					merges, err2 := f.Strings("tokenizer.ggml.merges")
					if err != nil || err2 != nil || len(tokens)+len(merges) != 408_000 {
						b.Fatal(err, err2)
					}
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
