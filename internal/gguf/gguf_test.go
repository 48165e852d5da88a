package gguf

import (
	"errors"
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// A vocabulary of llama.cpp: metadata only. What is expected was read with the Python package gguf.
func TestVocabularyFile(t *testing.T) {
	f, err := Open(golden.Shared(t, "tokenizers", "llama.cpp", "ggml-vocab-llama-spm.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Version() != 3 || len(f.Keys()) != 22 || len(f.Names()) != 0 {
		t.Errorf("version %d, %d keys, %d tensors", f.Version(), len(f.Keys()), len(f.Names()))
	}
	if name, err := f.String("tokenizer.ggml.model"); err != nil || name != "llama" {
		t.Errorf("tokenizer.ggml.model is %q, %v", name, err)
	}
	if n, err := f.Uint("llama.rope.dimension_count"); err != nil || n != 128 {
		t.Errorf("llama.rope.dimension_count is %d, %v", n, err)
	}
	if eps, err := f.Float("llama.attention.layer_norm_rms_epsilon"); err != nil || float32(eps) != 1e-5 {
		t.Errorf("the epsilon is %g, %v", eps, err)
	}
	if bos, err := f.Bool("tokenizer.ggml.add_bos_token"); err != nil || !bos {
		t.Errorf("add_bos_token is %v, %v", bos, err)
	}
	tokens, err := f.Strings("tokenizer.ggml.tokens")
	if err != nil || len(tokens) != 32000 || !slices.Equal(tokens[:4], []string{"<unk>", "<s>", "</s>", "<0x00>"}) || tokens[31999] != "给" {
		t.Errorf("%d tokens, %v", len(tokens), err)
	}
	scores, err := f.Floats("tokenizer.ggml.scores")
	if err != nil || len(scores) != 32000 || scores[31999] != -31740 {
		t.Errorf("%d scores, %v", len(scores), err)
	}
	kinds, err := f.Ints("tokenizer.ggml.token_type")
	if err != nil || len(kinds) != 32000 || !slices.Equal(kinds[:4], []int64{2, 3, 3, 6}) {
		t.Errorf("%d types, %v", len(kinds), err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if len(tokens[31999]) != 3 {
		t.Error("the tokens do not outlive the file")
	}
}
