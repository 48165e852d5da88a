package eval

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/biolora/biolora/internal/eval/metrics"
	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/medtuned"
	"github.com/biolora/biolora/internal/rows"
)

// File is a file that was read.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Rows   int    `json:"rows"` // in it
}

// set is the rows of a task.
type set struct {
	Source
	rows    []row
	files   []File
	splits  map[string]int // of rows; "" where they say none
	partial bool           // rows were left out by a condition or a limit
	of      int            // rows that those were chosen from; 0: they were not chosen
	byLabel bool           // each label has its share of them
	unknown map[string]int // splits that are none, and how many rows are of them
	other   int            // rows that say that they are of another task

	shots     []row // to choose examples from, in the order of choice
	shotFiles []File
}

// row is a row with what it is known by.
type row struct {
	rows.Row
	key     string   // its id; where it has none, file and number
	options []string // of a multiple choice
}

// read reads the rows of all sources.
func (o *Options) read(ctx context.Context) ([]*set, error) {
	var sets []*set
	var errs []error
	for _, s := range o.Sources {
		x, err := o.readSet(ctx, s)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("task %s: %w", s.Task.Name, err))
			continue
		}
		sets = append(sets, x)
	}
	return sets, errors.Join(errs...)
}

func (o *Options) readSet(ctx context.Context, s Source) (*set, error) {
	x := &set{Source: s, unknown: map[string]int{}, partial: o.Where.String() != ""}
	all, files, err := readFiles(ctx, s.Files)
	if err != nil {
		return nil, err
	}
	x.files = files
	for i := range all {
		r := &all[i]
		holds, err := o.Where.Holds(&r.Row)
		if err != nil {
			return nil, fmt.Errorf("row %s: %w", r.key, err)
		}
		if !slices.Contains(medtuned.Splits, r.Split) && r.Split != "" {
			x.unknown[r.Split]++
		}
		if !holds || o.Split != "" && r.Split != o.Split {
			continue
		}
		if s.Task.Parser == "choice" {
			r.options = medtuned.Choices(r.Input)
		}
		x.rows = append(x.rows, *r)
	}
	x.count()
	if err := o.checkSet(x, len(all)); err != nil { // of all rows: a sample may not show that splits are mixed
		return nil, err
	}
	if err := o.choose(x); err != nil {
		return nil, err
	}
	x.count()
	return x, o.readShots(ctx, x, all)
}

// count counts the rows by what they say of themselves.
func (x *set) count() {
	x.splits, x.other = map[string]int{}, 0
	for _, r := range x.rows {
		x.splits[r.Split]++
		if r.Task != "" && r.Task != x.Task.Name {
			x.other++
		}
	}
}

// choose leaves no more rows than the limit, in their order: those that come first in an order that the seed makes, of each
// label its share.
func (o *Options) choose(x *set) error {
	if o.Limit == 0 || len(x.rows) <= o.Limit {
		return nil
	}
	strata := map[string][]int{}
	if x.byLabel = x.Task.Parser == "label"; x.byLabel {
		labels, err := metrics.NewLabels(x.Task.Labels, x.Task.Aliases)
		if err != nil {
			return err
		}
		for i, r := range x.rows {
			label, _ := labels.One(r.Output)
			strata[label] = append(strata[label], i)
		}
	} else {
		for i := range x.rows {
			strata[""] = append(strata[""], i)
		}
	}
	keep := make([]bool, len(x.rows))
	for label, n := range shares(strata, o.Limit, len(x.rows)) {
		members := strata[label]
		slices.SortStableFunc(members, func(a, b int) int { return bytes.Compare(o.rank(x, x.rows[a]), o.rank(x, x.rows[b])) })
		for _, i := range members[:n] {
			keep[i] = true
		}
	}
	var chosen []row
	for i, r := range x.rows {
		if keep[i] {
			chosen = append(chosen, r)
		}
	}
	x.of, x.rows, x.partial = len(x.rows), chosen, true
	return nil
}

// shares divides n among strata of all rows by their sizes; what is left over goes to the largest fractions.
func shares(strata map[string][]int, n, all int) map[string]int {
	counts := map[string]int{}
	names := slices.Sorted(maps.Keys(strata))
	left := n
	for _, name := range names {
		counts[name] = n * len(strata[name]) / all
		left -= counts[name]
	}
	slices.SortStableFunc(names, func(a, b string) int { return n*len(strata[b])%all - n*len(strata[a])%all })
	for _, name := range names[:left] {
		counts[name]++
	}
	return counts
}

// rank is a row's place in the order that the seed makes.
func (o *Options) rank(x *set, r row) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", o.Seed, x.Task.Name, r.key))
	return sum[:]
}

func (o *Options) checkSet(x *set, read int) error {
	var errs []error
	if len(x.rows) == 0 {
		errs = append(errs, fmt.Errorf("none of the %d rows is left", read))
	}
	if len(x.splits) > 1 && !o.MixedSplits {
		errs = append(errs, fmt.Errorf("the rows are of several splits (%s): choose one, or allow them to be mixed", x.splitNames()))
	}
	if len(x.rows) > 0 && x.other > 0 && x.other < len(x.rows) {
		errs = append(errs, fmt.Errorf("%d of the %d rows say that they are of another task: choose by a condition on task", x.other, len(x.rows)))
	}
	seen := map[string]bool{}
	twice := 0
	for _, r := range x.rows {
		if seen[r.key] {
			if twice++; twice <= 3 {
				errs = append(errs, fmt.Errorf("two rows have the id %q", r.key))
			}
		}
		seen[r.key] = true
		if x.Task.Parser == "choice" && len(r.options) < 2 && len(errs) < 20 {
			errs = append(errs, fmt.Errorf("row %s: its input does not end in the lines of options (\"A. ...\")", r.key))
		}
	}
	if twice > 3 {
		errs = append(errs, fmt.Errorf("%d rows have an id that another row has", twice))
	}
	return errors.Join(errs...)
}

// splitNames lists the splits and their rows.
func (x *set) splitNames() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(x.splits)) {
		shown := name
		if name == "" {
			shown = "not said"
		}
		parts = append(parts, fmt.Sprintf("%s: %d", shown, x.splits[name]))
	}
	return strings.Join(parts, ", ")
}

// split is the one split of the rows; "mixed" for several, "" where they say none.
func (x *set) split() string {
	if len(x.splits) > 1 {
		return "mixed"
	}
	for name := range x.splits {
		return name
	}
	return ""
}

// readFiles reads files of rows. A bad row is an error: a score over the others would be one of another set.
func readFiles(ctx context.Context, paths []string) (all []row, files []File, err error) {
	var errs []error
	for _, path := range paths {
		file := File{Path: path}
		if file.SHA256, err = fingerprint.File(path); err != nil {
			errs = append(errs, err)
			continue
		}
		bad := rows.Bad{}
		for r, err := range bad.LeaveOut(rows.Read(ctx, path)) {
			if err != nil {
				errs = append(errs, err)
				break
			}
			key := r.ID
			if key == "" {
				key = fmt.Sprintf("%s/%d", filepath.Base(path), file.Rows)
			}
			r.Split = splitOf(r.Split)
			all = append(all, row{Row: r, key: key})
			file.Rows++
		}
		files = append(files, file)
	}
	return all, files, errors.Join(errs...)
}

// splitOf is a row's split by our name of it: corpora say "validation" or "devel", too.
func splitOf(name string) string {
	if word := strings.IndexFunc(name, func(r rune) bool { return !unicode.IsLetter(r) }) < 0; word {
		if found := medtuned.SplitsNamed(name); len(found) == 1 {
			return found[0]
		}
	}
	return name
}

// shotCount is how many examples come before a question of a task.
func (o *Options) shotCount(x *set) int {
	if o.Shots >= 0 {
		return o.Shots
	}
	return x.Task.Shots
}

// readShots finds the rows to choose examples from, and puts them in the order of choice.
func (o *Options) readShots(ctx context.Context, x *set, own []row) error {
	n := o.shotCount(x)
	if len(o.Predictions) > 0 {
		return nil
	}
	if n == 0 {
		if o.ShotsSplit != "" || len(x.ShotFiles) > 0 {
			return errors.New("there are rows to take examples from, and no examples are asked for")
		}
		return nil
	}
	split := o.ShotsSplit
	if split == "" {
		split = x.Task.ShotsSplit
	}
	from := own
	if len(x.ShotFiles) > 0 {
		var err error
		if from, x.shotFiles, err = readFiles(ctx, x.ShotFiles); err != nil {
			return err
		}
	} else if split == "" {
		return fmt.Errorf("%d examples: from which rows? Name a file of them, or their split", n)
	} else if x.splits[split] > 0 {
		return fmt.Errorf("the examples are to be of the split %s, whose rows are scored", split)
	}
	for _, r := range from {
		if split == "" || r.Split == split {
			x.shots = append(x.shots, r)
		}
	}
	slices.SortStableFunc(x.shots, func(a, b row) int { return bytes.Compare(o.rank(x, a), o.rank(x, b)) })
	for _, r := range x.rows {
		if got := len(x.shotsFor(r, n)); got < n {
			return fmt.Errorf("row %s: there are %d rows to take examples from, and %d are wanted", r.key, got, n)
		}
	}
	return nil
}

// shotsFor are n examples for a row.
func (x *set) shotsFor(r row, n int) (chosen []row) {
	for _, s := range x.shots {
		if len(chosen) == n {
			break
		}
		if !same(r.Row, s.Row) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// same reports whether two rows ask the same.
func same(a, b rows.Row) bool {
	x, y := strings.TrimSpace(a.Input), strings.TrimSpace(b.Input)
	if x == "" && y == "" {
		return strings.TrimSpace(a.Instruction) == strings.TrimSpace(b.Instruction)
	}
	return x == y
}
