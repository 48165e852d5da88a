package cuda

import (
	"runtime"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

// emulatedDevice is what can be set and read of the emulated device.
func emulatedDevice(t testing.TB) *emu.Device {
	t.Helper()
	if onCard() {
		t.Skip("what is set and read here is the emulated device's")
	}
	d, err := emu.Open(emulatedDriver(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// setOrder says how the emulated device's threads take turns from now on. On a card nobody can; what is done for each
// order is done again then, and must give the same bits all the same.
func setOrder(t testing.TB, order uint64) {
	t.Helper()
	if !onCard() {
		emulatedDevice(t).SetOrder(order)
	}
}

// collectGarbage lets cleanups run too, which have a goroutine of their own.
func collectGarbage() {
	runtime.GC()
	time.Sleep(time.Millisecond)
}
