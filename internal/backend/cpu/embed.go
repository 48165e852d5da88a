package cpu

import (
	"fmt"
	"slices"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
)

// Embed gathers the vectors of the batch's tokens.
func (be *Backend) Embed(x backend.Buffer, e *backend.Embedding, b *backend.Batch) {
	t := &be.embed
	*t = embedTask{x: mat(x), table: matrixOf(e.Train, e.Weight), tokens: b.Tokens}
	checkTable(e, t.table, t.x.cols)
	checkTokens(b.Tokens, t.table.Rows)
	t.x.Resize(len(b.Tokens))
	be.rows(len(b.Tokens), t)
}

func checkTable(e *backend.Embedding, table *gemm.Weight, cols int) {
	mustEqual("rows of the embedding", table.Rows, e.Vocab)
	mustEqual("columns of the embedding", table.Cols, e.Dim)
	mustEqual("columns of the embedding's output", cols, e.Dim)
}

func checkTokens(tokens []int32, vocab int) {
	for t, id := range tokens {
		if id < 0 || int(id) >= vocab {
			panic(fmt.Sprintf("cpu: token %d at row %d, the embedding has %d", id, t, vocab))
		}
	}
}

type embedTask struct {
	x      *Buffer
	table  *gemm.Weight
	tokens []int32
}

func (t *embedTask) Piece(_, i int) {
	from, to := blockOf(i, len(t.tokens))
	for r := from; r < to; r++ {
		decode(t.x.row(r), t.table, int(t.tokens[r]))
	}
}

// EmbedBackward adds each row of dx to the gradient of its token's vector. A piece is a run of columns, so that
// the rows are added in their order.
func (be *Backend) EmbedBackward(e *backend.Embedding, dx backend.Buffer, b *backend.Batch) {
	t := &be.embedBack
	*t = embedBackTask{unit: be.unit, dx: mat(dx), p: param(e.Train), tokens: b.Tokens, padding: e.Padding}
	checkTable(e, &t.p.matrix, t.dx.cols)
	mustEqual("rows of the embedding's gradient", t.dx.rows, len(b.Tokens))
	checkTokens(b.Tokens, t.p.rows)
	be.pool.Run((t.dx.cols+embedCols-1)/embedCols, t)
}

// embedCols is the number of columns in a piece of EmbedBackward.
const embedCols = 256

type embedBackTask struct {
	unit    *vec.Unit
	dx      *Buffer
	p       *Param
	tokens  []int32
	padding int32
}

func (t *embedBackTask) Piece(_, i int) {
	from, to := i*embedCols, min((i+1)*embedCols, t.dx.cols)
	for r, id := range t.tokens {
		if id == t.padding {
			continue
		}
		t.unit.Add(t.p.grad[int(id)*t.p.cols:][from:to], t.dx.row(r)[from:to])
	}
}

// Gather writes y[i] = x[b.Rows[i]].
func (be *Backend) Gather(y, x backend.Buffer, b *backend.Batch) {
	t := &be.gather
	*t = gatherTask{mat(y), mat(x), b.Rows}
	mustEqual("columns gathered", t.y.cols, t.x.cols)
	checkRows(b.Rows, t.x.rows)
	t.y.Resize(len(b.Rows))
	be.rows(len(b.Rows), t)
}

func checkRows(rows []int32, n int) {
	last := int32(-1)
	for i, r := range rows {
		if r <= last || int(r) >= n {
			panic(fmt.Sprintf("cpu: Rows[%d] is %d after %d, want it larger and below %d", i, r, last, n))
		}
		last = r
	}
}

type gatherTask struct {
	y, x *Buffer
	rows []int32
}

func (t *gatherTask) Piece(_, i int) {
	from, to := blockOf(i, len(t.rows))
	for r := from; r < to; r++ {
		copy(t.y.row(r), t.x.row(int(t.rows[r])))
	}
}

// GatherBackward writes dy's rows to their places in dx, and zeros elsewhere.
func (be *Backend) GatherBackward(dx, dy backend.Buffer, b *backend.Batch) {
	t := &be.scatter
	*t = scatterTask{mat(dx), mat(dy), b.Rows}
	mustEqual("columns scattered", t.dx.cols, t.dy.cols)
	mustEqual("rows scattered", t.dy.rows, len(b.Rows))
	checkRows(b.Rows, len(b.Tokens))
	t.dx.Resize(len(b.Tokens))
	be.rows(len(b.Tokens), t)
}

type scatterTask struct {
	dx, dy *Buffer
	rows   []int32 // ascending
}

func (t *scatterTask) Piece(_, i int) {
	from, to := blockOf(i, t.dx.rows)
	next, _ := slices.BinarySearch(t.rows, int32(from))
	for r := from; r < to; r++ {
		if next < len(t.rows) && int(t.rows[next]) == r {
			copy(t.dx.row(r), t.dy.row(next))
			next++
			continue
		}
		clear(t.dx.row(r))
	}
}
