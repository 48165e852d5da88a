package cuda

import "github.com/biolora/biolora/internal/backend"

// scratch is memory that operations work in, and what it takes for batches up to a need. Each file that has some
// appends it to scratches.
type scratch struct {
	memory func(*Backend) *memory
	bytes  func(*Backend, backend.Need) int64
}

var scratches []scratch

// Reserve makes the memory that operations work in large enough for batches up to n. It brings the weights to the card.
func (be *Backend) Reserve(n backend.Need) {
	defer be.enter()()
	be.settle()
	for _, s := range scratches {
		be.grow(s.memory(be), s.bytes(be, n))
	}
	be.forget()
}

// forget makes operations copy again what they keep from one to the next: where it was may be other memory.
func (be *Backend) forget() {
	be.optimiser.moved = true
	for i := range be.batches.slots {
		be.batches.slots[i].serial = 0
	}
	for i := range be.attention.plans {
		be.attention.plans[i].serial = 0
	}
}

// ScratchBytes is what that memory takes.
func (be *Backend) ScratchBytes(n backend.Need) (bytes int64) {
	for _, s := range scratches {
		bytes += (s.bytes(be, n) + 255) / 256 * 256
	}
	return bytes
}

// ScratchHeld is what there is of it now.
func (be *Backend) ScratchHeld() (bytes int64) {
	for _, s := range scratches {
		bytes += s.memory(be).bytes
	}
	return bytes
}
