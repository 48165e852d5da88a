package cuda

import (
	"fmt"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
	"github.com/biolora/biolora/internal/quant"
)

// orders are how the emulated device's threads take turns between barriers: ascending, descending, shuffled.
var orders = []uint64{0, 1, 7}

// TestOracle runs every operation, in each order of the threads, against float64, and wants the same bits in each.
func TestOracle(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		t.Run(compute, func(t *testing.T) {
			be := emulated(t, compute)
			be.poison = true
			for _, e := range backendtest.Entries() {
				t.Run(e.Name, func(t *testing.T) { testOracle(t, be, e) })
			}
		})
	}
}

// TestOracleLt is TestOracle with the products of cublasLt.
func TestOracleLt(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		t.Run(compute, func(t *testing.T) {
			be := withLt(t, compute)
			be.poison = true
			for _, e := range backendtest.Entries() {
				t.Run(e.Name, func(t *testing.T) { testOracle(t, be, e) })
			}
		})
	}
}

// withLt opens the card with its cublasLt, or the emulated device with the emulated one.
func withLt(t *testing.T, compute string) *Backend {
	t.Helper()
	if !onCard() {
		be, _ := emulatedLt(t, compute)
		return be
	}
	be, err := New(Options{Compute: compute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := be.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, missing := be.Products(); missing != nil {
		t.Fatal(missing)
	}
	return be
}

func testOracle(t *testing.T, be *Backend, e backendtest.Entry) {
	// In f32 the order of the sums differs, and e^x by a few units in the last place. In bf16 the inputs are exact: what
	// is stored as bf16 is off by 2^-9, sums of products of two such by twice that of their largest terms.
	tolerance := 2e-6
	switch {
	case onCard() && !be.half:
		tolerance = 1e-5 // e^x and log x are approximations
	case be.half && (e.Rounds || strings.HasPrefix(e.Name, "attention")):
		tolerance = 2e-2 // attention rounds rotated queries and keys, p and ds
	case be.half:
		tolerance = 8e-3
	}
	want := backendtest.Execute(backendtest.Oracle, be.half, e.Program)
	var first []backendtest.Result
	for _, order := range orders {
		setOrder(t, order)
		got := backendtest.Execute(be, be.half, e.Program)
		backendtest.Compare(t, got, want, tolerance)
		if first == nil {
			first = got
		}
		for i := range got {
			if !backendtest.SameBits(got[i].V, first[i].V) {
				t.Errorf("%s: not the same bits where threads take turns in order %d", got[i].Name, order)
			}
		}
	}
	setOrder(t, 0)
}

// TestLarge compares what a card computes in bf16, by cublasLt and by own kernels, with what it computes in f32, at the
// sizes of a model of 7B, which are too much for the oracle; the emulated device has a sixteenth of them.
func TestLarge(t *testing.T) {
	share := 16
	if onCard() {
		share = 1
	}
	linear := func(in, out, rank int) backendtest.Spec {
		return backendtest.Spec{In: in / share, Out: out / share, R: rank, Dropout: 0.1}
	}
	nf4 := linear(4096, 11008, 0)
	nf4.Quant = quant.NF4
	attention := backend.Attention{Heads: max(32/share, 4), KVHeads: max(8/share, 1), HeadDim: 128, Scale: 0.088}
	full, exact, own := emulated(t, "f32"), withLt(t, "bf16"), emulated(t, "bf16")
	for name, p := range map[string]backendtest.Program{
		"qkv":       backendtest.LinearProgram(2047/share, false, linear(4096, 4096, 16), linear(4096, 4096, 0), linear(4096, 4096, 16)),
		"down":      backendtest.LinearProgram(2048/share, true, linear(11008, 4096, 8)),
		"nf4":       backendtest.LinearProgram(999/share, false, nf4),
		"gateup":    backendtest.GateUpProgram(1025/share, linear(4096, 11008, 16), linear(4096, 11008, 0)),
		"attention": backendtest.AttentionProgram(attention, chainOf([]int32{int32(2500 / share), 64, int32(700 / share)}, []int32{-1, -1, -1})),
	} {
		t.Run(name, func(t *testing.T) {
			want := backendtest.Execute(full, true, p)
			for _, be := range []*Backend{exact, own} {
				by, _ := be.Products()
				t.Log(by)
				backendtest.Compare(t, backendtest.Execute(be, true, p), want, 2e-2)
			}
		})
	}
}

// TestRuns wants the same bits from a second run, on memory that is used again.
func TestRuns(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		for _, e := range backendtest.Entries() {
			var results [2][]backendtest.Result
			for i := range results {
				be.poison = i == 1
				results[i] = backendtest.Execute(be, be.half, e.Program)
			}
			for i, r := range results[0] {
				if !backendtest.SameBits(r.V, results[1][i].V) {
					t.Errorf("%s", fmt.Sprint(compute, "/", e.Name, ": ", r.Name, " differs in a second run"))
				}
			}
		}
	}
}
