package cuda

import (
	"testing"

	"github.com/ebitengine/purego"
)

// setOrder says how the emulated device's threads take turns from now on.
func setOrder(t testing.TB, order uint64) {
	t.Helper()
	lib, err := purego.Dlopen(emulatedDriver(t), purego.RTLD_NOW)
	if err != nil {
		t.Fatal(err)
	}
	f, err := purego.Dlsym(lib, "emuSetOrder")
	if err != nil {
		t.Fatal(err)
	}
	purego.SyscallN(f, uintptr(order))
}
