package model_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/model"
)

// serials is the oracle, which watches the batches that operations get.
type serials struct {
	*ref.Backend
	t    *testing.T
	seen map[uint64]string // contents by serial
}

func (s *serials) saw(b *backend.Batch) {
	if b.Serial == 0 {
		s.t.Error("a batch without a serial")
	}
	c := *b
	c.Serial, c.Dropout = 0, nil
	content := fmt.Sprint(c)
	if b.Dropout != nil {
		content += fmt.Sprint(*b.Dropout)
	}
	if before, ok := s.seen[b.Serial]; ok && before != content {
		s.t.Errorf("serial %d is\n%s\nand\n%s", b.Serial, before, content)
	}
	s.seen[b.Serial] = content
}

func (s *serials) Embed(x backend.Buffer, e *backend.Embedding, b *backend.Batch) {
	s.saw(b)
	s.Backend.Embed(x, e, b)
}

func (s *serials) Gather(y, x backend.Buffer, b *backend.Batch) {
	s.saw(b)
	s.Backend.Gather(y, x, b)
}

func (s *serials) AttentionBackward(dqkv, qkv, lse, dy backend.Buffer, a *backend.Attention, b *backend.Batch) {
	s.saw(b)
	s.Backend.AttentionBackward(dqkv, qkv, lse, dy, a, b)
}

// TestSerials: no two contents that a device sees have the same serial, whatever the model is asked to do.
func TestSerials(t *testing.T) {
	be := &serials{ref.New(), t, map[uint64]string{}}
	m, err := model.OpenOn(writeModel(t, tinyConfig(nil), tinyTensors()), model.Options{Compute: "f32"}, be)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	adapt(t, m, 0.1, "q_proj")
	ctx := context.Background()
	b := randomBatch(1)
	want := 0
	// step wants at least n batches more than there were.
	step := func(what string, n int, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if want += n; len(be.seen) < want {
			t.Errorf("%s: %d batches so far, want %d", what, len(be.seen), want)
		}
	}
	step("a micro-batch", 1, m.Backward(ctx, b))
	b.Dropout = &model.Dropout{Seed: 1, Samples: make([]uint32, len(b.Tokens))}
	step("the same one with dropout", 1, m.Backward(ctx, b))
	b.Dropout.Epoch++
	step("an epoch later", 1, m.Backward(ctx, b))
	_, err = m.LossAll(ctx, []*model.Batch{randomBatch(2), randomBatch(3)})
	step("an evaluation", 2, err)
	for row := range int32(3) {
		_, err = m.Logits(ctx, b, []int32{row})
		step("logits", 1, err)
	}
	prompts := [][]int32{{1, 5, 7}, {1, 9}}
	_, err = m.Generate(ctx, prompts, model.GenerateOptions{MaxNewTokens: 5, Heads: [][]int{{1}, {1}}})
	step("generation", 3, err)
	_, err = m.Generate(ctx, prompts, model.GenerateOptions{MaxNewTokens: 5, Beams: 2})
	step("beams", 3, err)
	_, err = m.Likelihoods(ctx, []model.Question{{Prompt: []int32{1, 2, 4}, Heads: []int{2}, Options: [][]int32{{5, 6}, {7}}}})
	step("likelihoods", 1, err)
}
