package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
)

// dequantised is a copy of the model in dir whose layers' linears have, as float32, the values of their codes.
func dequantised(t testing.TB, dir string, f quant.Format) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	file, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var ts []safetensors.Source
	for x := range file.All() {
		s := safetensors.Source{Name: x.Name, DType: x.DType, Shape: x.Shape, Data: x.Data}
		if strings.HasSuffix(x.Name, "_proj.weight") {
			s.DType, s.Data = numeric.F32, roundTrip(t, x, f)
		}
		ts = append(ts, s)
	}
	return writeModel(t, config, ts)
}

// roundTrip is a float32 matrix, encoded and decoded.
func roundTrip(t testing.TB, x safetensors.Tensor, f quant.Format) (data []byte) {
	t.Helper()
	rows, cols := x.Shape[0], x.Shape[1]
	var codes bytes.Buffer
	err := quant.Encode(context.Background(), &codes, f, rows, cols, 1, func(dst []float32, from, _ int) error {
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(x.Data[4*(from*cols+i):]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := quant.Open(f, rows, cols, codes.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, rows*cols)
	if err := m.Elements(values, 0); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

// A step on a quantised base is, to the bit, a step on a model whose linears are what the codes stand for: losses,
// logits and all gradients of two steps, over random decoders of any width, adapters, modules trained whole, both
// arithmetics, and what layers keep.
func TestQuantisedBaseTrainsAsItsValues(t *testing.T) {
	for seed := range uint64(16) {
		d := randomDecoder(t, rand.New(rand.NewPCG(seed, 11)))
		for _, f := range []quant.Format{quant.NF4, quant.Int8} {
			m := d.open(t, model.Options{Base: f.String(), Activations: []string{"all", "none"}[seed%2]})
			plain := d
			plain.dir = dequantised(t, d.dir, f)
			exact := plain.open(t, model.Options{Threads: 1})
			if !slices.Equal(d.history(t, m, seed%3 == 0), plain.history(t, exact, false)) {
				t.Errorf("seed %d, %v: other bits than with the values of the codes (%s)", seed, f, d.describe)
			}
			own := d.open(t, model.Options{})
			if m.Parameters() != own.Parameters() || m.Params().Count() != own.Params().Count() {
				t.Errorf("seed %d, %v: %d parameters, %d of them trained, want %d and %d", seed, f,
					m.Parameters(), m.Params().Count(), own.Parameters(), own.Params().Count())
			}
			if slices.Equal(d.history(t, own, false), plain.history(t, plain.open(t, model.Options{}), false)) {
				t.Errorf("seed %d, %v: the codes' values are the checkpoint's", seed, f)
			}
		}
	}
}

// The reference backend, in float64, agrees on gradients, and decoding with a cache on the tokens.
func TestQuantisedBaseAgainstTheReference(t *testing.T) {
	dir := writeModel(t, tinyConfig(nil), tinyTensors())
	for _, base := range []string{"nf4", "int8"} {
		fast, err := model.Open(dir, model.Options{Compute: "f32", Base: base})
		if err != nil {
			t.Fatal(err)
		}
		defer fast.Close()
		f, _ := quant.Parse(base)
		exact, err := model.OpenOn(dequantised(t, dir, f), model.Options{}, ref.New())
		if err != nil {
			t.Fatal(err)
		}
		defer exact.Close()
		oracle, err := model.OpenOn(dir, model.Options{Base: base}, ref.New())
		if err != nil {
			t.Fatal(err)
		}
		defer oracle.Close()
		var loss [3]float64
		var g [3][]float32
		for i, m := range []*model.Model{fast, oracle, exact} {
			adapt(t, m, 0, "q_proj", "down_proj")
			loss[i], g[i] = grads(t, m, randomBatch(4))
		}
		if loss[1] != loss[2] || !slices.Equal(g[1], g[2]) {
			t.Errorf("%s: the reference has other bits than with the values of the codes", base)
		}
		if math.Abs(loss[0]-loss[1]) > 1e-5*loss[1] {
			t.Errorf("%s: loss %v, the reference says %v", base, loss[0], loss[1])
		}
		for i := range g[0] {
			if math.Abs(float64(g[0][i]-g[1][i])) > 1e-4*(1+math.Abs(float64(g[1][i]))) {
				t.Fatalf("%s: gradient %d is %v, the reference says %v", base, i, g[0][i], g[1][i])
			}
		}
		if a, b := argmax(t, fast, []int32{1, 2, 3}, 12), generated(t, fast, []int32{1, 2, 3}, 12); !slices.Equal(a, b) {
			t.Errorf("%s: decoding gives %v, whole passes %v", base, b, a)
		}
	}
}

func generated(t *testing.T, m *model.Model, prompt []int32, n int) []int32 {
	t.Helper()
	out, err := m.Generate(context.Background(), [][]int32{prompt}, model.GenerateOptions{MaxNewTokens: n})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// Embedding, head and norms stay as they are; the model says what its base is, and refuses what it does not know.
func TestQuantisedBase(t *testing.T) {
	dir := writeModel(t, tinyConfig(nil), tinyTensors())
	m, err := model.Open(dir, model.Options{Base: "nf4"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Base() != "nf4" || !strings.HasSuffix(m.BackendName(), ", base in nf4") || len(m.Caches()) != 0 || len(m.Warnings()) != 0 {
		t.Errorf("base %s, on %s, kept in %q, %q", m.Base(), m.BackendName(), m.Caches(), m.Warnings())
	}
	if err := m.CheckFinite(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "none"} {
		plain, err := model.Open(dir, model.Options{Base: name})
		if err != nil {
			t.Fatal(err)
		}
		if plain.Base() != "none" || strings.Contains(plain.BackendName(), "base") {
			t.Errorf("base %s, on %s", plain.Base(), plain.BackendName())
		}
		plain.Close()
	}
	if _, err := model.Open(dir, model.Options{Base: "nf5"}); err == nil || err.Error() != `base "nf5" is none of none, nf4, int8` {
		t.Error(err)
	}
	whole, err := m.TrainFull(model.LMHead)
	if err != nil {
		t.Fatal(err)
	}
	ts := tinyTensors()
	head := ts[len(ts)-1].Data
	for i, v := range whole.Values() {
		if math.Float32bits(v) != binary.LittleEndian.Uint32(head[4*i:]) {
			t.Fatalf("lm_head: element %d is %v", i, v)
		}
	}
}

// What is not finite is found before there are codes of it.
func TestQuantisedBaseNotFinite(t *testing.T) {
	ts := tinyTensors()
	const name = "model.layers.2.mlp.gate_proj.weight"
	i := slices.IndexFunc(ts, func(s safetensors.Source) bool { return s.Name == name })
	binary.LittleEndian.PutUint32(ts[i].Data[4*31:], math.Float32bits(float32(math.NaN())))
	dir := writeModel(t, tinyConfig(nil), ts)
	_, err := model.Open(dir, model.Options{Base: "int8"})
	want := filepath.Join(dir, "model.safetensors") + ": tensor " + name + ": element 31 ([1 11] of [27 20]) is NaN"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
