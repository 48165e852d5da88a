package cpu

import (
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
)

const (
	residual   = backend.Residual
	activation = backend.Activation
	stat       = backend.Stat
)

// Poison makes Resize fill the buffer with NaN.
func (b *Buffer) Poison() { b.poison = true }

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
		b.Poison()
	}
	for i := range be.attention.scratch {
		s := &be.attention.scratch[i]
		for _, b := range []*Buffer{&s.q, &s.o, &s.do, &s.s, &s.ds} {
			b.Poison()
		}
	}
	return be
}

func newWorld(be backend.Backend, bf16 bool) *backendtest.World {
	return backendtest.NewWorld(be, bf16)
}
