package model

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/biolora/biolora/internal/backend/device"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/mmap"
)

// What a card can fail with in the middle of the work: its memory does not suffice, or it does not answer any more.
var (
	ErrOutOfMemory = device.ErrOutOfMemory
	ErrLost        = device.ErrLost
)

// CheckDevice says what is wrong with an Options.Device by itself.
func CheckDevice(name string) error {
	_, err := device.Parse(name)
	return err
}

// OnCard reports whether the model computes on a card.
func (m *Model) OnCard() bool { return m.card != nil }

// Device names the device, such as "cpu" or "cuda:0".
func (m *Model) Device() string {
	name, _, _ := strings.Cut(m.be.Name(), " ")
	return name
}

// caught is deferred where operations of the device run outside of a graph: what a card panics with becomes the error.
func (m *Model) caught(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, failure(r))
	}
}

// failure is the card's failure, or the fault in a mapped file, that was recovered from a panic; any other goes on.
func failure(recovered any) error {
	if err := device.Failure(recovered); err != nil {
		return err
	}
	if err := mmap.Fault(recovered); err != nil {
		return err
	}
	panic(recovered)
}

// noted is caught for passes: that the card is lost is kept in mind, whatever found it.
func (m *Model) noted(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, failure(r))
	}
	if *err != nil && errors.Is(*err, ErrLost) {
		m.params.fail(*err)
	}
}

// onCard completes what a run takes where the device has a memory of its own: everything but what the process holds for
// itself lies there, the weights too.
func (m *Model) onCard(r *Memory, l Load) {
	r.Card = m.device.Name()
	r.Weights, _ = m.card.Weights()
	r.Adapter = 0
	var elements int64
	for _, p := range m.params.list {
		r.Adapter += m.card.ParamBytes(p.Shape())
		elements += int64(p.Len())
	}
	r.Scratch = m.be.ScratchBytes(m.need(l))
	r.Host = memory.Held() + r.Extra + 2*4*elements + m.rotaryBytes(l, 1)
	r.Peak = r.Weights + r.Adapter + r.Optimizer + r.Activations + r.Scratch
}

// limitCard finds what the run may take of the card's memory.
func (m *Model) limitCard(r *Memory) error {
	if m.opts.MemoryLimit > 0 {
		r.Limit, r.From, r.Given = m.opts.MemoryLimit, "given", true
		return nil
	}
	room, err := m.card.Room()
	if err != nil {
		return err
	}
	r.Limit = room.Held + room.Free - room.Free/spare
	r.From = fmt.Sprintf("of the card's %s; other programs and the driver hold %s", memory.Format(room.Total), memory.Format(room.Others()))
	return nil
}

// roomOnCard is what the card has left for keys and values beside passes that take so much more than is there now.
func (m *Model) roomOnCard(passes int64) (bytes int64, from string, err error) {
	room, err := m.card.Room()
	if err != nil {
		return 0, "", err
	}
	_, waiting := m.card.Weights()
	if m.opts.MemoryLimit > 0 {
		return m.opts.MemoryLimit - room.Held - waiting - passes, "of the memory limit of " + memory.Format(m.opts.MemoryLimit), nil
	}
	return room.Free - room.Free/spare - waiting - passes, "free on the card, of " + memory.Format(room.Total), nil
}

// try runs what a card may fail at, for methods that return no error: the failure is kept for Err.
func (ps *Params) try(f func()) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			failed := device.Failure(r)
			if failed == nil {
				panic(r)
			}
			ps.fail(failed)
		}
	}()
	f()
	return true
}

func (ps *Params) fail(err error) {
	if ps.err == nil || errors.Is(err, ErrLost) && !errors.Is(ps.err, ErrLost) {
		ps.err = err
	}
}

// Err is what went wrong on a card in a method that returns no error, since the last Reset; nil: nothing. Sums, norms
// and values that were read since are of no use then, but see KeptStep.
func (ps *Params) Err() error { return ps.err }

// lost reports whether the card does not answer any more.
func (ps *Params) lost() bool { return ps.err != nil && errors.Is(ps.err, ErrLost) }

// KeptStep tells of which step of AdamW the values are that are read when the card is lost: copies of them are made
// beside the work, so that one may be a step behind. 0: there are none, and what is read is NaN. lost is false as long as
// the card answers; the values are what they are then.
func (ps *Params) KeptStep() (step int, lost bool) {
	if !ps.lost() {
		return 0, false
	}
	if len(ps.list) > 0 {
		step = ps.keptStep(ps.card.Kept(0, nil, 0))
	}
	return step, true
}

// keptStep is the step of AdamW after which the taken-th copy was begun; 0: it is of something else.
func (ps *Params) keptStep(taken int) int {
	if taken == 0 {
		return 0
	}
	return ps.steps[taken%len(ps.steps)]
}

// keep begins a copy of the values after a step.
func (ps *Params) keep(step int) {
	ps.card.Keep(ps.raw)
	ps.copies++
	ps.steps[ps.copies%len(ps.steps)] = step
}

// forgetCopies makes the copies of no use: what is trained is another thing now.
func (ps *Params) forgetCopies() { clear(ps.steps[:]) }

// read copies values of p from element from on: from the card or, where that is lost, from the last copy.
func (p *Param) read(dst []float32, from int) {
	ps := p.ps
	if ps.card == nil {
		p.p.ReadFrom(dst, from)
		return
	}
	if !ps.lost() && ps.try(func() { p.p.ReadFrom(dst, from) }) {
		return
	}
	if ps.lost() && ps.keptStep(ps.card.Kept(ps.index(p), dst, from)) > 0 {
		return
	}
	for i := range dst {
		dst[i] = float32(math.NaN())
	}
}

// index is the place of p in what is trained.
func (ps *Params) index(p *Param) int {
	for i, q := range ps.list {
		if q == p {
			return i
		}
	}
	return len(ps.list)
}

// write sets values, which no copy is being made of then.
func (p *Param) write(f func()) {
	ps := p.ps
	if ps.card == nil {
		f()
		return
	}
	ps.try(func() {
		ps.card.Overwrite()
		f()
	})
}
