package model

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"sync"
	"testing"
)

// ropeCase is what Transformers makes of a configuration; see testdata/reference/make_rope_cases.py.
type ropeCase struct {
	Name      string
	Config    json.RawMessage
	Length    int32
	InvFreq   []int32 `json:"inv_freq"` // bits of float32 values, as are Cos and Sin
	Positions []int32
	Cos, Sin  []int32
}

func ropeCases(t *testing.T) []ropeCase {
	t.Helper()
	data, err := os.ReadFile("testdata/rope_cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []ropeCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 25 {
		t.Fatalf("only %d cases", len(cases))
	}
	return cases
}

func newRope(t *testing.T, config string) *Rope {
	t.Helper()
	c, _, err := ParseConfig([]byte(config), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRope(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Inverse frequencies are PyTorch's bit for bit. Its cosines and sines are not always rounded correctly, ours are: the
// tables differ by one unit in the last place here and there, and by one more where yarn's factor multiplies them.
func TestRopeAgainstTransformers(t *testing.T) {
	numbers, off := 0, 0
	for _, c := range ropeCases(t) {
		r := newRope(t, string(c.Config))
		inv := r.invFreq
		if r.DependsOnLength() && int(c.Length) > r.length {
			inv = r.dynamic(c.Length)
		}
		if len(inv) != len(c.InvFreq) {
			t.Fatalf("%s: %d inverse frequencies, want %d", c.Name, len(inv), len(c.InvFreq))
		}
		for i, want := range c.InvFreq {
			if math.Float32bits(inv[i]) != uint32(want) {
				t.Errorf("%s: inv_freq[%d] is %v, want %v", c.Name, i, inv[i], math.Float32frombits(uint32(want)))
			}
		}
		lengths := slices.Repeat([]int32{c.Length}, len(c.Positions))
		cos, sin := make([]float32, len(c.Cos)), make([]float32, len(c.Sin))
		r.Table(c.Positions, lengths, cos, sin)
		most := int32(1)
		if r.attention != 1 {
			most = 2
		}
		for i, got := range append(cos, sin...) {
			want := append(c.Cos, c.Sin...)[i]
			d := int32(math.Float32bits(got)) - want
			if numbers++; d != 0 {
				off++
			}
			if d < -most || d > most {
				t.Errorf("%s: table entry %d is %v, want %v", c.Name, i, got, math.Float32frombits(uint32(want)))
			}
		}
	}
	if off*20 > numbers {
		t.Errorf("%d of %d table entries are not PyTorch's, want less than one in twenty", off, numbers)
	}
}

const dynamicConfig = `{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 32,
	"rope_scaling": {"type": "dynamic", "factor": 2.0}}`

// Each row has the table of its own length, whatever else is in the batch.
func TestRopeOwnLength(t *testing.T) {
	r := newRope(t, dynamicConfig)
	if !r.DependsOnLength() || newRope(t, `{"model_type": "llama"}`).DependsOnLength() {
		t.Error("only dynamic rope depends on the length")
	}
	positions := []int32{31, 31, 31, 31, 31}
	lengths := []int32{20, 48, 32, 33, 48}
	table := func(r *Rope, positions, lengths []int32) ([]float32, []float32) {
		cos, sin := make([]float32, 8*len(positions)), make([]float32, 8*len(positions))
		r.Table(positions, lengths, cos, sin)
		return cos, sin
	}
	cos, sin := table(r, positions, lengths)
	for i := range lengths {
		c, s := table(newRope(t, dynamicConfig), positions[i:i+1], lengths[i:i+1])
		if !slices.Equal(cos[8*i:8*i+8], c) || !slices.Equal(sin[8*i:8*i+8], s) {
			t.Errorf("row %d of length %d differs from itself alone", i, lengths[i])
		}
	}
	row := func(i int) []float32 { return cos[8*i : 8*i+8] }
	if !slices.Equal(row(0), row(2)) || slices.Equal(row(0), row(1)) || slices.Equal(row(1), row(3)) {
		t.Error("lengths up to the maximum share a table, others have their own")
	}
	plain, _ := table(r, positions, nil)
	if !slices.Equal(plain[:8], row(0)) {
		t.Error("no lengths stand for short ones")
	}
}

// What is cached is what is computed, in any order of the positions and behind the end of the cache.
func TestRopeCache(t *testing.T) {
	r := newRope(t, `{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4}`)
	for _, positions := range [][]int32{{5, 0, 3}, {1000}, {7, maxCached - 1, maxCached, 1 << 30, -3, 6}, {}} {
		cos, sin := make([]float32, 4*len(positions)), make([]float32, 4*len(positions))
		r.Table(positions, nil, cos, sin)
		for i, p := range positions {
			c, s := make([]float32, 4), make([]float32, 4)
			r.row(p, r.invFreq, c, s)
			if !slices.Equal(cos[4*i:4*i+4], c) || !slices.Equal(sin[4*i:4*i+4], s) {
				t.Errorf("position %d differs", p)
			}
		}
	}
	if n := len(r.cos) / 4; n != maxCached {
		t.Errorf("%d positions are cached, want %d", n, maxCached)
	}
	positions := []int32{0, 1, 2, 500}
	cos, sin := make([]float32, 16), make([]float32, 16)
	if n := testing.AllocsPerRun(10, func() { r.Table(positions, nil, cos, sin) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func TestRopeConcurrently(t *testing.T) {
	r := newRope(t, dynamicConfig)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			cos, sin := make([]float32, 16), make([]float32, 16)
			for i := range 50 {
				r.Table([]int32{int32(i * g), 3}, []int32{int32(i + g), 40}, cos, sin)
			}
		})
	}
	wg.Wait()
}

func TestNewRopeErrors(t *testing.T) {
	for want, c := range map[string]Config{
		"rope: the parameters {Type:default Theta:1e-300 Factor:0 OriginalMaxPositionEmbeddings:0 LowFreqFactor:0 HighFreqFactor:0 " +
			"AttentionFactor:0 BetaFast:0 BetaSlow:0 MScale:0 MScaleAllDim:0 Truncate:false} make frequency 1 of 2 +Inf": {HeadDim: 4, Rope: RopeConfig{Type: "default", Theta: 1e-300}},
		`rope: head_dim: want an even number, got 7`: {HeadDim: 7, Rope: RopeConfig{Type: "default"}},
		`rope: head_dim: want an even number, got 0`: {},
		`rope: unknown type "longrope"`:              {HeadDim: 8, Rope: RopeConfig{Type: "longrope"}},
	} {
		if _, err := NewRope(c); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func BenchmarkRopeTable(b *testing.B) {
	r, err := NewRope(Config{HeadDim: 128, Rope: RopeConfig{Type: "default", Theta: 10000}})
	if err != nil {
		b.Fatal(err)
	}
	positions := make([]int32, 4096)
	for i := range positions {
		positions[i] = int32(i % 512)
	}
	cos, sin := make([]float32, 64*len(positions)), make([]float32, 64*len(positions))
	b.ResetTimer()
	for range b.N {
		r.Table(positions, nil, cos, sin)
	}
}
