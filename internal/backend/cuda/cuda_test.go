package cuda

import (
	"errors"
	"os"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

// cardVariable, set to anything, has the tests run on the machine's first card, as far as they are not about the
// emulated one: a card computes what the emulation computes, or one of the two is wrong.
//
//	go test -c -o cuda.test ./internal/backend/cuda; BIOLORA_TEST_CARD=1 ./cuda.test
const cardVariable = "BIOLORA_TEST_CARD"

func onCard() bool { return os.Getenv(cardVariable) != "" }

func TestMain(m *testing.M) {
	if driver.Built && os.Getenv(driverVariable) == "" && !onCard() {
		checkLaunches()
	}
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

// emulatedDriver is the path of the emulated device's driver; "", the machine's own, on a card.
func emulatedDriver(t testing.TB) string {
	t.Helper()
	if !driver.Built {
		t.Skip("no CUDA in this build")
	}
	if onCard() {
		return ""
	}
	if path := os.Getenv(driverVariable); path != "" {
		return path
	}
	path, err := emu.Driver()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// emulated opens the emulated device.
func emulated(t testing.TB, compute string) *Backend {
	t.Helper()
	be, err := New(Options{Compute: compute, Driver: emulatedDriver(t), CublasLt: NoCublasLt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := be.Close(); err != nil {
			t.Error(err)
		}
	})
	return be
}
