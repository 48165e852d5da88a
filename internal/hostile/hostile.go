// Package hostile holds what the tests of everything that reads files from strangers have in common. It is imported by
// tests only. Its own tests give generated hostile files to the real commands.
package hostile

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// Slack is what reading an input of no bytes may allocate.
const Slack = 128 << 10

// Bounded runs f, which reads an input of size bytes, and fails the test if f allocates more than multiple bytes for
// each of them, and Slack. What is freed meanwhile counts too. If it looks as if f did, f is run once more.
func Bounded(t testing.TB, size, multiple int, f func()) {
	t.Helper()
	most := uint64(size)*uint64(multiple) + Slack
	before := estimate()
	f()
	if estimate()-before <= most {
		return
	}
	before = exact()
	f()
	if got := exact() - before; got > most {
		t.Errorf("%d bytes were allocated for an input of %d, at most %d are promised", got, size, most)
	}
}

// estimate is what the process has allocated up to now. Blocks of small objects are counted when the first of them is
// used, and other goroutines count too; but it costs a microsecond, and fuzzing asks often.
func estimate() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// exact is the same to the byte. It stops the world.
func exact() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
