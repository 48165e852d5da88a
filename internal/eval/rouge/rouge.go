// Package rouge measures how much two texts have in common: ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum as Google's
// rouge_score 0.1.2 has them, and an index that finds the text nearest by ROUGE-L among many.
//
// Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004). Tokens are runs of a-z and 0-9 of the
// lower-cased text; everything else separates. With stemming, tokens of more than 3 characters are cut by Porter's
// algorithm in NLTK's variant, which is the one rouge_score uses.
package rouge

import (
	"slices"
	"strings"
	"sync"
)

// Score is how much of a prediction is in the reference (Precision), how much of the reference is in the prediction
// (Recall), and their harmonic mean; each from 0 to 1, and 0 where either text has no tokens.
type Score struct {
	Precision, Recall, F float64
}

// Scores are the measures of one pair of texts.
type Scores struct {
	Rouge1, Rouge2 Score
	// RougeL is of the longest common subsequence of the texts taken whole.
	RougeL Score
	// RougeLsum takes lines as sentences: for each of the reference the union of its longest common subsequences with
	// those of the prediction, no token counted twice. It takes 4 bytes for each pair of tokens of the longest lines.
	RougeLsum Score
}

// Scorer compares pairs of texts. It may be used by several goroutines at once.
type Scorer struct {
	stem bool
	free sync.Pool // of *workspace
}

// New returns a Scorer, with Porter's stemmer or without.
func New(stem bool) *Scorer {
	return &Scorer{stem: stem}
}

// workspace is the memory of one comparison, kept for the next.
type workspace struct {
	words              *vocabulary
	reference, predict []uint32
	pattern            pattern
	refGrams, gotGrams []uint64
	refLines, gotLines [][]uint32
	union              []bool
	table              []int32
	refCount, gotCount []int32
}

// maxWords bounds the words that a workspace remembers from one comparison to the next.
const maxWords = 1 << 16

// Score compares a prediction with its reference.
func (s *Scorer) Score(reference, prediction string) Scores {
	w, ok := s.free.Get().(*workspace)
	if !ok || w.words.size() > maxWords {
		w = &workspace{words: newVocabulary(s.stem)}
	}
	defer s.free.Put(w)
	w.reference = w.words.add(w.reference[:0], reference)
	w.predict = w.words.add(w.predict[:0], prediction)
	return Scores{
		Rouge1:    w.grams(1),
		Rouge2:    w.grams(2),
		RougeL:    w.longest(),
		RougeLsum: w.summary(reference, prediction),
	}
}

// score is what hits shared tokens are of two texts of these lengths, in rouge_score's order of operations.
func score(hits, reference, prediction int) Score {
	if reference == 0 || prediction == 0 || hits == 0 {
		return Score{}
	}
	p, r := float64(hits)/float64(prediction), float64(hits)/float64(reference)
	return Score{Precision: p, Recall: r, F: 2 * p * r / (p + r)}
}

// grams is ROUGE-N for n of 1 or 2: n-grams in common, each as often as it is in both.
func (w *workspace) grams(n int) Score {
	w.refGrams = appendGrams(w.refGrams[:0], w.reference, n)
	w.gotGrams = appendGrams(w.gotGrams[:0], w.predict, n)
	hits, i, j := 0, 0, 0
	for i < len(w.refGrams) && j < len(w.gotGrams) {
		switch a, b := w.refGrams[i], w.gotGrams[j]; {
		case a < b:
			i++
		case a > b:
			j++
		default:
			hits, i, j = hits+1, i+1, j+1
		}
	}
	return score(hits, len(w.refGrams), len(w.gotGrams))
}

// appendGrams appends the n-grams of tokens, n of 1 or 2, in sorted order.
func appendGrams(dst []uint64, tokens []uint32, n int) []uint64 {
	for i := n - 1; i < len(tokens); i++ {
		g := uint64(tokens[i])
		if n == 2 {
			g |= uint64(tokens[i-1]) << 32
		}
		dst = append(dst, g)
	}
	slices.Sort(dst)
	return dst
}

// longest is ROUGE-L.
func (w *workspace) longest() Score {
	w.pattern.set(w.reference, w.words.size())
	hits := w.pattern.lcs(w.predict, &w.pattern.column)
	w.pattern.clear(w.reference)
	return score(hits, len(w.reference), len(w.predict))
}

// summary is ROUGE-Lsum.
func (w *workspace) summary(reference, prediction string) Score {
	w.refLines = w.lines(w.refLines[:0], reference)
	w.gotLines = w.lines(w.gotLines[:0], prediction)
	w.refCount = count(w.refCount, w.refLines, w.words.size())
	w.gotCount = count(w.gotCount, w.gotLines, w.words.size())
	hits, reft, gott := 0, 0, 0
	for _, got := range w.gotLines {
		gott += len(got)
	}
	for _, ref := range w.refLines {
		reft += len(ref)
		w.union = append(w.union[:0], make([]bool, len(ref))...)
		for _, got := range w.gotLines {
			w.mark(ref, got)
		}
		for i, t := range ref {
			if w.union[i] && w.refCount[t] > 0 && w.gotCount[t] > 0 {
				w.refCount[t]--
				w.gotCount[t]--
				hits++
			}
		}
	}
	return score(hits, reft, gott)
}

// lines appends the tokens of each line that is not empty.
func (w *workspace) lines(dst [][]uint32, text string) [][]uint32 {
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			continue
		}
		var tokens []uint32
		if n := len(dst); n < cap(dst) {
			tokens = dst[:n+1][n][:0]
		}
		dst = append(dst, w.words.add(tokens, line))
	}
	return dst
}

// count tells how often each of size words is in lines.
func count(dst []int32, lines [][]uint32, size int) []int32 {
	dst = append(dst[:0], make([]int32, size)...)
	for _, line := range lines {
		for _, t := range line {
			dst[t]++
		}
	}
	return dst
}

// mark sets in w.union the tokens of ref, [m], that are in its longest common subsequence with got, [n]. Where there
// are several of that length it is the one that rouge_score reads out of the table [m+1, n+1] of lengths.
func (w *workspace) mark(ref, got []uint32) {
	m, n := len(ref), len(got)
	cols := n + 1
	w.table = append(w.table[:0], make([]int32, (m+1)*cols)...)
	t := w.table
	for i := 1; i <= m; i++ {
		above, row := t[(i-1)*cols:i*cols], t[i*cols:(i+1)*cols]
		for j := 1; j <= n; j++ {
			if ref[i-1] == got[j-1] {
				row[j] = above[j-1] + 1
			} else {
				row[j] = max(above[j], row[j-1])
			}
		}
	}
	for i, j := m, n; i > 0 && j > 0; {
		switch {
		case ref[i-1] == got[j-1]:
			i, j = i-1, j-1
			w.union[i] = true
		case t[i*cols+j-1] > t[(i-1)*cols+j]:
			j--
		default:
			i--
		}
	}
}
