//go:build linux && (amd64 || arm64) && !nocuda

package driver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Built reports whether this build can reach a driver.
const Built = true

// The functions of libcuda that are used, in the order of symbols.
const (
	fInit = iota
	fDriverGetVersion
	fDeviceGetCount
	fDeviceGet
	fDeviceGetName
	fDeviceGetAttribute
	fDeviceTotalMem
	fPrimaryCtxRetain
	fPrimaryCtxRelease
	fCtxSetCurrent
	fMemGetInfo
	fMemAlloc
	fMemFree
	fMemAllocHost
	fMemFreeHost
	fMemcpyHtoDAsync
	fMemcpyDtoHAsync
	fMemcpyDtoDAsync
	fMemsetD8Async
	fStreamCreate
	fStreamDestroy
	fStreamSynchronize
	fStreamWaitEvent
	fEventCreate
	fEventDestroy
	fEventRecord
	fEventSynchronize
	fEventQuery
	fEventElapsedTime
	fModuleLoadDataEx
	fModuleUnload
	fModuleGetFunction
	fFuncSetAttribute
	fLaunchKernel
	fGetErrorName
	fGetErrorString
	functions
)

var symbols = [functions]string{
	"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
	"cuDeviceTotalMem_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent", "cuMemGetInfo_v2",
	"cuMemAlloc_v2", "cuMemFree_v2", "cuMemAllocHost_v2", "cuMemFreeHost", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2",
	"cuMemcpyDtoDAsync_v2", "cuMemsetD8Async", "cuStreamCreate", "cuStreamDestroy_v2", "cuStreamSynchronize", "cuStreamWaitEvent",
	"cuEventCreate", "cuEventDestroy_v2", "cuEventRecord", "cuEventSynchronize", "cuEventQuery", "cuEventElapsedTime",
	"cuModuleLoadDataEx", "cuModuleUnload", "cuModuleGetFunction", "cuFuncSetAttribute", "cuLaunchKernel", "cuGetErrorName", "cuGetErrorString",
}

// Library is an open driver.
type Library struct {
	path    string
	version int
	at      [functions]uintptr
}

// names are where the driver is looked for: the loader's places, and WSL's.
var names = []string{"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", "libcuda.so"}

var libraries struct {
	sync.Mutex
	open map[string]*Library
}

// Open opens the driver at path, or the machine's ("").
func Open(path string) (*Library, error) {
	libraries.Lock()
	defer libraries.Unlock()
	if l := libraries.open[path]; l != nil {
		return l, nil
	}
	candidates := names
	if path != "" {
		candidates = []string{path}
	}
	handle, name, err := openFirst(candidates)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %v", ErrUnavailable, ErrNoDriver, err)
	}
	l := &Library{path: name}
	for i, name := range symbols {
		if l.at[i], err = purego.Dlsym(handle, name); err != nil {
			return nil, fmt.Errorf("%w: %s has no %s: the driver is too old", ErrUnavailable, l.path, name)
		}
	}
	if err := l.call(fInit, 0); err != nil {
		return nil, unavailable(err)
	}
	var version int32
	if err := l.call(fDriverGetVersion, uintptr(unsafe.Pointer(&version))); err != nil {
		return nil, err
	}
	if l.version = int(version); l.version < MinVersion {
		return nil, fmt.Errorf("%w: the driver is for CUDA %s, CUDA %s or later is needed", ErrUnavailable, dotted(l.version), dotted(MinVersion))
	}
	if libraries.open == nil {
		libraries.open = map[string]*Library{}
	}
	libraries.open[path] = l
	return l, nil
}

// openFirst opens the first library that there is; the error is that of the first that there is not.
func openFirst(names []string) (handle uintptr, name string, err error) {
	for _, name := range names {
		handle, e := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if e == nil {
			return handle, name, nil
		}
		if err == nil {
			err = e
		}
	}
	return 0, "", err
}

// unavailable says in words why the driver or a card cannot be used.
func unavailable(err error) error {
	why := ""
	var e *Error
	if errors.As(err, &e) {
		switch e.Code {
		case 2:
			why = "other programs hold the card's memory: "
		case 34:
			why = "what was found is the toolkit's stub of a driver: "
		case 46:
			why = "another process has the card for itself: "
		case 100:
			why = "the driver finds no NVIDIA card" + visible() + ": "
		case 803:
			why = "the driver's library and its kernel module are of two versions: restart the machine: "
		case 804:
			why = "the driver is older than the CUDA it is to run, and cannot do so on this card: "
		}
	}
	return fmt.Errorf("%w: %s%w", ErrUnavailable, why, err)
}

// visible says what the driver was told to hide.
func visible() string {
	if v, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
		return fmt.Sprintf(" (CUDA_VISIBLE_DEVICES is %q)", v)
	}
	return ""
}

func dotted(version int) string { return fmt.Sprintf("%d.%d", version/1000, version%1000/10) }

// Version is that of the CUDA API that the driver knows, 12040 for 12.4.
func (l *Library) Version() int { return l.version }

//go:uintptrescapes
func (l *Library) call(f int, args ...uintptr) error {
	if r, _, _ := purego.SyscallN(l.at[f], args...); int32(r) != 0 {
		return l.failed(f, int32(r))
	}
	return nil
}

func (l *Library) failed(f int, code int32) error {
	e := &Error{Call: strings.TrimSuffix(symbols[f], "_v2"), Code: int(code)}
	var text *byte
	if r, _, _ := purego.SyscallN(l.at[fGetErrorName], uintptr(code), uintptr(unsafe.Pointer(&text))); r == 0 {
		e.Name = goString(text)
	}
	if r, _, _ := purego.SyscallN(l.at[fGetErrorString], uintptr(code), uintptr(unsafe.Pointer(&text))); r == 0 {
		e.Text = goString(text)
	}
	return e
}

func goString(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// Attributes of a device.
const (
	attributeProcessors = 16
	attributeMajor      = 75
	attributeMinor      = 76
	attributeSharedMax  = 97
)

// Devices are the cards that the driver shows; CUDA_VISIBLE_DEVICES chooses among them.
func (l *Library) Devices() ([]Device, error) {
	var n int32
	if err := l.call(fDeviceGetCount, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, err
	}
	var devices []Device
	for i := range int(n) {
		d, err := l.device(i)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	return devices, nil
}

func (l *Library) device(i int) (Device, error) {
	var handle int32
	var memory uint64
	name := make([]byte, 256)
	d := Device{Ordinal: i}
	err := l.call(fDeviceGet, uintptr(unsafe.Pointer(&handle)), uintptr(i))
	if err == nil {
		err = l.call(fDeviceGetName, uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)), uintptr(handle))
	}
	if err == nil {
		err = l.call(fDeviceTotalMem, uintptr(unsafe.Pointer(&memory)), uintptr(handle))
	}
	for _, a := range []struct {
		to *int
		id uintptr
	}{{&d.Major, attributeMajor}, {&d.Minor, attributeMinor}, {&d.Processors, attributeProcessors}, {&d.SharedMax, attributeSharedMax}} {
		var v int32
		if err == nil {
			err = l.call(fDeviceGetAttribute, uintptr(unsafe.Pointer(&v)), a.id, uintptr(handle))
		}
		*a.to = int(v)
	}
	end := bytes.IndexByte(name, 0)
	if end < 0 {
		end = len(name)
	}
	d.Name, d.Memory = string(name[:end]), int64(memory)
	return d, err
}

// Context is a device's primary context.
type Context struct {
	lib     *Library
	device  Device
	handle  uintptr
	current int32 // the device's handle
	extra   [5]uintptr
	size    uintptr
	words   [11]uintptr // of the call that is made
}

// do calls without an allocation. args point to nothing that lies on the stack.
func (c *Context) do(f int, args ...uintptr) error {
	n := copy(c.words[:], args)
	if r, _, _ := purego.SyscallN(c.lib.at[f], c.words[:n]...); int32(r) != 0 {
		return c.lib.failed(f, int32(r))
	}
	return nil
}

// NewContext opens a device. It is current on the calling thread then.
func (l *Library) NewContext(ordinal int) (*Context, error) {
	var n int32
	if err := l.call(fDeviceGetCount, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, unavailable(err)
	}
	switch {
	case n == 0:
		return nil, fmt.Errorf("%w: %w%s", ErrUnavailable, ErrNoCard, visible())
	case ordinal < 0 || ordinal >= int(n):
		return nil, fmt.Errorf("%w: there are %d cards, the last is %d%s", ErrUnavailable, n, n-1, visible())
	}
	d, err := l.device(ordinal)
	if err != nil {
		return nil, err
	}
	c := &Context{lib: l, device: d}
	if err := l.call(fDeviceGet, uintptr(unsafe.Pointer(&c.current)), uintptr(ordinal)); err != nil {
		return nil, err
	}
	if err := l.call(fPrimaryCtxRetain, uintptr(unsafe.Pointer(&c.handle)), uintptr(c.current)); err != nil {
		return nil, unavailable(err)
	}
	return c, c.Bind()
}

// Close gives the context back. Its memory must have been freed.
func (c *Context) Close() error { return c.do(fPrimaryCtxRelease, uintptr(c.current)) }

// Device is what the context is on.
func (c *Context) Device() Device { return c.device }

// Library is the driver it came from.
func (c *Context) Library() *Library { return c.lib }

// Bind makes the context current on the calling thread.
func (c *Context) Bind() error { return c.do(fCtxSetCurrent, c.handle) }

// Memory tells how many bytes of the device are free, of how many.
func (c *Context) Memory() (free, total int64, err error) {
	var f, t uint64
	err = c.lib.call(fMemGetInfo, uintptr(unsafe.Pointer(&f)), uintptr(unsafe.Pointer(&t)))
	return int64(f), int64(t), err
}

// Alloc allocates n bytes, at a multiple of 256.
func (c *Context) Alloc(n int64) (Ptr, error) {
	var p Ptr
	if err := c.lib.call(fMemAlloc, uintptr(unsafe.Pointer(&p)), uintptr(n)); err != nil {
		if errors.Is(err, ErrOutOfMemory) {
			free, total, _ := c.Memory()
			return 0, fmt.Errorf("%w: %d bytes asked for, %d of %d are free: %w", ErrOutOfMemory, n, free, total, err)
		}
		return 0, err
	}
	return p, nil
}

// Free frees what Alloc gave.
func (c *Context) Free(p Ptr) error { return c.do(fMemFree, uintptr(p)) }

// AllocHost allocates memory of the host that the device copies from and to by itself.
func (c *Context) AllocHost(n int) ([]byte, error) {
	var p unsafe.Pointer
	if err := c.lib.call(fMemAllocHost, uintptr(unsafe.Pointer(&p)), uintptr(n)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), n), nil
}

// FreeHost frees what AllocHost gave.
func (c *Context) FreeHost(b []byte) error {
	return c.do(fMemFreeHost, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// CopyToDevice copies src, which must be AllocHost's and stay as it is until the stream is past it.
func (c *Context) CopyToDevice(dst Ptr, src []byte, s Stream) error {
	return c.do(fMemcpyHtoDAsync, uintptr(dst), uintptr(unsafe.Pointer(unsafe.SliceData(src))), uintptr(len(src)), uintptr(s))
}

// CopyToHost copies to dst, which must be AllocHost's; it is there when the stream is past it.
func (c *Context) CopyToHost(dst []byte, src Ptr, s Stream) error {
	return c.do(fMemcpyDtoHAsync, uintptr(unsafe.Pointer(unsafe.SliceData(dst))), uintptr(src), uintptr(len(dst)), uintptr(s))
}

// Copy copies n bytes on the device.
func (c *Context) Copy(dst, src Ptr, n int64, s Stream) error {
	return c.do(fMemcpyDtoDAsync, uintptr(dst), uintptr(src), uintptr(n), uintptr(s))
}

// Set sets n bytes to v.
func (c *Context) Set(dst Ptr, v byte, n int64, s Stream) error {
	return c.do(fMemsetD8Async, uintptr(dst), uintptr(v), uintptr(n), uintptr(s))
}

// NewStream makes a stream that waits for no other.
func (c *Context) NewStream() (s Stream, err error) {
	const nonBlocking = 1
	return s, c.lib.call(fStreamCreate, uintptr(unsafe.Pointer(&s)), nonBlocking)
}

// CloseStream ends a stream.
func (c *Context) CloseStream(s Stream) error { return c.do(fStreamDestroy, uintptr(s)) }

// Synchronize waits until the device has done what the stream has.
func (c *Context) Synchronize(s Stream) error { return c.do(fStreamSynchronize, uintptr(s)) }

// NewEvent makes an event, which can measure times if timed.
func (c *Context) NewEvent(timed bool) (e Event, err error) {
	flags := uintptr(2)
	if timed {
		flags = 0
	}
	return e, c.lib.call(fEventCreate, uintptr(unsafe.Pointer(&e)), flags)
}

// CloseEvent ends an event.
func (c *Context) CloseEvent(e Event) error { return c.do(fEventDestroy, uintptr(e)) }

// Record puts the event after what the stream has.
func (c *Context) Record(e Event, s Stream) error {
	return c.do(fEventRecord, uintptr(e), uintptr(s))
}

// Wait lets what is given to the stream from now on wait for the event.
func (c *Context) Wait(s Stream, e Event) error {
	return c.do(fStreamWaitEvent, uintptr(s), uintptr(e), 0)
}

// WaitHost waits for the event.
func (c *Context) WaitHost(e Event) error { return c.do(fEventSynchronize, uintptr(e)) }

// Passed reports whether the stream is past the event, without waiting.
func (c *Context) Passed(e Event) (bool, error) {
	const notReady = 600
	err := c.do(fEventQuery, uintptr(e))
	var failed *Error
	if errors.As(err, &failed) && failed.Code == notReady {
		return false, nil
	}
	return err == nil, err
}

// Elapsed is the milliseconds between two events that have passed.
func (c *Context) Elapsed(from, to Event) (ms float32, err error) {
	return ms, c.lib.call(fEventElapsedTime, uintptr(unsafe.Pointer(&ms)), uintptr(from), uintptr(to))
}

// Load compiles a PTX text for the device.
func (c *Context) Load(ptx []byte) (m Module, err error) {
	const (
		optionErrorBuffer     = 5
		optionErrorBufferSize = 6
	)
	text := append(bytes.Clone(ptx), 0)
	log := make([]byte, 8<<10)
	options := [2]int32{optionErrorBuffer, optionErrorBufferSize}
	// The log as a pointer, so that it lies on the heap: a stack may move before the driver writes there.
	values := struct {
		log  *byte
		size uintptr
	}{&log[0], uintptr(len(log))}
	err = c.lib.call(fModuleLoadDataEx, uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&text[0])), 2,
		uintptr(unsafe.Pointer(&options)), uintptr(unsafe.Pointer(&values)))
	if err != nil {
		if i := bytes.IndexByte(log, 0); i > 0 {
			return 0, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(log[:i])))
		}
		return 0, err
	}
	return m, nil
}

// Unload ends a module.
func (c *Context) Unload(m Module) error { return c.do(fModuleUnload, uintptr(m)) }

// Function finds a kernel.
func (c *Context) Function(m Module, name string) (f Function, err error) {
	n := append([]byte(name), 0)
	return f, c.lib.call(fModuleGetFunction, uintptr(unsafe.Pointer(&f)), uintptr(m), uintptr(unsafe.Pointer(&n[0])))
}

// AllowShared lets a kernel ask for n bytes of dynamic shared memory, where that is more than 48 KiB.
func (c *Context) AllowShared(f Function, n int) error {
	const maxDynamicShared = 8
	return c.do(fFuncSetAttribute, uintptr(f), maxDynamicShared, uintptr(n))
}

// Launch runs f with the size bytes at args as its arguments. args must be memory of Go's heap, which does not move;
// the driver has copied it when Launch returns.
func (c *Context) Launch(f Function, l Launch, s Stream, args unsafe.Pointer, size uintptr) error {
	// CU_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, _END
	c.size = size
	c.extra = [5]uintptr{1, uintptr(args), 2, uintptr(unsafe.Pointer(&c.size)), 0}
	err := c.do(fLaunchKernel, uintptr(f), uintptr(l.Grid[0]), uintptr(l.Grid[1]), uintptr(l.Grid[2]),
		uintptr(l.Threads), 1, 1, uintptr(l.Shared), uintptr(s), 0, uintptr(unsafe.Pointer(&c.extra)))
	runtime.KeepAlive(args)
	return err
}
