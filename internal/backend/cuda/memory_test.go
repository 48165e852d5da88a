package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// failure is what f panics with.
func failure(f func()) (err error) {
	defer func() { err, _ = recover().(error) }()
	f()
	return nil
}

// Memory of buffers that nobody has any more is given out again.
func TestDroppedMemory(t *testing.T) {
	device := emulatedDevice(t)
	be := emulated(t, "f32")
	device.SetMemory(device.Held() + 10<<20)
	defer device.SetMemory(8 << 30)
	for range 40 { // 4 MiB each
		b := be.NewBuffer(backend.Residual, 1024)
		b.Resize(1024)
	}
	if held := be.heap.held; held > 10<<20 {
		t.Errorf("%d bytes are held", held)
	}
	// What is reachable stays.
	kept := be.NewBuffer(backend.Residual, 8)
	kept.Resize(1)
	kept.Write([]float32{1, 2, 3, 4, 5, 6, 7, 8})
	runtime.GC()
	time.Sleep(10 * time.Millisecond)
	other := be.NewBuffer(backend.Residual, 8)
	other.Resize(1)
	got := make([]float32, 8)
	kept.Read(got)
	if got[7] != 8 {
		t.Errorf("%v", got)
	}
	err := failure(func() { be.NewBuffer(backend.Residual, 1<<20).Resize(4) })
	if !errors.Is(err, driver.ErrOutOfMemory) || !strings.Contains(fmt.Sprint(err), "16777216 bytes asked for") {
		t.Errorf("%v", err)
	}
	kept.Resize(1) // the backend goes on
	kept.Write(got)
	runtime.KeepAlive(other)
}

// A card that is lost fails every operation with ErrLost; Close says so once, and the card can be opened again.
func TestLost(t *testing.T) {
	device := emulatedDevice(t)
	path := emulatedDriver(t)
	be, err := New(Options{Driver: path, CublasLt: path})
	if err != nil {
		t.Fatal(err)
	}
	x, y, rstd := be.NewBuffer(backend.Residual, 8), be.NewBuffer(backend.Activation, 8), be.NewBuffer(backend.Stat, 1)
	x.Resize(1)
	x.Write(make([]float32, 8))
	g := be.NewVector(make([]float32, 8))
	device.LoseAfter(1)
	be.RMSNorm(y, rstd, x, g, 1)
	for range 2 {
		if err := failure(func() { be.RMSNorm(y, rstd, x, g, 1) }); !errors.Is(err, driver.ErrLost) {
			t.Errorf("%v", err)
		}
	}
	if err := failure(func() { y.Read(make([]float32, 8)) }); !errors.Is(err, driver.ErrLost) {
		t.Errorf("%v", err)
	}
	if err := be.Close(); !errors.Is(err, driver.ErrLost) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	emulated(t, "bf16")
}

// A card that is too old is told by its name and number.
func TestCapability(t *testing.T) {
	device := emulatedDevice(t)
	device.SetCapability(7, 5)
	defer device.SetCapability(8, 0)
	_, err := New(Options{Driver: emulatedDriver(t), CublasLt: NoCublasLt})
	if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "emulated device has compute capability 7.5, 8.0 or later is needed") {
		t.Errorf("%v", err)
	}
}

// What a failed start has opened is given back: of each call that may fail.
func TestOpenFails(t *testing.T) {
	device := emulatedDevice(t)
	for _, call := range []string{"cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuModuleLoadDataEx", "cuModuleGetFunction", "cublasLtCreate"} {
		device.Fail(call, 1, 1)
		be, err := New(Options{Driver: emulatedDriver(t), CublasLt: emulatedDriver(t)})
		if call == "cublasLtCreate" { // own kernels then
			if err != nil {
				t.Fatal(err)
			}
			if _, missing := be.Products(); missing == nil || !strings.Contains(missing.Error(), "cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED (1)") {
				t.Errorf("%v", missing)
			}
			if err := be.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), call+": ") || strings.Contains(err.Error(), "left when the context was released") {
			t.Errorf("%s: %v", call, err)
		}
	}
	emulated(t, "f32")
}
