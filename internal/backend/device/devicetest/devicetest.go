// Package devicetest gives tests a card: the emulated one, whose kernels run on the CPU.
package devicetest

import (
	"errors"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
	"github.com/biolora/biolora/internal/backend/device"
)

// Use makes the emulated card the one that devices "cuda" and "auto" are, until the test ends. Whoever uses it calls
// emu.Remove at the end of the tests.
func Use(t testing.TB) *emu.Device {
	t.Helper()
	if !driver.Built {
		t.Skip("no CUDA in this build")
	}
	path, err := emu.Driver()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	card, err := emu.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	device.Driver, device.NoCublasLt = path, true
	t.Cleanup(func() { device.Driver, device.NoCublasLt = "", false })
	return card
}
