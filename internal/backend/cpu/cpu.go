// Package cpu runs the decoder's operations on the CPU: the products through package gemm, the arithmetic of rows
// through package vec, spread over the goroutines of one pool.
//
// Every buffer is f32, row-major, with rows that begin at a multiple of 64 bytes; that is private, so that
// activations can become something else. With compute bf16 the products with the layers' weights round both
// operands to bf16 and sum in f32; the low-rank branches, gradients of weights, norms, attention, swiglu and the
// loss are f32 in either case. But where products run on tiles (AMX) all products round: those of branches, of gradients
// and of attention, too, which would otherwise take as long as all the rest.
//
// Results do not depend on the number of threads: each piece of work writes memory of its own, and sums that
// cross pieces are taken in a fixed order.
package cpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cpu/gemm"
	"github.com/biolora/biolora/internal/backend/cpu/vec"
	"github.com/biolora/biolora/internal/backend/profile"
	"github.com/biolora/biolora/internal/parallel"
)

// Options choose how to compute.
type Options struct {
	// Compute is what products with weights multiply: "f32", "bf16", or "auto" (also ""): bf16 where that is the
	// faster one.
	Compute string
	// Threads is the number of goroutines that compute, the caller's included; 0: one for each CPU, at most
	// GOMAXPROCS.
	Threads int
	// Features are the instructions to use: "auto" (also "") for the best this CPU has, or a name that gemm.Parse
	// knows.
	Features string
	// Profile is told what is part of an operation and another kind of work: packing, branches, elementwise passes. It may
	// be nil.
	Profile *profile.Watch
}

// Backend implements backend.Backend.
type Backend struct {
	engine  *gemm.Engine
	unit    *vec.Unit
	pool    *parallel.Pool
	compute gemm.Compute
	rounded bool // all products are of bf16
	name    string
	note    string
	watch   *profile.Watch

	packed gemm.Packed
	pair   [2]*backend.Linear // gate and up
	one    [1]*backend.Linear // the head

	// Scratch of the operations; it grows and never shrinks.
	low    *Buffer // [T, R] gradient of a branch's h
	drop   *Buffer // [T, In] drop(x), then the branch's part of dx
	mask   *Buffer // [T, In] dropout's factors
	dgu    *Buffer // [T, 2*Out] gradient of gate and up
	logits *Buffer // [rows of a chunk, vocabulary], then their gradient
	headH  *Buffer // h of the head
	xRows  Buffer  // a chunk's rows of the head's input
	dxRows Buffer  // and of its gradient
	blocks []float64

	// The tasks of the operations live here so that running one allocates nothing.
	fill       fillTask
	dropTask   dropTask
	maskedAdd  maskedAddTask
	norm       normTask
	normBack   normBackTask
	swiglu     swigluTask
	swigluBack swigluBackTask
	embed      embedTask
	embedBack  embedBackTask
	gather     gatherTask
	scatter    scatterTask
	loss       lossTask
	squares    squaresTask
	adamw      adamwTask
	zero       zeroTask
	scale      scaleTask
	attention  attention
}

var _ backend.Backend = (*Backend)(nil)

// New makes a backend. It fails for options it does not know, for instructions the CPU lacks, and on big-endian
// machines.
func New(o Options) (*Backend, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errors.New("cpu: big-endian machines are not supported")
	}
	features, err := features(o.Features)
	var unit *vec.Unit
	if err == nil {
		unit, err = vec.For(features.String())
	}
	compute, fast := gemm.F32, features.FastBF16()
	switch o.Compute {
	case "", "auto":
		if fast {
			compute = gemm.BF16
		}
	case "bf16":
		compute = gemm.BF16
	case "f32":
	default:
		err = errors.Join(err, fmt.Errorf("cpu: compute %q is none of auto, f32, bf16", o.Compute))
	}
	threads := o.Threads
	switch {
	case threads < 0:
		err = errors.Join(err, fmt.Errorf("cpu: %d threads, want 0 (all) or more", threads))
	case threads == 0:
		threads = min(runtime.NumCPU(), runtime.GOMAXPROCS(0))
	}
	if err != nil {
		return nil, err
	}
	pool := parallel.New(threads)
	be := &Backend{
		engine: gemm.New(features, pool), unit: unit, pool: pool, compute: compute, watch: o.Profile,
		low: &Buffer{kind: backend.Stat}, drop: &Buffer{}, mask: &Buffer{}, dgu: &Buffer{},
		logits: &Buffer{}, headH: &Buffer{kind: backend.Stat},
	}
	if compute == gemm.BF16 {
		be.rounded = be.engine.RoundGemm()
	}
	plural := "s"
	if threads == 1 {
		plural = ""
	}
	be.name = fmt.Sprintf("cpu %s, %s, %d thread%s", be.engine.Name(), be.Compute(), threads, plural)
	be.note = note(compute, fast, be.engine.Name())
	be.attention.init(be)
	return be, nil
}

// note tells where bf16 is not the faster arithmetic.
func note(c gemm.Compute, fast bool, kernels string) string {
	if c != gemm.BF16 || fast {
		return ""
	}
	return fmt.Sprintf("compute bf16 is slower than f32 on this CPU (%s has no fast bf16 products)", kernels)
}

func features(name string) (gemm.Features, error) {
	if name == "" || name == "auto" {
		return gemm.Detect(), nil
	}
	f, err := gemm.Parse(name)
	if err != nil {
		return f, fmt.Errorf("cpu: %w", err)
	}
	return f, nil
}

// Name says what runs, e.g. "cpu avx512_bf16, bf16, 2 threads".
func (be *Backend) Name() string { return be.name }

// Compute is what products with weights multiply, "f32" or "bf16".
func (be *Backend) Compute() string {
	if be.compute == gemm.BF16 {
		return "bf16"
	}
	return "f32"
}

// Note is what a user should know of the choice made, or "".
func (be *Backend) Note() string { return be.note }

// Close ends the goroutines. The backend must not be used any more.
func (be *Backend) Close() error {
	be.pool.Close()
	return nil
}

// rowBlock is the number of rows in a piece of work.
const rowBlock = 8

// rows runs t on blocks of rowBlock rows.
func (be *Backend) rows(rows int, t parallel.Task) { be.pool.Run((rows+rowBlock-1)/rowBlock, t) }

// blockOf returns the rows of piece i.
func blockOf(i, rows int) (from, to int) { return i * rowBlock, min((i+1)*rowBlock, rows) }

// mustEqual panics where a shape does not fit.
func mustEqual(what string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("cpu: %s: %d, want %d", what, got, want))
	}
}
