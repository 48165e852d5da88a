// Package quant stores frozen matrices in few bits: NF4 as QLoRA has it, and blockwise int8.
//
// A matrix [rows, cols] is cut into blocks of [Block] elements along its row-major order, whatever its rows are; the
// last block may be short. Each block has a scale, and an element is its code's value times its block's scale, rounded
// to float32 once. Encoded, a matrix is one run of bytes, little-endian, so that one U8 tensor of a file holds it:
//
//	nf4    codes      32 bytes a block: byte j has element j in its low half and element 32+j in its high half
//	       scales     1 byte a block, the code of its scale; then zeros up to a multiple of 4 bytes
//	       factors    float32 for each 256 blocks
//	       offset     float32
//	int8   codes      64 bytes a block, two's complement
//	       scales     float32 a block
//
// What a short block lacks is there as zeros (code 7 of nf4). The order of the halves lets a kernel widen 32 bytes to
// the codes of 32 neighbours with one instruction, in a row as well as across rows: one copy serves y = x Wᵀ and
// dx = dy W alike where rows are a multiple of Block. Blocks of int8 are as long as nf4's, so that both are read by the
// same loops; that costs 0.5 bits an element and makes the error 10 % less than blocks of 128 do.
//
// Meant are the weights of the decoder's linear layers. Embeddings and the output head stay in the checkpoint's format,
// as QLoRA leaves them.
//
// # NF4
//
// Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs" (2023). The scale of a block is its largest
// magnitude, the code is the nearest of the 16 of the code book, on a tie the lower one. Scales are themselves stored in
// 8 bits ("double quantization"): less their mean (offset), in blocks of 256, each a factor times a value of the dynamic
// code book of Dettmers, "8-Bit Approximations for Parallelism in Deep Learning" (2015). An element takes 4.127 bits.
// Codes, factors and values are those of bitsandbytes on a CPU to the bit, its quirks included: a short last block is
// divided by its scale where full ones are multiplied by the reciprocal, and the codes of scales are chosen on a grid of
// 65,536 points. The mean is summed in float64 here and in float32 there, so it may differ in its last bits.
//
// # int8
//
// The scale is the largest magnitude divided by 127, the code the nearest multiple, on a tie the even one. A block whose
// magnitudes are all below 127·2^-126 becomes zeros. An element takes 8.5 bits.
package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Format is a way to store a matrix in few bits.
type Format uint8

// None is no such format: plain elements.
const (
	None Format = iota
	NF4
	Int8
)

// Block is the number of elements that share a scale.
const Block = 64

// factorBlocks is the number of nf4 scales that share a factor.
const factorBlocks = 256

// formats has the versions apart from the names: a version changes when the same source would give other bytes.
var formats = [...]struct {
	name    string
	version int
	bytes   int // of a block's codes
}{None: {"none", 0, 0}, NF4: {"nf4", 1, Block / 2}, Int8: {"int8", 1, Block}}

// Parse returns the format called name: "nf4" or "int8".
func Parse(name string) (Format, error) {
	for f := NF4; int(f) < len(formats); f++ {
		if formats[f].name == name {
			return f, nil
		}
	}
	return None, fmt.Errorf("format %q is unknown, want nf4 or int8", name)
}

// String returns the name that Parse understands, "none" for None.
func (f Format) String() string {
	if int(f) < len(formats) {
		return formats[f].name
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// ID identifies format and layout, e.g. "nf4-1": what was stored under another ID must not be read as this.
func (f Format) ID() string {
	if !f.valid() {
		return f.String()
	}
	return fmt.Sprintf("%s-%d", f, formats[f].version)
}

func (f Format) valid() bool { return f == NF4 || f == Int8 }

// Size returns the bytes of a matrix [rows, cols]. It fails for shapes without elements and for what no memory holds.
func (f Format) Size(rows, cols int) (int, error) {
	if !f.valid() {
		return 0, fmt.Errorf("%s is no quantised format", f)
	}
	if rows < 1 || cols < 1 {
		return 0, fmt.Errorf("a matrix [%d, %d], want at least one row and column", rows, cols)
	}
	if rows > math.MaxInt/4/cols { // an element takes less than 4 bytes, what is rounded up less than a page
		return 0, fmt.Errorf("a matrix [%d, %d] has too many elements", rows, cols)
	}
	l := f.layout(rows, cols)
	return l.size, nil
}

// layout says where the parts of an encoded matrix begin.
type layout struct {
	blocks                        int
	scales, factors, offset, size int
}

func (f Format) layout(rows, cols int) (l layout) {
	l.blocks = ceil(rows*cols, Block)
	l.scales = l.blocks * formats[f].bytes
	if f == Int8 {
		l.size = l.scales + 4*l.blocks
		return l
	}
	l.factors = l.scales + 4*ceil(l.blocks, 4)
	l.offset = l.factors + 4*ceil(l.blocks, factorBlocks)
	l.size = l.offset + 4
	return l
}

func ceil(n, d int) int { return (n + d - 1) / d }

// Matrix is an encoded matrix, row-major [Rows, Cols]. Its parts are slices of one run of bytes; kernels read them.
type Matrix struct {
	Format     Format
	Rows, Cols int
	Codes      []byte
	Scales     []byte  // nf4: the scales' codes, one for each block; int8: float32
	Factors    []byte  // nf4: float32 for each 256 scales
	Offset     float32 // nf4: the mean of the scales
}

// Open finds the parts of an encoded matrix. data must have just its Size, and stay valid and unchanged while the Matrix
// is in use; it may be unaligned. Open reads no codes: see CheckFinite.
func Open(f Format, rows, cols int, data []byte) (*Matrix, error) {
	size, err := f.Size(rows, cols)
	if err != nil {
		return nil, err
	}
	if len(data) != size {
		return nil, fmt.Errorf("%d bytes for a matrix [%d, %d] in %s, which takes %d", len(data), rows, cols, f, size)
	}
	l := f.layout(rows, cols)
	m := &Matrix{Format: f, Rows: rows, Cols: cols, Codes: data[:l.scales], Scales: data[l.scales:]}
	if f == NF4 {
		m.Scales = data[l.scales : l.scales+l.blocks]
		m.Factors = data[l.factors:l.offset]
		m.Offset = float(data[l.offset:], 0)
	}
	return m, nil
}

// float returns element i of little-endian float32.
func float(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}

// Scale returns the scale of a block.
func (m *Matrix) Scale(block int) float32 {
	if m.Format == Int8 {
		return float(m.Scales, block)
	}
	return float32(ScaleValues[m.Scales[block]]*float(m.Factors, block/factorBlocks)) + m.Offset
}

// Elements decodes len(dst) elements, row-major, from the given one on.
func (m *Matrix) Elements(dst []float32, from int) error {
	if n := m.Rows * m.Cols; from < 0 || from > n || len(dst) > n-from {
		return fmt.Errorf("elements [%d, %d) are asked for, there are %d", from, from+len(dst), n)
	}
	m.decode(dst, from)
	return nil
}

func (m *Matrix) decode(dst []float32, from int) {
	for len(dst) > 0 {
		b, at := from/Block, from%Block
		n := min(len(dst), Block-at)
		if m.Format == Int8 {
			scale := m.Scale(b)
			for i, q := range m.Codes[b*Block+at:][:n] {
				dst[i] = float32(int8(q)) * scale
			}
		} else {
			m.decodeNF4(dst[:n], b, at)
		}
		dst, from = dst[n:], from+n
	}
}

// decodeNF4 decodes elements of one block, from its element at on.
func (m *Matrix) decodeNF4(dst []float32, block, at int) {
	scale := m.Scale(block)
	var values [16]float32
	for i, v := range Values {
		values[i] = v * scale
	}
	codes := (*[32]byte)(m.Codes[block*32:])
	for i := range dst {
		dst[i] = values[codes[(at+i)&31]>>((at+i)>>5*4)&15]
	}
}

// CheckFinite returns an error that names the first block whose scale is infinite or not a number. What Encode wrote has
// none.
func (m *Matrix) CheckFinite() error {
	for b := range ceil(m.Rows*m.Cols, Block) {
		if s := m.Scale(b); !finite(s) {
			return fmt.Errorf("the scale of block %d, elements from %d on, is %v", b, b*Block, s)
		}
	}
	return nil
}

func finite(v float32) bool { return math.Float32bits(v)&0x7f800000 != 0x7f800000 }
