package exec

import (
	"errors"
	"fmt"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/mmap"
)

// Plan says what of a graph a VM runs.
type Plan struct {
	// Outputs are computed by the forward pass, Grads by the backward pass. Their values are bound by the caller,
	// or belong to the frame.
	Outputs, Grads gorgonia.Nodes
	// Split separates the passes: what depends on it is the backward pass. nil: there is none.
	Split *gorgonia.Node
	// Arena is where the registers live; nil: in one of the VM's own.
	Arena *Arena
}

// VM runs one graph. It belongs to one goroutine; VMs that share operations must not run at the same time.
type VM struct {
	be    backend.Backend
	slot  map[int64]int // of each node
	nodes gorgonia.Nodes
	rows  []Rows      // of each slot
	twin  map[int]int // slots of matrices that are computed again -> slots of those they equal

	inputs    []int
	forward   []instr
	recompute []instr // the part of forward that the backward pass reads
	backward  []instr // with Grads
	effects   []instr // without: only what trains something

	kept      []bufID // buffers that the backward pass reads
	arena     *Arena
	registers []place
	register  map[bufID]int // of buffers that die within a pass
	bound     map[int]bool  // slots of Outputs and Grads

	own *Frame    // of RunAll
	one [1]*Frame // of Forward, Recompute and Backward
}

var _ gorgonia.VM = (*VM)(nil)

type bufID struct{ slot, buf int }

type instr struct {
	op   Op
	src  []int
	dst  int
	in   []*Value
	drop bool // nobody reads the matrix
}

// Compile plans the program and its buffers.
func Compile(be backend.Backend, g *gorgonia.ExprGraph, p Plan) (*VM, error) {
	sorted, err := gorgonia.Sort(g) // outputs first
	if err != nil {
		return nil, err
	}
	if err := hashes(sorted); err != nil {
		return nil, err
	}
	vm := &VM{be: be, arena: p.Arena, slot: map[int64]int{}, twin: map[int]int{}, register: map[bufID]int{}, bound: map[int]bool{}}
	if vm.arena == nil {
		vm.arena = NewArena(be)
	}
	var all []instr
	back := map[int]bool{}
	for i := len(sorted) - 1; i >= 0; i-- {
		n := sorted[i]
		s := len(vm.nodes)
		vm.slot[n.ID()] = s
		vm.nodes, vm.rows = append(vm.nodes, n), append(vm.rows, All)
		in := instr{dst: s}
		for _, c := range children(g, n) {
			cs := vm.slot[c.ID()]
			in.src = append(in.src, cs)
			back[s] = back[s] || back[cs] || c == p.Split
		}
		if n.Op() == nil {
			vm.inputs = append(vm.inputs, s)
			continue
		}
		op, ok := n.Op().(Op)
		if !ok {
			return nil, fmt.Errorf("%v is not an operation of ours", n.Op())
		}
		in.op, in.in = op, make([]*Value, len(in.src))
		vm.rows[s] = vm.rowsOf(op, in.src)
		all = append(all, in)
	}
	outs, grads := vm.mains(p.Outputs), vm.mains(p.Grads)
	for _, id := range append(outs[:len(outs):len(outs)], grads...) {
		vm.bound[id.slot] = true
	}
	var forward, backward []instr
	for _, in := range all {
		if back[in.dst] {
			backward = append(backward, in)
		} else {
			forward = append(forward, in)
		}
	}
	backward = vm.again(forward, backward)
	vm.backward = vm.prune(backward, grads)
	vm.effects = vm.prune(backward, nil)
	vm.forward = vm.prune(forward, append(outs[:len(outs):len(outs)], vm.reads(vm.backward)...))
	vm.recompute = vm.prune(forward, vm.reads(vm.backward))
	vm.allocate()
	return vm, nil
}

// mains returns the matrices of nodes.
func (vm *VM) mains(ns gorgonia.Nodes) (r []bufID) {
	for _, n := range ns {
		r = append(r, bufID{vm.slot[n.ID()], 0})
	}
	return r
}

// prune keeps the instructions that the wanted buffers, or effects, depend on.
func (vm *VM) prune(is []instr, want []bufID) []instr {
	live := map[bufID]bool{}
	for _, id := range want {
		live[id] = true
	}
	var kept []instr
	for i := len(is) - 1; i >= 0; i-- {
		in := is[i]
		e, ok := in.op.(Effector)
		wanted := ok && e.Effects()
		for b := range in.op.Outputs() {
			wanted = wanted || live[bufID{in.dst, b}]
		}
		if !wanted {
			continue
		}
		in.in = make([]*Value, len(in.src))
		if o, ok := in.op.(Optional); ok && !live[bufID{in.dst, 0}] {
			in.drop = o.OutputOptional()
		}
		vm.readBufs(in, func(id bufID) { live[id] = true })
		kept = append(kept, in)
	}
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	return kept
}

// reads returns the buffers that instructions read.
func (vm *VM) reads(is []instr) (r []bufID) {
	for _, in := range is {
		vm.readBufs(in, func(id bufID) { r = append(r, id) })
	}
	return r
}

// source follows picks and twins to the buffer that is really read.
func (vm *VM) source(id bufID) bufID {
	if s, ok := vm.twin[id.slot]; ok && id.buf > 0 {
		id.slot = s
	}
	for {
		p, ok := vm.nodes[id.slot].Op().(Picker)
		if !ok {
			return id
		}
		id = bufID{vm.slot[children(vm.nodes[id.slot].Graph(), vm.nodes[id.slot])[0].ID()], p.Pick()}
	}
}

// readBufs calls f with every buffer that in reads.
func (vm *VM) readBufs(in instr, f func(bufID)) {
	r, picky := in.op.(Reader)
	for i, s := range in.src {
		n := 1
		if op, ok := vm.nodes[s].Op().(Op); ok {
			n = len(op.Outputs())
		}
		for b := range n {
			if !picky || r.Reads(i, b) {
				f(vm.source(bufID{s, b}))
			}
		}
	}
}

// allocate finds the buffers that live from the forward to the backward pass, and gives all others registers, each
// used again as soon as its buffer is dead.
func (vm *VM) allocate() {
	keep := map[bufID]bool{}
	for _, in := range vm.backward {
		vm.readBufs(in, func(id bufID) { keep[id] = true })
	}
	program := append(vm.forward[:len(vm.forward):len(vm.forward)], vm.backward...)
	last := map[bufID]int{}
	for i, in := range program {
		vm.readBufs(in, func(id bufID) { last[id] = i })
	}
	free := map[Spec][]int{}
	expire := map[int][]bufID{}
	for i, in := range program {
		forward := i < len(vm.forward)
		if _, pick := in.op.(Picker); !pick {
			for b, spec := range in.op.Outputs() {
				id := bufID{in.dst, b}
				switch {
				case vm.bound[in.dst] && b == 0:
				case forward && keep[id]:
					vm.kept = append(vm.kept, id)
				default:
					vm.register[id] = vm.takeRegister(free, spec, vm.rows[in.dst])
					end := max(i, last[id])
					expire[end] = append(expire[end], id)
				}
			}
		}
		for _, id := range expire[i] {
			spec := vm.spec(id)
			free[spec] = append(free[spec], vm.register[id])
		}
	}
	vm.arena.hold(vm.registers)
}

func (vm *VM) spec(id bufID) Spec { return vm.nodes[id.slot].Op().(Op).Outputs()[id.buf] }

func (vm *VM) takeRegister(free map[Spec][]int, s Spec, rows Rows) int {
	if rs := free[s]; len(rs) > 0 {
		r := rs[len(rs)-1]
		free[s] = rs[:len(rs)-1]
		vm.registers[r].rows = min(vm.registers[r].rows, rows)
		return r
	}
	vm.registers = append(vm.registers, place{s, countOf(vm.registers, s), rows})
	return len(vm.registers) - 1
}

// Frame holds the values of one run: what is bound to it, what the backward pass needs, and the VM's registers.
type Frame struct {
	vm   *VM
	vals []*Value
	drop []*Value // for instructions whose matrix nobody reads
	kept []held
}

// held is memory that is a frame's own.
type held struct {
	buffer backend.Buffer
	rows   Rows
}

// NewFrame makes a frame with memory of its own for what the backward pass reads.
func (vm *VM) NewFrame() *Frame { return vm.newFrame(vm.newBuffer, vm.arena.buffer) }

// ApartFrame makes a frame whose memory is all its own, the registers too: such frames can run together.
func (vm *VM) ApartFrame() *Frame {
	registers := map[place]backend.Buffer{}
	own := vm.newFrame(vm.newBuffer, func(p place) backend.Buffer {
		if registers[p] == nil {
			registers[p] = vm.be.NewBuffer(p.Kind, p.Cols)
		}
		return registers[p]
	})
	for p, b := range registers {
		own.kept = append(own.kept, held{b, p.rows})
	}
	return own
}

// ApartBytes is what Bytes of an ApartFrame will be after a run on so many rows.
func (vm *VM) ApartBytes(rows Counts) int64 {
	n := vm.FrameBytes(rows)
	for _, p := range vm.registers {
		n += vm.be.BufferBytes(p.Kind, p.Cols, rows.of(p.rows))
	}
	return n
}

func (vm *VM) newBuffer(s Spec, _ Rows) backend.Buffer { return vm.be.NewBuffer(s.Kind, s.Cols) }

// SharedFrame makes a frame whose memory is the arena's, beside the VM's registers: what it holds is lost when another
// VM of the arena runs (see Undisturbed). There is one such memory, whatever the number of frames.
func (vm *VM) SharedFrame() *Frame {
	places := append([]place(nil), vm.registers...)
	f := vm.newFrame(func(s Spec, rows Rows) backend.Buffer {
		p := place{s, countOf(places, s), rows}
		places = append(places, p)
		vm.arena.hold(places[len(places)-1:])
		return vm.arena.buffer(p)
	}, vm.arena.buffer)
	f.kept = nil
	return f
}

// Undisturbed reports whether no other VM of the arena has run since this one did.
func (vm *VM) Undisturbed() bool { return vm.arena.last == vm }

// newFrame makes a frame: kept is where it has what the backward pass reads, register where its registers are.
func (vm *VM) newFrame(kept func(Spec, Rows) backend.Buffer, register func(place) backend.Buffer) *Frame {
	f := &Frame{vm: vm, vals: make([]*Value, len(vm.nodes)), drop: make([]*Value, len(vm.nodes))}
	own := map[bufID]backend.Buffer{}
	for _, id := range vm.kept {
		own[id] = kept(vm.spec(id), vm.rows[id.slot])
		f.kept = append(f.kept, held{own[id], vm.rows[id.slot]})
	}
	for s, n := range vm.nodes {
		op, ok := n.Op().(Op)
		if !ok {
			continue
		}
		if p, ok := op.(Picker); ok {
			src := f.vals[vm.slot[children(n.Graph(), n)[0].ID()]]
			f.vals[s] = &Value{Bufs: src.Bufs[p.Pick() : p.Pick()+1]}
			continue
		}
		v := &Value{Bufs: make([]backend.Buffer, len(op.Outputs()))}
		if original, ok := vm.twin[s]; ok {
			copy(v.Bufs, f.vals[original].Bufs)
		}
		for b := range v.Bufs {
			id := bufID{s, b}
			if k, ok := own[id]; ok {
				v.Bufs[b] = k
			} else if r, ok := vm.register[id]; ok {
				v.Bufs[b] = register(vm.registers[r])
			}
		}
		f.vals[s] = v
		f.drop[s] = dropped(v)
	}
	return f
}

// dropped is v without its matrix.
func dropped(v *Value) *Value {
	d := &Value{Bufs: append([]backend.Buffer(nil), v.Bufs...)}
	if len(d.Bufs) > 0 {
		d.Bufs[0] = nil
	}
	return d
}

// Bind sets the value of an input, or the matrix that an output is written to.
func (f *Frame) Bind(n *gorgonia.Node, v *Value) {
	s := f.vm.slot[n.ID()]
	if n.Op() == nil {
		f.vals[s] = v
		return
	}
	f.vals[s].Bufs[0] = v.Main()
}

// Value returns what a node's value is in this frame. Between passes only what is bound or kept is meaningful.
func (f *Frame) Value(n *gorgonia.Node) *Value { return f.vals[f.vm.slot[n.ID()]] }

// Bytes is the memory of its own that the frame has.
func (f *Frame) Bytes() (n int64) {
	for _, h := range f.kept {
		n += h.buffer.Bytes()
	}
	return n
}

// Reserve makes the frame's own memory large enough for so many rows.
func (f *Frame) Reserve(rows Counts) {
	for _, h := range f.kept {
		h.buffer.Resize(rows.of(h.rows))
	}
}

// FrameBytes is what Bytes of a new frame will be after a run on so many rows.
func (vm *VM) FrameBytes(rows Counts) (n int64) {
	for _, id := range vm.kept {
		s := vm.spec(id)
		n += vm.be.BufferBytes(s.Kind, s.Cols, rows.of(vm.rows[id.slot]))
	}
	return n
}

// Forward computes the outputs and what the backward pass reads.
func (vm *VM) Forward(f *Frame) error { return vm.runOne(vm.forward, f) }

// Recompute does the part of Forward that the backward pass reads; outputs need not be bound.
func (vm *VM) Recompute(f *Frame) error { return vm.runOne(vm.recompute, f) }

// Backward leaves gradients in what is trained, and computes Grads if grads is set.
func (vm *VM) Backward(f *Frame, grads bool) error { return vm.runOne(vm.backwardOf(grads), f) }

// ForwardAll is Forward for several frames in step: each operation runs for all of them before the next one does. turn
// is told which of them comes, before each operation; its error ends the run. Several frames must be ApartFrames.
func (vm *VM) ForwardAll(fs []*Frame, turn func(i int) error) error {
	return vm.run(vm.forward, fs, turn)
}

// BackwardAll is Backward for several frames in step, in their order, so that sums of gradients are those of one frame
// after another.
func (vm *VM) BackwardAll(fs []*Frame, grads bool, turn func(i int) error) error {
	return vm.run(vm.backwardOf(grads), fs, turn)
}

func (vm *VM) backwardOf(grads bool) []instr {
	if grads {
		return vm.backward
	}
	return vm.effects
}

func (vm *VM) runOne(is []instr, f *Frame) error {
	vm.one[0] = f
	return vm.run(is, vm.one[:], nil)
}

func (vm *VM) run(is []instr, fs []*Frame, turn func(i int) error) (err error) {
	vm.arena.last = vm
	at := 0
	defer mmap.Restore(mmap.PanicOnFault()) // weights lie in mapped files
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v: %w", is[at].op, asError(r))
		}
	}()
	for at = range is {
		in := &is[at]
		if _, ok := in.op.(Picker); ok {
			continue // the frame's value shares the buffer already
		}
		for i, f := range fs {
			if turn != nil {
				if err := turn(i); err != nil {
					return err
				}
			}
			if err := in.run(f); err != nil {
				return fmt.Errorf("%v: %w", in.op, err)
			}
		}
	}
	return nil
}

// run runs the instruction in f.
func (in *instr) run(f *Frame) error {
	for k, s := range in.src {
		in.in[k] = f.vals[s]
	}
	out := f.vals[in.dst]
	if in.drop {
		out = f.drop[in.dst]
	}
	return in.op.Run(out, in.in)
}

// Guarded runs one operation outside a graph; as in a VM, a panic or a fault in a mapped file is an error.
func Guarded(o Op, out *Value, in []*Value) (err error) {
	defer mmap.Restore(mmap.PanicOnFault())
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v: %w", o, asError(r))
		}
	}()
	return o.Run(out, in)
}

// asError is what was recovered from a panic, or the fault in a mapped file that it stands for.
func asError(recovered any) error {
	if err := mmap.Fault(recovered); err != nil {
		return err
	}
	if err, ok := recovered.(error); ok {
		return err
	}
	return fmt.Errorf("%v", recovered)
}

// RunAll runs both passes on the values bound to the graph's inputs (gorgonia.Let), in a frame of the VM's own.
func (vm *VM) RunAll() error {
	if vm.own == nil {
		vm.own = vm.NewFrame()
		for s := range vm.bound {
			if op, ok := vm.nodes[s].Op().(Op); ok {
				vm.own.Bind(vm.nodes[s], NewValue(vm.be, op.Outputs()))
			}
		}
	}
	for _, s := range vm.inputs {
		v, ok := vm.nodes[s].Value().(*Value)
		if !ok {
			return fmt.Errorf("input %v has no value", vm.nodes[s])
		}
		vm.own.Bind(vm.nodes[s], v)
	}
	return errors.Join(vm.Forward(vm.own), vm.Backward(vm.own, true))
}

// Value returns a node's value after RunAll.
func (vm *VM) Value(n *gorgonia.Node) *Value { return vm.own.Value(n) }

// Reset does nothing: a run starts from the beginning always.
func (vm *VM) Reset() {}

// Close does nothing: buffers belong to the backend.
func (vm *VM) Close() error { return nil }
