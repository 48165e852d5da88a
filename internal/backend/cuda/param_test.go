package cuda

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/numeric"
)

func counted(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i) + 1.0/3
	}
	return v
}

func TestParam(t *testing.T) {
	be := emulated(t, "bf16")
	for _, shape := range [][2]int{{3, 5}, {4, 16}, {1, 1}, {300, 24}, {8, 0}} {
		rows, cols := shape[0], shape[1]
		n := rows * cols
		p := be.NewParam(rows, cols).(*param)
		if r, c := p.Shape(); r != rows || c != cols {
			t.Fatalf("[%d, %d], want %v", r, c, shape)
		}
		zeros, got, got2 := make([]float32, n), counted(n), counted(n)
		check := func(what string, got, want []float32) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%v: %s: %v, want %v", shape, what, got, want)
			}
		}
		p.Read(got)
		check("a new value", got, zeros)
		p.ReadGrad(got)
		check("a new gradient", got, zeros)
		p.ReadMoments(got, got2)
		check("m before the first step", got, zeros)
		check("v before the first step", got2, zeros)
		v, g, m, s := counted(n), counted(n), counted(n), counted(n)
		for i := range v {
			g[i] *= 2
			m[i] *= 3
			s[i] *= 4
		}
		p.Write(v)
		p.WriteGrad(g)
		p.WriteMoments(m, s)
		p.Read(got)
		check("the value", got, v)
		p.ReadGrad(got)
		check("the gradient", got, g)
		p.ReadMoments(got, got2)
		check("m", got, m)
		check("v", got2, s)
		for from := 0; from < n; from += 1 + n/7 {
			part := make([]float32, min(n-from, 1+n/3))
			p.ReadFrom(part, from)
			check("a part", part, v[from:from+len(part)])
		}
		if n == 0 {
			continue
		}
		checkShadow(t, p, v)
		v[n-1] = -7
		p.Write(v)
		checkShadow(t, p, v)
		if want := 16*int64(rows*p.ld) + 2*int64(rows*p.ld); p.Bytes() < want || p.Bytes() > want+5*256 {
			t.Errorf("%v: %d bytes, want %d and what is lost to alignment", shape, p.Bytes(), want)
		}
		p.ClearMoments()
		p.ReadMoments(got, got2)
		check("m when it is cleared", got, zeros)
		check("v when it is cleared", got2, zeros)
	}
}

// checkShadow wants p's shadow to be v in bf16, with zeros between the rows.
func checkShadow(t *testing.T, p *param, v []float32) {
	t.Helper()
	leave := p.be.enter()
	raw := make([]byte, 2*p.elements())
	p.be.fetch(raw, p.half())
	leave()
	for i, got := range unsafe.Slice((*uint16)(unsafe.Pointer(&raw[0])), p.elements()) {
		want := uint16(0)
		if r, c := i/p.ld, i%p.ld; c < p.cols {
			want = numeric.F32ToBF16(v[r*p.cols+c])
		}
		if got != want {
			t.Fatalf("[%d, %d]: element %d of the shadow is %#x, want %#x", p.rows, p.cols, i, got, want)
		}
	}
}

func fetched[T int32 | uint32 | float32](be *Backend, at driver.Ptr, n int) []T {
	defer be.enter()()
	v := make([]T, n)
	if n > 0 {
		be.fetch(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*n), at)
	}
	return v
}

func TestBatch(t *testing.T) {
	be := emulated(t, "f32")
	full := &backend.Batch{
		Tokens: []int32{5, 6, 7, 8, 9}, Positions: []int32{0, 1, 2, 0, 1}, Cos: counted(10), Sin: counted(10)[1:9],
		Rows:    []int32{1, 2, 4},
		Targets: []backend.Target{{Row: 2, Label: 30, Count: 1}, {Row: 0, Label: 31, Count: 2}, {Row: 2, Label: 32, Count: 3}, {Row: 0, Label: 33, Count: 4}},
		Dropout: &backend.Dropout{Samples: []uint32{1, 1, 1, 2, 2}},
		Serial:  1,
	}
	look := func(b *backend.Batch) *deviceBatch {
		t.Helper()
		leave := be.enter()
		d := be.batch(b)
		leave()
		eq := func(what string, got, want []int32) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		eq("tokens", fetched[int32](be, d.tokens, len(b.Tokens)), b.Tokens)
		eq("positions", fetched[int32](be, d.positions, len(b.Positions)), b.Positions)
		eq("rows", fetched[int32](be, d.selected, len(b.Rows)), b.Rows)
		if got := fetched[float32](be, d.cos, len(b.Cos)); !slices.Equal(got, b.Cos) {
			t.Errorf("cos: %v", got)
		}
		if got := fetched[float32](be, d.sin, len(b.Sin)); !slices.Equal(got, b.Sin) {
			t.Errorf("sin: %v", got)
		}
		if b.Dropout != nil {
			if got := fetched[uint32](be, d.samples, len(b.Dropout.Samples)); !slices.Equal(got, b.Dropout.Samples) {
				t.Errorf("samples: %v", got)
			}
		}
		return d
	}
	d := look(full)
	for what, pair := range map[string][2][]int32{
		"places": {fetched[int32](be, d.place, 5), {-1, 0, 1, -1, 2}},
		"starts": {fetched[int32](be, d.starts, 4), {0, 2, 2, 4}},
		"labels": {fetched[int32](be, d.labels, 4), {31, 33, 30, 32}},
		"counts": {fetched[int32](be, d.counts, 4), {2, 4, 1, 3}},
		"losses": {fetched[int32](be, d.losses, 4), {1, 3, 0, 2}},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	// A serial is copied once: what changes without another one is not seen.
	changed := *full
	changed.Tokens = []int32{50, 60, 70, 80, 90}
	leave := be.enter()
	if be.batch(&changed) != d || fetched[int32](be, d.tokens, 1)[0] != 5 {
		t.Error("a batch with a known serial was copied again")
	}
	leave()
	changed.Serial = 0
	look(&changed)
	changed.Tokens[3] = 8
	look(&changed)
	// Others come between, each of its own.
	for serial := range uint64(len(be.batches.slots) - 2) {
		b := &backend.Batch{Tokens: make([]int32, 1+100*serial), Serial: 10 + serial}
		look(b)
	}
	leave = be.enter()
	if be.batch(full) != d {
		t.Error("a batch that was used lately is gone")
	}
	leave()
	look(full)
	look(&backend.Batch{Serial: 99})
	for serial := range uint64(9) {
		look(&backend.Batch{Positions: []int32{int32(serial)}, Serial: 100 + serial})
		look(full)
	}
}
