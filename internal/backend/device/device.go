// Package device chooses what a model computes on: the CPU, or a card through package cuda.
package device

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu"
	"github.com/biolora/biolora/internal/backend/cuda"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/profile"
)

// What a card can fail with while it computes.
var (
	ErrOutOfMemory = driver.ErrOutOfMemory
	ErrLost        = driver.ErrLost
)

// Driver is the path of the library that is opened as NVIDIA's driver; "": the machine's. Tests set it to the emulated
// one, and NoCublasLt then.
var (
	Driver     string
	NoCublasLt bool
)

// Device is a backend, and what the owner of a model asks of it beside its operations.
type Device interface {
	backend.Backend
	// Compute is what products multiply: "f32" or "bf16".
	Compute() string
	// Note says what is worth knowing about the arithmetic on this machine; mostly nothing.
	Note() string
}

// Card is a device whose memory is not the process's.
type Card interface {
	Device
	// Room says what of the card's memory is whose.
	Room() (cuda.Room, error)
	// Weights is what those of NewWeight take on the card, and what of it is still to be copied there, when the first one
	// is used or by Reserve.
	Weights() (bytes, waiting int64)
	// ParamBytes is what a parameter takes with its gradient but without moments.
	ParamBytes(rows, cols int) int64
	// CacheBytes is what keys and values of a position take in a cache.
	CacheBytes(a *backend.Attention) int64
	// Wait waits until the card has done all that it was given.
	Wait()

	// Keep begins to copy the values of ps to the host, without waiting for it; Overwrite must come before they change.
	Keep(ps []backend.Param)
	Overwrite()
	// Harvest notes whether the last copy is whole by now; it does not wait.
	Harvest()
	// Kept copies the values of the i-th of ps as the last copy has them that is whole, from element from on; taken tells
	// how many calls of Keep there had been then, 0: there is none. The card is not asked.
	Kept(i int, dst []float32, from int) (taken int)

	// Ceiling measures the most that the card could reach, in about a second.
	Ceiling() (cuda.Ceiling, error)
}

// Choice is a device by its name.
type Choice struct {
	Auto bool // a card where one can be used, otherwise the CPU
	CPU  bool
	Card int // the card's number among those that the driver shows
}

// Names are the forms of names, for messages.
var Names = []string{"auto", "cpu", "cuda", "cuda:N"}

// Parse reads a name: auto (also ""), cpu, cuda (also cuda:0) or cuda:N.
func Parse(name string) (Choice, error) {
	switch name {
	case "", "auto":
		return Choice{Auto: true}, nil
	case "cpu":
		return Choice{CPU: true}, nil
	case "cuda":
		return Choice{}, nil
	}
	if number, ok := strings.CutPrefix(name, "cuda:"); ok {
		if n, err := strconv.ParseUint(number, 10, 15); err == nil {
			return Choice{Card: int(n)}, nil
		}
	}
	return Choice{}, fmt.Errorf("device %q is none of %s", name, strings.Join(Names, ", "))
}

// Options choose a device and how it computes.
type Options struct {
	Name    string // see Parse
	Compute string // "f32", "bf16", or "auto" (also "")
	// Threads, Features and Streamed weights are the CPU's: auto is the CPU where one of them is given, and a card refuses
	// them.
	Threads  int
	Features string
	Streamed bool
	// Profile is told what is part of an operation; it may be nil.
	Profile *profile.Watch
}

// Open opens a device. why says why auto is not a card although the machine has a driver for one; "": nothing to say.
func Open(o Options) (d Device, why string, err error) {
	c, err := Parse(o.Name)
	if err != nil {
		return nil, "", err
	}
	given := o.ofCPU()
	switch {
	case c.Auto && given == "":
		if d, err = openCard(0, o); err == nil {
			return d, "", nil
		}
		if told(err) {
			why = "no card is used: " + err.Error()
		}
		fallthrough
	case c.Auto || c.CPU:
		be, err := cpu.New(cpu.Options{Compute: o.Compute, Threads: o.Threads, Features: o.Features, Profile: o.Profile})
		if err != nil {
			return nil, "", err
		}
		return be, why, nil
	case given != "":
		return nil, "", fmt.Errorf("device %s has no use for %s: leave that out, or compute on the CPU (device cpu)", o.Name, given)
	}
	if d, err = openCard(c.Card, o); err != nil {
		return nil, "", fmt.Errorf("device %s: %w; device cpu computes without a card", o.Name, err)
	}
	return d, "", nil
}

// ofCPU names what is given that only the CPU has a use for.
func (o *Options) ofCPU() string {
	switch {
	case o.Threads != 0:
		return "a number of threads"
	case o.Features != "":
		return "CPU features"
	case o.Streamed:
		return "streaming of weights from the disk (a card holds all of them)"
	}
	return ""
}

// told reports whether it is worth saying why there is no card: not on machines that have no driver, or show none.
func told(err error) bool {
	const noDevice = 100
	var failed *driver.Error
	return driver.Built && !errors.Is(err, driver.ErrNoDriver) && !errors.Is(err, driver.ErrNoCard) &&
		!(errors.As(err, &failed) && failed.Code == noDevice)
}

func openCard(number int, o Options) (Device, error) {
	co := cuda.Options{Compute: o.Compute, Device: number, Driver: Driver}
	if NoCublasLt {
		co.CublasLt = cuda.NoCublasLt
	}
	be, err := cuda.New(co)
	if err != nil {
		return nil, err
	}
	d, ok := any(be).(Card)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: it is not complete in this build", driver.ErrUnavailable), be.Close())
	}
	return d, nil
}

// FewRows is the number of rows up to which an operation's results may have other last bits than among more rows; 0: the
// number of rows may change them anyway.
func FewRows(d Device) int {
	if _, ok := d.(*cpu.Backend); ok {
		return cpu.FewRows
	}
	return 0
}

// Failure is the error that a card's operation panicked with; nil for any other panic.
func Failure(recovered any) error {
	err, ok := recovered.(error)
	if !ok {
		return nil
	}
	var failed *driver.Error
	if errors.As(err, &failed) || errors.Is(err, ErrOutOfMemory) || errors.Is(err, ErrLost) {
		return err
	}
	return nil
}
