// Package driver reaches NVIDIA's CUDA driver and cublasLt at run time, without cgo: the libraries are opened when they
// are asked for, and a program without them runs as before. It knows memory, streams, events, modules and launches; it
// knows nothing of what the kernels compute.
//
// A context belongs to one goroutine at a time. What runs on the device needs it to be current on the calling thread:
// Bind does that, after runtime.LockOSThread.
//
// Linux on amd64 and arm64 has it, unless the program is built with the tag nocuda.
package driver

import (
	"errors"
	"fmt"
)

// Ptr is an address on the device.
type Ptr uint64

type (
	// Stream is an order of work on the device; Event a point in it.
	Stream uintptr
	Event  uintptr
	// Function is a kernel of a loaded module.
	Function uintptr
	// Module is what was made of a PTX text.
	Module uintptr
)

// MinVersion is the oldest driver API that loads what generate.sh writes (PTX 7.4): CUDA 11.4.
const MinVersion = 11040

var (
	// ErrUnavailable: there is no driver, or none that can be used, or it is not in this build.
	ErrUnavailable = errors.New("CUDA is not available")
	// ErrNoDriver: the machine has no driver. ErrNoCard: it has one, which shows no card.
	ErrNoDriver = errors.New("no NVIDIA driver")
	ErrNoCard   = errors.New("the driver shows no card")
	// ErrOutOfMemory: the device has not as much memory left.
	ErrOutOfMemory = errors.New("out of device memory")
	// ErrLost: the device or the context cannot be used any more; what was on it is gone.
	ErrLost = errors.New("the device is lost")
)

// Error is what a call of the driver returned.
type Error struct {
	Call string // e.g. "cuMemAlloc"
	Code int
	Name string // e.g. "CUDA_ERROR_OUT_OF_MEMORY"
	Text string
}

func (e *Error) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("%s: error %d", e.Call, e.Code)
	}
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Code, e.Text)
}

// Is tells out of memory and a lost device.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrOutOfMemory:
		return e.Code == 2
	case ErrLost:
		switch e.Code {
		case 46, 214, 219, 220, 226, 304, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999:
			return true
		}
	}
	return false
}

// Device is what the driver says of a card.
type Device struct {
	Ordinal    int
	Name       string
	Major      int // of the compute capability
	Minor      int
	Processors int // streaming multiprocessors
	Memory     int64
	SharedMax  int // bytes of shared memory that a block may ask for
}

// Launch is a kernel's grid.
type Launch struct {
	Grid    [3]uint32
	Threads uint32
	Shared  uint32 // bytes of dynamic shared memory
}
