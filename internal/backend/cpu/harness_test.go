package cpu

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// A world makes the same inputs on any backend. A program builds what it needs in a world and returns what to run
// and what to look at afterwards, so that the same program runs on the oracle and on every path of the CPU.
type world struct {
	be      backend.Backend
	rng     *rand.Rand
	bf16    bool // all inputs are exact in bf16
	results []result
}

type result struct {
	name string
	v    []float32
}

type program func(w *world) (run func(), look func())

func newWorld(be backend.Backend, bf16 bool) *world {
	return &world{be: be, rng: rand.New(rand.NewPCG(1, 2)), bf16: bf16}
}

// values returns n normal numbers times scale.
func (w *world) values(n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(w.rng.NormFloat64() * scale)
		if w.bf16 {
			v[i] = numeric.BF16ToF32(numeric.F32ToBF16(v[i]))
		}
	}
	return v
}

func (w *world) buffer(k backend.Kind, cols int) backend.Buffer {
	b := w.be.NewBuffer(k, cols)
	if own, ok := b.(*Buffer); ok {
		own.poison = true
	}
	return b
}

func (w *world) filled(k backend.Kind, rows, cols int, scale float64) backend.Buffer {
	b := w.buffer(k, cols)
	b.Resize(rows)
	b.Write(w.values(rows*cols, scale))
	return b
}

// weight makes a frozen matrix whose bytes begin at an odd address.
func (w *world) weight(d numeric.DType, rows, cols int) backend.Weight {
	v := w.values(rows*cols, 1/math.Sqrt(float64(cols)))
	data := make([]byte, 1, 1+4*len(v))
	for _, x := range v {
		switch d {
		case numeric.F32:
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		case numeric.F16:
			h := numeric.F32ToF16(x)
			if w.bf16 { // keep the bits that both formats have
				h &^= 7
			}
			data = binary.LittleEndian.AppendUint16(data, h)
		case numeric.BF16:
			data = binary.LittleEndian.AppendUint16(data, numeric.F32ToBF16(x))
		}
	}
	m, err := w.be.NewWeight(backend.Matrix{Name: "w", DType: d, Rows: rows, Cols: cols, Data: data[1:]})
	if err != nil {
		panic(err)
	}
	return m
}

func (w *world) param(rows, cols int, scale float64) backend.Param {
	p := w.be.NewParam(rows, cols)
	p.Write(w.values(rows*cols, scale))
	return p
}

func (w *world) look(name string, b backend.Buffer) {
	v := make([]float32, b.Rows()*b.Cols())
	b.Read(v)
	w.results = append(w.results, result{name, v})
}

func (w *world) lookGrad(name string, p backend.Param) {
	rows, cols := p.Shape()
	v := make([]float32, rows*cols)
	p.ReadGrad(v)
	w.results = append(w.results, result{name, v})
}

// quantised makes a frozen matrix in few bits whose bytes begin at an odd address.
func (w *world) quantised(f quant.Format, rows, cols int) backend.Weight {
	m, err := w.be.NewWeight(quantise(f, rows, cols, w.values(rows*cols, 1/math.Sqrt(float64(cols)))))
	if err != nil {
		panic(err)
	}
	return m
}

// quantise encodes v; the bytes begin at an odd address.
func quantise(f quant.Format, rows, cols int, v []float32) backend.Matrix {
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

// spec describes a linear.
type spec struct {
	in, out, r int
	dtype      numeric.DType
	quant      quant.Format
	dropout    float32
	bias       bool
	train      bool
}

func (w *world) linear(s spec, site uint32) *backend.Linear {
	l := &backend.Linear{Name: fmt.Sprintf("linear%d", site), In: s.in, Out: s.out, Site: site}
	if s.dtype == numeric.Invalid {
		s.dtype = numeric.BF16
	}
	if s.train {
		l.Train = w.param(s.out, s.in, 1/math.Sqrt(float64(s.in)))
	} else if s.quant != quant.None {
		l.Weight = w.quantised(s.quant, s.out, s.in)
	} else {
		l.Weight = w.weight(s.dtype, s.out, s.in)
	}
	if s.bias {
		l.Bias = w.be.NewVector(w.values(s.out, 1))
	}
	if s.r > 0 {
		l.A, l.B = w.param(s.r, s.in, 1/math.Sqrt(float64(s.in))), w.param(s.out, s.r, 0.3)
		l.Scale, l.Dropout = 1.75, s.dropout
	}
	return l
}

func (w *world) lookLinear(l *backend.Linear) {
	if l.Train != nil {
		w.lookGrad(l.Name+".dW", l.Train)
	}
	if l.A != nil {
		w.lookGrad(l.Name+".dA", l.A)
		w.lookGrad(l.Name+".dB", l.B)
	}
}

// batch makes rows of one sequence each of the given lengths.
func (w *world) batch(vocab, headDim int, segments ...backend.Segment) *backend.Batch {
	b := &backend.Batch{Segments: segments}
	length := make([]int32, len(segments)) // of the sequence up to the segment's end
	for i, s := range segments {
		at := s.Past
		if s.Prefix >= 0 {
			at += length[s.Prefix]
		}
		for range s.Len {
			b.Tokens = append(b.Tokens, int32(w.rng.IntN(max(vocab, 1))))
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

// rows makes a batch of one segment.
func (w *world) rows(n int) *backend.Batch {
	b := w.batch(100, 2, backend.Segment{Len: int32(n), Prefix: -1, Slot: -1})
	b.Dropout = &backend.Dropout{Seed: 3, Epoch: 1, Samples: make([]uint32, n)}
	for i := range b.Dropout.Samples {
		b.Dropout.Samples[i] = uint32(i % 3)
	}
	return b
}

// path is a way to compute that this machine has.
type path struct{ features, compute string }

func (p path) String() string { return p.features + "/" + p.compute }

func paths() (ps []path) {
	for _, f := range []string{"go", "avx2", "avx512f", "avx512_bf16", "amx", "neon"} {
		be, err := New(Options{Features: f, Threads: 1})
		if err != nil {
			continue
		}
		be.Close()
		ps = append(ps, path{f, "f32"}, path{f, "bf16"})
	}
	return ps
}

// tiles reports whether everything that p multiplies is rounded.
func (p path) tiles() bool { return p.features == "amx" && p.compute == "bf16" }

func (p path) open(t testing.TB, threads int) *Backend {
	t.Helper()
	be, err := New(Options{Features: p.features, Compute: p.compute, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { be.Close() })
	for _, b := range []*Buffer{be.low, be.drop, be.mask, be.dgu, be.logits, be.headH, be.attention.keys} {
		b.poison = true
	}
	for i := range be.attention.scratch {
		s := &be.attention.scratch[i]
		for _, b := range []*Buffer{&s.q, &s.o, &s.do, &s.s, &s.ds} {
			b.poison = true
		}
	}
	return be
}

// execute runs p on be and returns what it shows.
func execute(be backend.Backend, bf16 bool, p program) []result {
	w := newWorld(be, bf16)
	run, look := p(w)
	run()
	look()
	return w.results
}

// distance is the largest difference relative to the largest wanted value; NaN counts as infinite.
func distance(got, want []float32) float64 {
	var diff, top float64
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		diff, top = max(diff, d), max(top, math.Abs(float64(want[i])))
	}
	if diff == 0 {
		return 0
	}
	return diff / top
}

func compare(t *testing.T, got, want []result, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d results, want %d", len(got), len(want))
	}
	for i := range want {
		if len(got[i].v) != len(want[i].v) {
			t.Fatalf("%s: %d values, want %d", want[i].name, len(got[i].v), len(want[i].v))
		}
		if d := distance(got[i].v, want[i].v); d > tolerance {
			t.Errorf("%s: differs from the oracle by %.2g of its largest value, allowed %.2g", want[i].name, d, tolerance)
		}
	}
}

func sameBits(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

var oracle = ref.New()
