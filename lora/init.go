package lora

import (
	"hash/fnv"
	"math"

	"github.com/biolora/biolora/internal/backend"
)

// initial returns the starting values of a target: A [r, in] and B [out, r], row-major. They depend on the seed, the
// module's name and the element only.
func (t Target) initial(init Init, seed uint64) (a, b []float32) {
	a, b = make([]float32, t.R*t.In), make([]float32, t.Out*t.R)
	switch init {
	case Gaussian:
		normal(a, seed, t.Name+".lora_A", 1/float64(t.R))
	case Kaiming:
		uniform(a, seed, t.Name+".lora_A", 1/math.Sqrt(float64(t.In)))
	case Random:
		uniform(a, seed, t.Name+".lora_A", 1/math.Sqrt(float64(t.In)))
		uniform(b, seed, t.Name+".lora_B", 1/math.Sqrt(float64(t.R)))
	}
	return a, b
}

// words yields four random words for each four elements of a tensor.
func words(n int, seed uint64, name string, each func(i int, w [4]uint32)) {
	h := fnv.New64a()
	h.Write([]byte(name))
	id := h.Sum64()
	for i := 0; i < n; i += 4 {
		block := uint64(i / 4)
		each(i, backend.Philox(seed, uint32(block), uint32(block>>32), uint32(id), uint32(id>>32)))
	}
}

// uniform fills dst from [-bound, bound), with 24 random bits an element. PyTorch's kaiming_uniform_ with a = sqrt(5)
// is this with bound 1/sqrt(inputs).
func uniform(dst []float32, seed uint64, name string, bound float64) {
	words(len(dst), seed, name, func(i int, w [4]uint32) {
		for j := range min(4, len(dst)-i) {
			u := float64(w[j]>>8) / (1 << 24)
			dst[i+j] = float32((2*u - 1) * bound)
		}
	})
}

// normal fills dst with mean 0 (Box and Muller 1958).
func normal(dst []float32, seed uint64, name string, std float64) {
	words(len(dst), seed, name, func(i int, w [4]uint32) {
		for j := range min(4, len(dst)-i) {
			k := j &^ 1
			radius := std * math.Sqrt(-2*math.Log((float64(w[k])+0.5)/(1<<32)))
			sin, cos := math.Sincos(2 * math.Pi * float64(w[k+1]) / (1 << 32))
			dst[i+j] = float32(radius * [2]float64{cos, sin}[j&1])
		}
	})
}
