package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// deviceBatch is a batch on the card: one piece of memory, copied in one go, once a serial.
type deviceBatch struct {
	mem    memory
	serial uint64
	used   uint64 // the turn of its last use

	rows      int        // T
	tokens    driver.Ptr // [T] int32, 0 where the batch has none; so the others
	positions driver.Ptr // [T] int32
	samples   driver.Ptr // [T] uint32, of dropout
	cos, sin  driver.Ptr // [T, HeadDim/2] f32
	selected  driver.Ptr // [len(Rows)] int32
	place     driver.Ptr // [T] int32: each row's place in selected, or -1
	starts    driver.Ptr // [len(Rows)+1] int32: where each selected row's targets begin in labels, counts and losses
	labels    driver.Ptr // [len(Targets)] int32, row by row
	counts    driver.Ptr // [len(Targets)] int32
	losses    driver.Ptr // [len(Targets)] int32: the target's index in Targets
}

// batches are those that are on the card. Several micro-batches may pass through a layer together.
type batches struct {
	slots [4]deviceBatch
	turn  uint64
	raw   []byte
	order []int32
	index []int32
}

func init() {
	for i := range (batches{}).slots {
		scratches = append(scratches, scratch{
			func(be *Backend) *memory { return &be.batches.slots[i].mem },
			func(_ *Backend, n backend.Need) int64 { return batchBytes(n) },
		})
	}
}

// batchBytes is what a batch takes on the card if no row has more than one target.
func batchBytes(n backend.Need) int64 {
	half := 0
	if n.Attention != nil {
		half = n.Attention.HeadDim / 2
	}
	rows := max(n.Rows, n.Forward)
	return 4*int64(rows)*int64(4+2*half) + 4*5*int64(n.Selected+4) + 11*batchAlign
}

const batchAlign = 16

// batch returns b on the card. It stays as it is for the operation that asks for it.
func (be *Backend) batch(b *backend.Batch) *deviceBatch {
	bs := &be.batches
	bs.turn++
	d := &bs.slots[0]
	for i := range bs.slots {
		s := &bs.slots[i]
		if b.Serial != 0 && s.serial == b.Serial {
			s.used = bs.turn
			return s
		}
		if s.used < d.used {
			d = s
		}
	}
	be.place(d, b)
	d.serial = b.Serial
	if d.used = bs.turn; b.Serial == 0 {
		d.used = 0 // it will not be asked for again
	}
	return d
}

// place copies b into d.
func (be *Backend) place(d *deviceBatch, b *backend.Batch) {
	bs := &be.batches
	d.serial = 0 // until all of it is there
	raw := bs.raw[:0]
	// Offsets until the memory's place is known; 1 more, so that 0 says absent.
	put32 := func(to *driver.Ptr, n int, at func(int) uint32) {
		*to = 0
		if n == 0 {
			return
		}
		for len(raw)%batchAlign != 0 {
			raw = append(raw, 0)
		}
		*to = driver.Ptr(len(raw)) + 1
		for i := range n {
			raw = binary.NativeEndian.AppendUint32(raw, at(i))
		}
	}
	ints := func(to *driver.Ptr, v []int32) { put32(to, len(v), func(i int) uint32 { return uint32(v[i]) }) }
	floats := func(to *driver.Ptr, v []float32) {
		put32(to, len(v), func(i int) uint32 { return math.Float32bits(v[i]) })
	}
	d.rows = max(len(b.Tokens), len(b.Positions))
	ints(&d.tokens, b.Tokens)
	ints(&d.positions, b.Positions)
	floats(&d.cos, b.Cos)
	floats(&d.sin, b.Sin)
	ints(&d.selected, b.Rows)
	d.samples = 0
	if b.Dropout != nil {
		put32(&d.samples, len(b.Dropout.Samples), func(i int) uint32 { return b.Dropout.Samples[i] })
	}
	ints(&d.place, bs.places(b.Rows, d.rows))
	starts, order := bs.group(b.Targets, len(b.Rows))
	ints(&d.starts, starts)
	put32(&d.labels, len(order), func(i int) uint32 { return uint32(b.Targets[order[i]].Label) })
	put32(&d.counts, len(order), func(i int) uint32 { return uint32(b.Targets[order[i]].Count) })
	ints(&d.losses, order)

	bs.raw = raw
	if len(raw) == 0 {
		return
	}
	be.grow(&d.mem, int64(len(raw)))
	be.upload(d.mem.at, raw)
	for _, p := range []*driver.Ptr{&d.tokens, &d.positions, &d.cos, &d.sin, &d.selected, &d.samples, &d.place, &d.starts, &d.labels, &d.counts, &d.losses} {
		if *p != 0 {
			*p += d.mem.at - 1
		}
	}
}

// places tells of n rows which of the selected each is, -1 for none of them.
func (bs *batches) places(selected []int32, n int) []int32 {
	if len(selected) == 0 {
		return nil
	}
	checkRows(selected, n)
	bs.index = slices.Grow(bs.index[:0], n)[:n]
	for i := range bs.index {
		bs.index[i] = -1
	}
	for i, r := range selected {
		bs.index[r] = int32(i)
	}
	return bs.index
}

func checkRows(rows []int32, n int) {
	last := int32(-1)
	for i, r := range rows {
		if r <= last || int(r) >= n {
			panic(fmt.Sprintf("cuda: Rows[%d] is %d after %d, want it larger and below %d", i, r, last, n))
		}
		last = r
	}
}

// group lists the targets row by row, in their order, and where each row's begin.
func (bs *batches) group(targets []backend.Target, rows int) (starts, order []int32) {
	if len(targets) == 0 {
		return nil, nil
	}
	n := rows + 2 + len(targets)
	bs.order = slices.Grow(bs.order[:0], n)[:n]
	starts, order = bs.order[:rows+2], bs.order[rows+2:]
	clear(starts)
	for i, g := range targets {
		if g.Row < 0 || int(g.Row) >= rows {
			panic(fmt.Sprintf("cuda: target %d at row %d of %d", i, g.Row, rows))
		}
		starts[g.Row+2]++
	}
	for i := 2; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	for i, g := range targets { // starts[row+1] moves from the row's first target to past its last
		order[starts[g.Row+1]] = int32(i)
		starts[g.Row+1]++
	}
	return starts[:rows+1], order
}
