package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	sugar "github.com/sugarme/tokenizer"
)

// bpe is byte-pair encoding over characters: a word starts as its characters, and the pair of lowest rank, the
// leftmost of equals, is merged until none is left (Sennrich et al. 2016; order of merges as in Hugging Face's BPE).
type bpe struct {
	ids     map[string]int32
	pieces  []string // by id; "" where no token has the id
	merges  *pairs
	low     [0x180]int32 // ids of the characters below U+0180: ASCII, and all of a byte-level alphabet
	bytes   [256]int32   // ids of <0x00> to <0xFF>, none without byte fallback
	unk     int32
	fuseUnk bool
	whole   bool // a word that is a token is not built from merges (ignore_merges)
	border  bool // no merge crosses from another character to "▁", so text may be cut there

	pool sync.Pool // *work
}

var _ sugar.Model = (*bpe)(nil)

type pair struct{ left, right int32 }

type merge struct{ rank, id int32 }

// bpeConfig is what a BPE model is made of. Merges stand in order of rank.
type bpeConfig struct {
	ids          map[string]int32
	pieces       []string // by id
	merges       []pair
	results      []int32 // ids of the merged pairs
	unk          string  // "" for none
	fuseUnk      bool
	byteFallback bool
	ignoreMerges bool
}

const metaspace = "▁"

func newBPE(c bpeConfig) *bpe {
	m := &bpe{
		ids: c.ids, pieces: c.pieces, merges: newPairs(len(c.merges)),
		unk: none, fuseUnk: c.fuseUnk, whole: c.ignoreMerges,
	}
	for rank, p := range c.merges { // of a pair that stands twice the last rules
		m.merges.set(p, merge{int32(rank), c.results[rank]})
	}
	for r := range m.low {
		m.low[r] = m.lookup(string(rune(r)))
	}
	for b := range m.bytes {
		m.bytes[b] = none
		if c.byteFallback {
			m.bytes[b] = m.lookup(fmt.Sprintf("<0x%02X>", b))
		}
	}
	if c.unk != "" {
		m.unk = m.lookup(c.unk)
	}
	m.border = m.cutsAtBorder(c)
	m.pool.New = func() any { return new(work) }
	return m
}

// cutsAtBorder reports whether text may be cut before a "▁" that follows another character: no merge joins such a
// pair, and neither the unknown token nor a whole-word rule can reach across.
func (m *bpe) cutsAtBorder(c bpeConfig) bool {
	if m.whole || m.lookup(metaspace) == none || strings.Contains(c.unk, metaspace) {
		return false
	}
	for _, p := range c.merges {
		if strings.HasPrefix(m.pieces[p.right], metaspace) && !strings.HasSuffix(m.pieces[p.left], metaspace) {
			return false
		}
	}
	return true
}

func (m *bpe) lookup(s string) int32 {
	if id, ok := m.ids[s]; ok {
		return id
	}
	return none
}

// piece returns the token with this id.
func (m *bpe) piece(id int32) (string, bool) {
	if id < 0 || int(id) >= len(m.pieces) {
		return "", false
	}
	s := m.pieces[id]
	if s == "" {
		own, ok := m.ids[s]
		return s, ok && own == id
	}
	return s, true
}

// work is the memory of one call. It keeps what it has grown to, and the words it has seen, within limits.
type work struct {
	symbols []symbol
	queue   queue
	seen    map[string][]int32
}

const (
	seenLength = 32      // bytes of the longest word that is remembered
	seenWords  = 1 << 14 // how many are
	keepRoom   = 1 << 16 // symbols whose memory is kept between calls
)

// symbol is a token in the making: its neighbours (-1 for none) and its length in bytes, 0 once it is merged away.
type symbol struct{ id, prev, next, size int32 }

// append appends the ids of text to dst.
func (m *bpe) append(dst []int32, text string) []int32 {
	w := m.pool.Get().(*work)
	for text != "" {
		n := len(text)
		if m.border {
			n = toBorder(text)
		}
		dst = m.appendWord(dst, text[:n], w)
		text = text[n:]
	}
	if cap(w.symbols) > keepRoom {
		w.symbols, w.queue = nil, nil
	}
	m.pool.Put(w)
	return dst
}

// toBorder returns the length of s up to the first "▁" that follows another character.
func toBorder(s string) int {
	at := 0
	for strings.HasPrefix(s[at:], metaspace) {
		at += len(metaspace)
	}
	if i := strings.Index(s[at:], metaspace); i >= 0 {
		return at + i
	}
	return len(s)
}

func (m *bpe) appendWord(dst []int32, word string, w *work) []int32 {
	if ids, ok := w.seen[word]; ok {
		return append(dst, ids...)
	}
	from := len(dst)
	m.merge(word, w)
	for i := range w.symbols {
		if w.symbols[i].size > 0 {
			dst = append(dst, w.symbols[i].id)
		}
	}
	if len(word) <= seenLength && len(w.seen) < seenWords {
		if w.seen == nil {
			w.seen = make(map[string][]int32)
		}
		w.seen[strings.Clone(word)] = append([]int32(nil), dst[from:]...)
	}
	return dst
}

// merge leaves the tokens of word in w.symbols.
func (m *bpe) merge(word string, w *work) {
	w.symbols, w.queue = w.symbols[:0], w.queue[:0]
	if m.whole {
		if id, ok := m.ids[word]; ok {
			w.add(id, len(word))
			return
		}
	}
	m.start(word, w)
	s := w.symbols
	if len(s) == 0 {
		return
	}
	s[len(s)-1].next = none
	for i := range s[:len(s)-1] {
		m.propose(w, int32(i))
	}
	for len(w.queue) > 0 {
		c := w.queue.pop()
		left := &s[c.at]
		if left.size == 0 || left.next == none {
			continue
		}
		right := &s[left.next]
		if now, ok := m.merges.get(pair{left.id, right.id}); !ok || now.id != c.id {
			continue // proposed before a neighbour changed
		}
		left.id, left.size, left.next = c.id, left.size+right.size, right.next
		right.size = 0
		if left.next != none {
			s[left.next].prev = c.at
			m.propose(w, c.at)
		}
		if left.prev != none {
			m.propose(w, left.prev)
		}
	}
}

// propose queues the merge of symbol at with its right neighbour, if there is one.
func (m *bpe) propose(w *work, at int32) {
	left := &w.symbols[at]
	if g, ok := m.merges.get(pair{left.id, w.symbols[left.next].id}); ok {
		w.queue.push(candidate{g.rank, at, g.id})
	}
}

// start fills w.symbols with the characters of word. A character without a token becomes its bytes, else the unknown
// token, else nothing. As in the reference an unknown token is held back over characters that become bytes.
func (m *bpe) start(word string, w *work) {
	unknown := 0 // bytes of the unknown token that is held back
	flush := func() {
		if unknown > 0 {
			w.add(m.unk, unknown)
			unknown = 0
		}
	}
	for i, n := 0, 0; i < len(word); i += n {
		var id int32
		if id, n = m.char(word[i:]); id != none {
			flush()
			w.add(id, n)
			continue
		}
		if m.hasBytes(word[i : i+n]) {
			for _, b := range []byte(word[i : i+n]) {
				w.add(m.bytes[b], 1)
			}
			continue
		}
		if m.unk == none {
			continue
		}
		if !m.fuseUnk {
			flush()
		}
		unknown += n
	}
	flush()
}

// char returns the token of the first character of s, none if it has none, and the character's length.
func (m *bpe) char(s string) (id int32, n int) {
	r, n := utf8.DecodeRuneInString(s)
	if r < rune(len(m.low)) {
		return m.low[r], n
	}
	return m.lookup(s[:n]), n
}

func (m *bpe) hasBytes(s string) bool {
	for i := 0; i < len(s); i++ {
		if m.bytes[s[i]] == none {
			return false
		}
	}
	return true
}

func (w *work) add(id int32, size int) {
	n := int32(len(w.symbols))
	w.symbols = append(w.symbols, symbol{id: id, prev: n - 1, next: n + 1, size: int32(size)})
}

// candidate is a merge that may be done: its rank, the symbol on its left, and what it makes.
type candidate struct{ rank, at, id int32 }

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

// queue is a binary heap, the next candidate first.
type queue []candidate

func (q *queue) push(c candidate) {
	h := append(*q, c)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(h[up]) {
			break
		}
		h[i], i = h[up], up
	}
	h[i] = c
	*q = h
}

func (q *queue) pop() candidate {
	h := *q
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*q = h
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(last) {
			break
		}
		h[i], i = h[down], down
	}
	if len(h) > 0 {
		h[i] = last
	}
	return top
}

// Tokenize returns the tokens of sequence with their byte offsets in it. It implements sugarme/tokenizer's Model.
func (m *bpe) Tokenize(sequence string) ([]sugar.Token, error) {
	w := m.pool.Get().(*work)
	defer m.pool.Put(w)
	m.merge(sequence, w)
	tokens := make([]sugar.Token, 0, len(w.symbols))
	at := 0
	for _, s := range w.symbols {
		if s.size == 0 {
			continue
		}
		tokens = append(tokens, sugar.Token{Id: int(s.id), Value: m.pieces[s.id], Offsets: []int{at, at + int(s.size)}})
		at += int(s.size)
	}
	return tokens, nil
}

// TokenToId returns the id of a token. It implements sugarme/tokenizer's Model.
func (m *bpe) TokenToId(token string) (int, bool) {
	id, ok := m.ids[token]
	return int(id), ok
}

// IdToToken returns the token with this id. It implements sugarme/tokenizer's Model.
func (m *bpe) IdToToken(id int) (string, bool) {
	if id < 0 || id >= len(m.pieces) {
		return "", false
	}
	return m.piece(int32(id))
}

// GetVocab returns a copy of the vocabulary. It implements sugarme/tokenizer's Model.
func (m *bpe) GetVocab() map[string]int {
	v := make(map[string]int, len(m.ids))
	for s, id := range m.ids {
		v[s] = int(id)
	}
	return v
}

// GetVocabSize returns the number of tokens. It implements sugarme/tokenizer's Model.
func (m *bpe) GetVocabSize() int { return len(m.ids) }

// Save always fails: a tokenizer is copied by its files, see Tokenizer.Files.
func (m *bpe) Save(string, ...string) error {
	return errors.New("tokenizer: a model is not saved; copy the files it was read from")
}
