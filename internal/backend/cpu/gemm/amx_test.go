package gemm

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
)

// amxTwin is amx in plain Go: the definition of its layouts and of its arithmetic.
var amxTwin = kernels{name: "twin of amx", rows: 14, cols: blockRows, pack: packGo,
	multiply: func(t *tileProduct, f format) { multiplyTwin(t, blockRows, f) },
	tiles: &tileKernels{pack: packTilesGo, multiply: multiplyTilesTwin, finish: finishTilesTwin, fence: func() {},
		ceiling: func(p unsafe.Pointer, _ int) { dotTileTwin(new([blockWords]float32), p, p) }}} // a twin has no rate

// multiplyTilesTwin does what the tile kernels do.
func multiplyTilesTwin(t *tileCall, f tileFlags) {
	for r := range t.blocks {
		var sums [blockWords]float32
		for k := range t.ksteps {
			a := unsafe.Add(t.a, (r*t.ksteps+k)*2*tileBytes)
			dotTileTwin(&sums, a, unsafe.Add(t.b, k*2*tileBytes))
		}
		kept := unsafe.Slice((*float32)(unsafe.Add(t.sums, r*4*blockWords)), blockWords*int(1-min(1, f&toResult)|f&addSums))
		for i, v := range sums {
			row, col := r*blockRows+i/blockRows, i%blockRows
			switch {
			case f&addSums != 0:
				v = fused(t.alpha, v, kept[i])
			case f&addAdd != 0:
				v = fused(t.alpha, v, *(*float32)(unsafe.Add(t.add, row*t.ldadd+4*col)))
			default:
				v *= t.alpha
			}
			if f&toResult != 0 {
				*(*float32)(unsafe.Add(t.out, row*t.ldout+4*col)) = v
			} else {
				kept[i] = v
			}
		}
	}
}

// dotTileTwin is four TDPBF16PS (Intel SDM, volume 2): of a k step, places 0, 2, 4... are summed from zero, and places 1, 3,
// 5...; then the two sums, and what was there. Each step rounds to nearest even. Denormals are zeros, as operands and as
// results.
func dotTileTwin(sums *[blockWords]float32, a, b unsafe.Pointer) {
	for i := range blockRows {
		x := (*[tileSteps]uint32)(unsafe.Add(a, i/tileRows*tileBytes+i%tileRows*64))
		for j := range blockRows {
			var even, odd float32
			for s := range tileSteps {
				y := *(*uint32)(unsafe.Add(b, s*4*blockRows+4*j))
				even = flushed(float64(half16(x[s]))*float64(half16(y)) + float64(even))
				odd = flushed(float64(half16(x[s]>>16))*float64(half16(y>>16)) + float64(odd))
			}
			both := flushed(float64(even) + float64(odd))
			at := i*blockRows + j
			sums[at] = flushed(float64(sums[at]) + float64(both))
		}
	}
}

// half16 is the bfloat16 in the low half of v, a denormal being zero.
func half16(v uint32) float32 {
	if v&0x7f80 == 0 {
		v &= 0x8000
	}
	return asFloat(v << 16)
}

// flushed rounds v, the exact sum of a float32 and a product of two bfloat16, to float32; what is denormal becomes zero. The
// way over float64 does not round twice: where v has more bits than float64, one of the two terms is far below a half
// of the other's last place in float32.
func flushed(v float64) float32 {
	const least = 0x1p-126
	if math.Abs(v) <= least && math.Abs(float64(float32(v*0x1p64))) < least*0x1p64 {
		return float32(math.Copysign(0, v))
	}
	return float32(v)
}

func fused(a, b, c float32) float32 {
	return float32(math.FMA(float64(a), float64(b), float64(c)))
}

func finishTilesTwin(t *tileCall) {
	for r := range t.rows {
		for c := range t.cols {
			v := *(*float32)(unsafe.Add(t.sums, 4*(r*blockRows+c)))
			if t.add != nil {
				v = fused(t.alpha, v, *(*float32)(unsafe.Add(t.add, r*t.ldadd+4*c)))
			} else {
				v *= t.alpha
			}
			*(*float32)(unsafe.Add(t.out, r*t.ldout+4*c)) = v
		}
	}
}

// TestTileOrder: the order of TDPBF16PS in numbers that show it.
func TestTileOrder(t *testing.T) {
	const big, small = 0x1p30, 1
	row := func(v map[int]float32) (w [tileSteps]uint32) {
		for place, f := range v {
			w[place/2] |= uint32(numeric.F32ToBF16(f)) << (16 * (place % 2))
		}
		return w
	}
	for _, c := range []struct {
		name string
		x    map[int]float32
		sum  float32
		want float32
	}{
		{"even places are summed apart from odd ones", map[int]float32{0: big, 1: small, 2: -big, 3: small}, 0, 2},
		{"in order", map[int]float32{0: big, 2: small, 4: -big}, 0, 0},
		{"from zero, not from what was there", map[int]float32{0: small, 2: small}, big, big},
		{"what was there comes last", map[int]float32{0: -big, 1: small}, big, 0},
	} {
		var a [2][tileRows][tileSteps]uint32
		var b [tileSteps][blockRows]uint32
		var sums [blockWords]float32
		a[1][2] = row(c.x)
		for s := range b {
			b[s][5] = 0x3f803f80 // ones
		}
		at := (tileRows+2)*blockRows + 5
		sums[at] = c.sum
		dotTileTwin(&sums, unsafe.Pointer(&a), unsafe.Pointer(&b))
		if sums[at] != c.want {
			t.Errorf("%s: %g, want %g", c.name, sums[at], c.want)
		}
	}
	var a [2][tileRows][tileSteps]uint32
	var b [tileSteps][blockRows]uint32
	var sums [blockWords]float32
	a[0][0][0], b[0][0] = 0x0001, 0x7f00 // a denormal times 2^127
	a[0][1][1], b[1][1] = 0x2000, 0x1f00 // a denormal result: 2^-63 * 2^-65
	dotTileTwin(&sums, unsafe.Pointer(&a), unsafe.Pointer(&b))
	for i, v := range sums {
		if v != 0 {
			t.Errorf("denormals: element %d is %g, want 0", i, v)
		}
	}
}

// tileCalls runs test on calls of all kinds: operands and what is added are random, results lie in memory of got or want.
func tileCalls(test func(name string, f tileFlags, call tileCall, got, want *tileMemory)) {
	rng := rand.New(rand.NewPCG(41, 42))
	for f := range tileModes {
		if f&addSums != 0 && f&addAdd != 0 || f&pastCaches != 0 && f&(toResult|addAdd) != toResult {
			continue
		}
		for _, s := range [][2]int{{1, 1}, {1, 40}, {2, 3}, {3, 16}, {2, 17}, {3, 15}} {
			blocks, steps := s[0], s[1]
			pairs := func(n int) unsafe.Pointer {
				v := grow(nil, n)
				for i := range v {
					v[i] = uint32(numeric.F32ToBF16(rng.Float32()*2-1)) | uint32(numeric.F32ToBF16(rng.Float32()*2-1))<<16
				}
				return unsafe.Pointer(&v[0])
			}
			got, want := newTileMemory(rng, blocks)
			call := tileCall{a: pairs(blocks * steps * stepWords), b: pairs(steps * stepWords), blocks: blocks, ksteps: steps,
				alpha: []float32{1, -0.3}[rng.IntN(2)], ldout: 4 * tileMemoryLd, ldadd: 4 * tileMemoryLd,
				scratch: unsafe.Pointer(&grow(nil, blockWords)[0])}
			add := grow(nil, blocks*blockRows*tileMemoryLd)
			for i := range add {
				add[i] = math.Float32bits(rng.Float32()*2 - 1)
			}
			call.add = unsafe.Pointer(&add[0])
			test(fmt.Sprintf("flags %b, %d blocks of %d k steps", f, blocks, steps), f, call, got, want)
		}
	}
}

const tileMemoryLd = 48

// tileMemory is what a kernel writes.
type tileMemory struct{ sums, out []uint32 }

func newTileMemory(rng *rand.Rand, blocks int) (got, want *tileMemory) {
	got = &tileMemory{grow(nil, blocks*blockWords), grow(nil, blocks*blockRows*tileMemoryLd)}
	want = &tileMemory{grow(nil, len(got.sums)), grow(nil, len(got.out))}
	for i := range got.sums {
		got.sums[i] = math.Float32bits(rng.Float32()*2 - 1)
	}
	for i := range got.out {
		got.out[i] = rng.Uint32()
	}
	copy(want.sums, got.sums)
	copy(want.out, got.out)
	return got, want
}

func (m *tileMemory) in(call *tileCall) *tileCall {
	call.sums, call.out = unsafe.Pointer(&m.sums[0]), unsafe.Pointer(&m.out[0])
	return call
}

func (m *tileMemory) same(t *testing.T, name string, want *tileMemory) {
	t.Helper()
	for i, v := range m.sums {
		if v != want.sums[i] {
			t.Fatalf("%s: sum %d is %g, want %g", name, i, asFloat(v), asFloat(want.sums[i]))
		}
	}
	for i, v := range m.out {
		if v != want.out[i] {
			t.Fatalf("%s: row %d, column %d is %g, want %g", name, i/tileMemoryLd, i%tileMemoryLd, asFloat(v), asFloat(want.out[i]))
		}
	}
}

// The kernels must have the bits of their twin.
func TestTileKernels(t *testing.T) {
	if !has(amx) {
		t.Log("this CPU has no AMX, or the system does not let it be used: nothing to compare")
		return
	}
	tiles := kernelsOf(amx).tiles
	tileCalls(func(name string, f tileFlags, call tileCall, got, want *tileMemory) {
		c := call
		tiles.multiply(got.in(&c), f)
		c = call
		multiplyTilesTwin(want.in(&c), f)
		got.same(t, name, want)
	})
}

// The layouts: a product through the twin is the one of the definition, element by element.
func TestTileLayout(t *testing.T) {
	const m, k = 50, 70
	rng := rand.New(rand.NewPCG(43, 44))
	x := random(rng, m*k)
	e := engine(t, &amxTwin, 1)
	var p Packed
	e.Pack(&p, BF16, x, m, k, k)
	if want := 2 * ksteps(k) * stepWords; len(p.buf) != want {
		t.Fatalf("%d dwords, want %d", len(p.buf), want)
	}
	for r := range m {
		for place := range roundUp(k, tilePlaces) {
			want := uint16(0)
			if place < k {
				want = numeric.F32ToBF16(x[r*k+place])
			}
			// 32 rows, k steps, upper and lower tile, rows of 64 bytes
			at := ((r/32*ksteps(k)+place/32)*2+r%32/16)*512 + r%16*32 + place%32
			if got := unsafe.Slice((*uint16)(unsafe.Pointer(&p.buf[0])), 2*len(p.buf))[at]; got != want {
				t.Fatalf("row %d, place %d is %#04x, want %#04x", r, place, got, want)
			}
		}
	}
}

// Shapes that are cut into strips of rows, slabs of panels and spans of the reduction, and results that go past the caches:
// right, and with the bits that a row has alone.
func TestTileBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the twin takes its time")
	}
	all := testPaths()
	if !slices.ContainsFunc(all, func(ker *kernels) bool { return ker.tiles != nil }) {
		all = append(all, &amxTwin)
	}
	for _, ker := range all {
		if ker.tiles == nil {
			continue
		}
		for i, s := range [][3]int{{550, 40, 2080}, {40, 1090, 700}, {530, 1056, 33}, {520, 1056, 520}} {
			t.Run(fmt.Sprintf("%s/%v", ker.name, s), func(t *testing.T) { testTileBlocks(t, ker, s[0], s[1], s[2], i%2 == 1) })
		}
	}
}

func testTileBlocks(t *testing.T, ker *kernels, m, n, k int, plus bool) {
	rng := rand.New(rand.NewPCG(uint64(m), uint64(n)))
	ld := roundUp(n, 16)
	x, y, lines := random(rng, m*k), make([]float32, m*ld), grow(nil, m*ld)
	line := unsafe.Slice((*float32)(unsafe.Pointer(&lines[0])), len(lines)) // begins at a cache line
	var add []float32
	if plus {
		add = random(rng, m*ld)
	}
	data := encode(random(rng, n*k), numeric.BF16)
	v := decode(data, n*k, numeric.BF16)
	e := engine(t, ker, 2)
	for _, forward := range []bool{true, false} {
		w, b, product := Weight{DType: numeric.BF16, Rows: n, Cols: k, Data: data}, matrix{v, 1, k}, e.Forward
		if !forward {
			w.Rows, w.Cols, b, product = k, n, matrix{v, n, 1}, e.Backward
		}
		var p Packed
		e.Pack(&p, BF16, x, m, k, k)
		product(line, ld, &p, w, add, ld)
		compare(t, line, ld, m, n, k, 1, matrix{rounded(x, BF16), k, 1}, b, add, ld)
		for _, row := range []int{0, 515} {
			if row >= m {
				continue
			}
			var from []float32
			if add != nil {
				from = add[row*ld:]
			}
			e.Pack(&p, BF16, x[row*k:], 1, k, k)
			product(y, ld, &p, w, from, ld)
			same(t, fmt.Sprintf("row %d, forward %v", row, forward), y[:n], line[row*ld:])
		}
	}
}

// Tiles must not be lost or leak while collections, signals and other goroutines interrupt the threads.
func TestTilesUnderInterruption(t *testing.T) {
	if !has(amx) {
		t.Log("this CPU has no AMX, or the system does not let it be used: nothing to interrupt")
		return
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil { // signals
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	const m, n, k, goroutines, rounds = 40, 64, 96, 6, 10
	rng := rand.New(rand.NewPCG(49, 50))
	x := random(rng, m*k)
	w := Weight{DType: numeric.BF16, Rows: n, Cols: k, Data: encode(random(rng, n*k), numeric.BF16)}
	results := make([][]float32, goroutines)
	var wg sync.WaitGroup
	for i := range results {
		e := engine(t, kernelsOf(amx), 1)
		wg.Go(func() {
			var p Packed
			e.Pack(&p, BF16, x, m, k, k)
			results[i] = make([]float32, m*n)
			for range rounds {
				e.Forward(results[i], n, &p, w, results[i], n)
				runtime.GC()
			}
		})
	}
	wg.Wait()
	for i, got := range results {
		same(t, fmt.Sprintf("goroutine %d", i), got, results[0])
	}
}

// A product of float32 on tiles has the bits of one with packed rows: a branch takes either way.
func TestRoundGemmIsForward(t *testing.T) {
	eachPath(t, func(t *testing.T, ker *kernels) {
		if ker.tiles == nil {
			return
		}
		const n, k = 35, 576
		e := engine(t, ker, 2)
		if !e.RoundGemm() {
			t.Error("tiles do not round")
		}
		rng := rand.New(rand.NewPCG(51, 52))
		a := random(rng, n*k)
		for _, m := range []int{FewRows + 1, 40} {
			x, got, want := random(rng, m*k), make([]float32, m*n), make([]float32, m*n)
			var p Packed
			e.Pack(&p, BF16, x, m, k, k)
			e.Forward(want, n, &p, Weight{DType: numeric.F32, Rows: n, Cols: k, Data: encode(a, numeric.F32)}, nil, 0)
			e.Gemm(got, n, m, n, k, 1, View{x, k, 1}, View{a, 1, k}, false)
			same(t, fmt.Sprintf("%d rows", m), got, want)
		}
	})
}
