package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/biolora/biolora/internal/numeric"
)

// decoders turn whole blocks into numbers. Each block function takes one block; the order of its operations is that
// of the Python package gguf, each rounded to float32, so that the results are equal to the last bit. The explicit
// conversions in them keep the compiler from fusing a product with a sum, which rounds once instead of twice.
var decoders = map[Type]func(dst []float32, src []byte){
	F32:  decodeF32,
	F16:  decodeF16,
	BF16: decodeBF16,
	F64:  decodeF64,
	Q4_0: func(dst []float32, src []byte) {
		for ; len(dst) >= 32; dst, src = dst[32:], src[18:] {
			blockQ4_0((*[32]float32)(dst), (*[18]byte)(src))
		}
	},
	Q4_1: func(dst []float32, src []byte) {
		for ; len(dst) >= 32; dst, src = dst[32:], src[20:] {
			blockQ4_1((*[32]float32)(dst), (*[20]byte)(src))
		}
	},
	Q5_0: func(dst []float32, src []byte) {
		for ; len(dst) >= 32; dst, src = dst[32:], src[22:] {
			blockQ5_0((*[32]float32)(dst), (*[22]byte)(src))
		}
	},
	Q5_1: func(dst []float32, src []byte) {
		for ; len(dst) >= 32; dst, src = dst[32:], src[24:] {
			blockQ5_1((*[32]float32)(dst), (*[24]byte)(src))
		}
	},
	Q8_0: func(dst []float32, src []byte) {
		for ; len(dst) >= 32; dst, src = dst[32:], src[34:] {
			blockQ8_0((*[32]float32)(dst), (*[34]byte)(src))
		}
	},
	Q2_K: func(dst []float32, src []byte) {
		for ; len(dst) >= 256; dst, src = dst[256:], src[84:] {
			blockQ2K((*[256]float32)(dst), (*[84]byte)(src))
		}
	},
	Q3_K: func(dst []float32, src []byte) {
		for ; len(dst) >= 256; dst, src = dst[256:], src[110:] {
			blockQ3K((*[256]float32)(dst), (*[110]byte)(src))
		}
	},
	Q4_K: func(dst []float32, src []byte) {
		for ; len(dst) >= 256; dst, src = dst[256:], src[144:] {
			blockQ4K((*[256]float32)(dst), (*[144]byte)(src))
		}
	},
	Q5_K: func(dst []float32, src []byte) {
		for ; len(dst) >= 256; dst, src = dst[256:], src[176:] {
			blockQ5K((*[256]float32)(dst), (*[176]byte)(src))
		}
	},
	Q6_K: func(dst []float32, src []byte) {
		for ; len(dst) >= 256; dst, src = dst[256:], src[210:] {
			blockQ6K((*[256]float32)(dst), (*[210]byte)(src))
		}
	},
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
	decode(dst, src)
	return nil
}

func decodeF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func decodeF64(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
	}
}

func decodeF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = half(src[2*i:])
	}
}

func decodeBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = numeric.BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// half reads the float16 at the start of b.
func half(b []byte) float32 { return numeric.F16ToF32(binary.LittleEndian.Uint16(b)) }

// blockQ4_0 reads: scale d, 16 bytes with the elements 0-15 in their low and 16-31 in their high nibbles.
func blockQ4_0(y *[32]float32, b *[18]byte) {
	d := half(b[:])
	for i, q := range b[2:] {
		y[i&15] = d * float32(int(q&15)-8)
		y[i&15+16] = d * float32(int(q>>4)-8)
	}
}

// blockQ4_1 reads: scale d, minimum m, nibbles as in Q4_0.
func blockQ4_1(y *[32]float32, b *[20]byte) {
	d, m := half(b[:]), half(b[2:])
	for i, q := range b[4:] {
		y[i&15] = float32(d*float32(q&15)) + m
		y[i&15+16] = float32(d*float32(q>>4)) + m
	}
}

// blockQ5_0 reads: scale d, 32 fifth bits, nibbles as in Q4_0.
func blockQ5_0(y *[32]float32, b *[22]byte) {
	d, high := half(b[:]), binary.LittleEndian.Uint32(b[2:])
	for i, q := range b[6:] {
		y[i&15] = d * float32(int(uint32(q&15)|high>>i&1<<4)-16)
		y[i&15+16] = d * float32(int(uint32(q>>4)|high>>(i+16)&1<<4)-16)
	}
}

// blockQ5_1 reads: scale d, minimum m, 32 fifth bits, nibbles as in Q4_0.
func blockQ5_1(y *[32]float32, b *[24]byte) {
	d, m, high := half(b[:]), half(b[2:]), binary.LittleEndian.Uint32(b[4:])
	for i, q := range b[8:] {
		y[i&15] = float32(d*float32(uint32(q&15)|high>>i&1<<4)) + m
		y[i&15+16] = float32(d*float32(uint32(q>>4)|high>>(i+16)&1<<4)) + m
	}
}

// blockQ8_0 reads: scale d, 32 signed bytes.
func blockQ8_0(y *[32]float32, b *[34]byte) {
	d := half(b[:])
	for i, q := range b[2:] {
		y[i] = float32(int8(q)) * d
	}
}

// blockQ2K reads: 16 bytes with the scale (low nibble) and the minimum (high) of 16 elements each, 64 bytes of 2-bit
// numbers, scale of the scales d, scale of the minimums dmin. Of each 32 bytes of numbers the lowest bits are the
// elements 0-31 of 128, the next the elements 32-63, and so on.
func blockQ2K(y *[256]float32, b *[84]byte) {
	d, dmin := half(b[80:]), half(b[82:])
	for s := range 16 {
		scale := d * float32(b[s]&15)
		least := dmin * float32(b[s]>>4)
		q := (*[16]byte)(b[16+s>>3*32+s&1*16:])
		shift := s >> 1 & 3 * 2
		out := (*[16]float32)(y[16*s:])
		for i := range out {
			out[i] = float32(scale*float32(q[i]>>shift&3)) - least
		}
	}
}

// blockQ3K reads: 32 bytes whose bit j is the third bit of the elements 32j-32j+31, 64 bytes of 2-bit numbers as in
// Q2_K, 16 scales of 6 bits in 12 bytes, scale of the scales d. Where the third bit is not set, 4 is taken off.
func blockQ3K(y *[256]float32, b *[110]byte) {
	d := half(b[108:])
	high := (*[32]byte)(b[:])
	for s := range 16 {
		scale := d * float32(scaleQ3K((*[12]byte)(b[96:]), s))
		q := (*[16]byte)(b[32+s>>3*32+s&1*16:])
		h := (*[16]byte)(high[s&1*16:])
		shift, bit := s>>1&3*2, s>>1
		out := (*[16]float32)(y[16*s:])
		for i := range out {
			out[i] = scale * float32(int(q[i]>>shift&3|h[i]>>bit&1<<2)-4)
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
func blockQ4K(y *[256]float32, b *[144]byte) {
	d, dmin := half(b[:]), half(b[2:])
	for s := range 8 {
		sc, m := scaleQ4K((*[12]byte)(b[4:]), s)
		scale, least := d*float32(sc), dmin*float32(m)
		q := (*[32]byte)(b[16+s>>1*32:])
		shift := s & 1 * 4
		out := (*[32]float32)(y[32*s:])
		for i := range out {
			out[i] = float32(scale*float32(q[i]>>shift&15)) - least
		}
	}
}

// scaleQ4K is scale and minimum s of 8. Of the first four, each has its own byte; of the others, the low 4 bits are in
// the last 4 bytes and the high 2 on top of the first eight.
func scaleQ4K(b *[12]byte, s int) (scale, least uint8) {
	if s < 4 {
		return b[s] & 63, b[s+4] & 63
	}
	return b[s+4]&15 | b[s-4]>>6<<4, b[s+4]>>4 | b[s]>>6<<4
}

// blockQ5K reads: d, dmin and scales as in Q4_K, 32 bytes whose bit j is the fifth bit of the elements 32j-32j+31,
// nibbles as in Q4_K.
func blockQ5K(y *[256]float32, b *[176]byte) {
	d, dmin := half(b[:]), half(b[2:])
	high := (*[32]byte)(b[16:])
	for s := range 8 {
		sc, m := scaleQ4K((*[12]byte)(b[4:]), s)
		scale, least := d*float32(sc), dmin*float32(m)
		q := (*[32]byte)(b[48+s>>1*32:])
		shift := s & 1 * 4
		out := (*[32]float32)(y[32*s:])
		for i := range out {
			out[i] = float32(scale*float32(q[i]>>shift&15|high[i]>>s&1<<4)) - least
		}
	}
}

// blockQ6K reads: 128 bytes of nibbles, 64 bytes of 2 more bits, 16 signed scales of 16 elements each, scale of the
// scales d. Of 128 elements, 64 bytes hold 0-63 in their low and 64-127 in their high nibbles; 32 bytes hold the upper
// bits of 0-31 in their lowest, of 32-63 in their next two bits, and so on.
func blockQ6K(y *[256]float32, b *[210]byte) {
	d := half(b[208:])
	for s := range 16 {
		scale := d * float32(int8(b[192+s]))
		low := (*[16]byte)(b[s>>3*64+s&3*16:])
		high := (*[16]byte)(b[128+s>>3*32+s&1*16:])
		shift, pair := s>>2&1*4, s>>1&3*2
		out := (*[16]float32)(y[16*s:])
		for i := range out {
			out[i] = scale * float32(int(low[i]>>shift&15|high[i]>>pair&3<<4)-32)
		}
	}
}
