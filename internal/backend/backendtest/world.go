// Package backendtest holds what the tests of all backends share: programs of a few operations each, which run on the
// oracle (package ref) and on the backend that is tested, and the means to compare what they give.
package backendtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// World makes the same inputs on any backend. A Program builds what it needs in a World and returns what to run
// and what to look at afterwards, so that the same program runs on the oracle and on what is tested.
//
// A buffer that has a method Poison is asked to show what an operation forgets to write.
type World struct {
	Backend backend.Backend
	Rand    *rand.Rand
	BF16    bool // all inputs are exact in bf16
	Results []Result
}

// Result is a matrix that a program shows, by a name.
type Result struct {
	Name string
	V    []float32
}

// Program is a few operations and the inputs they need.
type Program func(w *World) (run func(), look func())

// NewWorld makes the world of a backend; the inputs are the same in each.
func NewWorld(be backend.Backend, bf16 bool) *World {
	return &World{Backend: be, Rand: rand.New(rand.NewPCG(1, 2)), BF16: bf16}
}

// Execute runs p on be and returns what it shows.
func Execute(be backend.Backend, bf16 bool, p Program) []Result {
	w := NewWorld(be, bf16)
	run, look := p(w)
	run()
	look()
	return w.Results
}

// Values returns n normal numbers times scale.
func (w *World) Values(n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(w.Rand.NormFloat64() * scale)
		if w.BF16 {
			v[i] = numeric.BF16ToF32(numeric.F32ToBF16(v[i]))
		}
	}
	return v
}

// Buffer makes a buffer that shows what is not written.
func (w *World) Buffer(k backend.Kind, cols int) backend.Buffer {
	b := w.Backend.NewBuffer(k, cols)
	if p, ok := b.(interface{ Poison() }); ok {
		p.Poison()
	}
	return b
}

// Filled makes a buffer of normal numbers times scale.
func (w *World) Filled(k backend.Kind, rows, cols int, scale float64) backend.Buffer {
	b := w.Buffer(k, cols)
	b.Resize(rows)
	b.Write(w.Values(rows*cols, scale))
	return b
}

// Weight makes a frozen matrix whose bytes begin at an odd address.
func (w *World) Weight(d numeric.DType, rows, cols int) backend.Weight {
	v := w.Values(rows*cols, 1/math.Sqrt(float64(cols)))
	data := make([]byte, 1, 1+4*len(v))
	for _, x := range v {
		switch d {
		case numeric.F32:
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		case numeric.F16:
			h := numeric.F32ToF16(x)
			if w.BF16 { // keep the bits that both formats have
				h &^= 7
			}
			data = binary.LittleEndian.AppendUint16(data, h)
		case numeric.BF16:
			data = binary.LittleEndian.AppendUint16(data, numeric.F32ToBF16(x))
		}
	}
	m, err := w.Backend.NewWeight(backend.Matrix{Name: "w", DType: d, Rows: rows, Cols: cols, Data: data[1:]})
	if err != nil {
		panic(err)
	}
	return m
}

// Quantised makes a frozen matrix in few bits whose bytes begin at an odd address.
func (w *World) Quantised(f quant.Format, rows, cols int) backend.Weight {
	m, err := w.Backend.NewWeight(Quantise(f, rows, cols, w.Values(rows*cols, 1/math.Sqrt(float64(cols)))))
	if err != nil {
		panic(err)
	}
	return m
}

// Quantise encodes v; the bytes begin at an odd address.
func Quantise(f quant.Format, rows, cols int, v []float32) backend.Matrix {
	var b bytes.Buffer
	b.WriteByte(0)
	err := quant.Encode(context.Background(), &b, f, rows, cols, 1, func(dst []float32, from, to int) error {
		copy(dst, v[from*cols:to*cols])
		return nil
	})
	if err != nil {
		panic(err)
	}
	return backend.Matrix{Name: "w", Quant: f, Rows: rows, Cols: cols, Data: b.Bytes()[1:]}
}

// Param makes a trainable matrix of normal numbers times scale.
func (w *World) Param(rows, cols int, scale float64) backend.Param {
	p := w.Backend.NewParam(rows, cols)
	p.Write(w.Values(rows*cols, scale))
	return p
}

// Spec describes a linear.
type Spec struct {
	In, Out, R int
	DType      numeric.DType // of the weight; BF16 where nothing is said
	Quant      quant.Format
	Dropout    float32
	Bias       bool
	Train      bool
}

// Linear makes a linear; its name is of its site.
func (w *World) Linear(s Spec, site uint32) *backend.Linear {
	l := &backend.Linear{Name: fmt.Sprintf("linear%d", site), In: s.In, Out: s.Out, Site: site}
	if s.DType == numeric.Invalid {
		s.DType = numeric.BF16
	}
	if s.Train {
		l.Train = w.Param(s.Out, s.In, 1/math.Sqrt(float64(s.In)))
	} else if s.Quant != quant.None {
		l.Weight = w.Quantised(s.Quant, s.Out, s.In)
	} else {
		l.Weight = w.Weight(s.DType, s.Out, s.In)
	}
	if s.Bias {
		l.Bias = w.Backend.NewVector(w.Values(s.Out, 1))
	}
	if s.R > 0 {
		l.A, l.B = w.Param(s.R, s.In, 1/math.Sqrt(float64(s.In))), w.Param(s.Out, s.R, 0.3)
		l.Scale, l.Dropout = 1.75, s.Dropout
	}
	return l
}

// Look keeps what is in b as a result.
func (w *World) Look(name string, b backend.Buffer) {
	v := make([]float32, b.Rows()*b.Cols())
	b.Read(v)
	w.Results = append(w.Results, Result{name, v})
}

// LookGrad keeps p's gradient as a result.
func (w *World) LookGrad(name string, p backend.Param) {
	rows, cols := p.Shape()
	v := make([]float32, rows*cols)
	p.ReadGrad(v)
	w.Results = append(w.Results, Result{name, v})
}

// LookLinear keeps the gradients of what is trained in l as results.
func (w *World) LookLinear(l *backend.Linear) {
	if l.Train != nil {
		w.LookGrad(l.Name+".dW", l.Train)
	}
	if l.A != nil {
		w.LookGrad(l.Name+".dA", l.A)
		w.LookGrad(l.Name+".dB", l.B)
	}
}

// Batch makes the rows of segments, with tokens below vocab and rotary tables for heads of headDim.
func (w *World) Batch(vocab, headDim int, segments ...backend.Segment) *backend.Batch {
	b := &backend.Batch{Segments: segments}
	length := make([]int32, len(segments)) // of the sequence up to the segment's end
	for i, s := range segments {
		at := s.Past
		if s.Prefix >= 0 {
			at += length[s.Prefix]
		}
		for range s.Len {
			b.Tokens = append(b.Tokens, int32(w.Rand.IntN(max(vocab, 1))))
			b.Positions = append(b.Positions, at)
			for j := range headDim / 2 {
				angle := float64(at) * math.Pow(10000, -2*float64(j)/float64(headDim))
				b.Cos = append(b.Cos, float32(1.2*math.Cos(angle)))
				b.Sin = append(b.Sin, float32(1.2*math.Sin(angle)))
			}
			at++
		}
		length[i] = at
	}
	return b
}

// Rows makes a batch of one segment, with dropout.
func (w *World) Rows(n int) *backend.Batch {
	b := w.Batch(100, 2, backend.Segment{Len: int32(n), Prefix: -1, Slot: -1})
	b.Dropout = &backend.Dropout{Seed: 3, Epoch: 1, Samples: make([]uint32, n)}
	for i := range b.Dropout.Samples {
		b.Dropout.Samples[i] = uint32(i % 3)
	}
	return b
}

// Labelled gives rows of the batch targets: none, one or several, in an order of their own.
func (w *World) Labelled(b *backend.Batch, vocab int) {
	for i := range b.Positions {
		b.Rows = append(b.Rows, int32(i))
		for range i % 3 {
			b.Targets = append(b.Targets, backend.Target{Row: int32(i), Label: int32(w.Rand.IntN(vocab)), Count: int32(1 + w.Rand.IntN(3))})
		}
	}
	w.Rand.Shuffle(len(b.Targets), func(i, j int) { b.Targets[i], b.Targets[j] = b.Targets[j], b.Targets[i] })
}

// EveryThird is the batch with only every third of its rows wanted, targets in the order they have, and x [all rows, d]
// with only these rows.
func EveryThird(all *backend.Batch, x []float32, d int) (some backend.Batch, rows []float32) {
	some = *all
	some.Rows, some.Targets = nil, nil
	for r := 2; r < len(all.Rows); r += 3 {
		some.Rows = append(some.Rows, int32(r))
		rows = append(rows, x[r*d:(r+1)*d]...)
	}
	for _, g := range all.Targets {
		if g.Row%3 == 2 {
			g.Row /= 3
			some.Targets = append(some.Targets, g)
		}
	}
	return some, rows
}
