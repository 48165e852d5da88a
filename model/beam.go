package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// search is the beams of one prompt. It goes as Transformers 5 goes for a prompt of its own (GenerationMixin._beam_search
// with early_stopping False): of each step's best continuations, 1 + stop tokens times as many as there are beams, the
// best that do not end run on, and those that end and are among the first are kept, as many as there are beams, by score.
type search struct {
	g        *generator
	own      *sequence // of the prompt
	slot     int       // of the first beam
	running  []*beam   // best first; nil before the first step
	finished []ended   // best first
	steps    int       // tokens of a running beam
	next     []pursuit // of this step
}

// beam is an answer that may go on: the tokens after the prompt.
type beam struct {
	sequence
	score float64 // log-likelihood
}

// ended is an answer that has come to its end.
type ended struct {
	out   []int32
	score float64 // log-likelihood by length
}

// pursuit is a token after a running beam.
type pursuit struct {
	beam  int
	id    int32
	score float64 // log-likelihood of all
}

// better orders by score; among equals the first beam's lowest id wins.
func (p pursuit) better(q pursuit) int {
	return cmp.Or(cmp.Compare(q.score, p.score), cmp.Compare(p.beam, q.beam), cmp.Compare(p.id, q.id))
}

func (s *search) prompt() *sequence { return s.own }

func (s *search) feeds(list []*sequence) []*sequence {
	if s.running == nil {
		return append(list, s.own)
	}
	for _, b := range s.running {
		list = append(list, &b.sequence)
	}
	return list
}

// width is how many continuations a step looks at.
func (g *generator) width() int { return g.o.Beams * max(2, 1+len(g.o.Stop)) }

// take adds the most likely tokens after q, a running beam or the prompt.
func (s *search) take(q *sequence, logits []float32) error {
	g := s.g
	at, score := 0, 0.0
	if q != s.own {
		at = slices.IndexFunc(s.running, func(b *beam) bool { return &b.sequence == q })
		score = s.running[at].score
	}
	lse, err := logSumExp(logits)
	if err != nil {
		return fmt.Errorf("generate: prompt %d after %d tokens: %w", q.index, s.steps, err)
	}
	best := make([]pursuit, 0, g.width()+1)
	for id, v := range logits {
		p := pursuit{at, int32(id), score + float64(v) - lse}
		if len(best) == g.width() && p.better(best[len(best)-1]) >= 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(best, p, pursuit.better)
		best = slices.Insert(best, i, p)[:min(len(best)+1, g.width())]
	}
	s.next = append(s.next, best...)
	return nil
}

// logSumExp is the logarithm of the sum of exponentials.
func logSumExp(logits []float32) (float64, error) {
	most := slices.Max(logits) // NaN where there is one
	if math.IsNaN(float64(most)) || math.IsInf(float64(most), 0) {
		return 0, fmt.Errorf("the largest logit is %v", most)
	}
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v) - float64(most))
	}
	return float64(most) + math.Log(sum), nil
}

// advance takes one step of the search.
func (s *search) advance() bool {
	g, n := s.g, s.g.o.Beams
	slices.SortFunc(s.next, pursuit.better)
	s.next = s.next[:min(len(s.next), g.width())]
	s.steps++
	var on []pursuit
	for i, p := range s.next {
		out, ends := g.ends(s, p)
		switch {
		case !ends && len(on) < n:
			on = append(on, p)
		case ends && i < n:
			s.keep(ended{out, p.score / math.Pow(float64(s.steps), g.o.LengthPenalty)}, n)
		}
	}
	g.branch(s, on)
	s.next = s.next[:0]
	if len(on) > 0 && (len(s.finished) < n || s.running[0].score/math.Pow(float64(s.steps), g.o.LengthPenalty) > s.finished[n-1].score) {
		return false
	}
	g.out[s.own.index] = s.finished[0].out
	return true
}

// ends returns the answer that p makes, without a stop token, and whether it is at its end.
func (g *generator) ends(s *search, p pursuit) (out []int32, ends bool) {
	if s.running != nil {
		out = s.running[p.beam].out
	}
	if slices.Contains(g.o.Stop, p.id) {
		return out, true
	}
	out = append(slices.Clip(out), p.id)
	return out, len(out) == g.o.MaxNewTokens || g.o.Done != nil && g.o.Done(s.own.index, out)
}

// keep puts e among the n best that have ended; an earlier one goes before an equal.
func (s *search) keep(e ended, n int) {
	i := len(s.finished)
	for i > 0 && s.finished[i-1].score < e.score {
		i--
	}
	s.finished = slices.Insert(s.finished, i, e)
	s.finished = s.finished[:min(len(s.finished), n)]
}

// branch makes the continuations the running beams. The first that continues a beam goes on in its slot, others get a
// copy of what is in it.
func (g *generator) branch(s *search, on []pursuit) {
	running := make([]*beam, len(on))
	used := make([]bool, g.o.Beams)
	for i, p := range on {
		b := &beam{sequence: sequence{index: s.own.index, after: s.own, slot: -1}, score: p.score}
		if s.running != nil {
			parent := s.running[p.beam]
			b.length, b.out = parent.length, parent.out
			if at := parent.slot - s.slot; !used[at] {
				b.slot, used[at] = parent.slot, true
			}
		}
		b.out = append(slices.Clip(b.out), p.id)
		b.next(p.id)
		running[i] = b
	}
	for i, b := range running {
		if b.slot >= 0 {
			continue
		}
		free := slices.Index(used, false)
		b.slot, used[free] = s.slot+free, true
		if b.length > 0 {
			for _, l := range g.m.layers {
				l.Cache.Copy(b.slot, s.running[on[i].beam].slot, b.length)
			}
		}
	}
	s.running = running
}
