package tokenizer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// minimal returns a tokenizer.json with this model and these other parts.
func minimal(model string, parts ...string) string {
	return "{\n" + strings.Join(append(parts, `"model": {`+model+`}`), ",\n") + "\n}"
}

const (
	okVocab  = `"vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3, "▁": 4}`
	okModel  = `"type": "BPE", ` + okVocab + `, "merges": ["a b"]`
	badModel = `"type": "BPE", ` + okVocab + `, "merges": `
)

func writeFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadErrors(t *testing.T) {
	deep := strings.Repeat(`{"type":"Sequence","normalizers":[`, 12) + strings.Repeat(`]}`, 12)
	added := func(s string) string { return `"added_tokens": [` + s + `]` }
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"empty", "", []string{":1 (byte 0)", "not JSON"}},
		{"cut off", "{\n\"model\": {\n\"vocab\": {\"a\": 0,", []string{":3 (byte", "not JSON"}},
		{"not JSON", "{\n\"model\": nope}", []string{":2 (byte", "not JSON"}},
		{"more text", "{}{}", []string{":1 (byte 3)"}},
		{"array", "[]", []string{"want an object, got []"}},
		{"no model", `{"version": "1.0"}`, []string{"no model"}},
		{"null model", `{"model": null}`, []string{"model: want an object, got null"}},
		{"Unigram", minimal(`"type": "Unigram", "vocab": [["a", -1.5]]`), []string{`:2 (byte`, `"Unigram" is not supported`}},
		{"WordPiece", minimal(`"type": "WordPiece", "vocab": {"a": 0}`), []string{`"WordPiece" is not supported`}},
		{"WordLevel", minimal(`"type": "WordLevel", "vocab": {"a": 0}`), []string{`"WordLevel" is not supported`}},
		{"no vocab", minimal(`"type": "BPE"`), []string{"model.vocab"}},
		{"empty vocab", minimal(`"vocab": {}`), []string{"model.vocab is empty"}},
		{"dropout", minimal(okModel + `, "dropout": 0.1`), []string{"model.dropout 0.1"}},
		{"prefix", minimal(okModel + `, "continuing_subword_prefix": "##"`), []string{`continuing_subword_prefix "##"`}},
		{"suffix", minimal(okModel + `, "end_of_word_suffix": "</w>"`), []string{`end_of_word_suffix "</w>"`}},
		{"type of a flag", minimal(okModel + `, "fuse_unk": "yes"`), []string{"model.fuse_unk"}},
		{"id negative", minimal(`"vocab": {"a": -1}`), []string{`"a": want an id from 0 to 2147483646, got -1`}},
		{"id too large", minimal(`"vocab": {"a": 2147483648}`), []string{"got 2147483648"}},
		{"id without end", minimal(`"vocab": {"a": 1e99}`), []string{"got 1e99"}},
		{"id a fraction", minimal(`"vocab": {"a": 0.5}`), []string{"got 0.5"}},
		{"id a string", minimal(`"vocab": {"a": "0"}`), []string{`got "0"`}},
		{"id an object", minimal(`"vocab": {"a": {}}`), []string{`got {}`}},
		{"ids thinly spread", minimal(`"vocab": {"a": 0, "b": 2147483646}`), []string{"ids run up to 2147483646", "only 2 tokens"}},
		{"two tokens of one id", minimal(`"vocab": {"a": 0, "b": 0}`), []string{`id 0 belongs to "a" and to "b"`}},
		{"a token twice", minimal(`"vocab": {"a": 0,` + "\n" + `"a": 1}`), []string{`:3 (byte`, `"a" stands twice, as 0 and as 1`}},
		{"merges an object", minimal(badModel + `{}`), []string{"model.merges: want an array"}},
		{"merge of one", minimal(badModel + `["a"]`), []string{`model.merges[0]: want two tokens, got "a"`}},
		{"merge of three", minimal(badModel + `["a b", "a b c"]`), []string{`model.merges[1]: want two tokens, got "a b c"`}},
		{"merge a number", minimal(badModel + `[1]`), []string{"want two tokens, got 1"}},
		{"merge of numbers", minimal(badModel + `[[1, 2]]`), []string{"want two tokens, got [1, 2]"}},
		{"merge with null", minimal(badModel + `[["a", null]]`), []string{"want two tokens"}},
		{"merge of unknown", minimal(badModel + "[\"a b\",\n\"a c\"]"), []string{":3 (byte", `merges[1]: "a" and "c": "c" is not in the vocabulary`}},
		{"merge to unknown", minimal(badModel + `["b a"]`), []string{`"ba" is not in the vocabulary`}},
		{"no unknown token", minimal(okModel + `, "unk_token": "<unk>"`), []string{`unk_token "<unk>" is not in the vocabulary`}},
		{"normalizer", minimal(okModel, `"normalizer": {"type": "Precompiled"}`), []string{":2 (byte", `normalizer: normalizer type "Precompiled"`}},
		{"normalizer inside", minimal(okModel, `"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Nope"}]}`),
			[]string{`normalizer.normalizers[1]: normalizer type "Nope"`}},
		{"depth", minimal(okModel, `"normalizer": `+deep), []string{"more than 8 deep"}},
		{"sequence of nothing", minimal(okModel, `"normalizer": {"type": "Sequence"}`), []string{"normalizer: no normalizers"}},
		{"pre-tokenizer", minimal(okModel, `"pre_tokenizer": {"type": "BertPreTokenizer"}`), []string{`pre_tokenizer type "BertPreTokenizer"`}},
		{"pre-tokenizer a string", minimal(okModel, `"pre_tokenizer": "Split"`), []string{"pre_tokenizer:"}},
		{"behavior", minimal(okModel, `"pre_tokenizer": {"type": "Split", "pattern": {"String": "x"}, "behavior": "Eaten"}`), []string{`behavior "Eaten"`}},
		{"no behavior", minimal(okModel, `"pre_tokenizer": {"type": "Split", "pattern": {"String": "x"}}`), []string{"no behavior"}},
		{"no pattern", minimal(okModel, `"pre_tokenizer": {"type": "Split", "behavior": "Removed"}`), []string{"pre_tokenizer.pattern"}},
		{"look-behind", minimal(okModel, `"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?<=ab)b"}, "behavior": "Removed"}`),
			[]string{"looking around for more than one character is not supported"}},
		{"metaspace", minimal(okModel, `"pre_tokenizer": {"type": "Metaspace", "replacement": "__", "prepend_scheme": "last"}`),
			[]string{`one character, got "__"`, `prepend_scheme "last"`}},
		{"metaspace contradicts", minimal(okModel, `"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "add_prefix_space": false}`),
			[]string{`contradicts prepend_scheme "first"`}},
		{"decoder", minimal(okModel, `"decoder": {"type": "WordPiece"}`), []string{`decoder type "WordPiece"`}},
		{"strip", minimal(okModel, `"decoder": {"type": "Strip", "content": "", "start": 1, "stop": 0}`), []string{"one character"}},
		{"added without id", minimal(okModel, added(`{"content": "x"}`)), []string{"added_tokens[0]", "no id"}},
		{"added out of range", minimal(okModel, added(`{"id": 2147483648, "content": "x"}`)), []string{"id 2147483648 is not from 0"}},
		{"added contradicts", minimal(okModel, added(`{"id": 5, "content": "ab"}`)), []string{`"ab" has id 5, in the vocabulary it has 2`}},
		{"added takes an id", minimal(okModel, added(`{"id": 2, "content": "x"}`)), []string{`"x" has id 2, which is that of "ab"`}},
		{"added twice", minimal(okModel, added(`{"id": 5, "content": "x"}, {"id": 6, "content": "x"}`)), []string{`id 6, before it had 5`}},
		{"many", minimal(`"vocab": {` + strings.Repeat(`"a": -1, `, 20) + `"b": 0}`), []string{"and 12 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"tokenizer.json": c.file})
			_, err := Load(dir)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(c.want, filepath.Join(dir, "tokenizer.json")) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in the error:\n%v", want, err)
				}
			}
		})
	}
}

func TestLoadGathersProblems(t *testing.T) {
	dir := writeFiles(t, map[string]string{"tokenizer.json": minimal(badModel+`["a x", "y b"]`,
		`"normalizer": {"type": "N"}`, `"pre_tokenizer": {"type": "P"}`, `"decoder": {"type": "D"}`)})
	_, err := Load(dir)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"x"`, `"y"`, `"N"`, `"P"`, `"D"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in the error:\n%v", want, err)
		}
	}
}

func TestLoadSettingsErrors(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"tokenizer_config.json", `{"bos_token": 1}`, "bos_token: want a token"},
		{"tokenizer_config.json", `{"bos_token": {"content": 1}}`, "bos_token"},
		{"tokenizer_config.json", `{"added_tokens_decoder": {"x": {}}}`, `"x" is not an id`},
		{"tokenizer_config.json", `{"added_tokens_decoder": []}`, "want an object"},
		{"tokenizer_config.json", "{\n\"a\" 1}", ":2 (byte"},
		{"special_tokens_map.json", `[]`, "want an object"},
		{"added_tokens.json", `{"x": "y"}`, "added_tokens"},
		{"config.json", `{"eos_token_id": "2"}`, "eos_token_id"},
		{"config.json", `{"eos_token_id": [2.5]}`, "eos_token_id"},
	} {
		dir := writeFiles(t, map[string]string{"tokenizer.json": minimal(okModel), c.name: c.content})
		_, err := Load(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s %s: error %v, want one with %q", c.name, c.content, err, c.want)
		}
	}
}

// A link that leads nowhere, as in a cache that was cleared in part, is not the same as no file: what else there is would
// be read in its place.
func TestLoadDanglingLinks(t *testing.T) {
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} {
		dir := t.TempDir()
		file := filepath.Join(dir, name)
		if err := os.Symlink("../blobs/gone", file); err != nil {
			t.Skip("no symbolic links here: ", err)
		}
		other := "tokenizer.json"
		if name == other {
			other = "tokenizer.model"
		}
		if err := os.WriteFile(filepath.Join(dir, other), []byte(minimal(okModel)), 0o600); err != nil {
			t.Fatal(err)
		}
		want := "tokenizer: " + file + ` is a symbolic link to "../blobs/gone", which is not there`
		if _, err := Load(dir); err == nil || err.Error() != want || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoadMissing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("error %v", err)
	}
	dir := writeFiles(t, map[string]string{"tekken.json": "", "vocab.json": ""})
	want := "no tokenizer.json, tokenizer.model or .gguf file (there is tekken.json, vocab.json, which cannot be read)"
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v", err)
	}
}

// TestEnds checks where BOS and EOS come from: tokenizer_config.json, else the post-processor, else config.json.
func TestEnds(t *testing.T) {
	const (
		vocab    = `"vocab": {"a": 0, "<s>": 1, "</s>": 2, "<b>": 3, "<e>": 4}`
		tokens   = `"special_tokens": {"<b>": {"ids": [3]}, "<e>": {"ids": [4]}}`
		template = `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<b>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<e>"}}], ` + tokens + `}`
		end      = `{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<e>"}}], ` + tokens + `}`
		roberta  = `{"type": "RobertaProcessing", "cls": ["<b>", 3], "sep": ["<e>", 4]}`
		ids      = `{"bos_token_id": 1, "eos_token_id": [2, 4]}`
	)
	for _, c := range []struct {
		name, post, tokenizerConfig, config string
		bos, eos                            int32
		warnings                            int
	}{
		{"nothing", "null", "", "", none, none, 0},
		{"tokenizer_config", template, `{"bos_token": "<s>", "eos_token": {"content": "</s>"}}`, `{"bos_token_id": 0}`, 1, 2, 0},
		{"post-processor", template, `{}`, ids, 3, 4, 0},
		{"post-processor ends only", end, `{}`, ids, 1, 4, 0},
		{"sequence", `{"type": "Sequence", "processors": [{"type": "ByteLevel"}, ` + template + `]}`, "", ids, 3, 4, 0},
		{"roberta", roberta, "", "", 3, 4, 0},
		{"config", "null", `{"bos_token": null}`, ids, 1, 2, 0},
		{"config empty", "null", "", `{"bos_token_id": null, "eos_token_id": []}`, none, none, 0},
		{"config out of range", "null", "", `{"bos_token_id": 99, "eos_token_id": 2}`, none, 2, 1},
		{"unknown post-processor", `{"type": "Magic"}`, "", ids, 1, 2, 1},
		{"half and half", template, `{"bos_token": "<s>"}`, ids, 1, 4, 0},
		{"object with type", "null", `{"bos_token": {"__type": "AddedToken", "content": "<s>", "normalized": true}}`, "", 1, none, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"tokenizer.json": minimal(vocab+`, "unk_token": "a", "merges": []`, `"post_processor": `+c.post)}
			if c.tokenizerConfig != "" {
				files["tokenizer_config.json"] = c.tokenizerConfig
			}
			if c.config != "" {
				files["config.json"] = c.config
			}
			tok, err := Load(writeFiles(t, files))
			if err != nil {
				t.Fatal(err)
			}
			if tok.bos != c.bos || tok.eos != c.eos {
				t.Errorf("BOS %d, EOS %d, want %d, %d", tok.bos, tok.eos, c.bos, c.eos)
			}
			if len(tok.Warnings()) != c.warnings {
				t.Errorf("warnings %q, want %d", tok.Warnings(), c.warnings)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"tokenizer.json":        minimal(okModel, `"added_tokens": [{"id": 9, "content": "x"}]`),
		"tokenizer_config.json": `{"pad_token": "[PAD]", "added_tokens_decoder": {"2": {"content": "<y>"}}}`,
	})
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"has id 9; Transformers would number it 5", `"<y>" has id 2`, `"[PAD]" is not in the vocabulary; it is added with id 10`, "are dropped"}
	got := tok.Warnings()
	if len(got) != len(want) {
		t.Fatalf("warnings %q", got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("warning %q, want one with %q", got[i], want[i])
		}
	}
	if tok.VocabSize() != 11 {
		t.Errorf("VocabSize %d, want 11", tok.VocabSize())
	}
	if id, ok := tok.ID("x"); !ok || id != 9 {
		t.Errorf("ID(x) = %d, %v", id, ok)
	}
	for id, want := range map[int32]string{2: "ab", 9: "x", 10: "[PAD]"} {
		if s, ok := tok.Token(id); !ok || s != want {
			t.Errorf("Token(%d) = %q, %v; want %q", id, s, ok, want)
		}
	}
	for _, id := range []int32{-1, 5, 8, 11, 1 << 30} {
		if s, ok := tok.Token(id); ok {
			t.Errorf("Token(%d) = %q, want none", id, s)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"tokenizer.json": minimal(okModel + `, "unk_token": "a"`), "tokenizer_config.json": `{"added_tokens_decoder": {}}`,
		"special_tokens_map.json": `{}`, "config.json": `{}`, "tokenizer.model": "", "model.safetensors": "",
	})
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model"}
	for i := range want {
		want[i] = filepath.Join(dir, want[i])
	}
	if got := tok.Files(); !slices.Equal(got, want) {
		t.Errorf("Files\n got %q\nwant %q", got, want)
	}
	alone := filepath.Join(dir, "other.json")
	if err := os.Rename(filepath.Join(dir, "tokenizer.json"), alone); err != nil {
		t.Fatal(err)
	}
	if tok, err = Load(alone); err != nil || !slices.Equal(tok.Files(), []string{alone}) {
		t.Errorf("a file of its own: %v, error %v", tok.Files(), err)
	}
}
