package model

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/model/op"
)

// Load is the most that a run asks of a model at a time.
type Load struct {
	Rows     int   // of a micro-batch
	EvalRows int   // of one whose loss alone is wanted; 0: there is none
	Selected int   // of the rows of either, those with a target
	Keys     int   // tokens of the longest sequence
	Extra    int64 // bytes that the run itself takes beside the model's at some time: snapshots, an adapter being saved

	Batches     int // micro-batches of a window (see Model.BackwardAll); 0: one
	EvalBatches int // of an evaluation (see Model.LossAll)
}

// Memory is what a run takes, in bytes.
type Memory struct {
	Mapped int64 // weights in mapped files: pages that the system lends, and no part of Peak

	// Card names the card that the model is on; empty: it computes on the CPU. On a card Peak is of the card's memory; its
	// parts are Weights, Adapter, Optimizer, Activations and Scratch. Program and Extra are of the process's then, and
	// part of Host.
	Card    string
	Weights int64 // on the card
	Host    int64 // what the process takes beside it, copies of what is learnt among that

	Program     int64 // the program, its data, and weights that were converted into memory
	Adapter     int64 // values and gradients of what is trained
	Optimizer   int64 // AdamW's moments
	Activations int64 // what flows between operations, and what is kept for the backward pass
	Scratch     int64 // what operations work in
	Extra       int64 // Load.Extra
	Peak        int64 // the sum of these, but see Card

	Layers int   // that have a backward pass
	Kept   int   // of these, those that keep what it reads; the others compute it again
	Each   int64 // what one more that keeps takes
	Least  int64 // Peak where none keeps

	Limit int64  // of Peak; 0: unknown
	From  string // where the limit comes from
	Given bool   // by Options.MemoryLimit

	Stream *Streaming // nil: weights are not streamed
}

// Fits reports whether the run stays within the limit.
func (m *Memory) Fits() bool { return m.Limit == 0 || m.Peak <= m.Limit }

// Policy names what the layers keep: "all", "none" or "some:N".
func (m *Memory) Policy() string {
	switch m.Kept {
	case m.Layers:
		return "all"
	case 0:
		return "none"
	}
	return fmt.Sprintf("some:%d", m.Kept)
}

// policy is a parsed Options.Activations.
type policy struct {
	auto bool
	kept int // layers that keep; all: any large number
}

// CheckPolicy says what is wrong with an Options.Activations.
func CheckPolicy(text string) error {
	_, err := parsePolicy(text)
	return err
}

const keepAll = int(^uint(0) >> 1)

func parsePolicy(text string) (policy, error) {
	switch text {
	case "", "auto":
		return policy{auto: true}, nil
	case "all":
		return policy{kept: keepAll}, nil
	case "none":
		return policy{}, nil
	}
	if number, ok := strings.CutPrefix(text, "some:"); ok {
		if n, err := strconv.Atoi(number); err == nil && n >= 0 {
			return policy{kept: n}, nil
		}
	}
	return policy{}, fmt.Errorf("activation policy %q is none of auto, none, all, some:N (N layers)", text)
}

// unknownRoom is what activations may take where the system does not say what it has.
const (
	unknownRoom = 2 << 30
	notTold     = "the system does not say what is free"
)

// Plan finds what a run takes, and decides how many layers keep what their backward pass reads: what Options.Activations
// says or, with "auto", as many as the memory has room for. It never changes a result. Beside Options.MemoryLimit the
// room is what is free; where the mapped weights fit into that as well, room is left for them. Where they are streamed
// it measures the machine once, which takes a second or two and leaves sums of gradients zero.
func (m *Model) Plan(l Load) (r Memory, err error) {
	defer m.noted(&err)
	r, err = m.plan(l)
	if err != nil || r.Stream == nil || m.pace != nil {
		return r, err
	}
	if m.pace, err = m.measurePace(l); err != nil {
		return r, err
	}
	return m.plan(l)
}

// plan is Plan without measuring.
func (m *Model) plan(l Load) (Memory, error) {
	p, err := parsePolicy(m.opts.Activations)
	if err != nil {
		return Memory{}, err
	}
	m.dropGraphs()
	program := memory.Held()
	if m.card == nil {
		program = max(0, program-m.params.Bytes()-m.be.ScratchHeld())
	}
	least, err := m.measure(l, shape{}, program)
	if err != nil {
		return least, err
	}
	if err := m.limit(&least); err != nil {
		return least, err
	}
	if m.streams(&least) {
		return m.planStream(l, p, least)
	}
	least.leavePages()
	kept := min(p.kept, least.Layers)
	if p.auto {
		all, err := m.measure(l, shape{kept: least.Layers}, program)
		if err != nil {
			return all, err
		}
		if kept = least.Layers; all.Peak > least.Limit {
			kept = int(max(0, least.Limit-least.Peak) / max(1, least.Each))
			kept = max(0, min(kept, least.Layers-1)) // with one more they would be all
		}
	}
	r, err := m.measure(l, shape{kept: kept}, program)
	r.limitedAs(&least)
	return r, err
}

// limitedAs takes over what limits a run, and what it takes at least.
func (m *Memory) limitedAs(least *Memory) {
	m.Least, m.Limit, m.From, m.Given = least.Peak, least.Limit, least.From, least.Given
}

// Reserve is Plan, but that it measures nothing, and allocates what the run will need, so that nothing grows later. It fails where
// Options.MemoryLimit cannot be kept.
func (m *Model) Reserve(l Load) (p Memory, err error) {
	defer m.noted(&err)
	defer mmap.Restore(mmap.PanicOnFault()) // weights that go to a card are read here
	p, err = m.plan(l)
	if err != nil {
		return p, err
	}
	if p.Given && !p.Fits() {
		return p, fmt.Errorf("the memory limit is %s; with activation policy %s the run takes %s",
			memory.Format(p.Limit), p.Policy(), memory.Format(p.Peak))
	}
	rows := l.kept()
	m.outer.Reserve(l.flowing())
	m.env.Blocks.Reserve(l.flowing())
	for _, f := range m.training.frames {
		f.Reserve(rows)
	}
	if m.eval != nil {
		for _, f := range m.eval.frames {
			f.Reserve(l.evaluated())
		}
	}
	for _, b := range m.training.blocks {
		b.Reserve(rows)
	}
	m.be.Reserve(m.need(l))
	m.rope.reserve(l.Keys)
	m.stopStream()
	if p.Stream != nil {
		m.startStream(p.Stream.Room)
	}
	return p, nil
}

// kept are the rows of what is kept for the backward pass, evaluated those of a micro-batch whose loss alone is wanted,
// flowing those of what is used again at once.
func (l Load) kept() exec.Counts      { return exec.Counts{All: l.Rows, Selected: l.Selected} }
func (l Load) evaluated() exec.Counts { return exec.Counts{All: l.EvalRows, Selected: l.Selected} }
func (l Load) flowing() exec.Counts {
	return exec.Counts{All: max(l.Rows, l.EvalRows), Selected: l.Selected}
}

// shape says how graphs are compiled: how many layers keep what their backward pass reads, and how many micro-batches can
// pass through the layers together, in training and in an evaluation; 0: one at a time.
type shape struct{ kept, together, evals int }

// measure compiles the graphs in that shape, and asks them what they take. program is what the process
// holds beside the model.
func (m *Model) measure(l Load, s shape, program int64) (r Memory, err error) {
	m.dropGraphs()
	if m.training, err = m.newGraph(trainGraph, s.kept, s.together); err != nil {
		return r, err
	}
	if l.EvalRows > 0 {
		if m.eval, err = m.newGraph(evalGraph, 0, s.evals); err != nil {
			return r, err
		}
	}
	rows, flowing := l.kept(), l.flowing()
	r.Mapped = m.mapped
	for _, p := range m.params.list {
		r.Adapter += 8 * int64(p.Len())
	}
	r.Optimizer = r.Adapter
	r.Activations = m.outer.BytesFor(flowing) + m.env.Blocks.BytesFor(flowing) + max(1, int64(s.together))*m.batchBytes(l)
	if m.eval != nil && m.eval.apart {
		r.Activations += int64(s.evals) * m.evalBytes(l)
	}
	for i, b := range m.training.blocks {
		if i < m.lowest() {
			continue
		}
		r.Layers++
		r.Each = max(r.Each, b.KeptBytes(rows))
		if b.Keeps() {
			r.Kept++
		}
	}
	r.Scratch = m.be.ScratchBytes(m.need(l)) + m.rotaryBytes(l, max(1, s.together, s.evals))
	r.Extra = l.Extra
	r.Program = program
	r.Peak = r.Program + r.Adapter + r.Optimizer + r.Activations + r.Scratch + r.Extra
	if m.card != nil {
		m.onCard(&r, l)
	}
	return r, nil
}

// limit finds what the run may take.
func (m *Model) limit(r *Memory) error {
	if m.card != nil {
		return m.limitCard(r)
	}
	if m.opts.MemoryLimit > 0 {
		r.Limit, r.From, r.Given = m.opts.MemoryLimit, "given", true
		return nil
	}
	var ok bool
	if r.Limit, r.From, ok = m.free(r); !ok {
		r.Limit, r.From = r.Peak+unknownRoom, notTold
	}
	return nil
}

// free is what the process may have in memory, pages of mapped files included, and what says so; ok is false where
// nothing does.
func (m *Model) free(r *Memory) (bytes int64, from string, ok bool) {
	room, ok := memory.Available()
	own := r.Program + m.params.Bytes()
	if u, known := memory.Now(); known {
		own = u.Own
	}
	return own + room.Bytes - room.Bytes/spare, room.From, ok
}

// leavePages leaves room for the weights' pages where there is room for all of them.
func (r *Memory) leavePages() {
	switch {
	case r.Given || r.From == notTold || r.Card != "":
	case r.Peak+r.Mapped <= r.Limit:
		r.Limit -= r.Mapped
		r.From += ", less the weights' pages"
	case r.Peak <= r.Limit:
		r.From += "; not all of the weights' pages have room beside it"
	}
}

// spare is the share of what is free that is left to others.
const spare = 20

// need describes l to the backend.
func (m *Model) need(l Load) backend.Need {
	n := backend.Need{Rows: l.Rows, Forward: l.flowing().All, Selected: l.Selected, Keys: l.Keys, Head: m.head, Attention: &m.dims.Attention,
		Intermediate: m.dims.Intermediate}
	for _, at := range m.layers {
		n.Linears = append(n.Linears, at.Linears()...)
	}
	for _, p := range m.params.list {
		n.Param = max(n.Param, p.Len())
	}
	return n
}

// rowBytes is what a row of a batch takes beside its rotary table: tokens, positions, targets and their indices.
const rowBytes = 64

// rotaryBytes is what so many micro-batches take beside their activations, and the tables that are kept.
func (m *Model) rotaryBytes(l Load, together int) int64 {
	return int64(together)*m.rowsBytes(l) + int64(min(l.Keys, maxCached))*m.rotaryRow()
}

// rowsBytes is what one takes.
func (m *Model) rowsBytes(l Load) int64 { return int64(l.flowing().All) * (m.rotaryRow() + rowBytes) }

// rotaryRow is the bytes of the cosines and sines of half a head.
func (m *Model) rotaryRow() int64 { return int64(m.cfg.HeadDim) * 4 }

// batchBytes is what a micro-batch takes in the graph for training as it is compiled, from its forward to its backward
// pass.
func (m *Model) batchBytes(l Load) int64 {
	g, rows := m.training, l.kept()
	n := g.bytes(rows)
	for _, b := range g.blocks {
		if b.Keeps() {
			n += b.KeptBytes(rows)
		}
	}
	return n
}

// evalBytes is what one takes in the graph for evaluating.
func (m *Model) evalBytes(l Load) int64 { return m.eval.bytes(l.evaluated()) }

// lowest is the first layer that has a backward pass.
func (m *Model) lowest() int {
	if m.embed.Train != nil {
		return 0
	}
	for i, l := range m.layers {
		if op.ClassOf(l).Trains() {
			return i
		}
	}
	return len(m.layers)
}
