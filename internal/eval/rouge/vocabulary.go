package rouge

// vocabulary numbers words in the order they are first seen.
type vocabulary struct {
	stem  bool
	words map[string]uint32 // as written; with stemming, several have one number
	stems map[string]uint32 // with stemming only
	word  []byte
	cut   []byte
}

// unknown is the number of words that a vocabulary lacks.
const unknown = ^uint32(0)

func newVocabulary(stem bool) *vocabulary {
	v := &vocabulary{stem: stem, words: map[string]uint32{}}
	if stem {
		v.stems = map[string]uint32{}
	}
	return v
}

// size is the number of words, or of stems: numbers are below it. It counts words where stems are fewer, so that it
// bounds the memory too.
func (v *vocabulary) size() int { return len(v.words) }

// add appends the numbers of the text's tokens; new words get new ones.
func (v *vocabulary) add(dst []uint32, text string) []uint32 {
	return v.tokens(dst, text, true)
}

// find appends the numbers of the text's tokens, unknown for new words.
func (v *vocabulary) find(dst []uint32, text string) []uint32 {
	return v.tokens(dst, text, false)
}

func (v *vocabulary) tokens(dst []uint32, text string, add bool) []uint32 {
	v.word = v.word[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			v.word = append(v.word, c)
			continue
		case 'A' <= c && c <= 'Z':
			v.word = append(v.word, c|0x20)
			continue
		case c == 0xE2 && i+2 < len(text) && text[i:i+3] == "\u212A": // the Kelvin sign, k in lower case
			v.word = append(v.word, 'k')
			i += 2
			continue
		case c == 0xC4 && i+1 < len(text) && text[i:i+2] == "\u0130": // dotted I: i and a combining dot
			v.word = append(v.word, 'i')
			i++
		}
		dst = v.flush(dst, add)
	}
	return v.flush(dst, add)
}

// flush appends the number of the word that has been gathered, if there is one.
func (v *vocabulary) flush(dst []uint32, add bool) []uint32 {
	if len(v.word) == 0 {
		return dst
	}
	dst = append(dst, v.number(add))
	v.word = v.word[:0]
	return dst
}

func (v *vocabulary) number(add bool) uint32 {
	if id, ok := v.words[string(v.word)]; ok {
		return id
	}
	if !v.stem {
		id := uint32(len(v.words))
		if !add {
			return unknown
		}
		v.words[string(v.word)] = id
		return id
	}
	v.cut = append(v.cut[:0], v.word...)
	if len(v.cut) > 3 {
		v.cut = porter(v.cut)
	}
	id, ok := v.stems[string(v.cut)]
	if !ok && !add {
		return unknown
	}
	if !ok {
		id = uint32(len(v.stems))
		v.stems[string(v.cut)] = id
	}
	if add {
		v.words[string(v.word)] = id
	}
	return id
}
