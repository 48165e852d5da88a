package instruct_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/tokenizer/chat"
	"github.com/biolora/biolora/train/instruct"
)

// Ids and labels of conversations are those that Transformers gives (testdata/reference/make_conversation_cases.py).
func TestConversationsAsReference(t *testing.T) {
	var file struct {
		Templates  map[string]string
		Tokenizers map[string]map[string]any
		Cases      []struct {
			Tokenizer, Template string
			Row                 json.RawMessage
			InputIDs            []int32 `json:"input_ids"`
			Labels              []int32
		}
	}
	text, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "conversations.json"))
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 100 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	templates := map[string]*chat.Template{}
	for name, source := range file.Templates {
		if templates[name], err = chat.Parse(source); err != nil {
			t.Fatal(err)
		}
	}
	tokenizers := map[string]*tokenizer.Tokenizer{}
	for name := range file.Tokenizers {
		if tokenizers[name], err = tokenizer.Load(filepath.Join(golden.Root(t), "testdata", "tokenizer", name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range file.Cases {
		d, err := instruct.Read("f", strings.NewReader(string(c.Row)), instruct.Alpaca,
			instruct.WithChat(instruct.Chat{Template: templates[c.Template], Variables: file.Tokenizers[c.Tokenizer]}))
		if err != nil {
			t.Errorf("case %d: %v", i, err)
			continue
		}
		x, err := d.Tokenize(t.Context(), tokenizers[c.Tokenizer], instruct.TokenizeOptions{})
		if err != nil {
			t.Errorf("case %d: %v", i, err)
			continue
		}
		e := &x.List[0]
		labels := make([]int32, len(e.IDs))
		for j := range labels {
			labels[j] = e.Label(j)
		}
		if !slices.Equal(e.IDs, c.InputIDs) || !slices.Equal(labels, c.Labels) {
			t.Errorf("case %d, %s, %s: %s\nids\n%v, want\n%v\nlabels\n%v, want\n%v\n%+v", i, c.Tokenizer, c.Template, c.Row, e.IDs, c.InputIDs, labels, c.Labels, d.Spans(0))
		}
	}
}
