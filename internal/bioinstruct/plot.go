package bioinstruct

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/biolora/biolora/internal/visible"
)

// Sizes of a drawing, in pixels.
const (
	panelWidth  = 420
	panelHeight = 220
	margin      = 40
	bins        = 24
)

// column is a bar with what stands below it, or nothing.
type column struct {
	label string
	n     int
}

// WriteSVG draws the figures: how many rows each category has, how long the parts of rows are, and how near instructions
// are to seeds.
func (s *Stats) WriteSVG(w io.Writer) error {
	var categories []column
	for _, c := range s.categories() {
		categories = append(categories, column{cmp.Or(c, "(none)"), s.Categories[c]})
	}
	panels := []string{panel("categories", categories)}
	add := func(title string, d *Distribution, step float64) {
		if len(d.values) > 0 {
			panels = append(panels, panel(title, d.histogram(step)))
		}
	}
	lengths := func(l *Lengths, unit string) {
		add("instruction, "+unit, &l.Instruction, 1)
		add("input, "+unit, &l.Input, 1)
		add("output, "+unit, &l.Output, 1)
		add("all three, "+unit, &l.Total, 1)
	}
	lengths(&s.Words, "words")
	if s.Tokens != nil {
		lengths(s.Tokens, "tokens")
	}
	add("ROUGE-L with the nearest seed", &s.NearestSeed, 0.05)
	var b strings.Builder
	rows := (len(panels) + 1) / 2
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", 2*panelWidth, rows*panelHeight)
	for i, p := range panels {
		fmt.Fprintf(&b, "<g transform=\"translate(%d %d)\">\n%s</g>\n", i%2*panelWidth, i/2*panelHeight, p)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// histogram counts values in bins that are a multiple of step wide, from 0 on. The last bin takes what is above the 99th
// percentile, so that a few long rows do not squeeze all others together.
func (d *Distribution) histogram(step float64) []column {
	width := step * max(1, math.Ceil(d.P99/step/bins))
	n := int(d.P99/width) + 1
	all := make([]column, n)
	for _, v := range d.values {
		all[min(n-1, int(v/width))].n++
	}
	for i := 0; i < n; i += max(1, n/6) {
		all[i].label = fmt.Sprintf("%g", math.Round(float64(i)*width*100)/100)
	}
	if last := &all[n-1]; d.Max >= float64(n)*width {
		last.label = fmt.Sprintf("%g+", math.Round(float64(n-1)*width*100)/100)
		if n > 1 {
			all[n-2].label = "" // no room for both
		}
	}
	return all
}

// panel draws bars, the highest of which is told.
func panel(title string, all []column) string {
	most := 1
	for _, c := range all {
		most = max(most, c.n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"20\" font-size=\"13\">%s</text>\n", margin, escape(title))
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n", margin-4, margin+4, most)
	width := float64(panelWidth-2*margin) / float64(max(1, len(all)))
	const bottom = panelHeight - margin
	for i, c := range all {
		height := float64(bottom-margin) * float64(c.n) / float64(most)
		x := margin + float64(i)*width
		fmt.Fprintf(&b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#4878a8\"><title>%s %d rows</title></rect>\n",
			x, bottom-height, max(1, width-1), height, escape(c.label), c.n)
		if c.label != "" {
			fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x+width/2, bottom+14, escape(c.label))
		}
	}
	fmt.Fprintf(&b, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"black\"/>\n", margin, bottom, panelWidth-margin, bottom)
	return b.String()
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(visible.Text(text))) // a Builder takes everything
	return b.String()
}
