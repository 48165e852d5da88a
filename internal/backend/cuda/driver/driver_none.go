//go:build !linux || !(amd64 || arm64) || nocuda

package driver

import (
	"fmt"
	"unsafe"
)

// Built reports whether this build can reach a driver.
const Built = false

// Library is an open driver; this build has none.
type Library struct{}

// Context is a device's context; this build has none.
type Context struct{}

// Open says that this build has no CUDA.
func Open(string) (*Library, error) {
	return nil, fmt.Errorf("%w: it is not in this build", ErrUnavailable)
}

func (*Library) Version() int                               { return 0 }
func (*Library) Devices() ([]Device, error)                 { return nil, ErrUnavailable }
func (*Library) NewContext(int) (*Context, error)           { return nil, ErrUnavailable }
func (*Context) Close() error                               { return ErrUnavailable }
func (*Context) Device() Device                             { return Device{} }
func (*Context) Library() *Library                          { return nil }
func (*Context) Bind() error                                { return ErrUnavailable }
func (*Context) Memory() (free, total int64, err error)     { return 0, 0, ErrUnavailable }
func (*Context) Alloc(int64) (Ptr, error)                   { return 0, ErrUnavailable }
func (*Context) Free(Ptr) error                             { return ErrUnavailable }
func (*Context) AllocHost(int) ([]byte, error)              { return nil, ErrUnavailable }
func (*Context) FreeHost([]byte) error                      { return ErrUnavailable }
func (*Context) CopyToDevice(Ptr, []byte, Stream) error     { return ErrUnavailable }
func (*Context) CopyToHost([]byte, Ptr, Stream) error       { return ErrUnavailable }
func (*Context) Copy(dst, src Ptr, n int64, s Stream) error { return ErrUnavailable }
func (*Context) Set(Ptr, byte, int64, Stream) error         { return ErrUnavailable }
func (*Context) NewStream() (Stream, error)                 { return 0, ErrUnavailable }
func (*Context) CloseStream(Stream) error                   { return ErrUnavailable }
func (*Context) Synchronize(Stream) error                   { return ErrUnavailable }
func (*Context) NewEvent(bool) (Event, error)               { return 0, ErrUnavailable }
func (*Context) CloseEvent(Event) error                     { return ErrUnavailable }
func (*Context) Record(Event, Stream) error                 { return ErrUnavailable }
func (*Context) Wait(Stream, Event) error                   { return ErrUnavailable }
func (*Context) WaitHost(Event) error                       { return ErrUnavailable }
func (*Context) Passed(Event) (bool, error)                 { return false, ErrUnavailable }
func (*Context) Elapsed(from, to Event) (float32, error)    { return 0, ErrUnavailable }
func (*Context) Load([]byte) (Module, error)                { return 0, ErrUnavailable }
func (*Context) Unload(Module) error                        { return ErrUnavailable }
func (*Context) Function(Module, string) (Function, error)  { return 0, ErrUnavailable }
func (*Context) AllowShared(Function, int) error            { return ErrUnavailable }
func (*Context) Launch(Function, Launch, Stream, unsafe.Pointer, uintptr) error {
	return ErrUnavailable
}

// Lt is cublasLt; this build has none.
type Lt struct{}

// Plan is how cublasLt computes a product.
type Plan struct{}

func (*Context) OpenLt(string) (*Lt, error)    { return nil, ErrUnavailable }
func (*Lt) Version() int                       { return 0 }
func (*Lt) Close() error                       { return ErrUnavailable }
func (*Lt) Plan(Product, int64) (*Plan, error) { return nil, ErrUnavailable }
func (*Lt) ClosePlan(*Plan) error              { return ErrUnavailable }
func (*Lt) Run(_ *Plan, alpha float32, a, b Ptr, beta float32, c, d Ptr, workspace Ptr, bytes int64, s Stream) error {
	return ErrUnavailable
}
