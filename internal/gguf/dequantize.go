package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/biolora/biolora/internal/numeric"
)

// decoders turn blocks into numbers: those of plain numbers all that there are, the others one block. The order of
// their operations is that of the Python package gguf, each rounded to float32, so that the results are equal to the
// last bit. The explicit conversions in them keep the compiler from fusing a product with a sum, which rounds once
// instead of twice.
var decoders = map[Type]func(dst []float32, src []byte){
	F32: decodeF32, F16: decodeF16, BF16: decodeBF16, F64: decodeF64,
	Q4_0: blockQ4_0, Q4_1: blockQ4_1, Q5_0: blockQ5_0, Q5_1: blockQ5_1, Q8_0: blockQ8_0,
	Q2_K: blockQ2K, Q3_K: blockQ3K, Q4_K: blockQ4K, Q5_K: blockQ5K, Q6_K: blockQ6K,
}

// Readable reports whether Dequantize reads t.
func (t Type) Readable() bool { return decoders[t] != nil }

// readable lists the formats that Dequantize reads.
func readable() string {
	var names []string
	for t := range Type(len(types)) {
		if t.Readable() {
			names = append(names, t.String())
		}
	}
	return strings.Join(names, ", ")
}

// Dequantize turns the blocks of type t in src into float32. Their number is that of dst exactly. The results equal
// those of dequantize of the Python package gguf bit for bit (but NaNs may differ in their payload). It allocates
// nothing. src may be mapped memory: callers guard against a file that is cut short meanwhile.
func Dequantize(dst []float32, t Type, src []byte) error {
	decode := decoders[t]
	if decode == nil {
		return fmt.Errorf("%v tensors are not read, only %s", t, readable())
	}
	elements, bytes := t.Block()
	if len(dst)%elements != 0 || len(dst)/elements*bytes != len(src) {
		return fmt.Errorf("%d bytes are not the blocks of %d elements of type %v: one has %d elements in %d bytes",
			len(src), len(dst), t, elements, bytes)
	}
	if elements == 1 {
		decode(dst, src)
		return nil
	}
	for ; len(dst) > 0; dst, src = dst[elements:], src[bytes:] {
		decode(dst, src)
	}
	return nil
}

func decodeF32(dst []float32, src []byte) {
	src = src[:4*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i : 4*i+4]))
	}
}

func decodeF64(dst []float32, src []byte) {
	src = src[:8*len(dst)]
	for i := range dst {
		dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i : 8*i+8])))
	}
}

func decodeF16(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		dst[i] = half(src[2*i : 2*i+2])
	}
}

func decodeBF16(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		dst[i] = numeric.BF16ToF32(binary.LittleEndian.Uint16(src[2*i : 2*i+2]))
	}
}

// half reads the float16 at the start of b.
func half(b []byte) float32 { return numeric.F16ToF32(binary.LittleEndian.Uint16(b)) }

// In the loops below shifts are by constants and indices run over whole arrays: that is what makes them fast in Go. Most
// put eight numbers together at once, a byte each in a uint64, whose lowest byte is the first of them.

// ones times a byte is eight of that byte.
const ones = 0x0101010101010101

// eight reads 8 bytes at i.
func eight(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8]) }

// minus takes n off each of 8 bytes, all below 128 and n too: none borrows from the next.
func minus(x, n uint64) uint64 { return (x | 128*ones) - n*ones ^ 128*ones }

// scale8 is y = d * x for 8 signed bytes.
func scale8(y *[8]float32, x uint64, d float32) {
	y[0] = d * float32(int8(x))
	y[1] = d * float32(int8(x>>8))
	y[2] = d * float32(int8(x>>16))
	y[3] = d * float32(int8(x>>24))
	y[4] = d * float32(int8(x>>32))
	y[5] = d * float32(int8(x>>40))
	y[6] = d * float32(int8(x>>48))
	y[7] = d * float32(int8(x>>56))
}

// affine8 is y = d * x - m for 8 bytes.
func affine8(y *[8]float32, x uint64, d, m float32) {
	y[0] = float32(d*float32(uint8(x))) - m
	y[1] = float32(d*float32(uint8(x>>8))) - m
	y[2] = float32(d*float32(uint8(x>>16))) - m
	y[3] = float32(d*float32(uint8(x>>24))) - m
	y[4] = float32(d*float32(uint8(x>>32))) - m
	y[5] = float32(d*float32(uint8(x>>40))) - m
	y[6] = float32(d*float32(uint8(x>>48))) - m
	y[7] = float32(d*float32(uint8(x>>56))) - m
}

// blockQ4_0 reads: scale d, 16 bytes with the elements 0-15 in their low and 16-31 in their high nibbles.
func blockQ4_0(dst []float32, src []byte) {
	y, b := (*[32]float32)(dst), (*[18]byte)(src)
	d := half(b[:])
	for i := 0; i < 16; i += 8 {
		q := eight(b[2:], i)
		scale8((*[8]float32)(y[i:]), minus(q&(15*ones), 8), d)
		scale8((*[8]float32)(y[i+16:]), minus(q>>4&(15*ones), 8), d)
	}
}

// blockQ4_1 reads: scale d, minimum m, nibbles as in Q4_0.
func blockQ4_1(dst []float32, src []byte) {
	y, b := (*[32]float32)(dst), (*[20]byte)(src)
	d, m := half(b[:]), -half(b[2:])
	if m != m {
		m = -m // a NaN keeps its sign when it is subtracted
	}
	for i := 0; i < 16; i += 8 {
		q := eight(b[4:], i)
		affine8((*[8]float32)(y[i:]), q&(15*ones), d, m)
		affine8((*[8]float32)(y[i+16:]), q>>4&(15*ones), d, m)
	}
}

// blockQ5_0 reads: scale d, 32 fifth bits, nibbles as in Q4_0.
func blockQ5_0(dst []float32, src []byte) {
	y, b := (*[32]float32)(dst), (*[22]byte)(src)
	d, fifth := half(b[:]), binary.LittleEndian.Uint32(b[2:])
	low, high := (*[16]float32)(y[:]), (*[16]float32)(y[16:])
	for i, q := range (*[16]byte)(b[6:]) {
		low[i] = d * float32(int(uint32(q&15)|fifth<<4&16)-16)
		high[i] = d * float32(int(uint32(q>>4)|fifth>>12&16)-16)
		fifth >>= 1
	}
}

// blockQ5_1 reads: scale d, minimum m, 32 fifth bits, nibbles as in Q4_0.
func blockQ5_1(dst []float32, src []byte) {
	y, b := (*[32]float32)(dst), (*[24]byte)(src)
	d, m, fifth := half(b[:]), half(b[2:]), binary.LittleEndian.Uint32(b[4:])
	low, high := (*[16]float32)(y[:]), (*[16]float32)(y[16:])
	for i, q := range (*[16]byte)(b[8:]) {
		low[i] = float32(d*float32(int(uint32(q&15)|fifth<<4&16))) + m
		high[i] = float32(d*float32(int(uint32(q>>4)|fifth>>12&16))) + m
		fifth >>= 1
	}
}

// blockQ8_0 reads: scale d, 32 signed bytes.
func blockQ8_0(dst []float32, src []byte) {
	y, b := (*[32]float32)(dst), (*[34]byte)(src)
	d := half(b[:])
	for i := 0; i < 32; i += 8 {
		scale8((*[8]float32)(y[i:]), eight(b[2:], i), d)
	}
}

// blockQ2K reads: 16 bytes with the scale (low nibble) and the minimum (high) of 16 elements each, 64 bytes of 2-bit
// numbers, scale of the scales d, scale of the minimums dmin. Of each 32 bytes of numbers the lowest bits are the
// elements 0-31 of 128, the next the elements 32-63, and so on.
func blockQ2K(dst []float32, src []byte) {
	y, b := (*[256]float32)(dst), (*[84]byte)(src)
	d, dmin := half(b[80:]), half(b[82:])
	var scale, least [16]float32
	for i, s := range (*[16]byte)(b[:]) {
		scale[i], least[i] = d*float32(s&15), dmin*float32(s>>4)
	}
	for part := range 4 { // 16 bytes: of each 32 of 128 elements the first or second 16
		s := part>>1*8 + part&1
		y0, y1, y2, y3 := quarters(y, part)
		d0, d1, d2, d3 := scale[s], scale[s+2], scale[s+4], scale[s+6]
		m0, m1, m2, m3 := least[s], least[s+2], least[s+4], least[s+6]
		for i, q := range (*[16]byte)(b[16+16*part:]) {
			y0[i] = float32(d0*float32(q&3)) - m0
			y1[i] = float32(d1*float32(q>>2&3)) - m1
			y2[i] = float32(d2*float32(q>>4&3)) - m2
			y3[i] = float32(d3*float32(q>>6)) - m3
		}
	}
}

// quarters returns the elements 0-15 (part 0) or 16-31 (part 1) of each 32 of the first 128 of y, or of its second 128
// (parts 2 and 3).
func quarters(y *[256]float32, part int) (y0, y1, y2, y3 *[16]float32) {
	z := (*[112]float32)(y[part>>1*128+part&1*16:])
	return (*[16]float32)(z[:]), (*[16]float32)(z[32:]), (*[16]float32)(z[64:]), (*[16]float32)(z[96:])
}

// blockQ3K reads: 32 bytes whose bit j is the third bit of the elements 32j-32j+31, 64 bytes of 2-bit numbers as in
// Q2_K, 16 scales of 6 bits in 12 bytes, scale of the scales d. Where the third bit is not set, 4 is taken off.
func blockQ3K(dst []float32, src []byte) {
	y, b := (*[256]float32)(dst), (*[110]byte)(src)
	d := half(b[108:])
	var scale [16]float32
	for i := range scale {
		scale[i] = d * float32(scaleQ3K((*[12]byte)(b[96:]), i))
	}
	for part := range 4 {
		s := part>>1*8 + part&1
		y0, y1, y2, y3 := quarters(y, part)
		d0, d1, d2, d3 := scale[s], scale[s+2], scale[s+4], scale[s+6]
		shift := part >> 1 * 4 & 7
		for i := 0; i < 16; i += 8 {
			q, t := eight(b[32+16*part:], i), eight(b[part&1*16:], i)>>shift
			scale8((*[8]float32)(y0[i:]), minus(q&(3*ones)|t<<2&(4*ones), 4), d0)
			scale8((*[8]float32)(y1[i:]), minus(q>>2&(3*ones)|t<<1&(4*ones), 4), d1)
			scale8((*[8]float32)(y2[i:]), minus(q>>4&(3*ones)|t&(4*ones), 4), d2)
			scale8((*[8]float32)(y3[i:]), minus(q>>6&(3*ones)|t>>1&(4*ones), 4), d3)
		}
	}
}

// scaleQ3K is scale s of 16: its low 4 bits are in the first 8 bytes, its high 2 in the last 4.
func scaleQ3K(b *[12]byte, s int) int {
	low := b[s&7] >> (s >> 3 * 4) & 15
	high := b[8+s&3] >> (s >> 2 * 2) & 3
	return int(low|high<<4) - 32
}

// blockQ4K reads: scale of the scales d, scale of the minimums dmin, 8 scales and 8 minimums of 6 bits in 12 bytes,
// 128 bytes of nibbles: of each 32 bytes the low ones are the elements 0-31 of 64, the high ones the next 32.
func blockQ4K(dst []float32, src []byte) {
	y, b := (*[256]float32)(dst), (*[144]byte)(src)
	d, dmin := half(b[:]), half(b[2:])
	scales := (*[12]byte)(b[4:])
	for part := range 4 {
		d0, m0 := scaleQ4K(d, dmin, scales, 2*part)
		d1, m1 := scaleQ4K(d, dmin, scales, 2*part+1)
		low, high := (*[32]float32)(y[64*part:]), (*[32]float32)(y[64*part+32:])
		for i := 0; i < 32; i += 8 {
			q := eight(b[16+32*part:], i)
			affine8((*[8]float32)(low[i:]), q&(15*ones), d0, m0)
			affine8((*[8]float32)(high[i:]), q>>4&(15*ones), d1, m1)
		}
	}
}

// scaleQ4K is scale and minimum s of 8, times d and dmin. Of the first four, each has its own byte; of the others, the
// low 4 bits are in the last 4 bytes and the high 2 on top of the first eight.
func scaleQ4K(d, dmin float32, b *[12]byte, s int) (scale, least float32) {
	if s < 4 {
		return d * float32(b[s]&63), dmin * float32(b[s+4]&63)
	}
	return d * float32(b[s+4]&15|b[s-4]>>6<<4), dmin * float32(b[s+4]>>4|b[s]>>6<<4)
}

// blockQ5K reads: d, dmin and scales as in Q4_K, 32 bytes whose bit j is the fifth bit of the elements 32j-32j+31,
// nibbles as in Q4_K.
func blockQ5K(dst []float32, src []byte) {
	y, b := (*[256]float32)(dst), (*[176]byte)(src)
	d, dmin := half(b[:]), half(b[2:])
	scales := (*[12]byte)(b[4:])
	for part := range 4 {
		d0, m0 := scaleQ4K(d, dmin, scales, 2*part)
		d1, m1 := scaleQ4K(d, dmin, scales, 2*part+1)
		low, high := (*[32]float32)(y[64*part:]), (*[32]float32)(y[64*part+32:])
		for i := 0; i < 32; i += 8 {
			q, f := eight(b[48+32*part:], i), eight(b[16:], i)>>(2*part&7)
			affine8((*[8]float32)(low[i:]), q&(15*ones)|f<<4&(16*ones), d0, m0)
			affine8((*[8]float32)(high[i:]), q>>4&(15*ones)|f<<3&(16*ones), d1, m1)
		}
	}
}

// blockQ6K reads: 128 bytes of nibbles, 64 bytes of 2 more bits, 16 signed scales of 16 elements each, scale of the
// scales d. Of 128 elements, 64 bytes hold 0-63 in their low and 64-127 in their high nibbles; 32 bytes hold the upper
// bits of 0-31 in their lowest, of 32-63 in their next two bits, and so on.
func blockQ6K(dst []float32, src []byte) {
	y, b := (*[256]float32)(dst), (*[210]byte)(src)
	d := half(b[208:])
	var scale [16]float32
	for i, s := range (*[16]byte)(b[192:]) {
		scale[i] = d * float32(int8(s))
	}
	for part := range 4 {
		s := part>>1*8 + part&1
		y0, y1, y2, y3 := quarters(y, part)
		d0, d1, d2, d3 := scale[s], scale[s+2], scale[s+4], scale[s+6]
		nibbles := (*[48]byte)(b[part>>1*64+part&1*16:])
		for i := 0; i < 16; i += 8 {
			p, q, h := eight(nibbles[:], i), eight(nibbles[32:], i), eight(b[128+16*part:], i)
			scale8((*[8]float32)(y0[i:]), minus(p&(15*ones)|h<<4&(48*ones), 32), d0)
			scale8((*[8]float32)(y1[i:]), minus(q&(15*ones)|h<<2&(48*ones), 32), d1)
			scale8((*[8]float32)(y2[i:]), minus(p>>4&(15*ones)|h&(48*ones), 32), d2)
			scale8((*[8]float32)(y3[i:]), minus(q>>4&(15*ones)|h>>2&(48*ones), 32), d3)
		}
	}
}
