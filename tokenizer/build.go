package tokenizer

import (
	"fmt"
)

// builder puts a Tokenizer together from a vocabulary and what stands beside it.
type builder struct {
	*vocabulary
	settings settings
	tokens   []addedToken
	byText   map[string]int   // index in tokens
	byID     map[int32]string // content of an added token
	top      int              // highest id of an added token, plus one
	bad      problems
}

// build returns the tokenizer, or every problem that was found.
func (b *builder) build() (*Tokenizer, error) {
	b.addTokens()
	t := &Tokenizer{
		model: newBPE(b.model), normalize: b.normalize, words: b.words, decoders: inPieces(b.decoders),
		bos: none, eos: none, plain: b.settings.split, size: b.size(), about: about{format: b.format},
	}
	b.bad.add(b.checkUnknown(t))
	b.bad.add(b.checkGrowth())
	if b.bad.err() == nil {
		b.bad.add(b.checkAdded())
	}
	if err := b.bad.err(); err != nil {
		return nil, err
	}
	t.added = newAddedVocabulary(b.tokens, t.normalize)
	b.findEnds(t)
	b.describe(t)
	return t, nil
}

// owner returns the token that has this id so far.
func (b *builder) owner(id int32) (string, bool) {
	if text, ok := b.byID[id]; ok {
		return text, true
	}
	if b.has(id) {
		return b.model.pieces[id], true
	}
	return "", false
}

// addTokens gathers the added tokens: those of the vocabulary, those of tokenizer_config.json, and the named special
// tokens that are neither, as Transformers does.
func (b *builder) addTokens() {
	b.byText, b.byID = make(map[string]int), make(map[int32]string)
	for _, a := range b.added {
		b.bad.add(b.addStated(a.addedToken, a.id, b.file))
	}
	for _, a := range b.settings.added {
		if i, known := b.byText[a.Content]; known && b.settings.legacy && int64(b.tokens[i].ID) == *a.ID {
			continue
		}
		if err := b.addStated(a.token(), *a.ID, b.settings.addedFile); err != nil {
			b.warn("%v; %s rules", err, b.file)
		}
	}
	for _, t := range b.defaults {
		b.addDefault(t)
	}
	for _, n := range b.settings.named {
		b.addNamed(n.token)
	}
}

// addStated adds a token whose id the file gives.
func (b *builder) addStated(t addedToken, id int64, file string) error {
	if t.Content == "" {
		return nil
	}
	if id < 0 || id > maxID {
		return fmt.Errorf("%s: added token %.40q: id %d is not from 0 to %d", file, t.Content, id, maxID)
	}
	t.ID = int32(id)
	if i, twice := b.byText[t.Content]; twice {
		if b.tokens[i].ID != t.ID {
			return fmt.Errorf("%s: added token %.40q has id %d, before it had %d", file, t.Content, t.ID, b.tokens[i].ID)
		}
		b.tokens[i] = t
		return nil
	}
	if own, ok := b.model.ids[t.Content]; ok && own != t.ID {
		return fmt.Errorf("%s: added token %.40q has id %d, in the vocabulary it has %d", file, t.Content, t.ID, own)
	}
	if other, taken := b.owner(t.ID); taken && other != t.Content {
		return fmt.Errorf("%s: added token %.40q has id %d, which is that of %.40q", file, t.Content, t.ID, other)
	}
	if want := b.nextID(t.Content); want != t.ID && b.format == formatJSON {
		b.warn("%s: added token %.40q has id %d; Transformers would number it %d", file, t.Content, t.ID, want)
	}
	b.add(t)
	return nil
}

// checkAdded refuses added tokens out of proportion: at every place of a text they may have to be compared in full, and
// what finds them takes some memory for each of their bytes.
func (b *builder) checkAdded() error {
	all := 0
	for _, t := range b.tokens {
		size := len(t.Content)
		if t.Normalized && b.normalize != nil && size <= maxPiece {
			size = len(b.normalize.normalize(t.Content, atStart))
		}
		if size > maxPiece {
			return fmt.Errorf("%s: added token %.40q has %d bytes, at most %d are plausible", b.file, t.Content, size, maxPiece)
		}
		all += size
	}
	if all > maxAddedBytes {
		return fmt.Errorf("%s: the added tokens have %d bytes, at most %d are plausible", b.file, all, maxAddedBytes)
	}
	return nil
}

// addNamed adds a special token that a setting names, with its id in the vocabulary or else the next free one.
func (b *builder) addNamed(t addedToken) {
	if _, known := b.byText[t.Content]; known || t.Content == "" {
		return
	}
	t.ID, t.Special = b.nextID(t.Content), true
	if other, taken := b.owner(t.ID); taken && other != t.Content {
		t.ID = int32(b.size())
	}
	if _, ok := b.model.ids[t.Content]; !ok {
		b.warn("special token %.40q is not in the vocabulary; it is added with id %d", t.Content, t.ID)
	}
	b.add(t)
}

func (b *builder) add(t addedToken) {
	b.byText[t.Content] = len(b.tokens)
	b.byID[t.ID] = t.Content
	b.top = max(b.top, int(t.ID)+1)
	b.tokens = append(b.tokens, t)
}

// addDefault adds a token that the form of the vocabulary brings along, unless its id or its text is taken.
func (b *builder) addDefault(t addedToken) {
	_, known := b.byText[t.Content]
	_, inModel := b.model.ids[t.Content]
	if _, taken := b.owner(t.ID); !known && !inModel && !taken {
		b.add(t)
	}
}

// nextID returns the id that Hugging Face's AddedVocabulary gives to the next added token.
func (b *builder) nextID(content string) int32 {
	if id, ok := b.model.ids[content]; ok {
		return id
	}
	return int32(max(len(b.model.ids), b.top))
}

// size returns the highest id plus one.
func (b *builder) size() int { return max(len(b.model.pieces), b.top) }

// checkUnknown sees to characters that have no token. An unknown token that does not exist is an error where it could
// be needed; without one such characters are dropped, which is worth a warning.
func (b *builder) checkUnknown(t *Tokenizer) error {
	if t.model.unk != none || t.spells() {
		return nil
	}
	if b.model.unk != "" {
		return fmt.Errorf("%s: model.unk_token %.40q is not in the vocabulary", b.file, b.model.unk)
	}
	b.warn("%s: characters without a token are dropped: there is no unknown token, and not every byte has a token", b.file)
	return nil
}

// spells reports whether any text can be written with the vocabulary: by byte tokens, or by the characters of a
// byte-level alphabet.
func (t *Tokenizer) spells() bool {
	return t.model.hasBytes(allBytes) || isByteLevel(t.words) && t.model.hasAlphabet()
}

var allBytes = func() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}()

func isByteLevel(p preTokenizer) bool {
	switch p := p.(type) {
	case byteLevel:
		return true
	case preTokenizers:
		for _, q := range p {
			if isByteLevel(q) {
				return true
			}
		}
	}
	return false
}

func (m *bpe) hasAlphabet() bool {
	for _, r := range byteToRune {
		if m.low[r] == none {
			return false
		}
	}
	return true
}

// findEnds finds BOS and EOS, and what is put around a text.
func (b *builder) findEnds(t *Tokenizer) {
	s := &b.settings
	t.bos = b.end(t, "bos_token", s.bos, b.ends[0], s.bosID, b.weak[0])
	t.eos = b.end(t, "eos_token", s.eos, b.ends[1], s.eosID, b.weak[1])
	t.frame = frame{b.known(t, b.frame.before), b.known(t, b.frame.after)}
}

// end returns the id of a token that begins or ends a sequence: named by a setting, said by the vocabulary, given in
// generation_config.json or config.json, or what the form of the vocabulary always has.
func (b *builder) end(t *Tokenizer, what, named string, own, config int32, weak string) int32 {
	if named != "" {
		id, _ := t.ID(named) // every named special token was added
		return id
	}
	for _, id := range []int32{own, config} {
		if id == none {
			continue
		}
		if _, ok := t.Token(id); ok {
			return id
		}
		b.warn("%s: id %d names no token", what, id)
	}
	if id, ok := t.ID(weak); ok && weak != "" {
		return id
	}
	return none
}
