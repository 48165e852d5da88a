//go:build amd64 || arm64

package gemm

import (
	"unsafe"

	"github.com/biolora/biolora/internal/quant"
)

// packer is what the assembly packs with: k places of lanes lanes of src, whose rows (lanes or places) are ld bytes
// apart, to steps that are stride bytes apart and of which width lanes are written, where the instructions can
// choose.
type packer func(src unsafe.Pointer, ld int, dst unsafe.Pointer, stride, lanes, width, k int)

// unpacker is what the assembly packs quantised panels with: k places of lanes lanes of src, whose rows are ld bytes
// apart, and their scales lds bytes, from place at of a block on, to steps that are stride bytes apart.
type unpacker func(src unsafe.Pointer, ld int, scales unsafe.Pointer, lds, at int, dst unsafe.Pointer, stride, lanes, k int)

// unpack calls the assembly for the rows from row on.
func (c codes) unpack(call unpacker, dst unsafe.Pointer, width, row, lanes, k int) {
	c = c.at(row, 0)
	src, ld := c.first()
	call(src, ld, c.scales, 4*c.perRow, c.col%quant.Block, dst, 4*width, lanes, k)
}
