package tokenizer

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// forms are the files that hold the same vocabulary, below ../shared/tokenizers.
var forms = map[string][][]string{
	"spm": {{"llama1-hf"}, {"llama2", "tokenizer.json"}, {"llama2", "tokenizer.model"}, {"llama.cpp", "ggml-vocab-llama-spm.gguf"}},
	"bpe": {{"llama3", "tokenizer.json"}, {"llama3", "tokenizer.model"}},
}

func loadForm(t testing.TB, parts []string) *Tokenizer {
	t.Helper()
	return loadShared(t, append([]string{"tokenizers"}, parts...)...)
}

// TestLlamaCpp runs llama.cpp's own vocabulary tests with every form of the vocabularies.
func TestLlamaCpp(t *testing.T) {
	for cases, files := range forms {
		base := "ggml-vocab-llama-" + cases + ".gguf"
		in, err := os.ReadFile(shared(t, "tokenizers", "llama.cpp", base+".inp"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.ReadFile(shared(t, "tokenizers", "llama.cpp", base+".out"))
		if err != nil {
			t.Fatal(err)
		}
		texts := strings.Split(string(in), "\n__ggml_vocab_test__\n")
		lines := strings.Split(string(out), "\n")
		if len(texts) != len(lines) || len(texts) != 47 {
			t.Fatalf("%d texts, %d results", len(texts), len(lines))
		}
		for _, file := range files {
			t.Run(strings.Join(file, "/"), func(t *testing.T) {
				tok := loadForm(t, file)
				for i, text := range texts {
					if got, want := tok.Encode(text), numbers(t, lines[i]); !slices.Equal(got, want) {
						t.Errorf("Encode(%q)\n got %v\nwant %v", text, got, want)
					}
				}
			})
		}
	}
}
