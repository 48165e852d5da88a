package tokenizer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The file is made by testdata/reference/make_special_cases.py.
func TestEncodeWithSpecialAsReference(t *testing.T) {
	var cases []struct {
		Name   string
		Files  map[string]json.RawMessage
		Encode []struct {
			Text string
			IDs  []int32
		}
	}
	readJSON(t, data(t, "special.json"), &cases)
	if len(cases) < 20 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			files := map[string]string{}
			for name, text := range c.Files {
				files[name] = string(text)
			}
			tok, err := Load(writeFiles(t, files))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range c.Encode {
				if got := tok.EncodeWithSpecial(e.Text); !slices.Equal(got, e.IDs) {
					t.Errorf("EncodeWithSpecial(%q)\n got %v\nwant %v", e.Text, got, e.IDs)
				}
			}
		})
	}
}

// A few bytes could name many tokens many times.
func TestPostProcessorIsBounded(t *testing.T) {
	ids := strings.Repeat("0,", 20) + "0"
	single := strings.Repeat(`{"SpecialToken": {"id": "x"}}, `, 20) + `{"Sequence": {"id": "A"}}`
	processor := fmt.Sprintf(`{"type": "TemplateProcessing", "single": [%s], "special_tokens": {"x": {"ids": [%s]}}}`, single, ids)
	one := `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"x": {"ids": [0]}}}`
	for name, c := range map[string][2]string{
		"template": {processor, "it puts 84 tokens on one side of a text, at most 64 are read"},
		"sequence": {`{"type": "Sequence", "processors": [` + strings.Repeat(one+",", 99) + one + `]}`, "it puts 65 tokens on one side of a text, at most 64 are read"},
		"no text":  {strings.Replace(processor, `{"Sequence": {"id": "A"}}`, `{"SpecialToken": {"id": "y"}}`, 1), "at most 64 are read"},
		"text twice": {`{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}]}`,
			"post_processor.single: the text stands in it 2 times; expected once"},
		"an id of no token": {strings.Replace(one, "[0]", "[-7]", 1), "post_processor: id -7 names no token"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"tokenizer.json": `{"model": {"vocab": {"a": 0}, "merges": []}, "post_processor": ` + c[0] + `}`})
			tok, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if w := strings.Join(tok.Warnings(), "\n"); !strings.Contains(w, c[1]) {
				t.Errorf("the warnings lack %q: %s", c[1], w)
			}
			if got := tok.EncodeWithSpecial("a"); !slices.Equal(got, []int32{0}) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// What is not the tokenizer's does not matter to it.
func TestTokenizerFilesOnly(t *testing.T) {
	dir := writeFiles(t, map[string]string{"tokenizer.json": `{"model": {"vocab": {"a": 0}, "merges": []}}`, "config.json": `{"bos_token_id": `})
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("a broken config.json: %v", err)
	}
	for _, config := range []string{`{"bos_token_id": `, `{"bos_token_id": 0}`} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o666); err != nil {
			t.Fatal(err)
		}
		tok, err := Load(dir, TokenizerFilesOnly())
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := tok.BOS(); ok {
			t.Errorf("BOS %d comes from config.json", id)
		}
	}
}
