package gemm

import (
	"fmt"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// codes is a part of a quantised matrix, for the assembly: rows whose first place is at place at of a block. Rows of the
// matrix are whole blocks.
type codes struct {
	m      *quant.Matrix
	row    int            // of the matrix
	col    int            // of the matrix
	scales unsafe.Pointer // float32 of the block of (row, col); blocks of a row are neighbours
	perRow int            // scales between rows
}

// at is the part that begins rows and cols further.
func (c codes) at(rows, cols int) codes {
	c.scales = unsafe.Add(c.scales, 4*(rows*c.perRow+(c.col+cols)/quant.Block-c.col/quant.Block))
	c.row += rows
	c.col += cols
	return c
}

// first returns where the first code is, and the bytes between rows.
func (c codes) first() (p unsafe.Pointer, ld int) {
	ld = c.m.Cols
	at := c.row*ld + c.col
	if c.m.Format == quant.NF4 {
		ld /= 2
		at = c.row*ld + c.col/quant.Block*quant.Block/2 + c.col%(quant.Block/2)
	}
	return unsafe.Pointer(&c.m.Codes[at]), ld
}

// checkQuantised panics unless m is a matrix [rows, cols].
func checkQuantised(m *quant.Matrix, rows, cols int) {
	if m.Rows != rows || m.Cols != cols {
		panic(fmt.Sprintf("gemm: a weight [%d, %d] of a quantised matrix [%d, %d]", rows, cols, m.Rows, m.Cols))
	}
}

// packQuantised packs g panels from panel j on, of places [k0, k0+k), of a quantised right operand. The panels are those
// that its values in float32 would give, to the bit.
func (p *product) packQuantised(work *worker, j, g, k0, k, steps int) {
	cols := p.e.ker.cols
	lanes := min(g*cols, p.n-j*cols)
	row, rows, col, width := j*cols, lanes, k0, k
	if p.b.lane == 1 {
		row, rows, col, width = k0, k, j*cols, lanes
	}
	if !p.unpacks() {
		src := operand{p: unsafe.Pointer(&work.decode(p.quant, row, rows, col, width)[0]), dtype: numeric.F32, lane: width, place: 1}
		if p.b.lane == 1 {
			src.lane, src.place = 1, width
		}
		p.packLanes(work, src, lanes, g, k, steps)
		return
	}
	src := work.codes(p.e.ker, p.quant, row, rows, col, width)
	size := p.panelSize(steps)
	each := p.slice(k, p.b)
	for s := 0; s < k; s += each {
		for q := range g {
			row, col := q*cols, s
			if p.b.lane == 1 {
				row, col = col, row
			}
			part := src.at(row, col)
			dst := unsafe.Pointer(&work.panels[q*size+s/p.red.places*cols])
			p.e.ker.unpack(dst, part, p.b.place == 1, min(cols, lanes-q*cols), min(each, k-s), p.format)
		}
	}
}

// unpacks reports whether assembly makes the panels from codes.
func (p *product) unpacks() bool { return p.e.ker.unpack != nil && p.quant.Cols%quant.Block == 0 }

// decode returns rows x cols elements of m as float32.
func (w *worker) decode(m *quant.Matrix, row, rows, col, cols int) []float32 {
	w.floats = growFloats(w.floats, rows*cols)
	for r := range rows {
		if err := m.Elements(w.floats[r*cols:][:cols], (row+r)*m.Cols+col); err != nil {
			panic(fmt.Sprintf("gemm: %v", err))
		}
	}
	return w.floats
}

// codes returns the part of m with its scales as float32.
func (w *worker) codes(ker *kernels, m *quant.Matrix, row, rows, col, cols int) codes {
	perRow := m.Cols / quant.Block
	block := col / quant.Block
	c := codes{m: m, row: row, col: col}
	if m.Format == quant.Int8 {
		c.scales, c.perRow = unsafe.Pointer(&m.Scales[4*(row*perRow+block)]), perRow
		return c
	}
	c.perRow = (col+cols-1)/quant.Block - block + 1
	w.floats = growFloats(w.floats, rows*c.perRow)
	c.scales = unsafe.Pointer(&w.floats[0])
	ker.scales(c.scales, c.perRow, rows, m, row*perRow+block, perRow)
	return c
}

func growFloats(v []float32, n int) []float32 {
	if cap(v) < n {
		return make([]float32, n)
	}
	return v[:n]
}
