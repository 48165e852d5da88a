package lora

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// randomSaved makes an adapter with random values for a model of so many layers.
func randomSaved(t testing.TB, rng *rand.Rand, c Config, layers int, tied bool) *Saved {
	c.BaseModel = "base"
	m, err := c.plan(testModules(layers), tied)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	s := &Saved{Config: m.Config, Modules: map[string]*LowRank{}, Full: map[string]*Matrix{}}
	for _, g := range m.Targets {
		s.Modules[g.Name] = &LowRank{g.In, g.Out, g.R, g.Scale, fill(g.R * g.In), fill(g.Out * g.R)}
	}
	for _, mod := range m.Save {
		s.Full[mod.Name] = &Matrix{mod.Out, mod.In, fill(mod.Out * mod.In)}
	}
	if m.tie {
		s.Full[lmHead] = s.Full[embedTokens]
	}
	return s
}

// Every configuration that matches in PEFT's cases makes an adapter that comes back as it was.
func TestWriteAndRead(t *testing.T) {
	_, cases := readPEFTCases(t)
	rng := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	n := 0
	for i, c := range cases {
		if c.Error != "" || c.Other || c.Layers > 3 || i%5 > 0 && !c.Tied {
			continue
		}
		cfg, err := ParseConfig([]byte(c.text()))
		if err != nil {
			t.Fatal(err)
		}
		s := randomSaved(t, rng, cfg, c.Layers, c.Tied)
		if err := s.Write(dir); err != nil {
			t.Fatalf("%s: %v", c.Config, err)
		}
		got, err := Read(dir)
		if err != nil {
			t.Fatalf("%s: %v", c.Config, err)
		}
		if d := cmp.Diff(s, got); d != "" {
			t.Errorf("%s:\n%s", c.Config, d)
		}
		if err := got.Fits(testModules(c.Layers), c.Tied); err != nil {
			t.Errorf("%s: %v", c.Config, err)
		}
		n++
	}
	if n < 25 {
		t.Errorf("only %d cases", n)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if d := cmp.Diff([]string{cardFile, ConfigFile, WeightsFile}, names); d != "" {
		t.Error(d)
	}
}

// The goldens' adapters, made by PEFT, are read and written: the tensors' bytes and names stay.
func TestSharedAdapters(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(golden.Shared(t, "goldens"), "*", "adapter_*"))
	if err != nil || len(dirs) == 0 {
		t.Skip("no goldens")
	}
	for _, dir := range dirs {
		s, err := Read(dir)
		if strings.Contains(dir, "dora") {
			if err == nil || !strings.Contains(err.Error(), "use_dora is true: not supported") {
				t.Errorf("%s: %v", dir, err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		out := t.TempDir()
		if err := s.Write(out); err != nil {
			t.Error(err)
			continue
		}
		before, after := readAll(t, filepath.Join(dir, WeightsFile)), readAll(t, filepath.Join(out, WeightsFile))
		if d := cmp.Diff(before, after, cmp.Comparer(bytes.Equal)); d != "" {
			t.Errorf("%s: %s", dir, d)
		}
	}
}

func readAll(t *testing.T, path string) map[string]safetensors.Tensor {
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Metadata()["format"] != "pt" {
		t.Errorf("%s: metadata %v", path, f.Metadata())
	}
	out := map[string]safetensors.Tensor{}
	for x := range f.All() {
		x.Data = slices.Clone(x.Data)
		out[x.Name] = x
	}
	return out
}

func floats(v []float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// writeAdapter writes a directory of the given text and tensors.
func writeAdapter(t testing.TB, config string, tensors ...safetensors.Source) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ConfigFile), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.WriteFile(filepath.Join(dir, WeightsFile), tensors, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func f32(key string, rows, cols int) safetensors.Source {
	return safetensors.Source{Name: key, DType: numeric.F32, Shape: []int{rows, cols}, Data: make([]byte, 4*rows*cols)}
}

const (
	headConfig = `{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["lm_head"]}`
	headA      = "base_model.model.lm_head.lora_A.weight"
	headB      = "base_model.model.lm_head.lora_B.weight"
)

func TestReadErrors(t *testing.T) {
	a, b := f32(headA, 2, testHidden), f32(headB, testVocab, 2)
	nan := f32(headB, testVocab, 2)
	copy(nan.Data[12:], floats([]float32{float32(math.NaN())}))
	for name, c := range map[string]struct {
		config  string
		tensors []safetensors.Source
		want    string
	}{
		"no B":          {headConfig, []safetensors.Source{a}, `tensor "` + headB + `" is missing`},
		"no A":          {headConfig, []safetensors.Source{b}, `tensor "` + headA + `" is missing`},
		"nothing":       {headConfig, nil, "no tensor of a low-rank branch"},
		"rank":          {headConfig, []safetensors.Source{f32(headA, 3, testHidden), b}, `tensor "` + headA + `": rank 3, want 2 by the configuration`},
		"rank of B":     {headConfig, []safetensors.Source{a, f32(headB, testVocab, 5)}, `rank 5, want 2`},
		"not a matrix":  {headConfig, []safetensors.Source{a, {Name: headB, DType: numeric.F32, Shape: []int{4}, Data: make([]byte, 16)}}, "shape [4], want two dimensions"},
		"format":        {headConfig, []safetensors.Source{a, {Name: headB, DType: numeric.F64, Shape: []int{1, 2}, Data: make([]byte, 16)}}, "format F64, want F32, F16 or BF16"},
		"not finite":    {headConfig, []safetensors.Source{a, nan}, `tensor "` + headB + `": element 3 is NaN`},
		"unknown":       {headConfig, []safetensors.Source{a, b, f32("lm_head.lora_A.weight", 2, 2)}, `unknown tensor "lm_head.lora_A.weight"`},
		"magnitude":     {headConfig, []safetensors.Source{a, b, f32("base_model.model.lm_head.lora_magnitude_vector", 2, 2)}, "unknown tensor"},
		"adapter name":  {headConfig, []safetensors.Source{a, b, f32("base_model.model.lm_head.lora_A.default.weight", 2, 2)}, "unknown tensor"},
		"not saved":     {headConfig, []safetensors.Source{a, b, f32("base_model.model.model.embed_tokens.weight", 2, 2)}, "unknown tensor"},
		"configuration": {`{"peft_type": "IA3"}`, []safetensors.Source{a, b}, `peft_type is "IA3", want "LORA"`},
		"not JSON":      {"{\n\"r\": }", []safetensors.Source{a, b}, "line 2"},
	} {
		dir := writeAdapter(t, c.config, c.tensors...)
		_, err := Read(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
	dir := writeAdapter(t, headConfig, a, b)
	if err := os.Remove(filepath.Join(dir, WeightsFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no adapter_model.bin either") {
		t.Error(err)
	}
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestFits(t *testing.T) {
	both := `{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["lm_head", "o_proj"]}`
	layer := func(i int) (a, b safetensors.Source) {
		key := fmt.Sprintf("base_model.model.model.layers.%d.self_attn.o_proj.lora_", i)
		return f32(key+"A.weight", 2, testHidden), f32(key+"B.weight", testHidden, 2)
	}
	a, b := f32(headA, 2, testHidden), f32(headB, testVocab, 2)
	a0, b0 := layer(0)
	a1, b1 := layer(1)
	for name, c := range map[string]struct {
		config  string
		tensors []safetensors.Source
		want    string
	}{
		"fits":         {both, []safetensors.Source{a, b, a0, b0}, ""},
		"base layer":   {both, []safetensors.Source{a, b, a0, b0, f32("base_model.model.lm_head.base_layer.weight", 3, 3)}, ""},
		"missing":      {both, []safetensors.Source{a, b}, `tensors "base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight" and lora_B are missing`},
		"extra":        {both, []safetensors.Source{a, b, a0, b0, a1, b1}, "layers.1.self_attn.o_proj.lora_A.weight\" belongs to a module that the configuration does not adapt, or the model does not have"},
		"inputs":       {headConfig, []safetensors.Source{f32(headA, 2, 5), b}, `tensor "` + headA + `" has shape [2, 5], want [2, 8]`},
		"outputs":      {headConfig, []safetensors.Source{a, f32(headB, 5, 2)}, `tensor "` + headB + `" has shape [5, 2], want [16, 2]`},
		"whole":        {strings.Replace(both, "}", `, "modules_to_save": ["embed_tokens"]}`, 1), []safetensors.Source{a, b, a0, b0}, `tensor "base_model.model.model.embed_tokens.weight" is missing`},
		"whole, shape": {strings.Replace(both, "}", `, "modules_to_save": ["embed_tokens"]}`, 1), []safetensors.Source{a, b, a0, b0, f32("base_model.model.model.embed_tokens.weight", 4, 4)}, "has shape [4, 4], want [16, 8]"},
		"no match":     {strings.Replace(headConfig, "lm_head", "w_proj", 1), []safetensors.Source{a, b}, "target_modules: w_proj matches nothing; the model's linears are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head (such as model.layers.0.self_attn.q_proj)"},
	} {
		s, err := Read(writeAdapter(t, c.config, c.tensors...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		err = s.Fits(testModules(1), false)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
}

// A tied matrix is saved under both names, and must be one.
func TestTiedMatricesDiffer(t *testing.T) {
	c := Defaults()
	c.ModulesToSave, c.EnsureWeightTying = []string{"lm_head"}, true
	s := randomSaved(t, rand.New(rand.NewPCG(3, 4)), c, 1, true)
	if len(s.Full) != 2 {
		t.Fatalf("%d matrices, want 2", len(s.Full))
	}
	other := slices.Clone(s.Full[lmHead].Data)
	other[3]++
	s.Full[lmHead] = &Matrix{testVocab, testHidden, other}
	if err := s.Fits(testModules(1), true); err == nil || !strings.Contains(err.Error(), "one matrix") {
		t.Error(err)
	}
}

func TestHalfPrecision(t *testing.T) {
	a16 := safetensors.Source{Name: headA, DType: numeric.F16, Shape: []int{2, 1}, Data: binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, numeric.F32ToF16(0.1)), numeric.F32ToF16(-3))}
	b16 := safetensors.Source{Name: headB, DType: numeric.BF16, Shape: []int{1, 2}, Data: binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, numeric.F32ToBF16(0.1)), numeric.F32ToBF16(7))}
	s, err := Read(writeAdapter(t, headConfig, a16, b16))
	if err != nil {
		t.Fatal(err)
	}
	l := s.Modules[lmHead]
	if want := []float32{numeric.F16ToF32(numeric.F32ToF16(0.1)), -3}; !slices.Equal(l.A, want) {
		t.Errorf("A is %v, want %v", l.A, want)
	}
	if want := []float32{numeric.BF16ToF32(numeric.F32ToBF16(0.1)), 7}; !slices.Equal(l.B, want) {
		t.Errorf("B is %v, want %v", l.B, want)
	}
	if l.Scale != 2 {
		t.Errorf("scale %v", l.Scale)
	}
}

// Whatever keeps an adapter from being written leaves the older one, and nothing else, in the directory.
func TestFailedWriteLeavesTheOldAdapter(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	dir := t.TempDir()
	old := randomSaved(t, rng, Defaults(), 1, false)
	if err := old.Write(dir); err != nil {
		t.Fatal(err)
	}
	broken := randomSaved(t, rng, Defaults(), 1, false)
	broken.Modules["model.layers.0.self_attn.q_proj"].A[5] = float32(math.Inf(1))
	if err := broken.Write(dir); err == nil || !strings.Contains(err.Error(), "element 5 is +Inf") || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
	scaled := randomSaved(t, rng, Defaults(), 1, false)
	scaled.Modules["model.layers.0.self_attn.q_proj"].Scale = 3
	if err := scaled.Write(dir); err == nil || !strings.Contains(err.Error(), "is 2 by the configuration, want 3") {
		t.Error(err)
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(old, got); d != "" {
		t.Error(d)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestCard(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, cardFile)
	s := randomSaved(t, rand.New(rand.NewPCG(7, 8)), Defaults(), 2, false)
	for _, want := range []string{"base_model: \"base\"\nlibrary_name: peft\n", "| adapted modules | 4 (q_proj,v_proj) |"} {
		if err := s.Write(dir); err != nil {
			t.Fatal(err)
		}
		card, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(card), want) {
			t.Errorf("%v\n%s", err, card)
		}
	}
	s.Base = "nf4"
	if card := s.card(); !strings.Contains(string(card), "\n| base in training | linears in nf4 |\n") {
		t.Errorf("%s", card)
	}
	if err := os.WriteFile(path, []byte("# Mine\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	if card, _ := os.ReadFile(path); string(card) != "# Mine\n" {
		t.Errorf("somebody's card became %s", card)
	}
}

func TestMergeRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, r := range []int{1, 3, 4, 6, 9} {
		c := Defaults()
		c.R = r
		c.ModulesToSave = []string{"lm_head"}
		s := randomSaved(t, rng, c, 1, false)
		const name = "model.layers.0.self_attn.v_proj"
		l := s.Modules[name]
		w := make([]float32, l.Out*l.In)
		for i := range w {
			w[i] = float32(rng.NormFloat64())
		}
		got := slices.Clone(w)
		for from := 0; from < l.Out; from += 3 {
			to := min(from+3, l.Out)
			if err := s.MergeRows(got[from*l.In:to*l.In], name, from, to); err != nil {
				t.Fatal(err)
			}
		}
		for i := range w {
			want := float64(w[i])
			for k := range r {
				want += l.Scale * float64(l.B[i/l.In*r+k]) * float64(l.A[k*l.In+i%l.In])
			}
			if math.Abs(float64(got[i])-want) > 2e-5*(1+math.Abs(want)) {
				t.Fatalf("rank %d, element %d: %v, want %v", r, i, got[i], want)
			}
		}
		head := make([]float32, 2*testHidden)
		if err := s.MergeRows(head, lmHead, 1, 3); err != nil || !slices.Equal(head, s.Full[lmHead].Data[testHidden:3*testHidden]) {
			t.Errorf("%v, %v", head, err)
		}
		for _, err := range []error{
			s.MergeRows(w, "model.norm", 0, 1), s.MergeRows(w, name, 0, l.Out+1), s.MergeRows(w[1:], name, 0, l.Out),
			s.MergeRows(w, name, -1, l.Out-1), s.MergeRows(nil, name, 2, 1), s.MergeRows(head, lmHead, 0, 3),
		} {
			if err == nil {
				t.Error("no error")
			}
		}
	}
}

// Merging agrees with PEFT's merge_and_unload.
func TestSharedMerge(t *testing.T) {
	dir := golden.Shared(t, "goldens", "mha-qv")
	s, err := Read(filepath.Join(dir, "adapter_init"))
	if err != nil {
		t.Fatal(err)
	}
	base, err := safetensors.Open(filepath.Join(dir, "model", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	merged, err := safetensors.Open(filepath.Join(dir, "merged.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer merged.Close()
	n := 0
	for _, name := range s.names() {
		w, _ := base.Tensor(name + ".weight")
		want, ok := merged.Tensor("weight/" + name + ".weight")
		if !ok {
			t.Errorf("%s is not merged in PEFT", name)
			continue
		}
		got, err := widen(tensor{w.DType, w.Type, w.Shape, w.Data})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := widen(tensor{want.DType, want.Type, want.Shape, want.Data})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.MergeRows(got.Data, name, 0, got.Rows); err != nil {
			t.Fatal(err)
		}
		for i, v := range got.Data {
			if d := math.Abs(float64(v - ref.Data[i])); d > 1e-6 {
				t.Fatalf("%s: element %d is %v, want %v", name, i, v, ref.Data[i])
			}
		}
		n++
	}
	if n == 0 {
		t.Error("nothing was merged")
	}
}

func BenchmarkMergeRows(b *testing.B) {
	const n, r = 4096, 16
	s := &Saved{Modules: map[string]*LowRank{"x": {In: n, Out: n, R: r, Scale: 2, A: make([]float32, r*n), B: make([]float32, n*r)}}}
	w := make([]float32, 64*n)
	b.SetBytes(4 * 64 * n)
	for b.Loop() {
		if err := s.MergeRows(w, "x", 0, 64); err != nil {
			b.Fatal(err)
		}
	}
}

// read returns the contents of a file of testdata/peft.
func read(t testing.TB, name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", "peft", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// PEFT's own files, in both formats.
func TestPEFTFiles(t *testing.T) {
	var saved []*Saved
	for _, name := range []string{WeightsFile, pickleFile} {
		dir := t.TempDir()
		for _, file := range []string{ConfigFile, name} {
			if err := os.WriteFile(filepath.Join(dir, file), read(t, file), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Fits(testModules(1), false); err != nil {
			t.Error(err)
		}
		if s.Modules[lmHead].R != 3 || s.Modules[lmHead].Scale != 1 || len(s.Modules) != 2 || len(s.Full) != 1 {
			t.Errorf("%+v", s)
		}
		saved = append(saved, s)
	}
	if d := cmp.Diff(saved[0], saved[1]); d != "" {
		t.Error(d)
	}
}

func FuzzRead(f *testing.F) {
	dir := writeAdapter(f, headConfig, f32(headA, 2, 3), f32(headB, 4, 2))
	weights, err := os.ReadFile(filepath.Join(dir, WeightsFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(headConfig, weights, true)
	f.Add(string(read(f, ConfigFile)), read(f, WeightsFile), true)
	f.Add(string(read(f, ConfigFile)), read(f, pickleFile), false)
	dir = f.TempDir()
	f.Fuzz(func(t *testing.T, config string, weights []byte, safe bool) {
		for _, name := range []string{WeightsFile, pickleFile} {
			os.Remove(filepath.Join(dir, name))
		}
		name := map[bool]string{true: WeightsFile, false: pickleFile}[safe]
		if err := errors.Join(os.WriteFile(filepath.Join(dir, ConfigFile), []byte(config), 0o666), os.WriteFile(filepath.Join(dir, name), weights, 0o666)); err != nil {
			t.Fatal(err)
		}
		s, err := Read(dir)
		if err != nil {
			if !strings.Contains(err.Error(), dir) {
				t.Fatalf("no file is named: %v", err)
			}
			return
		}
		out := t.TempDir()
		if err := s.Write(out); err != nil {
			t.Fatal(err)
		}
	})
}
