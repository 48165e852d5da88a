// Package backend says what a device must be able to do for the decoder: keep matrices, and run the decoder's
// operations on them, forward and backward. It knows buffers, shapes and number formats; it knows nothing of
// graphs, files or training. Package ref is the plain float64 oracle, package cpu the fast one.
//
// All activations are matrices [T, cols] over the concatenated rows of a Batch; there is no padding. T changes
// from batch to batch, the columns of a buffer never do.
//
// Operations that fail (a shape that does not fit, an index out of range) panic: shapes are the caller's
// arithmetic. The executor turns a panic into an error that names the operation.
//
// Every reduction has a fixed order that does not depend on the number of threads.
package backend

import (
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// Kind is what a buffer is used for; a backend chooses layout and number format by it.
type Kind uint8

const (
	// Residual is the residual stream and its gradient: f32, or better.
	Residual Kind = iota
	// Activation is what flows between the operations of a block, in whatever layout the backend's products
	// read and write best.
	Activation
	// Stat is a small f32 matrix kept for the backward pass: a norm's factors, a softmax's log-sums.
	Stat
)

// Buffer is a matrix [Rows, Cols] in a layout that only its backend knows.
type Buffer interface {
	Kind() Kind
	Rows() int
	Cols() int
	// Resize sets the number of rows. Memory grows when needed and never shrinks; the contents are undefined
	// afterwards.
	Resize(rows int)
	// Bytes is the memory the buffer holds.
	Bytes() int64
	// Read copies the matrix, row-major, into dst, and Write from src; both are len Rows*Cols. For tests, logits
	// and tracing: they wait for the device.
	Read(dst []float32)
	Write(src []float32)
}

// Matrix is a frozen matrix in memory: row-major, little-endian, F32, F16 or BF16; or what quant.Encode wrote. The
// bytes (often a mapped file) must stay valid and unchanged for the life of what is made of it. They may be unaligned.
type Matrix struct {
	Name       string        // for messages
	DType      numeric.DType // numeric.Invalid where Quant is given
	Quant      quant.Format  // quant.None: elements of DType
	Rows, Cols int
	Data       []byte
}

// Weight is a frozen matrix [out, in] as a backend keeps it. A CPU backend reads Matrix.Data in place.
type Weight interface {
	Shape() (rows, cols int)
}

// Vector is a frozen vector (a norm's gain, a bias) as a backend keeps it, f32.
type Vector interface {
	Len() int
}

// Param is a trainable matrix: f32 master value, f32 gradient sum and, once AdamW has run, its two moments.
type Param interface {
	Shape() (rows, cols int)
	// Read and Write copy the value, row-major.
	Read(dst []float32)
	Write(src []float32)
	// ReadFrom copies the len(dst) values from element from on.
	ReadFrom(dst []float32, from int)
	// ReadGrad and WriteGrad copy the gradient sum.
	ReadGrad(dst []float32)
	WriteGrad(src []float32)
	// ReadMoments and WriteMoments copy AdamW's m and v (zeros before the first step).
	ReadMoments(m, v []float32)
	WriteMoments(m, v []float32)
	// ClearMoments makes them what they were before the first step.
	ClearMoments()
	// Bytes is the memory held: value, gradient, moments.
	Bytes() int64
}

// Linear is y = x Wᵀ + bias + Scale * drop(x) Aᵀ Bᵀ.
type Linear struct {
	Name    string
	In, Out int

	Weight Weight // [Out, In], frozen; unused when Train is set
	Train  Param  // [Out, In], a weight that is trained in full; or nil
	Bias   Vector // [Out] or nil

	A, B    Param   // the low-rank branch: [R, In] and [Out, R]; or nil
	Scale   float32 // of the branch
	Dropout float32 // probability that a column of x is dropped before A, in training
	Site    uint32  // tells this linear's dropout from others'
}

// R returns the rank of the low-rank branch, 0 without one.
func (l *Linear) R() int {
	if l.A == nil {
		return 0
	}
	r, _ := l.A.Shape()
	return r
}

// Trains reports whether the backward pass leaves a gradient in l.
func (l *Linear) Trains() bool { return l.A != nil || l.Train != nil }

// Embedding is the table of token vectors.
type Embedding struct {
	Vocab, Dim int
	Weight     Weight // [Vocab, Dim], unused when Train is set
	Train      Param  // or nil
	Padding    int32  // a token whose vector gets no gradient, or -1
}

// Attention is the geometry of causal attention with grouped heads. Its input has the columns
// [Heads*HeadDim query | KVHeads*HeadDim key | KVHeads*HeadDim value].
type Attention struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32 // of the scores, before the softmax
	Window                  int     // a query at position p sees positions above p-Window; 0: all
}

// QKVCols is the number of columns of attention's input.
func (a *Attention) QKVCols() int { return (a.Heads + 2*a.KVHeads) * a.HeadDim }

// OutCols is the number of columns of attention's output.
func (a *Attention) OutCols() int { return a.Heads * a.HeadDim }

// Backend makes the things above and runs the operations. A Backend is used by one goroutine at a time.
//
// In the operations the outputs come first. Output buffers are resized by the operation; an output never is an
// input too. Buffers of kind Residual are marked (R), Activation (A), Stat (S).
type Backend interface {
	// Name says what runs: device, instruction set, arithmetic, threads.
	Name() string
	NewBuffer(k Kind, cols int) Buffer
	// BufferBytes is what Bytes of a new buffer is after Resize(rows).
	BufferBytes(k Kind, cols, rows int) int64
	NewWeight(m Matrix) (Weight, error)
	NewVector(v []float32) Vector
	NewParam(rows, cols int) Param
	NewCache(a *Attention) Cache
	Close() error

	// Reserve makes the memory that operations work in large enough for batches up to n, so that it does not grow later.
	Reserve(n Need)
	// ScratchBytes is what that memory takes; ScratchHeld is what there is of it now.
	ScratchBytes(n Need) int64
	ScratchHeld() int64

	// Embed gathers x[t] = E[tokens[t]]. (R)
	Embed(x Buffer, e *Embedding, b *Batch)
	// EmbedBackward adds dx's rows to e.Train's gradient, in the order of the rows; not for e.Padding.
	EmbedBackward(e *Embedding, dx Buffer, b *Batch)

	// RMSNorm writes y = g * x * rstd, rstd = 1/sqrt(mean(x²) + eps). y (A), rstd (S) [T, 1], x (R). Computed again from
	// the same x it gives the same bits.
	RMSNorm(y, rstd, x Buffer, g Vector, eps float32)
	// RMSNormBackward writes dx = add + the gradient of x. dx (R), dy (A), add (R) may be nil.
	RMSNormBackward(dx, x, rstd, dy, add Buffer, g Vector)

	// Linear writes y = [ls[0](x) | ls[1](x) | ...] (+ add). y is (A), or (R) where add is given or y is the
	// logits. h (S) keeps drop(x) Aᵀ of each, one after another, for the backward pass; it has at least the sum of
	// the ranks as columns (more where layers of other ranks share it) and is nil where no ls has a branch. add
	// (R) may be nil. Where y is nil only h is wanted.
	Linear(y, h, x, add Buffer, ls []*Linear, b *Batch)
	// LinearBackward writes dx (A), unless it is nil, and adds to the gradients of what is trained in ls.
	// dy is (A) or (R). x and h are nil where no ls trains.
	LinearBackward(dx, x, h, dy Buffer, ls []*Linear, b *Batch)

	// GateUp writes y = silu(g) * u with [g | u] = [gate(x) | up(x)]. y, x, gu are (A); gu [T, 2*Out] and h (as in
	// Linear) are kept for the backward pass. Where y is nil only gu and h are wanted.
	GateUp(y, gu, h, x Buffer, gate, up *Linear, b *Batch)
	// SwiGLU writes the y of GateUp again from its gu, to the bit.
	SwiGLU(y, gu Buffer)
	// GateUpBackward writes dx (A), unless it is nil, and adds to the gradients of what is trained.
	GateUpBackward(dx, x, gu, h, dy Buffer, gate, up *Linear, b *Batch)

	// Attention rotates queries and keys by b.Cos and b.Sin, and writes y (A) [T, Heads*HeadDim]: causal over
	// each row's segment and the chain of segments that are its prefix. lse (S) [T, Heads] is the log of the sum
	// of the exponentials of each row's scores. Where c is not nil, segments with a Slot find earlier keys and
	// values there and leave theirs.
	Attention(y, lse, qkv Buffer, a *Attention, b *Batch, c Cache)
	// AttentionBackward writes dqkv (A), the gradient of qkv (before rotation). Keys and values of a prefix get
	// gradients from all segments that continue it.
	AttentionBackward(dqkv, qkv, lse, dy Buffer, a *Attention, b *Batch)

	// Gather writes y[i] = x[b.Rows[i]]. (R)
	Gather(y, x Buffer, b *Batch)
	// GatherBackward writes dx: dy's rows at b.Rows, zeros elsewhere; dx has len(b.Tokens) rows. (R)
	GatherBackward(dx, dy Buffer, b *Batch)

	// CrossEntropy computes logits = head(x) for x (A) [len(b.Rows), d], chunk by chunk, and adds to sum the
	// token losses Count * -log softmax(logits)[Label] of b.Targets, in order. Where dx (A) is not nil it also
	// writes the gradient of that sum and adds to the gradients of what is trained in head.
	CrossEntropy(sum Sum, dx, x Buffer, head *Linear, b *Batch)

	// NewSum makes an accumulator of losses.
	NewSum() Sum

	// ZeroGrad clears gradient sums.
	ZeroGrad(ps []Param)
	// ScaleGrad multiplies gradient sums by f.
	ScaleGrad(ps []Param, f float64)
	// SumSquares is the sum of squares of all gradients.
	SumSquares(ps []Param) float64
	// AdamW takes one step of decoupled AdamW as PyTorch does it.
	AdamW(ps []Param, o AdamW)
}

// Need is the largest batch that a decoder's operations will run on.
type Need struct {
	Rows, Forward int // with a backward pass, and forward at least
	Selected      int // rows of either that have a target
	Keys          int // that a row sees at most
	Linears       []*Linear
	Head          *Linear
	Attention     *Attention
	Intermediate  int // columns of gate
	Param         int // elements of the largest parameter
}

// Sum is a float64 accumulator on the device.
type Sum interface {
	// Read waits for the device and returns the sum.
	Read() float64
	Zero()
}

// AdamW holds the numbers of one optimiser step, LR being already what the schedule makes of it.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	Step                               int // from 1
}

// Cache holds rotated keys and values of sequences that generation continues, for one layer.
type Cache interface {
	// Truncate forgets all but the first n positions of a slot.
	Truncate(slot, n int)
	// Copy makes dst hold the first n positions of src.
	Copy(dst, src, n int)
	Bytes() int64
}

// Reserver is a Cache that can be told how many positions a slot will have, so that it makes room for no more.
type Reserver interface {
	Reserve(slot, n int)
}
