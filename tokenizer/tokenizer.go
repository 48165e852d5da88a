// Package tokenizer turns text into the token ids of a LLaMA model and ids back into text.
//
// It gives the ids that Hugging Face's tokenizers gives for the same tokenizer.json: SentencePiece-style BPE with
// byte fallback (LLaMA 1 and 2, Mistral) and byte-level BPE (LLaMA 3, GPT-2). Text goes through four steps, each
// optional but the last: added tokens are cut out, the rest is normalised, cut into words, and each word becomes ids.
//
// The same vocabulary gives the same ids in every form: tokenizer.json, SentencePiece's tokenizer.model, tiktoken's
// tokenizer.model, GGUF. tokenizer.json is the authority, and where other libraries differ the others follow what
// Transformers 4 makes of them. Special tokens in text become their ids, which SentencePiece and tiktoken do only when
// asked. After such a token a SentencePiece vocabulary gets another dummy space ("legacy"), unless tokenizer_config.json
// says otherwise. The order of merges is that of LLaMA's tokenizer.json. Rules for characters and for white space in a
// SentencePiece model, which Transformers ignores for LLaMA, are applied as SentencePiece does. Transformers 5 replaces
// the normalizer of a tokenizer.json for tokenizer_class LlamaTokenizer by a rule of its own; this package does not.
//
// Files are read as what strangers wrote: nothing in them makes loading or encoding panic, hang or allocate without bound.
// Loading takes at most 32 times the bytes of the file and a few MB, files larger than 64 MiB are refused (of a GGUF file only the
// metadata counts), and a text becomes at most 1024 times as long on its way to the model.
package tokenizer

import (
	"errors"
	"slices"

	sugar "github.com/sugarme/tokenizer"
)

// Tokenizer encodes and decodes text. It does not change once loaded and may be used by several goroutines at once.
type Tokenizer struct {
	model     *bpe
	added     *addedVocabulary
	normalize normalizer   // nil for none
	words     preTokenizer // nil for none
	decoders  []decoderSpec
	bos, eos  int32 // -1 for none
	frame     frame
	size      int
	plain     bool // special tokens in text are text

	about    about
	files    []string
	warnings []string
}

// ErrUnsupported is what errors wrap about files that may be right, but are of a kind that this package does not read.
var ErrUnsupported = errors.New("not supported")

// none stands for the id of a token that does not exist.
const none int32 = -1

// place says what stands before a piece of text: it decides whether a dummy space is put in front.
type place uint8

const (
	atStart    place = iota // nothing
	afterToken              // an added token, or the piece before it
	afterText               // text that was encoded apart: no dummy space
)

// Encode returns the ids of text, without BOS and EOS. Added tokens that stand in text, special ones among them,
// become their ids. Bytes that are not UTF-8 are encoded as bytes where the vocabulary has bytes.
func (t *Tokenizer) Encode(text string) []int32 { return t.encode(text, atStart) }

// EncodeWithSpecial returns the ids of text with the special tokens around it that the post-processor of tokenizer.json
// puts there, even if the text brings them along: what Transformers gives with add_special_tokens. As in Transformers,
// add_bos_token and add_eos_token of tokenizer_config.json mean nothing beside a tokenizer.json. In the other forms it is
// BOS, unless these or the keys of a GGUF file say otherwise.
func (t *Tokenizer) EncodeWithSpecial(text string) []int32 {
	return slices.Concat(t.frame.before, t.Encode(text), t.frame.after)
}

// EncodeContinuation returns the ids of text that directly follows other text: no dummy space is put in front, so
// Encode(a) and EncodeContinuation(b) together are Encode(a+b) wherever no token crosses the border and a does not
// end in an added token.
func (t *Tokenizer) EncodeContinuation(text string) []int32 { return t.encode(text, afterText) }

// WithoutSpecials returns a view of t that reads special tokens in text as plain text, as Transformers does with
// split_special_tokens. Added tokens that are not special are still recognised.
func (t *Tokenizer) WithoutSpecials() *Tokenizer {
	v := *t
	v.plain = true
	return &v
}

func (t *Tokenizer) encode(text string, at place) []int32 {
	e := encoding{t: t, at: at, ids: make([]int32, 0, len(text)/3+2)}
	e.add(text, nil)
	return e.ids
}

func (t *Tokenizer) encodeText(ids []int32, text string, at place) []int32 {
	if t.words == nil {
		return t.model.append(ids, text)
	}
	for _, w := range t.words.split([]string{text}, at) {
		ids = t.model.append(ids, w)
	}
	return ids
}

// Decode returns the text of ids without special tokens. Ids that name no token are passed over.
func (t *Tokenizer) Decode(ids []int32) string { return t.decode(ids, true) }

// DecodeWithSpecial returns the text of ids, special tokens written out.
func (t *Tokenizer) DecodeWithSpecial(ids []int32) string { return t.decode(ids, false) }

// Token returns the token with this id as the vocabulary spells it, such as "▁the" or "Ġthe".
func (t *Tokenizer) Token(id int32) (string, bool) {
	if tok, ok := t.added.byID[id]; ok {
		return tok.Content, true
	}
	return t.model.piece(id)
}

// ID returns the id of the token that the vocabulary spells so.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	id, ok := t.model.ids[token]
	return id, ok
}

// VocabSize returns the highest id of any token, added ones included, plus one.
func (t *Tokenizer) VocabSize() int { return t.size }

// BOS returns the id of the token that begins a sequence. It comes from tokenizer_config.json, else from the
// post-processor of tokenizer.json, the trainer_spec of a SentencePiece model or the keys of a GGUF file, else from
// generation_config.json or config.json; LLaMA 3's is known. There is none where add_bos_token is false beside a
// tokenizer.model or in a GGUF file.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos, t.bos != none }

// EOS returns the id of the token that ends a sequence, from the same places as BOS.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos, t.eos != none }

// Special reports whether id is a special token, which Decode leaves out.
func (t *Tokenizer) Special(id int32) bool { return t.added.byID[id].Special }

// Files returns the paths of the tokenizer's files: those it was read from and those beside them that other tools
// read. Copied into another checkpoint they make the same tokenizer. Of a GGUF file it is that file, weights and all.
func (t *Tokenizer) Files() []string { return slices.Clone(t.files) }

// Warnings returns what was odd about the files but did not keep them from being used.
func (t *Tokenizer) Warnings() []string { return slices.Clone(t.warnings) }

// Model returns the BPE model alone, for pipelines built with github.com/sugarme/tokenizer.
func (t *Tokenizer) Model() sugar.Model { return t.model }
