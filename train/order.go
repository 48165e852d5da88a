package train

import (
	"cmp"
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
	forGroups
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

// order is the order in which an epoch goes through the rows that are trained on.
func (r *run) order(epoch int) []int {
	order := epochOrder(r.rows, r.Options, epoch)
	if r.GroupByPrefix {
		order = r.grouped(order, epoch)
	}
	return order
}

// epochOrder is the order in which an epoch goes through rows, before they are grouped.
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

// groupedBatches is the number of micro-batches among which rows are grouped: enough that like rows meet, few enough
// that an epoch stays a mixture.
const groupedBatches = 64

// grouped brings rows that begin alike together within runs of groupedBatches micro-batches, and puts these in a new
// order where the rows are shuffled. A last micro-batch that is not full stays the last, so that the epoch's
// micro-batches are cut where they were made.
func (r *run) grouped(order []int, epoch int) []int {
	size := r.PerDeviceTrainBatchSize
	grouped := slices.Clone(order)
	for run := range slices.Chunk(grouped, groupedBatches*size) {
		r.sortByHead(run)
	}
	if !r.Shuffle {
		return grouped
	}
	full := len(grouped) / size
	mixed := make([]int, 0, len(grouped))
	for _, i := range permutation(full, r.Seed, forGroups, uint32(epoch)) {
		mixed = append(mixed, grouped[i*size:(i+1)*size]...)
	}
	return append(mixed, grouped[full*size:]...)
}

// sortByHead sorts rows by what they begin with.
func (r *run) sortByHead(rows []int) {
	ids := func(i int) []int32 { return r.data.List[i].IDs }
	slices.SortFunc(rows, func(a, b int) int { return cmp.Or(slices.Compare(ids(a), ids(b)), cmp.Compare(a, b)) })
	copy(rows, byHead(slices.Clone(rows), 0, r.PerDeviceTrainBatchSize, ids))
}

// byHead orders rows, which are sorted by their tokens and have those before at in common: first those that share no
// longer head with enough others to fill a micro-batch, by length, then each such head's.
func byHead(rows []int, at, enough int, ids func(int) []int32) []int {
	at += shared(ids(rows[0])[at:], ids(rows[len(rows)-1])[at:])
	var rest, heads []int
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && shared(ids(rows[0])[at:], ids(rows[n])[at:]) > 0 {
			n++
		}
		if n >= enough && shared(ids(rows[0])[at:], ids(rows[n-1])[at:]) >= leastShared {
			heads = append(heads, byHead(rows[:n], at, enough, ids)...)
		} else {
			rest = append(rest, rows[:n]...)
		}
		rows = rows[n:]
	}
	slices.SortStableFunc(rest, func(a, b int) int { return cmp.Compare(len(ids(a)), len(ids(b))) })
	return append(rest, heads...)
}

// shared is the number of tokens with which both begin.
func shared(a, b []int32) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
