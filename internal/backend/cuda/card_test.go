package cuda

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
)

func TestCeiling(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		before, err := be.Room()
		if err != nil {
			t.Fatal(err)
		}
		c, err := be.Ceiling()
		if err != nil || !(c.Products > 0 && c.Memory > 0) {
			t.Errorf("%s: %+v, %v", compute, c, err)
		}
		if after, err := be.Room(); err != nil || after.Held > before.Held+ltWorkspace+partsBytes {
			t.Errorf("%s: %+v before and %+v after it, %v", compute, before, after, err)
		}
	}
}

// Copies of parameters are whole, or they are not taken; the last whole one is found, whatever the rows' length.
func TestKeep(t *testing.T) {
	be := emulated(t, "f32")
	var ps []backend.Param
	shapes := [][2]int{{3, 8}, {5, 13}, {1, 1}}
	for _, s := range shapes {
		ps = append(ps, be.NewParam(s[0], s[1]))
	}
	value := func(step, i, at int) float32 { return float32(1000*step + 100*i + at) }
	for step := 1; step <= 3; step++ {
		be.Overwrite()
		for i, p := range ps {
			v := make([]float32, shapes[i][0]*shapes[i][1])
			for at := range v {
				v[at] = value(step, i, at)
			}
			p.Write(v)
		}
		be.Keep(ps)
		be.Harvest()
		taken := be.Kept(0, nil, 0)
		if taken != step && taken != step-1 {
			t.Fatalf("after %d copies the %d-th is the last that is whole", step, taken)
		}
		if taken == 0 {
			continue
		}
		for i := range ps {
			v := make([]float32, shapes[i][0]*shapes[i][1]-1)
			if k := be.Kept(i, v, 1); k != taken {
				t.Errorf("parameter %d is of copy %d, the first of %d", i, k, taken)
			}
			for at := range v {
				if v[at] != value(taken, i, at+1) {
					t.Fatalf("copy %d of parameter %d, element %d: %v, want %v", taken, i, at+1, v[at], value(taken, i, at+1))
				}
			}
		}
	}
	be.Overwrite()
	if taken := be.Kept(0, nil, 0); taken != 3 {
		t.Errorf("after Overwrite copy %d of 3 is whole", taken)
	}
	if taken := be.Kept(len(ps), nil, 0); taken != 0 {
		t.Error("there is a copy of a parameter that is none")
	}
}
