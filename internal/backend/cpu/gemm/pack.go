package gemm

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
)

// A step of a panel or tile holds one dword for each lane (row of the left operand, column of the right one): a
// float32, or two bfloat16 of neighbouring places, the earlier in the low half.
const (
	blockSteps = 256 // steps of a block of the reduction: a panel of 32 columns fills 32 KiB
	stepAlign  = 16  // packers write whole groups of steps
	slack      = 16  // dwords behind each tile that packers may overwrite
)

// format is what the lanes of a step hold.
type format uint8

const (
	plainF32   format = iota // float32
	roundedF32               // float32 that are bfloat16 numbers
	pairsBF16                // two bfloat16
	tilesBF16                // two bfloat16; the left operand is in tiles (amx.go)
)

// places returns how many places of the reduction a step holds.
func (f format) places() int {
	if f == pairsBF16 || f == tilesBF16 {
		return 2
	}
	return 1
}

// operand is a matrix as it lies in memory. Element (lane l, place k) is at p, l*lane+k*place elements further.
type operand struct {
	p           unsafe.Pointer
	dtype       numeric.DType
	lane, place int
}

func (o operand) at(lane, place int) operand {
	o.p = unsafe.Add(o.p, (lane*o.lane+place*o.place)*o.dtype.Size())
	return o
}

// reduction is the cut of a reduction of k places into blocks.
type reduction struct{ k, places, blocks, block int }

func cut(k int, f format) reduction {
	longest := blockSteps * f.places()
	if f == tilesBF16 {
		longest = tileBlockSteps * f.places()
	}
	blocks := (k + longest - 1) / longest
	align := stepAlign * f.places()
	block := roundUp((k+blocks-1)/blocks, align)
	return reduction{k: k, places: f.places(), blocks: (k + block - 1) / block, block: block}
}

// span returns the first place of block i, how many it has, and its steps.
func (r reduction) span(i int) (k0, k, steps int) {
	k0 = i * r.block
	k = min(r.block, r.k-k0)
	return k0, k, (k + r.places - 1) / r.places
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// tiling cuts m rows into tiles of nearly equal height, at most rows.
type tiling struct{ m, tiles int }

func tile(m, rows int) tiling { return tiling{m, (m + rows - 1) / rows} }

// row returns the first row of tile t.
func (t tiling) row(i int) int { return i * t.m / t.tiles }

// tileAt returns where tile t is, in dwords from the tiles of a block that begin with tile first.
func (t tiling) tileAt(i, first, steps int) int {
	return (t.row(i)-t.row(first))*roundUp(steps, stepAlign) + (i-first)*slack
}

// grow returns n dwords on a cache line, in buf where it is large enough.
func grow(buf []uint32, n int) []uint32 {
	if cap(buf) >= n {
		return buf[:n]
	}
	b := make([]uint32, n+15)
	shift := int(-uintptr(unsafe.Pointer(&b[0]))&63) / 4
	return b[shift : shift+n : shift+n]
}

// growLarge is grow for memory that is read in many streams: on huge pages, where the system gives them.
func growLarge(buf []uint32, n int) []uint32 {
	if cap(buf) < n {
		buf = grow(nil, n)
		adviseHuge(buf)
	}
	return buf[:n]
}

// AdviseHuge asks for huge pages under new memory of matrices: the rows of a tile of theirs lie on as many pages.
func AdviseHuge(v []float32) {
	if len(v) > 0 {
		adviseHuge(unsafe.Slice((*uint32)(unsafe.Pointer(&v[0])), len(v)))
	}
}

// Packed holds activations in the order of the kernels, for use in several products. The zero value is empty. Its
// memory grows and never shrinks.
type Packed struct {
	format format
	tiling tiling
	red    reduction
	buf    []uint32
}

// block returns where block i begins, in dwords.
func (p *Packed) block(i int) int {
	if p.format == tilesBF16 {
		return p.tileBlock(i)
	}
	_, _, steps := p.red.span(0)
	return i * p.tiling.tileAt(p.tiling.tiles, 0, steps)
}

func (p *Packed) shape(f format, m, k, rows int) {
	p.format, p.tiling, p.red = f, tile(m, rows), cut(k, f)
	p.buf = growLarge(p.buf, p.block(p.red.blocks))
}

// packTask packs the tiles of a Packed.
type packTask struct {
	ker *kernels
	dst *Packed
	src operand
}

func (t *packTask) Piece(_, i int) {
	p := t.dst
	row, rows := p.tiling.row(i), p.tiling.row(i+1)-p.tiling.row(i)
	for b := range p.red.blocks {
		k0, k, steps := p.red.span(b)
		dst := p.buf[p.block(b)+p.tiling.tileAt(i, 0, steps):][:rows*roundUp(steps, stepAlign)+slack]
		t.ker.pack(unsafe.Pointer(&dst[0]), rows, t.src.at(row, k0), rows, k, p.format)
	}
}

// packGo is the packer in plain Go: lanes x k of src, to steps of width lanes. What it leaves in lanes that src lacks is
// never used.
func packGo(dst unsafe.Pointer, width int, src operand, lanes, k int, f format) {
	places := f.places()
	steps := (k + places - 1) / places
	if src.lane == 1 && src.place != 1 {
		packAcross(unsafe.Slice((*uint32)(dst), steps*width), width, src, lanes, k, f)
		return
	}
	out := unsafe.Slice((*uint32)(dst), steps*width)
	var run [32]float32
	for lane := range lanes {
		for k0 := 0; k0 < k; k0 += len(run) {
			r := run[:min(len(run), k-k0)]
			widen(r, src.at(lane, k0), src.place)
			storeRun(out[k0/places*width+lane:], width, r, f)
		}
	}
}

// storeRun writes places of one lane.
func storeRun(out []uint32, width int, run []float32, f format) {
	switch f {
	case plainF32:
		for i, v := range run {
			out[i*width] = math.Float32bits(v)
		}
	case roundedF32:
		for i, v := range run {
			out[i*width] = uint32(numeric.F32ToBF16(v)) << 16
		}
	default:
		for i := 0; i < len(run); i += 2 {
			pair := uint32(numeric.F32ToBF16(run[i]))
			if i+1 < len(run) {
				pair |= uint32(numeric.F32ToBF16(run[i+1])) << 16
			}
			out[i/2*width] = pair
		}
	}
}

// packAcross packs an operand whose lanes are neighbours in memory.
func packAcross(out []uint32, width int, src operand, lanes, k int, f format) {
	var run [32]float32
	for l0 := 0; l0 < lanes; l0 += len(run) {
		r := run[:min(len(run), lanes-l0)]
		for i := range k {
			widen(r, src.at(l0, i), 1)
			storeLanes(out[i/f.places()*width+l0:][:len(r)], r, f, i&1)
		}
	}
}

// storeLanes writes one place of several lanes.
func storeLanes(out []uint32, run []float32, f format, odd int) {
	for i, v := range run {
		switch {
		case f == plainF32:
			out[i] = math.Float32bits(v)
		case f == roundedF32:
			out[i] = uint32(numeric.F32ToBF16(v)) << 16
		case odd == 0:
			out[i] = uint32(numeric.F32ToBF16(v))
		default:
			out[i] |= uint32(numeric.F32ToBF16(v)) << 16
		}
	}
}

// widen reads elements of src that are stride elements apart.
func widen(dst []float32, src operand, stride int) {
	switch src.dtype {
	case numeric.F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.NativeEndian.Uint32((*[4]byte)(unsafe.Add(src.p, 4*i*stride))[:]))
		}
	case numeric.F16:
		for i := range dst {
			dst[i] = numeric.F16ToF32(half(src.p, i*stride))
		}
	default:
		for i := range dst {
			dst[i] = numeric.BF16ToF32(half(src.p, i*stride))
		}
	}
}

func half(p unsafe.Pointer, i int) uint16 {
	return binary.NativeEndian.Uint16((*[2]byte)(unsafe.Add(p, 2*i))[:])
}
