package tokenizer

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/gguf"
	"google.golang.org/protobuf/encoding/protowire"
)

// Parts of a SentencePiece model.

func lenField(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func varField(number protowire.Number, value int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), uint64(value))
}

func cat(parts ...[]byte) string {
	var b strings.Builder
	for _, p := range parts {
		b.Write(p)
	}
	return b.String()
}

func spPieceField(text string, score float32, kind int64) []byte {
	p := lenField(1, []byte(text))
	p = protowire.AppendFixed32(protowire.AppendTag(p, 2, protowire.Fixed32Type), math.Float32bits(score))
	return lenField(1, append(p, varField(3, kind)...))
}

// spParts are a small whole model: pieces, trainer_spec, normalizer_spec.
func spParts() (pieces, trainer, normalizer []byte) {
	for _, p := range []struct {
		text  string
		score float32
		kind  int64
	}{{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"a", -2, 1}, {"b", -3, 1}, {"ab", 0, 1}, {"▁", -4, 1}} {
		pieces = append(pieces, spPieceField(p.text, p.score, p.kind)...)
	}
	return pieces, lenField(2, varField(3, 2)), lenField(3, cat2(varField(3, 1), varField(4, 0)))
}

func cat2(parts ...[]byte) []byte { return []byte(cat(parts...)) }

// trie makes a charsmap of these units and texts.
func trie(texts string, units ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(4*len(units)))
	for _, u := range units {
		b = binary.LittleEndian.AppendUint32(b, u)
	}
	return append(b, texts...)
}

func TestSentencePieceAttacks(t *testing.T) {
	pieces, trainer, normalizer := spParts()
	charsmap := func(blob []byte) string {
		return cat(pieces, trainer, lenField(3, lenField(2, blob)))
	}
	const a = 'a'
	// rule is a charsmap with one rule, for an a: unit 0 has offset 0, so that unit a is its child for the byte, and the
	// value lies at the offset of that.
	rule := func(value uint32, texts string) string {
		units := make([]uint32, 128)
		units[a], units[a^1] = a|1<<8|1<<10, 1<<31|value
		return charsmap(trie(texts, units...))
	}
	circle, outside := make([]uint32, 128), make([]uint32, 128)
	circle[a] = a | a<<10 // its offset is 0, too
	outside[a] = a | 1<<8 | 1000<<10
	for _, c := range []struct{ name, file, want string }{
		{"a claim of 1 GB", cat(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), 1<<30), make([]byte, 94)),
			"(byte 0): field 1 says that it has 1073741824 bytes, but 94 are left"},
		{"a length beyond the message", cat(pieces, lenField(1, []byte("\x0a\x7fabc"))),
			"(byte 98): piece 7: field 1 says that it has 127 bytes, but 3 are left"},
		{"a varint that never ends", cat(pieces, []byte{0x0a}, []byte(strings.Repeat("\xff", 60))), "field 1: variable length integer overflow"},
		{"a tag that never ends", cat(pieces, []byte(strings.Repeat("\x80", 60))), "(byte 96): bad field: variable length integer overflow"},
		{"a tag cut off", cat(pieces, []byte{0x80}), "bad field: unexpected EOF"},
		{"field 0", cat(pieces, []byte{0x02, 0x00}), "bad field: invalid field number"},
		{"a group that never ends", cat(pieces, []byte(strings.Repeat("\x83\x01", 20000))), "field 16: parse error"},
		{"groups", cat(pieces, []byte{0x0b, 0x0c}), "field 1 has wire type 3, want a message"},
		{"cut off", cat(pieces)[:90], "field 1 says that it has 12 bytes, but 6 are left"},
		{"no pieces", cat(trainer, normalizer), "there are no pieces: the file is not a SentencePiece model"},
		{"an empty piece", cat(pieces, spPieceField("", 0, 1), trainer), "(byte 98): piece 7: the piece is empty"},
		{"a million empty pieces", strings.Repeat("\x0a\x00", 1_000_000), "(byte 2): piece 0: the piece is empty"},
		{"too many pieces", strings.Repeat("\x0a\x03\x0a\x01x", maxTokens+1), "piece 1048576: more than 1048576 pieces"},
		{"a piece that is not UTF-8", cat(pieces, spPieceField("\xff", 0, 1), trainer), `piece 7: "\xff" is not UTF-8`},
		{"a piece twice", cat(pieces, spPieceField("ab", 0, 1), trainer), `(byte 98): piece 7: "ab": piece 5 is the same`},
		{"a score that is NaN", cat(pieces, spPieceField("x", float32(math.NaN()), 1), trainer), `piece 7: "x": the score is NaN`},
		{"a score without bound", cat(pieces, spPieceField("x", float32(math.Inf(1)), 1), trainer), `piece 7: "x": the score is +Inf`},
		{"a type that is none", cat(pieces, spPieceField("x", 0, 7), trainer), `piece 7: "x": type 7 is not known`},
		{"a type beyond 32 bits", cat(pieces, spPieceField("x", 0, -1), trainer), `piece 7: "x": type -1 is not known`},
		{"a score as text", cat(pieces, lenField(1, cat2(lenField(1, []byte("x")), lenField(2, []byte("1"))))), "piece 7: field 2 has wire type 2, want a float"},
		{"a text as number", cat(pieces, lenField(1, varField(1, 5))), "piece 7: field 1 has wire type 0, want bytes"},
		{"pieces as numbers", cat(varField(1, 5)), "field 1 has wire type 0, want a message: the file is neither a SentencePiece model nor another tokenizer"},
		{"two unknown tokens", cat(pieces, spPieceField("x", 0, 2), trainer), `piece 7: "x": a second unknown token, piece 0 was the first`},
		{"no unknown token", cat(spPieceField("x", 0, 1), trainer), "no piece is the unknown token"},
		{"byte pieces without byte_fallback", cat(pieces, spPieceField("<0x41>", 0, 6), trainer), `"<0x41>": the type is byte, but byte_fallback is off`},
		{"a byte piece of another form", cat(pieces, spPieceField("<0x4a>", 0, 6), trainer), `"<0x4a>": the type is byte, but it is not of the form <0x4A>`},
		{"byte_fallback without bytes", cat(pieces, lenField(2, cat2(varField(3, 2), varField(35, 1)))), "byte_fallback is on, but there is no piece <0x00>"},
		{"an unused piece that is made", cat(pieces, spPieceField("ba", 0, 5), trainer),
			`piece 7, "ba", is not to be used, but pieces 4 and 3 make it; such models are not supported`},
		{"unigram", cat(pieces, lenField(2, varField(3, 1))), "a SentencePiece model of type unigram is not supported: only BPE is"},
		{"unigram by default", cat(pieces, lenField(2, nil)), "a SentencePiece model of type unigram is not supported: only BPE is"},
		{"word", cat(pieces, lenField(2, varField(3, 3))), "a SentencePiece model of type word is not supported: only BPE is"},
		{"char", cat(pieces, lenField(2, varField(3, 4))), "a SentencePiece model of type char is not supported: only BPE is"},
		{"another type", cat(pieces, lenField(2, varField(3, 9))), "trainer_spec: model_type 9 is not known; only BPE (2) is supported"},
		{"no trainer_spec", cat(pieces, normalizer), "there is no trainer_spec, which says what kind of model it is"},
		{"BOS out of range", cat(pieces, lenField(2, cat2(varField(3, 2), varField(41, 7)))), "bos_token has id 7, but there are only 7 tokens"},
		{"EOS far out of range", cat(pieces, lenField(2, cat2(varField(3, 2), varField(42, math.MaxInt32)))), "eos_token has id 2147483647, but there are only 7 tokens"},
		{"pad out of range", cat(pieces, lenField(2, cat2(varField(3, 2), varField(43, 8)))), "pad_token has id 8, but there are only 7 tokens"},
		{"a long piece", cat(pieces, spPieceField(strings.Repeat("a", 513), 0, 1), trainer), "token 7 has 513 bytes, more than 512"},
		{"a denormalizer", cat(pieces, trainer, lenField(5, lenField(2, []byte("x")))), "denormalizer_spec: rules for decoding are not supported"},
		{"rules too short", charsmap([]byte("abc")), "precompiled_charsmap: 3 bytes are too short"},
		{"rules of 1 GB", charsmap([]byte("\x00\x00\x00\x40abcdefgh")), "the trie has 1073741824 bytes of the 8 that there are; want a multiple of 4 below that"},
		{"rules of odd size", charsmap([]byte("\x03\x00\x00\x00abcdefgh")), "the trie has 3 bytes of the 8 that there are"},
		{"rules that lead in a circle", charsmap(trie("x\x00", circle...)), "a rule is for more than 256 bytes, or the trie is none"},
		{"a value outside of the trie", charsmap(trie("x\x00", outside...)), "the trie has a value outside of it"},
		{"a value outside of the texts", rule(77, "x\x00"), "a rule writes what stands at byte 77 of 2"},
		{"a text without end", rule(1, "xyz"), "a rule writes more than 256 bytes"},
		{"a text that is long", rule(1, strings.Repeat("x", 300)+"\x00"),
			"a rule writes more than 256 bytes"},
		{"many rules", charsmap(make([]byte, maxCharsmap+1)), "4194305 bytes, at most 4194304 are plausible"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, "tokenizer.model", c.file, c.want) })
	}
	tok, err := Load(writeFiles(t, map[string]string{"tokenizer.model": cat(pieces, trainer, normalizer)}))
	if err != nil {
		t.Fatalf("the model without faults: %v", err)
	}
	if got := fmt.Sprint(tok.Encode("ab<s>x")); got != "[6 5 1 6 0]" {
		t.Errorf("the model without faults: %s", got)
	}
	if tok, err = Load(writeFiles(t, map[string]string{"tokenizer.model": rule(2, "x\x00bb\x00")})); err != nil {
		t.Fatalf("rules without faults: %v", err)
	}
	if got := fmt.Sprint(tok.Encode("a")); got != "[6 4 4]" {
		t.Errorf("rules without faults: %s", got)
	}
}

// refused checks that a file of this name is refused with a message that names it and has want.
func refused(t *testing.T, name, content, want string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{path, want} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in the error:\n%v", part, err)
		}
	}
	if len(err.Error()) > 4000 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

// rankLines are the lines of a tiktoken file with all bytes and these tokens.
func rankLines(tokens ...string) string {
	var b strings.Builder
	for i := range 256 + len(tokens) {
		token := string([]byte{byte(i)})
		if i >= 256 {
			token = tokens[i-256]
		}
		fmt.Fprintf(&b, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(token)), i)
	}
	return b.String()
}

func TestTiktokenAttacks(t *testing.T) {
	all := rankLines()
	line := func(token string, rank int) string {
		return fmt.Sprintf("%s %d\n", base64.StdEncoding.EncodeToString([]byte(token)), rank)
	}
	for _, c := range []struct{ name, file, want string }{
		{"a rank that is missing", all + line("ab", 257), `token "ab" has rank 257, but there are only 257 tokens`},
		{"a rank twice", all + line("ab", 255) + line("cd", 256), `rank 255 belongs to "ab" and to "\xff"`},
		{"a token twice", all + line("a", 256), `:257 (byte 2194): token "a" stands twice, with ranks 97 and 256`},
		{"a byte that is missing", strings.Replace(all, line("x", 'x'), line("xx", 'x'), 1), "no token is the byte 0x78"},
		{"bad base64", all + "YW=I= 256\n", `:257 (byte 2194): want a token in base64, got "YW=I="`},
		{"base64 without padding", all + "YQ 256\n", `want a token in base64, got "YQ"`},
		{"base64 with bits left over", all + "YX== 256\n", `want a token in base64, got "YX=="`},
		{"no token", all + " 256\n", `want a token in base64, got ""`},
		{"no rank", all + "YWI=\n", `want a token and its rank, got "YWI="`},
		{"a rank below 0", all + "YWI= -1\n", `want a rank, got "-1"`},
		{"a rank with a sign", all + "YWI= +256\n", `want a rank, got "+256"`},
		{"a rank of many digits", all + "YWI= " + strings.Repeat("9", 100) + "\n", `want a rank, got "9999999999999999999999999999999999999999"`},
		{"a rank far out of range", all + line("ab", math.MaxInt64), `token "ab" has rank 9223372036854775807, but there are only 257 tokens`},
		{"many bad lines", all + strings.Repeat("x\n", 100_000), "the rest was not read"},
		{"a long token", all + line(strings.Repeat("a", 513), 256), "token 256 has 513 bytes, more than 512"},
		{"a line without end", all + strings.Repeat("A", 1<<20), `:257 (byte 2194): want a token and its rank, got "AAAAAAAA`},
		{"GPT-4's", many(100256), "100256 tokens: this is OpenAI's cl100k vocabulary, whose expression for words the file does not have"},
		{"LLaMA 4's", many(200000), "200000 tokens: this is LLaMA 4's vocabulary"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, "tokenizer.model", c.file, c.want) })
	}
	crlf := strings.ReplaceAll(rankLines("ab", "abc"), "\n", "\r\n") + "\r\n\r\n"
	tok, err := Load(writeFiles(t, map[string]string{"tokenizer.model": crlf}))
	if err != nil {
		t.Fatalf("the file without faults: %v", err)
	}
	if got := fmt.Sprint(tok.Encode("abcab")); got != "[257 256]" {
		t.Errorf("the file without faults: %s", got)
	}
}

// many are the lines of a file with n tokens.
func many(n int) string {
	tokens := make([]string, n-256)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("t%d", i)
	}
	return rankLines(tokens...)
}

// TestOtherFiles checks what is said of files that are no tokenizer.
func TestOtherFiles(t *testing.T) {
	tekken := `{"config": {"pattern": "x", "num_vocab_tokens": 1}, "vocab": [{"rank": 0, "token_bytes": "AA=="}], "special_tokens": []}`
	for i, c := range []struct{ name, file, want string }{
		{"tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 499723\n",
			"the file is a Git LFS pointer, not the file itself: fetch it with git lfs pull"},
		{"tokenizer.json", "version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"},
		{"tokenizer.model", "<!DOCTYPE html>\n<html><title>404</title>", "the file is a web page, such as an error page or a login: download the file again"},
		{"tokenizer.json", "\r\n <HTML>", "a web page"},
		{"tokenizer.model", "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "a web page"},
		{"tokenizer.model", "PK\x03\x04xxxx", "the file is a zip archive, not a tokenizer"},
		{"tokenizer.model", "\x1f\x8b\x08\x00", "the file is compressed with gzip: unpack it first"},
		{"tokenizer.model", "\x80\x02}q\x00.", "the file is a pickle, not a tokenizer"},
		{"tokenizer.model", "", "the file is empty"},
		{"tokenizer.model", tekken, "this is Mistral's tekken, which is not supported (its tokenizer.json would do)"},
		{"tekken.json", tekken, "this is Mistral's tekken"},
		{"tokenizer.model", "Entry not found", "(byte 6): field 4 has wire type 0, want a message: the file is neither a SentencePiece model nor another tokenizer"},
		{"tokenizer.model", "hello\n", "neither a SentencePiece model nor another tokenizer"},
		{"tokenizer.model", "GGUF", "byte 4: the version takes 4 bytes, but 0 are left"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { refused(t, c.name, c.file, c.want) })
	}
}

// keys returns the metadata of a small GGUF file with changes: keys with a nil value are left out.
func keys(base, changes map[string]any) []gguf.KeyValue {
	all := maps.Clone(base)
	maps.Copy(all, changes)
	var list []gguf.KeyValue
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if all[k] != nil {
			list = append(list, gguf.KeyValue{Key: k, Value: all[k]})
		}
	}
	return list
}

func scoredKeys() map[string]any {
	return map[string]any{
		"general.architecture": "llama", ggml + "model": "llama",
		ggml + "tokens":     []string{"<unk>", "<s>", "</s>", "a", "b", "ab", "▁"},
		ggml + "token_type": []int32{2, 3, 3, 1, 1, 1, 1},
		ggml + "scores":     []float32{0, 0, 0, -2, -3, 0, -4},
	}
}

func levelledKeys() map[string]any {
	return map[string]any{
		"general.architecture": "llama", ggml + "model": "gpt2", ggml + "pre": "llama-bpe",
		ggml + "tokens": append(alphabet(), "ab", "<x>"), ggml + "token_type": append(ones(257), 3),
		ggml + "merges": []string{"a b"},
	}
}

func alphabet() []string {
	var list []string
	for _, r := range byteToRune {
		list = append(list, string(r))
	}
	return list
}

func ones(n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = 1
	}
	return list
}

func ggufText(t testing.TB, metadata []gguf.KeyValue) string {
	t.Helper()
	var b strings.Builder
	if err := gguf.Write(&b, metadata, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGGUFAttacks(t *testing.T) {
	type change = map[string]any
	scored, levelled := scoredKeys(), levelledKeys()
	for _, c := range []struct {
		name    string
		base    map[string]any
		changes change
		want    string
	}{
		{"no tokenizer", scored, change{ggml + "model": nil}, "the file has no tokenizer (no key tokenizer.ggml.model)"},
		{"a model of another type", scored, change{ggml + "model": uint32(3)}, "tokenizer.ggml.model"},
		{"bert", scored, change{ggml + "model": "bert"}, `tokenizer.ggml.model "bert" is not supported: llama and gpt2 are`},
		{"t5", scored, change{ggml + "model": "t5"}, `tokenizer.ggml.model "t5" is not supported`},
		{"no tokens", scored, change{ggml + "tokens": nil}, "no key tokenizer.ggml.tokens"},
		{"tokens of another type", scored, change{ggml + "tokens": []int32{1, 2}}, "tokenizer.ggml.tokens"},
		{"empty tokens", scored, change{ggml + "tokens": []string{}}, "tokenizer.ggml.tokens is empty"},
		{"too many tokens", scored, change{ggml + "tokens": make([]string, maxTokens+1)},
			"tokenizer.ggml.tokens has 1048577 elements, at most 1048576 are plausible"},
		{"only empty tokens", scored, change{ggml + "tokens": make([]string, 7)}, `piece 0: "": the unknown token has no text`},
		{"a token twice", scored, change{ggml + "tokens": []string{"<unk>", "<s>", "</s>", "a", "b", "ab", "a"}}, `piece 6: "a": piece 3 is the same`},
		{"types missing", scored, change{ggml + "token_type": []int32{2, 3}}, "tokenizer.ggml.token_type has 2 elements, but there are 7 tokens"},
		{"a type that is none", scored, change{ggml + "token_type": []int32{2, 3, 3, 1, 1, 1, 99}}, "tokenizer.ggml.token_type[6] is 99, which is not known"},
		{"no scores", scored, change{ggml + "scores": nil}, "no key tokenizer.ggml.scores"},
		{"scores missing", scored, change{ggml + "scores": []float32{1}}, "tokenizer.ggml.scores has 1 elements, but there are 7 tokens"},
		{"a score that is NaN", scored, change{ggml + "scores": []float32{0, 0, 0, 1, 1, float32(math.NaN()), 0}}, "tokenizer.ggml.scores[5] is NaN"},
		{"bytes missing", scored, change{ggml + "tokens": []string{"<unk>", "<s>", "</s>", "a", "b", "ab", "<0x00>"},
			ggml + "token_type": []int32{2, 3, 3, 1, 1, 1, 6}}, "byte_fallback is on, but there is no piece <0x01>"},
		{"a long token", scored, change{ggml + "tokens": []string{"<unk>", "<s>", "</s>", "a", "b", "ab", strings.Repeat("a", 600)}},
			"token 6 has 600 bytes, more than 512"},
		{"a space prefix of another type", scored, change{ggml + "add_space_prefix": "yes"}, "tokenizer.ggml.add_space_prefix"},
		{"rules for characters", scored, change{ggml + "precompiled_charsmap": []uint8{1}}, "precompiled_charsmap: rules for characters are not supported"},
		{"an id of another type", scored, change{ggml + "bos_token_id": "1"}, "tokenizer.ggml.bos_token_id"},
		{"no merges", levelled, change{ggml + "merges": nil}, "no key tokenizer.ggml.merges"},
		{"a merge of one", levelled, change{ggml + "merges": []string{"ab"}}, `tokenizer.ggml.merges[0]: want two tokens, got "ab"`},
		{"a merge of the unknown", levelled, change{ggml + "merges": []string{"a b", "a zz"}}, `tokenizer.ggml.merges[1]: "zz" is not among the tokens`},
		{"a merge to the unknown", levelled, change{ggml + "merges": []string{"b a"}}, `tokenizer.ggml.merges[0]: "ba" is not among the tokens`},
		{"a merge with nothing", levelled, change{ggml + "merges": []string{" a"}}, `tokenizer.ggml.merges[0]: "" is not among the tokens`},
		{"a merge of three", levelled, change{ggml + "merges": []string{"a b b"}}, `tokenizer.ggml.merges[0]: "b b" is not among the tokens`},
		{"many bad merges", levelled, change{ggml + "merges": strings.Split(strings.Repeat("zz x,", 99_999)+"zz x", ",")}, "and 99992 more"},
		{"a token twice", levelled, change{ggml + "tokens": append(alphabet(), "ab", "ab")}, `tokenizer.ggml.tokens[257] is "ab", as is [256]`},
		{"another way to cut words", levelled, change{ggml + "pre": "tekken"}, `tokenizer.ggml.pre "tekken" is not supported: llama-bpe,`},
		{"llama 4", levelled, change{ggml + "pre": "llama4"}, `tokenizer.ggml.pre "llama4" is not supported`},
		{"a template of another type", scored, change{"tokenizer.chat_template": uint32(1)}, "tokenizer.chat_template"},
		{"a template out of proportion", scored, change{"tokenizer.chat_template.x": strings.Repeat("x", maxTemplate+1)},
			"tokenizer.chat_template.x: 1048577 bytes, at most 1048576 are plausible"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, "model.gguf", ggufText(t, keys(c.base, c.changes)), c.want) })
	}
	for _, c := range []struct {
		base    map[string]any
		changes change
		text    string
		want    string
		warning string
	}{
		{scored, nil, "ab<s>x", "[6 5 1 6 0]", ""},
		{scored, change{ggml + "token_type": nil}, "ab<s>x", "[6 5 1 6 0]", ""}, // from before types
		{scored, change{ggml + "add_space_prefix": false}, "ab", "[5]", ""},
		{scored, change{ggml + "remove_extra_whitespaces": true}, " a  b ", "[6 3 6 4]", ""},
		{scored, change{ggml + "bos_token_id": uint32(70)}, "ab", "[6 5]", "tokenizer.ggml.bos_token_id is 70, but there are only 7 tokens"},
		{levelled, nil, "ab<x>", "[256 257]", ""},
		{levelled, change{ggml + "pre": nil}, "ab1234", "[256 49 50 51 52]", `tokenizer.ggml.pre "" does not say how words are cut`},
		{levelled, change{ggml + "pre": "smollm"}, "ab", "[256]", ""},
	} {
		tok, err := Load(writeFiles(t, map[string]string{"model.gguf": ggufText(t, keys(c.base, c.changes))}))
		if err != nil {
			t.Errorf("%v: %v", c.changes, err)
			continue
		}
		if got := fmt.Sprint(tok.Encode(c.text)); got != c.want {
			t.Errorf("%v: %s, want %s", c.changes, got, c.want)
		}
		if got := strings.Join(tok.Warnings(), "\n"); !strings.Contains(got, c.warning) || c.warning == "" && got != "" {
			t.Errorf("%v: warnings %q, want %q", c.changes, got, c.warning)
		}
	}
}

// TestStepsAreBounded refuses steps that make much of little.
func TestStepsAreBounded(t *testing.T) {
	list := func(n int, part string) string { return strings.TrimSuffix(strings.Repeat(part+",", n), ",") }
	replace := func(from, to string) string {
		return `{"type":"Replace","pattern":{"String":"` + from + `"},"content":"` + to + `"}`
	}
	normal := func(parts string) string { return `"normalizer": {"type":"Sequence","normalizers":[` + parts + `]}` }
	words := func(parts string) string {
		return `"pre_tokenizer": {"type":"Sequence","pretokenizers":[` + parts + `]}`
	}
	for _, c := range []struct{ name, part, want string }{
		{"doubling", normal(list(11, replace("a", "aa"))), "the normalizer and the pre-tokenizer can make a text more than 1024 times as long"},
		{"doubling beyond all numbers", normal(list(64, replace("a", "aaaa"))), "more than 1024 times as long"},
		{"one long text", normal(replace("a", strings.Repeat("b", 1025))), "more than 1024 times as long"},
		{"one long text by expression", normal(`{"type":"Replace","pattern":{"Regex":"a+"},"content":"` + strings.Repeat("b", 1025) + `"}`), "more than 1024 times as long"},
		{"a long beginning", normal(`{"type":"Prepend","prepend":"` + strings.Repeat("b", 1025) + `"}`), "more than 1024 times as long"},
		{"bytes of bytes", words(list(6, `{"type":"ByteLevel"}`)), "more than 1024 times as long"},
		{"both together", normal(list(6, replace("a", "aa"))) + "," + words(list(3, `{"type":"ByteLevel"}`)), "more than 1024 times as long"},
		{"marks of marks", words(list(4, `{"type":"Metaspace","replacement":"▁"}`)), "more than 1024 times as long"},
		{"many steps", normal(list(65, replace("a", "b"))), "65 normalizers, 0 pre-tokenizers and 1 decoders, at most 64 of each are plausible"},
		{"many nested steps", normal(list(9, `{"type":"Sequence","normalizers":[`+list(8, replace("a", "b"))+`]}`)), "72 normalizers"},
		{"many words", words(list(65, `{"type":"WhitespaceSplit"}`)), "65 pre-tokenizers"},
		{"long expressions", words(list(3, `{"type":"Split","pattern":{"Regex":"a{500}"},"behavior":"Removed"}`)),
			"the regular expressions have 1506 steps, at most 1024 are plausible"},
		{"decoders", `"decoder": {"type":"Sequence","decoders":[` + list(11, replace("a", "aa")) + `]}`, "the decoder can make a token more than 1024 times as long"},
		{"many decoders", `"decoder": {"type":"Sequence","decoders":[` + list(65, `{"type":"Fuse"}`) + `]}`, "65 decoders"},
		{"a step of much text", `"normalizer": {"x":"` + strings.Repeat("x", maxStep) + `"}`, "normalizer: 1048584 bytes, at most 1048576 are plausible"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, "tokenizer.json", minimal(okModel, c.part), c.want) })
	}
	fine := minimal(okModel+`, "unk_token": "a"`, normal(list(10, replace("a", "aa"))))
	tok, err := Load(writeFiles(t, map[string]string{"tokenizer.json": fine}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(tok.Encode("a")); n != 1024 {
		t.Errorf("%d tokens, want 1024", n)
	}
}

// TestFileSizes refuses files and tables out of proportion, and what is no file.
func TestFileSizes(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "tokenizer.json")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "67108865 bytes, at most 67108864 are plausible") {
		t.Errorf("a large file: %v", err)
	}
	if err := os.Remove(big); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(big, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "tokenizer.json: not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	if testing.Short() {
		return
	}
	var vocab strings.Builder
	for i := range maxTokens + 1 {
		fmt.Fprintf(&vocab, `"%x":%d,`, i, i)
	}
	refused(t, "tokenizer.json", minimal(`"vocab": {`+strings.TrimSuffix(vocab.String(), ",")+`}`), "model.vocab: more than 1048576 tokens")
	merges := strings.TrimSuffix(strings.Repeat(`"a b",`, maxMerges+1), ",")
	refused(t, "tokenizer.json", minimal(badModel+`[`+merges+`]`), "model.merges: more than 2097152")
	added := strings.TrimSuffix(strings.Repeat(`{"id":5,"content":"x"},`, maxAdded+1), ",")
	refused(t, "tokenizer.json", minimal(okModel, `"added_tokens": [`+added+`]`), "added_tokens[262144]: there are more than 262144")
	long := `{"id":5,"content":"` + strings.Repeat("x", maxPiece+1) + `"}`
	refused(t, "tokenizer.json", minimal(okModel, `"added_tokens": [`+long+`]`), "has 513 bytes, at most 512 are plausible")
	var much []string
	for i := range maxAddedBytes/maxPiece + 1 {
		much = append(much, fmt.Sprintf(`{"id":%d,"content":"%s%08d"}`, 5+i, strings.Repeat("x", maxPiece-8), i))
	}
	refused(t, "tokenizer.json", minimal(okModel, `"added_tokens": [`+strings.Join(much, ",")+`]`),
		"the added tokens have 8389120 bytes, at most 8388608 are plausible")
	wrong := strings.TrimSuffix(strings.Repeat("\"a\"\n,", 1_000_000), ",")
	refused(t, "tokenizer.json", minimal(badModel+`[`+wrong+`]`), "and 999992 more")
}

// TestMergesThatCycle merges tokens with one that is empty, which makes the same token again and again.
func TestMergesThatCycle(t *testing.T) {
	file := minimal(`"vocab": {"": 0, "a": 1, "b": 2}, "unk_token": "b", "merges": [["", "a"], ["a", ""], ["", ""]]`)
	tok, err := Load(writeFiles(t, map[string]string{"tokenizer.json": file}))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(tok.Encode("aaba")); got != "[1 1 2 1]" {
		t.Errorf("got %s", got)
	}
}

// TestAddedTokensOfSpaces strips the white space around tokens that are white space themselves.
func TestAddedTokensOfSpaces(t *testing.T) {
	for _, c := range []struct { // as tokenizers 0.23 has it
		strip, want string
		spaces      int
	}{
		{`"lstrip":true`, "[0 5 5 5 0]", 300_000}, {`"rstrip":true`, "[0 5 5 5 0]", 300_000}, {`"rstrip":true,"lstrip":true`, "[0 5 0]", 1},
	} {
		file := minimal(okModel+`, "unk_token": "a"`, `"added_tokens": [{"id":5,"content":" ",`+c.strip+`}]`)
		tok, err := Load(writeFiles(t, map[string]string{"tokenizer.json": file}))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(tok.Encode("a   a")); got != c.want {
			t.Errorf("%s: %s, want %s", c.strip, got, c.want)
		}
		if n := len(tok.Encode(strings.Repeat(" ", 300_000))); n != c.spaces {
			t.Errorf("%s: %d tokens, want %d", c.strip, n, c.spaces)
		}
	}
}
