package cpu

import (
	"math"
	"strings"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

func small(t testing.TB) *Backend {
	t.Helper()
	return path{"go", "f32"}.open(t, 1)
}

func TestBuffer(t *testing.T) {
	be := small(t)
	for _, k := range []backend.Kind{residual, activation, stat} {
		for _, cols := range []int{1, 15, 16, 17, 1024, 4096, 5000} {
			b := be.NewBuffer(k, cols).(*Buffer)
			if b.Kind() != k || b.Cols() != cols || b.Rows() != 0 {
				t.Fatalf("kind %d, [%d, %d]", b.Kind(), b.Rows(), b.Cols())
			}
			b.Resize(3)
			if p := uintptr(unsafe.Pointer(&b.v[0])); p%64 != 0 {
				t.Errorf("%d columns: rows begin at %#x", cols, p)
			}
			if k != stat && (b.ld%16 != 0 || b.ld%1024 == 0) {
				t.Errorf("%d columns: rows lie %d apart", cols, b.ld)
			}
			in, out := make([]float32, 3*cols), make([]float32, 3*cols)
			for i := range in {
				in[i] = float32(i)
			}
			b.Write(in)
			b.Read(out)
			if !backendtest.SameBits(in, out) {
				t.Errorf("%d columns: what is read is not what was written", cols)
			}
			held := b.Bytes()
			b.Resize(1)
			b.Resize(3)
			if b.Bytes() != held || held < int64(12*cols) {
				t.Errorf("%d columns: %d bytes, then %d", cols, held, b.Bytes())
			}
		}
	}
}

func TestNewWeight(t *testing.T) {
	be := small(t)
	for want, m := range map[string]backend.Matrix{
		"I64":                    {Name: "a", DType: numeric.I64, Rows: 2, Cols: 2, Data: make([]byte, 32)},
		"b: a matrix [0, 2]":     {Name: "b", DType: numeric.F32, Rows: 0, Cols: 2},
		"c: 15 bytes":            {Name: "c", DType: numeric.F32, Rows: 2, Cols: 2, Data: make([]byte, 15)},
		"d: 17 bytes":            {Name: "d", DType: numeric.BF16, Rows: 4, Cols: 2, Data: make([]byte, 17)},
		"[4611686018427387904, ": {Name: "e", DType: numeric.F16, Rows: 1 << 62, Cols: 2},
		"f: a matrix [2, -1]":    {Name: "f", DType: numeric.F16, Rows: 2, Cols: -1},
		"g: 75 bytes for a matrix [2, 64] in nf4, which takes 76": {Name: "g", Quant: quant.NF4, Rows: 2, Cols: 64, Data: make([]byte, 75)},
		"h: a matrix in int8 that has elements of BF16 as well":   {Name: "h", Quant: quant.Int8, DType: numeric.BF16, Rows: 1, Cols: 64, Data: make([]byte, 68)},
	} {
		_, err := be.NewWeight(m)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
	data := make([]byte, 12)
	w, err := be.NewWeight(backend.Matrix{DType: numeric.F16, Rows: 2, Cols: 3, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if r, c := w.Shape(); r != 2 || c != 3 || &w.(*weight).Data[0] != &data[0] {
		t.Errorf("[%d, %d], or the bytes were copied", r, c)
	}
}

func TestParam(t *testing.T) {
	p := small(t).NewParam(2, 3)
	if r, c := p.Shape(); r != 2 || c != 3 || p.Bytes() != 48 {
		t.Errorf("[%d, %d], %d bytes", r, c, p.Bytes())
	}
	m, v := []float32{9, 9, 9, 9, 9, 9}, []float32{9, 9, 9, 9, 9, 9}
	p.ReadMoments(m, v)
	if m[5] != 0 || v[5] != 0 || p.Bytes() != 48 {
		t.Errorf("moments before the first step: %v, %v, %d bytes", m, v, p.Bytes())
	}
	p.WriteMoments([]float32{1, 2, 3, 4, 5, 6}, []float32{6, 5, 4, 3, 2, 1})
	p.ReadMoments(m, v)
	if m[5] != 6 || v[5] != 1 || p.Bytes() != 96 {
		t.Errorf("moments written: %v, %v, %d bytes", m, v, p.Bytes())
	}
}

// TestAdamW has four steps of torch.optim.AdamW (torch 2.15, foreach=False) with gradients that change sign. PyTorch
// fuses some products and sums, others not, by the place in the tensor: the last bits are not to be had.
func TestAdamW(t *testing.T) {
	for _, c := range []struct {
		o       backend.AdamW
		p, m, v []float32
	}{
		{backend.AdamW{LR: 0.0003, Beta1: 0.9, Beta2: 0.999, Eps: 1e-08},
			[]float32{0.499265879, -1.24926579, 2.99927187, 0, 0.000265878509},
			[]float32{0.0264400002, -0.528799951, 2.64400001e-07, 0, 7.93200015e-05},
			[]float32{0.000134885064, 0.0539540239, 1.34885059e-14, 0, 1.21396559e-09}},
		{backend.AdamW{LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-08, WeightDecay: 0.1},
			[]float32{0.473581761, -1.2205863, 2.96379757, 0, -0.0234245602},
			[]float32{0.0264400002, -0.528799951, 2.64400001e-07, 0, 7.93200015e-05},
			[]float32{0.000134885064, 0.0539540239, 1.34885059e-14, 0, 1.21396559e-09}},
		{backend.AdamW{LR: 0.001, Beta1: 0.3, Beta2: 0.95, Eps: 1e-06, WeightDecay: 0.01},
			[]float32{0.497788519, -1.24775839, 2.99867392, 0, -0.00118539133},
			[]float32{0.144339994, -2.88680005, 1.44339992e-06, 0, 0.000433020003},
			[]float32{0.00646900013, 2.58759999, 6.4689996e-13, 0, 5.82210014e-08}},
	} {
		be := small(t)
		p := be.NewParam(1, 5).(*Param)
		p.Write([]float32{0.5, -1.25, 3, 0, 1e-3})
		for s := range 4 {
			sign := float32(1)
			if s == 2 {
				sign = -1
			}
			for i, g := range []float32{0.1, -2, 1e-6, 0, 3e-4} {
				p.grad[i] = g * (1 + float32(s)*0.5) * sign
			}
			c.o.Step = s + 1
			be.AdamW([]backend.Param{p}, c.o)
		}
		for name, pair := range map[string][2][]float32{"p": {p.value, c.p}, "m": {p.m, c.m}, "v": {p.v, c.v}} {
			for i, got := range pair[0] {
				if want := pair[1][i]; math.Abs(float64(got-want)) > 3e-7*math.Abs(float64(want)) {
					t.Errorf("lr %v: %s[%d] = %.9g, torch has %.9g", c.o.LR, name, i, got, want)
				}
			}
		}
	}
}

func TestSumSquaresOrder(t *testing.T) {
	be := small(t)
	const n = 3*optimBlock + 17
	p, q := be.NewParam(1, n).(*Param), be.NewParam(1, 1).(*Param)
	var want float64
	for i := range p.grad {
		p.grad[i] = float32(i%1000) / 7
		want += float64(p.grad[i]) * float64(p.grad[i])
	}
	q.grad[0] = 3
	if got := be.SumSquares([]backend.Param{p, q}); math.Abs(got-want-9) > 1e-12*want {
		t.Errorf("%v, want %v", got, want+9)
	}
	if got := be.SumSquares(nil); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestCache(t *testing.T) {
	be := small(t)
	a := &backend.Attention{Heads: 2, KVHeads: 1, HeadDim: 2, Scale: 1}
	c := be.NewCache(a).(*cache)
	s := c.at(2, 3)
	s.n = 3
	for i := range s.v {
		s.v[i] = float32(i)
	}
	before := c.Bytes()
	c.Copy(0, 2, 2)
	c.Copy(5, 0, 2) // makes slots
	c.Truncate(2, 1)
	if got := c.slots[5]; got.n != 2 || got.v[7] != 7 {
		t.Errorf("copied %d positions, %v", got.n, got.v[:8])
	}
	if c.slots[2].n != 1 || c.Bytes() <= before {
		t.Errorf("%d positions left, %d bytes after %d", c.slots[2].n, c.Bytes(), before)
	}
	grown := c.at(5, 1000)
	if len(grown.v) < 4000 || grown.v[7] != 7 {
		t.Errorf("growing lost what was held")
	}
	for want, f := range map[string]func(){
		"5 positions of cache slot 2": func() { c.Truncate(2, 5) },
		"3 positions of cache slot 0": func() { c.Copy(1, 0, 3) },
		"cache slot -1":               func() { c.Truncate(-1, 0) },
	} {
		mustPanic(t, want, f)
	}
}

func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		got, _ := recover().(string)
		if !strings.Contains(got, want) {
			t.Errorf("panic %q, want it to say %q", got, want)
		}
	}()
	f()
}
