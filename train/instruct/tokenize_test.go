package instruct

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/tokenizer"
)

// runes is a tokenizer for tests: the id of a rune is 10 + its code, "^" is BOS 1 and "$" is EOS 2, and a text's
// beginning is marked with 3, as SentencePiece does with a space.
type runes struct{ bos, eos bool }

// EncodePieces reads "^" and "$" in plain parts as runes.
func (t runes) EncodePieces(pieces []tokenizer.Piece) [][]int32 {
	out := make([][]int32, len(pieces))
	start := true
	for i, p := range pieces {
		if start && p.Text != "" && !strings.HasPrefix(p.Text, "^") {
			out[i] = []int32{3}
		}
		start = start && p.Text == ""
		for at, r := range p.Text {
			plain := slices.ContainsFunc(p.Plain, func(r tokenizer.Range) bool { return r.From <= at && at < r.To })
			switch {
			case r == '^' && !plain:
				out[i] = append(out[i], 1)
			case r == '$' && !plain:
				out[i] = append(out[i], 2)
			default:
				out[i] = append(out[i], 10+r)
			}
		}
	}
	return out
}
func (t runes) BOS() (int32, bool) { return 1, t.bos }
func (t runes) EOS() (int32, bool) { return 2, t.eos }
func (runes) VocabSize() int       { return 10 + utf8.MaxRune + 1 }
func (runes) DecodeWithSpecial(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		switch {
		case id == 1:
			b.WriteByte('^')
		case id == 2:
			b.WriteByte('$')
		case id >= 10:
			b.WriteRune(id - 10)
		}
	}
	return b.String()
}

func labels(e *Example) []int32 {
	out := make([]int32, len(e.IDs))
	for t := range out {
		out[t] = e.Label(t)
	}
	return out
}

// show writes an example with the masked tokens in brackets.
func show(e *Example) string {
	var b strings.Builder
	for t, id := range e.IDs {
		s := map[int32]string{1: "^", 2: "$", 3: "_"}[id]
		if s == "" {
			s = string(id - 10)
		}
		if e.Label(t) == Masked {
			s = "(" + s + ")"
		}
		b.WriteString(s)
	}
	return strings.ReplaceAll(b.String(), ")(", "")
}

func TestTokenize(t *testing.T) {
	plain := Template{Name: "plain", PromptInput: "{instruction}{input}:", Response: "{output}"}
	withBOS := Template{Name: "bos", PromptInput: "^{instruction}{input}:", Response: "{output}$"}
	both := runes{bos: true, eos: true}
	const row, pc = `{"instruction":"i","output":"ab"}`, `{"prompt":"i:","completion":"ab"}`
	for _, c := range []struct {
		name string
		tmpl Template
		tok  runes
		text string
		opt  TokenizeOptions
		want string
	}{
		{"BOS, prompt, answer, EOS", plain, both, row, TokenizeOptions{}, "(^_i:)ab$"},
		{"prompt and completion", plain, both, pc, TokenizeOptions{}, "(^_i:)ab$"},
		{"learning the prompt", plain, both, row, TokenizeOptions{TrainOnInputs: true}, "^_i:ab$"},
		{"neither is doubled", withBOS, both, row, TokenizeOptions{}, "(^i:)ab$"},
		{"a tokenizer without either", plain, runes{}, row, TokenizeOptions{}, "(_i:)ab"},
		{"no prompt", plain, both, `{"prompt":"","completion":"ab"}`, TokenizeOptions{}, "(^)_ab$"},
		{"no prompt, BOS in the text", plain, both, `{"prompt":"","completion":"^ab"}`, TokenizeOptions{}, "^ab$"},
		{"just long enough", plain, both, row, TokenizeOptions{MaxLength: 7}, "(^_i:)ab$"},
		{"EOS is cut", plain, both, row, TokenizeOptions{MaxLength: 6}, "(^_i:)ab"},
		{"one label is left", plain, both, row, TokenizeOptions{MaxLength: 5}, "(^_i:)a"},
	} {
		d, err := Read("f", strings.NewReader(c.text), c.tmpl)
		if err != nil {
			t.Fatal(err)
		}
		x, err := d.Tokenize(t.Context(), c.tok, c.opt)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := show(&x.List[0]); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if want := c.opt.MaxLength > 0 && c.opt.MaxLength < 7; (x.Cut == 1) != want || x.NoEOS == c.tok.eos {
			t.Errorf("%s: cut %d, NoEOS %v", c.name, x.Cut, x.NoEOS)
		}
	}
}

func TestCounts(t *testing.T) {
	text := `{"input_ids":[1,5,6,7],"labels":[-100,-100,6,7]}
{"input_ids":[1,5,6,7],"labels":[-100,-100,-100,7]}
{"input_ids":[1,5],"labels":[1,-100]}
{"input_ids":[1,5,6],"labels":[1,-100,9]}
`
	d, err := Read("f", strings.NewReader(text), Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.Tokenize(t.Context(), nil, TokenizeOptions{MaxLength: 3, VocabSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	// The second row loses its label to the cut and is left out; the third never had one that counts and is kept.
	if x.Cut != 1 || x.NoLabel != 1 || x.Unlabelled != 1 || len(x.List) != 3 || x.NoEOS {
		t.Errorf("%+v", x)
	}
	if x.List[1].Row() != 2 || x.List[1].LabelTokens() != 0 {
		t.Errorf("row %d with %d label tokens is second", x.List[1].Row(), x.List[1].LabelTokens())
	}
	a, b := &x.List[0], &x.List[2]
	if a.Row() != 0 || b.Row() != 3 || a.LabelTokens() != 1 || b.LabelTokens() != 1 {
		t.Errorf("rows %d and %d, label tokens %d and %d", a.Row(), b.Row(), a.LabelTokens(), b.LabelTokens())
	}
	if diff := cmp.Diff([][]int32{{-100, -100, 6}, {1, -100, 9}}, [][]int32{labels(a), labels(b)}); diff != "" {
		t.Error(diff)
	}
	for _, o := range []TokenizeOptions{{}, {MaxLength: 3, KeepTokens: true}} {
		if y, err := d.Tokenize(t.Context(), nil, o); err != nil || len(y.List) != 4 || y.Cut != 0 || len(y.List[0].IDs) != 4 {
			t.Errorf("%+v: %+v, %v", o, y, err)
		}
	}
}

func TestTokenizeErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		tok        Tokenizer
		opt        TokenizeOptions
		want       string
	}{
		{"id", `{"input_ids":[1,9,2],"labels":[-100,1,2]}`, nil, TokenizeOptions{VocabSize: 9}, "f:1: input_ids[1] is 9, outside the model's vocabulary of 9"},
		{"label", "\n" + `{"input_ids":[1,2,2],"labels":[-100,1,9]}`, nil, TokenizeOptions{VocabSize: 9}, "f:2: labels[2] is 9, outside the model's vocabulary of 9"},
		{"token", `{"prompt":"p","completion":"é"}`, runes{}, TokenizeOptions{VocabSize: 138}, `f:1: token "é" has the id 243, outside the model's vocabulary of 138`},
		{"no tokenizer", `{"prompt":"p","completion":"c"}`, nil, TokenizeOptions{}, "f:1: text rows need a tokenizer"},
		{"all masked", `{"input_ids":[1,2],"labels":[1,-100]}`, nil, TokenizeOptions{}, "nothing to learn: none of the 1 rows (from f:1 on) has a label that counts within its length"},
		{"prompts too long", `{"prompt":"pppp","completion":"c"}`, runes{}, TokenizeOptions{MaxLength: 4}, "nothing to learn: none of the 1 rows (from f:1 on) has a label that counts within the maximum length of 4 tokens"},
		{"negative length", `{"prompt":"p","completion":"c"}`, runes{}, TokenizeOptions{MaxLength: -1}, "MaxLength is -1; 0 is for no limit"},
	} {
		d, err := Read("f", strings.NewReader(c.text), Alpaca)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = d.Tokenize(t.Context(), c.tok, c.opt); err == nil || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
	d, err := Read("f", strings.NewReader(strings.Repeat(`{"input_ids":[9,9],"labels":[1,1]}`+"\n", 15)), Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = d.Tokenize(t.Context(), nil, TokenizeOptions{VocabSize: 9}); err == nil || strings.Count(err.Error(), "\n") != maxReported || !strings.HasSuffix(err.Error(), "\n5 more rows cannot be used") {
		t.Errorf("many rows outside: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Tokenize(ctx, nil, TokenizeOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOrderOfManyRows(t *testing.T) {
	d, err := Read("f", strings.NewReader(strings.Repeat(`{"prompt":"p","completion":"ab"}`+"\n"+`{"prompt":"pppppp","completion":"a"}`+"\n", 500)), Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.Tokenize(t.Context(), runes{true, true}, TokenizeOptions{MaxLength: 6})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.List) != 500 || x.NoLabel != 500 || x.Cut != 0 {
		t.Fatalf("%d examples, %d without a label, %d cut", len(x.List), x.NoLabel, x.Cut)
	}
	for i := range x.List {
		if x.List[i].Row() != 2*i {
			t.Fatalf("example %d is row %d", i, x.List[i].Row())
		}
	}
}
