// Package cuda runs the decoder's operations on an NVIDIA GPU: products through cublasLt or, where there is none,
// through kernels of its own; everything else through kernels that lie beside the Go files as .cu and are embedded as
// PTX, which the driver compiles for the card. Nothing but the driver is needed, and that only at run time (package
// driver).
//
// With compute bf16 activations are bf16 and products multiply bf16 and sum in f32; the residual stream, statistics,
// gradients, the loss and the optimiser are f32. With compute f32 everything is f32, products too (no TF32).
//
// Work is given to one stream in order; the host waits only where a value is asked for. Sums have a fixed order, so
// that the same run gives the same bits on the same kind of card.
package cuda

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// Options choose how to compute.
type Options struct {
	// Compute is what products multiply: "f32", "bf16", or "auto" (also ""): bf16.
	Compute string
	// Device is the card's number among those that CUDA_VISIBLE_DEVICES leaves.
	Device int
	// Driver is the path of the driver's library; "": the machine's.
	Driver string
	// CublasLt is the path of the library that computes products, or NoCublasLt; "": what the environment's
	// BIOLORA_CUBLASLT says, else the machine's, found where the loader looks or where NVIDIA's toolkit has it. Without
	// it own kernels compute them.
	CublasLt string
}

// Backend implements backend.Backend.
type Backend struct {
	ctx     *driver.Context
	stream  driver.Stream // of everything that computes
	half    bool          // compute bf16
	name    string
	files   []string          // of each kernel
	kernels []driver.Function // those whose modules are loaded
	modules []driver.Module
	args    [512]byte // of the launch that is made; on the heap, so that it does not move

	lt       ltProducts
	products products
	weights  weights
	linears  linears

	attention attentionState

	staging   staging
	batches   batches
	optimiser optimiser
	sums      sums
	sorted    sorted
	losses    losses
	keeper    keeper
	poison    bool // new memory and resized buffers are NaN: tests see what an operation forgets to write
	heap      *heap
}

var _ backend.Backend = (*Backend)(nil)

// New opens a card. An error that is driver.ErrUnavailable says that there is none that can be used.
func New(o Options) (*Backend, error) {
	half := true
	switch o.Compute {
	case "", "auto", "bf16":
	case "f32":
		half = false
	default:
		return nil, fmt.Errorf("cuda: compute %q is none of auto, f32, bf16", o.Compute)
	}
	lib, err := driver.Open(o.Driver)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, err := lib.NewContext(o.Device)
	if err != nil {
		return nil, fmt.Errorf("cuda: device %d: %w", o.Device, err)
	}
	be := &Backend{ctx: ctx, half: half, heap: &heap{}}
	if err := be.open(o); err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: device %d: %w", o.Device, err), be.close())
	}
	return be, nil
}

func (be *Backend) open(o Options) (err error) {
	d := be.ctx.Device()
	if d.Major < 8 {
		return fmt.Errorf("%w: %s has compute capability %d.%d, 8.0 or later is needed", driver.ErrUnavailable, d.Name, d.Major, d.Minor)
	}
	be.name = fmt.Sprintf("cuda:%d %s, %s", d.Ordinal, d.Name, be.Compute())
	if be.stream, err = be.ctx.NewStream(); err != nil {
		return err
	}
	be.openLt(o.CublasLt)
	return be.load()
}

// Name says what runs, e.g. "cuda:0 NVIDIA H200, bf16".
func (be *Backend) Name() string { return be.name }

// Compute is what products multiply, "f32" or "bf16".
func (be *Backend) Compute() string {
	if be.half {
		return "bf16"
	}
	return "f32"
}

// Close gives back what the backend holds on the card. Of a card that was lost the error says no more than that.
func (be *Backend) Close() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := be.ctx.Bind(); err != nil {
		return fmt.Errorf("cuda: %w", err)
	}
	return be.close()
}

func (be *Backend) close() error {
	var errs []error
	if be.stream != 0 {
		err := be.ctx.Synchronize(be.stream)
		if errors.Is(err, driver.ErrLost) {
			// All that was on the card is gone, and goes with the context.
			be.closeStagingWorkers()
			return errors.Join(fmt.Errorf("cuda: %w", err), be.ctx.Close())
		}
		errs = append(errs, err)
	}
	errs = append(errs, be.closeKeeper()...) // its copies read what is freed next
	errs = append(errs, be.closeLt()...)
	errs = append(errs, be.closeStaging()...)
	errs = append(errs, be.freeAll()...)
	errs = append(errs, be.closeSums()...)
	for _, m := range be.modules {
		errs = append(errs, be.ctx.Unload(m))
	}
	if be.stream != 0 {
		errs = append(errs, be.ctx.CloseStream(be.stream))
	}
	return errors.Join(append(errs, be.ctx.Close())...)
}

// enter makes the card's context current on this thread, for as long as an operation runs: defer be.enter()().
func (be *Backend) enter() (leave func()) {
	runtime.LockOSThread()
	if err := be.ctx.Bind(); err != nil {
		runtime.UnlockOSThread()
		check(err)
	}
	return runtime.UnlockOSThread
}

// check panics with what the driver reports; the executor makes an error of it.
func check(err error) {
	if err != nil {
		panic(fmt.Errorf("cuda: %w", err))
	}
}

// launched sees what each kernel is given, where a test sets it.
var launched func(k kernel, args reflect.Type)

// launch runs kernel k with args, a struct that mirrors the kernel's.
func launch[T any](be *Backend, k kernel, l driver.Launch, args T) {
	if launched != nil {
		launched(k, reflect.TypeFor[T]())
	}
	size := unsafe.Sizeof(args)
	if size > uintptr(len(be.args)) {
		panic(fmt.Sprintf("cuda: %d bytes of arguments for %s", size, kernelNames[k]))
	}
	f, err := be.function(k)
	if err != nil {
		panic(fmt.Errorf("cuda: %w", err))
	}
	*(*T)(unsafe.Pointer(&be.args)) = args
	if err := be.ctx.Launch(f, l, be.stream, unsafe.Pointer(&be.args), size); err != nil {
		panic(fmt.Errorf("cuda: kernel %s: %w", kernelNames[k], err))
	}
}

// grid is a launch of x blocks.
func grid(x int, threads, shared uint32) driver.Launch { return grid3(x, 1, 1, threads, shared) }

func grid3(x, y, z int, threads, shared uint32) driver.Launch {
	return driver.Launch{Grid: [3]uint32{uint32(x), uint32(y), uint32(z)}, Threads: threads, Shared: shared}
}

// wait waits until the card has done everything.
func (be *Backend) wait() {
	check(be.ctx.Synchronize(be.stream))
	be.staging.ring.empty()
}
