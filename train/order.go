package train

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/biolora/biolora/internal/backend"
)

// What a permutation is for: another purpose is another one.
const (
	forEpoch uint32 = 1 + iota
	forValidation
)

// permutation is a random order of 0 to n-1: Fisher and Yates' shuffle from the end, where the swap of element i
// draws from Philox4x32-10 with the key seed and the counter (i, epoch, purpose, 2³²-1). It depends on nothing else,
// so it is the same on every machine.
func permutation(n int, seed uint64, purpose, epoch uint32) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for i := n - 1; i > 0; i-- {
		r := backend.Philox(seed, uint32(i), epoch, purpose, math.MaxUint32)
		j, _ := bits.Mul64(uint64(r[0])<<32|uint64(r[1]), uint64(i+1)) // uniform in [0, i] but for n/2⁶⁴
		order[i], order[int(j)] = order[int(j)], order[i]
	}
	return order
}

// split holds rows out for validation: a seeded choice of size rows, or of a share of them below 1, rounded up. Both
// parts are in the order of the rows.
func split(n int, size float64, seed uint64) (train, eval []int, err error) {
	held := int(size)
	if size < 1 {
		held = int(math.Ceil(float64(n) * size))
	}
	if held >= n {
		return nil, nil, fmt.Errorf("ValSetSize %v holds out %d of %d rows: nothing is left to train on", size, held, n)
	}
	order := permutation(n, seed, forValidation, 0)
	eval, train = order[:held], order[held:]
	slices.Sort(eval)
	slices.Sort(train)
	return train, eval, nil
}

// epochOrder is the order in which an epoch goes through rows.
func epochOrder(rows []int, o Options, epoch int) []int {
	if !o.Shuffle {
		return rows
	}
	order := permutation(len(rows), o.Seed, forEpoch, uint32(epoch))
	for i, j := range order {
		order[i] = rows[j]
	}
	return order
}
