package cuda

import (
	"fmt"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/quant"
)

type spec = backendtest.Spec

// several are n linears of the same input, one with each rank.
func several(in, out int, dropout float32, ranks ...int) (s []spec) {
	for _, r := range ranks {
		s = append(s, spec{In: in, Out: out, R: r, Dropout: dropout})
	}
	return s
}

// linearEntries are shapes beyond those that every backend is tested with: whole tiles and more, rows of the fast way,
// weights that are one matrix with branches in some of its parts, more branches than a launch takes.
func linearEntries() []backendtest.Entry {
	e := func(name string, p backendtest.Program) backendtest.Entry {
		return backendtest.Entry{Name: name, Program: p, Rounds: true}
	}
	bias := several(64, 32, 0.3, 0, 8)
	bias[0].Bias = true
	return []backendtest.Entry{
		e("qkv", backendtest.LinearProgram(70, false, several(72, 64, 0, 16, 0, 16)...)),
		e("qkv/dropout", backendtest.LinearProgram(130, false, several(136, 64, 0.4, 8, 0, 8)...)),
		e("qkv/bias", backendtest.LinearProgram(9, false, bias...)),
		e("frozen", backendtest.LinearProgram(3, false, several(64, 128, 0, 0, 0, 0)...)),
		e("frozen/add", backendtest.LinearProgram(9, true, several(64, 32, 0, 0, 0)...)),
		e("branch/add", backendtest.LinearProgram(9, true, several(64, 32, 0.1, 0, 8)...)),
		e("six", backendtest.LinearProgram(5, false, several(40, 16, 0.5, 8, 1, 2, 3, 16, 5)...)),
		e("six/plain", backendtest.LinearProgram(5, false, several(40, 16, 0, 8, 1, 2, 3, 16, 5)...)),
		e("wide", backendtest.LinearProgram(65, true, several(64, 70, 0.2, 256)...)),
		e("one row", backendtest.LinearProgram(1, false, several(64, 48, 0.2, 8, 8)...)),
		e("codes", backendtest.LinearProgram(1, false, spec{In: 128, Out: 33, Quant: quant.NF4}, spec{In: 128, Out: 7, R: 3, Quant: quant.NF4})),
		e("codes/8", backendtest.LinearProgram(8, true, spec{In: 1088, Out: 33, Quant: quant.NF4}, spec{In: 1088, Out: 20, Quant: quant.Int8})),
		e("codes/5", backendtest.LinearProgram(5, false, spec{In: 576, Out: 40, Quant: quant.Int8}, spec{In: 576, Out: 3, R: 2, Quant: quant.NF4})),
		e("gate up", backendtest.GateUpProgram(66, spec{In: 64, Out: 72, R: 8, Dropout: 0.2}, spec{In: 64, Out: 72, R: 8, Dropout: 0.2})),
		e("gate up/int8", backendtest.GateUpProgram(8, spec{In: 64, Out: 64, Quant: quant.Int8}, spec{In: 64, Out: 64, R: 4, Quant: quant.Int8})),
	}
}

// TestLinears runs linearEntries against float64 in three orders of the threads, and by cublasLt.
func TestLinears(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		t.Run(compute, func(t *testing.T) {
			be := emulated(t, compute)
			be.poison = true
			for _, e := range linearEntries() {
				t.Run(e.Name, func(t *testing.T) { testOracle(t, be, e) })
			}
		})
		t.Run(compute+"/cublasLt", func(t *testing.T) {
			be, _ := emulatedLt(t, compute)
			be.poison = true
			for _, e := range linearEntries() {
				t.Run(e.Name, func(t *testing.T) { testOracle(t, be, e) })
			}
		})
	}
}

// TestJoinedProducts: linears whose weights are one matrix take one product, forward and backward.
func TestJoinedProducts(t *testing.T) {
	be, device := emulatedLt(t, "bf16")
	for _, c := range []struct {
		specs []spec
		want  int
	}{
		{several(64, 32, 0, 0, 0, 0), 2},
		{several(64, 33, 0, 0, 0, 0), 6},             // not whole multiples of 256 bytes
		{several(64, 32, 0, 8, 0, 8), 2 + 2*2 + 2*3}, // h and B; dB, dh, dA
		{[]spec{{In: 40, Out: 32, Quant: quant.NF4}, {In: 40, Out: 20, Quant: quant.NF4}}, 2},
		{[]spec{{In: 64, Out: 32, Quant: quant.NF4}, {In: 64, Out: 20, Quant: quant.NF4}}, 1}, // by codes, forward
		{[]spec{{In: 64, Out: 32, Train: true}, {In: 64, Out: 32}}, 5},
	} {
		before := device.Calls("cublasLtMatmul")
		backendtest.Execute(be, true, backendtest.LinearProgram(5, false, c.specs...))
		if got := device.Calls("cublasLtMatmul") - before; got != c.want {
			t.Errorf("%+v: %d products, want %d", c.specs, got, c.want)
		}
	}
}

// TestDrop: what is dropped is what the batch's mask says, row by row, also where rows are chosen.
func TestDrop(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, true)
		const p = 0.37
		for _, cols := range []int{64, 37, 6} {
			b := w.Rows(23)
			b.Dropout.Seed, b.Dropout.Epoch = 0xfedcba9876543210, 77
			b.Rows = []int32{0, 3, 4, 11, 22}
			for _, rows := range [][]int32{nil, b.Rows} {
				n := 23
				if rows != nil {
					n = len(rows)
				}
				x := w.Filled(backend.Activation, n, cols, 1).(*Buffer)
				l := &backend.Linear{A: be.NewParam(1, cols), Dropout: p, Site: 0xabcde}
				leave := be.enter()
				d := be.dropping([]*backend.Linear{l}, b)
				if rows != nil {
					d.args.selected = be.batch(b).selected
				}
				keep, limit := d.of(l)
				got := operandValues(be, be.drop(x, l, d, limit), n, cols)
				leave()
				in := make([]float32, n*cols)
				x.Read(in)
				mask := make([]float32, cols)
				for i := range n {
					row := i
					if rows != nil {
						row = int(rows[i])
					}
					b.Dropout.Mask(mask, p, l.Site, row, b.Positions[row])
					for j, m := range mask {
						if want := in[i*cols+j] * m; got[i*cols+j]*keep != want {
							t.Fatalf("%s: [%d %d] of %d columns: %g times %g, want %g", compute, i, j, cols, got[i*cols+j], keep, want)
						}
					}
				}
			}
		}
	}
}

// TestLinearAllocations wants none once memory has grown.
func TestLinearAllocations(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, be.half)
		ls := []*backend.Linear{w.Linear(spec{In: 64, Out: 32, R: 8, Dropout: 0.1}, 1), w.Linear(spec{In: 64, Out: 32}, 2),
			w.Linear(spec{In: 64, Out: 32, R: 8, Quant: quant.NF4, Bias: true}, 3)}
		b := w.Rows(5)
		b.Changed()
		x, dy := w.Filled(backend.Activation, 5, 64, 1), w.Filled(backend.Activation, 5, 96, 1)
		y, h, dx := w.Buffer(backend.Activation, 96), w.Buffer(backend.Stat, 16), w.Buffer(backend.Activation, 64)
		gu, act, dact := w.Buffer(backend.Activation, 64), w.Buffer(backend.Activation, 32), w.Filled(backend.Activation, 5, 32, 1)
		run := func() {
			be.Linear(y, h, x, nil, ls, b)
			be.LinearBackward(dx, x, h, dy, ls, b)
			be.GateUp(act, gu, h, x, ls[0], ls[1], b)
			be.GateUpBackward(dx, x, gu, h, dact, ls[0], ls[1], b)
		}
		run()
		if n := testing.AllocsPerRun(3, run); n != 0 {
			t.Errorf("%s: %v allocations a run", compute, n)
		}
	}
}

// TestLinearNothing: no rows are no work, and all outputs have none.
func TestLinearNothing(t *testing.T) {
	be := emulated(t, "bf16")
	w := backendtest.NewWorld(be, true)
	ls := []*backend.Linear{w.Linear(spec{In: 16, Out: 8, R: 2}, 1), w.Linear(spec{In: 16, Out: 8}, 2)}
	b := w.Rows(0)
	x, dy, dact := w.Filled(backend.Activation, 0, 16, 1), w.Filled(backend.Activation, 0, 16, 1), w.Filled(backend.Activation, 0, 8, 1)
	y, h, dx, act := w.Filled(backend.Activation, 3, 16, 1), w.Filled(backend.Stat, 3, 2, 1), w.Filled(backend.Activation, 3, 16, 1), w.Filled(backend.Activation, 3, 8, 1)
	be.Linear(y, h, x, nil, ls, b)
	be.LinearBackward(dx, x, h, dy, ls, b)
	if y.Rows() != 0 || h.Rows() != 0 || dx.Rows() != 0 {
		t.Errorf("%d, %d and %d rows", y.Rows(), h.Rows(), dx.Rows())
	}
	be.GateUp(act, y, h, x, ls[0], ls[1], b)
	be.GateUpBackward(dx, x, y, h, dact, ls[0], ls[1], b)
	if act.Rows() != 0 {
		t.Errorf("%d rows", act.Rows())
	}
}

// TestLinearRefusals: shapes that do not fit are told with the linear's name and both numbers.
func TestLinearRefusals(t *testing.T) {
	be := emulated(t, "bf16")
	w := backendtest.NewWorld(be, true)
	l, other := w.Linear(spec{In: 16, Out: 8, R: 2}, 1), w.Linear(spec{In: 24, Out: 8}, 2)
	broken := *l
	broken.B = be.NewParam(8, 3)
	bias := *l
	bias.Bias = be.NewVector(make([]float32, 7))
	certain := *l
	certain.Dropout = 1
	one := func(l *backend.Linear) []*backend.Linear { return []*backend.Linear{l} }
	b := w.Rows(3)
	a := func(rows, cols int) backend.Buffer { return w.Filled(backend.Activation, rows, cols, 1) }
	h := w.Filled(backend.Stat, 3, 2, 1)
	for want, f := range map[string]func(){
		"linear1: weight [8, 16] of a linear [8, 16] for an input of 17 columns": func() { be.Linear(a(3, 8), h, a(3, 17), nil, one(l), b) },
		"linear2: weight [8, 24] of a linear":                                    func() { be.Linear(a(3, 16), h, a(3, 16), nil, []*backend.Linear{l, other}, b) },
		"linear1: the linears have 8 outputs, the matrix 9 columns":              func() { be.Linear(a(3, 9), h, a(3, 16), nil, one(l), b) },
		"linear1: h has 0 columns for ranks of 2":                                func() { be.Linear(a(3, 8), nil, a(3, 16), nil, one(l), b) },
		"linear1: A [2, 16] and B [8, 3] for a linear [8, 16]":                   func() { be.Linear(a(3, 8), h, a(3, 16), nil, one(&broken), b) },
		"linear1: a bias of 7 for 8 outputs":                                     func() { be.Linear(a(3, 8), h, a(3, 16), nil, one(&bias), b) },
		"linear1: rows added to the output: 4, want 3": func() {
			be.Linear(w.Buffer(backend.Residual, 8), h, a(3, 16), w.Filled(backend.Residual, 4, 8, 1), one(l), b)
		},
		"linear1: a dropout of 1":                  func() { be.Linear(a(3, 8), h, a(3, 16), nil, one(&certain), b) },
		"linear1: its input is needed":             func() { be.LinearBackward(a(3, 16), nil, h, a(3, 8), one(l), b) },
		"linear1: rows of the gradient: 4, want 3": func() { be.LinearBackward(nil, a(3, 16), h, a(4, 8), one(l), b) },
		"linear1: rows of h: 3, want 4":            func() { be.LinearBackward(nil, a(4, 16), h, a(4, 8), one(l), b) },
		"columns of up: 8, want 9": func() {
			nine := *l
			nine.Out = 9
			be.GateUp(a(3, 9), a(3, 17), h, a(3, 16), &nine, l, b)
		},
		"columns of gate and up: 15, want 16":     func() { be.SwiGLU(a(3, 8), a(3, 15)) },
		"rows of swiglu's gradient: 2, want 3":    func() { be.GateUpBackward(nil, a(3, 16), a(3, 16), h, a(2, 8), l, l, b) },
		"columns of swiglu's gradient: 7, want 8": func() { be.GateUpBackward(nil, a(3, 16), a(3, 16), h, a(3, 7), l, l, b) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
			}()
			f()
		}()
	}
}
