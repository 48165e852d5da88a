package weights

import (
	"fmt"
	"unsafe"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/quant"
)

// layout gives the values of a tensor that does not lie row by row in one place. It may be used by several goroutines
// at once.
type layout interface {
	// fill puts values into dst, row-major from element from on, in the tensor's format. dst has a whole number of them.
	fill(dst []byte, from int) error
	// mapped is the bytes of the file that the values are in.
	mapped() [][]byte
	// String tells layouts apart that give the same bytes of a file in another order.
	String() string
}

// strided is elements at regular distances.
type strided struct {
	data          []byte
	size          int // bytes of an element
	shape, stride []int
	run           int // elements that lie one after another: the product of the last dimensions
	outer         int // dimensions before those
}

func newStrided(data []byte, size int, shape, stride []int) *strided {
	s := &strided{data: data, size: size, shape: shape, stride: stride, run: 1, outer: len(shape)}
	for s.outer > 0 && (stride[s.outer-1] == s.run || shape[s.outer-1] == 1) {
		s.outer--
		s.run *= shape[s.outer]
	}
	return s
}

// contiguous reports whether data is the elements in their order.
func (s *strided) contiguous() bool { return s.outer == 0 || len(s.data) == 0 }

func (s *strided) fill(dst []byte, from int) error {
	if len(dst) == 0 {
		return nil // there may be no elements at all
	}
	if s.run == 1 && s.outer == 2 && s.stride[0] == 1 && from%s.shape[1] == 0 {
		n := len(dst) / s.size / s.shape[1] * s.shape[1]
		s.transpose(dst[:n*s.size], from/s.shape[1])
		dst, from = dst[n*s.size:], from+n
	}
	index := make([]int, s.outer)
	at, rest := 0, from/s.run
	for i := s.outer - 1; i >= 0; i-- {
		index[i] = rest % s.shape[i]
		rest /= s.shape[i]
		at += index[i] * s.stride[i]
	}
	for skip := from % s.run; len(dst) > 0; skip = 0 {
		n := copy(dst, s.data[(at+skip)*s.size:(at+s.run)*s.size])
		dst = dst[n:]
		for i := s.outer - 1; i >= 0; i-- { // the next run, as an odometer counts
			index[i]++
			at += s.stride[i]
			if index[i] < s.shape[i] {
				break
			}
			at -= index[i] * s.stride[i]
			index[i] = 0
		}
	}
	return nil
}

// transpose fills dst with whole rows of a matrix whose columns are contiguous. Column by column, each page is read once.
func (s *strided) transpose(dst []byte, row int) {
	cols := s.shape[1]
	line := cols * s.size
	for col := range cols {
		src := s.data[(row+col*s.stride[1])*s.size:]
		for at := col * s.size; at < len(dst); at += line {
			copy(dst[at:at+s.size], src[:s.size])
			if at+line < len(dst) {
				src = src[s.size:]
			}
		}
	}
}

func (s *strided) mapped() [][]byte { return [][]byte{s.data} }

func (s *strided) String() string { return fmt.Sprintf("strides %v of %v", s.stride, s.shape) }

// layoutOf is the layout of any tensor.
func layoutOf(t Tensor) layout {
	if t.layout != nil {
		return t.layout
	}
	return newStrided(t.Data, t.DType.Size(), []int{t.Len()}, []int{1})
}

// turned is a matrix whose rows are in the rotary order of Meta and llama.cpp, where the two rows of a pair are
// neighbours. Hugging Face has the first rows of all pairs of a head before the second ones.
type turned struct {
	base    layout
	row     int // bytes
	cols    int
	headDim int // rows of a head, an even number
}

func (t *turned) fill(dst []byte, from int) error {
	size := t.row / t.cols
	for len(dst) > 0 {
		row, col := from/t.cols, from%t.cols
		n := min(len(dst), t.row-col*size)
		head, i := row/t.headDim, row%t.headDim
		pair, second := i%(t.headDim/2), i/(t.headDim/2)
		if err := t.base.fill(dst[:n], (head*t.headDim+2*pair+second)*t.cols+col); err != nil {
			return err
		}
		dst, from = dst[n:], from+n/size
	}
	return nil
}

func (t *turned) mapped() [][]byte { return t.base.mapped() }

func (t *turned) String() string { return fmt.Sprintf("heads of %d turned of %v", t.headDim, t.base) }

// joined is parts of a matrix side by side, each with the same rows, or one above the other where there is one row in
// all of them.
type joined struct {
	parts []layout
	width int // elements of a row of each part
	size  int // bytes of an element
}

func (j *joined) fill(dst []byte, from int) error {
	all := j.width * len(j.parts)
	for len(dst) > 0 {
		row, col := from/all, from%all
		part, in := col/j.width, col%j.width
		n := min(len(dst), (j.width-in)*j.size)
		if err := j.parts[part].fill(dst[:n], row*j.width+in); err != nil {
			return err
		}
		dst, from = dst[n:], from+n/j.size
	}
	return nil
}

func (j *joined) mapped() (parts [][]byte) {
	for _, p := range j.parts {
		parts = append(parts, p.mapped()...)
	}
	return parts
}

func (j *joined) String() string {
	return fmt.Sprintf("%d parts of width %d: %v", len(j.parts), j.width, j.parts)
}

// quantised is blocks of fewer bits. The values are float32.
type quantised struct {
	typ  gguf.Type
	data []byte
}

func (q *quantised) fill(dst []byte, from int) error {
	block, size := q.typ.Block()
	var one [256]float32 // the largest block there is
	for len(dst) > 0 {
		b, in := from/block, from%block
		n := len(dst) / 4 / block
		values := floats(dst)
		if in == 0 && n > 0 && values != nil {
			if err := gguf.Dequantize(values[:n*block], q.typ, q.data[b*size:(b+n)*size]); err != nil {
				return err
			}
			dst, from = dst[4*n*block:], from+n*block
			continue
		}
		if err := gguf.Dequantize(one[:block], q.typ, q.data[b*size:(b+1)*size]); err != nil {
			return err
		}
		n = copy(dst, raw(one[in:block]))
		dst, from = dst[n:], from+n/4
	}
	return nil
}

func (q *quantised) mapped() [][]byte { return [][]byte{q.data} }

func (q *quantised) String() string { return q.typ.String() + " blocks" }

// coded is a matrix that Prepare has quantised. The values are float32.
type coded struct {
	m    *quant.Matrix
	file string // that the codes are mapped from; "": they are in memory
}

func (c *coded) fill(dst []byte, from int) error {
	if values := floats(dst); values != nil {
		return c.m.Elements(values, from)
	}
	values := make([]float32, len(dst)/4)
	err := c.m.Elements(values, from)
	copy(dst, raw(values))
	return err
}

func (c *coded) mapped() [][]byte { return [][]byte{c.m.Codes} }

func (c *coded) String() string { return c.m.Format.ID() }

// check is the whole matrix's CheckFinite: codes are finite, scales need not be.
func (c *coded) check() error {
	err := c.m.CheckFinite()
	if err != nil && c.file != "" {
		return fmt.Errorf("in %s: %w", c.file, err)
	}
	return err
}

// raw is the bytes of values. As everywhere in the engine, memory is little-endian.
func raw(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

// floats is bytes as values, nil if they are not aligned for that.
func floats(data []byte) []float32 {
	p := unsafe.Pointer(unsafe.SliceData(data))
	if uintptr(p)%4 != 0 {
		return nil
	}
	return unsafe.Slice((*float32)(p), len(data)/4)
}
