package gemm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/numeric"
)

// Where there is no AMX, but the instructions that its packing and edges take, those are tested with
// the tile products in plain Go.
func init() {
	if has(avx512BF16) && !has(amx) {
		k := amxKernels
		k.name = "amx with tiles in Go"
		tiles := *k.tiles
		tiles.multiply = multiplyTilesTwin
		k.tiles = &tiles
		mixed = append(mixed, &k)
	}
}

// The packers of tiles in assembly must write the bits of packTilesGo.
func TestTilePackTwins(t *testing.T) {
	if !has(avx512BF16) {
		t.Log("this CPU has no AVX512_BF16: nothing to compare")
		return
	}
	rng := rand.New(rand.NewPCG(45, 46))
	for range 600 {
		rows, k := 1+rng.IntN(tileRows), 1+rng.IntN(150)
		lane, place := k+rng.IntN(5), 1
		if rng.IntN(2) == 0 {
			lane, place = 1, rows+rng.IntN(5)
		}
		src := elements(rng, (rows-1)*lane+(k-1)*place+1, numeric.F32)
		size := ((ksteps(k)-1)*stepWords + stepWords/2)
		got, want := grow(nil, size+16), grow(nil, size)
		const guard = 0xdeadbeef
		for i := range got[size:] {
			got[size+i] = guard
		}
		o := operand{unsafe.Pointer(&src[0]), numeric.F32, lane, place}
		packTiles512(unsafe.Pointer(&got[0]), o, rows, k)
		packTilesGo(unsafe.Pointer(&want[0]), o, rows, k)
		name := fmt.Sprintf("rows %d (stride %d), places %d (stride %d)", rows, lane, k, place)
		for i := range want {
			if i/(tileBytes/4)%2 == 1 || i%(tileBytes/4)/tileSteps >= rows {
				continue // the other tile, rows that there are not
			}
			if g, w := canonical(got[i], numeric.F32, pairsBF16), canonical(want[i], numeric.F32, pairsBF16); g != w {
				t.Fatalf("%s: dword %d is %#08x, want %#08x", name, i, g, w)
			}
		}
		for _, v := range got[size:] {
			if v != guard {
				t.Fatalf("%s: wrote beyond the end", name)
			}
		}
	}
}

// What finishes the edges must have the bits of its twin, and write nothing else.
func TestTileFinish(t *testing.T) {
	if !has(avx512f) {
		t.Log("this CPU has no AVX-512: nothing to compare")
		return
	}
	rng := rand.New(rand.NewPCG(47, 48))
	for range 300 {
		got, want := newTileMemory(rng, 1)
		add := random(rng, blockRows*tileMemoryLd)
		call := tileCall{ldout: 4 * tileMemoryLd, ldadd: 4 * tileMemoryLd, rows: 1 + rng.IntN(blockRows), cols: 1 + rng.IntN(blockRows), alpha: []float32{1, -0.3}[rng.IntN(2)]}
		if rng.IntN(2) == 0 {
			call.add = unsafe.Pointer(&add[0])
		}
		c := call
		finishTiles(got.in(&c))
		c = call
		finishTilesTwin(want.in(&c))
		got.same(t, fmt.Sprintf("%d rows, %d columns", call.rows, call.cols), want)
	}
}
