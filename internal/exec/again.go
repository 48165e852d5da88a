package exec

// again gives the backward pass the matrices of Cheap operations that it reads anew: before the first instruction that
// reads one comes one that computes it, into a slot that is the operation's twin. The twin has the matrix to itself and
// shares the value's other buffers.
func (vm *VM) again(forward, backward []instr) []instr {
	cheap := map[int]instr{} // by slot
	for _, in := range forward {
		if _, ok := in.op.(Cheap); ok && !vm.bound[in.dst] {
			cheap[in.dst] = in
		}
	}
	twins := map[int]int{} // of each slot
	var out []instr
	for _, in := range backward {
		in.src = append([]int(nil), in.src...)
		for k, s := range in.src {
			made, ok := cheap[s]
			if r, picky := in.op.(Reader); !ok || picky && !r.Reads(k, 0) {
				continue
			}
			t, ok := twins[s]
			if !ok {
				t = len(vm.nodes)
				twins[s], vm.twin[t] = t, s
				vm.nodes, vm.rows = append(vm.nodes, vm.nodes[s]), append(vm.rows, vm.rows[s])
				src := append(made.src[:len(made.src):len(made.src)], s)
				out = append(out, instr{op: again{made.op, made.op.(Cheap)}, src: src, dst: t})
			}
			in.src[k] = t
		}
		out = append(out, in)
	}
	return out
}

// again computes the matrix of a Cheap operation once more. Its inputs are the operation's, and behind them its value.
type again struct {
	Op
	cheap Cheap
}

func (o again) Outputs() []Spec { return o.Op.Outputs()[:1] }

func (o again) Reads(in, buf int) bool {
	if in == o.Arity() {
		in = -1
	}
	return o.cheap.AgainReads(in, buf)
}

func (o again) Run(out *Value, in []*Value) error { return o.cheap.Again(out, in[:o.Arity()]) }
