package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// FuzzNewWeight: what is accepted can be read, and nothing else is.
func FuzzNewWeight(f *testing.F) {
	f.Add(uint8(numeric.F32), uint8(0), 2, 1, []byte("12345678"))
	f.Add(uint8(numeric.BF16), uint8(0), 1, 3, []byte("123456"))
	f.Add(uint8(numeric.F16), uint8(0), 3, 1, []byte("12345"))
	f.Add(uint8(numeric.F16), uint8(0), 1<<62, 2, []byte{})
	f.Add(uint8(200), uint8(200), -1, -1, []byte("1"))
	f.Add(uint8(0), uint8(quant.NF4), 3, 11, make([]byte, 44))
	f.Add(uint8(0), uint8(quant.Int8), 2, 43, make([]byte, 136))
	be := small(f)
	f.Fuzz(func(t *testing.T, d, q uint8, rows, cols int, data []byte) {
		m := backend.Matrix{Name: "w", DType: numeric.DType(d), Quant: quant.Format(q), Rows: rows, Cols: cols, Data: data}
		w, err := be.NewWeight(m)
		if err != nil {
			return
		}
		want := rows * cols * m.DType.Size()
		if m.Quant != quant.None {
			want, err = m.Quant.Size(rows, cols)
		}
		if err != nil || want != len(data) {
			t.Fatalf("%d bytes accepted for [%d, %d] of type %d, %v", len(data), rows, cols, d, m.Quant)
		}
		row := make([]float32, cols)
		decode(row, &w.(*weight).Weight, 0)
		decode(row, &w.(*weight).Weight, rows-1)
	})
}

// FuzzAttention draws a geometry and a forest of segments, and wants what the backendtest.Oracle has.
func FuzzAttention(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed)
	}
	be := paths()[len(paths())-1].open(f, 2)
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 7))
		kv := 1 + r.IntN(3)
		a := backend.Attention{KVHeads: kv, Heads: kv * (1 + r.IntN(4)), HeadDim: 2 * (1 + r.IntN(12)), Scale: 0.3}
		if r.IntN(2) == 0 {
			a.Window = 1 + r.IntN(40)
		}
		var segments []backend.Segment
		rows := int32(0)
		for i := range 1 + r.IntN(6) {
			s := backend.Segment{Start: rows, Len: int32(r.IntN(50)), Prefix: int32(r.IntN(i+1)) - 1, Slot: -1}
			segments = append(segments, s)
			rows += s.Len
		}
		p := backendtest.AttentionProgram(a, segments)
		backendtest.Compare(t, backendtest.Execute(be, false, p), backendtest.Execute(backendtest.Oracle, false, p), 3e-6)
	})
}
