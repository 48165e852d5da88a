package tokenizer

import (
	"math/bits"
	"math/rand/v2"
)

// pairs finds the merge of a pair of tokens. It is a hash table with open addressing, several times as fast as Go's map.
// The hash has a random seed: a file cannot be made so that its pairs collide.
type pairs struct {
	slots []pairSlot // a power of two of them, at most half in use
	shift int        // of a hash, for its slot
	seed  uint64
}

// pairSlot is in use unless it makes none.
type pairSlot struct {
	pair
	merge
}

// newPairs returns a table for n pairs.
func newPairs(n int) *pairs {
	size := bits.Len(uint(n)) + 1
	p := &pairs{slots: make([]pairSlot, 1<<size), shift: 64 - size, seed: rand.Uint64()}
	for i := range p.slots {
		p.slots[i].id = none
	}
	return p
}

// slot returns the slot of a pair, or the one that it would get.
func (p *pairs) slot(k pair) *pairSlot {
	h := uint64(uint32(k.left))<<32 | uint64(uint32(k.right))
	h = (h ^ p.seed) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32) * 0xd6e8feb86659fd93
	for i := h >> p.shift; ; i = (i + 1) & uint64(len(p.slots)-1) {
		if s := &p.slots[i]; s.pair == k || s.id == none {
			return s
		}
	}
}

// set sets the merge of a pair. No more pairs may be set than the table is for.
func (p *pairs) set(k pair, m merge) { *p.slot(k) = pairSlot{k, m} }

// get returns the merge of a pair.
func (p *pairs) get(k pair) (merge, bool) {
	s := p.slot(k)
	return s.merge, s.id != none
}
