package gemm

import (
	"fmt"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/parallel"
	"github.com/biolora/biolora/internal/quant"
)

// Engine multiplies matrices. Its methods must not be called at the same time, except GemmOn for different workers.
// Shapes that do not fit the memory they are given are a mistake in the caller: they panic.
type Engine struct {
	ker     *kernels
	pool    *parallel.Pool
	workers []worker
	pack    packTask
	tiles   tilePackTask
	product product
	rows    []uint32 // of products of few rows
	gemm    Compute  // of Gemm and GemmOn, on tiles
}

// worker is the scratch of one worker of the pool.
type worker struct {
	panels, tiles []uint32
	floats        []float32 // of a quantised operand: scales, or elements
	call          tileProduct
	ahead         ahead
	partial       []uint32 // of products on tiles: sums of blocks, and those of one block
	block         []uint32
	tile          tileCall
	sums          [maxFewRows * 32]float32
	product       product // of GemmOn
	_             [64]byte
}

// New returns an engine that uses the instructions f and the workers of pool.
func New(f Features, pool *parallel.Pool) *Engine {
	return newEngine(kernelsOf(f.set), pool)
}

func newEngine(ker *kernels, pool *parallel.Pool) *Engine {
	return &Engine{ker: ker, pool: pool, workers: make([]worker, pool.Workers())}
}

// Name returns the name of the kernels in use, e.g. "avx512_bf16".
func (e *Engine) Name() string { return e.ker.name }

// Weight is a frozen matrix, row-major [Rows, Cols] = [out, in], of F32, F16 or BF16 in the machine's byte order. Data
// may be unaligned and is never read beyond its length. Where Quant is given, it is the matrix, and DType and Data are
// not used.
type Weight struct {
	DType      numeric.DType
	Rows, Cols int
	Data       []byte
	Quant      *quant.Matrix
}

// operand returns w with its rows as lanes (forward) or its columns (backward).
func (w *Weight) operand(forward bool) operand {
	if w.Quant != nil {
		checkQuantised(w.Quant, w.Rows, w.Cols)
		return strided(operand{}, w.Cols, forward)
	}
	switch w.DType {
	case numeric.F32, numeric.F16, numeric.BF16:
	default:
		panic(fmt.Sprintf("gemm: a weight of type %v, want F32, F16 or BF16", w.DType))
	}
	if w.Rows < 1 || w.Cols < 1 || len(w.Data) < w.Rows*w.Cols*w.DType.Size() {
		panic(fmt.Sprintf("gemm: a weight [%d, %d] of %v in %d bytes", w.Rows, w.Cols, w.DType, len(w.Data)))
	}
	return strided(operand{p: unsafe.Pointer(&w.Data[0]), dtype: w.DType}, w.Cols, forward)
}

// strided returns o with the strides of rows of cols elements.
func strided(o operand, cols int, forward bool) operand {
	o.lane, o.place = cols, 1
	if !forward {
		o.lane, o.place = 1, cols
	}
	return o
}

// View is a float32 matrix of any strides: element (i, j) is Data[i*RowStride+j*ColStride].
type View struct {
	Data                 []float32
	RowStride, ColStride int
}

func (v *View) check(name string, rows, cols int) {
	if last := (rows-1)*v.RowStride + (cols-1)*v.ColStride; v.RowStride < 0 || v.ColStride < 0 || last >= len(v.Data) {
		panic(fmt.Sprintf("gemm: %s [%d, %d] with strides %d and %d in %d floats", name, rows, cols, v.RowStride, v.ColStride, len(v.Data)))
	}
}

func checkMatrix(name string, v []float32, rows, cols, ld int) {
	if rows < 1 || cols < 1 || ld < cols || len(v) < (rows-1)*ld+cols {
		panic(fmt.Sprintf("gemm: %s [%d, %d] with leading dimension %d in %d floats", name, rows, cols, ld, len(v)))
	}
}

// Pack packs x, row-major [m, k] with leading dimension ld >= k, for products in c.
func (e *Engine) Pack(p *Packed, c Compute, x []float32, m, k, ld int) {
	checkMatrix("x", x, m, k, ld)
	f := e.ker.format(c)
	p.shape(f, m, k, e.ker.rowsOf(f))
	src := operand{p: unsafe.Pointer(&x[0]), dtype: numeric.F32, lane: ld, place: 1}
	if f == tilesBF16 {
		e.tiles = tilePackTask{tiles: e.ker.tiles, dst: p, src: src}
		e.pool.Run(p.tiling.tiles, &e.tiles)
		e.tiles = tilePackTask{}
		return
	}
	e.pack = packTask{ker: e.ker, dst: p, src: src}
	e.pool.Run(p.tiling.tiles, &e.pack)
	e.pack = packTask{}
}

// Forward computes y[m, out] = x[m, in] Wᵀ (+ add). add may be nil, or y itself.
func (e *Engine) Forward(y []float32, ldy int, x *Packed, w Weight, add []float32, ldadd int) {
	e.weight(y, ldy, x, &w, add, ldadd, true)
}

// Backward computes dx[m, in] = dy[m, out] W (+ add). add may be nil, or dx itself.
func (e *Engine) Backward(dx []float32, lddx int, dy *Packed, w Weight, add []float32, ldadd int) {
	e.weight(dx, lddx, dy, &w, add, ldadd, false)
}

func (e *Engine) weight(c []float32, ldc int, x *Packed, w *Weight, add []float32, ldadd int, forward bool) {
	n, k := w.Rows, w.Cols
	if !forward {
		n, k = k, n
	}
	if x.red.k != k {
		panic(fmt.Sprintf("gemm: activations of %d columns for a reduction over %d", x.red.k, k))
	}
	checkMatrix("the result", c, x.tiling.m, n, ldc)
	if add != nil {
		checkMatrix("what is added", add, x.tiling.m, n, ldadd)
	}
	p := &e.product
	*p = product{e: e, format: x.format, tiling: x.tiling, red: x.red, n: n, packed: x, b: w.operand(forward), quant: w.Quant,
		c: c, ldc: ldc, add: add, ldadd: ldadd, alpha: 1}
	if p.chooseDot(); p.dot != nil {
		e.rows = p.unpackRows(e.rows)
	}
	p.plan(e.pool.Workers())
	e.pool.Run(p.pieces(), p)
	*p = product{}
}

// FewRows is the number of rows up to which the sums of Forward may have another order than among more rows, and than
// those of Gemm (package doc).
const FewRows = maxFewRows

// RoundGemm has Gemm and GemmOn round a and b to bfloat16 from now on where the CPU multiplies tiles, which is ten times
// as fast, and reports whether it does. On all others they go on to multiply float32.
func (e *Engine) RoundGemm() bool {
	e.gemm = BF16
	return e.ker.tiles != nil
}

// Gemm computes c[m, n] = alpha * a[m, k] b[k, n] (+ c, if accumulate) in float32 (but see RoundGemm). c is row-major.
func (e *Engine) Gemm(c []float32, ldc, m, n, k int, alpha float32, a, b View, accumulate bool) {
	p := &e.product
	p.general(e, c, ldc, m, n, k, alpha, &a, &b, accumulate)
	p.plan(e.pool.Workers())
	e.pool.Run(p.pieces(), p)
	*p = product{}
}

// GemmOn is Gemm on the calling goroutine alone, with the scratch of a worker: for use in a piece of a task.
func (e *Engine) GemmOn(worker int, c []float32, ldc, m, n, k int, alpha float32, a, b View, accumulate bool) {
	p := &e.workers[worker].product
	p.general(e, c, ldc, m, n, k, alpha, &a, &b, accumulate)
	p.plan(1)
	for i := range p.pieces() {
		p.Piece(worker, i)
	}
	*p = product{}
}
