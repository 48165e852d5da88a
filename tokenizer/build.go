package tokenizer

import (
	"encoding/json"
	"fmt"
)

// builder puts a Tokenizer together from a tokenizer.json and what stands beside it.
type builder struct {
	file     *file
	settings settings
	pieces   []string // the model's vocabulary by id
	used     []bool   // ids of the model's vocabulary
	added    []addedToken
	byText   map[string]int   // index in added
	byID     map[int32]string // content of an added token
	top      int              // highest id of an added token, plus one
	warnings []string
	bad      problems
}

func (b *builder) warn(format string, args ...any) {
	b.warnings = append(b.warnings, fmt.Sprintf(format, args...))
}

// build returns the tokenizer, or every problem that was found.
func (b *builder) build() (*Tokenizer, error) {
	if err := b.orderVocab(); err != nil {
		return nil, err
	}
	b.addTokens()
	t := &Tokenizer{bos: none, eos: none, plain: b.settings.split, size: b.size()}
	b.readSteps(t)
	config := b.modelConfig()
	if err := b.bad.err(); err != nil {
		return nil, err
	}
	t.model = newBPE(config)
	b.bad.add(b.checkUnknown(t))
	t.added = newAddedVocabulary(b.added, t.normalize)
	b.findEnds(t)
	t.warnings = b.warnings
	return t, b.bad.err()
}

// orderVocab orders the model's vocabulary by id. Ids so thinly spread that the table would be out of proportion to
// the file are refused.
func (b *builder) orderVocab() error {
	vocab := b.file.model.vocab
	top := none
	for _, id := range vocab {
		top = max(top, id)
	}
	if limit := 4*len(vocab) + 1<<16; int(top) >= limit {
		return fmt.Errorf("%s: model.vocab: ids run up to %d, but there are only %d tokens (up to %d would do)",
			b.file.doc.file, top, len(vocab), limit-1)
	}
	b.pieces, b.used = make([]string, top+1), make([]bool, top+1)
	for text, id := range vocab {
		if other := b.pieces[id]; b.used[id] {
			b.bad.add(fmt.Errorf("%s: model.vocab: id %d belongs to %.40q and to %.40q",
				b.file.doc.file, id, min(other, text), max(other, text)))
		}
		b.pieces[id], b.used[id] = text, true
	}
	return nil
}

// owner returns the token that has this id so far.
func (b *builder) owner(id int32) (string, bool) {
	if text, ok := b.byID[id]; ok {
		return text, true
	}
	if int(id) < len(b.used) && b.used[id] {
		return b.pieces[id], true
	}
	return "", false
}

// addTokens gathers the added tokens: those of tokenizer.json, those of tokenizer_config.json, and the named special
// tokens that are neither, as Transformers does.
func (b *builder) addTokens() {
	b.byText, b.byID = make(map[string]int), make(map[int32]string)
	for _, a := range b.file.added {
		b.bad.add(b.addStated(a.token(), *a.ID, b.file.doc.file))
	}
	for _, a := range b.settings.added {
		if i, known := b.byText[a.Content]; known && b.settings.legacy && int64(b.added[i].ID) == *a.ID {
			continue
		}
		if err := b.addStated(a.token(), *a.ID, b.settings.addedFile); err != nil {
			b.warn("%v; %s rules", err, b.file.doc.file)
		}
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
		if b.added[i].ID != t.ID {
			return fmt.Errorf("%s: added token %.40q has id %d, before it had %d", file, t.Content, t.ID, b.added[i].ID)
		}
		b.added[i] = t
		return nil
	}
	if own, ok := b.file.model.vocab[t.Content]; ok && own != t.ID {
		return fmt.Errorf("%s: added token %.40q has id %d, in the vocabulary it has %d", file, t.Content, t.ID, own)
	}
	if other, taken := b.owner(t.ID); taken && other != t.Content {
		return fmt.Errorf("%s: added token %.40q has id %d, which is that of %.40q", file, t.Content, t.ID, other)
	}
	if want := b.nextID(t.Content); want != t.ID {
		b.warn("%s: added token %q has id %d; Transformers would number it %d", file, t.Content, t.ID, want)
	}
	b.add(t)
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
	if _, ok := b.file.model.vocab[t.Content]; !ok {
		b.warn("special token %q is not in the vocabulary; it is added with id %d", t.Content, t.ID)
	}
	b.add(t)
}

func (b *builder) add(t addedToken) {
	b.byText[t.Content] = len(b.added)
	b.byID[t.ID] = t.Content
	b.top = max(b.top, int(t.ID)+1)
	b.added = append(b.added, t)
}

// nextID returns the id that Hugging Face's AddedVocabulary gives to the next added token.
func (b *builder) nextID(content string) int32 {
	if id, ok := b.file.model.vocab[content]; ok {
		return id
	}
	return int32(max(len(b.file.model.vocab), b.top))
}

// size returns the highest id plus one.
func (b *builder) size() int { return max(len(b.pieces), b.top) }

// modelConfig resolves the merges.
func (b *builder) modelConfig() bpeConfig {
	m := &b.file.model
	c := bpeConfig{
		ids: m.vocab, pieces: b.pieces, fuseUnk: m.FuseUnk, byteFallback: m.ByteFallback, ignoreMerges: m.IgnoreMerges,
		merges: make([]pair, 0, len(m.merges)), results: make([]int32, 0, len(m.merges)),
	}
	if m.Unk != nil {
		c.unk = *m.Unk
	}
	var joined []byte
	for i, g := range m.merges {
		joined = append(append(joined[:0], g.left...), g.right...)
		left, okLeft := m.vocab[g.left]
		right, okRight := m.vocab[g.right]
		result, okResult := m.vocab[string(joined)]
		if okLeft && okRight && okResult {
			c.merges = append(c.merges, pair{left, right})
			c.results = append(c.results, result)
			continue
		}
		missing := g.left
		switch {
		case okLeft && !okRight:
			missing = g.right
		case okLeft && okRight:
			missing = string(joined)
		}
		b.bad.add(b.file.doc.errorAt(g.offset, "model.merges[%d]: %.40q and %.40q: %.40q is not in the vocabulary",
			i, g.left, g.right, missing))
	}
	return c
}

// readSteps builds the steps around the model.
func (b *builder) readSteps(t *Tokenizer) {
	step(b, "normalizer", func(raw json.RawMessage) (err error) {
		t.normalize, err = readNormalizer(raw, "normalizer", 0)
		return err
	})
	step(b, "pre_tokenizer", func(raw json.RawMessage) (err error) {
		t.words, err = readPreTokenizer(raw, "pre_tokenizer", 0)
		return err
	})
	t.decoders = []decoderSpec{{start: func(n decodeStep) decodeStep { return &spaced{next: n} }}}
	step(b, "decoder", func(raw json.RawMessage) error {
		specs, err := readDecoders(raw, "decoder", 0)
		t.decoders = inPieces(specs)
		return err
	})
}

func step(b *builder, name string, read func(json.RawMessage) error) {
	raw := b.file.steps[name]
	if absent(raw) {
		return
	}
	if err := read(raw); err != nil {
		b.bad.add(b.file.doc.errorAt(b.file.places[name], "%w", err))
	}
}

// checkUnknown sees to characters that have no token. An unknown token that does not exist is an error where it could
// be needed; without one such characters are dropped, which is worth a warning.
func (b *builder) checkUnknown(t *Tokenizer) error {
	m := &b.file.model
	if t.model.unk != none || t.spells() {
		return nil
	}
	if m.Unk != nil && *m.Unk != "" {
		return fmt.Errorf("%s: model.unk_token %q is not in the vocabulary", b.file.doc.file, *m.Unk)
	}
	b.warn("%s: characters without a token are dropped: there is no unknown token, and not every byte has a token",
		b.file.doc.file)
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

// findEnds finds BOS and EOS.
func (b *builder) findEnds(t *Tokenizer) {
	f, err := readPostProcessor(b.file.steps["post_processor"], "post_processor", 0)
	if err != nil {
		b.warn("%s: %v: BOS and EOS are not taken from it", b.file.doc.file, err)
	}
	bos, eos := f.ends()
	t.bos = b.end(t, "bos_token", b.settings.bos, bos, b.settings.bosID)
	t.eos = b.end(t, "eos_token", b.settings.eos, eos, b.settings.eosID)
	t.frame = frame{b.known(t, f.before), b.known(t, f.after)}
}

// end returns the id of a token that begins or ends a sequence: named by a setting, used by the post-processor, or
// given in config.json.
func (b *builder) end(t *Tokenizer, what, named string, processor, config int32) int32 {
	if named != "" {
		id, _ := t.ID(named) // every named special token was added
		return id
	}
	for _, id := range []int32{processor, config} {
		if id == none {
			continue
		}
		if _, ok := t.Token(id); ok {
			return id
		}
		b.warn("%s: id %d names no token", what, id)
	}
	return none
}
