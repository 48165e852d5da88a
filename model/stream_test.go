package model_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/model"
)

// windowLoad is what window asks for.
var windowLoad = model.Load{Rows: 60, Selected: 60, Keys: 60, EvalRows: 31, Batches: 5, EvalBatches: 3}

// tight opens the decoder such that its weights are streamed with as little memory as can be.
func (d *decoder) tight(t *testing.T, o model.Options) (*model.Model, model.Memory) {
	t.Helper()
	m := d.open(t, o)
	o.Stream = "never"
	p, err := m.PlanWith(o, windowLoad)
	if err != nil {
		t.Fatal(err)
	}
	o.Stream, o.MemoryLimit = "always", p.Peak+8<<20
	m.SetOptions(o)
	if p, err = m.Reserve(windowLoad); err != nil {
		t.Fatal(err)
	}
	return m, p
}

// window is what two steps of several micro-batches, together or one after another, with evaluations between leave.
func (d *decoder) window(t *testing.T, m *model.Model, together bool) (out []float32) {
	t.Helper()
	ctx := t.Context()
	for step := 1; step <= 2; step++ {
		m.Params().Zero()
		batches := []*model.Batch{d.batch(uint64(step), 5+20*step), {}, d.batch(20, 60), d.batch(30, 2), d.batch(40, 17)}
		held := []*model.Batch{d.batch(90, 31), {}, d.batch(91, 7), d.batch(92, 30)}
		losses := make([]float64, len(held))
		var err error
		if together {
			err = m.BackwardAll(ctx, batches)
			losses, _ = m.LossAll(ctx, held)
		} else {
			for _, b := range batches {
				err = errors.Join(err, m.Backward(ctx, b))
			}
			for i, b := range held {
				losses[i], _ = m.Loss(ctx, b)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, float32(m.TakeLoss()))
		for _, l := range losses {
			out = append(out, float32(l))
		}
		for _, p := range m.Params().All() {
			g := make([]float32, p.Len())
			p.ReadGrad(g)
			out = append(out, g...)
		}
		m.Params().AdamW(model.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: step})
	}
	return out
}

func (d *decoder) logits(t *testing.T, m *model.Model) []float32 {
	t.Helper()
	l, err := m.Logits(t.Context(), &model.Batch{Tokens: []int32{1, 2}, Positions: []int32{0, 1}, Segments: []model.Segment{{Len: 2, Prefix: -1}}}, []int32{1})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Micro-batches that pass through the layers together, of weights that come and go, leave the bits of one after another:
// over random decoders, adapters and batches, whatever the layers keep. What is planned is what is held.
func TestStreamChangesNoBit(t *testing.T) {
	for seed := range uint64(10) {
		d := randomDecoder(t, rand.New(rand.NewPCG(seed, 8)))
		plain := d.open(t, model.Options{Activations: "all", Threads: 1})
		want := d.window(t, plain, false)
		for i, policy := range []string{"none", "auto", "some:1", "all"} {
			m, p := d.tight(t, model.Options{Activations: policy, Threads: 1 + i%3})
			s := p.Stream
			together := 5
			if d.layers <= 2 {
				together = 1 // all of the weights stay
			}
			if s == nil || s.Batches != together || s.Passes*together != 5 || s.Stays != min(2, d.layers) || s.Layers != d.layers || (s.Read > 0) != (d.layers > 2) {
				t.Fatalf("seed %d, policy %s: %+v", seed, policy, s)
			}
			reserved := m.HeldActivations()
			got := d.window(t, m, true)
			if !slices.Equal(got, want) {
				t.Errorf("seed %d, policy %s: other bits when weights are streamed (%s)", seed, policy, d.describe)
			}
			if held := m.HeldActivations(); reserved != p.Activations || held != reserved {
				t.Errorf("seed %d, policy %s: activations of %d bytes are planned, %d reserved, %d held (%s)", seed, policy, p.Activations, reserved, held, d.describe)
			}
			if !slices.Equal(d.logits(t, m), d.logits(t, plain)) {
				t.Errorf("seed %d: other logits when weights are streamed", seed)
			}
			if stats, ok := m.Streamed(); !ok || stats.Read < s.Bytes {
				t.Errorf("%d bytes were read, of %d: %v", stats.Read, s.Bytes, ok)
			}
		}
	}
}

// Weights are streamed where they have no room, or where that is asked for.
func TestStreamWhen(t *testing.T) {
	d := randomDecoder(t, rand.New(rand.NewPCG(1, 8)))
	m := d.open(t, model.Options{})
	for how, want := range map[string]bool{"": false, "auto": false, "never": false, "always": true} {
		p, err := m.PlanWith(model.Options{Stream: how}, windowLoad)
		if err != nil || (p.Stream != nil) != want {
			t.Errorf("%q: %+v, %v", how, p.Stream, err)
		}
	}
	if _, err := model.Open(d.dir, model.Options{Stream: "sometimes"}); err == nil || err.Error() != `streaming "sometimes" is none of auto, always, never` {
		t.Error(err)
	}
	if _, ok := m.Streamed(); ok {
		t.Error("a plan streams")
	}
}

// A slow disk gives memory to micro-batches that pass through the layers together, a slow machine to what layers keep.
func TestStreamPlan(t *testing.T) {
	d := decoder{layers: 5, vocab: 40, adapted: []string{"q_proj"}, compute: "f32", hidden: 12}
	config := map[string]any{"vocab_size": 40, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 5,
		"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "tie_word_embeddings": false}
	d.dir = writeModel(t, tinyConfig(config), randomTensors(rand.New(rand.NewPCG(1, 1)), 12, 20, 5, 40, 12, 6))
	m, p := d.tight(t, model.Options{})
	limit := p.Limit
	for name, c := range map[string]struct {
		compute, disk float64
		activations   string
		batches, kept int
	}{
		"as slow":            {1e-3, 1e5, "auto", 5, 4},
		"slow disk":          {1e-15, 1, "auto", 5, 0},
		"slow machine":       {1, 1e15, "auto", 1, 4}, // a fifth would be still there when its backward pass comes
		"slow machine, none": {1, 1e15, "none", 1, 0},
		"slow disk, some":    {1e-15, 1, "some:2", 5, 2},
	} {
		m.SetPace(c.compute, c.disk)
		p, err := m.PlanWith(model.Options{Stream: "always", MemoryLimit: limit, Activations: c.activations}, windowLoad)
		if err != nil || p.Stream == nil || p.Stream.Batches != c.batches || p.Kept != c.kept || !p.Fits() {
			t.Errorf("%s: %+v, %+v, %v", name, p.Stream, p, err)
		}
	}
}

// A file that is cut short while its weights are streamed is an error that names it.
func TestStreamFileCutShort(t *testing.T) {
	d := randomDecoder(t, rand.New(rand.NewPCG(5, 8)))
	m, _ := d.tight(t, model.Options{})
	want := d.logits(t, m)
	if got := d.logits(t, m); !slices.Equal(got, want) {
		t.Fatal("other logits")
	}
	path := filepath.Join(d.dir, "model.safetensors")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	err := m.Backward(t.Context(), d.batch(1, 30))
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

// endAfter is a context that ends when its error has been asked for a number of times.
type endAfter struct {
	context.Context
	left *int
}

func (c endAfter) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

// A context that ends at any time ends the window between two operations, and the next window is as if nothing had been.
func TestStreamCancelled(t *testing.T) {
	d := randomDecoder(t, rand.New(rand.NewPCG(2, 8)))
	m, _ := d.tight(t, model.Options{})
	batches := []*model.Batch{d.batch(1, 30), d.batch(2, 20), d.batch(3, 9)}
	grads := func() string {
		m.TakeLoss()
		m.Params().Zero()
		if err := m.BackwardAll(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
		var all []float32
		for _, p := range m.Params().All() {
			g := make([]float32, p.Len())
			p.ReadGrad(g)
			all = append(all, g...)
		}
		return fmt.Sprint(m.TakeLoss(), all)
	}
	want := grads()
	for n := 0; ; n++ {
		left := n
		err := m.BackwardAll(endAfter{t.Context(), &left}, batches)
		if err == nil {
			if n < 3*d.layers {
				t.Errorf("the context was asked %d times only", n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if n%5 == 0 && grads() != want {
			t.Fatalf("other gradients after a window that was cancelled at %d", n)
		}
	}
}
