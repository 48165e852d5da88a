package bioinstruct

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/visible"
)

// Sizes of a drawing, in pixels.
const (
	panelWidth  = 460
	panelHeight = 250
	left        = 56  // of a panel's bars
	plotWidth   = 380 // of all of them together
	top         = 58
	plotHeight  = 150
	nameWidth   = 108 // of categories' names, before their bars
	shareWidth  = 120 // of their numbers, behind them
	bins        = 40  // at most
)

// style has the colours of light and of dark pages.
const style = `<style>
svg { background: #fff; font: 12px system-ui, sans-serif }
text { fill: #333 } .title { font-size: 14px; font-weight: 600; fill: #111 } .note { fill: #666 }
rect { fill: #3d72a4 } line { stroke: #999 } .grid { stroke: #e4e4e4 } .paper { stroke: #c2410c; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
svg { background: #16181c }
text { fill: #ccc } .title { fill: #f2f2f2 } .note { fill: #999 }
rect { fill: #6ea8dc } line { stroke: #777 } .grid { stroke: #2c3037 } .paper { stroke: #fb923c }
}
</style>
`

// WriteSVG draws the figures: how many rows each category has, how long the parts of rows are, and how near instructions
// are to seeds.
func (s *Stats) WriteSVG(w io.Writer) error {
	panels := []string{s.categoryPanel()}
	add := func(what, unit string, d *Distribution, step float64) {
		if len(d.values) > 0 {
			panels = append(panels, d.panel(what, unit, step))
		}
	}
	lengths := func(l *Lengths, unit string) {
		add("Instruction", unit, &l.Instruction, 1)
		add("Input", unit, &l.Input, 1)
		add("Output", unit, &l.Output, 1)
		add("All three together", unit, &l.Total, 1)
	}
	lengths(&s.Words, "words")
	if s.Tokens != nil {
		lengths(s.Tokens, "tokens")
	}
	add("Instruction and nearest seed", "ROUGE-L", &s.NearestSeed, 0.01)
	var b strings.Builder
	rows := (len(panels) + 1) / 2
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %[1]d %[2]d\" width=\"%[1]d\" height=\"%[2]d\" role=\"img\" aria-label=\"%[3]s rows: categories and lengths\">\n",
		2*panelWidth, rows*panelHeight, visible.Count(int64(s.Rows)))
	b.WriteString(style)
	for i, p := range panels {
		fmt.Fprintf(&b, "<g transform=\"translate(%d %d)\">\n%s</g>\n", i%2*panelWidth, i/2*panelHeight, p)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func text(b *strings.Builder, class, anchor string, x, y float64, s string) {
	fmt.Fprintf(b, "<text class=\"%s\" text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, anchor, x, y, escape(s))
}

func line(b *strings.Builder, class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(b, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1, y1, x2, y2)
}

// bar says its rows where a pointer rests on it.
func bar(b *strings.Builder, x, y, width, height float64, what string, n int) {
	fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s: %d rows</title></rect>\n", x, y, width, height, escape(what), n)
}

// maxCategories are drawn one by one; a file may have any number.
const maxCategories = 7

// categoryPanel has a bar for each category, with the share that the paper's data has of it.
func (s *Stats) categoryPanel() string {
	type share struct {
		name  string
		n     int
		paper float64
	}
	var all []share
	for _, c := range s.categories() {
		all = append(all, share{cmp.Or(c, "(none)"), s.Categories[c], published.categories[c]})
	}
	if more := len(all) - maxCategories; more > 1 {
		rest := share{name: fmt.Sprintf("%d more", more)}
		for _, c := range all[maxCategories:] {
			rest.n += c.n
		}
		all = append(all[:maxCategories], rest)
	}
	most := 1.0
	for _, c := range all {
		most = max(most, percent(c.n, s.Rows), c.paper)
	}
	var b strings.Builder
	text(&b, "title", "start", left, 22, "Categories")
	text(&b, "note", "start", left, 40, "rows; the line is BioInstruct's share [F]")
	const width = plotWidth - nameWidth - shareWidth
	step := min(26, float64(plotHeight)/float64(max(1, len(all))))
	for i, c := range all {
		y := top + step*float64(i)
		text(&b, "", "end", left+nameWidth-8, y+step/2+4, clip(c.name, 15))
		bar(&b, left+nameWidth, y+2, width*percent(c.n, s.Rows)/most, step-4, c.name, c.n)
		if c.paper > 0 {
			x := left + nameWidth + width*c.paper/most
			line(&b, "paper", x, y, x, y+step)
		}
		text(&b, "", "end", left+plotWidth-52, y+step/2+4, visible.Count(int64(c.n)))
		text(&b, "", "end", left+plotWidth, y+step/2+4, fmt.Sprintf("%.1f %%", percent(c.n, s.Rows)))
	}
	line(&b, "", left+nameWidth, top-2, left+nameWidth, top+step*float64(len(all))+2)
	return b.String()
}

// clip shortens a name.
func clip(name string, most int) string {
	r := []rune(name)
	if len(r) <= most {
		return name
	}
	return string(r[:most-1]) + "…"
}

// nice is the smallest of 1, 2, 5, 10, 20, 50, … times step that is at least x.
func nice(x, step float64) float64 {
	for n := step; ; n *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if n*m >= x*(1-1e-9) {
				return n * m
			}
		}
	}
}

// histogram counts values in bins of a nice width, a multiple of step, from 0 on. The last bin takes all that is above the
// 99th percentile, so that a few long rows do not squeeze all others together; open says that it does.
func (d *Distribution) histogram(step float64) (counts []int, width float64, open bool) {
	width = nice(d.P99/bins, step)
	bin := func(v float64) int { return int(v/width + 1e-9) }
	counts = make([]int, bin(d.P99)+1)
	for _, v := range d.values {
		counts[min(len(counts)-1, bin(v))]++
	}
	return counts, width, bin(d.Max) >= len(counts)
}

// panel draws a histogram.
func (d *Distribution) panel(what, unit string, step float64) string {
	counts, width, open := d.histogram(step)
	most := 1
	for _, n := range counts {
		most = max(most, n)
	}
	var b strings.Builder
	text(&b, "title", "start", left, 22, what+", "+unit)
	text(&b, "note", "start", left, 40, fmt.Sprintf("rows; mean %s, median %s, largest %s", short(d.Mean), short(d.Median), short(d.Max)))
	const bottom = top + plotHeight
	grid := nice(float64(most)/4, 1)
	height := func(n float64) float64 { return plotHeight * n / float64(most) }
	for n := 0.0; n <= float64(most); n += grid {
		line(&b, "grid", left, bottom-height(n), left+plotWidth, bottom-height(n))
		text(&b, "note", "end", left-6, bottom-height(n)+4, visible.Count(int64(n)))
	}
	each := float64(plotWidth) / float64(len(counts))
	at := func(i int) string { return short(float64(i) * width) }
	for i, n := range counts {
		name := "from " + at(i) + " to below " + at(i+1)
		if open && i == len(counts)-1 {
			name = at(i) + " and more"
		}
		bar(&b, left+each*float64(i)+0.5, bottom-height(float64(n)), max(1, each-1), height(float64(n)), name, n)
	}
	line(&b, "", left, bottom, left+plotWidth, bottom)
	tick := max(1, int(nice(float64(len(counts))*width/7, width)/width+0.5))
	for i := 0; i <= len(counts); i += tick {
		if i == len(counts) && open { // what is behind the last bin has no end
			break
		}
		x := left + each*float64(i)
		line(&b, "", x, bottom, x, bottom+4)
		text(&b, "", "middle", x, bottom+18, at(i))
	}
	if open {
		text(&b, "note", "end", left+plotWidth, bottom+32, "last bar: "+at(len(counts)-1)+" and more")
	}
	return b.String()
}

// short writes a number with at most three digits behind the point.
func short(v float64) string {
	digits := 3
	if v >= 10 {
		digits = 1
	}
	return strconv.FormatFloat(math.Round(v*math.Pow10(digits))/math.Pow10(digits), 'f', -1, 64)
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(visible.Text(text))) // a Builder takes everything
	return b.String()
}
