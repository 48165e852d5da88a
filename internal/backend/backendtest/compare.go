package backendtest

import (
	"math"
	"testing"

	"github.com/biolora/biolora/internal/backend/ref"
)

// Oracle is the backend that the others are compared with.
var Oracle = ref.New()

// Distance is the largest difference relative to the largest wanted value; NaN counts as infinite.
func Distance(got, want []float32) float64 {
	var diff, top float64
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		diff, top = max(diff, d), max(top, math.Abs(float64(want[i])))
	}
	if diff == 0 {
		return 0
	}
	return diff / top
}

// Compare fails the test where a result differs from the oracle's by more than tolerance, as Distance measures.
func Compare(t *testing.T, got, want []Result, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d results, want %d", len(got), len(want))
	}
	for i := range want {
		if len(got[i].V) != len(want[i].V) {
			t.Fatalf("%s: %d values, want %d", want[i].Name, len(got[i].V), len(want[i].V))
		}
		if d := Distance(got[i].V, want[i].V); d > tolerance {
			t.Errorf("%s: differs from the oracle by %.2g of its largest value, allowed %.2g", want[i].Name, d, tolerance)
		}
	}
}

// SameBits reports whether a and b are the same to the bit.
func SameBits(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}
