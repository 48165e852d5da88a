package tokenizer

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// file is the content of a tokenizer.json, its references not yet resolved.
type file struct {
	doc    *document
	model  modelFile
	added  []addedFile
	steps  map[string]json.RawMessage // normalizer, pre_tokenizer, post_processor, decoder
	places map[string]int             // where each of them stands
	bad    problems
	tekken bool
}

// modelFile is the "model" of a tokenizer.json.
type modelFile struct {
	Type             string
	Dropout          *float64
	Unk              *string
	Prefix           *string
	Suffix           *string
	FuseUnk          bool
	ByteFallback     bool
	IgnoreMerges     bool
	vocab            map[string]int32
	merges           []mergeFile
	hasVocab, hasAny bool
	offset           int
}

// mergeFile is a merge as written, with the place where it stands.
type mergeFile struct {
	left, right string
	offset      int
}

// addedFile is an added token as written.
type addedFile struct {
	ID         *int64 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized *bool  `json:"normalized"`
	Special    bool   `json:"special"`
}

// token returns the added token without its id. Normalized is, where it is not given, the opposite of special.
func (a addedFile) token() addedToken {
	t := addedToken{
		ID: none, Content: a.Content, SingleWord: a.SingleWord,
		LStrip: a.LStrip, RStrip: a.RStrip, Normalized: !a.Special, Special: a.Special,
	}
	if a.Normalized != nil {
		t.Normalized = *a.Normalized
	}
	return t
}

// parseFile reads the text of a tokenizer.json. Name is what errors call it.
func parseFile(name string, data []byte) (*file, error) {
	doc, err := newDocument(name, data)
	if err != nil {
		return nil, err
	}
	f := &file{doc: doc, steps: make(map[string]json.RawMessage), places: make(map[string]int)}
	var bad problems
	bad.add(doc.object("tokenizer", func(key string) error {
		switch key {
		case "model":
			return f.readModel(&bad)
		case "added_tokens":
			return f.readAdded(&bad)
		case "normalizer", "pre_tokenizer", "post_processor", "decoder":
			doc.peek()
			f.places[key] = doc.at
			if f.steps[key] = doc.raw(); len(f.steps[key]) > maxStep {
				return doc.errorAt(f.places[key], "%s: %d bytes, at most %d are plausible", key, len(f.steps[key]), maxStep)
			}
		case "vocab": // never at this level in a tokenizer.json
			f.tekken = true
			doc.raw()
		default:
			doc.raw()
		}
		return nil
	}))
	if bad.err() == nil {
		bad.add(f.checkModel())
	}
	return f, bad.err()
}

func (f *file) readAdded(bad *problems) error {
	return f.doc.array("added_tokens", func(i int) error {
		var a addedFile
		path := fmt.Sprintf("added_tokens[%d]", i)
		if i == maxAdded {
			return f.doc.errorf("%s: there are more than %d", path, maxAdded)
		}
		if err := f.doc.value(path, &a); err != nil {
			return err
		}
		if a.ID == nil {
			f.doc.problem(bad, f.doc.at, "%s: %.40q has no id", path, a.Content)
			return nil
		}
		f.added = append(f.added, a)
		return nil
	})
}

func (f *file) readModel(bad *problems) error {
	m := &f.model
	m.hasAny = true
	f.doc.peek()
	m.offset = f.doc.at
	return f.doc.object("model", func(key string) error {
		path := "model." + key
		switch key {
		case "type":
			return f.doc.value(path, &m.Type)
		case "dropout":
			return f.doc.value(path, &m.Dropout)
		case "unk_token":
			return f.doc.value(path, &m.Unk)
		case "continuing_subword_prefix":
			return f.doc.value(path, &m.Prefix)
		case "end_of_word_suffix":
			return f.doc.value(path, &m.Suffix)
		case "fuse_unk":
			return f.doc.value(path, &m.FuseUnk)
		case "byte_fallback":
			return f.doc.value(path, &m.ByteFallback)
		case "ignore_merges":
			return f.doc.value(path, &m.IgnoreMerges)
		case "vocab":
			return f.readVocab(bad)
		case "merges":
			return f.readMerges(bad)
		}
		f.doc.raw()
		return nil
	})
}

// readVocab reads {"token": id}. A vocabulary of another shape is that of another model, which checkModel names.
func (f *file) readVocab(bad *problems) error {
	d, m := f.doc, &f.model
	if d.peek() != '{' {
		d.raw()
		return nil
	}
	m.hasVocab = true
	m.vocab = make(map[string]int32)
	return d.object("model.vocab", func(token string) error {
		if len(m.vocab) == maxTokens {
			return d.errorf("model.vocab: more than %d tokens", maxTokens)
		}
		raw := d.raw()
		id, err := strconv.ParseInt(string(raw), 10, 32)
		if err != nil || id < 0 || id > maxID {
			d.problem(bad, d.at, "model.vocab: %.40q: want an id from 0 to %d, got %s", token, maxID, brief(raw))
			return nil
		}
		if before, twice := m.vocab[token]; twice {
			d.problem(bad, d.at, "model.vocab: %.40q stands twice, as %d and as %d", token, before, id)
			return nil
		}
		m.vocab[token] = int32(id)
		return nil
	})
}

// maxStep is the size in bytes of the largest step that is read. Real ones have some thousand.
const maxStep = 1 << 20

// maxID is the highest id there may be: the number of ids is still an int32.
const maxID = math.MaxInt32 - 1

// readMerges reads merges in both forms: "a b" and ["a", "b"].
func (f *file) readMerges(bad *problems) error {
	d := f.doc
	return d.array("model.merges", func(i int) error {
		if d.peek(); i == maxMerges {
			return d.errorf("model.merges: more than %d", maxMerges)
		}
		g, raw := mergeFile{offset: d.at}, d.raw()
		if !g.read(d, raw) {
			d.problem(bad, g.offset, "model.merges[%d]: want two tokens, got %s", i, brief(raw))
			return nil
		}
		f.model.merges = append(f.model.merges, g)
		return nil
	})
}

// read takes the two tokens from a merge as it is written.
func (g *mergeFile) read(d *document, raw json.RawMessage) (ok bool) {
	if isString(raw) {
		g.left, g.right, ok = strings.Cut(d.text(raw), " ")
		return ok && !strings.Contains(g.right, " ")
	}
	var pair []*string
	if err := json.Unmarshal(raw, &pair); err != nil || len(pair) != 2 || pair[0] == nil || pair[1] == nil {
		return false
	}
	g.left, g.right = *pair[0], *pair[1]
	return true
}

// checkModel says what about the model is not BPE as it is known here.
func (f *file) checkModel() error {
	m := &f.model
	refuse := func(format string, args ...any) error { return f.doc.errorAt(m.offset, format, args...) }
	switch {
	case !m.hasAny:
		if f.tekken {
			return f.doc.errorAt(0, "this is Mistral's tekken, which is %w (its tokenizer.json would do)", ErrUnsupported)
		}
		return f.doc.errorf("no model in the file: it is not a tokenizer.json")
	case m.Type != "" && m.Type != "BPE":
		return refuse("model.type %.40q is %w: only BPE is", m.Type, ErrUnsupported)
	case !m.hasVocab:
		return refuse("model.vocab: want an object of tokens and ids, as BPE has")
	case len(m.vocab) == 0:
		return refuse("model.vocab is empty")
	case m.Dropout != nil && *m.Dropout != 0:
		return refuse("model.dropout %v would make every encoding random; it is %w", *m.Dropout, ErrUnsupported)
	case m.Prefix != nil && *m.Prefix != "":
		return refuse("model.continuing_subword_prefix %.40q is %w", *m.Prefix, ErrUnsupported)
	case m.Suffix != nil && *m.Suffix != "":
		return refuse("model.end_of_word_suffix %.40q is %w", *m.Suffix, ErrUnsupported)
	}
	return nil
}

// vocabulary resolves what the file refers to. The problems that it finds are gathered in f.bad; those that make it
// pointless to go on are returned.
func (f *file) vocabulary() (*vocabulary, error) {
	v := newVocabulary(f.doc.file, formatJSON)
	if err := f.orderVocab(v); err != nil {
		return nil, err
	}
	for _, a := range f.added {
		v.added = append(v.added, statedToken{a.token(), *a.ID})
	}
	f.resolveMerges(v)
	f.readSteps(v)
	var err error
	if v.frame, err = readPostProcessor(f.steps["post_processor"], "post_processor", 0); err != nil {
		v.warn("%s: %v: BOS and EOS are not taken from it", f.doc.file, err)
	}
	v.ends[0], v.ends[1] = v.frame.ends()
	return v, nil
}

// orderVocab orders the model's vocabulary by id. Ids so thinly spread that the table would be out of proportion to
// the file are refused.
func (f *file) orderVocab(v *vocabulary) error {
	vocab := f.model.vocab
	top := none
	for _, id := range vocab {
		top = max(top, id)
	}
	if limit := 4*len(vocab) + 1<<16; int(top) >= limit {
		return fmt.Errorf("%s: model.vocab: ids run up to %d, but there are only %d tokens (up to %d would do)",
			f.doc.file, top, len(vocab), limit-1)
	}
	pieces, used := make([]string, top+1), make([]bool, top+1)
	for text, id := range vocab {
		if other := pieces[id]; used[id] {
			f.bad.add(fmt.Errorf("%s: model.vocab: id %d belongs to %.40q and to %.40q",
				f.doc.file, id, min(other, text), max(other, text)))
		}
		pieces[id], used[id] = text, true
	}
	m := &f.model
	v.used = used
	v.model = bpeConfig{
		ids: vocab, pieces: pieces, fuseUnk: m.FuseUnk, byteFallback: m.ByteFallback, ignoreMerges: m.IgnoreMerges,
		merges: make([]pair, 0, len(m.merges)), results: make([]int32, 0, len(m.merges)),
	}
	if m.Unk != nil {
		v.model.unk = *m.Unk
	}
	return nil
}

// resolveMerges finds the tokens that the merges speak of.
func (f *file) resolveMerges(v *vocabulary) {
	for i, g := range f.model.merges {
		if missing, ok := v.addMerge(g.left, g.right); !ok {
			f.doc.problem(&f.bad, g.offset, "model.merges[%d]: %.40q and %.40q: %.40q is not in the vocabulary",
				i, g.left, g.right, missing)
		}
	}
}

// readSteps builds the steps around the model.
func (f *file) readSteps(v *vocabulary) {
	f.step("normalizer", func(raw json.RawMessage) (err error) {
		v.normalize, err = readNormalizer(raw, "normalizer", 0)
		return err
	})
	f.step("pre_tokenizer", func(raw json.RawMessage) (err error) {
		v.words, err = readPreTokenizer(raw, "pre_tokenizer", 0)
		return err
	})
	v.decoders = []decoderSpec{{start: func(n decodeStep) decodeStep { return &spaced{next: n} }}}
	f.step("decoder", func(raw json.RawMessage) (err error) {
		v.decoders, err = readDecoders(raw, "decoder", 0)
		return err
	})
}

func (f *file) step(name string, read func(json.RawMessage) error) {
	raw := f.steps[name]
	if absent(raw) {
		return
	}
	if err := read(raw); err != nil {
		f.bad.add(f.doc.errorAt(f.places[name], "%w", err))
	}
}
