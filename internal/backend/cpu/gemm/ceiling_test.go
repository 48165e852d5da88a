package gemm

import (
	"math"
	"testing"
	"time"
)

func TestCeiling(t *testing.T) {
	for _, ker := range paths() {
		for _, c := range []Compute{F32, BF16} {
			if got := engine(t, ker, 2).Ceiling(c, time.Millisecond); !(got > 0) || math.IsInf(got, 0) {
				t.Errorf("%s, %v: %v FLOP/s", ker.name, c, got)
			}
		}
	}
}

func TestReading(t *testing.T) {
	if got := engine(t, &goKernels, 3).Reading(make([]byte, 5*readBytes)); !(got > 0) || math.IsInf(got, 0) {
		t.Errorf("%v bytes/s", got)
	}
}
