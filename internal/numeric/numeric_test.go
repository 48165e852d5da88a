package numeric

import (
	"math"
	"testing"
)

func TestF16RoundTrip(t *testing.T) {
	for i := 0; i <= 0xffff; i++ {
		f := F16ToF32(uint16(i))
		if f != f {
			if i&0x7c00 != 0x7c00 || F32ToF16(f)&0x7fff <= 0x7c00 {
				t.Fatalf("%#04x: NaN is lost", i)
			}
			continue
		}
		if got := F32ToF16(f); got != uint16(i) {
			t.Fatalf("%#04x -> %g -> %#04x", i, f, got)
		}
	}
}

// Each float32 between two neighbouring halves must round to the nearer, ties to the even one.
func TestF16Rounding(t *testing.T) {
	for i := 0; i < 0x7bff; i++ {
		lo, hi := F16ToF32(uint16(i)), F16ToF32(uint16(i+1))
		mid := float32((float64(lo) + float64(hi)) / 2)
		even := uint16(i + i&1)
		if got := F32ToF16(mid); got != even {
			t.Fatalf("tie between %#04x and the next rounds to %#04x", i, got)
		}
		if got := F32ToF16(math.Nextafter32(mid, 0)); got != uint16(i) {
			t.Fatalf("below the tie after %#04x: %#04x", i, got)
		}
		if got := F32ToF16(math.Nextafter32(mid, 1e9)); got != uint16(i+1) {
			t.Fatalf("above the tie after %#04x: %#04x", i, got)
		}
	}
	for f, want := range map[float32]uint16{65519: 0x7bff, 65520: 0x7c00, -1e9: 0xfc00, 1e-9: 0, 0: 0} {
		if got := F32ToF16(f); got != want {
			t.Errorf("%g: %#04x, want %#04x", f, got, want)
		}
	}
}

func TestBF16(t *testing.T) {
	for i := 0; i <= 0xffff; i++ {
		f := BF16ToF32(uint16(i))
		if f == f && F32ToBF16(f) != uint16(i) {
			t.Fatalf("%#04x does not come back", i)
		}
	}
	for bits, want := range map[uint32]uint16{0x3f808000: 0x3f80, 0x3f818000: 0x3f82, 0x3f808001: 0x3f81, 0x7f7fffff: 0x7f80, 0x7f800001: 0x7fc0} {
		if got := F32ToBF16(math.Float32frombits(bits)); got != want {
			t.Errorf("%#08x: %#04x, want %#04x", bits, got, want)
		}
	}
}

func TestDType(t *testing.T) {
	for d := F32; d <= Bool; d++ {
		if p, ok := Parse(d.String()); !ok || p != d || d.Size() == 0 {
			t.Errorf("%v does not parse back", d)
		}
	}
	if _, ok := Parse("F8_E4M3"); ok {
		t.Error("F8_E4M3 is not one of ours")
	}
}
