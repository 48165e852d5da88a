package tokenizer

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// forms are the files that hold the same vocabulary, below ../shared/tokenizers.
var forms = map[string][][]string{
	"spm": {{"llama2", "tokenizer.json"}, {"llama2", "tokenizer.model"}, {"llama.cpp", "ggml-vocab-llama-spm.gguf"}},
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
		if cases == "spm" { // the same vocabulary, but with special tokens of its own
			files = append(files, []string{"llama1-hf"})
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

// spCase is one model of testdata/tokenizer/sentencepiece.jsonl, made by testdata/reference/make_sentencepiece_cases.py.
type spCase struct {
	Name               string
	Model              []byte
	Config             json.RawMessage
	Unk, BOS, EOS, Pad int32
	Size               int
	Cases              []encodeCase
}

func spCases(t testing.TB) []spCase {
	t.Helper()
	var list []spCase
	for _, line := range lines(t, data(t, "sentencepiece.jsonl")) {
		var c spCase
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func (c *spCase) load(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := Load(writeFiles(t, map[string]string{"tokenizer.model": string(c.Model), "tokenizer_config.json": string(c.Config)}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestSentencePieceAsReference compares with SentencePiece's ids, with Transformers' where special tokens stand in the
// text, and with Transformers' decoding.
func TestSentencePieceAsReference(t *testing.T) {
	list := spCases(t)
	if len(list) < 14 {
		t.Errorf("only %d models", len(list))
	}
	for _, c := range list {
		t.Run(c.Name, func(t *testing.T) {
			tok := c.load(t)
			encoded := 0
			for _, e := range c.Cases {
				if e.Text != "" {
					encoded++
					if got := tok.Encode(e.Text); !slices.Equal(got, e.IDs) {
						t.Errorf("Encode(%q)\n got %v\nwant %v", e.Text, got, e.IDs)
					}
				}
				checkDecode(t, tok, e)
			}
			if encoded < 150 {
				t.Errorf("only %d texts", encoded)
			}
			if tok.Format() != "SentencePiece" || tok.VocabSize() != c.Size {
				t.Errorf("%s of %d tokens, want SentencePiece of %d", tok.Format(), tok.VocabSize(), c.Size)
			}
			names := tok.SpecialNames()
			for role, id := range map[string]int32{"unk_token": c.Unk, "bos_token": c.BOS, "eos_token": c.EOS, "pad_token": c.Pad} {
				want, _ := tok.Token(id)
				if names[role] != want {
					t.Errorf("%s is %q, want %q", role, names[role], want)
				}
			}
			if id, _ := tok.BOS(); id != c.BOS {
				t.Errorf("BOS %d, want %d", id, c.BOS)
			}
			if id, _ := tok.EOS(); id != c.EOS {
				t.Errorf("EOS %d, want %d", id, c.EOS)
			}
		})
	}
}

// TestTiktokenAsReference compares with tiktoken's ids.
func TestTiktokenAsReference(t *testing.T) {
	tok, err := Load(data(t, "tiktoken.model"))
	if err != nil {
		t.Fatal(err)
	}
	rows := lines(t, data(t, "tiktoken.jsonl"))
	if len(rows) < 300 {
		t.Errorf("only %d rows", len(rows))
	}
	plain := tok.WithoutSpecials()
	for _, row := range rows {
		var c struct {
			Text       string
			Bytes      []byte
			IDs, Plain []int32
		}
		if err := json.Unmarshal(row, &c); err != nil {
			t.Fatal(err)
		}
		text := c.Text + string(c.Bytes)
		if got := tok.Encode(text); !slices.Equal(got, c.IDs) {
			t.Errorf("Encode(%q)\n got %v\nwant %v", text, got, c.IDs)
		}
		want := c.Plain
		if want == nil {
			want = c.IDs
		}
		got := plain.Encode(text)
		if !slices.Equal(got, want) {
			t.Errorf("without specials: Encode(%q)\n got %v\nwant %v", text, got, want)
		}
		if back := tok.Decode(got); c.Bytes == nil && back != text {
			t.Errorf("%q came back as %q", text, back)
		}
	}
	bos, _ := tok.BOS()
	eos, _ := tok.EOS()
	if n := int32(tok.VocabSize()) - 256; tok.Format() != "tiktoken" || bos != n || eos != n+1 {
		t.Errorf("%s with BOS %d and EOS %d, want tiktoken with %d and %d", tok.Format(), bos, eos, n, n+1)
	}
	if w := tok.Warnings(); len(w) != 2 || !strings.Contains(w[0], "421 tokens, LLaMA 3 has 128000") ||
		!strings.Contains(w[1], `1 tokens, the first of them "Ġwholeword"`) {
		t.Errorf("warnings %q", w)
	}
}

// TestGGUFAsReference compares GGUF files, written by llama.cpp's package, with the files that they were made of.
func TestGGUFAsReference(t *testing.T) {
	scored, err := Load(data(t, "scored.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	levelled, err := Load(data(t, "levelled.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	texts := hardTexts(t)
	model := spCases(t)[0]
	sameIDs(t, "scored.gguf", model.load(t), scored, texts)
	sameIDs(t, "levelled.gguf", loadSmall(t, "llama3"), levelled, texts)
	for _, c := range []struct {
		tok       *Tokenizer
		bos, eos  int32
		templates map[string]string
		names     map[string]string
		frame     []int32
	}{
		{scored, 1, 2, map[string]string{"default": "{{ bos_token }}", "tool_use": "{{ tools }}"},
			map[string]string{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, []int32{1}},
		{levelled, 421, 422, map[string]string{"default": "{{ bos_token }}"},
			map[string]string{"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}, []int32{421}},
	} {
		bos, _ := c.tok.BOS()
		eos, _ := c.tok.EOS()
		if bos != c.bos || eos != c.eos || c.tok.Format() != "GGUF" || len(c.tok.Warnings()) > 0 {
			t.Errorf("%s, BOS %d, EOS %d, warnings %q", c.tok.Format(), bos, eos, c.tok.Warnings())
		}
		if got := c.tok.ChatTemplates(); !maps.Equal(got, c.templates) {
			t.Errorf("templates %q", got)
		}
		if got := c.tok.SpecialNames(); !maps.Equal(got, c.names) {
			t.Errorf("names %q", got)
		}
		if got := c.tok.EncodeWithSpecial(""); !slices.Equal(got, c.frame) {
			t.Errorf("around a text: %v", got)
		}
	}
	if s, ok := levelled.Token(428); !ok || s != "[PAD427]" || levelled.VocabSize() != 429 {
		t.Errorf("Token(428) = %q, %v; %d tokens", s, ok, levelled.VocabSize())
	}
}

// hardTexts are the texts of the cases of tokenizer.json.
func hardTexts(t testing.TB) []string {
	t.Helper()
	var list []string
	for _, name := range []string{"sp", "llama3"} {
		var cases []encodeCase
		readJSON(t, data(t, name+".encode.json"), &cases)
		for _, c := range cases {
			list = append(list, c.Text)
		}
	}
	return list
}

// sameIDs checks that two tokenizers cannot be told apart by what they do.
func sameIDs(t *testing.T, name string, want, got *Tokenizer, texts []string) {
	t.Helper()
	plainWant, plainGot := want.WithoutSpecials(), got.WithoutSpecials()
	for _, text := range texts {
		ids := got.Encode(text)
		if w := want.Encode(text); !slices.Equal(ids, w) {
			t.Fatalf("%s: Encode(%q)\n got %v\nwant %v", name, text, ids, w)
		}
		if g, w := plainGot.Encode(text), plainWant.Encode(text); !slices.Equal(g, w) {
			t.Fatalf("%s: without specials: Encode(%q)\n got %v\nwant %v", name, text, g, w)
		}
		if g, w := got.EncodeContinuation(text), want.EncodeContinuation(text); !slices.Equal(g, w) {
			t.Fatalf("%s: EncodeContinuation(%q)\n got %v\nwant %v", name, text, g, w)
		}
		if g, w := got.Decode(ids), want.Decode(ids); g != w {
			t.Fatalf("%s: Decode(%v)\n got %q\nwant %q", name, ids, g, w)
		}
		if g, w := got.DecodeWithSpecial(ids), want.DecodeWithSpecial(ids); g != w {
			t.Fatalf("%s: DecodeWithSpecial(%v)\n got %q\nwant %q", name, ids, g, w)
		}
	}
}

// TestSameIDsFromEveryForm encodes random texts with every form of LLaMA's vocabularies.
func TestSameIDsFromEveryForm(t *testing.T) {
	for name, files := range forms {
		want := loadForm(t, files[len(files)-1])
		texts := append(hardTexts(t), randomTexts(want, 3000)...)
		for _, file := range files[:len(files)-1] {
			tok := loadForm(t, file)
			if w := tok.Warnings(); len(w) > 0 {
				t.Errorf("%v: warnings %q", file, w)
			}
			sameIDs(t, name+": "+strings.Join(file, "/"), want, tok, texts)
		}
	}
}

// randomTexts are texts of few different parts each: letters, spaces, controls, broken UTF-8, tokens spelled out.
func randomTexts(tok *Tokenizer, n int) []string {
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{
		"a", "b", "e", "s", "A", "0", "7", "12", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", "\x00", "\x1b", "\u00a0", "\u3000",
		"\xff", "\xc3", "\xe2\x96", "\x80", "é", "e\u0301", "好", "🙂", "👩‍⚕️", "▁", "Ġ", "<0x0A>", "'s", "'LL", ".", ",", "-", "=", "_", "/",
		"the", " the", "mg", "patient", " patients", "<", ">", "<s>", "</s>", "<unk>", "<|begin_of_text|>", "<|eot_id|>", "[PAD]", "ſ", "½",
	}
	texts := make([]string, n)
	for i := range texts {
		some := parts
		if i%2 == 0 {
			some = make([]string, 1+rng.IntN(5))
			for j := range some {
				some[j] = parts[rng.IntN(len(parts))]
			}
		}
		var b strings.Builder
		for range 1 + rng.IntN(40) {
			if rng.IntN(12) == 0 {
				s, _ := tok.Token(rng.Int32N(int32(tok.VocabSize())))
				b.WriteString(strings.ReplaceAll(s, metaspace, " "))
			}
			b.WriteString(some[rng.IntN(len(some))])
		}
		texts[i] = b.String()
	}
	return texts
}
