package driver_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

func TestMain(m *testing.M) {
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

// world is a context of the emulated device, with a stream.
type world struct {
	*testing.T
	path   string
	device *emu.Device
	lib    *driver.Library
	ctx    *driver.Context
	stream driver.Stream
	module driver.Module
}

// emulated returns the emulated driver's path and settings, which are put back at the test's end.
func emulated(t *testing.T) (string, *emu.Device) {
	t.Helper()
	if !driver.Built {
		t.Skip("no CUDA in this build")
	}
	path, err := emu.Bare()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := emu.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.SetOrder(0)
		d.SetMemory(8 << 30)
		d.SetDevices(1)
		d.SetVersion(12040)
		d.SetCapability(8, 0)
	})
	return path, d
}

// open opens the device; at the test's end all but what the test made is given back.
func open(t *testing.T) *world {
	t.Helper()
	w := &world{T: t}
	w.path, w.device = emulated(t)
	runtime.LockOSThread()
	var err error
	if w.lib, err = driver.Open(w.path); err != nil {
		t.Fatal(err)
	}
	if w.ctx, err = w.lib.NewContext(0); err != nil {
		t.Fatal(err)
	}
	w.stream = w.newStream()
	if w.module, err = w.ctx.Load([]byte(".version 7.4\n.entry check_scale( .entry check_barrier( .entry check_shared( .entry check_race( .entry check_aligned(")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// wrong wants an error with all of these in its text.
func (w *world) wrong(err error, texts ...string) {
	w.Helper()
	if err == nil {
		w.Errorf("no error, want one with %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			w.Errorf("%q does not have %q", err, text)
		}
	}
}

func (w *world) close() {
	w.Helper()
	w.must(w.ctx.Unload(w.module))
	w.must(w.ctx.CloseStream(w.stream))
	w.must(w.ctx.Close())
}

func (w *world) newStream() driver.Stream {
	w.Helper()
	s, err := w.ctx.NewStream()
	w.must(err)
	return s
}

func (w *world) newEvent() driver.Event {
	w.Helper()
	e, err := w.ctx.NewEvent(false)
	w.must(err)
	return e
}

func (w *world) alloc(n int64) driver.Ptr {
	w.Helper()
	p, err := w.ctx.Alloc(n)
	w.must(err)
	return p
}

func (w *world) pinned(n int) []byte {
	w.Helper()
	b, err := w.ctx.AllocHost(n)
	w.must(err)
	return b
}

type checkArgs struct {
	to, from driver.Ptr
	n        int32
	f        float32
}

func (w *world) launch(name string, l driver.Launch, s driver.Stream, args checkArgs) error {
	w.Helper()
	f, err := w.ctx.Function(w.module, name)
	w.must(err)
	heap := new(checkArgs)
	*heap = args
	return w.ctx.Launch(f, l, s, unsafe.Pointer(heap), unsafe.Sizeof(args))
}

func blocks(n, threads uint32) driver.Launch {
	return driver.Launch{Grid: [3]uint32{n, 1, 1}, Threads: threads}
}

// What is done in order gives the numbers that it should, in all orders of threads and streams.
func TestLaunch(t *testing.T) {
	w := open(t)
	for order := range uint64(4) {
		w.device.SetOrder(order)
		h, p := w.pinned(400), w.alloc(400)
		v := unsafe.Slice((*float32)(unsafe.Pointer(&h[0])), 100)
		for i := range v {
			v[i] = float32(i)
		}
		w.must(w.ctx.CopyToDevice(p, h, w.stream))
		w.must(w.launch("check_scale", blocks(4, 32), w.stream, checkArgs{p, p, 100, 2}))
		w.must(w.ctx.CopyToHost(h, p, w.stream))
		if v[3] != 3 {
			t.Errorf("order %d: the result is there before anything waited", order)
		}
		w.must(w.ctx.Synchronize(w.stream))
		for i, x := range v {
			if x != 2*float32(i) {
				t.Fatalf("order %d: element %d is %v", order, i, x)
			}
		}
		w.must(w.ctx.Free(p))
		w.must(w.ctx.FreeHost(h))
	}
	w.close()
}

// Without an event between two streams the second comes too early in some order; with one it never does.
func TestStreams(t *testing.T) {
	w := open(t)
	second := w.newStream()
	h, p, e := w.pinned(256), w.alloc(256), w.newEvent()
	early := func(event bool) (orders int) {
		for order := range uint64(10) {
			w.device.SetOrder(order)
			for i := range h {
				h[i] = 1
			}
			w.must(w.ctx.Set(p, 0, 256, w.stream))
			w.must(w.ctx.Synchronize(w.stream))
			w.must(w.ctx.Set(p, 7, 256, w.stream))
			if event {
				w.must(w.ctx.Record(e, w.stream))
				w.must(w.ctx.Wait(second, e))
			}
			w.must(w.ctx.CopyToHost(h, p, second))
			w.must(w.ctx.Synchronize(second))
			w.must(w.ctx.Synchronize(w.stream))
			if h[100] != 7 {
				orders++
			}
		}
		return orders
	}
	if n := early(false); n < 3 {
		t.Errorf("a missing event shows in %d of 10 orders", n)
	}
	if n := early(true); n != 0 {
		t.Errorf("with the event %d of 10 orders are wrong", n)
	}
	// Staging memory that is filled again before it was copied.
	w.device.SetOrder(0)
	h[0] = 1
	w.must(w.ctx.CopyToDevice(p, h, w.stream))
	w.must(w.ctx.Record(e, w.stream))
	h[0] = 2
	w.must(w.ctx.WaitHost(e))
	w.must(w.ctx.CopyToHost(h, p, w.stream))
	w.must(w.ctx.Synchronize(w.stream))
	if h[0] != 2 {
		t.Error("memory that was filled too early does not show")
	}
	w.must(w.ctx.CloseEvent(e))
	w.must(w.ctx.Free(p))
	w.must(w.ctx.FreeHost(h))
	w.must(w.ctx.CloseStream(second))
	w.close()
}

// Each mistake is refused, in words.
func TestRefused(t *testing.T) {
	w := open(t)
	h, p, e := w.pinned(256), w.alloc(256), w.newEvent()
	w.wrong(w.ctx.CopyToDevice(p, make([]byte, 16), w.stream), "cuMemcpyHtoDAsync", "not pinned")
	w.wrong(w.ctx.CopyToHost(make([]byte, 16), p, w.stream), "cuMemcpyDtoHAsync", "not pinned")
	w.wrong(w.ctx.CopyToDevice(p+8, h, w.stream), "256 bytes from byte 8 of 256 of device memory")
	w.wrong(w.ctx.CopyToHost(h, p+256, w.stream), "0 bytes after the end of 256 bytes of device memory")
	w.wrong(w.ctx.Set(1<<20, 0, 4, w.stream), "nothing has allocated")
	w.wrong(w.ctx.Copy(p, p+8, 16, w.stream), "overlap")
	w.wrong(w.ctx.Copy(p, p+256, 256, w.stream), "cuMemcpyDtoDAsync", "0 bytes after the end")
	w.wrong(w.ctx.CopyToDevice(p, h, 0), "not a stream")
	w.wrong(w.ctx.Wait(w.stream, e), "never recorded")
	w.wrong(w.ctx.WaitHost(e), "never recorded")
	w.wrong(w.ctx.Record(driver.Event(w.stream), w.stream), "not an event")
	w.must(w.ctx.Record(e, w.stream))
	w.must(w.ctx.WaitHost(e))
	_, err := w.ctx.Elapsed(e, e)
	w.wrong(err, "without times")
	_, err = w.ctx.Alloc(0)
	w.wrong(err, "0 bytes")

	args := checkArgs{p, p, 64, 1}
	w.wrong(w.launch("check_scale", blocks(1, 257), w.stream, args), "257 threads")
	w.wrong(w.launch("check_scale", driver.Launch{Grid: [3]uint32{1, 65536, 1}, Threads: 32}, w.stream, args), "65536")
	w.wrong(w.launch("check_scale", blocks(0, 32), w.stream, args), "a grid of 0")
	w.wrong(w.launch("check_shared", driver.Launch{Grid: [3]uint32{1, 1, 1}, Threads: 32, Shared: 49 << 10}, w.stream, args), "49152 are allowed")
	w.wrong(w.launch("check_scale", blocks(1, 64), w.stream, checkArgs{p, driver.Ptr(uintptr(unsafe.Pointer(&args))), 64, 1}), "the pointer at byte 8", "nothing has allocated")
	f, err := w.ctx.Function(w.module, "check_scale")
	w.must(err)
	w.wrong(w.ctx.Launch(f, blocks(1, 64), w.stream, unsafe.Pointer(new(checkArgs)), 20), "20 bytes of arguments, the kernel takes 24")
	w.wrong(w.ctx.AllowShared(f, 200<<10), "204800")
	shared, err := w.ctx.Function(w.module, "check_shared")
	w.must(err)
	w.must(w.ctx.AllowShared(shared, 100<<10))
	w.must(w.launch("check_shared", driver.Launch{Grid: [3]uint32{1, 1, 1}, Threads: 32, Shared: 100 << 10}, w.stream, checkArgs{n: 25 << 10}))
	_, err = w.ctx.Function(w.module, "check_nothing")
	w.wrong(err, "no kernel check_nothing")
	_, err = w.ctx.Load([]byte("nonsense"))
	w.wrong(err, "CUDA_ERROR_INVALID_PTX (218)", "ptxas: line 1")

	// Work that has not run keeps what it uses.
	w.must(w.ctx.CopyToDevice(p, h, w.stream))
	w.must(w.ctx.Record(e, w.stream))
	w.wrong(w.ctx.Free(p), "has not run and uses it")
	w.wrong(w.ctx.FreeHost(h), "has not run and uses it")
	w.wrong(w.ctx.CloseEvent(e), "has not run and uses it")
	w.wrong(w.ctx.CloseStream(w.stream), "has not run")
	w.wrong(w.ctx.Unload(w.module), "has not run")
	w.must(w.ctx.Synchronize(w.stream))
	w.must(w.ctx.Free(p))
	w.wrong(w.ctx.Free(p), "memory of 256 bytes that was freed")
	w.wrong(w.ctx.CopyToDevice(p, h, w.stream), "that was freed")
	w.must(w.ctx.FreeHost(h))
	w.wrong(w.ctx.FreeHost(h), "that was freed")
	w.must(w.ctx.CloseEvent(e))
	w.wrong(w.ctx.CloseEvent(e), "not an event")
	w.close()
	w.wrong(w.ctx.Close(), "released twice")
	_, err = w.ctx.Alloc(4)
	w.wrong(err, "CUDA_ERROR_INVALID_CONTEXT")
}

// What kernels do wrong is an error when something waits for them; then the device is lost until its context goes.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		kernel string
		launch driver.Launch
		n      int32
		want   string
	}{
		"beyond":  {"check_scale", blocks(2, 64), 65, "kernel check_scale, block (1, 0, 0), thread 0 touches 0 bytes after the end of 256 bytes of device memory"},
		"barrier": {"check_barrier", blocks(1, 64), 0, "of 64 threads 32 wait at a block's barrier and 32 have ended"},
		"aligned": {"check_aligned", blocks(1, 1), 1, "thread 0 touches memory at an address that is no multiple of what it takes at once"},
		"shared":  {"check_shared", driver.Launch{Grid: [3]uint32{1, 1, 1}, Threads: 32, Shared: 128}, 33, "thread 0 touches what lies after its shared memory"},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			p := w.alloc(256)
			w.must(w.launch(c.kernel, c.launch, w.stream, checkArgs{p, p, c.n, 1}))
			err := w.ctx.Synchronize(w.stream)
			w.wrong(err, "cuStreamSynchronize", "CUDA_ERROR_LAUNCH_FAILED (719)", c.want)
			if !errors.Is(err, driver.ErrLost) {
				t.Error("not ErrLost")
			}
			_, err = w.ctx.Alloc(4)
			w.wrong(err, "719")
			w.must(w.ctx.Close())
		})
	}
	t.Run("freed", func(t *testing.T) {
		w := open(t)
		// A pointer that lies in memory, where the driver does not see it, would be such a case; here one of the past.
		p := w.alloc(256)
		w.must(w.ctx.Free(p))
		w.wrong(w.launch("check_scale", blocks(1, 64), w.stream, checkArgs{p, p, 64, 1}), "memory of 256 bytes that was freed")
		w.close()
	})
	t.Run("race", func(t *testing.T) {
		w := open(t)
		h, p := w.pinned(256), w.alloc(256)
		wrong := 0
		for order := range uint64(3) {
			w.device.SetOrder(order)
			l := blocks(1, 64)
			l.Shared = 256
			w.must(w.launch("check_race", l, w.stream, checkArgs{p, p, 64, 5}))
			w.must(w.ctx.CopyToHost(h, p, w.stream))
			w.must(w.ctx.Synchronize(w.stream))
			for _, x := range unsafe.Slice((*float32)(unsafe.Pointer(&h[0])), 64) {
				if x != 5 {
					wrong++
					break
				}
			}
		}
		if wrong != 3 {
			t.Errorf("a missing barrier shows in %d of 3 orders", wrong)
		}
		w.must(w.ctx.Free(p))
		w.must(w.ctx.FreeHost(h))
		w.close()
	})
}

// While a kernel runs, faults of other threads stay what they are in Go: panics.
func TestFaultsOfOthers(t *testing.T) {
	w := open(t)
	p := w.alloc(4 << 20)
	stop, faults := make(chan bool), make(chan int)
	go func() {
		n := 0
		fault := func() {
			defer func() {
				if recover() != nil {
					n++
				}
			}()
			var none *world
			none.path = "" // a nil pointer
		}
		for {
			select {
			case <-stop:
				faults <- n
				return
			default:
				fault()
			}
		}
	}()
	for range 20 {
		w.must(w.launch("check_scale", blocks(4096, 256), w.stream, checkArgs{p, p, 1 << 20, 1}))
		w.must(w.ctx.Synchronize(w.stream))
	}
	close(stop)
	if n := <-faults; n == 0 {
		t.Error("no fault happened")
	}
	w.must(w.ctx.Free(p))
	w.close()
}

// What a test asks for fails: allocations, calls by their number, the device.
func TestInjected(t *testing.T) {
	w := open(t)
	w.device.SetMemory(1 << 20)
	_, err := w.ctx.Alloc(2 << 20)
	w.wrong(err, "out of device memory: 2097152 bytes asked for, 1048576 of 1048576 are free", "CUDA_ERROR_OUT_OF_MEMORY (2)")
	if !errors.Is(err, driver.ErrOutOfMemory) {
		t.Error("not ErrOutOfMemory")
	}
	w.device.ResetPeak()
	calls := w.device.Calls("cuMemAlloc")
	w.device.Fail("cuMemAlloc", 2, 2)
	p := w.alloc(1000)
	_, err = w.ctx.Alloc(1)
	w.wrong(err, "cuMemAlloc fails as the test asked for")
	q := w.alloc(24)
	if got := w.device.Calls("cuMemAlloc") - calls; got != 3 {
		t.Errorf("%d calls, want 3", got)
	}
	if h, most := w.device.Held(), w.device.Peak(); h != 1024 || most != 1024 {
		t.Errorf("%d bytes held, %d at most", h, most)
	}
	w.must(w.ctx.Free(q))
	if h, most := w.device.Held(), w.device.Peak(); h != 1000 || most != 1024 {
		t.Errorf("%d bytes held, %d at most", h, most)
	}
	w.device.LoseAfter(1)
	args := checkArgs{p, p, 1, 1}
	w.must(w.launch("check_scale", blocks(1, 32), w.stream, args))
	err = w.launch("check_scale", blocks(1, 32), w.stream, args)
	w.wrong(err, "the device is lost")
	if !errors.Is(err, driver.ErrLost) {
		t.Error("not ErrLost")
	}
	w.wrong(w.ctx.Synchronize(w.stream), "719")
	w.must(w.ctx.Close())
}

// What is left when a context goes is told.
func TestLeaks(t *testing.T) {
	w := open(t)
	w.alloc(100)
	w.alloc(200)
	w.pinned(10)
	w.newEvent()
	w.wrong(w.ctx.Close(), "2 allocations of 300 bytes in all", "1 allocations of pinned memory", "1 event(s)", "1 module(s)", "1 stream(s)")
	w = open(t)
	w.close()
}

func TestOtherThread(t *testing.T) {
	w := open(t)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		// A thread of its own that Bind was never called on: it ends with the goroutine.
		_, err := w.ctx.Alloc(4)
		errs <- err
	}()
	w.wrong(<-errs, "cuMemAlloc: no context is current on this thread")
	w.close()
}

// What is missing is told in one line.
func TestUnavailable(t *testing.T) {
	path, d := emulated(t)
	one := func(err error, want string) {
		t.Helper()
		if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want a line with %q", err, want)
		}
	}
	_, err := driver.Open("/no/such/libcuda.so")
	one(err, "/no/such/libcuda.so")
	link := t.TempDir() + "/libcuda.so" // under another name it is opened again
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		want string
	}{
		{100, "no NVIDIA card"},
		{803, "the driver's library and its kernel module are of two versions: restart the machine"},
		{34, "stub"},
		{999, "cuInit: error 999"},
	} {
		d.Fail("cuInit", 1, c.code)
		_, err = driver.Open(link)
		one(err, c.want)
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "3")
	d.Fail("cuInit", 1, 100)
	_, err = driver.Open(link)
	one(err, `CUDA_VISIBLE_DEVICES is "3"`)
	d.SetVersion(11030)
	_, err = driver.Open(link)
	one(err, "the driver is for CUDA 11.3, CUDA 11.4 or later is needed")
	d.SetVersion(12040)
	lib, err := driver.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	d.SetDevices(2)
	if all, err := lib.Devices(); err != nil || len(all) != 2 || all[1].Ordinal != 1 || all[1].Name != "emulated device" || all[1].SharedMax != 163<<10 {
		t.Errorf("%+v, %v", all, err)
	}
	for code, want := range map[int]string{2: "other programs hold the card's memory", 46: "another process has the card for itself"} {
		d.Fail("cuDevicePrimaryCtxRetain", 1, code)
		_, err := lib.NewContext(0)
		one(err, want)
	}
	_, err = lib.NewContext(2)
	one(err, `there are 2 cards, the last is 1 (CUDA_VISIBLE_DEVICES is "3")`)
	d.SetDevices(0)
	_, err = lib.NewContext(0)
	one(err, "no card")
}
