package cuda

import (
	"fmt"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/backendtest"
)

// orders are how the emulated device's threads take turns between barriers: ascending, descending, shuffled.
var orders = []uint64{0, 1, 7}

// TestOracle runs every operation, in each order of the threads, against float64, and wants the same bits in each.
func TestOracle(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		t.Run(compute, func(t *testing.T) {
			be := emulated(t, compute)
			be.poison = true
			for _, e := range backendtest.Entries() {
				t.Run(e.Name, func(t *testing.T) { testOracle(t, be, e) })
			}
		})
	}
}

func testOracle(t *testing.T, be *Backend, e backendtest.Entry) {
	// In f32 the order of the sums differs, and e^x by a few units in the last place. In bf16 the inputs are exact: what
	// is stored as bf16 is off by 2^-9, sums of products of two such by twice that of their largest terms.
	tolerance := 2e-6
	switch {
	case be.half && (e.Rounds || strings.HasPrefix(e.Name, "attention")):
		tolerance = 2e-2 // attention rounds rotated queries and keys, p and ds
	case be.half:
		tolerance = 8e-3
	}
	want := backendtest.Execute(backendtest.Oracle, be.half, e.Program)
	var first []backendtest.Result
	for _, order := range orders {
		setOrder(t, order)
		got := backendtest.Execute(be, be.half, e.Program)
		backendtest.Compare(t, got, want, tolerance)
		if first == nil {
			first = got
		}
		for i := range got {
			if !backendtest.SameBits(got[i].V, first[i].V) {
				t.Errorf("%s: not the same bits where threads take turns in order %d", got[i].Name, order)
			}
		}
	}
	setOrder(t, 0)
}

// TestRuns wants the same bits from a second run, on memory that is used again.
func TestRuns(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		for _, e := range backendtest.Entries() {
			var results [2][]backendtest.Result
			for i := range results {
				be.poison = i == 1
				results[i] = backendtest.Execute(be, be.half, e.Program)
			}
			for i, r := range results[0] {
				if !backendtest.SameBits(r.V, results[1][i].V) {
					t.Errorf("%s", fmt.Sprint(compute, "/", e.Name, ": ", r.Name, " differs in a second run"))
				}
			}
		}
	}
}
