package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// sweep is the order of layers 0 to n-1 upwards and down again to the lowest; pinned is part n.
func sweep(n, lowest int) (order []int) {
	order = append(order, n)
	for i := range n {
		order = append(order, i)
	}
	for i := n - 2; i >= lowest; i-- {
		order = append(order, i)
	}
	return order
}

func equal(n int, size int64) (sizes []int64, pinned []bool) {
	for range n {
		sizes = append(sizes, size)
	}
	return append(sizes, 5), append(make([]bool, n), true)
}

// steps runs passes as a reader does that is as fast as can be, and tells what is read and dropped.
func steps(t *testing.T, p *policy, order []int, passes int, see func(pass int, event string)) {
	t.Helper()
	for pass := range passes {
		p.begin(order)
		for _, i := range order {
			p.use(i)
			for {
				read, drop, ok := p.step(nil)
				for _, d := range drop {
					see(pass, fmt.Sprintf("-%d", d))
				}
				if !ok {
					break
				}
				see(pass, fmt.Sprintf("+%d", read))
			}
			if !p.in[i] {
				t.Fatalf("pass %d uses %d, which is not in memory", pass, i)
			}
			see(pass, fmt.Sprint(i))
		}
	}
}

// Three steps of six layers of which three have room.
func TestPolicy(t *testing.T) {
	sizes, pinned := equal(6, 100)
	p := newPolicy(sizes, pinned, 5+3*100+99)
	var got [3][]string
	steps(t, p, sweep(6, 0), 3, func(pass int, event string) { got[pass] = append(got[pass], event) })
	for pass, want := range []string{
		"[+6 +0 +1 +2 6 0 -0 +3 1 -1 +4 2 -2 +5 3 4 5 -5 +2 4 -4 +1 3 -3 +0 2 1 0]",
		"[6 0 -0 +3 1 -1 +4 2 -2 +5 3 4 5 -5 +2 4 -4 +1 3 -3 +0 2 1 0]",
		"[6 0 -0 +3 1 -1 +4 2 -2 +5 3 4 5 -5 +2 4 -4 +1 3 -3 +0 2 1 0]",
	} {
		if text := fmt.Sprint(got[pass]); text != want {
			t.Errorf("pass %d\ngot  %s\nwant %s", pass, text, want)
		}
	}
}

// A pass up and down reads twice what has no room, which is the least there is. Passes upwards alone read as much in
// each as has no room beside the three layers of which one is in use and two are read.
func TestReadsTheLeast(t *testing.T) {
	for n := 1; n <= 24; n++ {
		sizes, pinned := equal(n, 100)
		for k := 1; k <= n+1; k++ {
			budget := int64(5 + 100*k)
			if got, want := Reads(sizes, pinned, sweep(n, 0), budget), int64(2*100*max(0, n-k)); got != want {
				t.Errorf("%d layers, room for %d: %d bytes a pass, want %d", n, k, got, want)
			}
			most := int64(100 * min(n, n-k+3))
			if k >= n {
				most = 0
			}
			if got := Reads(sizes, pinned, sweep(n, n), budget); got > most {
				t.Errorf("%d layers, room for %d: %d bytes upwards, want %d at most", n, k, got, most)
			}
		}
	}
}

// Whatever the sizes, the budget and the order: what is used is there, what is in memory has room unless it is one
// layer alone, and neither what is in use nor what is pinned is dropped.
func TestPolicyHolds(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 1 + r.IntN(9)
		sizes, pinned := equal(n, 0)
		for i := range n {
			sizes[i] = int64(r.IntN(300))
		}
		budget := int64(r.IntN(1000))
		p := newPolicy(sizes, pinned, budget)
		order := sweep(n, r.IntN(n+1))
		steps(t, p, order, 4, func(_ int, event string) {
			var held int64
			count := 0
			for i, in := range p.in {
				if in {
					held += sizes[i]
				}
				if in && !pinned[i] {
					count++
				}
			}
			using := order[p.at]
			if held != p.held || held > budget && count > 1 {
				t.Fatalf("seed %d, %s: %d bytes, counted as %d, of %d: %v in use %d", seed, event, held, p.held, budget, p.in, using)
			}
			if event == fmt.Sprintf("-%d", n) || event == fmt.Sprintf("-%d", using) {
				t.Fatalf("seed %d: %s with %d in use", seed, event, using)
			}
		})
	}
}
