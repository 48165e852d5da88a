package backend

import "testing"

// Known answers of the authors' Random123 (kat_vectors, philox4x32 10).
func TestPhilox(t *testing.T) {
	for _, c := range []struct {
		key  uint64
		ctr  [4]uint32
		want [4]uint32
	}{
		{0, [4]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{^uint64(0), [4]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{0x299f31d0a4093822, [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(c.key, c.ctr[0], c.ctr[1], c.ctr[2], c.ctr[3]); got != c.want {
			t.Errorf("key %#x counter %#x: %#x, want %#x", c.key, c.ctr, got, c.want)
		}
	}
}

func TestMask(t *testing.T) {
	d := &Dropout{Seed: 7, Epoch: 1, Samples: []uint32{3, 3, 4}}
	const n = 1 << 16
	a, b := make([]float32, n), make([]float32, n)
	d.Mask(a, 0.1, 5, 0, 9)
	zeros := 0
	for _, v := range a {
		if v == 0 {
			zeros++
		} else if v != 1/(1-float32(0.1)) {
			t.Fatalf("factor %v", v)
		}
	}
	if share := float64(zeros) / n; share < 0.095 || share > 0.105 {
		t.Errorf("%.4f of the columns are dropped, want 0.1", share)
	}
	same := func() bool {
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	if d.Mask(b, 0.1, 5, 1, 9); !same() {
		t.Error("the mask depends on the row's place in the batch")
	}
	for name, differ := range map[string]func(){
		"site":     func() { d.Mask(b, 0.1, 6, 0, 9) },
		"position": func() { d.Mask(b, 0.1, 5, 0, 10) },
		"sample":   func() { d.Mask(b, 0.1, 5, 2, 9) },
		"epoch":    func() { e := *d; e.Epoch++; e.Mask(b, 0.1, 5, 0, 9) },
		"seed":     func() { e := *d; e.Seed++; e.Mask(b, 0.1, 5, 0, 9) },
	} {
		if differ(); same() {
			t.Errorf("the mask does not depend on the %s", name)
		}
	}
}
