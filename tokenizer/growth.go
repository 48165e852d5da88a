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
	before, parts := measure(b.normalize)
	words, more := measure(b.words)
	switch {
	case parts > maxParts || more > maxParts || len(b.decoders) > maxParts:
		return fmt.Errorf("%s: %d normalizers, %d pre-tokenizers and %d decoders, at most %d of each are plausible",
			b.file, parts, more, len(b.decoders), maxParts)
	case times(before, words) > maxGrowth:
		return fmt.Errorf("%s: the normalizer and the pre-tokenizer can make a text more than %d times as long", b.file, maxGrowth)
	}
	after := 1
	for _, d := range b.decoders {
		after = times(after, max(d.growth, 1))
	}
	if after > maxGrowth {
		return fmt.Errorf("%s: the decoder can make a token more than %d times as long", b.file, maxGrowth)
	}
	return nil
}

// times multiplies without overflow: what is above maxGrowth is only that.
func times(a, b int) int { return min(min(a, maxGrowth+1)*min(b, maxGrowth+1), maxGrowth+1) }

// measure returns how many times as long a step can make a text, and how many parts it has.
func measure(step any) (growth, parts int) {
	switch s := step.(type) {
	case normalizers:
		return measureAll(s)
	case preTokenizers:
		return measureAll(s)
	case prepend: // a text may be of one byte
		return 1 + len(s), 1
	case replace:
		return s.growth(), 1
	case unicodeForm:
		return 11, 1 // U+FDFA in NFKC; the other forms make less of any character
	case spaceRules:
		return s.growth(), 1
	case byteLevel: // a byte becomes a character of two bytes; so does the space in front
		return 4, 1
	case spaceMark:
		return 2 * len(s.mark), 1
	case nil:
		return 1, 0
	}
	return 1, 1
}

func measureAll[T any](steps []T) (growth, parts int) {
	growth = 1
	for _, s := range steps {
		g, n := measure(s)
		growth, parts = times(growth, g), parts+n
	}
	return growth, parts
}

// growth returns how many times as long the replacements can make a text: a match has one byte at least.
func (r replace) growth() int {
	match := 1
	if lit, ok := r.pattern.(literal); ok {
		match = len(lit)
	}
	return max(1, (len(r.text)+match-1)/match)
}
