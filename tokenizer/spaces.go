package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// spaceRules are SentencePiece's normalizer: characters are rewritten, white space is squeezed, spaces become "▁", and a
// dummy space is put in front or behind.
type spaceRules struct {
	chars   *charsmap // nil for none
	prefix  bool      // a dummy space
	first   bool      // but only at the start of the whole text, not after an added token
	suffix  bool      // the dummy space is put behind
	squeeze bool      // no white space at the ends, one space in its middle
	escape  bool      // spaces become "▁"
}

// setSpaces makes the steps around a SentencePiece model, which are those of LLaMA's tokenizer.json where they can be.
func (v *vocabulary) setSpaces(r spaceRules) {
	var decoders []decoderSpec
	space := replace{literal(metaspace), " "}
	decoders = append(decoders,
		decoderSpec{start: func(n decodeStep) decodeStep { return &replaced{next: n, rule: space} }},
		decoderSpec{start: func(n decodeStep) decodeStep { return &byteFallback{next: n} }, whole: true},
		decoderSpec{start: func(n decodeStep) decodeStep { return &fused{next: n} }, parts: true})
	if r.prefix {
		decoders = append(decoders, decoderSpec{
			start: func(n decodeStep) decodeStep { return &strip{next: n, content: ' ', start: 1} }, parts: true,
		})
	}
	v.decoders = decoders
	switch plain := r.chars == nil && !r.suffix && !r.squeeze && r.escape; {
	case plain && r.first: // tokenizer.json has it so, too
		v.words = spaceMark{mark: metaspace, prefix: prefixFirst}
		if !r.prefix {
			v.words = spaceMark{mark: metaspace, prefix: prefixNever}
		}
	case plain && r.prefix:
		v.normalize = normalizers{prepend(metaspace), replace{literal(" "), metaspace}}
	case plain:
		v.normalize = normalizers{replace{literal(" "), metaspace}}
	default:
		v.normalize = r
	}
}

// growth returns how many times as long the rules can make a text.
func (r spaceRules) growth() int {
	longest := 1
	if r.chars != nil {
		longest = max(longest, r.chars.longest)
	}
	return (longest + 1) * len(metaspace) // the dummy space, too
}

func (r spaceRules) normalize(s string, at place) string {
	if r.squeeze && at != afterText {
		s = r.trimLeft(s)
	}
	if s == "" {
		return ""
	}
	space := " "
	if r.escape {
		space = metaspace
	}
	var out strings.Builder
	out.Grow(len(s) + len(s)/2 + len(space))
	dummy := r.prefix && at != afterText && !(r.first && at != atStart)
	if dummy && !r.suffix {
		out.WriteString(space)
	}
	behind := r.squeeze && at != afterText // a space was written last
	for s != "" {
		text, n := r.next(s)
		s = s[n:]
		for behind && strings.HasPrefix(text, " ") {
			text = text[1:]
		}
		if text == "" {
			continue
		}
		behind = r.squeeze && strings.HasSuffix(text, " ")
		if r.escape {
			text = strings.ReplaceAll(text, " ", metaspace)
		}
		out.WriteString(text)
	}
	whole := out.String()
	if r.squeeze {
		for strings.HasSuffix(whole, space) {
			whole = strings.TrimSuffix(whole, space)
		}
	}
	if dummy && r.suffix {
		whole += space
	}
	return whole
}

// next returns what the first character or characters of s become, and their length.
func (r spaceRules) next(s string) (string, int) {
	if r.chars != nil {
		if text, n := r.chars.match(s); n > 0 {
			return text, n
		}
	}
	_, n := utf8.DecodeRuneInString(s)
	return s[:n], n
}

// trimLeft takes off what becomes a space.
func (r spaceRules) trimLeft(s string) string {
	for s != "" {
		text, n := r.next(s)
		if text != " " {
			break
		}
		s = s[n:]
	}
	return s
}
