package tokenizer

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// spModel is a SentencePiece model (sentencepiece_model.proto), without what only its training was about.
type spModel struct {
	pieces     []spPiece
	kind       int32 // of model
	suffix     bool  // treat_whitespace_as_suffix
	bytes      bool  // byte_fallback
	bos        int32
	eos        int32
	pad        int32
	charsmap   string
	dummy      bool // add_dummy_prefix
	squeeze    bool // remove_extra_whitespaces
	escape     bool // escape_whitespaces
	denormal   string
	hasTrainer bool
}

// spPiece is one token.
type spPiece struct {
	text  string
	score float32
	kind  int32
	at    int // byte of the file
}

// Kinds of tokens. GGUF numbers them in the same way.
const (
	pieceNormal  = 1
	pieceUnknown = 2
	pieceControl = 3
	pieceUser    = 4
	pieceUnused  = 5
	pieceByte    = 6
)

// Kinds of models.
const kindBPE = 2

var spKinds = map[int32]string{1: "unigram", 3: "word", 4: "char"}

// parseSentencePiece reads the text of a SentencePiece model. The steps around the model are those that Transformers
// makes of it for LLaMA: special tokens in text become their ids, each stretch of text between them gets a dummy space,
// and tokenizer_config.json may change that (legacy, add_prefix_space). What Transformers takes no notice of is
// SentencePiece's: its rules for characters and for white space.
func parseSentencePiece(path string, data []byte, s *settings) (*vocabulary, error) {
	m, err := readSentencePiece(message{file: path, data: data})
	if err != nil && len(m.pieces) == 0 {
		return nil, fmt.Errorf("%w: the file is neither a SentencePiece model nor another tokenizer", err)
	}
	if err != nil {
		return nil, err
	}
	if err := m.check(path); err != nil {
		return nil, err
	}
	return m.vocabulary(path, s)
}

func readSentencePiece(top message) (*spModel, error) {
	m := &spModel{kind: 1, bos: 1, eos: 2, pad: -1, dummy: true, squeeze: true, escape: true}
	err := top.fields(func(f field) error {
		if f.number > 5 {
			return nil
		}
		if f.wire != protowire.BytesType {
			return top.wrongType(f, "a message")
		}
		switch f.number {
		case 1:
			return m.readPiece(top.within(f, "piece", len(m.pieces)))
		case 2:
			m.hasTrainer = true
			return m.readTrainer(top.within(f, "trainer_spec", -1))
		case 3:
			return m.readNormalizer(top.within(f, "normalizer_spec", -1))
		case 5:
			d := top.within(f, "denormalizer_spec", -1)
			return d.fields(func(f field) error {
				if f.number == 2 {
					return d.text(f, &m.denormal)
				}
				return nil
			})
		}
		return nil
	})
	return m, err
}

func (m *spModel) readPiece(d message) error {
	if len(m.pieces) == maxTokens {
		return d.errorf(0, "more than %d pieces", maxTokens)
	}
	p := spPiece{kind: pieceNormal, at: d.at}
	err := d.fields(func(f field) error {
		switch f.number {
		case 1:
			return d.text(f, &p.text)
		case 2:
			return d.float(f, &p.score)
		case 3:
			return d.integer(f, &p.kind)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case p.text == "":
		return d.errorf(0, "the piece is empty")
	case !utf8.ValidString(p.text):
		return d.errorf(0, "%.40q is not UTF-8", p.text)
	case math.IsNaN(float64(p.score)) || math.IsInf(float64(p.score), 0):
		return d.errorf(0, "%.40q: the score is %v", p.text, p.score)
	case p.kind < pieceNormal || p.kind > pieceByte:
		return d.errorf(0, "%.40q: type %d is not known", p.text, p.kind)
	}
	m.pieces = append(m.pieces, p)
	return nil
}

func (m *spModel) readTrainer(d message) error {
	return d.fields(func(f field) error {
		switch f.number {
		case 3:
			return d.integer(f, &m.kind)
		case 24:
			return d.boolean(f, &m.suffix)
		case 35:
			return d.boolean(f, &m.bytes)
		case 41:
			return d.integer(f, &m.bos)
		case 42:
			return d.integer(f, &m.eos)
		case 43:
			return d.integer(f, &m.pad)
		}
		return nil
	})
}

func (m *spModel) readNormalizer(d message) error {
	return d.fields(func(f field) error {
		switch f.number {
		case 2:
			return d.text(f, &m.charsmap)
		case 3:
			return d.boolean(f, &m.dummy)
		case 4:
			return d.boolean(f, &m.squeeze)
		case 5:
			return d.boolean(f, &m.escape)
		}
		return nil
	})
}

// check refuses models that are not BPE or contradict themselves.
func (m *spModel) check(path string) error {
	switch {
	case len(m.pieces) == 0:
		return fmt.Errorf("%s: there are no pieces: the file is not a SentencePiece model", path)
	case !m.hasTrainer:
		return fmt.Errorf("%s: there is no trainer_spec, which says what kind of model it is", path)
	case spKinds[m.kind] != "":
		return fmt.Errorf("%s: a SentencePiece model of type %s is %w: only BPE is", path, spKinds[m.kind], ErrUnsupported)
	case m.kind != kindBPE:
		return fmt.Errorf("%s: trainer_spec: model_type %d is not known; only BPE (%d) is supported", path, m.kind, kindBPE)
	case m.denormal != "":
		return fmt.Errorf("%s: denormalizer_spec: rules for decoding are %w", path, ErrUnsupported)
	}
	return checkPieces(path, m.pieces, m.bytes)
}

// checkPieces refuses tokens that contradict each other.
func checkPieces(path string, pieces []spPiece, bytes bool) error {
	var bad problems
	seen := make(map[string]int, len(pieces))
	unknown := -1
	var found [256]bool
	for i, p := range pieces {
		problem := func(format string, args ...any) {
			if bad.full() {
				bad.more++
				return
			}
			where := fmt.Sprintf("%s: piece %d", path, i)
			if p.at > 0 {
				where = fmt.Sprintf("%s (byte %d): piece %d", path, p.at, i)
			}
			bad.add(fmt.Errorf("%s: %.40q: %w", where, p.text, fmt.Errorf(format, args...)))
		}
		if first, twice := seen[p.text]; twice && p.text != "" {
			problem("piece %d is the same", first)
		}
		seen[p.text] = i
		switch p.kind {
		case pieceUnknown:
			if unknown >= 0 {
				problem("a second unknown token, piece %d was the first", unknown)
			}
			if unknown = i; p.text == "" {
				problem("the unknown token has no text")
			}
		case pieceByte:
			b, _ := byteToken(p.text)
			if p.text != fmt.Sprintf("<0x%02X>", b) {
				problem("the type is byte, but it is not of the form <0x4A>")
			} else if !bytes {
				problem("the type is byte, but byte_fallback is off")
			} else {
				found[b] = true
			}
		}
	}
	if unknown < 0 {
		bad.add(fmt.Errorf("%s: no piece is the unknown token", path))
	}
	if b := slices.Index(found[:], false); bytes && b >= 0 {
		bad.add(fmt.Errorf("%s: byte_fallback is on, but there is no piece <0x%02X>", path, b))
	}
	return bad.err()
}

// vocabulary makes a vocabulary of a model that was checked.
func (m *spModel) vocabulary(path string, s *settings) (*vocabulary, error) {
	v := newVocabulary(path, formatSentencePiece)
	legacy, prefix, addBOS, addEOS := true, m.dummy, true, false
	if err := errors.Join(s.flag("legacy", &legacy), s.flag("add_prefix_space", &prefix),
		s.flag("add_bos_token", &addBOS), s.flag("add_eos_token", &addEOS)); err != nil {
		return nil, err
	}
	if err := v.setScored(m.pieces, m.bytes); err != nil {
		return nil, err
	}
	for _, end := range []struct {
		role string
		id   int32
		dst  *int32
	}{{"bos_token", m.bos, &v.ends[0]}, {"eos_token", m.eos, &v.ends[1]}, {"pad_token", m.pad, nil}} {
		if err := v.setRole(end.role, end.id, end.dst); err != nil {
			return nil, err
		}
	}
	v.setFrame(addBOS, addEOS)
	rules := spaceRules{prefix: prefix, first: !legacy, suffix: m.suffix, squeeze: m.squeeze, escape: m.escape}
	if m.charsmap != "" {
		c, err := readCharsmap(m.charsmap)
		if err != nil {
			return nil, fmt.Errorf("%s: normalizer_spec: precompiled_charsmap: %w", path, err)
		}
		rules.chars = c
	}
	v.setSpaces(rules)
	return v, nil
}

// flag reads a switch of tokenizer_config.json, if it is there.
func (s *settings) flag(key string, dst *bool) error {
	switch raw := s.switches[key]; string(raw) {
	case "true", "false":
		*dst = string(raw) == "true"
	case "", "null":
	default:
		return fmt.Errorf("tokenizer_config.json: %s: want true or false, got %s", key, brief(raw))
	}
	return nil
}

// setScored takes tokens with scores: the pair whose token has the highest score is merged first.
func (v *vocabulary) setScored(pieces []spPiece, bytes bool) error {
	texts := make([]string, len(pieces))
	for id, p := range pieces {
		texts[id] = p.text
		switch p.kind {
		case pieceUnknown:
			v.model.unk = p.text
			v.roles["unk_token"] = int32(id)
			v.addPiece(int32(id), p.text, true)
		case pieceControl, pieceUser:
			v.addPiece(int32(id), p.text, p.kind == pieceControl)
		}
	}
	if len(v.added) > maxAdded {
		return fmt.Errorf("%s: %d control and user-defined tokens, at most %d are plausible", v.file, len(v.added), maxAdded)
	}
	v.setPieces(texts)
	v.model.fuseUnk, v.model.byteFallback = true, bytes
	err := v.deriveMerges(func(id int32) bool {
		kind := pieces[id].kind
		return kind == pieceNormal || kind == pieceUser || kind == pieceUnused
	}, func(a, b int32) int { return cmp.Compare(pieces[b].score, pieces[a].score) })
	if err != nil {
		return err
	}
	for i, id := range v.model.results {
		if m := v.model.merges[i]; pieces[id].kind == pieceUnused {
			return fmt.Errorf("%s: piece %d, %.40q, is not to be used, but pieces %d and %d make it; such models are %w",
				v.file, id, pieces[id].text, m.left, m.right, ErrUnsupported)
		}
	}
	return nil
}

// addPiece makes a token of the model one that is found in text as it stands.
func (v *vocabulary) addPiece(id int32, text string, special bool) {
	v.added = append(v.added, statedToken{addedToken{Content: text, Special: special}, int64(id)})
}

// setRole notes the token of a role, which the file may lack (-1).
func (v *vocabulary) setRole(role string, id int32, dst *int32) error {
	if id < 0 {
		return nil
	}
	if !v.has(id) {
		return fmt.Errorf("%s: %s has id %d, but there are only %d tokens", v.file, role, id, len(v.used))
	}
	v.roles[role] = id
	if dst != nil {
		*dst = id
	}
	return nil
}

// setFrame says which of BOS and EOS are put around a text.
func (v *vocabulary) setFrame(bos, eos bool) {
	v.noBOS = !bos
	if bos && v.ends[0] != none {
		v.frame.before = []int32{v.ends[0]}
	}
	if eos && v.ends[1] != none {
		v.frame.after = []int32{v.ends[1]}
	}
}
