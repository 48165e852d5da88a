package backend

import "math/bits"

// Philox is the counter-based generator Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2,
// 3", SC11): four random words that are a pure function of key and counter.
func Philox(key uint64, c0, c1, c2, c3 uint32) (r [4]uint32) {
	k0, k1 := uint32(key), uint32(key>>32)
	for range 10 {
		h0, l0 := bits.Mul32(0xD2511F53, c0)
		h1, l1 := bits.Mul32(0xCD9E8D57, c2)
		c0, c1, c2, c3 = h1^c1^k0, l1, h0^c3^k1, l0
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return [4]uint32{c0, c1, c2, c3}
}

// Mask writes dropout's factors for one row of a linear's input: 0 with probability p, else 1/(1-p).
func (d *Dropout) Mask(dst []float32, p float32, site uint32, row int, position int32) {
	keep := 1 / (1 - p)
	limit := uint64(float64(p) * (1 << 32))
	for c := 0; c < len(dst); c += 4 {
		r := Philox(d.Seed, uint32(c/4), uint32(position), d.Samples[row], d.Epoch<<12^site)
		for i := range min(4, len(dst)-c) {
			dst[c+i] = keep
			if uint64(r[i]) < limit {
				dst[c+i] = 0
			}
		}
	}
}
