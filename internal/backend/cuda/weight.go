package cuda

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// The kinds of a weight's elements on the card, as weight.h numbers them.
const (
	weightF32 = iota
	weightBF16
	weightF16
	weightNF4
	weightInt8
)

// weight is a frozen matrix on the card. With compute bf16 its elements are bf16, with f32 what they are in the
// checkpoint; codes stay codes. What products do not multiply as it lies there is widened before each.
type weight struct {
	name           string
	rows, cols, ld int
	kind           int32
	at             driver.Ptr // 0 while it waits
	scales         driver.Ptr // of codes, from at on
	factors        driver.Ptr // of nf4, from at on
	offset         float32    // of nf4
	mem            memory     // of all that came to the card together
	source         backend.Matrix
}

// weights are those of a backend. They come to the card together, when one is asked for first: then one piece of memory
// holds them all, one after another, and neighbours are one matrix.
type weights struct {
	waiting []*weight
	bytes   int64  // of those that came to the card
	tables  memory // of nf4, as weight.h has them
	slab    memory // what products read of widened weights
	raw     memory // what waits to be converted
}

// Shape is [rows, cols].
func (w *weight) Shape() (rows, cols int) { return w.rows, w.cols }

// NewWeight takes an F32, F16, BF16 or quantised matrix. Its bytes are copied to the card when the first weight is used,
// or by Reserve.
func (be *Backend) NewWeight(m backend.Matrix) (backend.Weight, error) {
	w := &weight{name: m.Name, rows: m.Rows, cols: m.Cols, ld: leading(m.Cols), source: m}
	if err := w.check(be.half); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	be.weights.waiting = append(be.weights.waiting, w)
	return w, nil
}

// check finds what the weight will be.
func (w *weight) check(half bool) error {
	m := &w.source
	if m.Quant != quant.None {
		return w.checkQuantised()
	}
	switch m.DType {
	case numeric.F32:
		w.kind = weightF32
	case numeric.F16:
		w.kind = weightF16
	case numeric.BF16:
		w.kind = weightBF16
	default:
		return fmt.Errorf("cannot compute with %s, want F32, F16 or BF16", m.DType)
	}
	if m.Rows <= 0 || m.Cols <= 0 {
		return fmt.Errorf("a matrix [%d, %d], want at least one row and column", m.Rows, m.Cols)
	}
	if size := m.DType.Size(); m.Rows > math.MaxInt/size/m.Cols || len(m.Data) != m.Rows*m.Cols*size {
		return fmt.Errorf("%d bytes for a %s matrix [%d, %d] of %d-byte elements", len(m.Data), m.DType, m.Rows, m.Cols, size)
	}
	if half {
		w.kind = weightBF16
	} else if w.ld != w.cols {
		w.kind = weightF32 // rows are moved apart by the kernel that widens
	}
	return nil
}

func (w *weight) checkQuantised() error {
	m := &w.source
	if m.DType != numeric.Invalid {
		return fmt.Errorf("a matrix in %s that has elements of %s as well", m.Quant, m.DType)
	}
	q, err := quant.Open(m.Quant, m.Rows, m.Cols, m.Data)
	if err != nil {
		return err
	}
	w.kind, w.scales = weightInt8, driver.Ptr(len(q.Codes))
	if m.Quant == quant.NF4 {
		w.kind, w.offset = weightNF4, q.Offset
		w.factors = w.scales + driver.Ptr((len(q.Scales)+3)/4*4)
	}
	return nil
}

// elementSize is the bytes of an element of a kind; 0 for codes.
func elementSize(kind int32) int64 { return [...]int64{4, 2, 2, 0, 0}[kind] }

// bytes is the memory that the weight takes.
func (w *weight) bytes() int64 {
	if size := elementSize(w.kind); size > 0 {
		return int64(w.rows) * int64(w.ld) * size
	}
	return int64(len(w.source.Data))
}

// aligned rounds n up to 256 bytes: at multiples of that weights begin, for the sake of cublasLt and of wide accesses.
func aligned(n int64) int64 { return (n + 255) / 256 * 256 }

// settle copies the weights that wait to the card.
func (be *Backend) settle() {
	ws := be.weights.waiting
	if len(ws) == 0 {
		return
	}
	var total int64
	for _, w := range ws {
		total += aligned(w.bytes())
	}
	var mem memory
	be.grow(&mem, total)
	at := mem.at
	for _, w := range ws {
		if err := be.copyWeight(w, at); err != nil {
			panic(fmt.Errorf("cuda: %s: %w", w.name, err))
		}
		at += driver.Ptr(aligned(w.bytes()))
	}
	at = mem.at
	for _, w := range ws {
		w.mem, w.at = mem, at
		at += driver.Ptr(aligned(w.bytes()))
		w.source = backend.Matrix{}
	}
	be.weights.waiting = nil
	be.weights.bytes += total
	be.release(&be.weights.raw)
}

// copyWeight copies w to its place.
func (be *Backend) copyWeight(w *weight, at driver.Ptr) error {
	m := &w.source
	if w.kind == weightNF4 {
		be.nf4Tables()
	}
	if w.kind >= weightNF4 || m.DType == dtypeOf(w.kind) && w.ld == w.cols {
		return be.uploadWeight(at, m.Data)
	}
	return be.convertWeight(w, at)
}

func dtypeOf(kind int32) numeric.DType {
	return [...]numeric.DType{numeric.F32, numeric.BF16, numeric.F16}[kind]
}

func kindOf(d numeric.DType) int32 {
	switch d {
	case numeric.F32:
		return weightF32
	case numeric.BF16:
		return weightBF16
	}
	return weightF16
}

// rawBytes is about how much of a weight is converted at once.
const rawBytes = 16 << 20

// convertWeight copies w to at in another format, or with rows apart, some rows at a time.
func (be *Backend) convertWeight(w *weight, at driver.Ptr) error {
	from := w.source.DType
	row := w.cols * from.Size()
	step := max(1, rawBytes/row)
	be.grow(&be.weights.raw, int64(min(step, w.rows)*row))
	raw := be.weights.raw.at
	for r := 0; r < w.rows; r += step {
		n := min(step, w.rows-r)
		if err := be.uploadWeight(raw, w.source.Data[r*row:(r+n)*row]); err != nil {
			return err
		}
		to := result{at + driver.Ptr(int64(r)*int64(w.ld)*elementSize(w.kind)), w.ld, w.kind == weightBF16}
		be.convert(to, raw, kindOf(from), w.cols, n, w.cols)
	}
	return nil
}

// nf4Tables makes the tables of nf4.
func (be *Backend) nf4Tables() {
	if be.weights.tables.bytes > 0 {
		return
	}
	be.grow(&be.weights.tables, 4*(16+256))
	be.upload(be.weights.tables.at, bytesOf(quant.Values[:]))
	be.upload(be.weights.tables.at+4*16, bytesOf(quant.ScaleValues[:]))
}

// weightArgs is a weight as kernels take it (weight.h).
type weightArgs struct {
	data, scales, factors, tables driver.Ptr
	kind, rows, cols, ld          int32
	offset                        float32
}

// weightArgs is w for kernels.
func (be *Backend) weightArgs(w *weight) weightArgs {
	be.settle()
	return weightArgs{w.at, w.at + w.scales, w.at + w.factors, be.weights.tables.at, w.kind, int32(w.rows), int32(w.cols), int32(w.ld), w.offset}
}

var (
	convertKernel        = declare("convert")
	dequantiseNF4Kernel  = declare("dequantise_nf4")
	dequantiseInt8Kernel = declare("dequantise_int8")
)

type convertArgs struct {
	to, from                 driver.Ptr
	rows, cols, ldTo, ldFrom int32
	fromKind, half           int32
}

// convert copies [rows, cols] from a matrix of a weight's kind of elements to d.
func (be *Backend) convert(d result, from driver.Ptr, kind int32, ldFrom, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	launch(be, convertKernel, grid(blocks(rows*blocks(cols, 8), 256), 256, 0),
		convertArgs{d.at, from, int32(rows), int32(cols), int32(d.ld), int32(ldFrom), kind, flag(d.half)})
}

type dequantiseArgs struct {
	w        weightArgs
	to       driver.Ptr
	ld, half int32
}

// dequantiseChunk is the elements that a block of a kernel for codes takes.
const dequantiseChunk = 4 * 256 * 16

// widen writes w to d, [rows, cols], as quant.Matrix.Elements decodes it, rounded once where d is bf16.
func (be *Backend) widen(d result, w *weight) {
	switch w.kind {
	case weightNF4, weightInt8:
		k := dequantiseNF4Kernel
		if w.kind == weightInt8 {
			k = dequantiseInt8Kernel
		}
		launch(be, k, grid(blocks(w.rows*w.cols, dequantiseChunk), 256, 0), dequantiseArgs{be.weightArgs(w), d.at, int32(d.ld), flag(d.half)})
	default:
		be.convert(d, w.at, w.kind, w.ld, w.rows, w.cols)
	}
}

// inPlace reports whether products multiply w as it lies there.
func (be *Backend) inPlace(w *weight) bool {
	if be.half {
		return w.kind == weightBF16
	}
	return w.kind == weightF32
}

// slabLimit bounds the memory in which weights that are used together are widened; a single one may take more.
const slabLimit = 512 << 20

// slabBytes is what w takes there.
func (be *Backend) slabBytes(rows, cols int) int64 {
	return aligned(int64(rows) * int64(leading(cols)) * elementBytes(be.half))
}

// beside reports whether the rows of b follow those of a where products read them: then they are one matrix.
func (be *Backend) beside(a, b *weight) bool {
	if a.cols != b.cols || be.inPlace(a) != be.inPlace(b) {
		return false
	}
	size := int64(a.rows) * int64(a.ld) * elementBytes(be.half)
	return !be.inPlace(a) || a.at+driver.Ptr(size) == b.at
}

// together is how many of ws, from the first, are one matrix for a product.
func (be *Backend) together(ws []*weight) int {
	be.settle()
	rows := ws[0].rows
	for i := 1; i < len(ws); i++ {
		rows += ws[i].rows
		if !be.beside(ws[i-1], ws[i]) || !be.inPlace(ws[i]) && be.slabBytes(rows, ws[0].cols) > slabLimit {
			return i
		}
	}
	return len(ws)
}

// values is the matrix of ws, which are together: [sum of rows, cols]. It stays until the next one is asked for.
func (be *Backend) values(ws []*weight) operand {
	be.settle()
	first := ws[0]
	if be.inPlace(first) {
		return operand{at: first.at, ld: first.ld, half: be.half}
	}
	rows := 0
	for _, w := range ws {
		rows += w.rows
	}
	be.grow(&be.weights.slab, be.slabBytes(rows, first.cols))
	d := result{be.weights.slab.at, first.ld, be.half}
	for _, w := range ws {
		be.widen(d, w)
		d.at += driver.Ptr(int64(w.rows) * int64(w.ld) * elementBytes(be.half))
	}
	return operand{at: be.weights.slab.at, ld: first.ld, half: be.half}
}

func init() {
	scratches = append(scratches, scratch{
		func(be *Backend) *memory { return &be.weights.slab },
		func(be *Backend, n backend.Need) int64 { return be.slabNeed(n) },
	})
}

// slabNeed is the slab for a decoder's products: of one linear, of queries, keys and values, of gate and up.
func (be *Backend) slabNeed(n backend.Need) (most int64) {
	consider := func(ls []*backend.Linear) {
		rows := 0
		for _, l := range ls {
			w, ok := l.Weight.(*weight)
			if l.Train != nil || !ok || be.inPlace(w) || l.In != ls[0].In {
				return
			}
			rows += l.Out
		}
		if bytes := be.slabBytes(rows, ls[0].In); len(ls) == 1 || bytes <= slabLimit {
			most = max(most, bytes)
		}
	}
	for i, l := range n.Linears {
		consider(n.Linears[i:][:1])
		if rest := n.Linears[i:]; len(rest) >= 2 && l.Out == n.Intermediate && rest[1].Out == n.Intermediate {
			consider(rest[:2])
		}
		if rest := n.Linears[i:]; len(rest) >= 3 && l.Out+rest[1].Out+rest[2].Out == n.Attention.QKVCols() {
			consider(rest[:3])
		}
	}
	if n.Head != nil {
		consider([]*backend.Linear{n.Head})
	}
	return most
}
