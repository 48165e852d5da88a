package train

import (
	"math"
	"slices"
	"testing"
)

// The order of rows is a promise: the same seed trains in the same order with any version, on any machine. The values
// are from an implementation of their definition in Python.
func TestPermutationIsPinned(t *testing.T) {
	for _, c := range []struct {
		seed           uint64
		purpose, epoch uint32
		want           []int
	}{
		{42, forEpoch, 0, []int{9, 1, 7, 10, 11, 5, 4, 8, 2, 6, 0, 3}},
		{42, forEpoch, 1, []int{4, 1, 5, 9, 6, 2, 8, 7, 11, 3, 10, 0}},
		{43, forEpoch, 0, []int{5, 3, 6, 1, 9, 10, 11, 2, 8, 7, 4, 0}},
		{42, forValidation, 0, []int{2, 10, 1, 8, 7, 5, 11, 9, 6, 4, 0, 3}},
		{1<<63 | 5, forEpoch, 7, []int{1, 10, 7, 0, 3, 5, 2, 4, 11, 6, 8, 9}},
	} {
		if got := permutation(12, c.seed, c.purpose, c.epoch); !slices.Equal(got, c.want) {
			t.Errorf("seed %d, purpose %d, epoch %d: %v, want %v", c.seed, c.purpose, c.epoch, got, c.want)
		}
	}
}

// Each of the orders of 4 elements comes up as often as the others: chi-squared with 23 degrees of freedom.
func TestPermutationIsUniform(t *testing.T) {
	const runs = 24000
	count := map[[4]int]int{}
	for seed := range uint64(runs) {
		count[[4]int(permutation(4, seed, forEpoch, 0))]++
	}
	var chi float64
	for _, n := range count {
		d := float64(n) - runs/24
		chi += d * d / (runs / 24)
	}
	if len(count) != 24 || chi > 49.7 { // p = 0.001
		t.Errorf("%d orders, chi-squared %.1f", len(count), chi)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		n    int
		size float64
		held int
	}{{10, 0, 0}, {10, 3, 3}, {10, 0.25, 3}, {10, 0.999, -1}, {10, 10, -1}, {10, 9, 9}, {1, 0, 0}, {1, 0.5, -1}, {10, 1e9, -1}} {
		train, eval, err := split(c.n, c.size, 42)
		if (err != nil) != (c.held < 0) {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		if len(eval) != c.held || !slices.IsSorted(train) || !slices.IsSorted(eval) {
			t.Errorf("%+v: %v and %v", c, train, eval)
		}
		all := slices.Concat(train, eval)
		slices.Sort(all)
		for i, v := range all {
			if i != v {
				t.Errorf("%+v: %v and %v are not all rows", c, train, eval)
				break
			}
		}
	}
	_, a, _ := split(100, 10, 1)
	_, b, _ := split(100, 10, 2)
	if slices.Equal(a, b) {
		t.Error("the split does not depend on the seed")
	}
}

func TestEpochOrder(t *testing.T) {
	rows := []int{3, 5, 8, 9}
	if got := epochOrder(rows, Options{}, 3); !slices.Equal(got, rows) {
		t.Errorf("the file's order became %v", got)
	}
	o := Options{Shuffle: true, Seed: 1}
	got := epochOrder(rows, o, 0)
	if !slices.Equal(rows, []int{3, 5, 8, 9}) {
		t.Fatal("shuffling changed the rows")
	}
	slices.Sort(got)
	if !slices.Equal(got, rows) {
		t.Errorf("shuffled: %v", got)
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ norm, limit, want float64 }{
		{2, 0, 1}, {0.5, 1, 1}, {2, 1, 1 / (2 + 1e-6)}, {1, 1, 1 / (1 + 1e-6)}, {0, 1, 1}, {0, 1e-7, 0.1},
	} {
		if got := clip(c.norm, c.limit); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("norm %v, limit %v: %v, want %v", c.norm, c.limit, got, c.want)
		}
	}
}
