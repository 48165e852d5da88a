package rouge

import "math/bits"

// pattern is a text prepared for the length of its longest common subsequence with many others, 64 of its tokens a
// step: Hyyrö, "Bit-Parallel LCS-length Computation Revisited" (2004).
type pattern struct {
	n      int      // tokens
	width  int      // uint64 words that hold a bit for each
	slots  []int32  // for each number of a word, its place among the masks; 0 for words that are not in the pattern
	masks  []uint64 // [1 + distinct words, width]: at which positions the word is; place 0 is not used
	column []uint64 // working memory for callers that have no other
}

// set prepares tokens, [n], whose numbers are below size or unknown.
func (p *pattern) set(tokens []uint32, size int) {
	p.n, p.width = len(tokens), (len(tokens)+63)/64
	if grow := size - len(p.slots); grow > 0 {
		p.slots = append(p.slots, make([]int32, grow)...)
	}
	p.masks = append(p.masks[:0], make([]uint64, p.width)...)
	for i, t := range tokens {
		if t == unknown {
			continue
		}
		slot := p.slots[t]
		if slot == 0 {
			slot = int32(len(p.masks) / p.width)
			p.slots[t] = slot
			p.masks = append(p.masks, make([]uint64, p.width)...)
		}
		p.masks[int(slot)*p.width+i/64] |= 1 << (i % 64)
	}
}

// clear forgets what set was given.
func (p *pattern) clear(tokens []uint32) {
	for _, t := range tokens {
		if t != unknown {
			p.slots[t] = 0
		}
	}
}

// lcs is the length of the longest common subsequence with text. Column is working memory of the caller's, so that
// several goroutines may share a pattern.
func (p *pattern) lcs(text []uint32, column *[]uint64) int {
	if p.n == 0 {
		return 0
	}
	if p.width == 1 {
		return p.lcs64(text)
	}
	v := append((*column)[:0], p.masks[:p.width]...)
	*column = v
	for i := range v {
		v[i] = ^uint64(0)
	}
	for _, t := range text {
		slot := int(p.slots[t])
		if slot == 0 {
			continue
		}
		var carry uint64
		for i, m := range p.masks[slot*p.width:][:len(v)] {
			sum, c := bits.Add64(v[i], v[i]&m, carry)
			v[i], carry = sum|v[i]&^m, c
		}
	}
	length := 0
	for i, x := range v {
		if left := p.n - 64*i; left < 64 {
			x |= ^uint64(0) << left
		}
		length += bits.OnesCount64(^x)
	}
	return length
}

// lcs64 is lcs for a pattern of up to 64 tokens.
func (p *pattern) lcs64(text []uint32) int {
	v := ^uint64(0)
	for _, t := range text {
		if slot := p.slots[t]; slot != 0 {
			m := p.masks[slot]
			v = (v + v&m) | v&^m
		}
	}
	if p.n < 64 {
		v |= ^uint64(0) << p.n
	}
	return bits.OnesCount64(^v)
}
