package gemm

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/parallel"
)

// twins returns the layouts of the assembly paths with their packing and arithmetic in plain Go.
func twins() []*kernels {
	all := []*kernels{&amxTwin}
	for _, k := range []kernels{
		{name: "twin of avx512_bf16", rows: 14, cols: 32, pairs: true},
		{name: "twin of avx512f", rows: 14, cols: 32},
		{name: "twin of avx2", rows: 6, cols: 16},
	} {
		k.pack = packGo
		k.multiply = func(t *tileProduct, f format) { multiplyTwin(t, k.cols, f) }
		all = append(all, &k)
	}
	return all
}

// paths returns every path that this machine can run.
func paths() []*kernels {
	var all []*kernels
	for s := range setNames {
		if has(set(s)) {
			all = append(all, kernelsOf(set(s)))
		}
	}
	return all
}

// mixed are paths of which this machine can run the packing, with other parts in plain Go.
var mixed []*kernels

// testPaths returns every path of which this machine can run a part.
func testPaths() []*kernels { return append(paths(), mixed...) }

// eachPath runs test on the paths, and, unless tests are to be short, on the twins.
func eachPath(t *testing.T, test func(t *testing.T, ker *kernels)) {
	all := testPaths()
	if !testing.Short() {
		all = append(all, twins()...)
	}
	for _, ker := range all {
		t.Run(ker.name, func(t *testing.T) { test(t, ker) })
	}
}

func engine(t testing.TB, ker *kernels, workers int) *Engine {
	pool := parallel.New(workers)
	t.Cleanup(pool.Close)
	return newEngine(ker, pool)
}

func random(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = rng.Float32()*2 - 1
	}
	return v
}

// encode stores v as a checkpoint would.
func encode(v []float32, d numeric.DType) []byte {
	var b []byte
	for _, f := range v {
		switch d {
		case numeric.F32:
			b = binary.NativeEndian.AppendUint32(b, math.Float32bits(f))
		case numeric.F16:
			b = binary.NativeEndian.AppendUint16(b, numeric.F32ToF16(f))
		default:
			b = binary.NativeEndian.AppendUint16(b, numeric.F32ToBF16(f))
		}
	}
	return b
}

func decode(b []byte, n int, d numeric.DType) []float32 {
	v := make([]float32, n)
	widen(v, operand{p: unsafe.Pointer(&b[0]), dtype: d}, 1)
	return v
}

// rounded returns v as products in c see it.
func rounded(v []float32, c Compute) []float32 {
	if c == F32 {
		return v
	}
	r := make([]float32, len(v))
	for i, f := range v {
		r[i] = numeric.BF16ToF32(numeric.F32ToBF16(f))
	}
	return r
}

// matrix is a float32 matrix for references.
type matrix struct {
	v        []float32
	row, col int
}

// compare checks c against alpha*a b + add in float64: |error| <= tolerance * (|alpha| sum |a b| + |add|).
func compare(t *testing.T, c []float32, ldc, m, n, k int, alpha float64, a, b matrix, add []float32, ldadd int) {
	t.Helper()
	const tolerance = 1e-6
	for i := range m {
		for j := range n {
			var sum, size float64
			for l := range k {
				v := alpha * float64(a.v[i*a.row+l*a.col]) * float64(b.v[l*b.row+j*b.col])
				sum += v
				size += math.Abs(v)
			}
			if add != nil {
				sum += float64(add[i*ldadd+j])
				size += math.Abs(float64(add[i*ldadd+j]))
			}
			if err := math.Abs(float64(c[i*ldc+j]) - sum); !(err <= tolerance*size) {
				t.Fatalf("[%d, %d, %d]: element (%d, %d) is %g, want %g: off by %.3g of the terms", m, n, k, i, j, c[i*ldc+j], sum, err/size)
			}
		}
	}
}

var dtypes = [...]numeric.DType{numeric.F32, numeric.F16, numeric.BF16}

// shapes of products: m rows, n columns, k places.
var shapes = [][3]int{
	{1, 1, 1}, {1, 3, 5}, {3, 1, 7}, {2, 2, 2}, {5, 17, 3}, {7, 33, 17}, {17, 5, 33}, {4, 100, 31}, {14, 32, 64},
	{15, 31, 65}, {29, 64, 16}, {33, 100, 100}, {100, 33, 7}, {1, 40, 517}, {3, 33, 1031}, {130, 35, 259},
}

const largeWork = 1 << 16 // multiplications of a shape that tests do less often

func TestWeightProducts(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		e := engine(t, ker, 2)
		rng := rand.New(rand.NewPCG(1, 2))
		var packed Packed
		for _, s := range shapes {
			for _, d := range dtypes {
				for _, c := range []Compute{F32, BF16} {
					if s[0]*s[1]*s[2] <= largeWork || !testing.Short() {
						testWeight(t, e, rng, &packed, s[0], s[1], s[2], d, c)
					}
				}
			}
		}
	})
}

func testWeight(t *testing.T, e *Engine, rng *rand.Rand, packed *Packed, m, n, k int, d numeric.DType, c Compute) {
	t.Helper()
	ldx, ldy, ldadd := k+rng.IntN(4), n+rng.IntN(4), n+rng.IntN(4)
	x, add := random(rng, m*ldx), random(rng, m*ldadd)
	data := append(make([]byte, 1), encode(random(rng, n*k), d)...)[1:] // unaligned
	w := rounded(decode(data, n*k, d), c)
	e.Pack(packed, c, x, m, k, ldx)
	x = rounded(x, c)
	for _, forward := range []bool{true, false} {
		product, b, weight := e.Forward, matrix{w, 1, k}, Weight{DType: d, Rows: n, Cols: k, Data: data}
		if !forward { // the same numbers as a weight [k, n]
			product, b, weight = e.Backward, matrix{w, n, 1}, Weight{DType: d, Rows: k, Cols: n, Data: data}
		}
		y := random(rng, m*ldy)
		before := append([]float32(nil), y...)
		product(y, ldy, packed, weight, nil, 0)
		compare(t, y, ldy, m, n, k, 1, matrix{x, ldx, 1}, b, nil, 0)
		checkGaps(t, y, before, m, n, ldy)
		product(y, ldy, packed, weight, add, ldadd)
		compare(t, y, ldy, m, n, k, 1, matrix{x, ldx, 1}, b, add, ldadd)
		copy(y, before)
		product(y, ldy, packed, weight, y, ldy)
		compare(t, y, ldy, m, n, k, 1, matrix{x, ldx, 1}, b, before, ldy)
		checkGaps(t, y, before, m, n, ldy)
	}
}

// checkGaps fails if something was written between the rows.
func checkGaps(t *testing.T, y, before []float32, m, n, ld int) {
	t.Helper()
	for i := range m {
		for j := i*ld + n; j < min(len(y), (i+1)*ld); j++ {
			if y[j] != before[j] {
				t.Fatalf("[%d, %d]: column %d of row %d was overwritten", m, n, j-i*ld, i)
			}
		}
	}
}

func TestGemm(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		e := engine(t, ker, 2)
		rng := rand.New(rand.NewPCG(3, 4))
		for _, s := range shapes {
			for i := range 16 {
				if s[0]*s[1]*s[2] <= largeWork || i%5 == 0 && !testing.Short() {
					testGemm(t, e, rng, s[0], s[1], s[2], i, F32)
				}
			}
		}
	})
}

// RoundGemm rounds on tiles, and nowhere else.
func TestRoundGemm(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		e := engine(t, ker, 2)
		e.RoundGemm()
		c := F32
		if ker.tiles != nil {
			c = BF16
		}
		rng := rand.New(rand.NewPCG(33, 34))
		for _, s := range shapes {
			for i := range 16 {
				if s[0]*s[1]*s[2] <= largeWork/8 {
					testGemm(t, e, rng, s[0], s[1], s[2], i, c)
				}
			}
		}
	})
}

func testGemm(t *testing.T, e *Engine, rng *rand.Rand, m, n, k, variant int, compute Compute) {
	t.Helper()
	stride := func(kind, rows, cols int) (View, matrix) {
		var r, c int
		switch kind {
		case 0:
			r, c = cols+rng.IntN(3), 1
		case 1:
			r, c = 1, rows+rng.IntN(3)
		case 2:
			r, c = 2*cols+1, 2
		default:
			r, c = 0, 1 // one row again and again
		}
		v := random(rng, (rows-1)*r+(cols-1)*c+1)
		return View{v, r, c}, matrix{rounded(v, compute), r, c}
	}
	va, a := stride(variant%4, m, k)
	vb, b := stride(variant/4%4, k, n)
	alpha := []float32{1, 0.125, -3, 0.7}[variant%4]
	ldc := n + rng.IntN(3)
	for _, accumulate := range []bool{false, true} {
		for _, product := range []func(c []float32, ldc, m, n, k int, alpha float32, a, b View, accumulate bool){
			e.Gemm,
			func(c []float32, ldc, m, n, k int, alpha float32, a, b View, accumulate bool) {
				e.GemmOn(1, c, ldc, m, n, k, alpha, a, b, accumulate)
			},
		} {
			c := random(rng, (m-1)*ldc+n)
			before := append([]float32(nil), c...)
			product(c, ldc, m, n, k, alpha, va, vb, accumulate)
			var add []float32
			if accumulate {
				add = before
			}
			compare(t, c, ldc, m, n, k, float64(alpha), a, b, add, ldc)
			checkGaps(t, c, before, m, n, ldc)
		}
	}
}

// A row's result must have the same bits for any number of workers and whatever other rows there are.
func TestSameBitsForThreadsAndRows(t *testing.T) {
	const n, k = 45, 1100
	eachPath(t, func(t *testing.T, ker *kernels) {
		rng := rand.New(rand.NewPCG(5, 6))
		for _, d := range dtypes {
			for _, c := range []Compute{F32, BF16} {
				x := random(rng, 70*k)
				w := Weight{DType: d, Rows: n, Cols: k, Data: encode(random(rng, n*k), d)}
				back := Weight{DType: d, Rows: k, Cols: n, Data: w.Data}
				want, wantBack := make([]float32, 70*n), make([]float32, 70*n)
				got, gotBack := make([]float32, 70*n), make([]float32, 70*n)
				var packed Packed
				for workers := 1; workers <= 4; workers++ {
					e := engine(t, ker, workers)
					for _, m := range []int{70, 1, 2, 13, 31} {
						e.Pack(&packed, c, x, m, k, k)
						e.Forward(got, n, &packed, w, nil, 0)
						e.Backward(gotBack, n, &packed, back, nil, 0)
						if workers == 1 && m == 70 {
							copy(want, got)
							copy(wantBack, gotBack)
						}
						same(t, fmt.Sprintf("forward %v %v, %d rows, %d workers", d, c, m, workers), got[:m*n], want)
						same(t, fmt.Sprintf("backward %v %v, %d rows, %d workers", d, c, m, workers), gotBack[:m*n], wantBack)
					}
				}
			}
		}
	})
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %g, want %g", what, i, v, want[i])
		}
	}
}

func TestGemmSameBits(t *testing.T) {
	const m, n, k = 61, 40, 600
	eachPath(t, func(t *testing.T, ker *kernels) {
		rng := rand.New(rand.NewPCG(7, 8))
		a, b := random(rng, m*k), random(rng, k*n)
		want, got := make([]float32, m*n), make([]float32, m*n)
		for workers := 1; workers <= 4; workers++ {
			e := engine(t, ker, workers)
			for _, rows := range []int{m, 1, 9} {
				e.Gemm(got, n, rows, n, k, 0.3, View{a, k, 1}, View{b, n, 1}, false)
				if workers == 1 && rows == m {
					copy(want, got)
				}
				same(t, fmt.Sprintf("%d rows, %d workers", rows, workers), got[:rows*n], want)
			}
			e.GemmOn(workers-1, got, n, m, n, k, 0.3, View{a, k, 1}, View{b, n, 1}, false)
			same(t, "GemmOn", got, want)
		}
	})
}

// TestAhead checks that what kernels fetch of a weight are the rows that are packed next, all of them and nothing else.
func TestAhead(t *testing.T) {
	const rows, cols, size = 1100, 1300, 2 // three blocks either way
	data := make([]byte, rows*cols*size)
	for _, forward := range []bool{true, false} {
		w := Weight{DType: numeric.BF16, Rows: rows, Cols: cols, Data: data}
		n, k := rows, cols
		if !forward {
			n, k = k, n
		}
		p := product{e: &Engine{ker: &kernels{cols: 32}}, n: n, red: cut(k, pairsBF16), b: w.operand(forward)}
		last := (n + 31) / 32
		for _, c := range []struct{ b, j, g, j0, j1, wantB, wantJ int }{
			{0, 0, 8, 0, 8, 1, 0},
			{1, 8, 8, 8, 18, 1, 16},
			{1, last - 3, 3, last - 3, last, 2, last - 3},
		} {
			got := map[int]bool{} // cache lines, by their offset
			a := p.ahead(c.b, c.j, c.g, c.j0, c.j1)
			for range 10000 {
				at, stride := a.next(0, 60)
				if stride == 0 {
					break
				}
				for i := 0; i < 60 && a.p <= at && at < a.p+uintptr(a.rows*a.ld); i++ {
					got[int(at-uintptr(unsafe.Pointer(&data[0])))] = true
					at += uintptr(stride)
				}
			}
			k0, width, _ := p.red.span(c.wantB)
			row, lines := c.wantJ*32, (width*size+63)/64
			height := min(c.g*32, n-row)
			col := k0
			if !forward {
				row, col, height, lines = k0, row, width, (height*size+63)/64
			}
			if len(got) != height*lines {
				t.Errorf("forward %v, %+v: %d lines, want %d rows of %d", forward, c, len(got), height, lines)
			}
			for r := range height {
				for l := range lines {
					if at := ((row+r)*cols+col)*size + 64*l; !got[at] {
						t.Fatalf("forward %v, %+v: line %d of row %d is not fetched", forward, c, l, r)
					}
				}
			}
		}
		if a := p.ahead(p.red.blocks-1, 0, 8, 0, 8); a != (ahead{}) {
			t.Errorf("forward %v: %+v after the last block", forward, a)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	const m, n, k = 20, 70, 300
	for _, ker := range testPaths() {
		e := engine(t, ker, 2)
		rng := rand.New(rand.NewPCG(9, 10))
		x, y := random(rng, m*k), make([]float32, m*n)
		w := Weight{DType: numeric.BF16, Rows: n, Cols: k, Data: encode(random(rng, n*k), numeric.BF16)}
		back := Weight{DType: numeric.BF16, Rows: k, Cols: n, Data: w.Data}
		b := View{random(rng, n*k), n, 1}
		var packed Packed
		for _, c := range []Compute{F32, BF16} {
			e.Pack(&packed, c, x, m, k, k)
			for name, call := range map[string]func(){
				"Pack":     func() { e.Pack(&packed, c, x, m, k, k) },
				"Forward":  func() { e.Forward(y, n, &packed, w, nil, 0) },
				"Backward": func() { e.Backward(y, n, &packed, back, y, n) },
				"Gemm":     func() { e.Gemm(y, n, m, n, k, 2, View{x, k, 1}, b, true) },
				"GemmOn":   func() { e.GemmOn(1, y, n, m, n, k, 2, View{x, k, 1}, b, true) },
			} {
				call()                     // grows the scratch
				for w := range e.workers { // whoever ran the pieces so far
					work := &e.workers[w]
					work.panels = grow(work.panels, groupPanels*blockSteps*ker.cols)
					work.tiles = grow(work.tiles, 2*m*blockSteps)
					work.partial = grow(work.partial, 3*blockWords)
					work.block = grow(work.block, blockWords)
				}
				if allocs := testing.AllocsPerRun(5, call); allocs != 0 {
					t.Errorf("%s: %s in %v: %v allocations", ker.name, name, c, allocs)
				}
			}
		}
	}
}

func TestMisuse(t *testing.T) {
	e := engine(t, &goKernels, 1)
	var packed Packed
	x := make([]float32, 12)
	e.Pack(&packed, F32, x, 3, 4, 4)
	data := make([]byte, 4*5*2)
	for name, call := range map[string]func(){
		"x too short":       func() { e.Pack(new(Packed), F32, x, 4, 4, 4) },
		"no rows":           func() { e.Pack(new(Packed), F32, x, 0, 4, 4) },
		"leading dimension": func() { e.Pack(new(Packed), F32, x, 1, 4, 3) },
		"weight too short": func() {
			e.Forward(make([]float32, 18), 6, &packed, Weight{DType: numeric.BF16, Rows: 6, Cols: 4, Data: data}, nil, 0)
		},
		"type": func() {
			e.Forward(make([]float32, 15), 5, &packed, Weight{DType: numeric.I8, Rows: 5, Cols: 4, Data: data}, nil, 0)
		},
		"columns": func() {
			e.Forward(make([]float32, 15), 5, &packed, Weight{DType: numeric.BF16, Rows: 4, Cols: 5, Data: data}, nil, 0)
		},
		"result too short": func() {
			e.Forward(make([]float32, 14), 5, &packed, Weight{DType: numeric.BF16, Rows: 5, Cols: 4, Data: data}, nil, 0)
		},
		"add too short": func() {
			e.Forward(make([]float32, 15), 5, &packed, Weight{DType: numeric.BF16, Rows: 5, Cols: 4, Data: data}, x[:9], 5)
		},
		"a too short":         func() { e.Gemm(make([]float32, 4), 2, 2, 2, 7, 1, View{x, 7, 1}, View{x, 1, 0}, false) },
		"negative row stride": func() { e.Gemm(make([]float32, 4), 2, 2, 2, 2, 1, View{x, -2, 1}, View{x, 1, 2}, false) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

func TestParse(t *testing.T) {
	for s, name := range setNames {
		f, err := Parse(name)
		if (err == nil) != has(set(s)) {
			t.Errorf("%s: error %v, while the CPU has it: %v", name, err, has(set(s)))
		}
		if err == nil && f.String() != name {
			t.Errorf("%s parses as %v", name, f)
		}
		if err == nil && New(f, parallel.New(1)).Name() != name {
			t.Errorf("%s runs other kernels", name)
		}
	}
	if _, err := Parse("sse"); err == nil {
		t.Error("sse is not one of ours")
	}
	if f := Detect(); !has(f.set) {
		t.Errorf("%v is not what this CPU has", f)
	}
}
