package cuda

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
)

// attentionState is what attention works with.
type attentionState struct {
	rotated memory           // [T, (Heads+KVHeads)*HeadDim] rotated queries and keys, as activations are
	delta   memory           // [T, Heads] f32
	part    memory           // [packed rows of pieces, KVHeads, HeadDim] f32, then their log-sums
	plans   [4]attentionPlan // as many as batches
	turn    uint64
	shared  []uint32 // bytes of shared memory that each kernel may ask for so far
}

func init() {
	type need = backend.Need
	add := func(m func(*attentionState) *memory, bytes func(*Backend, need) int64) {
		scratches = append(scratches, scratch{func(be *Backend) *memory { return m(&be.attention) }, func(be *Backend, n need) int64 {
			if n.Attention == nil {
				return 0
			}
			return bytes(be, n)
		}})
	}
	add(func(s *attentionState) *memory { return &s.rotated }, func(be *Backend, n need) int64 {
		return int64(max(n.Rows, n.Forward)) * int64(rotatedColumns(n.Attention)) * elementBytes(be.half)
	})
	add(func(s *attentionState) *memory { return &s.delta }, func(_ *Backend, n need) int64 {
		return 4 * int64(n.Rows) * int64(n.Attention.Heads)
	})
	for i := range (attentionState{}).plans {
		add(func(s *attentionState) *memory { return &s.plans[i].mem }, planBytes)
	}
	add(func(s *attentionState) *memory { return &s.part }, func(be *Backend, n need) int64 {
		pieces := blocks(n.Keys, pieceTiles*be.attentionTile(n.Attention))
		if pieces == 1 {
			return 0
		}
		return partBytes(min(n.Forward, decodingRows)*n.Attention.Heads*(pieces+1), n.Attention)
	})
}

// decodingRows is how many rows that go on from long caches memory is reserved for; more take more when they come.
const decodingRows = 64

// partBytes is what pieces of that many rows and heads take: their results and log-sums.
func partBytes(rows int, a *backend.Attention) int64 { return 4 * int64(rows) * int64(a.HeadDim+1) }

// planBytes is what the plan of a batch of long segments takes; many short ones take a little more.
func planBytes(be *Backend, n backend.Need) int64 {
	rows, tile := max(n.Rows, n.Forward), be.attentionTile(n.Attention)
	queries := blocks(rows, max(1, tile*n.Attention.KVHeads/n.Attention.Heads))
	return int64(queries)*int64(32+8*blocks(n.Keys, tile)) + 24*int64(blocks(rows, tile))
}

// flashDim is the columns of the heads that the tensor cores' kernels compute with, 0 where the general ones must.
func (be *Backend) flashDim(a *backend.Attention) int {
	switch {
	case !be.half || a.HeadDim%8 != 0 || a.HeadDim > 128:
		return 0
	case a.HeadDim <= 64:
		return 64
	}
	return 128
}

// maxHeadDim is what the general kernels' registers take.
const maxHeadDim = 256

// attentionTile is the number of packed query rows, and of keys, in a tile.
func (be *Backend) attentionTile(a *backend.Attention) int {
	if be.flashDim(a) > 0 {
		return 64
	}
	return 32
}

func rotatedColumns(a *backend.Attention) int { return leading((a.Heads + a.KVHeads) * a.HeadDim) }

var (
	ropeKernel    = declareTyped("rope")
	combineKernel = declareTyped("attention_combine")

	generalForwardKernel = declareTyped("general_forward")
	generalQueriesKernel = declareTyped("general_backward_queries")
	generalKeysKernel    = declareTyped("general_backward_keys")

	flashForwardKernel = declareFlash("flash_forward")
	flashQueriesKernel = declareFlash("flash_backward_queries")
	flashKeysKernel    = declareFlash("flash_backward_keys")
)

// flash are a kernel's variants by the columns of a head, 64 and 128.
type flash [2]kernel

func declareFlash(name string) flash { return flash{declare(name + "_64"), declare(name + "_128")} }

type ropeArgs struct {
	rotated, qkv, cos, sin, places, slots          driver.Ptr
	heads, kvHeads, dim, ldRotated, ldQKV, ldCache int32
}

type attentionArgs struct {
	y, lse, rotated, qkv, dy, dqkv, delta, cos, sin, queries, keys, seen, seers, slots, part, partLSE driver.Ptr

	heads, kvHeads, dim, ldY, ldLSE, ldRotated, ldQKV, ldDY, ldDQKV, ldCache, window int32
	scale                                                                            float32
}

// Attention computes softmax(scale * q kᵀ) v for each head, tile of query rows by tile (attention.cu).
func (be *Backend) Attention(y, lse, qkv backend.Buffer, a *backend.Attention, b *backend.Batch, c backend.Cache) {
	defer be.enter()()
	by, bl, in := mat(y), mat(lse), mat(qkv)
	store, _ := c.(*cache)
	checkAttention(in, a, b)
	mustEqual("columns of attention's output", by.cols, a.OutCols())
	mustEqual("columns of lse", bl.cols, a.Heads)
	p := be.plan(a, b, in.rows, store)
	by.Resize(in.rows)
	bl.Resize(in.rows)
	if store != nil {
		store.extend(b.Segments)
	}
	if in.rows == 0 {
		return
	}
	args := be.attentionArgs(in, a, b, p, store)
	args.y, args.ldY, args.lse, args.ldLSE = by.mem.at, int32(by.ld), bl.mem.at, int32(bl.ld)
	if p.parts > 0 {
		rows := p.parts * a.KVHeads
		be.grow(&be.attention.part, partBytes(rows, a))
		args.part = be.attention.part.at
		args.partLSE = args.part + driver.Ptr(4*rows*a.HeadDim)
	}
	be.rope(&args, p)
	dim := be.flashDim(a)
	k, shared := generalForwardKernel.of(be.half), generalShared(3, 1, a)
	if dim > 0 {
		k, shared = flashForwardKernel[dim/128], 3*64*dim*2 // q, k, v
	}
	be.attend(k, len(p.queries)*a.KVHeads, shared, args)
	if len(p.splits) > 0 {
		args.queries = p.atSplits
		launch(be, combineKernel.of(be.half), grid(len(p.splits)*a.KVHeads, 256, 0), args)
	}
}

// AttentionBackward recomputes the scores from lse and writes the gradient of qkv (attention_backward.cu).
func (be *Backend) AttentionBackward(dqkv, qkv, lse, dy backend.Buffer, a *backend.Attention, b *backend.Batch) {
	defer be.enter()()
	bd, in, bl, bdy := mat(dqkv), mat(qkv), mat(lse), mat(dy)
	checkAttention(in, a, b)
	mustEqual("columns of attention's gradient", bdy.cols, a.OutCols())
	mustEqual("columns of attention's dqkv", bd.cols, a.QKVCols())
	mustEqual("rows of lse", bl.rows, in.rows)
	mustEqual("rows of dy", bdy.rows, in.rows)
	p := be.plan(a, b, in.rows, nil)
	bd.Resize(in.rows)
	if in.rows == 0 {
		return
	}
	be.grow(&be.attention.delta, 4*int64(in.rows)*int64(a.Heads))
	args := be.attentionArgs(in, a, b, p, nil)
	args.lse, args.ldLSE, args.delta = bl.mem.at, int32(bl.ld), be.attention.delta.at
	args.dy, args.ldDY, args.dqkv, args.ldDQKV = bdy.mem.at, int32(bdy.ld), bd.mem.at, int32(bd.ld)
	be.rope(&args, p)
	dim := be.flashDim(a)
	queries, queriesShared := generalQueriesKernel.of(be.half), generalShared(4, 1, a)
	keys, keysShared := generalKeysKernel.of(be.half), generalShared(4, 2, a)
	if dim > 0 {
		queries, queriesShared = flashQueriesKernel[dim/128], 4*64*dim*2 // q, dy, k, v
		keys, keysShared = flashKeysKernel[dim/128], 4*64*dim*2+2*32*12  // k, v, two halves of q and dy with 12 bytes a row
	}
	be.attend(queries, len(p.queries)*a.KVHeads, queriesShared, args)
	be.attend(keys, len(p.keys)*a.KVHeads, keysShared, args)
}

// checkAttention panics where geometry, input and batch do not fit.
func checkAttention(in *Buffer, a *backend.Attention, b *backend.Batch) {
	mustEqual("columns of attention's input", in.cols, a.QKVCols())
	mustEqual("query heads left over by the key heads", a.Heads%a.KVHeads, 0)
	mustEqual("odd columns of a head", a.HeadDim%2, 0)
	if a.HeadDim > maxHeadDim {
		panic(fmt.Sprintf("cuda: heads of %d columns, at most %d", a.HeadDim, maxHeadDim))
	}
	mustEqual("positions of attention's rows", len(b.Positions), in.rows)
	mustEqual("cosines of attention's rows", len(b.Cos), in.rows*a.HeadDim/2)
	mustEqual("sines of attention's rows", len(b.Sin), in.rows*a.HeadDim/2)
}

// generalShared is the shared memory of a general kernel with that many tiles of rows and of scores.
func generalShared(rows, scores int, a *backend.Attention) int {
	return 4 * 32 * (rows*(a.HeadDim+1) + scores*32)
}

// attentionArgs are the arguments that both passes have.
func (be *Backend) attentionArgs(in *Buffer, a *backend.Attention, b *backend.Batch, p *attentionPlan, c *cache) attentionArgs {
	s := &be.attention
	columns := rotatedColumns(a)
	be.grow(&s.rotated, int64(in.rows)*int64(columns)*elementBytes(be.half))
	d := be.batch(b)
	args := attentionArgs{
		rotated: s.rotated.at, qkv: in.mem.at, cos: d.cos, sin: d.sin,
		queries: p.atQueries, keys: p.atKeys, seen: p.atSeen, seers: p.atSeers,
		heads: int32(a.Heads), kvHeads: int32(a.KVHeads), dim: int32(a.HeadDim),
		ldRotated: int32(columns), ldQKV: int32(in.ld), window: int32(a.Window), scale: a.Scale,
	}
	if c != nil {
		args.slots, args.ldCache = c.addresses(), int32(c.ld)
	}
	return args
}

// rope rotates queries and keys, and leaves keys and values in the cache.
func (be *Backend) rope(args *attentionArgs, p *attentionPlan) {
	r := ropeArgs{rotated: args.rotated, qkv: args.qkv, cos: args.cos, sin: args.sin,
		heads: args.heads, kvHeads: args.kvHeads, dim: args.dim, ldRotated: args.ldRotated, ldQKV: args.ldQKV, ldCache: args.ldCache}
	if len(p.places) > 0 {
		r.places, r.slots = p.atPlaces, args.slots
	}
	launch(be, ropeKernel.of(be.half), grid(p.rows, 256, 0), r)
}

// attend launches n blocks of a kernel of attention, which may need more shared memory than kernels have unasked.
func (be *Backend) attend(k kernel, n int, shared int, args attentionArgs) {
	s := &be.attention
	if s.shared == nil {
		s.shared = make([]uint32, len(kernelNames))
	}
	if shared > 48<<10 && uint32(shared) > s.shared[k] {
		if most := be.ctx.Device().SharedMax; shared > most {
			panic(fmt.Errorf("cuda: %s needs %d bytes of shared memory, the device has %d for a block", kernelNames[k], shared, most))
		}
		f, err := be.function(k)
		check(err)
		check(be.ctx.AllowShared(f, shared))
		s.shared[k] = uint32(shared)
	}
	launch(be, k, grid(n, 128, uint32(shared)), args)
}
