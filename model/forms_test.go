package model_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// formIDs is the sequence of testdata/weights/expected.safetensors.
var formIDs = []int32{1, 5, 7, 11, 2, 19, 0, 3, 3, 8, 13, 17}

// logitsOf opens the checkpoint at path and returns the logits of ids.
func logitsOf(t *testing.T, path string, o model.Options, ids []int32) []float32 {
	t.Helper()
	m, err := model.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, w := range m.Warnings() {
		if !strings.Contains(w, "max_position_embeddings") { // which Meta's files often leave open
			t.Error(w)
		}
	}
	b := &model.Batch{}
	b.Append(ids)
	rows := make([]int32, len(ids))
	for i := range rows {
		rows[i] = int32(i)
	}
	got, err := m.Logits(context.Background(), b, rows)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// One model in every form: Transformers' logits, and the same bits from all of them.
func TestForms(t *testing.T) {
	dir := filepath.Join(golden.Root(t), "testdata", "weights")
	want := golden.Tensors(t, filepath.Join(dir, "expected.safetensors"))
	for _, compute := range []string{"f32", "bf16"} {
		o := model.Options{Compute: compute}
		tol := map[string]float64{"f32": 1e-5, "bf16": 0.03}[compute] // of the size of all logits
		base := logitsOf(t, filepath.Join(dir, "base"), o, formIDs)
		if d := golden.RelNorm(base, want["logits/base"]); !(d <= tol) {
			t.Errorf("%s: logits are off by %.1e", compute, d)
		}
		for _, form := range []string{"sharded", "zip", "legacy", "sharded-bin", "module", "strided", "f64", "meta", "meta-2", "mistral",
			"gguf-f32", "gguf-f16", "gguf-bf16", "gguf-f16/tiny-f16.gguf"} {
			if got := logitsOf(t, filepath.Join(dir, form), o, formIDs); !slices.Equal(got, base) {
				t.Errorf("%s, %s: logits differ by %.1e", form, compute, golden.MaxAbs(got, base))
			}
		}
		for form, name := range map[string]string{"meta-2-scaled": "logits/scaled", "quantised": "logits/quantised"} {
			got := logitsOf(t, filepath.Join(dir, form), o, formIDs)
			if d := golden.RelNorm(got, want[name]); !(d <= tol) {
				t.Errorf("%s, %s: logits are off by %.1e", form, compute, d)
			}
		}
	}
}

// unpack writes a GGUF checkpoint as safetensors with the float32 values of its tensors.
func unpack(t *testing.T, path string) string {
	t.Helper()
	c, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Rewrite(nil, numeric.F32)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := r.Write(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	o, _, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, model.ConfigFile), strictjson.Format(o), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Quantised weights give the logits of their float32 values, to the last bit, also where they are kept as BF16.
func TestQuantisedLogits(t *testing.T) {
	path := filepath.Join(golden.Root(t), "testdata", "weights", "quantised", "tiny.gguf")
	twin := unpack(t, path)
	for _, compute := range []string{"f32", "bf16"} {
		o := model.Options{Compute: compute}
		if got, want := logitsOf(t, path, o, formIDs), logitsOf(t, twin, o, formIDs); !slices.Equal(got, want) {
			t.Errorf("%s: logits differ by %.1e", compute, golden.MaxAbs(got, want))
		}
	}
}

// A real model: its .bin against its safetensors.
func TestRealPickle(t *testing.T) {
	shared := golden.Shared(t, "models", "stories260K")
	var expected struct {
		IDs []int32 `json:"greedy_ids"`
	}
	data, err := os.ReadFile(filepath.Join(shared, "GOLDEN_derived.json"))
	if err == nil {
		err = json.Unmarshal(data, &expected)
	}
	if err != nil {
		t.Fatal(err)
	}
	ids := expected.IDs
	if len(ids) < 10 {
		t.Fatalf("%d ids", len(ids))
	}
	ids = ids[:min(len(ids), 100)]
	want := logitsOf(t, shared, model.Options{Compute: "f32"}, ids)
	dir := t.TempDir()
	for _, name := range []string{"pytorch_model.bin", "config.json"} {
		if err := os.Symlink(filepath.Join(shared, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got := logitsOf(t, dir, model.Options{Compute: "f32"}, ids); !slices.Equal(got, want) {
		t.Errorf("pytorch_model.bin: logits differ by %.1e", golden.MaxAbs(got, want))
	}
}

// Describe reads no matrix and prepares nothing.
func TestDescribe(t *testing.T) {
	c, err := weights.Open(filepath.Join(golden.Root(t), "testdata", "weights", "quantised"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Open(c.Path(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if len(d.Linears) != len(m.Linears()) {
		t.Fatalf("%d linears, want %d", len(d.Linears), len(m.Linears()))
	}
	for i, l := range m.Linears() {
		if want := (model.LinearSize{Name: l.Name(), In: l.In(), Out: l.Out()}); d.Linears[i] != want {
			t.Errorf("linear %d is %+v, want %+v", i, d.Linears[i], want)
		}
	}
	if x, _ := c.Tensor("lm_head.weight"); x.Data != nil {
		t.Error("lm_head was converted")
	}
}

// A checkpoint whose weights are float64 trains as its float32 twin does.
func TestF64(t *testing.T) {
	ts := tinyTensors()
	wide := slices.Clone(ts)
	for i := range wide {
		v := make([]float32, len(ts[i].Data)/4)
		if err := (weights.Tensor{DType: numeric.F32, Shape: []int{len(v)}, Data: ts[i].Data}).Elements(v, 0); err != nil {
			t.Fatal(err)
		}
		wide[i].DType, wide[i].Data = numeric.F64, f64Bytes(v)
	}
	ids := []int32{1, 2, 3, 4}
	want := logitsOf(t, writeModel(t, tinyConfig(nil), ts), model.Options{Compute: "f32"}, ids)
	if got := logitsOf(t, writeModel(t, tinyConfig(nil), wide), model.Options{Compute: "f32"}, ids); !slices.Equal(got, want) {
		t.Errorf("logits differ by %.1e", golden.MaxAbs(got, want))
	}
}

func f64Bytes(v []float32) (data []byte) {
	for _, x := range v {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(float64(x)))
	}
	return data
}
