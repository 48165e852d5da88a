package model_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
)

// tinyConfig is a decoder of odd sizes.
func tinyConfig(over map[string]any) map[string]any {
	c := map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": 37, "hidden_size": 20,
		"intermediate_size": 27, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10,
		"hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
	}
	for k, v := range over {
		c[k] = v
	}
	return c
}

// tinyTensors are random weights for tinyConfig.
func tinyTensors() []safetensors.Source {
	r := rand.New(rand.NewPCG(1, 2))
	var ts []safetensors.Source
	add := func(name string, mean, std float64, shape ...int) {
		n := 1
		for _, s := range shape {
			n *= s
		}
		var data []byte
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(mean+std*r.NormFloat64())))
		}
		ts = append(ts, safetensors.Source{Name: name, DType: numeric.F32, Shape: shape, Data: data})
	}
	add("model.embed_tokens.weight", 0, 0.5, 37, 20)
	for i := range 3 {
		p := fmt.Sprintf("model.layers.%d.", i)
		add(p+"input_layernorm.weight", 1, 0.1, 20)
		add(p+"self_attn.q_proj.weight", 0, 0.25, 20, 20)
		add(p+"self_attn.k_proj.weight", 0, 0.25, 10, 20)
		add(p+"self_attn.v_proj.weight", 0, 0.25, 10, 20)
		add(p+"self_attn.o_proj.weight", 0, 0.25, 20, 20)
		add(p+"post_attention_layernorm.weight", 1, 0.1, 20)
		add(p+"mlp.gate_proj.weight", 0, 0.25, 27, 20)
		add(p+"mlp.up_proj.weight", 0, 0.25, 27, 20)
		add(p+"mlp.down_proj.weight", 0, 0.25, 20, 27)
	}
	add("model.norm.weight", 1, 0.1, 20)
	add("lm_head.weight", 0, 0.3, 37, 20)
	return ts
}

func writeModel(t testing.TB, config map[string]any, ts []safetensors.Source) string {
	t.Helper()
	dir := t.TempDir()
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644),
		safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), ts, nil)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tiny opens a tiny model; be nil is the CPU in float32.
func tiny(t testing.TB, o model.Options, oracle bool, over map[string]any) *model.Model {
	t.Helper()
	dir := writeModel(t, tinyConfig(over), tinyTensors())
	if o.Compute == "" {
		o.Compute = "f32"
	}
	var m *model.Model
	var err error
	if oracle {
		m, err = model.OpenOn(dir, o, ref.New())
	} else {
		m, err = model.Open(dir, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// adapt gives the linears whose names end in one of suffixes a branch of random numbers.
func adapt(t testing.TB, m *model.Model, dropout float32, suffixes ...string) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	for i, l := range m.Linears() {
		if !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(l.Name(), s) }) {
			continue
		}
		rank := 1 + i%3
		a, b := make([]float32, rank*l.In()), make([]float32, l.Out()*rank)
		for i := range a {
			a[i] = 0.3 * float32(r.NormFloat64())
		}
		for i := range b {
			b[i] = 0.3 * float32(r.NormFloat64())
		}
		if err := l.SetBranch(a, b, rank, 0.7, dropout); err != nil {
			t.Fatal(err)
		}
	}
}

// sample is a row of n tokens, the last of which are labels.
func sample(r *rand.Rand, n, labels int, head ...int32) (ids []int32, from int) {
	ids = append(ids, head...)
	for len(ids) < n {
		ids = append(ids, int32(r.IntN(37)))
	}
	return ids, n - labels
}

func appendSample(b *model.Batch, ids []int32, from int) {
	first := b.Append(ids)
	for i := max(1, from); i < len(ids); i++ {
		b.Targets = append(b.Targets, model.Target{Row: first + int32(i) - 1, Label: ids[i], Count: 1})
	}
}

func randomBatch(seed uint64) *model.Batch {
	r := rand.New(rand.NewPCG(seed, 9))
	b := &model.Batch{}
	for _, n := range []int{7, 1, 12, 3} {
		ids, from := sample(r, n, n/2)
		appendSample(b, ids, from)
	}
	return b
}

func grads(t testing.TB, m *model.Model, b *model.Batch) (loss float64, g []float32) {
	t.Helper()
	m.Params().Zero()
	m.TakeLoss()
	if err := m.Backward(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params().All() {
		v := make([]float32, p.Len())
		p.ReadGrad(v)
		g = append(g, v...)
	}
	return m.TakeLoss(), g
}

var allLinears = []string{"_proj", "lm_head"}

// The whole decoder against finite differences, in float64: every parameter of every branch.
func TestGradients(t *testing.T) {
	for name, over := range map[string]map[string]any{
		"plain":  nil,
		"window": {"model_type": "mistral", "architectures": []string{"MistralForCausalLM"}, "sliding_window": 4},
	} {
		t.Run(name, func(t *testing.T) {
			m := tiny(t, model.Options{}, true, over)
			adapt(t, m, 0.2, allLinears...)
			if _, err := m.TrainFull(model.EmbedTokens); err != nil {
				t.Fatal(err)
			}
			b := randomBatch(1)
			b.Dropout = &model.Dropout{Seed: 3, Samples: make([]uint32, len(b.Tokens))}
			_, got := grads(t, m, b)
			at := 0
			for _, p := range m.Params().All() {
				v := p.Values()
				for _, i := range []int{0, len(v) / 2, len(v) - 1} {
					const h = 1.0 / 1024
					old := v[i]
					up, down := old+h, old-h
					v[i] = up
					p.Write(v)
					a, err1 := m.Loss(context.Background(), b)
					v[i] = down
					p.Write(v)
					c, err2 := m.Loss(context.Background(), b)
					v[i] = old
					p.Write(v)
					if err := errors.Join(err1, err2); err != nil {
						t.Fatal(err)
					}
					want := (a - c) / (float64(up) - float64(down))
					if d := math.Abs(float64(got[at+i]) - want); d > 2e-4*max(1, math.Abs(want)) {
						t.Errorf("%s[%d]: gradient %v, difference %v", p.Name(), i, got[at+i], want)
					}
				}
				at += len(v)
			}
		})
	}
}

// What the layers keep, and how many threads there are, changes no bit.
func TestBitIdentical(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		var wantLoss float64
		var want []float32
		for i, o := range []model.Options{{Activations: "all", Threads: 1}, {Activations: "none", Threads: 1},
			{Activations: "all", Threads: 2}, {Activations: "none", Threads: 3}} {
			o.Compute = compute
			m := tiny(t, o, false, nil)
			adapt(t, m, 0.1, "q_proj", "v_proj", "down_proj", "up_proj", "lm_head")
			b := randomBatch(2)
			b.Dropout = &model.Dropout{Seed: 3, Samples: make([]uint32, len(b.Tokens))}
			loss, g := grads(t, m, b)
			if i == 0 {
				wantLoss, want = loss, g
				continue
			}
			if loss != wantLoss || !slices.Equal(g, want) {
				t.Errorf("%s, %+v: loss %v, want %v; gradients differ by %g", compute, o, loss, wantLoss, golden.MaxAbs(g, want))
			}
		}
	}
}

// The fast backend against the oracle, over odd sizes and all kinds of training.
func TestBackendsAgree(t *testing.T) {
	for _, suffixes := range [][]string{{"q_proj", "v_proj"}, {"down_proj"}, {"layers.2.mlp.up_proj"}, {"layers.1.self_attn.k_proj", "lm_head"}, allLinears} {
		b := randomBatch(4)
		oracle := tiny(t, model.Options{}, true, nil)
		adapt(t, oracle, 0, suffixes...)
		wantLoss, want := grads(t, oracle, b)
		for _, features := range []string{"", "avx2", "go"} {
			m, err := model.Open(oracle.Dir(), model.Options{Compute: "f32", CPUFeatures: features})
			if err != nil && features == "avx2" {
				t.Log(err) // a CPU without
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			adapt(t, m, 0, suffixes...)
			loss, g := grads(t, m, b)
			if golden.Rel(loss, wantLoss) > 1e-6 || golden.RelNorm(g, want) > 5e-6 {
				t.Errorf("%v %v: loss %v, want %v; gradients are off by %.1e", suffixes, features, loss, wantLoss, golden.RelNorm(g, want))
			}
			m.Close()
		}
	}
}

// prefixed is a batch of samples that begin alike, each by itself, and one that has each head once.
func prefixed() (plain, tree *model.Batch) {
	r := rand.New(rand.NewPCG(8, 8))
	head, _ := sample(r, 6, 0)
	variant := append(slices.Clone(head), 5, 9)
	a, _ := sample(r, 12, 0, variant...)
	c, _ := sample(r, 10, 0, variant...)
	d, _ := sample(r, 9, 0, head...)
	plain = &model.Batch{}
	appendSample(plain, a, 8) // its first label is predicted by the variant's last row
	appendSample(plain, c, 8)
	appendSample(plain, d, 4) // and this one's by a row inside the head
	tree = &model.Batch{
		Segments: []model.Segment{{Start: 0, Len: 6, Prefix: -1}, {Start: 6, Len: 2, Prefix: 0}, {Start: 8, Len: 4, Prefix: 1}, {Start: 12, Len: 2, Prefix: 1}, {Start: 14, Len: 3, Prefix: 0}},
	}
	for _, part := range [][]int32{head, variant[6:], a[8:], c[8:], d[6:]} {
		tree.Tokens = append(tree.Tokens, part...)
	}
	for _, s := range [][2]int32{{0, 6}, {6, 8}, {8, 12}, {8, 10}, {6, 9}} {
		for p := s[0]; p < s[1]; p++ {
			tree.Positions = append(tree.Positions, p)
		}
	}
	// rowOf says which row of the tree predicts position i of a sample.
	rowOf := func(i int, own int32, from int) int32 {
		if i-1 < 6 {
			return int32(i - 1)
		}
		if from == 8 && i-1 < 8 {
			return int32(i - 1)
		}
		return own + int32(i-1-from)
	}
	for _, s := range []struct {
		ids    []int32
		label  int
		own    int32
		shared int
	}{{a, 8, 8, 8}, {c, 8, 12, 8}, {d, 4, 14, 6}} {
		for i := s.label; i < len(s.ids); i++ {
			tree.Targets = append(tree.Targets, model.Target{Row: rowOf(i, s.own, s.shared), Label: s.ids[i], Count: 1})
		}
	}
	return plain, tree
}

func TestSharedPrefixes(t *testing.T) {
	testSharedPrefixes(t, tiny(t, model.Options{}, true, nil), 1e-7) // gradients are read as float32
	testSharedPrefixes(t, tiny(t, model.Options{Device: "cpu"}, false, nil), 3e-6)
}

func testSharedPrefixes(t *testing.T, m *model.Model, tolerance float64) {
	t.Helper()
	plain, tree := prefixed()
	adapt(t, m, 0, allLinears...)
	wantLoss, want := grads(t, m, plain)
	loss, g := grads(t, m, tree)
	if golden.Rel(loss, wantLoss) > tolerance || golden.RelNorm(g, want) > tolerance {
		t.Errorf("%s: loss %v, want %v; gradients are off by %.1e", m.Device(), loss, wantLoss, golden.RelNorm(g, want))
	}
}

// A label that several samples share counts as often.
func TestCountedTargets(t *testing.T) {
	m := tiny(t, model.Options{}, true, nil)
	adapt(t, m, 0, "v_proj")
	ids := []int32{1, 4, 7, 9}
	twice, once := &model.Batch{}, &model.Batch{}
	appendSample(twice, ids, 1)
	appendSample(twice, ids, 1)
	appendSample(once, ids, 1)
	for i := range once.Targets {
		once.Targets[i].Count = 2
	}
	wantLoss, want := grads(t, m, twice)
	loss, g := grads(t, m, once)
	if golden.Rel(loss, wantLoss) > 1e-12 || golden.RelNorm(g, want) > 1e-7 {
		t.Errorf("loss %v, want %v; gradients are off by %.1e", loss, wantLoss, golden.RelNorm(g, want))
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, activations := range []string{"all", "none"} {
		m := tiny(t, model.Options{Activations: activations, Threads: 2}, false, nil)
		adapt(t, m, 0, "q_proj", "v_proj")
		batches := []*model.Batch{randomBatch(1), randomBatch(2)}
		i := 0
		step := func() {
			i++
			if err := m.Backward(context.Background(), batches[i%2]); err != nil {
				t.Fatal(err)
			}
			m.TakeLoss()
			m.Params().Norm()
			m.Params().AdamW(model.AdamW{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: i})
			m.Params().Zero()
		}
		step()
		step()
		n := testing.AllocsPerRun(10, step)
		for range 5 { // a worker that had no piece yet makes its scratch
			if n != 0 {
				n = testing.AllocsPerRun(10, step)
			}
		}
		if n != 0 {
			t.Errorf("activations %s: %v allocations a step", activations, n)
		}
	}
}

func TestBadBatches(t *testing.T) {
	m := tiny(t, model.Options{}, true, nil)
	adapt(t, m, 0, "q_proj")
	ok := func() *model.Batch {
		b := &model.Batch{}
		b.Append([]int32{1, 2, 3})
		b.Targets = []model.Target{{Row: 0, Label: 2, Count: 1}}
		return b
	}
	for want, spoil := range map[string]func(*model.Batch){
		"batch: row 1: token 37 is outside the vocabulary of 37":                      func(b *model.Batch) { b.Tokens[1] = 37 },
		"batch: row 0: token -1 is outside the vocabulary of 37":                      func(b *model.Batch) { b.Tokens[0] = -1 },
		"batch: 2 positions for 3 rows":                                               func(b *model.Batch) { b.Positions = b.Positions[:2] },
		"batch: row 2 of segment 0 is at position 5, want 2":                          func(b *model.Batch) { b.Positions[2] = 5 },
		"batch: target 0: label 2 at row 3, 1 times; there are 3 rows and 37 labels":  func(b *model.Batch) { b.Targets[0].Row = 3 },
		"batch: target 0: label 99 at row 0, 1 times; there are 3 rows and 37 labels": func(b *model.Batch) { b.Targets[0].Label = 99 },
		"batch: segment 0 continues segment 0, which does not come before it":         func(b *model.Batch) { b.Segments[0].Prefix = 0 },
		"batch: the segments have 2 rows, the batch 3":                                func(b *model.Batch) { b.Segments[0].Len = 2 },
		"batch: segment 0 has rows 0 to 4, the one before ends at 0 and there are 3":  func(b *model.Batch) { b.Segments[0].Len = 4 },
		"batch: 1 samples for 3 rows of dropout":                                      func(b *model.Batch) { b.Dropout = &model.Dropout{Samples: []uint32{1}} },
		"batch: it has no rows":                                                       func(b *model.Batch) { *b = model.Batch{Targets: b.Targets} },
	} {
		b := ok()
		spoil(b)
		if err := m.Backward(context.Background(), b); err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Backward(ctx, ok()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancelling", err)
	}
	if err := m.Backward(context.Background(), ok()); err != nil {
		t.Error(err)
	}
}

func TestBadCheckpoints(t *testing.T) {
	change := func(name string, f func(*safetensors.Source)) []safetensors.Source {
		ts := tinyTensors()
		for i := range ts {
			if ts[i].Name == name {
				f(&ts[i])
			}
		}
		return ts
	}
	remove := func(name string) []safetensors.Source {
		return slices.DeleteFunc(tinyTensors(), func(s safetensors.Source) bool { return s.Name == name })
	}
	for name, c := range map[string]struct {
		ts   []safetensors.Source
		want []string
	}{
		"missing": {remove("model.layers.1.mlp.up_proj.weight"), []string{"tensor model.layers.1.mlp.up_proj.weight is missing", "[27 20]"}},
		"no head": {remove("lm_head.weight"), []string{"tensor lm_head.weight is missing"}},
		"shape":   {change("model.norm.weight", func(s *safetensors.Source) { s.Shape = []int{4, 5} }), []string{"model.safetensors: tensor model.norm.weight has shape [4 5], ", "config.json asks for [20]"}},
		"type": {change("model.norm.weight", func(s *safetensors.Source) { s.DType = numeric.I32 }),
			[]string{"stored quantised", "model.norm.weight is I32 [20]"}},
		"quantised": {change("model.layers.0.self_attn.q_proj.weight", func(s *safetensors.Source) { s.DType = numeric.I32 }),
			[]string{"stored quantised"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := model.Open(writeModel(t, tinyConfig(nil), c.ts), model.Options{})
			if err == nil {
				t.Fatal("it opens")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %v\nlacks %q", err, w)
				}
			}
		})
	}
	extra := append(tinyTensors(), safetensors.Source{Name: "visual.proj", DType: numeric.F32, Shape: []int{1}, Data: make([]byte, 4)},
		safetensors.Source{Name: "model.layers.0.self_attn.rotary_emb.inv_freq", DType: numeric.F32, Shape: []int{1}, Data: make([]byte, 4)})
	m, err := model.Open(writeModel(t, tinyConfig(nil), extra), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if w := strings.Join(m.Warnings(), "\n"); !strings.Contains(w, "1 tensors are not used: visual.proj") {
		t.Errorf("warnings %q", w)
	}
}

func TestOptions(t *testing.T) {
	dir := writeModel(t, tinyConfig(nil), tinyTensors())
	for want, o := range map[string]model.Options{
		`device "gpu"`:             {Device: "gpu"},
		`device "cuda:-1"`:         {Device: "cuda:-1"},
		`activation policy "some"`: {Activations: "some"},
		`"f16"`:                    {Compute: "f16"},
		`"sse9"`:                   {CPUFeatures: "sse9"},
	} {
		if _, err := model.Open(dir, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v", o, err)
		}
	}
}

func TestCheckFinite(t *testing.T) {
	ts := tinyTensors()
	i := slices.IndexFunc(ts, func(s safetensors.Source) bool { return s.Name == "model.layers.2.mlp.gate_proj.weight" })
	binary.LittleEndian.PutUint32(ts[i].Data[4*11:], math.Float32bits(float32(math.Inf(-1))))
	m, err := model.Open(writeModel(t, tinyConfig(nil), ts), model.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.CheckFinite(); err == nil || !strings.HasSuffix(err.Error(), "model.safetensors: tensor model.layers.2.mlp.gate_proj.weight: element 11 ([0 11] of [27 20]) is -Inf") {
		t.Errorf("error %v", err)
	}
	fine := tiny(t, model.Options{}, false, nil)
	adapt(t, fine, 0, "q_proj")
	if err := fine.CheckFinite(); err != nil {
		t.Error(err)
	}
	p := fine.Params().All()[1]
	v := p.Values()
	v[3] = float32(math.NaN())
	p.Write(v)
	if err := fine.CheckFinite(); err == nil || err.Error() != p.Name()+": element 3 is NaN" {
		t.Errorf("error %v", err)
	}
}

// Reset makes the next step a first one, and gradients can be read and set.
func TestParams(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	adapt(t, m, 0, "q_proj", "o_proj")
	ps := m.Params()
	start := ps.Snapshot(nil)
	step := func() []float32 {
		if _, g := grads(t, m, randomBatch(3)); len(g) != int(ps.Count()) {
			t.Fatalf("%d gradients, %d parameters", len(g), ps.Count())
		}
		ps.AdamW(model.AdamW{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Step: 1})
		return ps.All()[0].Values()
	}
	first := step()
	ps.Restore(start)
	if slices.Equal(step(), first) {
		t.Error("moments of the step before have no effect")
	}
	ps.Restore(start)
	ps.Reset()
	if ps.Norm() != 0 {
		t.Error("gradients outlive Reset")
	}
	if !slices.Equal(step(), first) {
		t.Error("a step after Reset is not a first step")
	}
	ps.Zero()
	g := make([]float32, ps.All()[1].Len())
	g[2] = 3
	ps.All()[1].WriteGrad(g)
	ps.Scale(2)
	if ps.Norm() != 6 {
		t.Errorf("norm %v, want 6", ps.Norm())
	}
}
