// Package hostile holds what the tests of everything that reads files from strangers have in common. It is imported by
// tests only. Its own tests give generated hostile files to the real commands.
package hostile

import (
	"runtime/metrics"
	"testing"
)

// Slack is what reading an input of no bytes may allocate. The count of allocations is not exact either: blocks of small
// objects are counted when the first of them is used.
const Slack = 1 << 20

// Bounded runs f, which reads an input of size bytes, and fails the test if f allocates more than multiple bytes for
// each of them, and Slack. What is freed meanwhile counts too.
func Bounded(t testing.TB, size, multiple int, f func()) {
	t.Helper()
	before := allocated()
	f()
	if got, most := allocated()-before, uint64(size)*uint64(multiple)+Slack; got > most {
		t.Errorf("%d bytes were allocated for an input of %d, at most %d are promised", got, size, most)
	}
}

// allocated is what the process has ever allocated. Unlike runtime.ReadMemStats it does not stop the world.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
