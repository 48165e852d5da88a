package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// The files of testdata/tokenizer are made by testdata/reference/make_tokenizer_cases.py.
var small = []string{"sp", "metaspace", "words", "llama3", "gpt2", "regex"}

func readJSON(t testing.TB, path string, dst any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, dst); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func data(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(golden.Root(t), "testdata", "tokenizer", name)
}

func loadSmall(t testing.TB, name string) *Tokenizer {
	t.Helper()
	tok, err := Load(data(t, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

type encodeCase struct {
	Text          string
	IDs           []int32
	Plain         []int32
	Continuation  []int32
	Decode        *string
	DecodeSpecial *string `json:"decode_special"`
}

// decoded returns what the ids of c decode to, without and with special tokens.
func (c encodeCase) decoded() (plain, special string) {
	plain = c.Text
	if c.Decode != nil {
		plain = *c.Decode
	}
	special = plain
	if c.DecodeSpecial != nil {
		special = *c.DecodeSpecial
	}
	return plain, special
}

func TestEncodeAsReference(t *testing.T) {
	for _, name := range small {
		t.Run(name, func(t *testing.T) {
			tok := loadSmall(t, name)
			plain := tok.WithoutSpecials()
			var cases []encodeCase
			readJSON(t, data(t, name+".encode.json"), &cases)
			continued := 0
			for _, c := range cases {
				if got := tok.Encode(c.Text); !slices.Equal(got, c.IDs) {
					t.Errorf("Encode(%q)\n got %v\nwant %v", c.Text, got, c.IDs)
				}
				want := c.IDs
				if c.Plain != nil {
					want = c.Plain
				}
				if got := plain.Encode(c.Text); !slices.Equal(got, want) {
					t.Errorf("without specials: Encode(%q)\n got %v\nwant %v", c.Text, got, want)
				}
				if c.Continuation != nil {
					continued++
					if got := tok.EncodeContinuation(c.Text); !slices.Equal(got, c.Continuation) {
						t.Errorf("EncodeContinuation(%q)\n got %v\nwant %v", c.Text, got, c.Continuation)
					}
				}
				checkDecode(t, tok, c)
			}
			if len(cases) < 300 || continued < 100 {
				t.Errorf("only %d cases, %d of them continued", len(cases), continued)
			}
		})
	}
}

func TestDecodeAsReference(t *testing.T) {
	for _, name := range small {
		t.Run(name, func(t *testing.T) {
			tok := loadSmall(t, name)
			var cases []encodeCase
			readJSON(t, data(t, name+".decode.json"), &cases)
			for _, c := range cases {
				checkDecode(t, tok, c)
			}
		})
	}
}

func checkDecode(t *testing.T, tok *Tokenizer, c encodeCase) {
	t.Helper()
	plain, special := c.decoded()
	if got := tok.Decode(c.IDs); got != plain {
		t.Errorf("Decode(%v)\n got %q\nwant %q", c.IDs, got, plain)
	}
	if got := tok.DecodeWithSpecial(c.IDs); got != special {
		t.Errorf("DecodeWithSpecial(%v)\n got %q\nwant %q", c.IDs, got, special)
	}
	if got := streamed(tok.Stream(), c.IDs); got != plain {
		t.Errorf("Stream(%v)\n got %q\nwant %q", c.IDs, got, plain)
	}
}

func streamed(s *Stream, ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(s.Next(id))
	}
	b.WriteString(s.Flush())
	return b.String()
}

// TestDirectories loads tokenizer.json with the files beside it, as Transformers' AutoTokenizer does.
func TestDirectories(t *testing.T) {
	var cases []struct {
		Name     string
		Files    map[string]json.RawMessage
		BOS, EOS *int32
		Size     int
		Encode   []encodeCase
		Decode   *string
	}
	readJSON(t, data(t, "directories.json"), &cases)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range c.Files {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tok, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			checkEnd(t, "BOS", tok.BOS, c.BOS)
			checkEnd(t, "EOS", tok.EOS, c.EOS)
			if tok.VocabSize() != c.Size {
				t.Errorf("VocabSize %d, want %d", tok.VocabSize(), c.Size)
			}
			for _, e := range c.Encode {
				if got := tok.Encode(e.Text); !slices.Equal(got, e.IDs) {
					t.Errorf("Encode(%q)\n got %v\nwant %v", e.Text, got, e.IDs)
				}
			}
			var all []int32
			for id := range c.Size {
				all = append(all, int32(id))
			}
			if got := tok.Decode(all); c.Decode != nil && got != *c.Decode {
				t.Errorf("Decode(all)\n got %q\nwant %q", got, *c.Decode)
			}
		})
	}
}

func checkEnd(t *testing.T, what string, end func() (int32, bool), want *int32) {
	t.Helper()
	id, ok := end()
	switch {
	case want == nil && ok:
		t.Errorf("%s is %d, want none", what, id)
	case want != nil && (!ok || id != *want):
		t.Errorf("%s is %d (%v), want %d", what, id, ok, *want)
	}
}

func TestConcurrentUse(t *testing.T) {
	for _, name := range []string{"sp", "llama3", "regex"} {
		tok := loadSmall(t, name)
		var cases []encodeCase
		readJSON(t, data(t, name+".encode.json"), &cases)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for _, c := range cases {
					if got := tok.Encode(c.Text); !slices.Equal(got, c.IDs) {
						t.Errorf("%s: Encode(%q) = %v, want %v", name, c.Text, got, c.IDs)
					}
					plain, _ := c.decoded()
					if got := tok.Decode(c.IDs); got != plain {
						t.Errorf("%s: Decode(%v) = %q, want %q", name, c.IDs, got, plain)
					}
				}
			})
		}
		wg.Wait()
	}
}
