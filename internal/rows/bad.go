package rows

import (
	"errors"
	"fmt"
	"iter"
	"slices"
)

// maxReported is how many bad rows are told one by one.
const maxReported = 20

// Bad gathers the bad rows of a sequence.
type Bad struct {
	// Limit is how many bad rows may be left out; with more of them the sequence ends with an error. -1: any number.
	Limit int

	Rows  int     // good ones that passed
	Count int     // bad ones
	First []error // the first of the bad ones: 20 at most
}

// LeaveOut passes on the good rows of a sequence. It reads to the end even where more rows are bad than may be, so that
// the error names as many as it can and counts all.
func (b *Bad) LeaveOut(rows iter.Seq2[Row, error]) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for row, err := range rows {
			var bad *Error
			if errors.As(err, &bad) {
				b.note(err)
				continue
			}
			if err == nil {
				b.Rows++
			} else {
				err = errors.Join(append(slices.Clone(b.First), err)...)
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
		if err := b.Err(); err != nil {
			yield(Row{}, err)
		}
	}
}

func (b *Bad) note(err error) {
	if b.Count++; len(b.First) < maxReported {
		b.First = append(b.First, err)
	}
}

// Err says which rows were bad where they were more than Limit.
func (b *Bad) Err() error {
	if b.Limit < 0 || b.Count <= b.Limit {
		return nil
	}
	last := fmt.Errorf("%d of %d rows are bad, at most %d may be", b.Count, b.Count+b.Rows, b.Limit)
	if more := b.Count - len(b.First); more > 0 {
		last = fmt.Errorf("%d more bad rows; %w", more, last)
	}
	return errors.Join(append(slices.Clone(b.First), last)...)
}
