// Package mix assembles a training file from corpora: so many rows of each, or a share, chosen by a seed; and looks for
// rows of test sets in it.
//
// A row is chosen by a number that is a function of seed, source and the row's place in the source, and so is its place
// in the result: the same recipe and files give the same rows, byte for byte, and another source beside them changes
// neither which rows are chosen of this one nor their order.
package mix

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/biolora/biolora/internal/rows"
)

// Part is what came of one source.
type Part struct {
	Source  string `json:"source"`
	Read    int    `json:"read"`    // rows of its files
	Matched int    `json:"matched"` // of these, those that the condition holds for
	Bad     int    `json:"bad"`     // rows that were left out because they cannot be used
	Taken   int    `json:"taken"`
	Leaked  int    `json:"leaked,omitempty"` // of these, those that were dropped because a test set has them
}

// Options are what a caller decides.
type Options struct {
	// Files are the files of sources by name, in place of those the recipe names.
	Files map[string][]string
	// MaxBad is how many rows of a source may be bad; -1: any number.
	MaxBad int
}

// Missing says which sources have no files.
type Missing struct{ Sources []Source }

func (m *Missing) Error() string {
	var errs []error
	for _, s := range m.Sources {
		errs = append(errs, fmt.Errorf("source %s has no file: %s", s.Name, cmp.Or(s.About, "any file of instruction rows")))
	}
	return errors.Join(errs...).Error()
}

// chosen is a row with what decides its place.
type chosen struct {
	row rows.Row
	key [2]uint64
}

// Mix reads the sources and returns the rows of the recipe.
func Mix(ctx context.Context, r *Recipe, o Options) ([]rows.Row, []Part, error) {
	if err := r.files(o.Files); err != nil {
		return nil, nil, err
	}
	var all []chosen
	var parts []Part
	var errs []error
	for i, n := range r.Counts() {
		s := &r.Sources[i]
		part, taken, err := r.source(ctx, s, n, o)
		parts = append(parts, part)
		all = append(all, taken...)
		if ctx.Err() != nil {
			return nil, parts, ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("source %s: %w", s.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, parts, err
	}
	if !r.KeepOrder {
		slices.SortStableFunc(all, func(a, b chosen) int { return slices.Compare(a.key[:], b.key[:]) })
	}
	out := make([]rows.Row, len(all))
	for i := range all {
		out[i] = all[i].row
	}
	return out, parts, nil
}

// files checks that every source has files, and that no others are named.
func (r *Recipe) files(named map[string][]string) error {
	var missing Missing
	var unknown []error
	for _, s := range r.Sources {
		if len(s.Files) == 0 && len(named[s.Name]) == 0 {
			missing.Sources = append(missing.Sources, s)
		}
	}
	for name := range named {
		if !slices.ContainsFunc(r.Sources, func(s Source) bool { return s.Name == name }) {
			unknown = append(unknown, fmt.Errorf("the recipe has no source %q", name))
		}
	}
	slices.SortFunc(unknown, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	if len(missing.Sources) > 0 {
		unknown = append(unknown, &missing)
	}
	return errors.Join(unknown...)
}

// source reads one source and takes n of its rows; -1: all.
func (r *Recipe) source(ctx context.Context, s *Source, n int, o Options) (part Part, taken []chosen, err error) {
	part.Source = s.Name
	where, err := ParseWhere(s.Where)
	if err != nil {
		return part, nil, err
	}
	files := s.Files
	if named := o.Files[s.Name]; len(named) > 0 {
		files = named
	}
	bad := rows.Bad{Limit: o.MaxBad}
	var have []chosen
	for _, file := range files {
		for row, err := range bad.LeaveOut(rows.Read(ctx, file)) {
			if err != nil {
				return part, nil, err
			}
			place := part.Read
			part.Read++
			holds, err := where.Holds(&row)
			if err != nil {
				return part, nil, fmt.Errorf("%s: row %d: %w", file, place+1, err)
			}
			if holds {
				s.set(&row)
				have = append(have, chosen{row, r.key(s.Name, place, 0)})
			}
		}
	}
	part.Matched, part.Bad = len(have), bad.Count
	if n < 0 {
		n = len(have)
	}
	if n > len(have) && !(s.Repeat && len(have) > 0) {
		return part, nil, fmt.Errorf("%d rows are wanted, %d of %d match", n, len(have), part.Read)
	}
	taken = take(r, s.Name, have, n)
	part.Taken = len(taken)
	return part, taken, nil
}

// set replaces fields of a row.
func (s *Source) set(row *rows.Row) {
	for key, value := range s.Set {
		switch key {
		case "task":
			row.Task = value
		case "category":
			row.Category = value
		case "source":
			row.Source = value
		case "split":
			row.Split = value
		}
	}
}

// take takes n rows, those with the lowest keys, in their order. Where n is more than there are, all are taken as often
// as fits, and of the rest again those with the lowest keys.
func take(r *Recipe, name string, have []chosen, n int) []chosen {
	if n == len(have) {
		return have
	}
	var out []chosen
	for round := 0; n > 0; round++ {
		again := slices.Clone(have)
		if round > 0 { // a copy goes to a place of its own
			for i := range again {
				again[i].key = r.key(name, i, round)
			}
		}
		if n < len(again) {
			limit := slices.Clone(again)
			slices.SortFunc(limit, func(a, b chosen) int { return slices.Compare(a.key[:], b.key[:]) })
			most := limit[n-1].key
			again = slices.DeleteFunc(again, func(c chosen) bool { return slices.Compare(c.key[:], most[:]) > 0 })
		}
		out = append(out, again...)
		n -= len(again)
	}
	return out
}

// key decides which rows are taken, and where they go.
func (r *Recipe) key(source string, place, round int) [2]uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %d %s", r.Seed, place, round, source))
	return [2]uint64{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}
