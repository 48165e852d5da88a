package emu

import (
	"fmt"

	"github.com/ebitengine/purego"
)

// Device is what tests set and read of an emulated driver. The settings are the process's, for all backends on it; put
// them back.
type Device struct {
	setOrder      func(uint64)
	setMemory     func(uint64)
	setOthers     func(uint64)
	setDevices    func(int32)
	setVersion    func(int32)
	setCapability func(major, minor int32)
	setShared     func(int32)
	fail          func(call string, n uint64, code int32)
	loseAfter     func(uint64)
	calls         func(call string) uint64
	held          func() uint64
	peak          func(reset int32) uint64
	ltUnsupported func(int32)
}

// Open opens what Driver or Build made.
func Open(path string) (d *Device, err error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	d = &Device{}
	for name, f := range map[string]any{"emuSetOrder": &d.setOrder, "emuSetMemory": &d.setMemory, "emuSetOthers": &d.setOthers, "emuSetDevices": &d.setDevices,
		"emuSetVersion": &d.setVersion, "emuSetCapability": &d.setCapability, "emuSetShared": &d.setShared, "emuFail": &d.fail, "emuLoseAfter": &d.loseAfter,
		"emuCalls": &d.calls, "emuHeld": &d.held, "emuPeak": &d.peak, "emuLtUnsupported": &d.ltUnsupported} {
		at, err := purego.Dlsym(lib, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		purego.RegisterFunc(f, at)
	}
	return d, nil
}

// SetOrder chooses how threads between barriers take turns, and streams between events: 0, threads ascending, and of the
// streams that nobody waits for nothing is done that is not needed; 1, threads descending, and other streams run ahead;
// any other number: by chance from that seed.
func (d *Device) SetOrder(order uint64) { d.setOrder(order) }

// SetMemory sets the device's memory in bytes (8 GiB at first).
func (d *Device) SetMemory(bytes int64) { d.setMemory(uint64(bytes)) }

// SetOthers sets how much of that other processes hold (nothing at first).
func (d *Device) SetOthers(bytes int64) { d.setOthers(uint64(bytes)) }

// SetDevices sets how many devices there are (1 at first); they share everything.
func (d *Device) SetDevices(n int) { d.setDevices(int32(n)) }

// SetVersion sets the version of CUDA that the driver is for (12040 at first).
func (d *Device) SetVersion(v int) { d.setVersion(int32(v)) }

// SetCapability sets the compute capability (8.0 at first).
func (d *Device) SetCapability(major, minor int) { d.setCapability(int32(major), int32(minor)) }

// SetShared sets the bytes of shared memory that a block may ask for (163 KiB at first, as an A100 has).
func (d *Device) SetShared(bytes int) { d.setShared(int32(bytes)) }

// Fail lets the nth call from now of a function ("cuMemAlloc") fail with code, once; n is 1 for the next.
func (d *Device) Fail(call string, n int, code int) { d.fail(call, uint64(n), int32(code)) }

// LoseAfter loses the device at the launch after n more, until its context goes.
func (d *Device) LoseAfter(n int) { d.loseAfter(uint64(n)) }

// Calls is how often a function was called in this process.
func (d *Device) Calls(call string) int { return int(d.calls(call)) }

// Held is how many bytes are allocated on the device.
func (d *Device) Held() int64 { return int64(d.held()) }

// Peak is the most that was since the last ResetPeak.
func (d *Device) Peak() int64 { return int64(d.peak(0)) }

// ResetPeak sets Peak to Held.
func (d *Device) ResetPeak() { d.peak(1) }

// SetLtUnsupported lets cublasLt refuse every nth product that it is asked to plan; 0: none.
func (d *Device) SetLtUnsupported(n int) { d.ltUnsupported(int32(n)) }
