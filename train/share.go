package train

import (
	"slices"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train/instruct"
)

// How rows of a micro-batch share what they begin with; see Options.SharePrefixes.
const (
	shareAuto   = "auto"
	shareAlways = "always"
	shareNever  = "never"
)

var sharings = []string{shareAuto, shareAlways, shareNever}

// leastShared is the shortest head that is computed once for several rows. A shorter one saves less than another
// segment costs the attention.
const leastShared = 8

// sharer lays the rows of a micro-batch out as a tree: tokens with which several rows begin are one segment, which the
// segments of these rows continue. What a row sees is the same as if it stood alone, so losses and gradients are
// those of the rows one by one, up to the order of their sums.
type sharer struct {
	list  []instruct.Example
	rows  []int // indices into list, in the order of the micro-batch
	batch *model.Batch
	order []int   // a permutation of rows' indices; a node's rows are a part of it
	place []int32 // of each token of each row: its row in the batch
	first []int   // of each of rows: where its tokens begin in place
	shown []int32 // of each row in the batch: the last target there, plus one; 0: none
	prior []int32 // of each target: the one before it in the same row, plus one
	owner []int32 // of each row in the batch: the first of rows that it is part of
}

// fill lays rows out in b, which is empty, and gives them their targets in the rows' order.
func (s *sharer) fill(b *model.Batch, list []instruct.Example, rows []int) {
	s.batch, s.list, s.rows = b, list, rows
	s.order, s.first = s.order[:0], s.first[:0]
	total := 0
	for i, r := range rows {
		s.order = append(s.order, i)
		s.first = append(s.first, total)
		total += len(list[r].IDs)
	}
	s.place = slices.Grow(s.place[:0], total)[:total]
	s.owner = s.owner[:0]
	s.node(0, len(s.order), 0, -1)
	s.targets()
}

func (s *sharer) ids(i int) []int32 { return s.list[s.rows[i]].IDs }

// node lays out the rows order[from:to] from the token at on; all before it is in the segment prefix and those that
// it continues.
func (s *sharer) node(from, to, at int, prefix int32) {
	end := s.common(from, to, at)
	if to-from == 1 || end-at >= leastShared {
		prefix = s.segment(from, to, at, end, prefix)
		at = end
	}
	for from < to {
		next := s.group(from, to, end)
		switch {
		case len(s.ids(s.order[from])) > end:
			s.node(from, next, at, prefix)
		case at < end: // rows that end here without a head of their own
			for ; from < next; from++ {
				s.segment(from, from+1, at, end, prefix)
			}
		}
		from = next
	}
}

// common returns where the common beginning of order[from:to] ends, at being inside it.
func (s *sharer) common(from, to, at int) int {
	ids := s.ids(s.order[from])
	end := len(ids)
	for _, i := range s.order[from+1 : to] {
		other := s.ids(i)
		end = min(end, len(other))
		for t := at; t < end; t++ {
			if ids[t] != other[t] {
				end = t
			}
		}
	}
	return end
}

// group moves the rows of order[from:to] that have the same token at as the first, or like it have none, next to it,
// and returns where they end. The order of the others stays.
func (s *sharer) group(from, to, at int) int {
	token := func(i int) int32 {
		if ids := s.ids(i); at < len(ids) {
			return ids[at]
		}
		return -1
	}
	want, next := token(s.order[from]), from+1
	for j := next; j < to; j++ {
		i := s.order[j]
		if token(i) != want {
			continue
		}
		copy(s.order[next+1:j+1], s.order[next:j])
		s.order[next] = i
		next++
	}
	return next
}

// segment appends the tokens [at, end) that the rows order[from:to] have in common, and returns the segment's index.
func (s *sharer) segment(from, to, at, end int, prefix int32) int32 {
	if at == end {
		return prefix
	}
	b, start := s.batch, int32(len(s.batch.Tokens))
	head := s.order[from]
	for t := at; t < end; t++ {
		b.Positions = append(b.Positions, int32(t))
		s.owner = append(s.owner, int32(head))
	}
	b.Tokens = append(b.Tokens, s.ids(head)[at:end]...)
	b.Segments = append(b.Segments, model.Segment{Start: start, Len: int32(end - at), Prefix: prefix})
	for _, i := range s.order[from:to] {
		place := s.place[s.first[i]:]
		for t := at; t < end; t++ {
			place[t] = start + int32(t-at)
		}
	}
	return int32(len(b.Segments) - 1)
}

// targets gives the row of token t the label of token t+1, for all rows in their order. Where rows agree it is one
// target that counts for all of them.
func (s *sharer) targets() {
	b := s.batch
	s.shown = slices.Grow(s.shown[:0], len(b.Tokens))[:len(b.Tokens)]
	clear(s.shown)
	s.prior = s.prior[:0]
	for i, r := range s.rows {
		e, place := &s.list[r], s.place[s.first[i]:]
		for t := 1; t < len(e.IDs); t++ {
			if label := e.Label(t); label != instruct.Masked {
				s.target(place[t-1], label)
			}
		}
	}
}

func (s *sharer) target(row, label int32) {
	b := s.batch
	for t := s.shown[row]; t > 0; t = s.prior[t-1] {
		if b.Targets[t-1].Label == label {
			b.Targets[t-1].Count++
			return
		}
	}
	s.prior = append(s.prior, s.shown[row])
	b.Targets = append(b.Targets, model.Target{Row: row, Label: label, Count: 1})
	s.shown[row] = int32(len(b.Targets))
}
