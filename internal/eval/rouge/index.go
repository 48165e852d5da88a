package rouge

import (
	"math"
	"math/bits"

	"github.com/biolora/biolora/internal/parallel"
)

// Index holds texts and finds the one that is most like another by the F-measure of ROUGE-L, which Self-Instruct
// de-duplicates by (Wang et al. 2023: nothing may be above 0.7 with what was accepted before).
//
// The F-measure of texts of n and m tokens with a longest common subsequence of l is 2l/(n+m), here rounded once.
// rouge_score rounds precision, recall and F in turn, so that an F of exactly 0.7 may come out above 0.7 there; here
// it never does.
//
// Answers are exact and do not depend on the number of workers. An Index is for one goroutine at a time.
type Index struct {
	words  *vocabulary
	groups []group
	place  map[int]int // length of a text to its group
	texts  int

	pool    *parallel.Pool
	scratch [][]uint64 // for each worker

	tokens []uint32
	seen   []uint16 // for each word, how often it has come in the text that is being signed
	query  query
}

// group are the texts of one length, in the order they were added.
type group struct {
	length int
	ids    []int32
	signs  []signature
	tokens []uint32 // [len(ids), length]
}

// signature is a bag of words as a set of bits: one bit for each word and each of its occurrences.
type signature [4]uint64

// query is a text that is being looked for.
type query struct {
	index   *Index
	pattern pattern
	sign    signature
	unknown int // tokens that no text has
	above   float64
	pieces  []piece
}

// piece is a part of a group that one worker looks through.
type piece struct {
	group    *group
	from, to int
	need     int // the least length of a subsequence that is above query.above
	best     found
}

// found is the text nearest so far: F is 2*hits/total.
type found struct {
	id          int32 // -1 for none
	hits, total int
}

// pieceTexts is how many texts a worker looks through at a time; a query with less than two pieces of it wakes none.
const pieceTexts = 1024

// NewIndex returns an empty index that searches with the given number of workers, at least 1.
func NewIndex(stem bool, workers int) *Index {
	workers = max(1, workers)
	return &Index{
		words: newVocabulary(stem), place: map[int]int{},
		pool: parallel.New(workers), scratch: make([][]uint64, workers),
	}
}

// Close ends the workers. The index must not be used any more.
func (x *Index) Close() { x.pool.Close() }

// Len is the number of texts.
func (x *Index) Len() int { return x.texts }

// Add puts a text into the index and returns its number; the first is 0.
func (x *Index) Add(text string) int {
	x.tokens = x.words.add(x.tokens[:0], text)
	at, ok := x.place[len(x.tokens)]
	if !ok {
		at = len(x.groups)
		x.place[len(x.tokens)] = at
		x.groups = append(x.groups, group{length: len(x.tokens)})
	}
	sign, _ := x.sign(x.tokens)
	g := &x.groups[at]
	g.ids = append(g.ids, int32(x.texts))
	g.signs = append(g.signs, sign)
	g.tokens = append(g.tokens, x.tokens...)
	x.texts++
	return x.texts - 1
}

// Match is a text of an index that is like another.
type Match struct {
	Text int     // its number
	F    float64 // ROUGE-L's F-measure
}

// Nearest returns the text with the largest F-measure with this one among those above a limit, the first added among
// equals; false if there is none. A limit below 0 finds the nearest, however far it is.
func (x *Index) Nearest(text string, above float64) (Match, bool) {
	q := &x.query
	x.tokens = x.words.find(x.tokens[:0], text)
	q.index, q.above = x, above
	q.sign, q.unknown = x.sign(x.tokens)
	q.pattern.set(x.tokens, x.words.size())
	defer q.pattern.clear(x.tokens)
	if texts := q.cut(); texts < 2*pieceTexts {
		for i := range q.pieces {
			q.Piece(0, i)
		}
	} else {
		x.pool.Run(len(q.pieces), q)
	}
	best := found{id: -1}
	for _, p := range q.pieces {
		if p.best.beats(best) {
			best = p.best
		}
	}
	if best.id < 0 {
		return Match{}, false
	}
	return Match{Text: int(best.id), F: fraction(best.hits, best.total)}, true
}

// cut lists the texts whose length does not rule them out, and returns how many they are.
func (q *query) cut() (texts int) {
	q.pieces = q.pieces[:0]
	for i := range q.index.groups {
		g := &q.index.groups[i]
		need := q.need(q.pattern.n + g.length)
		if need > min(q.pattern.n, g.length) {
			continue
		}
		for from := 0; from < len(g.ids); from += pieceTexts {
			q.pieces = append(q.pieces, piece{group: g, from: from, to: min(len(g.ids), from+pieceTexts), need: need})
		}
		texts += len(g.ids)
	}
	return texts
}

// need is the least length of a common subsequence whose F is above the limit, for texts of total tokens together.
func (q *query) need(total int) int {
	if q.above < 0 {
		return 0
	}
	if !(q.above < 1) {
		return math.MaxInt
	}
	l := int(q.above * float64(total) / 2)
	for l > 0 && fraction(l-1, total) > q.above {
		l--
	}
	for !(fraction(l, total) > q.above) {
		if l++; l > total {
			return math.MaxInt
		}
	}
	return l
}

func fraction(hits, total int) float64 {
	if hits == 0 {
		return 0
	}
	return float64(2*hits) / float64(total)
}

// beats reports whether f is nearer than g, or as near and added before.
func (f found) beats(g found) bool {
	if f.id < 0 || g.id < 0 {
		return f.id > g.id
	}
	if a, b := f.hits*max(g.total, 1), g.hits*max(f.total, 1); a != b {
		return a > b
	}
	return f.id < g.id
}

// Piece looks through a part of a group. What two texts can have in common is bounded by their signatures: tokens
// that only one of them has make up at least as many as the bits that only one of them has.
func (q *query) Piece(worker, i int) {
	p := &q.pieces[i]
	g, n := p.group, p.group.length
	total := q.pattern.n + n
	p.best = found{id: -1}
	need := p.need
	most := total - q.unknown
	for t := p.from; t < p.to; t++ {
		s := &g.signs[t]
		alone := bits.OnesCount64(s[0]^q.sign[0]) + bits.OnesCount64(s[1]^q.sign[1]) +
			bits.OnesCount64(s[2]^q.sign[2]) + bits.OnesCount64(s[3]^q.sign[3])
		if (most-alone)/2 < need {
			continue
		}
		hits := q.pattern.lcs(g.tokens[t*n:(t+1)*n], &q.index.scratch[worker])
		if hits >= need {
			p.best = found{id: g.ids[t], hits: hits, total: total}
			need = hits + 1 // of one length, the first of equals stays
		}
	}
}

// sign is the signature of tokens, and how many of them have no number and no bit in it.
func (x *Index) sign(tokens []uint32) (s signature, without int) {
	if grow := x.words.size() - len(x.seen); grow > 0 {
		x.seen = append(x.seen, make([]uint16, grow)...)
	}
	for _, t := range tokens {
		if t == unknown {
			without++
			continue
		}
		h := (uint64(t)<<16 | uint64(x.seen[t])) * 0x9E3779B97F4A7C15 >> 56
		s[h/64] |= 1 << (h % 64)
		x.seen[t]++
	}
	for _, t := range tokens {
		if t != unknown {
			x.seen[t] = 0
		}
	}
	return s, without
}
