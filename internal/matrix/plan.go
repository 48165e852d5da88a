package matrix

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/tokenizer/chat"
	"github.com/biolora/biolora/train/instruct"
)

// Plan is a grid with its files looked at: what there is to do.
type Plan struct {
	Grid    *Grid
	Subsets []Part
	Cells   []Cell // in the order in which they are done
	Files   []File // of Grid.Data
	Notes   []string

	tasks []task
}

// Part is a subset and how many rows it trains on.
type Part struct {
	Subset
	Matched int `json:"matched"` // rows that meet the conditions
	Rows    int `json:"rows"`    // of these, those that are trained on

	where string // the grid's condition and the subset's
	held  [sha256.Size]byte
}

// File is a file that was read.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Rows   int    `json:"rows,omitempty"`
}

// Cell is one training run and its scores.
type Cell struct {
	Base   string `json:"base"`
	Subset string `json:"subset"`
	Seed   uint64 `json:"seed"`
	Rows   int    `json:"rows"` // that are trained on

	base *Base
	part *Part
}

// Name is the cell's name in messages, and its directory below cells.
func (c *Cell) Name() string {
	return path.Join(c.Base, c.Subset, "seed-"+strconv.FormatUint(c.Seed, 10))
}

// task is a task of the grid with its rows looked at.
type task struct {
	Task
	source eval.Source
	where  mix.Where
	files  []File // of rows
	shots  []File // of rows to take examples from
}

func (t *task) wantsJudge() bool { return slices.Contains(t.source.Task.Metrics, eval.MarkMetric) }

// MakePlan reads the data and looks at all files that the grid names, before any work. All problems are gathered.
func MakePlan(ctx context.Context, g *Grid) (*Plan, error) {
	p := &Plan{Grid: g}
	errs := []error{p.readTasks(), g.checkBases()}
	if g.Judge != nil && !slices.ContainsFunc(p.tasks, func(t task) bool { return t.wantsJudge() }) {
		errs = append(errs, errors.New("judge: no task has judge among its metrics"))
	}
	errs = append(errs, p.readData(ctx))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i := range g.Bases {
		for j := range p.Subsets {
			for _, seed := range g.Seeds {
				p.Cells = append(p.Cells, Cell{g.Bases[i].Name, p.Subsets[j].Name, seed, p.Subsets[j].Rows, &g.Bases[i], &p.Subsets[j]})
			}
		}
	}
	return p, nil
}

func (g *Grid) checkBases() error {
	var errs []error
	for _, b := range g.Bases {
		_, _, err := model.ReadConfig(b.Path)
		if err := errors.Join(err, b.checkTemplate()); err != nil {
			errs = append(errs, fmt.Errorf("base %s: %w", b.Name, err))
		}
	}
	return errors.Join(errs...)
}

// checkTemplate looks at the prompts of a base, since the first chat template would be read when other bases are done.
func (b *Base) checkTemplate() error {
	t, err := instruct.LoadTemplate(b.Template)
	if err != nil {
		return err
	}
	if !t.Chat {
		if b.ChatTemplate != "" || b.SystemPrompt != "" {
			return fmt.Errorf("chat_template and system_prompt are for the template chat, and it has %s", b.Template)
		}
		return nil
	}
	tok, err := tokenizer.Load(b.Path)
	if err != nil {
		return err
	}
	source, err := dataset.ChatSource(tok, b.ChatTemplate)
	if err != nil {
		return err
	}
	if _, err = chat.Parse(source); err != nil {
		return fmt.Errorf("the chat template: %w", err)
	}
	return nil
}

func (p *Plan) readTasks() error {
	var errs []error
	names := map[string]bool{}
	for _, t := range p.Grid.Tasks {
		source, err := eval.LoadSource(t.Task, t.Rows...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		name := source.Task.Name
		if names[name] || !safeName.MatchString(name) {
			errs = append(errs, fmt.Errorf("task %s: every task needs a name of its own, of letters, digits and . _ + -", name))
		}
		names[name] = true
		x := task{Task: t, source: source}
		x.where, _ = mix.ParseWhere(t.Where) // Check has read it
		x.source.ShotFiles = t.ShotsFrom
		if x.files, err = sums(t.Rows); err != nil {
			errs = append(errs, fmt.Errorf("task %s: %w", name, err))
		}
		if x.shots, err = sums(t.ShotsFrom); err != nil {
			errs = append(errs, fmt.Errorf("task %s: shots_from: %w", name, err))
		}
		p.tasks = append(p.tasks, x)
	}
	return errors.Join(errs...)
}

// sums are files with their fingerprints.
func sums(names []string) (files []File, err error) {
	var errs []error
	for _, name := range names {
		sum, err := fingerprint.File(name)
		errs = append(errs, err)
		files = append(files, File{Path: name, SHA256: sum})
	}
	return files, errors.Join(errs...)
}

// readData counts the rows of every subset.
func (p *Plan) readData(ctx context.Context) error {
	g := p.Grid
	list := g.Subsets.List
	if g.Subsets.Standard {
		categories, err := g.categories(ctx)
		if err != nil {
			return err
		}
		if list = Standard(categories); list == nil {
			return errors.New("subsets: standard: no row says that it is of the category QA, IE or GEN")
		}
	}
	for _, s := range list {
		part := Part{Subset: s, where: s.Where}
		if g.Where != "" && s.Where != "" {
			part.where = "(" + g.Where + ") && (" + s.Where + ")"
		} else if g.Where != "" {
			part.where = g.Where
		}
		p.Subsets = append(p.Subsets, part)
	}
	if err := p.count(ctx); err != nil {
		return err
	}
	if g.Subsets.Standard {
		p.distinct()
	}
	var errs []error
	for i := range p.Subsets {
		s := &p.Subsets[i]
		switch {
		case s.Matched == 0:
			errs = append(errs, fmt.Errorf("subset %s: no row of the data meets %q", s.Name, s.where))
		case s.Count > s.Matched:
			errs = append(errs, fmt.Errorf("subset %s: %d rows are wanted, and %d are there", s.Name, s.Count, s.Matched))
		}
		if s.Rows = s.Matched; s.Count > 0 {
			s.Rows = s.Count
		}
	}
	return errors.Join(errs...)
}

// each calls a function for the rows of the data that meet the grid's condition. place is the row's, in all.
func (g *Grid) each(ctx context.Context, file func(File), f func(place int, r *rows.Row) error) error {
	where, err := mix.ParseWhere(g.Where)
	if err != nil {
		return err
	}
	var errs []error
	place := 0
	for _, name := range g.Data {
		read := File{Path: name}
		if read.SHA256, err = fingerprint.File(name); err != nil {
			errs = append(errs, err)
			continue
		}
		bad := rows.Bad{}
		for r, err := range bad.LeaveOut(rows.Read(ctx, name)) {
			if err != nil {
				errs = append(errs, err)
				break
			}
			holds, err := where.Holds(&r)
			if err == nil && holds {
				err = f(place, &r)
			}
			if err != nil {
				return fmt.Errorf("%s: row %d: %w", name, read.Rows+1, err)
			}
			read.Rows++
			place++
		}
		file(read)
	}
	return errors.Join(errs...)
}

// categories are those that the data has.
func (g *Grid) categories(ctx context.Context) (list []string, err error) {
	have := map[string]bool{}
	err = g.each(ctx, func(File) {}, func(_ int, r *rows.Row) error {
		have[r.Category] = true
		return nil
	})
	delete(have, "")
	return slices.Sorted(maps.Keys(have)), err
}

// count finds how many rows each subset has, and which.
func (p *Plan) count(ctx context.Context) error {
	conditions := make([]mix.Where, len(p.Subsets))
	var errs []error
	for i := range p.Subsets {
		var err error
		if conditions[i], err = mix.ParseWhere(p.Subsets[i].where); err != nil {
			errs = append(errs, fmt.Errorf("subset %s: %w", p.Subsets[i].Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	splits := map[string]int{}
	err := p.Grid.each(ctx, func(f File) { p.Files = append(p.Files, f) }, func(place int, r *rows.Row) error {
		any := false
		for i := range p.Subsets {
			s := &p.Subsets[i]
			holds, err := conditions[i].Holds(r)
			if err != nil {
				return fmt.Errorf("subset %s: %w", s.Name, err)
			}
			if holds {
				any = true
				s.Matched++
				s.held = sha256.Sum256(fmt.Appendf(s.held[:], " %d", place))
			}
		}
		if any && r.Split != "" && r.Split != "train" {
			splits[r.Split]++
		}
		return nil
	})
	for _, split := range slices.Sorted(maps.Keys(splits)) {
		p.Notes = append(p.Notes, fmt.Sprintf("%d of the rows to train on say that they are of the split %s", splits[split], split))
	}
	return err
}

// distinct leaves one of several subsets with the same rows: of three categories, to leave one out is to take a pair.
func (p *Plan) distinct() {
	seen := map[[sha256.Size]byte]bool{}
	p.Subsets = slices.DeleteFunc(p.Subsets, func(s Part) bool {
		twice := seen[s.held]
		seen[s.held] = true
		return twice
	})
}

// Standard are the paper's subsets: all rows, each of QA, IE and GEN, each pair of these, and all but one category, as
// far as the data has them.
func Standard(categories []string) (list []Subset) {
	var have []string
	for _, c := range []string{"QA", "IE", "GEN"} {
		if slices.Contains(categories, c) {
			have = append(have, c)
		}
	}
	if len(have) == 0 {
		return nil
	}
	list = append(list, Subset{Name: "all"})
	for _, c := range have {
		list = append(list, Subset{Name: c, Where: fmt.Sprintf("category == %q", c)})
	}
	for i, a := range have {
		for _, b := range have[i+1:] {
			list = append(list, Subset{Name: a + "+" + b, Where: fmt.Sprintf("category in [%q, %q]", a, b)})
		}
	}
	others := slices.DeleteFunc(slices.Clone(categories), func(c string) bool { return slices.Contains(have, c) || !safeName.MatchString(c) })
	for _, c := range append(have, others...) {
		list = append(list, Subset{Name: "without-" + c, Where: fmt.Sprintf("category != %q", c)})
	}
	return slices.DeleteFunc(list, func(s Subset) bool { // of one category, to leave it out leaves nothing
		return len(categories) == 1 && s.Where == fmt.Sprintf("category != %q", categories[0])
	})
}
