package tokenizer

import "fmt"

// Rules of a file can make a short text long: a chain of replacements that each double it grows without bound. So what
// the steps can do is added up when a file is read.
const (
	maxGrowth = 1 << 10 // how many times as long a text may become before the model sees it, and a token when it is decoded
	maxParts  = 64      // normalizers, pre-tokenizers or decoders of a file, wherever they are nested
)

// checkGrowth refuses steps that could make text too long, or are too many.
func (b *builder) checkGrowth() error {
	before, words := measure(b.normalize), measure(b.words)
	after := measured{growth: 1, parts: len(b.decoders)}
	for _, d := range b.decoders {
		after.growth = times(after.growth, max(d.growth, 1))
	}
	switch {
	case max(before.parts, words.parts, after.parts) > maxParts:
		return fmt.Errorf("%s: %d normalizers, %d pre-tokenizers and %d decoders, at most %d of each are plausible",
			b.file, before.parts, words.parts, after.parts, maxParts)
	case before.code+words.code > 2*maxCode:
		return fmt.Errorf("%s: the regular expressions have %d steps, at most %d are plausible", b.file, before.code+words.code, 2*maxCode)
	case times(before.growth, words.growth) > maxGrowth:
		return fmt.Errorf("%s: the normalizer and the pre-tokenizer can make a text more than %d times as long", b.file, maxGrowth)
	case after.growth > maxGrowth:
		return fmt.Errorf("%s: the decoder can make a token more than %d times as long", b.file, maxGrowth)
	}
	return nil
}

// times multiplies without overflow: what is above maxGrowth is only that.
func times(a, b int) int { return min(min(a, maxGrowth+1)*min(b, maxGrowth+1), maxGrowth+1) }

// measured is what a step can do.
type measured struct {
	growth int // how many times as long it can make a text
	parts  int // it has
	code   int // steps of its regular expressions
}

func measure(step any) measured {
	switch s := step.(type) {
	case normalizers:
		return measureAll(s)
	case preTokenizers:
		return measureAll(s)
	case prepend: // a text may be of one byte
		return measured{1 + len(s), 1, 0}
	case replace:
		return measured{s.growth(), 1, codeOf(s.pattern)}
	case unicodeForm:
		return measured{11, 1, 0} // U+FDFA in NFKC; the other forms make less of any character
	case spaceRules:
		return measured{s.growth(), 1, 0}
	case byteLevel: // a byte becomes a character of two bytes; so does the space in front
		return measured{4, 1, 0}
	case spaceMark:
		return measured{2 * len(s.mark), 1, 0}
	case split:
		return measured{1, 1, codeOf(s.pattern)}
	case nil:
		return measured{1, 0, 0}
	}
	return measured{1, 1, 0}
}

func measureAll[T any](steps []T) measured {
	all := measured{growth: 1}
	for _, s := range steps {
		m := measure(s)
		all = measured{times(all.growth, m.growth), all.parts + m.parts, all.code + m.code}
	}
	return all
}

func codeOf(p pattern) int {
	if e, ok := p.(*expression); ok {
		return len(e.code)
	}
	return 0
}

// growth returns how many times as long the replacements can make a text: a match has one byte at least.
func (r replace) growth() int {
	match := 1
	if lit, ok := r.pattern.(literal); ok {
		match = len(lit)
	}
	return max(1, (len(r.text)+match-1)/match)
}
