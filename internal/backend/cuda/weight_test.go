package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// plain is a matrix in a format without codes, its bytes at an odd address, and the values that it stands for.
func plain(d numeric.DType, rows, cols int, v []float32) (backend.Matrix, []float32) {
	data := make([]byte, 1)
	values := make([]float32, len(v))
	for i, x := range v {
		switch d {
		case numeric.F32:
			values[i] = x
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		case numeric.F16:
			h := numeric.F32ToF16(x)
			values[i] = numeric.F16ToF32(h)
			data = binary.LittleEndian.AppendUint16(data, h)
		case numeric.BF16:
			h := numeric.F32ToBF16(x)
			values[i] = numeric.BF16ToF32(h)
			data = binary.LittleEndian.AppendUint16(data, h)
		}
	}
	return backend.Matrix{Name: d.String(), DType: d, Rows: rows, Cols: cols, Data: data[1:]}, values
}

// encoded is a matrix in codes and the values that they stand for.
func encoded(f quant.Format, rows, cols int, v []float32) (backend.Matrix, []float32) {
	m := backendtest.Quantise(f, rows, cols, v)
	q, err := quant.Open(f, rows, cols, m.Data)
	if err != nil {
		panic(err)
	}
	values := make([]float32, len(v))
	if err := q.Elements(values, 0); err != nil {
		panic(err)
	}
	return m, values
}

// operandValues reads the matrix that products would multiply.
func operandValues(be *Backend, o operand, rows, cols int) []float32 {
	raw := make([]byte, int64(rows*o.ld)*elementBytes(o.half))
	be.fetch(raw, o.at)
	var v []float32
	for i := range rows {
		for j := range cols {
			if at := i*o.ld + j; o.half {
				v = append(v, numeric.BF16ToF32(binary.NativeEndian.Uint16(raw[2*at:])))
			} else {
				v = append(v, math.Float32frombits(binary.NativeEndian.Uint32(raw[4*at:])))
			}
		}
	}
	return v
}

// TestWeightValues: what products multiply is, to the bit, what the checkpoint has: as it is, or rounded to bf16 once.
func TestWeightValues(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		be.poison = true
		for _, s := range [][2]int{{3, 64}, {130, 192}, {7, 40}, {5, 33}, {1, 1}, {300, 700}} {
			w := backendtest.NewWorld(be, false)
			v := w.Values(s[0]*s[1], 1)
			copy(v, []float32{0, float32(math.Copysign(0, -1)), 6e-8, -3e-6, 65504, 1})
			var made []*weight
			var want [][]float32
			add := func(m backend.Matrix, values []float32) {
				x, err := be.NewWeight(m)
				if err != nil {
					t.Fatal(err)
				}
				if r, c := x.Shape(); r != s[0] || c != s[1] {
					t.Errorf("%s: [%d, %d], want %v", m.Name, r, c, s)
				}
				for i, x := range values {
					if be.half {
						values[i] = numeric.BF16ToF32(numeric.F32ToBF16(x))
					}
				}
				made, want = append(made, x.(*weight)), append(want, values)
			}
			for _, d := range []numeric.DType{numeric.F32, numeric.F16, numeric.BF16} {
				add(plain(d, s[0], s[1], v))
			}
			for _, f := range []quant.Format{quant.NF4, quant.Int8} {
				add(encoded(f, s[0], s[1], v))
			}
			leave := be.enter()
			for i, x := range made {
				if got := operandValues(be, be.values([]*weight{x}), s[0], s[1]); !backendtest.SameBits(got, want[i]) {
					t.Errorf("%s %v, weight %d: not its values", compute, s, i)
				}
			}
			leave()
		}
	}
}

// TestWeightSteps converts a matrix that comes to the card in several pieces.
func TestWeightSteps(t *testing.T) {
	be := emulated(t, "bf16")
	const rows, cols = 4100, 1030
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(i%251) - 125
	}
	m, want := plain(numeric.F32, rows, cols, v)
	if len(m.Data) <= rawBytes {
		t.Fatalf("%d bytes are converted at once", len(m.Data))
	}
	x, err := be.NewWeight(m)
	if err != nil {
		t.Fatal(err)
	}
	defer be.enter()()
	if got := operandValues(be, be.values([]*weight{x.(*weight)}), rows, cols); !backendtest.SameBits(got, want) {
		t.Error("not its values")
	}
}

// TestWeightsTogether: weights that were loaded one after another are one matrix, in place or widened, and others not.
func TestWeightsTogether(t *testing.T) {
	for _, c := range []struct {
		compute string
		formats []numeric.DType // Invalid: nf4
		shapes  [][2]int
		want    int
	}{
		{"bf16", []numeric.DType{numeric.BF16, numeric.BF16, numeric.F32}, [][2]int{{16, 64}, {8, 64}, {24, 64}}, 3},
		{"f32", []numeric.DType{numeric.F32, numeric.F32}, [][2]int{{16, 64}, {8, 64}}, 2},
		{"f32", []numeric.DType{numeric.BF16, numeric.Invalid, numeric.F16}, [][2]int{{5, 64}, {7, 64}, {3, 64}}, 3},
		{"bf16", []numeric.DType{numeric.Invalid, numeric.Invalid}, [][2]int{{5, 36}, {7, 36}}, 2},
		{"bf16", []numeric.DType{numeric.BF16, numeric.BF16}, [][2]int{{16, 64}, {16, 72}}, 1},    // other columns
		{"bf16", []numeric.DType{numeric.BF16, numeric.BF16}, [][2]int{{5, 64}, {16, 64}}, 1},     // 640 bytes, then 128 that are of no row
		{"bf16", []numeric.DType{numeric.BF16, numeric.Invalid}, [][2]int{{16, 64}, {16, 64}}, 1}, // one is widened
	} {
		t.Run(fmt.Sprint(c.compute, c.formats, c.shapes), func(t *testing.T) {
			be := emulated(t, c.compute)
			rng := backendtest.NewWorld(be, true)
			var ws []*weight
			var want []float32
			for i, d := range c.formats {
				rows, cols := c.shapes[i][0], c.shapes[i][1]
				v := rng.Values(rows*cols, 1)
				m, values := encoded(quant.NF4, rows, cols, v)
				if d != numeric.Invalid {
					m, values = plain(d, rows, cols, v)
				}
				x, err := be.NewWeight(m)
				if err != nil {
					t.Fatal(err)
				}
				ws = append(ws, x.(*weight))
				for _, x := range values {
					if be.half {
						x = numeric.BF16ToF32(numeric.F32ToBF16(x))
					}
					want = append(want, x)
				}
			}
			leave := be.enter()
			got := be.together(ws)
			if got != c.want {
				t.Errorf("%s %v %v: %d are one matrix, want %d", c.compute, c.formats, c.shapes, got, c.want)
			}
			if got > 1 && got == c.want {
				rows := 0
				for _, w := range ws[:got] {
					rows += w.rows
				}
				if v := operandValues(be, be.values(ws[:got]), rows, ws[0].cols); !backendtest.SameBits(v, want) {
					t.Errorf("%s %v %v: not the values", c.compute, c.formats, c.shapes)
				}
			}
			leave()
		})
	}
}

// TestWeightsTooLarge: what would make the slab too large is widened one by one.
func TestWeightsTooLarge(t *testing.T) {
	be := emulated(t, "f32")
	large := func(rows int) *weight { return &weight{rows: rows, cols: 64, ld: 64, kind: weightNF4} }
	for rows, want := range map[int]int{1 << 20: 2, 1<<20 + 1: 1} {
		if got := be.together([]*weight{large(1 << 20), large(rows)}); got != want {
			t.Errorf("%d and %d rows: %d are one matrix, want %d", 1<<20, rows, got, want)
		}
	}
}

// TestWeightMemory: bf16 weights in place take what the checkpoint takes; in f32 they stay as they are, and the slab is
// for one product.
func TestWeightMemory(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, true)
		ls := []*backend.Linear{w.Linear(backendtest.Spec{In: 64, Out: 64}, 1), w.Linear(backendtest.Spec{In: 64, Out: 32}, 2),
			w.Linear(backendtest.Spec{In: 64, Out: 32}, 3), w.Linear(backendtest.Spec{In: 64, Out: 48}, 4)}
		need := backend.Need{Rows: 3, Forward: 3, Linears: ls, Head: ls[3], Intermediate: 1000,
			Attention: &backend.Attention{Heads: 4, KVHeads: 2, HeadDim: 16}}
		want := int64(0)
		if compute == "f32" {
			want = (64 + 32 + 32) * 64 * 4
		}
		if got := be.slabNeed(need); got != want {
			t.Errorf("%s: a slab of %d bytes, want %d", compute, got, want)
		}
		held := be.heap.held
		be.Reserve(need)
		if got, scratch := be.heap.held-held, be.ScratchBytes(need); got-scratch != 64*2*(64+32+32+48) || be.ScratchHeld() != scratch {
			t.Errorf("%s: %d bytes came to the card, %d of them scratch, %d by ScratchHeld", compute, got, scratch, be.ScratchHeld())
		}
		x, y := w.Filled(backend.Activation, 3, 64, 1), w.Buffer(backend.Activation, 128)
		held = be.heap.held
		be.Linear(y, nil, x, nil, ls[:3], w.Rows(3))
		if grown := be.heap.held - held - y.Bytes(); grown != 0 {
			t.Errorf("%s: %d bytes more than were reserved", compute, grown)
		}
	}
}

func TestWeightRefusals(t *testing.T) {
	be := emulated(t, "bf16")
	for _, c := range []struct {
		m    backend.Matrix
		want string
	}{
		{backend.Matrix{Name: "a", DType: numeric.I8, Rows: 1, Cols: 1, Data: []byte{0}}, "a: cannot compute with I8"},
		{backend.Matrix{Name: "b", DType: numeric.F32, Rows: 0, Cols: 3}, "b: a matrix [0, 3]"},
		{backend.Matrix{Name: "c", DType: numeric.BF16, Rows: 2, Cols: 3, Data: make([]byte, 11)}, "c: 11 bytes for a BF16 matrix [2, 3] of 2-byte"},
		{backend.Matrix{Name: "d", DType: numeric.F32, Rows: 1 << 40, Cols: 1 << 40}, fmt.Sprintf("d: 0 bytes for a F32 matrix [%d, ", 1<<40)},
		{backend.Matrix{Name: "e", Quant: quant.NF4, Rows: 2, Cols: 3, Data: make([]byte, 5)}, "e: 5 bytes for a matrix [2, 3] in nf4"},
		{backend.Matrix{Name: "f", Quant: quant.Int8, DType: numeric.F32, Rows: 2, Cols: 3, Data: make([]byte, 5)}, "f: a matrix in int8 that has elements of F32"},
	} {
		if _, err := be.NewWeight(c.m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
