package model_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model"
)

// decoder is a random small decoder, and what is trained in it.
type decoder struct {
	dir      string
	layers   int
	vocab    int
	adapted  []string // suffixes of linears
	dropout  float32
	full     []string
	compute  string
	hidden   int
	describe string
}

func randomDecoder(t testing.TB, r *rand.Rand) decoder {
	t.Helper()
	kv := 1 + r.IntN(2)
	heads, headDim := kv*(1+r.IntN(3)), 2*(1+r.IntN(6))
	d, ff, layers, vocab := heads*(2+r.IntN(10)), 5+r.IntN(50), 1+r.IntN(5), 30+r.IntN(30)
	config := map[string]any{"vocab_size": vocab, "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers,
		"num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": headDim, "tie_word_embeddings": false}
	o := decoder{layers: layers, vocab: vocab, hidden: d, compute: []string{"f32", "bf16"}[r.IntN(2)]}
	o.dir = writeModel(t, tinyConfig(config), randomTensors(r, d, ff, layers, vocab, heads*headDim, kv*headDim))
	all := []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
	for _, name := range all {
		switch r.IntN(4) {
		case 0:
			o.adapted = append(o.adapted, name)
		case 1:
			for l := range layers {
				if r.IntN(2) == 0 {
					o.adapted = append(o.adapted, fmt.Sprintf("layers.%d.%s", l, parent(name)+name))
				}
			}
		}
	}
	if r.IntN(2) == 0 {
		o.dropout = 0.2
	}
	for _, module := range []string{model.EmbedTokens, model.LMHead} {
		if r.IntN(3) == 0 || len(o.adapted) == 0 && module == model.LMHead {
			o.full = append(o.full, module)
		}
	}
	o.describe = fmt.Sprintf("%s, %v adapted in %v, %v whole, dropout %v", o.compute, config, o.adapted, o.full, o.dropout)
	return o
}

func parent(linear string) string {
	if slices.Contains([]string{"gate_proj", "up_proj", "down_proj"}, linear) {
		return "mlp."
	}
	return "self_attn."
}

func randomTensors(r *rand.Rand, d, ff, layers, vocab, q, kv int) (ts []safetensors.Source) {
	add := func(name string, mean float64, shape ...int) {
		n := 1
		for _, s := range shape {
			n *= s
		}
		var data []byte
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(mean+0.3*r.NormFloat64())))
		}
		ts = append(ts, safetensors.Source{Name: name, DType: numeric.F32, Shape: shape, Data: data})
	}
	add("model.embed_tokens.weight", 0, vocab, d)
	for i := range layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		add(p+"input_layernorm.weight", 1, d)
		add(p+"self_attn.q_proj.weight", 0, q, d)
		add(p+"self_attn.k_proj.weight", 0, kv, d)
		add(p+"self_attn.v_proj.weight", 0, kv, d)
		add(p+"self_attn.o_proj.weight", 0, d, q)
		add(p+"post_attention_layernorm.weight", 1, d)
		add(p+"mlp.gate_proj.weight", 0, ff, d)
		add(p+"mlp.up_proj.weight", 0, ff, d)
		add(p+"mlp.down_proj.weight", 0, d, ff)
	}
	add("model.norm.weight", 1, d)
	add("lm_head.weight", 0, vocab, d)
	return ts
}

func (d *decoder) open(t testing.TB, o model.Options) *model.Model {
	t.Helper()
	o.Compute = d.compute
	m, err := model.Open(d.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if len(d.adapted) > 0 {
		adapt(t, m, d.dropout, d.adapted...)
	}
	for _, module := range d.full {
		if _, err := m.TrainFull(module); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// batch is n rows, some with a target, where the second half may continue the first.
func (d *decoder) batch(seed uint64, n int) *model.Batch {
	r := rand.New(rand.NewPCG(seed, 77))
	b := &model.Batch{}
	for left := n; left > 0; {
		ids := make([]int32, min(left, 1+r.IntN(n)))
		for i := range ids {
			ids[i] = int32(r.IntN(d.vocab))
		}
		appendSample(b, ids, len(ids)/2)
		left -= len(ids)
	}
	b.Targets = append(b.Targets, model.Target{Row: int32(n - 1), Label: 1, Count: 2})
	if d.dropout > 0 {
		b.Dropout = &model.Dropout{Seed: seed, Samples: make([]uint32, n)}
	}
	return b
}

// history is what two steps with evaluations and generation between them leave.
func (d *decoder) history(t testing.TB, m *model.Model, reserve bool) (out []float32) {
	t.Helper()
	ctx := context.Background()
	if reserve {
		if _, err := m.Reserve(model.Load{Rows: 40, Selected: 40, Keys: 40, EvalRows: 40}); err != nil {
			t.Fatal(err)
		}
	}
	params := m.Params()
	for step := 1; step <= 2; step++ {
		params.Zero()
		for micro := range uint64(2) {
			if err := m.Backward(ctx, d.batch(2*uint64(step)+micro, 5+int(micro)*20*step)); err != nil {
				t.Fatal(err)
			}
			plain := d.batch(90, 31)
			plain.Dropout = nil
			loss, err := m.Loss(ctx, plain)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, float32(loss))
		}
		logits, err := m.Logits(ctx, &model.Batch{Tokens: []int32{1, 2}, Positions: []int32{0, 1}, Segments: []model.Segment{{Len: 2, Prefix: -1}}}, []int32{1})
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, float32(m.TakeLoss())), logits...)
		for _, p := range params.All() {
			g := make([]float32, p.Len())
			p.ReadGrad(g)
			out = append(out, g...)
		}
		params.AdamW(model.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: step})
	}
	return out
}

// Whatever is kept, and whether memory is reserved, no bit of losses and gradients changes: over random decoders,
// adapters and batches, with evaluations between that use the same memory.
func TestPoliciesChangeNoBit(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 5))
		d := randomDecoder(t, r)
		var want []float32
		policies := []string{"all", "none", "auto", "some:99"}
		for n := range d.layers {
			policies = append(policies, fmt.Sprintf("some:%d", n))
		}
		for i, policy := range policies {
			m := d.open(t, model.Options{Activations: policy, Threads: 1 + i%3})
			got := d.history(t, m, i%2 == 1)
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("seed %d, policy %s: other bits than with %s (%s)", seed, policy, policies[0], d.describe)
			}
		}
	}
}

// What is planned for is what there is after Reserve, and after a run.
func TestPlanIsWhatIsHeld(t *testing.T) {
	for seed := range uint64(8) {
		d := randomDecoder(t, rand.New(rand.NewPCG(seed, 6)))
		for _, policy := range []string{"all", "none", "some:1"} {
			m := d.open(t, model.Options{Activations: policy, Threads: 2})
			load := model.Load{Rows: 45, Selected: 45, Keys: 45, EvalRows: 31, Extra: 12345}
			p, err := m.Reserve(load)
			if err != nil {
				t.Fatal(err)
			}
			reserved := m.HeldActivations()
			d.history(t, m, false)
			if held := m.HeldActivations(); p.Activations != reserved || held != reserved {
				t.Errorf("seed %d, %s: activations of %d bytes are planned, %d reserved, %d held (%s)", seed, policy, p.Activations, reserved, held, d.describe)
			}
			if got := m.Params().Bytes(); got != p.Adapter+p.Optimizer {
				t.Errorf("seed %d: parameters of %d bytes are planned, %d held", seed, p.Adapter+p.Optimizer, got)
			}
			const workers = 2 << 20 // at most, and less with small products
			if held := m.HeldScratch(); held > p.Scratch || held < p.Scratch-workers-20<<10 {
				t.Errorf("seed %d, %s: scratch of %d bytes is planned, %d held (%s)", seed, policy, p.Scratch, held, d.describe)
			}
			if sum := p.Program + p.Adapter + p.Optimizer + p.Activations + p.Scratch + p.Extra; sum != p.Peak || p.Extra != 12345 {
				t.Errorf("the parts %+v are not the sum", p)
			}
		}
	}
}

// The planner keeps as many layers as fit, and says so.
func TestPlanner(t *testing.T) {
	m := tiny(t, model.Options{}, false, nil)
	adapt(t, m, 0, "layers.1.self_attn.q_proj", "layers.2.mlp.up_proj") // layer 0 has no backward pass
	load := model.Load{Rows: 1 << 15, Selected: 9, Keys: 100}
	plan := func(o model.Options) model.Memory {
		t.Helper()
		p, err := m.PlanWith(o, load)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	none, all := plan(model.Options{Activations: "none"}), plan(model.Options{Activations: "all"})
	if none.Policy() != "none" || none.Kept != 0 || none.Layers != 2 || none.Least != none.Peak || none.Each == 0 {
		t.Errorf("policy none: %+v", none)
	}
	if all.Policy() != "all" || all.Kept != 2 || all.Peak <= none.Peak || all.Given || all.From == "" {
		t.Errorf("policy all: %+v", all)
	}
	if p := plan(model.Options{Activations: "some:1"}); p.Policy() != "some:1" || p.Peak <= none.Peak {
		t.Errorf("policy some:1: %+v", p)
	}
	const noise = 1 << 19 // what the test itself allocates meanwhile
	for limit, want := range map[int64]string{
		all.Peak + noise:             "all",
		none.Peak + all.Each + noise: "some:1",
		none.Peak + noise:            "none",
		none.Peak - noise:            "none",
	} {
		p := plan(model.Options{MemoryLimit: limit})
		if p.Policy() != want || !p.Given || p.Limit != limit || p.Fits() != (limit >= none.Peak) {
			t.Errorf("limit %d: %s fits %v, want %s; %+v", limit, p.Policy(), p.Fits(), want, p)
		}
	}
	if p := plan(model.Options{}); p.Given || p.From == "" || p.Limit == 0 {
		t.Errorf("what is free: %+v", p)
	}
	m.SetOptions(model.Options{MemoryLimit: 1 << 20, Activations: "all"})
	_, err := m.Reserve(load)
	if err == nil || !strings.HasPrefix(err.Error(), "the memory limit is 1.00 MiB; with activation policy all the run takes ") {
		t.Errorf("Reserve beyond the limit: %v", err)
	}
}

func TestPolicyErrors(t *testing.T) {
	for _, text := range []string{"some", "some:", "some:-1", "some:x", "ALL", "some:99999999999999999999"} {
		want := fmt.Sprintf("activation policy %q is none of auto, none, all, some:N (N layers)", text)
		if err := model.CheckPolicy(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := model.Open(t.TempDir(), model.Options{MemoryLimit: -1}); err == nil || err.Error() != "a memory limit of -1 bytes" {
		t.Errorf("a negative limit: %v", err)
	}
}

// A calibration changes nothing that is learnt.
func TestCalibrate(t *testing.T) {
	m := tiny(t, model.Options{Activations: "some:1"}, false, nil)
	adapt(t, m, 0.1, "q_proj", "down_proj", "lm_head")
	b := randomBatch(4)
	wantLoss, want := grads(t, m, b)
	s, err := m.Calibrate(context.Background(), 100, 30)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{s.Forward, s.Again, s.Backward, s.Head, s.Step} {
		if !(v > 0 && v < 10) {
			t.Errorf("%+v", s)
		}
	}
	for _, p := range m.Params().All() {
		g := make([]float32, p.Len())
		if p.ReadGrad(g); slices.ContainsFunc(g, func(v float32) bool { return v != 0 }) {
			t.Fatalf("%s has a gradient", p.Name())
		}
	}
	if loss, got := grads(t, m, b); loss != wantLoss || !slices.Equal(got, want) {
		t.Error("losses or gradients are others after a calibration")
	}
	s = model.Speed{Forward: 1, Again: 10, Backward: 100, Head: 1000}
	p := model.Memory{Layers: 3, Kept: 1}
	if got, want := s.Seconds(p, 4, 2, 3), 2.0*(4*1+3*100+1*10)+3*1000; got != want {
		t.Errorf("%v seconds, want %v", got, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Calibrate(ctx, 1, 1); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}
