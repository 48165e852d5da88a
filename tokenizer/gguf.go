package tokenizer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/mmap"
)

// readGGUF reads the vocabulary of a GGUF file.
func readGGUF(path string) (*vocabulary, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var v *vocabulary
	err = mmap.Guard(func() error {
		v, err = parseGGUF(f)
		return err
	})
	return v, err
}

// ggufReader reads the keys of a tokenizer.
type ggufReader struct {
	*gguf.File
	v *vocabulary
}

// ggml is how the keys of a tokenizer begin.
const ggml = "tokenizer.ggml."

func parseGGUF(f *gguf.File) (*vocabulary, error) {
	r := ggufReader{f, newVocabulary(f.Path(), formatGGUF)}
	model, err := f.String(ggml + "model")
	if errors.Is(err, gguf.ErrNoKey) {
		return nil, &absence{fmt.Sprintf("%s: the file has no tokenizer (no key %smodel)", f.Path(), ggml)}
	}
	if err != nil {
		return nil, err
	}
	pieces, err := r.pieces()
	if err != nil {
		return nil, err
	}
	switch model {
	case "llama":
		err = r.readScored(pieces)
	case "gpt2":
		err = r.readByteLevel(pieces)
	default:
		err = fmt.Errorf("%s: %smodel %.40q is %w: llama and gpt2 are", f.Path(), ggml, model, ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	return r.v, r.readTemplates()
}

// count returns the length of an array before it is decoded.
func (r ggufReader) count(key string, most int) (int, error) {
	kind, n := r.ValueType(ggml + key)
	if kind == "" {
		return 0, fmt.Errorf("%s: no key %s%s", r.Path(), ggml, key)
	}
	if n > most {
		return 0, fmt.Errorf("%s: %s%s has %d elements, at most %d are plausible", r.Path(), ggml, key, n, most)
	}
	return n, nil
}

// pieces reads the tokens, their types, and their scores if there are any.
func (r ggufReader) pieces() ([]spPiece, error) {
	n, err := r.count("tokens", maxTokens)
	if err != nil {
		return nil, err
	}
	texts, err := r.Strings(ggml + "tokens")
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: %stokens is empty", r.Path(), ggml)
	}
	pieces := make([]spPiece, n)
	for i, text := range texts {
		pieces[i] = spPiece{text: text, kind: pieceNormal}
	}
	if r.Has(ggml + "token_type") {
		if err := r.sameLength("token_type", n); err != nil {
			return nil, err
		}
		kinds, err := r.Ints(ggml + "token_type")
		if err != nil {
			return nil, err
		}
		for i, k := range kinds {
			if k < 0 || k > pieceByte {
				return nil, fmt.Errorf("%s: %stoken_type[%d] is %d, which is not known", r.Path(), ggml, i, k)
			}
			pieces[i].kind = max(int32(k), pieceNormal) // 0 is undefined
		}
	}
	return pieces, nil
}

func (r ggufReader) sameLength(key string, n int) error {
	if got, err := r.count(key, maxTokens); err != nil || got != n {
		return errors.Join(err, fmt.Errorf("%s: %s%s has %d elements, but there are %d tokens", r.Path(), ggml, key, got, n))
	}
	return nil
}

// readScored reads the vocabulary of a SentencePiece model.
func (r ggufReader) readScored(pieces []spPiece) error {
	if err := r.sameLength("scores", len(pieces)); err != nil {
		return err
	}
	scores, err := r.Floats(ggml + "scores")
	if err != nil {
		return err
	}
	bytes, unknown := false, false
	for i, s := range scores {
		if s-s != 0 {
			return fmt.Errorf("%s: %sscores[%d] is %v", r.Path(), ggml, i, s)
		}
		pieces[i].score = s
		bytes = bytes || pieces[i].kind == pieceByte
		unknown = unknown || pieces[i].kind == pieceUnknown
	}
	unk, err := r.id("unknown_token_id", 0)
	if err != nil {
		return err
	}
	if !unknown && unk != none { // files from before token_type
		pieces[unk].kind = pieceUnknown
	}
	if err := checkPieces(r.Path(), pieces, bytes); err != nil {
		return err
	}
	if err := r.v.setScored(pieces, bytes); err != nil {
		return err
	}
	rules := spaceRules{prefix: true, escape: true}
	if err := errors.Join(r.bool("add_space_prefix", &rules.prefix), r.bool("remove_extra_whitespaces", &rules.squeeze)); err != nil {
		return err
	}
	if r.Has(ggml + "precompiled_charsmap") {
		return fmt.Errorf("%s: %sprecompiled_charsmap: rules for characters are %w in GGUF files", r.Path(), ggml, ErrUnsupported)
	}
	r.v.setSpaces(rules)
	return r.readRoles([2]int32{1, 2}, true)
}

// readByteLevel reads a byte-level vocabulary.
func (r ggufReader) readByteLevel(pieces []spPiece) error {
	v := r.v
	merges, made, err := r.merges()
	if err != nil {
		return err
	}
	texts := make([]string, len(pieces))
	seen := make(map[string]int, len(pieces))
	for i, p := range pieces {
		if first, twice := seen[p.text]; twice && p.text != "" {
			return fmt.Errorf("%s: %stokens[%d] is %.40q, as is [%d]", r.Path(), ggml, i, p.text, first)
		}
		seen[p.text] = i
		texts[i] = p.text
		switch p.kind {
		case pieceUnknown, pieceControl:
			v.addPiece(int32(i), p.text, true)
			texts[i] = "" // only found as it stands, never made
		case pieceUser: // its text is no spelling of bytes, unless merges make it
			v.addPiece(int32(i), p.text, false)
			if !made[p.text] {
				texts[i] = ""
			}
		}
	}
	if len(v.added) > maxAdded {
		return fmt.Errorf("%s: %d control and user-defined tokens, at most %d are plausible", r.Path(), len(v.added), maxAdded)
	}
	v.setPieces(texts)
	for _, p := range pieces {
		if p.kind == pieceUnused {
			delete(v.model.ids, p.text)
		}
	}
	if err := r.addMerges(merges); err != nil {
		return err
	}
	_, llama3 := seen[llama3BOS]
	addBOS, err := r.readWords(llama3)
	if err != nil {
		return err
	}
	return r.readRoles([2]int32{none, none}, addBOS)
}

// merges reads the merges, and returns what they make, too.
func (r ggufReader) merges() (list [][2]string, made map[string]bool, err error) {
	if _, err := r.count("merges", maxMerges); err != nil {
		return nil, nil, err
	}
	texts, err := r.Strings(ggml + "merges")
	if err != nil {
		return nil, nil, err
	}
	list, made = make([][2]string, len(texts)), make(map[string]bool, len(texts))
	for i, text := range texts {
		left, right, ok := strings.Cut(text, " ")
		if !ok {
			return nil, nil, fmt.Errorf("%s: %smerges[%d]: want two tokens, got %.40q", r.Path(), ggml, i, text)
		}
		list[i] = [2]string{left, right}
		made[left+right] = true
	}
	return list, made, nil
}

func (r ggufReader) addMerges(list [][2]string) error {
	var bad problems
	for i, m := range list {
		if missing, ok := r.v.addMerge(m[0], m[1]); !ok {
			if bad.full() {
				bad.more++
				continue
			}
			bad.add(fmt.Errorf("%s: %smerges[%d]: %.40q is not among the tokens", r.Path(), ggml, i, missing))
		}
	}
	return bad.err()
}

// readWords says how words are cut, which has a name (llama.cpp's pre-tokenizers), and whether texts begin with BOS where
// the file does not say.
func (r ggufReader) readWords(llama3 bool) (addBOS bool, err error) {
	pre, err := r.String(ggml + "pre")
	if err != nil && !errors.Is(err, gguf.ErrNoKey) {
		return false, err
	}
	switch pre {
	case "llama-bpe", "llama3", "llama-v3":
		llama3 = true
	case "", "default":
		r.v.warn("%s: %spre %.40q does not say how words are cut", r.Path(), ggml, pre)
		if !llama3 {
			r.v.setByteLevel()
			return false, r.setDefaultWords()
		}
	case "smaug-bpe":
		r.v.setByteLevel(scanLlama3)
		return false, nil
	case "gpt-2":
		r.v.setByteLevel(scanGPT2)
		return false, nil
	case "smollm":
		r.v.setByteLevel()
		r.v.words = preTokenizers{split{pattern: oneRune(isNumber)}, split{pattern: scanner(scanGPT2)}, byteLevel{}}
		return false, nil
	case "qwen2":
		r.v.setByteLevel(scanQwen2)
		return false, nil
	default:
		return false, fmt.Errorf("%s: %spre %.40q is %w: llama-bpe, smaug-bpe, gpt-2, smollm, qwen2 and default are",
			r.Path(), ggml, pre, ErrUnsupported)
	}
	r.v.model.ignoreMerges = true
	r.v.setByteLevel(scanLlama3)
	return true, nil
}

// setDefaultWords cuts words as llama.cpp does where nothing is said.
func (r ggufReader) setDefaultWords() error {
	var steps preTokenizers
	for _, source := range []string{`[\p{P}\$\+<=>\^~\|]+`, patternGPT2, `\p{N}+`, `[0-9][0-9][0-9]`} {
		p, err := newPattern(source)
		if err != nil {
			return err
		}
		steps = append(steps, split{pattern: p})
	}
	r.v.words = append(steps, byteLevel{})
	return nil
}

// readRoles reads which tokens have a role, and which of them are put around a text. Those that are not marked as
// special become so.
func (r ggufReader) readRoles(defaults [2]int32, addBOS bool) error {
	v := r.v
	marked := make(map[int64]bool, len(v.added))
	for _, a := range v.added {
		marked[a.id] = true
	}
	for i, role := range []string{"bos", "eos", "unknown", "padding", "seperator", "cls", "mask"} { // the spelling is GGUF's
		byDefault := none
		if i < len(defaults) {
			byDefault = defaults[i]
		}
		id, err := r.id(role+"_token_id", byDefault)
		if err != nil {
			return err
		}
		if id == none {
			continue
		}
		if i < len(defaults) {
			v.ends[i] = id
		}
		name := map[string]string{"unknown": "unk", "padding": "pad", "seperator": "sep"}[role]
		if name == "" {
			name = role
		}
		v.roles[name+"_token"] = id
		if !marked[int64(id)] {
			v.addPiece(id, v.model.pieces[id], true)
			marked[int64(id)] = true
		}
	}
	addEOS := false
	if err := errors.Join(r.bool("add_bos_token", &addBOS), r.bool("add_eos_token", &addEOS)); err != nil {
		return err
	}
	v.setFrame(addBOS, addEOS)
	return nil
}

// id reads the id of a token. One that does not exist is passed over with a warning, as in llama.cpp.
func (r ggufReader) id(key string, byDefault int32) (int32, error) {
	n := uint64(byDefault)
	if r.Has(ggml + key) {
		var err error
		if n, err = r.Uint(ggml + key); err != nil {
			return none, err
		}
	} else if byDefault == none {
		return none, nil
	}
	_, count := r.ValueType(ggml + "tokens")
	if n >= uint64(count) {
		r.v.warn("%s: %s%s is %d, but there are only %d tokens", r.Path(), ggml, key, n, count)
		return none, nil
	}
	return int32(n), nil
}

func (r ggufReader) bool(key string, dst *bool) error {
	if !r.Has(ggml + key) {
		return nil
	}
	b, err := r.Bool(ggml + key)
	*dst = b
	return err
}

// readTemplates reads the chat templates.
func (r ggufReader) readTemplates() error {
	const prefix = "tokenizer.chat_template"
	r.v.templates = make(map[string]string)
	for _, key := range r.Keys() {
		name, isTemplate := strings.CutPrefix(key, prefix)
		if !isTemplate || name != "" && name[0] != '.' {
			continue
		}
		if name = strings.TrimPrefix(name, "."); name == "" {
			name = defaultTemplate
		}
		text, err := r.String(key)
		switch {
		case err != nil:
			return err
		case len(text) > maxTemplate:
			return fmt.Errorf("%s: %s: %d bytes, at most %d are plausible", r.Path(), key, len(text), maxTemplate)
		case len(r.v.templates) == maxTemplates:
			return fmt.Errorf("%s: more than %d chat templates", r.Path(), maxTemplates)
		}
		r.v.templates[name] = text
	}
	return nil
}
