package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/train"
)

const (
	dim   = "\x1b[2m"
	reset = "\x1b[0m"
)

// maxPiece is the number of characters of a piece that are shown.
const maxPiece = 3000

// example draws the first row as the model will see it.
func (r *Report) example() {
	total, learnt := tokens(r.plan.Example)
	if total == 0 {
		return
	}
	fmt.Fprintf(r.w, "\nthe first example: %d tokens, %d of them learnt, the others (%s) only read\n", total, learnt, r.style.Masked())
	Example(r.w, r.style, r.plan.Example)
	fmt.Fprint(r.w, "\n")
}

// tokens counts those of an example.
func tokens(x train.Example) (total, learnt int) {
	for _, p := range x.Pieces {
		total += p.Tokens
		if p.Label {
			learnt += p.Tokens
		}
	}
	return total, learnt
}

// Masked says how Example tells what is only read from what is learnt.
func (s Style) Masked() string {
	if s.Color {
		return "dimmed"
	}
	return "marked"
}

// Example draws an example. What is masked is dimmed, or marked where there are no colours. The middle of a long piece
// is left out.
func Example(w io.Writer, s Style, x train.Example) {
	for _, p := range x.Pieces {
		text := visible.Text(shorten(p.Text))
		switch {
		case !s.Color && p.Label:
			fmt.Fprintf(w, "--- learnt, %d tokens\n%s\n", p.Tokens, strings.TrimSuffix(text, "\n"))
		case !s.Color:
			fmt.Fprintf(w, "--- read, %d tokens\n%s\n", p.Tokens, strings.TrimSuffix(text, "\n"))
		case p.Label:
			fmt.Fprint(w, text)
		default:
			fmt.Fprint(w, dim, text, reset)
		}
	}
	if !s.Color {
		fmt.Fprint(w, "---")
	}
	fmt.Fprint(w, "\n")
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
