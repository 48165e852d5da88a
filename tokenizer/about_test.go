package tokenizer

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChatTemplates(t *testing.T) {
	model := minimal(okModel + `, "unk_token": "a"`)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  map[string]string
	}{
		{"none", nil, map[string]string{}},
		{"a string", map[string]string{"tokenizer_config.json": `{"chat_template": "{{ x }}\n"}`}, map[string]string{"default": "{{ x }}\n"}},
		{"null", map[string]string{"tokenizer_config.json": `{"chat_template": null}`}, map[string]string{}},
		{"a list", map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}`},
			map[string]string{"default": "a", "tool_use": "b"}},
		{"no default", map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "r"}]}`}, map[string]string{"rag": "r"}},
		{"a file rules", map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "r"}]}`, "chat_template.jinja": "f"},
			map[string]string{"default": "f"}},
		{"files", map[string]string{"tokenizer_config.json": `{"chat_template": "c"}`, "additional_chat_templates/tool_use.jinja": "t",
			"additional_chat_templates/notes.txt": "x"}, map[string]string{"tool_use": "t"}},
		{"the older file", map[string]string{"chat_template.json": `{"chat_template": "o"}`}, map[string]string{"default": "o"}},
		{"the older file is last", map[string]string{"chat_template.json": `{"chat_template": "o"}`, "tokenizer_config.json": `{"chat_template": "c"}`},
			map[string]string{"default": "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Load(writeTree(t, c.files, model))
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.ChatTemplates(); !maps.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			source, ok := tok.ChatTemplate()
			if want, has := c.want["default"]; source != want || ok != has {
				t.Errorf("%q, %v, want %q, %v", source, ok, want, has)
			}
		})
	}
	for _, c := range []struct{ name, file, content, want string }{
		{"a number", "tokenizer_config.json", `{"chat_template": 1}`, "chat_template: want a template or a list of templates, got 1"},
		{"a list of texts", "tokenizer_config.json", `{"chat_template": ["a"]}`, "chat_template[0]"},
		{"no name", "tokenizer_config.json", `{"chat_template": [{"template": "a"}]}`, "chat_template[0]: want a name and a template"},
		{"too long", "tokenizer_config.json", `{"chat_template": "` + strings.Repeat("x", maxTemplate+1) + `"}`,
			`chat template "default": 1048577 bytes, at most 1048576 are plausible`},
		{"too long a file", "chat_template.jinja", strings.Repeat("x", maxTemplate+1), "chat_template.jinja: 1048577 bytes, at most 1048576 are plausible"},
		{"not UTF-8", "chat_template.jinja", "\xff", "chat_template.jinja: not UTF-8"},
		{"many", "tokenizer_config.json", `{"chat_template": [` + many65(func(i string) string { return `{"name": "` + i + `", "template": ""}` }) + `]}`,
			"more than 64 chat templates"},
		{"not JSON", "chat_template.json", "{", "chat_template.json:1 (byte 1): not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(writeTree(t, map[string]string{c.file: c.content}, model))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.file) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func many65(one func(i string) string) string {
	var list []string
	for i := range 65 {
		list = append(list, one(string(rune('A'+i))))
	}
	return strings.ReplaceAll(strings.Join(list, ","), `"\"`, `"backslash"`)
}

// writeTree writes a tokenizer.json and other files, which may lie in folders.
func writeTree(t *testing.T, files map[string]string, model string) string {
	t.Helper()
	dir := t.TempDir()
	all := maps.Clone(files)
	if all == nil {
		all = make(map[string]string)
	}
	if all["tokenizer.json"] = model; model == "" {
		delete(all, "tokenizer.json")
	}
	for name, content := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSpecialNames(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"tokenizer.json":        minimal(okModel + `, "unk_token": "a"`),
		"tokenizer_config.json": `{"bos_token": "<s>", "pad_token": {"content": "[PAD]"}, "additional_special_tokens": ["<x>"], "image_token": "<i>"}`,
		"config.json":           `{"eos_token_id": 2}`,
	})
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"bos_token": "<s>", "eos_token": "ab", "pad_token": "[PAD]", "image_token": "<i>"}
	if got := tok.SpecialNames(); !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if tok.Format() != "tokenizer.json" {
		t.Errorf("format %s", tok.Format())
	}
}

// TestWhichFile checks which file of a directory is read.
func TestWhichFile(t *testing.T) {
	pieces, trainer, normalizer := spParts()
	sp, ranks := cat(pieces, trainer, normalizer), rankLines()
	scored := ggufText(t, keys(scoredKeys(), nil))
	json := minimal(okModel + `, "unk_token": "a"`)
	for _, c := range []struct {
		files  map[string]string
		format string
		read   []string
	}{
		{map[string]string{"tokenizer.json": json, "tokenizer.model": sp, "a.gguf": scored}, "tokenizer.json", []string{"tokenizer.json", "tokenizer.model"}},
		{map[string]string{"tokenizer.model": sp, "a.gguf": scored, "params.json": "{}"}, "SentencePiece", []string{"tokenizer.model"}},
		{map[string]string{"tokenizer.model": ranks, "chat_template.jinja": "x"}, "tiktoken", []string{"tokenizer.model", "chat_template.jinja"}},
		{map[string]string{"a.gguf": scored}, "GGUF", []string{"a.gguf"}},
		{map[string]string{"A-00001-of-00002.GGUF": scored, "A-00002-of-00002.GGUF": "x"}, "GGUF", []string{"A-00001-of-00002.GGUF"}},
		{map[string]string{"m-00001-of-00012.gguf": scored, "m-00002-of-00012.gguf": "", "m-00010-of-00012.gguf": "", "m-00012-of-00012.gguf": ""}, "GGUF",
			[]string{"m-00001-of-00012.gguf"}},
		{map[string]string{"tokenizer.model": json}, "tokenizer.json", []string{"tokenizer.model"}}, // told by its content
	} {
		dir := writeFiles(t, c.files)
		tok, err := Load(dir)
		if err != nil {
			t.Errorf("%v: %v", c.read, err)
			continue
		}
		var read []string
		for _, f := range tok.Files() {
			read = append(read, filepath.Base(f))
		}
		if tok.Format() != c.format || !slices.Equal(read, c.read) {
			t.Errorf("%s from %v, want %s from %v", tok.Format(), read, c.format, c.read)
		}
	}
	dir := writeFiles(t, map[string]string{"a.gguf": scored, "b.gguf": scored})
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "which of these is meant? a.gguf, b.gguf") {
		t.Errorf("two files: error %v", err)
	}
	if tok, err := Load(filepath.Join(dir, "b.gguf")); err != nil || tok.Format() != "GGUF" {
		t.Errorf("one of two files: error %v", err)
	}
}

// TestSettingsBesideModels checks that the files beside a tokenizer.model count as they do beside a tokenizer.json.
func TestSettingsBesideModels(t *testing.T) {
	pieces, trainer, normalizer := spParts()
	sp, ranks := cat(pieces, trainer, normalizer), rankLines()
	for _, c := range []struct {
		name          string
		files         map[string]string
		bos, eos      int32
		text          string
		ids, framed   []int32
		warnings      int
		names, unlike string
	}{
		{"SentencePiece alone", map[string]string{"tokenizer.model": sp}, 1, 2, "<s>a[PAD]", []int32{1, 6, 3, 0}, []int32{1, 1, 6, 3, 0}, 0, "", "pad_token"},
		{"added tokens", map[string]string{"tokenizer.model": sp, "tokenizer_config.json": `{"pad_token": "[PAD]", "eos_token": "a",
			"added_tokens_decoder": {"7": {"content": "[PAD]", "special": true}}}`}, 1, 3, "b[PAD]", []int32{6, 4, 7}, []int32{1, 6, 4, 7}, 0, "pad_token", ""},
		{"frame", map[string]string{"tokenizer.model": sp, "tokenizer_config.json": `{"add_bos_token": false, "add_eos_token": true}`},
			none, 2, "b", []int32{6, 4}, []int32{6, 4, 2}, 0, "bos_token", ""},
		{"the model says its ends", map[string]string{"tokenizer.model": sp, "generation_config.json": `{"eos_token_id": 3}`}, 1, 2, "", []int32{}, []int32{1}, 0, "", ""},
		{"tiktoken alone", map[string]string{"tokenizer.model": ranks}, 256, 257, "<|python_tag|>", []int32{266}, []int32{256, 266}, 1, "", ""},
		{"generation_config", map[string]string{"tokenizer.model": ranks, "generation_config.json": `{"eos_token_id": [265, 257]}`, "config.json": `{"eos_token_id": 258}`},
			256, 265, "<|eot_id|>", []int32{265}, []int32{256, 265}, 1, "eos_token", ""},
		{"the names of LLaMA 3", map[string]string{"tokenizer.model": ranks, "tokenizer_config.json": `{"eos_token": "<|eot_id|>", "added_tokens_decoder": {
			"260": {"content": "<|reserved_special_token_2|>", "special": true}, "264": {"content": "<|reserved_special_token_4|>", "special": true}}}`},
			256, 265, "<|reserved_special_token_2|><|reserved_special_token_4|><|eot_id|>", []int32{260, 264, 265}, []int32{256, 260, 264, 265}, 1, "eos_token", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Load(writeFiles(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			if tok.bos != c.bos || tok.eos != c.eos {
				t.Errorf("BOS %d, EOS %d, want %d, %d", tok.bos, tok.eos, c.bos, c.eos)
			}
			if got := tok.Encode(c.text); !slices.Equal(got, c.ids) {
				t.Errorf("Encode(%q) = %v, want %v", c.text, got, c.ids)
			}
			if got := tok.EncodeWithSpecial(c.text); !slices.Equal(got, c.framed) {
				t.Errorf("EncodeWithSpecial(%q) = %v, want %v", c.text, got, c.framed)
			}
			if got := tok.Warnings(); len(got) != c.warnings {
				t.Errorf("warnings %q, want %d", got, c.warnings)
			}
			names := tok.SpecialNames()
			if _, ok := names[c.names]; c.names != "" && !ok || names[c.unlike] != "" {
				t.Errorf("names %q, want %s and not %s", names, c.names, c.unlike)
			}
		})
	}
	dir := writeFiles(t, map[string]string{"tokenizer.model": sp, "tokenizer_config.json": `{"legacy": "yes"}`})
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), `tokenizer_config.json: legacy: want true or false, got "yes"`) {
		t.Errorf("error %v", err)
	}
}

// TestLlama3Specials compares the special tokens of LLaMA 3 with its tokenizer.json.
func TestLlama3Specials(t *testing.T) {
	want := loadForm(t, []string{"llama3", "tokenizer.json"})
	got := loadForm(t, []string{"llama3", "tokenizer.model"})
	if !maps.Equal(got.added.byID, want.added.byID) || len(got.added.byID) != 256 || got.VocabSize() != 128256 {
		t.Errorf("%d special tokens of %d, want %d", len(got.added.byID), got.VocabSize(), len(want.added.byID))
	}
	bos, _ := got.BOS()
	eos, _ := got.EOS()
	if bos != 128000 || eos != 128001 || len(got.Warnings()) > 0 {
		t.Errorf("BOS %d, EOS %d, warnings %q", bos, eos, got.Warnings())
	}
}
