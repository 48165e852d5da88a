package tokenizer

import (
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is found in text before the model sees it.
type addedToken struct {
	ID         int32
	Content    string
	SingleWord bool // only where no word character stands beside it
	LStrip     bool // takes the white space before it
	RStrip     bool // takes the white space after it
	Normalized bool // looked for in the normalised text
	Special    bool // left out by Decode
}

// addedVocabulary holds the added tokens, by the text in which they are looked for.
type addedVocabulary struct {
	byID       map[int32]addedToken
	ids        map[string]int32
	verbatim   *matcher // in the text as given
	normalized *matcher // in the normalised text
}

func newAddedVocabulary(tokens []addedToken, n normalizer) *addedVocabulary {
	v := &addedVocabulary{
		byID:       make(map[int32]addedToken, len(tokens)),
		ids:        make(map[string]int32, len(tokens)),
		verbatim:   newMatcher(),
		normalized: newMatcher(),
	}
	for _, t := range tokens {
		v.byID[t.ID] = t
		v.ids[t.Content] = t.ID
		if !t.Normalized {
			v.verbatim.add(t.Content, t)
			continue
		}
		pattern := t.Content
		if n != nil {
			pattern = n.normalize(pattern, atStart)
		}
		v.normalized.add(pattern, t)
	}
	return v
}

// matcher finds the leftmost, and there the longest, of a set of tokens. It is a trie whose nodes lie in one slice.
type matcher struct {
	nodes  []node
	tokens []addedToken
	first  [256]bool
	only   int // the byte that every token begins with; -1 none yet, -2 several
}

// node is one byte of a token: its first child and its next sibling in nodes, 0 for none, and the token that ends here.
type node struct {
	b              byte
	child, sibling int32
	token          int32 // index in tokens, -1 for none
}

func newMatcher() *matcher {
	return &matcher{nodes: []node{{token: none}}, only: -1}
}

func (m *matcher) add(pattern string, t addedToken) {
	if pattern == "" {
		return
	}
	m.first[pattern[0]] = true
	switch m.only {
	case -1, int(pattern[0]):
		m.only = int(pattern[0])
	default:
		m.only = -2
	}
	at := int32(0)
	for i := 0; i < len(pattern); i++ {
		next := m.step(at, pattern[i])
		if next == 0 {
			next = int32(len(m.nodes))
			m.nodes = append(m.nodes, node{b: pattern[i], sibling: m.nodes[at].child, token: none})
			m.nodes[at].child = next
		}
		at = next
	}
	if m.nodes[at].token == none { // of two with the same text the first rules
		m.nodes[at].token = int32(len(m.tokens))
		m.tokens = append(m.tokens, t)
	}
}

// step returns the child of node at for byte b, 0 for none.
func (m *matcher) step(at int32, b byte) int32 {
	for c := m.nodes[at].child; c != 0; c = m.nodes[c].sibling {
		if m.nodes[c].b == b {
			return c
		}
	}
	return 0
}

// next returns the token that begins earliest in s[from:], the longest of those, as its index and its range in s. Special
// tokens that touch a range of plain are not seen.
func (m *matcher) next(s string, from int, plain plainText) (token int32, start, end int) {
	for i := m.candidate(s, from); i < len(s); i = m.candidate(s, i+1) {
		token = none
		for j, at := i, int32(0); j < len(s); j++ {
			if at = m.step(at, s[j]); at == 0 {
				break
			}
			if found := m.nodes[at].token; found != none && !(m.tokens[found].Special && plain.has(i, j+1)) {
				token, end = found, j+1
			}
		}
		if token != none {
			return token, i, end
		}
	}
	return none, len(s), len(s)
}

// candidate returns the first place in s[from:] where a token could begin, len(s) if there is none.
func (m *matcher) candidate(s string, from int) int {
	if m.only >= 0 && from < len(s) {
		if i := strings.IndexByte(s[from:], byte(m.only)); i >= 0 {
			return from + i
		}
		return len(s)
	}
	if m.only == -1 {
		return len(s)
	}
	for ; from < len(s); from++ {
		if m.first[s[from]] {
			return from
		}
	}
	return len(s)
}

// span is a stretch of text, or an added token.
type span struct {
	text  string
	from  int   // where text begins
	token int32 // none for text
	strip bool  // the token takes the white space after it
}

// spans cuts s at its added tokens; special ones stay text where plain says so. Empty stretches are left out. The order
// of the rules, and that a match which is discarded still uses up its text, is that of Hugging Face's AddedVocabulary.
func (m *matcher) spans(s string, plain plainText) iter.Seq[span] {
	return func(yield func(span) bool) {
		begin, from := 0, 0
		white := [2]int{-1, -1} // the white space that was stripped last: tokens may stand in it, and strip it again
		for from < len(s) {
			i, start, end := m.next(s, from, plain)
			if i == none {
				break
			}
			from = end
			t := &m.tokens[i]
			if plain.all && t.Special || t.SingleWord && !aloneIn(s, start, end) {
				continue
			}
			if t.LStrip {
				start = begin + len(strings.TrimRightFunc(s[begin:max(begin, start)], unicode.IsSpace))
			}
			if t.RStrip && (end < white[0] || end > white[1]) {
				white = [2]int{end, len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))}
			}
			if t.RStrip {
				end = white[1]
			}
			if start == end { // all of it was stripped by the token before
				continue
			}
			if begin < start && !yield(span{text: s[begin:start], from: begin, token: none}) {
				return
			}
			if !yield(span{token: t.ID, strip: t.RStrip}) {
				return
			}
			begin = end
		}
		if begin < len(s) {
			yield(span{text: s[begin:], from: begin, token: none})
		}
	}
}

// aloneIn reports whether no word character touches s[start:end].
func aloneIn(s string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:start])
	after, _ := utf8.DecodeRuneInString(s[end:])
	return (start == 0 || !isWord(before)) && (end == len(s) || !isWord(after))
}
