package tokenizer

import (
	"slices"
	"sort"
	"strings"
	"unicode"
)

// Piece is a stretch of a text.
type Piece struct {
	Text string
	// Plain are the parts of Text, in their order and apart from one another, that cannot make special tokens: where a
	// special token would take a byte of them, the text stays text. Everything else of Text is encoded as if it had none.
	Plain []Range
}

// Range is the bytes From to To (exclusive) of a text.
type Range struct{ From, To int }

// EncodePieces returns the ids of the pieces of a text, which are encoded apart: no token crosses the border of two
// pieces. Together they are the ids of Encode of the whole text wherever no token crosses a border there and no white
// space is taken from the piece before by an added token that strips it on its left.
func (t *Tokenizer) EncodePieces(pieces []Piece) [][]int32 {
	e := encoding{t: t}
	out := make([][]int32, len(pieces))
	for i, p := range pieces {
		e.ids = make([]int32, 0, len(p.Text)/3+2)
		e.add(p.Text, p.Plain)
		out[i] = e.ids
	}
	return out
}

// SpecialTokens returns the texts of the special tokens, sorted.
func (t *Tokenizer) SpecialTokens() []string {
	var list []string
	for _, tok := range t.added.byID {
		if tok.Special {
			list = append(list, tok.Content)
		}
	}
	slices.Sort(list)
	return list
}

// encoding is the work of making ids of a text that may come in pieces.
type encoding struct {
	t     *Tokenizer
	ids   []int32
	at    place // where the next piece stands
	strip bool  // the last token takes the white space after it
}

// add encodes one more piece.
func (e *encoding) add(text string, plain []Range) {
	if e.strip {
		rest := strings.TrimLeftFunc(text, unicode.IsSpace)
		plain = shift(plain, len(text)-len(rest), len(rest))
		text = rest
	}
	if text == "" {
		return
	}
	before := e.at
	for raw := range e.t.added.verbatim.spans(text, plainText{e.t.plain, plain}) {
		e.strip = raw.strip
		if raw.token != none {
			e.ids, e.at, before = append(e.ids, raw.token), afterToken, afterToken
			continue
		}
		e.part(raw.text, before, plainText{e.t.plain, shift(plain, raw.from, len(raw.text))})
		before = afterToken
	}
}

// part encodes text that stands between added tokens.
func (e *encoding) part(text string, at place, plain plainText) {
	t := e.t
	if t.normalize != nil {
		whole := t.normalize.normalize(text, at)
		if len(plain.ranges) > 0 {
			plain.ranges = t.normalizedRanges(text, whole, at, plain.ranges)
		}
		text = whole
	}
	for s := range t.added.normalized.spans(text, plain) {
		e.strip = s.strip
		if s.token != none {
			e.ids, e.at, at = append(e.ids, s.token), afterToken, afterToken
			continue
		}
		e.ids, e.at = t.encodeText(e.ids, s.text, at), afterText
		at = afterToken
	}
}

// normalizedRanges finds ranges of text in its normalised form. Normalisers go by characters, so that what stands
// between the ends of ranges can be normalised by itself; where it cannot, all of the text counts as plain.
func (t *Tokenizer) normalizedRanges(text, normalized string, at place, ranges []Range) []Range {
	out := make([]Range, 0, len(ranges))
	from, length, rest := 0, 0, normalized
	same := true
	upTo := func(end int) int {
		part := t.normalize.normalize(text[from:end], at)
		same = same && strings.HasPrefix(rest, part)
		if same {
			rest = rest[len(part):]
		}
		if end > from {
			at = afterText
		}
		from, length = end, length+len(part)
		return length
	}
	for _, r := range ranges {
		begin := upTo(r.From)
		out = append(out, Range{begin, upTo(r.To)})
	}
	if upTo(len(text)); !same || rest != "" {
		return []Range{{0, len(normalized)}}
	}
	return out
}

// shift returns the ranges as they are in the part of the text that begins at from and has n bytes.
func shift(ranges []Range, from, n int) []Range {
	first := sort.Search(len(ranges), func(i int) bool { return ranges[i].To > from })
	var out []Range
	for _, r := range ranges[first:] {
		if r.From >= from+n {
			break
		}
		out = append(out, Range{max(r.From-from, 0), min(r.To-from, n)})
	}
	return out
}

// plainText says where special tokens are text.
type plainText struct {
	all    bool
	ranges []Range
}

// has reports whether bytes start to end are touched by a range.
func (p plainText) has(start, end int) bool {
	i := sort.Search(len(p.ranges), func(i int) bool { return p.ranges[i].To > start })
	return i < len(p.ranges) && p.ranges[i].From < end
}
