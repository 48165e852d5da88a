package quant

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// chunkElements is about how many elements a worker encodes at a time.
const chunkElements = 1 << 18

// Encode writes the matrix [rows, cols], whose rows read gives, to w: just Size bytes. read fills dst with the rows
// [from, to), as weights.Tensor's Rows does; it is called from several goroutines at a time, at most workers. Beside a
// few rows for each worker only the scales are in memory. An element that is infinite or not a number is an error that
// names it. Cancelling ctx ends it between two blocks of rows.
func Encode(ctx context.Context, w io.Writer, f Format, rows, cols, workers int, read func(dst []float32, from, to int) error) error {
	if _, err := f.Size(rows, cols); err != nil {
		return err
	}
	e := &encoder{format: f, rows: rows, cols: cols, read: read}
	e.scales = make([]float32, f.layout(rows, cols).blocks)
	e.each = chunkRows(cols)
	chunks := make([]chunk, min(max(1, workers), ceil(rows, e.each)))
	for row := 0; row < rows; row += e.each * len(chunks) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.window(w, chunks, row); err != nil {
			return err
		}
	}
	return e.writeScales(w)
}

// chunkRows returns how many rows of cols elements make a chunk: such that every chunk begins with a block.
func chunkRows(cols int) int {
	whole := Block
	for whole > 1 && whole/2*cols%Block == 0 {
		whole /= 2
	}
	return max(1, chunkElements/cols/whole) * whole
}

type encoder struct {
	format     Format
	rows, cols int
	each       int // rows of a chunk
	read       func(dst []float32, from, to int) error
	scales     []float32
}

// chunk is the memory of one worker.
type chunk struct {
	values []float32
	codes  []byte
	err    error
}

// window encodes one chunk with each worker, from the given row on, and writes them in order.
func (e *encoder) window(w io.Writer, chunks []chunk, row int) error {
	chunks = chunks[:min(len(chunks), ceil(e.rows-row, e.each))]
	var wait sync.WaitGroup
	for i := range chunks {
		from := row + i*e.each
		wait.Go(func() { chunks[i].err = e.chunk(&chunks[i], from, min(from+e.each, e.rows)) })
	}
	wait.Wait()
	for i := range chunks {
		if err := chunks[i].err; err != nil {
			return err
		}
		if _, err := w.Write(chunks[i].codes); err != nil {
			return fmt.Errorf("writing codes: %w", err)
		}
	}
	return nil
}

// chunk encodes the rows [from, to).
func (e *encoder) chunk(c *chunk, from, to int) error {
	n := (to - from) * e.cols
	if cap(c.values) < n {
		c.values = make([]float32, n)
		c.codes = make([]byte, ceil(n, Block)*formats[e.format].bytes)
	}
	c.values = c.values[:n]
	if err := e.read(c.values, from, to); err != nil {
		return err
	}
	size := formats[e.format].bytes
	c.codes = c.codes[:ceil(n, Block)*size]
	first := from * e.cols / Block
	for b := range ceil(n, Block) {
		values := c.values[b*Block : min((b+1)*Block, n)]
		top := largest(values)
		if !finite(top) {
			return e.notFinite(values, (first+b)*Block)
		}
		codes := c.codes[b*size:][:size]
		if e.format == Int8 {
			e.scales[first+b] = encodeInt8(codes, values, top)
		} else {
			e.scales[first+b] = encodeNF4(codes, values, top)
		}
	}
	return nil
}

// largest returns the largest magnitude, or something that is not finite if there is such a thing.
func largest(v []float32) float32 {
	var top uint32
	for _, x := range v {
		top = max(top, math.Float32bits(x)&^(1<<31))
	}
	return math.Float32frombits(top)
}

func (e *encoder) notFinite(values []float32, first int) error {
	for i, v := range values {
		if !finite(v) {
			at := first + i
			return fmt.Errorf("element %d ([%d %d] of [%d %d]) is %v", at, at/e.cols, at%e.cols, e.rows, e.cols, v)
		}
	}
	return errors.New("a value changed while it was read")
}

// smallest is the scale below which bitsandbytes does not divide.
const smallest = float32(1e-38)

// encodeNF4 encodes a block with the largest magnitude top and returns its scale.
func encodeNF4(dst []byte, v []float32, top float32) float32 {
	if len(v) < Block {
		return encodeShortNF4(dst, v, max(top, smallest))
	}
	inverse := 1 / max(top, smallest)
	low, high := v[:32], v[32:64]
	for j := range dst[:32] {
		dst[j] = code(low[j]*inverse) | code(high[j]*inverse)<<4
	}
	return top
}

func encodeShortNF4(dst []byte, v []float32, scale float32) float32 {
	for j := range dst {
		dst[j] = zeroCode | zeroCode<<4
	}
	for i, x := range v {
		shift := i / 32 * 4
		dst[i%32] = dst[i%32]&^(15<<shift) | code(x/scale)<<shift
	}
	return scale
}

// encodeInt8 encodes a block with the largest magnitude top and returns its scale.
func encodeInt8(dst []byte, v []float32, top float32) float32 {
	const (
		leastNormal = 0x1p-126
		round       = 3 << 51 // a float64 of this size has no places behind the point
	)
	scale := top / 127
	if !finite(scale * 127) {
		scale = math.Nextafter32(scale, 0)
	}
	clear(dst)
	if scale < leastNormal {
		return 0
	}
	inverse := 1 / float64(scale)
	for i, x := range v {
		dst[i] = byte(math.Float64bits(float64(float64(x)*inverse) + round))
	}
	return scale
}

// writeScales writes all that follows the codes.
func (e *encoder) writeScales(w io.Writer) error {
	var tail []byte
	if e.format == Int8 {
		for _, s := range e.scales {
			tail = binary.LittleEndian.AppendUint32(tail, math.Float32bits(s))
		}
	} else {
		tail = appendScales(nil, e.scales, mean(e.scales))
		if err := e.checkScales(tail); err != nil {
			return err
		}
	}
	if _, err := w.Write(tail); err != nil {
		return fmt.Errorf("writing the scales: %w", err)
	}
	return nil
}

// checkScales finds scales that are so near to the end of float32 that their rounding goes beyond it.
func (e *encoder) checkScales(tail []byte) error {
	l := e.format.layout(e.rows, e.cols)
	m := Matrix{Format: e.format, Rows: e.rows, Cols: e.cols, Scales: tail[:l.blocks],
		Factors: tail[l.factors-l.scales : l.offset-l.scales], Offset: float(tail[l.offset-l.scales:], 0)}
	return m.CheckFinite()
}

func mean(v []float32) float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return float32(sum / float64(len(v)))
}

// appendScales appends codes, factors and offset of nf4's scales.
func appendScales(b []byte, scales []float32, offset float32) []byte {
	centred := make([]float32, len(scales))
	for i, s := range scales {
		centred[i] = s - offset
	}
	var factors []byte
	for len(centred) > 0 {
		group := centred[:min(factorBlocks, len(centred))]
		factor := largest(group)
		factors = binary.LittleEndian.AppendUint32(factors, math.Float32bits(factor))
		inverse := 1 / factor
		for _, c := range group {
			if factor == 0 {
				b = append(b, 0)
				continue
			}
			b = append(b, scaleCode(float32(c*inverse)))
		}
		centred = centred[len(group):]
	}
	b = append(b, make([]byte, -len(scales)&3)...)
	b = append(b, factors...)
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(offset))
}
