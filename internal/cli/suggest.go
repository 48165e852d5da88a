package cli

import (
	"fmt"
	"strings"
)

// Suggestion names the known word that is nearest to an unknown one, as the end of a message; or nothing, where none
// is near.
func Suggestion(unknown string, known []string) string {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "_")) }
	word := plain(unknown)
	best, bestDistance := "", len(word)/3+2
	for _, k := range known {
		d := distance(word, plain(k))
		if word != "" && (strings.HasSuffix(plain(k), "_"+word) || strings.HasPrefix(plain(k), word+"_")) {
			d = min(d, 1) // "steps" for "max_steps"
		}
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance is the number of letters to insert, delete, replace or swap with their neighbour to make b of a.
func distance(a, b string) int {
	const long = 64
	if len(a) > long || len(b) > long {
		return long
	}
	var before, last, row [long + 1]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
