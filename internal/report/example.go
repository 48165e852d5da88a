package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/visible"
)

const (
	dim   = "\x1b[2m"
	reset = "\x1b[0m"
)

// maxPiece is the number of characters of a piece that are shown.
const maxPiece = 3000

// example draws the first row as the model will see it. What is masked is dimmed, or marked where there are no
// colours.
func (r *Report) example() {
	var total, learnt int
	for _, p := range r.plan.Example.Pieces {
		total += p.Tokens
		if p.Label {
			learnt += p.Tokens
		}
	}
	if total == 0 {
		return
	}
	how := "marked"
	if r.style.Color {
		how = "dimmed"
	}
	fmt.Fprintf(r.w, "\nthe first example: %d tokens, %d of them learnt, the others (%s) only read\n", total, learnt, how)
	for _, p := range r.plan.Example.Pieces {
		text := visible.Text(shorten(p.Text))
		switch {
		case !r.style.Color && p.Label:
			fmt.Fprintf(r.w, "--- learnt, %d tokens\n%s\n", p.Tokens, strings.TrimSuffix(text, "\n"))
		case !r.style.Color:
			fmt.Fprintf(r.w, "--- read, %d tokens\n%s\n", p.Tokens, strings.TrimSuffix(text, "\n"))
		case p.Label:
			fmt.Fprint(r.w, text)
		default:
			fmt.Fprint(r.w, dim, text, reset)
		}
	}
	if !r.style.Color {
		fmt.Fprint(r.w, "---")
	}
	fmt.Fprint(r.w, "\n\n")
}

// shorten leaves out the middle of a long text.
func shorten(s string) string {
	n := utf8.RuneCountInString(s)
	if n <= maxPiece {
		return s
	}
	runes := []rune(s)
	return fmt.Sprintf("%s\n[... %d characters ...]\n%s", string(runes[:maxPiece/2]), n-maxPiece, string(runes[n-maxPiece/2:]))
}
