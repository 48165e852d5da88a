package tokenizer

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"
)

// vocabulary is what a file of any form says: the tokens, the steps by which text becomes tokens, and the tokens that
// have a meaning.
type vocabulary struct {
	file   string // for messages
	format string
	model  bpeConfig
	used   []bool // ids of the model's tokens

	added    []statedToken
	defaults []addedToken // added where neither their id nor their text is taken

	normalize normalizer   // nil for none
	words     preTokenizer // nil for none
	decoders  []decoderSpec

	frame     frame            // what is put around a text
	ends      [2]int32         // ids of BOS and EOS, none where the file does not say
	weak      [2]string        // BOS and EOS where nothing else says; "" for none
	noBOS     bool             // texts do not begin with BOS
	roles     map[string]int32 // other tokens with a role, such as "unk_token"
	templates map[string]string
	warnings  []string
}

// The forms of a vocabulary, as Format names them.
const (
	formatJSON          = "tokenizer.json"
	formatSentencePiece = "SentencePiece"
	formatTiktoken      = "tiktoken"
	formatGGUF          = "GGUF"
)

// statedToken is an added token with the id that the file gives it.
type statedToken struct {
	addedToken
	id int64
}

// How much a vocabulary may have. The largest of the field have 262144 tokens, 514906 merges and some thousand added
// tokens; the longest tokens are runs of 128 spaces.
const (
	maxTokens = 1 << 20
	maxMerges = 1 << 21
	maxAdded  = 1 << 18
	maxPiece  = 512 // bytes of a token that merges are found for, or of an added token

	maxAddedBytes = 1 << 23 // of all added tokens
)

func newVocabulary(file, format string) *vocabulary {
	return &vocabulary{file: file, format: format, ends: [2]int32{none, none}, roles: make(map[string]int32)}
}

// setPieces takes the model's tokens in order of id. An id whose piece is empty has no token.
func (v *vocabulary) setPieces(pieces []string) {
	v.model.pieces = pieces
	v.model.ids = make(map[string]int32, len(pieces))
	v.used = make([]bool, len(pieces))
	for id, p := range pieces {
		if p != "" {
			v.model.ids[p], v.used[id] = int32(id), true
		}
	}
}

// deriveMerges finds the merges of a vocabulary that has none written down: every way in which a token is two others
// joined, in order of rank (lowest first) of what is made, then by the ids of left and right. That is the order of
// merges in the tokenizer.json files of LLaMA, so that every form of a vocabulary gives the same ids.
// makes says which tokens may be made.
func (v *vocabulary) deriveMerges(makes func(id int32) bool, rank func(a, b int32) int) error {
	type found struct {
		pair
		makes int32
	}
	var list []found
	for i, p := range v.model.pieces {
		id := int32(i)
		if !makes(id) {
			continue
		}
		if len(p) > maxPiece {
			return fmt.Errorf("%s: token %d has %d bytes, more than %d", v.file, id, len(p), maxPiece)
		}
		for at := 0; ; {
			_, n := utf8.DecodeRuneInString(p[at:])
			if at += n; at >= len(p) {
				break
			}
			left, ok := v.model.ids[p[:at]]
			if !ok {
				continue
			}
			if right, ok := v.model.ids[p[at:]]; ok {
				list = append(list, found{pair{left, right}, id})
			}
		}
		if len(list) > maxMerges {
			return fmt.Errorf("%s: the first %d tokens can be made in more than %d ways", v.file, i+1, maxMerges)
		}
	}
	slices.SortFunc(list, func(a, b found) int {
		return cmp.Or(rank(a.makes, b.makes), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	v.model.merges, v.model.results = make([]pair, len(list)), make([]int32, len(list))
	for i, f := range list {
		v.model.merges[i], v.model.results[i] = f.pair, f.makes
	}
	return nil
}

// addMerge adds the merge of two tokens, or says which token is missing.
func (v *vocabulary) addMerge(left, right string) (missing string, ok bool) {
	l, ok := v.model.ids[left]
	if !ok {
		return left, false
	}
	r, ok := v.model.ids[right]
	if !ok {
		return right, false
	}
	id, ok := v.model.ids[left+right]
	if !ok {
		return left + right, false
	}
	v.model.merges, v.model.results = append(v.model.merges, pair{l, r}), append(v.model.results, id)
	return "", true
}

// has reports whether id is that of a token of the model.
func (v *vocabulary) has(id int32) bool { return id >= 0 && int(id) < len(v.used) && v.used[id] }

func (v *vocabulary) warn(format string, args ...any) {
	v.warnings = append(v.warnings, fmt.Sprintf(format, args...))
}
