package model

import (
	"fmt"
	"math"
	"sync"
)

// Rope makes the tables that rotate queries and keys: for each row the cosines and sines of position times inverse
// frequency. The arithmetic is float32 in the order of Transformers (LlamaRotaryEmbedding, modeling_rope_utils), powers,
// cosines and sines being rounded correctly. PyTorch's own differ from that in a few entries in a hundred by one unit
// in the last place, and among themselves from one instruction set to the next. It may be used concurrently.
type Rope struct {
	c         RopeConfig
	headDim   int
	length    int       // max_position_embeddings
	invFreq   []float32 // [headDim/2]
	attention float32   // multiplies cosines and sines

	mu       sync.Mutex
	cos, sin []float32 // [cached positions, headDim/2]
	own      []float32 // inverse frequencies of a row of ownLen tokens, with dynamic rope
	ownLen   int32
}

// maxCached is the number of positions from 0 on that are kept; with a head of 128 they take 64 MB.
const maxCached = 1 << 17

// NewRope makes the tables' maker for a model.
func NewRope(c Config) (*Rope, error) {
	if c.HeadDim <= 0 || c.HeadDim%2 != 0 {
		return nil, fmt.Errorf("rope: head_dim: want an even number, got %d", c.HeadDim)
	}
	r := &Rope{c: c.Rope, headDim: c.HeadDim, length: c.MaxPositionEmbeddings, attention: 1}
	r.invFreq = make([]float32, c.HeadDim/2)
	r.own = make([]float32, c.HeadDim/2)
	inverseFrequencies(r.invFreq, float32(c.Rope.Theta))
	switch c.Rope.Type {
	case "default", "dynamic":
	case "linear":
		for i := range r.invFreq {
			r.invFreq[i] /= float32(c.Rope.Factor)
		}
	case "llama3":
		c.Rope.llama3(r.invFreq)
	case "yarn":
		c.Rope.yarn(r.invFreq)
		r.attention = float32(c.Rope.attentionFactor())
	default:
		return nil, fmt.Errorf("rope: unknown type %q", c.Rope.Type)
	}
	for i, f := range append(r.invFreq, r.attention) {
		if f-f != 0 {
			return nil, fmt.Errorf("rope: the parameters %+v make frequency %d of %d %v", c.Rope, i, len(r.invFreq), f)
		}
	}
	return r, nil
}

// DependsOnLength reports whether the table of a row depends on the length of its sequence.
func (r *Rope) DependsOnLength() bool { return r.c.Type == "dynamic" }

// Table writes the cosines and sines of each row, both [len(positions), headDim/2]. seqLens gives for each row how many
// tokens its sequence has; it is used only where DependsOnLength, and nil stands for lengths up to
// max_position_embeddings.
func (r *Rope) Table(positions, seqLens []int32, cos, sin []float32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache(positions)
	n := r.headDim / 2
	for t, p := range positions {
		c, s := cos[t*n:(t+1)*n], sin[t*n:(t+1)*n]
		switch {
		case r.DependsOnLength() && seqLens != nil && int(seqLens[t]) > r.length:
			r.row(p, r.dynamic(seqLens[t]), c, s)
		case p >= 0 && int(p) < len(r.cos)/n:
			copy(c, r.cos[int(p)*n:])
			copy(s, r.sin[int(p)*n:])
		default:
			r.row(p, r.invFreq, c, s)
		}
	}
}

// row writes one row of the tables.
func (r *Rope) row(position int32, invFreq, cos, sin []float32) {
	p := float32(position)
	for i, f := range invFreq {
		angle := float64(float32(p * f))
		cos[i] = float32(math.Cos(angle)) * r.attention
		sin[i] = float32(math.Sin(angle)) * r.attention
	}
}

// cache makes the rows of all positions that are asked for, as far as they are kept.
func (r *Rope) cache(positions []int32) {
	n := r.headDim / 2
	have, want := len(r.cos)/n, 0
	for _, p := range positions {
		if p < maxCached {
			want = max(want, int(p)+1)
		}
	}
	if want <= have {
		return
	}
	want = min(max(want, 2*have), maxCached)
	cos, sin := make([]float32, want*n), make([]float32, want*n)
	copy(cos, r.cos)
	copy(sin, r.sin)
	for p := have; p < want; p++ {
		r.row(int32(p), r.invFreq, cos[p*n:(p+1)*n], sin[p*n:(p+1)*n])
	}
	r.cos, r.sin = cos, sin
}

// reserve makes the rows of positions up to n, as far as they are kept.
func (r *Rope) reserve(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 {
		r.cache([]int32{int32(min(n, maxCached) - 1)})
	}
}

// inverseFrequencies writes base^(-2i/d) for the pairs i of a head of d.
func inverseFrequencies(dst []float32, base float32) {
	d := float32(2 * len(dst))
	for i := range dst {
		dst[i] = 1 / pow32(base, float32(2*i)/d)
	}
}

// pow32 is x^y, rounded to float32 once.
func pow32(x, y float32) float32 { return float32(math.Pow(float64(x), float64(y))) }

// dynamic returns the inverse frequencies of a sequence of n tokens, more than max_position_embeddings: the base grows
// with the length ("NTK-aware" scaling).
func (r *Rope) dynamic(n int32) []float32 {
	if n == r.ownLen {
		return r.own
	}
	factor, d := r.c.Factor, float64(r.headDim)
	grown := float32(float32(factor)*float32(n)) / float32(r.length)
	base := float32(r.c.Theta) * pow32(grown-float32(factor-1), float32(d/(d-2)))
	inverseFrequencies(r.own, base)
	r.ownLen = n
	return r.own
}

// llama3 slows the long wavelengths down by factor, leaves the short ones and goes from one to the other between.
func (c *RopeConfig) llama3(invFreq []float32) {
	factor, low := float32(c.Factor), float32(c.LowFreqFactor)
	original := float64(c.OriginalMaxPositionEmbeddings)
	longest, shortest := float32(original/c.LowFreqFactor), float32(original/c.HighFreqFactor)
	for i, f := range invFreq {
		wavelength := 1 / f * float32(2*math.Pi)
		switch {
		case wavelength > longest:
			invFreq[i] = f / factor
		case wavelength >= shortest:
			// The reciprocal is a step of its own: PyTorch divides a number by a tensor so.
			smooth := float32(float32(1/wavelength*float32(original))-low) / float32(c.HighFreqFactor-c.LowFreqFactor)
			invFreq[i] = float32((1-smooth)*f)/factor + float32(smooth*f)
		}
	}
}

// yarn goes over a ramp of pairs from the plain frequencies to those slowed down by factor (Peng et al. 2023,
// arXiv:2309.00071, section 3.2).
func (c *RopeConfig) yarn(invFreq []float32) {
	first, last := c.ramp(2 * len(invFreq))
	width := last - first
	if width == 0 {
		width = (last + 0.001) - first
	}
	for i := range invFreq {
		// 1 / f is not the power f came from, so it is computed again.
		power := pow32(float32(c.Theta), float32(2*i)/float32(2*len(invFreq)))
		slow := min(max((float32(i)-float32(first))/float32(width), 0), 1)
		fast := 1 - slow
		interpolated := 1 / float32(float32(c.Factor)*power)
		invFreq[i] = float32(interpolated*(1-fast)) + float32(invFreq[i]*fast)
	}
}

// ramp returns the pairs between which the frequencies change: where a head of d turns BetaFast and BetaSlow times
// within the length of the pretraining.
func (c *RopeConfig) ramp(d int) (first, last float64) {
	pair := func(turns float64) float64 {
		return float64(d) * math.Log(float64(c.OriginalMaxPositionEmbeddings)/(turns*2*math.Pi)) / (2 * math.Log(c.Theta))
	}
	first, last = pair(c.BetaFast), pair(c.BetaSlow)
	if c.Truncate {
		first, last = math.Floor(first), math.Ceil(last)
	}
	return max(first, 0), min(last, float64(d-1))
}

// attentionFactor is the number given, or what yarn infers from factor.
func (c *RopeConfig) attentionFactor() float64 {
	if c.AttentionFactor != 0 {
		return c.AttentionFactor
	}
	scale := func(m float64) float64 {
		if c.Factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(c.Factor) + 1
	}
	if c.MScale != 0 && c.MScaleAllDim != 0 {
		return scale(c.MScale) / scale(c.MScaleAllDim)
	}
	return scale(1)
}
