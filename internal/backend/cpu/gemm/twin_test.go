package gemm

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
)

// special are float32 that formats treat each in its own way.
var special = []uint32{
	0, 0x80000000, 1, 0x807fffff, 0x00800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f800001,
	0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0x33000001, 0x477ff000,
}

// elements returns n elements, many of them special.
func elements(rng *rand.Rand, n int, d numeric.DType) []byte {
	var b []byte
	for range n {
		u := rng.Uint32()
		if rng.IntN(4) == 0 {
			u = special[rng.IntN(len(special))]
		}
		if d == numeric.F32 {
			b = binary.NativeEndian.AppendUint32(b, u)
		} else {
			b = binary.NativeEndian.AppendUint16(b, uint16(u>>16))
		}
	}
	return b
}

// The packers in assembly must write the same bits as packGo.
func TestPackTwins(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, ker := range testPaths() {
		t.Run(ker.name, func(t *testing.T) {
			for _, d := range dtypes {
				for range 400 {
					lanes, k := 1+rng.IntN(ker.cols), 1+rng.IntN(100)
					width := ker.cols
					if rng.IntN(2) == 0 { // a tile
						lanes = 1 + rng.IntN(ker.rows)
						width = lanes
					}
					lane, place := k+rng.IntN(5), 1
					if rng.IntN(2) == 0 {
						lane, place = 1, lanes+rng.IntN(5)
					}
					src := elements(rng, (lanes-1)*lane+(k-1)*place+1, d)
					for _, c := range []Compute{F32, BF16} {
						comparePacks(t, ker, operand{unsafe.Pointer(&src[0]), d, lane, place}, width, lanes, k, ker.panels(c))
					}
				}
			}
		})
	}
}

func comparePacks(t *testing.T, ker *kernels, src operand, width, lanes, k int, f format) {
	t.Helper()
	if f == pairsBF16 && width < ker.cols && src.place != 1 {
		return // tiles of pairs come from rows alone
	}
	size := roundUp(k, stepAlign)*width + slack
	got, want := grow(nil, size+16), grow(nil, size)
	const guard = 0xdeadbeef
	for i := range got[size:] {
		got[size+i] = guard
	}
	ker.pack(unsafe.Pointer(&got[0]), width, src, lanes, k, f)
	packGo(unsafe.Pointer(&want[0]), width, src, lanes, k, f)
	for s := range (k + f.places() - 1) / f.places() {
		for l := range lanes {
			g, w := canonical(got[s*width+l], src.dtype, f), canonical(want[s*width+l], src.dtype, f)
			if g != w {
				t.Fatalf("%v, lanes %d of %d (stride %d), places %d (stride %d), format %d: step %d of lane %d is %#08x, want %#08x",
					src.dtype, lanes, width, src.lane, k, src.place, f, s, l, g, w)
			}
		}
	}
	for _, v := range got[size:] {
		if v != guard {
			t.Fatalf("lanes %d of %d, places %d: wrote beyond the end", lanes, width, k)
		}
	}
}

// panels is the format of the panels for c.
func (ker *kernels) panels(c Compute) format {
	if f := ker.format(c); f != tilesBF16 {
		return f
	}
	return pairsBF16
}

// canonical makes one NaN of all: conversions make them quiet in the CPU and leave them in Go. Of pairs that were
// rounded it makes zero of what VCVTNE2PS2BF16 flushes: denormals, and what rounds up from them.
func canonical(step uint32, d numeric.DType, f format) uint32 {
	if f != pairsBF16 {
		if step&0x7fffffff > 0x7f800000 {
			return 0x7fc00000
		}
		return step
	}
	pair := [2]uint32{step & 0xffff, step >> 16}
	for i, h := range pair {
		switch {
		case h&0x7fff > 0x7f80:
			pair[i] = 0x7fc0
		case h&0x7fff <= 0x80 && d != numeric.BF16:
			pair[i] = 0
		}
	}
	return pair[0] | pair[1]<<16
}

// The kernels in assembly against their twins: float32 within rounding of the fused products, pairs to the bit.
func TestKernelTwins(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for _, ker := range testPaths() {
		for _, c := range []Compute{F32, BF16} {
			f := ker.format(c)
			if f == tilesBF16 {
				continue // TestTileKernels
			}
			t.Run(fmt.Sprintf("%s/%v", ker.name, c), func(t *testing.T) {
				for rows := 1; rows <= ker.rows; rows++ {
					for cols := 1; cols <= ker.cols; cols++ {
						compareKernels(t, rng, ker, rows, cols, 1+rng.IntN(40), f)
					}
				}
			})
		}
	}
}

func compareKernels(t *testing.T, rng *rand.Rand, ker *kernels, rows, cols, steps int, f format) {
	t.Helper()
	fill := func(n int) unsafe.Pointer {
		buf := grow(nil, n)
		for i := range buf {
			buf[i] = math.Float32bits(rng.Float32()*2 - 1)
			if f == pairsBF16 {
				buf[i] = uint32(numeric.F32ToBF16(rng.Float32()*2-1)) | uint32(numeric.F32ToBF16(rng.Float32()*2-1))<<16
			}
		}
		return unsafe.Pointer(&buf[0])
	}
	call := tileProduct{a: fill(steps * rows), b: fill(steps * ker.cols), rows: rows, cols: cols, steps: steps,
		ldc: cols + rng.IntN(3), ldadd: cols + rng.IntN(3), alpha: []float32{1, -0.3}[rng.IntN(2)]}
	got, want, add := make([]float32, rows*call.ldc), make([]float32, rows*call.ldc), random(rng, rows*call.ldadd)
	if rng.IntN(3) > 0 {
		call.add = unsafe.Pointer(&add[0])
	}
	call.c = unsafe.Pointer(&got[0])
	ker.multiply(&call, f)
	call.c = unsafe.Pointer(&want[0])
	multiplyTwin(&call, ker.cols, f)
	for i, v := range got {
		if d := math.Abs(float64(v) - float64(want[i])); d > 2e-6*float64(steps) || f == pairsBF16 && call.alpha == 1 && v != want[i] {
			t.Fatalf("%d x %d, %d steps: element %d is %g, want %g", rows, cols, steps, i, v, want[i])
		}
	}
}

// multiplyTwin does what the assembly kernels do, in plain Go, for panels of any width.
func multiplyTwin(t *tileProduct, width int, f format) {
	var acc [32]float32
	for r := range t.rows {
		clear(acc[:])
		for s := range t.steps {
			x := *(*uint32)(unsafe.Add(t.a, (s*t.rows+r)*4))
			for c := range t.cols {
				y := *(*uint32)(unsafe.Add(t.b, (s*width+c)*4))
				acc[c] = multiplyAdd(acc[c], x, y, f)
			}
		}
		t.finish(r, acc[:t.cols])
	}
}

// multiplyAdd is one step. VDPBF16PS adds the later place first, each with a rounding of its own (Intel SDM).
func multiplyAdd(acc float32, x, y uint32, f format) float32 {
	if f != pairsBF16 {
		return acc + asFloat(x)*asFloat(y)
	}
	acc += asFloat(x&^0xffff) * asFloat(y&^0xffff)
	return acc + numeric.BF16ToF32(uint16(x))*numeric.BF16ToF32(uint16(y))
}

func asFloat(bits uint32) float32 { return math.Float32frombits(bits) }

// The paths that fuse each step's product and sum must agree to the bit, in both computes: avx2, avx512f and neon. That of
// another architecture is known by its checksum.
func TestVectorWidthDoesNotMatter(t *testing.T) {
	const m, n, k = 75, 71, 700
	rng := rand.New(rand.NewPCG(15, 16))
	x := random(rng, m*k)
	want := [2][len(dtypes)]uint64{
		F32:  {0x8f9a2026943fc6ff, 0xf41b6b7aec63ff0a, 0x6cc4b84c4839850b},
		BF16: {0x100ce4d31fc004ed, 0x6147e1d32ab8b72, 0x528ba2858461ab57},
	}
	var seen bool
	for i, d := range dtypes {
		w := Weight{DType: d, Rows: n, Cols: k, Data: encode(random(rng, n*k), d)}
		for _, c := range []Compute{F32, BF16} {
			b := View{x, 1, k} // any numbers
			for _, s := range []set{avx2, avx512f, neon} {
				if !has(s) {
					continue
				}
				seen = true
				e := engine(t, kernelsOf(s), 2)
				var p Packed
				y := make([]float32, m*n)
				e.Pack(&p, c, x, m, k, k)
				e.Forward(y, n, &p, w, nil, 0)
				e.Gemm(y, n, m, n, k, 0.7, View{x, k, 1}, b, true)
				sum := fnv.New64a()
				sum.Write(encode(y, numeric.F32))
				if got := sum.Sum64(); got != want[c][i] {
					t.Errorf("%v, %v %v: the checksum is %#x, want %#x", setNames[s], d, c, got, want[c][i])
				}
			}
		}
	}
	if !seen {
		t.Log("this CPU has no vector instructions that there are kernels for: nothing to compare")
	}
}

// FuzzPack packs any bytes: the path that Detect chooses against packGo.
func FuzzPack(f *testing.F) {
	rng := rand.New(rand.NewPCG(17, 18))
	for i, d := range dtypes {
		f.Add(elements(rng, 600, d), uint8(i), uint8(20), uint8(17), false, true)
		f.Add(elements(rng, 600, d), uint8(i), uint8(3), uint8(33), true, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, dtype, lanes, k uint8, across, bf16 bool) {
		ker := kernelsOf(Detect().set)
		d := dtypes[int(dtype)%len(dtypes)]
		l, n := 1+int(lanes)%ker.cols, 1+int(k)
		o := operand{dtype: d, lane: n, place: 1}
		if across {
			o.lane, o.place = 1, l
		}
		if len(data) < l*n*d.Size() {
			return
		}
		o.p = unsafe.Pointer(&data[0])
		c := F32
		if bf16 {
			c = BF16
		}
		comparePacks(t, ker, o, ker.cols, l, n, ker.panels(c))
	})
}
