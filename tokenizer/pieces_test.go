package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// spell writes ids as the vocabulary does, with bars between them.
func spell(t *Tokenizer, ids []int32) string {
	var parts []string
	for _, id := range ids {
		s, _ := t.Token(id)
		parts = append(parts, s)
	}
	return strings.Join(parts, "|")
}

// mark makes a Piece of a text whose plain ranges stand in braces.
func mark(text string) (p Piece) {
	var b strings.Builder
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if text = rest; !found {
			break
		}
		before, text, _ = strings.Cut(text, "}")
		p.Plain = append(p.Plain, Range{b.Len(), b.Len() + len(before)})
		b.WriteString(before)
	}
	p.Text = b.String()
	return p
}

// What stands before a piece counts for it, and special tokens in plain text are text.
func TestPieces(t *testing.T) {
	for _, c := range []struct{ vocab, pieces, want string }{
		{"sp", "a¦b", "▁a ¦ b"},
		{"sp", "<s>¦a", "<s> ¦ ▁a"},
		{"sp", "<s>¦¦a", "<s> ¦  ¦ ▁a"},
		{"sp", "a<s>¦a", "▁a|<s> ¦ ▁a"},
		{"sp", "<s>{<s>}</s>", "<s>|▁<|s|>|</s>"},
		{"sp", "a{<}s>{b}", "▁a|<|s|>|b"}, // touched at its beginning
		{"sp", "{}<s>{}", "<s>"},          // nothing is touched
		{"metaspace", "<s>¦a", "<s> ¦ a"},
		{"metaspace", "¦a", " ¦ ▁a"},
		{"metaspace", "a[R]¦  a", "▁a|[R] ¦ a"},
		{"metaspace", "a[R]¦  ¦ ¦a", "▁a|[R] ¦  ¦  ¦ a"},
		{"metaspace", "a[R]{ <s>}<s>", "▁a|[R]|<|s|>|<s>"},
		{"metaspace", "a[R]¦ {<s>}<s>", "▁a|[R] ¦ <|s|>|<s>"},
		{"metaspace", "<|a|{>}<|a|>", "▁<|<unk>|a|<unk>|>|<|a|>"},
		{"words", "<s>¦a <s>", "<s> ¦ ▁a|<s>"},
		{"words", "<s> a {<s>} <s>", "<s>|▁a|▁<|s|>|<s>"},
		{"llama3", "<|eot_id|>¦\n\na", "<|eot_id|> ¦ Ċ|Ċ|a"},
		{"llama3", "<|eot_id|>{<|eot_id|>}<|eot_id|>", "<|eot_id|>|<|||e|o|t|_|i|d|||>|<|eot_id|>"},
	} {
		tok := loadSmall(t, c.vocab)
		var pieces []Piece
		for text := range strings.SplitSeq(c.pieces, "¦") {
			pieces = append(pieces, mark(text))
		}
		var got []string
		for _, ids := range tok.EncodePieces(pieces) {
			got = append(got, spell(tok, ids))
		}
		if s := strings.Join(got, " ¦ "); s != c.want {
			t.Errorf("%s: %s is\n%s, want\n%s", c.vocab, c.pieces, s, c.want)
		}
	}
}

// Random texts of words and added tokens: cut beside an added token they have the ids of the whole.
func TestPiecesAreTheWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range small {
		tok := loadSmall(t, name)
		var tokens []string
		for _, a := range tok.added.byID {
			if a.Special && !a.Normalized && !a.LStrip && a.Content != "<|a|>" {
				tokens = append(tokens, a.Content)
			}
		}
		if slices.Sort(tokens); len(tokens) == 0 {
			t.Fatalf("%s has no special token", name)
		}
		for range 300 {
			pieces := []Piece{{}}
			whole := ""
			for range rng.IntN(12) {
				text := []string{"a", " the dose", "\n", "b", "é", "<", "x1 "}[rng.IntN(7)]
				if rng.IntN(2) == 0 {
					text = tokens[rng.IntN(len(tokens))]
					pieces = append(pieces, Piece{Text: text}, Piece{})
				} else {
					pieces[len(pieces)-1].Text += text
				}
				whole += text
			}
			got, want := slices.Concat(tok.EncodePieces(pieces)...), tok.Encode(whole)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %q in pieces %+v is\n%s, whole\n%s", name, whole, pieces, spell(tok, got), spell(tok, want))
			}
		}
	}
}

// No special token comes of plain text, whatever it says.
func FuzzPlain(f *testing.F) {
	f.Add("<s>", " the ", "<s></s><|eot_id|>", "</s>")
	f.Add("<|", "a|>", "<|a|>b", "b")
	f.Add("", "<|a", "<|a|>", "")
	f.Add("é ", "[L] [B] [R]", "  ", "[R] ")
	f.Add("<", "\u0301<s", "\u0301", "><s>")
	var toks []*Tokenizer
	for _, name := range small {
		toks = append(toks, loadSmall(f, name))
	}
	f.Fuzz(func(t *testing.T, before, user, answer, after string) {
		text := before + user + answer + after
		ranges := []Range{{len(before), len(before + user)}, {len(before + user), len(before + user + answer)}}
		for i, tok := range toks {
			got := tok.EncodePieces([]Piece{{Text: text, Plain: ranges}})[0]
			count := func(ids []int32) (n int) {
				for _, id := range ids {
					if word, _ := tok.Token(id); tok.Special(id) && word != "<unk>" {
						n++
					}
				}
				return n
			}
			// The same text with the user's special tokens broken up by a character that none of them has.
			frame := tok.EncodePieces([]Piece{{Text: before}, {Text: "\x02"}, {Text: after}})
			if want := count(frame[0]) + count(frame[2]); count(got) > want {
				t.Errorf("%s: %q + %q + %q has the special tokens\n%s, want %d", small[i], before, user+answer, after, spell(tok, got), want)
			}
			if all := tok.EncodePieces([]Piece{{Text: text, Plain: []Range{{0, len(text)}}}})[0]; count(all) != 0 {
				t.Errorf("%s: %q has the special tokens\n%s", small[i], text, spell(tok, all))
			}
			if none := tok.EncodePieces([]Piece{{Text: text}})[0]; !slices.Equal(none, tok.Encode(text)) {
				t.Errorf("%s: %q in one piece is\n%s", small[i], text, spell(tok, none))
			}
		}
	})
}

// A million turns of a vocabulary whose special tokens are looked for in the normalised text take no time.
func TestManyPlainRanges(t *testing.T) {
	tok := loadSmall(t, "words")
	p := mark(strings.Repeat("user: {<s> hi} ", 200_000) + "<s>")
	ids := tok.EncodePieces([]Piece{p})[0]
	if n := len(slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return !tok.Special(id) })); n != 1 || !tok.Special(ids[len(ids)-1]) {
		t.Errorf("%d special tokens, the last token is %q", n, spell(tok, ids[len(ids)-1:]))
	}
}

func TestSpecialTokens(t *testing.T) {
	if got := strings.Join(loadSmall(t, "llama3").SpecialTokens(), " "); got != "<|begin_of_text|> <|end_of_text|> <|eot_id|> <|start_header_id|>" {
		t.Error(got)
	}
}
