package mix

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictyaml"
)

// Recipe says what a data set is assembled from.
type Recipe struct {
	// About says what the recipe is, for people.
	About string `yaml:"about"`
	// Seed chooses rows and their order.
	Seed uint64 `yaml:"seed"`
	// Total is the number of rows of which shares are taken; 0: no source has a share.
	Total int `yaml:"total"`
	// KeepOrder leaves the rows as the sources have them, one source after another, instead of shuffling all.
	KeepOrder bool     `yaml:"keep_order"`
	Sources   []Source `yaml:"sources"`
}

// Source is a part of a recipe.
type Source struct {
	Name string `yaml:"name"`
	// About says what file to bring.
	About string `yaml:"about"`
	// Files are read one after another. A caller may name others.
	Files []string `yaml:"files"`
	// Where chooses rows of the files: an expression, see Where.
	Where string `yaml:"where"`
	// Count rows are taken, or a Share of the recipe's total; neither: all.
	Count int     `yaml:"count"`
	Share float64 `yaml:"share"`
	// Repeat takes rows again where there are fewer than wanted, each as often as the others, give or take one.
	Repeat bool `yaml:"repeat"`
	// Set replaces fields of the rows, such as source or category.
	Set map[string]string `yaml:"set"`
}

//go:embed recipes
var shipped embed.FS

// Shipped returns the names of the recipes that come with the program.
func Shipped() (names []string) {
	entries, _ := fs.ReadDir(shipped, "recipes") // embedded: it cannot fail
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// maxRecipe is the longest recipe, in bytes; maxRows the most rows that it may ask for.
const (
	maxRecipe = 1 << 20
	maxRows   = 100_000_000
)

// Open reads a recipe: one that is shipped, by its name, or a file.
func Open(name string) (*Recipe, error) {
	text, err := fs.ReadFile(shipped, path.Join("recipes", name+".yaml"))
	if err != nil {
		if text, err = regular.ReadFile(name, maxRecipe); err != nil {
			return nil, fmt.Errorf("%w (recipes that are shipped: %s)", err, strings.Join(Shipped(), ", "))
		}
	}
	return Parse(name, text)
}

// Parse reads a recipe's text; name stands for it in messages.
func Parse(name string, text []byte) (*Recipe, error) {
	r := &Recipe{}
	if err := strictyaml.Unmarshal(name, text, r); err != nil {
		return nil, err
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// Check gathers what is wrong with a recipe.
func (r *Recipe) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if len(r.Sources) == 0 {
		bad("the recipe has no sources")
	}
	if r.Total < 0 || r.Total > maxRows {
		bad("total: %d rows, want 0 to %d", r.Total, maxRows)
	}
	seen := map[string]bool{}
	wanted, shares := 0, 0.0
	for i := range r.Sources {
		s := &r.Sources[i]
		name := cmp.Or(s.Name, fmt.Sprintf("source %d", i+1))
		if s.Name == "" || seen[s.Name] {
			bad("%s: every source needs a name of its own", name)
		}
		seen[s.Name] = true
		if _, err := ParseWhere(s.Where); err != nil {
			bad("%s: where: %w", name, err)
		}
		if s.Count > maxRows {
			bad("%s: a count of %d, at most %d", name, s.Count, maxRows)
		}
		if s.Count < 0 || !(s.Share >= 0 && s.Share <= 1) {
			bad("%s: a count of %d, a share of %v", name, s.Count, s.Share)
		}
		if s.Count > 0 && s.Share > 0 {
			bad("%s: a count and a share", name)
		}
		if s.Share > 0 && r.Total == 0 {
			bad("%s: a share, but the recipe has no total", name)
		}
		if s.Repeat && s.Count == 0 && s.Share == 0 {
			bad("%s: repeat needs a count or a share", name)
		}
		for key := range s.Set {
			if !slices.Contains(settable, key) {
				bad("%s: set: %q is none of %s", name, key, strings.Join(settable, ", "))
			}
		}
		wanted += max(0, s.Count)
		shares += s.Share
	}
	// Shares are decimal fractions: a third three times is a little less than one, or more.
	if have := float64(r.Total)*shares + float64(wanted); r.Total > 0 && have > float64(r.Total)+0.5 {
		bad("counts and shares come to %.0f rows, the total is %d", have, r.Total)
	}
	return errors.Join(errs...)
}

// settable are the fields that Source.Set replaces.
var settable = []string{"task", "category", "source", "split"}

// Counts returns how many rows each source gives; -1: all it has. Shares are rounded so that together they are what
// they come to: the largest remainders are rounded up.
func (r *Recipe) Counts() []int {
	counts := make([]int, len(r.Sources))
	var order []int
	remainders := make([]float64, len(r.Sources))
	shares, floors := 0.0, 0
	for i, s := range r.Sources {
		switch {
		case s.Count > 0:
			counts[i] = s.Count
		case s.Share > 0:
			exact := s.Share * float64(r.Total)
			counts[i] = int(exact)
			remainders[i] = exact - float64(counts[i])
			shares += exact
			floors += counts[i]
			order = append(order, i)
		default:
			counts[i] = -1
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, i := range order[:min(len(order), int(shares+0.5)-floors)] {
		counts[i]++
	}
	return counts
}
