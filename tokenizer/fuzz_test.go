package tokenizer

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/gguf"
)

func FuzzParse(f *testing.F) {
	for _, name := range small {
		text, err := os.ReadFile(data(f, name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 7000 {
			f.Add(text)
		}
	}
	for _, seed := range []string{
		minimal(okModel), minimal(okModel + `, "unk_token": "a", "ignore_merges": true, "byte_fallback": true`),
		minimal(badModel + `[["a", "b"]]`), minimal(okModel, `"added_tokens": [{"id": 5, "content": "x", "lstrip": true}]`),
		minimal(okModel, `"pre_tokenizer": {"type":"Split","pattern":{"Regex":"\\s?\\p{L}+"},"behavior":"Removed","invert":true}`),
		minimal(okModel, `"decoder": {"type":"Strip","content":"a","start":1,"stop":4294967295}`),
		minimal(`"vocab": {"": 0, "a": 1}, "merges": [["", "a"]]`), `{"model":{"vocab":{"a":2147483646}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) { tryFile(t, "fuzz.json", text) })
}

func FuzzSentencePiece(f *testing.F) {
	pieces, trainer, normalizer := spParts()
	f.Add([]byte(cat(pieces, trainer, normalizer)))
	f.Add([]byte(cat(pieces, lenField(2, cat2(varField(3, 2), varField(24, 1))), lenField(3, varField(5, 0)))))
	units := make([]uint32, 128)
	units['a'], units['a'^1] = 'a'|1<<8|1<<10, 1<<31|2
	f.Add([]byte(cat(pieces, trainer, lenField(3, lenField(2, trie("x\x00bb\x00", units...))))))
	f.Add([]byte(cat(pieces, spPieceField("a b", 1, 4), spPieceField("<0x41>", 0, 6), lenField(2, cat2(varField(3, 2), varField(35, 1))))))
	f.Fuzz(func(t *testing.T, text []byte) { tryFile(t, "fuzz.model", text) })
}

func FuzzTiktoken(f *testing.F) {
	f.Add([]byte("YWI= 256\nYWJj 257\n"))
	f.Add([]byte("8J+Y 256\r\n\r\nIHRo 257"))
	f.Add([]byte("YWI= 300\nYQ== 1\n= x"))
	head := []byte(rankLines())
	f.Fuzz(func(t *testing.T, text []byte) {
		tryFile(t, "fuzz.model", text)
		tryFile(t, "fuzz.model", slices.Concat(head, text))
	})
}

// FuzzGGUFTokenizer makes files of any metadata: internal/gguf has targets for the bytes. Tokens and merges stand a line
// each, scores are told by bytes.
func FuzzGGUFTokenizer(f *testing.F) {
	f.Add("llama", "", "<unk>\n<s>\n</s>\na\nb\nab\n▁", []byte{2, 3, 3, 1, 1, 1, 1}, []byte{9, 9, 9, 5, 4, 8, 3}, "", uint32(1), false)
	f.Add("llama", "", "<unk>\n\n\na\nb\nab\n▁", []byte{}, []byte{0, 0, 0, 0, 0, 0, 255}, "", uint32(9), true)
	f.Add("gpt2", "llama-bpe", "a\nb\nab\nĠ\nĠa\n<s>\nx", []byte{1, 1, 1, 1, 1, 3, 4}, []byte{}, "a b\nĠ a", uint32(5), true)
	f.Add("gpt2", "default", "a\nb\nab\nĠ\n<|begin_of_text|>", []byte{1, 1, 5, 0, 2}, []byte{}, "a b", uint32(5), false)
	f.Fuzz(func(t *testing.T, model, pre, tokens string, kinds, scores []byte, merges string, id uint32, flag bool) {
		all := map[string]any{
			ggml + "model": model, ggml + "tokens": strings.Split(tokens, "\n"), ggml + "merges": strings.Split(merges, "\n"),
			ggml + "bos_token_id": id, ggml + "add_space_prefix": flag, ggml + "remove_extra_whitespaces": !flag,
			ggml + "add_bos_token": flag, ggml + "unknown_token_id": id / 2, "tokenizer.chat_template." + pre: model,
		}
		if pre != "" {
			all[ggml+"pre"] = pre
		}
		if len(kinds) > 0 {
			list := make([]int32, len(kinds))
			for i, k := range kinds {
				list[i] = int32(k)
			}
			all[ggml+"token_type"] = list
		}
		list := make([]float32, len(scores))
		for i, s := range scores {
			list[i] = float32(s)
		}
		all[ggml+"scores"] = list
		var text strings.Builder
		if err := gguf.Write(&text, keys(all, nil), nil); err != nil {
			return
		}
		file, err := gguf.Parse([]byte(text.String()), "fuzz.gguf")
		if err != nil {
			return
		}
		v, err := parseGGUF(file)
		if err != nil {
			mustName(t, err, "fuzz.gguf")
			return
		}
		tok, err := (&builder{vocabulary: v, settings: settings{bosID: none, eosID: none}}).build()
		if err != nil {
			mustName(t, err, "fuzz.gguf")
			return
		}
		try(t, tok)
	})
}

// tryFile reads a file, and if it can be read encodes and decodes with it.
func tryFile(t *testing.T, name string, text []byte) {
	t.Helper()
	tok, err := parsed(name, text)
	if err != nil {
		mustName(t, err, name)
		return
	}
	try(t, tok)
}

func try(t *testing.T, tok *Tokenizer) {
	t.Helper()
	for _, in := range []string{"", "a b", " <s>ab\n\n  x1", "\xff好🙂", "aaaa<|eot_id|>  Ab"} {
		ids := tok.Encode(in)
		for _, id := range ids {
			if _, ok := tok.Token(id); !ok || int(id) >= tok.VocabSize() {
				t.Fatalf("Encode(%q) gave id %d, which is no token", in, id)
			}
		}
		if whole, parts := tok.Decode(ids), streamed(tok.Stream(), ids); whole != parts {
			t.Fatalf("Decode %q, Stream %q", whole, parts)
		}
		if len(ids) > (len(in)+1)*maxGrowth {
			t.Fatalf("%d tokens of %d bytes", len(ids), len(in))
		}
		tok.EncodeContinuation(in)
		tok.EncodeWithSpecial(in)
		tok.WithoutSpecials().Encode(in)
	}
	tok.ChatTemplates()
	tok.SpecialNames()
	if model := tok.Model(); model.GetVocabSize() > tok.VocabSize() {
		t.Fatalf("the model has %d tokens, the tokenizer %d", model.GetVocabSize(), tok.VocabSize())
	}
}

// FuzzForms encodes texts with different forms of the same vocabularies.
func FuzzForms(f *testing.F) {
	for _, s := range []string{"", " a  b\n", "The patient's dose: 12.5 mg", "<s>a</s>", "好🙂é\u0301", "\xff\xc3", "▁ ▁", "<|eot_id|>x"} {
		f.Add(s)
	}
	load := func(path string) *Tokenizer {
		tok, err := Load(path)
		if err != nil {
			f.Fatal(err)
		}
		return tok
	}
	model := spCases(f)[0]
	pairs := [][2]*Tokenizer{
		{model.load(f), load(data(f, "scored.gguf"))},
		{loadSmall(f, "llama3"), load(data(f, "levelled.gguf"))},
	}
	tiktoken := load(data(f, "tiktoken.model"))
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range pairs {
			sameIDs(t, p[1].Format(), p[0], p[1], []string{text})
		}
		ids := tiktoken.Encode(text)
		var back []byte // decode(encode(x)) = x, bytes that are not UTF-8 included
		for _, id := range ids {
			s, _ := tiktoken.Token(id)
			back = appendSpelled(back, s)
		}
		if string(back) != text {
			t.Fatalf("%q came back as %q", text, back)
		}
	})
}

// parsed reads the text of a file that is not GGUF, without neighbours.
func parsed(path string, text []byte) (*Tokenizer, error) {
	s := settings{bosID: none, eosID: none}
	v, bad, err := parseVocabulary(path, text, &s)
	if err != nil {
		return nil, err
	}
	return (&builder{vocabulary: v, bad: bad, settings: s}).build()
}

func mustName(t *testing.T, err error, file string) {
	t.Helper()
	if !strings.Contains(err.Error(), file) {
		t.Fatalf("the error does not name the file: %v", err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "additional_special_tokens": ["a", {"content": "b"}]}`))
	f.Add([]byte(`{"added_tokens_decoder": {"1": {"content": "x"}}, "extra_special_tokens": {"a_token": "b"}}`))
	f.Add([]byte(`{"bos_token_id": [1], "eos_token_id": 2}`))
	f.Add([]byte(`{"x": 3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, read := range []func(*settings, *document) error{
			(*settings).readTokenizerConfig, (*settings).readSpecialTokens, (*settings).readAddedTokens, (*settings).readConfig,
		} {
			d, err := newDocument("fuzz.json", text)
			if err == nil {
				err = read(&settings{}, d)
			}
			if err != nil {
				mustName(t, err, "fuzz.json")
			}
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{"", " a  b\n", "The patient's dose: 12.5 mg", "<s>a</s>", "好🙂é\u0301", "\xff\xc3", "▁ ▁", "[L] a [R] dose"} {
		f.Add(s)
	}
	toks := make(map[string]*Tokenizer)
	for _, name := range small {
		toks[name] = loadSmall(f, name)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, tok := range toks {
			ids := tok.Encode(text)
			if whole, parts := tok.Decode(ids), streamed(tok.Stream(), ids); whole != parts {
				t.Fatalf("%s: Decode %q, Stream %q", name, whole, parts)
			}
			if again := tok.Encode(text); !slices.Equal(ids, again) {
				t.Fatalf("%s: Encode gave %v, then %v", name, ids, again)
			}
			if plain := tok.WithoutSpecials().Encode(text); slices.ContainsFunc(plain, func(id int32) bool {
				return tok.Special(id) && id != tok.model.unk
			}) {
				t.Fatalf("%s: a special token in %v", name, plain)
			}
			checkContinuation(t, name, tok, text)
		}
		if !utf8.ValidString(text) {
			return
		}
		if bytes := toks["llama3"]; !hasAdded(bytes, text) {
			if got := bytes.Decode(bytes.Encode(text)); got != text {
				t.Fatalf("byte-level: %q came back as %q", text, got)
			}
		}
		if sp := toks["sp"]; !hasAdded(sp, text) && !strings.Contains(text, "▁") && !strings.Contains(text, "<0x") {
			if got := sp.Decode(sp.Encode(text)); got != text {
				t.Fatalf("byte fallback: %q came back as %q", text, got)
			}
		}
	})
}

// checkContinuation cuts text after each line break, which is a token of its own in the SentencePiece vocabulary.
func checkContinuation(t *testing.T, name string, tok *Tokenizer, text string) {
	t.Helper()
	head, tail, found := strings.Cut(text, "\n")
	if name != "sp" || !found {
		return
	}
	head += "\n"
	got := append(tok.Encode(head), tok.EncodeContinuation(tail)...)
	if want := tok.Encode(text); !slices.Equal(got, want) {
		t.Fatalf("%q then %q\n got %v\nwant %v", head, tail, got, want)
	}
}

func hasAdded(tok *Tokenizer, text string) bool {
	for content := range tok.added.ids {
		if strings.Contains(text, content) {
			return true
		}
	}
	return false
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{1, 230, 160, 3, 2})
	f.Add([]byte{200, 200, 255, 0})
	toks := make([]*Tokenizer, len(small))
	for i, name := range small {
		toks[i] = loadSmall(f, name)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ids := make([]int32, 0, len(raw))
		for i, b := range raw {
			ids = append(ids, int32(b)*int32(1+i%3)-1)
		}
		for i, tok := range toks {
			whole := tok.Decode(ids)
			if parts := streamed(tok.Stream(), ids); whole != parts {
				t.Fatalf("%s: Decode %q, Stream %q", small[i], whole, parts)
			}
			if !utf8.ValidString(whole) {
				t.Fatalf("%s: %q is not UTF-8", small[i], whole)
			}
		}
	})
}

// plainSyntax are expressions that mean the same in Go.
var plainSyntax = regexp.MustCompile(`^(?:[a-z]|\(\?:|[|)]|[)a-z][*+?]\??)+$`)

func FuzzPattern(f *testing.F) {
	for _, p := range []string{patternGPT2, patternLlama3, `\s?\p{L}+`, `[^\s\d]|x+?`, `(?i:a)|[\u4e00-\u9fa5]`, `[\S-x]`, `a{2,3}`, `(?:a|ab)(?:c|bcd)*`, `(?:a?b)*?c|a`, `x++y|(?<!a)b`} {
		f.Add(p, "a b\n 12 é好")
	}
	f.Fuzz(func(t *testing.T, source, text string) {
		e, err := newExpression(source)
		if err != nil {
			return
		}
		// Go's regexp reads much in the same way, and finds the same where it does.
		other, err := regexp.Compile(source)
		same := err == nil && utf8.ValidString(text) && plainSyntax.MatchString(source)
		next := e.in(text)
		for from := 0; from < len(text); {
			start, end := next(from)
			if same {
				want := other.FindStringIndex(text[from:])
				if (want == nil) != (start < 0) || want != nil && (want[0]+from != start || want[1]+from != end) {
					t.Fatalf("%q in %q from %d: %d to %d, want %v", source, text, from, start, end, want)
				}
			}
			if start < 0 {
				break
			}
			if start < from || end <= start || end > len(text) {
				t.Fatalf("%q in %q from %d: from %d to %d", source, text, from, start, end)
			}
			from = end
		}
	})
}
