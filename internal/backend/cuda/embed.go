package cuda

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

var (
	embedKernel      = declare("embed")
	scatterAddKernel = declare("scatter_add")
)

type embedArgs struct {
	table     weightArgs
	x, tokens driver.Ptr
	ldX       int32
}

type scatterAddArgs struct {
	to, dx, tokens, starts, rows driver.Ptr
	cols, ldTo, ldDX             int32
}

// Embed gathers the vectors of the batch's tokens.
func (be *Backend) Embed(x backend.Buffer, e *backend.Embedding, b *backend.Batch) {
	defer be.enter()()
	bx, table := mat(x), be.vectors(e)
	checkTable(e, table, bx.cols)
	checkTokens(b.Tokens, e.Vocab)
	bx.Resize(len(b.Tokens))
	if bx.rows > 0 {
		launch(be, embedKernel, grid(bx.rows, copyThreads(bx.cols), 0), embedArgs{table, bx.mem.at, be.batch(b).tokens, int32(bx.ld)})
	}
}

// vectors is the embedding's table as kernels take it.
func (be *Backend) vectors(e *backend.Embedding) weightArgs {
	if e.Train == nil {
		return be.weightArgs(e.Weight.(*weight))
	}
	p := e.Train.(*param)
	return weightArgs{data: p.value.at, kind: weightF32, rows: int32(p.rows), cols: int32(p.cols), ld: int32(p.ld)}
}

func checkTable(e *backend.Embedding, table weightArgs, cols int) {
	mustEqual("rows of the embedding", int(table.rows), e.Vocab)
	mustEqual("columns of the embedding", int(table.cols), e.Dim)
	mustEqual("columns of the embedding's rows", cols, e.Dim)
}

func checkTokens(tokens []int32, vocab int) {
	for t, id := range tokens {
		if id < 0 || int(id) >= vocab {
			panic(fmt.Sprintf("cuda: token %d at row %d, the embedding has %d", id, t, vocab))
		}
	}
}

// sorted is the rows of a batch by token, for the gradient of an embedding.
type sorted struct {
	mem   memory
	raw   []int32
	order []int32
}

func init() {
	scratches = append(scratches, scratch{
		func(be *Backend) *memory { return &be.sorted.mem },
		func(_ *Backend, n backend.Need) int64 { return 4 * int64(3*n.Rows+1) },
	})
}

// EmbedBackward adds each row of dx to the gradient of its token's vector, in the order of the rows: a block has all rows
// of a token.
func (be *Backend) EmbedBackward(e *backend.Embedding, dx backend.Buffer, b *backend.Batch) {
	defer be.enter()()
	bdx, p := mat(dx), e.Train.(*param)
	checkTable(e, be.vectors(e), bdx.cols)
	mustEqual("rows of the embedding's gradient", bdx.rows, len(b.Tokens))
	checkTokens(b.Tokens, p.rows)
	n := be.sortTokens(b.Tokens, e.Padding)
	if n == 0 {
		return
	}
	tokens := be.sorted.mem.at
	starts := tokens + driver.Ptr(4*n)
	rows := starts + driver.Ptr(4*(n+1))
	launch(be, scatterAddKernel, grid3(n, blocks(p.cols, 8*128), 1, 128, 0),
		scatterAddArgs{p.grad.at, bdx.mem.at, tokens, starts, rows, int32(p.cols), int32(p.ld), int32(bdx.ld)})
}

// sortTokens puts on the card the n different tokens, where the rows of each begin, n + 1 numbers, and the rows.
func (be *Backend) sortTokens(tokens []int32, padding int32) (n int) {
	s := &be.sorted
	s.order = s.order[:0]
	for row, id := range tokens {
		if id != padding {
			s.order = append(s.order, int32(row))
		}
	}
	slices.SortFunc(s.order, func(a, b int32) int { return cmp.Or(cmp.Compare(tokens[a], tokens[b]), cmp.Compare(a, b)) })
	s.raw = s.raw[:0]
	for i, row := range s.order {
		if i == 0 || tokens[row] != tokens[s.order[i-1]] {
			s.raw = append(s.raw, tokens[row])
		}
	}
	n = len(s.raw)
	for i, row := range s.order {
		if i == 0 || tokens[row] != tokens[s.order[i-1]] {
			s.raw = append(s.raw, int32(i))
		}
	}
	s.raw = append(append(s.raw, int32(len(s.order))), s.order...)
	be.grow(&s.mem, 4*int64(len(s.raw)))
	be.upload(s.mem.at, bytesOf(s.raw))
	return n
}
