package weights

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
)

// Len returns the number of elements, 1 for a scalar.
func (t Tensor) Len() int {
	rows, cols := t.Size()
	return rows * cols
}

// Size returns the rows, which is the first dimension, and the elements of a row, the product of the others. A vector
// of n is n rows of 1, a scalar is one.
func (t Tensor) Size() (rows, cols int) {
	rows, cols = 1, 1
	for i, d := range t.Shape {
		if i == 0 {
			rows = d
		} else {
			cols *= d
		}
	}
	return rows, cols
}

// Rows converts the rows [from, to) to float32 into dst, which has just their length. See Elements.
func (t Tensor) Rows(dst []float32, from, to int) error {
	rows, cols := t.Size()
	if from < 0 || from > to || to > rows {
		return t.errorf("rows [%d, %d) are asked for, there are %d", from, to, rows)
	}
	if want := (to - from) * cols; len(dst) != want {
		return t.errorf("rows [%d, %d) have %d elements, there is room for %d", from, to, want, len(dst))
	}
	return t.Elements(dst, from*cols)
}

// Elements converts len(dst) elements to float32, row-major, from the given one on. F32, F16 and BF16 convert exactly,
// as do blocks of fewer bits; F64 is rounded to nearest even, and what is then infinite though it was not is an error.
// Any other format is an error. Several goroutines may call it at once.
func (t Tensor) Elements(dst []float32, from int) error {
	if !t.DType.Float() {
		return t.errorf("%s cannot be read as floating point", t.Type)
	}
	if n := t.Len(); from < 0 || from > n || len(dst) > n-from {
		return t.errorf("elements [%d, %d) are asked for, there are %d", from, from+len(dst), n)
	}
	return mmap.Guard(func() error {
		size := t.DType.Size()
		if t.layout == nil {
			return t.decode(dst, from, t.Data[from*size:])
		}
		if t.DType == numeric.F32 {
			return t.layout.fill(raw(dst), from)
		}
		return t.inPieces(from, len(dst), func(data []byte, at int) error {
			return t.decode(dst[at-from:][:len(data)/size], at, data)
		})
	})
}

// inPieces gives do the n elements from the given one on, as they are in the format, some at a time.
func (t Tensor) inPieces(from, n int, do func(data []byte, from int) error) error {
	size := t.DType.Size()
	if t.layout == nil {
		return do(t.Data[from*size:(from+n)*size], from)
	}
	const piece = 1 << 16
	buf := make([]byte, min(piece, n*size))
	for n > 0 {
		b := buf[:min(len(buf), n*size)]
		if err := t.layout.fill(b, from); err != nil {
			return err
		}
		if err := do(b, from); err != nil {
			return err
		}
		from, n = from+len(b)/size, n-len(b)/size
	}
	return nil
}

// decode converts elements whose first is number from of the tensor.
func (t Tensor) decode(dst []float32, from int, src []byte) error {
	decode(dst, t.DType, src)
	if t.DType != numeric.F64 {
		return nil
	}
	for i, v := range dst {
		if x := math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])); v-v != 0 && x-x == 0 {
			return t.errorf("element %d%s: %g does not fit F32", from+i, position(from+i, t.Shape), x)
		}
	}
	return nil
}

// CheckFinite returns an error that names the first element that is infinite or not a number. Formats that are not
// floating point have none.
func (t Tensor) CheckFinite() error {
	if !t.DType.Float() {
		return nil
	}
	return mmap.Guard(func() error {
		if c, ok := t.layout.(*coded); ok {
			if err := c.check(); err != nil {
				return t.errorf("%w", err)
			}
			return nil
		}
		return t.inPieces(0, t.Len(), func(data []byte, from int) error {
			i := firstNotFinite(t.DType, data)
			if i < 0 {
				return nil
			}
			v := make([]float32, 1)
			decode(v, t.DType, data[i*t.DType.Size():])
			return t.notFinite(from+i, v[0])
		})
	})
}

func (t Tensor) notFinite(i int, v float32) error {
	return t.errorf("element %d%s is %v", i, position(i, t.Shape), v)
}

func (t Tensor) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: tensor %s: %w", t.File, t.Name, fmt.Errorf(format, args...))
}

// position turns an index into the elements into one for each dimension.
func position(index int, shape []int) string {
	if len(shape) < 2 {
		return ""
	}
	at := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		at[i] = index % shape[i]
		index /= shape[i]
	}
	return fmt.Sprintf(" (%v of %v)", at, shape)
}

// decode converts len(dst) elements.
func decode(dst []float32, d numeric.DType, src []byte) {
	switch d {
	case numeric.F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case numeric.BF16:
		for i := range dst {
			dst[i] = numeric.BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case numeric.F16:
		for i := range dst {
			dst[i] = numeric.F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case numeric.F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	}
}

// encode rounds len(src) elements to nearest, ties to even.
func encode(dst []byte, d numeric.DType, src []float32) {
	switch d {
	case numeric.F32:
		for i, v := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case numeric.BF16:
		dst = dst[:2*len(src)] // spares a check of each element
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:2*i+2], numeric.F32ToBF16(v))
		}
	case numeric.F16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], numeric.F32ToF16(v))
		}
	case numeric.F64:
		for i, v := range src {
			binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(float64(v)))
		}
	}
}

// firstNotFinite returns the index of the first element whose exponent is all ones, or -1.
func firstNotFinite(d numeric.DType, data []byte) int {
	switch d {
	case numeric.F32:
		return find32(data, 0x7f800000)
	case numeric.BF16:
		return find16(data, 0x7f80)
	case numeric.F16:
		return find16(data, 0x7c00)
	case numeric.F64:
		for i := 0; i+8 <= len(data); i += 8 {
			if binary.LittleEndian.Uint64(data[i:])>>52&0x7ff == 0x7ff {
				return i / 8
			}
		}
	}
	return -1
}

// find32 returns the index of the first element that has all bits of mask.
func find32(data []byte, mask uint32) int {
	for i := 0; i+4 <= len(data); i += 4 {
		if binary.LittleEndian.Uint32(data[i:])&mask == mask {
			return i / 4
		}
	}
	return -1
}

func find16(data []byte, mask uint16) int {
	for i := 0; i+2 <= len(data); i += 2 {
		if binary.LittleEndian.Uint16(data[i:])&mask == mask {
			return i / 2
		}
	}
	return -1
}

// torchNames are the formats as config.json spells them.
var torchNames = map[numeric.DType]string{
	numeric.F32: "float32", numeric.F16: "float16", numeric.BF16: "bfloat16", numeric.F64: "float64",
}
