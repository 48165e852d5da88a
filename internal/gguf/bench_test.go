package gguf

import (
	"math/rand/v2"
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
