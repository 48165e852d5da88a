package hostile

import "testing"

// recorder is a test that only notes whether it failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

var sink []byte

func TestBounded(t *testing.T) {
	const n = 1 << 20
	for multiple, want := range map[int]bool{1: true, 3: false} {
		r := &recorder{TB: t}
		Bounded(r, n, multiple, func() { sink = make([]byte, 2*n) })
		if r.failed != want {
			t.Errorf("%d bytes for %d with a promise of %d each: failed is %t", 2*n, n, multiple, r.failed)
		}
	}
}

func BenchmarkBounded(b *testing.B) {
	for b.Loop() {
		Bounded(b, 0, 0, func() {})
	}
}
