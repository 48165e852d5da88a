package tokenizer

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// file is the content of a tokenizer.json, its references not yet resolved.
type file struct {
	doc    *document
	model  modelFile
	added  []addedFile
	steps  map[string]json.RawMessage // normalizer, pre_tokenizer, post_processor, decoder
	places map[string]int64           // where each of them stands
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
	offset           int64
}

// mergeFile is a merge as written, with the place where it stands.
type mergeFile struct {
	left, right string
	offset      int64
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
	f := &file{
		doc:    newDocument(name, data),
		steps:  make(map[string]json.RawMessage),
		places: make(map[string]int64),
	}
	var bad problems
	err := f.doc.object("tokenizer", func(key string) error {
		switch key {
		case "model":
			return f.readModel(&bad)
		case "added_tokens":
			return f.readAdded(&bad)
		case "normalizer", "pre_tokenizer", "post_processor", "decoder":
			f.places[key] = f.doc.dec.InputOffset()
			raw, err := f.doc.raw(key)
			f.steps[key] = raw
			return err
		}
		_, err := f.doc.raw(key)
		return err
	})
	if err == nil {
		err = f.doc.finish()
	}
	bad.add(err)
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
	m.offset = f.doc.dec.InputOffset()
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
		_, err := f.doc.raw(path)
		return err
	})
}

// readVocab reads {"token": id}. A vocabulary of another shape is that of another model, which checkModel names.
func (f *file) readVocab(bad *problems) error {
	if next := f.doc.peek(); next != '{' {
		_, err := f.doc.raw("model.vocab")
		return err
	}
	m := &f.model
	m.hasVocab = true
	m.vocab = make(map[string]int32)
	return f.doc.object("model.vocab", func(token string) error {
		t, err := f.doc.token("model.vocab")
		if err != nil {
			return err
		}
		id, ok := idOf(t)
		if _, bracket := t.(json.Delim); bracket {
			return f.doc.errorf("model.vocab: %.40q: want an id, got %s", token, describe(t))
		}
		switch before, twice := m.vocab[token]; {
		case !ok:
			bad.add(f.doc.errorf("model.vocab: %.40q: want an id from 0 to %d, got %s", token, math.MaxInt32-1, describe(t)))
		case twice:
			bad.add(f.doc.errorf("model.vocab: %.40q stands twice, as %d and as %d", token, before, id))
		default:
			m.vocab[token] = id
		}
		return nil
	})
}

// idOf returns the id that a JSON number gives.
func idOf(t json.Token) (int32, bool) {
	n, ok := t.(json.Number)
	if !ok {
		return 0, false
	}
	id, err := n.Int64()
	return int32(id), err == nil && id >= 0 && id < math.MaxInt32
}

// readMerges reads merges in both forms: "a b" and ["a", "b"].
func (f *file) readMerges(bad *problems) error {
	return f.doc.array("model.merges", func(i int) error {
		t, err := f.doc.token("model.merges")
		if err != nil {
			return err
		}
		var left, right string
		ok := false
		switch v := t.(type) {
		case string:
			left, right, ok = strings.Cut(v, " ")
			ok = ok && !strings.Contains(right, " ")
		case json.Delim:
			if v != '[' {
				return f.doc.errorf("model.merges[%d]: want two tokens, got %s", i, describe(t))
			}
			if left, right, ok, err = f.readPair(i); err != nil {
				return err
			}
		}
		if !ok {
			bad.add(f.doc.errorf("model.merges[%d]: want two tokens, got %s", i, describe(t)))
			return nil
		}
		f.model.merges = append(f.model.merges, mergeFile{left, right, f.doc.dec.InputOffset()})
		return nil
	})
}

// readPair reads the rest of ["a", "b"].
func (f *file) readPair(i int) (left, right string, ok bool, err error) {
	path := fmt.Sprintf("model.merges[%d]", i)
	var parts [2]string
	n := 0
	for ; f.doc.dec.More(); n++ {
		t, err := f.doc.token(path)
		if err != nil {
			return "", "", false, err
		}
		s, text := t.(string)
		if !text {
			return "", "", false, f.doc.errorf("%s: want a token, got %s", path, describe(t))
		}
		if n < 2 {
			parts[n] = s
		}
	}
	_, err = f.doc.token(path)
	return parts[0], parts[1], n == 2, err
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
