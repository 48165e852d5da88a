package lora

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// condenseFrom is the length from which PEFT shortens a list of targets
// (constants.MIN_TARGET_MODULES_FOR_OPTIMIZATION).
const condenseFrom = 20

// condense shortens a long list of targets as PEFT does (tuners_utils._find_minimal_target_modules): to the fewest
// ends of names that no other module has. It matters beyond the file: layers_to_transform is not applied to full
// names, but it is to the short ones they become.
func condense(n Names, modules []Module) Names {
	list := slices.Compact(slices.Sorted(slices.Values(n.List)))
	if len(list) < condenseFrom {
		if len(list) > 0 {
			n.List = list
		}
		return n
	}
	others := map[string]bool{}
	for _, m := range modules {
		if !slices.Contains(list, m.Name) && !endsWithAny(m.Name, list) {
			for _, s := range endings(m.Name) {
				others[s] = true
			}
		}
	}
	slices.SortFunc(list, func(a, b string) int { return slices.Compare(endings(a), endings(b)) })
	var short []string
	for _, name := range list {
		for _, s := range endings(name) {
			if slices.Contains(short, s) || others[s] {
				continue
			}
			if !endsWithAny(name, short) {
				short = append(short, s)
				break
			}
		}
	}
	if len(short) == 0 || len(short) >= len(list) {
		short = list
	}
	slices.Sort(short)
	return Names{List: short}
}

// endings returns what follows each dot of name, the shortest first, and name itself.
func endings(name string) []string {
	var out []string
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			out = append(out, name[i+1:])
		}
	}
	return append(out, name)
}

// portable returns the configuration that is saved. PEFT writes patterns sorted by key, so their order must not
// matter: where it would, they are written by the modules' full names.
func (r *rules) portable(targets []Target, modules []Module) (Config, error) {
	c := r.cfg
	c.ExcludeModules.List = slices.Compact(slices.Sorted(slices.Values(c.ExcludeModules.List)))
	c.RankPattern, c.AlphaPattern = c.RankPattern.sorted(), c.AlphaPattern.sorted()
	if err := agrees(c, targets, modules); err == nil {
		return c, nil
	}
	c.RankPattern, c.AlphaPattern = nil, nil
	for _, t := range targets {
		key := regexp.QuoteMeta(t.Name)
		if t.R != c.R {
			c.RankPattern = append(c.RankPattern, Rule{key, float64(t.R)})
		}
		if t.Alpha != c.LoraAlpha {
			c.AlphaPattern = append(c.AlphaPattern, Rule{key, t.Alpha})
		}
	}
	c.RankPattern, c.AlphaPattern = c.RankPattern.sorted(), c.AlphaPattern.sorted()
	if err := agrees(c, targets, modules); err != nil {
		return Config{}, fmt.Errorf("the configuration cannot be saved: %w", err)
	}
	return c, nil
}

func (rs Rules) sorted() Rules {
	return slices.SortedFunc(slices.Values(rs), func(a, b Rule) int { return strings.Compare(a.Key, b.Key) })
}

// agrees checks that c, read anew, adapts just these targets.
func agrees(c Config, want []Target, modules []Module) error {
	r, err := c.resolve(modules)
	if err != nil {
		return err
	}
	got, err := r.targets(modules)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d targets become %d", len(want), len(got))
	}
	for i, t := range got {
		if w := want[i]; t != w {
			return fmt.Errorf("%s with rank %d and alpha %v becomes %s with rank %d and alpha %v", w.Name, w.R, w.Alpha, t.Name, t.R, t.Alpha)
		}
	}
	return nil
}
