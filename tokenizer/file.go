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
			f.steps[key] = doc.raw()
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
		if err := f.doc.value(path, &a); err != nil {
			return err
		}
		if a.ID == nil {
			bad.add(f.doc.errorf("%s: %q has no id", path, a.Content))
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
		raw := d.raw()
		id, err := strconv.ParseInt(string(raw), 10, 32)
		if err != nil || id < 0 || id > maxID {
			bad.add(d.errorf("model.vocab: %.40q: want an id from 0 to %d, got %s", token, maxID, brief(raw)))
			return nil
		}
		if before, twice := m.vocab[token]; twice {
			bad.add(d.errorf("model.vocab: %.40q stands twice, as %d and as %d", token, before, id))
			return nil
		}
		m.vocab[token] = int32(id)
		return nil
	})
}

// maxID is the highest id there may be: the number of ids is still an int32.
const maxID = math.MaxInt32 - 1

// readMerges reads merges in both forms: "a b" and ["a", "b"].
func (f *file) readMerges(bad *problems) error {
	d := f.doc
	return d.array("model.merges", func(i int) error {
		d.peek()
		g, raw := mergeFile{offset: d.at}, d.raw()
		if !g.read(d, raw) {
			bad.add(d.errorAt(g.offset, "model.merges[%d]: want two tokens, got %s", i, brief(raw)))
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
		return f.doc.errorf("no model in the file: it is not a tokenizer.json")
	case m.Type != "" && m.Type != "BPE":
		return refuse("model.type %q is not supported: only BPE is", m.Type)
	case !m.hasVocab:
		return refuse("model.vocab: want an object of tokens and ids, as BPE has")
	case len(m.vocab) == 0:
		return refuse("model.vocab is empty")
	case m.Dropout != nil && *m.Dropout != 0:
		return refuse("model.dropout %v would make every encoding random; it is not supported", *m.Dropout)
	case m.Prefix != nil && *m.Prefix != "":
		return refuse("model.continuing_subword_prefix %q is not supported", *m.Prefix)
	case m.Suffix != nil && *m.Suffix != "":
		return refuse("model.end_of_word_suffix %q is not supported", *m.Suffix)
	}
	return nil
}
